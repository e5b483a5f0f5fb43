"""Which photos become portraits: those with one clear face. And what is kept of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.types import Box, Concern, Face, Photo

__all__ = ["SCREENING", "Reason", "Thumbnail", "clear_face", "thumbnail"]

SCREENING: Final = 1
"""Version of the rules; what an older version rejected is looked at again."""

_EDGE_PX: Final = 512  # longest side of a thumbnail
_FACE_PX: Final = 200  # the face in it, where the photo has that much: crops are 150 and 224 px
_JPEG_QUALITY: Final = 90

_DOMINANT_AREA: Final = 2.5
_DOMINANT_WEIGHT: Final = 4.0


class Reason(StrEnum):
    """Why a photo did not become a portrait."""

    NO_FACE = "no face"
    SEVERAL_FACES = "several faces"
    TOO_SMALL = "too small"
    TOO_LARGE = "too large"
    UNREADABLE = "unreadable"
    DUPLICATE = "duplicate of"  # followed by a name
    NOT_THEM = "somebody else's face"  # found by comparing it with the person's others
    FAILED = "an error of this program"


@dataclass(frozen=True, slots=True, eq=False)
class Thumbnail:
    """A portrait as the gallery keeps it.

    Attributes:
        jpeg: The file.
        width_px: Width.
        height_px: Height.
        landmarks: float32 (5, 2), pixels of the thumbnail.
        box: The face, pixels of the thumbnail.
    """

    jpeg: bytes
    width_px: int
    height_px: int
    landmarks: NDArray[np.float32]
    box: Box


def clear_face(photo: Photo, faces: Sequence[Face]) -> Face | Reason:
    """The one face that a photo is of, or why there is none."""
    if not faces:
        return Reason.NO_FACE
    ranked = sorted(faces, key=lambda face: _weight(photo, face), reverse=True)
    main = ranked[0]
    if any(not _dominates(photo, main, other) for other in ranked[1:]):
        return Reason.SEVERAL_FACES
    if Concern.SMALL in main.concerns:
        return Reason.TOO_SMALL
    return main


def _dominates(photo: Photo, main: Face, other: Face) -> bool:
    return main.box.area_px >= _DOMINANT_AREA * other.box.area_px or _weight(
        photo, main
    ) >= _DOMINANT_WEIGHT * _weight(photo, other)


def _weight(photo: Photo, face: Face) -> float:
    """How much a face matters in a photo: its area, less the farther it is from the centre."""
    x, y = face.box.centre
    across = (x / photo.width_px - 0.5) * 2
    down = (y / photo.height_px - 0.5) * 2
    return face.box.area_px * float(np.exp(-(across**2 + down**2)))


def thumbnail(photo: Photo, face: Face) -> Thumbnail:
    """A small copy of the photo, cut to the face's surroundings where the face would get lost."""
    edge = max(photo.width_px, photo.height_px)
    face_edge = max(face.box.w, face.box.h)
    scale = min(1.0, max(_EDGE_PX / edge, _FACE_PX / face_edge))
    window_px = min(edge, round(_EDGE_PX / scale))
    left, width = _span(face.box.centre[0], window_px, photo.width_px)
    top, height = _span(face.box.centre[1], window_px, photo.height_px)
    cut: NDArray[Any] = photo.pixels[top : top + height, left : left + width]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size != (width, height):
        cut = cv2.resize(cut, size, interpolation=cv2.INTER_AREA)
    ratio = np.array([size[0] / width, size[1] / height])
    offset = np.array([left, top])
    # Landmarks count from the centre of the first pixel, edges of a box from its corner.
    landmarks = (face.landmarks - offset + 0.5) * ratio - 0.5
    corner = (np.array([face.box.x, face.box.y]) - offset) * ratio
    return Thumbnail(
        jpeg=_jpeg(cut),
        width_px=size[0],
        height_px=size[1],
        landmarks=landmarks.astype(np.float32),
        box=Box(float(corner[0]), float(corner[1]), face.box.w * ratio[0], face.box.h * ratio[1]),
    )


def _span(centre: float, window_px: int, length_px: int) -> tuple[int, int]:
    """Start and length of the window around a centre, within a side of the photo."""
    if window_px >= length_px:
        return 0, length_px
    start = round(min(max(centre - window_px / 2, 0), length_px - window_px))
    return start, window_px


def _jpeg(pixels: NDArray[Any]) -> bytes:
    done, encoded = cv2.imencode(
        ".jpg",
        cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR),
        [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY],
    )
    assert done
    return encoded.tobytes()
