"""Upper bounds of likenesses from the portraits themselves, or their codes where they are long."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gallery.likeness import person_cosines
from gallery.searching.codes import ROUNDING, code_products, quantized
from gallery.searching.roster import Roster
from gallery.vectors import VectorFiles

__all__ = ["PortraitBounds"]

_MOST: Final = 0.25  # of the portraits; more are read faster all in a row


class PortraitBounds:
    """Bounds of the likenesses to everybody of a roster.

    Args:
        files: A generation of the space's vectors.
        records: Of its rows that count.
        roster: Of these.
        norms: float64 (P,), from ``evened_norms``.
    """

    def __init__(
        self,
        files: VectorFiles,
        records: NDArray[Any],
        roster: Roster,
        norms: NDArray[np.float64],
    ) -> None:
        self._codes = files.codes(len(records))
        self._vectors = files.vectors(len(records)) if self._codes is None else None
        self._scales = np.ascontiguousarray(records["scale"])
        self._errors = np.ascontiguousarray(records["error"])
        self._roster = roster
        self._norms = norms

    def of_all(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of everybody: float32 (P,)."""
        roster = self._roster
        cosines = self._cosines(vector, slice(None))
        if not roster.in_order:
            cosines = cosines[roster.rows]
        bounds = person_cosines(cosines, roster.person_index, self._norms)
        return bounds.astype(np.float32, copy=False) + ROUNDING

    def of(self, vector: NDArray[np.float32], people: NDArray[np.integer]) -> NDArray[np.float32]:
        """Of some: float32 (len(people),)."""
        roster = self._roster
        if len(people) == 0:
            return np.empty(0, np.float32)
        counts = roster.counts[people]
        if counts.sum() > _MOST * len(roster.rows):
            some: NDArray[np.float32] = self.of_all(vector)[people]
            return some
        cosines = self._cosines(vector, roster.rows[roster.places(people)])
        index = np.repeat(np.arange(len(people)), counts)
        bounds = person_cosines(cosines, index, self._norms[people])
        return bounds.astype(np.float32, copy=False) + ROUNDING

    def _cosines(self, vector: NDArray[np.float32], rows: Any) -> NDArray[np.float32]:
        if self._codes is None:
            assert self._vectors is not None
            # einsum, for a product of this kind on several threads waits long where cores are busy
            cosines: NDArray[np.float32] = np.einsum("nd,d->n", self._vectors[rows], vector)
            cosines += ROUNDING
            return cosines
        codes, scales, errors = quantized(vector[None])
        bounds = code_products(codes, self._codes[rows])
        bounds *= self._scales[rows]
        bounds *= scales[0]
        bounds += self._errors[rows] * (1 + errors[0])
        bounds += errors[0] + ROUNDING
        return bounds
