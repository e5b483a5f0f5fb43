"""The derived cache of a space: whose row is where, codes, and the faiss index of very many people.

A folder ``cache-GGGGGG-R`` beside the vectors of generation G, of arrays as NumPy keeps them, made
when the gallery had revision R. It may be deleted at any time: a search then reads the vectors, and
`gallery build` makes it anew. Rows that were added or died since are known from the table
``portrait_vector``; their people are compared without the cache.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from gallery.likeness import SHORTEST_SUM, evened_norms
from gallery.search.candidates import Codes, nearest, principal_components, quantized, trained
from gallery.vector_file import VectorFile

SCANNED_BYTES: Final = 32_000_000
"""Codes of so many portraits are scanned whole; of more, faiss names candidates.
benchmarks/gallery_scale.py."""

_NAME = re.compile(r"cache-(\d{6})-(\d+)")
_DAMAGED: Final = (OSError, ValueError, EOFError, KeyError, TypeError, RuntimeError)
_INDEXES: Final = ("people", "portraits")
_SAMPLE: Final = 8_192  # vectors from which the centre and the components are learned
_COMPONENTS: Final = 256
_PORTRAIT_COMPONENTS: Final = 128  # nearly the same picture is told by fewer
_CHUNK_ROWS: Final = 4_096
# Candidates, so that of the best 3 at least 0.99 are among them: benchmarks/gallery_scale.py.
_FEWEST: Final = 2_048
_SHARE: Final = 1 / 200  # of everybody, if that is more
_PER_WANTED: Final = 64
_SPARE: Final = 1.25
_FEW: Final = 8_192  # people, all of whose codes are read as fast as candidates are found
_NEAREST_PORTRAITS: Final = 16


@dataclass(frozen=True, slots=True, eq=False)
class Roster:
    """Whose rows are where in a space's file: those that count, by person, then by portrait.

    Attributes:
        row_count: Of how many rows of the file.
        rows: int64 (N,), their numbers.
        portrait_ids: int64 (N,), in the same order.
        person_ids: int64 (P,), rising.
        starts: int64 (P + 1,): the rows of person p are ``rows[starts[p] : starts[p + 1]]``.
        sum_norms: float64 (P,), length of the sum of each person's vectors.
    """

    row_count: int
    rows: NDArray[np.int64]
    portrait_ids: NDArray[np.int64]
    person_ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    sum_norms: NDArray[np.float64]

    def __len__(self) -> int:
        """How many people there are."""
        return len(self.person_ids)

    @classmethod
    def of(
        cls,
        row_count: int,
        persons: NDArray[np.int64],
        portraits: NDArray[np.int64],
        rows: NDArray[np.int64],
        file: VectorFile,
        before: Roster | None,
    ) -> Self:
        """The roster of the rows that count.

        Args:
            row_count: See ``row_count``.
            persons: int64 (N,), whose each is; in any order.
            portraits: int64 (N,).
            rows: int64 (N,).
            file: Of the vectors, whose sums are not known.
            before: An earlier roster of the same file, whose sums are taken over.
        """
        steps = np.diff(persons)
        if not np.all((steps > 0) | ((steps == 0) & (np.diff(portraits) > 0))):
            order = np.lexsort((portraits, persons))
            persons, portraits, rows = persons[order], portraits[order], rows[order]
        firsts = np.flatnonzero(np.diff(persons, prepend=-1) != 0)
        ids, starts = persons[firsts], np.append(firsts, len(rows))
        made = cls(row_count, rows, portraits, ids, starts, np.zeros(len(ids)))
        late = np.arange(len(ids))
        if before is not None:
            places = made.places_in(before)
            known = np.flatnonzero(places >= 0)
            made.sum_norms[known] = before.sum_norms[places[known]]
            late = np.flatnonzero(places < 0)
        for some in chunks(made.counts[late], _CHUNK_ROWS):
            people = late[some]
            made.sum_norms[people] = np.linalg.norm(made.sums(file, people), axis=1)
        return made

    def is_whole(self) -> bool:
        """Whether the arrays, read from a file, belong together."""
        people, rows = len(self.person_ids), len(self.rows)
        return (
            self.rows.shape == self.portrait_ids.shape == (rows,)
            and self.person_ids.shape == self.sum_norms.shape == (people,)
            and self.starts.shape == (people + 1,)
            and int(self.starts[-1]) == rows
        )

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many rows each person has: int64 (P,)."""
        return np.diff(self.starts)

    def places_in(self, other: Roster) -> NDArray[np.int64]:
        """Where in an earlier roster of the same file people are, unchanged: int64 (P,), else -1.

        A row never counts again once it is dead: whoever has as many as before, none of them new,
        has the same.
        """
        if len(other) == 0 or len(self) == 0:
            return np.full(len(self), -1, np.int64)
        places = np.searchsorted(other.person_ids, self.person_ids)
        places = np.minimum(places, len(other) - 1)
        same = other.person_ids[places] == self.person_ids
        same &= other.counts[places] == self.counts
        same &= np.maximum.reduceat(self.rows, self.starts[:-1]) < other.row_count
        return np.where(same, places, -1)

    def portraits_of(self, people: NDArray[np.integer]) -> NDArray[np.int64]:
        """Places of the rows of people, one person behind the other."""
        counts = self.counts[people]
        before = np.cumsum(counts) - counts
        return np.repeat(self.starts[people] - before, counts) + np.arange(counts.sum())

    def sums(self, file: VectorFile, people: NDArray[np.integer]) -> NDArray[np.float64]:
        """What the vectors of people add up to: float64 (len(people), D)."""
        if len(people) == 0:
            return np.empty((0, file.space.dimensions))
        counts = self.counts[people]
        vectors = file.rows(self.rows[self.portraits_of(people)])
        return np.add.reduceat(vectors.astype(np.float64), np.cumsum(counts) - counts)


def chunks(counts: NDArray[np.int64], rows: int) -> Iterator[slice]:
    """People in groups of about so many rows, at least one person each."""
    ends, first = np.cumsum(counts), 0
    while first < len(counts):
        done = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, done + rows, side="right")), first + 1)
        yield slice(first, last)
        first = last


@dataclass(frozen=True, slots=True, eq=False)
class Finder:
    """Names candidates among very many people.

    Attributes:
        components: float32 (M, D), principal components of the vectors.
        people: A faiss index of each person's direction.
        portraits: One of every portrait of people who have several.
        owners: int32, whose these are, as places among the people of the cache.
    """

    components: NDArray[np.float32]
    people: Any
    portraits: Any
    owners: NDArray[np.int32]

    def nearest(self, codes: Codes, vector: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """Places of about the most alike."""
        seen = np.einsum("md,d->m", self.components, vector)
        query = np.append(seen, [codes.centre @ vector, 0]).astype(np.float32)
        return nearest(self.people, query, count)

    def same_picture(self, codes: Codes, vector: NDArray[np.float32]) -> NDArray[np.int32]:
        """Places of who may have nearly the same picture, each once."""
        seen = np.einsum("md,d->m", self.components, vector - codes.centre)
        query = np.ascontiguousarray(seen[:_PORTRAIT_COMPONENTS])
        return np.unique(self.owners[nearest(self.portraits, query, _NEAREST_PORTRAITS)])


def _people_entries(seen: NDArray[np.float32], factors: NDArray[np.float64]) -> NDArray[np.float32]:
    """What the query of ``Finder.nearest`` is multiplied with: about a likeness."""
    one = np.broadcast_to(np.array([1, 0], np.float32), (len(seen), 2))
    return np.asarray(np.hstack([seen, one]) * factors[:, None], np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Cache:
    """What a search reads first.

    Attributes:
        path: Of the folder.
        revision: Of the gallery, when it was made.
        roster: As of then.
        codes: Of every portrait in the roster's order; with a finder of each person's direction.
        finder: Where there are too many to scan.
    """

    path: Path
    revision: int
    roster: Roster
    codes: Codes
    finder: Finder | None

    @classmethod
    def read(cls, path: Path, dimensions: int) -> Self:
        """Maps the arrays.

        Raises:
            OSError: If a file is missing.
            ValueError: If one makes no sense.
        """

        def array(name: str) -> NDArray[Any]:
            loaded: NDArray[Any] = np.load(path / f"{name}.npy", mmap_mode="r")
            return loaded

        match = _NAME.fullmatch(path.name)
        if match is None:
            raise ValueError("no cache")
        arrays = {one.name: array(one.name) for one in fields(Roster)[1:]}
        roster = Roster(int(array("row_count")[()]), **arrays)
        small = {name: np.array(array(name)) for name in ("centre", "error")}
        codes = Codes(
            small["centre"],
            array("codes"),
            array("scales"),
            array("offsets"),
            float(small["error"]),
        )
        finder = None
        if (path / "components.npy").exists():
            import faiss

            faiss.omp_set_num_threads(1)
            people, portraits = (faiss.deserialize_index(array(one)) for one in _INDEXES)
            finder = Finder(np.array(array("components")), people, portraits, array("owners"))
        size = len(roster) if finder else len(roster.rows)
        if codes.codes.shape != (size, dimensions) or not roster.is_whole():
            raise ValueError("of another space, or damaged")
        return cls(path, int(match[2]), roster, codes, finder)

    def candidates(
        self, vector: NDArray[np.float32], k: int, wanted: NDArray[np.bool_] | None
    ) -> NDArray[np.int64]:
        """Places of people to whom the likeness may be greatest, for k of them.

        ``wanted``, bool (len(roster),), says who may be found; None for everybody.
        """
        assert self.finder is not None
        count = max(_FEWEST, int(_SHARE * len(self.roster)), _PER_WANTED * k)
        if wanted is None:
            return self.finder.nearest(self.codes, vector, count)
        few = int(np.count_nonzero(wanted))
        if few > _FEW:
            asked = int(count * len(wanted) / few * _SPARE)
            places = self.finder.nearest(self.codes, vector, asked)
            places = places[wanted[places]]
            if len(places) >= count:
                return places
        return np.flatnonzero(wanted)  # few, or not where the others are


def newest_cache(file: VectorFile, row_count: int, revision: int) -> Cache | None:
    """The cache of a file's rows, if there is one that they begin with.

    It can be made anew, so one that makes no sense counts as none.
    """
    found = [
        (int(match[2]), path)
        for path in _caches(file.folder)
        if (match := _NAME.fullmatch(path.name)) and int(match[1]) == file.generation
    ]
    for made, path in sorted(found, reverse=True):
        with contextlib.suppress(*_DAMAGED):
            cache = Cache.read(path, file.space.dimensions)
            if made <= revision and cache.roster.row_count <= row_count:
                return cache
    return None


def remove_caches(folder: Path, *, but: Path | None = None, beyond: int | None = None) -> int:
    """Removes caches of a space's folder; how many there were.

    Args:
        folder: Of the space.
        but: One that stays.
        beyond: Only those of more rows than so many: the database is an older copy.
    """
    removed = 0
    for path in _caches(folder):
        if path == but:
            continue
        if beyond is not None:
            with contextlib.suppress(OSError, ValueError):
                if int(np.load(path / "row_count.npy")) <= beyond:
                    continue
        shutil.rmtree(path, ignore_errors=True)
        removed += 1
    return removed


def _caches(folder: Path) -> list[Path]:
    return [path for path in folder.glob("cache-*") if path.is_dir()]


def write_cache(
    file: VectorFile,
    roster: Roster,
    revision: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    *,
    with_finder: bool | None = None,
) -> Path:
    """Makes the cache of a roster of at least one person, in place of earlier ones.

    ``progress`` is told how many portraits of how many are done. ``with_finder`` says whether
    faiss names candidates; None for what is quicker.
    """
    from threadpoolctl import threadpool_limits

    if with_finder is None:
        with_finder = len(roster.rows) * file.space.dimensions > SCANNED_BYTES
    path = file.folder / f"cache-{file.generation:06d}-{revision}"
    part = path.with_name(f"{path.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        # Where a bot keeps the cores busy, several threads took ten times as long as one: they
        # wait for each other at every step.
        with threadpool_limits(1, "blas"):
            _write(file, roster, part, progress, with_finder=with_finder)
        for name in part.iterdir():
            with name.open("rb") as written:
                os.fsync(written.fileno())
        shutil.rmtree(path, ignore_errors=True)
        part.rename(path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    remove_caches(file.folder, but=path)
    return path


def _write(
    file: VectorFile,
    roster: Roster,
    folder: Path,
    progress: Callable[[int, int], None],
    *,
    with_finder: bool,
) -> None:
    for one in fields(Roster):
        np.save(folder / f"{one.name}.npy", getattr(roster, one.name))
    dimensions, total = file.space.dimensions, len(roster.rows)
    chosen = np.linspace(0, total - 1, min(_SAMPLE, total)).astype(np.int64)
    sample = file.rows(np.sort(roster.rows[chosen]))
    centre = sample.mean(axis=0)
    sample -= centre
    np.save(folder / "centre.npy", centre)
    np.save(folder / "error.npy", quantized(sample)[2])
    finding = _Finding(file, roster, centre, sample) if with_finder else None
    size = len(roster) if finding else total

    def planned(name: str, dtype: str, *shape: int) -> NDArray[Any]:
        return np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="w+", dtype=np.dtype(dtype), shape=shape
        )

    codes = planned("codes", "i1", size, dimensions)
    scales, offsets = planned("scales", "<f4", size), planned("offsets", "<f4", size)
    done = 0
    for some in chunks(roster.counts, _CHUNK_ROWS):
        people = np.arange(len(roster))[some]
        vectors = file.rows(roster.rows[roster.portraits_of(people)])
        at = some
        if finding is None:
            at = slice(int(roster.starts[some.start]), int(roster.starts[some.stop]))
        else:
            vectors = finding.take(people, vectors)
        codes[at], scales[at], _ = quantized(vectors - centre)
        offsets[at] = vectors @ centre
        done = int(roster.starts[some.stop])
        progress(done, total)
    for array in (codes, scales, offsets):
        array.flush()  # type: ignore[attr-defined]
    if finding is not None:
        finding.save(folder)


class _Finding:
    """Makes the arrays of a ``Finder``, some people at a time."""

    def __init__(
        self,
        file: VectorFile,
        roster: Roster,
        centre: NDArray[np.float32],
        sample: NDArray[np.float32],
    ) -> None:
        self._roster, self._centre = roster, centre
        evened = evened_norms(roster.sum_norms, roster.counts, file.space.backbone)
        self._factors = roster.sum_norms / np.maximum(evened, SHORTEST_SUM)
        self._components = principal_components(sample, min(_COMPONENTS, file.space.dimensions))
        seen = sample @ self._components.T
        likely = self._factors[np.linspace(0, len(roster) - 1, len(seen)).astype(int)]
        self._people = trained(_people_entries(seen, likely))
        self._portraits = trained(seen[:, :_PORTRAIT_COMPONENTS])
        self._owners: list[NDArray[np.int32]] = []

    def take(self, people: NDArray[np.int64], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Takes in people with all their vectors; their directions: float32 (len(people), D)."""
        counts = self._roster.counts[people]
        starts = np.cumsum(counts) - counts
        sums = np.add.reduceat(vectors.astype(np.float64), starts, axis=0)
        norms = self._roster.sum_norms[people][:, None]
        # Vectors that cancel each other out have no direction: the first stands for all.
        directions = np.where(
            norms < SHORTEST_SUM, vectors[starts], sums / np.maximum(norms, SHORTEST_SUM)
        ).astype(np.float32)
        several = np.repeat(counts > 1, counts)
        seen = [
            (some - self._centre) @ self._components.T for some in (directions, vectors[several])
        ]
        self._people.add(_people_entries(seen[0].astype(np.float32), self._factors[people]))
        if len(seen[1]):
            self._portraits.add(np.ascontiguousarray(seen[1][:, :_PORTRAIT_COMPONENTS]))
        self._owners.append(np.repeat(people.astype(np.int32), counts)[several])
        return directions

    def save(self, folder: Path) -> None:
        import faiss

        for name, index in zip(_INDEXES, (self._people, self._portraits), strict=True):
            np.save(folder / f"{name}.npy", faiss.serialize_index(index))
        np.save(folder / "owners.npy", np.concatenate(self._owners))
        np.save(folder / "components.npy", self._components)
