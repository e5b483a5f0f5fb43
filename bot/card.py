"""The picture of an answer: the sender's face and the celebrity's side by side.

Dark, so that it sits well in light and in dark chats; drawn at 1080 px and laid out so that name
and score can still be read at the 350 px of a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bot.card_rows import CAMERA, CardEntry, capital, draw_rows, score_text
from bot.framing import frame_face, shared_frame
from bot.numbered import draw_numbered
from bot.reply import Picture
from bot.sheet import BACKGROUND, INK, MUTED, SELECTED, Sheet, score_colour
from bot.typesetting import set_text
from engine.types import Face, Photo

__all__ = ["CardEntry", "draw_card", "draw_card_with_faces", "draw_comparison", "draw_faces"]

_WIDTH = 1080
_GAP = 6
_PAD = 44
_HALF = (_WIDTH - _GAP) // 2
_BADGE = 58
_BAR = 22
_MOST = 10  # more would make a ribbon that nobody reads and platforms refuse

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
    sheet = Sheet(_WIDTH)
    height = _draw_entries(sheet, 0, (probe.pixels, face.landmarks), entries, title=title)
    return sheet.picture(height, _spoken(entries))


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
    sheet = Sheet(_WIDTH)
    band = draw_numbered(sheet, photo, faces, highest_px=640, selected=answered)
    sight = (photo.pixels, face.landmarks)
    height = _draw_entries(sheet, band + _GAP, sight, entries, title=title, number=answered + 1)
    return sheet.picture(height, _spoken(entries))


def draw_faces(photo: Photo, faces: Sequence[Face], *, alt: str | None = None) -> Picture:
    """The photo with its faces numbered from 1.

    Args:
        photo: The sender's photo.
        faces: In the order of their numbers.
        alt: What the picture shows, for those who can't see it.
    """
    sheet = Sheet(_WIDTH)
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
    sheet = Sheet(_WIDTH)
    pair = ((probe_a.pixels, face_a.landmarks), (probe_b.pixels, face_b.landmarks))
    top = _draw_pair(sheet, 0, pair, 640)
    height = _draw_caption(sheet, top, _Caption(title, word, "", "", score))
    return sheet.picture(height, f"{score:.0f}/100, {word}")


@dataclass(frozen=True, slots=True)
class _Caption:
    """What stands under a pair of faces."""

    title: str | None
    name: str
    word: str
    credit: str
    score: float


def _spoken(entries: Sequence[CardEntry]) -> str:
    return "; ".join(
        f"{entry.name}: {entry.score:.0f}/100, {entry.word}" for entry in entries[:_MOST]
    )


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
    best, *others = entries[:_MOST]
    panel = 520 if others or top else 640
    below = _draw_pair(sheet, top, (probe, (best.portrait, best.portrait_landmarks)), panel)
    if number is not None:
        sheet.badge(number, 20, top + 20, _BADGE, paper=SELECTED, ink=BACKGROUND)
    rank = best.rank or (1 if others else None)
    if rank is not None:
        sheet.badge(rank, _HALF + _GAP + 20, top + 20, _BADGE)
    caption = _Caption(title, best.name, best.word, best.credit, best.score)
    height = _draw_caption(sheet, below, caption)
    return draw_rows(sheet, height, others) if others else height


def _draw_pair(sheet: Sheet, top: int, pair: tuple[_Sight, _Sight], height_px: int) -> int:
    frame = shared_frame(pair, _HALF, height_px)
    for (pixels, landmarks), x in zip(pair, (0, _HALF + _GAP), strict=True):
        sheet.photo(frame_face(pixels, landmarks, frame), x, top)
    return top + height_px


def _draw_caption(sheet: Sheet, top: int, caption: _Caption) -> int:
    """Name, word, score, bar and credit under a pair; returns where they end."""
    width, right = _WIDTH - 2 * _PAD, _WIDTH - _PAD
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
