"""Text of any script into a box: broken into lines, made smaller or cut until it fits.

Every character is drawn with an installed font that has a glyph for it; what no font has is left
out, so that an empty rectangle ("tofu") never shows; a name of which nothing would be left is
spelled in Latin letters. The result is a coverage mask no larger than the box, so that nothing can
be drawn outside it.

The order of characters in a line is the implicit part of Unicode Standard Annex 9 (revision 50):
rules P2 to P3, W1 to W7, N0 to N2, I1, I2 and L2. Explicit embeddings and isolates do not occur:
names are cleaned of them, since they could make one name look like another.
"""

import math
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice, pairwise

import numpy as np
from numpy.typing import NDArray

from bot.pictures import glyphs
from bot.pictures.glyphs import Run, ShapedRun, Typeface

Clusters = tuple[tuple[str, Typeface], ...]
"""Letters with their marks and joined emoji, in the order of reading, each with a typeface that
has a glyph for every character of it."""

_MARKS_PER_LETTER = 4  # more on one letter are decoration that climbs out of its line
_LONGEST = 400  # characters of a text that are looked at; more never fits a box
_JOINERS = {"\u200c", "\u200d"}
_MOST_CODES = 4
_FLAG = re.compile("[\U0001f1e6-\U0001f1ff]{2}")
_VIRAMA = 9  # canonical combining class

_ONE_LINE_DOWN_TO = 0.75  # of its size: text is set on one line if that costs no more
_ASCENT, _DESCENT = 0.95, 0.27  # of a line, sizes of the font; more where its ink needs it
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
_BREAKS_TRIED = 3


def cleaned(text: str) -> str:
    """The text in Unicode's composed form without what can't or must not be drawn.

    Line ends become spaces; controls (those that turn the direction of writing too), lone
    surrogates, private and unassigned characters go, and so do all but a few combining marks on
    one letter. Text of nothing but private and unassigned characters becomes their codes.
    """
    kept: list[str] = []
    marks = 0
    for char in unicodedata.normalize("NFC", text[: 4 * _LONGEST]):
        category = unicodedata.category(char)
        marks = marks + 1 if category in {"Mn", "Me"} else 0
        drawn = char.isspace() or category[0] != "C" or char in _JOINERS or _is_tag(char)
        if drawn and marks <= _MARKS_PER_LETTER:
            kept.append(" " if char.isspace() else char)
    unknown = (f"U+{ord(char):04X}" for char in text if unicodedata.category(char) in {"Co", "Cn"})
    return " ".join("".join(kept)[:_LONGEST].split() or islice(unknown, _MOST_CODES))


def _is_tag(char: str) -> bool:
    """The characters that spell the flags of England, Scotland and Wales."""
    return 0xE0020 <= ord(char) <= 0xE007F


def _belongs(char: str, cluster: str) -> bool:
    """Whether the character must not be parted from the cluster before it."""
    category = unicodedata.category(char)[0]
    return (
        category == "M"
        or char in _JOINERS
        or _is_tag(char)
        or (cluster[-1] == "\u200d" and category != "Z")
        or 0x1F3FB <= ord(char) <= 0x1F3FF  # skin tones
        or (category == "L" and unicodedata.combining(cluster[-1]) == _VIRAMA)
        or bool(_FLAG.fullmatch(cluster + char))
    )


def _choose(cluster: str, han: Typeface, current: Typeface | None) -> Typeface | None:
    """The typeface for a cluster; digits, spaces and signs stay with their neighbour."""
    # Joiners, variation selectors and tags steer the shaping and are drawn as nothing.
    visible = [
        char
        for char in cluster
        if not (char in _JOINERS or 0xFE00 <= ord(char) <= 0xFE0F or _is_tag(char))
    ]
    if not visible:
        return None
    neutral = unicodedata.category(cluster[0])[0] not in "LM" and current != glyphs.EMOJI
    faces = ((current,) if current and neutral else ()) + glyphs.candidates(visible[0], han)
    fitting = (face for face in faces if all(glyphs.covers(face, char) for char in visible))
    return next(fitting, None)


@lru_cache(maxsize=1024)
def clusters_of(text: str) -> Clusters:
    """The clusters of cleaned text with their typefaces.

    What no installed typeface has a glyph for becomes a plain letter where Unicode has one, or is
    left out: first the marks on a letter, then the letter. A word of which no letter is left is
    spelled by its characters' names: "Tsalagi".
    """
    words = text.split(" ")
    for place, word in enumerate(words):
        left = (char for cluster, _ in _with_typefaces(word) for char in cluster)
        if any(map(str.isalnum, word)) and not any(map(str.isalnum, left)):
            # Each letter as the last word of its name, or its code.
            letters = (unicodedata.name(char, f"U+{ord(char):04X}").split()[-1] for char in word)
            words[place] = "".join(letters).capitalize()
    return _with_typefaces(" ".join(words))


def _with_typefaces(text: str) -> Clusters:
    han, split = glyphs.han_typeface(text), list[str]()
    for char in text:
        cluster = split.pop() if split and _belongs(char, split[-1]) else ""
        split.append(cluster + char)
    found: list[tuple[str, Typeface]] = []
    for cluster in split:
        for drawn in (cluster, unicodedata.normalize("NFKC", cluster), cluster[0]):
            face = _choose(drawn, han, found[-1][1] if found else None)
            if face is not None:
                found.append((drawn, face))
                break
    return tuple(found)


# One letter for each of Unicode's classes of direction; every other class is neutral.
_KINDS = {"L": "L", "R": "R", "AL": "A", "EN": "E", "AN": "N", "ES": "S", "ET": "T", "CS": "C"}
_KINDS |= {"NSM": "M", "BN": "B"}
_DIRECTIONS = {"L": "L", "R": "R", "E": "R", "N": "R"}
_CLOSING = {"(": ")", "[": "]", "{": "}"}


def base_level(text: str) -> int:
    """1 if the first letter is written right to left, else 0 (rules P2 and P3)."""
    strong = (kind for kind in map(unicodedata.bidirectional, text) if kind in {"L", "R", "AL"})
    return int(next(strong, "L") != "L")


def embedding_levels(text: str, base: int) -> tuple[int, ...]:
    """The level of every character of a line in a paragraph of level ``base`` (0 or 1)."""
    kinds = "".join(_KINDS.get(unicodedata.bidirectional(char), "O") for char in text)
    if not base and not re.search("[RAN]", kinds):
        return (0,) * len(text)
    start = "R" if base else "L"
    kinds = re.sub("([^M])M+", lambda m: m[1] * len(m[0]), start + kinds)[1:]  # W1
    kinds = re.sub("A[^LRA]*", lambda m: m[0].replace("E", "N"), kinds)  # W2
    kinds = kinds.replace("A", "R")  # W3
    kinds = re.sub("(?<=N)C(?=N)", "N", re.sub("(?<=E)[SC](?=E)", "E", kinds))  # W4
    kinds = re.sub("(?<=E)[TB]+|[TB]+(?=E)", lambda m: "E" * len(m[0]), kinds)  # W5
    kinds = re.sub("[STCB]", "O", kinds)  # W6
    kinds = re.sub("L[^LR]*", lambda m: m[0].replace("E", "L"), start + kinds)[1:]  # W7
    kinds = _with_brackets(text, kinds, start)  # N0

    def between(found: re.Match[str]) -> str:  # N1 and N2
        before, after = _DIRECTIONS[found[1]], _DIRECTIONS[found[2]]
        return (before if before == after else start) * len(found[0])

    kinds = re.sub("(?<=([LREN]))O+(?=([LREN]))", between, start + kinds + start)[1:-1]
    levels = {"L": 2, "R": 1} if base else {"L": 0, "R": 1}  # I1 and I2
    return tuple(levels.get(kind, 2) for kind in kinds)


def _with_brackets(text: str, kinds: str, start: str) -> str:
    """The kinds where pairs of brackets have taken a direction (rule N0)."""
    waiting: list[tuple[str, int]] = []
    pairs = []
    for at, char in enumerate(text):
        if char in _CLOSING:
            waiting.append((_CLOSING[char], at))
        for depth in reversed(range(len(waiting))):
            if waiting[depth][0] == char:
                pairs.append((waiting[depth][1], at))
                del waiting[depth:]
                break
    resolved = list(kinds)
    for first, last in sorted(pairs):
        inside = {_DIRECTIONS.get(kind) for kind in resolved[first + 1 : last]} - {None}
        if not inside:
            continue
        before = map(_DIRECTIONS.get, reversed(resolved[:first]))
        side = start if start in inside else next(filter(None, before), start)
        for bracket in (first, last):
            resolved[bracket] = side
            for at in range(bracket + 1, len(text)):  # marks on a bracket go with it
                if unicodedata.bidirectional(text[at]) != "NSM":
                    break
                resolved[at] = side
    return "".join(resolved)


def visual_order(levels: Sequence[int]) -> tuple[int, ...]:
    """Indices of the items from left to right (rule L2)."""
    order = list(range(len(levels)))
    for level in range(max(levels, default=0), 0, -1):
        at = 0
        while at < len(order):
            end = at
            while end < len(order) and levels[order[end]] >= level:
                end += 1
            order[at:end] = reversed(order[at:end])
            at = end + 1
    return tuple(order)


def runs_of(clusters: Sequence[tuple[str, Typeface]], base: int | None = None) -> tuple[Run, ...]:
    """One line as runs, from left to right.

    ``base`` is the level of the paragraph that the line belongs to; None: the line is all of it.
    """
    text = "".join(cluster for cluster, _ in clusters)
    levels = embedding_levels(text, base_level(text) if base is None else base)
    runs: list[Run] = []
    at = 0
    for added, face in clusters:
        level, cluster = levels[at], added
        at += len(added)
        if runs and (runs[-1].typeface, runs[-1].level) == (face, level):
            cluster = runs.pop().text + cluster
        runs.append(Run(cluster, face, level))
    return tuple(runs[at] for at in visual_order([run.level for run in runs]))


def line_breaks(clusters: Sequence[tuple[str, Typeface]]) -> Iterator[int]:
    """Where a line may end: after a space or hyphen, and between ideographs, kana and emoji."""
    for at, ((before, _), (after, _)) in enumerate(pairwise(clusters), 1):
        alone = _stands_alone(before) and _stands_alone(after)
        if after != " " and (before in {" ", "-"} or alone):
            yield at


def _stands_alone(cluster: str) -> bool:
    first = cluster[0]
    ideograph = "\u3041" <= first <= "\u9fff" or "\U00020000" <= first <= "\U0003ffff"
    return ideograph or unicodedata.category(first) == "So"


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Text set into a box."""

    # Coverage, uint8 (H, W), as large as the lines need; 0 where there is no ink
    mask: NDArray[np.uint8] = field(repr=False)
    lines: tuple[str, ...]  # what is drawn, line by line, in the order of reading
    size_px: int  # of the font
    baseline_px: int  # of the first line, from the top of the mask

    @property
    def width_px(self) -> int:
        """Width of the mask."""
        return int(self.mask.shape[1])

    @property
    def height_px(self) -> int:
        """Height of the mask."""
        return len(self.mask)


@dataclass(frozen=True, slots=True)
class _Line:
    """A line, whatever its size; lengths are sizes of the font, from the first run's pen.

    Runs stand from left to right, each with the place of its pen; text is in the order of reading.
    """

    text: str
    runs: tuple[tuple[ShapedRun, float], ...]
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


class _Paragraph:
    """One text, to be set on one or two lines."""

    def __init__(self, text: str, *, bold: bool) -> None:
        self.clusters = clusters_of(cleaned(text))
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
        start = self._longest(0, size_px, width_px, self.breaks) if lines > 1 else 0
        full = (self._part(0, start),) if start else ()
        places = range(start + 1, len(self.clusters))
        end = self._longest(start, size_px, width_px, places, cut=True)
        return (*full, self._part(start, end, cut=True))

    def _part(self, start: int, end: int, *, cut: bool = False) -> _Line:
        """Those clusters without spaces around them, with an ellipsis where they are cut."""
        letters = [at for at in range(start, end) if self.clusters[at][0] != " "]
        clusters = self.clusters[letters[0] : letters[-1] + 1] if letters else ()
        clusters += clusters_of(_ELLIPSIS) if cut else ()
        pen, left, right, ascent, descent = 0.0, 0.0, 0.0, _ASCENT, _DESCENT
        runs = []
        for run in runs_of(clusters, self.base):
            one = glyphs.shaped(run, bold=self.bold)
            left, right = min(left, pen + one.left), max(right, pen + one.right)
            ascent, descent = max(ascent, one.ascent), max(descent, one.descent)
            runs.append((one, pen))
            pen += one.advance
        text = "".join(cluster for cluster, _ in clusters)
        return _Line(text, tuple(runs), left, max(right, pen), ascent, descent)

    def _longest(
        self, start: int, size_px: int, width_px: int, places: Sequence[int], *, cut: bool = False
    ) -> int:
        """The last place up to which the text from ``start`` fits; ``start`` if none does."""

        def width_to(place: int) -> int:
            return self._part(start, place, cut=cut).width_px(size_px)

        fitting = bisect_right(places, width_px, key=width_to)
        return places[fitting - 1] if fitting else start


def _largest(lines: Sequence[_Line], sizes_px: range, width_px: int, height_px: int) -> int:
    """The largest of the sizes at which the lines fit; 0 if none does."""
    wide = max(line.right - line.left for line in lines)
    high = sum(line.ascent + line.descent for line in lines)
    most = math.floor(min(width_px / max(wide, 1e-6), height_px / high))
    for size in range(min(sizes_px[-1], most), sizes_px[0] - 1, -1):  # one or two: pixels are whole
        narrow = max(line.width_px(size) for line in lines) <= width_px
        if narrow and sum(line.height_px(size) for line in lines) <= height_px:
            return size
    return 0


@lru_cache(maxsize=128)
def set_text(
    text: str,
    *,
    width_px: int,
    height_px: int,
    size_px: int,
    min_size_px: int | None = None,
    lines: int = 1,
    bold: bool = False,
) -> Block:
    """The text in a box: at the given size if it fits, else on two lines, smaller or cut.

    Below ``min_size_px`` (None: ``size_px``) it is cut with an ellipsis; what is too high even then
    is clipped. There are 1 or 2 lines; bold is weight 700 instead of 400.
    """
    least = size_px if min_size_px is None else min_size_px
    sizes, box = range(least, size_px + 1), (width_px, height_px)
    paragraph = _Paragraph(text, bold=bold)
    one = paragraph.one()
    size = _largest(one, sizes, *box)
    if lines > 1 and size < _ONE_LINE_DOWN_TO * size_px:
        two = paragraph.two()
        if (size_of_two := _largest(two, sizes, *box)) > size:
            return _drawn(two, size_of_two, *box)
    if size:
        return _drawn(one, size, *box)
    rest = paragraph.cut(least, width_px, lines)
    if not _largest(rest, range(least, least + 1), *box):
        rest = paragraph.cut(least, width_px, 1)
    return _drawn(rest, least, *box)


def _drawn(lines: Sequence[_Line], size_px: int, width_px: int, height_px: int) -> Block:
    placed = []
    top = 0
    for line in lines:
        left = math.floor(line.left * size_px)
        baseline = float(top + line.ascent_px(size_px))
        placed += [(run, pen * size_px - left, baseline) for run, pen in line.runs]
        top += line.height_px(size_px)
    width_px = max(1, min(width_px, max(line.width_px(size_px) for line in lines)))
    mask = glyphs.rasterised(placed, size_px, width_px, min(height_px, top))
    texts, baseline_px = tuple(line.text for line in lines), lines[0].ascent_px(size_px)
    return Block(mask, texts, size_px, baseline_px)
