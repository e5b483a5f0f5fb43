"""Law: whatever the bytes, there is a photo within the limits or a PhotoProblem."""

from __future__ import annotations

import io

import numpy as np
import pillow_heif
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from engine.decode import DecodeLimits, decode, stretch
from engine.errors import PhotoProblem

LIMITS = DecodeLimits(max_bytes=100_000, max_pixels=250_000, max_frames=20, long_side_px=50)

SIGNATURES = [
    b"",
    b"\xff\xd8\xff",
    b"\xff\xd8\xff\xc0\0\x11\x08\0\x10\0\x10\x03\x01\x22\0\x02\x11\x01\x03\x11\x01\xff\xda",
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x10\x08\x02\0\0\0",
    b"GIF89a\x10\0\x10\0\x80\0\0",
    b"RIFF\xff\0\0\0WEBPVP8 ",
    b"RIFF\xff\0\0\0WEBPVP8X",
    b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0",
    b"II*\0\x08\0\0\0",
    b"MM\0+\0\x08\0\0\0\0\0\0\0\0\0\x10",
    b"\0\0\0\x18ftypheic\0\0\0\0heicmif1",
    b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf",
]


class Files(list[bytes]):
    """Files that are not printed with an example that fails."""

    def __repr__(self) -> str:
        return f"{len(self)} files"


@pytest.fixture(scope="module")
def files(hopper_jpeg: bytes) -> Files:
    """See ``made_files``."""
    return made_files(hopper_jpeg)


def made_files(jpeg: bytes) -> Files:
    """A small picture in every format and its main varieties, with metadata."""
    image = Image.open(io.BytesIO(jpeg)).convert("RGB").resize((64, 75))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[274] = 6
    extras: dict[str, object] = {
        "icc_profile": profile.replace(b"s\0R", b"t\0R"),
        "exif": exif.tobytes(),
    }
    levels = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    varieties: list[tuple[Image.Image, str, dict[str, object]]] = [
        (image, "JPEG", extras),
        (image, "JPEG", {"progressive": True}),
        (image.convert("CMYK"), "JPEG", {}),
        (image, "PNG", extras),
        (image.quantize(16), "PNG", {"transparency": 3}),
        (levels, "PNG", {}),
        (image, "WEBP", extras),
        (image, "WEBP", {"lossless": True}),
        (image, "WEBP", {"save_all": True, "append_images": [image.rotate(90)]}),
        (image, "GIF", {"save_all": True, "append_images": [image.rotate(90)]}),
        (image, "BMP", {}),
        (image.quantize(16), "BMP", {}),
        (image, "TIFF", extras),
        (image, "TIFF", {"compression": "tiff_lzw", "big_tiff": True}),
        (image, "TIFF", {"compression": "jpeg"}),
        (image.convert("1"), "TIFF", {"compression": "group4"}),
        (levels, "TIFF", {"compression": "tiff_adobe_deflate"}),
        (image, "AVIF", extras),
        (image.convert("RGBA"), "AVIF", {}),
    ]
    streams = []
    for variety, name, options in varieties:
        stream = io.BytesIO()
        variety.save(stream, name, **options)
        streams.append(stream.getvalue())
    stream = io.BytesIO()
    pillow_heif.from_pillow(image).save(stream, **extras)
    return Files([*streams, stream.getvalue()])


def check(data: bytes) -> bool:
    """Whether there is a photo; if so, that it is what a photo is."""
    try:
        photo = decode(data, LIMITS)
    except PhotoProblem:
        return False
    assert photo.pixels.dtype == np.uint8
    assert photo.pixels.ndim == 3
    assert photo.pixels.shape[2] == 3
    assert photo.pixels.flags.c_contiguous
    assert not photo.pixels.flags.writeable
    width, height = photo.source_size_px
    longest_px = round(LIMITS.long_side_px * stretch(width, height))
    assert 1 <= max(photo.width_px, photo.height_px) <= longest_px
    assert width >= photo.width_px
    assert height >= photo.height_px
    assert width * height <= LIMITS.max_pixels
    return True


def test_the_files_are_pictures(files: Files) -> None:
    """What is damaged below was decodable."""
    assert all(check(data) for data in files)


@settings(max_examples=300)
@given(start=st.sampled_from(SIGNATURES), rest=st.binary(max_size=400))
def test_arbitrary_bytes(start: bytes, rest: bytes) -> None:
    """Behind a plausible beginning, too."""
    check(start + rest)


PLACES = st.integers(0, 65_535)  # in 65,536ths of what is damaged


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(
    number=st.integers(0, 1_000),
    reach=st.sampled_from([64, 600, 1 << 30]),
    changes=st.lists(st.tuples(PLACES, st.integers(0, 255)), max_size=8),
    piece=st.tuples(PLACES, PLACES),
    times=st.sampled_from([1, 1, 1, 0, 2]),
    ended=st.sampled_from([False, False, True]),
)
def test_damaged_files(
    files: Files,
    number: int,
    reach: int,
    changes: list[tuple[int, int]],
    piece: tuple[int, int],
    times: int,
    ended: bool,
) -> None:
    """Bytes changed anywhere or in the headers, a piece cut out or doubled, the end missing."""
    data = bytearray(files[number % len(files)])
    reach = min(reach, len(data))
    for place, value in changes:
        data[place * reach >> 16] = value
    first, last = sorted(place * reach >> 16 for place in piece)
    data[first:last] = data[first:last] * times
    check(bytes(data[:last] if ended else data))
