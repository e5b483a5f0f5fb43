"""Accuracy, ROC and their relatives, by scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import StratifiedKFold

from engine.errors import SetupProblem

__all__ = ["Judgement", "best_threshold", "cross_validated", "judged"]

_REJECTED = -2.0  # below every cosine


@dataclass(frozen=True, slots=True)
class Judgement:
    """What cosines are good for, over all pairs.

    Attributes:
        threshold: Cosine from which on pairs are accepted so that most are judged rightly.
        roc_auc: Area under the ROC curve.
        tar: Highest share of pairs of one person accepted where few enough others are.
    """

    threshold: float
    roc_auc: float
    tar: float


def cross_validated(
    cosines: NDArray[np.float64], same: NDArray[np.bool_], *, folds: int
) -> tuple[float, float]:
    """Accuracy at the threshold that is best on the other folds, and its deviation over folds.

    Args:
        cosines: float64 (N,); NaN where there is none, which counts as judged wrongly.
        same: bool (N,), the labels; at least 2 pairs of either kind.
        folds: How many at most; drawn at random, the same for the same pairs, with as many pairs
            of either kind in each.

    Raises:
        SetupProblem: If there are too few pairs, or too few with cosines.
    """
    folds = min(folds, int(same.sum()), int((~same).sum()))
    if folds < 2:
        raise SetupProblem("at least two pairs of either kind are needed")
    splitter = StratifiedKFold(folds, shuffle=True, random_state=0)
    right = np.zeros(len(same), np.bool_)
    shares = []
    for others, fold in splitter.split(cosines, same):
        threshold = best_threshold(cosines[others], same[others])
        right[fold] = (cosines[fold] >= threshold) == same[fold]
        right[fold] &= ~np.isnan(cosines[fold])
        shares.append(np.mean(right[fold]))
    return float(np.mean(right)), float(np.std(shares))


def judged(cosines: NDArray[np.float64], same: NDArray[np.bool_], *, far: float) -> Judgement:
    """Best threshold, area under the ROC curve and TAR at a FAR.

    A pair without a cosine (NaN) is never accepted.

    Raises:
        SetupProblem: If no pair of one or the other kind has a cosine.
    """
    heights = np.where(np.isnan(cosines), _REJECTED, cosines)
    false_accepts, true_accepts, _ = roc_curve(same, heights, drop_intermediate=False)
    return Judgement(
        threshold=best_threshold(cosines, same),
        roc_auc=float(roc_auc_score(same, heights)),
        tar=float(true_accepts[false_accepts <= far].max()),
    )


def best_threshold(cosines: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    """Halfway between the cosines that most pairs are judged rightly at."""
    there = ~np.isnan(cosines)
    cosines, same = cosines[there], same[there]
    if same.all() or not same.any():
        raise SetupProblem("faces were found in too few of the photos to judge pairs")
    false_accepts, true_accepts, thresholds = roc_curve(same, cosines, drop_intermediate=False)
    right = true_accepts * same.sum() + (1 - false_accepts) * (~same).sum()
    best = int(np.argmax(right))
    below = cosines[cosines < thresholds[best]]
    if best == 0 or len(below) == 0:  # accept none, or all
        return float(np.clip(thresholds[best], -1.0, 1.1))
    return float((thresholds[best] + below.max()) / 2)
