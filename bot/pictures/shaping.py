"""Runs of text as glyphs in their places, by HarfBuzz, and glyphs as pixels, by its rasteriser.

Pillow's own text is not used: its wheels join Arabic and order Indic letters only on machines that
have the system library FriBidi, which small servers lack.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import uharfbuzz
from numpy.typing import NDArray

from bot.pictures.fonts import EM, opened
from bot.pictures.script_runs import Run

__all__ = ["Glyph", "Ink", "Shaped", "rasterised", "shaped"]

_LOCK = threading.Lock()
"""Held while HarfBuzz works: an opened font keeps caches that are filled as it is used."""


@dataclass(frozen=True, slots=True)
class Glyph:
    """A glyph of a run; places are sizes of the font, from the start of the run's baseline.

    Attributes:
        number: Glyph id in the font; 0 would be the empty rectangle.
        x: Where its pen stands.
        y: How far above the baseline.
    """

    number: int
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Ink:
    """What a run covers, in sizes of the font, from the start of its baseline.

    Attributes:
        left: Leftmost ink.
        right: Rightmost ink.
        ascent: Above the baseline.
        descent: Below it.
    """

    left: float = 0.0
    right: float = 0.0
    ascent: float = 0.0
    descent: float = 0.0


@dataclass(frozen=True, slots=True)
class Shaped:
    """A run as glyphs, independent of its size.

    Attributes:
        run: What was shaped.
        bold: In which weight.
        glyphs: From left to right.
        advance: Where the next run starts.
        ink: What is covered.
    """

    run: Run
    bold: bool
    glyphs: tuple[Glyph, ...]
    advance: float
    ink: Ink


@lru_cache(maxsize=512)
def shaped(run: Run, *, bold: bool) -> Shaped:
    """The run as glyphs."""
    buffer = uharfbuzz.Buffer()
    buffer.add_str(run.text)
    buffer.guess_segment_properties()  # the script; the direction is known
    buffer.direction = "rtl" if run.level % 2 else "ltr"
    with _LOCK:
        font = opened(run.typeface, bold=bold)
        uharfbuzz.shape(font, buffer)
        glyphs, pen, ink = [], 0, Ink()
        for info, place in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True):
            x, y = pen + place.x_offset, place.y_offset
            glyphs.append(Glyph(info.codepoint, x / EM, y / EM))
            ink = _with_glyph(ink, font, info.codepoint, x, y)
            pen += place.x_advance
    return Shaped(run, bold, tuple(glyphs), pen / EM, ink)


def _with_glyph(ink: Ink, font: uharfbuzz.Font, number: int, x: float, y: float) -> Ink:
    extents = font.get_glyph_extents(number)
    if extents is None or not extents.width:
        return ink
    left, top = x + extents.x_bearing, y + extents.y_bearing
    return Ink(
        left=min(ink.left, left / EM),
        right=max(ink.right, (left + extents.width) / EM),
        ascent=max(ink.ascent, top / EM),
        descent=max(ink.descent, -(top + extents.height) / EM),  # heights point down: negative
    )


def rasterised(
    placed: Iterable[tuple[Shaped, float, float]], size_px: int, width_px: int, height_px: int
) -> NDArray[np.uint8]:
    """Shaped runs as coverage.

    Args:
        placed: Runs, each with the place of its pen in the picture: x, y of the baseline, px.
        size_px: Size of the font.
        width_px: Of the picture; what reaches beyond is cut.
        height_px: Of the picture.

    Returns:
        uint8 (height_px, width_px), 255 where ink covers all of a pixel.
    """
    scale = size_px / EM
    with _LOCK:
        raster = uharfbuzz.RasterDraw()
        for run, pen_x, pen_y in placed:
            font = opened(run.run.typeface, bold=run.bold)
            for glyph in run.glyphs:
                x, y = pen_x + glyph.x * size_px, height_px - pen_y + glyph.y * size_px
                raster.transform = (scale, 0, 0, scale, x, y)  # y points up
                raster.draw_glyph(font, glyph.number)
        raster.extents = uharfbuzz.RasterExtents(0, 0, width_px, height_px, 0)
        image = raster.render()
        rows = np.frombuffer(image.buffer, np.uint8).reshape(-1, image.extents.stride)
    return np.ascontiguousarray(rows[::-1, :width_px])
