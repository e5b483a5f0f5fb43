"""How an exported gallery is laid out: a ZIP archive of plain files, none of them compressed.

::

    manifest.json                       version, counts, spaces, size and SHA-256 of the next four
    people.jsonl                        a person a line
    portraits.jsonl                     a portrait a line, by person, in the order of people.jsonl;
                                        with size and SHA-256 of its photo, if it came along
    never_again.jsonl                   who was removed for good
    vectors/<space>.npy                 float32 little-endian (n, D), unit length
    vectors/<space>.portraits           the portraits of those rows: a hash a line, in the order of
                                        portraits.jsonl
    portraits/<sha256 of the original>.jpg

Everything is in one order, so that it can be read in one go with little memory. The same gallery
makes the same bytes.
"""

from __future__ import annotations

import re
from typing import Final

from engine.types import Space

__all__ = [
    "FORMAT",
    "HASH_LINE_BYTES",
    "MANIFEST",
    "NEVER_AGAIN",
    "PEOPLE",
    "PHOTO",
    "PORTRAITS",
    "VERSION",
    "array_header",
    "photo_member",
    "space_members",
]

FORMAT: Final = "lookalike gallery"
VERSION: Final = 1

MANIFEST: Final = "manifest.json"
PEOPLE: Final = "people.jsonl"
PORTRAITS: Final = "portraits.jsonl"
NEVER_AGAIN: Final = "never_again.jsonl"
PHOTO: Final = re.compile(r"portraits/([0-9a-f]{64})\.jpg")

HASH_LINE_BYTES: Final = 65

_HEADER_BYTES: Final = 128


def photo_member(sha256: str) -> str:
    """Where the photo of a portrait is."""
    return f"portraits/{sha256}.jpg"


def space_members(space: Space) -> tuple[str, str]:
    """Where a space's vectors are, and which portraits they are of."""
    return f"vectors/{space.id}.npy", f"vectors/{space.id}.portraits"


def array_header(rows: int, dimensions: int) -> bytes:
    """What stands before the numbers of a float32 array in NumPy's format, version 1.0.

    Always 128 bytes, whichever version of NumPy is there (numpy.lib.format: magic, version, length
    of the description, the description, spaces up to a multiple of 64).
    """
    described = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dimensions}), }}"
    text = described.encode().ljust(_HEADER_BYTES - 11) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
