"""What a gallery says about likeness: its own people as strangers to each other and as themselves.

Every likeness is that of one portrait to a person, by ``gallery.likeness``, as in a search.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gallery.likeness import evened_norms, person_cosines

__all__ = ["OwnPairs", "copies", "own_pairs", "to_the_rest"]

_STRANGERS = 2_000_000  # pairs drawn at most; the law of the tail gains nothing from more
_ROUNDS = 4  # portraits of one person that are held against everybody else, at most
_SAME = 4  # portraits of one person that are held against the person's others, at most
_ENOUGH = 200  # portraits of one person, from which those are drawn
_COPY = 0.99  # two portraits this alike are one picture: 0.998 in the median after recompression
_BLOCK = 4_000_000  # cosines held at a time


@dataclass(frozen=True, slots=True, eq=False)
class OwnPairs:
    """Likenesses drawn from a gallery.

    Attributes:
        strangers: float32 (N,), portraits to other people; each person about as often.
        same: float32 (M,), portraits to the other portraits of their own person, without copies.
        people: How many people there are.
        people_again: How many of them have two or more portraits that are no copies.
    """

    strangers: NDArray[np.float32]
    same: NDArray[np.float32]
    people: int
    people_again: int


def own_pairs(
    vectors: NDArray[np.float32], person_ids: NDArray[np.int64], backbone: str, *, seed: int = 0
) -> OwnPairs:
    """Draws likenesses between strangers and within people.

    Args:
        vectors: float32 (N, D), unit vectors of one space.
        person_ids: int64 (N,), whose each is, in any order.
        backbone: Whose vectors they are.
        seed: The same one draws the same.
    """
    order = np.argsort(person_ids, kind="stable")
    vectors = vectors[order]
    _, starts, index = np.unique(person_ids[order], return_index=True, return_inverse=True)
    if len(starts) == 0:
        nobody = np.zeros(0, np.float32)
        return OwnPairs(nobody, nobody, 0, 0)
    draw = np.random.default_rng(seed)
    same = [
        likenesses
        for own in np.split(vectors, starts[1:])
        if len(likenesses := _to_themselves(own, backbone, draw))
    ]
    return OwnPairs(
        strangers=_to_others(vectors, starts, index, backbone, draw),
        same=np.concatenate([np.zeros(0, np.float32), *same]),
        people=len(starts),
        people_again=len(same),
    )


def _to_others(
    vectors: NDArray[np.float32],
    starts: NDArray[np.intp],
    index: NDArray[np.intp],
    backbone: str,
    draw: np.random.Generator,
) -> NDArray[np.float32]:
    """Likenesses of drawn portraits to everybody but their own person: float32 (N,)."""
    people = len(starts)
    counts = np.diff(np.append(starts, len(vectors)))
    sums = np.add.reduceat(vectors, starts, axis=0, dtype=np.float64)
    norms = evened_norms(np.linalg.norm(sums, axis=1), counts, backbone)
    # Round by round a different portrait of each person, as long as there are any left.
    rank = np.arange(len(vectors)) - starts[index]
    turn = (rank + draw.integers(0, counts)[index]) % counts[index]
    probes = draw.permutation(len(vectors))
    probes = probes[np.argsort(turn[probes], kind="stable")]
    probes = probes[turn[probes] < _ROUNDS][: max(1, _STRANGERS // max(1, people - 1))]
    step = max(1, _BLOCK // len(vectors))
    found = []
    for first in range(0, len(probes), step):
        block = probes[first : first + step]
        likenesses = person_cosines(vectors[block] @ vectors.T, index, norms)
        others = np.arange(people) != index[block][:, None]
        found.append(likenesses[others].astype(np.float32))
    return np.concatenate(found)


def _to_themselves(
    own: NDArray[np.float32], backbone: str, draw: np.random.Generator
) -> NDArray[np.float32]:
    """Likenesses of one person's portraits to the others of them: float32 (M,), M at most _SAME."""
    own = own[draw.permutation(len(own))[:_ENOUGH]]
    own = own[~copies(own).any(axis=1)]
    if len(own) < 2:
        return np.zeros(0, np.float32)
    return to_the_rest(own, draw.permutation(len(own))[:_SAME], backbone)


def to_the_rest(
    own: NDArray[np.float32], chosen: NDArray[np.integer], backbone: str
) -> NDArray[np.float32]:
    """Likenesses of a person's portraits to the person as the other portraits show them.

    Args:
        own: float32 (N, D), N at least 2: one person's vectors.
        chosen: (M,), places in ``own``.
        backbone: Whose vectors they are.

    Returns:
        float32 (M,).
    """
    count = len(own)
    cosines = own[chosen] @ own.T
    others = np.arange(count) != chosen[:, None]
    sums = own.sum(axis=0, dtype=np.float64) - own[chosen]
    norms = evened_norms(np.linalg.norm(sums, axis=1), np.full(len(chosen), count - 1), backbone)
    likenesses = person_cosines(
        cosines[others].reshape(len(chosen), count - 1),
        np.zeros(count - 1, np.intp),
        norms[:, None],
    )
    return likenesses[:, 0].astype(np.float32)


def copies(own: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which vectors are almost those of earlier ones: bool (N, N), [i, j] for i after j."""
    alike: NDArray[np.bool_] = np.tril(own @ own.T > _COPY, -1)
    return alike
