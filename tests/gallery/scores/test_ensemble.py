"""Several backbones as one: searched exactly, offered only where they are better together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_people import MadeUp, alike, bad, fill, independent, person_ids, unit
from numpy.typing import NDArray

from engine.errors import GalleryMissing
from engine.types import Embedding, Space
from gallery.build import learn_scores
from gallery.gallery import Gallery
from gallery.scores import SCORE_TABLE, Calibration, prior, score_at
from gallery.scores.ensemble import BEST, Ensemble, Member, fused_top
from gallery.scores.trial import (
    FEWEST_LEARNED,
    FEWEST_PEOPLE,
    FORMAT,
    Outcome,
    Trial,
    draw_probes,
    learn_ensemble,
    read_trial,
    run_trial,
    try_ensemble,
)
from gallery.search.cache import PersonRows
from gallery.search.index import GalleryIndex
from gallery.vector_file import VectorFile

NONE = np.empty(0, np.int64)


def space(backbone: str, dimensions: int) -> Space:
    return Space(backbone, "c" * 64, 1, dimensions)


def ensemble_of(*spaces: Space, weights: Sequence[float] | None = None) -> Ensemble:
    """An ensemble with the calibrations that the program comes with."""
    shares = weights or [1 / len(spaces)] * len(spaces)
    members = tuple(
        Member(one, share, prior(one)) for one, share in zip(spaces, shares, strict=True)
    )
    calibration = prior(spaces[0])
    fused = Calibration(BEST, calibration.strangers, calibration.same_person)
    return Ensemble(members, fused)


def index_of(
    folder: Path, where: Space, vectors: NDArray[np.float32], persons: NDArray[np.int64]
) -> GalleryIndex:
    file = VectorFile.create(folder, where)
    portraits = 2 * persons + np.arange(len(persons)) % 2  # the same ids in every space
    file.append(0, vectors)
    rows = np.arange(len(vectors))
    found = np.stack([persons, portraits, rows], axis=1)
    return GalleryIndex(file, PersonRows.of(file, len(rows), found), 1)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    people=st.integers(1, 900),
    k=st.integers(1, 12),
    noise=st.floats(0.05, 3),
    weight=st.floats(0.1, 0.9),
    lacking=st.sampled_from([0.0, 0.3]),
    grouped=st.booleans(),
)
def test_the_search_finds_what_comparing_everybody_finds(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    people: int,
    k: int,
    noise: float,
    weight: float,
    lacking: float,
    grouped: bool,
) -> None:
    """Also where some people are in one space only, are equal, or may not be found."""
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("spaces")
    spaces = (space("resnet", 12), space("dlib", 7))
    ensemble = ensemble_of(*spaces, weights=(weight, 1 - weight))
    indexes, queries, everybody = [], [], np.arange(1, people + 1)
    for one in spaces:
        faces = rng.standard_normal((people + 1, one.dimensions))
        faces[people // 2 + 1 :] = faces[1 : people - people // 2 + 1]  # doubles: ids decide
        persons = np.repeat(everybody[rng.random(people) >= lacking], 2)
        if len(persons) == 0:
            return
        vectors = unit(faces[persons] + noise * rng.standard_normal((1, one.dimensions)))
        indexes.append(index_of(folder / one.id, one, vectors, persons))
        queries.append(Embedding(unit(rng.standard_normal(one.dimensions)), one))
    group = set(rng.integers(1, people + 1, max(1, people // 3)).tolist()) if grouped else None
    allowed = [
        None if group is None else np.isin(index.person_ids, list(group)) for index in indexes
    ]
    expected = brute_force(ensemble, indexes, queries, group)[:k]
    if not expected:
        with pytest.raises(GalleryMissing):
            fused_top(ensemble, indexes, queries, k, allowed=allowed)
        return
    found = fused_top(ensemble, indexes, queries, k, allowed=allowed)
    assert [(hit.person_id, hit.cosine) for hit in found] == expected
    assert all(hit.portrait_id // 2 == hit.person_id for hit in found)


def brute_force(
    ensemble: Ensemble,
    indexes: Sequence[GalleryIndex],
    queries: Sequence[Embedding],
    group: set[int] | None,
) -> list[tuple[int, float]]:
    """(person, fused value) for everybody who is in every space, best first."""
    cosines = [
        {hit.person_id: hit.cosine for hit in index.top(query, 10_000)}
        for index, query in zip(indexes, queries, strict=True)
    ]
    shared = set.intersection(*(set(one) for one in cosines))
    if group is not None:
        shared &= group
    values = {person: float(ensemble.fused([one[person] for one in cosines])) for person in shared}
    return sorted(values.items(), key=lambda item: (-item[1], item[0]))


@given(
    cosines=st.lists(st.floats(-1, 1), min_size=2, max_size=2),
    higher=st.floats(0, 2),
    weight=st.floats(0.01, 0.99),
)
def test_a_fused_value_never_falls_when_a_cosine_rises(
    cosines: list[float], higher: float, weight: float
) -> None:
    ensemble = ensemble_of(space("senet", 4), space("dlib", 4), weights=(weight, 1 - weight))
    low = float(ensemble.fused(cosines))
    assert -1 <= low <= 1
    assert float(ensemble.fused([min(1.0, cosines[0] + higher), cosines[1]])) >= low
    assert float(ensemble.fused([1.0, 1.0])) == 1.0
    assert np.isnan(ensemble.fused([float("nan"), cosines[1]]))


def test_an_ensemble_has_two_backbones_and_whole_weights() -> None:
    one, other = space("resnet", 4), space("senet", 4)
    for spaces, weights in (
        ((one,), (1.0,)),
        ((one, one), (0.5, 0.5)),
        ((one, other), (1.0, 0.0)),
        ((one, other), (0.5, 0.6)),
    ):
        with pytest.raises(ValueError, match="ensemble"):
            ensemble_of(*spaces, weights=weights)


@pytest.mark.parametrize(
    ("make", "outcome"),
    [
        pytest.param(independent, Outcome.HELPS, id="two networks that err independently"),
        pytest.param(alike, Outcome.NOT_BETTER, id="the same network twice"),
        pytest.param(bad, Outcome.NOT_BETTER, id="one that knows nobody"),
    ],
)
def test_an_ensemble_is_offered_only_where_it_helps(
    make: Callable[[NDArray[np.int64]], MadeUp], outcome: Outcome
) -> None:
    trial = on(make, people=200, portraits=3)
    assert trial.outcome is outcome
    assert (trial.people, trial.probes) == (200, 600)
    if outcome is Outcome.HELPS:
        best, *others = (trial.figures[name] for name in (BEST, "resnet", "senet"))
        assert all(best.rank_1 > one.rank_1 and best.tar > one.tar for one in others)
        assert max(trial.chances.values()) < 1e-6
        assert trial.ensemble is not None
        assert sorted(trial.ensemble.backbones) == ["resnet", "senet"]


def test_a_network_that_knows_nobody_gets_no_say_beside_two_that_do() -> None:
    whose = person_ids(200, 3)
    made = independent(whose)
    made["dlib"] = bad(whose)["senet"]
    trial = run_trial({space(name, v.shape[1]): v for name, v in made.items()}, whose)
    assert trial.outcome is Outcome.HELPS
    assert trial.ensemble is not None
    assert sorted(trial.ensemble.backbones) == ["resnet", "senet"]


def test_fused_scores_mean_what_scores_mean_on_people_not_seen() -> None:
    """1 in 100 strangers reach 50 and 1 in 1,000 reach 65; the same person 95 in the median."""
    whose = person_ids(300, 3)
    made = {space(name, v.shape[1]): v for name, v in independent(whose).items()}
    probes = draw_probes(made, whose)
    known, held = probes.of(np.arange(150)), probes.of(np.arange(150, 300))
    ensemble = learn_ensemble(known)
    assert ensemble is not None
    values = ensemble.fused([held.cosines[one] for one in ensemble.spaces])
    scores, own = ensemble.calibration.scores(values), held.own()
    assert np.mean(scores[~own] >= score_at(1e-2)) == pytest.approx(1e-2, rel=0.33)
    assert np.mean(scores[~own] >= score_at(1e-3)) == pytest.approx(1e-3, rel=0.5)
    assert 92 < np.median(scores[own]) < 97


def test_too_few_people_say_nothing() -> None:
    trial = on(independent, people=FEWEST_PEOPLE - 1, portraits=3)
    assert trial.outcome is Outcome.TOO_FEW
    assert trial.ensemble is None
    assert on(independent, people=500, portraits=1).people == 0


@pytest.mark.parametrize("people", [1, 2, 7, FEWEST_LEARNED - 1, FEWEST_LEARNED])
def test_too_few_people_teach_nothing(people: int) -> None:
    whose = person_ids(people, 2)
    spaces = [space(name, 64) for name in ("resnet", "senet")]
    vectors = dict(zip(spaces, independent(whose).values(), strict=True))
    ensemble = learn_ensemble(draw_probes(vectors, whose))
    assert (ensemble is not None) == (people == FEWEST_LEARNED)


def test_copies_of_one_picture_are_one_portrait() -> None:
    whose = person_ids(30, 2)
    made = {name: v.copy() for name, v in independent(whose).items()}
    for copied in made.values():
        copied[1::2] = copied[::2]
    spaces = [space(name, v.shape[1]) for name, v in made.items()]
    vectors = dict(zip(spaces, made.values(), strict=True))
    assert draw_probes(vectors, whose).people == 0
    made["senet"][1::2] = unit(made["senet"][1::2] + 1.0)  # one network sees two pictures
    assert draw_probes(vectors, whose).people == 30


def on(make: Callable[[NDArray[np.int64]], MadeUp], *, people: int, portraits: int) -> Trial:
    whose = person_ids(people, portraits)
    vectors = {space(name, v.shape[1]): v for name, v in make(whose).items()}
    return run_trial(vectors, whose)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Gallery]:
    with Gallery.open(tmp_path / "gallery") as gallery:
        yield gallery


def test_the_trial_is_kept_with_the_gallery_until_a_tenth_has_changed(opened: Gallery) -> None:
    fill(opened, independent, people=120, portraits=2)
    trial = try_ensemble(opened)
    assert trial is not None
    assert trial.outcome is Outcome.HELPS
    assert trial.rows == {one.id: 240 for one in opened.spaces()}
    opened.refresh()
    assert opened.trial() == trial == read_trial(opened)
    assert Trial.from_json(trial.to_json()) == trial
    revision = opened.revision()
    assert try_ensemble(opened) == trial
    assert opened.revision() == revision  # nothing was written
    fill(opened, independent, people=10, portraits=2)
    assert try_ensemble(opened) == trial
    fill(opened, independent, people=10, portraits=2)
    again = try_ensemble(opened)
    assert again is not None
    assert again.people == 140


def test_a_trial_on_another_scale_is_refused_and_repeated(opened: Gallery) -> None:
    """As kept before trials had a format, or with another one, or with what is no trial."""
    fill(opened, independent, people=90, portraits=2)
    trial = try_ensemble(opened)
    assert trial is not None
    kept = opened.finding(BEST)
    assert kept is not None
    for other in (trial.to_json(), kept | {"format": kept["format"] - 1}, {"format": 2}, {}):
        with opened.transaction() as changes:
            changes.keep_finding(BEST, other)
        assert read_trial(opened) is None
    assert try_ensemble(opened) == trial
    assert opened.finding(BEST) == kept


def test_the_format_of_a_trial_is_that_of_the_score_table() -> None:
    """Whoever changes the table raises the number, because old ensembles mean something else."""
    scores = [score for _, score in SCORE_TABLE]
    assert (FORMAT, scores) == (2, [1, 4, 10, 30, 50, 65, 75, 82, None, None])


def test_a_gallery_on_postgresql_says_the_same(
    opened: Gallery, postgres_url: str, tmp_path: Path
) -> None:
    """The same trial, and the same people for the same face."""
    with Gallery.open(tmp_path / "elsewhere", postgres_url) as other:
        found = []
        for gallery in (opened, other):
            fill(gallery, independent, people=90, portraits=2)
            for one in gallery.spaces():
                learn_scores(gallery, one)
            trial = try_ensemble(gallery)
            assert trial is not None
            ensemble = trial.offered
            assert ensemble is not None
            gallery.refresh()
            assert gallery.trial() == trial
            rng = np.random.default_rng(6)
            probe = [Embedding(unit(rng.standard_normal(64)), one) for one in ensemble.spaces]
            matches = gallery.fused_matches(ensemble, probe, 12)
            found.append(
                (trial.figures, [(one.person.name, round(one.score, 2)) for one in matches])
            )
        assert found[0] == found[1]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_damaged_vectors_of_one_model_hold_nothing_up(
    opened: Gallery, damage: Callable[[Path], object]
) -> None:
    fill(opened, independent, people=90, portraits=2)
    (resnet,) = (one for one in opened.spaces() if one.backbone == "resnet")
    for path in opened.space_folder(resnet).iterdir():
        damage(path)
    assert try_ensemble(opened) is None
    opened.refresh()
    assert opened.trial() is None


def test_one_backbone_has_no_trial(opened: Gallery) -> None:
    fill(opened, lambda whose: {"dlib": bad(whose)["senet"]}, people=100, portraits=2)
    assert try_ensemble(opened) is None
    assert opened.trial() is None
    fill(opened, alike, people=100, portraits=2)  # not everybody has vectors of both now
    assert try_ensemble(opened) is None


def test_people_are_found_by_both_together(opened: Gallery) -> None:
    """The portrait is the person's own, and the score of two that agree exceeds either."""
    fill(opened, independent, people=120, portraits=2)
    for one in opened.spaces():
        learn_scores(opened, one)
    trial = try_ensemble(opened)
    assert trial is not None
    ensemble = trial.offered
    assert ensemble is not None
    ids = opened.embedded(ensemble.spaces[0])
    probe = [
        Embedding(unit(opened.vectors(one, ids[:1])[0] + 0.02), one) for one in ensemble.spaces
    ]
    matches = opened.fused_matches(ensemble, probe, 3)
    best = matches[0]
    assert best.person.name == "Person 0"
    assert best.portrait.person_id == best.person.id
    assert [part.backbone for part in best.member_scores] == list(ensemble.backbones)
    assert best.score > 87
    assert [one.score for one in matches] == sorted((one.score for one in matches), reverse=True)
    for match in matches:
        alone = [
            opened.calibration(one).score(part.cosine)
            for one, part in zip(ensemble.spaces, match.member_scores, strict=True)
        ]
        assert [part.score for part in match.member_scores] == pytest.approx(alone)
    with pytest.raises(GalleryMissing):
        opened.fused_matches(ensemble, probe, 3, category="film")
