"""Files that others read while they are written."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadSettings, GalleryCorrupt

__all__ = ["RowReader", "damaged", "unwritable", "write_atomically", "write_rows"]


class RowReader:
    """Reads rows of an open file, which may have lost its name; safe from several threads.

    Args:
        path: Row after row of little-endian float32.
        dimensions: Numbers in a row.
    """

    def __init__(self, path: Path, dimensions: int) -> None:
        self.row_bytes = 4 * dimensions
        self._path = path
        self._dimensions = dimensions
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def rows(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """The rows with these numbers: float32 (len(numbers), D).

        Raises:
            GalleryCorrupt: If the file has become shorter.
        """
        found = np.empty((len(numbers), self._dimensions), dtype="<f4")
        # Neighbours are read in one go; a person's rows often are.
        runs = np.split(np.arange(len(numbers)), np.flatnonzero(np.diff(numbers) != 1) + 1)
        for run in runs if len(numbers) else ():
            into = found[run[0] : run[-1] + 1]
            start = int(numbers[run[0]]) * self.row_bytes
            if os.preadv(self._file, [into.data], start) < into.nbytes:
                raise damaged(self._path)
        return found


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Replaces a file: others see the old content or the new.

    Args:
        path: In a folder that exists.
        content: What it will hold.
        durable: Whether to wait until that is so after a power cut, too (milliseconds).
    """
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def write_rows(path: Path, row: int, rows: NDArray[Any]) -> None:
    """Writes rows in place from that row on, and waits until the disk has them."""
    with path.open("r+b") as file:
        file.seek(row * rows[0].nbytes)
        file.write(np.ascontiguousarray(rows).data)
        file.flush()
        os.fsync(file.fileno())


def damaged(path: Path) -> GalleryCorrupt:
    """What the operator is told of a file of vectors that makes no sense."""
    return GalleryCorrupt(f"{path} is damaged: run `lookalike gallery build`, which makes it anew")


def unwritable(folder: Path, problem: OSError) -> BadSettings:
    """What the operator is told when a folder of the gallery can't be written."""
    return BadSettings(
        f"the gallery's folder {folder} can't be written ({problem.strerror}): check its rights "
        "and free space, or choose another data folder with --home"
    )
