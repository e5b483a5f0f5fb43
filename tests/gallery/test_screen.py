"""One clear face per portrait, and what is kept of it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decode import decode
from engine.types import Box, Concern, Face, Photo
from gallery.screen import Reason, clear_face, thumbnail

PHOTO = Photo(np.zeros((400, 600, 3), np.uint8), (600, 400), "PNG")


def face(x: float, y: float, edge: float, *concerns: Concern) -> Face:
    marks = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]) * edge
    landmarks = (marks + np.array([x, y])).astype(np.float32)
    return Face(Box(x, y, edge, edge), landmarks, 0.99, concerns)


def test_no_face_is_a_reason() -> None:
    assert clear_face(PHOTO, ()) is Reason.NO_FACE


def test_one_face_is_clear_wherever_it_is() -> None:
    only = face(0, 0, 60)
    assert clear_face(PHOTO, (only,)) is only


@pytest.mark.parametrize(
    "others",
    [
        [face(10, 10, 40)],
        [face(10, 10, 60), face(500, 300, 70), face(0, 350, 30)],
        [face(-20, 0, 110)],
    ],
)
def test_a_face_much_larger_than_all_others_is_clear(others: list[Face]) -> None:
    main = face(210, 100, 180)
    assert clear_face(PHOTO, (main, *others)) is main
    assert clear_face(PHOTO, (*others, main)) is main


@pytest.mark.parametrize(
    "others", [[face(400, 100, 150)], [face(10, 10, 20), face(40, 120, 170)], [face(0, 100, 160)]]
)
def test_two_faces_of_like_size_are_several(others: list[Face]) -> None:
    assert clear_face(PHOTO, (face(210, 100, 180), *others)) is Reason.SEVERAL_FACES


def test_a_small_face_is_too_small_only_if_it_is_the_one_meant() -> None:
    small = face(280, 180, 20, Concern.SMALL)
    assert clear_face(PHOTO, (small,)) is Reason.TOO_SMALL
    large = face(210, 100, 180)
    assert clear_face(PHOTO, (large, small)) is large


def test_blurred_and_turned_faces_are_taken() -> None:
    odd = face(210, 100, 180, Concern.BLURRED, Concern.TURNED)
    assert clear_face(PHOTO, (odd,)) is odd


def marked(width: int, height: int, one: Face) -> Photo:
    """A grey photo with a white disc where the face's nose is."""
    pixels = np.full((height, width, 3), 60, np.uint8)
    x, y = one.landmarks[2]
    radius = max(2, round(one.box.w * 0.08))
    cv2.circle(pixels, (round(float(x)), round(float(y))), radius, (255, 255, 255), -1)
    return Photo(pixels, (width, height), "PNG")


@given(
    width=st.integers(40, 1600),
    height=st.integers(40, 1600),
    across=st.floats(0, 1),
    down=st.floats(0, 1),
    share=st.floats(0.1, 1.0),
)
def test_landmarks_and_box_stay_on_the_face(
    width: int, height: int, across: float, down: float, share: float
) -> None:
    edge = max(16.0, share * min(width, height))
    one = face(across * (width - edge), down * (height - edge), edge)
    kept = thumbnail(marked(width, height, one), one)
    photo = decode(kept.jpeg)
    assert (photo.width_px, photo.height_px) == (kept.width_px, kept.height_px)
    assert max(kept.width_px, kept.height_px) <= 513
    bright = photo.pixels.mean(axis=2) > 150
    ys, xs = np.nonzero(bright)
    shrunk = kept.box.w / one.box.w
    assert abs(xs.mean() - kept.landmarks[2, 0]) <= 1.0 + shrunk
    assert abs(ys.mean() - kept.landmarks[2, 1]) <= 1.0 + shrunk
    nose = kept.box.x + kept.box.w * 0.5, kept.box.y + kept.box.h * 0.6
    assert np.allclose(nose, kept.landmarks[2], atol=1.0)


def test_a_small_photo_is_kept_whole_and_unscaled() -> None:
    one = face(50, 50, 100)
    kept = thumbnail(marked(300, 200, one), one)
    assert (kept.width_px, kept.height_px) == (300, 200)
    assert kept.box == one.box
    np.testing.assert_array_equal(kept.landmarks, one.landmarks)


def test_a_face_in_a_large_photo_is_not_lost() -> None:
    one = face(3000, 200, 250)
    kept = thumbnail(marked(4000, 3000, one), one)
    assert (kept.width_px, kept.height_px) == (512, 512)
    assert kept.box.w >= 199


def test_a_large_portrait_is_only_reduced() -> None:
    one = face(600, 600, 1700)
    kept = thumbnail(marked(3000, 4000, one), one)
    assert (kept.width_px, kept.height_px) == (384, 512)


def test_thumbnails_carry_no_metadata(hopper_jpeg: bytes) -> None:
    photo = decode(hopper_jpeg)
    kept = thumbnail(photo, face(200, 100, 200))
    assert b"Exif" not in kept.jpeg
    assert len(kept.jpeg) < 80_000
