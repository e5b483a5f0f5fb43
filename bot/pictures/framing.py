"""A face in a frame that its photo fills: upright, its eyes where the other's are.

Frames that stand side by side share the place and the distance of the eyes, so that the two faces
can be compared at a glance. Where two faces become one, both are brought to one shape: first a
similarity, which changes no face; then a gentle thin-plate bend of what is left (Bookstein,
"Principal warps: thin-plate splines and the decomposition of deformations", IEEE TPAMI 11, 1989),
held still at some distance from the face. Coordinates are pixel indices, as in ``engine.align``;
points are the five landmarks of ``engine.types.Face`` and the chin.
"""

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

_APARTS = np.geomspace(0.18, 0.6, 20)[:, None, None]
_EYE_HEIGHTS = np.linspace(0.46, 0.22, 13)[:, None]
_SAMPLES = 24  # points along each side of a frame at which is looked whether a photo is there
_UNTURNED = 2.0  # degrees of tilt that nobody sees: the photo is not turned
_TILTS = np.array([0.0, 5.0, 10.0, 15.0])
"""What a frame is chosen from: distance between the eyes, of the geometric mean of its sides; their
height, of its height, from its top; and by how many degrees a tilted head may stay so."""
_MOST_ASIDE = 0.36  # of the frame's width
_BEST_HEIGHT = 0.41
_HAIR, _CHIN_AT = 2.1, 1.9  # where a head ends above and below its eyes, distances between these
_EMPTY, _NEAR, _HIGH, _FAR_ASIDE, _TILTED_BY, _CUT = 200.0, 1.5, 28.0, 8.0, 0.003, 1.2
"""What a frame costs: a part that no photo fills, being close, a face high or aside, a degree of
tilt squared, a head that is cut off."""
_LEAST_APART = 2.0  # px in the photo: nothing is seen of a smaller face, and pixels stay pixels
_HEAD_SHIFT = 0.45
"""Of the nose's offset: a head turned aside extends away from where its nose points."""

_FRONTAL, _ASIDE, _PROFILE = 1.05, 1.25, 2.0
"""Eyes to mouth over eye to eye: seen from the front (the template of ``engine.align``), where a
turn begins to hide how far apart the eyes are, and where they say nothing any more."""

_HALVED_BELOW, _ENLARGED_ABOVE = 0.6, 1.2  # px of the frame to one of the photo
_ENLARGED_TO = 1.3  # from there on nobody sees that the rest is not cubic
_LEVEL = 0.001  # of a turn's cosine: what turns less is moved by whole pixels only

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
    aside_px: float = 0.0  # how far the head stands to the right of the middle
    tilt_degrees: float = 0.0  # how far the right eye is lower


def eyes_level(landmarks: NDArray[np.float32], frame: Frame) -> Points:
    """Matrix (2, 3) from photo to frame that brings the eyes to the frame's height and distance.

    For a face so turned away that its eyes nearly coincide in the photo, the line from eyes to
    mouth decides about turn and scale, continuously the more the closer the eyes are.
    """
    middle, across, nose = _axes(landmarks)
    turn = frame.eyes_apart_px / across * np.exp(1j * np.radians(frame.tilt_degrees))
    x = frame.width_px / 2 + frame.aside_px + _HEAD_SHIFT * nose * frame.eyes_apart_px
    shift = complex(x, frame.eye_y_px) - turn * middle
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def _axes(landmarks: NDArray[np.float32]) -> tuple[complex, complex, float]:
    """The middle between the eyes, the way across a face from the front, and the nose along it."""
    left, right, nose, *mouth = (complex(x, y) for x, y in np.asarray(landmarks[:5], np.float64))
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
    return middle, across, float(np.clip(((nose - middle) / across).real, -1, 1))


def shared_frames(
    faces: Sequence[FaceInPhoto], width_px: int, height_px: int, most_aside: float = _MOST_ASIDE
) -> tuple[Frame, ...]:
    """A frame for each face that its photo fills, with all eyes at one height and distance.

    From head and shoulders closer, until every photo fills its frame; a head stays whole where the
    photo shows it whole, and stands aside rather than much closer.
    """
    aparts, heights = _APARTS * (width_px * height_px) ** 0.5, _EYE_HEIGHTS * height_px
    chin_cut = np.maximum(heights / aparts + _CHIN_AT - height_px / aparts, 0)
    costs = _NEAR * np.log(_APARTS) + _HIGH * (_EYE_HEIGHTS - _BEST_HEIGHT) ** 2 + _CUT * chin_cut
    each = [_views(face, aparts, heights, (width_px, height_px), most_aside) for face in faces]
    costs = costs + sum(cost.min(axis=2, keepdims=True) for cost, _, _ in each)
    at = np.unravel_index(costs.argmin(), costs.shape)[:2]
    frames = []
    for cost, asides, tilts in each:
        best = (*at, int(cost[at].argmin()))
        eyes = float(heights[at[1], 0]), float(aparts[at[0], 0, 0])
        frames.append(Frame(width_px, height_px, *eyes, float(asides[best]), float(tilts[best[2]])))
    return tuple(frames)


def _views(
    face: FaceInPhoto, aparts: Points, heights: Points, size_px: tuple[int, int], most_aside: float
) -> tuple[Points, Points, Points]:
    """What each view of a face costs, how far aside (px) the head then stands, and the tilts."""
    middle, across, nose = _axes(face[1])
    roll = float(np.degrees(np.angle(across)))
    tilts = np.clip(roll, -_TILTS, _TILTS) if abs(roll) > _UNTURNED else np.array([roll])
    step = across * np.exp(-1j * np.radians(tilts)) / aparts  # of the photo, across the frame
    (width_px, height_px), corners = size_px, _corners(*size_px)
    x = width_px / 2 + _HEAD_SHIFT * nose * aparts
    seen = middle + np.stack([(left - x + 1j * (top - heights)) * step for left, top in corners])
    longest = np.array(face[0].shape[1::-1]) - 0.5
    # Aside as far as it takes for both vertical edges of the photo to be out of view.
    along = np.maximum(step.real, 0.3 * abs(step))
    most, least = (
        (seen.real.min(axis=0) + 0.5) / along,
        (seen.real.max(axis=0) - longest[0]) / along,
    )
    asides = np.where(least > most, (least + most) / 2, np.clip(0, least, np.maximum(most, least)))
    asides = np.clip(asides, -most_aside * width_px, most_aside * width_px)
    seen = seen - asides * step
    beyond = [-0.5 - seen.real, seen.real - longest[0], -0.5 - seen.imag, seen.imag - longest[1]]
    empty = np.maximum(np.max(beyond, axis=(0, 1)), 0) / abs(step) / (width_px * height_px) ** 0.5
    hair_cut = np.maximum(min(_HAIR, middle.imag / abs(across)) - heights / aparts, 0)
    costs = _EMPTY * empty + _CUT * hair_cut + _FAR_ASIDE * (asides / width_px) ** 2
    return costs + _TILTED_BY * tilts**2, asides, tilts


def covered_share(pixels: Pixels, matrix: Points, size_px: tuple[int, int]) -> float:
    """Share of a frame (width, height) that a photo fills which the matrix (2, 3) brings there."""
    inverse = np.asarray(cv2.invertAffineTransform(matrix), np.float64)
    across, down = (np.linspace(0, side - 1, _SAMPLES) for side in size_px)
    seen = np.stack(np.meshgrid(across, down), axis=-1) @ inverse[:, :2].T + inverse[:, 2]
    outside = (seen < -1) | (seen > np.array(pixels.shape[1::-1]))
    return 1.0 - float(outside.any(axis=-1).mean())


def _corners(width_px: int, height_px: int) -> Points:
    right, lower = width_px - 0.5, height_px - 0.5
    return np.array([(-0.5, -0.5), (right, -0.5), (right, lower), (-0.5, lower)])


def frame_face(pixels: Pixels, landmarks: NDArray[np.float32], frame: Frame) -> Pixels:
    """The face in its frame: uint8 (frame.height_px, frame.width_px, 3)."""
    return warp(pixels, eyes_level(landmarks, frame), (frame.width_px, frame.height_px))


def warp(pixels: Pixels, matrix: Points, size_px: tuple[int, int]) -> Pixels:
    """The picture through a similarity (2, 3); beyond its edges its outermost pixels go on.

    ``size_px`` is width and height of the result. What is seen is first brought to about the size
    at which it is seen: halved by averages, or enlarged by cubics, up to half of it before a turn.
    """
    height, width = pixels.shape[:2]
    inverse = np.asarray(cv2.invertAffineTransform(matrix), np.float64)
    seen = _corners(*size_px) @ inverse[:, :2].T + inverse[:, 2]
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    margin = 3 + 2 / scale
    x0, y0 = np.clip(np.floor(seen.min(axis=0) - margin), 0, (width - 1, height - 1)).astype(int)
    x1, y1 = np.clip(np.ceil(seen.max(axis=0) + margin), (x0 + 1, y0 + 1), (width, height))
    part: cv2.typing.MatLike = pixels[y0 : int(y1), x0 : int(x1)]
    step_x = step_y = 1.0
    while scale * step_x < _HALVED_BELOW and min(part.shape[:2]) > 1:
        part = part[: part.shape[0] // 2 * 2, : part.shape[1] // 2 * 2]
        size = part.shape[1] // 2, part.shape[0] // 2
        part = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
        step_x, step_y = 2 * step_x, 2 * step_y
    level = abs(matrix[1, 0]) < _LEVEL * scale
    if level or scale > _ENLARGED_ABOVE:
        near = scale if level else min(scale, max(_ENLARGED_TO, scale / 2))
        size_x, size_y = part.shape[1] * step_x * near, part.shape[0] * step_y * near
        size = (max(1, round(size_x)), max(1, round(size_y)))
        step_x, step_y = step_x * part.shape[1] / size[0], step_y * part.shape[0] / size[1]
        method = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_LINEAR
        part = cv2.resize(part, size, interpolation=method)
    # Pixel i of the part covers pixels from x0 + step * i to x0 + step * (i + 1).
    back = np.array(
        [[step_x, 0, x0 + (step_x - 1) / 2], [0, step_y, y0 + (step_y - 1) / 2], [0, 0, 1]]
    )
    matrix = matrix @ back
    x, y = (-round(shift) for shift in matrix[:, 2].tolist())
    if level and 0 <= x <= part.shape[1] - size_px[0] and 0 <= y <= part.shape[0] - size_px[1]:
        return np.asarray(part[y : y + size_px[1], x : x + size_px[0]], np.uint8)
    part = cv2.cvtColor(part, cv2.COLOR_RGB2RGBA)  # OpenCV turns four channels twice as fast
    moved = cv2.warpAffine(part, matrix, size_px, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.cvtColor(moved, cv2.COLOR_RGBA2RGB), np.uint8)


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


def turned_alike(first: FaceInPhoto, second: FaceInPhoto) -> FaceInPhoto:
    """The second, as in a mirror where the two are clearly turned to opposite sides."""
    one, other = yaw_degrees(first[1][:5]), yaw_degrees(second[1][:5])
    away = one * other < 0 and min(abs(one), abs(other)) > _MIRRORED_FROM
    return mirrored(*second) if away else second


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
    """The photo with its face brought to a shape.

    ``target`` (6, 2) is where its landmarks go in a frame of that width and height, ``apart_px``
    the distance between the eyes of a frontal face there.
    """
    matrix = placing(landmarks, target)
    placed = warp(pixels, matrix, size_px)
    maps = bend(through(matrix, landmarks), target, size_px, apart_px)
    four = cv2.cvtColor(placed, cv2.COLOR_RGB2RGBA)  # as in ``warp``
    bent = cv2.remap(four, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.cvtColor(bent, cv2.COLOR_RGBA2RGB), np.uint8)


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
