"""A face compared with a few people in full: the last word of every search."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.errors import SpaceMismatch
from engine.types import Embedding, Space
from gallery.likeness import person_cosines
from gallery.records import Hit

__all__ = ["check_space", "compared", "rank"]

_DECIMALS: Final = 7  # likenesses closer than that are equal, and ids decide


def compared(
    vector: NDArray[np.float32],
    vectors: NDArray[np.floating],
    person_ids: NDArray[np.integer],
    portrait_ids: NDArray[np.integer],
    norms: NDArray[np.float64],
) -> list[Hit]:
    """Likenesses in float64, best first; equal ones by person id.

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
    # einsum: see gallery/searching/digest.py
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


def check_space(query: Embedding, space: Space) -> None:
    """Makes sure that a face can be compared with a gallery.

    Raises:
        SpaceMismatch: If the query comes from another space.
    """
    if query.space != space:
        raise SpaceMismatch(
            f"a vector of {query.space.id} can't be compared with the gallery's of {space.id}; "
            f"run `lookalike gallery build --model {query.space.backbone}`"
        )
