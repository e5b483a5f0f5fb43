"""What stands under the faces of a card: name, word, score, bar and credit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bot.pictures.card_rows import CAMERA, CardEntry, capital, score_text
from bot.pictures.sheet import INK, MUTED, Sheet, score_colour
from bot.pictures.typesetting import set_text

__all__ = ["CARD_WIDTH_PX", "MOST_ENTRIES", "Caption", "draw_caption", "spoken"]

CARD_WIDTH_PX = 1080
MOST_ENTRIES = 10  # more would make a ribbon that nobody reads and platforms refuse

_PAD = 44
_BAR = 22


@dataclass(frozen=True, slots=True)
class Caption:
    """What is said about a pair of faces.

    Attributes:
        title: A short line above the name; None for none.
        name: Of the celebrity, or what stands in its place.
        word: What the score means; may be empty.
        credit: Whose photo it is and under which licence; may be empty.
        score: 0 to 100.
    """

    title: str | None
    name: str
    word: str
    credit: str
    score: float


def spoken(entries: Sequence[CardEntry]) -> str:
    """What a card says, for those who can't see it."""
    return "; ".join(
        f"{entry.name}: {entry.score:.0f}/100, {entry.word}" for entry in entries[:MOST_ENTRIES]
    )


def draw_caption(sheet: Sheet, top: int, caption: Caption) -> int:
    """Name, word, score, bar and credit under a pair; returns where they end."""
    width, right = CARD_WIDTH_PX - 2 * _PAD, CARD_WIDTH_PX - _PAD
    y = top + 26
    if caption.title:
        line = set_text(caption.title, width_px=width, height_px=44, size_px=30, min_size_px=20)
        sheet.block(line, _PAD, y, MUTED)
        y += line.height_px + 2
    number = score_text(caption.score, 104)
    of = set_text("/100", width_px=120, height_px=60, size_px=36, min_size_px=36)
    column = number.width_px + 8 + of.width_px
    name = set_text(
        caption.name,
        width_px=width - column - 32,
        height_px=176,
        size_px=72,
        min_size_px=38,
        lines=2,
        bold=True,
    )
    baseline = y + max(name.baseline_px, 80)  # 80: as high as the digits, with air above them
    name_y = baseline - name.baseline_px if len(name.lines) == 1 else y
    sheet.block(name, _PAD, name_y, INK)
    sheet.block(of, right - of.width_px, baseline - of.baseline_px, MUTED)
    sheet.block(number, right - column, baseline - number.baseline_px, score_colour(caption.score))
    y = max(name_y + name.height_px, baseline + 18)
    if caption.word:
        size = min(40, name.size_px - 2)
        line = set_text(
            capital(caption.word),
            width_px=width,
            height_px=104,
            size_px=size,
            min_size_px=28,
            lines=2,
        )
        sheet.block(line, _PAD, y, INK)
        y += line.height_px
    y += 16
    sheet.bar(caption.score, _PAD, y, width, _BAR)
    y += _BAR + 18
    if caption.credit:
        line = set_text(
            CAMERA + caption.credit,
            width_px=width,
            height_px=64,
            size_px=25,
            min_size_px=20,
            lines=2,
        )
        sheet.block(line, _PAD, y, MUTED)
        y += line.height_px + 8
    return y + 16
