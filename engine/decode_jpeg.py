"""JPEG: markers read here, pixels by Pillow (libjpeg-turbo), large pictures at 1/2, 1/4 or 1/8.

OpenCV decodes as fast but prints on stderr what it thinks of a damaged file. Markers are those of
ITU-T T.81, table B.1.
"""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from engine.decode_base import (
    MAX_PROFILE_BYTES,
    DecodeLimits,
    Opened,
    Raster,
    check_memory,
    check_pixels,
    damaged,
)
from engine.decode_raster import raster_of
from engine.errors import NotAnImage
from engine.orientation import exif_orientation

if TYPE_CHECKING:
    from PIL.JpegImagePlugin import JpegImageFile

__all__ = ["read_jpeg"]

_EOI, _SOS = 0xD9, 0xDA
_APP0, _APP1, _APP2, _APP14 = 0xE0, 0xE1, 0xE2, 0xEE
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDD})  # DHT, DAC, DQT, DRI
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # TEM, RST0 to RST7, SOI

# In entropy-coded data 0xFF is followed by 0 or by RST0 to RST7; anything else is a marker.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)

# The most that encoders write is about 60 header segments and 20 scans. A scan can be a few
# bytes long and still makes the decoder visit every pixel: about 1 ns each.
_MOST_SEGMENTS = 10_000
_MOST_SCANS = 500
_MOST_PIXEL_VISITS = 2_500_000_000

# libjpeg withholds two rows of blocks until it sees what follows them.
_WITHHELD_ROWS = 32


@dataclass(slots=True)
class _Header:
    """What the segments before the first scan say; ``kept`` are those that pixels depend on."""

    size_px: tuple[int, int] = (0, 0)
    # (component id, horizontal, vertical sampling), in the order of the frame header
    components: tuple[tuple[int, int, int], ...] = ()
    progressive: bool = False
    exif: bytes = b""
    profile_parts: dict[int, bytes] = field(default_factory=dict)
    kept: list[bytes] = field(default_factory=list)
    scan: int = 0  # where the first SOS begins

    @property
    def profile(self) -> bytes | None:
        parts = [self.profile_parts[number] for number in sorted(self.profile_parts)]
        return b"".join(parts) if 0 < sum(map(len, parts)) <= MAX_PROFILE_BYTES else None


def read_jpeg(data: bytes, limits: DecodeLimits) -> Opened:
    """A JPEG file whose pixels are not decoded yet.

    A file that ends early is decoded if more than half of the rows arrived (people do send
    half-downloaded photos, faces are mostly in the upper half, and chats show them).

    Raises:
        NotAnImage: If the header is damaged.
        TooLarge: If the picture exceeds the limits.
    """
    header = _header(data)
    width, height = header.size_px
    check_pixels(width, height, limits)
    scans = _scans(data, header)
    shrink = _shrink(width, height, limits.long_side_px)
    if len(scans) > 1 or header.progressive:
        if len(scans) * width * height > _MOST_PIXEL_VISITS:
            raise NotAnImage("the JPEG file has too many scans", reason="damaged", found="JPEG")
        # All coefficients are kept until the last scan, 2 bytes each.
        _, across, down = (max(values) for values in zip(*header.components, strict=True))
        samples = sum(h * v for _, h, v in header.components) / (across * down)
        check_memory(width * height, 2 * samples + 4 / shrink**2, "JPEG")
    else:
        check_memory(width * height, 4 / shrink**2, "JPEG")
    clean = b"".join([b"\xff\xd8", *header.kept, memoryview(data)[header.scan :]])

    def load() -> Raster:
        return _pixels(clean, shrink, header, scans)

    orientation = exif_orientation(header.exif)
    return Opened("JPEG", (width, height), orientation, header.profile, load, shrink)


def _header(data: bytes) -> _Header:
    header = _Header()
    position = 2
    for _ in range(_MOST_SEGMENTS):
        found = _NEXT_MARKER.search(data, position)
        if found is None:
            break
        marker, start = data[found.end() - 1], found.end()
        if marker in _ALONE:
            position = start
            continue
        if marker == _EOI or start + 2 > len(data):
            break
        if marker == _SOS:
            header.scan = found.end() - 2
            break
        (length,) = struct.unpack_from(">H", data, start)
        _note(header, marker, data[start + 2 : start + length])
        if marker in _TABLES or marker in _FRAMES or marker in {_APP0, _APP14}:
            header.kept.append(b"\xff" + data[start - 1 : start + length])
        position = start + max(length, 2)
    if not header.scan or not header.components:
        raise damaged("JPEG")
    return header


def _note(header: _Header, marker: int, segment: bytes) -> None:
    """What a segment says about the picture."""
    if marker in _FRAMES:
        if header.components or len(segment) < 6 or len(segment) < 6 + 3 * segment[5]:
            raise damaged("JPEG")
        height, width, count = struct.unpack_from(">HHB", segment, 1)
        header.size_px = width, height
        header.progressive = marker in {0xC2, 0xC6, 0xCA, 0xCE}
        header.components = tuple(
            (segment[at], max(1, segment[at + 1] >> 4), max(1, segment[at + 1] & 15))
            for at in range(6, 6 + 3 * count, 3)
        )
    elif marker == _APP1 and segment.startswith(b"Exif\0\0"):
        header.exif = header.exif or segment  # further ones continue the first
    elif marker == _APP2 and segment.startswith(b"ICC_PROFILE\0") and len(segment) > 14:
        header.profile_parts.setdefault(segment[12], segment[14:])


def _scans(data: bytes, header: _Header) -> list[bytes]:
    """The scan headers of a picture in several scans, in order; of one in a single scan, that one.

    The last may be incomplete. Markers inside the segments between scans are not mistaken.
    """
    scans: list[bytes] = []
    position = header.scan
    for _ in range(_MOST_SEGMENTS):
        found = _NEXT_MARKER.search(data, position)
        if found is None or data[found.end() - 1] == _EOI or found.end() + 2 > len(data):
            break
        start = found.end()
        (length,) = struct.unpack_from(">H", data, start)
        if data[start - 1] == _SOS:
            scans.append(data[start + 2 : start + length])
            if len(scans) > _MOST_SCANS:
                raise NotAnImage("the JPEG file has too many scans", reason="damaged", found="JPEG")
            if not header.progressive and scans[0][:1] == bytes([len(header.components)]):
                break  # the only one: libjpeg stops after it
        position = start + max(length, 2)
    return scans


def _shrink(width: int, height: int, long_side_px: int) -> int:
    """The strongest reduction that libjpeg offers and that leaves at least ``long_side_px``."""
    for shrink in (8, 4, 2):
        if max(width, height) >= shrink * long_side_px and min(width, height) >= shrink:
            return shrink
    return 1


def _pixels(clean: bytes, shrink: int, header: _Header, scans: list[bytes]) -> Raster:
    """The decoded picture; of a file that ends early, the rows that arrived."""
    image = _opened(clean, shrink)
    try:
        image.load()
    except OSError:
        if len(scans) > 1 or header.progressive:
            # libjpeg waits for the last scan before it yields the first row.
            if not _coarsely_complete(header, scans):
                raise
        else:
            # Rows that never came are still as Pillow made them: 0 in every channel.
            image.tile = []
            box = image.getbbox()
            arrived = box[3] if box else 0
            if 2 * arrived <= image.height:
                raise
            if arrived < image.height - _WITHHELD_ROWS // shrink:
                return raster_of(image, height_px=arrived)
        # End the file for libjpeg, which makes grey of what is missing.
        image = _opened(clean + b"\xff\xd9", shrink)
        image.load()
        return raster_of(image, height_px=image.height - _grey_rows(image))
    return raster_of(image)


def _grey_rows(image: JpegImageFile) -> int:
    """How many of the last rows end in the grey of blocks that never came."""
    width, height = image.size
    box = max(0, width - 4), max(0, height - 2 * _WITHHELD_ROWS), width, height
    ends = np.asarray(image.crop(box).convert("RGB"))
    seen = (ends != 128).any(axis=(1, 2)).nonzero()[0]
    return len(ends) - 1 - int(seen[-1]) if len(seen) else 0


def _opened(clean: bytes, shrink: int) -> JpegImageFile:
    # Not Image.open: it guesses formats and judges sizes by a global of Pillow.
    from PIL.JpegImagePlugin import JpegImageFile

    image = JpegImageFile(io.BytesIO(clean))
    # In one piece: what libjpeg can't use yet is copied with every further piece.
    image.decodermaxblock = len(clean)
    if shrink > 1:
        image.draft(None, (image.width // shrink, image.height // shrink))
    return image


def _coarsely_complete(header: _Header, scans: list[bytes]) -> bool:
    """Whether the scans but the last hold the first component's mean and some detail per block.

    Without the means rows are missing; without detail it is a picture of 1/8 of the size.
    """
    first = header.components[0][0]
    spectra = [scan[-3] for scan in scans[:-1] if len(scan) >= 6 and first in scan[1:-3:2]]
    return 0 in spectra and any(start > 0 for start in spectra)
