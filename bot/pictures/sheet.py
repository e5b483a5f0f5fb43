"""The paper that cards are drawn on: colours, photos, text, bars, badges, numbered photos, JPEG."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bot.pictures.framing import Pixels, continued_warp
from bot.pictures.text import Block, set_text
from bot.values import Picture
from engine.types import Box, Face, Photo

Colour = tuple[int, int, int]

BACKGROUND: Colour = (20, 23, 28)
INK: Colour = (244, 245, 247)
MUTED: Colour = (164, 171, 184)
TRACK: Colour = (49, 54, 64)
SELECTED: Colour = (255, 208, 64)

# Blue to yellow, lighter all the way: told apart with every kind of colour vision, and in grey.
_SCALE_SCORES = (0.0, 35.0, 65.0, 100.0)
_SCALE_COLOURS = ((104, 145, 230), (84, 190, 208), (152, 214, 120), (255, 221, 77))

# Each with the bytes it takes at most, compared with the first.
_QUALITIES = ((88, 1.0), (80, 0.75), (70, 0.6), (60, 0.5), (45, 0.4), (30, 0.0))
_MOST_BYTES = 250_000

_LOWEST_PX = 300
_AROUND = 0.3  # of a face's height that is kept above and below it
_LARGEST_SCALE = 4.0
_CROWD = 15  # with more faces, some are left unmarked rather than marked over others

_Rectangle = tuple[int, int, int, int]  # x, y, width, height


def score_colour(score: float) -> Colour:
    """The colour of a score from 0 to 100."""
    red, green, blue = map(int, _colours(np.array([score]))[0])
    return red, green, blue


def _colours(scores: NDArray[np.float64]) -> Pixels:
    """The colours (N, 3) of scores (N,)."""
    columns = [
        np.interp(scores, _SCALE_SCORES, channel) for channel in np.transpose(_SCALE_COLOURS)
    ]
    return np.round(np.stack(columns, axis=1)).astype(np.uint8)


class Sheet:
    """Collects what is to be drawn; ``picture`` draws it."""

    def __init__(self, width_px: int) -> None:
        self.width_px = width_px
        self._pasted: list[tuple[Image.Image | Colour, tuple[int, int], Image.Image | None]] = []

    def _paste(
        self, what: Image.Image | Colour, x: int, y: int, mask: Image.Image | None = None
    ) -> None:
        self._pasted.append((what, (x, y), mask))

    def photo(self, pixels: Pixels, x: int, y: int) -> None:
        """Puts pixels (H, W, 3) with their upper left corner there."""
        self._paste(Image.fromarray(pixels), x, y)

    def medallion(self, pixels: Pixels, x: int, y: int, *, ring_px: int = 10) -> None:
        """Puts square pixels (S, S, 3) as a disc there, with a ring around it."""
        edge_px = len(pixels)
        outer = _capsule(edge_px + 2 * ring_px, edge_px + 2 * ring_px)
        self._paste(BACKGROUND, x - ring_px, y - ring_px, outer)
        self._paste(Image.fromarray(pixels), x, y, _capsule(edge_px, edge_px))

    def block(self, block: Block, x: int, y: int, colour: Colour) -> None:
        """Puts set text with the upper left corner of its box there."""
        self._paste(colour, x, y, block.mask)

    def bar(self, score: float, x: int, y: int, width_px: int, height_px: int) -> None:
        """A bar from 0 to 100, filled up to the score in the colours on the way there."""
        share = min(max(score, 0.0), 100.0) / 100
        filled_px = round(height_px + (width_px - height_px) * share)
        ramp = _colours(np.linspace(0, 100, width_px)[:filled_px])
        fill = np.ascontiguousarray(np.broadcast_to(ramp, (height_px, filled_px, 3)))
        self._paste(TRACK, x, y, _capsule(width_px, height_px))
        self._paste(Image.fromarray(fill), x, y, _capsule(filled_px, height_px))

    def badge(self, number: int, x: int, y: int, height_px: int, *, selected: bool = False) -> None:
        """A number on a pill whose upper left corner is there."""
        paper, ink = (SELECTED, BACKGROUND) if selected else (BACKGROUND, INK)
        text, width_px = _badge_text(number, height_px)
        ring = max(2, height_px // 18)
        left = x + (width_px - text.width_px) // 2
        # Digits reach about 0.72 of the size above the baseline: centre those.
        top = y + round(height_px / 2 + 0.36 * text.size_px) - text.baseline_px
        self._paste(ink, x - ring, y - ring, _capsule(width_px + 2 * ring, height_px + 2 * ring))
        self._paste(paper, x, y, _capsule(width_px, height_px))
        self._paste(ink, left, top, text.mask)

    def draw_on(self, paper: Image.Image, coverage: Image.Image | None = None) -> None:
        """Draws everything; ``coverage`` (mode L) becomes 255 where there is text or a bar."""
        for what, place, mask in self._pasted:
            paper.paste(what, place, mask)
            if coverage is not None and mask is not None:
                coverage.paste(255, place, mask)

    def picture(self, height_px: int, alt: str, words_from_px: int | None = None) -> Picture:
        """Everything drawn, as a JPEG of at most 250 kB."""
        paper = Image.new("RGB", (self.width_px, height_px), BACKGROUND)
        self.draw_on(paper)
        return Picture(_jpeg(paper), self.width_px, height_px, alt, words_from_px)


def _badge_text(number: int, height_px: int) -> tuple[Block, int]:
    """The digits of a badge and how wide it is."""
    size, box = round(0.68 * height_px), {"width_px": 4 * height_px, "height_px": 2 * height_px}
    text = set_text(str(number), **box, size_px=size, bold=True)
    return text, max(height_px, text.width_px + round(0.55 * height_px))


def _capsule(width_px: int, height_px: int) -> Image.Image:
    """Coverage of a bar with round ends, smooth at its edge."""
    radius = height_px / 2
    xs = np.arange(width_px) + 0.5 - width_px / 2
    ys = np.arange(height_px)[:, None] + 0.5 - height_px / 2
    beyond = np.maximum(np.abs(xs) - (width_px / 2 - radius), 0.0)
    inside = np.clip(radius + 0.5 - np.hypot(beyond, ys), 0.0, 1.0)
    return Image.fromarray(np.round(255 * inside).astype(np.uint8))


def _jpeg(paper: Image.Image) -> bytes:
    wanted, size = 1.0, _MOST_BYTES + 1
    for quality, share in _QUALITIES:
        if size > _MOST_BYTES and share <= wanted:
            buffer = io.BytesIO()
            paper.save(buffer, "JPEG", quality=quality)
            size = len(buffer.getbuffer())
            wanted = min(wanted, share * _MOST_BYTES / size)
    return buffer.getvalue()


def draw_numbered(
    sheet: Sheet,
    photo: Photo,
    faces: Sequence[Face],
    *,
    highest_px: int,
    selected: int | None = None,
) -> int:
    """Draws the photo across the sheet's top with a numbered frame around each face.

    All of the photo is shown if it fits ``highest_px``; otherwise the part with the faces. In a
    crowd only those faces are marked whose numbers hide no others. Numbers count from 1,
    ``selected``, the face to stress, from 0. Returns the height that the photo takes.
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
        sheet.badge(at + 1, x, y, badge_px, selected=at == selected)
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
        _, width_px = _badge_text(at + 1, badge_px)
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


def _corners(pixels: Pixels, box: Box, colour: Colour) -> None:
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
    for corner_x, top in itertools.product((box.x, box.x + box.w), (above, below)):
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
