"""Reads untrusted bytes as a picture: Pillow and pillow-heif behind declared limits.

The only code that opens pictures that people send. It runs in worker processes that
``engine.decode`` starts (:func:`serve`), so that a codec that crashes, hangs or swells costs one
photo. Header limits are checked before a pixel is decoded; what a header does not tell is left to
the limits that the kernel keeps. No global of Pillow is set but in :func:`serve`.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import mmap
import os
import re
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.decode import READABLE, DecodeLimits
from engine.errors import NotAnImage, PhotoProblem, TooLarge

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Picture", "exif_orientation", "oriented", "read", "serve"]

_MEMORY_BYTES = 400_000_000  # of one picture while it is decoded, as far as its header tells
_LONGEST_SIDE_PX = 40_000  # libraries keep about 8 bytes a row beside the pixels
_MAX_PROFILE_BYTES = 4_000_000  # the largest in use, of printing presses, have about 2.7 MB

# A JPEG scan can have a few bytes and still makes the decoder visit every pixel: about 1 ns each.
_MOST_JPEG_VISITS = 1_000_000_000
_GREY_ROWS = 64  # rows of blocks in which a JPEG file ended: at most 32, at full size

_MOST_PNG_CHUNKS = 100_000  # encoders write 8 KB a chunk or more
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"eXIf")  # besides the pixels, in this order

_SHORTEST_GIF_FRAME_BYTES = 12

# None, three kinds of fax, LZW, JPEG, Deflate by two numbers, PackBits, LZMA, Zstandard. Not JPEG
# as of TIFF 6.0 (compression 6), which raw files of cameras use and libtiff only guesses at.
_TIFF_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32_773, 32_946, 34_925, 50_000})

# Bytes that a pixel takes while its format is decoded, as measured; "rich": more than 8 bits, more
# colour than 4:2:0, or alpha. Without an entry: what Pillow's picture takes.
_BYTES_PER_PIXEL = {
    "WebP": (17.0, 17.0),
    "AVIF": (9.3, 14.0),
    "HEIC": (5.2, 12.0),
}
_BYTES_PER_MODE = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}

# An entry of the item table (box "infe", version 2 or 3, flags, number, protection) of type Exif.
_AVIF_EXIF = re.compile(rb"(infe(?:\x02.{5}|\x03.{7})..)Exif", re.DOTALL)

_STRIP_PIXELS = 24_000  # at 4 bytes below 128 KB, from where on malloc asks the system for memory
_WHITES_16 = (255, 1_023, 4_095, 16_383, 65_535)  # white of 8, 10, 12, 14 and 16 bits in 16

# At a slighter reduction than this cubic interpolation does not alias and keeps more detail than
# averaging (54 against 48 dB of a Lanczos reduction at 0.99, in a quarter of the time).
_CUBIC_FROM = 0.8

_LAB_OFFSET = np.array([0, 128, 128], np.uint8)  # a and b are signed in Pillow, here they are not

Kind = Literal["L", "RGB", "CMYK", "LAB"]


@dataclass(frozen=True, slots=True)
class Picture:
    """What was read.

    Attributes:
        pixels: uint8 (h, w, 3), sRGB, upright, C-contiguous, owned.
        source_size_px: Width and height of the picture in the file, upright, as far as it arrived.
        format: Name of the file format.
    """

    pixels: NDArray[np.uint8]
    source_size_px: tuple[int, int]
    format: str


@dataclass(frozen=True, slots=True)
class _Decoded:
    """A picture at the size at which it was decoded; rows are converted when they are asked for.

    Attributes:
        size_px: Width and height.
        kind: Meaning of the channels; ``"L"`` has rows (h, w), the others (h, w, 3 or 4).
        rows: Rows ``first`` (included) to ``last`` (excluded) as uint8.
        orientation: EXIF orientation, 1 to 8.
        profile: ICC profile, not checked; None if there is none.
        shrink: How many pixels of the file in each direction became one.
    """

    size_px: tuple[int, int]
    kind: Kind
    rows: Callable[[int, int], NDArray[np.uint8]]
    orientation: int = 1
    profile: bytes | None = None
    shrink: int = 1


def read(data: bytes, limits: DecodeLimits) -> Picture:
    """The picture in untrusted bytes: upright, in sRGB, what is transparent white, reduced.

    Of files with several pictures the first (of HEIC the primary one).

    Raises:
        NotAnImage: If there is no picture, none of a kind that is read, or a damaged one.
        TooLarge: If the file exceeds the limits.
    """
    if len(data) > limits.max_bytes:
        limit = f"{limits.max_bytes / 1e6:.3g} MB"
        raise TooLarge(f"the file has more than {limit}", what="bytes", limit=limit)
    if not data:
        raise NotAnImage("the file is empty; send the photo again", reason="damaged", found=None)
    name = _format_of(data)
    try:
        return _picture(name, *_READERS[name](data, limits), limits.long_side_px)
    except PhotoProblem:
        raise
    except MemoryError as exc:
        message = f"the {name} picture takes more memory than there is; send a smaller one"
        raise TooLarge(message, what="memory") from exc
    except Exception as exc:
        # Decoders raise almost anything for bytes made to confuse them: OSError, SyntaxError,
        # ValueError, struct.error, zlib.error, RuntimeError, cv2.error, RecursionError, ...
        raise _damaged(name) from exc


def _picture(name: str, size_px: tuple[int, int], decoded: _Decoded, long_side_px: int) -> Picture:
    height = min(size_px[1], decoded.size_px[1] * decoded.shrink)  # fewer rows may have arrived
    pixels = _to_srgb(_reduced(decoded, long_side_px), decoded.kind, decoded.profile)
    source = (size_px[0], height) if decoded.orientation < 5 else (height, size_px[0])
    return Picture(oriented(np.ascontiguousarray(pixels), decoded.orientation), source, name)


def serve(memory_bytes: int, shared_fd: int | None) -> None:
    """The loop of a worker process: a file in, its pixels or its problem out, until stdin ends.

    Request: limits as JSON, then the file, each after 4 bytes of length. Answer: 4 bytes length,
    then JSON; pixels follow in the memory behind ``shared_fd``, or on stdout where there is none.

    Args:
        memory_bytes: What this process may take beyond what it has now.
        shared_fd: Of memory that is shared with the process that asks.
    """
    from PIL import Image, JpegImagePlugin  # noqa: F401 - for nearly every photo

    memory: Any = Image.core  # type: ignore[attr-defined] # documented: Pillow's block cache

    cv2.setNumThreads(1)
    Image.MAX_IMAGE_PIXELS = None  # checked here
    memory.set_blocks_max(1)  # a new picture takes the last one's memory
    shared = None if shared_fd is None else mmap.mmap(shared_fd, 0)
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    _limit_memory(memory_bytes)
    _answer(stdout, {"ready": True})
    while asked := _received(stdin):
        limits = DecodeLimits(**json.loads(asked))
        data = _received(stdin)
        _limit_time(limits)
        try:
            picture = read(data, limits)
        except PhotoProblem as problem:
            _answer(stdout, _told(problem))
            continue
        finally:
            del data
        height, width = picture.pixels.shape[:2]
        if shared is not None:
            place = np.frombuffer(shared, np.uint8, picture.pixels.size)
            np.copyto(place.reshape(picture.pixels.shape), picture.pixels)
        if max(picture.source_size_px) > 2 * limits.long_side_px:
            memory.clear_cache()
        shape = {"size": [width, height], "source_size": picture.source_size_px}
        _answer(stdout, {**shape, "format": picture.format, "resident": _resident_bytes()})
        if shared is None:
            stdout.write(picture.pixels.data)
            stdout.flush()
        del picture


def _received(stdin: Any) -> bytes:
    """One message; empty where there is none any more."""
    header = stdin.read(4)
    return bytes(stdin.read(struct.unpack("<I", header)[0])) if len(header) == 4 else b""


def _answer(stdout: Any, answer: dict[str, Any]) -> None:
    text = json.dumps(answer).encode()
    stdout.write(struct.pack("<I", len(text)) + text)
    stdout.flush()


def _told(problem: PhotoProblem) -> dict[str, Any]:
    details = {name: value for name, value in problem.details.items() if value is not None}
    return {
        "problem": type(problem).__name__,
        "message": str(problem),
        "details": {name: str(value) for name, value in details.items()},
        "resident": _resident_bytes(),
    }


def _limit_memory(memory_bytes: int) -> None:
    """Bounds the address space, and forbids files and core dumps, where the system can."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - no pathlib in a worker
            pages = int(file.read().split()[0])
        most = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _limit_time(limits: DecodeLimits) -> None:
    """Lets the kernel end the process when this picture has used up its processor time."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        most = math.ceil(sum(os.times()[:2]) + limits.seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _resident_bytes() -> int:
    with (
        contextlib.suppress(OSError, ValueError),
        open("/proc/self/statm", "rb") as file,  # noqa: PTH123 - no pathlib in a worker
    ):
        return int(file.read().split()[1]) * mmap.PAGESIZE
    return 0


# What a file is, by its first bytes; names and types that senders claim are not believed.

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (_PNG_SIGNATURE, "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II\x2a\0", "TIFF"),
    (b"MM\0\x2a", "TIFF"),
    (b"II\x2b\0", "TIFF"),
    (b"MM\0\x2b", "TIFF"),
)
_BMP_HEADER_BYTES = frozenset({12, 40, 52, 56, 64, 108, 124})  # "BM" alone may begin a text

# Brands of AVIF and of ISO/IEC 23008-12 (HEIF), annex B. The general ones, mif1 and msf1, are used
# by both and say nothing of the codec.
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIC_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
)

# What people also send, so that the answer can name it.
_OTHERS = (
    (b"%PDF", "a PDF document"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"OggS", "a sound or video"),
    (b"ID3", "a sound"),
    (b"8BPS", "a Photoshop document"),
    (b"PK\x03\x04", "a ZIP archive or office document"),
    (b"\x1f\x8b", "a compressed file or animated sticker"),
    (b"\0\0\x01\0", "an icon"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"FUJIFILM", "a camera's raw file"),
    (b"{\\rtf", "a text document"),
)


def _format_of(data: bytes) -> str:
    """The format that the first bytes announce, a key of ``_READERS``.

    Raises:
        NotAnImage: If it is none of those; the sentence says what it is instead, where that can
            be seen, and what can be read.
    """
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADER_BYTES:
        return "BMP"
    brands: frozenset[bytes] = frozenset()
    if data[4:8] == b"ftyp":  # the file type box of an ISO base media file
        size = min(int.from_bytes(data[:4], "big"), 1_024, len(data))
        brands = frozenset([data[8:12], *(data[at : at + 4] for at in range(16, size - 3, 4))])
    if brands & _AVIF_BRANDS:
        return "AVIF"
    if brands & _HEIC_BRANDS:
        return "HEIC"
    what = _other(data, brands)
    raise NotAnImage(
        f"{f'the file is {what}' if what else 'the file is no picture that can be read'}; "
        f"send a photo as {READABLE.replace(' and ', ' or ')}",
        reason="kind",
        found=what,
    )


def _other(data: bytes, brands: frozenset[bytes]) -> str | None:
    """What a file that can't be read is, if that can be seen."""
    if brands:
        return "a camera's raw file" if b"crx " in brands else "a video"
    if data[:4] == b"RIFF":
        return {b"AVI ": "a video", b"WAVE": "a sound"}.get(data[8:12])
    for signature, what in _OTHERS:
        if data.startswith(signature):
            return what
    text = data[:1_024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in text:
        return "an SVG drawing"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "a web page"
    return "a text document" if text.startswith((b"<?xml", b"<!doctype", b"{", b"[")) else None


# Readers of the formats: data and limits -> size as stored, picture. Plugins of Pillow are used
# directly: Image.open guesses formats and judges sizes by a global of Pillow.


def _read_jpeg(data: bytes, limits: DecodeLimits) -> tuple[tuple[int, int], _Decoded]:
    """A JPEG file, large ones at 1/2, 1/4 or 1/8.

    A file that ends early is decoded if more than half of the rows arrived: people do send
    half-downloaded photos, faces are mostly in the upper half, and chats show them.
    """
    image = _opened_jpeg(data)
    size = width, height = image.size
    _check_size(size, limits)
    if data.count(b"\xff\xda") * width * height > max(_MOST_JPEG_VISITS, 3 * limits.max_pixels):
        raise NotAnImage("the JPEG file has too many scans", reason="damaged", found="JPEG")
    shrinks = (
        shrink
        for shrink in (8, 4, 2)
        if max(size) >= shrink * limits.long_side_px and min(size) >= shrink
    )
    shrink = next(shrinks, 1)
    # A progressive file's coefficients are kept until its last scan, 2 bytes each.
    coefficients = 2.0 * len(image.layer) if image.info.get("progressive") else 0.0
    _check_memory(size, coefficients + 4 / shrink**2, "JPEG")
    _draft(image, shrink)
    try:
        image.load()
        rows = image.height
    except OSError:
        # End the file for libjpeg, which makes grey of what is missing.
        image = _opened_jpeg(data + b"\xff\xd9")
        _draft(image, shrink)
        image.load()
        rows = _rows_before_grey(image)
        if 2 * rows <= image.height:
            raise
    return size, _decoded(image, rows=rows, shrink=shrink)


def _opened_jpeg(data: bytes) -> Any:
    from PIL.JpegImagePlugin import JpegImageFile

    image = JpegImageFile(io.BytesIO(data))
    image.decodermaxblock = len(data)  # in one piece: what is not used yet would be copied again
    return image


def _draft(image: Any, shrink: int) -> None:
    if shrink > 1:
        image.draft(None, (image.width // shrink, image.height // shrink))


def _rows_before_grey(image: Image.Image) -> int:
    """How many rows come before those that are grey to their end, as blocks that never came."""
    step = 256
    for last in range(image.height, 0, -step):
        first = max(0, last - step)
        box = max(0, image.width - 4), first, image.width, last
        ends = np.asarray(image.crop(box).convert("RGB"))
        seen = (ends != 128).any(axis=(1, 2)).nonzero()[0]
        if len(seen):
            return first + int(seen[-1]) + 1
    return 0


def _read_png(data: bytes, limits: DecodeLimits) -> tuple[tuple[int, int], _Decoded]:
    """A PNG file, of an animation the default picture.

    Only chunks that pixels depend on reach Pillow, with the right checksums: no text that unpacks
    to gigabytes, no checksum that a careless editor forgot. A file that ends early is decoded if
    more than half of the rows arrived, unless it is interlaced. Chunks: W3C PNG, third edition.
    """
    chunks, stream, frames = _png_chunks(data)
    header = chunks.get(b"IHDR", b"")
    if len(header) != 13:
        raise _damaged("PNG")
    size = struct.unpack_from(">II", header)
    _check_size(size, limits)
    _check_frames(frames, limits)
    if not stream:
        raise _damaged("PNG")
    if header[8] == 16:
        chunks.pop(b"tRNS", None)  # Pillow compares its 16 bits with the upper 8 of a pixel
    try:
        image = _opened_png(chunks, stream)
    except Exception:  # noqa: BLE001 - a profile or transparency that makes no sense
        image = _opened_png(
            {name: chunks[name] for name in chunks if name in _PNG_CHUNKS[:2]}, stream
        )
    _check_memory(size, _BYTES_PER_MODE.get(image.mode, 4), "PNG")
    try:
        image.load()
        rows = image.height
    except (OSError, SyntaxError):
        # Rows that never came are still as Pillow made them: 0 in every channel.
        image.tile = []
        arrived = None if header[12] else image.getbbox(alpha_only=False)
        rows = arrived[3] if arrived else 0
        if 2 * rows <= image.height:
            raise
    return size, _decoded(image, rows=rows)


def _png_chunks(data: bytes) -> tuple[dict[bytes, bytes], bytes, int]:
    """The first chunk of each name in ``_PNG_CHUNKS``, the pixels' stream, the count of frames."""
    chunks: dict[bytes, bytes] = {}
    pixels: list[memoryview] = []
    frames = 1
    view, position = memoryview(data), len(_PNG_SIGNATURE)
    for _ in range(_MOST_PNG_CHUNKS):
        if position + 8 > len(data):
            break
        length, name = struct.unpack_from(">I4s", data, position)
        content = view[position + 8 : position + 8 + length]
        if name == b"IEND":
            break
        if name == b"IDAT":
            pixels.append(content)
        elif name in _PNG_CHUNKS:
            chunks.setdefault(name, bytes(content))
        elif name == b"acTL" and len(content) >= 4:
            (frames,) = struct.unpack_from(">I", content)
        position += 12 + length
    return chunks, b"".join(pixels), frames


def _opened_png(chunks: dict[bytes, bytes], stream: bytes) -> Any:
    from PIL.PngImagePlugin import PngImageFile

    parts = [_PNG_SIGNATURE]
    ordered = [(name, chunks[name]) for name in _PNG_CHUNKS if name in chunks]
    for name, content in (*ordered, (b"IDAT", stream), (b"IEND", b"")):
        checksum = zlib.crc32(content, zlib.crc32(name))
        parts += [struct.pack(">I4s", len(content), name), content, struct.pack(">I", checksum)]
    return PngImageFile(io.BytesIO(b"".join(parts)))


def _read_gif(data: bytes, limits: DecodeLimits) -> tuple[tuple[int, int], _Decoded]:
    from PIL.GifImagePlugin import GifImageFile

    colours = 6 << (data[10] & 7) if len(data) > 13 and data[10] & 0x80 else 0
    block = re.compile(rb"[!,;]").search(data, 13 + colours)  # stray bytes before it are skipped
    if block is None:
        raise _damaged("GIF")
    image = GifImageFile(io.BytesIO(data[: 13 + colours] + data[block.start() :]))
    _check_image(image, "GIF", limits)
    if len(data) > limits.max_frames * _SHORTEST_GIF_FRAME_BYTES:
        _check_frames(image.n_frames, limits)
        image.seek(0)
    image.load()
    return image.size, _decoded(image)


def _read_tiff(data: bytes, limits: DecodeLimits) -> tuple[tuple[int, int], _Decoded]:
    """The first page of a TIFF or BigTIFF file."""
    from PIL.TiffImagePlugin import TiffImageFile

    image = TiffImageFile(io.BytesIO(data))
    tags: Any = image.tag_v2
    if int(tags.get(259, 1)) not in _TIFF_COMPRESSIONS:
        message = "the TIFF file is compressed in a way that is not read; send it as JPEG or PNG"
        raise NotAnImage(message, reason="variety", found="TIFF")
    _check_image(image, "TIFF", limits)
    frames = 1
    with contextlib.suppress(
        OSError, ValueError, SyntaxError, LookupError, TypeError, struct.error
    ):
        frames = TiffImageFile(io.BytesIO(data)).n_frames  # broken later pages do not matter
    _check_frames(frames, limits)
    image.load()
    orientation = tags.get(274, 1)
    orientation = orientation if orientation in range(1, 9) else 1
    return image.size, _decoded(image, orientation=orientation, full_range=False)


def _read_bmp(data: bytes, limits: DecodeLimits) -> tuple[tuple[int, int], _Decoded]:
    from PIL.BmpImagePlugin import BmpImageFile

    image = BmpImageFile(io.BytesIO(data))
    _check_image(image, "BMP", limits)
    image.load()
    return image.size, _decoded(image)


def _read_webp(data: bytes, limits: DecodeLimits) -> tuple[tuple[int, int], _Decoded]:
    """A WebP file, of an animation the first frame. Sizes: RFC 9649, sections 2.5 to 2.7."""
    from PIL.WebPImagePlugin import WebPImageFile

    if len(data) < 30:
        raise _damaged("WebP")
    if data[12:16] == b"VP8X":  # Pillow makes two canvases of this size before it tells it
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        _check_size((width, height), limits)
        _check_memory((width, height), _BYTES_PER_PIXEL["WebP"][0], "WebP")
    image = WebPImageFile(io.BytesIO(data))
    _check_image(image, "WebP", limits)
    _check_frames(image.n_frames, limits)
    image.load()
    return image.size, _decoded(image)


def _read_heic(data: bytes, limits: DecodeLimits) -> tuple[tuple[int, int], _Decoded]:
    """The primary picture of a HEIC file.

    The container says how it is turned, and its EXIF orientation is a note without effect (MIAF,
    ISO/IEC 23000-22, 7.3.9), which libheif and Chrome follow, too.
    """
    import pillow_heif

    heif = pillow_heif.open_heif(data)  # not register_heif_opener, which changes Pillow
    _check_frames(len(heif), limits)
    picture = heif[heif.primary_index]
    _check_size(picture.size, limits)
    info = picture.info
    rich = info.get("bit_depth", 8) > 8 or info.get("chroma", 420) != 420 or picture.has_alpha
    _check_memory(picture.size, _BYTES_PER_PIXEL["HEIC"][rich], "HEIC")
    pixels: NDArray[Any] = np.asarray(picture)
    mode = picture.mode.partition(";")[0]

    def rows(first: int, last: int) -> NDArray[np.uint8]:
        sixteen = pixels.dtype != np.uint8
        strip = np.ascontiguousarray(pixels[first:last] >> (8 if sixteen else 0), np.uint8)
        if not mode.endswith(("A", "a")):  # a small a means premultiplied alpha
            return strip
        from PIL import Image

        return _opaque(
            Image.frombuffer(mode, (pixels.shape[1], last - first), strip, "raw", mode, 0, 1)
        )

    kind: Kind = "L" if pixels.ndim == 2 else "RGB"
    return picture.size, _Decoded(picture.size, kind, rows, 1, info.get("icc_profile"))


def _read_avif(data: bytes, limits: DecodeLimits) -> tuple[tuple[int, int], _Decoded]:
    """An AVIF file, of a sequence the first picture; the container says how it is turned."""
    from PIL.AvifImagePlugin import AvifImageFile

    # Pillow parses EXIF here, and fails or warns if it is broken: hide it.
    image = AvifImageFile(io.BytesIO(_AVIF_EXIF.sub(rb"\1skip", data)))
    _check_image(image, "AVIF", limits)
    _check_frames(image.n_frames, limits)
    image.load()
    return image.size, _decoded(image)


_READERS: dict[str, Callable[[bytes, DecodeLimits], tuple[tuple[int, int], _Decoded]]] = {
    "AVIF": _read_avif,
    "BMP": _read_bmp,
    "GIF": _read_gif,
    "HEIC": _read_heic,
    "JPEG": _read_jpeg,
    "PNG": _read_png,
    "TIFF": _read_tiff,
    "WebP": _read_webp,
}


def _check_image(image: Image.Image, name: str, limits: DecodeLimits) -> None:
    """Passes an opened picture whose size is within the limits; its pixels are not decoded yet."""
    _check_size(image.size, limits)
    plain, rich = _BYTES_PER_PIXEL.get(name, (0.0, 0.0))
    measured = plain if image.mode == "RGB" else rich
    _check_memory(image.size, measured or _BYTES_PER_MODE.get(image.mode, 4), name)


def _check_size(size_px: tuple[int, int], limits: DecodeLimits) -> None:
    width, height = size_px
    if width <= 0 or height <= 0:
        raise NotAnImage("the picture has no pixels", reason="damaged")
    if width * height > limits.max_pixels:
        raise _too_many_pixels(limits.max_pixels)
    if max(size_px) > _LONGEST_SIDE_PX:
        limit = f"{_LONGEST_SIDE_PX:,} pixels"
        message = f"the picture is longer than {limit}; send a part of it"
        raise TooLarge(message, what="pixels", limit=limit)


def _check_memory(size_px: tuple[int, int], bytes_per_pixel: float, name: str) -> None:
    if size_px[0] * size_px[1] * bytes_per_pixel > _MEMORY_BYTES:
        raise _too_many_pixels(int(_MEMORY_BYTES / bytes_per_pixel), f"{name} ")


def _check_frames(frames: int, limits: DecodeLimits) -> None:
    if frames > limits.max_frames:
        limit = f"{limits.max_frames:,} frames"
        raise TooLarge(f"the animation has more than {limit}", what="frames", limit=limit)


def _too_many_pixels(most_pixels: int, name: str = "") -> TooLarge:
    limit = f"{most_pixels / 1e6:.3g} megapixels"
    message = f"the {name}picture has more than {limit}; send a smaller one"
    return TooLarge(message, what="pixels", limit=limit)


def _damaged(name: str) -> NotAnImage:
    return NotAnImage(
        f"the {name} file is damaged, incomplete or of a rare variety; send another one",
        reason="damaged",
        found=name,
    )


# Any pixel type -> 8 bits without alpha, reduced, strip by strip: a picture of 100 megapixels
# exists once, as its library decoded it. For small ones that is the quickest way, too: memory for a
# strip is at hand (5 ms against 10 ms for a JPEG of 1280 x 960).


def _decoded(
    image: Image.Image,
    *,
    rows: int | None = None,
    shrink: int = 1,
    orientation: int | None = None,
    full_range: bool = True,
) -> _Decoded:
    """A loaded Pillow picture of any mode.

    Args:
        image: Loaded.
        rows: How many to take, from the top; all by default.
        shrink: How many pixels of the file in each direction became one.
        orientation: 1 to 8; by default what ``info["exif"]`` says.
        full_range: Whether 16-bit samples use all 16 bits; otherwise their white is guessed.
    """
    kind, convert = _converter(image, full_range=full_range)
    if orientation is None:
        orientation = exif_orientation(image.info.get("exif", b""))
    return _Decoded(
        (image.width, rows or image.height),
        kind,
        lambda first, last: convert(image.crop((0, first, image.width, last))),
        orientation,
        image.info.get("icc_profile"),
        shrink,
    )


_Convert = Callable[["Image.Image"], NDArray[np.uint8]]


def _converter(image: Image.Image, *, full_range: bool) -> tuple[Kind, _Convert]:
    """What kind of picture a mode becomes, and how a strip of it is converted."""
    mode = image.mode
    if mode.startswith("I;16"):
        return "L", _scaled(0.0, 65_535.0 if full_range else _white_16(image))
    if mode in {"I", "F"}:
        return "L", _scaled(*_black_and_white(image))
    simple: dict[str, tuple[Kind, Callable[[Any], Any]]] = {
        "1": ("L", lambda strip: np.asarray(strip.convert("L"))),
        "L": ("L", np.asarray),
        "CMYK": ("CMYK", np.asarray),
        "LAB": ("LAB", lambda strip: np.asarray(strip) ^ _LAB_OFFSET),
    }
    if image.has_transparency_data or mode in {"La", "RGBa", "PA"}:
        return "RGB", _opaque
    return simple.get(mode, ("RGB", lambda strip: np.asarray(strip.convert("RGB"))))


def _opaque(strip: Image.Image) -> NDArray[np.uint8]:
    """A strip with any kind of alpha on white, as a chat shows it: uint8 (h, w, 3)."""
    from PIL import Image

    if strip.mode == "La":  # grey, premultiplied: Pillow converts it to nothing else
        strip = strip.convert("LA")
    strip = strip.convert("RGBA")
    white = Image.new("RGB", strip.size, (255, 255, 255))
    white.paste(strip, mask=strip)
    return np.asarray(white)


def _scaled(black: float, white: float) -> _Convert:
    factor = 255.0 / (white - black)

    def convert(strip: Image.Image) -> NDArray[np.uint8]:
        samples = np.nan_to_num(
            np.asarray(strip).astype(np.float64), nan=black, posinf=white, neginf=black
        )
        return np.clip((samples - black) * factor + 0.5, 0, 255).astype(np.uint8)

    return convert


def _white_16(image: Image.Image) -> float:
    brightest = max(int(samples.max()) for samples in _strips(image))
    return float(next(white for white in _WHITES_16 if brightest <= white))


def _black_and_white(image: Image.Image) -> tuple[float, float]:
    """The samples that become 0 and 255: the ends of a usual range, else the extremes."""
    lowest, highest = math.inf, -math.inf
    for samples in _strips(image):
        finite = samples[np.isfinite(samples)]
        if finite.size:
            lowest, highest = min(lowest, float(finite.min())), max(highest, float(finite.max()))
    usual_whites = (255.0, 65_535.0) if image.mode == "I" else (1.0, 255.0, 65_535.0)
    if lowest >= 0.0:
        lowest = 0.0
        highest = next((white for white in usual_whites if highest <= white), highest)
    return (lowest, highest) if lowest < highest else (0.0, 1.0)


def _strips(image: Image.Image) -> Iterator[NDArray[Any]]:
    step = max(1, _STRIP_PIXELS // image.width)
    for first in range(0, image.height, step):
        yield np.asarray(image.crop((0, first, image.width, min(first + step, image.height))))


def _reduced(decoded: _Decoded, long_side_px: int) -> NDArray[np.uint8]:
    """All of a picture, averaged down to a long side of at most ``long_side_px``.

    Returns:
        uint8 (h, w) for kind ``"L"``, else (h, w, channels); C-contiguous and owned.
    """
    width, height = decoded.size_px
    pixels = _averaged(decoded, max(1, max(width, height) // long_side_px))
    scale = long_side_px / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if scale >= 1.0 or size == (pixels.shape[1], pixels.shape[0]):
        return pixels
    slight = max(size) >= _CUBIC_FROM * max(pixels.shape[:2]) and min(pixels.shape[:2]) > 1
    interpolation = cv2.INTER_CUBIC if slight else cv2.INTER_AREA
    return np.asarray(cv2.resize(pixels, size, interpolation=interpolation), np.uint8)


def _averaged(decoded: _Decoded, factor: int) -> NDArray[np.uint8]:
    """A picture with ``factor`` x ``factor`` pixels averaged into one, rounded up at the edges."""
    width, height = (math.ceil(side / factor) for side in decoded.size_px)
    step = factor * max(1, _STRIP_PIXELS // (decoded.size_px[0] * factor))
    pixels: NDArray[np.uint8] = np.empty(0, np.uint8)
    for first in range(0, decoded.size_px[1], step):
        strip = decoded.rows(first, min(first + step, decoded.size_px[1]))
        if not pixels.size:
            pixels = np.empty((height, width, *strip.shape[2:]), np.uint8)
        top, bottom = first // factor, math.ceil((first + strip.shape[0]) / factor)
        if factor > 1:
            size = width, bottom - top
            strip = np.asarray(cv2.resize(strip, size, interpolation=cv2.INTER_AREA), np.uint8)
        pixels[top:bottom] = strip
    return pixels


# Any kind of colour -> sRGB, by the embedded profile where it says something; a broken profile is
# ignored.


def _to_srgb(pixels: NDArray[np.uint8], kind: Kind, profile: bytes | None) -> NDArray[np.uint8]:
    """A picture in sRGB: uint8 (h, w, 3), C-contiguous.

    Args:
        pixels: (h, w) for ``"L"``, else (h, w, 3 or 4).
        kind: Meaning of the channels.
        profile: Embedded ICC profile. Used for RGB and CMYK if it fits the channels and is not
            sRGB itself; greys are taken as they are.
    """
    if kind == "L":
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB), np.uint8)
    usable = _says_something(profile, kind)
    if kind == "RGB" and not usable:
        return pixels
    from PIL import Image

    if kind == "LAB":
        pixels = pixels ^ _LAB_OFFSET
    size = pixels.shape[1], pixels.shape[0]
    image = Image.frombuffer(kind, size, np.ascontiguousarray(pixels), "raw", kind, 0, 1)
    converted = _by_profile(image, profile) if usable or kind == "LAB" else None
    if converted is None:
        # Pillow has no LAB -> RGB of its own: without its colour engine the lightness remains.
        converted = (image.getchannel(0) if kind == "LAB" else image).convert("RGB")
    return np.array(converted)


def _says_something(profile: bytes | None, kind: Kind) -> bool:
    """Whether a profile is of that kind (ICC.1:2022, 7.2.6) and another than sRGB."""
    channels = {"RGB": b"RGB ", "CMYK": b"CMYK"}.get(kind)
    if not isinstance(profile, bytes) or not 128 <= len(profile) <= _MAX_PROFILE_BYTES:
        return False
    srgb = b"sRGB" in profile or "sRGB".encode("utf-16-be") in profile
    return profile[16:20] == channels and not srgb


def _by_profile(image: Image.Image, profile: bytes | None) -> Image.Image | None:
    """An image converted from its profile (of LAB: CIE L*a*b*) to sRGB; None if that fails."""
    from PIL import ImageCms

    try:
        if image.mode == "LAB":
            source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        else:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile or b""))
        target = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, target, image.mode, "RGB")
        return ImageCms.applyTransform(image, transform)
    except (ImportError, OSError, TypeError, ValueError, ImageCms.PyCMSError):
        return None


def exif_orientation(exif: bytes) -> int:
    r"""The orientation in an EXIF block, 1 to 8; 1 where there is none or the block is broken.

    EXIF 2.32 (CIPA DC-008), tag 274: where row 0 and column 0 of the stored picture are seen. Only
    the directory entry itself is read, so that damage anywhere else does not matter (Pillow's
    ``exif_transpose`` parses, and writes again, everything).

    Args:
        exif: A TIFF structure, with or without ``Exif\0\0`` before it.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    with contextlib.suppress(struct.error):
        (directory,) = struct.unpack_from(f"{order or '<'}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order or '<'}H", exif, directory)
        for position in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind, _ = struct.unpack_from(f"{order or '<'}HHI", exif, position)
            letter = {1: "B", 3: "H", 4: "I"}.get(kind)  # BYTE, SHORT, LONG; writers use all three
            if order and tag == 274 and letter:
                (value,) = struct.unpack_from(f"{order}{letter}", exif, position + 8)
                return int(value) if 1 <= value <= 8 else 1
    return 1


def oriented(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """A picture stored with that orientation, put upright: uint8 (h, w, 3), C-contiguous."""
    turn: dict[int, Callable[[Any], Any]] = {
        2: lambda stored: cv2.flip(stored, 1),
        3: lambda stored: cv2.rotate(stored, cv2.ROTATE_180),
        4: lambda stored: cv2.flip(stored, 0),
        5: cv2.transpose,
        6: lambda stored: cv2.rotate(stored, cv2.ROTATE_90_CLOCKWISE),
        7: lambda stored: cv2.flip(cv2.transpose(stored), -1),
        8: lambda stored: cv2.rotate(stored, cv2.ROTATE_90_COUNTERCLOCKWISE),
    }
    if orientation not in turn:
        return pixels
    return np.ascontiguousarray(turn[orientation](pixels), np.uint8)
