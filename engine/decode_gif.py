"""GIF: blocks read here, the first frame's pixels by Pillow.

Only the first frame reaches Pillow, in a file written anew without comments and disposal.
Blocks: GIF89a specification (CompuServe, 1990).
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

from engine.decode_base import DecodeLimits, Opened, Raster, check_frames, check_pixels, damaged
from engine.decode_raster import check_image, raster_of
from engine.errors import NotAnImage

__all__ = ["read_gif"]

_EXTENSION, _IMAGE = 0x21, 0x2C
_GRAPHIC_CONTROL = 0xF9
_HAS_COLOURS = 0x80
_LARGEST_SIDE_PX = 0xFFFF

# The shortest frame is an image descriptor and two bytes: below this there are not too many.
_SHORTEST_FRAME_BYTES = 12


@dataclass(frozen=True, slots=True)
class _Frame:
    """The first frame: where its blocks are in the file."""

    descriptor: int
    end: int
    transparent: int | None
    size_px: tuple[int, int]  # of the screen, grown where the frame reaches beyond it


def read_gif(data: bytes, limits: DecodeLimits) -> Opened:
    """The first frame of a GIF file whose pixels are not decoded yet.

    Raises:
        NotAnImage: If there is no frame, or none that can be found.
        TooLarge: If the picture exceeds the limits.
    """
    from PIL.GifImagePlugin import GifImageFile

    first_block = _after_colours(13, data[10]) if len(data) > 13 else len(data)
    frame = _first_frame(data, first_block)
    width, height = frame.size_px
    check_pixels(width, height, limits)
    if len(data) > limits.max_frames * _SHORTEST_FRAME_BYTES:
        check_frames(_count(data, first_block, limits.max_frames + 1), limits)
    clean = [b"GIF89a", struct.pack("<HH", width, height), data[10:first_block]]
    if frame.transparent is not None:
        clean.append(bytes([_EXTENSION, _GRAPHIC_CONTROL, 4, 1, 0, 0, frame.transparent, 0]))
    clean += [data[frame.descriptor : frame.end], b";"]
    image = GifImageFile(io.BytesIO(b"".join(clean)))
    check_image(image, "GIF")

    def load() -> Raster:
        image.load()
        return raster_of(image)

    return Opened("GIF", frame.size_px, 1, None, load)


def _first_frame(data: bytes, position: int) -> _Frame:
    transparent: int | None = None
    while position + 10 < len(data):
        kind = data[position]
        if kind == _IMAGE:
            left, top, width, height = struct.unpack_from("<HHHH", data, position + 1)
            screen_width, screen_height = struct.unpack_from("<HH", data, 6)
            size = max(screen_width, left + width), max(screen_height, top + height)
            if width == 0 or height == 0 or max(size) > _LARGEST_SIDE_PX:
                raise NotAnImage("the picture has no pixels", reason="damaged", found="GIF")
            pixels = _after_colours(position + 10, data[position + 9]) + 1
            return _Frame(position, _after_blocks(data, pixels), transparent, size)
        if kind == _EXTENSION:
            if data[position + 1] == _GRAPHIC_CONTROL and data[position + 2] >= 4:
                transparent = data[position + 6] if data[position + 3] & 1 else None
            position = _after_blocks(data, position + 2)
        else:
            position += 1  # stray bytes between blocks, as other programs skip them
    raise damaged("GIF")


def _count(data: bytes, position: int, most: int) -> int:
    """How many frames there are, counted no further than ``most``."""
    frames = 0
    while position + 10 < len(data) and frames < most:
        kind = data[position]
        if kind == _IMAGE:
            frames += 1
            position = _after_blocks(data, _after_colours(position + 10, data[position + 9]) + 1)
        elif kind == _EXTENSION:
            position = _after_blocks(data, position + 2)
        else:
            position += 1
    return frames


def _after_colours(position: int, flags: int) -> int:
    """Where a colour table that begins there ends, if the flags say that there is one."""
    return position + (6 << (flags & 7)) if flags & _HAS_COLOURS else position


def _after_blocks(data: bytes, position: int) -> int:
    """Where a series of data sub-blocks that begins there ends, its terminator included."""
    try:
        while length := data[position]:
            position += length + 1
    except IndexError:
        return len(data)
    return position + 1
