"""Search: the people most like a face, exactly, from the mapped vectors of one space.

Two passes. The first gives everybody an upper bound of their likeness from little memory: in a
large gallery from its digest (gallery/searching/shortlist.py), else from every portrait
(gallery/searching/portrait_bounds.py). The second compares the people with the highest bounds in
full, in float64, until no bound left exceeds the k-th likeness found. So the answer is that of
comparing everything in float64.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.types import Embedding, Space
from gallery.likeness import SAME_PHOTO_STRETCH, evened_norms
from gallery.records import Hit
from gallery.searching.comparison import check_space, compared, rank
from gallery.searching.portrait_bounds import PortraitBounds
from gallery.searching.roster import Roster
from gallery.searching.shortlist import Shortlist
from gallery.vectors import VectorFiles

__all__ = ["GalleryIndex"]

_BLOCK: Final = 8  # people compared in full at a time
_PEOPLE_AT_ONCE: Final = 256  # whose vectors are in memory together when many are compared
_MANY: Final = 128  # people left by a digest; the bounds of their portraits are closer
_STRIDE: Final = 64
_FEW_ROWS: Final = 2_000
_FEW_SHARE: Final = 0.125


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
        records = files.records(row_count)
        roster = self._roster = Roster(records, dead)
        self.portrait_ids: NDArray[np.int64] = roster.portrait_ids
        self.person_ids: NDArray[np.int64] = roster.person_ids
        backbone = self.space.backbone
        self._norms = evened_norms(self._sum_norms(records, dead), roster.counts, backbone)
        self._portraits = PortraitBounds(files, records, roster, self._norms)
        self._files, self._row_count = files, row_count
        self._shortlist: Shortlist | None = None
        self._digested: tuple[int, int] | None = None

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
        people = np.arange(0, len(self), max(1, -(-len(self._roster.rows) // limit)))
        vectors = self._reader.rows(self._roster.rows[self._roster.places(people)])
        return vectors, np.repeat(self.person_ids[people], self._roster.counts[people])

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
        check_space(query, self.space)
        if k < 1:
            raise ValueError("at least one person must be asked for")
        if len(self) == 0:
            return ()
        shortlist = self._current_shortlist()
        if shortlist is None:
            search = _Search(self, query.vector, k, allowed, None)
            search.among(self._portraits.of_all(query.vector))
            return search.found()
        if allowed is not None and self._are_few(allowed):
            search, few = _Search(self, query.vector, k, allowed, None), np.flatnonzero(allowed)
            search.also(few, self._portraits.of(query.vector, few))
            return search.found()
        view = shortlist.view(query.vector)
        if shortlist.complete:
            search = _Search(self, query.vector, k, allowed, self._portraits)
            search.among(shortlist.bounds(view))
        else:
            search = _Search(self, query.vector, k, allowed, None)
            search.also(*shortlist.candidates(view, k, allowed))
        best = 1.0 - (1.0 - search.least()) / SAME_PHOTO_STRETCH
        search.also(shortlist.people_above(view, best))
        return search.found()

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
        check_space(query, self.space)
        found = np.full(len(person_ids), np.nan)
        here = np.flatnonzero(np.isin(person_ids, self.person_ids))
        for start in range(0, len(here), _PEOPLE_AT_ONCE):
            block = here[start : start + _PEOPLE_AT_ONCE]
            people = np.searchsorted(self.person_ids, person_ids[block])
            hits = self.compared(query.vector, np.unique(people))
            cosines = {hit.person_id: hit.cosine for hit in hits}
            found[block] = [cosines[one] for one in person_ids[block].tolist()]
        return found

    def compared(self, vector: NDArray[np.float32], people: NDArray[np.integer]) -> list[Hit]:
        """Likenesses to a few people in float64, best first.

        Args:
            vector: The face: float32 (D,).
            people: Their places in ``person_ids``, each once.
        """
        if len(people) == 0:
            return []
        people = np.sort(people)
        places, counts = self._roster.places(people), self._roster.counts[people]
        return compared(
            vector,
            self._reader.rows(self._roster.rows[places]),
            np.repeat(self.person_ids[people], counts),
            self.portrait_ids[places],
            self._norms[people],
        )

    def _current_shortlist(self) -> Shortlist | None:
        """From the digest that is there now: it may have been made since this was opened."""
        stamp = self._files.digest_stamp()
        if stamp is not None and stamp != self._digested:
            digest = self._files.digest(self._row_count)
            shortlist = digest and Shortlist.of(
                digest, self._roster, self._reader, self.space.backbone
            )
            self._shortlist, self._digested = shortlist or None, stamp
        return self._shortlist

    def _are_few(self, allowed: NDArray[np.bool_]) -> bool:
        """Whether looking at all portraits of those who may be found is quickest."""
        rows = int(self._roster.counts[allowed].sum())
        return rows <= min(_FEW_ROWS, _FEW_SHARE * len(self._roster.rows))

    def _sum_norms(self, records: NDArray[Any], dead: NDArray[np.int64]) -> NDArray[np.float64]:
        """Length of the sum of each person's vectors: float64 (len(self),)."""
        roster = self._roster
        growth = np.add.reduceat(records["growth"][roster.rows], roster.starts[:-1])
        # What a row grew depended on earlier rows; where one of these is dead, add up anew.
        for person in np.flatnonzero(np.isin(self.person_ids, records["person"][dead])):
            rows = roster.rows[roster.starts[person] : roster.starts[person + 1]]
            total = self._reader.rows(rows).sum(axis=0, dtype=np.float64)
            growth[person] = total @ total
        norms: NDArray[np.float64] = np.sqrt(np.maximum(growth, 0.0))
        return norms


class _Search:
    """One search: compares people in full until nobody left can be among the k.

    Args:
        index: Where.
        vector: The face.
        k: How many are wanted.
        allowed: Who may be found; None for everybody.
        closer: Knows bounds that may be closer than those given, and take longer.
    """

    def __init__(
        self,
        index: GalleryIndex,
        vector: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.bool_] | None,
        closer: PortraitBounds | None,
    ) -> None:
        self._index = index
        self._closer = closer
        self._vector = vector
        self._k = k
        self._allowed = allowed
        self._hits: list[Hit] = []
        self._seen = np.zeros(len(index), bool) if allowed is None else ~allowed

    def found(self) -> tuple[Hit, ...]:
        """The k most alike of all who were compared, best first."""
        return tuple(self._hits[: self._k])

    def least(self) -> float:
        """What somebody must reach to be among the k; everybody does while there are fewer."""
        return self._hits[self._k - 1].cosine if len(self._hits) >= self._k else -2.0

    def among(self, bounds: NDArray[np.float32]) -> None:
        """Compares everybody whose upper bound allows them to be among the k.

        Args:
            bounds: float32 (P,), of everybody; is changed.
        """
        bounds[self._seen] = -np.inf
        self._compare(_highest(bounds, self._k + _BLOCK))
        bounds[self._seen] = -np.inf
        left = np.flatnonzero(bounds >= self.least())
        self._compare_by(left, bounds[left])

    def also(self, people: NDArray[np.integer], bounds: NDArray[np.float32] | None = None) -> None:
        """Compares some of those who may be among the k.

        Args:
            people: Places, each once.
            bounds: Their upper bounds, float32 (len(people),); None where they aren't known.
        """
        left = ~self._seen[people]
        if bounds is None:
            bounds = np.full(len(people), np.inf, np.float32)
        self._compare_by(people[left], bounds[left])

    def _compare_by(self, people: NDArray[np.integer], bounds: NDArray[np.float32]) -> None:
        if self._closer is not None and len(people) > _MANY:
            bounds = np.minimum(bounds, self._closer.of(self._vector, people))
        order = np.argsort(-bounds, kind="stable")
        for start in range(0, len(order), _BLOCK):
            block = order[start : start + _BLOCK]
            if bounds[block[0]] < self.least():
                break
            self._compare(people[block])

    def _compare(self, people: NDArray[np.integer]) -> None:
        self._seen[people] = True
        self._hits = sorted([*self._hits, *self._index.compared(self._vector, people)], key=rank)


def _highest(bounds: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Places of the highest bounds, in any order, without those that are not allowed."""
    places = np.arange(len(bounds))
    if count < len(bounds) // _STRIDE:
        # The count-th highest of the groups' highest is exceeded by count at least.
        whole = bounds[: len(bounds) // _STRIDE * _STRIDE].reshape(-1, _STRIDE).max(axis=1)
        places = np.flatnonzero(bounds >= np.partition(whole, -count)[-count])
    if count < len(places):
        places = places[np.argpartition(-bounds[places], count)[:count]]
    highest: NDArray[np.intp] = places[np.isfinite(bounds[places])]
    return highest
