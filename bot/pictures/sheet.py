"""The paper that cards are drawn on: colours, photos, text, bars, badges, numbered photos, JPEG."""

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from bot.pictures.framing import Pixels, warp
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

_QUALITIES = (88, 80, 70, 60, 45, 30)
_MOST_BYTES = 250_000

_LOWEST_PX = 300
_BESIDE, _ABOVE = 1.0, 0.7  # of the largest face's height: what is kept around faces
_FACE_SHARE = 0.4  # of the height of a numbered photo: no face is brought nearer than that
_SMALLEST_BADGE, _CROWD_BADGE, _LARGEST_BADGE = 42, 32, 60
_CROWD = 15  # faces; with more, badges are smaller
_INNER = 0.6  # of a box: the part that shows who it is
_AT_EDGE = np.array([(-1, -1), (1, -1), (-1, 1), (1, 1), (0, -1), (0, 1), (-1, 0), (1, 0)])
_AT_CORNER = 0.03  # of a badge's area: what is hidden rather than taking the next of these
_HIDDEN_BADGE = 4.0  # px of a face that one of a badge is worth


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
    """Collects what is to be drawn; ``picture`` draws it, photos below everything else."""

    def __init__(self, width_px: int) -> None:
        self.width_px = width_px
        self._photos: list[tuple[Pixels, int, int]] = []
        self._pasted: list[tuple[Pixels, int, int, Pixels]] = []

    def _paste(self, what: Pixels | Colour, x: int, y: int, mask: Pixels) -> None:
        self._pasted.append((np.asarray(what, np.uint8), x, y, mask))

    def photo(self, pixels: Pixels, x: int, y: int) -> None:
        """Puts pixels (H, W, 3) with their upper left corner there, within the sheet."""
        self._photos.append((pixels, x, y))

    def medallion(self, pixels: Pixels, x: int, y: int, *, ring_px: int = 10) -> None:
        """Puts square pixels (S, S, 3) as a disc there, with a ring around it."""
        edge_px = len(pixels)
        outer = _capsule(edge_px + 2 * ring_px, edge_px + 2 * ring_px)
        self._paste(BACKGROUND, x - ring_px, y - ring_px, outer)
        self._paste(pixels, x, y, _capsule(edge_px, edge_px))

    def block(self, block: Block, x: int, y: int, colour: Colour) -> None:
        """Puts set text with the upper left corner of its box there."""
        self._paste(colour, x, y, block.mask)

    def bar(self, score: float, x: int, y: int, width_px: int, height_px: int) -> None:
        """A bar from 0 to 100, filled up to the score in the colours on the way there."""
        share = min(max(score, 0.0), 100.0) / 100
        filled_px = round(height_px + (width_px - height_px) * share)
        ramp = _colours(np.linspace(0, 100, width_px)[:filled_px])
        self._paste(TRACK, x, y, _capsule(width_px, height_px))
        self._paste(ramp, x, y, _capsule(filled_px, height_px))

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

    def rank(self, number: int, right: int, y: int, height_px: int) -> None:
        """A rank, ``#2``, on a tab in the upper right corner of a photo."""
        text, _ = _badge_text(f"#{number}", height_px)
        aside, round_px = height_px // 4, height_px // 3
        width_px = text.width_px + 2 * aside
        tab = _capsule(width_px + round_px, height_px + round_px, 2 * round_px)
        tab = tab[round_px:, :width_px]  # with the lower left corner round
        self._paste(BACKGROUND, right - width_px, y, tab)
        top = y + round(height_px / 2 + 0.36 * text.size_px) - text.baseline_px
        self._paste(INK, right - aside - text.width_px, top, text.mask)

    def draw_on(self, paper: Pixels, coverage: Pixels | None = None) -> None:
        """Draws all but photos on pixels (H, W, 3); ``coverage`` (H, W) becomes that of the ink."""
        for what, x, y, mask in self._pasted:
            seen = np.s_[max(-y, 0) : max(len(paper) - y, 0), max(-x, 0) : paper.shape[1] - x]
            above, share = np.broadcast_to(what, (*mask.shape, 3))[seen], mask[seen]
            if share.size:
                here = np.s_[max(y, 0) :, max(x, 0) :]
                below = paper[here][: len(share), : share.shape[1]]
                below[:] = _mixed(below, above, share)
                if coverage is not None:
                    covered = coverage[here][: len(share), : share.shape[1]]
                    np.maximum(covered, share, out=covered)

    def picture(self, height_px: int, alt: str, words_from_px: int | None = None) -> Picture:
        """Everything drawn, as a JPEG of at most 250 kB."""
        paper = np.empty((height_px, self.width_px, 3), np.uint8)
        paper[:] = np.tile(np.array(BACKGROUND, np.uint8), (self.width_px, 1))
        for pixels, x, y in self._photos:
            paper[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
        self.draw_on(paper)
        return Picture(_jpeg(paper), self.width_px, height_px, alt, words_from_px)


_SHARES = np.arange(256, dtype=np.uint8)[None]


def _mixed(below: Pixels, above: Pixels, share: Pixels) -> Pixels:
    """Pixels (H, W, 3) under others that cover them so far, uint8 (H, W)."""
    if above.strides[:2] == (0, 0) and share.size > len(_SHARES):
        ground = tuple(below[0, 0].tolist())
        if cv2.countNonZero(cv2.inRange(below, ground, ground)) == share.size:
            # Text on an even ground: one of 256 mixtures everywhere.
            mixtures = _mixed(below[:1, :1], above[:1, :1], _SHARES)
            return np.asarray(cv2.LUT(cv2.merge([share] * 3), mixtures), np.uint8)
    shares = cv2.merge([share] * 3).astype(np.uint16)
    mixed = above * shares
    np.subtract(255, shares, out=shares)
    shares *= below
    mixed += shares
    mixed += 128
    mixed += mixed >> 8  # divided by 255, rounded
    mixed >>= 8
    return mixed.astype(np.uint8)


@lru_cache(maxsize=256)
def _badge_text(number: object, height_px: int) -> tuple[Block, int]:
    """The digits of a badge and how wide it is."""
    size, box = round(0.68 * height_px), {"width_px": 4 * height_px, "height_px": 2 * height_px}
    text = set_text(str(number), **box, size_px=size, bold=True)
    return text, max(height_px, text.width_px + round(0.55 * height_px))


@lru_cache(maxsize=64)
def _capsule(width_px: int, height_px: int, round_px: int | None = None) -> Pixels:
    """Coverage of a bar with round ends, or corners of that diameter, smooth at its edge."""
    radius = (height_px if round_px is None else round_px) / 2
    xs, ys = (
        np.maximum(np.abs(np.arange(side) + 0.5 - side / 2) - (side / 2 - radius), 0.0)
        for side in (width_px, height_px)
    )
    inside = np.clip(radius + 0.5 - np.hypot(xs, ys[:, None]), 0.0, 1.0)
    return np.asarray(np.round(255 * inside), np.uint8)


def _jpeg(paper: Pixels) -> bytes:
    """RGB pixels as a JPEG with half the colour's resolution; they are lost."""
    cv2.cvtColor(paper, cv2.COLOR_RGB2BGR, dst=paper)
    for quality in _QUALITIES:
        _, jpeg = cv2.imencode(".jpg", paper, (cv2.IMWRITE_JPEG_QUALITY, quality))
        if len(jpeg) <= _MOST_BYTES:
            break
    return jpeg.tobytes()


def draw_numbered(
    sheet: Sheet,
    photo: Photo,
    faces: Sequence[Face],
    *,
    highest_px: int,
    selected: int | None = None,
) -> int:
    """Draws the photo across the sheet's top with a numbered frame around each face.

    The part with the faces is shown, as wide as the sheet where they go into ``highest_px``, or
    into the sheet's width in height. Numbers count from 1, ``selected``, the face to stress, from
    0. Returns the height that the photo takes.
    """
    matrix, size_px = _view(photo, faces, sheet.width_px, highest_px)
    pixels = warp(photo.pixels, matrix, size_px).copy()
    height_px = max(_LOWEST_PX, size_px[1])
    left, top = (sheet.width_px - size_px[0]) // 2, (height_px - size_px[1]) // 2
    scale, (shift_x, shift_y) = matrix[0, 0], matrix[:, 2]
    boxes = [
        Box(f.box.x * scale + shift_x, f.box.y * scale + shift_y, f.box.w * scale, f.box.h * scale)
        for f in faces
    ]
    badges = _badges(boxes, size_px, selected)
    for at in badges:
        _corners(pixels, boxes[at], SELECTED if at == selected else INK)
    sheet.photo(pixels, left, top)
    for at, (x, y, badge_px) in badges.items():
        sheet.badge(at + 1, left + x, top + y, badge_px, selected=at == selected)
    return height_px


def _badges(
    boxes: Sequence[Box], picture_px: tuple[int, int], selected: int | None
) -> dict[int, tuple[int, int, int]]:
    """Where the badges go, and their height: at each box's edge, hiding little of large faces."""
    smallest = _SMALLEST_BADGE if len(boxes) <= _CROWD else _CROWD_BADGE
    sides = np.array([(box.x, box.y, box.w, box.h) for box in boxes]).reshape(-1, 4)
    centres, inner = sides[:, :2] + sides[:, 2:] / 2, _INNER * sides[:, 2:]
    faces, taken = np.hstack([centres - inner / 2, inner]), np.empty((0, 4))
    badges: dict[int, tuple[int, int, int]] = {}
    for at in sorted(range(len(boxes)), key=lambda at: (at != selected, at)):
        high = round(float(np.clip(0.3 * sides[at, 3], smallest, _LARGEST_BADGE)))
        size = np.array([_badge_text(at + 1, high)[1], high])
        reach = np.maximum(sides[at, 2:], inner[at] + size) / 2
        places = centres[at] + _AT_EDGE * reach - size / 2
        places = np.clip(places, 6, np.maximum(np.array(picture_px) - size - 6, 6)).round()
        places = np.hstack([places, np.broadcast_to(size, places.shape)])
        hidden = _shared(places, faces[sides[:, 3] > 0.8 * sides[at, 3]])
        order = _AT_CORNER * size.prod() * np.arange(len(places))
        best = places[np.argmin(_HIDDEN_BADGE * _shared(places, taken) + hidden + order)]
        taken = np.vstack([taken, best])
        badges[at] = (int(best[0]), int(best[1]), high)
    return badges


def _view(
    photo: Photo, faces: Sequence[Face], width_px: int, highest_px: int
) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Which part of the photo is shown: a matrix that only scales and shifts, width and height."""
    whole, tallest_px = np.array([photo.width_px, photo.height_px]), max(highest_px, width_px)
    boxes = np.array([(f.box.x, f.box.y, f.box.w, f.box.h) for f in faces] or [(0, 0, *whole)])
    largest, ends = max(float(boxes[:, 3].max()), 1.0), boxes[:, :2] + boxes[:, 2:]
    around = np.array([_BESIDE, _ABOVE]) * largest
    start = np.clip((boxes[:, :2] - around).min(axis=0), 0, whole - 1)
    end = np.clip((ends + around).max(axis=0), start + 1, whole)
    across, down = end - start
    scale = min(width_px / across, highest_px / down, _FACE_SHARE * highest_px / largest)
    least = max(ends[:, 1].max() - boxes[:, 1].min(), 1.0)
    scale = max(scale, min(width_px / whole[0], tallest_px / least))
    height_px = max(highest_px, min(tallest_px, round(down * scale)))
    size = np.minimum((width_px, height_px), whole * scale)
    shown = size / scale
    corner = np.clip((start + end - shown) / 2, 0, whole - shown)
    shift_x, shift_y = (scale - 1) / 2 - corner * scale
    width, height = (max(1, round(side)) for side in size.tolist())
    return np.array([[scale, 0, shift_x], [0, scale, shift_y]]), (width, height)


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


def _shared(some: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """The area (N,), px, that each of some rectangles (N, 4) shares with others (M, 4)."""
    one, other = some[:, None], others[None]
    start = np.maximum(one[..., :2], other[..., :2])
    end = np.minimum(one[..., :2] + one[..., 2:], other[..., :2] + other[..., 2:])
    return np.asarray(np.maximum(end - start, 0).prod(axis=2).sum(axis=1), np.float64)
