"""One file of several arrays: written in pieces, seen by others when it is whole, then mapped.

A little-endian uint64 says where the JSON begins that ends the file and names the arrays. They
begin at multiples of 64 bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["ArrayWriter", "mapped_arrays", "read_about", "writing_arrays"]

_ALIGNED: Final = 64


class ArrayWriter:
    """Fills the arrays of a file.

    Args:
        file: Open for writing.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._end = 8
        self._arrays: dict[str, dict[str, Any]] = {}

    def plan(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        """Makes room for an array; what is not written of it later is zero."""
        start = -(-self._end // _ALIGNED) * _ALIGNED
        self._arrays[name] = {"dtype": dtype, "shape": shape, "start": start}
        self._end = start + np.dtype(dtype).itemsize * int(np.prod(shape))

    def write(self, name: str, row: int, rows: NDArray[Any]) -> None:
        """Writes rows of a planned array from that row on."""
        planned = self._arrays[name]
        content = np.ascontiguousarray(rows, dtype=planned["dtype"])
        row_bytes = content.dtype.itemsize * int(np.prod(planned["shape"][1:]))
        self._put(content.tobytes(), planned["start"] + row * row_bytes)

    def add(self, name: str, array: NDArray[Any]) -> None:
        """Plans and writes a whole array."""
        self.plan(name, array.dtype.str, array.shape)
        self.write(name, 0, array)

    def finish(self, about: Mapping[str, Any]) -> None:
        """Writes what names the arrays, and waits until the disk has all."""
        self._put(json.dumps({"about": dict(about), "arrays": self._arrays}).encode(), self._end)
        self._put(self._end.to_bytes(8, "little"), 0)
        os.fsync(self._file)

    def _put(self, content: bytes, at: int) -> None:
        left = memoryview(content)
        while left:
            written = os.pwrite(self._file, left, at)
            left, at = left[written:], at + written


@contextmanager
def writing_arrays(path: Path, about: Mapping[str, Any]) -> Iterator[ArrayWriter]:
    """Makes a file, in place of an earlier one when the block ends well, else not at all.

    Args:
        path: In a folder that exists.
        about: What else to keep, as JSON.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    file = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        try:
            writer = ArrayWriter(file)
            yield writer
            writer.finish(about)
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
    about: dict[str, Any] = _contents(path)["about"]
    return about


def mapped_arrays(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What was kept, and the arrays: mapped, read-only; they outlive the file's name.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it makes no sense.
        KeyError: Likewise.
        TypeError: Likewise.
    """
    contents = _contents(path)
    whole = np.memmap(path, dtype=np.uint8, mode="r")
    arrays = {}
    for name, one in contents["arrays"].items():
        dtype, shape, start = np.dtype(one["dtype"]), one["shape"], one["start"]
        end = start + dtype.itemsize * int(np.prod(shape))
        if not 0 <= start <= end <= len(whole):
            raise ValueError(f"{path.name} is shorter than it says")
        arrays[name] = np.asarray(whole[start:end]).view(dtype).reshape(shape)
    return contents["about"], arrays


def _contents(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        file.seek(int.from_bytes(file.read(8), "little"))
        contents = json.loads(file.read())
    if not isinstance(contents, dict) or not contents.keys() >= {"about", "arrays"}:
        raise ValueError("not a file of arrays")
    return contents
