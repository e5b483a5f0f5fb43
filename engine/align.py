"""From a face in a photo to the crop that a network was trained on, and what is wrong with a face.

Coordinates are pixel indices: the centre of the upper left pixel is (0, 0). Matrices are 2 x 3 and
map photo coordinates (x, y, 1) to crop coordinates.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.types import Box, Concern, Photo

DLIB_EDGE_PX = 150
VGGFACE2_EDGE_PX = 224

DLIB_TEMPLATE = np.array(
    [(47.74, 45.35), (101.46, 45.13), (74.10, 78.93), (50.55, 101.56), (99.09, 100.97)]
)
"""Where MTCNN's five points fall in dlib's own 150 px chips: medians over 1,149 photos.

dlib aligns by its own landmarks; its published mean face is 2 to 3 px off for MTCNN's points.
"""

_DLIB_WEIGHTS = np.array([3.0, 3.0, 2.0, 1.0, 1.0])
"""More weight on the nose suits dlib's network, on turned heads above all.

Measured as the log loss of telling pairs of one person from strangers', times 1,000: on the 2,984
portraits of 597 people 35.4 instead of 36.1, on LFW's development view 43.1 instead of 44.2, and
rank-1 among the 597 by 0.2 % higher. Following the turn of the head (a regression from all five
points to dlib's own chips) gained nothing.
"""

_VGGFACE2_EXTENSION = 0.3
_VGGFACE2_RESIZED_PX = 256

# The limits of the concerns were measured on 2,985 portraits of 590 people, about 300 px large: a
# portrait's dlib embedding is looked for among the means of all people's other portraits (97.0 %
# right with a mean of four portraits, 94.5 % with a mean of three). 2.6 % of them get a concern.

SMALL_PX = 32
"""Longer side of a box below which a face is small.

With three portraits a person and probes reduced to a size, 94.5 % are right at 64 px, 94.1 % at
40, 90.9 % at 32, 79.3 % at 26 and 48.6 % at 20.
"""

TURNED_DEGREES = 45.0
"""Turn to the side from which a face is turned away.

With four portraits a person, 97 % are right below 35 degrees, 93 % from 35 to 50 and 69 % above.
"""

BLURRED_DETAIL = 0.05
"""Detail below which a face is blurred.

Blurring a 150 px crop by a Gaussian costs accuracy from a standard deviation of 3 px on (93.8 %
right at 2, 90.6 % at 3, 76.5 % at 4). This limit reports 0.4 % of the portraits as they are, 30 %
of those blurred by 2.5 px, 72 % by 3, 90 % by 3.5 and 95 % by 4.
"""

MASKED, RED = 6.0, 12.0
"""Loss of colour from the bridge of the nose down from which a face wears a mask; redness (CIE a*)
of what can't be one.

Of 51 masked faces 44 are told, and 5 of 4,925 others are taken for masked; by the loss alone it
would be about 70, most of them with dark skin that shines. Masks redder than skin are not told, nor
any in a photo without colour.
"""

SHADED = 18.0
"""How much darker than nose and cheeks (CIE L*) both lower lids are behind dark glasses.

Of 14 faces with sunglasses 11 are told, not those through whose glasses the eyes are seen; 3 of
1,559 others are taken for them.
"""

_NOSE_REACH = 0.45  # how far the nose is before the eyes, and how wide apart the eyes are,
_EYES_APART = 0.98  # in distances from the eyes to the mouth; medians over the portraits
_PART = slice(10, 70)  # of a crop half as large as dlib's, without hair and background


def similarity(
    source: ArrayLike, target: ArrayLike, weights: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Turn, scale and shift that bring source onto target with the least squared error.

    The solution of Umeyama, "Least-squares estimation of transformation parameters between two
    point patterns", IEEE TPAMI 13 (1991), which in the plane is a quotient of complex numbers. It
    never mirrors. Points are (N, 2), weights (N,), not negative; the matrix is float64 (2, 3),
    ``[[a, -b, x], [b, a, y]]``. Raises ValueError if the shapes do not fit, or all source points of
    positive weight coincide.
    """
    points, goals = np.asarray(source, np.float64), np.asarray(target, np.float64)
    share = np.ones(len(points)) if weights is None else np.asarray(weights, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or points.shape != goals.shape:
        raise ValueError(f"points are (N, 2) and (N, 2), not {points.shape} and {goals.shape}")
    if share.shape != (len(points),) or (share < 0).any() or not share.sum() > 0:
        raise ValueError("weights are one per point, none negative, not all zero")
    share = share / share.sum()
    p, q = points @ (1, 1j), goals @ (1, 1j)
    p_mean, q_mean = share @ p, share @ q
    spread = share @ np.abs(p - p_mean) ** 2
    if not spread > 0:
        raise ValueError("all points coincide")
    turn = share @ (np.conj(p - p_mean) * (q - q_mean)) / spread
    shift = q_mean - turn * p_mean
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def dlib_crop(photo: Photo, landmarks: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The face as dlib's ResNet was trained on it: upright, uint8 (150, 150, 3), RGB.

    It is black beyond the photo's edges. Raises ValueError if all landmarks coincide.
    """
    matrix = similarity(landmarks, DLIB_TEMPLATE, _DLIB_WEIGHTS)
    return warp(photo, matrix, (DLIB_EDGE_PX, DLIB_EDGE_PX))


def closer(crop: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """The middle of a crop, uint8 (H, W, 3), enlarged by a factor of at least 1 to its size."""
    import cv2

    height, width = crop.shape[:2]
    back = 1 - factor
    matrix = np.array([[factor, 0, back * (width - 1) / 2], [0, factor, back * (height - 1) / 2]])
    enlarged = cv2.warpAffine(
        crop, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(enlarged, np.uint8)


def vggface2_crop(photo: Photo, box: Box) -> NDArray[np.uint8]:
    """The face as the VGGFace2 networks were evaluated on it, uint8 (224, 224, 3), RGB.

    The box is extended by a factor 0.3 within the photo, its shorter side brought to 256 px, and
    the 224 px in its centre are taken (github.com/ox-vgg/vgg_face2 @ 0752c5cd, README,
    "Pre-processing" and "Trained models"). A factor 0.3 is 15 % on each side: the same text calls
    crops of twice the box an extension of 1.0.
    """
    margin = _VGGFACE2_EXTENSION / 2
    left, right = box.x - margin * box.w, box.x + (1 + margin) * box.w
    upper, lower = box.y - margin * box.h, box.y + (1 + margin) * box.h
    inside_x = max(left, 0.0), min(right, float(photo.width_px))
    inside_y = max(upper, 0.0), min(lower, float(photo.height_px))
    if inside_x[1] - inside_x[0] >= 1 and inside_y[1] - inside_y[0] >= 1:
        (left, right), (upper, lower) = inside_x, inside_y
    side = min(right - left, lower - upper)
    scale = _VGGFACE2_RESIZED_PX / side
    # Edges, not pixel centres, are what a crop aligns: hence the halves.
    shift_x = VGGFACE2_EDGE_PX / 2 - 0.5 - scale * ((left + right) / 2 - 0.5)
    shift_y = VGGFACE2_EDGE_PX / 2 - 0.5 - scale * ((upper + lower) / 2 - 0.5)
    matrix = np.array([[scale, 0.0, shift_x], [0.0, scale, shift_y]])
    return warp(photo, matrix, (VGGFACE2_EDGE_PX, VGGFACE2_EDGE_PX))


def warp(photo: Photo, matrix: NDArray[np.float64], size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """The photo through a similarity, uint8 (height, width, 3), RGB; black beyond its edges.

    Where the photo is reduced, every pixel of it counts: the part that is seen is first brought
    to the resolution of the crop by averaging areas, then turned by bilinear interpolation.
    Sampling alone would show artefacts in large photos, and costs a little accuracy.

    The matrix, float64 (2, 3), maps photo to crop coordinates; ``size_px`` is width and height of
    the crop. Raises ValueError if the matrix is not finite or can't be inverted.
    """
    import cv2

    turn = np.asarray(matrix, np.float64)
    scale = float(np.sqrt(abs(np.linalg.det(turn[:, :2])))) if np.isfinite(turn).all() else 0.0
    if not scale > 0:
        raise ValueError("the matrix is not finite or can't be inverted")
    pixels: NDArray[Any] = photo.pixels
    if scale < 1:
        pixels, turn = _reduced(pixels, turn, size_px, scale)
    crop = cv2.warpAffine(pixels, turn, size_px, flags=cv2.INTER_LINEAR)
    return np.asarray(crop, np.uint8)


def _reduced(
    pixels: NDArray[np.uint8], matrix: NDArray[np.float64], size_px: tuple[int, int], scale: float
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The part of the photo that the crop shows, averaged down, and the matrix from there.

    As often as it goes the part is halved, which is ten times faster than any other factor.
    """
    import cv2

    width, height = size_px
    corners = np.array([(-1, -1, 1), (width, -1, 1), (-1, height, 1), (width, height, 1)])
    whole = np.vstack([matrix, (0, 0, 1)])
    seen = (corners @ np.linalg.inv(whole).T)[:, :2]
    margin = 2 / scale
    limit = np.array([pixels.shape[1], pixels.shape[0]])
    start = np.clip(np.floor(seen.min(axis=0) - margin), 0, limit).astype(int)
    end = np.clip(np.ceil(seen.max(axis=0) + margin) + 1, 0, limit).astype(int)
    halvings = max(0, math.floor(-math.log2(scale)))
    unit = 2**halvings
    start = np.maximum(start - -(end - start) % unit, 0)
    steps = (end - start) // unit
    if steps.min() < 1:  # nothing of the photo is seen
        return np.zeros((1, 1, 3), np.uint8), np.array([[1.0, 0, -2], [0, 1, -2]])
    small: Any = pixels[start[1] :, start[0] :][: steps[1] * unit, : steps[0] * unit]
    for _ in range(halvings):
        half = (small.shape[1] // 2, small.shape[0] // 2)
        small = cv2.resize(small, half, interpolation=cv2.INTER_AREA)
    size = np.maximum(1, np.rint(steps * (unit * scale))).astype(int)
    small = cv2.resize(small, size.tolist(), interpolation=cv2.INTER_AREA)
    step = steps * unit / size
    # A small pixel i covers photo pixels from step * i to step * (i + 1), counted from start.
    back = np.diag([*step, 1.0])
    back[:2, 2] = start + (step - 1) / 2
    return np.asarray(small, np.uint8), (whole @ back)[:2]


def concerns(photo: Photo, box: Box, landmarks: NDArray[np.float32]) -> tuple[Concern, ...]:
    """What is wrong with a face; raises ValueError if all landmarks, float32 (5, 2), coincide."""
    found = []
    if max(box.w, box.h) < SMALL_PX:  # too few pixels to tell more
        found.append(Concern.SMALL)
    else:
        half = DLIB_EDGE_PX // 2
        crop = warp(photo, similarity(landmarks, DLIB_TEMPLATE / 2), (half, half))
        if detail(crop) < BLURRED_DETAIL:
            found.append(Concern.BLURRED)
        if is_covered(crop):
            found.append(Concern.COVERED)
    if abs(yaw_degrees(landmarks)) > TURNED_DEGREES:
        found.append(Concern.TURNED)
    return tuple(found)


def yaw_degrees(landmarks: NDArray[np.float32]) -> float:
    """How far a head is turned to the side, however it is tilted, in [-180, 180].

    0 from the front, positive where the nose points to the viewer's right. A head that turns moves
    the tip of its nose to the side by the sine and brings its eyes together by the cosine.
    """
    # Complex numbers: five points are too few for NumPy, and a gallery asks for many portraits.
    left, right, nose, *corners = (complex(x, y) for x, y in landmarks.tolist())
    eyes, mouth = (left + right) / 2, sum(corners) / 2
    upwards = (mouth - eyes).conjugate() * 1j  # what it is multiplied with has its part sideways
    reach, apart = ((nose - (eyes + mouth) / 2) * upwards).real, ((right - left) * upwards).real
    return math.degrees(math.atan2(reach / _NOSE_REACH, apart / _EYES_APART))


def is_covered(crop: NDArray[np.uint8]) -> bool:
    """Whether a mask or dark glasses hide part of a face; an upright crop, uint8 (75, 75, 3), RGB.

    Skin is red and yellow alike on the bridge of the nose, its tip and around the mouth; a mask is
    less so below, and has no dark line between lips, as bearded faces do.
    """
    import cv2

    lab = cv2.cvtColor(crop[18:59].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    bridge, nose = lab[:11, 32:43].mean(axis=(0, 1)), lab[18:24, 32:43].mean(axis=(0, 1))
    mouth, rows = lab[24:40, 22:53].mean(axis=(0, 1)), lab[25:, 28:47, 0].mean(axis=1)
    lost = (2 * bridge - nose - mouth) @ (0, 1, 0.5) - (rows.mean() - rows.min())
    masked = lost > MASKED and max(nose[1], mouth[1]) < RED
    lids = (lab[8:14, left : left + 14, 0].mean() for left in (17, 44))
    return bool(masked or lab[18:26, 18:57, 0].mean() - max(lids) > SHADED)


def detail(crop: NDArray[np.uint8]) -> float:
    """How much fine structure a face has in proportion to its coarse structure.

    The variance of what a Gaussian of 1 px takes away, divided by the variance of what lies
    between Gaussians of 1 and 4 px, in an upright crop, uint8 (75, 75, 3), RGB: a ratio, so that
    neither light nor contrast counts. At least 0; half of the portraits have more than 0.2.
    """
    import cv2

    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)[_PART, _PART].astype(np.float32)
    smooth, coarse = cv2.GaussianBlur(grey, (0, 0), 1), cv2.GaussianBlur(grey, (0, 0), 4)
    fine = float(np.var(grey - smooth))
    return fine / (float(np.var(smooth - coarse)) + 1.0)  # 1: a blank is not divided by 0
