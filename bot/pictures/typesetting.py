"""Text of any script into a box: broken into lines, made smaller or cut until it fits.

Every character is drawn with an installed font that has a glyph for it; what no font has is left
out, so that an empty rectangle ("tofu") never shows. The result is a coverage mask no larger than
the box, so that nothing can be drawn outside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from bot.pictures.bidi import base_level
from bot.pictures.script_runs import Dressed, cleaned, dressed, line_breaks, runs_of
from bot.pictures.shaping import Shaped, rasterised, shaped

__all__ = ["Block", "set_text"]

_ONE_LINE_DOWN_TO = 0.75
"""Text is set on one line if that costs at most a quarter of its size."""

_ASCENT, _DESCENT = 0.95, 0.27
"""A line's share of its block, sizes of the font; more where its ink needs it."""

_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
_BREAKS_TRIED = 3


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
    """A line, whatever its size; lengths are sizes of the font.

    Attributes:
        text: In the order of reading.
        runs: From left to right, each with the place of its pen.
        left: Leftmost ink or pen, relative to the pen of the first run.
        right: Rightmost ink or pen.
        ascent: Above the baseline.
        descent: Below it.
    """

    text: str
    runs: tuple[tuple[Shaped, float], ...]
    left: float
    right: float
    ascent: float
    descent: float

    def width_px(self, size_px: int) -> int:
        return math.ceil(self.right * size_px) - math.floor(self.left * size_px)

    def ascent_px(self, size_px: int) -> int:
        return math.ceil(self.ascent * size_px)

    def height_px(self, size_px: int) -> int:
        return self.ascent_px(size_px) + math.ceil(self.descent * size_px)


@dataclass(frozen=True, slots=True)
class _Box:
    width_px: int
    height_px: int

    def holds(self, lines: Sequence[_Line], size_px: int) -> bool:
        wide = max(line.width_px(size_px) for line in lines)
        high = sum(line.height_px(size_px) for line in lines)
        return wide <= self.width_px and high <= self.height_px

    def largest(self, lines: Sequence[_Line], sizes_px: range) -> int | None:
        """The largest of the sizes at which the lines fit; None if none does."""
        wide = max(line.right - line.left for line in lines)
        high = sum(line.ascent + line.descent for line in lines)
        most = min(self.width_px / max(wide, 1e-6), self.height_px / high)
        size = min(sizes_px[-1], math.floor(most))
        while size >= sizes_px[0]:  # once or twice: pixels are whole
            if self.holds(lines, size):
                return size
            size -= 1
        return None


def _line(clusters: Dressed, base: int, *, bold: bool) -> _Line:
    while clusters and clusters[0][0] == " ":
        clusters = clusters[1:]
    while clusters and clusters[-1][0] == " ":
        clusters = clusters[:-1]
    pen, left, right, ascent, descent = 0.0, 0.0, 0.0, _ASCENT, _DESCENT
    runs = []
    for run in runs_of(clusters, base):
        one = shaped(run, bold=bold)
        left, right = min(left, pen + one.ink.left), max(right, pen + one.ink.right)
        ascent, descent = max(ascent, one.ink.ascent), max(descent, one.ink.descent)
        runs.append((one, pen))
        pen += one.advance
    text = "".join(cluster for cluster, _ in clusters)
    return _Line(text, tuple(runs), left, max(right, pen), ascent, descent)


class _Setting:
    """One text on one or two lines."""

    def __init__(self, text: str, *, bold: bool) -> None:
        self.clusters = dressed(cleaned(text))
        self.base = base_level("".join(cluster for cluster, _ in self.clusters))
        self.bold = bold
        self.breaks = tuple(line_breaks(self.clusters))

    def one(self) -> tuple[_Line, ...]:
        return (self._part(0, len(self.clusters)),)

    def two(self) -> tuple[_Line, ...]:
        """Two lines of about the same length; one if there is no place to break."""
        if not self.breaks:
            return self.one()
        end, middle = len(self.clusters), len(self.clusters) / 2
        nearest = sorted(self.breaks, key=lambda at: abs(at - middle))[:_BREAKS_TRIED]
        pairs = [(self._part(0, at), self._part(at, end)) for at in nearest]
        return min(pairs, key=lambda pair: max(line.right - line.left for line in pair))

    def cut(self, size_px: int, width_px: int, lines: int) -> tuple[_Line, ...]:
        """As much as goes into the lines, an ellipsis behind it."""
        start = 0
        full: list[_Line] = []
        if lines > 1:
            at = self._longest(start, size_px, width_px, self.breaks)
            if at > start:
                full.append(self._part(start, at))
                start = at
        places = range(start + 1, len(self.clusters))
        end = self._longest(start, size_px, width_px, places, cut=True)
        return (*full, self._part(start, end, cut=True))

    def _part(self, start: int, end: int, *, cut: bool = False) -> _Line:
        while cut and end > start and self.clusters[end - 1][0] == " ":
            end -= 1
        clusters = self.clusters[start:end] + (dressed(_ELLIPSIS) if cut else ())
        return _line(clusters, self.base, bold=self.bold)

    def _longest(
        self, start: int, size_px: int, width_px: int, places: Sequence[int], *, cut: bool = False
    ) -> int:
        """The last place up to which the text from ``start`` fits; ``start`` if none does."""
        ahead = [place for place in places if place > start]
        low, high = 0, len(ahead)  # the first `low` places fit, those from `high` on do not
        while low < high:
            middle = (low + high) // 2
            if self._part(start, ahead[middle], cut=cut).width_px(size_px) <= width_px:
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
    setting = _Setting(text, bold=bold)
    one = setting.one()
    size = box.largest(one, range(min_size_px, size_px + 1))
    if lines > 1 and (size is None or size < _ONE_LINE_DOWN_TO * size_px):
        two = setting.two()
        size_of_two = box.largest(two, range(min_size_px, size_px + 1))
        if size_of_two is not None and size_of_two > (size or 0):
            return _drawn(two, size_of_two, box)
    if size is not None:
        return _drawn(one, size, box)
    rest = setting.cut(min_size_px, width_px, lines)
    if not box.holds(rest, min_size_px):
        rest = setting.cut(min_size_px, width_px, 1)
    return _drawn(rest, min_size_px, box)


def _drawn(lines: Sequence[_Line], size_px: int, box: _Box) -> Block:
    height_px = min(box.height_px, sum(line.height_px(size_px) for line in lines))
    placed = []
    top = 0
    for line in lines:
        left = math.floor(line.left * size_px)
        baseline = top + line.ascent_px(size_px)
        placed += [(run, pen * size_px - left, float(baseline)) for run, pen in line.runs]
        top += line.height_px(size_px)
    coverage = rasterised(placed, size_px, box.width_px, height_px)
    return Block(
        mask=Image.fromarray(coverage),
        lines=tuple(line.text for line in lines),
        size_px=size_px,
        baseline_px=lines[0].ascent_px(size_px),
        width_px=min(box.width_px, max(line.width_px(size_px) for line in lines)),
    )
