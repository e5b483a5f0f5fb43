"""What a backbone did: accuracy, rank-k, TAR at FAR and ROC, scores promised and reached.

Verification asks of two photos whether they show one person; identification asks of a photo who it
shows. A photo without a face that is found is an error, not an exception. Likenesses to strangers
are counted, not kept: thousands of people have hundreds of millions.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.engine import Engine
from engine.errors import SetupProblem
from gallery.evaluation.photos import LabelledPair, ProbeSet, embed_photos, identify
from gallery.likeness import Flags, Floats, Floats32
from gallery.progress import Progress, no_progress
from gallery.scores import Calibration, score_at
from gallery.scores.trial import FAR

HONEST: Final = (1e-2, 1e-3, 1e-4)  # shares of strangers: how many reach what so many should?
_PER_UNIT: Final = 100_000  # bins in a cosine of 1: a tenth of a percent of what scores tell apart
_CLOSE: Final = 20_000_000  # likenesses of close strangers kept at most


Heights = tuple[Floats, NDArray[Any]]
"""Values, and how often each occurs."""


@dataclass(frozen=True, slots=True)
class Share:
    """How many of how many, and between what the truth lies with 95 % confidence (Wilson 1927)."""

    count: float
    of: float  # 0 if nobody could be asked
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


class LikenessHistogram:
    """How many likenesses in [-1, 1] there are of each height, to a hundred-thousandth."""

    def __init__(self) -> None:
        self.counts = np.zeros(2 * _PER_UNIT + 1, np.int64)
        self.total = 0

    def add(self, likenesses: NDArray[np.floating]) -> None:
        """Counts likenesses in [-1, 1]."""
        bins = np.rint((likenesses + 1) * _PER_UNIT).astype(np.int64)
        count = len(self.counts)
        self.counts += np.bincount(np.clip(bins, 0, count - 1), minlength=count)
        self.total += likenesses.size

    def at_least(self, likeness: float) -> int:
        """How many are as high as that."""
        first = int(np.ceil((likeness + 1) * _PER_UNIT - 0.5))
        return int(self.counts[max(first, 0) :].sum())

    def heights(self) -> Heights:
        """The heights that occur, rising, and how often each does."""
        there = np.flatnonzero(self.counts)
        return there / _PER_UNIT - 1, self.counts[there]


def quantile(heights: Heights, share_below: float) -> float:
    """The height below which so large a share lies; NaN of nothing."""
    values, counts = heights
    if not len(values):
        return float("nan")
    return float(np.quantile(values, share_below, weights=counts, method="inverted_cdf"))


class Roc(NamedTuple):
    """A ROC curve: shares of strangers (rising) and of one person's pairs accepted, float64."""

    far: Floats
    tar: Floats
    area: float

    def tar_at(self, far: float) -> float:
        """The highest share of one person's pairs accepted where at most ``far`` strangers are."""
        return float(self.tar[self.far <= far].max(initial=0.0))


def roc_of(same: Flags, likenesses: Floats, weights: NDArray[np.floating] | None = None) -> Roc:
    """The curve of pairs, (N,) each; those without a likeness (NaN) are never accepted.

    ``weights`` say how often each counts; None: once.
    """
    from sklearn.metrics import auc, roc_curve  # takes 0.7 s

    heights = np.where(np.isnan(likenesses), -2.0, likenesses)  # below every cosine
    far, tar, _ = roc_curve(same, heights, sample_weight=weights, drop_intermediate=False)
    return Roc(far, tar, float(auc(far, tar)))


def cross_validated(likenesses: Floats, same: Flags, *, folds: int = 10) -> tuple[float, float]:
    """Accuracy at the threshold that is best on the other folds, and its deviation over folds.

    Folds are drawn at random, the same for the same pairs, with as many of either kind in each. A
    pair without a likeness (NaN) counts as judged wrongly. Raises SetupProblem if there are fewer
    than 2 pairs of either kind, or too few likenesses.
    """
    from sklearn.model_selection import StratifiedKFold

    folds = min(folds, int(same.sum()), int((~same).sum()))
    if folds < 2:
        raise SetupProblem("at least two pairs of either kind are needed")
    splitter = StratifiedKFold(folds, shuffle=True, random_state=0)
    right = np.zeros(len(same), np.bool_)
    shares = []
    for others, fold in splitter.split(likenesses, same):
        threshold = best_threshold(likenesses[others], same[others])
        right[fold] = (likenesses[fold] >= threshold) == same[fold]
        right[fold] &= ~np.isnan(likenesses[fold])
        shares.append(np.mean(right[fold]))
    return float(np.mean(right)), float(np.std(shares))


def best_threshold(likenesses: Floats, same: Flags) -> float:
    """Halfway between the likenesses that most pairs are judged rightly at.

    Raises SetupProblem if no pair of one or the other kind has a likeness.
    """
    from sklearn.metrics import roc_curve

    there = ~np.isnan(likenesses)
    likenesses, same = likenesses[there], same[there]
    if same.all() or not same.any():
        raise SetupProblem("faces were found in too few of the photos to judge pairs")
    far, tar, thresholds = roc_curve(same, likenesses, drop_intermediate=False)
    best = int(np.argmax(tar * same.sum() + (1 - far) * (~same).sum()))
    below = likenesses[likenesses < thresholds[best]]
    if best == 0 or len(below) == 0:  # accept none, or all
        return float(np.clip(thresholds[best], -1.0, 1.1))
    return float((thresholds[best] + below.max()) / 2)


@dataclass(slots=True, eq=False, repr=False)
class Verification:
    """What came of labelled pairs, at least two of either kind.

    A pair without a cosine (NaN), because one has no face, is judged wrongly and never accepted.
    """

    model: str
    same: Flags  # (N,)
    cosines: Floats  # (N,)
    photos: int  # different ones
    faceless: Mapping[str, str]  # those without a face, and why, by path as in the CSV file
    calibration: Calibration  # whose scores are reported
    seconds: float
    accuracy: float = field(init=False)  # at the threshold that was best on the other folds
    accuracy_std: float = field(init=False)  # over the folds
    threshold: float = field(init=False)  # the best one over all pairs, in cosine
    roc: Roc = field(init=False)
    tar: float = field(init=False)  # of one person's pairs, where at most ``FAR`` of others are

    def __post_init__(self) -> None:
        self.accuracy, self.accuracy_std = cross_validated(self.cosines, self.same)
        self.threshold = best_threshold(self.cosines, self.same)
        self.roc = roc_of(self.same, self.cosines)
        self.tar = self.roc.tar_at(FAR)

    def to_json(self) -> dict[str, Any]:
        """As printed with ``--json``; shares from 0 to 1."""
        both = (self.cosines[~np.isnan(self.cosines) & kind] for kind in (self.same, ~self.same))
        own, others = map(self.calibration.scores, both)  # some of each: there is a threshold
        rare = {f"strangers_at_least_{at:g}": np.mean(others >= at) for at in map(score_at, HONEST)}
        return {
            "model": self.model,
            "pairs": len(self.same),
            "same": int(self.same.sum()),
            "different": int((~self.same).sum()),
            "failures": int(np.isnan(self.cosines).sum()),
            "accuracy": self.accuracy,
            "accuracy_std": self.accuracy_std,
            "threshold": self.threshold,
            "roc_auc": self.roc.area,
            "tar_at_far_1e-3": self.tar,
            "scores": {
                "learned_from_people": self.calibration.people,
                "same_person_median": round(float(np.median(own)), 2),
                "strangers_median": round(float(np.median(others)), 2),
                **{name: float(share) for name, share in rare.items()},
            },
            "photos": self.photos,
            "photos_without_face": dict(self.faceless),
            "seconds": round(self.seconds, 3),
            "photos_per_s": round(self.photos / self.seconds, 1),
        }


def verify(
    engine: Engine,
    backbone: str,
    pairs: Sequence[LabelledPair],
    *,
    root: Path,
    calibration: Calibration,
    progress: Progress = no_progress,
) -> Verification:
    """Judges pairs of photos, at least one of either kind; paths are reported from the root.

    Raises SetupProblem if the backbone can't be used, or no pair of either kind has two faces.
    """
    started = time.perf_counter()
    files = [file for pair in pairs for file in (pair.a, pair.b)]
    seen = embed_photos(engine, [backbone], files, progress=progress)[backbone]
    vectors = [(seen.vectors.get(pair.a), seen.vectors.get(pair.b)) for pair in pairs]
    cosines = [np.nan if a is None or b is None else float(a @ b) for a, b in vectors]
    return Verification(
        model=backbone,
        same=np.array([pair.same for pair in pairs]),
        cosines=np.array(cosines, np.float64),
        photos=len(set(files)),
        faceless=seen.failures_below(root),
        calibration=calibration,
        seconds=time.perf_counter() - started,
    )


class Measures:
    """What a backbone, or an ensemble of them, did with a probe set: every probe is searched.

    Raises SetupProblem if there are too few probes to judge. The calibration was learned from the
    gallery photos, never from the probes; decoding, detecting and embedding took so many seconds
    for so many photos.

    Attributes:
        accuracy: Share judged rightly of pairs, as many of one person as of two, each threshold
            learned on the other folds.
        pairs: How many pairs that were.
        threshold: The best over all these pairs, in likeness.
        strangers: Likenesses of all probes to everybody else.
        close: Those from a level on: int64 (H,) which probe, int64 (H,) like which column, and
            float32 (H,) the likeness.
        strict: The likeness that at most 1 in 1,000 pairs of strangers reach.
        same_scores: Of the probes with their own person, float64 (M,).
        best_stranger_scores: Highest score of each with anybody else, as if not in the gallery.
        roc: Of the probes with their own person and all strangers.
    """

    def __init__(
        self, model: str, probes: ProbeSet, calibration: Calibration, *, seconds: float, photos: int
    ) -> None:
        self.model, self.probe_set, self.calibration = model, probes, calibration
        self.seconds, self.photos_per_s = seconds, photos / max(seconds, 1e-9)
        failures = np.full(len(probes.failures), np.nan)
        self.probes = len(probes.right) + len(failures)
        # Somebody else for each probe, drawn at random, the same for the same probe set.
        draw = np.random.default_rng(1)
        other = draw.integers(0, len(probes.people) - 1, len(probes.right))
        other += other >= probes.right
        same = np.repeat([True, False], [len(other) + len(failures), len(other)])
        pairs = np.concatenate([probes.pairs(probes.right), failures, probes.pairs(other)])
        self.pairs = len(same)
        self.accuracy = share(cross_validated(pairs, same)[0] * len(same), len(same))
        self.threshold = best_threshold(pairs, same)
        level = min(self.threshold, _cosine_at(calibration, score_at(HONEST[0])))
        self.strangers = LikenessHistogram()
        close: list[tuple[NDArray[Any], ...]] = []

        def count(rows: NDArray[np.intp], values: Floats32) -> None:
            self.strangers.add(values[np.isfinite(values)])
            if sum(len(block[0]) for block in close) < _CLOSE:
                hits, columns = np.nonzero(values >= level)
                close.append((rows[hits], columns, values[hits, columns]))

        self.found = identify(probes, count)
        self.close = tuple(map(np.concatenate, zip(*close, strict=True)))
        self.same_scores = calibration.scores(self.found.own)
        self.best_stranger_scores = calibration.scores(self.found.best)
        self.same_median = float(np.median(self.same_scores))
        self.best_stranger_median = float(np.median(self.best_stranger_scores))
        heights, counts = self.strangers.heights()
        rare = heights[np.cumsum(counts[::-1])[::-1] <= FAR * counts.sum()]
        self.strict = float(rare[0]) if len(rare) else float(heights[-1]) + 1 / _PER_UNIT
        own = np.concatenate([self.found.own, failures])
        # Both sides rounded to the histogram's bins.
        self.roc = roc_of(
            np.repeat([True, False], [len(own), len(heights)]),
            np.rint(np.concatenate([own, heights]) * _PER_UNIT) / _PER_UNIT,
            np.concatenate([np.ones(len(own)), counts]),
        )

    def rank(self, k: int) -> Share:
        """Probes whose person was among the k most alike."""
        return share(int((self.found.ranks < k).sum()), self.probes)

    def tar(self, far: float) -> Share:
        """Probes accepted as their own person where at most that share of strangers is."""
        return share(self.roc.tar_at(far) * self.probes, self.probes)

    def reached(self, score: float) -> Share:
        """Pairs of strangers with that score or more."""
        reached = self.strangers.at_least(_cosine_at(self.calibration, score))
        return share(reached, self.strangers.total)


def _cosine_at(calibration: Calibration, score: float) -> float:
    """The cosine that has a score."""
    cosines = np.linspace(-1, 1, 2 * _PER_UNIT + 1)
    return float(cosines[np.searchsorted(calibration.scores(cosines), score)])
