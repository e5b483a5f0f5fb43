"""Two faces brought to one shape: what a bend moves, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_framing import placed

from bot.pictures.framing import (
    bend,
    bent_face,
    mirrored,
    shape_of,
    turned_alike,
    with_chin,
)
from engine.types import Box

SIZE = (540, 600)
APART = 120.0
TARGET = shape_of(placed(60, 0, 100, 100)) * APART + (270, 250)

faces = st.builds(
    placed, st.floats(6, 400), st.floats(-80, 80), st.floats(0, 900), st.floats(0, 900)
)
nudges = st.lists(st.floats(-0.12, 0.12), min_size=12, max_size=12).map(
    lambda values: np.array(values).reshape(6, 2) * APART
)


@given(faces)
def test_a_shape_is_upright_whatever_the_photo(landmarks: NDArray[np.float32]) -> None:
    """Level eyes around 0, about 1 apart, the mouth below them."""
    shape = shape_of(landmarks)
    assert shape[:2].mean(axis=0) == pytest.approx([0, 0], abs=1e-6)
    assert shape[0, 1] == pytest.approx(shape[1, 1], abs=1e-6)
    assert shape[1, 0] - shape[0, 0] == pytest.approx(1, abs=0.02)
    assert shape[3:, 1].min() > 0.5


@settings(max_examples=40)
@given(nudges)
def test_a_bend_moves_each_point_to_its_place(nudge: NDArray[np.float64]) -> None:
    """Within a pixel, and nothing at the frame's edges."""
    points = TARGET + nudge
    across, down = bend(points, TARGET, SIZE, APART)
    for (x, y), source in zip(np.round(TARGET).astype(int), points, strict=True):
        assert across[y, x] == pytest.approx(source[0], abs=1.6)
        assert down[y, x] == pytest.approx(source[1], abs=1.6)
    columns, rows = np.arange(SIZE[0]), np.arange(SIZE[1])
    for edge in (0, -1):
        assert np.abs(down[edge] - rows[edge]).max() < 2
        assert np.abs(across[:, edge] - columns[edge]).max() < 2


def test_a_bend_makes_no_caricature() -> None:
    """A point is moved by a sixth of the distance between the eyes at most."""
    points = TARGET + np.eye(6, 2, k=-2) * 0.8 * APART
    across, _ = bend(points, TARGET, SIZE, APART)
    assert np.abs(across - np.arange(SIZE[0])).max() < 0.25 * APART


@settings(max_examples=25)
@given(faces, st.integers(1, 255), st.booleans())
def test_a_plain_photo_stays_plain(landmarks: NDArray[np.float32], grey: int, tiny: bool) -> None:
    """Whatever is bent wherever: nothing black comes in from beyond its edges."""
    pixels = np.full((1, 1, 3) if tiny else (300, 400, 3), grey, np.uint8)
    bent = bent_face(pixels, landmarks, TARGET, SIZE, APART)
    assert bent.shape == (SIZE[1], SIZE[0], 3)
    assert np.abs(bent.astype(int) - grey).max() <= 1


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), 1e4), np.eye(5, 2)])
def test_points_that_are_no_face_do_no_harm(points: NDArray[np.float64]) -> None:
    """A detector may be wrong."""
    landmarks = points.astype(np.float32)
    pixels = np.full((50, 60, 3), 77, np.uint8)
    bent = bent_face(pixels, landmarks, TARGET, SIZE, APART)
    assert np.abs(bent.astype(int) - 77).max() <= 1


@pytest.mark.parametrize("length", [0.55, 0.7, 1.0])
def test_a_chin_is_where_an_upright_face_ends(length: float) -> None:
    """At the box's lower edge; lying on its side, or without a box, it has the usual length."""
    landmarks = placed(60, 0, 100, 100)
    eyes, mouth = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)
    down = float(mouth[1] - eyes[1])
    box = Box(60, 60, 80, float(mouth[1]) + length * down - 60)
    points = with_chin(landmarks, box)
    assert np.array_equal(points[:5], landmarks)
    assert points[5] == pytest.approx([mouth[0], mouth[1] + length * down], abs=1)
    usual = with_chin(landmarks, None)[5, 1]
    assert usual == pytest.approx(mouth[1] + 0.7 * down, abs=1)
    lying = placed(60, 80, 100, 100)
    assert with_chin(lying, box)[5] == pytest.approx(with_chin(lying, None)[5])


@given(faces, st.floats(-1e4, 1e4), st.floats(0.1, 1e4))
def test_no_box_makes_a_monster(landmarks: NDArray[np.float32], y: float, high: float) -> None:
    """The chin stays below the mouth, not further than a long face has it."""
    chin = with_chin(landmarks, Box(0, y, 10, high))[5]
    eyes, mouth = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)
    share = np.linalg.norm(chin - mouth) / np.linalg.norm(mouth - eyes)
    assert 0.49 < share < 1.06


def test_a_mirror_swaps_left_and_right() -> None:
    """Twice is not at all; a head turned aside is then turned the other way."""
    pixels = np.arange(5 * 40 * 3, dtype=np.uint8).reshape(5, 40, 3)
    landmarks = placed(10, 5, 20, 3)
    landmarks[2, 0] += 3
    turned, points = mirrored(pixels, landmarks)
    assert points[0, 0] < points[1, 0]
    assert np.array_equal(turned[:, 0], pixels[:, -1])
    back, same = mirrored(turned, points)
    assert np.array_equal(back, pixels)
    assert same == pytest.approx(landmarks)
    face = pixels, landmarks
    assert np.array_equal(turned_alike(face, (turned, points))[0], pixels)
    assert turned_alike(face, face) is face
