"""What the readers of the file formats share: limits, and a picture before and during decoding.

Every format is read in two steps. ``read`` of its module looks at the container only, with a
parser of our own: it finds the size, the orientation and the colour profile, drops every other
piece of metadata, and refuses what is too large. Only then does ``Opened.load`` let a library
touch the pixels. So a library never sees metadata that could make it fail, warn or swell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.errors import NotAnImage, TooLarge

__all__ = [
    "MAX_PROFILE_BYTES",
    "MEMORY_BYTES",
    "READABLE",
    "DecodeLimits",
    "Opened",
    "Raster",
    "check_frames",
    "check_memory",
    "check_pixels",
    "damaged",
]

READABLE = "JPEG, PNG, WebP, GIF, HEIC, AVIF, BMP and TIFF"

# What the pixels of one photo may take while they are decoded. The promise is 500 MB, of which
# the file, its copy without metadata and the pictures being reduced need up to 100 MB.
MEMORY_BYTES = 400_000_000

# The largest profiles in use are those of printing presses, about 2.7 MB.
MAX_PROFILE_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What is decoded at most.

    Attributes:
        max_bytes: Size of the file.
        max_pixels: Width times height as the file declares them. Formats that can't be decoded
            at reduced size are refused earlier, when they would take more than MEMORY_BYTES.
        max_frames: Pictures in one file; the first is used.
        long_side_px: Longer side of the result; larger pictures are reduced.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = 120_000_000
    max_frames: int = 2_000
    long_side_px: int = 2_000


@dataclass(frozen=True, slots=True)
class Raster:
    """A picture whose rows can be asked for, so that it never exists twice at full size.

    Attributes:
        width_px: Width.
        height_px: Height.
        kind: Meaning of the channels; ``"L"`` has one and rows (h, w), the others (h, w, 3 or 4).
        rows: Rows ``first`` (included) to ``last`` (excluded) as uint8.
    """

    width_px: int
    height_px: int
    kind: Literal["L", "RGB", "CMYK", "LAB"]
    rows: Callable[[int, int], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Opened:
    """A picture of which everything but the pixels is known, and whose size is within the limits.

    Attributes:
        format: Name of the file format.
        size_px: Width and height as stored, before ``orientation`` is applied.
        orientation: EXIF orientation, 1 to 8.
        profile: ICC profile, or None; not checked.
        load: Decodes the pixels. A file that ends early may yield its upper part only.
        shrink: How many pixels of the file in each direction become one of ``load``.
    """

    format: str
    size_px: tuple[int, int]
    orientation: int
    profile: bytes | None
    load: Callable[[], Raster]
    shrink: int = 1


def check_pixels(width_px: int, height_px: int, limits: DecodeLimits) -> None:
    """Passes a declared size that may be decoded.

    Raises:
        NotAnImage: If the picture has no pixels.
        TooLarge: If it has more than the limit.
    """
    if width_px <= 0 or height_px <= 0:
        raise NotAnImage("the picture has no pixels", reason="damaged")
    if width_px * height_px > limits.max_pixels:
        raise _too_many_pixels(limits.max_pixels)


def check_frames(frames: int, limits: DecodeLimits) -> None:
    """Passes a number of frames or pages that is within the limit.

    Raises:
        TooLarge: If there are more.
    """
    if frames > limits.max_frames:
        limit = f"{limits.max_frames:,} frames"
        raise TooLarge(f"the animation has more than {limit}", what="frames", limit=limit)


def check_memory(pixels: int, bytes_per_pixel: float, format_name: str) -> None:
    """Passes a picture that can be decoded within MEMORY_BYTES.

    Raises:
        TooLarge: If it would take more; the sentence names the largest size of that format.
    """
    if pixels * bytes_per_pixel > MEMORY_BYTES:
        raise _too_many_pixels(int(MEMORY_BYTES / bytes_per_pixel), format_name)


def _too_many_pixels(most_pixels: int, format_name: str = "") -> TooLarge:
    limit = f"{most_pixels / 1e6:.3g} megapixels"
    kind = f"{format_name} picture" if format_name else "picture"
    message = f"the {kind} has more than {limit}; send a smaller one"
    return TooLarge(message, what="pixels", limit=limit)


def damaged(format_name: str) -> NotAnImage:
    """The error for a file of a known format that can't be decoded."""
    return NotAnImage(
        f"the {format_name} file is damaged, incomplete or of a rare variety; send another one",
        reason="damaged",
        found=format_name,
    )
