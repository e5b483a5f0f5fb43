"""Learns an ensemble from people whose portraits are known: weights and calibration.

The plain mean of the scores is what fusion begins with. A backbone without which it is as good is
left out: a face would be embedded for nothing. Weights by logistic regression take the mean's place
only where they tell people apart better beyond chance, people that they were not learned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.types import Space
from gallery.calibration import Calibration, fit_alone, fit_pairs
from gallery.ensemble import BEST, Ensemble, Member
from gallery.ensembles.sample import Probes, halves
from gallery.evaluation.results import FAR

__all__ = ["FEWEST_LEARNED", "SIGNIFICANT", "found_first", "learned", "people_better", "recognised"]

SIGNIFICANT: Final = 0.05
"""A difference that chance makes more often than that is none."""

FEWEST_LEARNED: Final = 40
"""So many people with two portraits each make 3,120 pairs of strangers: the least of which 1 in
1,000 is a few, and enough for the law of the tail (gallery/scoring/tail.py)."""

_LEAST_WEIGHT: Final = 0.1  # below, a network's time buys nothing that anybody would notice
_PAIRS: Final = 50_000  # pairs of strangers that weights are learned from at most


def learned(
    spaces: Sequence[Space],
    probes: Probes,
    calibrations: Sequence[Calibration] | None = None,
) -> Ensemble | None:
    """An ensemble of several spaces.

    Args:
        spaces: At least two, of different backbones.
        probes: What is learned from, in these spaces.
        calibrations: How cosines become scores, one per space; None: learned from the probes.

    Returns:
        None where one backbone would be all that is left, or there are fewer than
        ``FEWEST_LEARNED`` people.
    """
    if probes.people < FEWEST_LEARNED:
        return None
    if calibrations is None:
        calibrations = [
            fit_pairs(space, probes.pairs(space=number)) for number, space in enumerate(spaces)
        ]
    scores = [
        calibration.scores(one).astype(np.float32)
        for calibration, one in zip(calibrations, probes.likenesses, strict=True)
    ]
    weights = _weights(scores, probes)
    if len(weights) < 2:
        return None
    order = sorted(weights, key=lambda number: (-weights[number], spaces[number].id))
    members = tuple(
        Member(spaces[number], weights[number], calibrations[number]) for number in order
    )
    # A stand-in, so that values are fused in one place only; its scores are not asked for.
    unlearned = Ensemble(members, calibrations[order[0]])
    values = unlearned.fused([probes.likenesses[number] for number in order])
    calibration = fit_alone(BEST, probes.pairs(values.astype(np.float32)))
    return None if calibration is None else Ensemble(members, calibration)


def found_first(values: NDArray[np.floating], owners: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which probes are more alike to their own person than to anybody else: bool (N,)."""
    own, others = _split(values, owners)
    first: NDArray[np.bool_] = own > others.max(axis=1, initial=-np.inf)
    return first


def recognised(values: NDArray[np.floating], owners: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which probes are more alike to their own person than all but 1 in 1,000 strangers are.

    As ``evaluation.verdicts.judged`` counts: where at most ``FAR`` of the strangers are accepted.
    """
    own, others = _split(values, owners)
    strangers = others[np.isfinite(others)]
    highest = int(FAR * len(strangers))
    threshold = np.partition(strangers, len(strangers) - 1 - highest)[-1 - highest]
    known: NDArray[np.bool_] = own > threshold
    return known


def people_better(
    one: NDArray[np.integer], other: NDArray[np.integer], owners: NDArray[np.int64]
) -> float:
    """How likely chance alone is to make one way of comparing as much better than another.

    The sign test by person, because a person's photos are easy or hard together: of the people for
    whom the two differ, how many are better off with the first?

    Args:
        one: (N,), how often each probe was judged rightly; the same probes in ``other``.
        other: (N,).
        owners: (N,), whose each probe is.

    Returns:
        In (0, 1].
    """
    from scipy.stats import binomtest  # takes 0.6 s, needed only where a gallery is built

    balance = np.bincount(owners, weights=one.astype(np.float64) - other)
    better, worse = int((balance > 0).sum()), int((balance < 0).sum())
    if better + worse == 0:
        return 1.0
    return float(binomtest(better, better + worse, alternative="greater").pvalue)


def _split(
    values: NDArray[np.floating], owners: NDArray[np.int64]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Values of probes with their own person, (N,), and with all, -inf in the own's place."""
    rows = np.arange(len(owners))
    others = values.copy()
    others[rows, owners] = -np.inf
    return values[rows, owners], others


def _weights(scores: Sequence[NDArray[np.float32]], probes: Probes) -> dict[int, float]:
    """Weight of each score that takes part, by number; they sum to 1."""
    taking_part = _worth_their_time(scores, probes.owners)
    scores = [scores[number] for number in taking_part]
    plain = np.full(len(scores), 1 / len(scores))
    outcomes: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    owners: list[NDArray[np.int64]] = []
    parts = halves(probes.people, seed=1)
    for train, test in (parts, parts[::-1]):
        fitted = _regressed(*_chosen(scores, probes, train))
        held, whose = _chosen(scores, probes, test)
        outcomes.append((_right(held, fitted, whose), _right(held, plain, whose)))
        owners.append(test[whose])
    p = people_better(
        np.concatenate([one for one, _ in outcomes]),
        np.concatenate([other for _, other in outcomes]),
        np.concatenate(owners),
    )
    weights = _regressed(scores, probes.owners) if p < SIGNIFICANT else plain
    kept = weights >= _LEAST_WEIGHT
    return {
        number: float(weight / weights[kept].sum())
        for number, weight in zip(taking_part, weights, strict=True)
        if weight >= _LEAST_WEIGHT
    }


def _worth_their_time(
    scores: Sequence[NDArray[np.float32]], owners: NDArray[np.int64]
) -> list[int]:
    """Numbers of the scores without which the mean would be worse beyond chance; at least two."""
    taking_part = list(range(len(scores)))

    def right(numbers: Sequence[int]) -> NDArray[np.int64]:
        mean = np.full(len(numbers), 1 / len(numbers))
        return _right([scores[number] for number in numbers], mean, owners)

    while len(taking_part) > 2:
        everybody = right(taking_part)
        missed = {
            number: people_better(
                everybody, right([other for other in taking_part if other != number]), owners
            )
            for number in taking_part
        }
        least = max(missed, key=lambda number: missed[number])
        if missed[least] < SIGNIFICANT:
            break
        taking_part.remove(least)
    return taking_part


def _chosen(
    scores: Sequence[NDArray[np.float32]], probes: Probes, people: NDArray[np.int64]
) -> tuple[list[NDArray[np.float32]], NDArray[np.int64]]:
    """Scores among some of the people only, and whose the probes are."""
    chosen = Probes(probes.owners, probes.people, tuple(scores)).of(people)
    return list(chosen.likenesses), chosen.owners


def _right(
    scores: Sequence[NDArray[np.float32]], weights: NDArray[np.float64], owners: NDArray[np.int64]
) -> NDArray[np.int64]:
    values = np.tensordot(weights, np.stack(scores), axes=1)
    return found_first(values, owners).astype(np.int64) + recognised(values, owners)


def _regressed(
    scores: Sequence[NDArray[np.float32]], owners: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Weights by logistic regression, none below 0, summing to 1."""
    from sklearn.linear_model import LogisticRegression

    own = np.arange(scores[0].shape[1]) == owners[:, None]
    strangers = np.flatnonzero(~own)
    strangers = np.random.default_rng(2).permutation(strangers)[:_PAIRS]
    places = np.append(np.flatnonzero(own), strangers)
    # In units of 10 points, so that the penalty is small beside what 2,000 pairs say.
    features = np.stack([one.reshape(-1)[places] / 10 for one in scores], axis=1)
    labels = np.arange(len(places)) < int(own.sum())
    taking_part = np.arange(len(scores))
    while True:
        model = LogisticRegression(class_weight="balanced", max_iter=1000)
        slopes = model.fit(features[:, taking_part], labels).coef_[0]
        if (slopes > 0).all() or len(taking_part) == 1:
            break
        taking_part = taking_part[slopes > slopes.min()]
    weights = np.zeros(len(scores))
    weights[taking_part] = np.maximum(slopes, 1e-9)
    normal: NDArray[np.float64] = weights / weights.sum()
    return normal
