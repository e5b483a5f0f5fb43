"""The trial of a gallery's backbones: whether an ensemble of them beats each one alone.

The people are split into two halves: what is learned from one (calibrations, weights, the
ensemble's own calibration) is judged on the other, and the other way round. Every way of comparing
answers two questions about each probe: does its person come first (rank 1), and is it more alike
to its person than all but 1 in 1,000 strangers are (TAR at FAR 0.1 %)?
"""

from __future__ import annotations

import datetime as dt
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import reduce
from itertools import product
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import GalleryCorrupt
from engine.types import Space
from gallery.likeness import Flags, Floats, Floats32, Ints
from gallery.scores import Calibration, Stored, fit
from gallery.scores.ensemble import BEST, Ensemble, Member

if TYPE_CHECKING:
    from gallery.gallery import Gallery
    from gallery.store import Store

log = logging.getLogger(__name__)

# Of a kept trial: raised with every change of ``SCORE_TABLE``, because an ensemble's calibration is
# of mean scores, which mean something else then; 1 had 10 to 50 and 90 for the rarities.
FORMAT: Final = 2
FAR: Final = 1e-3  # false accept rate at which true accepts are counted
# So many people with two portraits each make 3,120 pairs of strangers: the least of which 1 in
# 1,000 is a few, and enough for the law of the tail (``fit.stranger_quantiles``).
FEWEST_LEARNED: Final = 40
FEWEST_PEOPLE: Final = 2 * FEWEST_LEARNED  # one half is learned from, the other judged
_SIGNIFICANT: Final = 0.05  # a difference that chance makes more often than that is none
_WEIGHED: Final = 200  # people that weights are learned from at most
_STRANGERS: Final = 2_000_000  # pairs that a calibration is learned from at most
_MOST_PEOPLE: Final = 800  # beyond that a trial gets slower and hardly any surer
_PORTRAITS: Final = 4  # of one person at most, so that a few with hundreds do not decide
_AGAIN_AFTER: Final = 0.1  # part of a space's rows that must be new before the trial is repeated
_ENOUGH: Final = 0.9  # of the portraits must be in a space that takes part


class Outcome(StrEnum):
    """What a trial says; the value is how it is stored."""

    HELPS = "helps"
    NOT_BETTER = "not better"
    TOO_FEW = "too few people"


@dataclass(frozen=True, slots=True)
class Figures:
    """Shares of probes whose person came first, and that pass where ``FAR`` of strangers do."""

    rank_1: float
    tar: float

    @property
    def right(self) -> float:
        """Share of both questions about all probes that were answered rightly."""
        return (self.rank_1 + self.tar) / 2


@dataclass(frozen=True, slots=True)
class Trial(Stored):
    """Whether several backbones are better together, as so many people and probes say.

    Figures and chances are by backbone, the ensemble's figures under ``BEST``; there are none of an
    ensemble that shrank to one backbone, or of too few people.
    """

    outcome: Outcome
    people: int
    probes: int
    backbones: tuple[str, ...]
    figures: Mapping[str, Figures] = field(default_factory=dict)
    chances: Mapping[str, float] = field(default_factory=dict)  # that it is so much better
    ensemble: Ensemble | None = None  # learned from everybody
    date: str = ""  # the day, as in 2026-11-22
    rows: Mapping[str, int] = field(default_factory=dict)  # vectors in the gallery by space id

    @property
    def offered(self) -> Ensemble | None:
        """The ensemble, if it beats each of its backbones."""
        return self.ensemble if self.outcome is Outcome.HELPS else None

    @property
    def best_alone(self) -> str | None:
        """The backbone that is best alone; None where nothing was measured."""
        alone = {name: one for name, one in self.figures.items() if name != BEST}
        return max(alone, key=lambda name: alone[name].right) if alone else None


class Probes(NamedTuple):
    """Cosines or scores of probes to people, in each of several spaces.

    Every portrait is a probe: it is held against everybody else as a search would, and against its
    own person as the person's other portraits show them.
    """

    owners: Ints  # (N,): whose each probe is, as a place among the P people; rising
    people: int
    cosines: dict[Space, Floats32]  # (N, P)

    def of(self, chosen: Ints) -> Probes:
        """The probes of these people, held against these people only."""
        mine = np.isin(self.owners, chosen)
        fewer = {space: one[np.ix_(mine, chosen)] for space, one in self.cosines.items()}
        return Probes(np.searchsorted(chosen, self.owners[mine]), len(chosen), fewer)

    def own(self) -> Flags:
        """Which pairs are of a probe and its own person: bool (N, P)."""
        return np.asarray(np.arange(self.people) == self.owners[:, None])

    def pairs(self, values: Floats32) -> fit.OwnPairs:
        """Cosines or fused values (N, P) of all pairs, as calibrations are learned from."""
        own = self.own()
        strangers = values[~own]
        if len(strangers) > _STRANGERS:
            strangers = np.random.default_rng(0).choice(strangers, _STRANGERS, replace=False)
        return fit.OwnPairs(strangers, values[own], self.people, self.people)


def draw_probes(vectors: Mapping[Space, Floats32], person_ids: Ints) -> Probes:
    """The portraits of people with two or more that are no copies of each other.

    At most 800 people with 4 portraits each, the same ones every time. The unit vectors, float32
    (N, D) per space, are row by row of the same photos; ``person_ids`` (N,) are in any order.
    """
    draw = np.random.default_rng(0)
    several = _several(person_ids)
    chosen = [np.zeros(0, np.intp)]
    for place in draw.permutation(len(several)):
        own = several[place][: 2 * _PORTRAITS]
        # A copy is what every space takes for the picture of an earlier row.
        alike = np.logical_and.reduce([fit.copies(one[own]) for one in vectors.values()])
        own = own[~alike.any(axis=1)]
        if len(own) > 1:
            chosen.append(draw.permutation(own)[:_PORTRAITS])
        if len(chosen) > _MOST_PEOPLE:
            break
    rows = np.concatenate(chosen)
    rows = rows[np.argsort(person_ids[rows], kind="stable")]
    owners = np.unique(person_ids[rows], return_inverse=True)[1].astype(np.int64)
    cosines = {space: _cosines(space, one[rows], owners) for space, one in vectors.items()}
    return Probes(owners, int(owners[-1]) + 1 if len(owners) else 0, cosines)


def _several(person_ids: Ints) -> list[NDArray[np.intp]]:
    """The places of everybody who has more than one, by rising id."""
    order = np.argsort(person_ids, kind="stable")
    starts = np.flatnonzero(np.diff(person_ids[order])) + 1
    return [rows for rows in np.split(order, starts) if len(rows) > 1]


def _cosines(space: Space, vectors: Floats32, owners: Ints) -> Floats32:
    """Of every row to every person, without itself: float32 (N, P)."""
    if len(owners) == 0:
        return np.zeros((0, 0), np.float32)
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    norms = fit.person_norms(vectors, starts, space.backbone)
    blocks = fit.cosine_blocks(vectors, vectors, owners, norms)
    found = np.concatenate([cosines.astype(np.float32) for _, cosines in blocks])
    split = np.split(vectors, starts[1:])
    own = [fit.to_the_rest(rows, np.arange(len(rows)), space.backbone) for rows in split]
    found[np.arange(len(owners)), owners] = np.concatenate(own)
    return found


def _halves(people: int, *, seed: int) -> tuple[Ints, Ints]:
    """Two halves of so many people, drawn at random: places, rising."""
    order = np.random.default_rng(seed).permutation(people)
    return np.sort(order[: people // 2]), np.sort(order[people // 2 :])


def learn_ensemble(
    probes: Probes, calibrations: Mapping[Space, Calibration] | None = None
) -> Ensemble | None:
    """An ensemble of two or more spaces of different backbones; None where one alone is as good.

    The plain mean of the scores is what fusion begins with. A backbone without which it is as good
    is left out: a face would be embedded for nothing. Other weights take the mean's place only
    where they tell people that they were not learned from apart better, beyond chance.

    Fewer than ``FEWEST_LEARNED`` people teach nothing. The calibrations say how cosines become
    scores; None: as the probes teach.
    """
    if probes.people < FEWEST_LEARNED:
        return None
    cosines = probes.cosines
    known = calibrations or {one: fit.fit_pairs(one, probes.pairs(cosines[one])) for one in cosines}
    scores = {one: known[one].scores(cosines[one]).astype(np.float32) for one in cosines}
    weights = _weights(probes._replace(cosines=scores))
    if len(weights) < 2:
        return None
    order = sorted(weights, key=lambda space: (-weights[space], space.id))
    members = tuple(Member(space, weights[space], known[space]) for space in order)
    # A stand-in, so that values are fused in one place only; its scores are not asked for.
    values = Ensemble(members, known[order[0]]).fused([cosines[space] for space in order])
    calibration = fit.fit_without_prior(BEST, probes.pairs(values.astype(np.float32)))
    return None if calibration is None else Ensemble(members, calibration)


def _weights(scored: Probes) -> dict[Space, float]:
    """Weights of the spaces that take part; they sum to 1."""
    scored = _necessary(scored)
    plain = np.full(len(scored.cosines), 1 / len(scored.cosines))
    fitted_right, plain_right, owners = [], [], []
    halves = _halves(scored.people, seed=1)
    for train, test in (halves, halves[::-1]):
        held = scored.of(test)
        fitted_right.append(_right(held, _searched(scored.of(train))))
        plain_right.append(_right(held, plain))
        owners.append(test[held.owners])
    p = _sign_test(*map(np.concatenate, (fitted_right, plain_right, owners)))
    # A tenth at least: below, a network's time buys nothing that anybody would notice.
    weights = (_searched(scored) if p < _SIGNIFICANT else plain).tolist()
    return {space: one for space, one in zip(scored.cosines, weights, strict=True) if one}


def _necessary(scored: Probes) -> Probes:
    """With the spaces without which the mean would be worse beyond chance; at least two."""

    def right(some: Sequence[Space]) -> Ints:
        fewer = scored._replace(cosines={space: scored.cosines[space] for space in some})
        return _right(fewer, np.full(len(some), 1 / len(some)))

    members = list(scored.cosines)
    while len(members) > 2:
        everybody = right(members)
        others = [[other for other in members if other != space] for space in members]
        missed = [_sign_test(everybody, right(some), scored.owners) for some in others]
        if max(missed) < _SIGNIFICANT:
            break
        del members[int(np.argmax(missed))]
    return scored._replace(cosines={space: scored.cosines[space] for space in members})


def _searched(scored: Probes) -> Floats:
    """The weights, in tenths, that answer most rightly; the fewest, then the most even of several.

    On other people as good as those of a logistic regression, to 0.1 % of answers in the mean, for
    two and three made-up spaces that err differently often.
    """
    some = scored.of(np.arange(0, scored.people, -(-scored.people // _WEIGHED)))
    tenths = [one for one in product(range(11), repeat=len(scored.cosines)) if sum(one) == 10]
    shares = [np.array(one) / 10 for one in tenths]
    return max(shares, key=lambda one: (_right(some, one).sum(), (one == 0).sum(), -np.ptp(one)))


def run_trial(
    vectors: Mapping[Space, Floats32],
    person_ids: Ints,
    calibrations: Mapping[Space, Calibration] | None = None,
) -> Trial:
    """Tries an ensemble of spaces on photos of people whose names are known; a second per space.

    The spaces are two or more of different backbones; for vectors and ``person_ids`` see
    ``draw_probes``. The calibrations say how the ensemble that is kept turns cosines into scores;
    None: as these photos teach. What is judged is learned from one half either way.
    """
    ordered = {space: vectors[space] for space in sorted(vectors, key=lambda space: space.id)}
    names = [space.backbone for space in ordered]
    probes = draw_probes(ordered, person_ids)
    today = dt.datetime.now(dt.UTC).date().isoformat()
    sizes, tried = (probes.people, len(probes.owners)), tuple(sorted(names))
    found = Trial(Outcome.TOO_FEW, *sizes, tried, date=today)
    if probes.people < FEWEST_PEOPLE:
        return found
    one, other = _halves(probes.people, seed=0)
    rounds = [_judged(probes.of(one), probes.of(other)), _judged(probes.of(other), probes.of(one))]
    owners = np.concatenate([other[probes.of(other).owners], one[probes.of(one).owners]])
    answers = {
        name: np.concatenate([each[name] for each in rounds], axis=1)
        for name in (*names, BEST)
        if all(name in each for each in rounds)
    }
    right = {name: one.sum(axis=0) for name, one in answers.items()}
    beside = names if BEST in answers else []
    chances = {name: _sign_test(right[BEST], right[name], owners) for name in beside}
    figures = {name: Figures(*one.mean(axis=1).tolist()) for name, one in answers.items()}
    ensemble = learn_ensemble(probes, calibrations)
    # Nowhere worse than any backbone alone, and better than each beyond chance.
    helps = ensemble is not None and all(
        chance < _SIGNIFICANT
        and figures[BEST].rank_1 >= figures[name].rank_1
        and figures[BEST].tar >= figures[name].tar
        for name, chance in (chances or {BEST: 1.0}).items()
    )
    outcome = Outcome.HELPS if helps else Outcome.NOT_BETTER
    return replace(found, outcome=outcome, figures=figures, chances=chances, ensemble=ensemble)


def _judged(known: Probes, held: Probes) -> dict[str, Flags]:
    """``_answered`` of each backbone, and of the ensemble learned from some people, on others."""
    found = {space.backbone: _answered(one, held.owners) for space, one in held.cosines.items()}
    ensemble = learn_ensemble(known)
    if ensemble is not None:
        values = ensemble.fused([held.cosines[space] for space in ensemble.spaces])
        found[BEST] = _answered(values, held.owners)
    return found


def _answered(values: NDArray[np.floating], owners: Ints) -> Flags:
    """Whether each probe's person comes first, and passes where FAR of the strangers do: (2, N)."""
    rows, others = np.arange(len(owners)), values.copy()
    own = values[rows, owners]
    others[rows, owners] = -np.inf
    strangers = others[np.isfinite(others)]
    accepted = int(FAR * len(strangers))
    threshold = np.partition(strangers, len(strangers) - 1 - accepted)[-1 - accepted]
    return np.stack([own > others.max(axis=1, initial=-np.inf), own > threshold])


def _right(scored: Probes, weights: Floats) -> Ints:
    """How many of both questions a weighted mean answers rightly about each probe: 0 to 2."""
    mean = np.tensordot(weights, np.stack([*scored.cosines.values()]), axes=1)
    return np.asarray(_answered(mean, scored.owners).sum(axis=0))


def _sign_test(one: NDArray[np.integer], other: NDArray[np.integer], owners: Ints) -> float:
    """How likely, in (0, 1], chance alone makes one way of comparing so much better than another.

    The sign test by person, because a person's photos are easy or hard together: of those for whom
    the two differ in how many probes (N,) were judged rightly, how many fare better with the first?
    """
    balance = np.bincount(owners, weights=one.astype(np.float64) - other)
    better, count = int((balance > 0).sum()), int(np.count_nonzero(balance))
    ways = sum(math.comb(count, more) for more in range(better, count + 1))
    return float(ways / 2**count)


def read_trial(gallery: Store) -> Trial | None:
    """The trial that was kept last; None if there is none, or it makes no sense (any more)."""
    record = gallery.finding(BEST)
    try:
        return Trial.from_json(record) if record and record["format"] == FORMAT else None
    except (KeyError, TypeError, ValueError):
        return None


def try_ensemble(gallery: Gallery) -> Trial | None:
    """Finds out whether the gallery's backbones are better together, if enough has changed.

    For the process that writes (``Gallery.writing``). Seconds, however large the gallery is. None
    of one backbone, or where vectors can't be read: a build mends those, and is not held up by it.
    """
    gallery.refresh()
    known, rows = read_trial(gallery), _rows(gallery)
    counts = {space.id: count for space, count in rows.items()}
    if len(rows) < 2:
        if known is not None:
            _keep(gallery, None)
        return None
    if (
        known is not None
        and known.rows.keys() == counts.keys()
        and all(abs(n - known.rows[name]) <= _AGAIN_AFTER * n for name, n in counts.items())
    ):
        return known
    try:
        portraits, persons = np.ascontiguousarray(_sample(gallery, rows).T)
        vectors = {space: gallery.vectors(space, portraits) for space in rows}
        calibrations = {space: gallery.calibration(space) for space in rows}
        trial = replace(run_trial(vectors, persons, calibrations), rows=counts)
    except (GalleryCorrupt, FileNotFoundError) as problem:
        log.warning("models not tried together", extra={"reason": str(problem)})
        return None
    _keep(gallery, trial)
    return trial


def _rows(gallery: Gallery) -> dict[Space, int]:
    """The spaces that hold nearly all portraits, one per backbone, and how many vectors each."""
    stats = gallery.stats()
    fullest = {
        space.backbone: (space, count)
        for space, count in sorted(stats.vectors.items(), key=lambda item: (item[1], item[0].id))
        if count > 0 and count >= _ENOUGH * stats.portraits
    }
    return dict(fullest.values())


def _sample(gallery: Gallery, spaces: Iterable[Space]) -> Ints:
    """Ids and owners (N, 2) of portraits, in all spaces, of as many people as a trial takes.

    Twice as many portraits of each, because it leaves out copies.
    """
    everywhere = reduce(np.intersect1d, [gallery.embedded(space) for space in spaces])
    owners = gallery.portrait_owners()
    owners = owners[np.isin(owners[:, 0], everywhere)]
    several = _several(owners[:, 1])
    chosen = np.random.default_rng(0).permutation(len(several))[:_MOST_PEOPLE]
    rows = [several[one][: 2 * _PORTRAITS] for one in chosen]
    return np.asarray(owners[np.concatenate([np.zeros(0, np.intp), *rows])])


def _keep(gallery: Gallery, trial: Trial | None) -> None:
    with gallery.transaction() as changes:
        changes.keep_finding(BEST, {"format": FORMAT, **trial.to_json()} if trial else None)
