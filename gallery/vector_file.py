"""The file of one space's vectors: row after row of little-endian float32, only ever appended to.

::

    vectors/<space id>/
        vectors-000003.f32            generation 3
        cache-000003-17-900.arrays    derived: see gallery/search/cache.py

A row counts when the table ``portrait_vector`` names it (gallery/tables.py): a kill between append
and commit leaves bytes that the next append overwrites. Dropping dead rows makes a new file, the
next generation, and one transaction switches to it. Files that are open stay readable, whatever
becomes of their names.
"""

import mmap
import os
import re
import weakref
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from engine.errors import GalleryCorrupt
from engine.types import Space

_NAME = re.compile(r"(?:vectors|cache)-(\d{6})(?:\.f32|-[\d-]+(?:\.arrays)?(?:\.part)?)")
_BIG_READ: Final = 64_000_000  # bytes; longer runs are read in pieces
_MOST_ROWS: Final = 2**40  # that a file can have


class VectorFile:
    """One generation, from 1 on, of a space's vectors; safe to read from several threads.

    Whatever asks for rows raises FileNotFoundError if the file is gone, and GalleryCorrupt if it is
    shorter than that.
    """

    def __init__(self, folder: Path, space: Space, generation: int) -> None:
        self.folder = folder
        self.space = space
        self.generation = generation
        self.path = folder / f"vectors-{generation:06d}.f32"
        self.row_bytes = 4 * space.dimensions
        self._file: int | None = None

    @classmethod
    def create(cls, folder: Path, space: Space) -> Self:
        """An empty file of the next generation; the folder is made if need be."""
        for place in (folder.parent, folder):
            if place.is_file():  # where somebody has put one in the place of the folder
                place.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        newest = max((generation_of(path.name) or 0 for path in folder.iterdir()), default=0)
        made = cls(folder, space, newest + 1)
        made.path.write_bytes(b"")
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)  # the disk has the name
        finally:
            os.close(opened)
        return made

    def check(self, row_count: int) -> None:
        """Makes sure that so many rows are there."""
        if os.fstat(self._opened()).st_size < row_count * self.row_bytes:
            raise damaged(self.path)

    def append(self, row_count: int, vectors: NDArray[np.float32]) -> None:
        """Writes rows behind the first ``row_count`` and waits until the disk has them.

        Whatever follows these is overwritten; they count once a transaction says so. ``vectors``
        are float32 (n, D), n >= 1, of unit length.
        """
        with self.path.open("r+b") as file:
            if os.fstat(file.fileno()).st_size < row_count * self.row_bytes:
                raise damaged(self.path)
            file.seek(row_count * self.row_bytes)
            file.write(np.ascontiguousarray(vectors, dtype="<f4").data)
            file.flush()
            os.fsync(file.fileno())

    def rows(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """The rows with these numbers: float32 (len(numbers), D)."""
        found = np.empty((len(numbers), self.space.dimensions), dtype="<f4")
        if len(numbers) == 0:
            return found
        if numbers.min() < 0 or numbers.max() > _MOST_ROWS:
            raise damaged(self.path)
        file = self._opened()
        # Neighbours are read in one go; a person's rows often are.
        cuts = np.flatnonzero(np.diff(numbers) != 1) + 1
        starts, ends = [0, *cuts.tolist()], [*cuts.tolist(), len(numbers)]
        for start, end in zip(starts, ends, strict=True):
            into = found[start:end].data.cast("B")
            at, done = int(numbers[start]) * self.row_bytes, 0
            while done < into.nbytes:
                got = os.preadv(file, [into[done : done + _BIG_READ]], at + done)
                if got == 0:
                    raise damaged(self.path)
                done += got
        return found

    def mapped(self, row_count: int) -> NDArray[np.float32]:
        """The first rows: float32 (row_count, D), mapped, read-only."""
        shape = (row_count, self.space.dimensions)
        if row_count == 0:
            return np.empty(shape, "<f4")
        try:
            size = row_count * self.row_bytes
            content = mmap.mmap(self._opened(), size, access=mmap.ACCESS_READ)
        except ValueError as problem:  # the file is shorter
            raise damaged(self.path) from problem
        return np.frombuffer(content, "<f4").reshape(shape)

    def _opened(self) -> int:
        if self._file is None:
            try:
                self._file = os.open(self.path, os.O_RDONLY)
            except NotADirectoryError as problem:
                raise FileNotFoundError(*problem.args) from problem
            weakref.finalize(self, os.close, self._file)
        return self._file


def generation_of(name: str) -> int | None:
    """The generation that a file or folder of a space belongs to; None for other names."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def senseless(space: Space) -> GalleryCorrupt:
    """What the operator is told of records that say nothing of where vectors are."""
    mend = f"run `lookalike gallery verify --fix`, then `gallery build --model {space.backbone}`"
    return GalleryCorrupt(f"records of the vectors of {space.id} make no sense: {mend}")


def damaged(path: Path) -> GalleryCorrupt:
    """What the operator is told of a file of vectors that makes no sense."""
    return GalleryCorrupt(f"{path} is damaged: run `lookalike gallery build`, which makes it anew")
