"""Likenesses between people with several portraits, the same pairs in several spaces.

Every portrait is a probe: it is held against everybody else as a search would, and against its own
person as the person's other portraits show them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.types import Space
from gallery.likeness import evened_norms, person_cosines
from gallery.scoring.own_pairs import OwnPairs, copies, to_the_rest

__all__ = ["MOST_PEOPLE", "PORTRAITS", "Probes", "halves", "probes_of"]

MOST_PEOPLE: Final = 800  # beyond that a trial gets slower and hardly any surer
PORTRAITS: Final = 4  # of one person at most, so that a few with hundreds do not decide
_BLOCK: Final = 4_000_000  # cosines held at a time
_STRANGERS: Final = 2_000_000  # pairs that a calibration is learned from at most


@dataclass(frozen=True, slots=True, eq=False)
class Probes:
    """Likenesses of probes to people, in each of several spaces or fused.

    Attributes:
        owners: int64 (N,): whose each probe is, as a place among the people; rising.
        people: How many people there are, P.
        likenesses: One float32 (N, P) per space.
    """

    owners: NDArray[np.int64]
    people: int
    likenesses: tuple[NDArray[np.float32], ...]

    def of(self, chosen: NDArray[np.int64]) -> Probes:
        """The probes of these people, held against these people only."""
        mine = np.isin(self.owners, chosen)
        return Probes(
            np.searchsorted(chosen, self.owners[mine]),
            len(chosen),
            tuple(one[np.ix_(mine, chosen)] for one in self.likenesses),
        )

    def pairs(self, values: NDArray[np.float32] | None = None, *, space: int = 0) -> OwnPairs:
        """Values of all pairs, as calibrations are learned from.

        Args:
            values: (N, P); None: the likenesses of ``space``.
            space: Number of a space.
        """
        matrix = self.likenesses[space] if values is None else values
        own = self.own()
        strangers = matrix[~own]
        if len(strangers) > _STRANGERS:
            strangers = np.random.default_rng(0).choice(strangers, _STRANGERS, replace=False)
        return OwnPairs(strangers, matrix[own], self.people, self.people)

    def own(self) -> NDArray[np.bool_]:
        """Which pairs are of a probe and its own person: bool (N, P)."""
        mine: NDArray[np.bool_] = np.arange(self.people) == self.owners[:, None]
        return mine


def probes_of(
    spaces: Sequence[Space],
    vectors: Mapping[Space, NDArray[np.float32]],
    person_ids: NDArray[np.int64],
) -> Probes:
    """The probes that a gallery, or any set of photos with names, makes possible.

    Args:
        spaces: In which order.
        vectors: float32 (N, D), unit vectors, for each of them; row by row of the same photos.
        person_ids: int64 (N,), whose each row is, in any order.

    Returns:
        Of people with two or more portraits that are no copies of each other, at most
        ``MOST_PEOPLE`` of them, the same ones every time.
    """
    rows = _chosen_rows([vectors[space] for space in spaces], person_ids)
    owners = np.unique(person_ids[rows], return_inverse=True)[1].astype(np.int64)
    people = int(owners[-1]) + 1 if len(owners) else 0
    return Probes(
        owners, people, tuple(_likenesses(space, vectors[space][rows], owners) for space in spaces)
    )


def halves(people: int, *, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two halves of so many people, drawn at random: places, rising."""
    order = np.random.default_rng(seed).permutation(people)
    return np.sort(order[: people // 2]), np.sort(order[people // 2 :])


def _chosen_rows(
    vectors: Sequence[NDArray[np.float32]], person_ids: NDArray[np.int64]
) -> NDArray[np.intp]:
    """Rows of the people chosen, by person."""
    draw = np.random.default_rng(0)
    order = np.argsort(person_ids, kind="stable")
    starts = np.flatnonzero(np.diff(person_ids[order])) + 1
    several = [rows for rows in np.split(order, starts) if len(rows) > 1]
    chosen: list[NDArray[np.intp]] = []
    for place in draw.permutation(len(several)):
        rows = _without_copies(several[place], vectors)
        if len(rows) > 1:
            chosen.append(draw.permutation(rows)[:PORTRAITS])
        if len(chosen) == MOST_PEOPLE:
            break
    rows = np.concatenate([np.zeros(0, np.intp), *chosen])
    return rows[np.argsort(person_ids[rows], kind="stable")]


def _without_copies(
    rows: NDArray[np.intp], vectors: Sequence[NDArray[np.float32]]
) -> NDArray[np.intp]:
    """The rows that are not, by every space, the picture of an earlier one."""
    rows = rows[: 2 * PORTRAITS]
    alike = np.logical_and.reduce([copies(one[rows]) for one in vectors])
    kept: NDArray[np.intp] = rows[~alike.any(axis=1)]
    return kept


def _likenesses(
    space: Space, vectors: NDArray[np.float32], owners: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Of every row to every person, without itself: float32 (N, P)."""
    if len(owners) == 0:
        return np.zeros((0, 0), np.float32)
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    counts = np.diff(np.append(starts, len(owners)))
    sums = np.add.reduceat(vectors, starts, axis=0, dtype=np.float64)
    norms = evened_norms(np.linalg.norm(sums, axis=1), counts, space.backbone)
    found = np.empty((len(owners), len(starts)), np.float32)
    step = max(1, _BLOCK // len(owners))
    for first in range(0, len(owners), step):
        block = slice(first, first + step)
        found[block] = person_cosines(vectors[block] @ vectors.T, owners, norms)
    own = [
        to_the_rest(vectors[start : start + count], np.arange(count), space.backbone)
        for start, count in zip(starts, counts, strict=True)
    ]
    found[np.arange(len(owners)), owners] = np.concatenate(own)
    return found
