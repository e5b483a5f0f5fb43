"""One file of several arrays: written in pieces, seen by others when it is whole, then mapped.

A little-endian uint64 says how long the JSON is that follows it; the JSON names the arrays, and
they follow, each at a multiple of 64 bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["ArrayWriter", "Layout", "mapped_arrays", "read_about", "writing_arrays"]

Layout = Mapping[str, tuple[str, tuple[int, ...]]]
"""Of each array: its dtype as ``numpy.dtype.str`` and its shape."""

_ALIGNED: Final = 64
_LONGEST_HEADER: Final = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class ArrayWriter:
    """Fills the arrays of a file.

    Attributes:
        file: Open for writing.
        layout: Of which arrays.
        offsets: Where each begins.
    """

    file: int
    layout: Layout
    offsets: Mapping[str, int]

    def write(self, name: str, row: int, rows: NDArray[Any]) -> None:
        """Writes rows of an array from that row on."""
        dtype, shape = self.layout[name]
        content = np.ascontiguousarray(rows, dtype=dtype)
        row_bytes = content.dtype.itemsize * int(np.prod(shape[1:]))
        left, at = memoryview(content.tobytes()), self.offsets[name]
        at += row * row_bytes
        while left:
            written = os.pwrite(self.file, left, at)
            left, at = left[written:], at + written


@contextmanager
def writing_arrays(path: Path, about: Mapping[str, Any], layout: Layout) -> Iterator[ArrayWriter]:
    """Makes a file, in place of an earlier one when the block ends well, else not at all.

    Args:
        path: In a folder that exists.
        about: What else to keep, as JSON.
        layout: The arrays; what isn't written is zero.
    """
    header = json.dumps({"about": dict(about), "arrays": dict(layout)}).encode()
    offsets, end = {}, 8 + len(header)
    for name, (dtype, shape) in layout.items():
        offsets[name] = -(-end // _ALIGNED) * _ALIGNED
        end = offsets[name] + np.dtype(dtype).itemsize * int(np.prod(shape))
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    file = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        try:
            os.pwrite(file, len(header).to_bytes(8, "little") + header, 0)
            os.ftruncate(file, end)
            yield ArrayWriter(file, layout, offsets)
            os.fsync(file)
        finally:
            os.close(file)
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def read_about(path: Path) -> dict[str, Any]:
    """What was kept beside the arrays.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it makes no sense.
    """
    with path.open("rb") as file:
        about: dict[str, Any] = _header(file.read(8), file)["about"]
    return about


def mapped_arrays(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What was kept, and the arrays: mapped, read-only; they outlive the file's name.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it makes no sense.
    """
    with path.open("rb") as file:
        length = file.read(8)
        header = _header(length, file)
        whole = np.memmap(file, dtype=np.uint8, mode="r")
    arrays, end = {}, 8 + int.from_bytes(length, "little")
    for name, (kind, shape) in header["arrays"].items():
        dtype = np.dtype(kind)
        start = -(-end // _ALIGNED) * _ALIGNED
        end = start + dtype.itemsize * int(np.prod(shape))
        if end > len(whole):
            raise ValueError(f"{path.name} is shorter than it says")
        arrays[name] = np.asarray(whole[start:end]).view(dtype).reshape(shape)
    return header["about"], arrays


def _header(length: bytes, file: Any) -> dict[str, Any]:
    size = int.from_bytes(length, "little")
    if len(length) < 8 or size > _LONGEST_HEADER:
        raise ValueError("not a file of arrays")
    header = json.loads(file.read(size))
    if not isinstance(header, dict) or not header.keys() >= {"about", "arrays"}:
        raise ValueError("not a file of arrays")
    return header
