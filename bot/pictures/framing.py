"""A face in a frame: upright, its eyes where every card has them, the photo continued softly.

Frames that stand side by side share the place and the distance of the eyes, so that the two faces
can be compared at a glance. Coordinates are pixel indices, as in ``engine.align``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Frame",
    "continued_warp",
    "covered_share",
    "eyes_level",
    "frame_face",
    "shared_frame",
]

_EYE_HEIGHTS = (0.43, 0.39, 0.355)
"""Heights of the eyes to choose from, of the frame's height, from its top.

The first leaves room for hair and hats; the others are for photos that end above the hair.
"""
_VIEWS = ((0.165, 0.965), (0.185, 0.96), (0.21, 0.94), (0.24, 0.88), (0.27, 0.8))
"""Distances between the eyes to choose from, of the geometric mean of the frame's sides, each with
the share of its frame that a photo must fill.

The first shows head and shoulders; the last is for photos that end close to the face.
"""
_LEAST_APART = 2.0  # px in the photo: nothing is seen of a smaller face, and pixels stay pixels
_HEAD_SHIFT = 0.45
"""Of the nose's offset: a head turned aside extends away from where its nose points."""

_FRONTAL, _ASIDE, _PROFILE = 1.05, 1.25, 2.0
"""Eyes to mouth over eye to eye: seen from the front (the template of ``engine.align``), where a
turn begins to hide how far apart the eyes are, and where they say nothing any more."""

_COARSE = 16  # px of the frame to one of the continuation, which varies slowly
_FEATHER = 0.05  # of the frame's longer side: where the photo gives way to its continuation
_UNSEEN_PX = 1.5  # an edge of the photo this close to the frame's is left sharp
_NEAR, _FAR = 0.1, 0.3  # of the frame's longer side: how far colours spread, standard deviations
_FAR_SHARE = 0.15  # so that there is a colour where the near spread does not reach
_LEAST_WEIGHT = 1e-6
_HEAD_WEIGHT = 0.02  # of the face's own pixels: skin is no background


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a face goes.

    Attributes:
        width_px: Of the frame.
        height_px: Of the frame.
        eye_y_px: Height of both eyes, from the top.
        eyes_apart_px: Distance between them.
    """

    width_px: int
    height_px: int
    eye_y_px: float
    eyes_apart_px: float


def eyes_level(landmarks: NDArray[np.float32], frame: Frame) -> NDArray[np.float64]:
    """Matrix from photo to frame that brings the eyes to the frame's height and distance.

    For a face so turned away that its eyes nearly coincide in the photo, the line from eyes to
    mouth decides about turn and scale, continuously the more the closer the eyes are.

    Args:
        landmarks: float32 (5, 2), photo pixels.
        frame: Where to.

    Returns:
        float64 (2, 3).
    """
    left, right, nose, *mouth = (complex(x, y) for x, y in np.asarray(landmarks, np.float64))
    middle = (left + right) / 2
    across = right - left
    down = ((mouth[0] + mouth[1]) / 2 - middle) / 1j  # turned so that it points across, too
    apart, drop = abs(across), abs(down)
    if drop > _ASIDE * apart:
        share = min((drop / max(apart, 1e-9) - _ASIDE) / (_PROFILE - _ASIDE), 1.0)
        towards = (1 - share) * across / max(apart, 1e-9) + share * down / drop
        length = (1 - share) * apart + share * drop / _FRONTAL
        across = towards / max(abs(towards), 1e-9) * length
    if abs(across) < _LEAST_APART:
        across = complex(_LEAST_APART)
    turn = frame.eyes_apart_px / across
    apart = frame.eyes_apart_px
    nose_aside = float(np.clip(((nose - middle) * turn).real, -apart, apart))
    centre = complex(frame.width_px / 2 + _HEAD_SHIFT * nose_aside, frame.eye_y_px)
    shift = centre - turn * middle
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def shared_frame(
    faces: Sequence[tuple[NDArray[np.uint8], NDArray[np.float32]]], width_px: int, height_px: int
) -> Frame:
    """The widest view of all faces in which the photos still fill most of their frames.

    Args:
        faces: Pixels (H, W, 3) and landmarks (5, 2) of every face that gets this frame.
        width_px: Of the frame.
        height_px: Of the frame.
    """
    side = (width_px * height_px) ** 0.5
    best, most = None, -1.0
    for apart, enough in _VIEWS:
        for height in _EYE_HEIGHTS:
            frame = Frame(width_px, height_px, round(height * height_px), round(apart * side))
            covered = min(_covered(pixels, marks, frame) for pixels, marks in faces)
            if best is None or covered > most:
                best, most = frame, covered
            if covered >= enough:
                return frame
    assert best is not None
    return best


def _covered(pixels: NDArray[np.uint8], landmarks: NDArray[np.float32], frame: Frame) -> float:
    size = (frame.width_px, frame.height_px)
    return covered_share(pixels, eyes_level(landmarks, frame), size)


def covered_share(
    pixels: NDArray[np.uint8], matrix: NDArray[np.float64], size_px: tuple[int, int]
) -> float:
    """Share of a frame that a photo fills.

    Args:
        pixels: uint8 (H, W, 3).
        matrix: float64 (2, 3), from the photo to the frame.
        size_px: Width and height of the frame.
    """
    photo = _corners(pixels.shape[1], pixels.shape[0]) @ matrix[:, :2].T + matrix[:, 2]
    panel = _corners(*size_px)
    area, _ = cv2.intersectConvexConvex(photo.astype(np.float32), panel.astype(np.float32))
    return float(area) / (size_px[0] * size_px[1])


def _corners(width_px: int, height_px: int) -> NDArray[np.float64]:
    right, lower = width_px - 0.5, height_px - 0.5
    return np.array([(-0.5, -0.5), (right, -0.5), (right, lower), (-0.5, lower)])


def frame_face(
    pixels: NDArray[np.uint8], landmarks: NDArray[np.float32], frame: Frame
) -> NDArray[np.uint8]:
    """The face in its frame.

    Args:
        pixels: uint8 (H, W, 3).
        landmarks: float32 (5, 2), in those pixels.
        frame: Where it goes.

    Returns:
        uint8 (frame.height_px, frame.width_px, 3).
    """
    apart = frame.eyes_apart_px
    head = (
        (round(frame.width_px / 2), round(frame.eye_y_px + 0.5 * apart)),
        (round(1.2 * apart), round(1.7 * apart)),
    )
    size = (frame.width_px, frame.height_px)
    return continued_warp(pixels, eyes_level(landmarks, frame), size, head=head)


def continued_warp(
    pixels: NDArray[np.uint8],
    matrix: NDArray[np.float64],
    size_px: tuple[int, int],
    *,
    head: tuple[tuple[int, int], tuple[int, int]] | None = None,
) -> NDArray[np.uint8]:
    """The picture through a similarity; beyond its edges its colours go on, blurred.

    Args:
        pixels: uint8 (H, W, 3).
        matrix: float64 (2, 3), from the picture to the result.
        size_px: Width and height of the result.
        head: Centre and half axes of a face in the result, whose colours do not go on.
    """
    part, matrix = _seen_part(pixels, matrix, size_px)
    warped = np.asarray(
        cv2.warpAffine(
            part, matrix, size_px, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        ),
        np.uint8,
    )
    inside = _inside(part.shape, matrix, size_px)
    if inside is None:
        return warped
    ambience = _ambience(warped, inside, head)
    return np.asarray(cv2.blendLinear(warped, ambience, inside, 1 - inside), np.uint8)


def _seen_part(
    pixels: NDArray[np.uint8], matrix: NDArray[np.float64], size_px: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The part of the picture that is seen, at about the size at which it is seen.

    Averaged where it is reduced, interpolated by cubics where it is enlarged: that is faster than
    the same while turning.
    """
    height, width = pixels.shape[:2]
    inverse = cv2.invertAffineTransform(matrix)
    seen = _corners(*size_px) @ inverse[:, :2].T + inverse[:, 2]
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    margin = 3 + 2 / scale
    x0, y0 = np.clip(np.floor(seen.min(axis=0) - margin), 0, (width - 1, height - 1)).astype(int)
    x1, y1 = np.clip(np.ceil(seen.max(axis=0) + margin), (x0 + 1, y0 + 1), (width, height))
    part = pixels[y0 : int(y1), x0 : int(x1)]
    step_x = step_y = 1.0
    if not 0.8 < scale < 1.2:
        size = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
        step_x, step_y = part.shape[1] / size[0], part.shape[0] / size[1]
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        part = np.asarray(cv2.resize(part, size, interpolation=method), np.uint8)
    # Pixel i of the part covers pixels from x0 + step * i to x0 + step * (i + 1).
    back = np.array(
        [[step_x, 0, x0 + (step_x - 1) / 2], [0, step_y, y0 + (step_y - 1) / 2], [0, 0, 1]]
    )
    return part, matrix @ back


def _inside(
    shape: tuple[int, ...], matrix: NDArray[np.float64], size_px: tuple[int, int]
) -> NDArray[np.float32] | None:
    """Weight of the photo, falling to 0 at its edges; None where no edge is seen."""
    width, height = size_px
    inverse = cv2.invertAffineTransform(matrix)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    seen = _corners(width, height) @ inverse[:, :2].T + inverse[:, 2]
    centre = (_COARSE - 1) / 2
    xs = np.arange(0, width + _COARSE, _COARSE, dtype=np.float32) + centre
    ys = np.arange(0, height + _COARSE, _COARSE, dtype=np.float32)[:, None] + centre
    depths = []
    for axis, size in ((0, shape[1]), (1, shape[0])):
        along = inverse[axis, 0] * xs + inverse[axis, 1] * ys + inverse[axis, 2]
        if seen[:, axis].min() < -0.5 - _UNSEEN_PX / scale:
            depths.append(along + 0.5)
        if seen[:, axis].max() > size - 0.5 + _UNSEEN_PX / scale:
            depths.append(size - 0.5 - along)
    if not depths:
        return None
    depth = np.minimum.reduce(depths) * scale
    weight = np.clip(depth / (_FEATHER * max(size_px)), 0, 1).astype(np.float32)
    weight = weight * weight * (3 - 2 * weight)
    whole = (weight.shape[1] * _COARSE, weight.shape[0] * _COARSE)
    return np.ascontiguousarray(cv2.resize(weight, whole)[:height, :width])


def _ambience(
    picture: NDArray[np.uint8],
    inside: NDArray[np.float32],
    head: tuple[tuple[int, int], tuple[int, int]] | None,
) -> NDArray[np.uint8]:
    """The colours of the photo spread over the whole frame, near edges more than far ones.

    Normalised convolution: a blur that counts the photo's own pixels only.
    """
    height, width = picture.shape[:2]
    size = (max(2, width // _COARSE), max(2, height // _COARSE))
    known = np.asarray(cv2.resize(inside, size, interpolation=cv2.INTER_AREA), np.float32)
    if head:
        face = np.zeros(known.shape, np.float32)
        centre, axes = (tuple(value // _COARSE for value in pair) for pair in head)
        cv2.ellipse(face, centre, axes, 0, 0, 360, 1.0 - _HEAD_WEIGHT, -1)
        known = known * (1 - np.asarray(cv2.GaussianBlur(face, (0, 0), 1.5), np.float32))
    known = known[..., None]
    colours = cv2.resize(picture, size, interpolation=cv2.INTER_AREA) * known
    spread = np.dstack([colours, known])
    near = cv2.GaussianBlur(spread, (0, 0), _NEAR * max(size))
    far = cv2.GaussianBlur(near, (0, 0), _FAR * max(size))
    mean = (*cv2.mean(picture)[:3], 1.0)  # of the edge alone if nothing of the photo is in view
    both = near + _FAR_SHARE * far + _LEAST_WEIGHT * np.array(mean, np.float32)
    even = np.clip(np.round(both[..., :3] / both[..., 3:]), 0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
