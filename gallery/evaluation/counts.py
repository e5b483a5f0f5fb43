"""How often each person's photos were judged rightly, for measures of any group of people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gallery.evaluation.evidence import Evidence

__all__ = ["MEASURES", "Counts", "counts_of"]

MEASURES: Final = ("accuracy", "rank_1", "tar", "strangers_30", "strangers_40")


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """Probes by their person, (K,), and likenesses to strangers above a level, (H,)."""

    probes: NDArray[np.float64]
    found: NDArray[np.float64]
    accepted: NDArray[np.float64]
    strictly: NDArray[np.float64]
    first: NDArray[np.float64]
    whose: NDArray[np.intp]
    like: NDArray[np.intp]
    at_threshold: NDArray[np.float64]
    at_30: NDArray[np.float64]
    at_40: NDArray[np.float64]

    def within(self, members: NDArray[np.bool_]) -> Counts:
        """With the likenesses inside one group only."""
        inside = members[self.whose] & members[self.like]
        return Counts(
            self.probes,
            self.found,
            self.accepted,
            self.strictly,
            self.first,
            self.whose[inside],
            self.like[inside],
            self.at_threshold[inside],
            self.at_30[inside],
            self.at_40[inside],
        )

    def pairs(self, weights: NDArray[np.float64]) -> float:
        """Probes with others; whoever counts twice is no stranger to themselves."""
        mine = weights * self.found
        return float(mine.sum() * weights.sum() - (weights * mine).sum())

    def measure(self, name: str, weights: NDArray[np.float64]) -> float:
        """One of ``MEASURES`` where everybody counts so many times: float64 (K,)."""
        probes = (weights * self.probes).sum()
        if name == "rank_1":
            return float((weights * self.first).sum() / probes)
        if name == "tar":
            return float((weights * self.strictly).sum() / probes)
        if name == "accuracy":
            accepted = float((weights * self.accepted).sum() / probes)
            return (accepted + 1 - self._strangers(self.at_threshold, weights)) / 2
        return self._strangers(self.at_30 if name == "strangers_30" else self.at_40, weights)

    def _strangers(self, reached: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
        together = weights[self.whose] * weights[self.like] * reached
        return float(together.sum() / max(self.pairs(weights), 1.0))


def counts_of(evidence: Evidence) -> Counts:
    """Counts what a backbone did with a line-up."""
    lineup, found, hits = evidence.lineup, evidence.found, evidence.hits
    people = len(lineup.people)

    def by_person(chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.bincount(lineup.right[chosen], minlength=people).astype(np.float64)

    everything = np.ones(len(lineup.probes), np.bool_)
    there = {int(number): column for column, number in enumerate(lineup.people)}
    lost = [there[number] for number, _ in lineup.failures if number in there]
    scores = evidence.calibration.scores(hits.likenesses)
    return Counts(
        probes=by_person(everything) + np.bincount(np.array(lost, np.intp), minlength=people),
        found=by_person(everything),
        accepted=by_person(found.own >= evidence.threshold),
        strictly=by_person(found.own >= evidence.strict),
        first=by_person(found.ranks < 1),
        whose=lineup.right[hits.probes],
        like=hits.columns,
        at_threshold=(hits.likenesses >= evidence.threshold).astype(np.float64),
        at_30=(scores >= 30).astype(np.float64),
        at_40=(scores >= 40).astype(np.float64),
    )
