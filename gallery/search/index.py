"""Search in a folder's gallery: candidates by a scan or by faiss, then exact likenesses.

The scan reads the int8 codes of the cache (gallery/search/cache.py), or the vectors themselves
where there are few, or none of it is known yet. It tells everybody's likeness but for a small
error, so that the people compared exactly are all who can be among the first k.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, func, select

from engine.types import Embedding, Space
from gallery.likeness import SAME_PHOTO_STRETCH, SHORTEST_SUM, evened_norms
from gallery.progress import Progress, no_progress
from gallery.records import Hit
from gallery.search import check_query, compared, rank
from gallery.search.cache import Cache, Roster, newest_cache, write_cache
from gallery.tables import PortraitRow, VectorRow
from gallery.vector_file import VectorFile

_BLOCK: Final = 8  # people compared exactly at a time
_STRIDE: Final = 64
_PEOPLE_AT_ONCE: Final = 256  # whose vectors are in memory together when many are compared
_ROUNDING: Final = 1e-5  # of float32 products; measured: 2e-6
_CACHED_FROM_BYTES: Final = 4_000_000  # of vectors; fewer are read in less than a millisecond
_FEW_CHANGES: Final = 1_000  # portraits that may differ from the cache
_MANY_CHANGES: Final = 0.03  # of all portraits
_KEPT_BYTES: Final = 300_000_000  # of vectors of people who changed; more are read each time
_CHUNK_ROWS: Final = 8_192


class _Likeness:
    """Turns cosines with portraits, by person, into likenesses (gallery/likeness.py).

    Args:
        counts: int64 (P,), how many portraits each has.
        norms: float64 (P,), from ``evened_norms``.
    """

    def __init__(self, counts: NDArray[np.int64], norms: NDArray[np.float64]) -> None:
        several = len(counts) and int(counts.max()) > 1
        self._starts = np.cumsum(counts) - counts if several else None
        self._factors = (1.0 / np.maximum(norms, SHORTEST_SUM)).astype(np.float32)
        self._without_direction = np.flatnonzero(norms < SHORTEST_SUM)

    def __call__(self, cosines: NDArray[np.float32]) -> NDArray[np.float32]:
        """Likenesses, float32 (P,), but for rounding; above 1 it may be."""
        best = total = cosines
        if self._starts is not None:
            best = np.maximum.reduceat(cosines, self._starts)
            total = np.add.reduceat(cosines, self._starts)
        likenesses: NDArray[np.float32] = total * self._factors
        likenesses[self._without_direction] = best[self._without_direction]
        stretched = best * np.float32(SAME_PHOTO_STRETCH)
        stretched += np.float32(1.0 - SAME_PHOTO_STRETCH)
        np.maximum(likenesses, stretched, out=likenesses)
        return likenesses


@dataclass(frozen=True, slots=True, eq=False)
class _Scan:
    """How everybody of a roster is looked at.

    Attributes:
        cache: Of most of them, or None.
        places: int64, where in the cache those are who are as they were, and -1 for others.
        back: int64, where in the roster the people of the cache are; -1 for who is not as then.
        settled: int64, the places in the roster of those.
        late: int64, the places in the roster of all others.
        vectors: float32, of their portraits; None where these are too many to keep.
        cached_likeness: Of the people of the cache.
        late_likeness: Of the others.
        stamp: Of the space's folder, when the cache was looked for.
    """

    cache: Cache | None
    places: NDArray[np.int64]
    back: NDArray[np.int64]
    settled: NDArray[np.int64]
    late: NDArray[np.int64]
    vectors: NDArray[np.float32] | None
    cached_likeness: _Likeness | None
    late_likeness: _Likeness
    stamp: int


class GalleryIndex:
    """One space's people at one revision; threads share it. See ``gallery.search.SearchIndex``."""

    def __init__(self, file: VectorFile, roster: Roster, revision: int) -> None:
        self.space: Space = file.space
        self.file = file
        self.roster = roster
        self.person_ids, self.portrait_ids = roster.person_ids, roster.portrait_ids
        self.revision = revision
        self._norms = evened_norms(roster.sum_norms, roster.counts, self.space.backbone)
        self._scan = self._scanned_by()

    @classmethod
    def open(
        cls,
        connection: Connection,
        file: VectorFile,
        row_count: int,
        revision: int,
        before: GalleryIndex | None = None,
    ) -> GalleryIndex:
        """The index of what counts now.

        Args:
            connection: At that revision.
            file: Of the vectors.
            row_count: How many rows of the file have ever counted.
            revision: Of the gallery.
            before: An earlier index of the space.

        Raises:
            FileNotFoundError: If the file is gone.
            GalleryCorrupt: If it is shorter.
        """
        file.check(row_count)
        known, then = None, 0
        if before is not None and before.file.path == file.path:
            known, then, file = before.roster, before.revision, before.file
        elif cache := newest_cache(file, row_count, revision):
            known, then = cache.roster, cache.revision
        if known is not None and known.row_count > row_count:
            known = None
        if known is None or (then != revision and not _all_count(connection, file.space, known)):
            found = _rows(connection, file.space, 0)
        else:
            fresh = _rows(connection, file.space, known.row_count) if then != revision else _NONE
            if len(fresh) == 0 and known.row_count == row_count:
                if before is None or known is not before.roster:
                    return cls(file, known, revision)
                before.revision = revision
                return before
            persons = np.repeat(known.person_ids, known.counts)
            old = np.stack([persons, known.portrait_ids, known.rows], axis=1)
            found = np.concatenate([old, fresh])
        persons, portraits, rows = (np.ascontiguousarray(column) for column in found.T)
        return cls(file, Roster.of(row_count, persons, portraits, rows, file, known), revision)

    def __len__(self) -> int:
        """How many people can be found."""
        return len(self.roster)

    @property
    def cached(self) -> bool:
        """Whether a cache is in use."""
        return self._scan.cache is not None

    def training_rows(self, limit: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See ``gallery.search.SearchIndex``, here and below."""
        roster = self.roster
        people = np.arange(0, len(self), max(1, -(-len(roster.rows) // limit)))
        vectors = self.file.rows(roster.rows[roster.portraits_of(people)])
        return vectors, np.repeat(self.person_ids[people], roster.counts[people])

    def top(
        self, query: Embedding, k: int, *, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[Hit, ...]:
        """People in the order of their approximate likeness, compared exactly until k are sure."""
        check_query(query, self.space, k)
        if len(self) == 0:
            return ()
        people, likenesses, error = self._approximate(query.vector, k, allowed)
        order = _highest(likenesses, k + _BLOCK)
        hits = self._compared(query.vector, people[order])
        if len(order) < len(people):
            least = hits[k - 1].cosine if len(hits) >= k else -2.0
            likenesses[order] = -np.inf
            left = np.flatnonzero(likenesses >= least - error)
            left = left[np.argsort(-likenesses[left], kind="stable")]
            for start in range(0, len(left), _BLOCK):
                block = left[start : start + _BLOCK]
                if len(hits) >= k and likenesses[block[0]] < hits[k - 1].cosine - error:
                    break
                more = self._compared(query.vector, people[block])
                hits = sorted([*hits, *more], key=rank)
        return tuple(hits[:k])

    def likenesses(self, query: Embedding, person_ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """Compared exactly."""
        check_query(query, self.space)
        found = np.full(len(person_ids), np.nan)
        here = np.flatnonzero(np.isin(person_ids, self.person_ids))
        for start in range(0, len(here), _PEOPLE_AT_ONCE):
            block = here[start : start + _PEOPLE_AT_ONCE]
            people = np.searchsorted(self.person_ids, person_ids[block])
            hits = self._compared(query.vector, np.unique(people))
            cosines = {hit.person_id: hit.cosine for hit in hits}
            found[block] = [cosines[one] for one in person_ids[block].tolist()]
        return found

    def settle(self, progress: Progress = no_progress) -> bool:
        """Makes the cache if there is none, or an outdated one; whether it did.

        Only for whoever may change the gallery.
        """
        roster, scan = self.roster, self._current_scan()
        if scan.cache is not None:
            then = scan.cache.roster
            same = int(then.counts[scan.places[scan.places >= 0]].sum())
            changes = len(then.rows) + len(roster.rows) - 2 * same
            if changes <= max(_FEW_CHANGES, _MANY_CHANGES * len(then.rows)):
                return False
        write_cache(self.file, roster, self.revision, lambda done, of: progress("search", done, of))
        return True

    def _approximate(
        self, vector: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], float]:
        """Who may be among the k, about how alike, and how much that may be off."""
        scan = self._current_scan()
        groups = [self._late(scan, vector)]
        error = _ROUNDING
        cache = scan.cache
        if cache is not None and cache.finder is not None:
            groups.append(self._proposed(scan, cache, vector, k, allowed))
            error = cache.codes.error
        elif cache is not None:
            assert scan.cached_likeness is not None
            likenesses = scan.cached_likeness(cache.codes.products(vector))
            if len(scan.settled) < len(cache.roster):
                likenesses = likenesses[scan.places[scan.settled]]
            groups.append((scan.settled, likenesses))
            error = cache.codes.error
        groups = [group for group in groups if len(group[0])] or groups[:1]
        people, likenesses = groups[0]
        if len(groups) > 1:
            people, likenesses = (np.concatenate(parts) for parts in zip(*groups, strict=True))
        if allowed is not None:
            may = allowed[people]
            people, likenesses = people[may], likenesses[may]
        return people, likenesses, error

    def _late(
        self, scan: _Scan, vector: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Those whom the cache does not know as they are now."""
        roster, late = self.roster, scan.late
        if len(late) == 0:
            return late, _NO_LIKENESS
        if scan.vectors is not None:
            cosines = np.einsum("nd,d->n", scan.vectors, vector)
        else:
            rows = roster.rows[roster.portraits_of(late)]
            cosines = np.concatenate(
                [
                    np.einsum("nd,d->n", self.file.rows(rows[at : at + _CHUNK_ROWS]), vector)
                    for at in range(0, len(rows), _CHUNK_ROWS)
                ]
            )
        return late, scan.late_likeness(cosines)

    def _proposed(
        self,
        scan: _Scan,
        cache: Cache,
        vector: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.bool_] | None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Faiss's candidates, by the codes of their directions."""
        assert cache.finder is not None
        known = scan.back >= 0
        wanted = None
        if allowed is not None:
            wanted = known & allowed[scan.back]
        places = cache.candidates(vector, k, wanted)
        places = places[known[places]]
        people = scan.back[places]
        norms = self._norms[people]
        factors = self.roster.sum_norms[people] / np.maximum(norms, SHORTEST_SUM)
        likenesses = cache.codes.products(vector, places) * factors.astype(np.float32)
        owners = scan.back[cache.finder.same_picture(cache.codes, vector)]
        owners = owners[owners >= 0]
        # Who may have nearly the same picture is always compared.
        others = np.setdiff1d(owners, people)
        likenesses[np.isin(people, owners)] = np.inf
        return (
            np.concatenate([people, others]),
            np.concatenate([likenesses, np.full(len(others), np.inf, np.float32)]),
        )

    def _compared(self, vector: NDArray[np.float32], people: NDArray[np.integer]) -> list[Hit]:
        """Exact likenesses of people at some places, best first."""
        people = np.sort(people)
        places, counts = self.roster.portraits_of(people), self.roster.counts[people]
        return compared(
            vector,
            self.file.rows(self.roster.rows[places]),
            np.repeat(self.person_ids[people], counts),
            self.portrait_ids[places],
            self._norms[people],
        )

    def _current_scan(self) -> _Scan:
        """By the cache that is there now: it may have been made since this was opened."""
        if _stamp(self.file.folder) != self._scan.stamp:
            self._scan = self._scanned_by()
        return self._scan

    def _scanned_by(self) -> _Scan:
        stamp = _stamp(self.file.folder)
        cache = newest_cache(self.file, self.roster.row_count, self.revision)
        places = np.full(len(self), -1, np.int64)
        back = np.empty(0, np.int64)
        if cache is not None:
            places = self.roster.places_in(cache.roster)
            back = np.full(len(cache.roster), -1, np.int64)
            back[places[places >= 0]] = np.flatnonzero(places >= 0)
        settled, late = np.flatnonzero(places >= 0), np.flatnonzero(places < 0)
        cached = None
        if cache is not None and cache.finder is None:
            then, backbone = cache.roster, self.space.backbone
            norms = evened_norms(then.sum_norms, then.counts, backbone)
            cached = _Likeness(then.counts, norms)
        late_likeness = _Likeness(self.roster.counts[late], self._norms[late])
        vectors = self._kept(late)
        return _Scan(cache, places, back, settled, late, vectors, cached, late_likeness, stamp)

    def _kept(self, late: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Vectors of people, by person; None if they are too many."""
        roster = self.roster
        rows = roster.rows[roster.portraits_of(late)]
        if len(rows) == roster.row_count and np.array_equal(rows, np.arange(len(rows))):
            return self.file.mapped(len(rows))
        if len(rows) * self.file.row_bytes > _KEPT_BYTES:
            return None
        return self.file.rows(rows)


def is_large(space: Space, rows: int) -> bool:
    """Whether a space of so many vectors is searched by a cache."""
    return 4 * space.dimensions * rows >= _CACHED_FROM_BYTES


_NO_LIKENESS: Final = np.empty(0, np.float32)
_NONE: Final = np.empty((0, 3), np.int64)


def _highest(likenesses: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Places of the highest, in any order."""
    places = np.arange(len(likenesses))
    if count < len(likenesses) // _STRIDE:
        # The count-th highest of the groups' highest is exceeded by count at least.
        whole = likenesses[: len(likenesses) // _STRIDE * _STRIDE].reshape(-1, _STRIDE).max(axis=1)
        places = np.flatnonzero(likenesses >= np.partition(whole, -count)[-count])
    if count < len(places):
        places = places[np.argpartition(-likenesses[places], count)[:count]]
    return places


def _all_count(connection: Connection, space: Space, roster: Roster) -> bool:
    """Whether every row of an earlier roster still counts."""
    query = select(func.count()).where(
        VectorRow.space_id == space.id, VectorRow.row < roster.row_count
    )
    return connection.scalar(query) == len(roster.rows)


def _rows(connection: Connection, space: Space, first: int) -> NDArray[np.int64]:
    """Person, portrait and row of what counts, from a row on: int64 (N, 3), by person."""
    query = (
        select(PortraitRow.person_id, VectorRow.portrait_id, VectorRow.row)
        .join(PortraitRow, PortraitRow.id == VectorRow.portrait_id)
        .where(VectorRow.space_id == space.id, VectorRow.row >= first)
    )
    found: Any = connection.execute(query).cursor
    assert found is not None
    rows = found.fetchall()  # plain tuples: a third of the time
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def _stamp(folder: Path) -> int:
    """Another number whenever a cache or a file has come or gone."""
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
