"""How alike a face and a person are: one number from the cosines with the person's portraits.

Search, calibration and evaluation all use ``person_cosines``, so that a score means the same
everywhere.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["SAME_PHOTO_STRETCH", "person_cosines"]

SAME_PHOTO_STRETCH: Final = 3.0

_SHORTEST_SUM = 1e-3  # portraits that cancel each other out have no mean direction


def person_cosines(
    portrait_cosines: NDArray[np.floating],
    person_index: NDArray[np.integer],
    person_sum_norms: NDArray[np.floating],
) -> NDArray[np.floating]:
    """The likeness of a face to each person: that to the mean of their portraits.

    A face is compared with the direction of the sum of a person's unit vectors, which averages
    out pose and light; ``cos(q, sum x_i) = sum(q . x_i) / |sum x_i|``. One exception: a photo of
    which the gallery holds the very picture must reach 1. So the best portrait counts too, its
    distance from 1 stretched by ``SAME_PHOTO_STRETCH``; that exceeds the mean only for nearly the
    same picture, and never between people. The result never falls when a portrait's cosine rises.

    Args:
        portrait_cosines: (..., N), cosines of one or several faces with N >= 1 portraits.
        person_index: (N,), rising without gaps from 0 to P - 1: whose portrait each is.
        person_sum_norms: (P,), length of the sum of each person's unit vectors.

    Returns:
        (..., P), in [-1, 1], of the type of ``portrait_cosines``.
    """
    starts = np.flatnonzero(np.diff(person_index, prepend=-1))
    best = np.maximum.reduceat(portrait_cosines, starts, axis=-1)
    total = np.add.reduceat(portrait_cosines, starts, axis=-1)
    norms = person_sum_norms.astype(portrait_cosines.dtype)
    mean = np.where(
        person_sum_norms < _SHORTEST_SUM, best, total / np.maximum(norms, _SHORTEST_SUM)
    )
    stretched = 1.0 - SAME_PHOTO_STRETCH * (1.0 - best)
    return np.clip(np.maximum(mean, stretched), -1.0, 1.0)
