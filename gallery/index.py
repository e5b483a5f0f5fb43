"""Search: the people most like a face, exactly, from the mapped vectors of one space.

Two passes. The first gives everybody an upper bound of their likeness from little memory: from the
vectors themselves where they are short, else from their codes of one byte a dimension. With x the
vector, x' what its codes say, |x - x'| <= e known for every row, and the same for the face q
(|q| = 1; Cauchy-Schwarz)::

    q . x  <=  q' . x'  +  |q - q'| (1 + e)  +  e

The second pass compares the people with the highest bounds in full, in float64, until no bound
left exceeds the k-th likeness found. So the answer is that of comparing everything in float64.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.errors import SpaceMismatch
from engine.types import Embedding, Space
from gallery.likeness import SAME_PHOTO_STRETCH, evened_norms, person_cosines
from gallery.vectors import VectorFiles, quantized

__all__ = ["SAME_PHOTO_STRETCH", "GalleryIndex", "Hit", "person_cosines"]

# What a float32 product of unit vectors may be off, summed over up to 4096 dimensions in lanes of
# at least eight: (4096 / 8 + 8) roundings of 2^-24 at worst; measured: 2e-6.
_ROUNDING: Final = np.float32(3.2e-5)

_BLOCK: Final = 16  # people compared in full at a time
_PEOPLE_AT_ONCE: Final = 256  # whose vectors are in memory together when many are compared
_THREADS: Final = min(4, os.cpu_count() or 1)  # more wait for the same memory
_ONE_THREAD_BYTES: Final = 16_000_000  # below, one thread is done before a second one starts
_DECIMALS: Final = 7  # likenesses closer than that are equal, and ids decide


@dataclass(frozen=True, slots=True)
class Hit:
    """A person found.

    Attributes:
        person_id: Who.
        portrait_id: Their portrait that is most like the face.
        cosine: The likeness to the person, in [-1, 1] (gallery/likeness.py).
    """

    person_id: int
    portrait_id: int
    cosine: float


class GalleryIndex:
    """One space's people at one moment; does not change, so that threads share it.

    Args:
        files: A generation of the space's vectors.
        row_count: How many of its rows count.
        dead: Those among them that don't, int64 rising.

    Raises:
        GalleryCorrupt: If the files are shorter than that.
    """

    def __init__(self, files: VectorFiles, row_count: int, dead: NDArray[np.int64]) -> None:
        self.space: Space = files.manifest.space
        self._reader = files.reader(row_count)
        self._codes = files.codes(row_count)
        self._vectors = files.vectors(row_count) if self._codes is None else None
        records = files.records(row_count)
        self._scales = np.ascontiguousarray(records["scale"])
        self._errors = np.ascontiguousarray(records["error"])
        alive = np.delete(np.arange(row_count), dead)
        rows = alive[np.lexsort((records["portrait"][alive], records["person"][alive]))]
        self._rows = rows
        self._in_order = len(rows) == row_count and bool(np.all(np.diff(rows) == 1))
        self.portrait_ids: NDArray[np.int64] = np.ascontiguousarray(records["portrait"][rows])
        persons, starts, person_index = np.unique(
            records["person"][rows], return_index=True, return_inverse=True
        )
        self.person_ids: NDArray[np.int64] = persons
        self._starts = np.append(starts, len(rows))
        self._person_index = person_index
        self._norms = evened_norms(
            self._sum_norms(records, dead), np.diff(self._starts), self.space.backbone
        )

    def __len__(self) -> int:
        """How many people can be found."""
        return len(self.person_ids)

    def training_rows(self, limit: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Vectors to learn from: all of them, or all those of evenly chosen people.

        Args:
            limit: About how many vectors at most.

        Returns:
            float32 (N, D) and int64 (N,): vectors by person, and whose they are.
        """
        every = max(1, -(-len(self._rows) // limit))
        chosen = np.flatnonzero(self._person_index % every == 0)
        vectors = self._reader.rows(self._rows[chosen])
        return vectors, self.person_ids[self._person_index[chosen]]

    def top(
        self, query: Embedding, k: int, *, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[Hit, ...]:
        """The k people most like the query, most alike first.

        Args:
            query: In ``space``.
            k: At least 1; fewer are found if there are fewer people.
            allowed: bool (len(self),): who may be found, in the order of ``person_ids``; None
                for everybody.

        Returns:
            By falling cosine; equal ones by rising person id.

        Raises:
            SpaceMismatch: If the query comes from another space.
            ValueError: If k is below 1.
        """
        self._check_space(query)
        if k < 1:
            raise ValueError("at least one person must be asked for")
        if len(self) == 0:
            return ()
        bounds = self._bounds(query.vector)
        if allowed is not None:
            bounds[~allowed] = -np.inf
        first = _highest(bounds, k + _BLOCK)
        hits = self._compare(query.vector, first)
        least = hits[k - 1].cosine if len(hits) >= k else -np.inf
        bounds[first] = -np.inf
        left = np.flatnonzero(bounds >= max(least, -2.0))
        left = left[np.argsort(-bounds[left], kind="stable")]
        for start in range(0, len(left), _BLOCK):
            block = left[start : start + _BLOCK]
            if len(hits) >= k and bounds[block[0]] < hits[k - 1].cosine:
                break
            hits = sorted([*hits, *self._compare(query.vector, block)], key=_rank)
        return tuple(hits[:k])

    def likenesses(self, query: Embedding, person_ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """The likeness to certain people, exactly as ``top`` finds it.

        Args:
            query: In ``space``.
            person_ids: int64 (n,), in any order.

        Returns:
            float64 (n,), in [-1, 1]; NaN for those who are not here.

        Raises:
            SpaceMismatch: If the query comes from another space.
        """
        self._check_space(query)
        found = np.full(len(person_ids), np.nan)
        here = np.flatnonzero(np.isin(person_ids, self.person_ids))
        for start in range(0, len(here), _PEOPLE_AT_ONCE):
            block = here[start : start + _PEOPLE_AT_ONCE]
            people = np.searchsorted(self.person_ids, person_ids[block])
            hits = self._compare(query.vector, np.unique(people))
            cosines = {hit.person_id: hit.cosine for hit in hits}
            found[block] = [cosines[one] for one in person_ids[block].tolist()]
        return found

    def _check_space(self, query: Embedding) -> None:
        if query.space != self.space:
            raise SpaceMismatch(
                f"a vector of {query.space.id} can't be compared with the gallery's of "
                f"{self.space.id}; run `lookalike gallery build --model {query.space.backbone}`"
            )

    def _bounds(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """An upper bound of the likeness to every person: float32 (len(self),)."""
        if self._codes is not None:
            cosines = self._code_bounds(vector, self._codes)
        else:
            assert self._vectors is not None
            cosines = self._vectors @ vector
        if not self._in_order:
            cosines = cosines[self._rows]
        cosines += _ROUNDING
        bounds = person_cosines(cosines, self._person_index, self._norms)
        return bounds.astype(np.float32, copy=False) + _ROUNDING

    def _code_bounds(
        self, vector: NDArray[np.float32], gallery_codes: NDArray[np.int8]
    ) -> NDArray[np.float32]:
        import simsimd  # only long vectors need it

        codes, scales, errors = quantized(vector[None])
        threads = _THREADS if gallery_codes.size > _ONE_THREAD_BYTES else 1
        products = simsimd.cdist(
            codes, gallery_codes, metric="dot", out_dtype="float32", threads=threads
        )
        bounds: NDArray[np.float32] = np.asarray(products)[0]
        bounds *= self._scales
        bounds *= scales[0]
        bounds += self._errors * (1 + errors[0])
        bounds += errors[0]
        return bounds

    def _compare(self, vector: NDArray[np.float32], people: NDArray[np.intp]) -> list[Hit]:
        """Likenesses to a few people in float64, best first."""
        if len(people) == 0:
            return []
        people = np.sort(people)
        starts, ends = self._starts[people], self._starts[people + 1]
        places = np.concatenate([np.arange(a, b) for a, b in zip(starts, ends, strict=True)])
        index = np.repeat(np.arange(len(people)), ends - starts)
        vectors = self._reader.rows(self._rows[places]).astype(np.float64)
        cosines = np.clip(vectors @ vector.astype(np.float64), -1.0, 1.0)
        likenesses = person_cosines(cosines, index, self._norms[people])
        best = np.lexsort((places, -np.round(cosines, _DECIMALS), index))
        best = best[np.append(0, np.cumsum(ends - starts)[:-1])]
        found = zip(people, places[best], np.round(likenesses, _DECIMALS), strict=True)
        hits = [
            Hit(int(self.person_ids[person]), int(self.portrait_ids[place]), float(likeness))
            for person, place, likeness in found
        ]
        return sorted(hits, key=_rank)

    def _sum_norms(self, records: NDArray[np.void], dead: NDArray[np.int64]) -> NDArray[np.float64]:
        """Length of the sum of each person's vectors: float64 (len(self),)."""
        growth = np.bincount(
            self._person_index, weights=records["growth"][self._rows], minlength=len(self)
        )
        # What a row grew depended on earlier rows; where one of these is dead, add up anew.
        for person in np.flatnonzero(np.isin(self.person_ids, records["person"][dead])):
            rows = self._rows[self._starts[person] : self._starts[person + 1]]
            total = self._reader.rows(rows).sum(axis=0, dtype=np.float64)
            growth[person] = total @ total
        norms: NDArray[np.float64] = np.sqrt(np.maximum(growth, 0.0))
        return norms


def _rank(hit: Hit) -> tuple[float, int]:
    return -hit.cosine, hit.person_id


def _highest(bounds: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Places of the highest bounds, in any order, without those that are not allowed."""
    if count < len(bounds):
        places = np.argpartition(-bounds, count)[:count]
    else:
        places = np.arange(len(bounds))
    highest: NDArray[np.intp] = places[np.isfinite(bounds[places])]
    return highest
