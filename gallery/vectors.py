"""The files that hold one space's vectors; only rows that the catalogue counts are there.

::

    vectors/<space id>/
        manifest-000003.json    which files make up generation 3; never changed once written
        vectors-000003.f32      row after row: a unit vector, little-endian float32
        codes-000003.i8         row after row: the same vector in one byte a dimension
        records-000003.bin      row after row: portrait, person and more (``RECORD``)
        digest-000003.bin       only where there are many: see gallery/searching/digest.py
        calibration.json        see gallery/scores

Appending writes behind the rows that count and then lets the catalogue count them; a kill in
between leaves bytes that the next append overwrites. Dropping dead rows makes a new generation,
and the catalogue switches to it. Readers map the rows that counted when they looked; files that
they have mapped stay readable to them, whatever becomes of the names.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.types import Space
from gallery.disk import RowReader, damaged, write_atomically, write_rows
from gallery.searching.arrays import mapped_arrays, read_about
from gallery.searching.codes import quantized
from gallery.searching.digest import Digest
from gallery.searching.owners import Owners, growths

__all__ = [
    "RECORD",
    "Manifest",
    "VectorFiles",
    "generation_files",
    "newest_generation",
    "write_atomically",
]

FORMAT: Final = 1

RECORD: Final = np.dtype(
    [("portrait", "<i8"), ("person", "<i8"), ("growth", "<f8"), ("scale", "<f4"), ("error", "<f4")]
)
"""``growth`` is what the row adds to the squared length of the sum of its person's vectors, so that
these lengths are known without reading a vector. ``scale`` times the row's codes is the vector, but
for a difference of length ``error``."""

_CODES_FROM_DIMENSIONS: Final = 512  # shorter vectors are searched as fast as they are
_CHUNK_ROWS: Final = 2048
_FILE = re.compile(r"(?:manifest|vectors|codes|records|digest)-(\d{6})\.(?:json|f32|i8|bin)")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one generation consists of.

    Attributes:
        space: Whose vectors.
        generation: Its number.
        rows: How many rows it was made with; the catalogue knows how many count now.
        has_codes: Whether there is a file of codes.
    """

    space: Space
    generation: int
    rows: int
    has_codes: bool

    def to_json(self) -> dict[str, Any]:
        """As kept on disk."""
        return {"format": FORMAT, "dtype": "<f4", **asdict(self)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Manifest:
        """As read from disk.

        Raises:
            ValueError: If it is of another format.
            KeyError: If something is missing.
            TypeError: If something is too much or of the wrong type.
        """
        if content.pop("format") != FORMAT or content.pop("dtype") != "<f4":
            raise ValueError("a manifest of another format")
        return cls(space=Space(**content.pop("space")), **content)


class VectorFiles:
    """One generation of one space.

    Args:
        folder: The space's folder.
        manifest: Describes the files.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: Path, space: Space, generation: int) -> VectorFiles:
        """The files of a generation that exists.

        Raises:
            FileNotFoundError: If there is no such generation (any more).
            GalleryCorrupt: If its manifest can't be understood or speaks of another space.
        """
        path = folder / _file_name("manifest", generation)
        content = path.read_bytes()
        try:
            manifest = Manifest.from_json(json.loads(content))
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise damaged(path) from problem
        if manifest.space != space or manifest.generation != generation:
            raise damaged(path)
        return cls(folder, manifest)

    @classmethod
    def create(cls, folder: Path, space: Space, *, rows: int = 0) -> VectorFiles:
        """A new generation, not filled yet.

        Args:
            folder: The space's folder; made if need be.
            space: Whose vectors.
            rows: How many rows will be written before the catalogue switches to it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        manifest = Manifest(
            space=space,
            generation=newest_generation(folder) + 1,
            rows=rows,
            has_codes=space.dimensions >= _CODES_FROM_DIMENSIONS,
        )
        files = cls(folder, manifest)
        for kind in ("vectors", "records", *(["codes"] if manifest.has_codes else [])):
            files.path(kind).write_bytes(b"")
        write_atomically(files.path("manifest"), json.dumps(manifest.to_json(), indent=2).encode())
        return files

    def path(self, kind: str) -> Path:
        """Where the file of that kind is."""
        return self.folder / _file_name(kind, self.manifest.generation)

    def vectors(self, row_count: int) -> NDArray[np.float32]:
        """The first rows: float32 (row_count, D), mapped, read-only."""
        return self._mapped("vectors", np.dtype("<f4"), row_count)

    def reader(self, row_count: int) -> RowReader:
        """Reads a few of the first rows at a time; mapping them would count as memory in use."""
        path = self.path("vectors")
        reader = RowReader(path, self.manifest.space.dimensions)
        if path.stat().st_size < row_count * reader.row_bytes:
            raise damaged(path)
        return reader

    def codes(self, row_count: int) -> NDArray[np.int8] | None:
        """The first rows' codes: int8 (row_count, D), mapped, read-only; None without codes."""
        return self._mapped("codes", np.dtype("i1"), row_count) if self.manifest.has_codes else None

    def records(self, row_count: int) -> NDArray[np.void]:
        """The first rows' records: a copy of dtype ``RECORD``, (row_count,)."""
        records = np.fromfile(self.path("records"), dtype=RECORD, count=row_count)
        if len(records) < row_count:
            raise damaged(self.path("records"))
        return records

    def digest(self, row_count: int) -> Digest | None:
        """What a search reads first; None where there is none that these rows begin with.

        It can be made anew from the vectors, so one that makes no sense counts as none.
        """
        try:
            digest = Digest.from_arrays(*mapped_arrays(self.path("digest")))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        whole = digest.frame.basis.shape[1] == self.manifest.space.dimensions
        return digest if whole and digest.rows <= row_count else None

    def digest_stamp(self) -> tuple[int, int] | None:
        """Another one for every digest that is made; None without one. Quick."""
        try:
            status = self.path("digest").stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns

    def owners(self) -> Owners:
        """What ``append`` remembers of the rows before."""
        return Owners(self.path("records"), RECORD)

    def append(
        self,
        row_count: int,
        vectors: NDArray[np.float32],
        portraits: Sequence[int] | NDArray[np.int64],
        persons: Sequence[int] | NDArray[np.int64],
        dead: NDArray[np.int64],
        owners: Owners | None = None,
    ) -> int:
        """Writes rows behind the first ``row_count`` and waits until the disk has them.

        Args:
            row_count: How many rows count; whatever follows them is overwritten.
            vectors: float32 (n, D), n >= 1, unit length.
            portraits: n ids.
            persons: n ids.
            dead: Which of the rows that count no longer do.
            owners: From ``owners()``, for whoever appends often; None to look at all records.

        Returns:
            How many rows there are now; they count once the catalogue says so.
        """
        self._forget_digest_beyond(row_count)
        records = np.empty(len(vectors), dtype=RECORD)
        records["portrait"] = portraits
        records["person"] = persons
        owners = owners or self.owners()
        sums = owners.sums(self.reader(row_count), row_count, records["person"], dead)
        records["growth"] = growths(vectors, records["person"], sums)
        codes, records["scale"], records["error"] = quantized(vectors)
        write_rows(self.path("vectors"), row_count, vectors.astype("<f4", copy=False))
        if self.manifest.has_codes:
            write_rows(self.path("codes"), row_count, codes)
        write_rows(self.path("records"), row_count, records)
        return row_count + len(vectors)

    def compacted(self, row_count: int, dead: NDArray[np.int64]) -> VectorFiles:
        """A new generation that holds the living rows, by person."""
        records, vectors = self.records(row_count), self.vectors(row_count)
        alive = np.delete(np.arange(row_count), dead)
        rows = alive[np.lexsort((records["portrait"][alive], records["person"][alive]))]
        fresh = VectorFiles.create(self.folder, self.manifest.space, rows=len(rows))
        none, owners = np.empty(0, np.int64), fresh.owners()
        for start in range(0, len(rows), _CHUNK_ROWS):
            chunk = rows[start : start + _CHUNK_ROWS]
            portraits, persons = records["portrait"][chunk], records["person"][chunk]
            fresh.append(start, np.asarray(vectors[chunk]), portraits, persons, none, owners)
        return fresh

    def _forget_digest_beyond(self, row_count: int) -> None:
        """A digest of rows that are about to be overwritten: the catalogue is an older copy."""
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            if read_about(self.path("digest"))["rows"] > row_count:
                self.path("digest").unlink()

    def _mapped(self, kind: str, dtype: np.dtype[Any], rows: int) -> NDArray[Any]:
        shape = (rows, self.manifest.space.dimensions)
        if rows == 0:
            return np.empty(shape, dtype)
        try:
            return np.memmap(self.path(kind), dtype=dtype, mode="r", shape=shape)
        except ValueError as problem:  # the file is shorter
            raise damaged(self.path(kind)) from problem


def newest_generation(folder: Path) -> int:
    """The highest number that any file of the folder carries, finished or not; 0 without files."""
    names = (entry.name for entry in folder.iterdir()) if folder.is_dir() else ()
    return max((int(match[1]) for name in names if (match := _FILE.fullmatch(name))), default=0)


def generation_files(folder: Path) -> dict[Path, int | None]:
    """Every file of any generation with its number, and unfinished ones with None."""
    found: dict[Path, int | None] = {}
    for path in folder.iterdir():
        match = _FILE.fullmatch(path.name)
        if match or path.name.endswith(".part"):
            found[path] = int(match[1]) if match else None
    return found


def _file_name(kind: str, generation: int) -> str:
    endings = {
        "manifest": "json",
        "vectors": "f32",
        "codes": "i8",
        "records": "bin",
        "digest": "bin",
    }
    ending = endings[kind]
    return f"{kind}-{generation:06d}.{ending}"
