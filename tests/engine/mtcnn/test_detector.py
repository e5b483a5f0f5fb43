"""Faces in real photos, and none where there are none."""

from __future__ import annotations

import threading
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.align import DLIB_TEMPLATE, similarity
from engine.decode import decode
from engine.mtcnn import Detector
from engine.types import Box, Face, Photo

Pixels = NDArray[np.uint8]
MIRRORED = [1, 0, 2, 4, 3]


def _photo(pixels: Pixels) -> Photo:
    return Photo(pixels, (pixels.shape[1], pixels.shape[0]), "PNG")


def _shared_part(a: Box, b: Box) -> float:
    """Intersection over union."""
    wide = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
    high = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
    both = max(wide, 0.0) * max(high, 0.0)
    return both / (a.area_px + b.area_px - both)


def _farthest(face: Face, landmarks: NDArray[np.floating]) -> float:
    """Largest distance between landmarks, as a part of the face's size."""
    distance = np.linalg.norm(face.landmarks - landmarks, axis=1).max()
    return float(distance / max(face.box.w, face.box.h))


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


@pytest.fixture(scope="module", params=["hopper", "collins"])
def portrait(request: pytest.FixtureRequest) -> Photo:
    return decode(request.getfixturevalue(f"{request.param}_jpeg"))


@pytest.fixture(scope="module")
def face(detector: Detector, portrait: Photo) -> Face:
    (found,) = detector.detect(portrait)
    return found


def test_a_portrait_has_one_sure_face_where_a_face_is(portrait: Photo, face: Face) -> None:
    assert face.confidence > 0.99
    assert face.concerns == ()
    assert 0.03 < face.box.area_px / portrait.pixels[..., 0].size < 0.2
    residual = similarity(face.landmarks, DLIB_TEMPLATE)
    placed = face.landmarks @ residual[:, :2].T + residual[:, 2]
    assert np.abs(placed - DLIB_TEMPLATE).max() < 12, "the points do not form a face"
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


def test_the_mirror_image_has_the_mirrored_face(
    detector: Detector, portrait: Photo, face: Face
) -> None:
    (found,) = detector.detect(_photo(np.ascontiguousarray(portrait.pixels[:, ::-1])))

    expected = face.landmarks[MIRRORED] * (-1, 1) + (portrait.width_px - 1, 0)
    assert _farthest(found, expected) < 0.03


@settings(max_examples=8)
@given(left=st.integers(0, 150), top=st.integers(0, 150), shade=st.integers(0, 255))
def test_a_border_moves_the_face_by_its_width(
    detector: Detector, portrait: Photo, face: Face, left: int, top: int, shade: int
) -> None:
    pixels = np.pad(portrait.pixels, ((top, 60), (left, 60), (0, 0)), constant_values=shade)

    found = detector.detect(_photo(pixels))

    assert found
    assert _farthest(found[0], face.landmarks + np.array([left, top])) < 0.05


@pytest.mark.parametrize("factor", [0.12, 0.3, 0.7, 1.9, 3.3])
def test_a_reduced_or_enlarged_photo_has_the_same_face(
    detector: Detector, portrait: Photo, face: Face, factor: float
) -> None:
    import cv2

    size = (round(portrait.width_px * factor), round(portrait.height_px * factor))
    area = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    pixels = np.asarray(cv2.resize(portrait.pixels, size, interpolation=area), np.uint8)

    found = detector.detect(_photo(pixels))

    assert len(found) == 1
    exact = np.array(size) / (portrait.width_px, portrait.height_px)
    assert _farthest(found[0], (face.landmarks + 0.5) * exact - 0.5) < 0.08


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_photo_on_its_side_or_head_has_the_turned_face(
    detector: Detector, portrait: Photo, face: Face, quarters: int
) -> None:
    points = face.landmarks.astype(np.float64)
    width, height = portrait.width_px, portrait.height_px
    for _ in range(quarters):  # a quarter to the left: (x, y) goes to (y, width - 1 - x)
        points = np.stack([points[:, 1], width - 1 - points[:, 0]], axis=1)
        width, height = height, width
    turned = _photo(np.ascontiguousarray(np.rot90(portrait.pixels, quarters)))

    (found,) = detector.detect(turned)

    assert _farthest(found, points) < 0.05
    assert found.box.x < points[:, 0].min() < points[:, 0].max() < found.box.x + found.box.w
    assert found.box.y < points[:, 1].min() < points[:, 1].max() < found.box.y + found.box.h


@pytest.mark.parametrize("min_face_px", [12, 20, 21, 40, 80, 110])
def test_the_smallest_face_wanted_leaves_larger_ones(
    portrait: Photo, face: Face, min_face_px: int
) -> None:
    """The package mtcnn returns nothing, silently, for a min_face_size above 20."""
    picky = Detector(min_face_px)

    assert max(_shared_part(found.box, face.box) for found in picky.detect(portrait)) > 0.8


def test_smaller_faces_than_wanted_are_left_out(portrait: Photo, face: Face) -> None:
    limit = round(2 * max(face.box.w, face.box.h))

    assert Detector(limit).detect(portrait) == ()


def test_a_smallest_face_below_the_networks_window_is_refused() -> None:
    with pytest.raises(ValueError, match="min_face_px is at least 12"):
        Detector(11)


def _crowd(portraits: list[Pixels], face_px: int, columns: int, rows: int) -> Pixels:
    """The same heads again and again, each about face_px high."""
    import cv2

    tiles = [
        np.asarray(cv2.resize(pixels, (2 * face_px,) * 2, interpolation=cv2.INTER_AREA), np.uint8)
        for pixels in portraits
    ]
    return np.vstack(
        [np.hstack([tiles[(x + y) % len(tiles)] for x in range(columns)]) for y in range(rows)]
    )


@pytest.fixture(scope="module")
def heads(hopper_jpeg: bytes, collins_jpeg: bytes, detector: Detector) -> list[Pixels]:
    heads = []
    for jpeg in (hopper_jpeg, collins_jpeg):
        photo = decode(jpeg)
        (face,) = detector.detect(photo)
        side = round(max(face.box.w, face.box.h))
        x, y = (round(middle) for middle in face.box.centre)
        pixels = np.pad(photo.pixels, ((side, side), (side, side), (0, 0)), mode="edge")
        heads.append(pixels[y : y + 2 * side, x : x + 2 * side])
    return heads


@pytest.mark.parametrize(("face_px", "columns", "rows"), [(24, 30, 20), (60, 12, 9), (150, 4, 3)])
def test_everybody_in_a_crowd_is_found_once(
    detector: Detector, heads: list[Pixels], face_px: int, columns: int, rows: int
) -> None:
    found = detector.detect(_photo(_crowd(heads, face_px, columns, rows)))

    cells = {
        (int(face.box.centre[0] // (2 * face_px)), int(face.box.centre[1] // (2 * face_px)))
        for face in found
    }
    assert len(found) == columns * rows
    assert len(cells) == columns * rows
    areas = [face.box.area_px for face in found]
    assert areas == sorted(areas, reverse=True)


def test_a_face_cut_off_by_the_edge_is_found(
    detector: Detector, portrait: Photo, face: Face
) -> None:
    """A crop tighter than the face itself, as avatars are."""
    x0, y0 = round(face.box.x + 0.08 * face.box.w), round(face.box.y + 0.08 * face.box.h)
    x1, y1 = round(face.box.x + 0.92 * face.box.w), round(face.box.y + 0.92 * face.box.h)

    (found,) = detector.detect(_photo(portrait.pixels[y0:y1, x0:x1]))

    assert _farthest(found, face.landmarks - (x0, y0)) < 0.06


def test_half_a_face_is_none(detector: Detector, portrait: Photo, face: Face) -> None:
    middle = round(float(face.landmarks[2, 0]))

    assert detector.detect(_photo(portrait.pixels[:, middle + 5 :])) == ()


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 50), (12, 12), (13, 19), (20, 20), (28, 28), (10_000, 3), (3, 10_000)]
)
@pytest.mark.parametrize("content", ["black", "white", "noise"])
def test_tiny_and_endless_photos_have_no_faces(
    detector: Detector, shape: tuple[int, int], content: str
) -> None:
    pixels = np.full((*shape, 3), 255 if content == "white" else 0, np.uint8)
    if content == "noise":
        pixels = np.random.default_rng(0).integers(0, 256, pixels.shape, dtype=np.uint8)

    assert detector.detect(_photo(pixels)) == ()


def test_patterns_are_no_faces(detector: Detector) -> None:
    y, x = np.indices((500, 700))
    stripes, waves = (x // 20 % 2) * 255, 127 + 127 * np.sin(x / 9) * np.sin(y / 11)
    noise = np.random.default_rng(1).integers(0, 256, (500, 700))

    for pattern in (stripes, waves, noise):
        pixels = np.repeat(pattern.astype(np.uint8)[..., None], 3, axis=2)
        assert detector.detect(_photo(pixels)) == ()


def test_several_threads_find_the_same(detector: Detector, portrait: Photo, face: Face) -> None:
    found: list[tuple[Face, ...]] = []
    workers = [
        threading.Thread(target=lambda: found.append(detector.detect(portrait))) for _ in range(6)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert len(found) == 6
    for (other,) in found:
        np.testing.assert_array_equal(other.landmarks, face.landmarks)
        assert other.box == face.box


def test_a_detection_that_fails_costs_no_network(
    detector: Detector, portrait: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector.detect(portrait)
    with monkeypatch.context() as patch:
        patch.setattr("engine.mtcnn.Cascade.find", None)
        for _ in range(4):
            with pytest.raises(TypeError):
                detector.detect(portrait)
    monkeypatch.setattr("engine.mtcnn.Cascade", None)  # none can be made from here on
    assert detector.detect(portrait)


def test_many_sizes_take_no_more_memory(detector: Detector, portrait: Photo) -> None:
    import cv2

    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc on this machine")

    def look(seed: int) -> None:
        random = np.random.default_rng(seed)
        for width, height in random.integers(200, 900, (15, 2)).tolist():
            detector.detect(_photo(np.asarray(cv2.resize(portrait.pixels, (width, height)))))

    look(0)
    before = resident_bytes()
    look(1)
    assert resident_bytes() - before < 30e6


def _truth(folder: Path) -> dict[str, list[Box]]:
    """What dlib says where faces are, by the photo's name in this folder."""
    boxes: dict[str, list[Box]] = {}
    for path in sorted((folder / "ground_truth").glob("*ing.xml")):
        for image in ET.parse(path).getroot().iter("image"):
            name = f"dlib__{image.attrib['file']}"
            if (folder / name).exists():
                boxes[name] = [
                    Box(*(float(box.attrib[side]) for side in ("left", "top", "width", "height")))
                    for box in image.iter("box")
                ]
    return boxes


def test_every_labelled_face_of_the_groups_is_found(detector: Detector, hard_faces: Path) -> None:
    truth = _truth(hard_faces / "group_many_faces")

    assert sum(len(boxes) for boxes in truth.values()) == 10
    for name, boxes in truth.items():
        found = detector.detect(decode((hard_faces / "group_many_faces" / name).read_bytes()))
        assert len(found) == len(boxes), name
        for box in boxes:
            assert max(_shared_part(face.box, box) for face in found) > 0.35, name


def test_photos_without_people_have_no_faces(detector: Detector, hard_faces: Path) -> None:
    photos = sorted(path for path in (hard_faces / "no_face").iterdir() if path.is_file())

    assert len(photos) > 10
    for path in photos:
        assert detector.detect(decode(path.read_bytes())) == (), path.name


def test_turned_photos_have_a_face(detector: Detector, hard_faces: Path) -> None:
    photos = sorted((hard_faces / "rotated_pixels_no_exif").iterdir())

    assert photos
    for path in photos:
        assert len(detector.detect(decode(path.read_bytes()))) == 1, path.name


def test_a_crowd_of_hundreds_is_found(detector: Detector, hard_faces: Path) -> None:
    """The package mtcnn finds 340 faces in it, most of them 15 px large."""
    path = hard_faces / "group_many_faces" / "linzaer__17.jpg"

    assert len(detector.detect(decode(path.read_bytes()))) >= 330
