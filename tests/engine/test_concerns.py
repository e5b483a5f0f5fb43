"""Small, blurred, turned away."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.align import concerns, detail, yaw_degrees
from engine.backbones.network import free_portraits
from engine.types import Box, Concern, Face, Photo

# Left eye, right eye, nose tip, corners of the mouth: x right, y down, z away from the viewer.
HEAD = np.array(
    [(-0.49, 0, 0), (0.49, 0, 0), (0, 0.59, -0.45), (-0.45, 1, 0), (0.45, 1, 0)], np.float64
)


def _seen(yaw: float, roll: float, scale: float) -> NDArray[np.float32]:
    """HEAD turned to the viewer's right by yaw degrees, tilted by roll, seen from far away."""
    turn, tilt = np.radians(yaw), np.radians(roll)
    x = HEAD[:, 0] * np.cos(turn) - HEAD[:, 2] * np.sin(turn)
    flat = np.stack([x, HEAD[:, 1]], axis=1) * scale
    matrix = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    return np.asarray(flat @ matrix.T + 200, np.float32)


@given(yaw=st.floats(-89, 89), roll=st.floats(-180, 180), scale=st.floats(5, 300))
def test_the_turn_of_a_head_is_found_however_it_is_tilted(
    yaw: float, roll: float, scale: float
) -> None:
    assert yaw_degrees(_seen(yaw, roll, scale)) == pytest.approx(yaw, abs=1)


@pytest.fixture(scope="module", params=[0, 1], ids=["hopper", "collins"])
def portrait(request: pytest.FixtureRequest) -> tuple[Photo, Face]:
    return free_portraits()[request.param]


def _changed(photo: Photo, pixels: object) -> Photo:
    return Photo(np.asarray(pixels, np.uint8), photo.source_size_px, photo.format)


def test_a_clear_portrait_has_no_concern(portrait: tuple[Photo, Face]) -> None:
    photo, face = portrait

    assert concerns(photo, face.box, face.landmarks) == ()


def test_a_blurred_one_is_blurred(portrait: tuple[Photo, Face]) -> None:
    import cv2

    photo, face = portrait
    sigma = max(face.box.w, face.box.h) / 30
    blurred = _changed(photo, cv2.GaussianBlur(photo.pixels, (0, 0), sigma))

    assert concerns(blurred, face.box, face.landmarks) == (Concern.BLURRED,)


@pytest.mark.parametrize("gain", [0.25, 0.6])
def test_dark_is_not_blurred(portrait: tuple[Photo, Face], gain: float) -> None:
    photo, face = portrait
    dark = _changed(photo, (photo.pixels * gain).astype(np.uint8))

    assert detail(dark, face.landmarks) == pytest.approx(detail(photo, face.landmarks), rel=0.3)
    assert concerns(dark, face.box, face.landmarks) == ()


def test_a_blank_is_blurred() -> None:
    photo = Photo(np.full((100, 100, 3), 90, np.uint8), (100, 100), "PNG")

    assert concerns(photo, Box(20, 20, 50, 60), _seen(0, 0, 20) - 150) == (Concern.BLURRED,)


@pytest.mark.parametrize(("edge_px", "small"), [(31, True), (33, False)])
def test_small_is_measured_on_the_longer_side(
    portrait: tuple[Photo, Face], edge_px: int, small: bool
) -> None:
    photo, face = portrait
    box = Box(face.box.x, face.box.y, edge_px * 0.7, edge_px)

    assert (Concern.SMALL in concerns(photo, box, face.landmarks)) is small


@pytest.mark.parametrize(("yaw", "turned"), [(30, False), (-40, False), (50, True), (-70, True)])
def test_a_head_turned_away_is_reported(
    portrait: tuple[Photo, Face], yaw: float, turned: bool
) -> None:
    photo, face = portrait
    landmarks = _seen(yaw, 10, face.box.h / 2)

    assert (Concern.TURNED in concerns(photo, face.box, landmarks)) is turned
