"""HEIC and AVIF: one container (ISO/IEC 23008-12), two libraries.

HEVC pictures are decoded by pillow-heif (libheif), AV1 pictures by Pillow (libavif). In both the
container says how the picture is turned, and its EXIF orientation is a note without effect
(MIAF, ISO/IEC 23000-22, 7.3.9), which libheif and Chrome follow, too.
"""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.decode_base import (
    MAX_PROFILE_BYTES,
    DecodeLimits,
    Opened,
    Raster,
    check_frames,
    check_memory,
    check_pixels,
)
from engine.decode_raster import opaque_rows, raster_of
from engine.orientation import exif_orientation

__all__ = ["read_avif", "read_heic"]

# Measured. AVIF, 8 bits, 4:2:0: planes, an interleaved copy, Pillow's picture. HEIC: planes and an
# interleaved copy. "Rich" is anything with more bits, more colour or alpha.
_AVIF_BYTES_PER_PIXEL, _RICH_AVIF_BYTES_PER_PIXEL = 9.3, 14.0
_HEIC_BYTES_PER_PIXEL, _RICH_HEIC_BYTES_PER_PIXEL = 5.2, 12.0

# An entry of the item table (box "infe", version 2 or 3, flags, number, protection) of type Exif.
_EXIF_ITEM = re.compile(rb"(infe(?:\x02.{5}|\x03.{7})..)Exif", re.DOTALL)

# The box "av1C" (AV1-ISOBMFF 2.3.3); the group holds tier, depth, monochrome and subsampling.
_AV1_CONFIGURATION = re.compile(rb"av1C\x81.(.)", re.DOTALL)


def read_heic(data: bytes, limits: DecodeLimits) -> Opened:
    """The primary picture of a HEIC file whose pixels are not decoded yet.

    Raises:
        NotAnImage: If the file is damaged.
        TooLarge: If the picture exceeds the limits.
    """
    import pillow_heif

    # Not register_heif_opener, which changes Pillow for everybody.
    heif = pillow_heif.open_heif(data)
    check_frames(len(heif), limits)
    picture = heif[heif.primary_index]
    width, height = picture.size
    check_pixels(width, height, limits)
    info = picture.info
    rich = info.get("bit_depth", 8) > 8 or info.get("chroma", 420) != 420 or picture.has_alpha
    per_pixel = _RICH_HEIC_BYTES_PER_PIXEL if rich else _HEIC_BYTES_PER_PIXEL
    check_memory(width * height, per_pixel, "HEIC")

    def load() -> Raster:
        return _raster(np.asarray(picture), picture.mode.partition(";")[0])

    return Opened("HEIC", (width, height), 1, _usable(info.get("icc_profile")), load)


def _raster(pixels: NDArray[Any], mode: str) -> Raster:
    """What libheif decoded, uint8 or uint16 (h, w) or (h, w, 2 to 4), as a raster.

    Args:
        pixels: Decoded.
        mode: Pillow's name for the channels; a small last letter means premultiplied alpha.
    """
    from PIL import Image

    height, width = pixels.shape[:2]

    def rows(first: int, last: int) -> NDArray[np.uint8]:
        strip = pixels[first:last]
        if strip.dtype != np.uint8:
            strip = strip >> 8
        strip = np.ascontiguousarray(strip, np.uint8)
        if mode.endswith(("A", "a")):
            size = width, last - first
            return opaque_rows(Image.frombuffer(mode, size, strip, "raw", mode, 0, 1))
        return strip

    return Raster(width, height, "L" if pixels.ndim == 2 else "RGB", rows)


def read_avif(data: bytes, limits: DecodeLimits) -> Opened:
    """An AVIF file whose pixels are not decoded yet; of a sequence the first picture.

    Raises:
        NotAnImage: If the file is damaged.
        TooLarge: If the picture exceeds the limits.
    """
    from PIL.AvifImagePlugin import AvifImageFile

    # Pillow parses EXIF here, and fails or warns if it is broken: hide it.
    image = AvifImageFile(io.BytesIO(_EXIF_ITEM.sub(rb"\1skip", data)))
    check_pixels(image.width, image.height, limits)
    check_frames(image.n_frames, limits)
    # Bits: tier, high depth, 12 bits, monochrome, subsampled across, subsampled down, position.
    plain = all(match[1][0] & 0x6C == 0x0C for match in _AV1_CONFIGURATION.finditer(data))
    rich = image.mode != "RGB" or not plain
    per_pixel = _RICH_AVIF_BYTES_PER_PIXEL if rich else _AVIF_BYTES_PER_PIXEL
    check_memory(image.width * image.height, per_pixel, "AVIF")

    def load() -> Raster:
        image.load()
        return raster_of(image)

    # What Pillow made of the container's rotation and mirroring.
    orientation = exif_orientation(image.info.get("exif", b""))
    profile = _usable(image.info.get("icc_profile"))
    return Opened("AVIF", image.size, orientation, profile, load)


def _usable(profile: object) -> bytes | None:
    if isinstance(profile, bytes) and 0 < len(profile) <= MAX_PROFILE_BYTES:
        return profile
    return None
