"""How alike a face and a person are: bounds, order, and evenness between few and many portraits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gallery.likeness import evened_norms, person_cosines


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def likeness(query: NDArray[np.float64], portraits: NDArray[np.float64], backbone: str) -> float:
    norm = np.array([np.linalg.norm(portraits.sum(axis=0))])
    norms = evened_norms(norm, np.array([len(portraits)]), backbone)
    index = np.zeros(len(portraits), np.int64)
    return float(person_cosines(portraits @ query, index, norms)[0])


seeds = st.integers(0, 10_000)
backbones = st.sampled_from(["dlib", "resnet", "senet", "another"])


@given(seed=seeds, backbone=backbones)
def test_one_portrait_is_its_own_cosine(seed: int, backbone: str) -> None:
    query, portrait = unit(np.random.default_rng(seed).normal(size=(2, 16)) + 0.8)

    expected = query @ portrait

    assert likeness(query, portrait[None], backbone) == pytest.approx(expected, abs=1e-9)


@given(seed=seeds, count=st.integers(1, 6), backbone=backbones)
def test_the_very_picture_reaches_one(seed: int, count: int, backbone: str) -> None:
    """Whatever other portraits the person has."""
    portraits = unit(np.random.default_rng(seed).normal(size=(count, 16)))

    assert likeness(portraits[0], portraits, backbone) == pytest.approx(1, abs=1e-9)


@given(seed=seeds, count=st.integers(1, 6), raised=st.floats(0, 1), backbone=backbones)
def test_it_never_falls_when_a_portrait_comes_nearer(
    seed: int, count: int, raised: float, backbone: str
) -> None:
    rng = np.random.default_rng(seed)
    cosines = rng.uniform(-1, 1, count)
    norms = evened_norms(np.array([rng.uniform(0, count)]), np.array([count]), backbone)
    nearer = cosines.copy()
    nearer[0] += raised * (1 - nearer[0])

    before, after = (person_cosines(c, np.zeros(count, int), norms)[0] for c in (cosines, nearer))

    assert -1 <= before <= after + 1e-12 <= 1 + 1e-12


@pytest.mark.parametrize(("backbone", "same", "strangers"), [("dlib", 0.96, 0.83)])
def test_strangers_are_found_as_often_with_one_portrait_as_with_four(
    backbone: str, same: float, strangers: float
) -> None:
    """Made-up people with dlib's likenesses; without evening it would be four times as often."""
    rng = np.random.default_rng(0)
    dimensions, everybody = 128, 1_000
    common = unit(rng.normal(size=dimensions))

    def photos_of(faces: NDArray[np.float64], count: int) -> NDArray[np.float64]:
        noise = unit(rng.normal(size=(len(faces), count, dimensions)))
        return unit(np.sqrt(same) * faces[:, None] + np.sqrt(1 - same) * noise)

    spread = unit(rng.normal(size=(2 * everybody + 300, 24)) @ rng.normal(size=(24, dimensions)))
    mixing = np.sqrt(strangers / same)
    faces = unit(mixing * common + np.sqrt(1 - mixing**2) * spread)
    counts = np.repeat([1, 4], everybody)
    one = photos_of(faces[:everybody], 1).reshape(-1, dimensions)
    four = photos_of(faces[everybody : 2 * everybody], 4)
    vectors = np.concatenate([one, four.reshape(-1, dimensions)])
    sums = np.concatenate([np.ones(everybody), np.linalg.norm(four.sum(axis=1), axis=1)])
    index = np.repeat(np.arange(2 * everybody), counts)
    probes = photos_of(faces[2 * everybody :], 1)[:, 0]

    evened = person_cosines(probes @ vectors.T, index, evened_norms(sums, counts, backbone))
    plain = person_cosines(probes @ vectors.T, index, sums)
    ten_evened, ten_plain = (np.argsort(-found, axis=1)[:, :10] for found in (evened, plain))

    assert 0.35 < np.mean(counts[ten_evened] == 1) < 0.65
    assert np.mean(counts[ten_plain] == 1) < 0.35
