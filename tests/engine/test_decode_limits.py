"""Bombs, halves of files, hard pictures: refused or decoded, quickly and in little memory."""

from __future__ import annotations

import contextlib
import io
import os
import re
import resource
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_decode import saved

from engine import decode as decoding
from engine.decode import DecodeLimits, decode, idle_workers
from engine.errors import NotAnImage, PhotoProblem, TooLarge

LONGEST_S = 5.0
MOST_MEMORY_MIB = 500_000_000 / 2**20


def peak_mib(pid: int) -> float:
    """The most memory that a process had at once."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def measured(paths: list[Path]) -> list[tuple[str, str, float, float]]:
    """Name, outcome, seconds and MiB beyond an idle worker for each file, one after the other."""
    rows = []
    for path in paths:
        while len(idle_workers()) > 1:
            decoding._idle.pop().stop()
        decode(saved(Image.new("RGB", (8, 8)), "JPEG"))
        (pid,) = idle_workers()
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is counted anew
        idle, peaks, done = peak_mib(pid), [0.0], threading.Event()

        def watch(pid: int = pid, peaks: list[float] = peaks) -> None:
            with contextlib.suppress(OSError, TypeError):  # the worker has ended
                while not done.wait(0.02):  # noqa: B023 - ends before the next
                    peaks.append(peak_mib(pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        before = cpu_seconds(pid)
        try:
            photo = decode(path.read_bytes())
            outcome = f"{photo.format} {photo.width_px}x{photo.height_px}"
        except PhotoProblem as problem:
            outcome = type(problem).__name__
        finally:
            done.set()
            watcher.join()
        with contextlib.suppress(OSError, TypeError):
            peaks.append(peak_mib(pid))
        rows.append((str(path), outcome, cpu_seconds(pid) - before, max(peaks) - idle))
    return rows


def cpu_seconds(pid: int) -> float:
    """Processor time of a child process, and of those that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    ticks = 0
    with contextlib.suppress(OSError):  # it has ended
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
    return used.ru_utime + used.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def chunk(name: bytes, content: bytes) -> bytes:
    """A PNG chunk."""
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def png(
    width: int, height: int, depth: int, colour_type: int, pixels: bytes, *more: bytes
) -> bytes:
    """A PNG file of that header and zlib stream."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *more, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def zeros(count: int) -> bytes:
    """A zlib stream that unpacks to that many zeros."""
    return repeated(0, count)


def repeated(value: int, count: int) -> bytes:
    """A zlib stream of one byte, again and again: the packed block is repeated, too."""
    block = bytes([value]) * 1_000_000
    packer = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    whole = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    blocks, rest = divmod(count, len(block))
    checksum = zlib.adler32(block[:rest])
    for _ in range(blocks):
        checksum = zlib.adler32(block, checksum)
    end = packer.compress(block[:rest]) + packer.flush()
    return b"\x78\x01" + whole * blocks + end + struct.pack(">I", checksum)


def filtered(count: int) -> bytes:
    """A zlib stream of rows with a filter that does not exist, 20 times as long as declared."""
    return repeated(9, 20 * count)


def tiff(*entries: tuple[int, int, int, int], following: int = 0, pixels: bytes = b"") -> bytes:
    """A TIFF file of one directory: tag, type, count, value."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    directory = struct.pack("<H", len(entries)) + packed + struct.pack("<I", following)
    return b"II*\0\x08\0\0\0" + directory + pixels


WIDTH, HEIGHT, BITS, COMPRESSION, COLOUR = 256, 257, 258, 259, 262
OFFSETS, SAMPLES, ROWS, COUNTS = 273, 277, 278, 279
PLAIN = ((BITS, 3, 1, 8), (COMPRESSION, 3, 1, 1), (COLOUR, 3, 1, 1), (OFFSETS, 4, 1, 8))
TINY = ((WIDTH, 4, 1, 10), (HEIGHT, 4, 1, 10), *PLAIN)


# Declared sizes


DECLARED = {
    "png": png(60_000, 60_000, 8, 2, zlib.compress(bytes(1_000))),
    "png, 1 bit": png(20_000, 20_000, 1, 0, zlib.compress(bytes(1_000))),
    "png, largest": png(2**31 - 1, 2**31 - 1, 16, 6, b""),
    "gif, screen": b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;",
    "gif, frame": b"GIF89a\x01\0\x01\0\x00\x00\x00,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;",
    "webp": b"RIFF\x32\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\x3f\0\xff\x3f\0VP8L" + bytes(30),
    "bmp": b"BM" + struct.pack("<IIIIiiHHIIIIII", 100, 0, 54, 40, 60_000, 60_000, 1, 24, *[0] * 6),
    "png, narrow": png(1, 120_000_000, 8, 0, zlib.compress(bytes(10))),
    "bmp, narrow": b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, 1, 10**8, 1, 24, *[0] * 6),
    "tiff, narrow": tiff((WIDTH, 4, 1, 1), (HEIGHT, 4, 1, 88_000_000), *PLAIN),
    "tiff": tiff((WIDTH, 4, 1, 60_000), (HEIGHT, 4, 1, 60_000), *PLAIN),
    "tiff, largest": tiff((WIDTH, 4, 1, 2**32 - 1), (HEIGHT, 4, 1, 2**32 - 1), *PLAIN),
}


@pytest.mark.parametrize("name", DECLARED)
def test_declared_sizes_are_believed_before_anything_is_decoded(name: str) -> None:
    """A few bytes that claim gigabytes."""
    with pytest.raises(TooLarge, match=r"megapixels|longer than"):
        decode(DECLARED[name])


def test_sizes_of_jpeg_heic_and_avif_are_believed() -> None:
    """The size is changed where each format declares it."""
    flat = Image.new("RGB", (64, 64), "teal")
    jpeg = saved(flat, "JPEG")
    frame = jpeg.index(b"\xff\xc0") + 5
    with pytest.raises(TooLarge):
        decode(jpeg[:frame] + struct.pack(">HH", 65_000, 65_000) + jpeg[frame + 4 :])
    for name in ("HEIC", "AVIF"):
        data = saved(flat, name)
        extent = data.index(b"ispe") + 8
        with pytest.raises(PhotoProblem):
            decode(data[:extent] + struct.pack(">II", 65_000, 65_000) + data[extent + 8 :])


def test_the_limits_are_settings() -> None:
    """Bytes, pixels and frames; each names its limit."""
    frames = [Image.new("L", (20, 20), level * 20) for level in range(10)]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    decode(data, DecodeLimits(max_bytes=len(data), max_pixels=400, max_frames=10))
    for limits, words in (
        (DecodeLimits(max_bytes=len(data) - 1), "MB"),
        (DecodeLimits(max_pixels=399), "megapixels"),
        (DecodeLimits(max_frames=9), "9 frames"),
    ):
        with pytest.raises(TooLarge, match=words) as caught:
            decode(data, limits)
        assert str(caught.value.details["limit"]) in str(caught.value)


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_frames_of_other_animations_are_counted(name: str) -> None:
    """Pages count as frames."""
    frames = [Image.new("RGB", (20, 20), (level * 20, 0, 0)) for level in range(6)]
    data = saved(frames[0], name, save_all=True, append_images=frames[1:])
    assert decode(data, DecodeLimits(max_frames=6)).source_size_px == (20, 20)
    with pytest.raises(TooLarge, match="5 frames"):
        decode(data, DecodeLimits(max_frames=5))


# Files made to swell or to last


def bombs() -> dict[str, bytes]:
    """Files that unpack to much more than they weigh, some of them within the limits."""
    small = zlib.compress(bytes(31 * 10))
    text = b"comment\0\0" + zeros(200_000_000)
    progressive = saved(Image.new("RGB", (3_000, 3_000), "teal"), "JPEG", progressive=True)
    last_scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    gif = saved(Image.new("P", (30, 30)), "GIF")
    blocks = 13 + (6 << (gif[10] & 7))
    stray = (b"!\xfe\0" + bytes(950_000)) * 20
    page = tiff(*TINY)[8:-4]
    each = len(page) + 4
    pages = b"".join(struct.pack("<I", 8 + each * at) + page for at in range(1, 100_000)) + bytes(4)
    return {
        "1-bit": png(20_000, 20_000, 1, 0, zeros(2_501 * 20_000)),
        "1-bit, allowed": png(10_900, 10_900, 1, 0, zeros(1_364 * 10_900)),
        "colour, allowed": png(8_000, 8_000, 8, 2, zeros(24_001 * 8_000)),
        "swells behind a bad filter": png(4_000, 4_000, 8, 2, filtered(4_000 * 4_000)),
        "16 bits": png(9_000, 9_000, 16, 6, zeros(1_000_000)),
        "unpacks to more than it declares": png(10, 10, 8, 2, zeros(200_000_000)),
        "zTXt": png(10, 10, 8, 2, small, chunk(b"zTXt", text)),
        "iTXt": png(10, 10, 8, 2, small, chunk(b"iTXt", b"a\0\1\0\0\0" + text[9:])),
        "iCCP": png(10, 10, 8, 2, small, chunk(b"iCCP", b"name\0\0" + text[9:])),
        "empty chunks": png(10, 10, 8, 2, small)[:33] + chunk(b"teXt", b"") * 1_500_000,
        "scans": progressive[:-2] + last_scan * 400 + b"\xff\xd9",
        "more scans": progressive[:-2] + last_scan * 2_000 + b"\xff\xd9",
        "empty comments": b"\xff\xd8" + b"\xff\xfe\0\2" * 4_000_000 + progressive[2:],
        "empty IDAT": png(10, 10, 8, 2, small, chunk(b"IDAT", b"") * 1_500_000),
        "empty extensions": gif[:blocks] + b"!\xfe\0" * 6_000_000 + gif[blocks:],
        "tiff, pages": tiff(*TINY)[:-4] + pages,
        "fill bytes": progressive[:-2] + b"\xff" * 15_000_000,
        "fill bytes before": b"\xff\xd8" + b"\xff" * 15_000_000 + progressive[2:],
        "gif comments": gif[:blocks] + b"!\xfe" + b"\1a" * 9_000_000 + b"\0" + gif[blocks:],
        "png, narrow": png(1, 120_000_000, 8, 0, zeros(2 * 120_000_000)),
        "gif, interrupted stray bytes": gif[:blocks] + stray + gif[blocks:],
        "gif, stray bytes after it": gif[:-1] + stray,
        "gif, stray bytes": gif[:blocks] + bytes(19_000_000) + gif[blocks:],
        "gif, stray bytes behind a comment": gif[:blocks] + b"!\xfe\0" + bytes(19_000_000),
        "a few scans too many": progressive[:-2] + last_scan * 480 + b"\xff\xd9",
        "tiff, a million strips": tiff(
            (WIDTH, 4, 1, 100),
            (HEIGHT, 4, 1, 1_000_000),
            *PLAIN[:3],
            (OFFSETS, 4, 1_000_000, 100),
            (ROWS, 4, 1, 1),
            pixels=bytes(4_000_200),
        ),
        "tiff, a tile of 16 gigapixels": tiff(
            (WIDTH, 4, 1, 100),
            (HEIGHT, 4, 1, 100),
            (BITS, 3, 1, 8),
            (COMPRESSION, 3, 1, 5),
            (COLOUR, 3, 1, 1),
            (322, 4, 1, 131_072),
            (323, 4, 1, 131_072),
            (324, 4, 1, 8),
            (325, 4, 1, 100),
        ),
        "tiff, one strip": tiff(
            (WIDTH, 4, 1, 9_400),
            (HEIGHT, 4, 1, 9_400),
            (BITS, 3, 1, 8),
            (COMPRESSION, 3, 1, 8),
            (COLOUR, 3, 1, 2),
            (OFFSETS, 4, 1, 8),
            (SAMPLES, 3, 1, 3),
            (ROWS, 4, 1, 9_400),
        ),
        "tiff, pages in a circle": tiff(*TINY, following=8),
        "tiff, samples": tiff((WIDTH, 4, 1, 9), (HEIGHT, 4, 1, 9), *PLAIN, (SAMPLES, 4, 1, 2**31)),
        "bmp, run lengths": b"BM"
        + struct.pack("<IIIIiiHHIIIIII", 0, 0, 54, 40, 1_900, 1_900, 1, 8, 1, 0, 0, 0, 256, 0)
        + bytes(1_024)
        + b"\1\5\0\0" * 200_000,
    }


def test_bombs(tmp_path: Path) -> None:
    """None takes over 5 s of processor time or 500 MB; each is decoded or refused."""
    paths = []
    for number, (name, data) in enumerate(bombs().items()):
        paths.append(tmp_path / f"{number} {name}")
        paths[-1].write_bytes(data)
    outcomes = {}
    for name, outcome, seconds, peak_mib in measured(paths):
        assert seconds < LONGEST_S, name
        assert peak_mib < MOST_MEMORY_MIB, name
        outcomes[Path(name).name.split(" ", 1)[1]] = outcome
    assert outcomes["1-bit"] == "TooLarge"
    # Many small parts are no longer stepped through than it takes to tell that.
    for parts in (
        "more scans",
        "empty comments",
        "empty IDAT",
        "empty extensions",
        "fill bytes before",
    ):
        assert outcomes[parts] == "DamagedImage", parts
    assert outcomes["tiff, pages"] == "TooLarge"
    assert outcomes["fill bytes"] == "JPEG 2000x2000"  # behind the picture, as cameras do
    assert outcomes["gif, interrupted stray bytes"] == "GIF 30x30"
    assert outcomes["gif, stray bytes after it"] == "GIF 30x30"
    for decodable in ("1-bit, allowed", "colour, allowed"):
        assert outcomes[decodable] == "PNG 2000x2000"
    for harmless in ("zTXt", "iTXt", "iCCP"):
        assert outcomes[harmless] == "PNG 10x10"


def test_a_large_jpeg_is_never_whole_in_memory(tmp_path: Path) -> None:
    """36 megapixels would be 144 MB."""
    path = tmp_path / "large"
    path.write_bytes(saved(Image.new("RGB", (6_000, 6_000), "teal"), "JPEG"))
    ((_, outcome, _, peak_mib),) = measured([path])
    assert outcome == "JPEG 2000x2000"
    assert peak_mib < 125  # of which 30 are cv2, loaded for it, and 12 are the result


def test_hard_pictures(hard_faces: Path) -> None:
    """What people and fuzzers have sent before, by halves: no crash, under 5 s and 500 MB."""
    paths = sorted(path for path in hard_faces.rglob("*") if path.is_file())[::2]
    rows = measured(paths)
    assert max(row[2] for row in rows) < LONGEST_S
    assert max(row[3] for row in rows) < MOST_MEMORY_MIB
    refused = {"NotAnImage", "DamagedImage", "TooLarge", "TooHeavy"}
    rare = ("corrupt", "bombs", "every_format", "ground_truth")
    for name, outcome, _, _ in rows:
        assert outcome not in refused or any(word in name for word in rare) or "zero_" in name, name


# Files that end early


@pytest.fixture(scope="module")
def hopper(hopper_jpeg: bytes) -> Image.Image:
    """Grace Hopper at 96 x 120."""
    return Image.open(io.BytesIO(hopper_jpeg)).convert("RGB").resize((96, 120))


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "HEIC", "AVIF"])
def test_files_cut_anywhere(hopper: Image.Image, name: str) -> None:
    """A picture or a PhotoProblem after every k-th byte."""
    data = saved(hopper, name, **({"compression": "tiff_lzw"} if name == "TIFF" else {}))
    for end in range(0, len(data), max(1, len(data) // 50)):
        try:
            photo = decode(data[:end])
        except NotAnImage:
            continue
        assert photo.width_px == hopper.width
        assert hopper.height / 2 < photo.height_px <= hopper.height
        assert photo.source_size_px == (photo.width_px, photo.height_px)


@pytest.mark.parametrize("share", [0.55, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_the_rows_that_arrived_are_shown(hopper_jpeg: bytes, name: str, share: float) -> None:
    """No grey or black below, and not a pixel changed above."""
    image = Image.open(io.BytesIO(hopper_jpeg)).convert("RGB").rotate(180)  # the busy half first
    data = saved(image, name)
    whole = decode(data)
    photo = decode(data[: int(len(data) * share)])
    safe = photo.height_px - 16  # JPEG smooths colours across the edge of a block
    assert whole.height_px / 2 < photo.height_px < whole.height_px
    assert np.array_equal(photo.pixels[:safe], whole.pixels[:safe])
    assert photo.source_size_px == (whole.width_px, photo.height_px)


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_less_than_half_a_picture_is_refused(hopper_jpeg: bytes, name: str) -> None:
    """The face may be missing."""
    data = saved(Image.open(io.BytesIO(hopper_jpeg)), name)
    with pytest.raises(NotAnImage, match="incomplete"):
        decode(data[: len(data) // 3])


def test_a_progressive_jpeg_that_ends_early_is_whole_but_soft(hopper_jpeg: bytes) -> None:
    """All rows are there after the first scans, the details come later."""
    data = saved(Image.open(io.BytesIO(hopper_jpeg)), "JPEG", progressive=True)
    whole, part = decode(data), decode(data[: len(data) * 2 // 3])
    assert part.pixels.shape == whole.pixels.shape
    assert np.abs(part.pixels.astype(int) - whole.pixels).mean() < 6
    first_scan = decode(data[: len(data) // 20])  # a picture of 1/8 of the size: blurred
    assert whole.height_px / 2 < first_scan.height_px <= whole.height_px


def test_a_jpeg_without_its_last_bytes_is_whole(hopper_jpeg: bytes) -> None:
    """Many programs forget the end marker; some append a video."""
    data = saved(Image.open(io.BytesIO(hopper_jpeg)), "JPEG")
    whole = decode(data)
    assert np.array_equal(decode(data[:-2]).pixels, whole.pixels)
    assert np.array_equal(decode(data + b"\0\0\0\x18ftypmp42" * 99).pixels, whole.pixels)


def test_rows_behind_a_bad_filter_are_not_shown() -> None:
    """The stream is whole, but a row in it can't be meant."""
    rows = [b"\0" + bytes([200]) * 90 for _ in range(30)]
    rows[20] = b"\x09" + rows[20][1:]
    photo = decode(png(30, 30, 8, 2, zlib.compress(b"".join(rows))))
    assert photo.source_size_px == (30, 20)
    assert (photo.pixels == 200).all()


def test_a_turned_photo_that_ends_early_keeps_its_orientation(hopper: Image.Image) -> None:
    """What is missing at the bottom of the file is missing at a side of the photo."""
    block = Image.Exif()
    block[274] = 6
    data = saved(hopper.transpose(Image.Transpose.ROTATE_90), "PNG", exif=block)
    photo = decode(data[: int(len(data) * 0.8)])
    assert photo.height_px == hopper.height
    assert hopper.width / 2 < photo.width_px < hopper.width
    assert photo.source_size_px == (photo.width_px, photo.height_px)


def test_wrong_checksums_do_not_matter(hopper: Image.Image) -> None:
    """Careless editors forget them; zlib has its own."""
    data = saved(hopper, "PNG")
    start = data.index(b"IHDR") + 4 + 13
    photo = decode(data[:start] + b"\0\0\0\0" + data[start + 4 :])
    assert np.array_equal(photo.pixels, np.asarray(hopper))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg", "zstd", "lzma"])
def test_damage_is_not_talked_about(
    hopper: Image.Image, compression: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written on stderr, not by C libraries either."""
    data = bytearray(saved(hopper, "TIFF", compression=compression))
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(range(100, 140))
    with contextlib.suppress(NotAnImage):
        decode(bytes(data))
    assert capfd.readouterr() == ("", "")
