"""Accuracy, ROC and TAR against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.errors import SetupProblem
from gallery.evaluation.measures import best_threshold, cross_validated, roc_of

Labelled = tuple[NDArray[np.float64], NDArray[np.bool_]]


@st.composite
def labelled(draw: st.DrawFn) -> Labelled:
    """Cosines, some of them equal, some missing; at least one of either kind is there."""
    pairs = draw(
        st.lists(
            st.tuples(st.integers(-10, 10), st.booleans(), st.integers(0, 9)),
            min_size=4,
            max_size=60,
        )
    )
    cosines = np.array([height / 10 if there else np.nan for height, _, there in pairs])
    same = np.array([kind for _, kind, _ in pairs])
    there = ~np.isnan(cosines)
    assume(same[there].any() and not same[there].all())
    return cosines, same


@given(pairs=labelled())
def test_no_threshold_is_better_than_the_best(pairs: Labelled) -> None:
    cosines, same = pairs
    there = ~np.isnan(cosines)

    def right(threshold: float) -> int:
        return int(((cosines[there] >= threshold) == same[there]).sum())

    threshold = best_threshold(cosines, same)

    assert right(threshold) == max(map(right, np.arange(-1.05, 1.2, 0.1)))


@given(pairs=labelled())
def test_the_area_is_the_chance_that_one_person_is_more_alike_than_two(pairs: Labelled) -> None:
    """Ties count half; what could not be compared is least alike."""
    heights = np.where(np.isnan(pairs[0]), -2.0, pairs[0])
    one, two = heights[pairs[1]], heights[~pairs[1]]
    chance = np.mean((one[:, None] > two) + 0.5 * (one[:, None] == two))

    assert roc_of(pairs[1], pairs[0]).area == pytest.approx(chance)


@given(pairs=labelled(), far=st.sampled_from([1e-3, 0.1, 0.5]))
def test_tar_is_the_most_that_may_be_accepted(pairs: Labelled, far: float) -> None:
    cosines, same = pairs
    allowed = [
        np.mean(cosines[same] >= threshold)
        for threshold in np.arange(-1.05, 1.2, 0.1)
        if np.mean(cosines[~same] >= threshold) <= far
    ]

    assert roc_of(same, cosines).tar_at(far) == pytest.approx(max(allowed))


def test_a_pair_without_faces_is_an_error() -> None:
    """Clearly apart, but one pair in ten has no cosine."""
    same = np.arange(100) % 2 == 0
    cosines = np.where(same, 0.9, 0.1) + np.linspace(0, 0.01, 100)
    cosines[:10] = np.nan

    accuracy, deviation = cross_validated(cosines, same, folds=10)

    assert accuracy == pytest.approx(0.9)
    assert deviation > 0
    assert roc_of(same, cosines).tar_at(1e-3) == pytest.approx(0.9)


def test_accuracy_is_measured_on_pairs_that_did_not_choose_the_threshold() -> None:
    """Chance stays at a half, where the best threshold over the same pairs promises more."""
    rng = np.random.default_rng(0)
    same = np.arange(60) % 2 == 0
    measured, promised = [], []
    for _ in range(30):
        cosines = rng.normal(size=60) / 10
        measured.append(cross_validated(cosines, same, folds=10)[0])
        threshold = best_threshold(cosines, same)
        promised.append(np.mean((cosines >= threshold) == same))

    assert 0.4 < np.mean(measured) < 0.53
    assert np.mean(promised) > 0.55


def test_the_same_pairs_give_the_same_figures() -> None:
    rng = np.random.default_rng(1)
    cosines, same = rng.normal(size=50), rng.random(50) < 0.5

    assert cross_validated(cosines, same, folds=10) == cross_validated(cosines, same, folds=10)


@pytest.mark.parametrize(
    ("cosines", "same"),
    [
        ([0.1, 0.2], [True, False]),
        ([0.1, 0.2, 0.3, np.nan, np.nan], [True, True, True, False, False]),
    ],
)
def test_too_few_pairs_are_a_setup_problem(cosines: list[float], same: list[bool]) -> None:
    with pytest.raises(SetupProblem, match=r"two pairs|too few"):
        cross_validated(np.array(cosines), np.array(same), folds=10)
