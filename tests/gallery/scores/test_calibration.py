"""Scores mean what they say, on people that the calibration has not seen, and never fall."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from engine.types import Space
from gallery.likeness import evened_norms, person_cosines
from gallery.scores import SHARES, Calibration, make_calibration, prior, score_at
from gallery.scores.fit import fit_calibration

BACKBONES = ("dlib", "resnet", "senet", "another")
Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]


def space(backbone: str = "resnet", dimensions: int = 48) -> Space:
    return Space(backbone, "0" * 64, 1, dimensions)


def unit(vectors: NDArray[np.floating]) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def made_up(people: int, photos: int, seed: int) -> tuple[Vectors, Ids]:
    """People whose photos have a cosine of 0.7, of strangers 0.25 +- 0.12."""
    rng = np.random.default_rng(seed)
    common = unit(np.random.default_rng(99).normal(size=48))
    faces = unit(np.sqrt(0.36) * common + np.sqrt(0.64) * unit(rng.normal(size=(people, 48))))
    noise = unit(rng.normal(size=(people, photos, 48)))
    vectors = unit(np.sqrt(0.7) * faces[:, None] + np.sqrt(0.3) * noise)
    return vectors.reshape(-1, 48), np.repeat(np.arange(people), photos)


def likenesses(
    probes: Vectors, vectors: Vectors, ids: Ids, backbone: str = "resnet"
) -> NDArray[np.floating]:
    starts = np.flatnonzero(np.diff(ids, prepend=-1))
    norms = np.linalg.norm(np.add.reduceat(vectors, starts, axis=0), axis=1)
    return person_cosines(probes @ vectors.T, ids, evened_norms(norms, np.bincount(ids), backbone))


def never_falls(calibration: Calibration) -> None:
    """From 0 to 100, strictly; rarity from 1 to 1e10."""
    places = np.unique(np.round([*np.linspace(-1, 1, 4_001), *calibration.strangers], 12))
    scores = calibration.scores(places)
    assert np.all(np.diff(scores) > 0)
    assert (scores[0], scores[-1]) == (0, 100)
    rarity = [calibration.one_in(place) for place in places[::50]]
    assert np.all(np.diff(rarity) >= 0)
    assert (calibration.one_in(-1), calibration.one_in(1)) == (1, pytest.approx(1e10))


# --- what a score means -----------------------------------------------------------------------


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_anchors_are_where_the_table_says(backbone: str) -> None:
    calibration = prior(space(backbone))

    for share, score in ((0.5, 10), (0.1, 30), (1e-2, 50), (1e-3, 65), (1e-4, 75), (1e-5, 82)):
        cosine = calibration.strangers[SHARES.index(share)]
        assert calibration.score(cosine) == pytest.approx(score)
        assert calibration.one_in(cosine) == pytest.approx(1 / share)
    assert calibration.score(calibration.same_person) == pytest.approx(95)
    assert calibration.score(1) == 100
    never_falls(calibration)


def test_dlibs_prior_tells_the_same_photo_from_another() -> None:
    """0.998 is what recompression, scaling and cropping leave of 1, in the median."""
    calibration = prior(space("dlib", 128))

    assert calibration.score(0.998) > 99
    assert calibration.score(0.84) < 15


@pytest.mark.parametrize("photos", [1, 3])
def test_scores_are_honest_about_people_never_seen(photos: int) -> None:
    """The bars: 1 % within a factor 1.5, 0.1 % within 2, the same person 91, a stranger 58-79."""
    vectors, ids = made_up(600, photos, seed=1)
    calibration = fit_calibration(space(), vectors, ids)
    others, their_ids = made_up(600, photos + 1, seed=2)
    probes = others[photos :: photos + 1]
    known = np.flatnonzero(np.arange(len(others)) % (photos + 1) < photos)

    strangers = calibration.scores(likenesses(probes, vectors, ids))
    own = likenesses(probes, others[known], their_ids[known]).diagonal()

    assert 1 / 1.5 < np.mean(strangers >= score_at(1e-2)) / 1e-2 < 1.5
    assert 1 / 2 < np.mean(strangers >= score_at(1e-3)) / 1e-3 < 2
    assert np.median(calibration.scores(own)) >= 91
    assert 58 <= np.median(strangers.max(axis=1)) <= 79


def test_a_gallery_outweighs_the_prior_as_it_grows() -> None:
    """Ten people say little about 1 in 1,000, six hundred nearly everything."""
    believed = prior(space()).strangers[SHARES.index(1e-3)]
    truth = fit_calibration(space(), *made_up(2_000, 2, seed=3)).strangers[SHARES.index(1e-3)]
    assert abs(truth - believed) > 0.01

    away = [
        abs(
            fit_calibration(space(), *made_up(people, 2, seed=4)).strangers[SHARES.index(1e-3)]
            - truth
        )
        for people in (3, 600)
    ]

    assert away[0] > 0.5 * abs(truth - believed)
    assert away[1] < 0.25 * abs(truth - believed)


def test_one_portrait_each_leaves_the_same_person_to_the_prior() -> None:
    calibration = fit_calibration(space(), *made_up(300, 1, seed=5))

    assert calibration.same_person == prior(space()).same_person
    assert (calibration.people, calibration.people_again) == (300, 0)


# Measured with dlib, each population alone: what SHARES of strangers reach, and the same person.
LFW = (0.7553, 0.7939, 0.8401, 0.8823, 0.9112, 0.9302, 0.9448, 0.9559, 0.9644, 0.9709), 0.9601
FILM = (0.7323, 0.7774, 0.8295, 0.8764, 0.9069, 0.9248, 0.9371, 0.9454, 0.9511, 0.9549), 0.9598


@pytest.mark.parametrize(("strangers", "same_person"), [LFW, FILM])
def test_a_measured_median_is_not_moved(strangers: tuple[float, ...], same_person: float) -> None:
    """Only one that lies within what two populations' strangers differ by is moved up."""
    calibration = make_calibration("dlib", np.array(strangers), same_person)
    assert calibration.same_person == same_person
    assert calibration.score(same_person) == pytest.approx(95)

    last = strangers[SHARES.index(1e-5)]
    moved = make_calibration("dlib", np.array(strangers), last)
    assert (moved.same_person - last) / (1 - last) == pytest.approx(0.03)


# --- what does no harm ------------------------------------------------------------------------


def test_wrong_names_do_little_harm() -> None:
    """Every fortieth photo is of somebody else: the same person and the strangers stay."""
    vectors, ids = made_up(400, 4, seed=6)
    right = fit_calibration(space(), vectors, ids)
    swapped = np.arange(0, len(vectors), 40)
    vectors[swapped] = vectors[np.roll(swapped, 1)]

    wrong = fit_calibration(space(), vectors, ids)

    assert right.score(wrong.same_person) == pytest.approx(95, abs=1)
    for share in (1e-2, 1e-3):
        cosine = wrong.strangers[SHARES.index(share)]
        assert right.one_in(cosine) == pytest.approx(1 / share, rel=0.35)


def test_copies_of_one_photo_teach_nothing_about_the_same_person() -> None:
    """Each portrait three times, recompressed: only real second photos count."""
    vectors, ids = made_up(300, 2, seed=7)
    rng = np.random.default_rng(0)
    noise = 0.03 * unit(rng.normal(size=(3, *vectors.shape)))
    copied = unit(vectors + noise).reshape(-1, vectors.shape[1])

    with_copies = fit_calibration(space(), copied, np.tile(ids, 3))

    assert with_copies.same_person == pytest.approx(
        fit_calibration(space(), vectors, ids).same_person, abs=0.02
    )
    only_copies = fit_calibration(space(), copied[::2], np.tile(ids, 3)[::2])
    assert only_copies.people_again == 0


@settings(max_examples=60)
@given(
    vectors=hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 40), st.just(4)),
        elements=st.sampled_from([-1.0, 0.0, 1e-3, 0.5, 1.0]),
    ),
    people=st.integers(1, 40),
    backbone=st.sampled_from(BACKBONES),
)
def test_whatever_the_gallery_scores_never_fall(
    vectors: Vectors, people: int, backbone: str
) -> None:
    """Nobody, one person, twins, one photo for all, opposite faces."""
    vectors = vectors[np.linalg.norm(vectors, axis=1) > 0]
    ids = np.arange(len(vectors)) % people

    calibration = fit_calibration(space(backbone, 4), unit(vectors), ids)

    never_falls(calibration)
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration


@pytest.mark.parametrize("backbone", BACKBONES)
def test_everybody_alike(backbone: str) -> None:
    """A network that sees no difference, as with random weights."""
    never_falls(
        fit_calibration(space(backbone, 4), np.full((500, 4), 0.5, np.float32), np.arange(500) // 2)
    )


def test_the_same_vectors_give_the_same_calibration() -> None:
    vectors, ids = made_up(50, 3, seed=8)

    assert fit_calibration(space(), vectors, ids) == fit_calibration(space(), vectors, ids)


# --- JSON -------------------------------------------------------------------------------------


def _without(record: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != key}


def test_a_damaged_record_is_refused() -> None:
    record = prior(space()).to_json()
    assert Calibration.from_json(record) == prior(space())
    strangers = record["strangers"]

    for damaged in (
        record | {"same_person": 0.1},
        record | {"same_person": 1.5},
        record | {"same_person": float("nan")},
        record | {"strangers": [*strangers[:2], 0.99, *strangers[3:]]},
        record | {"strangers": strangers[1:]},
        record | {"strangers": None},
        record | {"people": None},
        _without(record, "space_id"),
        None,
    ):
        with pytest.raises(ValueError, match="Calibration"):
            Calibration.from_json(damaged)
