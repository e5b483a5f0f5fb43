"""The matches after the first: one row each, with portrait, rank, name, score and credit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bot.pictures.bending import with_chin
from bot.pictures.framing import frame_face, shared_frame
from bot.pictures.sheet import INK, MUTED, Sheet, score_colour
from bot.pictures.typesetting import Block, set_text
from engine.types import Box

__all__ = ["CAMERA", "CardEntry", "capital", "draw_rows", "score_text"]

CAMERA = "\N{CAMERA} "
"""Before a credit, in place of the word "photo" in some language."""

_GAP = 6


@dataclass(frozen=True, slots=True, eq=False)
class CardEntry:
    """A match as the card shows it, in the words of the person who asked.

    Attributes:
        portrait: uint8 (H, W, 3), RGB.
        portrait_landmarks: float32 (5, 2), portrait pixels, in the order of ``Face.landmarks``.
        name: Of the celebrity, in any script.
        score: 0 to 100.
        word: What the score means.
        credit: Whose photo it is and under which licence; may be empty.
        rank: Number to show; None: counted from 1 where there are several entries.
        portrait_box: Where the face is in the portrait, if that is known.
        stand_in: Whether the portrait is a silhouette, of which no face can be made.
    """

    portrait: NDArray[np.uint8] = field(repr=False)
    portrait_landmarks: NDArray[np.float32] = field(repr=False)
    name: str
    score: float
    word: str
    credit: str
    rank: int | None = None
    portrait_box: Box | None = None
    stand_in: bool = False

    @property
    def sight(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The portrait, and the landmarks with the chin (6, 2)."""
        return self.portrait, with_chin(self.portrait_landmarks, self.portrait_box)


@dataclass(frozen=True, slots=True)
class _Style:
    """Sizes of a row, px; a word size of 0 leaves the word out."""

    columns: int
    height: int
    inset: int
    margin: int
    name: int
    word: int
    score: int
    bar: int
    credit: int
    badge: int


_FEW = _Style(
    1, height=196, inset=30, margin=44, name=50, word=32, score=68, bar=16, credit=22, badge=46
)
_MANY = _Style(
    2, height=158, inset=18, margin=24, name=38, word=0, score=48, bar=12, credit=19, badge=38
)


def draw_rows(
    sheet: Sheet,
    top: int,
    entries: Sequence[CardEntry],
    drawn: Callable[[CardEntry, int], NDArray[np.uint8] | None] = lambda entry, edge_px: None,  # noqa: ARG005 - the names are the contract
) -> int:
    """Draws a row for every entry, from four on in two columns; returns where they end.

    Args:
        sheet: Where to draw.
        top: Where they begin.
        entries: At least one.
        drawn: The square picture of an entry, of that edge; None for its portrait.
    """
    style = _FEW if len(entries) <= 3 else _MANY
    sights = [(entry.portrait, entry.portrait_landmarks) for entry in entries]
    frame = shared_frame(sights, style.height, style.height)
    width = (sheet.width_px - _GAP * (style.columns - 1)) // style.columns
    for at, entry in enumerate(entries):
        row, column = divmod(at, style.columns)
        x, y = column * (width + _GAP), top + row * (style.height + _GAP)
        picture = drawn(entry, style.height)
        if picture is None:
            picture = frame_face(entry.portrait, entry.portrait_landmarks, frame)
        sheet.photo(picture, x, y)
        sheet.badge(entry.rank or at + 2, x + 10, y + 10, style.badge)
        left = x + style.height + style.inset
        _draw_text(sheet, entry, style, (left, y, x + width - style.margin - left))
    rows = -(-len(entries) // style.columns)
    return top + rows * (style.height + _GAP) - _GAP


def score_text(score: float, size_px: int) -> Block:
    """A score as a whole number."""
    return set_text(
        f"{score:.0f}",
        width_px=3 * size_px,
        height_px=2 * size_px,
        size_px=size_px,
        min_size_px=size_px,
        bold=True,
    )


def capital(text: str) -> str:
    """The text as it stands on a line of its own."""
    return text[:1].title() + text[1:]


def _draw_text(sheet: Sheet, entry: CardEntry, style: _Style, place: tuple[int, int, int]) -> None:
    """Name and score on one baseline, then the word, the bar and the credit, centred in height."""
    left, y, width = place
    number = score_text(entry.score, style.score)
    name = set_text(
        entry.name,
        width_px=width - number.width_px - 20,
        height_px=round(1.5 * style.name),
        size_px=style.name,
        min_size_px=round(0.55 * style.name),
        lines=2,
        bold=True,
    )
    word = _line(capital(entry.word), style.word, width)
    source = CAMERA + entry.credit if entry.credit else ""
    credit = _line(source, style.credit, width, lines=1 if style.word else 2)
    baseline_px = max(name.baseline_px, round(0.76 * style.score))
    name_px = baseline_px - name.baseline_px if len(name.lines) == 1 else 0
    head_px = max(name_px + name.height_px, baseline_px + round(0.2 * style.score))
    word_px = word.height_px if word else 0
    credit_px = credit.height_px if credit else 0
    used = head_px + word_px + 6 + style.bar + 6 + credit_px
    top = y + max(0, (style.height - used) // 2)
    sheet.block(name, left, top + name_px, INK)
    sheet.block(
        number,
        left + width - number.width_px,
        top + baseline_px - number.baseline_px,
        score_colour(entry.score),
    )
    top += head_px
    if word:
        sheet.block(word, left, top, INK)
    top += word_px + 6
    sheet.bar(entry.score, left, top, width, style.bar)
    if credit:
        sheet.block(credit, left, top + style.bar + 6, MUTED)


def _line(text: str, size_px: int, width_px: int, *, lines: int = 1) -> Block | None:
    if not text or not size_px:
        return None
    return set_text(
        text,
        width_px=width_px,
        height_px=round((0.2 + 1.25 * lines) * size_px),
        size_px=size_px,
        min_size_px=round(0.8 * size_px),
        lines=lines,
    )
