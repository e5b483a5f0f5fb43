"""A photo whose faces carry numbers, so that a person can say which one is meant."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from bot.pictures.framing import continued_warp
from bot.pictures.sheet import BACKGROUND, INK, SELECTED, Sheet, badge_text
from engine.types import Box, Face, Photo

__all__ = ["draw_numbered"]

_LOWEST_PX = 300
_AROUND = 0.3  # of a face's height that is kept above and below it
_LARGEST_SCALE = 4.0
_CROWD = 15
"""With more faces than this, some are left unmarked rather than marked over others."""

_Rectangle = tuple[int, int, int, int]  # x, y, width, height


def draw_numbered(
    sheet: Sheet,
    photo: Photo,
    faces: Sequence[Face],
    *,
    highest_px: int,
    selected: int | None = None,
) -> int:
    """Draws the photo across the sheet's top with a numbered frame around each face.

    All of the photo is shown if it fits the height; otherwise the part with the faces. In a crowd
    only those faces are marked whose numbers hide no others.

    Args:
        sheet: Where to draw.
        photo: The photo.
        faces: In the order of their numbers, which count from 1.
        highest_px: What the photo may take of the sheet.
        selected: The face to stress, counted from 0.

    Returns:
        Height that the photo takes.
    """
    matrix, height_px = _view(photo, faces, sheet.width_px, highest_px)
    pixels = continued_warp(photo.pixels, matrix, (sheet.width_px, height_px)).copy()
    scale, (shift_x, shift_y) = matrix[0, 0], matrix[:, 2]
    boxes = [
        Box(f.box.x * scale + shift_x, f.box.y * scale + shift_y, f.box.w * scale, f.box.h * scale)
        for f in faces
    ]
    badges = _badges(boxes, (sheet.width_px, height_px), selected)
    for at in badges:
        _corners(pixels, boxes[at], SELECTED if at == selected else INK)
    sheet.photo(pixels, 0, 0)
    for at, (x, y, _, badge_px) in badges.items():
        paper, ink = (SELECTED, BACKGROUND) if at == selected else (BACKGROUND, INK)
        sheet.badge(at + 1, x, y, badge_px, paper=paper, ink=ink)
    return height_px


def _badges(
    boxes: Sequence[Box], picture_px: tuple[int, int], selected: int | None
) -> dict[int, _Rectangle]:
    """Where the badges go: on a corner of each box, hiding no larger face and no other badge.

    Where there is no such place, the badge goes on a corner all the same; but in a crowd only the
    selected face's does.
    """
    crowd = len(boxes) > _CROWD
    badges: dict[int, _Rectangle] = {}
    for at in sorted(range(len(boxes)), key=lambda at: (at != selected, at)):
        box = boxes[at]
        badge_px = round(float(np.clip(0.3 * box.h, 34 if crowd else 40, 60)))
        _, width_px = badge_text(at + 1, badge_px)
        faces = [_inner(other) for other in boxes if other.h > 0.8 * box.h]
        places = _places(box, width_px, badge_px, picture_px)
        free = [place for place in places if not _touches(place, list(badges.values()))]
        best = [place for place in free if not _touches(place, faces)]
        if best or not crowd or at == selected:
            badges[at] = (best or free or places)[0]
    return badges


def _view(
    photo: Photo, faces: Sequence[Face], width_px: int, highest_px: int
) -> tuple[NDArray[np.float64], int]:
    """Which part of the photo is shown: a matrix that only scales and shifts, and the height."""
    scale = min(width_px / photo.width_px, _LARGEST_SCALE)
    upper, lower = 0.0, float(photo.height_px)
    if photo.height_px * scale > highest_px:
        if faces:
            upper = max(0.0, min(f.box.y - _AROUND * f.box.h for f in faces))
            lower = min(lower, max(f.box.y + (1 + _AROUND) * f.box.h for f in faces))
        scale = min(scale, highest_px / max(lower - upper, 1.0))
        shown = highest_px / scale
        upper = float(np.clip((upper + lower - shown) / 2, 0, max(0, photo.height_px - shown)))
        lower = min(upper + shown, float(photo.height_px))
    height_px = max(_LOWEST_PX, min(highest_px, round((lower - upper) * scale)))
    shift_x = (width_px - photo.width_px * scale) / 2 + (scale - 1) / 2
    shift_y = (height_px - (lower - upper) * scale) / 2 - upper * scale + (scale - 1) / 2
    return np.array([[scale, 0, shift_x], [0, scale, shift_y]]), height_px


def _corners(pixels: NDArray[np.uint8], box: Box, colour: tuple[int, int, int]) -> None:
    """Four corners of a frame, light on a dark rim, so that they show on every photo."""
    arm = 0.26 * min(box.w, box.h)
    thick = int(np.clip(0.02 * box.h, 3, 6))
    x0, y0, x1, y1 = box.x, box.y, box.x + box.w, box.y + box.h
    lines = [
        np.round([(x + dx * arm, y), (x, y), (x, y + dy * arm)]).astype(np.int32)
        for x, y, dx, dy in ((x0, y0, 1, 1), (x1, y0, -1, 1), (x1, y1, -1, -1), (x0, y1, 1, -1))
    ]
    cv2.polylines(pixels, lines, False, BACKGROUND, thick + 4, cv2.LINE_AA)
    cv2.polylines(pixels, lines, False, colour, thick, cv2.LINE_AA)


def _places(
    box: Box, width_px: int, height_px: int, picture_px: tuple[int, int]
) -> list[_Rectangle]:
    """Where a badge may go: on a corner of the box, beside the face, within the picture."""
    _, upper, _, inner_px = _inner(box)
    above = min(box.y - height_px / 2, upper - height_px - 1)
    below = max(box.y + box.h - height_px / 2, upper + inner_px + 1)
    places = []
    for corner_x in (box.x, box.x + box.w):
        for top in (above, below):
            x = np.clip(corner_x - width_px / 2, 6, picture_px[0] - width_px - 6)
            y = np.clip(top, 6, picture_px[1] - height_px - 6)
            places.append((round(float(x)), round(float(y)), width_px, height_px))
    return places


def _inner(box: Box) -> _Rectangle:
    """The part of a box that shows who it is."""
    x, y, w, h = box.x + 0.2 * box.w, box.y + 0.2 * box.h, 0.6 * box.w, 0.6 * box.h
    return round(x), round(y), round(w), round(h)


def _touches(one: _Rectangle, others: Sequence[_Rectangle]) -> bool:
    x, y, w, h = one
    return any(
        x <= ox + ow and ox <= x + w and y <= oy + oh and oy <= y + h for ox, oy, ow, oh in others
    )
