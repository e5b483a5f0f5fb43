"""WebP and BMP: formats that need no more than a look at the header before Pillow decodes them."""

from __future__ import annotations

import io
import struct

from engine.decode_base import (
    MAX_PROFILE_BYTES,
    DecodeLimits,
    Opened,
    Raster,
    check_frames,
    check_memory,
    check_pixels,
    damaged,
)
from engine.decode_raster import check_image, raster_of
from engine.errors import TooLarge
from engine.orientation import exif_orientation

__all__ = ["read_bmp", "read_webp"]

# Measured, at 24 megapixels: two canvases of the animation decoder, its copy, Pillow's picture.
_WEBP_BYTES_PER_PIXEL = 17.0

# Pillow unpacks run-length coded BMP in Python, about 0.5 us for every byte and 0.1 us for every
# pixel that is skipped. Icons and drawings of that kind are far smaller.
_MOST_RUN_LENGTH_BYTES = 1_000_000
_MOST_RUN_LENGTH_PIXELS = 4_000_000


def read_webp(data: bytes, limits: DecodeLimits) -> Opened:
    """A WebP file whose pixels are not decoded yet; of an animation the first frame.

    Raises:
        NotAnImage: If the header is damaged.
        TooLarge: If the picture exceeds the limits.
    """
    from PIL.WebPImagePlugin import WebPImageFile

    width, height = _webp_size(data)
    check_pixels(width, height, limits)
    check_memory(width * height, _WEBP_BYTES_PER_PIXEL, "WebP")
    image = WebPImageFile(io.BytesIO(data))
    check_frames(image.n_frames, limits)
    profile: bytes | None = image.info.get("icc_profile")
    if profile is not None and len(profile) > MAX_PROFILE_BYTES:
        profile = None

    def load() -> Raster:
        image.load()
        return raster_of(image)

    orientation = exif_orientation(image.info.get("exif", b""))
    return Opened("WebP", image.size, orientation, profile, load)


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of the canvas (RFC 9649, sections 2.5 to 2.7)."""
    if len(data) < 30:
        raise damaged("WebP")
    if data[12:16] == b"VP8X":
        sizes = struct.unpack_from("<II", data[24:27] + b"\0" + data[27:30] + b"\0")
        return sizes[0] + 1, sizes[1] + 1
    if data[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def read_bmp(data: bytes, limits: DecodeLimits) -> Opened:
    """A BMP file whose pixels are not decoded yet.

    Raises:
        NotAnImage: If the header is damaged.
        TooLarge: If the picture exceeds the limits.
    """
    from PIL.BmpImagePlugin import BmpImageFile

    image = BmpImageFile(io.BytesIO(data))
    check_pixels(image.width, image.height, limits)
    check_image(image, "BMP")
    if image.tile[0][0] == "bmp_rle" and (
        len(data) > _MOST_RUN_LENGTH_BYTES or image.width * image.height > _MOST_RUN_LENGTH_PIXELS
    ):
        limit = f"{_MOST_RUN_LENGTH_PIXELS / 1e6:.3g} megapixels"
        message = f"the run-length coded BMP picture has more than {limit} or 1 MB; send it as PNG"
        raise TooLarge(message, what="pixels", limit=limit)

    def load() -> Raster:
        image.load()
        return raster_of(image)

    return Opened("BMP", image.size, 1, None, load)
