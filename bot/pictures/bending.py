"""Two faces brought to one shape: eyes, nose and mouth of both in the same places.

First a similarity, which changes no face; then a gentle thin-plate bend of what is left
(Bookstein, "Principal warps: thin-plate splines and the decomposition of deformations", IEEE TPAMI
11, 1989), held still at some distance from the face. Coordinates are pixel indices, as in
``engine.align``; points are the five landmarks of ``engine.types.Face`` and the chin.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

from bot.pictures.framing import continued_warp
from engine.align import DLIB_TEMPLATE, similarity, yaw_degrees
from engine.types import Box

__all__ = [
    "bend",
    "bent_face",
    "face_away",
    "head_shift",
    "mirrored",
    "placed_shape",
    "placing",
    "shape_of",
    "through",
    "upright",
    "with_chin",
]

Points = NDArray[np.float64]
Pixels = NDArray[np.uint8]

_WEIGHTS = np.array([3.0, 3.0, 0.5, 1.5, 1.5])
"""Of the landmarks where a face is placed: the eyes first; the nose moves as a head turns."""
_MOST_BEND = 0.16
"""Of the distance between the eyes: no point is moved further, or a face becomes a caricature."""
_STILL_AT = 2.3  # distances between the eyes from the middle of the face
_MIRRORED_FROM = 8.0  # degrees of turn, to opposite sides, from which one of them is mirrored
_HEAD_SHIFT = 0.45  # of the nose's distance from the middle of the eyes
_CHIN = 0.7  # from the mouth to the chin, of the distance from the eyes to the mouth
_CHINS = (0.5, 1.05)  # the least and the most that is believed
_UPRIGHT, _TILTED = 0.97, 0.82  # cosines of 14 and 35 degrees
_COARSE = 12  # px to one point of a bend, which varies slowly
_LEAST_APART = 2.0  # px in the photo: nothing is seen of a smaller face


def shape_of(landmarks: NDArray[np.float32]) -> Points:
    """The points upright: eyes level, their middle at 0, about 1 apart for a frontal face.

    Args:
        landmarks: (5, 2) or with the chin (6, 2), photo pixels; any points, even all the same.

    Returns:
        float64 (6, 2).
    """
    template = DLIB_TEMPLATE - DLIB_TEMPLATE[:2].mean(axis=0)
    template = template / np.linalg.norm(template[1] - template[0])
    return upright(through(similarity(_six(landmarks)[:5], template, _WEIGHTS), landmarks))


def upright(points: Points) -> Points:
    """The same points, turned and moved so that the eyes are level with their middle at 0."""
    left, right = points[:2] @ (1, 1j)
    turn = abs(right - left) / (right - left) if abs(right - left) > 1e-9 else 1.0
    turned = (points @ (1, 1j) - (left + right) / 2) * turn
    return np.stack([turned.real, turned.imag], axis=1)


def placed_shape(shape: Points, middle_px: tuple[float, float], apart_px: float) -> Points:
    """An upright shape where a frame wants it.

    Args:
        shape: From ``shape_of``, or a mean of several.
        middle_px: The middle of the eyes in the frame.
        apart_px: Distance between the eyes of a frontal face.

    Returns:
        float64 (6, 2), frame pixels.
    """
    return shape * apart_px + np.asarray(middle_px, np.float64)


def face_away(first: NDArray[np.float32], second: NDArray[np.float32]) -> bool:
    """Whether two faces, given by their landmarks, are clearly turned to opposite sides."""
    one, other = yaw_degrees(first[:5]), yaw_degrees(second[:5])
    return one * other < 0 and min(abs(one), abs(other)) > _MIRRORED_FROM


def head_shift(shape: Points) -> float:
    """How far to the right the eyes belong for the head to be in the middle.

    A head turned aside extends away from where its nose points, as in ``bot.pictures.framing``.
    """
    return _HEAD_SHIFT * float(np.clip(shape[2, 0], -1, 1))


def mirrored(pixels: Pixels, landmarks: NDArray[np.float32]) -> tuple[Pixels, NDArray[np.float32]]:
    """The face as a mirror shows it; left and right are again as the viewer sees them."""
    flipped = landmarks[[1, 0, 2, 4, 3, *range(5, len(landmarks))]].copy()
    flipped[:, 0] = pixels.shape[1] - 1 - flipped[:, 0]
    return np.asarray(cv2.flip(pixels, 1), np.uint8), flipped


def bent_face(
    pixels: Pixels,
    landmarks: NDArray[np.float32],
    target: Points,
    size_px: tuple[int, int],
    apart_px: float,
) -> Pixels:
    """The photo with its face brought to a shape; beyond its edges its colours go on, blurred.

    Args:
        pixels: uint8 (H, W, 3).
        landmarks: (5, 2) or with the chin (6, 2), in those pixels.
        target: (6, 2), where they go, frame pixels.
        size_px: Width and height of the frame.
        apart_px: Distance between the eyes of a frontal face in the frame.

    Returns:
        uint8 (height, width, 3).
    """
    matrix = placing(landmarks, target)
    middle = target[:5].mean(axis=0)
    head = (
        (round(middle[0]), round(middle[1] - 0.1 * apart_px)),
        (round(1.2 * apart_px), round(1.7 * apart_px)),
    )
    placed = continued_warp(pixels, matrix, size_px, head=head)
    across, down = bend(through(matrix, landmarks), target, size_px, apart_px)
    return np.asarray(
        cv2.remap(placed, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
        np.uint8,
    )


def placing(landmarks: NDArray[np.float32], target: Points) -> NDArray[np.float64]:
    """The similarity, float64 (2, 3), that brings landmarks near to where they go."""
    return similarity(_six(landmarks)[:5], target[:5], _WEIGHTS)


def bend(
    points: Points,
    target: Points,
    size_px: tuple[int, int],
    apart_px: float,
    most: float = _MOST_BEND,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where each pixel of the frame comes from, so that ``points`` come to ``target``.

    Args:
        points: (6, 2), where landmarks and chin are, frame pixels.
        target: (6, 2), where they go.
        size_px: Width and height of the frame.
        apart_px: Distance between the eyes of a frontal face in the frame.
        most: How far a point may be moved, of that distance.

    Returns:
        Columns and rows, float32 (height, width) each, as ``cv2.remap`` takes them.
    """
    moved = np.clip(points - target, -most * apart_px, most * apart_px)
    width, height = size_px
    grid = (width // _COARSE + 2, height // _COARSE + 2)
    xs = np.arange(grid[0], dtype=np.float64) * _COARSE + (_COARSE - 1) / 2
    ys = np.arange(grid[1], dtype=np.float64) * _COARSE + (_COARSE - 1) / 2
    shift = _thin_plate(target, target + moved, apart_px, xs, ys)
    wide = np.asarray(
        cv2.resize(shift, (grid[0] * _COARSE, grid[1] * _COARSE), interpolation=cv2.INTER_LINEAR)
    )[:height, :width]
    across, down = _identity(width, height)
    return across + wide[..., 0], down + wide[..., 1]


def with_chin(landmarks: NDArray[np.float32], box: Box | None) -> NDArray[np.float32]:
    """The landmarks and the chin below them.

    MTCNN's boxes end at the chin: the more upright a face, the more its box is trusted.

    Args:
        landmarks: float32 (5, 2).
        box: The face's, in the same pixels; None: a chin of the usual length.

    Returns:
        float32 (6, 2).
    """
    points = np.asarray(landmarks, np.float64)
    eyes, mouth = points[:2].mean(axis=0), points[3:5].mean(axis=0)
    down, length = mouth - eyes, _CHIN
    if box is not None and down[1] > 0:
        seen = float(np.clip((box.y + box.h - mouth[1]) / down[1], *_CHINS))
        upright_by = down[1] / float(np.hypot(*down))
        trust = float(np.clip((upright_by - _TILTED) / (_UPRIGHT - _TILTED), 0, 1))
        length += trust * (seen - _CHIN)
    return np.vstack([points, mouth + length * down]).astype(np.float32)


def _thin_plate(
    target: Points,
    source: Points,
    apart_px: float,
    xs: NDArray[np.float64],
    ys: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Shift (rows, columns, 2) of the thin plate that bends target to source, still far away."""
    middle = target[:5].mean(axis=0)
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ring = np.stack([np.sin(angles), np.cos(angles)], axis=1) * _STILL_AT * apart_px + middle
    knots = np.vstack([target, ring])
    shifts = np.vstack([source - target, np.zeros_like(ring)])
    unit = (knots - middle) / apart_px
    count = len(knots)
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = _kernel(((unit[:, None] - unit) ** 2).sum(axis=2))
    system[:count, count:] = np.hstack([np.ones((count, 1)), unit])
    system[count:, :count] = system[:count, count:].T
    weights = np.linalg.lstsq(system, np.vstack([shifts, np.zeros((3, 2))]), rcond=None)[0]
    u, v = (xs - middle[0]) / apart_px, (ys - middle[1]) / apart_px
    squared = (u[None, :, None] - unit[:, 0]) ** 2 + (v[:, None, None] - unit[:, 1]) ** 2
    plate = _kernel(squared) @ weights[:count] + weights[count]
    plate += u[None, :, None] * weights[count + 1] + v[:, None, None] * weights[count + 2]
    # Beyond the ring a plate goes on rising; there the photo stays as it is.
    far = np.sqrt(u[None, :] ** 2 + v[:, None] ** 2) / _STILL_AT
    fade = np.clip((1.15 - far) / 0.3, 0, 1)
    return np.asarray(plate * (fade * fade * (3 - 2 * fade))[..., None], np.float32)


def _kernel(squared: NDArray[np.float64]) -> NDArray[np.float64]:
    """r^2 log r, 0 at 0."""
    return np.asarray(0.5 * squared * np.log(np.maximum(squared, 1e-12)), np.float64)


@functools.lru_cache(maxsize=4)
def _identity(width: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rows, columns = np.indices((height, width), np.float32)
    return columns, rows


def _six(landmarks: NDArray[np.float32]) -> Points:
    """The landmarks and a chin; others in their place if they are all the same."""
    points = np.asarray(landmarks, np.float64)
    if np.ptp(points[:5], axis=0).max() < _LEAST_APART:
        template = DLIB_TEMPLATE - DLIB_TEMPLATE.mean(axis=0)
        points = points.mean(axis=0) + template * _LEAST_APART / np.ptp(template[:, 0])
    if len(points) > len(_WEIGHTS):
        return points
    return with_chin(points.astype(np.float32), None).astype(np.float64)


def through(matrix: NDArray[np.float64], landmarks: NDArray[np.float32]) -> Points:
    """The landmarks and the chin, (6, 2), after a similarity."""
    moved: Points = _six(landmarks) @ matrix[:, :2].T + matrix[:, 2]
    return moved
