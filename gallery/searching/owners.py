"""Whose row is which, remembered from one append to the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gallery.disk import RowReader, damaged

__all__ = ["Owners", "growths"]

_READ_AGAIN: Final = 4_096  # rows; the newest may be others if a transaction was taken back


class Owners:
    """The person of every row of a file of records.

    Reading them all for every batch that is added would make adding a million portraits take time
    that grows with the square of their number.

    Args:
        path: Of the file.
        record: What it consists of; has a field ``person``.
    """

    def __init__(self, path: Path, record: np.dtype[Any]) -> None:
        self._path = path
        self._record = record
        self._persons = np.empty(0, np.int64)
        self._known = 0

    def sums(
        self,
        reader: RowReader,
        row_count: int,
        persons: NDArray[np.int64],
        dead: NDArray[np.int64],
    ) -> dict[int, NDArray[np.float64]]:
        """What the vectors of some people add up to.

        Args:
            reader: Of the vectors.
            row_count: How many rows count.
            persons: Ids of the people.
            dead: Rows among them that don't count.

        Returns:
            float64 (D,) for each person, zero for those who have none.
        """
        self._read(row_count)
        mine = self._persons[:row_count]
        rows = np.setdiff1d(np.flatnonzero(np.isin(mine, persons)), dead)
        return {
            person: reader.rows(rows[mine[rows] == person]).sum(axis=0, dtype=np.float64)
            for person in np.unique(persons).tolist()
        }

    def _read(self, row_count: int) -> None:
        since = max(0, min(self._known, row_count) - _READ_AGAIN)
        fresh = np.fromfile(
            self._path,
            dtype=self._record,
            count=row_count - since,
            offset=since * self._record.itemsize,
        )
        if len(fresh) < row_count - since:
            raise damaged(self._path)
        if row_count > len(self._persons):
            grown = np.empty(row_count + row_count // 4, np.int64)
            grown[:since] = self._persons[:since]
            self._persons = grown
        self._persons[since : since + len(fresh)] = fresh["person"]
        self._known = since + len(fresh)


def growths(
    vectors: NDArray[np.float32],
    persons: NDArray[np.int64],
    sums: dict[int, NDArray[np.float64]],
) -> NDArray[np.float64]:
    """What each row adds to the squared length of the sum of its person's vectors.

    Args:
        vectors: float32 (n, D), to be appended in this order.
        persons: int64 (n,), whose.
        sums: What their people have so far; is added to.
    """
    grown = np.empty(len(vectors))
    for number, person in enumerate(persons.tolist()):
        vector = vectors[number].astype(np.float64)
        grown[number] = vector @ vector + 2 * (vector @ sums[person])
        sums[person] += vector
    return grown
