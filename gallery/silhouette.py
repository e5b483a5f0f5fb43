"""The picture of a portrait that has no photo: a silhouette where the face would be.

Size and landmarks are the portrait's, so that a card puts the silhouette where it would put the
face. A comment segment in the JPEG says what it is; no backbone embeds it.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.align import DLIB_TEMPLATE

_COMMENT: Final = b"lookalike: no photo"
# SOI and a COM segment (ITU-T T.81, B.2.4.5).
_MARK: Final = b"\xff\xd8\xff\xfe" + (len(_COMMENT) + 2).to_bytes(2, "big") + _COMMENT
_BACKGROUND_BGR: Final = (64, 56, 52)
_FIGURE_BGR: Final = (122, 111, 104)
_FRACTION_BITS: Final = 3  # of OpenCV's fixed-point coordinates
SIZE_PX: Final = (600, 720)
# Where the face of somebody would be of whom nothing is known.
LANDMARKS: Final = (
    110 / np.ptp(DLIB_TEMPLATE[:2, 0]) * (DLIB_TEMPLATE - DLIB_TEMPLATE[:2].mean(axis=0)) + 300
).astype(np.float32)
# Centre below the eyes, half width, half height; in distances from the eyes to the mouth.
_ELLIPSES: Final = (
    (0.3, 1.25, 1.7),  # the head
    (2.1, 0.65, 1.0),  # the neck
    (4.3, 2.9, 1.9),  # the shoulders
)


def is_silhouette(jpeg: bytes) -> bool:
    """Whether a JPEG was made by ``draw_silhouette``; its first 64 bytes are enough to know."""
    return jpeg.startswith(_MARK)


def draw_silhouette(
    width_px: int = SIZE_PX[0],
    height_px: int = SIZE_PX[1],
    landmarks: NDArray[np.float32] = LANDMARKS,
) -> bytes:
    """Draws head, neck and shoulders: a JPEG of a few kilobytes.

    The landmarks, float32 (5, 2), are where those of the face are, as in ``engine.types.Face``.
    """
    import cv2

    pixels: NDArray[np.uint8] = np.full((height_px, width_px, 3), _BACKGROUND_BGR, np.uint8)
    points = np.asarray(landmarks, np.float64)
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    down = mouth - eyes
    length = float(np.hypot(*down))
    reach = max(length, float(np.hypot(*(points[1] - points[0]))), 4.0)
    direction = down / length if length > 1.0 else np.array([0.0, 1.0])
    turn_degrees = float(np.degrees(np.arctan2(direction[1], direction[0]))) - 90.0
    for along, *halves in _ELLIPSES:
        x, y = np.rint((eyes + direction * along * reach) * (1 << _FRACTION_BITS)).astype(int)
        axes = [round(half * reach * (1 << _FRACTION_BITS)) for half in halves]
        form = ((int(x), int(y)), axes, turn_degrees, 0, 360, _FIGURE_BGR, cv2.FILLED, cv2.LINE_AA)
        cv2.ellipse(pixels, *form, _FRACTION_BITS)
    done, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 60])
    assert done
    return _MARK + encoded.tobytes()[2:]
