"""Says why a face may be compared badly.

The limits were measured on 2,985 portraits of 590 people, about 300 px large: a portrait's dlib
embedding is looked for among the means of all people's other portraits (97.0 % right with a mean
of four portraits, 94.5 % with a mean of three). Of those portraits, 2.6 % get a concern.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from engine.align import DLIB_EDGE_PX, DLIB_TEMPLATE, similarity, warp
from engine.types import Concern

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.types import Box, Photo

__all__ = ["concerns", "detail", "yaw_degrees"]

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

_NOSE_REACH = 0.45  # how far the nose is before the eyes, and how wide apart the eyes are,
_EYES_APART = 0.98  # in distances from the eyes to the mouth; medians over the portraits
_PART = slice(10, 70)  # of a crop half as large as dlib's, without hair and background


def concerns(photo: Photo, box: Box, landmarks: NDArray[np.float32]) -> tuple[Concern, ...]:
    """What is wrong with a face; empty for a clear one.

    Args:
        photo: The photo that the face is in.
        box: Where the face is, photo pixels.
        landmarks: float32 (5, 2), photo pixels, not all alike.

    Raises:
        ValueError: If all landmarks coincide.
    """
    found = []
    if max(box.w, box.h) < SMALL_PX:
        found.append(Concern.SMALL)
    elif detail(photo, landmarks) < BLURRED_DETAIL:  # a small face has too few pixels to tell
        found.append(Concern.BLURRED)
    if abs(yaw_degrees(landmarks)) > TURNED_DEGREES:
        found.append(Concern.TURNED)
    return tuple(found)


def yaw_degrees(landmarks: NDArray[np.float32]) -> float:
    """How far a head is turned to the side, however it is tilted.

    A head that turns moves the tip of its nose to the side by the sine and brings its eyes
    together by the cosine.

    Returns:
        In [-180, 180]: 0 from the front, positive where the nose points to the viewer's right.
    """
    eyes, mouth = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)
    down = mouth - eyes
    sideways = np.array([down[1], -down[0]], np.float64)
    nose = float((landmarks[2] - (eyes + mouth) / 2) @ sideways)
    apart = float((landmarks[1] - landmarks[0]) @ sideways)
    return math.degrees(math.atan2(nose / _NOSE_REACH, apart / _EYES_APART))


def detail(photo: Photo, landmarks: NDArray[np.float32]) -> float:
    """How much fine structure a face has in proportion to its coarse structure.

    The variance of what a Gaussian of 1 px takes away, divided by the variance of what lies
    between Gaussians of 1 and 4 px, in an upright crop of 75 px: a ratio, so that neither light
    nor contrast counts.

    Returns:
        At least 0; half of the portraits have more than 0.2.

    Raises:
        ValueError: If all landmarks coincide.
    """
    import cv2

    half = DLIB_EDGE_PX // 2
    crop = warp(photo, similarity(landmarks, DLIB_TEMPLATE / 2), (half, half))
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)[_PART, _PART].astype(np.float32)
    smooth, coarse = cv2.GaussianBlur(grey, (0, 0), 1), cv2.GaussianBlur(grey, (0, 0), 4)
    fine = float(np.var(grey - smooth))
    return fine / (float(np.var(smooth - coarse)) + 1.0)  # 1: a blank is not divided by 0
