"""What one backbone did with a line-up: likenesses counted, thresholds, and its worst mistakes.

Likenesses to strangers are counted, not kept: thousands of people have hundreds of millions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gallery.evaluation.lineup import Lineup, LookUp, look_up
from gallery.evaluation.results import FAR
from gallery.scores import Calibration

__all__ = ["Evidence", "Hits", "Share", "Tally", "gather", "share"]

_PER_UNIT: Final = 100_000  # bins in a cosine of 1: a tenth of a percent of what scores tell apart
_FOLDS: Final = 10
_HITS: Final = 20_000_000  # likenesses kept at most
_SEED: Final = 1
_UNFOUND: Final = -2.0  # below every cosine: a probe without a face is never accepted


@dataclass(frozen=True, slots=True)
class Share:
    """How many of how many, and between what the truth lies with 95 % confidence (Wilson 1927).

    Attributes:
        count: How many.
        of: Of how many; 0 if nobody could be asked.
        low: From 0 to 1.
        high: From 0 to 1.
    """

    count: float
    of: float
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share itself; NaN of nothing."""
        return self.count / self.of if self.of else float("nan")


def share(count: float, of: float) -> Share:
    """A share with its interval."""
    from scipy.stats import binomtest

    if of < 1:
        return Share(count, of, 0.0, 1.0)
    interval = binomtest(round(count), round(of)).proportion_ci(0.95, method="wilson")
    return Share(count, of, float(interval.low), float(interval.high))


class Tally:
    """How many likenesses there are of each height, to a hundred-thousandth."""

    def __init__(self) -> None:
        self.counts = np.zeros(2 * _PER_UNIT + 1, np.int64)

    def add(self, likenesses: NDArray[np.floating]) -> None:
        """Counts likenesses in [-1, 1]."""
        bins = np.rint((likenesses + 1) * _PER_UNIT).astype(np.int64)
        self.counts += np.bincount(np.clip(bins, 0, len(self.counts) - 1), minlength=self._bins)

    @property
    def _bins(self) -> int:
        return len(self.counts)

    @property
    def total(self) -> int:
        """How many were counted."""
        return int(self.counts.sum())

    def at_least(self, likeness: float) -> int:
        """How many are as high as that."""
        first = int(np.ceil((likeness + 1) * _PER_UNIT - 0.5))
        return int(self.counts[max(first, 0) :].sum())

    def heights(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The heights that occur, rising, and how often each does."""
        there = np.flatnonzero(self.counts)
        return there / _PER_UNIT - 1, self.counts[there]

    def quantile(self, share_below: float) -> float:
        """The height below which so large a share lies; NaN of nothing."""
        heights, counts = self.heights()
        if not len(heights):
            return float("nan")
        place = np.searchsorted(np.cumsum(counts), share_below * counts.sum(), side="left")
        return float(heights[min(int(place), len(heights) - 1)])


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """Likenesses between strangers from a level on.

    Attributes:
        level: In cosine.
        probes: int64 (H,), which probe.
        columns: int64 (H,), like whom.
        likenesses: float32 (H,).
    """

    level: float
    probes: NDArray[np.int64] = field(repr=False)
    columns: NDArray[np.int64] = field(repr=False)
    likenesses: NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What a backbone did with a line-up.

    Attributes:
        model: Its name.
        lineup: Who was looked up among whom.
        calibration: Learned from the line-up's gallery, never from its probes.
        found: Ranks and likenesses of the probes.
        strangers: Likenesses of all probes to everybody else.
        hits: The highest of these.
        accuracy: Share judged rightly of pairs, as many of one person as of two, each threshold
            learned on the other folds.
        pairs: How many pairs that were.
        threshold: The best over all these pairs, in cosine.
        strict: The likeness that at most 1 in 1,000 pairs of strangers reach.
        roc: ``(far, tar)``, float64 each, rising.
        roc_auc: Area under the ROC curve.
        seconds: How long seeing and embedding took.
        photos: How many photos that were.
    """

    model: str
    lineup: Lineup
    calibration: Calibration
    found: LookUp
    strangers: Tally
    hits: Hits
    accuracy: Share
    pairs: int
    threshold: float
    strict: float
    roc: tuple[NDArray[np.float64], NDArray[np.float64]]
    roc_auc: float
    seconds: float
    photos: int

    @property
    def probes(self) -> int:
        """How many there were, those without a face as well."""
        return len(self.lineup.probes) + len(self.lineup.failures)

    def rank(self, k: int) -> Share:
        """Probes whose person was among the k most alike."""
        return share(int((self.found.ranks < k).sum()), self.probes)

    def tar(self, far: float) -> Share:
        """Probes accepted as their own person where at most that share of strangers is."""
        false, true = self.roc
        best = float(true[false <= far].max(initial=0.0))
        return share(best * self.probes, self.probes)

    def reached(self, score: float) -> Share:
        """Pairs of strangers with that score or more."""
        return share(
            self.strangers.at_least(_cosine_at(self.calibration, score)), self.strangers.total
        )

    def same_scores(self) -> NDArray[np.float64]:
        """Scores of the probes with their own person."""
        return self.calibration.scores(self.found.own)

    def best_stranger_scores(self) -> NDArray[np.float64]:
        """Highest score of each probe with anybody else: as for somebody not in the gallery."""
        return self.calibration.scores(self.found.best)


def gather(
    model: str, lineup: Lineup, calibration: Calibration, *, seconds: float, photos: int
) -> Evidence:
    """Looks everybody up and counts.

    Raises:
        SetupProblem: If there are too few probes to judge.
    """
    from gallery.evaluation.verdicts import (  # scikit-learn takes 0.7 s
        best_threshold,
        cross_validated,
    )

    strangers = _one_stranger_each(lineup)
    same = np.repeat([True, False], [len(lineup.probes) + len(lineup.failures), len(strangers)])
    own = lineup.pairs(lineup.right)
    unfound = np.full(len(lineup.failures), np.nan)
    cosines = np.concatenate([own, unfound, lineup.pairs(strangers)])
    accuracy, _ = cross_validated(cosines, same, folds=_FOLDS)
    threshold = best_threshold(cosines, same)
    tally = Tally()
    counted: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
    level = min(threshold, _cosine_at(calibration, 30.0))

    def count(rows: slice, likeness: NDArray[np.float32]) -> None:
        tally.add(likeness[np.isfinite(likeness)])
        if sum(len(block[0]) for block in counted) < _HITS:
            probes, columns = np.nonzero(likeness >= level)
            counted.append((probes + rows.start, columns, likeness[probes, columns]))

    found = look_up(lineup, count)
    probes, columns, likenesses = (np.concatenate(part) for part in zip(*counted, strict=True))
    false, true, area = _curve(found.own, len(lineup.failures), tally)
    return Evidence(
        model=model,
        lineup=lineup,
        calibration=calibration,
        found=found,
        strangers=tally,
        hits=Hits(level, probes, columns, likenesses),
        accuracy=share(accuracy * len(same), len(same)),
        pairs=len(same),
        threshold=threshold,
        strict=_height(tally, FAR),
        roc=(false, true),
        roc_auc=area,
        seconds=seconds,
        photos=photos,
    )


def _one_stranger_each(lineup: Lineup) -> NDArray[np.int64]:
    """Somebody else for each probe, drawn at random, the same for the same line-up."""
    draw = np.random.default_rng(_SEED)
    other: NDArray[np.int64] = draw.integers(0, len(lineup.people) - 1, len(lineup.probes))
    return other + (other >= lineup.right)


def _curve(
    own: NDArray[np.float64], failures: int, strangers: Tally
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """FAR and TAR at falling thresholds, and the area under them."""
    from sklearn.metrics import auc, roc_curve

    heights, counts = strangers.heights()
    same = np.concatenate([np.rint(own * _PER_UNIT) / _PER_UNIT, np.full(failures, _UNFOUND)])
    labels = np.repeat([1, 0], [len(same), len(heights)])
    weights = np.concatenate([np.ones(len(same)), counts])
    false, true, _ = roc_curve(
        labels,
        np.concatenate([same, np.rint(heights * _PER_UNIT) / _PER_UNIT]),
        sample_weight=weights,
        drop_intermediate=False,
    )
    return false, true, float(auc(false, true))


def _height(tally: Tally, most: float) -> float:
    """The lowest likeness that at most that share reaches."""
    heights, counts = tally.heights()
    reached = np.cumsum(counts[::-1])[::-1] / counts.sum()
    rare = heights[reached <= most]
    return float(rare[0]) if len(rare) else float(heights[-1]) + 1 / _PER_UNIT


def _cosine_at(calibration: Calibration, score: float) -> float:
    """The cosine that has a score."""
    cosines = np.linspace(-1, 1, 2 * _PER_UNIT + 1)
    return float(cosines[np.searchsorted(calibration.scores(cosines), score)])
