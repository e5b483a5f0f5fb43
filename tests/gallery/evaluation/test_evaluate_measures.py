"""Counting likenesses says what keeping them all would say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from probe_sets import crowd, made_up, measures_of

from gallery.evaluation.groups import find_mistakes
from gallery.evaluation.measures import LikenessHistogram, quantile, share
from gallery.evaluation.photos import identify

cosines = st.lists(st.integers(-100_000, 100_000).map(lambda n: n / 100_000), min_size=1)


@given(cosines, st.integers(-100_000, 100_000).map(lambda n: n / 100_000))
def test_a_tally_counts(heights: list[float], least: float) -> None:
    tally = LikenessHistogram()
    tally.add(np.array(heights[:3]))
    tally.add(np.array(heights[3:]))

    assert tally.total == len(heights)
    assert tally.at_least(least) == sum(height >= least for height in heights)
    there, counts = tally.heights()
    assert np.repeat(there, counts).tolist() == pytest.approx(sorted(heights), abs=1e-9)


@given(cosines, st.floats(0.01, 0.99))
def test_a_tallys_quantile(heights: list[float], below: float) -> None:
    tally = LikenessHistogram()
    tally.add(np.array(heights))

    expected = np.quantile(heights, below, method="inverted_cdf")
    assert quantile(tally.heights(), below) == pytest.approx(expected, abs=1e-9)


def test_an_empty_tally() -> None:
    assert np.isnan(quantile(LikenessHistogram().heights(), 0.5))
    assert LikenessHistogram().at_least(-1) == 0


@given(st.integers(0, 500), st.integers(1, 500))
def test_a_share_lies_in_its_interval(count: int, more: int) -> None:
    found = share(count, count + more)

    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high


def test_the_interval_is_wilsons() -> None:
    """Example of E. B. Wilson's interval as in Newcombe 1998, table I: 81 of 263."""
    found = share(81, 263)

    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)


def test_a_share_of_nothing() -> None:
    assert np.isnan(share(0, 0).value)


def test_measures_is_that_of_all_pairs() -> None:
    """Area, TAR, shares of strangers and hits against the pairs themselves."""
    from sklearn.metrics import roc_auc_score

    measures = measures_of(made_up(crowd(40, 5, noise=0.25)))
    kept: list[np.ndarray] = []
    found = identify(measures.probe_set, lambda _, rows: kept.append(rows[np.isfinite(rows)]))
    strangers = np.concatenate(kept).astype(np.float64)

    labels = np.repeat([1, 0], [len(found.own), len(strangers)])
    area = roc_auc_score(labels, np.concatenate([found.own, strangers]))
    assert measures.roc.area == pytest.approx(area, abs=1e-4)
    for far in (0.1, 0.01, 0.001):
        limit = np.sort(strangers)[::-1][int(far * len(strangers))]
        assert measures.tar(far).value == pytest.approx(np.mean(found.own > limit), abs=0.02)
    scores = measures.calibration.scores(strangers)
    for score in (10, 30, 50, 65):
        assert measures.reached(score).value == pytest.approx(np.mean(scores >= score), rel=0.01)
    assert measures.strangers.total == len(strangers) == 80 * 39
    assert len(measures.close[0]) == np.count_nonzero(strangers >= measures.close[2].min())
    assert np.mean(strangers >= measures.strict) <= 1e-3
    assert measures.rank(1).value == np.mean(found.ranks == 0)
    assert measures.pairs == 160


def test_a_probe_without_a_face_is_wrong_everywhere() -> None:
    whole = measures_of(made_up(crowd(10, 4)))
    lacking = measures_of(made_up(crowd(10, 4), faceless=["Person 3/3.jpg"]))

    assert (whole.rank(1).value, whole.accuracy.value, whole.tar(1e-3).value) == (1, 1, 1)
    assert lacking.rank(1).value == lacking.rank(10).value == pytest.approx(0.9)
    assert lacking.tar(1e-3).value == pytest.approx(0.9)
    assert lacking.accuracy.value < 1


def test_wrong_labels_are_suspected() -> None:
    """One probe of each of two people swapped, and one person under two names."""
    people = crowd(30, 5, noise=0.03)
    people["Person 1"][4], people["Person 2"][4] = (
        people["Person 2"][4].copy(),
        people["Person 1"][4].copy(),
    )
    people["Alias"] = crowd(30, 5, noise=0.03)["Person 7"]

    found = find_mistakes(measures_of(made_up(people)), shown=6)

    said = {(one.photos[0].file.parts[-2:], one.suspicion) for one in found.confusions}
    assert (("Person 1", "4.jpg"), "Likely labelled wrong: it seems to show Person 2.") in said
    assert (("Person 2", "4.jpg"), "Likely labelled wrong: it seems to show Person 1.") in said
    assert [photo.role for photo in found.confusions[0].photos] == [
        "looked up", "found", "should be",
    ]  # fmt: skip
    names = {frozenset(photo.name for photo in one.photos) for one in found.accepts}
    assert frozenset({"Alias", "Person 7"}) in names
    assert {one.photos[0].name for one in found.rejects[:2]} == {"Person 1", "Person 2"}
    assert all(one.suspicion for one in found.rejects[:2])
    scores = [one.score for one in found.accepts]
    assert scores == sorted(scores, reverse=True)
    assert len(found.accepts) == len(names) == 6
