"""The picture of ``/parents``: the woman and the man side by side, the sender in their midst."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bot.pictures.card_rows import CAMERA, CardEntry, capital, score_text
from bot.pictures.framing import frame_face, shared_frame
from bot.pictures.numbered import draw_numbered
from bot.pictures.sheet import BACKGROUND, INK, MUTED, SELECTED, Sheet, score_colour
from bot.pictures.typesetting import set_text
from bot.values import Picture
from engine.types import Face, Photo

__all__ = ["draw_family_card"]

_WIDTH = 1080
_GAP = 6
_PAD = 40
_HALF = (_WIDTH - _GAP) // 2
_PANEL = 560
_CHILD = 340
_CHILD_BELOW = 150  # of the sender's picture, below the two panels: their faces stay free
_BADGE = 54
_BAR = 18
_COLUMN = _HALF - _PAD - _PAD // 2


def draw_family_card(
    photo: Photo,
    faces: Sequence[Face],
    parents: tuple[CardEntry, CardEntry],
    *,
    answered: int = 0,
    title: str,
) -> Picture:
    """The two most alike, the face between them; with several faces the numbered photo above.

    Args:
        photo: The sender's photo.
        faces: In the order of their numbers.
        parents: Whom the picture shows on the left and on the right.
        answered: Which of ``faces`` is between them, counted from 0.
        title: What they are.

    Raises:
        IndexError: If there is no such face.
    """
    sheet = Sheet(_WIDTH)
    top = 0
    if len(faces) > 1:
        top = draw_numbered(sheet, photo, faces, highest_px=640, selected=answered) + _GAP
    heading = set_text(
        title, width_px=_WIDTH - 2 * _PAD, height_px=80, size_px=46, min_size_px=26, bold=True
    )
    sheet.block(heading, _PAD, top + 18, INK)
    top += heading.height_px + 36
    _draw_faces(sheet, top, (photo.pixels, faces[answered].landmarks), parents)
    middle = (_WIDTH - _CHILD) // 2
    if len(faces) > 1:
        y = top + _PANEL + _CHILD_BELOW - _BADGE
        sheet.badge(answered + 1, middle, y, _BADGE, paper=SELECTED, ink=BACKGROUND)
    below = top + _PANEL
    ends = [
        _draw_words(sheet, below, left, parent)
        for left, parent in zip((_PAD, _HALF + _GAP + _PAD // 2), parents, strict=True)
    ]
    spoken = "; ".join(f"{one.name}: {one.score:.0f}/100, {one.word}" for one in parents)
    return sheet.picture(max(ends) + 20, f"{title}. {spoken}")


def _draw_faces(
    sheet: Sheet,
    top: int,
    child: tuple[NDArray[np.uint8], NDArray[np.float32]],
    parents: tuple[CardEntry, CardEntry],
) -> None:
    sights = [(parent.portrait, parent.portrait_landmarks) for parent in parents]
    frame = shared_frame(sights, _HALF, _PANEL)
    for (pixels, landmarks), x in zip(sights, (0, _HALF + _GAP), strict=True):
        sheet.photo(frame_face(pixels, landmarks, frame), x, top)
    small = shared_frame([child], _CHILD, _CHILD)
    x, y = (_WIDTH - _CHILD) // 2, top + _PANEL + _CHILD_BELOW - _CHILD
    sheet.medallion(frame_face(*child, small), x, y)


def _draw_words(sheet: Sheet, top: int, left: int, parent: CardEntry) -> int:
    """Score beside the sender's picture; name, word, bar and credit below; where they end."""
    number = score_text(parent.score, 92)
    of = set_text("/100", width_px=110, height_px=54, size_px=32, min_size_px=32)
    width = number.width_px + 8 + of.width_px
    x = left if left < _HALF else _WIDTH - _PAD - width
    baseline = top + 104
    colour = score_colour(parent.score)
    sheet.block(number, x, baseline - number.baseline_px, colour)
    sheet.block(of, x + number.width_px + 8, baseline - of.baseline_px, MUTED)
    y = top + _CHILD_BELOW + 16
    name = set_text(
        parent.name, width_px=_COLUMN, height_px=120, size_px=52, min_size_px=30, lines=2, bold=True
    )
    sheet.block(name, left, y, INK)
    y += name.height_px + 2
    word = set_text(
        capital(parent.word),
        width_px=_COLUMN,
        height_px=84,
        size_px=min(34, name.size_px - 2),
        min_size_px=26,
        lines=2,
    )
    sheet.block(word, left, y, INK)
    y += word.height_px + 14
    sheet.bar(parent.score, left, y, _COLUMN, _BAR)
    y += _BAR + 14
    if parent.credit:
        credit = set_text(
            CAMERA + parent.credit,
            width_px=_COLUMN,
            height_px=120,
            size_px=23,
            min_size_px=18,
            lines=4,
        )
        sheet.block(credit, left, y, MUTED)
        y += credit.height_px
    return y
