"""The picture of an answer as one face: its left half the sender's, its right half the celebrity's.

Name, score, word and credit stand where they stand on the card with both faces side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bot.pictures.bending import with_chin
from bot.pictures.card_caption import CARD_WIDTH_PX, MOST_ENTRIES, Caption, draw_caption, spoken
from bot.pictures.card_rows import CardEntry, draw_rows
from bot.pictures.numbered import draw_numbered
from bot.pictures.sheet import BACKGROUND, SELECTED, Sheet
from bot.pictures.split_face import split_face, suits
from bot.values import Picture
from engine.types import Face, Photo

__all__ = ["draw_split_card"]

_GAP = 6
_BADGE = 58
_ALONE_PX, _ABOVE_OTHERS_PX = 960, 760
"""Height of the face: alone, and where a numbered photo or further matches share the card."""


def draw_split_card(
    photo: Photo,
    faces: Sequence[Face],
    entries: Sequence[CardEntry],
    *,
    answered: int = 0,
    title: str | None = None,
) -> Picture:
    """The face joined with its best match, each further match as a smaller face with its rank.

    With several faces in the photo it stands above, its faces numbered from 1. Further matches
    that are turned too far aside for that, or lack a photo, show their portrait.

    Args:
        photo: The sender's photo.
        faces: In the order of their numbers.
        entries: At least one match of the face that was answered, best first; ten at most are
            drawn.
        answered: Which of ``faces`` that is, counted from 0.
        title: A short line above the first name.

    Raises:
        ValueError: If there is no entry.
        IndexError: If there is no such face.
    """
    if not entries:
        raise ValueError("a card shows at least one match")
    best, *others = entries[:MOST_ENTRIES]
    sheet, top, several = Sheet(CARD_WIDTH_PX), 0, len(faces) > 1
    landmarks = faces[answered].landmarks
    if several:
        band = draw_numbered(sheet, photo, faces, highest_px=640, selected=answered)
        top = band + _GAP
    height = _ABOVE_OTHERS_PX if others or several else _ALONE_PX
    sight = (photo.pixels, with_chin(landmarks, faces[answered].box))
    face = split_face(sight, best.sight, (CARD_WIDTH_PX, height))
    sheet.photo(face, 0, top)
    if several:
        sheet.badge(answered + 1, 20, top + 20, _BADGE, paper=SELECTED, ink=BACKGROUND)
    rank = best.rank or (1 if others else None)
    if rank is not None:
        place = CARD_WIDTH_PX - 20 - _BADGE if several else 20
        sheet.badge(rank, place, top + 20, _BADGE)
    caption = Caption(title, best.name, best.word, best.credit, best.score)
    end = draw_caption(sheet, top + height, caption)

    def drawn(entry: CardEntry, edge_px: int) -> NDArray[np.uint8] | None:
        if entry.stand_in or not suits(landmarks, entry.portrait_landmarks):
            return None
        return split_face(sight, entry.sight, (edge_px, edge_px))

    if others:
        end = draw_rows(sheet, end, others, drawn)
    return sheet.picture(end, spoken(entries))
