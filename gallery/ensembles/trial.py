"""Does an ensemble beat each of its backbones alone? Tried on people it was not learned from.

The people are split into two halves: what is learned from one, scores, weights and the ensemble's
own calibration, is judged on the other, and the other way round. Every way of comparing answers
the same probes: who of the half is it, and are there fewer than 1 in 1,000 strangers as alike?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.types import Space
from gallery.calibration import Calibration, fit_pairs
from gallery.ensemble import BEST, Ensemble
from gallery.ensembles.learning import (
    FEWEST_LEARNED,
    SIGNIFICANT,
    found_first,
    learned,
    people_better,
    recognised,
)
from gallery.ensembles.sample import Probes, halves, probes_of

__all__ = ["FEWEST_PEOPLE", "Figures", "HeldOut", "Outcome", "Trial", "tried"]

FEWEST_PEOPLE: Final = 2 * FEWEST_LEARNED
"""One half is learned from, the other judged."""


class Outcome(StrEnum):
    """What a trial says; the value is how it is stored."""

    HELPS = "helps"
    NOT_BETTER = "not better"
    TOO_FEW = "too few people"


@dataclass(frozen=True, slots=True)
class Figures:
    """How often one way of comparing is right.

    Attributes:
        rank_1: Share of probes whose person came first.
        tar: Share of probes more alike to their person than all but 1 in 1,000 strangers.
    """

    rank_1: float
    tar: float

    @property
    def right(self) -> float:
        """Share of both questions about all probes that were answered rightly."""
        return (self.rank_1 + self.tar) / 2


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Scores by one way of comparing, of people that nothing was learned from.

    Attributes:
        own: float32 (probes,), of probes with their own person.
        strangers: float32, of probes with everybody else of their half.
    """

    own: NDArray[np.float32] = field(repr=False)
    strangers: NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """What came of it.

    Attributes:
        outcome: Whether the ensemble is worth its time.
        people: How many people there were.
        probes: How many portraits of theirs.
        figures: By backbone, and of the ensemble under ``BEST``, unless it shrank to one backbone
            or there were too few people.
        chances: By backbone, how likely chance alone is to make the ensemble so much better.
        held_out: By backbone and ``BEST``, as ``figures``.
        ensemble: Learned from everybody; None if there is none.
    """

    outcome: Outcome
    people: int
    probes: int
    figures: Mapping[str, Figures] = field(default_factory=dict)
    chances: Mapping[str, float] = field(default_factory=dict)
    held_out: Mapping[str, HeldOut] = field(default_factory=dict, repr=False)
    ensemble: Ensemble | None = None


def tried(
    vectors: Mapping[Space, NDArray[np.float32]],
    person_ids: NDArray[np.int64],
    calibrations: Mapping[Space, Calibration] | None = None,
) -> Trial:
    """Tries an ensemble of spaces on photos of people whose names are known.

    Made for a gallery's own portraits and for an evaluation's photos alike: a report gets its
    column "best" from ``figures`` and ``held_out``.

    Args:
        vectors: float32 (N, D), unit vectors, for each of two or more spaces of different
            backbones; row by row of the same N photos.
        person_ids: int64 (N,), whose each photo is; people with one photo do not take part.
        calibrations: How the ensemble that is kept turns cosines into scores; None: as these
            photos teach. What is judged is learned from the photos of one half either way.

    Returns:
        The same for the same photos in the same order. About a second per space.
    """
    spaces = tuple(sorted(vectors, key=lambda space: space.id))
    probes = probes_of(spaces, vectors, person_ids)
    if probes.people < FEWEST_PEOPLE:
        return Trial(Outcome.TOO_FEW, probes.people, len(probes.owners))
    one, other = halves(probes.people, seed=0)
    rounds = [_judged(spaces, probes, one, other), _judged(spaces, probes, other, one)]
    owners = np.concatenate([other[probes.of(other).owners], one[probes.of(one).owners]])
    names = [*(space.backbone for space in spaces), BEST]
    answers = {name: _joined([each[name] for each in rounds if name in each]) for name in names}
    answers = {name: a for name, a in answers.items() if len(a.own) == len(owners)}
    figures = {
        name: Figures(float(a.first.mean()), float(a.recognised.mean()))
        for name, a in answers.items()
    }
    held_out = {name: HeldOut(a.own, a.strangers) for name, a in answers.items()}
    best = answers.get(BEST)
    chances = {
        space.backbone: people_better(best.right, answers[space.backbone].right, owners)
        for space in spaces
        if best is not None
    }
    known = None if calibrations is None else [calibrations[space] for space in spaces]
    ensemble = learned(spaces, probes, known)
    helps = ensemble is not None and best is not None and _beats_each(figures, chances)
    return Trial(
        outcome=Outcome.HELPS if helps else Outcome.NOT_BETTER,
        people=probes.people,
        probes=len(owners),
        figures=figures,
        chances=chances,
        held_out=held_out,
        ensemble=ensemble,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Answers:
    """What one way of comparing made of probes; see ``Figures`` and ``HeldOut``."""

    first: NDArray[np.bool_]
    recognised: NDArray[np.bool_]
    own: NDArray[np.float32]
    strangers: NDArray[np.float32]

    @property
    def right(self) -> NDArray[np.int64]:
        """How many of both questions about each probe were answered rightly: 0 to 2."""
        return self.first.astype(np.int64) + self.recognised


def _judged(
    spaces: Sequence[Space], probes: Probes, train: NDArray[np.int64], test: NDArray[np.int64]
) -> dict[str, _Answers]:
    """What is learned from some people, judged on the others."""
    known, held = probes.of(train), probes.of(test)
    found = {}
    for number, space in enumerate(spaces):
        calibration = fit_pairs(space, known.pairs(space=number))
        cosines = held.likenesses[number]
        found[space.backbone] = _answers(cosines, calibration.scores(cosines), held)
    ensemble = learned(spaces, known)
    if ensemble is not None:
        values = ensemble.fused([held.likenesses[spaces.index(one)] for one in ensemble.spaces])
        found[BEST] = _answers(values, ensemble.calibration.scores(values), held)
    return found


def _answers(values: NDArray[np.floating], scores: NDArray[np.float64], held: Probes) -> _Answers:
    own = held.own()
    return _Answers(
        found_first(values, held.owners),
        recognised(values, held.owners),
        scores[own].astype(np.float32),
        scores[~own].astype(np.float32),
    )


def _joined(parts: Sequence[_Answers]) -> _Answers:
    if not parts:
        nothing, none = np.zeros(0, np.bool_), np.zeros(0, np.float32)
        return _Answers(nothing, nothing, none, none)
    return _Answers(
        np.concatenate([one.first for one in parts]),
        np.concatenate([one.recognised for one in parts]),
        np.concatenate([one.own for one in parts]),
        np.concatenate([one.strangers for one in parts]),
    )


def _beats_each(figures: Mapping[str, Figures], chances: Mapping[str, float]) -> bool:
    """Nowhere worse than any backbone alone, and better than each beyond chance."""
    best = figures[BEST]
    return all(
        chance < SIGNIFICANT
        and best.rank_1 >= figures[name].rank_1
        and best.tar >= figures[name].tar
        for name, chance in chances.items()
    )
