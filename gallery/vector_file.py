"""The file of one space's vectors: row after row of little-endian float32, only ever appended to.

::

    vectors/<space id>/
        vectors-000003.f32    generation 3
        cache-000003-17/      derived: see gallery/search/cache.py

A row counts when the table ``portrait_vector`` names it (gallery/tables.py): a kill between append
and commit leaves bytes that the next append overwrites. Dropping dead rows makes a new file, the
next generation, and one transaction switches to it. Files that are open stay readable, whatever
becomes of their names.
"""

from __future__ import annotations

import mmap
import os
import re
import weakref
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadSettings, GalleryCorrupt
from engine.types import Space

_NAME = re.compile(r"(?:vectors|cache)-(\d{6})(?:\.f32|-\d+(?:\.part)?)")
_BIG_READ: Final = 64_000_000  # bytes; longer runs are read in pieces


class VectorFile:
    """One generation of a space's vectors; safe to read from several threads.

    Args:
        folder: Of the space.
        space: Whose vectors.
        generation: Its number, at least 1.
    """

    def __init__(self, folder: Path, space: Space, generation: int) -> None:
        self.folder = folder
        self.space = space
        self.generation = generation
        self.path = folder / f"vectors-{generation:06d}.f32"
        self.row_bytes = 4 * space.dimensions
        self._file: int | None = None

    @classmethod
    def create(cls, folder: Path, space: Space) -> VectorFile:
        """An empty file of the next generation; the folder is made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        made = cls(folder, space, newest_generation(folder) + 1)
        made.path.write_bytes(b"")
        _sync_folder(folder)
        return made

    def check(self, row_count: int) -> None:
        """Makes sure that so many rows are there.

        Raises:
            FileNotFoundError: If there is no such file (any more).
            GalleryCorrupt: If it is shorter.
        """
        if self._opened() is not None and os.fstat(self._opened()).st_size < self._size(row_count):
            raise damaged(self.path)

    def append(self, row_count: int, vectors: NDArray[np.float32]) -> int:
        """Writes rows behind the first ``row_count`` and waits until the disk has them.

        Args:
            row_count: How many rows count; whatever follows them is overwritten.
            vectors: float32 (n, D), n >= 1, unit length.

        Returns:
            How many rows there are now; they count once a transaction says so.

        Raises:
            FileNotFoundError: If the file is gone.
            GalleryCorrupt: If it is shorter than the rows that count.
        """
        with self.path.open("r+b") as file:
            if os.fstat(file.fileno()).st_size < self._size(row_count):
                raise damaged(self.path)
            file.seek(self._size(row_count))
            file.write(np.ascontiguousarray(vectors, dtype="<f4").data)
            file.flush()
            os.fsync(file.fileno())
        return row_count + len(vectors)

    def rows(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """The rows with these numbers: float32 (len(numbers), D).

        Raises:
            FileNotFoundError: If the file is gone.
            GalleryCorrupt: If it is shorter.
        """
        found = np.empty((len(numbers), self.space.dimensions), dtype="<f4")
        if len(numbers) == 0:
            return found
        file = self._opened()
        # Neighbours are read in one go; a person's rows often are.
        cuts = np.flatnonzero(np.diff(numbers) != 1) + 1
        starts, ends = [0, *cuts.tolist()], [*cuts.tolist(), len(numbers)]
        for start, end in zip(starts, ends, strict=True):
            into = found[start:end].data.cast("B")
            at, done = self._size(int(numbers[start])), 0
            while done < into.nbytes:
                got = os.preadv(file, [into[done : done + _BIG_READ]], at + done)
                if got == 0:
                    raise damaged(self.path)
                done += got
        return found

    def mapped(self, row_count: int) -> NDArray[np.float32]:
        """The first rows: float32 (row_count, D), mapped, read-only.

        Raises:
            FileNotFoundError: If the file is gone.
            GalleryCorrupt: If it is shorter.
        """
        shape = (row_count, self.space.dimensions)
        if row_count == 0:
            return np.empty(shape, "<f4")
        try:
            content = mmap.mmap(self._opened(), self._size(row_count), access=mmap.ACCESS_READ)
        except ValueError as problem:  # the file is shorter
            raise damaged(self.path) from problem
        return np.frombuffer(content, "<f4").reshape(shape)

    def _size(self, rows: int) -> int:
        return rows * self.row_bytes

    def _opened(self) -> int:
        if self._file is None:
            self._file = os.open(self.path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._file)
        return self._file


def newest_generation(folder: Path) -> int:
    """The highest number that any file of a space's folder carries; 0 without files."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return max((generation_of(name) or 0 for name in names), default=0)


def generation_of(name: str) -> int | None:
    """The generation that a file or folder of a space belongs to; None for other names."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def damaged(path: Path) -> GalleryCorrupt:
    """What the operator is told of a file of vectors that makes no sense."""
    return GalleryCorrupt(f"{path} is damaged: run `lookalike gallery build`, which makes it anew")


def unwritable(folder: Path, problem: OSError) -> BadSettings:
    """What the operator is told when a folder of the gallery can't be written."""
    return BadSettings(
        f"the gallery's folder {folder} can't be written ({problem.strerror}): check its rights "
        "and free space, or choose another data folder with --home"
    )


def _sync_folder(folder: Path) -> None:
    """Waits until the disk has the names in a folder."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
