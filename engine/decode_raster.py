"""A decoded picture, strip by strip: any pixel type -> 8 bits, no alpha, reduced.

A picture of 100 megapixels exists once, as its library decoded it; what is made of it is made
for a few rows at a time. For small pictures that is the quickest way, too: memory for a strip is
at hand, while that for a whole copy is fetched from and returned to the system every time (5 ms
against 10 ms for a JPEG of 1280 x 960).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.decode_base import Raster, check_memory
from engine.decode_colour import LAB_OFFSET

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["check_image", "opaque_rows", "raster_of", "reduced"]

# At 4 bytes below 128 KB, from where on malloc asks the system for memory.
_STRIP_PIXELS = 24_000

# Bytes that Pillow keeps per pixel, where it is not four.
_BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}

# White of the usual sensors and scanners: 8, 10, 12, 14 and 16 bits in 16.
_WHITES_16 = (255, 1_023, 4_095, 16_383, 65_535)

# At a slighter reduction than this cubic interpolation does not alias and keeps more detail than
# averaging (54 against 48 dB of a Lanczos reduction at 0.99, in a quarter of the time).
_CUBIC_FROM = 0.8


def check_image(image: Image.Image, format_name: str, *, extra_bytes: float = 0.0) -> None:
    """Passes a picture that Pillow can hold in memory; its pixels are not decoded yet.

    Args:
        image: Opened, not loaded.
        format_name: For the sentence.
        extra_bytes: What its decoder takes beyond the picture itself, per pixel.

    Raises:
        TooLarge: If it would take more than MEMORY_BYTES.
    """
    per_pixel = _BYTES_PER_PIXEL.get(image.mode, 4) + extra_bytes
    check_memory(image.width * image.height, per_pixel, format_name)


def raster_of(
    image: Image.Image, *, height_px: int | None = None, full_range: bool = True
) -> Raster:
    """A loaded Pillow picture as a raster; what is transparent becomes white.

    Args:
        image: Loaded, of any mode.
        height_px: How many of its rows to take, from the top; all by default.
        full_range: Whether 16-bit samples use all 16 bits; otherwise their white is guessed.
    """
    kind, convert = _converter(image, full_range=full_range)

    def rows(first: int, last: int) -> NDArray[np.uint8]:
        return convert(image.crop((0, first, image.width, last)))

    return Raster(image.width, height_px or image.height, kind, rows)


def reduced(raster: Raster, long_side_px: int) -> NDArray[np.uint8]:
    """All of a raster, averaged down to a long side of at most ``long_side_px``.

    Returns:
        uint8 (h, w) for kind ``"L"``, else (h, w, channels); C-contiguous and owned.
    """
    width, height = raster.width_px, raster.height_px
    factor = max(1, max(width, height) // long_side_px)
    pixels = _reduced_by(raster, factor)
    scale = long_side_px / max(width, height)
    if scale >= 1.0:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == (pixels.shape[1], pixels.shape[0]):
        return pixels
    slight = max(size) >= _CUBIC_FROM * max(pixels.shape[:2]) and min(pixels.shape[:2]) > 1
    return _resized(pixels, size, cv2.INTER_CUBIC if slight else cv2.INTER_AREA)


def _reduced_by(raster: Raster, factor: int) -> NDArray[np.uint8]:
    """The raster with ``factor`` x ``factor`` pixels averaged into one, rounded up at the edges."""
    width, height = math.ceil(raster.width_px / factor), math.ceil(raster.height_px / factor)
    step = factor * max(1, _STRIP_PIXELS // (raster.width_px * factor))
    pixels: NDArray[np.uint8] | None = None
    for first in range(0, raster.height_px, step):
        strip = raster.rows(first, min(first + step, raster.height_px))
        if pixels is None:
            pixels = np.empty((height, width, *strip.shape[2:]), np.uint8)
        target = first // factor, math.ceil((first + strip.shape[0]) / factor)
        if factor > 1:
            strip = _resized(strip, (width, target[1] - target[0]), cv2.INTER_AREA)
        pixels[target[0] : target[1]] = strip
    assert pixels is not None  # check_pixels has seen at least one row
    return pixels


def _resized(
    pixels: NDArray[np.uint8], size: tuple[int, int], interpolation: int
) -> NDArray[np.uint8]:
    resized = cv2.resize(pixels, size, interpolation=interpolation)
    return np.asarray(resized, np.uint8)


_Convert = Callable[["Image.Image"], NDArray[np.uint8]]


def _converter(
    image: Image.Image, *, full_range: bool
) -> tuple[Literal["L", "RGB", "CMYK", "LAB"], _Convert]:
    """What kind of raster a mode becomes, and how a strip of it is converted."""
    mode = image.mode
    if mode.startswith("I;16"):
        return "L", _scaled(0.0, 65_535.0 if full_range else _white_16(image))
    if mode in {"I", "F"}:
        return "L", _scaled(*_black_and_white(image))
    simple = _CONVERTERS.get(mode)
    if simple and not image.has_transparency_data:
        return simple
    if image.has_transparency_data or mode in {"La", "RGBa", "PA"}:
        return "RGB", opaque_rows
    return "RGB", lambda strip: np.asarray(strip.convert("RGB"))


_CONVERTERS: dict[str, tuple[Literal["L", "CMYK", "LAB"], _Convert]] = {
    "1": ("L", lambda strip: np.asarray(strip.convert("L"))),
    "L": ("L", np.asarray),
    "CMYK": ("CMYK", np.asarray),
    "LAB": ("LAB", lambda strip: np.asarray(strip) ^ LAB_OFFSET),
}


def opaque_rows(strip: Image.Image) -> NDArray[np.uint8]:
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
