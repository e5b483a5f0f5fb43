"""Who may be most alike, in a gallery so large that not every portrait is looked at each time.

A digest (gallery/digest.py) says it of everybody who was there when it was made and has not
changed since; the others are described when the gallery is opened.
"""

from __future__ import annotations

from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from gallery.digest import Digest, View, people_of, sketches_of
from gallery.disk import RowReader
from gallery.likeness import evened_norms
from gallery.roster import Roster

__all__ = ["Shortlist", "outdated"]

_LATE_BYTES: Final = 300_000_000  # of vectors of people who changed; more take too long to read
_FEW_CHANGES: Final = 1_000  # portraits
_MANY_CHANGES: Final = 0.03  # of all portraits


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
        # The likeness to a person's direction is the cosine with it times this: gallery/likeness.py
        self._factors = 1 / evened_norms(np.ones(len(roster)), roster.counts, backbone)
        self._factors = self._factors.astype(np.float32)
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

    def bounds(self, view: View) -> NDArray[np.float32]:
        """Upper bounds of the likeness to everybody's direction: float32 (P,)."""
        bounds = self._digest.people.bounds(view)
        if not self._same:
            settled, bounds = bounds, np.empty(self._size, np.float32)
            bounds[self._settled] = settled[self._places]
            bounds[self._late] = self._late_people.bounds(view)
        bounds *= self._factors
        return bounds

    def people_above(self, view: View, cosine: float) -> NDArray[np.int64]:
        """Places of people with several portraits one of which may reach that cosine."""
        found = self._back[self._digest.sketches.people_above(view, cosine)]
        late = self._late_sketches.people_above(view, cosine)
        return np.concatenate([found[found >= 0], late])
