"""Orientation is found in EXIF of any quality."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decode_worker import exif_orientation


def block(order: str, kind: int, value: int, *, before: int = 0) -> bytes:
    """A TIFF structure whose first directory holds the orientation behind other entries."""
    letter = {1: "B3x", 3: "H2x", 4: "I"}[kind]
    others = b"".join(struct.pack(f"{order}HHII", 256 + i, 4, 1, 0) for i in range(before))
    entry = struct.pack(f"{order}HHI{letter}", 274, kind, 1, value)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}IH", 8, before + 1) + others + entry


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
@pytest.mark.parametrize("kind", [1, 3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_is_found(order: str, kind: int, prefix: bytes) -> None:
    """In both byte orders, in every type that writers use, anywhere in the directory."""
    for value in range(1, 9):
        assert exif_orientation(prefix + block(order, kind, value, before=value % 4)) == value


@pytest.mark.parametrize("value", [0, 9, 255])
def test_impossible_orientations_count_as_upright(value: int) -> None:
    """Some editors write 0."""
    assert exif_orientation(block("<", 3, value)) == 1


@given(st.binary(max_size=200))
def test_any_bytes_have_an_orientation(junk: bytes) -> None:
    """Law: a number from 1 to 8, and no error, also behind a good beginning."""
    for data in (
        junk,
        b"II*\0" + junk,
        b"MM\0*\0\0\0\x08" + junk,
        b"Exif\0\0MM\0*\0\0\0\x08\0\x05" + junk,
    ):
        assert 1 <= exif_orientation(data) <= 8


@given(st.integers(0, 40), st.integers(1, 8))
def test_a_block_cut_anywhere_has_an_orientation(cut: int, value: int) -> None:
    """Either the right one or upright."""
    assert exif_orientation(block(">", 3, value, before=1)[:cut]) in {1, value}
