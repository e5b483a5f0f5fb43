"""The report is one file that is whole, names nobody's markup, and needs nothing else."""

from __future__ import annotations

import base64
import html.parser
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from probe_sets import crowd, made_up, measures_of

from engine.engine import Engine
from engine.errors import SetupProblem
from engine.types import Box, Photo
from gallery.evaluation.groups import find_mistakes
from gallery.evaluation.photos import read_labels
from gallery.evaluation.report import (
    EvaluationReport,
    ModelReport,
    advice,
    cut_around,
    evaluate_people,
    picture,
    render,
)

Variant = Callable[[int], bytes]
HOSTILE = "<script>alert(1)<%script> & \"'{{ 7*7 }}"

ROLES = {"looked up", "taken for", "in the gallery", "found", "should be"}


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, variant: Variant) -> Path:
    """Two people with five photos each; one has a name and a category that try to be markup."""
    root = tmp_path_factory.mktemp("report") / "people"
    for number in range(10):
        name = ("Grace_Hopper", HOSTILE)[number % 2]
        path = root / "<b>science" / name / f"{number // 2}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(variant(number))
    return root


@pytest.fixture(scope="module")
def report(engine: Engine, photos: Path) -> EvaluationReport:
    return evaluate_people(
        engine,
        photos,
        backbones=["dlib"],
        unavailable={"resnet": "the weights are not here: run `lookalike models <download>`"},
        gallery_photos=3,
        labels=read_labels(photos),
    )


@pytest.fixture(scope="module")
def page(engine: Engine, report: EvaluationReport) -> str:
    return render(report, engine, command="lookalike evaluate report '<x>'")


def test_everything_is_in_it(page: str) -> None:
    read = Page(page)

    assert "Use dlib" in read.words
    for heading in ("Side by side", "Finding people", "Scores", "Hardest mistakes"):
        assert heading in read.words
    assert "This page holds photos" in read.words
    assert "lookalike evaluate report '<x>'" in read.words
    assert "Too small to judge" in read.words
    charts = read.of("svg")
    assert len(charts) == 5
    assert all(chart["role"] == "img" and chart["aria-labelledby"] for chart in charts)
    identities = [attributes["id"] for _, attributes in read.tags if attributes.get("id")]
    assert len(identities) == len(set(identities))
    for chart in charts:
        assert chart["aria-labelledby"] in identities


def test_it_asks_for_nothing(page: str) -> None:
    read = Page(page)

    assert not read.of("script")
    assert all(link["href"] == "data:," for link in read.of("link"))
    assert all(
        (image["src"] or "").startswith("data:image/jpeg;base64,") for image in read.of("img")
    )
    outside = re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', page)
    assert outside == []
    assert "default-src 'none'" in str(read.of("meta"))


def test_names_are_words_whatever_they_hold(page: str) -> None:
    read = Page(page)

    assert HOSTILE in read.words
    assert "<b>science" in read.words
    assert "<download>" in read.words
    assert "<script>alert" not in page
    assert any(HOSTILE in (image["alt"] or "") for image in read.of("img"))


def test_pictures_are_small_and_named(page: str) -> None:
    images = Page(page).of("img")

    assert len(images) >= 4
    for image in images:
        assert (image["alt"] or "").partition(": photo of ")[0] in ROLES
        content = base64.b64decode((image["src"] or "").partition(",")[2])
        width_px, height_px = Image.open(io.BytesIO(content)).size
        assert 40 <= width_px == height_px <= 160


def test_figures_as_json(report: EvaluationReport) -> None:
    record = report.to_json()
    (model,) = record["models"]

    assert (record["people"], record["photos"], record["probes"]) == (2, 10, 4)
    assert model["rank_k"]["1"] == {
        "share": 1.0,
        "low": pytest.approx(0.51, abs=0.01),
        "high": 1,
        "of": 4,
    }
    assert model["scores"]["strangers_at_least"]["75"]["share"] == 0
    assert model["groups"]["category"]["too_small_to_judge"] == {"<b>science": 2}
    assert set(record["unavailable"]) == {"resnet"}


def test_every_photo_is_seen_once(engine: Engine, photos: Path) -> None:
    told: list[tuple[str, int, int | None]] = []

    evaluate_people(
        engine, photos, backbones=["dlib"], unavailable={}, gallery_photos=3,
        labels=read_labels(photos), progress=lambda *done: told.append(done),
    )  # fmt: skip

    seen = [done for what, done, _ in told if what == "photos"]
    assert seen[-1] == 10
    assert seen == sorted(seen)
    assert [done for what, done, _ in told if what == "models"] == [0, 1]


def test_a_photo_that_is_gone_is_said_to_be(engine: Engine, photos: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(photos, tmp_path / "people"))
    found = evaluate_people(
        engine, own, backbones=["dlib"], unavailable={}, gallery_photos=3, labels=read_labels(own)
    )
    for photo in own.rglob("*.jpg"):
        photo.write_bytes(b"no photo any more")

    read = Page(render(found, engine, command=""))

    assert read.of("img") == []
    assert "photo not there any more" in read.words
    assert "0 pictures of people" in read.words


@given(
    st.integers(1, 90), st.integers(1, 90),
    st.floats(-50, 120), st.floats(-50, 120), st.floats(1, 200), st.floats(1, 200),
)  # fmt: skip
def test_a_cut_lies_within_the_photo(
    height: int, width: int, x: float, y: float, w: float, h: float
) -> None:
    photo = Photo(np.zeros((height, width, 3), np.uint8), (width, height), "JPEG")

    cut = cut_around(photo, Box(x, y, w, h))

    assert cut.shape[0] == cut.shape[1] == min(height, width, max(1, round(2 * max(w, h))))


def test_the_face_is_in_the_middle(engine: Engine, tmp_path: Path) -> None:
    pixels = np.zeros((400, 400, 3), np.uint8)
    pixels[250:290, 100:140] = 255
    Image.fromarray(pixels).save(tmp_path / "photo.png")

    uri = picture(engine, tmp_path / "photo.png", Box(100, 250, 40, 40)) or ""
    small = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))

    assert small.shape == (80, 80, 3)
    assert small[40, 40].min() > 200
    assert small[5, 5].max() < 50


def test_too_few_people(engine: Engine, photos: Path) -> None:
    with pytest.raises(SetupProblem, match="0 people with more than 5 photos"):
        evaluate_people(
            engine, photos, backbones=["dlib"], unavailable={}, gallery_photos=5,
            labels=read_labels(photos),
        )  # fmt: skip


# --- advice -----------------------------------------------------------------------------------


def column(model: str, noise: float, seconds: float) -> ModelReport:
    measures = measures_of(made_up(crowd(60, 6, noise=noise, seed=3)))
    measures.model, measures.seconds = model, seconds
    return ModelReport(model, measures, (), find_mistakes(measures, shown=1))


def test_the_better_one_is_advised() -> None:
    said = advice([column("senet", 0.5, 1), column("resnet", 0.1, 9)])

    assert said.startswith("Use resnet: it finds the right person first in 100.0 %")
    assert "more than chance" in said


def test_of_two_that_are_as_good_the_faster_one_is() -> None:
    said = advice([column("resnet", 0.1, 9), column("dlib", 0.1, 3)])

    assert said.startswith("Use dlib: ")
    assert "equally often" in said
    assert said.endswith("dlib takes 3.0 times less time.")
