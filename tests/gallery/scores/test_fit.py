"""How alike strangers are, beyond the pairs there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gallery.scores import SHARES
from gallery.scores.fit import stranger_quantiles

LAWS = {
    "normal": ("norm", 0.83, 0.035),
    "skewed": ("beta", 60, 12),
    "bounded": ("genpareto", -0.25, 0.5, 0.1),
    "exponential": ("expon", 0.0, 0.02),
}


def law(name: str) -> Any:
    """A distribution of SciPy, which is imported for these tests alone."""
    from scipy import stats

    kind, *shape = LAWS[name]
    return getattr(stats, str(kind))(*shape)


def drawn(name: str, count: int) -> np.ndarray:
    rng = np.random.default_rng(7)
    return np.asarray(law(name).rvs(count, random_state=rng), np.float32)


@pytest.mark.parametrize("name", LAWS)
def test_known_laws_are_recovered(name: str) -> None:
    """As shares, of a draw with 400 pairs beyond 1 in 10,000; 1 in 100,000 is extrapolated."""
    reached = law(name).sf(stranger_quantiles(drawn(name, 4_000_000))) / np.asarray(SHARES)

    np.testing.assert_allclose(reached[:5], 1, atol=0.02)
    np.testing.assert_allclose(reached[5:7], 1, atol=0.3)
    assert 0.4 < reached[7] < 2.5


@pytest.mark.parametrize("name", LAWS)
def test_a_tenth_of_the_pairs_tells_of_rarer_ones(name: str) -> None:
    """40,000 pairs, of which 4 are beyond 1 in 10,000."""
    reached = law(name).sf(stranger_quantiles(drawn(name, 40_000))) / np.asarray(SHARES)

    assert 0.4 < reached[SHARES.index(1e-4)] < 2.5


def test_people_under_two_names_hardly_matter() -> None:
    """60 of 400,000 pairs are one person: half as many again as lie beyond 1 in 10,000."""
    honest = drawn("normal", 400_000)
    mixed = honest.copy()
    mixed[:60] = np.random.default_rng(0).normal(0.97, 0.005, 60)

    seen = SHARES.index(1e-3)
    reached = law("normal").sf(stranger_quantiles(mixed)) / np.asarray(SHARES)

    assert reached[seen] == pytest.approx(1, abs=0.25)
    assert 0.3 < reached[SHARES.index(1e-4)] < 1.5


def test_what_too_few_pairs_can_not_tell_is_left_open() -> None:
    few = stranger_quantiles(drawn("normal", 50))

    assert np.isfinite(few[SHARES.index(0.5)])
    assert np.isnan(few[SHARES.index(1e-3) :]).all()
    assert np.isnan(few[0])


def test_pairs_that_are_all_alike_are_no_error() -> None:
    same = stranger_quantiles(np.full(10_000, 0.25, np.float32))

    assert np.nanmin(same) == np.nanmax(same) == 0.25
