"""Killed or stopped at any moment, a gallery is whole, and the next run finishes it."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.engine import Engine
from engine.types import Embedding
from gallery.add import add_folder
from gallery.build import build
from gallery.gallery import Gallery

Variant = Callable[[int], bytes]

BATCH = 16
PHOTOS = 36  # three batches, the last one short
PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory, variant: Variant, hopper_jpeg: bytes) -> Path:
    """Nine people with 4 photos each, and one photo that is not taken."""
    root = tmp_path_factory.mktemp("crowd")
    for number in range(PHOTOS):
        letters = chr(ord("a") + number // 4 // 26) + chr(ord("a") + number // 4 % 26)
        folder = root / f"Person_é {letters}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number:03}.jpg").write_bytes(variant(number))
    (folder / "half.jpg").write_bytes(hopper_jpeg[:3000])
    return root


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, engine: Engine, crowd: Path
) -> dict[str, tuple[str, NDArray[np.float32]]]:
    with Gallery.open(tmp_path_factory.mktemp("whole")) as gallery:
        report = add_folder(gallery, engine, crowd, backbones=["dlib"])
        assert (report.added, len(report.rejected)) == (PHOTOS, 1)
        return contents(gallery)


def contents(gallery: Gallery) -> dict[str, tuple[str, NDArray[np.float32]]]:
    """Person and vector of every portrait, by hash."""
    (space,) = gallery.spaces()
    ids = gallery.embedded(space)
    portraits = gallery.portraits_by_id(ids.tolist())
    people = {person.id: person.key for person in gallery.people()}
    assert len(ids) == len(portraits) == gallery.stats().portraits
    return {
        portraits[one].sha256: (people[portraits[one].person_id], vector)
        for one, vector in zip(ids.tolist(), gallery.vectors(space, ids), strict=True)
    }


def start(crowd: Path, home: Path) -> subprocess.Popen[str]:
    smaller = f"from gallery import add; add._BATCH_FRESH = {BATCH}"
    code = f"{smaller}; from bot.cli.main import main; main()"
    command = [sys.executable, "-c", code, "gallery", "add", str(crowd)]
    return subprocess.Popen(
        [*command, "--home", str(home), "--model", "dlib", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(
    process: subprocess.Popen[str], gallery: Gallery, portraits: int, query: Embedding
) -> None:
    """Until so many portraits are there; meanwhile looks as a bot beside it would."""
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        gallery.refresh()
        stats = gallery.stats()
        if stats.portraits > 0:
            gallery.refresh()
            (match,) = gallery.top_matches(query, 1)
            assert match.thumbnail().startswith(b"\xff\xd8")
        if stats.portraits >= portraits:
            return
        time.sleep(0.03)


@pytest.fixture
def query(engine: Engine) -> Embedding:
    return Embedding(np.full(128, 128**-0.5, np.float32), engine.backbone("dlib").space)


def test_kills_at_any_moment_lose_and_double_nothing(
    tmp_path: Path,
    engine: Engine,
    crowd: Path,
    query: Embedding,
    uninterrupted: dict[str, tuple[str, NDArray[np.float32]]],
) -> None:
    moments = random.Random()  # another moment in every run of the test
    seen = []
    with Gallery.open(tmp_path / "gallery") as gallery:
        for portraits in (0, 1, BATCH + 1):
            process = start(crowd, tmp_path)
            wait_for(process, gallery, portraits, query)
            time.sleep(moments.uniform(0, 0.1))
            process.kill()
            process.communicate(timeout=PATIENCE_S)
            gallery.refresh()
            if gallery.stats().portraits:
                seen.append(len(contents(gallery)))
        assert seen == sorted(seen)
        assert 0 < seen[0] < PHOTOS, seen
        half = contents(gallery)
        report = add_folder(gallery, engine, crowd, backbones=["dlib"])
        assert report.unchanged == len(half)
        assert report.added == PHOTOS - len(half)
        assert len(report.rejected) == 1
        build(gallery, engine, "dlib")
        assert_same(contents(gallery), uninterrupted)
        assert len(gallery.without_photo()) == 0
        assert build(gallery, engine, "dlib").swept == 0


def test_ctrl_c_keeps_what_is_done_and_says_so(
    tmp_path: Path,
    engine: Engine,
    crowd: Path,
    query: Embedding,
    uninterrupted: dict[str, tuple[str, NDArray[np.float32]]],
) -> None:
    with Gallery.open(tmp_path / "gallery") as gallery:
        process = start(crowd, tmp_path)
        wait_for(process, gallery, 1, query)
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130, errors
        report = json.loads(printed)
        assert report["interrupted"] is True
        assert "Traceback" not in errors
        gallery.refresh()
        assert 0 < report["added"] == len(contents(gallery)) < PHOTOS
        rest = add_folder(gallery, engine, crowd, backbones=["dlib"])
        assert (rest.unchanged, rest.added) == (report["added"], PHOTOS - report["added"])
        assert_same(contents(gallery), uninterrupted)


def assert_same(
    found: dict[str, tuple[str, NDArray[np.float32]]],
    expected: dict[str, tuple[str, NDArray[np.float32]]],
) -> None:
    assert found.keys() == expected.keys()
    for sha256, (person, vector) in expected.items():
        assert found[sha256][0] == person
        # Another batch may be another order of rounding.
        assert float(found[sha256][1] @ vector) == pytest.approx(1.0, abs=1e-4)
