"""Our MTCNN against the package mtcnn itself, on TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.decode import decode
from engine.mtcnn import Detector, Stage, network_graph
from engine.reference import ReferenceDetector, published_detector
from engine.runtime import compile_network
from engine.types import Box, Face

pytestmark = pytest.mark.xdist_group("tensorflow")


@pytest.fixture(scope="module")
def package() -> Any:
    return published_detector()


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


@pytest.mark.parametrize(
    ("stage", "shape"),
    [("pnet", (1, 61, 96)), ("pnet", (1, 12, 12)), ("rnet", (5, 24, 24)), ("onet", (5, 48, 48))],
)
def test_the_networks_are_the_packages(package: Any, stage: Stage, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    model = package.get_stage(stage_id=("pnet", "rnet", "onet").index(stage) + 1).model

    theirs = [np.asarray(output) for output in model((pixels.astype(np.float32) - 127.5) / 128)]
    network = compile_network(lambda: network_graph(stage), name=stage, precision="f32")
    ours = list(network.run(pixels))

    if stage == "pnet":
        rows, columns = theirs[0].shape[1:3]
        ours = [output[:, :, :rows, :columns].transpose(0, 2, 3, 1) for output in ours]
    theirs[-1] = theirs[-1][..., 1:]  # the probability of a face
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == other.shape
        np.testing.assert_allclose(mine, other, atol=2e-5)


def _shared_part(a: Box, b: Box) -> float:
    wide = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
    high = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
    both = max(wide, 0.0) * max(high, 0.0)
    return both / (a.area_px + b.area_px - both)


def _apart(ours: Face, theirs: Face) -> float:
    """Largest distance between their landmarks, as a part of the face's size."""
    distance = np.linalg.norm(ours.landmarks - theirs.landmarks, axis=1).max()
    return float(distance / max(theirs.box.w, theirs.box.h))


@pytest.mark.parametrize("name", ["hopper_jpeg", "collins_jpeg"])
def test_a_clear_face_is_the_packages(
    package: Any, detector: Detector, name: str, request: pytest.FixtureRequest
) -> None:
    photo = decode(request.getfixturevalue(name))

    (theirs,), (ours,) = ReferenceDetector(package).detect(photo), detector.detect(photo)

    assert _shared_part(ours.box, theirs.box) > 0.9
    assert _apart(ours, theirs) < 0.03


def test_clear_faces_of_many_people_are_the_packages(
    package: Any, detector: Detector, people_photos: Path
) -> None:
    """Ours are the mean of two looks, so they may differ where the package's one look is unsure."""
    reference, apart = ReferenceDetector(package), []
    for path in sorted((people_photos / "celeb_mini").rglob("*.*"))[::300]:
        photo = decode(path.read_bytes())
        theirs = reference.detect(photo)
        if len(theirs) != 1 or theirs[0].confidence < 0.97 or theirs[0].concerns:
            continue
        (ours,) = detector.detect(photo)
        assert _shared_part(ours.box, theirs[0].box) > 0.7
        apart.append(_apart(ours, theirs[0]))
    assert len(apart) > 5
    assert np.median(apart) < 0.02
    assert max(apart) < 0.1


KINDS = ("group_many_faces", "small_faces", "sunglasses_glasses", "profile_and_pose")


@pytest.mark.parametrize("kind", KINDS)
def test_hard_pictures_keep_the_faces_that_the_package_finds(
    package: Any, detector: Detector, hard_faces: Path, kind: str
) -> None:
    """Of its sure faces at least 95 % in crowds, and all but one elsewhere, are found."""
    reference, seen, missed = ReferenceDetector(package), 0, 0
    photos = [path for path in sorted((hard_faces / kind).iterdir()) if path.is_file()]
    for path in photos[: 12 if kind == "small_faces" else 30]:
        if path.name.startswith("linzaer__17"):  # 340 faces of 15 px, 10 s in the package
            continue
        photo = decode(path.read_bytes())
        ours = detector.detect(photo)
        for face in reference.detect(photo):
            if face.confidence > 0.95:
                seen += 1
                missed += not any(_shared_part(face.box, other.box) > 0.35 for other in ours)
    assert seen > 5
    assert missed <= max(1, seen // 20)
