"""How alike a face and a person are: one number from the cosines with the person's portraits.

Search, calibration and evaluation all use ``person_cosines``, so that a score means the same
everywhere.
"""

from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

SAME_PHOTO_STRETCH: Final = 2.0

SAME_PERSON: Final = MappingProxyType({"dlib": 0.9599, "resnet": 0.70, "senet": 0.70})
"""Cosine of two photos of one person, in the median; measured for dlib
(gallery/scores), an estimate for the others."""

_EVENING: Final = 0.8
"""How much of what several portraits gain over one is taken back. Measured with dlib on 597 people
with 1 to 4 portraits each, drawn anew 16 times: strangers with one portrait are then found first as
often as those with four (at 0: a fifth as often, at 1: 1.5 times as often), and 95.9 instead of
94.9 % of probes find their person first. What 1 in 1,000 strangers reach is then the same for 1,
2, 3 and 4 portraits, so that one calibration does for all."""

SHORTEST_SUM: Final = 1e-3  # portraits that cancel each other out have no mean direction


def evened_norms(
    sum_norms: NDArray[np.floating], portraits: NDArray[np.integer], backbone: str
) -> Floats:
    """What a person's sum of cosines is divided by: made even between few and many portraits.

    The mean of many portraits is nearer to everybody than one portrait is, to strangers, too:
    dividing by the length of the sum alone would make a person more alike to all by being
    photographed more often. With c the usual cosine between two photos of one person, the mean of
    n unit vectors has the length ``sqrt((1 + (n - 1) c) / n)`` where it would have 1 if all were
    alike; that factor, to the power ``_EVENING``, is taken back. One portrait: no change.

    Of the lengths (P,) of the sums of each person's unit vectors, which are ``portraits`` (P,), at
    least 1 each: float64 (P,), for ``person_cosines``.
    """
    usual = SAME_PERSON.get(backbone, 0.7)
    usual_length = np.sqrt((1 + (portraits - 1) * usual) / portraits)
    norms: Floats = sum_norms / usual_length**_EVENING
    return norms


def person_cosines(
    portrait_cosines: NDArray[np.floating],
    person_index: NDArray[np.integer],
    person_norms: NDArray[np.floating],
) -> NDArray[np.floating]:
    """The likeness of a face to each person: that to the mean of their portraits.

    A face is compared with the direction of the sum of a person's unit vectors, which averages
    out pose and light; ``cos(q, sum x_i) = sum(q . x_i) / |sum x_i|``, but for what
    ``evened_norms`` takes back from people with several portraits. One exception: a photo of
    which the gallery holds the very picture must reach 1. So the best portrait counts too, its
    distance from 1 stretched by ``SAME_PHOTO_STRETCH``; that exceeds the mean only for nearly the
    same picture, and never between people. The result never falls when a portrait's cosine rises.

    Of cosines (..., N) of faces with N >= 1 portraits, whose index (N,) rises without gaps from 0
    to P - 1, and norms (P,) from ``evened_norms``: (..., P), in [-1, 1], of the cosines' type.
    """
    # np.diff with its prepend argument takes ten times as long, a quarter of a whole search.
    starts = np.append(0, np.flatnonzero(person_index[1:] != person_index[:-1]) + 1)
    best = np.maximum.reduceat(portrait_cosines, starts, axis=-1)
    total = np.add.reduceat(portrait_cosines, starts, axis=-1)
    norms = person_norms.astype(portrait_cosines.dtype)
    mean = np.where(person_norms < SHORTEST_SUM, best, total / np.maximum(norms, SHORTEST_SUM))
    stretched = 1.0 - SAME_PHOTO_STRETCH * (1.0 - best)
    return np.clip(np.maximum(mean, stretched), -1.0, 1.0)
