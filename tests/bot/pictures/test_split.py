"""One face of two: whose halves they are, that they meet, and when no face can be made."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from test_card import COLLINS, HOPPER
from test_framing import placed

from bot.app import open_engine
from bot.pictures.framing import FaceInPhoto
from bot.pictures.split import split_face, suits
from bot.settings import Settings
from engine.engine import Engine
from engine.types import Embedding, Photo

SIZE = (720, 640)
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def hopper(hopper_jpeg: bytes) -> FaceInPhoto:
    return np.asarray(Image.open(io.BytesIO(hopper_jpeg)).convert("RGB")), HOPPER


@pytest.fixture(scope="module")
def collins(collins_jpeg: bytes) -> FaceInPhoto:
    return np.asarray(Image.open(io.BytesIO(collins_jpeg)).convert("RGB")), COLLINS


@pytest.fixture(scope="module")
def engine(starter_home: Path) -> Engine:
    return open_engine(Settings(home=starter_home))


def embedded(engine: Engine, pixels: Pixels) -> Embedding:
    photo = Photo(pixels, (pixels.shape[1], pixels.shape[0]), "JPEG")
    (face, *_) = engine.detect(photo)
    (found,) = engine.embed([(photo, face)], "dlib")
    return found


def alike(one: Pixels, other: Pixels) -> float:
    """Correlation of two pictures' edges, which light and colours don't change much."""
    edges = [
        cv2.GaussianBlur(cv2.Laplacian(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), cv2.CV_64F), (0, 0), 4)
        for p in (one, other)
    ]
    return float(np.corrcoef(edges[0].ravel(), edges[1].ravel())[0, 1])


def test_each_half_is_its_persons(
    engine: Engine, hopper: FaceInPhoto, collins: FaceInPhoto
) -> None:
    """The whole is more like either of the two than they are like each other."""
    both = embedded(engine, split_face(hopper, collins, SIZE))
    one, other = embedded(engine, hopper[0]), embedded(engine, collins[0])
    between = one.cosine(other)
    assert both.cosine(one) > between + 0.05
    assert both.cosine(other) > between + 0.05


def test_left_is_the_first_and_right_the_second(hopper: FaceInPhoto, collins: FaceInPhoto) -> None:
    """At the outer parts, which the blend does not reach."""
    hopper, collins = (  # with so much around them that the view is the same
        (np.asarray(cv2.copyMakeBorder(pixels, *[500] * 4, cv2.BORDER_REPLICATE)), points + 500)
        for pixels, points in (hopper, collins)
    )
    split = split_face(hopper, collins, SIZE)
    swapped = split_face(collins, hopper, SIZE)
    alone = {name: split_face(s, s, SIZE) for name, s in (("h", hopper), ("c", collins))}
    left, right = np.s_[:, 180:300], np.s_[:, 420:540]
    assert alike(split[left], alone["h"][left]) > alike(split[left], alone["c"][left])
    assert alike(split[right], alone["c"][right]) > alike(split[right], alone["h"][right])
    assert alike(swapped[left], alone["c"][left]) > alike(swapped[left], alone["h"][left])


def test_one_photo_twice_is_that_photo(engine: Engine, hopper: FaceInPhoto) -> None:
    """Nothing is bent, relit or blurred where there is nothing to match: no seam, no ghost."""
    split = split_face(hopper, hopper, SIZE)
    assert embedded(engine, split).cosine(embedded(engine, hopper[0])) > 0.95


def test_the_eyes_are_level_and_meet_in_the_middle(
    engine: Engine, hopper: FaceInPhoto, collins: FaceInPhoto
) -> None:
    """As the detector finds them in the result, however the photos were tilted."""
    matrix = cv2.getRotationMatrix2D((256, 200), 25, 1)
    tilted = cv2.warpAffine(hopper[0], matrix, (512, 600), borderMode=cv2.BORDER_REPLICATE)
    points = (hopper[1] @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    split = split_face((np.asarray(tilted, np.uint8), points), collins, SIZE)
    (face, *_) = engine.detect(Photo(split, SIZE, "JPEG"))
    left, right = face.landmarks[:2].astype(float)
    apart = right[0] - left[0]
    assert abs(right[1] - left[1]) < 0.06 * apart
    assert (left[0] + right[0]) / 2 == pytest.approx(SIZE[0] / 2, abs=0.1 * float(apart))
    assert apart == pytest.approx(0.2 * 680, rel=0.4)


sights = st.builds(
    lambda size, degrees, x, y, aside, width, height, grey: (
        np.full((height, width, 3), grey, np.uint8),
        placed(size, degrees, x, y)
        + np.float32([(0, 0), (0, 0), (aside * size, 0), (0, 0), (0, 0)]),
    ),
    st.floats(4, 300),
    st.floats(-70, 70),
    st.floats(-100, 700),
    st.floats(-100, 700),
    st.floats(-0.5, 0.5),
    st.integers(1, 600),
    st.integers(1, 600),
    st.integers(60, 200),
)


@settings(max_examples=25)
@given(sights, sights, st.sampled_from([(360, 300), (196, 196), (40, 60)]))
def test_nothing_black_shows_wherever_the_photos_end(
    one: FaceInPhoto, other: FaceInPhoto, size: tuple[int, int]
) -> None:
    """Two plain greys meet somewhere between them, everywhere in the frame."""
    split = split_face(one, other, size).astype(int)
    assert split.shape == (size[1], size[0], 3)
    greys = one[0][0, 0, 0], other[0][0, 0, 0]
    assert split.min() >= min(greys) - 6
    assert split.max() <= max(greys) + 6
    assert np.ptp(split, axis=2).max() <= 6


def test_faces_turned_to_opposite_sides_are_turned_alike() -> None:
    """The second is then shown as in a mirror: what was at its left is at its right."""
    pixels = np.full((300, 300, 3), (180, 140, 120), np.uint8)
    stained = pixels.copy()
    stained[:, :100] = (40, 60, 220)  # at its left, so not in the right half
    points = placed(60, 0, 150, 140)
    towards, away = points.copy(), points.copy()
    towards[2, 0] -= 14
    away[2, 0] += 14
    straight = split_face((pixels, towards), (stained, towards), SIZE)
    turned = split_face((pixels, towards), (stained, away), SIZE)
    edge = np.s_[:, -60:, 2]  # blue
    assert straight[edge].max() < 140
    assert turned[edge].min() > 145


@pytest.mark.parametrize(
    ("one", "other", "suit"),
    [(0, 0, True), (0, 12, True), (25, -25, True), (0, 30, False), (45, 45, False), (0, 60, False)],
)
def test_only_faces_turned_alike_make_one(one: float, other: float, suit: bool) -> None:
    """Of two turned differently an ear would be seen twice; the same for both orders."""
    first, second = (
        (np.zeros((400, 400, 3), np.uint8), turned(degrees)) for degrees in (one, other)
    )
    assert suits(first, second) == suits(second, first) == suit


def turned(degrees: float) -> NDArray[np.float32]:
    """Landmarks of a face that looks so far aside."""
    points = placed(60, 0, 200, 200)
    nose, apart = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    points[:, 0] = 200 + (points[:, 0] - 200) * apart
    points[2, 0] += 0.48 * 60 * nose
    return points


def test_a_photo_that_ends_at_the_face_makes_no_face() -> None:
    """Where its own half of the picture would be empty."""
    whole = np.zeros((400, 400, 3), np.uint8), placed(60, 0, 200, 200)
    cut = whole[0][:, 180:], placed(60, 0, 20, 200)
    assert suits(whole, whole)
    assert suits(whole, cut)
    assert not suits(cut, whole)
