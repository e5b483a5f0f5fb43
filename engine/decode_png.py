"""PNG and APNG: chunks read here, pixels by Pillow (zlib-ng).

Only the chunks that pixels depend on reach Pillow, in a file written anew: no text that unpacks
to gigabytes, no checksum that a careless editor forgot to change. Of an animation the default
picture is shown, as in programs that know nothing of APNG. Chunks: W3C PNG, third edition.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.decode_base import (
    MAX_PROFILE_BYTES,
    MEMORY_BYTES,
    DecodeLimits,
    Opened,
    Raster,
    check_frames,
    check_memory,
    check_pixels,
    damaged,
)
from engine.decode_raster import check_image, raster_of
from engine.orientation import exif_orientation

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngImageFile

__all__ = ["read_png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LAST_FILTER = 4
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type

# Unpacking is the one thing here that takes time: at most 2 s on a small server. A photo as large
# as a file may be has 40 MB.
_MOST_UNPACKED_BYTES = 320_000_000

# Encoders write 8 KB a chunk or more; this many allows 200 bytes each in the largest file.
_MOST_CHUNKS = 100_000


@dataclass(slots=True)
class _Chunks:
    """What is kept of a file."""

    header: bytes = b""
    palette: bytes | None = None
    transparency: bytes | None = None
    pixels: list[memoryview] = field(default_factory=list)
    exif: bytes = b""
    profile: bytes | None = None
    frames: int = 1


def read_png(data: bytes, limits: DecodeLimits) -> Opened:
    """A PNG file whose pixels are not decoded yet.

    A file that ends early is decoded if more than half of the rows arrived, unless it is
    interlaced.

    Raises:
        NotAnImage: If the header is damaged.
        TooLarge: If the picture exceeds the limits.
    """
    chunks = _chunks(data)
    if len(chunks.header) != 13 or not chunks.pixels:
        raise damaged("PNG")
    width, height = struct.unpack_from(">II", chunks.header)
    check_pixels(width, height, limits)
    check_frames(chunks.frames, limits)
    _check_unpacked(chunks.header)
    stream = b"".join(chunks.pixels)
    image = _opened(chunks, stream)
    check_image(image, "PNG")

    def load() -> Raster:
        try:
            image.load()
        except (OSError, SyntaxError):
            rows = _complete_rows(chunks.header, stream)
            if 2 * rows <= image.height:
                raise
            image.tile = []
            return raster_of(image, height_px=rows)
        return raster_of(image)

    orientation = exif_orientation(chunks.exif)
    return Opened("PNG", (width, height), orientation, chunks.profile, load)


def _chunks(data: bytes) -> _Chunks:
    chunks = _Chunks()
    view = memoryview(data)
    position = len(_SIGNATURE)
    for _ in range(_MOST_CHUNKS):
        if position + 8 > len(data):
            break
        length, name = struct.unpack_from(">I4s", data, position)
        content = view[position + 8 : position + 8 + length]
        if name == b"IEND":
            break
        if name == b"IDAT":
            chunks.pixels.append(content)
        else:
            _note(chunks, name, content)
        position += 12 + length
    return chunks


def _note(chunks: _Chunks, name: bytes, content: memoryview) -> None:
    """What a chunk without pixels says about the picture; the first of its name counts."""
    if name == b"IHDR" and not chunks.header:
        chunks.header = bytes(content)
    elif name == b"PLTE" and chunks.palette is None:
        chunks.palette = bytes(content)
    elif name == b"tRNS" and chunks.transparency is None:
        chunks.transparency = bytes(content)
    elif name == b"eXIf" and not chunks.exif:
        chunks.exif = bytes(content)
    elif name == b"acTL" and len(content) >= 4:
        (chunks.frames,) = struct.unpack_from(">I", content)
    elif name == b"iCCP" and chunks.profile is None:
        chunks.profile = _profile(bytes(content))


def _profile(content: bytes) -> bytes | None:
    """The ICC profile in an iCCP chunk: name, zero, method, zlib stream."""
    _, _, rest = content.partition(b"\0")
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(rest[1:], MAX_PROFILE_BYTES)
    except zlib.error:
        return None
    return profile if unpacker.eof else None


def _opened(chunks: _Chunks, stream: bytes) -> PngImageFile:
    # Not Image.open: it guesses formats and judges sizes by a global of Pillow.
    from PIL.PngImagePlugin import PngImageFile

    clean = [_SIGNATURE, *_chunk(b"IHDR", chunks.header)]
    if chunks.palette is not None:
        clean += _chunk(b"PLTE", chunks.palette)
    if chunks.transparency is not None and _transparency_fits(chunks):
        clean += _chunk(b"tRNS", chunks.transparency)
    clean += [*_chunk(b"IDAT", stream), *_chunk(b"IEND", b"")]
    return PngImageFile(io.BytesIO(b"".join(clean)))


def _chunk(name: bytes, content: bytes) -> list[bytes]:
    checksum = zlib.crc32(content, zlib.crc32(name))
    return [struct.pack(">I4s", len(content), name), content, struct.pack(">I", checksum)]


def _transparency_fits(chunks: _Chunks) -> bool:
    """Whether the tRNS chunk has the length its colour type asks for.

    Of 16-bit colours it is left out: Pillow compares their 16 bits with the upper 8 of a pixel.
    """
    assert chunks.transparency is not None
    depth, colour_type = chunks.header[8], chunks.header[9]
    if colour_type == 3:
        return len(chunks.transparency) <= 256
    wanted = {0: 2, 2: 6}.get(colour_type)
    return len(chunks.transparency) == wanted and depth <= 8


def _row_bytes(header: bytes) -> int:
    """Bytes of an unpacked row, its filter byte included."""
    (width,) = struct.unpack_from(">I", header)
    samples: int = width * _CHANNELS.get(header[9], 4)
    return 1 + (samples * header[8] + 7) // 8


def _check_unpacked(header: bytes) -> None:
    width, height = struct.unpack_from(">II", header)
    if _row_bytes(header) * height > _MOST_UNPACKED_BYTES:
        per_pixel = MEMORY_BYTES * _row_bytes(header) / width / _MOST_UNPACKED_BYTES
        check_memory(width * height, per_pixel, "PNG")


def _complete_rows(header: bytes, stream: bytes) -> int:
    """How many rows of a damaged or unfinished file are good; 0 if it is interlaced.

    A row is good if it can be unpacked and names one of the five filters.
    """
    if header[12]:
        return 0
    (height,) = struct.unpack_from(">I", header, 4)
    row_bytes = _row_bytes(header)
    unpacker, unpacked = zlib.decompressobj(), 0
    with contextlib.suppress(zlib.error):
        # Small bites: the one in which the stream breaks is lost.
        for start in range(0, len(stream), 1024):
            bite = unpacker.decompress(stream[start : start + 1024])
            filters = bite[-unpacked % row_bytes :: row_bytes]
            bad = next((row for row, name in enumerate(filters) if name > _LAST_FILTER), None)
            if bad is not None:
                return min(int(height), -(-unpacked // row_bytes) + bad)
            unpacked += len(bite)
            if unpacked >= row_bytes * height:
                break
    return min(int(height), unpacked // row_bytes)
