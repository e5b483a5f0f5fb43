"""EXIF orientation: read from metadata of any quality, and undone.

Numbers 1 to 8 as in EXIF 2.32 (CIPA DC-008), tag 274: where row 0 and column 0 of the stored
picture are seen.
"""

from __future__ import annotations

import struct

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["exif_orientation", "oriented", "oriented_size"]

_TAG = 274
_UPRIGHT = 1
_SIZES = {1: "B", 3: "H", 4: "I"}  # BYTE, SHORT, LONG; writers use all three


def exif_orientation(exif: bytes) -> int:
    r"""The orientation in an EXIF block; 1 where there is none or the block is broken.

    Only the directory entry itself is read, so that damage anywhere else does not matter
    (Pillow's ``exif_transpose`` parses, and writes again, everything).

    Args:
        exif: A TIFF structure, with or without ``Exif\0\0`` before it.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return _UPRIGHT
    (directory,) = struct.unpack_from(f"{order}I", exif, 4)
    if directory + 2 > len(exif):
        return _UPRIGHT
    (entries,) = struct.unpack_from(f"{order}H", exif, directory)
    first = directory + 2
    for position in range(first, min(first + 12 * entries, len(exif) - 11), 12):
        tag, kind, _ = struct.unpack_from(f"{order}HHI", exif, position)
        if tag == _TAG and kind in _SIZES:
            (value,) = struct.unpack_from(f"{order}{_SIZES[kind]}", exif, position + 8)
            return int(value) if 1 <= value <= 8 else _UPRIGHT
    return _UPRIGHT


def oriented_size(size_px: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height after a picture stored with that orientation is put upright."""
    return size_px if orientation < 5 else (size_px[1], size_px[0])


def oriented(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """A picture stored with that orientation, put upright: uint8 (h, w, 3), C-contiguous."""
    if orientation == 2:
        turned = cv2.flip(pixels, 1)
    elif orientation == 3:
        turned = cv2.rotate(pixels, cv2.ROTATE_180)
    elif orientation == 4:
        turned = cv2.flip(pixels, 0)
    elif orientation == 5:
        turned = cv2.transpose(pixels)
    elif orientation == 6:
        turned = cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE)
    elif orientation == 7:
        turned = cv2.flip(cv2.transpose(pixels), -1)
    elif orientation == 8:
        turned = cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE)
    else:
        return pixels
    return np.ascontiguousarray(turned, np.uint8)
