"""One face of two: the left half of one photo, the right half of another, as if it were one.

Both are bent to the shape between them (``bending``), lit alike (``lighting``) and joined
along the middle of the face by a blend of pyramids (Burt & Adelson, "A multiresolution spline with
application to image mosaics", ACM TOG 2, 1983): light passes over softly, lines within a few
pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bot.pictures.bending import (
    bent_face,
    face_away,
    mirrored,
    placed_shape,
    placing,
    shape_of,
    upright,
)
from bot.pictures.framing import covered_share
from bot.pictures.lighting import between, skin_tone, softened, toned
from engine.align import yaw_degrees

__all__ = ["Sight", "split_face", "suits"]

Pixels = NDArray[np.uint8]
_Floats = NDArray[np.float32]
Sight = tuple[Pixels, NDArray[np.float32]]
"""Pixels (H, W, 3) and the landmarks of the face in them, (5, 2) or with the chin (6, 2)."""

_MOST_TURNED = 44.0
_MOST_APART = 33.0
"""Degrees: further turned than that, and differing by more, no halves make one face."""

_VIEWS = (
    (0.18, 0.44, 0.93),
    (0.2, 0.43, 0.91),
    (0.22, 0.415, 0.88),
    (0.245, 0.4, 0.85),
    (0.265, 0.385, 0.0),
)
"""Distance between the eyes and their height, of the geometric mean of the frame's sides and of
its height, each with the share of the frame that the photos must fill."""

_MEETING = 0.35
"""How far the first face's tone comes towards the second's: the sender stays who they are, and the
portrait, which nobody here minds, comes the rest of the way."""

_FINE_ENOUGH, _LEAST_FINE, _NEARLY = 1.25, 0.5, 0.85
"""Pixels drawn for one of the finer photo; how much smaller than asked for that may be; and from
where on it saves nothing."""

_LEVELS = 5
_REACH = 1.12  # of 100 px of a frame 900 px high: how far light passes over the seam
_SEAM = 6  # px within which lines pass over


def suits(first: NDArray[np.float32], second: NDArray[np.float32]) -> bool:
    """Whether two faces make one: neither turned far aside, both turned about alike.

    Args:
        first: Landmarks (5, 2).
        second: Landmarks (5, 2).
    """
    one, other = abs(yaw_degrees(first)), abs(yaw_degrees(second))
    return max(one, other) <= _MOST_TURNED and abs(one - other) <= _MOST_APART


def split_face(first: Sight, second: Sight, size_px: tuple[int, int]) -> Pixels:
    """The left half of the first face and the right half of the second.

    Where they are turned to opposite sides, the second is shown as in a mirror.

    Args:
        first: The sender.
        second: The celebrity.
        size_px: Width and height of the result.

    Returns:
        uint8 (height, width, 3).
    """
    if face_away(first[1], second[1]):
        second = mirrored(*second)
    view = _view(first, second, size_px)
    finest = min(_scale(sight, view.target) for sight in (first, second))
    factor = float(np.clip(_FINE_ENOUGH / finest, _LEAST_FINE, 1))
    if factor > _NEARLY:
        return _drawn(first, second, view, size_px)
    # Neither photo has so many pixels: drawn smaller it looks the same and takes half the time.
    width, height = (max(1, round(side * factor)) for side in size_px)
    scales = np.array([width / size_px[0], height / size_px[1]])
    smaller = _View((view.target + 0.5) * scales - 0.5, view.apart_px * scales[1])
    small = _drawn(first, second, smaller, (width, height))
    return np.asarray(cv2.resize(small, size_px, interpolation=cv2.INTER_CUBIC), np.uint8)


def _drawn(first: Sight, second: Sight, view: _View, size_px: tuple[int, int]) -> Pixels:
    """The two halves in that view."""
    width, height = size_px
    seam = _seam(view.target, height)
    reach = max(_SEAM, round(_REACH * height / 9))
    start = int(np.clip(seam.min() - reach, 0, width - 1))
    end = int(np.clip(seam.max() + reach, start + 1, width))
    halves = (
        _Half(first, view.target, (end, height), view.apart_px),
        _Half(second, view.target - (start, 0), (width - start, height), view.apart_px),
    )
    left, right = _lit_alike(*halves)
    joined = np.empty((height, width, 3), np.uint8)
    joined[:, :start], joined[:, end:] = left[:, :start], right[:, end - start :]
    joined[:, start:end] = _joined(left[:, start:], right[:, : end - start], seam - start)
    return joined


@dataclass(frozen=True, slots=True)
class _View:
    """Where the common face stands in the frame."""

    target: NDArray[np.float64]
    apart_px: float


class _Half:
    """One of the two photos in its part of the frame."""

    def __init__(
        self, sight: Sight, target: NDArray[np.float64], size_px: tuple[int, int], apart_px: float
    ) -> None:
        self.target = target
        self.scale = _scale(sight, target)
        self.pixels = bent_face(*sight, target, size_px, apart_px)
        self.tone = skin_tone(self.pixels, target)


def _scale(sight: Sight, target: NDArray[np.float64]) -> float:
    """Pixels of the frame to one of the photo."""
    return float(np.hypot(*placing(sight[1], target)[:, 0]))


def _view(first: Sight, second: Sight, size_px: tuple[int, int]) -> _View:
    """The widest view in which the two photos fill most of their halves."""
    width, height = size_px
    shape = upright((shape_of(first[1]) + shape_of(second[1])) / 2)
    half = (width // 2, height)
    for apart, down, enough in _VIEWS:
        apart_px = apart * (width * height) ** 0.5
        target = placed_shape(shape, (width / 2, down * height), apart_px)
        covered = min(
            covered_share(first[0], placing(first[1], target), half),
            covered_share(second[0], placing(second[1], target - (width - half[0], 0)), half),
        )
        if covered >= enough:
            break
    return _View(target, apart_px)


def _seam(target: NDArray[np.float64], height_px: int) -> NDArray[np.float64]:
    """The middle of the face, row by row: through the nose and between the eyes and lips."""
    eyes, mouth = target[:2].mean(axis=0), target[3:5].mean(axis=0)
    nose = target[2]
    if not eyes[1] < nose[1] < mouth[1]:
        nose = (eyes + mouth) / 2
    rows = np.interp(
        np.arange(height_px), (eyes[1], nose[1], mouth[1]), (eyes[0], nose[0], mouth[0])
    )
    around = max(1, height_px // 40)
    window = np.hanning(2 * around + 3)[1:-1]
    return np.convolve(np.pad(rows, around, mode="edge"), window / window.sum(), "valid")


def _lit_alike(first: _Half, second: _Half) -> tuple[Pixels, Pixels]:
    wanted = between(first.tone, second.tone, _MEETING)
    sharp = (first.scale / second.scale, second.scale / first.scale)
    return (
        softened(toned(first.pixels, first.tone, wanted), first.scale, sharp[1]),
        softened(toned(second.pixels, second.tone, wanted), second.scale, sharp[0]),
    )


def _joined(left: Pixels, right: Pixels, seam: NDArray[np.float64]) -> Pixels:
    """One picture of two of the same size, left of the seam the first."""
    width = left.shape[1]
    share = np.clip((seam[:, None] - np.arange(width)) / _SEAM + 0.5, 0, 1).astype(np.float32)
    one: _Floats = left.astype(np.float32)
    other: _Floats = right.astype(np.float32)
    details: list[_Floats] = []
    for _ in range(_LEVELS):
        if min(one.shape[:2]) < 4:
            break
        size = (one.shape[1], one.shape[0])
        coarse_one = np.asarray(cv2.pyrDown(one), np.float32)
        coarse_other = np.asarray(cv2.pyrDown(other), np.float32)
        detail = cv2.blendLinear(
            one - cv2.pyrUp(coarse_one, dstsize=size),
            other - cv2.pyrUp(coarse_other, dstsize=size),
            share,
            1 - share,
        )
        details.append(np.asarray(detail, np.float32))
        one, other = coarse_one, coarse_other
        share = np.asarray(cv2.pyrDown(share), np.float32)
    joined: _Floats = np.asarray(cv2.blendLinear(one, other, share, 1 - share), np.float32)
    for detail in reversed(details):
        size = (detail.shape[1], detail.shape[0])
        joined = np.asarray(cv2.pyrUp(joined, dstsize=size) + detail, np.float32)
    return np.clip(np.round(joined), 0, 255).astype(np.uint8)
