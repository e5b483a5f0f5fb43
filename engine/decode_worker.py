"""Reads untrusted bytes as a picture: Pillow and pillow-heif behind declared limits.

Runs in worker processes that ``engine.decode`` starts. Header limits are checked before a pixel is
decoded; what a header does not tell is left to the limits that the kernel keeps. What only some
pictures need is imported when one of them comes.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import math
import mmap
import os
import re
import struct
import sys
import zlib
from typing import TYPE_CHECKING, Any

# Nearly every photo comes as a JPEG, and leaves as a PPM.
from PIL import Image, ImageChops, JpegImagePlugin, PpmImagePlugin  # noqa: F401

from engine.decode import DecodeLimits, Part, check_size, stretch
from engine.errors import DamagedImage, Heavy, LookalikeError, NotAnImage, TooHeavy, TooLarge

if TYPE_CHECKING:
    from engine.types import Photo

Image.MAX_IMAGE_PIXELS = None  # checked here

_READABLE = ("JPEG", "PNG", "WebP", "GIF", "HEIC", "AVIF", "BMP", "TIFF")
_MEMORY_BYTES = 400_000_000  # of one picture while it is decoded, as far as its header tells
_LONGEST_SIDE_PX = 40_000  # libraries keep about 8 bytes a row beside the pixels
_MAX_PROFILE_BYTES = 4_000_000  # the largest in use, of printing presses, have about 2.7 MB

_MOST_JPEG_VISITS = 1_000_000_000  # a scan of a few bytes visits every pixel, about 1 ns each
_BARE_PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"IDAT"})
_PNG_CHUNKS = _BARE_PNG_CHUNKS | {b"tRNS", b"iCCP", b"eXIf"}
# Parts of a file that Pillow steps through one by one, in Python: 1 to 3 us each. Photos have tens,
# of a GIF of 20 MB 80,000.
_MOST_PARTS, _MOST_GIF_BLOCKS = 100_000, 1_000_000
_GIF_PART = re.compile(rb"[!,;]")

# None, three kinds of fax, LZW, JPEG, Deflate by two numbers, PackBits, LZMA, Zstandard. Not JPEG
# as of TIFF 6.0 (compression 6), which raw files of cameras use and libtiff only guesses at.
_TIFF_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32_773, 32_946, 34_925, 50_000})

# Bytes that a pixel takes while its format is decoded, as measured; the second number: with more
# than 8 bits, more colour than 4:2:0, or alpha. Without an entry: what Pillow's picture takes.
_BYTES_PER_PIXEL = {"WebP": (17.0, 17.0), "AVIF": (9.3, 14.0), "HEIC": (7.5, 14.0)}

# An entry of the item table (box "infe", version 2 or 3, flags, number, protection) of type Exif.
_AVIF_EXIF = re.compile(rb"(infe(?:\x02.{5}|\x03.{7})..)Exif", re.DOTALL)

_STRIP_PIXELS = 250_000
_WHITES = (1, 255, 1_023, 4_095, 16_383, 65_535)  # of fractions and of 8, 10, 12, 14, 16 bits

# At a slighter reduction than this cubic interpolation does not alias and keeps more detail than
# averaging (54 against 48 dB of a Lanczos reduction at 0.99, in a quarter of the time).
_CUBIC_FROM = 0.8

_UPRIGHT = {  # by EXIF orientation; without an entry: as it is stored
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What a file is, by its first bytes; names and types that senders claim are not believed. Brands of
# AVIF and of ISO/IEC 23008-12 (HEIF), annex B; mif1 and msf1 say nothing of the codec. A BMP is
# told by the size of its second header: "BM" alone may begin a text.
_TEXT = rb"[\xef\xbb\xbf \t\r\n]*"
_KINDS = (
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"GIF8[79]a", "GIF"),
    (rb"II[*+]\0|MM\0[*+]", "TIFF"),
    (rb"RIFF....WEBP", "WebP"),
    (rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", "BMP"),
    (rb"....ftyp(?:....)*?avi[fs]", "AVIF"),
    (rb"....ftyp(?:....)*?(?:he[iv][cxms]|m[is]f1)", "HEIC"),
    (rb"....ftypcrx |FUJIFILM", "a camera's raw file"),
    (rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI ", "a video"),
    (rb"%PDF", "a PDF document"),
    (rb"OggS", "a sound or video"),
    (rb"ID3|RIFF....WAVE", "a sound"),
    (rb"8BPS", "a Photoshop document"),
    (rb"PK\x03\x04", "a ZIP archive or office document"),
    (rb"\x1f\x8b", "a compressed file or animated sticker"),
    (rb"\0\0\x01\0", "an icon"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (rb".*<(?i:svg)", "an SVG drawing"),
    (_TEXT + rb"<(?i:!doctype html|html|head|body)", "a web page"),
    (_TEXT + rb"(?:<\?xml|<!(?i:doctype)|\{|\[)", "a text document"),
)


def serve() -> None:
    """The loop of a worker process: a file in, its pixels or its problem out, until stdin ends.

    Request: limits and "size" of the file as a line of JSON, then the file. Answer: a line that it
    is "taken", one more of JSON, then a PPM file if there is no "problem". Before every request a
    line with the "resident" memory in bytes.
    """
    memory: Any = Image.core  # type: ignore[attr-defined] # documented: Pillow's block cache
    memory.set_blocks_max(1)  # a new picture takes the last one's memory: 10 ms less
    while True:
        _send(resident=_memory_bytes(1))
        sys.stdout.buffer.flush()
        line = sys.stdin.buffer.readline()
        if not line:
            return
        request = json.loads(line)
        data = sys.stdin.buffer.read(request.pop("size"))
        _send(taken=True)  # what ends this process from here on is the file's fault
        sys.stdout.buffer.flush()
        limits = DecodeLimits(**request)
        _set_limits(limits)
        try:
            image, size_px, name = read(data, limits)
            _send(size=image.size, source_size=size_px, format=name)
            image.save(sys.stdout.buffer, "PPM")  # 3 ms less than tobytes, which copies more
            del image
            if max(size_px) > limits.long_side_px:
                memory.clear_cache()
        except LookalikeError as problem:
            kind, details = type(problem).__name__, problem.details
            _send(problem=kind, message=str(problem), details=details)
        del data


def _send(**answer: Any) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")


def _set_limits(limits: DecodeLimits) -> None:
    """Memory and processor time of one picture, for the kernel to keep; no files, no core dumps."""
    with contextlib.suppress(ImportError):
        import resource

        for kind, most in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_CPU, math.ceil(sum(os.times()[:2]) + limits.seconds)),
            (resource.RLIMIT_DATA, _memory_bytes(5) + limits.worker_bytes),
        ):
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(kind, (most, most and resource.getrlimit(kind)[1]))


def _memory_bytes(field: int) -> int:
    """A number of /proc/self/statm: 1, resident; 5, writable. 0 where there is no such file."""
    with (
        contextlib.suppress(OSError),
        open("/proc/self/statm", "rb") as file,  # noqa: PTH123 - no pathlib in a worker
    ):
        return int(file.read().split()[field]) * mmap.PAGESIZE
    return 0


def read(data: bytes, limits: DecodeLimits) -> tuple[Image.Image, tuple[int, int], str]:
    """The picture in untrusted bytes: upright, in sRGB, what is transparent white, reduced.

    Of files with several pictures the first (of HEIC the primary one). Returns a picture of mode
    RGB; width and height of the picture in the file, or of its part that is wanted, upright, as far
    as it arrived; the name of the format.
    """
    name = _format_of(data)
    load = {"JPEG": _load_jpeg, "PNG": _load_png}.get(name, _load)
    try:
        image, rows, source_size_px = load(name, data, limits)
        orientation = exif_orientation(image.info.get("exif") or b"")
        if orientation >= 5:
            source_size_px = source_size_px[::-1]
        if limits.part is not None:
            box = _stored(limits.part, source_size_px, orientation)
            reduced = math.sqrt(math.prod(source_size_px) / (image.width * rows))
            image = image.crop([round(edge / reduced) for edge in box])
            rows = image.height
            source_size_px = limits.part[2] - limits.part[0], limits.part[3] - limits.part[1]
        long_side_px = round(limits.long_side_px * stretch(*source_size_px))
        upright = _in_colour(image, rows, name, long_side_px)
        if orientation in _UPRIGHT:
            upright = upright.transpose(_UPRIGHT[orientation])
        # An RGB picture would be copied.
        rgb = upright if upright.mode == "RGB" else upright.convert("RGB")
        return rgb, source_size_px, name  # noqa: TRY300 - an else would hide it below the errors
    except LookalikeError:
        raise
    except MemoryError as exc:
        message = f"the {name} picture takes more memory than there is; send a smaller one"
        raise TooHeavy(message, what="memory") from exc
    except Exception as exc:
        # Decoders raise almost anything for bytes made to confuse them: OSError, SyntaxError,
        # ValueError, struct.error, zlib.error, RuntimeError, cv2.error, RecursionError, ...
        message = f"the {name} file is damaged, incomplete or of a rare variety; send another one"
        raise DamagedImage(message, found=name) from exc


def decode_here(data: bytes, limits: DecodeLimits) -> Photo:
    """As ``engine.decode.decode``, in this process: for a command that reads one photo and ends.

    The limits of memory and time are kept as far as a header tells.
    """
    import numpy as np

    from engine.types import Photo

    check_size(data, limits)
    image, size_px, kind = read(data, limits)
    return Photo(np.array(image), size_px, kind, (limits.part or (0, 0))[:2])


def _format_of(data: bytes) -> str:
    """The format that the first bytes announce; NotAnImage says what the file is instead."""
    if not data:
        raise DamagedImage("the file is empty; send the photo again")
    is_box = data[4:8] == b"ftyp"  # brands are in the first box of an ISO base media file
    head = data[: min(1_024, int.from_bytes(data[:4], "big")) if is_box else 1_024]
    what = next((kind for start, kind in _KINDS if re.match(start, head, re.DOTALL)), None)
    if what in _READABLE:
        return what
    wanted = f"send a photo as {', '.join(_READABLE[:-1])} or {_READABLE[-1]}"
    if what is None:
        raise NotAnImage(f"the file is no picture that can be read; {wanted}")
    raise NotAnImage(f"the file is {what}; {wanted}", found=what)


_Loaded = tuple[Any, int, tuple[int, int]]
"""A picture, how many of its rows arrived, its size in the file as far as it arrived."""


def _opened(name: str, data: bytes) -> Any:
    """A file by its plugin: Image.open guesses formats and judges sizes by a global of Pillow."""
    if name == "HEIC":
        import pillow_heif  # not register_heif_opener, which changes Pillow

        image = pillow_heif.HeifImageFile(io.BytesIO(data))
        # The container says how it is turned; its EXIF orientation is a note without effect (MIAF,
        # ISO/IEC 23000-22, 7.3.9), which libheif and Chrome follow, too.
        image.info.pop("exif", None)
        return image
    stem = name if name == "WebP" else name.title()
    module = importlib.import_module(f"PIL.{stem}ImagePlugin")
    return getattr(module, f"{stem}ImageFile")(io.BytesIO(data))


def _opened_jpeg(data: bytes, limits: DecodeLimits) -> tuple[Any, int, int]:
    """A JPEG file, to be decoded at 1/2, 1/4 or 1/8 if it is large; its width and height."""
    position = parts = 2
    while data[position : position + 1] == b"\xff" and data[position + 1 : position + 2] != b"\xda":
        code = int.from_bytes(data[position : position + 2], "big")
        has_length = JpegImagePlugin.MARKER.get(code, ("", "", None))[2]
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        position += 2 + max(2, length) if has_length else 2 - (code == 0xFFFF)
        parts += 1
        _refuse_many("JPEG", parts > _MOST_PARTS)
    image = _opened("JPEG", data)
    width, height = image.size
    image.decodermaxblock = len(data)  # in one piece: what is not used yet would be copied again
    left, top, right, bottom = limits.part or (0, 0, width, height)
    wanted = right - left, bottom - top
    scale = limits.long_side_px * stretch(*wanted) / max(wanted)
    if width * height > _MEMORY_BYTES / 4:  # only a part of so large a picture is wanted whole
        scale = min(scale, 0.5)
    if scale < 1:
        image.draft(None, (max(1, int(width * scale)), max(1, int(height * scale))))
    return image, width, height


def _load_jpeg(name: str, data: bytes, limits: DecodeLimits) -> _Loaded:
    """A file that ends early is decoded if more than half of the rows arrived.

    People do send half-downloaded photos, faces are mostly in the upper half, and chats show them.
    """
    image, width, height = _opened_jpeg(data, limits)
    # A progressive file's coefficients are kept until its last scan, 2 bytes each.
    coefficients = 2.0 * len(image.layer) if image.info.get("progressive") else 0.0
    drawn = 4.0 * image.width * image.height / (width * height)
    _check(name, (width, height), limits, coefficients + drawn)
    if data.count(b"\xff\xda") * width * height > max(_MOST_JPEG_VISITS, 3 * limits.max_pixels):
        raise DamagedImage("the JPEG file has too many scans", found=name)
    try:
        image.load()
        rows = image.height
    except OSError:
        image, *_ = _opened_jpeg(data + b"\xff\xd9", limits)  # libjpeg greys what is missing
        image.load()
        ends = image.crop((max(0, image.width - 4), 0, *image.size)).convert("RGB")
        grey = Image.new("RGB", ends.size, (128, 128, 128))
        rows = (ImageChops.difference(ends, grey).getbbox() or (0, 0, 0, 0))[3]
        if 2 * rows <= image.height:
            raise
    return image, rows, (width, math.ceil(height * rows / image.height))


def _load_png(name: str, data: bytes, limits: DecodeLimits) -> _Loaded:
    """Of an animation the default picture; half a file as of JPEG, unless it is interlaced."""
    has_16_bits, is_interlaced = data[24:25] == b"\x10", data[28:29] != b"\0"
    # Pillow compares 16 bits of tRNS with the upper 8 of a pixel.
    clean, frames = _clean_png(data, _PNG_CHUNKS - {b"tRNS"} if has_16_bits else _PNG_CHUNKS)
    try:
        image = _opened(name, clean)
    except Exception:  # noqa: BLE001 - a profile or transparency that makes no sense
        image = _opened(name, _clean_png(data, _BARE_PNG_CHUNKS)[0])
    _check(name, image.size, limits, _bytes_per_pixel(name, image), frames)
    try:
        image.load()
        rows = image.height
    except (OSError, SyntaxError):
        # Rows that never came are still as Pillow made them: 0 in every channel.
        image.tile = []
        rows = 0 if is_interlaced else (image.getbbox(alpha_only=False) or (0, 0, 0, 0))[3]
        if 2 * rows <= image.height:
            raise
    return image, rows, (image.width, rows)


def _clean_png(data: bytes, wanted: frozenset[bytes]) -> tuple[bytes, int]:
    """A PNG file of nothing but such chunks, with the right checksums, and its count of frames.

    No text that unpacks to gigabytes reaches Pillow, no checksum that a careless editor forgot.
    Chunks: W3C PNG, third edition.
    """
    parts, frames, chunks, position, name = [data[:8]], 1, 0, 8, b""
    while position + 8 <= len(data) and name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, position)
        if name in wanted:
            chunk = data[position + 4 : position + 8 + length]
            parts += [struct.pack(">I", len(chunk) - 4), chunk]
            parts += [struct.pack(">I", zlib.crc32(chunk))]
        elif name == b"acTL":
            frames = int.from_bytes(data[position + 8 : position + 12], "big")
        position += 12 + length
        chunks += 1
        _refuse_many("PNG", chunks > _MOST_PARTS)
    return b"".join((*parts, b"\0\0\0\0IEND\xaeB`\x82")), frames


def _load(name: str, data: bytes, limits: DecodeLimits) -> _Loaded:
    """A file of any other format."""
    if name == "WebP" and data[12:16] == b"VP8X":
        # Pillow makes two canvases of this size before it tells it. RFC 9649, section 2.7.
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        _check(name, (width, height), limits, _BYTES_PER_PIXEL[name][0])
    if name == "AVIF":  # Pillow parses EXIF here, and fails or warns if it is broken: hide it
        data = _AVIF_EXIF.sub(rb"\1skip", data)  # the container says how the picture is turned
    frames = 1
    if name == "GIF":
        data, frames = _first_of_gif(data)
    image = _opened(name, data)
    if name == "TIFF" and int(image.tag_v2.get(259, 1)) not in _TIFF_COMPRESSIONS:
        message = "the TIFF file is compressed in a way that is not read; send it as JPEG or PNG"
        raise DamagedImage(message, found="TIFF")
    pixel_bytes = _bytes_per_pixel(name, image)
    _check(name, image.size, limits, pixel_bytes, frames)
    with contextlib.suppress(Exception):  # broken later pictures do not matter
        if name == "TIFF":  # of any number of pages no more are looked at
            _opened(name, data).seek(limits.max_frames)
            frames = limits.max_frames + 1
        elif name != "GIF":
            frames = getattr(image, "n_frames", 1)
    _check(name, image.size, limits, pixel_bytes, frames)
    image.load()
    return image, image.height, image.size


def _first_of_gif(data: bytes) -> tuple[bytes, int]:
    """A GIF file that begins with its first picture, and how many it has, as far as they arrived.

    Pillow looks for blocks byte by byte: 4 s of 20 MB. GIF89a, sections 15 to 27 and appendix A.
    """
    head = position = 13 + bool(data[10] & 128) * (6 << (data[10] & 7))
    control, first, frames, parts, blocks = b"", b"", 0, 0, 0
    with contextlib.suppress(IndexError):  # the file ends early
        while (part := _GIF_PART.search(data, position)) and part[0] != b";":
            begun = position = part.start()
            if part[0] == b",":
                frames += 1
                first = first or data[begun:]
                flags = data[begun + 9]
                position += 9 + bool(flags & 128) * (6 << (flags & 7))
            position += 2
            while (size := data[position]) and blocks <= _MOST_GIF_BLOCKS:
                position += size + 1
                blocks += 1
            position += 1
            parts += 1
            _refuse_many("GIF", parts > _MOST_PARTS or blocks > _MOST_GIF_BLOCKS)
            if not first and data[begun + 1] == 0xF9:  # the graphic control: what is transparent
                control = data[begun:position]
    return data[:head] + control + first, frames


def _refuse_many(name: str, many: object) -> None:
    """Raises DamagedImage for a file that is nothing but parts."""
    if many:
        message = f"the {name} file is in too many parts; send another one"
        raise DamagedImage(message, found=name)


def _bytes_per_pixel(name: str, image: Any) -> float:
    if name in _BYTES_PER_PIXEL:
        depth, chroma = image.info.get("bit_depth", 8), image.info.get("chroma", 420)
        return _BYTES_PER_PIXEL[name][image.mode != "RGB" or depth > 8 or chroma != 420]
    return {"1": 1.0, "L": 1.0, "P": 1.0}.get(image.mode, 2.0 if "16" in image.mode else 4.0)


def _check(
    name: str, size_px: tuple[int, int], limits: DecodeLimits, pixel_bytes: float, frames: int = 1
) -> None:
    """Passes a picture that is within the limits; its pixels are not decoded yet."""
    if min(size_px) <= 0:
        raise DamagedImage("the picture has no pixels", found=name)
    most_pixels = min(limits.max_pixels, _MEMORY_BYTES / pixel_bytes)
    if math.prod(size_px) > most_pixels:
        limit = f"{most_pixels / 1e6:.3g} megapixels"
        message = f"the {name} picture has more than {limit}; send a smaller one"
        raise TooLarge(message, what="pixels", limit=limit)
    if max(size_px) > _LONGEST_SIDE_PX:
        limit = f"{_LONGEST_SIDE_PX:,} pixels"
        message = f"the picture is longer than {limit}; send a part of it"
        raise TooLarge(message, what="pixels", limit=limit)
    if frames > limits.max_frames:
        limit = f"{limits.max_frames:,} frames"
        raise TooLarge(f"the animation has more than {limit}", what="frames", limit=limit)
    # Those that can't be reduced while they are decoded take time by their pixels.
    weight = math.prod(size_px) * (pixel_bytes if name == "JPEG" else max(4.0, pixel_bytes))
    if limits.light_bytes is not None and weight > limits.light_bytes:
        raise Heavy("heavy pictures are decoded one at a time")


def _in_colour(image: Any, rows: int, name: str, long_side_px: int) -> Image.Image:
    """The upper rows of a loaded picture as L or sRGB, its long side at most that.

    It is converted and reduced strip by strip: 100 megapixels exist once, as they were decoded.
    """
    width = image.width
    factor = max(1, max(width, rows) // long_side_px)
    step = factor * max(1, _STRIP_PIXELS // (width * factor))
    if factor == 1:
        picture = _plain(image if rows == image.height else image.crop((0, 0, width, rows)))
    for top in range(0, rows if factor > 1 else 0, step):
        strip = _plain(image.crop((0, top, width, min(top + step, rows)))).reduce(factor)
        if top == 0:
            picture = Image.new(strip.mode, (strip.width, math.ceil(rows / factor)))
        picture.paste(strip, (0, top // factor))
    profile = image.info.get("icc_profile")
    if picture.mode in {"I", "F"}:
        picture = _grey_of_levels(picture, full_range=name != "TIFF")
    elif _says_something(profile, picture.mode):
        from PIL import ImageCms

        with contextlib.suppress(ImageCms.PyCMSError):
            picture = _to_srgb(picture, io.BytesIO(profile))
    if picture.mode == "CMYK":
        picture = picture.convert("RGB")
    scale = min(1.0, long_side_px / max(width, rows))
    size = max(1, round(width * scale)), max(1, round(rows * scale))
    return picture if size == picture.size else _resized(picture, size)


def _plain(strip: Image.Image) -> Image.Image:
    """A strip of any mode as L, RGB, CMYK, I or F, with any kind of alpha on white."""
    if strip.mode.startswith("I;16"):
        return strip.convert("I")
    if strip.mode == "LAB":
        from PIL import ImageCms

        return _to_srgb(strip, ImageCms.createProfile("LAB"))
    if strip.has_transparency_data:
        # From "La" (grey, premultiplied) Pillow converts to nothing but "LA".
        strip = (strip.convert("LA") if strip.mode == "La" else strip).convert("RGBA")
        white = Image.new("RGB", strip.size, (255, 255, 255))
        white.paste(strip, mask=strip)
        return white
    if strip.mode in {"L", "RGB", "CMYK", "I", "F"}:
        return strip
    return strip.convert("L" if strip.mode == "1" else "RGB")


def _to_srgb(image: Image.Image, profile: Any) -> Image.Image:
    from PIL import ImageCms

    srgb = ImageCms.createProfile("sRGB")
    return ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB") or image


def _says_something(profile: object, mode: str) -> bool:
    """Whether a profile is of that mode (ICC.1:2022, 7.2.6) and another than sRGB."""
    if not isinstance(profile, bytes) or not 128 <= len(profile) <= _MAX_PROFILE_BYTES:
        return False
    srgb = b"sRGB" in profile or "sRGB".encode("utf-16-be") in profile
    return profile[16:20] == {"RGB": b"RGB ", "CMYK": b"CMYK"}.get(mode) and not srgb


def _grey_of_levels(image: Image.Image, *, full_range: bool) -> Image.Image:
    """Levels (mode I or F) as L; what is no number is black.

    Black and white are 0 and 65535 if ``full_range``, else the ends of a usual range that the
    levels fit, else their extremes.
    """
    import numpy as np

    levels = np.array(image, np.float32)
    finite = levels[np.isfinite(levels)]
    black, white = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    if black >= 0:
        black = 0.0
        usual = (usual for usual in _WHITES if white <= usual)
        white = _WHITES[-1] if full_range else next(usual, white)
    scaled = (levels - black) * (255.0 / max(white - black, 1e-30)) + 0.5
    scaled = np.clip(np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0), 0, 255)
    return Image.fromarray(scaled.astype(np.uint8))


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A picture (L or RGB) at that size, averaged if it is much smaller."""
    import cv2  # 30 MB and a tenth of a second, for large pictures only; 8 times as fast as Pillow
    import numpy as np

    cv2.setNumThreads(1)
    slight = max(size) >= _CUBIC_FROM * max(image.size) and min(image.size) > 1
    interpolation = cv2.INTER_CUBIC if slight else cv2.INTER_AREA
    return Image.fromarray(cv2.resize(np.asarray(image), size, interpolation=interpolation))


def exif_orientation(exif: bytes) -> int:
    """The orientation in an EXIF block, 1 to 8; 1 where there is none or the block is broken.

    EXIF 2.32 (CIPA DC-008), tag 274: where row 0 and column 0 of the stored picture are seen. Only
    the directory entry itself is read, so that damage anywhere else does not matter (Pillow's
    ``exif_transpose`` parses, and writes again, everything).
    """
    exif = exif.removeprefix(b"Exif\0\0")
    with contextlib.suppress(struct.error, KeyError):
        order = {b"II": "<", b"MM": ">"}[exif[:2]]
        (directory,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, directory)
        for position in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, position)
            letter = {1: "B", 3: "H", 4: "I"}.get(kind)  # BYTE, SHORT, LONG; writers use all three
            if tag == 274 and letter:
                (value,) = struct.unpack_from(f"{order}{letter}", exif, position + 8)
                return int(value) if 1 <= value <= 8 else 1
    return 1


def _stored(part: Part, size_px: tuple[int, int], orientation: int) -> Part:
    """A part of an upright picture of that size where it lies in the stored one."""
    (left, top, right, bottom), (width, height) = part, size_px
    if orientation in {2, 3, 6, 7}:
        left, right = width - right, width - left
    if orientation in {3, 4, 7, 8}:
        top, bottom = height - bottom, height - top
    return (top, left, bottom, right) if orientation >= 5 else (left, top, right, bottom)
