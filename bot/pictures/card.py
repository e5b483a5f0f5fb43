"""The picture of an answer: the sender's face and the celebrity's side by side.

Dark, so that it sits well in light and in dark chats; drawn at 1080 px and laid out so that name
and score can still be read at the 350 px of a phone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bot.pictures.card_caption import CARD_WIDTH_PX, MOST_ENTRIES, Caption, draw_caption, spoken
from bot.pictures.card_rows import CardEntry, draw_rows
from bot.pictures.framing import frame_face, shared_frame
from bot.pictures.numbered import draw_numbered
from bot.pictures.sheet import BACKGROUND, SELECTED, Sheet
from bot.values import Picture
from engine.types import Face, Photo

__all__ = ["CardEntry", "draw_card", "draw_card_with_faces", "draw_comparison", "draw_faces"]

_GAP = 6
_HALF = (CARD_WIDTH_PX - _GAP) // 2
_BADGE = 58

_Sight = tuple[NDArray[np.uint8], NDArray[np.float32]]  # pixels and landmarks of a face


def draw_card(
    probe: Photo, face: Face, entries: Sequence[CardEntry], *, title: str | None = None
) -> Picture:
    """The face beside its best match; further matches below, each with its rank.

    Args:
        probe: The sender's photo.
        face: The face in it that was compared.
        entries: At least one, best first; ten at most are drawn.
        title: A short line above the first name.

    Raises:
        ValueError: If there is no entry.
    """
    sheet = Sheet(CARD_WIDTH_PX)
    height = _draw_entries(sheet, 0, (probe.pixels, face.landmarks), entries, title=title)
    return sheet.picture(height, spoken(entries))


def draw_card_with_faces(
    photo: Photo,
    faces: Sequence[Face],
    entries: Sequence[CardEntry],
    *,
    answered: int = 0,
    title: str | None = None,
) -> Picture:
    """The photo with its faces numbered from 1, and below it the card of one of them.

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
    face = faces[answered]
    sheet = Sheet(CARD_WIDTH_PX)
    band = draw_numbered(sheet, photo, faces, highest_px=640, selected=answered)
    sight = (photo.pixels, face.landmarks)
    height = _draw_entries(sheet, band + _GAP, sight, entries, title=title, number=answered + 1)
    return sheet.picture(height, spoken(entries))


def draw_faces(photo: Photo, faces: Sequence[Face], *, alt: str | None = None) -> Picture:
    """The photo with its faces numbered from 1.

    Args:
        photo: The sender's photo.
        faces: In the order of their numbers.
        alt: What the picture shows, for those who can't see it.
    """
    sheet = Sheet(CARD_WIDTH_PX)
    height = draw_numbered(sheet, photo, faces, highest_px=1350)
    return sheet.picture(height, alt or f"1-{len(faces)}")


def draw_comparison(
    probe_a: Photo,
    face_a: Face,
    probe_b: Photo,
    face_b: Face,
    score: float,
    word: str,
    *,
    title: str | None = None,
) -> Picture:
    """Two senders' faces side by side and how alike they are.

    Args:
        probe_a: The first photo.
        face_a: The face in it.
        probe_b: The second photo.
        face_b: The face in it.
        score: 0 to 100.
        word: What the score means.
        title: A short line above the word.
    """
    sheet = Sheet(CARD_WIDTH_PX)
    pair = ((probe_a.pixels, face_a.landmarks), (probe_b.pixels, face_b.landmarks))
    top = _draw_pair(sheet, 0, pair, 640)
    height = draw_caption(sheet, top, Caption(title, word, "", "", score))
    return sheet.picture(height, f"{score:.0f}/100, {word}")


def _draw_entries(
    sheet: Sheet,
    top: int,
    probe: _Sight,
    entries: Sequence[CardEntry],
    *,
    title: str | None,
    number: int | None = None,
) -> int:
    """Draws the pair, its caption and the further matches; returns where they end."""
    if not entries:
        raise ValueError("a card shows at least one match")
    best, *others = entries[:MOST_ENTRIES]
    panel = 520 if others or top else 640
    below = _draw_pair(sheet, top, (probe, (best.portrait, best.portrait_landmarks)), panel)
    if number is not None:
        sheet.badge(number, 20, top + 20, _BADGE, paper=SELECTED, ink=BACKGROUND)
    rank = best.rank or (1 if others else None)
    if rank is not None:
        sheet.badge(rank, _HALF + _GAP + 20, top + 20, _BADGE)
    caption = Caption(title, best.name, best.word, best.credit, best.score)
    height = draw_caption(sheet, below, caption)
    return draw_rows(sheet, height, others) if others else height


def _draw_pair(sheet: Sheet, top: int, pair: tuple[_Sight, _Sight], height_px: int) -> int:
    frame = shared_frame(pair, _HALF, height_px)
    for (pixels, landmarks), x in zip(pair, (0, _HALF + _GAP), strict=True):
        sheet.photo(frame_face(pixels, landmarks, frame), x, top)
    return top + height_px
