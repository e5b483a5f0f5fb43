"""The paper that cards are drawn on: colours, photos, text, bars and badges, and the JPEG."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bot.pictures.typesetting import Block, set_text
from bot.values import Picture

__all__ = [
    "BACKGROUND",
    "INK",
    "MUTED",
    "SELECTED",
    "Colour",
    "Sheet",
    "bar_picture",
    "score_colour",
]

Colour = tuple[int, int, int]

BACKGROUND: Colour = (20, 23, 28)
INK: Colour = (244, 245, 247)
MUTED: Colour = (164, 171, 184)
TRACK: Colour = (49, 54, 64)
SELECTED: Colour = (255, 208, 64)

# Blue to yellow, lighter all the way: told apart with every kind of colour vision, and in grey.
_SCALE_SCORES = (0.0, 35.0, 65.0, 100.0)
_SCALE_COLOURS = ((104, 145, 230), (84, 190, 208), (152, 214, 120), (255, 221, 77))

# Each with the bytes it takes at most, compared with the first.
_QUALITIES = ((88, 1.0), (80, 0.75), (70, 0.6), (60, 0.5), (45, 0.4), (30, 0.0))
_MOST_BYTES = 250_000


def score_colour(score: float) -> Colour:
    """The colour of a score from 0 to 100."""
    red, green, blue = (int(level) for level in _colours(np.array([score]))[0])
    return red, green, blue


def _colours(scores: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The colours (N, 3) of scores (N,)."""
    channels = zip(*_SCALE_COLOURS, strict=True)
    columns = [np.interp(scores, _SCALE_SCORES, channel) for channel in channels]
    return np.round(np.stack(columns, axis=1)).astype(np.uint8)


class Sheet:
    """Collects what is to be drawn; ``picture`` draws it.

    Args:
        width_px: Of the picture.
    """

    def __init__(self, width_px: int) -> None:
        self.width_px = width_px
        self._marks: list[Callable[[Image.Image], None]] = []

    def photo(self, pixels: NDArray[np.uint8], x: int, y: int) -> None:
        """Puts pixels (H, W, 3) with their upper left corner there."""
        image = Image.fromarray(pixels)
        self._marks.append(lambda paper: paper.paste(image, (x, y)))

    def medallion(self, pixels: NDArray[np.uint8], x: int, y: int, *, ring_px: int = 10) -> None:
        """Puts square pixels (S, S, 3) as a disc there, with a ring around it."""
        image = Image.fromarray(pixels)
        inner, outer = _capsule(*image.size), _capsule(*(side + 2 * ring_px for side in image.size))

        def draw(paper: Image.Image) -> None:
            paper.paste(BACKGROUND, (x - ring_px, y - ring_px), outer)
            paper.paste(image, (x, y), inner)

        self._marks.append(draw)

    def block(self, block: Block, x: int, y: int, colour: Colour) -> None:
        """Puts set text with the upper left corner of its box there."""
        self._marks.append(lambda paper: paper.paste(colour, (x, y), block.mask))

    def bar(self, score: float, x: int, y: int, width_px: int, height_px: int) -> None:
        """A bar from 0 to 100, filled up to the score in the colours on the way there."""
        track, (level, fill) = _capsule(width_px, height_px), _filled(score, width_px, height_px)
        self._marks.append(lambda paper: paper.paste(TRACK, (x, y), track))
        self._marks.append(lambda paper: paper.paste(fill, (x, y), level))

    def badge(
        self,
        number: int,
        x: int,
        y: int,
        height_px: int,
        *,
        paper: Colour = BACKGROUND,
        ink: Colour = INK,
    ) -> None:
        """A number on a pill whose upper left corner is there."""
        text, width_px = badge_text(number, height_px)
        ring = max(2, height_px // 18)
        outer = _capsule(width_px + 2 * ring, height_px + 2 * ring)
        inner = _capsule(width_px, height_px)
        left = x + (width_px - text.width_px) // 2
        # Digits reach about 0.72 of the size above the baseline: centre those.
        top = y + round(height_px / 2 + 0.36 * text.size_px) - text.baseline_px

        def draw(sheet: Image.Image) -> None:
            sheet.paste(ink, (x - ring, y - ring), outer)
            sheet.paste(paper, (x, y), inner)
            sheet.paste(ink, (left, top), text.mask)

        self._marks.append(draw)

    def picture(self, height_px: int, alt: str) -> Picture:
        """Everything drawn, as a JPEG of at most 250 kB."""
        paper = Image.new("RGB", (self.width_px, height_px), BACKGROUND)
        for mark in self._marks:
            mark(paper)
        return Picture(_jpeg(paper), self.width_px, height_px, alt)


def bar_picture(
    score: float, width_px: int, height_px: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A bar from 0 to 100 for pixels that are no sheet: coverage (H, W) and colours (H, W, 3)."""
    track, (level, fill) = _capsule(width_px, height_px), _filled(score, width_px, height_px)
    paper = Image.new("RGB", (width_px, height_px), TRACK)
    paper.paste(fill, (0, 0), level)
    coverage = np.asarray(track, np.float32) / np.float32(255)
    return coverage.astype(np.float32), np.asarray(paper, np.float32)


def _filled(score: float, width_px: int, height_px: int) -> tuple[Image.Image, Image.Image]:
    """The filled part of a bar: its coverage and its colours."""
    share = min(max(score, 0.0), 100.0) / 100
    filled_px = round(height_px + (width_px - height_px) * share)
    ramp = _colours(np.linspace(0, 100, width_px)[:filled_px])
    colours = np.broadcast_to(ramp, (height_px, filled_px, 3))
    return _capsule(filled_px, height_px), Image.fromarray(np.ascontiguousarray(colours))


def badge_text(number: int, height_px: int) -> tuple[Block, int]:
    """The digits of a badge and how wide it is."""
    size = round(0.68 * height_px)
    text = set_text(
        str(number),
        width_px=4 * height_px,
        height_px=2 * height_px,
        size_px=size,
        min_size_px=size,
        bold=True,
    )
    return text, max(height_px, text.width_px + round(0.55 * height_px))


def _capsule(width_px: int, height_px: int) -> Image.Image:
    """Coverage of a bar with round ends, smooth at its edge."""
    radius = height_px / 2
    xs = np.arange(width_px) + 0.5 - width_px / 2
    ys = np.arange(height_px)[:, None] + 0.5 - height_px / 2
    beyond = np.maximum(np.abs(xs) - (width_px / 2 - radius), 0.0)
    inside = np.clip(radius + 0.5 - np.hypot(beyond, ys), 0.0, 1.0)
    return Image.fromarray(np.round(255 * inside).astype(np.uint8))


def _jpeg(paper: Image.Image) -> bytes:
    data = b""
    wanted = 1.0
    for quality, share in _QUALITIES:
        if share > wanted:
            continue
        buffer = io.BytesIO()
        paper.save(buffer, "JPEG", quality=quality)
        data = buffer.getvalue()
        if len(data) <= _MOST_BYTES:
            break
        wanted = min(wanted, share * _MOST_BYTES / len(data))
    return data
