"""Everything that an evaluation report tells, for several backbones on the same photos."""

from __future__ import annotations

import datetime as dt
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from engine.errors import SetupProblem
from engine.pipeline import Engine
from engine.types import Box
from gallery.calibration import fit
from gallery.evaluation_evidence import Evidence, Share, gather
from gallery.evaluation_groups import Grouping, groupings
from gallery.evaluation_lineup import line_up, photos_by_person
from gallery.evaluation_mistakes import Mistake, Mistakes, mistakes
from gallery.evaluation_people import Known
from gallery.evaluation_photos import look_with
from gallery.report import Progress, no_progress

__all__ = [
    "FARS",
    "PROMISES",
    "RANKS",
    "Column",
    "EvaluationReport",
    "advice",
    "evaluate_people",
    "grouping_json",
    "share_json",
]

PROMISES: Final = ((10.0, 2), (20.0, 10), (30.0, 100), (40.0, 1_000), (50.0, 10_000))
"""Scores, and one in how many strangers is said to reach them."""

FARS: Final = (1e-1, 1e-2, 1e-3, 1e-4)
RANKS: Final = (1, 2, 3, 5, 10, 20)
_SHOWN: Final = 8  # mistakes of each kind; half as many where several backbones show theirs


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
            "space": evidence.lineup.space.id,
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


def evaluate_people(
    engine: Engine,
    folder: Path,
    *,
    backbones: Sequence[str],
    unavailable: Mapping[str, str],
    gallery_photos: int,
    known: Known,
    progress: Progress = no_progress,
) -> EvaluationReport:
    """Looks people up with several backbones; every photo is seen once.

    Args:
        engine: Sees and embeds.
        folder: Arranged as for `lookalike gallery add`.
        backbones: Which to compare, at least one.
        unavailable: Why others are not among them.
        gallery_photos: How many photos of each person, the first by name, are the gallery.
        known: What is known of the people.
        progress: Told how far it is.

    Raises:
        SetupProblem: If a backbone can't be used, or there are too few people or faces.
    """
    started = time.perf_counter()
    everybody = photos_by_person(folder)
    enough = {who: files for who, files in everybody.items() if len(files) > gallery_photos}
    if len(enough) < 2:
        raise SetupProblem(
            f"{folder} has {len(enough)} people with more than {gallery_photos} photos, and two "
            "are needed; choose fewer with --gallery-photos"
        )
    files = [file for photos in enough.values() for file in photos]
    sightings = look_with(engine, backbones, files, progress=progress)
    columns = []
    for done, (name, seen) in enumerate(sightings.items()):
        progress("models", done, len(sightings))
        lineup = line_up(seen, enough, gallery_photos)
        evidence = gather(
            name,
            lineup,
            fit(seen.space, lineup.gallery, lineup.owners),
            seconds=seen.seconds,
            photos=len(files),
        )
        shown = _SHOWN if len(sightings) == 1 else _SHOWN // 2
        columns.append(
            Column(evidence, groupings(evidence, known), mistakes(evidence, shown=shown))
        )
    progress("models", len(sightings), len(sightings))
    any_seen, root = next(iter(sightings.values())), folder.resolve()
    return EvaluationReport(
        date=dt.datetime.now().astimezone(),
        people=len(enough),
        gallery_photos=gallery_photos,
        skipped=tuple(sorted(set(everybody) - set(enough))),
        photos=len(files),
        probes=columns[0].evidence.probes,
        faceless={
            str(file.relative_to(root)): why for file, why in sorted(any_seen.failures.items())
        },
        boxes=any_seen.boxes,
        columns=tuple(columns),
        unavailable=unavailable,
        known=known,
        seconds=time.perf_counter() - started,
    )


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
