"""What a file is, by its first bytes; names and types that senders claim are not believed."""

from __future__ import annotations

from engine.decode_base import READABLE
from engine.errors import NotAnImage

__all__ = ["format_of"]

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II\x2a\0", "TIFF"),
    (b"MM\0\x2a", "TIFF"),
    (b"II\x2b\0", "TIFF"),
    (b"MM\0\x2b", "TIFF"),
)

# "BM" may begin a text; the size of the header that follows is one of few.
_BMP_HEADER_BYTES = frozenset({12, 40, 52, 56, 64, 108, 124})

# Brands of ISO/IEC 23008-12 (HEIF), annex B, and of AVIF. The general ones, mif1 and msf1, are
# used by both and say nothing of the codec.
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIC_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
)

# What people also send, so that the answer can name it.
_OTHERS = (
    (b"%PDF", "a PDF document"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"OggS", "a sound or video"),
    (b"ID3", "a sound"),
    (b"8BPS", "a Photoshop document"),
    (b"PK\x03\x04", "a ZIP archive or office document"),
    (b"\x1f\x8b", "a compressed file or animated sticker"),
    (b"\0\0\x01\0", "an icon"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"FUJIFILM", "a camera's raw file"),
    (b"{\\rtf", "a text document"),
)


def format_of(data: bytes) -> str:
    """The format that the first bytes announce: one of READABLE.

    Raises:
        NotAnImage: If it is none of those; the sentence says what it is instead, where that can
            be seen, and what can be read.
    """
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADER_BYTES:
        return "BMP"
    brands = _brands(data)
    if brands & _AVIF_BRANDS:
        return "AVIF"
    if brands & _HEIC_BRANDS:
        return "HEIC"
    raise _refusal(_other(data, brands))


def _brands(data: bytes) -> frozenset[bytes]:
    """The brands in the file type box of an ISO base media file; empty for other files."""
    if data[4:8] != b"ftyp":
        return frozenset()
    size = min(int.from_bytes(data[:4], "big"), 1_024, len(data))
    return frozenset([data[8:12], *(data[at : at + 4] for at in range(16, size - 3, 4))])


def _other(data: bytes, brands: frozenset[bytes]) -> str | None:
    """What a file that can't be read is, if that can be seen."""
    if brands:
        return "a camera's raw file" if b"crx " in brands else "a video"
    if data[:4] == b"RIFF":
        return {b"AVI ": "a video", b"WAVE": "a sound"}.get(data[8:12])
    what = next((what for signature, what in _OTHERS if data.startswith(signature)), None)
    return what or _markup(data[:1_024])


def _markup(start: bytes) -> str | None:
    """What kind of text begins so, if it is one with tags or braces."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in text:
        return "an SVG drawing"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "a web page"
    return "a text document" if text.startswith((b"<?xml", b"<!doctype", b"{", b"[")) else None


def _refusal(what: str | None) -> NotAnImage:
    message = f"the file is {what}" if what else "the file is no picture that can be read"
    return NotAnImage(
        f"{message}; send a photo as {READABLE.replace(' and ', ' or ')}",
        reason="kind",
        found=what,
    )
