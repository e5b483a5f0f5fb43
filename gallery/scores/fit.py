"""Learns a calibration from a gallery's own pairs: its people as strangers and as themselves.

Every cosine is that of one portrait to a person, by ``gallery.likeness``, as in a search. Strangers
give quantiles where there are pairs, and a fitted law beyond them: extreme values above a high
threshold follow a generalised Pareto law (J. Pickands, Statistical inference using extreme order
statistics, Annals of Statistics 3, 1975), so the few pairs at the top tell how much rarer pairs
lie beyond.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.types import Space
from gallery.likeness import Flags, Floats, Floats32, Ints, evened_norms, person_cosines
from gallery.scores import SHARES, Calibration, Prior, make_calibration, prior, prior_of

COPY: Final = 0.99  # so alike is one picture: 0.998 in the median after recompression
_STRANGERS: Final = 2_000_000  # pairs drawn at most; the law of the tail gains nothing from more
_ROUNDS: Final = 4  # portraits of one person that are held against everybody else, at most
_SAME: Final = 4  # portraits of one person that are held against the person's others, at most
_ENOUGH: Final = 200  # portraits of one person, from which those are drawn
_BLOCK: Final = 4_000_000  # cosines held at a time

_PEOPLE: Final = 20.0  # so many people weigh as much as a prior of weight 1 does
_PAIRS: Final = 50.0  # so many pairs beyond a quantile do
_LAW_PAIRS: Final = 5.0  # so many pairs beyond it do where a law stands behind them
_PEOPLE_AGAIN: Final = 20.0  # so many people with several portraits do

_ABOVE: Final = 5_000  # the law is fitted to about so many pairs, ...
_THRESHOLDS: Final = (1e-2, 5e-2)  # ... which are at least 1 % and at most 5 % of all
_MISFIT: Final = 0.03  # how far the law itself may be off, beside the chance of the draw
# A cosine has an upper end, so its law has no tail much heavier than an exponential.
_SHAPES: Final = (-0.5, 0.1)
_STEPS, _FINER, _REWEIGHTED = 41, 6, 60  # of the shape; rounds of finer steps; of weights
_FEWEST_BEYOND: Final = 15  # pairs that must lie beyond a quantile before it is believed


class OwnPairs(NamedTuple):
    """Cosines drawn from a gallery."""

    strangers: Floats32  # (N,), portraits to other people; each about as often
    same: Floats32  # (M,), to the other portraits of their person, without copies
    people: int
    people_again: int  # of them, with two or more portraits that are no copies


def fit_calibration(space: Space, vectors: Floats32, person_ids: Ints) -> Calibration:
    """A calibration learned from a gallery's own pairs; the same for the same vectors in order.

    Of unit vectors, float32 (N, D), and int64 (N,) whose each is; a few wrong ones do little harm.
    """
    order = np.argsort(person_ids, kind="stable")
    vectors = vectors[order]
    _, starts, index = np.unique(person_ids[order], return_index=True, return_inverse=True)
    if len(starts) < 2:
        return prior(space)
    draw, split = np.random.default_rng(0), np.split(vectors, starts[1:])
    everybody = [_to_themselves(own, space.backbone, draw) for own in split]
    same = [cosines for cosines in everybody if len(cosines)]
    strangers = _to_others(vectors, starts, index, space.backbone, draw)
    own = np.concatenate([np.zeros(0, np.float32), *same])
    return fit_pairs(space, OwnPairs(strangers, own, len(starts), len(same)))


def fit_pairs(space: Space, pairs: OwnPairs) -> Calibration:
    """A calibration learned from cosines that were drawn already, and from the space's prior."""
    known = prior_of(space.backbone)
    if pairs.people < 2:
        return prior(space)
    strangers = _blended(stranger_quantiles(pairs.strangers), pairs.people, known)
    same_person = known.same_person
    if pairs.people_again:
        weight = pairs.people_again / (pairs.people_again + _PEOPLE_AGAIN * known.weight)
        same_person += weight * (_same_median(pairs.same, pairs.strangers) - same_person)
    return make_calibration(space.id, strangers, same_person, pairs.people, pairs.people_again)


def fit_without_prior(name: str, pairs: OwnPairs) -> Calibration | None:
    """A calibration of an ensemble's values in [-1, 1]; None where there are too few pairs to tell.

    The name stands in it for ``Space.id``, values (1 for the same photo) for cosines.
    """
    if pairs.people < 2 or not pairs.people_again:
        return None
    strangers = stranger_quantiles(pairs.strangers)
    if not np.isfinite(strangers).all():
        return None
    same_person = _same_median(pairs.same, pairs.strangers)
    return make_calibration(name, strangers, same_person, pairs.people, pairs.people_again)


def _blended(found: Floats, people: int, known: Prior) -> Floats:
    """Quantiles found and believed, weighted by how many pairs stand behind those found.

    The median and the steps away from it are blended one by one: each step is positive on both
    sides, so the outcome rises whatever the weights.
    """
    shares, believed = np.asarray(SHARES), np.asarray(known.strangers)
    beyond = people * (people - 1) / 2 * np.minimum(shares, 1 - shares)
    enough = np.where(shares < 1e-2, _LAW_PAIRS, _PAIRS) * known.weight
    weights = np.minimum(people / (people + _PEOPLE * known.weight), beyond / (beyond + enough))
    middle = SHARES.index(0.5)
    # The weight of a step is that of its end farther from the median; what was not found is NaN.
    weight = np.delete(weights, middle)
    steps = np.diff(believed) + weight * np.nan_to_num(np.diff(found) - np.diff(believed))
    level = believed[middle] + weights[middle] * np.nan_to_num(found - believed)[middle]
    away = np.concatenate([[0.0], np.cumsum(steps)])
    return np.asarray(level + away - away[middle])


def _same_median(same: Floats32, strangers: Floats32) -> float:
    """The median cosine of one person's photos, in spite of wrong names.

    Two photos of one person are hardly ever less alike than half of all strangers are; so twice
    the share below that is the share of wrong names, all of which lie below the true median.
    """
    wrong = min(0.5, 2 * float(np.mean(same < np.median(strangers))))
    return float(np.quantile(same.astype(np.float64), 0.5 + wrong / 2))


def stranger_quantiles(cosines: Floats32) -> Floats:
    """The cosines that the shares SHARES of strangers reach.

    The body is read off the pairs. From 1 in 100 on, the law is fitted to quantiles, not to
    single pairs: pairs at the very top may be one person under two names. Of at least 2 finite
    cosines they are rising, not bounded by 1, and NaN where there are too few pairs to tell.
    """
    shares = np.asarray(SHARES)
    precise = cosines.astype(np.float64)
    found: Floats = np.quantile(precise, 1 - np.maximum(shares, 1e-2))
    found[np.minimum(shares, 1 - shares) * len(cosines) < 1] = np.nan
    beyond = shares < 1e-2
    law = _pareto(cosines)
    if law is None:
        found[beyond] = np.nan
        return found
    share, threshold, shape, scale = law
    found[beyond] = threshold + scale * _excess(shares[beyond] / share, np.array(shape))
    return np.asarray(np.fmax.accumulate(found))


def _pareto(cosines: Floats32) -> tuple[float, float, float, float] | None:
    """Share of pairs above the threshold, threshold, shape and scale; None for too few pairs.

    Least sum of the soft absolute values 2 (sqrt(1 + d^2) - 1) of the deviations d. For a given
    shape the scale follows by reweighted least squares; the shape is found by ever finer steps.
    """
    share = float(np.clip(_ABOVE / len(cosines), *_THRESHOLDS))
    rarest = max(1e-4, _FEWEST_BEYOND / len(cosines))
    if rarest > share / 4:
        return None
    threshold = float(np.quantile(cosines, 1 - share))
    shares = np.geomspace(share * 0.8, rarest, 16)
    excess = np.quantile(cosines.astype(np.float64), 1 - shares) - threshold
    unit = float(excess[-1])
    if unit < 1e-6:
        return None
    trust = 1 / np.sqrt(1 / (shares * len(cosines)) + _MISFIT**2)

    wanted = excess / unit
    low, high = _SHAPES
    for _ in range(_FINER):
        shapes = np.linspace(low, high, _STEPS)
        fitted = _excess(shares / share, shapes[:, None])
        scales, weights = np.ones((_STEPS, 1)), np.ones_like(fitted)
        for _ in range(_REWEIGHTED):
            weighted = weights * trust**2 * fitted
            scales = (weighted @ wanted)[:, None] / (weighted * fitted).sum(axis=1, keepdims=True)
            roots = np.sqrt(1 + ((scales * fitted - wanted) * trust) ** 2)
            weights = 1 / roots
        best = int(roots.sum(axis=1).argmin())
        low, high = shapes[max(best - 1, 0)], shapes[min(best + 1, _STEPS - 1)]
    return share, threshold, float(shapes[best]), float(scales[best, 0] * unit)


def _excess(shares: Floats, shape: Floats) -> Floats:
    """What the shares of a generalised Pareto law of scale 1 reach above its threshold."""
    bent = np.where(np.abs(shape) < 1e-9, 1e-9, shape)
    return np.asarray(np.expm1(-bent * np.log(shares)) / bent)


def _to_others(
    vectors: Floats32,
    starts: NDArray[np.intp],
    index: NDArray[np.intp],
    backbone: str,
    draw: np.random.Generator,
) -> Floats32:
    """Cosines of drawn portraits to everybody but their own person: float32 (N,)."""
    people = len(starts)
    counts = np.diff(np.append(starts, len(vectors)))
    norms = person_norms(vectors, starts, backbone)
    # Round by round a different portrait of each person, as long as there are any left.
    rank = np.arange(len(vectors)) - starts[index]
    turn = (rank + draw.integers(0, counts)[index]) % counts[index]
    probes = draw.permutation(len(vectors))
    probes = probes[np.argsort(turn[probes], kind="stable")]
    probes = probes[turn[probes] < _ROUNDS][: max(1, _STRANGERS // max(1, people - 1))]
    found = []
    for rows, cosines in cosine_blocks(vectors[probes], vectors, index, norms):
        others = np.arange(people) != index[probes[rows], None]
        found.append(cosines[others].astype(np.float32))
    return np.concatenate(found)


def cosine_blocks(
    probes: Floats32, vectors: Floats32, index: NDArray[np.integer], norms: Floats
) -> Iterator[tuple[slice, NDArray[np.floating]]]:
    """``person_cosines`` of probes (M, D) with all people: some rows, and (m, P) of them each."""
    step = max(1, _BLOCK // len(vectors))
    for first in range(0, len(probes), step):
        rows = slice(first, first + step)
        yield rows, person_cosines(probes[rows] @ vectors.T, index, norms)


def _to_themselves(own: Floats32, backbone: str, draw: np.random.Generator) -> Floats32:
    """Cosines of one person's portraits to the others of them: float32 (M,), M at most _SAME."""
    own = own[draw.permutation(len(own))[:_ENOUGH]]
    own = own[~copies(own).any(axis=1)]
    if len(own) < 2:
        return np.zeros(0, np.float32)
    return to_the_rest(own, draw.permutation(len(own))[:_SAME], backbone)


def to_the_rest(own: Floats32, chosen: NDArray[np.integer], backbone: str) -> Floats32:
    """Cosines, float32 (M,), of a person's portraits to the person as the others show them.

    ``own`` are one person's vectors, float32 (N, D), N at least 2; ``chosen`` (M,) places in it.
    """
    count, others = len(own) - 1, np.arange(len(own)) != chosen[:, None]
    cosines = (own[chosen] @ own.T)[others].reshape(len(chosen), count)
    sums = own.sum(axis=0, dtype=np.float64) - own[chosen]
    norms = evened_norms(np.linalg.norm(sums, axis=1), np.full(len(chosen), count), backbone)
    found = person_cosines(cosines, np.zeros(count, np.intp), norms[:, None])
    return found[:, 0].astype(np.float32)


def person_norms(vectors: Floats32, starts: NDArray[np.integer], backbone: str) -> Floats:
    """What ``person_cosines`` divides by, (P,), of vectors (N, D) by person, from ``starts`` on."""
    sums = np.add.reduceat(vectors, starts, axis=0, dtype=np.float64)
    counts = np.diff(np.append(starts, len(vectors)))
    return evened_norms(np.linalg.norm(sums, axis=1), counts, backbone)


def copies(own: Floats32) -> Flags:
    """Which vectors are almost those of earlier ones: bool (N, N), [i, j] for i after j."""
    return np.asarray(np.tril(own @ own.T > COPY, -1))
