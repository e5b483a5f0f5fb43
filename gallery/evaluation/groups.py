"""Where a backbone is wrong: groups of people it works worse for, and its worst mistakes.

Everybody is judged at the same thresholds. The strangers of a group are the others of the same
group: those are the hard ones. Whether a gap is more than chance is asked of random divisions of
the same people into groups of the same sizes (a permutation test over people, since the photos of
one person stand and fall together).
"""

from collections.abc import Hashable, Mapping, Sequence
from copy import copy
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from gallery.evaluation.measures import Measures, Share, share
from gallery.evaluation.photos import KINDS, PeopleLabels, spellings
from gallery.likeness import Flags, Floats, Ints
from gallery.scores import SAME_PERSON_SCORE, score_at
from gallery.scores.fit import COPY

FEWEST: Final = 20  # people from which on a group is judged
# Shares measured of a group; the last two are of strangers who reach the score of that rarity.
MEASURES: Final = ("accuracy", "rank_1", "tar", "strangers_1_in_100", "strangers_1_in_1000")
_COMPARED: Final = ("accuracy", "rank_1", "strangers_1_in_100")
_DIVISIONS: Final = (99, 999)  # at least, at most
_WORK: Final = 3e8  # likenesses looked at for one permutation test, about
_MEDIAN_OF: Final = 2_000_000  # pairs of strangers in a group that its median is taken of

_SAME_PERSON: Final = SAME_PERSON_SCORE - 8  # two people hardly ever have it, one mostly has
_STRANGER: Final = score_at(1e-2)  # a score that 1 in 100 strangers have
_DOUBTFUL: Final = score_at(1e-4)  # a score that few photos of one person are below


class Group(NamedTuple):
    """People who have a label in common; one of fewer than ``FEWEST`` people is not judged."""

    name: str
    people: int
    probes: int  # photos of them that were looked up
    stranger_pairs: int  # of these with others of the group
    measures: Mapping[str, Share] = MappingProxyType({})  # by name, one of ``MEASURES``
    same_person_median: float = float("nan")  # score of the same person
    strangers_median: float = float("nan")  # score of two people of the group


class Gap(NamedTuple):
    """How far the best and the worst group are apart in one of ``MEASURES``, from 0 to 1."""

    measure: str
    best: str
    best_value: float
    worst: str
    worst_value: float
    share_of_random_divisions: float  # with at least that gap
    divisions: int  # how many were tried

    @property
    def exceeds_chance(self) -> bool:
        """Whether random divisions hardly ever have such a gap."""
        return self.share_of_random_divisions < 0.01


class Grouping(NamedTuple):
    """People parted by category, country or gender; groups by falling size."""

    kind: str
    judged: tuple[Group, ...]  # of at least ``FEWEST`` people
    small: tuple[Group, ...]
    gaps: tuple[Gap, ...]  # between the judged ones, if there are several
    unlabelled: int  # people without a label of this kind


class _Counts:
    """Probes by their person, float64 (K,), and close strangers, (H,).

    ``whose`` is the column of each close pair's probe, ``like`` the one that it is like; ``right``
    are probes judged rightly and ``reached`` 1.0 for pairs that reach a level, both by measure.
    """

    def __init__(self, measures: Measures) -> None:
        probe_set, found = measures.probe_set, measures.found
        people = len(probe_set.people)

        def by_person(columns: Ints) -> Floats:
            return np.bincount(columns, minlength=people).astype(np.float64)

        numbers = np.array([number for number, _ in probe_set.failures], np.int64)
        lost = np.searchsorted(probe_set.people, numbers[np.isin(numbers, probe_set.people)])
        self.found = by_person(probe_set.right)
        self.probes = self.found + by_person(lost)  # those without a face as well
        judged = {
            "accuracy": found.own >= measures.threshold,
            "rank_1": found.ranks < 1,
            "tar": found.own >= measures.strict,
        }
        self.right = {name: by_person(probe_set.right[one]) for name, one in judged.items()}
        probes, self.like, likenesses = measures.close
        self.whose = probe_set.right[probes]
        scores = measures.calibration.scores(likenesses)
        levels = {
            "accuracy": likenesses >= measures.threshold,
            "strangers_1_in_100": scores >= score_at(1e-2),
            "strangers_1_in_1000": scores >= score_at(1e-3),
        }
        self.reached = {name: one.astype(np.float64) for name, one in levels.items()}

    def within(self, members: Flags) -> Self:
        """With the pairs inside one group only."""
        inside, fewer = members[self.whose] & members[self.like], copy(self)
        fewer.whose, fewer.like = self.whose[inside], self.like[inside]
        fewer.reached = {name: one[inside] for name, one in self.reached.items()}
        return fewer

    def pairs(self, weights: Floats) -> float:
        """Probes with others; whoever counts twice is no stranger to themselves."""
        mine = weights * self.found
        return float(mine.sum() * weights.sum() - (weights * mine).sum())

    def measure(self, name: str, weights: Floats) -> float:
        """One of ``MEASURES`` where everybody counts so many times: float64 (K,)."""
        strangers = 0.0
        if name in self.reached:
            together = weights[self.whose] * weights[self.like] * self.reached[name]
            strangers = float(together.sum() / max(self.pairs(weights), 1.0))
        if name not in self.right:
            return strangers
        right = float((weights * self.right[name]).sum() / (weights * self.probes).sum())
        return (right + 1 - strangers) / 2 if name == "accuracy" else right


def group_people(measures: Measures, labels: PeopleLabels) -> tuple[Grouping, ...]:
    """Everybody parted by category, country and gender, as far as labels are there."""
    counts, known = _Counts(measures), labels.labels
    return tuple(_grouping(one, measures, counts, known[one]) for one in KINDS if known.get(one))


def _grouping(
    kind: str, measures: Measures, counts: _Counts, labels: Mapping[str, tuple[str, ...]]
) -> Grouping:
    columns = range(len(measures.probe_set.people))
    own = [labels.get(measures.probe_set.name(column), ()) for column in columns]
    keys = [{value.casefold() for value in values} for values in own]
    members = {
        name: np.array([key in one for one in keys])
        for key, name in sorted(spellings(labels).items())
    }
    order = sorted((name for name in members if any(members[name])), key=lambda n: -sum(members[n]))
    groups = [_group(name, measures, counts, members[name]) for name in order]
    judged = tuple(group for group in groups if group.measures)
    names = [group.name for group in judged]
    gaps = _gaps(names, counts, np.array([members[name] for name in names]))
    small = tuple(group for group in groups if not group.measures)
    return Grouping(kind, judged, small, gaps, unlabelled=sum(not one for one in keys))


def _group(name: str, measures: Measures, counts: _Counts, members: Flags) -> Group:
    weights = members.astype(np.float64)
    sizes = int(members.sum()), int(weights @ counts.probes), round(counts.pairs(weights))
    if sizes[0] < FEWEST:
        return Group(name, *sizes)
    rows = np.flatnonzero(members[measures.probe_set.right])
    shares = _shares(counts.within(members), members, *sizes[1:])
    median = float(np.median(measures.same_scores[rows])) if len(rows) else float("nan")
    columns, probe_set = np.flatnonzero(members), measures.probe_set
    step = 1 + len(rows) * len(columns) // _MEDIAN_OF
    others = [
        values[probe_set.right[block][:, None] != columns]
        for block, values in probe_set.likenesses(rows[::step], columns)
    ]
    likeness = np.median(np.concatenate(others)) if len(rows) else np.nan
    strangers = measures.calibration.score(float(likeness))
    return Group(name, *sizes, shares, median, strangers)


def _shares(counts: _Counts, members: Flags, probes: int, pairs: int) -> dict[str, Share]:
    """Each with the wider of two intervals: Wilson's, and that of people drawn anew.

    The one knows that what never happened may yet, the other that a person's photos stand together.
    """
    from scipy.stats import bootstrap

    people = np.flatnonzero(members)

    def drawn(places: NDArray[np.intp], axis: int = -1) -> Floats:
        del axis
        rows = np.atleast_2d(places)
        weights = [np.bincount(row, minlength=len(members)).astype(np.float64) for row in rows]
        values = [[counts.measure(name, one) for one in weights] for name in MEASURES]
        return np.array(values).reshape(len(MEASURES), *places.shape[:-1])

    rng = np.random.default_rng(0)
    resampled = bootstrap((people,), drawn, n_resamples=399, method="percentile", rng=rng)
    interval = resampled.confidence_interval
    found = {}
    for name, low, high in zip(MEASURES, interval.low, interval.high, strict=True):
        of = pairs if name.startswith("strangers") else probes
        wilson = share(counts.measure(name, members.astype(np.float64)) * of, of)
        widest = min(wilson.low, float(low)), max(wilson.high, float(high))
        found[name] = Share(wilson.count, of, *widest)
    return found


def _gaps(names: Sequence[str], counts: _Counts, members: Flags) -> tuple[Gap, ...]:
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

        how: Any = {"permutation_type": "pairings", "rng": np.random.default_rng(0)}
        test = permutation_test((people,), gap, n_resamples=divisions, alternative="greater", **how)
        low, high = int(np.argmin(found)), int(np.argmax(found))
        best, worst = (low, high) if measure.startswith("strangers") else (high, low)
        apart = (names[best], found[best], names[worst], found[worst])
        gaps.append(Gap(measure, *apart, float(test.pvalue), divisions))
    return tuple(gaps)


class LabelledPhoto(NamedTuple):
    """A photo, the part it plays, such as ``"looked up"``, and whom it shows by its label."""

    file: Path
    role: str
    name: str


class Mistake(NamedTuple):
    """Two or three photos that a backbone took for something else than their labels say."""

    photos: tuple[LabelledPhoto, ...]
    score: float  # of the first with the second
    own_score: float | None  # of the first with whom it is said to show; None if that is the second
    suspicion: str | None  # why the label is likely wrong, as a sentence


class Mistakes(NamedTuple):
    """The worst of each kind, worst first."""

    accepts: tuple[Mistake, ...]  # two people who look most alike
    rejects: tuple[Mistake, ...]  # two photos of one person that look least alike
    confusions: tuple[Mistake, ...]  # photos whose person did not come first
    confused: int  # how many of these there are altogether

    def suspicious(self) -> list[tuple[LabelledPhoto, str]]:
        """Photos whose label is likely wrong, each once, and why."""
        everything = (*self.confusions, *self.rejects, *self.accepts)
        chosen = {one.photos[0].file: one for one in reversed(everything) if one.suspicion}
        return [(one.photos[0], str(one.suspicion)) for one in reversed(chosen.values())]


def find_mistakes(measures: Measures, *, shown: int) -> Mistakes:  # noqa: C901 - three kinds
    """Picks the worst of each kind, at most so many of each."""
    probe_set, found = measures.probe_set, measures.found
    right, best = probe_set.right.tolist(), found.best_columns.tolist()
    own_scores, best_scores = measures.same_scores, measures.best_stranger_scores
    name = probe_set.name

    def mistake(row: int, roles: Mapping[str, int], suspicion: str | None) -> Mistake:
        photos = [LabelledPhoto(probe_set.probe_files[row], "looked up", name(right[row]))]
        for role, column in roles.items():
            photos.append(LabelledPhoto(probe_set.closest(row, column)[0], role, name(column)))
        columns, own, other = [*roles.values()], float(own_scores[row]), float(best_scores[row])
        if columns == [right[row]]:
            return Mistake(tuple(photos), own, None, suspicion)
        return Mistake(tuple(photos), other, own if right[row] in columns else None, suspicion)

    def whose(row: int, otherwise: str | None) -> str | None:
        """Whom a photo shows that is hardly like its own person, and like another in person."""
        if own_scores[row] < _DOUBTFUL and best_scores[row] >= _SAME_PERSON:
            return f"Likely labelled wrong: it seems to show {name(best[row])}."
        return otherwise

    def accept(row: int) -> Mistake:
        suspicion = None
        if probe_set.closest(row, best[row])[1] >= COPY:
            suspicion = "Likely one picture under two names."
        elif best_scores[row] >= _SAME_PERSON:
            suspicion = whose(row, "Likely one person under two names, or a wrong label.")
        return mistake(row, {"taken for": best[row]}, suspicion)

    def reject(row: int) -> Mistake:
        somebody = own_scores[row] < _STRANGER
        suspicion = whose(row, "Likely a photo of somebody else.") if somebody else None
        return mistake(row, {"in the gallery": right[row]}, suspicion)

    def confusion(row: int) -> Mistake:
        absent = "Likely a photo of somebody else, who is not in the gallery."
        suspicion = whose(row, absent if own_scores[row] < _STRANGER else None)
        return mistake(row, {"found": best[row], "should be": right[row]}, suspicion)

    couples = [frozenset(pair) for pair in zip(right, best, strict=True)]
    confused = np.where(found.ranks > 0, -found.best, np.inf)
    return Mistakes(
        accepts=tuple(accept(row) for row in _lowest(-found.best, couples, shown)),
        rejects=tuple(reject(row) for row in _lowest(found.own, right, shown)),
        confusions=tuple(confusion(row) for row in _lowest(confused, right, shown)),
        confused=int(np.isfinite(confused).sum()),
    )


def _lowest(values: Floats, keys: Sequence[Hashable], count: int) -> list[int]:
    """Places of the lowest values that are finite, each key once."""
    chosen: dict[Hashable, int] = {}
    for place in np.argsort(values, kind="stable").tolist():
        if len(chosen) == count or np.isinf(values[place]):
            break
        chosen.setdefault(keys[place], place)
    return list(chosen.values())
