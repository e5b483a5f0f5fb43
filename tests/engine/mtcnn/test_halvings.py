"""Copies of a photo at half sizes, and squares cut from them."""

from __future__ import annotations

import numpy as np
import pytest

from engine.mtcnn.canvas import Halvings


def test_halving_averages_four_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (101, 87, 3), dtype=np.uint8)
    half = Halvings(pixels).resized(43, 50)

    mean = pixels[:100, :86].reshape(50, 2, 43, 2, 3).astype(float).mean(axis=(1, 3))
    assert np.abs(half - mean).max() <= 1


def test_squares_lie_where_they_should() -> None:
    """Black left of 100, white right of it: the edge is where the square's geometry says."""
    pixels = np.zeros((400, 400, 3), np.uint8)
    pixels[:, 100:] = 255
    photo = Halvings(pixels)

    for side in (24.0, 37.5, 48.0, 96.0, 150.0):
        for x in (100.0, 100.25, 93.0, 108.5):
            (crop,) = photo.squares(np.array([[x, 200.0]]), np.array([side]), 48)
            black = float((255 - crop[24, :, 0].astype(float)).sum() / 255)
            assert black == pytest.approx(24 + (100 - x) * 48 / side, abs=0.6)


def test_squares_beyond_the_photo_are_grey() -> None:
    photo = Halvings(np.full((100, 100, 3), 255, np.uint8))

    (outside, half) = photo.squares(np.array([[500.0, 50], [0, 50]]), np.array([60.0, 60]), 24)

    assert (outside == 127).all()
    assert (half[:, :11] == 127).all()
    assert (half[:, 13:] == 255).all()
