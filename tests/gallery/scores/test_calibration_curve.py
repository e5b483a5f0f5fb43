"""The curve between the points of a calibration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator

from gallery.scores import RisingCurve

steps = st.lists(st.floats(1e-4, 1e3), min_size=2, max_size=14)


@st.composite
def curves(draw: st.DrawFn) -> RisingCurve:
    across = draw(steps)
    up = draw(st.lists(st.floats(1e-4, 1e3), min_size=len(across), max_size=len(across)))
    start = draw(st.floats(-10, 10))
    x, y = (np.cumsum([start, *parts]) for parts in (across, up))
    return RisingCurve(tuple(x.tolist()), tuple(y.tolist()))


@given(curve=curves())
def test_it_is_scipys_monotone_interpolation(curve: RisingCurve) -> None:
    places = np.linspace(curve.x[0], curve.x[-1], 101)
    expected = PchipInterpolator(curve.x, curve.y)(places)

    np.testing.assert_allclose(curve(places), expected, atol=1e-9 * abs(curve.y[-1]), rtol=1e-9)


@given(curve=curves())
def test_it_goes_through_its_points_and_never_turns_back(curve: RisingCurve) -> None:
    places = np.linspace(curve.x[0] - 1, curve.x[-1] + 1, 301)

    assert np.all(np.diff(curve(places)) >= 0)
    np.testing.assert_allclose(curve(curve.x), curve.y, rtol=1e-12)
    assert curve(curve.x[0] - 5) == curve.y[0]
    assert curve(curve.x[-1] + 5) == curve.y[-1]


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
        RisingCurve(x, y)
