"""The vectors of one space in an exported gallery, read in the order of the portraits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Final

import numpy as np

from engine.types import Space
from gallery.packing.contents import PackedSpace, Rows
from gallery.packing.layout import HASH_LINE_BYTES, array_header

__all__ = ["RowStream"]

_LENGTH_OFF: Final = 1e-3  # as engine.types.Embedding allows


class RowStream:
    """Reads vectors as their portraits come by.

    Args:
        packed: Whose they are, and how many.
        vectors: An array in NumPy's format.
        portraits: A hash a line.
        array_bytes: How large the first is.
        portraits_bytes: How large the second is.

    Raises:
        ValueError: If these are not as large as so many vectors are, or of another type.
    """

    def __init__(
        self,
        packed: PackedSpace,
        vectors: IO[bytes],
        portraits: IO[bytes],
        *,
        array_bytes: int,
        portraits_bytes: int,
    ) -> None:
        self.space: Space = packed.space
        self._vectors, self._portraits = vectors, portraits
        header = array_header(packed.rows, self.space.dimensions)
        if vectors.read(len(header)) != header:
            raise ValueError(f"vectors of {self.space.id} of another type or number")
        if array_bytes != len(header) + packed.rows * 4 * self.space.dimensions:
            raise ValueError(f"vectors of {self.space.id} are missing")
        if portraits_bytes != packed.rows * HASH_LINE_BYTES:
            raise ValueError(f"portraits of {self.space.id} are missing")
        self._next = self._hash()

    def take(self, hashes: Sequence[str]) -> Rows | None:
        """The vectors of the next portraits; None if they have none.

        Raises:
            ValueError: If one is not finite or not of unit length.
        """
        places = []
        for place, sha256 in enumerate(hashes):
            if self._next == sha256.encode():
                places.append(place)
                self._next = self._hash()
        if not places:
            return None
        shape = (len(places), self.space.dimensions)
        content = self._vectors.read(4 * shape[0] * shape[1])
        vectors = np.frombuffer(content, "<f4").reshape(shape).astype(np.float32, copy=False)
        with np.errstate(all="ignore"):
            lengths = np.linalg.norm(vectors, axis=1)
        if not np.all(np.abs(lengths - 1) < _LENGTH_OFF):  # nor if any is not finite
            raise ValueError(f"a vector of {self.space.id} that is none")
        return Rows(np.asarray(places, np.int64), vectors)

    def finish(self) -> None:
        """Makes sure that every vector found its portrait.

        Raises:
            ValueError: If there are more.
        """
        if self._next:
            raise ValueError(f"vectors of {self.space.id} of unknown portraits, or not in order")

    def _hash(self) -> bytes:
        return self._portraits.read(HASH_LINE_BYTES).removesuffix(b"\n")
