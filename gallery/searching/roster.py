"""Whose rows are where in a space's files: the living ones, by person, then by portrait."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Roster", "ranges"]


class Roster:
    """The living rows of a space at one moment.

    Args:
        records: Of ``gallery.vectors.RECORD``, (R,).
        dead: int64, rising: rows that don't count.

    Attributes:
        rows: int64 (N,), numbers of the living rows, by person, then by portrait.
        in_order: Whether ``rows`` is 0, 1, 2, ...: nothing is dead, all is sorted.
        portrait_ids: int64 (N,), in the order of ``rows``.
        person_ids: int64 (P,), rising.
        starts: int64 (P + 1,): the rows of person p are ``rows[starts[p] : starts[p + 1]]``.
    """

    def __init__(self, records: NDArray[Any], dead: NDArray[np.int64]) -> None:
        rows = np.delete(np.arange(len(records)), dead)
        persons, portraits = records["person"][rows], records["portrait"][rows]
        if not _sorted(persons, portraits):
            order = np.lexsort((portraits, persons))
            rows, persons, portraits = rows[order], persons[order], portraits[order]
        self.rows: NDArray[np.int64] = rows
        self.in_order = len(rows) == 0 or (rows[0] == 0 and bool(np.all(np.diff(rows) == 1)))
        self.portrait_ids: NDArray[np.int64] = np.ascontiguousarray(portraits)
        firsts = np.flatnonzero(np.diff(persons, prepend=-1) != 0) if len(rows) else rows
        self.person_ids: NDArray[np.int64] = persons[firsts]
        self.starts: NDArray[np.int64] = np.append(firsts, len(rows))

    def __len__(self) -> int:
        """How many people there are."""
        return len(self.person_ids)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """How many living rows each person has: int64 (P,)."""
        return np.diff(self.starts)

    @cached_property
    def person_index(self) -> NDArray[np.int64]:
        """Whose each of ``rows`` is, as a place among ``person_ids``: int64 (N,)."""
        return np.repeat(np.arange(len(self)), self.counts)

    def places(self, people: NDArray[np.integer]) -> NDArray[np.int64]:
        """Where in ``rows`` the rows of these people are, one person behind the other."""
        return ranges(self.starts[people], self.starts[people + 1])

    def chunk(self, first: int, rows: int) -> int:
        """Where to stop, to have about so many rows of whole people, at least one's, at a time."""
        last = int(np.searchsorted(self.starts, self.starts[first] + rows, side="right")) - 1
        return min(max(last, first + 1), len(self))


def ranges(starts: NDArray[np.integer], ends: NDArray[np.integer]) -> NDArray[np.int64]:
    """``starts[0], starts[0] + 1, ..., ends[0] - 1, starts[1], ...``: int64."""
    counts = ends - starts
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(counts.sum())


def _sorted(persons: NDArray[np.int64], portraits: NDArray[np.int64]) -> bool:
    steps = np.diff(persons)
    return bool(np.all((steps > 0) | ((steps == 0) & (np.diff(portraits) > 0))))
