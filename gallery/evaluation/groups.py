"""Whether a backbone works as well for some people as for others.

Everybody is judged at the same thresholds. The strangers of a group are the others of the same
group: those are the hard ones. Whether a gap is more than chance is asked of random divisions of
the same people into groups of the same sizes (a permutation test over people, since the photos of
one person stand and fall together).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gallery.evaluation.counts import MEASURES, Counts, counts_of
from gallery.evaluation.evidence import Evidence, Share, share
from gallery.evaluation.people import KINDS, Known, spelled

__all__ = ["FEWEST", "MEASURES", "Gap", "Group", "Grouping", "groupings"]

FEWEST: Final = 20  # people from which on a group is judged
_COMPARED: Final = ("accuracy", "rank_1", "strangers_30")
_RESAMPLINGS: Final = 399
_DIVISIONS: Final = (99, 999)  # at least, at most
_WORK: Final = 3e8  # likenesses looked at for one permutation test, about
_UNLIKELY: Final = 0.01
_MEDIAN_OF: Final = 2_000_000  # pairs of strangers in a group that its median is taken of


@dataclass(frozen=True, slots=True)
class Group:
    """People who have a label in common.

    Attributes:
        name: The label.
        people: How many.
        probes: How many photos of them were looked up.
        pairs: How many pairs of probes with others of the group were judged.
        measures: Shares by name, one of ``MEASURES``; empty if there are too few people.
        same_median: Score of the same person; NaN if there are too few people.
        strangers_median: Score of two people of the group; the same.
    """

    name: str
    people: int
    probes: int
    pairs: int
    measures: Mapping[str, Share]
    same_median: float = float("nan")
    strangers_median: float = float("nan")


@dataclass(frozen=True, slots=True)
class Gap:
    """How far the best and the worst group are apart.

    Attributes:
        measure: One of ``MEASURES``.
        best: Name of the group.
        best_value: From 0 to 1.
        worst: Name of the group.
        worst_value: From 0 to 1.
        chance: Share of random divisions with at least that gap.
        divisions: How many were tried.
    """

    measure: str
    best: str
    best_value: float
    worst: str
    worst_value: float
    chance: float
    divisions: int

    @property
    def exceeds_chance(self) -> bool:
        """Whether random divisions hardly ever have such a gap."""
        return self.chance < _UNLIKELY


@dataclass(frozen=True, slots=True)
class Grouping:
    """One way to part people.

    Attributes:
        kind: ``"category"``, ``"country"`` or ``"gender"``.
        judged: Groups of at least ``FEWEST`` people, by falling size.
        small: Groups too small to judge, by falling size.
        gaps: Between the judged ones, if there are several.
        unlabelled: How many people have no label of this kind.
    """

    kind: str
    judged: tuple[Group, ...]
    small: tuple[Group, ...]
    gaps: tuple[Gap, ...]
    unlabelled: int


def groupings(evidence: Evidence, known: Known) -> tuple[Grouping, ...]:
    """Everybody parted by category, country and gender, as far as labels are there."""
    counts = counts_of(evidence)
    return tuple(
        _grouping(kind, evidence, counts, known.labels[kind])
        for kind in KINDS
        if known.labels[kind]
    )


def _grouping(
    kind: str, evidence: Evidence, counts: Counts, labels: Mapping[str, tuple[str, ...]]
) -> Grouping:
    spellings = spelled(labels)
    columns = range(len(evidence.lineup.people))
    keys = [
        {value.casefold() for value in labels.get(evidence.lineup.name(column), ())}
        for column in columns
    ]
    members = {
        name: np.array([key in own for own in keys]) for key, name in sorted(spellings.items())
    }
    order = sorted(
        (name for name in members if members[name].any()), key=lambda name: -members[name].sum()
    )
    large = [name for name in order if members[name].sum() >= FEWEST]
    return Grouping(
        kind=kind,
        judged=tuple(_judged(name, evidence, counts, members[name]) for name in large),
        small=tuple(_small(name, counts, members[name]) for name in order if name not in large),
        gaps=_gaps(large, counts, np.array([members[name] for name in large])),
        unlabelled=sum(not own for own in keys),
    )


def _small(name: str, counts: Counts, members: NDArray[np.bool_]) -> Group:
    weights = members.astype(np.float64)
    return Group(
        name,
        int(members.sum()),
        int((weights * counts.probes).sum()),
        round(counts.pairs(weights)),
        {},
    )


def _judged(name: str, evidence: Evidence, counts: Counts, members: NDArray[np.bool_]) -> Group:
    bare = _small(name, counts, members)
    rows = np.flatnonzero(members[evidence.lineup.right])
    return Group(
        name,
        bare.people,
        bare.probes,
        bare.pairs,
        _measures(bare, counts.within(members), members),
        float(np.median(evidence.same_scores()[rows])) if len(rows) else float("nan"),
        _strangers_median(evidence, rows, np.flatnonzero(members)),
    )


def _measures(group: Group, counts: Counts, members: NDArray[np.bool_]) -> dict[str, Share]:
    """Each with the wider of two intervals: Wilson's, and that of people drawn anew.

    Drawing people anew knows that their photos stand and fall together; Wilson's knows that what
    never happened may yet.
    """
    from scipy.stats import bootstrap

    people = np.flatnonzero(members)

    def drawn(places: NDArray[np.intp], axis: int = -1) -> NDArray[np.float64]:
        del axis
        rows = np.atleast_2d(places)
        values = [
            [
                counts.measure(measure, np.bincount(row, minlength=len(members)).astype(np.float64))
                for row in rows
            ]
            for measure in MEASURES
        ]
        return np.array(values).reshape(len(MEASURES), *places.shape[:-1])

    interval = bootstrap(
        (people,),
        drawn,
        n_resamples=_RESAMPLINGS,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    found = {}
    for number, measure in enumerate(MEASURES):
        value = counts.measure(measure, members.astype(np.float64))
        of = group.pairs if measure.startswith("strangers") else group.probes
        wilson = share(value * of, of)
        found[measure] = Share(
            value * of,
            of,
            min(wilson.low, float(interval.low[number])),
            max(wilson.high, float(interval.high[number])),
        )
    return found


def _strangers_median(
    evidence: Evidence, rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> float:
    lineup = evidence.lineup
    step = 1 + len(rows) * len(columns) // _MEDIAN_OF
    found = [
        likeness[lineup.right[block][:, None] != columns]
        for block, likeness in lineup.among(rows[::step], columns)
    ]
    likenesses = np.concatenate([np.zeros(0, np.float32), *found])
    if not len(likenesses):
        return float("nan")
    return evidence.calibration.score(float(np.median(likenesses)))


def _gaps(names: Sequence[str], counts: Counts, members: NDArray[np.bool_]) -> tuple[Gap, ...]:
    if len(names) < 2:
        return ()
    from scipy.stats import permutation_test

    # Only who is in one of these groups is divided anew.
    people = np.flatnonzero(members.any(axis=0))
    inside = counts.within(np.logical_or.reduce(members))
    work = len(names) * (len(inside.whose) + len(people))
    divisions = int(np.clip(_WORK / work, *_DIVISIONS))

    def values(measure: str, order: NDArray[np.intp]) -> list[float]:
        weights = np.zeros(members.shape)
        weights[:, people] = members[:, order]
        return [inside.measure(measure, row) for row in weights]

    gaps = []
    for measure in _COMPARED:
        found = values(measure, people)

        def gap(order: NDArray[np.intp], measure: str = measure) -> float:
            heights = values(measure, order)
            return max(heights) - min(heights)

        test = permutation_test(
            (people,),
            gap,
            permutation_type="pairings",
            vectorized=False,
            n_resamples=divisions,
            alternative="greater",
            rng=np.random.default_rng(0),
        )
        low, high = int(np.argmin(found)), int(np.argmax(found))
        best, worst = (low, high) if measure.startswith("strangers") else (high, low)
        gaps.append(
            Gap(
                measure,
                names[best],
                found[best],
                names[worst],
                found[worst],
                float(test.pvalue),
                divisions,
            )
        )
    return tuple(gaps)
