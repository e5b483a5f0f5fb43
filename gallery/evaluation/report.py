"""Everything that an evaluation report tells, for several backbones on the same photos."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from engine.types import Box
from gallery.evaluation.evidence import Evidence, Share
from gallery.evaluation.groups import Grouping
from gallery.evaluation.mistakes import Mistake, Mistakes
from gallery.evaluation.people import Known

__all__ = [
    "FARS",
    "PROMISES",
    "RANKS",
    "Column",
    "EvaluationReport",
    "advice",
    "grouping_json",
    "share_json",
]

PROMISES: Final = ((10.0, 2), (20.0, 10), (30.0, 100), (40.0, 1_000), (50.0, 10_000))
"""Scores, and one in how many strangers is said to reach them."""

FARS: Final = (1e-1, 1e-2, 1e-3, 1e-4)
RANKS: Final = (1, 2, 3, 5, 10, 20)


@dataclass(frozen=True, slots=True)
class Column:
    """One backbone's part of a report."""

    evidence: Evidence
    groupings: tuple[Grouping, ...]
    mistakes: Mistakes

    @property
    def model(self) -> str:
        """Name of the backbone."""
        return self.evidence.model

    @property
    def photos_per_s(self) -> float:
        """Photos seen and embedded in a second."""
        return self.evidence.photos / max(self.evidence.seconds, 1e-9)

    @property
    def same_median(self) -> float:
        """Score of another photo of the same person, in the median."""
        return float(np.median(self.evidence.same_scores()))

    @property
    def best_stranger_median(self) -> float:
        """Best score of somebody who is not in the gallery, in the median."""
        return float(np.median(self.evidence.best_stranger_scores()))

    def to_json(self) -> dict[str, Any]:
        """As printed with ``--json``; shares from 0 to 1."""
        evidence = self.evidence
        return {
            "model": self.model,
            "likenesses": evidence.lineup.described,
            "accuracy": share_json(evidence.accuracy),
            "roc_auc": evidence.roc_auc,
            "threshold": evidence.threshold,
            "tar_at_far": {f"{far:g}": share_json(evidence.tar(far)) for far in FARS},
            "rank_k": {str(k): share_json(evidence.rank(k)) for k in RANKS},
            "scores": {
                "learned_from_people": evidence.calibration.people,
                "same_person_median": _rounded(self.same_median),
                "best_stranger_median": _rounded(self.best_stranger_median),
                "strangers_at_least": {
                    f"{score:g}": share_json(evidence.reached(score)) for score, _ in PROMISES
                },
            },
            "groups": {grouping.kind: grouping_json(grouping) for grouping in self.groupings},
            "mistakes": {
                "identification": self.mistakes.confused,
                "likely_wrong_labels": [_mistake_json(one) for one in _suspicious(self.mistakes)],
            },
            "photos_per_s": round(self.photos_per_s, 1),
        }


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """What came of looking people up with each backbone.

    Attributes:
        date: When, local time.
        people: How many people took part.
        gallery_photos: The first so many of each by name were the gallery.
        skipped: Names of people with too few photos.
        photos: How many photos were looked at.
        probes: How many of them were looked up.
        faceless: Photos without a face, and why, by path below the folder.
        boxes: Where the face is in each of the others.
        columns: One per backbone.
        unavailable: Backbones that can't be used here, and why.
        known: What the groups are made of.
        seconds: How long it took.
    """

    date: dt.datetime
    people: int
    gallery_photos: int
    skipped: tuple[str, ...]
    photos: int
    probes: int
    faceless: Mapping[str, str]
    boxes: Mapping[Path, Box] = field(repr=False)
    columns: tuple[Column, ...]
    unavailable: Mapping[str, str]
    known: Known = field(repr=False)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As printed with ``--json``."""
        return {
            "date": self.date.isoformat(timespec="seconds"),
            "people": self.people,
            "people_skipped": list(self.skipped),
            "gallery_photos": self.gallery_photos,
            "photos": self.photos,
            "probes": self.probes,
            "photos_without_face": dict(self.faceless),
            "labels_from": list(self.known.sources),
            "labels_of_nobody": list(self.known.strangers),
            "models": [column.to_json() for column in self.columns],
            "unavailable": dict(self.unavailable),
            "advice": advice(self.columns),
            "seconds": round(self.seconds, 1),
        }


def advice(columns: Sequence[Column]) -> str:
    """Which backbone to use, and why, in a sentence or two."""
    order = sorted(columns, key=lambda column: -column.evidence.rank(1).value)
    best = order[0]
    found = f"finds the right person first in {_percent(best.evidence.rank(1).value)} of photos"
    if len(order) == 1:
        return f"Use {best.model}: it is the only one that was measured, and it {found}."
    other = order[1]
    if _by_chance(best.evidence, other.evidence):
        quick = max((best, other), key=lambda column: column.photos_per_s)
        slow = other if quick is best else best
        return (
            f"Use {quick.model}: {best.model} and {other.model} find the right person equally "
            f"often, as far as these photos can tell ({_percent(best.evidence.rank(1).value)} and "
            f"{_percent(other.evidence.rank(1).value)}), and {quick.model} takes "
            f"{slow.evidence.seconds / max(quick.evidence.seconds, 1e-9):.1f} times less time."
        )
    return (
        f"Use {best.model}: it {found}, {other.model} in "
        f"{_percent(other.evidence.rank(1).value)}; that is more than chance."
    )


def share_json(share: Share) -> dict[str, Any]:
    """A share with its interval of 95 %."""
    return {
        "share": _rounded(share.value, 6),
        "low": _rounded(share.low, 6),
        "high": _rounded(share.high, 6),
        "of": round(share.of),
    }


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _by_chance(one: Evidence, other: Evidence) -> bool:
    """Whether as many probes are found by either alone as chance would have it (McNemar 1947)."""
    from scipy.stats import binomtest

    first, second = (
        dict(zip(evidence.lineup.probe_files, evidence.found.ranks < 1, strict=True))
        for evidence in (one, other)
    )
    files = first.keys() | second.keys()
    alone = sum(bool(first.get(file)) and not second.get(file) for file in files)
    against = sum(bool(second.get(file)) and not first.get(file) for file in files)
    return alone + against == 0 or float(binomtest(alone, alone + against).pvalue) >= 0.05


def grouping_json(grouping: Grouping) -> dict[str, Any]:
    """A grouping as printed with ``--json``."""
    return {
        "groups": [
            {
                "name": group.name,
                "people": group.people,
                "probes": group.probes,
                "stranger_pairs": group.pairs,
                **{name: share_json(value) for name, value in group.measures.items()},
                "same_person_median": _rounded(group.same_median),
                "strangers_median": _rounded(group.strangers_median),
            }
            for group in grouping.judged
        ],
        "too_small_to_judge": {group.name: group.people for group in grouping.small},
        "people_without_label": grouping.unlabelled,
        "gaps": [
            {
                "measure": gap.measure,
                "best": gap.best,
                "best_value": _rounded(gap.best_value, 6),
                "worst": gap.worst,
                "worst_value": _rounded(gap.worst_value, 6),
                "share_of_random_divisions": _rounded(gap.chance, 4),
                "exceeds_chance": gap.exceeds_chance,
            }
            for gap in grouping.gaps
        ],
    }


def _suspicious(found: Mistakes) -> list[Mistake]:
    """Mistakes whose label is likely wrong, each photo once."""
    everything = (*found.confusions, *found.rejects, *found.accepts)
    chosen = {one.photos[0].file: one for one in reversed(everything) if one.suspicion}
    return list(chosen.values())[::-1]


def _mistake_json(mistake: Mistake) -> dict[str, Any]:
    return {
        "photo": "/".join(mistake.photos[0].file.parts[-2:]),
        "labelled": mistake.photos[0].name,
        "suspicion": mistake.suspicion,
    }


def _rounded(value: float, digits: int = 2) -> float | None:
    return round(value, digits) if math.isfinite(value) else None
