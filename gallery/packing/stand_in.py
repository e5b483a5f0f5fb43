"""The picture of a portrait whose photo did not come along: a silhouette where the face would be.

A gallery exported without photos can still be searched and named. Its portraits keep size and
landmarks, so that a card puts the silhouette where it would put the face. The file says in a
comment segment what it is: no backbone embeds it, and the photo takes its place when it comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gallery.catalogue import Portrait
    from gallery.collection import Gallery

__all__ = ["draw_stand_in", "is_stand_in", "lacks_photo"]

_COMMENT: Final = b"lookalike: no photo"
_MARK: Final = b"\xff\xd8\xff\xfe" + (len(_COMMENT) + 2).to_bytes(2, "big") + _COMMENT
"""SOI and a COM segment (ITU-T T.81, B.2.4.5)."""

_WALL: Final = (52, 56, 64)
_FIGURE: Final = (104, 111, 122)
_QUALITY: Final = 60
_FRACTION_BITS: Final = 3  # of OpenCV's coordinates


def is_stand_in(jpeg: bytes) -> bool:
    """Whether a portrait's picture is a silhouette; its first 64 bytes are enough to know."""
    return jpeg.startswith(_MARK)


def lacks_photo(gallery: Gallery, portrait: Portrait) -> bool:
    """Whether a portrait came into the gallery without its photo."""
    try:
        return is_stand_in(gallery.picture(portrait))
    except OSError:
        return False


def draw_stand_in(width_px: int, height_px: int, landmarks: NDArray[np.float32]) -> bytes:
    """A silhouette.

    Args:
        width_px: Of the picture.
        height_px: Of the picture.
        landmarks: float32 (5, 2), where the face's landmarks are, in the order of
            ``engine.types.Face``.

    Returns:
        A JPEG of a few kilobytes.
    """
    import cv2

    wall: NDArray[np.uint8] = np.full((height_px, width_px, 3), _WALL[::-1], np.uint8)
    points = np.asarray(landmarks, np.float64)
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    down = mouth - eyes
    reach = max(float(np.hypot(*down)), float(np.hypot(*(points[1] - points[0]))), 4.0)
    direction = down / np.hypot(*down) if np.hypot(*down) > 1.0 else np.array([0.0, 1.0])
    turn = float(np.degrees(np.arctan2(direction[1], direction[0]))) - 90.0
    figure = _FIGURE[::-1]
    for along, half_width, half_height in (
        (0.3, 1.25, 1.7),  # the head, in distances from the eyes to the mouth
        (2.1, 0.65, 1.0),  # the neck
        (4.3, 2.9, 1.9),  # the shoulders
    ):
        centre = eyes + direction * (along * reach)
        _ellipse(wall, centre, (half_width * reach, half_height * reach), turn, figure)
    done, encoded = cv2.imencode(".jpg", wall, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert done
    return _MARK + encoded.tobytes()[2:]


def _ellipse(
    picture: NDArray[np.uint8],
    centre: NDArray[np.float64],
    half_axes: tuple[float, float],
    turn_degrees: float,
    colour: tuple[int, ...],
) -> None:
    import cv2

    one = 1 << _FRACTION_BITS
    cv2.ellipse(
        picture,
        (round(float(centre[0]) * one), round(float(centre[1]) * one)),
        (round(half_axes[0] * one), round(half_axes[1] * one)),
        turn_degrees,
        0,
        360,
        colour,
        cv2.FILLED,
        cv2.LINE_AA,
        _FRACTION_BITS,
    )
