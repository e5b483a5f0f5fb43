"""Small, blurred, turned away, covered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.align import DLIB_TEMPLATE, concerns, detail, similarity, warp, yaw_degrees
from engine.backbones.network import free_portraits
from engine.decode import decode
from engine.mtcnn import Detector
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

    seen = [detail(_half_crop(one, face)) for one in (dark, photo)]
    assert seen[0] == pytest.approx(seen[1], rel=0.3)
    assert concerns(dark, face.box, face.landmarks) == ()


def _half_crop(photo: Photo, face: Face) -> NDArray[np.uint8]:
    return warp(photo, similarity(face.landmarks, DLIB_TEMPLATE / 2), (75, 75))


@pytest.mark.parametrize("colour", [(120, 178, 215), (235, 238, 240), (25, 25, 28), (60, 90, 60)])
def test_a_masked_face_is_covered(
    portrait: tuple[Photo, Face], colour: tuple[int, int, int]
) -> None:
    import cv2

    photo, face = portrait
    (_, _), (_, _), nose, left, right = face.landmarks
    pixels, reach = photo.pixels.copy(), (right - left) * 0.7
    down = (left + right) / 2 - nose
    corners = [left - reach - down, nose - down / 2, right + reach - down]
    corners += [right + reach / 2 + down, left - reach / 2 + down]
    cv2.fillPoly(pixels, [np.rint(corners).astype(np.int32)], colour)

    assert Concern.COVERED in concerns(_changed(photo, pixels), face.box, face.landmarks)


@pytest.mark.parametrize("colour", [(12, 12, 14), (60, 40, 25)])
def test_dark_glasses_cover_a_face(
    portrait: tuple[Photo, Face], colour: tuple[int, int, int]
) -> None:
    import cv2

    photo, face = portrait
    pixels, apart = photo.pixels.copy(), float(np.linalg.norm(np.ptp(face.landmarks[:2], axis=0)))
    for x, y in face.landmarks[:2]:
        middle = round(float(x)), round(float(y) + apart * 0.08)
        cv2.ellipse(
            pixels, middle, (round(apart * 0.4), round(apart * 0.33)), 0, 0, 360, colour, -1
        )

    assert Concern.COVERED in concerns(_changed(photo, pixels), face.box, face.landmarks)


def test_covered_faces_are_told_and_few_others_are(hard_faces: Path, people_photos: Path) -> None:
    """Masked ones, and of a sample of portraits those that wear sunglasses."""
    detector, shares = Detector(), []
    ordinary = sorted(people_photos.glob("celeb_mini/*/*"))[::20]
    for files in (sorted(hard_faces.glob("masks/*")), ordinary):
        faces = [next(iter(detector.detect(decode(one.read_bytes()))), None) for one in files]
        told = [Concern.COVERED in face.concerns for face in faces if face]
        shares.append(sum(told) / len(told))
    assert shares[0] > 0.75
    assert shares[1] < 0.04


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
