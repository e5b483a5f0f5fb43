"""Who may be most alike, in a gallery so large that not every portrait is looked at each time.

A digest (``digest``) says it of everybody who was there when it was made and has not changed
since; the others are described when the gallery is opened.
"""

from __future__ import annotations

from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from gallery.disk import RowReader
from gallery.searching.digest import (
    Digest,
    Finder,
    Sketches,
    View,
    direction_factors,
    people_of,
    sketches_of,
)
from gallery.searching.roster import Roster

__all__ = ["Shortlist", "outdated"]

_LATE_BYTES: Final = 300_000_000  # of vectors of people who changed; more take too long to read
_FEW_CHANGES: Final = 1_000  # portraits
_MANY_CHANGES: Final = 0.03  # of all portraits
# Candidates, so that of the best 3 at least 0.99 are among them: benchmarks/gallery_scale.py.
_FEWEST: Final = 2_048
_SHARE: Final = 1 / 200  # of everybody, if that is more
_CODES_BYTES: Final = 1_000_000  # or so many as have codes of so many bytes
_PER_WANTED: Final = 64
_SPARE: Final = 1.25
_FEW: Final = 8_192  # people, all of whose codes are read as fast as candidates are found


def outdated(digest: Digest, row_count: int, dead: NDArray[np.int64]) -> bool:
    """Whether so much has changed since a digest was made that a new one is due."""
    gone = int(np.count_nonzero(dead < digest.rows)) - (digest.rows - int(digest.counts.sum()))
    changes = row_count - digest.rows + gone
    return changes > max(_FEW_CHANGES, _MANY_CHANGES * digest.rows)


class Shortlist:
    """Bounds of the likenesses to everybody of a roster.

    Args:
        digest: Of the same files.
        roster: Who is there now.
        reader: Of the vectors.
        backbone: Whose vectors they are.
        late: Places in the roster of people whom the digest doesn't know as they are now.
        places: Places in the digest of all the others, by their order in the roster.
    """

    def __init__(
        self,
        digest: Digest,
        roster: Roster,
        reader: RowReader,
        backbone: str,
        late: NDArray[np.intp],
        places: NDArray[np.intp],
    ) -> None:
        self._digest = digest
        self._late = late
        self._settled = np.setdiff1d(np.arange(len(roster)), late)
        self._same = len(late) == 0 and len(roster) == len(digest)
        self._places = places
        self._back = np.full(len(digest), -1, np.int64)
        self._back[places] = self._settled
        self._size = len(roster)
        self._factors = direction_factors(roster.counts, backbone)
        cheap = _CODES_BYTES // len(digest.frame.centre)
        self._count = max(_FEWEST, cheap, int(_SHARE * len(digest)))
        vectors = reader.rows(roster.rows[roster.places(late)])
        counts = roster.counts[late]
        self._late_people = people_of(digest.frame, vectors, np.cumsum(counts) - counts)
        several = np.repeat(counts > 1, counts)
        whose = np.repeat(late, counts)[several].astype(np.int32)
        self._late_sketches = sketches_of(digest.frame, vectors[several], whose)

    @classmethod
    def of(cls, digest: Digest, roster: Roster, reader: RowReader, backbone: str) -> Self | None:
        """The shortlist of a roster; None if too much has changed since the digest was made."""
        if len(digest) == 0 or len(roster) == 0:
            return None
        places = np.searchsorted(digest.person_ids, roster.person_ids)
        places = np.minimum(places, len(digest) - 1)
        late = digest.person_ids[places] != roster.person_ids
        # Rows never come to life again: as many as then are the same as then.
        late |= digest.counts[places] != roster.counts
        late[np.unique(roster.person_index[roster.rows >= digest.rows])] = True
        rows = int(roster.counts[late].sum())
        if rows * reader.row_bytes > _LATE_BYTES:
            return None
        return cls(digest, roster, reader, backbone, np.flatnonzero(late), places[~late])

    def view(self, vector: NDArray[np.float32]) -> View:
        """A face as the digest describes it."""
        return View(self._digest.frame, vector)

    @property
    def complete(self) -> bool:
        """Whether it bounds everybody, or names candidates."""
        return isinstance(self._digest.portraits, Sketches)

    def bounds(self, view: View) -> NDArray[np.float32]:
        """Upper bounds of the likeness to everybody's direction: float32 (P,)."""
        bounds = self._digest.people.bounds(view)
        if not self._same:
            settled, bounds = bounds, np.empty(self._size, np.float32)
            bounds[self._settled] = settled[self._places]
            bounds[self._late] = self._late_people.bounds(view)
        bounds *= self._factors
        return bounds

    def candidates(
        self, view: View, k: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """People to whom the likeness may be greatest, and upper bounds of it.

        Args:
            view: The face.
            k: How many are wanted.
            allowed: bool (P,): who may be found; None for everybody.
        """
        places = self._nearest(view, max(self._count, _PER_WANTED * k), allowed)
        people = self._back[places]
        everybody = np.concatenate([people, self._late])
        bounds = np.concatenate(
            [self._digest.people.bounds(view, places), self._late_people.bounds(view)]
        )
        bounds *= self._factors[everybody]
        return everybody, bounds

    def _nearest(
        self, view: View, count: int, allowed: NDArray[np.bool_] | None
    ) -> NDArray[np.int64]:
        """Places in the digest of candidates who are as they were and may be found."""
        assert isinstance(self._digest.portraits, Finder)
        if allowed is None:
            places = self._digest.portraits.people(view, count)
            return places[self._back[places] >= 0]
        wanted = allowed[self._settled]
        share = np.count_nonzero(wanted) / max(len(wanted), 1)
        if share * len(wanted) > _FEW:
            places = self._digest.portraits.people(view, int(count / share * _SPARE))
            people = self._back[places]
            places = places[(people >= 0) & allowed[people]]
            if len(places) >= count:
                return places
        return self._places[wanted]  # few, or not where the others are

    def people_above(self, view: View, cosine: float) -> NDArray[np.int64]:
        """Places of people with several portraits one of which may reach that cosine."""
        portraits = self._digest.portraits
        if isinstance(portraits, Finder):
            found = self._back[portraits.owners(view)]
        else:
            found = self._back[portraits.people_above(view, cosine)]
        late = self._late_sketches.people_above(view, cosine)
        return np.concatenate([found[found >= 0], late])
