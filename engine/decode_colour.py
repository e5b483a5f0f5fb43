"""Any kind of colour -> sRGB, by the embedded profile where it says something.

A profile is a courtesy: whatever is wrong with it, there is a picture.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["LAB_OFFSET", "to_srgb"]

# In bytes of Pillow's LAB, a and b are signed. Ours are not: they can be averaged.
LAB_OFFSET = np.array([0, 128, 128], np.uint8)

_CHANNELS = {"RGB": b"RGB ", "CMYK": b"CMYK"}


def to_srgb(
    pixels: NDArray[np.uint8], kind: Literal["L", "RGB", "CMYK", "LAB"], profile: bytes | None
) -> NDArray[np.uint8]:
    """A picture in sRGB.

    Args:
        pixels: (h, w) for ``"L"``, else (h, w, 3 or 4).
        kind: Meaning of the channels.
        profile: Embedded ICC profile. Used for RGB and CMYK if it fits the channels and is not
            sRGB itself; greys are taken as they are.

    Returns:
        uint8 (h, w, 3), C-contiguous.
    """
    if kind == "L":
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB), np.uint8)
    if kind == "RGB" and not _says_something(profile, kind):
        return pixels
    from PIL import Image

    if kind == "LAB":
        pixels = pixels ^ LAB_OFFSET
    size = pixels.shape[1], pixels.shape[0]
    image = Image.frombuffer(kind, size, np.ascontiguousarray(pixels), "raw", kind, 0, 1)
    converted = None
    if kind == "LAB" or _says_something(profile, kind):
        converted = _by_profile(image, None if kind == "LAB" else profile)
    if converted is None:
        # Pillow has no LAB -> RGB of its own: without its colour engine the lightness remains.
        converted = (image.getchannel(0) if kind == "LAB" else image).convert("RGB")
    return np.array(converted)


def _says_something(profile: bytes | None, kind: str) -> bool:
    """Whether a profile is of that kind (ICC.1:2022, 7.2.6) and another than sRGB."""
    if profile is None or len(profile) < 128 or profile[16:20] != _CHANNELS.get(kind):
        return False
    return b"sRGB" not in profile and "sRGB".encode("utf-16-be") not in profile


def _by_profile(image: Image.Image, profile: bytes | None) -> Image.Image | None:
    """An image converted from its profile (None: CIE L*a*b*) to sRGB; None if that fails."""
    from PIL import ImageCms

    try:
        if profile is None:
            source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        else:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, target, image.mode, "RGB")
        return ImageCms.applyTransform(image, transform)
    except (ImportError, OSError, TypeError, ValueError, ImageCms.PyCMSError):
        return None
