"""TIFF and BigTIFF: directories read here, pixels of the first page by Pillow (libtiff).

The first page's directory is written anew with nothing but checked tags that pixels depend on,
as a classic TIFF behind the same data: no metadata that Pillow warns of, no counts that make it
allocate gigabytes, no offsets beyond the file. Tags: TIFF 6.0 (Adobe, 1992) and its supplements;
BigTIFF: Aware Systems' description of the format.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
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
from engine.errors import NotAnImage

if TYPE_CHECKING:
    from PIL.TiffImagePlugin import TiffImageFile

__all__ = ["read_tiff"]

_WIDTH, _HEIGHT, _BITS, _COMPRESSION = 256, 257, 258, 259
_STRIP_OFFSETS, _ORIENTATION, _SAMPLES, _ROWS_PER_STRIP = 273, 274, 277, 278
_TILE_WIDTH, _TILE_HEIGHT, _PROFILE = 322, 323, 34_675

# What pixels depend on, and how many values are believed. Photometric interpretation, fill order,
# strips' byte counts, planar configuration, fax options, predictor, palette, tiles, extra
# samples, sample format, JPEG tables and chroma subsampling join the tags above.
_MOST_STRIPS = 65_536
_MOST_VALUES = {
    _WIDTH: 1,
    _HEIGHT: 1,
    _BITS: 8,
    _COMPRESSION: 1,
    262: 1,
    266: 1,
    _STRIP_OFFSETS: _MOST_STRIPS,
    _SAMPLES: 1,
    _ROWS_PER_STRIP: 1,
    279: _MOST_STRIPS,
    284: 1,
    292: 1,
    293: 1,
    317: 1,
    320: 3 * 256,
    _TILE_WIDTH: 1,
    _TILE_HEIGHT: 1,
    324: _MOST_STRIPS,
    325: _MOST_STRIPS,
    338: 8,
    339: 8,
    347: 65_536,
    530: 2,
}

# None, three kinds of fax, LZW, JPEG, Deflate by two numbers, PackBits, LZMA, Zstandard. Not JPEG
# as of TIFF 6.0 (compression 6), which raw files of cameras use and libtiff only guesses at.
_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32_773, 32_946, 34_925, 50_000})

# How the tags are written: as SHORT or BYTE where libtiff insists, else as LONG.
_KINDS = dict.fromkeys((258, 259, 262, 266, 277, 284, 317, 320, 338, 339, 530), 3) | {347: 7}

# Colour and alpha, some more unused; of more Pillow complains in the log.
_MOST_SAMPLES = 6

# Tiles may be larger than a small picture, but not absurdly.
_LARGEST_TILE_PIXELS = 4_000_000

_ENTRY_FORMATS = {1: "B", 3: "H", 4: "I", 7: "B", 13: "I", 16: "Q", 18: "Q"}


@dataclass(frozen=True, slots=True)
class _Layout:
    """Byte order and the sizes in which classic TIFF and BigTIFF differ."""

    order: str
    count: str
    entry: str
    offset: str

    @property
    def entry_bytes(self) -> int:
        return struct.calcsize(f"{self.order}{self.entry}")


def read_tiff(data: bytes, limits: DecodeLimits) -> Opened:
    """The first page of a TIFF file whose pixels are not decoded yet.

    Raises:
        NotAnImage: If the directory is damaged, or the compression is one that is not read.
        TooLarge: If the picture exceeds the limits.
    """
    from PIL import Image

    layout, first = _layout(data)
    check_frames(sum(1 for _ in _directories(data, layout, first, limits.max_frames + 1)), limits)
    tags = _tags(data, layout, first)
    width, height = _one(tags, _WIDTH, 0), _one(tags, _HEIGHT, 0)
    check_pixels(width, height, limits)
    if _one(tags, _COMPRESSION, 1) not in _COMPRESSIONS:
        message = "the TIFF file is compressed in a way that is not read; send it as JPEG or PNG"
        raise NotAnImage(message, reason="variety", found="TIFF")
    if Image.MAX_IMAGE_PIXELS:  # above it Pillow warns, once a TIFF is decoded
        check_memory(width * height, MEMORY_BYTES / Image.MAX_IMAGE_PIXELS, "TIFF")
    if _one(tags, _SAMPLES, 1) > _MOST_SAMPLES:
        raise damaged("TIFF")
    orientation = _one(tags, _ORIENTATION, 1)
    profile = bytes(tags.pop(_PROFILE, ())) or None
    image = _opened(data, layout, {tag: tags[tag] for tag in _MOST_VALUES if tag in tags})
    check_image(image, "TIFF", extra_bytes=_strip_bytes(tags, width, height) / (width * height))

    def load() -> Raster:
        image.load()
        return raster_of(image, full_range=False)

    orientation = orientation if 1 <= orientation <= 8 else 1
    return Opened("TIFF", (width, height), orientation, profile, load)


def _layout(data: bytes) -> tuple[_Layout, int]:
    """The layout and where the first directory is."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"\x2b\0", b"\0\x2b")
    layout = _Layout(order, *(("Q", "HHQQ", "Q") if big else ("H", "HHII", "I")))
    if len(data) < 16:
        raise damaged("TIFF")
    (first,) = struct.unpack_from(f"{order}{layout.offset}", data, 8 if big else 4)
    return layout, first


def _directories(data: bytes, layout: _Layout, first: int, most: int) -> Iterator[int]:
    """Where the directories of the pages are, each once and no more than ``most``."""
    seen: set[int] = set()
    position = first
    while position and position not in seen and len(seen) < most:
        seen.add(position)
        yield position
        try:
            (entries,) = struct.unpack_from(f"{layout.order}{layout.count}", data, position)
            end = position + struct.calcsize(layout.count) + entries * layout.entry_bytes
            (position,) = struct.unpack_from(f"{layout.order}{layout.offset}", data, end)
        except (struct.error, OverflowError):
            return


def _tags(data: bytes, layout: _Layout, position: int) -> dict[int, tuple[int, ...]]:
    """The whole numbers of the tags that are of use; what is broken or absurd is left out."""
    tags: dict[int, tuple[int, ...]] = {}
    most = {**_MOST_VALUES, _ORIENTATION: 1, _PROFILE: MAX_PROFILE_BYTES}
    try:
        (entries,) = struct.unpack_from(f"{layout.order}{layout.count}", data, position)
        position += struct.calcsize(f"={layout.count}")
        for _ in range(min(entries, 0xFFFF)):
            tag, kind, count, value = struct.unpack_from(
                f"{layout.order}{layout.entry}", data, position
            )
            inline = position + layout.entry_bytes - struct.calcsize(f"={layout.offset}")
            position += layout.entry_bytes
            letter = _ENTRY_FORMATS.get(kind)
            if tag == _PROFILE and letter != "B":
                continue
            if tag in most and letter and 0 < count <= most[tag] and tag not in tags:
                size = count * struct.calcsize(f"={letter}")
                start = inline if size <= struct.calcsize(f"={layout.offset}") else value
                with contextlib.suppress(struct.error, OverflowError):
                    tags[tag] = struct.unpack_from(f"{layout.order}{count}{letter}", data, start)
    except (struct.error, OverflowError):
        pass  # the directory ends early: there may be enough in it
    return tags


def _one(tags: dict[int, tuple[int, ...]], tag: int, default: int) -> int:
    return tags.get(tag, (default,))[0]


def _strip_bytes(tags: dict[int, tuple[int, ...]], width: int, height: int) -> int:
    """What libtiff takes for one strip or tile: unpacked, and once more as RGBA."""
    if _TILE_WIDTH in tags:
        pixels = tags[_TILE_WIDTH][0] * _one(tags, _TILE_HEIGHT, height)
    else:
        pixels = width * min(height, _one(tags, _ROWS_PER_STRIP, height))
    if pixels > 2 * width * height + _LARGEST_TILE_PIXELS:
        raise damaged("TIFF")
    if _one(tags, _COMPRESSION, 1) == 1:
        return 0
    return pixels * (4 + _one(tags, _SAMPLES, 1) * max(1, max(tags.get(_BITS, (1,))) // 8))


def _opened(data: bytes, layout: _Layout, tags: dict[int, tuple[int, ...]]) -> TiffImageFile:
    """The page with those tags and no others."""
    from PIL.TiffImagePlugin import TiffImageFile

    _silence_libtiff()
    directory = len(data) + len(data) % 2
    values_at = directory + 2 + 12 * len(tags) + 4
    entries, values = [], b""
    for tag, numbers in tags.items():  # rising, as TIFF wants them: the order of _MOST_VALUES
        kind = _KINDS.get(tag, 4)
        packed = struct.pack(f"{layout.order}{len(numbers)}{_ENTRY_FORMATS[kind]}", *numbers)
        if len(packed) > 4:
            offset = struct.pack(f"{layout.order}I", values_at + len(values))
            values += packed + b"\0" * (len(packed) % 2)
        else:
            offset = packed.ljust(4, b"\0")
        entries.append(struct.pack(f"{layout.order}HHI", tag, kind, len(numbers)) + offset)
    clean: list[bytes | memoryview] = [
        struct.pack(f"{layout.order}2sHI", data[:2], 42, directory),
        memoryview(data)[8:],
        b"\0" * (len(data) % 2),
        struct.pack(f"{layout.order}H", len(tags)),
        *entries,
        b"\0\0\0\0",
        values,
    ]
    # Not Image.open: it guesses formats.
    return TiffImageFile(io.BytesIO(b"".join(clean)))


@cache
def _silence_libtiff() -> None:
    """Keeps libtiff from printing on stderr what it thinks of a damaged file.

    Pillow turns off its warnings in the same way, but not its errors, which it raises, too.
    """
    core = importlib.util.find_spec("PIL._imaging")
    with contextlib.suppress(AttributeError, OSError):  # another build: it may print
        library = ctypes.CDLL(core.origin if core else None)
        library.TIFFSetErrorHandler.restype = ctypes.c_void_p
        library.TIFFSetErrorHandler(None)
