"""A face in a frame: upright, its eyes where every card has them, the photo continued softly.

Frames that stand side by side share the place and the distance of the eyes, so that the two faces
can be compared at a glance. Where two faces become one, both are brought to one shape: first a
similarity, which changes no face; then a gentle thin-plate bend of what is left (Bookstein,
"Principal warps: thin-plate splines and the decomposition of deformations", IEEE TPAMI 11, 1989),
held still at some distance from the face. Coordinates are pixel indices, as in ``engine.align``;
points are the five landmarks of ``engine.types.Face`` and the chin.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.align import DLIB_TEMPLATE, similarity, yaw_degrees
from engine.types import Box

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]
FaceInPhoto = tuple[Pixels, NDArray[np.float32]]
"""Pixels (H, W, 3) and the landmarks of the face in them, (5, 2) or with the chin (6, 2)."""

_EYE_HEIGHTS = (0.43, 0.39, 0.355)
"""Of the frame's height, from its top: the first leaves room for hair and hats; the others are for
photos that end above the hair."""
_VIEWS = ((0.165, 0.965), (0.185, 0.96), (0.21, 0.94), (0.24, 0.88), (0.27, 0.8))
"""Distances between the eyes to choose from, of the geometric mean of the frame's sides, each with
the share of its frame that a photo must fill: from head and shoulders to the face alone."""
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

_WEIGHTS = np.array([3.0, 3.0, 0.5, 1.5, 1.5])
"""Of the landmarks where a face is placed: the eyes first; the nose moves as a head turns."""
_BEND = 0.16
"""Of the distance between the eyes: no point is moved further, or a face becomes a caricature."""
_STILL_AT = 2.3  # distances between the eyes from the middle of the face
_MIRRORED_FROM = 8.0  # degrees of turn, to opposite sides, from which one of them is mirrored
_CHIN = 0.7  # from the mouth to the chin, of the distance from the eyes to the mouth
_CHINS = (0.5, 1.05)  # the least and the most that is believed
_UPRIGHT, _TILTED = 0.97, 0.82  # cosines of 14 and 35 degrees
_BEND_STEP = 12  # px to one point of a bend, which varies slowly


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a face goes; ``eye_y_px`` is the height of both eyes, from the top."""

    width_px: int
    height_px: int
    eye_y_px: float
    eyes_apart_px: float


def eyes_level(landmarks: NDArray[np.float32], frame: Frame) -> Points:
    """Matrix (2, 3) from photo to frame that brings the eyes to the frame's height and distance.

    For a face so turned away that its eyes nearly coincide in the photo, the line from eyes to
    mouth decides about turn and scale, continuously the more the closer the eyes are.
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


def shared_frame(faces: Sequence[FaceInPhoto], width_px: int, height_px: int) -> Frame:
    """The widest view of all faces in which the photos still fill most of their frames."""
    side = (width_px * height_px) ** 0.5
    tried: list[tuple[float, Frame]] = []
    for (apart, enough), height in itertools.product(_VIEWS, _EYE_HEIGHTS):
        frame = Frame(width_px, height_px, round(height * height_px), round(apart * side))
        covered = min(
            covered_share(pixels, eyes_level(landmarks, frame), (width_px, height_px))
            for pixels, landmarks in faces
        )
        if covered >= enough:
            return frame
        tried.append((covered, frame))
    return max(tried, key=lambda one: one[0])[1]


def covered_share(pixels: Pixels, matrix: Points, size_px: tuple[int, int]) -> float:
    """Share of a frame (width, height) that a photo fills which the matrix (2, 3) brings there."""
    photo = _corners(pixels.shape[1], pixels.shape[0]) @ matrix[:, :2].T + matrix[:, 2]
    panel = _corners(*size_px)
    area, _ = cv2.intersectConvexConvex(photo.astype(np.float32), panel.astype(np.float32))
    return float(area) / (size_px[0] * size_px[1])


def _seen_corners(matrix: Points, size_px: tuple[int, int]) -> tuple[Points, Points, float]:
    """From frame to photo: the matrix, the frame's corners in the photo, and frame px to one."""
    inverse = np.asarray(cv2.invertAffineTransform(matrix), np.float64)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    return inverse, _corners(*size_px) @ inverse[:, :2].T + inverse[:, 2], scale


def _corners(width_px: int, height_px: int) -> Points:
    right, lower = width_px - 0.5, height_px - 0.5
    return np.array([(-0.5, -0.5), (right, -0.5), (right, lower), (-0.5, lower)])


def frame_face(pixels: Pixels, landmarks: NDArray[np.float32], frame: Frame) -> Pixels:
    """The face in its frame: uint8 (frame.height_px, frame.width_px, 3)."""
    apart = frame.eyes_apart_px
    head = (frame.width_px / 2, frame.eye_y_px + 0.5 * apart, apart)
    size = (frame.width_px, frame.height_px)
    return continued_warp(pixels, eyes_level(landmarks, frame), size, head=head)


def continued_warp(
    pixels: Pixels,
    matrix: Points,
    size_px: tuple[int, int],
    *,
    head: tuple[float, float, float] | None = None,
) -> Pixels:
    """The picture through a similarity (2, 3); beyond its edges its colours go on, blurred.

    ``size_px`` is width and height of the result; ``head`` the centre (x, y) of a face in it, whose
    colours do not go on, and the distance between its eyes.
    """
    part, matrix = _seen_part(pixels, matrix, size_px)
    warped = cv2.warpAffine(part, matrix, size_px, borderMode=cv2.BORDER_REPLICATE)
    inside = _inside(part.shape, matrix, size_px)
    if inside is not None:
        warped = cv2.blendLinear(warped, _ambience(warped, inside, head), inside, 1 - inside)
    return np.asarray(warped, np.uint8)


def _seen_part(pixels: Pixels, matrix: Points, size_px: tuple[int, int]) -> tuple[Pixels, Points]:
    """The part of the picture that is seen, at about the size at which it is seen.

    Averaged where it is reduced, interpolated by cubics where it is enlarged: that is faster than
    the same while turning.
    """
    height, width = pixels.shape[:2]
    _, seen, scale = _seen_corners(matrix, size_px)
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
    shape: tuple[int, ...], matrix: Points, size_px: tuple[int, int]
) -> NDArray[np.float32] | None:
    """Weight of the photo, falling to 0 at its edges; None where no edge is seen."""
    width, height = size_px
    inverse, seen, scale = _seen_corners(matrix, size_px)
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
    picture: cv2.typing.MatLike,
    inside: NDArray[np.float32],
    head: tuple[float, float, float] | None,
) -> Pixels:
    """The colours of the photo spread over the whole frame, near edges more than far ones.

    Normalised convolution: a blur that counts the photo's own pixels only.
    """
    height, width = picture.shape[:2]
    size = (max(2, width // _COARSE), max(2, height // _COARSE))
    known = np.asarray(cv2.resize(inside, size, interpolation=cv2.INTER_AREA), np.float32)
    if head:
        face = np.zeros(known.shape, np.float32)
        lengths = (head[0], head[1], 1.2 * head[2], 1.7 * head[2])
        x, y, *axes = (round(length) // _COARSE for length in lengths)
        cv2.ellipse(face, (x, y), axes, 0, 0, 360, 1.0 - _HEAD_WEIGHT, -1)
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


def shape_of(landmarks: NDArray[np.float32]) -> Points:
    """The points (6, 2) upright: eyes level, their middle at 0, about 1 apart if seen frontally.

    Landmarks are (5, 2) or with the chin (6, 2), photo pixels; any points, even all the same.
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


def face_away(first: NDArray[np.float32], second: NDArray[np.float32]) -> bool:
    """Whether two faces, given by their landmarks, are clearly turned to opposite sides."""
    one, other = yaw_degrees(first[:5]), yaw_degrees(second[:5])
    return one * other < 0 and min(abs(one), abs(other)) > _MIRRORED_FROM


def head_shift(shape: Points) -> float:
    """How far to the right the eyes belong for the head to be in the middle."""
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

    ``target`` (6, 2) is where its landmarks go in a frame of that width and height, ``apart_px``
    the distance between the eyes of a frontal face there.
    """
    matrix = placing(landmarks, target)
    x, y = target[:5].mean(axis=0)
    placed = continued_warp(pixels, matrix, size_px, head=(x, y - 0.1 * apart_px, apart_px))
    maps = bend(through(matrix, landmarks), target, size_px, apart_px)
    bent = cv2.remap(placed, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(bent, np.uint8)


def placing(landmarks: NDArray[np.float32], target: Points) -> Points:
    """The similarity, float64 (2, 3), that brings landmarks near to where they go."""
    return similarity(_six(landmarks)[:5], target[:5], _WEIGHTS)


def bend(
    points: Points, target: Points, size_px: tuple[int, int], apart_px: float, most: float = _BEND
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where each pixel of the frame comes from, so that ``points`` (6, 2) come to ``target``.

    No point is moved further than ``most`` of the distance between the eyes of a frontal face.
    Returns columns and rows, float32 (height, width) each, as ``cv2.remap`` takes them.
    """
    moved = np.clip(points - target, -most * apart_px, most * apart_px)
    width, height = size_px
    grid = (width // _BEND_STEP + 2, height // _BEND_STEP + 2)
    shift = _thin_plate(target, moved, apart_px, grid)
    whole = (grid[0] * _BEND_STEP, grid[1] * _BEND_STEP)
    wide = cv2.resize(shift, whole, interpolation=cv2.INTER_LINEAR)[:height, :width]
    columns, rows = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    return columns + wide[..., 0], rows[:, None] + wide[..., 1]


def with_chin(landmarks: NDArray[np.float32], box: Box | None) -> NDArray[np.float32]:
    """The landmarks and the chin below them, float32 (6, 2); of the usual length without a box.

    MTCNN's boxes end at the chin: the more upright a face, the more its box is trusted.
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
    target: Points, moved: Points, apart_px: float, grid: tuple[int, int]
) -> NDArray[np.float32]:
    """Shift (rows, columns, 2) of the thin plate that moves target so far, still far away."""
    middle = target[:5].mean(axis=0)
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ring = np.stack([np.sin(angles), np.cos(angles)], axis=1) * _STILL_AT * apart_px + middle
    knots = np.vstack([target, ring])
    shifts = np.vstack([moved, np.zeros_like(ring)])
    unit = (knots - middle) / apart_px
    count = len(knots)
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = _kernel(((unit[:, None] - unit) ** 2).sum(axis=2))
    system[:count, count:] = np.hstack([np.ones((count, 1)), unit])
    system[count:, :count] = system[:count, count:].T
    weights = np.linalg.lstsq(system, np.vstack([shifts, np.zeros((3, 2))]), rcond=None)[0]
    columns, rows = (np.arange(count) * _BEND_STEP + (_BEND_STEP - 1) / 2 for count in grid)
    u, v = (columns - middle[0]) / apart_px, (rows - middle[1]) / apart_px
    squared = (u[None, :, None] - unit[:, 0]) ** 2 + (v[:, None, None] - unit[:, 1]) ** 2
    plate = _kernel(squared) @ weights[:count] + weights[count]
    plate += u[None, :, None] * weights[count + 1] + v[:, None, None] * weights[count + 2]
    # Beyond the ring a plate goes on rising; there the photo stays as it is.
    far = np.sqrt(u[None, :] ** 2 + v[:, None] ** 2) / _STILL_AT
    fade = np.clip((1.15 - far) / 0.3, 0, 1)
    return np.asarray(plate * (fade * fade * (3 - 2 * fade))[..., None], np.float32)


def _kernel(squared: Points) -> Points:
    """r^2 log r, 0 at 0."""
    return np.asarray(0.5 * squared * np.log(np.maximum(squared, 1e-12)), np.float64)


def _six(landmarks: NDArray[np.float32]) -> Points:
    """The landmarks and a chin; others in their place if they are all the same."""
    points = np.asarray(landmarks, np.float64)
    if np.ptp(points[:5], axis=0).max() < _LEAST_APART:
        template = DLIB_TEMPLATE - DLIB_TEMPLATE.mean(axis=0)
        points = points.mean(axis=0) + template * _LEAST_APART / np.ptp(template[:, 0])
    if len(points) > len(_WEIGHTS):
        return points
    return with_chin(points.astype(np.float32), None).astype(np.float64)


def through(matrix: Points, landmarks: NDArray[np.float32]) -> Points:
    """The landmarks and the chin, (6, 2), after a similarity."""
    return np.asarray(_six(landmarks) @ matrix[:, :2].T + matrix[:, 2], np.float64)
