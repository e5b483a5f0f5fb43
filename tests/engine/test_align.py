"""Similarities and crops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.align import (
    DLIB_EDGE_PX,
    DLIB_TEMPLATE,
    closer,
    dlib_crop,
    similarity,
    vggface2_crop,
    warp,
)
from engine.types import Box, Photo

Matrix = NDArray[np.float64]


def _photo(pixels: NDArray[np.uint8]) -> Photo:
    return Photo(pixels, (pixels.shape[1], pixels.shape[0]), "PNG")


def _matrix(scale: float, turn: float, x: float, y: float) -> Matrix:
    a, b = scale * np.cos(turn), scale * np.sin(turn)
    return np.array([[a, -b, x], [b, a, y]])


def _mapped(matrix: Matrix, points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2])


def _blobs(seed: int = 0, edge: int = 400) -> Photo:
    """Smooth random colours, so that a shift of a pixel changes little."""
    import cv2

    noise = np.random.default_rng(seed).integers(0, 256, (edge // 20, edge // 20, 3), np.uint8)
    smooth = cv2.resize(noise, (edge, edge), interpolation=cv2.INTER_CUBIC)
    return _photo(np.asarray(smooth, np.uint8))


matrices = st.builds(
    _matrix,
    st.floats(0.01, 100),
    st.floats(-np.pi, np.pi),
    st.floats(-1e3, 1e3),
    st.floats(-1e3, 1e3),
)
weights = st.lists(st.floats(0.1, 10), min_size=5, max_size=5)


@given(matrix=matrices, weights=weights)
def test_a_known_similarity_is_found_again(matrix: Matrix, weights: list[float]) -> None:
    target = _mapped(matrix, DLIB_TEMPLATE)

    found = similarity(DLIB_TEMPLATE, target, weights)

    np.testing.assert_allclose(_mapped(found, DLIB_TEMPLATE), target, atol=1e-6)


@given(matrix=matrices, seed=st.integers(0, 1000))
def test_no_other_similarity_fits_better(matrix: Matrix, seed: int) -> None:
    """The squared error grows for any small change of turn, scale or shift."""
    random = np.random.default_rng(seed)
    goal = _mapped(matrix, DLIB_TEMPLATE) + random.normal(0, 3, (5, 2))
    share = random.uniform(0.1, 3, 5)

    def error(matrix: Matrix) -> float:
        return float(share @ ((_mapped(matrix, DLIB_TEMPLATE) - goal) ** 2).sum(axis=1))

    found = similarity(DLIB_TEMPLATE, goal, share)
    for change in np.eye(4) * 1e-3:
        a, b, x, y = np.array([found[0, 0], found[1, 0], found[0, 2], found[1, 2]]) + change
        other = np.array([[a, -b, x], [b, a, y]])
        assert error(found) <= error(other) + 1e-9 * max(1.0, error(other))


def test_a_point_without_weight_does_not_count() -> None:
    moved = DLIB_TEMPLATE.copy()
    moved[2] += 50

    found = similarity(moved, DLIB_TEMPLATE, [1, 1, 0, 1, 1])

    np.testing.assert_allclose(found, [[1, 0, 0], [0, 1, 0]], atol=1e-9)


@pytest.mark.parametrize(
    ("source", "target", "weights"),
    [
        (np.zeros((5, 2)), DLIB_TEMPLATE, None),
        (DLIB_TEMPLATE[:4], DLIB_TEMPLATE, None),
        (DLIB_TEMPLATE, DLIB_TEMPLATE, [1, 1, 1, 1]),
        (DLIB_TEMPLATE, DLIB_TEMPLATE, [1, 1, 1, 1, -1]),
        (DLIB_TEMPLATE, DLIB_TEMPLATE, [0, 0, 0, 0, 0]),
        (DLIB_TEMPLATE.ravel(), DLIB_TEMPLATE.ravel(), None),
    ],
)
def test_points_that_fix_no_similarity_are_refused(
    source: Matrix, target: Matrix, weights: list[int] | None
) -> None:
    with pytest.raises(ValueError, match=r"points|weights"):
        similarity(source, target, weights)


def test_the_identity_changes_nothing() -> None:
    photo = _blobs()
    crop = warp(photo, np.array([[1.0, 0, -30], [0, 1, -50]]), (100, 80))

    np.testing.assert_array_equal(crop, photo.pixels[50:130, 30:130])


def test_outside_the_photo_is_black() -> None:
    photo = _photo(np.full((20, 30, 3), 200, np.uint8))

    crop = warp(photo, np.array([[1.0, 0, 10], [0, 1, 10]]), (60, 60))
    assert (crop[10:30, 10:40] == 200).all()
    assert crop.sum() == 200 * 20 * 30 * 3
    far = warp(photo, np.array([[0.5, 0, 1000], [0, 0.5, 1000]]), (60, 60))
    assert far.sum() == 0


@pytest.mark.parametrize("scale", [1 / 2, 1 / 3, 0.3, 1 / 7.7])
def test_shrinking_averages(scale: float) -> None:
    """A board of black and white pixels becomes grey, not black, white or a pattern."""
    board = (np.indices((900, 900)).sum(axis=0) % 2 * 255).astype(np.uint8)
    photo = _photo(np.repeat(board[..., None], 3, axis=2))

    crop = warp(photo, _matrix(scale, 0.0, 0.0, 0.0), (60, 60))

    assert abs(crop[5:55, 5:55].astype(float).mean() - 127.5) < 2
    assert crop[5:55, 5:55].std() < 16


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_a_larger_photo_gives_the_same_crop(factor: int) -> None:
    photo = _blobs()
    larger = _photo(photo.pixels.repeat(factor, axis=0).repeat(factor, axis=1))
    face = _mapped(_matrix(1.7, 0.3, 60, 20), DLIB_TEMPLATE)
    face_there = ((face + 0.5) * factor - 0.5).astype(np.float32)

    here = dlib_crop(photo, face.astype(np.float32)).astype(int)
    there = dlib_crop(larger, face_there).astype(int)

    assert np.abs(here - there).mean() < 1
    box = Box(100, 90, 130, 150)
    box_there = Box(*(factor * side for side in (100, 90, 130, 150)))
    here, there = vggface2_crop(photo, box), vggface2_crop(larger, box_there)
    assert np.abs(here.astype(int) - there.astype(int)).mean() < 1


@given(
    turn=st.floats(-np.pi, np.pi),
    scale=st.floats(0.3, 2.5),
    x=st.floats(-50, 50),
    y=st.floats(-50, 50),
)
def test_dlibs_crop_is_upright_whatever_the_face_is(
    turn: float, scale: float, x: float, y: float
) -> None:
    """Marks drawn at the landmarks of any face land where the template is, 5 % further out."""
    import cv2

    face = _mapped(_matrix(scale, turn, 300 + x, 300 + y), DLIB_TEMPLATE - 75)
    pixels = np.zeros((600, 600, 3), np.uint8)
    for i, point in enumerate(face):
        canvas = np.zeros((600, 600), np.float32)
        cv2.circle(canvas, tuple((point * 16).round().astype(int).tolist()), 80, 255, -1, 16, 4)
        pixels[..., i % 3] = np.maximum(pixels[..., i % 3], canvas.astype(np.uint8))

    crop = dlib_crop(_photo(pixels), face.astype(np.float32))

    assert crop.shape == (DLIB_EDGE_PX, DLIB_EDGE_PX, 3)
    for i, (px, py) in enumerate((DLIB_TEMPLATE - 75) * 1.05 + 75):
        near = crop[round(py) - 2 : round(py) + 3, round(px) - 2 : round(px) + 3, i % 3]
        assert near.max() > 100, f"mark {i} is not where it belongs"


def test_vggface2_shows_the_box_and_its_surroundings() -> None:
    """1.3 times the box, of which 256 px are 224 shown: a box of 256 / 1.3 px is not scaled."""
    side = 256 / 1.3
    photo = _blobs()
    left = 250 - side / 2

    crop = vggface2_crop(photo, Box(left, left, side, side))

    difference = crop.astype(int) - photo.pixels[138:362, 138:362].astype(int)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("box", [Box(-20, -30, 100, 140), Box(330, 290, 120, 150)])
def test_vggface2_stays_within_the_photo(box: Box) -> None:
    photo = _photo(np.full((400, 400, 3), 255, np.uint8))

    assert vggface2_crop(photo, box).min() == 255


@pytest.mark.parametrize("box", [Box(-500, -500, 30, 30), Box(0, 0, 1e4, 1e4), Box(5, 5, 0.1, 9)])
def test_vggface2_takes_any_box(box: Box) -> None:
    assert vggface2_crop(_blobs(), box).shape == (224, 224, 3)


@pytest.mark.parametrize("bad", [np.zeros((2, 3)), np.full((2, 3), np.nan)])
def test_a_matrix_that_maps_nothing_is_refused(bad: Matrix) -> None:
    with pytest.raises(ValueError, match="matrix"):
        warp(_blobs(), bad, (10, 10))


def test_closer_enlarges_about_the_centre() -> None:
    """A dot at the centre stays; one at a distance moves away by the factor; 1 changes nothing."""
    crop = np.zeros((151, 151, 3), np.uint8)
    crop[74:77, 74:77] = 255
    crop[74:77, 124:127] = 200

    nearer = closer(crop, 1.12)

    columns = nearer[75, :, 0].astype(float)
    left, right = np.arange(100), np.arange(100, 151)
    assert np.average(left, weights=columns[:100]) == pytest.approx(75, abs=0.1)
    assert np.average(right, weights=columns[100:]) == pytest.approx(75 + 1.12 * 50, abs=0.1)
    np.testing.assert_array_equal(closer(crop, 1.0), crop)
