"""Search: how a face is compared with people exactly, and what every index can do.

An index proposes people, by scanning codes or asking faiss (gallery/search/index.py) or the server
(gallery/search/pgvector.py); ``compared`` then says how alike they are, in float64.
"""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import SpaceMismatch
from engine.types import Embedding, Space
from gallery.likeness import person_cosines
from gallery.records import Hit

_DECIMALS: Final = 7  # likenesses closer than that are equal, and ids decide


class SearchIndex(Protocol):
    """One space's people at one revision; safe to use from several threads.

    Attributes:
        space: Whose vectors.
        person_ids: int64 (len(self),), rising.
        portrait_ids: int64 (N,), by person, then rising.
    """

    space: Space

    @property
    def person_ids(self) -> NDArray[np.int64]: ...  # noqa: D102 - said above

    @property
    def portrait_ids(self) -> NDArray[np.int64]: ...  # noqa: D102 - said above

    def __len__(self) -> int: ...

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
        ...

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
        ...

    def training_rows(self, limit: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Vectors to learn from: all of them, or all those of evenly chosen people.

        Args:
            limit: About how many vectors at most.

        Returns:
            float32 (N, D) and int64 (N,): vectors by person, and whose they are.
        """
        ...


def compared(
    vector: NDArray[np.float32],
    vectors: NDArray[np.floating],
    person_ids: NDArray[np.integer],
    portrait_ids: NDArray[np.integer],
    norms: NDArray[np.float64],
) -> list[Hit]:
    """Exact likenesses of a few people in float64, best first; equal ones by person id.

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
    found = zip(person_ids[best].tolist(), portrait_ids[best].tolist(), likenesses, strict=True)
    hits = [Hit(person, portrait, float(likeness)) for person, portrait, likeness in found]
    return sorted(hits, key=rank)


def rank(hit: Hit) -> tuple[float, int]:
    """Sorts the most alike first, equal ones by person id."""
    return -hit.cosine, hit.person_id


def check_query(query: Embedding, space: Space, k: int = 1) -> None:
    """Makes sure that a face can be searched in a space.

    Raises:
        SpaceMismatch: If the query comes from another space.
        ValueError: If k is below 1.
    """
    if query.space != space:
        raise SpaceMismatch(
            f"a vector of {query.space.id} can't be compared with the gallery's of {space.id}; "
            f"run `lookalike gallery build --model {query.space.backbone}`"
        )
    if k < 1:
        raise ValueError("at least one person must be asked for")
