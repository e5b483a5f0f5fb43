"""Faces in frames: eyes level, at one height and distance; no black beyond the photo."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bot.pictures.framing import (
    Frame,
    Pixels,
    covered_share,
    eyes_level,
    frame_face,
    shared_frames,
    warp,
)
from engine.align import DLIB_TEMPLATE

FRAME = Frame(540, 640, eye_y_px=275, eyes_apart_px=110)


def placed(size: float, degrees: float, x: float, y: float) -> NDArray[np.float32]:
    """Landmarks of a face seen from the front, turned and moved.

    Args:
        size: Distance of the eyes, px.
        degrees: Roll.
        x: Middle of the eyes.
        y: Middle of the eyes.
    """
    eyes = DLIB_TEMPLATE[:2]
    turn = np.exp(1j * np.radians(degrees)) * size / np.linalg.norm(eyes[1] - eyes[0])
    points = (DLIB_TEMPLATE - eyes.mean(axis=0)) @ (1, 1j) * turn + complex(x, y)
    return np.stack([points.real, points.imag], axis=1).astype(np.float32)


def apply(matrix: NDArray[np.float64], points: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float64)


frontal = st.builds(
    placed, st.floats(6, 700), st.floats(-60, 60), st.floats(-50, 2000), st.floats(-50, 2000)
)


@settings(deadline=None)
@given(frontal, st.integers(0, 2**32 - 1))
def test_eyes_are_level_at_one_height_and_distance(
    landmarks: NDArray[np.float32], seed: int
) -> None:
    """For any face seen about from the front, however nose and mouth are placed."""
    apart = np.linalg.norm(landmarks[1] - landmarks[0])
    noise = np.random.default_rng(seed).uniform(-0.08, 0.08, (3, 2)) * apart
    landmarks = landmarks.copy()
    landmarks[2:] += noise.astype(np.float32)
    left, right = apply(eyes_level(landmarks, FRAME), landmarks)[:2]
    assert left[1] == pytest.approx(FRAME.eye_y_px, abs=0.05)
    assert right[1] == pytest.approx(FRAME.eye_y_px, abs=0.05)
    assert right[0] - left[0] == pytest.approx(FRAME.eyes_apart_px, abs=0.05)
    assert abs((left[0] + right[0]) / 2 - FRAME.width_px / 2) < 0.5 * FRAME.eyes_apart_px


@pytest.mark.parametrize("squeezed", [0.7, 0.5, 0.3, 0.1, 0.0])
def test_a_face_in_profile_is_not_blown_up(squeezed: float) -> None:
    """The closer the eyes, the less they decide: the face stays about as high as from the front."""
    landmarks = placed(100, 0, 500, 500)
    landmarks[:, 0] = 500 + (landmarks[:, 0] - 500) * squeezed
    drawn = apply(eyes_level(landmarks, FRAME), landmarks)
    height = drawn[3:, 1].mean() - drawn[:2, 1].mean()
    frontal_height = 1.045 * FRAME.eyes_apart_px
    assert 0.99 * frontal_height < height < 1.45 * frontal_height
    assert drawn[:2, 1].mean() == pytest.approx(FRAME.eye_y_px, abs=0.05)


def test_turning_away_changes_the_view_steadily() -> None:
    """No jump between a face seen from the front and one in profile."""
    scales = []
    for squeezed in np.linspace(1, 0.01, 100):
        landmarks = placed(100, 10, 500, 500)
        landmarks[:, 0] = 500 + (landmarks[:, 0] - 500) * squeezed
        matrix = eyes_level(landmarks, FRAME)
        scales.append(np.hypot(matrix[0, 0], matrix[1, 0]))
    steps = np.abs(np.diff(np.log(scales)))
    assert steps.max() < 0.05


def test_landmarks_that_coincide_are_drawn_somehow() -> None:
    matrix = eyes_level(np.zeros((5, 2), np.float32), FRAME)
    assert np.isfinite(matrix).all()


@pytest.mark.parametrize("size", [9, 40, 110, 320])
@pytest.mark.parametrize("degrees", [-25, 0, 40])
def test_pixels_go_where_the_matrix_says(size: float, degrees: float) -> None:
    """Spots drawn on the eyes of small and large faces are found at the frame's eye height."""
    landmarks = placed(size, degrees, 10.3 * size / 3, 9.6 * size / 3)
    grid_y, grid_x = np.mgrid[: int(7 * size), : int(7 * size)]
    spots = sum(
        np.exp(-((grid_x - x) ** 2 + (grid_y - y) ** 2) / (2 * (size / 9) ** 2))
        for x, y in landmarks[:2].astype(np.float64)
    )
    photo = np.repeat((90 + 160 * spots).astype(np.uint8)[..., None], 3, axis=2)
    drawn = frame_face(photo, landmarks, FRAME)[..., 1].astype(np.float64) - 90
    half = FRAME.width_px // 2
    ys, xs = np.mgrid[: FRAME.height_px, : FRAME.width_px]
    centres = []
    for side in (np.s_[:, :half], np.s_[:, half:]):
        weight = np.clip(drawn[side] - 20, 0, None)
        mass = weight.sum()
        centres.append(((weight * xs[side]).sum() / mass, (weight * ys[side]).sum() / mass))
    (left_x, left_y), (right_x, right_y) = centres
    assert left_y == pytest.approx(FRAME.eye_y_px, abs=1.5)
    assert right_y == pytest.approx(FRAME.eye_y_px, abs=1.5)
    assert right_x - left_x == pytest.approx(FRAME.eyes_apart_px, abs=1.5)


@settings(max_examples=60)
@given(
    landmarks=st.builds(
        placed, st.floats(8, 200), st.floats(-40, 40), st.floats(0, 300), st.floats(0, 300)
    ),
    width=st.integers(2, 300),
    height=st.integers(2, 300),
)
def test_there_is_no_black_beyond_the_photo(
    landmarks: NDArray[np.float32], width: int, height: int
) -> None:
    """A photo of one colour fills its frame with that colour, wherever the face lies in it."""
    landmarks[:, 0] *= width / 300
    landmarks[:, 1] *= height / 300
    photo = np.full((height, width, 3), (200, 140, 90), np.uint8)
    drawn = frame_face(photo, landmarks, FRAME)
    assert drawn.shape == (FRAME.height_px, FRAME.width_px, 3)
    assert np.abs(drawn.astype(int) - (200, 140, 90)).max() <= 3


def test_a_photo_is_left_sharp_where_it_fills_the_frame() -> None:
    """Without an edge in view nothing is blurred, and no interpolation is needed."""
    photo = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    shift = np.array([[1.0, 0, -20], [0, 1, -10]])
    drawn = warp(photo, shift, (100, 80))
    assert (drawn == photo[10:90, 20:120]).all()


def test_large_photos_are_averaged() -> None:
    """Fine stripes become grey instead of an artefact of sampling."""
    stripes = np.zeros((1600, 1600, 3), np.uint8)
    stripes[:, ::2] = 255
    drawn = warp(stripes, np.array([[0.1, 0, 0], [0, 0.1, 0]]), (150, 150))
    assert np.abs(drawn[5:-5, 5:-5].astype(int) - 128).max() < 12


def seen(pixels: Pixels, landmarks: NDArray[np.float32], frame: Frame) -> float:
    """Share of the frame that the photo fills."""
    size = (frame.width_px, frame.height_px)
    return covered_share(pixels, eyes_level(landmarks, frame), size)


def test_frame_shows_more_where_the_photos_allow() -> None:
    """Head and shoulders from wide photos, closer where one of them ends near the face."""
    wide = (np.zeros((1000, 1000, 3), np.uint8), placed(60, 0, 500, 450))
    tight = (np.zeros((200, 180, 3), np.uint8), placed(60, 0, 90, 85))
    (open_view, same) = shared_frames([wide, wide], 540, 640)
    assert open_view == same
    (close_view, _) = shared_frames([wide, tight], 540, 640)
    assert open_view.eyes_apart_px < close_view.eyes_apart_px
    above = (wide[0], placed(60, 0, 500, 110))  # the photo ends above the hair
    higher, _ = shared_frames([wide, above], 540, 640)
    assert higher.eyes_apart_px < 1.6 * open_view.eyes_apart_px
    assert higher.eye_y_px < open_view.eye_y_px


@settings(max_examples=60)
@given(
    landmarks=st.builds(
        placed, st.floats(20, 60), st.floats(-15, 15), st.floats(60, 240), st.floats(75, 230)
    )
)
def test_a_photo_fills_its_frame(landmarks: NDArray[np.float32]) -> None:
    """However close to an edge the face is; no band beside it, neither blurred nor black."""
    photo = np.zeros((300, 300, 3), np.uint8)
    (frame,) = shared_frames([(photo, landmarks)], 540, 640)
    assert seen(photo, landmarks, frame) > 0.98


def test_a_head_that_the_photo_shows_whole_stays_whole() -> None:
    """There is room for hair above the eyes, and the chin is in the frame."""
    photo = np.zeros((900, 700, 3), np.uint8)
    for x in (150, 350, 560):
        (frame,) = shared_frames([(photo, placed(70, 8, x, 300))], 540, 640)
        assert frame.eye_y_px > 1.8 * frame.eyes_apart_px
        assert 640 - frame.eye_y_px > 1.9 * frame.eyes_apart_px
