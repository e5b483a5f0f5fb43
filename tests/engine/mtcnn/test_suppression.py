"""Non-maximum suppression."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.mtcnn import survivors, survivors_inside

BY_SHARE = {"union": survivors, "smaller": survivors_inside}

Boxes = NDArray[np.float64]


def _overlap(a: Boxes, b: Boxes, share: str) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    both = max(wide, 0.0) * max(high, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return float(both / (sum(areas) - both if share == "union" else min(areas)))


def _by_definition(
    boxes: Boxes, scores: Boxes, threshold: float, share: str, groups: NDArray[np.intp]
) -> list[int]:
    staying: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        rivals = [j for j in staying if groups[i] == groups[j]]
        if all(_overlap(boxes[i], boxes[j], share) <= threshold for j in rivals):
            staying.append(i)
    return staying


@st.composite
def crowds(draw: st.DrawFn) -> tuple[Boxes, Boxes, NDArray[np.intp]]:
    count = draw(st.integers(0, 25))
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    corner = random.uniform(-20, 60, (count, 2))
    boxes = np.hstack([corner, corner + random.uniform(5, 50, (count, 2))])
    scores = random.permutation(np.linspace(0.5, 1, count)) if count else np.zeros(0)
    return boxes, scores, random.integers(0, 3, count)


@given(
    crowd=crowds(),
    threshold=st.sampled_from([0.3, 0.5, 0.7]),
    share=st.sampled_from(["union", "smaller"]),
)
def test_those_stay_that_the_definition_lets_stay(
    crowd: tuple[Boxes, Boxes, NDArray[np.intp]],
    threshold: float,
    share: Literal["union", "smaller"],
) -> None:
    boxes, scores, groups = crowd
    one_group = np.zeros_like(groups)

    found = BY_SHARE[share](boxes, scores, threshold)

    assert found.tolist() == _by_definition(boxes, scores, threshold, share, one_group)
    if share == "union":
        grouped = survivors(boxes, scores, threshold, groups=groups)
        assert grouped.tolist() == _by_definition(boxes, scores, threshold, share, groups)


@pytest.mark.parametrize("share", ["union", "smaller"])
def test_a_suppressed_box_suppresses_nothing(share: Literal["union", "smaller"]) -> None:
    """Three boxes in a row: the first removes the second, which would have removed the third."""
    boxes = np.array([(0, 0, 10, 10), (4, 0, 14, 10), (8, 0, 18, 10)], np.float64)

    assert BY_SHARE[share](boxes, np.array([0.9, 0.8, 0.7]), 0.4).tolist() == [0, 2]


def test_no_boxes_are_no_error() -> None:
    assert survivors(np.zeros((0, 4)), np.zeros(0), 0.5).tolist() == []
