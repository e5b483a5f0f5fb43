"""Search: how a face is compared with people exactly, and what every index can do.

An index proposes people, by scanning codes or asking faiss (gallery/search/index.py) or the server
(gallery/search/pgvector.py); ``compared`` then says how alike they are, in float64.
"""

from abc import ABC, abstractmethod
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.errors import SpaceMismatch
from engine.types import Embedding, Space
from gallery.likeness import person_cosines
from gallery.records import Hit

Vectors = NDArray[np.float32]
Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]

_DECIMALS: Final = 7  # likenesses closer than that are equal, and ids decide


class SearchIndex(ABC):
    """One space's people at one revision; safe to use from several threads.

    A query that comes from another space raises SpaceMismatch.
    """

    space: Space  # whose vectors
    person_ids: Ids  # (len(self),), rising

    def __len__(self) -> int:
        return len(self.person_ids)

    @abstractmethod
    def top(self, query: Embedding, k: int, *, allowed: Mask | None = None) -> tuple[Hit, ...]:
        """The k people most like the query, most alike first.

        Fewer are found if there are fewer; equally alike ones come by rising person id. Only those
        may be found who are ``allowed``: bool (len(self),), None for everybody. Raises ValueError
        if k is below 1.
        """

    def likenesses(self, query: Embedding, person_ids: Ids) -> Floats:
        """The likeness to certain people, exactly as ``top`` finds it.

        float64 (len(person_ids),), in [-1, 1]; NaN for those who are not here.
        """
        self._check(query)
        hits = self._compared_by_id(query.vector, person_ids)
        cosines = {hit.person_id: hit.cosine for hit in hits}
        return np.array([cosines.get(one, np.nan) for one in person_ids.tolist()], np.float64)

    @abstractmethod
    def _compared_by_id(self, vector: Vectors, person_ids: Ids) -> list[Hit]:
        """Those of some people who are here, in any order."""

    @abstractmethod
    def training_rows(self, limit: int) -> tuple[Vectors, Ids]:
        """Vectors to learn from: about ``limit`` at most, all those of evenly chosen people.

        float32 (N, D) and int64 (N,): vectors by person, and whose they are.
        """

    def _check(self, query: Embedding, k: int = 1) -> None:
        if query.space != self.space:
            raise SpaceMismatch(
                f"a vector of {query.space.id} can't be compared with the gallery's of "
                f"{self.space.id}; run `lookalike gallery build --model {query.space.backbone}`"
            )
        if k < 1:
            raise ValueError("at least one person must be asked for")


def compared(
    vector: Vectors,
    vectors: NDArray[np.floating],
    person_ids: NDArray[np.integer],
    portrait_ids: NDArray[np.integer],
    norms: Floats,
) -> list[Hit]:
    """Exact likenesses of a few people in float64, by rising person id.

    Args:
        vector: float32 (D,), the face.
        vectors: (N, D), every portrait of these people.
        person_ids: (N,), rising: whose each is.
        portrait_ids: (N,), rising for each person.
        norms: (P,) for the P people, from ``evened_norms``.
    """
    if len(vectors) == 0:
        return []
    starts = np.append(0, np.flatnonzero(np.diff(person_ids)) + 1)
    index = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(vectors))))
    # einsum, for a product of this size on several threads waits longer for them than it takes.
    exact = vectors.astype(np.float64), vector.astype(np.float64)
    cosines = np.einsum("nd,d->n", *exact).clip(-1.0, 1.0)
    likenesses = np.round(person_cosines(cosines, index, norms), _DECIMALS)
    # For each person the first of their portraits that are equally near.
    best = np.lexsort((portrait_ids, -np.round(cosines, _DECIMALS), index))[starts]
    columns = person_ids[best].tolist(), portrait_ids[best].tolist(), likenesses.tolist()
    return [Hit(*found) for found in zip(*columns, strict=True)]


def rank(hit: Hit) -> tuple[float, int]:
    """Sorts the most alike first, equal ones by person id."""
    return -hit.cosine, hit.person_id
