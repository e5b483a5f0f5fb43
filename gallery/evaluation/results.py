"""What an evaluation found, and how it is printed as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gallery.scores import Calibration

__all__ = ["FAR", "Identification", "Verification"]

FAR: Final = 1e-3
_RANKS: Final = 20


@dataclass(frozen=True, slots=True, eq=False)
class Verification:
    """What came of labelled pairs.

    Attributes:
        model: Backbone.
        same: bool (N,), the labels.
        cosines: float64 (N,); NaN where a face was not found in one of the two.
        accuracy: Share of pairs judged rightly at the threshold that was best on the other folds;
            a pair without two faces is judged wrongly.
        accuracy_std: Standard deviation of that over the folds.
        threshold: The best one over all pairs, in cosine.
        roc_auc: Area under the ROC curve; a pair without two faces is never accepted.
        tar: Share of pairs of one person accepted where at most ``FAR`` of the others are.
        photos: How many different photos there are.
        faceless: Those in which no face was found, and why, by path as in the CSV file.
        calibration: Whose scores are reported.
        seconds: How long it took.
    """

    model: str
    same: NDArray[np.bool_] = field(repr=False)
    cosines: NDArray[np.float64] = field(repr=False)
    accuracy: float
    accuracy_std: float
    threshold: float
    roc_auc: float
    tar: float
    photos: int
    faceless: Mapping[str, str]
    calibration: Calibration = field(repr=False)
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As printed with ``--json``; shares from 0 to 1."""
        found = ~np.isnan(self.cosines)
        scores = self.calibration.scores(np.where(found, self.cosines, 0.0))
        return {
            "model": self.model,
            "pairs": len(self.same),
            "same": int(self.same.sum()),
            "different": int((~self.same).sum()),
            "failures": int((~found).sum()),
            "accuracy": self.accuracy,
            "accuracy_std": self.accuracy_std,
            "threshold": self.threshold,
            "roc_auc": self.roc_auc,
            "tar_at_far_1e-3": self.tar,
            "scores": _scores_json(
                self.calibration, scores[found & ~self.same], scores[found & self.same]
            ),
            "photos": self.photos,
            "photos_without_face": dict(self.faceless),
            "seconds": round(self.seconds, 3),
            "photos_per_s": round(self.photos / self.seconds, 1),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Identification:
    """What came of looking people up.

    Attributes:
        model: Backbone.
        gallery_photos: How many photos of each person were the gallery.
        people: How many people were looked up.
        skipped: Names of people with too few photos.
        ranks: int64 (probes,), how many people were at least as alike as the right one; people
            (as many as there are) for a probe that could not be found.
        failures: Probes without a face, or whose person has no face in the gallery.
        own: float64 (probes found,), likeness of each to its own person.
        strangers: float64, likenesses of the probes found to everybody else.
        best_strangers: float64 (probes found,), highest of each one's likenesses to strangers.
        photos: How many photos were looked at.
        faceless: Those in which no face was found, and why, by path below the folder.
        calibration: Learned from the gallery's photos.
        seconds: How long it took.
    """

    model: str
    gallery_photos: int
    people: int
    skipped: tuple[str, ...]
    ranks: NDArray[np.int64] = field(repr=False)
    failures: int
    own: NDArray[np.float64] = field(repr=False)
    strangers: NDArray[np.float64] = field(repr=False)
    best_strangers: NDArray[np.float64] = field(repr=False)
    photos: int
    faceless: Mapping[str, str]
    calibration: Calibration = field(repr=False)
    seconds: float

    def rank(self, k: int) -> float:
        """Share of all probes whose person was among the k most alike."""
        return float(np.mean(self.ranks < min(k, self.people)))

    def to_json(self) -> dict[str, Any]:
        """As printed with ``--json``; shares from 0 to 1."""
        learned = self.calibration
        scores = _scores_json(learned, learned.scores(self.strangers), learned.scores(self.own))
        best = learned.scores(self.best_strangers)
        return {
            "model": self.model,
            "gallery_photos": self.gallery_photos,
            "people": self.people,
            "probes": len(self.ranks),
            "failures": self.failures,
            "rank_1": self.rank(1),
            "rank_5": self.rank(5),
            "rank_k": {str(k): self.rank(k) for k in range(1, min(_RANKS, self.people) + 1)},
            "scores": scores | {"best_stranger_median": _median(best)},
            "people_skipped": list(self.skipped),
            "photos": self.photos,
            "photos_without_face": dict(self.faceless),
            "seconds": round(self.seconds, 3),
            "photos_per_s": round(self.photos / self.seconds, 1),
        }


def _scores_json(
    calibration: Calibration, strangers: NDArray[np.float64], same: NDArray[np.float64]
) -> dict[str, Any]:
    """How honest the scores are: what their meaning promises beside what was seen."""
    return {
        "learned_from_people": calibration.people,
        "same_person_median": _median(same),
        "strangers_median": _median(strangers),
        "strangers_at_least_30": _share(strangers, 30),
        "strangers_at_least_40": _share(strangers, 40),
        "strangers_at_least_50": _share(strangers, 50),
    }


def _median(scores: NDArray[np.float64]) -> float | None:
    return round(float(np.median(scores)), 2) if len(scores) else None


def _share(scores: NDArray[np.float64], least: float) -> float | None:
    return float(np.mean(scores >= least)) if len(scores) else None
