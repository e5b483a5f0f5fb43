"""Verification and identification with the real engine, on photos made from two people's."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.engine import Engine
from engine.errors import SetupProblem
from engine.types import Box, Face, Photo
from gallery.evaluation.measures import verify
from gallery.evaluation.photos import central_face, embed_photos, read_pairs
from gallery.evaluation.report import EvaluationReport, evaluate_people
from gallery.scores import prior


def rank(report: EvaluationReport, k: int) -> float:
    return report.columns[0].measures.rank(k).value


def failures(report: EvaluationReport) -> int:
    return len(report.columns[0].measures.probe_set.failures)


Variant = Callable[[int], bytes]
NAMES = ("Grace_Hopper", "Eileen_Collins")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, variant: Variant) -> Path:
    """Five photos of each of the two; nobody may change them."""
    root = tmp_path_factory.mktemp("labelled") / "people"
    for number in range(10):
        path = root / NAMES[number % 2] / f"{number // 2}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(variant(number))
    return root


@pytest.fixture
def own_photos(photos: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(photos, tmp_path / "people"))


def pairs_file(folder: Path, lines: list[str], head: str = "a,b,same") -> Path:
    path = folder / "pairs.csv"
    path.write_text("\n".join([head, *lines]), encoding="utf-8")
    return path


GOOD = [
    "Grace_Hopper/0.jpg,Grace_Hopper/1.jpg,1",
    "Eileen_Collins/0.jpg,Eileen_Collins/1.jpg,1",
    "Grace_Hopper/2.jpg,Grace_Hopper/3.jpg,1",
    "Grace_Hopper/0.jpg,Eileen_Collins/0.jpg,0",
    "Grace_Hopper/1.jpg,Eileen_Collins/1.jpg,0",
    "Eileen_Collins/2.jpg,Grace_Hopper/2.jpg,0",
]


# --- pairs ------------------------------------------------------------------------------------


def test_two_people_are_told_apart(engine: Engine, own_photos: Path) -> None:
    pairs = read_pairs(pairs_file(own_photos, GOOD), own_photos)
    calibration = prior(engine.backbone("dlib").space)
    told: list[tuple[int, int | None]] = []

    result = verify(
        engine,
        "dlib",
        pairs,
        root=own_photos,
        calibration=calibration,
        progress=lambda _, done, total: told.append((done, total)),
    )
    record = result.to_json()

    assert (result.accuracy, result.roc.area, result.tar) == (1, 1, 1)
    assert (record["pairs"], record["same"], record["different"], record["failures"]) == (
        6,
        3,
        3,
        0,
    )
    assert record["photos"] == 7
    assert told[0] == (0, 7)
    assert told[-1] == (7, 7)
    assert record["scores"]["same_person_median"] > 90
    assert record["scores"]["strangers_at_least_65"] == 0


def test_a_photo_without_a_face_is_an_error_in_every_pair_it_is_in(
    engine: Engine, own_photos: Path, blank_jpeg: bytes
) -> None:
    """Also one that is no photo; both are named, with the reason."""
    (own_photos / "blank.jpg").write_bytes(blank_jpeg)
    (own_photos / "broken.jpg").write_bytes(b"no photo")
    lines = [
        *GOOD,
        "blank.jpg,Grace_Hopper/0.jpg,1",
        "blank.jpg,Eileen_Collins/0.jpg,0",
        "broken.jpg,Eileen_Collins/0.jpg,0",
        "blank.jpg,broken.jpg,0",
    ]
    pairs = read_pairs(pairs_file(own_photos, lines), own_photos)
    calibration = prior(engine.backbone("dlib").space)

    result = verify(engine, "dlib", pairs, root=own_photos, calibration=calibration)

    assert result.to_json()["failures"] == 4
    assert result.accuracy == pytest.approx(0.6)
    assert result.tar == pytest.approx(3 / 4)
    assert set(result.faceless) == {"blank.jpg", "broken.jpg"}
    assert result.faceless["blank.jpg"] == "no face"


@pytest.mark.parametrize(
    "head", ["a,b,same", "same , B,A", "a;b;same", "a\tb\tsame", "\ufeffa,b,same"]
)
def test_the_columns_may_come_in_any_order_and_style(
    photos: Path, tmp_path: Path, head: str
) -> None:
    delimiter = next(one for one in ";\t," if one in head)
    columns = [name.strip("\ufeff ").lower() for name in head.split(delimiter)]
    lines = [
        delimiter.join(
            dict(zip(("a", "b", "same"), line.split(","), strict=True))[c] for c in columns
        )
        for line in GOOD
    ]

    pairs = read_pairs(pairs_file(tmp_path, lines, head), photos)

    assert [pair.same for pair in pairs] == [True] * 3 + [False] * 3
    assert pairs[0].a == photos / "Grace_Hopper" / "0.jpg"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "at least one each"),
        (b"a,b,same\n", "at least one each"),
        (b"a,b,same\nGrace_Hopper/0.jpg,Grace_Hopper/1.jpg,1\n", "at least one each"),
        (b"a,b\nx.jpg,y.jpg\n", "line 2 .* has no same"),
        (b"a,b,same\nx.jpg\n", "line 2 .* has no b"),
        (b"a,b,same\nx.jpg,y.jpg,perhaps\n", "line 2 .* not perhaps"),
        (b"a,b,same\nx.jpg,y.jpg,1\nx.jpg,z.jpg,0\n", "no photo .*x.jpg and 2 more: --root"),
        (b"\xff\xfe\x00", "no CSV"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    photos: Path, tmp_path: Path, content: bytes, sentence: str
) -> None:
    path = tmp_path / "pairs.csv"
    path.write_bytes(content)

    with pytest.raises(SetupProblem, match=sentence):
        read_pairs(path, photos)


@pytest.mark.parametrize("where", ["nowhere.csv", "."])
def test_a_file_that_can_not_be_read(tmp_path: Path, where: str) -> None:
    with pytest.raises(SetupProblem, match="can't be read"):
        read_pairs(tmp_path / where, tmp_path)


# --- people -----------------------------------------------------------------------------------


def test_people_are_found_by_photos_not_in_the_gallery(engine: Engine, own_photos: Path) -> None:
    """Those with too few photos are left out and named."""
    shy = own_photos / "Camera_Shy"
    shy.mkdir()
    for name in ("0.jpg", "1.jpg", "2.jpg"):
        shutil.copy(own_photos / "Grace_Hopper" / name, shy / name)

    result = evaluate_people(engine, own_photos, backbones=["dlib"], gallery_photos=3)
    record = result.identification_json()

    assert (record["people"], record["probes"], record["failures"]) == (2, 4, 0)
    assert (record["rank_1"], record["rank_5"]) == (1, 1)
    assert record["people_skipped"] == ["Camera Shy"]
    assert record["photos"] == 10
    assert record["scores"]["learned_from_people"] == 2


def test_the_first_photos_by_name_are_the_gallery(
    engine: Engine, own_photos: Path, blank_jpeg: bytes
) -> None:
    """A gallery photo without a face is made up for by the others; a probe without is an error."""
    (own_photos / "Grace_Hopper" / "0.jpg").write_bytes(blank_jpeg)
    (own_photos / "Eileen_Collins" / "4.jpg").write_bytes(blank_jpeg)

    result = evaluate_people(engine, own_photos, backbones=["dlib"], gallery_photos=3)

    assert set(result.faceless) == {"Grace_Hopper/0.jpg", "Eileen_Collins/4.jpg"}
    assert failures(result) == 1
    assert rank(result, 1) == rank(result, 5) == 3 / 4


def test_a_person_without_any_face_in_the_gallery_is_never_found(
    engine: Engine, own_photos: Path, blank_jpeg: bytes
) -> None:
    third = shutil.copytree(own_photos / "Grace_Hopper", own_photos / "Third_Person")
    for name in ("0.jpg", "1.jpg"):
        (Path(third) / name).write_bytes(blank_jpeg)

    result = evaluate_people(engine, own_photos, backbones=["dlib"], gallery_photos=2)

    assert (result.people, result.probes, failures(result)) == (3, 9, 3)
    assert rank(result, 1) == pytest.approx(6 / 9)
    assert rank(result, 100) == pytest.approx(6 / 9)


def test_one_picture_under_two_names_identifies_nobody(engine: Engine, own_photos: Path) -> None:
    shutil.copytree(own_photos / "Grace_Hopper", own_photos / "Twin")

    result = evaluate_people(engine, own_photos, backbones=["dlib"], gallery_photos=3)

    assert rank(result, 1) == pytest.approx(2 / 6)
    assert rank(result, 2) == 1


def test_folders_without_enough_people(engine: Engine, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupProblem, match="there is no folder"):
        evaluate_people(engine, tmp_path / "nowhere", backbones=["dlib"], gallery_photos=3)
    with pytest.raises(SetupProblem, match="no photos"):
        evaluate_people(engine, tmp_path, backbones=["dlib"], gallery_photos=3)
    with pytest.raises(SetupProblem, match="0 people with more than 5 photos"):
        evaluate_people(engine, photos, backbones=["dlib"], gallery_photos=5)


def test_people_nobody_finds_a_face_of(engine: Engine, tmp_path: Path, blank_jpeg: bytes) -> None:
    for name in ("One", "Two"):
        (tmp_path / name).mkdir()
        for number in range(2):
            (tmp_path / name / f"{number}.jpg").write_bytes(blank_jpeg)

    with pytest.raises(SetupProblem, match="not enough faces"):
        evaluate_people(engine, tmp_path, backbones=["dlib"], gallery_photos=1)


# --- photos -----------------------------------------------------------------------------------


def test_every_file_is_looked_at_once(engine: Engine, photos: Path) -> None:
    file = photos / "Grace_Hopper" / "0.jpg"

    seen = embed_photos(engine, ["dlib"], [file] * 3)["dlib"]

    assert list(seen.vectors) == [file]
    assert seen.failures == {}
    assert np.linalg.norm(seen.vectors[file]) == pytest.approx(1, abs=1e-3)
    assert seen.space == engine.backbone("dlib").space


@pytest.mark.parametrize(
    ("others", "meant"),
    [
        ([(170, 10, 70)], 0),  # larger, in the corner
        ([(95, 95, 30)], 0),  # more central, but small
        ([(70, 70, 110)], 1),  # central and larger
    ],
)
def test_the_face_meant_is_large_and_near_the_centre(
    others: list[tuple[float, float, float]], meant: int
) -> None:
    photo = Photo(np.zeros((250, 250, 3), np.uint8), (250, 250), "JPEG")
    faces = [
        Face(Box(x, y, side, side), np.zeros((5, 2), np.float32), 1.0)
        for x, y, side in [(80, 90, 64), *others]
    ]

    assert central_face(photo, faces) is faces[meant]


def test_celebrities_are_found_and_scores_are_honest(
    engine: Engine, people_photos: Path, tmp_path: Path
) -> None:
    """A part of the people at hand, real photos with a few wrong names among them."""
    everybody = sorted((people_photos / "celeb_mini").iterdir())
    for person in everybody[2::15]:
        shutil.copytree(person, tmp_path / person.name)

    result = evaluate_people(engine, tmp_path, backbones=["dlib"], gallery_photos=3)
    scores = result.identification_json()["scores"]

    assert result.people >= 36
    assert rank(result, 1) >= 0.94
    assert rank(result, 5) >= 0.96
    assert scores["same_person_median"] >= 91
    assert 0.005 <= scores["strangers_at_least_50"] <= 0.02
    assert scores["strangers_at_least_65"] <= 0.0025
