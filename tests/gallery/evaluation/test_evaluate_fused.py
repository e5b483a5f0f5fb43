"""Two backbones that err on different photos are better together, and never judged by probes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from probe_sets import SPACE, around

from engine.types import Space
from gallery.evaluation.measures import Measures
from gallery.evaluation.photos import PhotoEmbeddings, ProbeSet, fuse, identify, split_photos
from gallery.scores import score_at

OTHER = replace(SPACE, backbone="resnet", weights_sha256="1" * 64)
PEOPLE, PHOTOS = 120, 6


def probe_set(space: Space, seed: int, noise: float, *, like: int | None = None) -> ProbeSet:
    """Everybody as one backbone sees them; with ``like``, the very same vectors as that seed's."""
    random = np.random.default_rng(seed if like is None else like)
    people = {
        f"Person {n}": [Path(f"/photos/{n}/{k}.jpg") for k in range(PHOTOS)] for n in range(PEOPLE)
    }
    vectors = {
        file: vector
        for files in people.values()
        for file, vector in zip(
            files,
            around(random, random.standard_normal(space.dimensions), PHOTOS, noise),
            strict=True,
        )
    }
    return split_photos(PhotoEmbeddings(space, vectors, {}, {}, 1.0, 0.5), people, 3)


@pytest.fixture(scope="module")
def together() -> ProbeSet:
    found = fuse([probe_set(SPACE, 1, 0.28), probe_set(OTHER, 2, 0.28)])
    assert found is not None
    return found


def test_together_they_find_more(together: ProbeSet) -> None:
    assert together.ensemble is not None
    measures = Measures("best", together, together.ensemble.calibration, seconds=1, photos=1)
    alone = [
        np.mean(identify(replace(together, vectors=(one,), ensemble=None)).ranks < 1)
        for one in together.vectors
    ]

    assert measures.rank(1).value > max(alone) + 0.02
    assert measures.reached(score_at(1e-2)).value == pytest.approx(0.01, abs=0.01)
    assert {"dlib", "resnet"} <= set(together.described.replace(",", " ").split())


def test_all_ways_of_asking_agree(together: ProbeSet) -> None:
    whole = np.concatenate([likeness for _, likeness in together.likenesses()])
    rows, columns = np.array([3, 50, 51]), np.array([0, 7, 100])
    some = np.concatenate([likeness for _, likeness in together.likenesses(rows, columns)])

    assert whole.shape == (len(together.right), PEOPLE)
    np.testing.assert_allclose(some, whole[np.ix_(rows, columns)], atol=1e-4)
    own = whole[np.arange(len(whole)), together.right]
    np.testing.assert_allclose(together.pairs(together.right), own, atol=1e-4)


def test_two_that_say_the_same_are_not_put_together() -> None:
    assert fuse([probe_set(SPACE, 1, 0.28), probe_set(OTHER, 2, 0.28, like=1)]) is None
