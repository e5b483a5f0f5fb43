"""Untrusted bytes -> Photo. Nothing else in the project opens pictures that people send.

The first bytes decide the format; its reader checks the declared size before any pixel is
decoded; what libraries raise is translated here. No global of Pillow or of the process is set.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine.decode_base import DecodeLimits, Opened, damaged
from engine.decode_colour import to_srgb
from engine.decode_gif import read_gif
from engine.decode_heif import read_avif, read_heic
from engine.decode_jpeg import read_jpeg
from engine.decode_png import read_png
from engine.decode_raster import reduced
from engine.decode_sniff import format_of
from engine.decode_tiff import read_tiff
from engine.decode_webp import read_bmp, read_webp
from engine.errors import NotAnImage, PhotoProblem, TooLarge
from engine.orientation import oriented, oriented_size
from engine.types import Photo

__all__ = ["DecodeLimits", "decode"]

_DEFAULT_LIMITS = DecodeLimits()

_READERS: dict[str, Callable[[bytes, DecodeLimits], Opened]] = {
    "AVIF": read_avif,
    "BMP": read_bmp,
    "GIF": read_gif,
    "HEIC": read_heic,
    "JPEG": read_jpeg,
    "PNG": read_png,
    "TIFF": read_tiff,
    "WebP": read_webp,
}


def decode(data: bytes, limits: DecodeLimits = _DEFAULT_LIMITS) -> Photo:
    """The picture in untrusted bytes: upright, in sRGB, without alpha, reduced if it is large.

    JPEG, PNG, WebP, GIF, HEIC, AVIF, BMP and TIFF are read, of files with several pictures the
    first. What is transparent becomes white. Takes less than 500 MB beyond ``data``. Safe to call
    from several threads.

    Args:
        data: A file, as it was sent.
        limits: What is decoded at most.

    Returns:
        A photo whose long side is at most ``limits.long_side_px``.

    Raises:
        NotAnImage: If there is no picture, none of a kind that is read, or a damaged one.
        TooLarge: If the file exceeds the limits.
    """
    if len(data) > limits.max_bytes:
        limit = f"{limits.max_bytes / 1e6:.3g} MB"
        raise TooLarge(f"the file has more than {limit}", what="bytes", limit=limit)
    if not data:
        raise NotAnImage("the file is empty; send the photo again", reason="damaged", found=None)
    name = format_of(data)
    try:
        return _decoded(_READERS[name](data, limits), limits.long_side_px)
    except PhotoProblem:
        raise
    except MemoryError as exc:
        message = f"the {name} picture takes more memory than there is; send a smaller one"
        raise TooLarge(message, what="memory") from exc
    except Exception as exc:
        # Decoders raise almost anything for bytes made to confuse them: OSError, SyntaxError,
        # ValueError, struct.error, zlib.error, RuntimeError, cv2.error, RecursionError, ...
        raise damaged(name) from exc


def _decoded(opened: Opened, long_side_px: int) -> Photo:
    raster = opened.load()
    # A file that ends early has fewer rows than it declares.
    height = min(opened.size_px[1], raster.height_px * opened.shrink)
    pixels = to_srgb(reduced(raster, long_side_px), raster.kind, opened.profile)
    return Photo(
        pixels=oriented(np.ascontiguousarray(pixels), opened.orientation),
        source_size_px=oriented_size((opened.size_px[0], height), opened.orientation),
        format=opened.format,
    )
