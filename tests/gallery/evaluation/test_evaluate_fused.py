"""Two backbones that err on different photos are better together, and never judged by probes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lineups import SPACE, around

from engine.types import Space
from gallery.evaluation.evidence import gather
from gallery.evaluation.fused import FusedLineup, fused
from gallery.evaluation.lineup import Lineup, line_up, look_up
from gallery.evaluation.photos import Sightings

OTHER = replace(SPACE, backbone="resnet", weights_sha256="1" * 64)
PEOPLE, PHOTOS = 120, 6


def lineup(space: Space, seed: int, noise: float, *, like: int | None = None) -> Lineup:
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
    return line_up(Sightings(space, vectors, {}, {}, 1.0, 0.5), people, 3)


@pytest.fixture(scope="module")
def together() -> FusedLineup:
    found = fused([lineup(SPACE, 1, 0.28), lineup(OTHER, 2, 0.28)])
    assert found is not None
    return found


def test_together_they_find_more(together: FusedLineup) -> None:
    assert together.ensemble is not None
    evidence = gather("best", together, together.ensemble.calibration, seconds=1, photos=1)
    alone = [np.mean(look_up(member).ranks < 1) for member in together.members]

    assert evidence.rank(1).value > max(alone) + 0.02
    assert evidence.reached(30.0).value == pytest.approx(0.01, abs=0.01)
    assert {"dlib", "resnet"} <= set(together.described.replace(",", " ").split())


def test_all_ways_of_asking_agree(together: FusedLineup) -> None:
    whole = np.concatenate([likeness for _, likeness in together.blocks()])
    rows, columns = np.array([3, 50, 51]), np.array([0, 7, 100])
    some = np.concatenate([likeness for _, likeness in together.among(rows, columns)])

    assert whole.shape == (len(together.probes), PEOPLE)
    np.testing.assert_allclose(some, whole[np.ix_(rows, columns)], atol=1e-4)
    own = whole[np.arange(len(whole)), together.right]
    np.testing.assert_allclose(together.pairs(together.right), own, atol=1e-4)


def test_two_that_say_the_same_are_not_put_together() -> None:
    assert fused([lineup(SPACE, 1, 0.28), lineup(OTHER, 2, 0.28, like=1)]) is None
