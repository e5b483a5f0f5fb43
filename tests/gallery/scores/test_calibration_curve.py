"""The curve between the points of a calibration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gallery.scores import rising_curve

steps = st.lists(st.floats(1e-4, 1e3), min_size=2, max_size=14)


@st.composite
def points(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    across = draw(steps)
    up = draw(st.lists(st.floats(1e-4, 1e3), min_size=len(across), max_size=len(across)))
    start = draw(st.floats(-10, 10))
    x, y = (np.cumsum([start, *parts]) for parts in (across, up))
    return x.tolist(), y.tolist()


@given(points())
def test_it_is_scipys_monotone_interpolation(given: tuple[list[float], list[float]]) -> None:
    from scipy.interpolate import PchipInterpolator

    x, y = given
    places = np.linspace(x[0], x[-1], 101)
    expected = PchipInterpolator(x, y)(places)

    found = rising_curve(x, y)(places)
    np.testing.assert_allclose(found, expected, atol=1e-9 * abs(y[-1]), rtol=1e-9)


@given(points())
def test_it_goes_through_its_points_and_never_turns_back(
    given: tuple[list[float], list[float]],
) -> None:
    x, y = given
    curve, places = rising_curve(x, y), np.linspace(x[0] - 1, x[-1] + 1, 301)

    assert np.all(np.diff(curve(places)) >= 0)
    np.testing.assert_allclose(curve(x), y, rtol=1e-12)
    assert curve(x[0] - 5) == y[0]
    assert curve(x[-1] + 5) == y[-1]


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ((0.0, 1.0), (0.0, 1.0)),
        ((0.0, 1.0, 2.0), (0.0, 1.0)),
        ((0.0, 1.0, 1.0), (0.0, 1.0, 2.0)),
        ((0.0, 1.0, 2.0), (0.0, 2.0, 1.0)),
        ((0.0, 1.0, float("nan")), (0.0, 1.0, 2.0)),
    ],
)
def test_points_that_do_not_rise_are_refused(x: tuple[float, ...], y: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="points"):
        rising_curve(x, y)
