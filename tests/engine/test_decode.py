"""Every kind of picture that people send comes out upright, in sRGB and on white."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms

from engine.decode import DecodeLimits, decode
from engine.errors import NotAnImage, TooLarge
from engine.types import Photo

Pixels = NDArray[np.uint8]

# How a picture is stored so that it is seen upright, by orientation.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.fixture(scope="module")
def hopper(hopper_jpeg: bytes) -> Image.Image:
    """Grace Hopper at 160 x 188."""
    return Image.open(io.BytesIO(hopper_jpeg)).convert("RGB").resize((160, 188))


FASTEST: dict[str, dict[str, Any]] = {
    "HEIC": {"enc_params": {"preset": "ultrafast"}},
    "AVIF": {"speed": 10},
}


def saved(image: Image.Image, name: str, **options: Any) -> bytes:
    """The image as a file of that format, by its fastest encoder."""
    stream, options = io.BytesIO(), FASTEST.get(name, {}) | options
    if name == "HEIC":
        # Not image.save: that takes register_heif_opener, which changes Pillow.
        pillow_heif.from_pillow(image).save(stream, **options)
    else:
        image.save(stream, name, **options)
    return stream.getvalue()


def exif(orientation: int, **others: bytes) -> bytes:
    """An EXIF block with that orientation."""
    block = Image.Exif()
    block[274] = orientation
    block[271] = "a maker"
    return block.tobytes() + b"".join(others.values())


def grey(image: Image.Image) -> Pixels:
    """The image's luminance as RGB."""
    return np.asarray(image.convert("L").convert("RGB"))


def on_white(colours: Pixels, alpha: Pixels) -> Pixels:
    """Colours (h, w, 3) over white, by the definition."""
    share = alpha[..., None] / 255.0
    return np.round(colours * share + 255.0 * (1.0 - share)).astype(np.uint8)


def difference(photo: Photo, expected: Pixels) -> float:
    """Mean absolute difference in grey levels; the shapes must agree."""
    assert photo.pixels.shape == expected.shape
    return float(np.abs(photo.pixels.astype(int) - expected).mean())


LOSSLESS = [
    ("PNG", {}),
    ("BMP", {}),
    ("WEBP", {"lossless": True}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ("TIFF", {"compression": "packbits"}),
    ("TIFF", {"compression": "zstd"}),
    ("TIFF", {"compression": "tiff_lzw", "big_tiff": True}),
]
LOSSY = [
    ("JPEG", {"quality": 92}),
    ("JPEG", {"quality": 92, "progressive": True}),
    ("WEBP", {"quality": 92}),
    ("TIFF", {"compression": "jpeg", "quality": 92}),
    ("AVIF", {"quality": 90}),
    ("AVIF", {"quality": 90, "subsampling": "4:4:4"}),
    ("HEIC", {"quality": 90}),
    ("HEIC", {"quality": 90, "chroma": 444}),
    ("HEIC", {"quality": 90, "tile_size": 64}),
    ("GIF", {}),
]


@pytest.mark.parametrize(("name", "options"), LOSSLESS)
def test_lossless_formats_come_out_unchanged(
    hopper: Image.Image, name: str, options: dict[str, object]
) -> None:
    """Pixels survive, and the photo says what it was."""
    photo = decode(saved(hopper, name, **options))
    assert np.array_equal(photo.pixels, np.asarray(hopper))
    assert photo.format.upper() == name
    assert photo.source_size_px == hopper.size


@pytest.mark.parametrize(("name", "options"), LOSSY)
def test_lossy_formats_come_out_alike(
    hopper: Image.Image, name: str, options: dict[str, object]
) -> None:
    """Pixels are within what compression costs."""
    photo = decode(saved(hopper, name, **options))
    assert difference(photo, np.asarray(hopper)) < 4.0
    assert photo.format == name.replace("WEBP", "WebP")


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "LAB", "LA", "RGBA", "RGBX"])
def test_every_colour_mode_of_tiff(hopper: Image.Image, mode: str) -> None:
    """TIFF files carry them all."""
    image = in_lab(hopper) if mode == "LAB" else hopper.convert(mode)
    expected = hopper if mode in {"LAB", "RGBX"} else image.convert("RGB")
    assert difference(decode(saved(image, "TIFF")), np.asarray(expected)) < 2.0


def in_lab(image: Image.Image) -> Image.Image:
    """The image in CIE L*a*b*."""
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    assert converted is not None
    return converted


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_faxes(hopper: Image.Image, compression: str) -> None:
    """Bilevel TIFF files of scanners."""
    image = hopper.convert("1")
    photo = decode(saved(image, "TIFF", compression=compression))
    assert np.array_equal(photo.pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_16_bits_are_scaled_and_not_clipped(hopper: Image.Image, name: str) -> None:
    """65535 is white, 257 one step."""
    levels = np.asarray(hopper.convert("L")).astype(np.uint16) * 257
    assert np.array_equal(decode(saved(Image.fromarray(levels), name)).pixels, grey(hopper))


@pytest.mark.parametrize("mode", ["L;16", "RGB;16"])
def test_heic_with_more_than_8_bits(hopper: Image.Image, mode: str) -> None:
    """Phones write 10."""
    pixels = np.asarray(hopper.convert(mode.partition(";")[0]))
    stream = io.BytesIO()
    levels = (pixels.astype("<u2") * 257).tobytes()
    pillow_heif.from_bytes(mode, hopper.size, levels).save(stream, quality=90)
    expected = grey(hopper) if mode == "L;16" else pixels
    assert difference(decode(stream.getvalue()), expected) < 3.0


@pytest.mark.parametrize(
    "levels",
    [
        lambda grey: grey.astype(np.uint16) * 16,
        lambda grey: grey.astype(np.int32) * 257,
        lambda grey: grey.astype(np.float32) / 255,
        lambda grey: grey.astype(np.float32),
        lambda grey: grey.astype(np.float32) * 257,
        lambda grey: grey.astype(np.float32) * 1e4 - 5e5,
    ],
    ids=["12 bits", "32 bits", "0 to 1", "0 to 255", "0 to 65535", "anything"],
)
def test_scientific_tiff_files_are_scaled_sensibly(hopper: Image.Image, levels: object) -> None:
    """Whatever range a sensor or a program used, there is a face to be seen."""
    dark_and_bright = np.asarray(hopper.convert("L")).copy()
    dark_and_bright[0, :2] = 0, 255
    image = Image.fromarray(levels(dark_and_bright))  # type: ignore[operator]  # of the table
    photo = decode(saved(image, "TIFF"))
    assert difference(photo, np.repeat(dark_and_bright[..., None], 3, axis=2)) < 1.0


def test_floats_that_are_no_numbers_become_black(hopper: Image.Image) -> None:
    """NaN marks what was not measured."""
    levels = np.asarray(hopper.convert("L")).astype(np.float32) / 255
    levels[10:20] = np.nan
    photo = decode(saved(Image.fromarray(levels), "TIFF"))
    assert not photo.pixels[10:20].any()
    assert np.array_equal(photo.pixels[30:], grey(hopper)[30:])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("PNG", {}),
        ("TIFF", {}),
        ("WEBP", {"lossless": True, "exact": True}),
        ("AVIF", {"quality": 95}),
        ("HEIC", {"quality": 95}),
    ],
)
def test_transparency_becomes_white(
    hopper: Image.Image, name: str, options: dict[str, object]
) -> None:
    """A face cut out keeps its edge, on white."""
    alpha = np.tile(np.linspace(0, 255, hopper.width).astype(np.uint8), (hopper.height, 1))
    image = hopper.copy()
    image.putalpha(Image.fromarray(alpha))
    photo = decode(saved(image, name, **options))
    assert difference(photo, on_white(np.asarray(hopper), alpha)) < 1.5
    assert (photo.pixels[:, 0] > 250).all()


@pytest.mark.parametrize("name", ["PNG", "HEIC"])
def test_grey_with_alpha(hopper: Image.Image, name: str) -> None:
    """Two channels are not mistaken for colours."""
    alpha = np.tile(np.linspace(0, 255, hopper.width).astype(np.uint8), (hopper.height, 1))
    image = hopper.convert("L")
    image.putalpha(Image.fromarray(alpha))
    photo = decode(saved(image, name, **({"quality": 95} if name == "HEIC" else {})))
    assert difference(photo, on_white(grey(hopper), alpha)) < 1.5


@pytest.mark.parametrize("name", ["PNG", "GIF"])
def test_a_transparent_palette_colour_becomes_white(name: str) -> None:
    """Index 0 is red, but not shown."""
    image = Image.new("P", (40, 30), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (20, 0, 40, 30))
    photo = decode(saved(image, name, transparency=0))
    assert (photo.pixels[:, :20] == 255).all()
    assert (photo.pixels[:, 20:] == (0, 0, 255)).all()


def test_a_transparent_colour_of_png(hopper: Image.Image) -> None:
    """TRNS in a picture without palette names a colour; of a wrong length it is ignored."""
    image = hopper.copy()
    image.paste((1, 2, 3), (0, 0, 50, 50))
    data = saved(image, "PNG", transparency=(1, 2, 3))
    assert (decode(data).pixels[:50, :50] == 255).all()
    broken = data.replace(b"\0\0\0\x06tRNS", b"\0\0\0\x04tRNS")
    with pytest.raises(NotAnImage):  # the chunks behind it can't be found
        decode(broken)


@pytest.mark.parametrize("name", ["PNG", "GIF", "WEBP", "TIFF"])
def test_of_several_pictures_the_first(hopper: Image.Image, name: str) -> None:
    """Animations and pages."""
    options: dict[str, object] = {"lossless": True} if name == "WEBP" else {}
    first = hopper.quantize(64).convert("RGB") if name == "GIF" else hopper
    others = [hopper.rotate(90), hopper.rotate(180)]
    data = saved(first, name, save_all=True, append_images=others, **options)
    assert difference(decode(data), np.asarray(first)) < 1.0


def test_cmyk_jpeg_with_and_without_adobe_marker(hopper: Image.Image) -> None:
    """Inks are stored inverted in practice, whether or not Adobe says so."""
    data = saved(hopper.convert("CMYK"), "JPEG", quality=92)
    start = data.index(b"\xff\xee\0\x0eAdobe")
    assert difference(decode(data), np.asarray(hopper)) < 3.0
    assert difference(decode(data[:start] + data[start + 16 :]), np.asarray(hopper)) < 3.0


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "HEIC", "AVIF"])
def test_orientation_is_undone_once(hopper: Image.Image, name: str, orientation: int) -> None:
    """The same picture, however the camera was held and whoever turns it."""
    image = hopper.transpose(STORED[orientation]) if orientation > 1 else hopper
    photo = decode(saved(image, name, exif=exif(orientation), quality=90))
    assert difference(photo, np.asarray(hopper)) < 4.0
    assert photo.source_size_px == hopper.size


def test_orientation_of_a_reduced_picture(hopper: Image.Image) -> None:
    """The size in the file is told as it is seen."""
    data = saved(hopper.transpose(STORED[6]), "JPEG", exif=exif(6))
    photo = decode(data, DecodeLimits(long_side_px=100))
    assert (photo.height_px, photo.width_px) == (100, 85)
    assert photo.source_size_px == (160, 188)


def test_orientation_in_exif_that_is_broken_elsewhere(hopper: Image.Image) -> None:
    """Tag 274 counts, whatever comes after it."""
    entries = [
        struct.pack(">HHII", 271, 2, 1_000_000, 0xFFFFFFF0),  # a text beyond the file
        struct.pack(">HHIHH", 274, 3, 1, 6, 0),
        struct.pack(">HHII", 282, 5, 1, 0xFFFF),  # a fraction beyond the file
        struct.pack(">HHII", 0x8769, 13, 1, 8),  # a sub-directory that is this directory
    ]
    broken = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 900) + b"".join(entries)
    stored = hopper.transpose(STORED[6])
    for name in ("JPEG", "PNG", "WEBP"):
        photo = decode(saved(stored, name, exif=broken, quality=90))
        assert difference(photo, np.asarray(hopper)) < 4.0


@pytest.mark.parametrize("damage", [b"MM\0*\0\0\0\x08\xff\xff", b"MM\0*\xff\xff\xff\xff", b"??"])
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "HEIC", "AVIF"])
def test_broken_exif_costs_no_picture(hopper: Image.Image, name: str, damage: bytes) -> None:
    """Libraries that parse it raise or warn."""
    data = saved(hopper, name, exif=exif(1), quality=90)
    start = data.index(b"MM\0*")
    photo = decode(data[:start] + damage + data[start + len(damage) :])
    assert difference(photo, np.asarray(hopper)) < 4.0


def test_the_first_of_several_exif_blocks_counts(hopper: Image.Image) -> None:
    """A preview's block may come after the picture's own."""
    data = saved(hopper, "JPEG", exif=exif(1), quality=90)
    second = exif(6)
    data = data[:2] + data[2:].replace(
        b"\xff\xdb", b"\xff\xe1" + struct.pack(">H", len(second) + 2) + second + b"\xff\xdb", 1
    )
    assert difference(decode(data), np.asarray(hopper)) < 4.0


@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_whose_other_tags_are_broken(hopper: Image.Image, big: bool) -> None:
    """A profile of the wrong type, a next page far outside."""
    data = saved(hopper, "TIFF", icc_profile=profile(swapped=True), big_tiff=big)
    with_profile = struct.pack("<HH", 34_675, 7)
    assert with_profile in data
    data = data.replace(with_profile, struct.pack("<HH", 34_675, 3))
    assert np.array_equal(decode(data).pixels, np.asarray(hopper))
    entries = struct.unpack_from("<Q" if big else "<H", data, 16 if big else 8)[0]
    following = 24 + 20 * entries if big else 10 + 12 * entries
    size = 8 if big else 4
    assert data[following : following + size] == bytes(size)
    data = data[:following] + b"\xff" * size + data[following + size :]
    assert np.array_equal(decode(data).pixels, np.asarray(hopper))


def test_a_real_photo_with_broken_exif(hard_faces: Path) -> None:
    """On one of them Pillow's exif_transpose raises SyntaxError; it is stored upright."""
    paths = sorted((hard_faces / "bad_exif_real_face").glob("*.jpg"))
    assert paths
    for path in paths:
        with Image.open(path) as image:
            assert decode(path.read_bytes()).source_size_px == image.size


# Colour


def profile(*, swapped: bool) -> bytes:
    """The sRGB profile, or one in which red and blue are exchanged."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if not swapped:
        return data
    data = data.replace(b"s\0R\0G\0B", b"o\0t\0h\0e").replace(b"sRGB", b"othe")
    return data.replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ").replace(b"?XYZ", b"bXYZ")


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "HEIC", "AVIF"])
def test_embedded_profiles_are_followed(hopper: Image.Image, name: str) -> None:
    """In a space where red means blue, a file's red is shown as blue."""
    options = {"quality": 95, "icc_profile": profile(swapped=True)}
    image = Image.fromarray(np.asarray(hopper)[..., ::-1].copy())
    assert difference(decode(saved(image, name, **options)), np.asarray(hopper)) < 5.0


@pytest.mark.parametrize(
    "embedded",
    [
        profile(swapped=False),
        profile(swapped=True)[:300],
        profile(swapped=True)[:16] + b"CMYK" + profile(swapped=True)[20:],
        profile(swapped=True)[:128] + bytes(500),
        b"no profile",
    ],
    ids=["sRGB", "cut", "of other channels", "empty", "text"],
)
def test_profiles_that_say_nothing_change_nothing(hopper: Image.Image, embedded: bytes) -> None:
    """Broken ones do no harm."""
    for name in ("PNG", "TIFF"):
        photo = decode(saved(hopper, name, icc_profile=embedded))
        assert np.array_equal(photo.pixels, np.asarray(hopper))


# Reduction


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "HEIC", "AVIF"])
def test_a_part_is_of_the_upright_picture(hopper: Image.Image, name: str, orientation: int) -> None:
    """It is what was asked for, whole, however the picture is stored."""
    large = hopper.resize((320, 376))
    image = large.transpose(STORED[orientation]) if orientation > 1 else large
    data = saved(image, name, exif=exif(orientation), quality=95)
    box = 100, 50, 210, 200
    photo = decode(data, DecodeLimits(long_side_px=150, part=box))
    assert (photo.source_size_px, photo.corner_px) == ((110, 150), (100, 50))
    assert difference(photo, np.asarray(large.crop(box))) < 4.0


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "HEIC"])
def test_large_pictures_are_averaged(hopper: Image.Image, name: str) -> None:
    """A reduced picture is what a good filter makes of the whole, without aliasing."""
    picture = hopper.resize((400, 480))
    data = saved(picture, name, **({} if name == "GIF" else {"quality": 92}))
    for height in (47, 60, 130, 239, 240, 400, 480):
        photo = decode(data, DecodeLimits(long_side_px=height))
        size = round(400 * height / 480), height
        assert difference(photo, np.asarray(picture.resize(size, Image.Resampling.BICUBIC))) < 5.0
        assert photo.source_size_px == (400, 480)
    assert decode(data, DecodeLimits(long_side_px=700)).height_px == 480


@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    long_side_px=st.integers(1, 320),
    name=st.sampled_from(["JPEG", "PNG", "BMP"]),
)
@example(width=300, height=169, long_side_px=69, name="JPEG")
def test_the_long_side_is_the_limit(width: int, height: int, long_side_px: int, name: str) -> None:
    """Law: size within the limit, proportions kept, never enlarged, never empty."""
    data = saved(Image.new("RGB", (width, height), (200, 100, 50)), name)
    photo = decode(data, DecodeLimits(long_side_px=long_side_px))
    longer, shorter = max(width, height), min(width, height)
    most_px = long_side_px if longer <= 2.5 * shorter else long_side_px * (longer / shorter) ** 0.5
    assert max(photo.width_px, photo.height_px) == min(longer, round(most_px))
    scale = min(1.0, most_px / longer)
    # A JPEG that is decoded at 1/2, 1/4 or 1/8 is rounded up, then reduced to the limit.
    assert abs(photo.width_px - width * scale) <= 1.5
    assert abs(photo.height_px - height * scale) <= 1.5
    assert photo.source_size_px == (width, height)
    assert np.abs(photo.pixels.astype(int) - (200, 100, 50)).max() <= 3


@pytest.mark.parametrize("size", [(1, 40_000), (40_000, 1), (3, 9_001)])
def test_very_thin_pictures(size: tuple[int, int]) -> None:
    """Strips and interpolation cope with a single row or column."""
    photo = decode(saved(Image.new("RGB", size, "red"), "PNG"), DecodeLimits(long_side_px=10))
    assert 10 < max(photo.width_px, photo.height_px) < max(size)
    assert (photo.pixels == (255, 0, 0)).all()


# The photo as a value


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "HEIC", "AVIF", "GIF", "BMP"])
def test_photos_are_values(hopper: Image.Image, name: str) -> None:
    """Read-only, contiguous bytes."""
    pixels = decode(saved(hopper, name)).pixels
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert not pixels.flags.writeable


def test_several_threads_at_once(hopper: Image.Image) -> None:
    """The same answers as one after the other."""
    files = [saved(hopper, name) for name in ("JPEG", "PNG", "WEBP", "TIFF", "HEIC", "AVIF")] * 4
    alone = [decode(data).pixels for data in files]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(decode, files))
    assert all(np.array_equal(a, b.pixels) for a, b in zip(alone, together, strict=True))


def test_a_jpeg_loads_no_other_format(hopper_jpeg: bytes) -> None:
    """Nor does the process that asks load a decoder; pillow-heif costs start-up time."""
    script = (
        "import sys; from engine.decode import decode; data = sys.stdin.buffer.read();"
        "decode(data); first = 'PIL' in sys.modules or 'cv2' in sys.modules;"
        "from engine.decode import DecodeLimits; from engine.decode_worker import read;"
        "read(data, DecodeLimits()); names = ('pillow_heif', 'PIL.AvifImagePlugin');"
        "print(first, [m for m in names if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=hopper_jpeg, capture_output=True, check=True
    )
    assert done.stdout.strip() == b"False []"


# What is no picture


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "empty"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41" + bytes(40), "video"),
        (b"\x1aE\xdf\xa3\x01\0\0\0", "video"),
        (b"RIFF\0\0\0\0AVI LIST", "video"),
        (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "raw"),
        (b"<!DOCTYPE html><title>404</title>", "web page"),
        (b"\xef\xbb\xbf <html>", "web page"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b'{"error": 404}', "text"),
        (b"8BPS\0\x01", "Photoshop"),
        (b"\0\0\x01\0\x01\0", "icon"),
        (b"PK\x03\x04", "ZIP"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"hello", "no picture"),
        (b"BM, I said, is no picture", "no picture"),
        (bytes(1000), "no picture"),
    ],
)
def test_other_files_are_named(data: bytes, what: str) -> None:
    """The sentence says what it is and what to send."""
    with pytest.raises(NotAnImage, match=what) as caught:
        decode(data)
    assert "send" in str(caught.value)


@pytest.mark.parametrize(
    "signature",
    [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"MM\0+", b"RIFF\0\0\0\0WEBPVP8 "],
)
def test_a_signature_alone_is_a_damaged_picture(signature: bytes) -> None:
    """Not a crash, whatever follows or does not."""
    for rest in (b"", b"\0", bytes(50), b"\xff" * 50):
        with pytest.raises((NotAnImage, TooLarge), match=r"damaged|no pixels|megapixels"):
            decode(signature + rest)
