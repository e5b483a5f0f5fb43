"""Text of any script into a box: broken into lines, made smaller or cut until it fits.

Every character is drawn with an installed font that has a glyph for it; what no font has is left
out, so that an empty rectangle ("tofu") never shows. The result is a coverage mask no larger than
the box, so that nothing can be drawn outside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from PIL import Image, ImageDraw

from bot.bidi import base_level
from bot.fonts import FONT_LOCK, Typeface, opened, shapes_text
from bot.script_runs import Run, cleaned, dressed, line_breaks, runs_of

__all__ = ["Block", "set_text"]

_ONE_LINE_DOWN_TO = 0.75
"""Text is set on one line if that costs at most a quarter of its size."""

_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Text set into a box.

    Attributes:
        mask: Coverage, mode L, as wide as the box and as high as the lines need; 0 where there is
            no ink.
        lines: What is drawn, line by line, in the order of reading.
        size_px: Size of the font.
        baseline_px: Of the first line, from the top of the mask.
        width_px: Of the longest line, from the left edge of the mask.
    """

    mask: Image.Image = field(repr=False)
    lines: tuple[str, ...]
    size_px: int
    baseline_px: int
    width_px: int

    @property
    def height_px(self) -> int:
        """Height of the mask."""
        return self.mask.height


@dataclass(frozen=True, slots=True)
class _Line:
    """A line at one size.

    Attributes:
        text: In the order of reading.
        runs: From left to right, each with the place of its pen.
        left: Leftmost ink or pen, relative to the pen of the first run.
        width: From there to the rightmost ink or pen.
        ascent: Above the baseline: the line's share of the block, or its ink if that is higher.
        descent: Below the baseline, likewise.
    """

    text: str
    runs: tuple[tuple[Run, float], ...]
    left: int
    width: int
    ascent: int
    descent: int


@dataclass(frozen=True, slots=True)
class _Box:
    width_px: int
    height_px: int

    def excess(self, lines: Sequence[_Line]) -> float:
        """By what factor the lines are too wide or too high; at most 1 if they fit."""
        wide = max(line.width for line in lines) / self.width_px
        high = sum(line.ascent + line.descent for line in lines) / self.height_px
        return max(wide, high)


def _direction(run: Run) -> Literal["ltr", "rtl"] | None:
    if not shapes_text():
        return None
    return "rtl" if run.level % 2 else "ltr"


def _measured(
    clusters: Sequence[tuple[str, Typeface]], base: int, size_px: int, *, bold: bool
) -> _Line:
    pen, left, right = 0.0, 0.0, 0.0
    ascent, descent = 0.95 * size_px, 0.27 * size_px
    placed: list[tuple[Run, float]] = []
    for run in runs_of(clusters, base):
        font = opened(run.typeface, size_px, bold=bold)
        ink = font.getbbox(run.text, anchor="ls", direction=_direction(run))
        left, right = min(left, pen + ink[0]), max(right, pen + ink[2])
        ascent, descent = max(ascent, -ink[1]), max(descent, ink[3])
        placed.append((run, pen))
        pen += font.getlength(run.text, direction=_direction(run))
    start = math.floor(left)
    return _Line(
        text="".join(cluster for cluster, _ in clusters),
        runs=tuple(placed),
        left=start,
        width=math.ceil(max(right, pen)) - start,
        ascent=math.ceil(ascent),
        descent=math.ceil(descent),
    )


class _Setting:
    """One text, set in one or two lines at the sizes that are tried."""

    def __init__(self, text: str, *, bold: bool) -> None:
        self.clusters = dressed(cleaned(text))
        self.base = base_level("".join(cluster for cluster, _ in self.clusters))
        self.bold = bold
        self.breaks = tuple(line_breaks(self.clusters))

    def one(self, size_px: int) -> tuple[_Line, ...]:
        return (self._line(0, len(self.clusters), size_px),)

    def two(self, size_px: int) -> tuple[_Line, ...]:
        """Two lines of about the same length; one if there is no place to break."""
        if not self.breaks:
            return self.one(size_px)
        middle = len(self.clusters) / 2
        nearest = sorted(self.breaks, key=lambda at: abs(at - middle))[:2]
        end = len(self.clusters)
        pairs = [(self._line(0, at, size_px), self._line(at, end, size_px)) for at in nearest]
        return min(pairs, key=lambda pair: max(line.width for line in pair))

    def cut(self, size_px: int, width_px: int, lines: int) -> tuple[_Line, ...]:
        """As much as goes into the lines, an ellipsis behind it."""
        start = 0
        full: list[_Line] = []
        if lines > 1:
            at = self._longest(start, size_px, width_px, self.breaks)
            if at > start:
                full.append(self._line(start, at, size_px))
                start = at
        places = range(start + 1, len(self.clusters))
        end = self._longest(start, size_px, width_px, places, cut=True)
        return (*full, self._line(start, end, size_px, cut=True))

    def _line(self, start: int, end: int, size_px: int, *, cut: bool = False) -> _Line:
        while start < end and self.clusters[start][0] == " ":
            start += 1
        while start < end and self.clusters[end - 1][0] == " ":
            end -= 1
        clusters = self.clusters[start:end]
        if cut:
            clusters += dressed(_ELLIPSIS)
        return _measured(clusters, self.base, size_px, bold=self.bold)

    def _longest(
        self, start: int, size_px: int, width_px: int, places: Sequence[int], *, cut: bool = False
    ) -> int:
        """The last place up to which the text from ``start`` fits; ``start`` if none does."""
        ahead = [place for place in places if place > start]
        low, high = 0, len(ahead)  # the first `low` places fit, those from `high` on do not
        while low < high:
            middle = (low + high) // 2
            if self._line(start, ahead[middle], size_px, cut=cut).width <= width_px:
                low = middle + 1
            else:
                high = middle
        return ahead[low - 1] if low else start


def set_text(
    text: str,
    *,
    width_px: int,
    height_px: int,
    size_px: int,
    min_size_px: int,
    lines: int = 1,
    bold: bool = False,
) -> Block:
    """The text in a box: at the given size if it fits, else on two lines, smaller or cut.

    Args:
        text: Anything; what can't be drawn is left out.
        width_px: Of the box.
        height_px: Of the box; what is too high even at the smallest size is clipped.
        size_px: Of the font, where there is room.
        min_size_px: Below this the text is cut with an ellipsis instead.
        lines: 1 or 2.
        bold: Weight 700 instead of 400.
    """
    box = _Box(width_px, height_px)
    with FONT_LOCK:
        setting = _Setting(text, bold=bold)
        floor = min_size_px if lines == 1 else max(min_size_px, round(_ONE_LINE_DOWN_TO * size_px))
        fitted = _largest(setting.one, box, size_px, floor)
        if fitted is None and lines > 1:
            one = _largest(setting.one, box, floor, min_size_px)
            two = _largest(setting.two, box, size_px, min_size_px)
            found = [option for option in (two, one) if option is not None]
            fitted = max(found, key=lambda option: option[1], default=None)
        if fitted is None:
            set_lines = setting.cut(min_size_px, width_px, lines)
            if box.excess(set_lines) > 1:
                set_lines = setting.cut(min_size_px, width_px, 1)
            fitted = set_lines, min_size_px
        return _drawn(*fitted, box, bold=bold)


def _largest(
    set_lines: Callable[[int], tuple[_Line, ...]], box: _Box, size_px: int, min_size_px: int
) -> tuple[tuple[_Line, ...], int] | None:
    """The lines at the largest size at which they fit, and that size; None if none does."""
    size = size_px
    while size >= min_size_px:
        lines = set_lines(size)
        excess = box.excess(lines)
        if excess <= 1:
            return lines, size
        # Ink grows in proportion to the size, but for hinting: nearly there in one step.
        smaller = max(math.floor(size / excess), math.floor(0.5 * size))
        size = min(size - 1, max(smaller, min_size_px if smaller >= 0.9 * min_size_px else 0))
    return None


def _drawn(lines: Sequence[_Line], size_px: int, box: _Box, *, bold: bool) -> Block:
    height_px = min(box.height_px, sum(_heights(lines)))
    mask = Image.new("L", (box.width_px, height_px))
    draw = ImageDraw.Draw(mask)
    top = 0
    for line in lines:
        for run, pen in line.runs:
            draw.text(
                (pen - line.left, top + line.ascent),
                run.text,
                fill=255,
                font=opened(run.typeface, size_px, bold=bold),
                anchor="ls",
                direction=_direction(run),
            )
        top += line.ascent + line.descent
    return Block(
        mask=mask,
        lines=tuple(line.text for line in lines),
        size_px=size_px,
        baseline_px=lines[0].ascent,
        width_px=min(box.width_px, max(line.width for line in lines)),
    )


def _heights(lines: Sequence[_Line]) -> Iterator[int]:
    for line in lines:
        yield line.ascent + line.descent
