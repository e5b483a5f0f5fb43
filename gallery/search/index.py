"""Search in a folder's gallery: candidates by a scan or by faiss, then exact likenesses.

The scan reads the int8 codes of the cache (gallery/search/cache.py), or the vectors themselves
where there are few, or none of it is known yet. It tells everybody's likeness but for a small
error, so that the people compared exactly are all who can be among the first k.
"""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, func, select

from engine.types import Embedding, Space
from gallery.likeness import SAME_PHOTO_STRETCH, SHORTEST_SUM, evened_norms
from gallery.progress import Progress, no_progress
from gallery.records import Hit
from gallery.search import Ids, Mask, SearchIndex, Vectors, compared, rank
from gallery.search.cache import Cache, PersonRows, newest_cache, write_cache
from gallery.tables import PORTRAITS, SPACES, VECTORS
from gallery.vector_file import VectorFile, senseless

_MORE: Final = 8  # people compared exactly at first, more than are asked for
_STRIDE: Final = 64
_FEW: Final = 0.25  # of everybody; for more, all codes are read
_ROUNDING: Final = 1e-5  # of float32 products; measured: 2e-6
_CACHED_FROM_BYTES: Final = 4_000_000  # of vectors; fewer are read in less than a millisecond
_FEW_CHANGES: Final = 1_000  # portraits that may differ from the cache
_MANY_CHANGES: Final = 0.03  # of all portraits
_KEPT_BYTES: Final = 300_000_000  # of vectors of people who changed; of more the file is mapped


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """How everybody is looked at: by the cache, or by the vectors.

    Attributes:
        stamp: Of the space's folder, when the cache was looked for.
        cache: Of most people, or None.
        known: int64, who is as in the cache.
        places: int64, where in the cache these are.
        back: int64, who the people of the cache are; -1 for those who are not as then.
        late: int64, all others.
        vectors: float32 (n, D), among which those of the others are.
        rows: Which of them.
    """

    stamp: int
    cache: Cache | None
    known: Ids
    places: Ids
    back: Ids
    late: Ids
    vectors: Vectors
    rows: Ids


class GalleryIndex(SearchIndex):
    """The people of a folder's gallery; "people" are their places in ``person_ids``."""

    def __init__(
        self,
        file: VectorFile,
        rows: PersonRows,
        revision: int,
        seen: tuple[int, Cache | None] | None = None,
    ) -> None:
        self.space, self.file = file.space, file
        self.rows, self.person_ids = rows, rows.person_ids
        self.revision = revision
        self._norms = evened_norms(rows.sum_norms, np.diff(rows.starts), self.space.backbone)
        factors = np.where(self._norms < SHORTEST_SUM, 0, 1 / np.maximum(self._norms, SHORTEST_SUM))
        self._factors: Vectors = factors.astype(np.float32)  # 0: without a direction
        self._lengths = self._factors * rows.sum_norms.astype(np.float32)
        self.scan = self._scanned_by(*(seen or self._newest()))

    @classmethod
    def open(
        cls,
        connection: Connection,
        file: VectorFile,
        row_count: int,
        revision: int,
        before: Self | None = None,
    ) -> Self:
        """The index of what counts at a revision, which the connection sees; from an earlier one.

        Raises:
            FileNotFoundError: If the file is gone.
            GalleryCorrupt: If it is shorter than the rows that have ever counted.
        """
        file.check(row_count)
        known: PersonRows | None = None
        then, stamp = 0, _stamp(file.folder)
        if before is not None and before.file.path == file.path:
            known, then, file = before.rows, before.revision, before.file
        if known is not None and before is not None and before.scan.stamp == stamp:
            cache = before.scan.cache
        else:
            cache = newest_cache(file, row_count, revision)
        if known is None and cache is not None:
            known, then = cache.rows, cache.revision
        if known is not None and known.row_count > row_count:
            known = None
        first = 0  # of the rows that are not known yet
        if known is not None and (then == revision or _all_alive(connection, file.space, known)):
            first = known.row_count
        none = np.empty((0, 3), np.int64)
        found = counted_rows(connection, file.space, first) if first < row_count else none
        if known is not None and first:
            if len(found) == 0 and first == row_count:
                if before is None or known is not before.rows:
                    return cls(file, known, revision, (stamp, cache))
                before.revision = revision
                return before
            persons = np.repeat(known.person_ids, np.diff(known.starts))
            old = np.stack([persons, known.portrait_ids, known.numbers], axis=1)
            found = np.concatenate([old, found])
        return cls(file, PersonRows.of(file, row_count, found, known), revision, (stamp, cache))

    def training_rows(self, limit: int) -> tuple[Vectors, Ids]:
        """See ``gallery.search.SearchIndex``."""
        people = np.arange(0, len(self), max(1, -(-len(self.rows.numbers) // limit)))
        whose = np.repeat(self.person_ids[people], self.rows.counts(people))
        return self.rows.vectors(self.file, people), whose

    def top(self, query: Embedding, k: int, *, allowed: Mask | None = None) -> tuple[Hit, ...]:
        """Those of the highest approximate likeness exactly, then all who may be as like."""
        self._check(query, k)
        if len(self) == 0:
            return ()
        people, likenesses, error = self._approximate(query.vector, k, allowed)
        order = _highest(likenesses, k + _MORE)
        hits = sorted(self._compared(query.vector, people[order]), key=rank)
        if len(order) < len(people):
            likenesses[order] = -np.inf
            left = np.flatnonzero(likenesses >= hits[k - 1].cosine - error)
            for block in self.rows.blocks(people[left]):
                hits += self._compared(query.vector, block)
        return tuple(sorted(hits, key=rank)[:k])

    def _compared_by_id(self, vector: Vectors, person_ids: Ids) -> list[Hit]:
        people = np.flatnonzero(np.isin(self.person_ids, person_ids))
        blocks = self.rows.blocks(people)
        return [hit for block in blocks for hit in self._compared(vector, block)]

    def settle(self, progress: Progress = no_progress) -> bool:
        """Makes the cache of many vectors if there is none, or an outdated one; whether it did."""
        if len(self.rows.numbers) * self.file.row_bytes < _CACHED_FROM_BYTES:
            return False
        scan = self._current_scan()
        if scan.cache is not None:
            then = scan.cache.rows
            same = int(then.counts(scan.places).sum())
            if will_do(scan.cache, len(then.numbers) + len(self.rows.numbers) - 2 * same):
                return False
        write_cache(self.file, self.rows, self.revision, progress)
        return True

    def _approximate(
        self, vector: Vectors, k: int, allowed: Mask | None
    ) -> tuple[Ids, Vectors, float]:
        """Who may be among the k, about how alike, and how much that may be off."""
        scan, error = self._current_scan(), _ROUNDING
        cosines = np.einsum("nd,d->n", scan.vectors, vector)[scan.rows]
        counts = self.rows.counts(scan.late)
        groups = [(scan.late, self._likenesses(scan.late, cosines, np.cumsum(counts) - counts))]
        if scan.cache is not None:
            error = scan.cache.codes.error
            groups.append(self._proposed(scan, scan.cache, vector, k, allowed))
        people, likenesses = max(groups, key=lambda group: len(group[0]))
        if all(len(group[0]) for group in groups):
            people, likenesses = (np.concatenate(parts) for parts in zip(*groups, strict=True))
        if allowed is not None:
            may = allowed[people]
            people, likenesses = people[may], likenesses[may]
        return people, likenesses, error

    def _likenesses(self, people: Ids, cosines: Vectors, starts: Ids) -> Vectors:
        """Those of people, but for rounding: float32 (len(people),), above 1 they may be.

        ``cosines`` are with their portraits by person, each person's from one of ``starts`` on.
        """
        best = total = cosines
        if len(starts) < len(cosines):
            best, total = np.maximum.reduceat(cosines, starts), np.add.reduceat(cosines, starts)
        factors = self._factors[people]
        likenesses: Vectors = np.where(factors > 0, total * factors, best)
        stretched = best * np.float32(SAME_PHOTO_STRETCH) + np.float32(1.0 - SAME_PHOTO_STRETCH)
        np.maximum(likenesses, stretched, out=likenesses)
        return likenesses

    def _proposed(
        self, scan: Scan, cache: Cache, vector: Vectors, k: int, allowed: Mask | None
    ) -> tuple[Ids, Vectors]:
        """Everybody of the cache who may be found, or faiss's candidates, by their directions."""
        places, people = scan.places, scan.known
        if cache.people is not None:
            known = scan.back >= 0
            wanted = None if allowed is None else known & allowed[scan.back]
            places = cache.candidates(vector, k, wanted)
            places = places[known[places]]
            people = scan.back[places]
        elif allowed is not None:
            may = allowed[people]
            places, people = places[may], people[may]
        if len(places) < _FEW * len(cache.rows):
            products = cache.codes.products(vector, places)
        else:
            products = cache.codes.products(vector)[places]
        lengths = self._lengths[people]
        likenesses = np.where(lengths > 0, products * lengths, np.float32(-1.0))
        least = -1.0  # that the k-th of them has
        if k < len(people):
            least = float(likenesses[_highest(likenesses, k)].min()) - cache.codes.error
        owners = scan.back[cache.same_picture(vector, 1.0 - (1.0 - least) / SAME_PHOTO_STRETCH)]
        # Who may have nearly the same picture is always compared, and who has no direction.
        always = np.zeros(len(self), np.bool_)
        always[owners[owners >= 0]] = True
        likenesses[always[people] | (lengths == 0)] = np.inf
        always[people] = False
        others = np.flatnonzero(always if allowed is None else always & allowed)
        unknown = np.full(len(others), np.inf, np.float32)
        return np.concatenate([people, others]), np.concatenate([likenesses, unknown])

    def _compared(self, vector: Vectors, people: NDArray[np.integer]) -> list[Hit]:
        """Exact likenesses."""
        people = np.sort(people)
        whose = np.repeat(self.person_ids[people], self.rows.counts(people))
        portrait_ids = self.rows.portrait_ids[self.rows.places(people)]
        vectors = self.rows.vectors(self.file, people)
        return compared(vector, vectors, whose, portrait_ids, self._norms[people])

    def _current_scan(self) -> Scan:
        """By the cache that is there now: it may have been made since this was opened."""
        if _stamp(self.file.folder) != self.scan.stamp:
            self.scan = self._scanned_by(*self._newest())
        return self.scan

    def _newest(self) -> tuple[int, Cache | None]:
        stamp = _stamp(self.file.folder)
        return stamp, newest_cache(self.file, self.rows.row_count, self.revision)

    def _scanned_by(self, stamp: int, cache: Cache | None) -> Scan:
        rows = self.rows
        places = np.full(len(self), -1, np.int64)
        back = np.empty(0, np.int64)
        if cache is not None:
            places = np.arange(len(rows)) if rows is cache.rows else rows.places_in(cache.rows)
            back = np.full(len(cache.rows), -1, np.int64)
            back[places[places >= 0]] = np.flatnonzero(places >= 0)
        known, late = np.flatnonzero(places >= 0), np.flatnonzero(places < 0)
        numbers = rows.numbers[rows.places(late)]
        # Most of the file: mapped, and looked at from one end to the other.
        if len(numbers) == rows.row_count or len(numbers) * self.file.row_bytes > _KEPT_BYTES:
            vectors = self.file.mapped(rows.row_count)
        else:
            vectors, numbers = self.file.rows(numbers), np.arange(len(numbers))
        return Scan(stamp, cache, known, places[known], back, late, vectors, numbers)


def will_do(cache: Cache, changes: int) -> bool:
    """Whether a cache is good enough where so many portraits have come and gone since."""
    return changes <= max(_FEW_CHANGES, _MANY_CHANGES * len(cache.rows.numbers))


def _highest(likenesses: Vectors, count: int) -> NDArray[np.intp]:
    """Places of the highest, in any order."""
    places = np.arange(len(likenesses))
    if count < len(likenesses) // _STRIDE:
        # The count-th highest of the groups' highest is exceeded by count at least.
        whole = likenesses[: len(likenesses) // _STRIDE * _STRIDE].reshape(-1, _STRIDE).max(axis=1)
        places = np.flatnonzero(likenesses >= np.partition(whole, -count)[-count])
    if count < len(places):
        places = places[np.argpartition(-likenesses[places], count)[:count]]
    return places


def _all_alive(connection: Connection, space: Space, rows: PersonRows) -> bool:
    """Whether all the rows still count that ``rows`` knows."""
    # To count all vectors takes a hundredth of the time of those of a space.
    there = select(func.count()).select_from(VECTORS).scalar_subquery()
    dead = connection.scalar(select(func.sum(SPACES.c.row_count) - there))
    if dead == rows.row_count - len(rows.numbers):  # no more in all spaces than there were here
        return True
    before = VECTORS.c.row < rows.row_count
    query = select(func.count()).where(VECTORS.c.space_id == space.id, before)
    return connection.scalar(query) == len(rows.numbers)


def counted_rows(connection: Connection, space: Space, first: int = 0) -> Ids:
    """Person, portrait and row of what counts, from a row on: int64 (N, 3), in any order.

    Raises GalleryCorrupt if one of them is no number.
    """
    query = (
        select(PORTRAITS.c.person_id, VECTORS.c.portrait_id, VECTORS.c.row)
        .join(PORTRAITS, PORTRAITS.c.id == VECTORS.c.portrait_id)
        .where(VECTORS.c.space_id == space.id, VECTORS.c.row >= first)
    )
    found: Any = connection.execute(query).cursor  # plain tuples: a third of the time
    assert found is not None
    try:
        return np.fromiter(chain.from_iterable(found), np.int64).reshape(-1, 3)
    except (ValueError, TypeError, OverflowError) as problem:
        raise senseless(space) from problem


def _stamp(folder: Path) -> int:
    """Another number whenever a cache or a file has come or gone."""
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
