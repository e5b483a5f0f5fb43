"""A gallery goes to PostgreSQL and comes back, and answers the same everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from packed import DLIB, RESNET, everything, fill, units
from postgres_server import PostgresServer

from bot.cli.main import lookalike
from engine.errors import BadSettings
from engine.types import Embedding, Space
from gallery import transfer
from gallery.build import learn_scores
from gallery.gallery import Gallery
from gallery.records import FoundPerson
from gallery.transfer import copy_gallery, export_gallery, import_file


@pytest.fixture
def shared(postgres: PostgresServer, tmp_path: Path) -> Iterator[Gallery]:
    with Gallery.open(tmp_path / "shared", postgres.gallery()) as opened:
        yield opened


@pytest.fixture
def back(tmp_path: Path) -> Iterator[Gallery]:
    with Gallery.open(tmp_path / "back") as opened:
        yield opened


def answers(gallery: Gallery, space: Space) -> list[list[tuple[str, str, float, float]]]:
    queries = units(np.random.default_rng(7), 20, space.dimensions)
    return [
        [
            (one.person.key, one.portrait.sha256, one.cosine, one.score)
            for one in gallery.top_matches(Embedding(query, space), 5)
        ]
        for query in queries
    ]


def test_there_and_back_again(gallery: Gallery, shared: Gallery, back: Gallery) -> None:
    fill(gallery, 30, 3, DLIB, RESNET)
    for space in (DLIB, RESNET):
        learn_scores(gallery, space)
    gallery.refresh()
    there = copy_gallery(gallery, shared)
    assert (there.added, there.people_added, there.rejected) == (90, 30, [])
    assert set(there.calibrations) == {DLIB, RESNET}
    assert copy_gallery(gallery, shared).unchanged == 90
    again = copy_gallery(shared, back)
    assert (again.added, again.people_added) == (90, 30)
    assert everything(gallery) == everything(shared) == everything(back)
    for space in (DLIB, RESNET):
        assert answers(gallery, space) == answers(shared, space) == answers(back, space)


def test_a_file_from_one_kind_is_a_file_for_the_other(
    gallery: Gallery, shared: Gallery, back: Gallery, tmp_path: Path
) -> None:
    fill(gallery, 20, 2, DLIB)
    export_gallery(gallery, tmp_path / "folder.lookalike", photos=False)
    assert import_file(shared, tmp_path / "folder.lookalike").without_photo == 40
    export_gallery(gallery, tmp_path / "all.lookalike")
    assert import_file(shared, tmp_path / "all.lookalike").photos_brought == 40
    export_gallery(shared, tmp_path / "server.lookalike")
    import_file(back, tmp_path / "server.lookalike")
    assert everything(back) == everything(gallery)


def test_an_interrupted_copy_goes_on(
    gallery: Gallery, shared: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_BATCH", 32)
    fill(gallery, 20, 2, DLIB)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    report = copy_gallery(gallery, shared, progress=stop)
    assert report.interrupted
    assert shared.stats().portraits == len(shared.embedded(DLIB)) == 32
    assert copy_gallery(gallery, shared).added == 40 - 32
    assert everything(shared) == everything(gallery)


def test_odd_people_fit_into_the_columns(gallery: Gallery, shared: Gallery) -> None:
    """What SQLite takes without counting."""
    people = [FoundPerson(f"name:{n}", "\ufdfa" * n, ("x" * 200,), fame=n) for n in (1, 40, 44)]
    with gallery.writing(), gallery.transaction() as changes:
        for person in people:
            changes.add_person(person)
    copy_gallery(gallery, shared)
    assert everything(shared) == everything(gallery)


def test_the_command_takes_urls(
    own_home: Path, tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copied(source: str | Path, target: str | Path) -> str:
        words = ["gallery", "copy", str(source), str(target), "--home", str(own_home)]
        result = CliRunner().invoke(lookalike, words)
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "added      2 portraits, 2 new people" in copied(own_home, postgres_url)
    assert "dlib: 2 of 2 portraits searchable" in copied(postgres_url, tmp_path / "b")
    assert "unchanged  2 portraits" in copied(tmp_path / "b", postgres_url)
    monkeypatch.setenv("LOOKALIKE_GALLERY__URL", postgres_url)
    words = ["gallery", "export", str(tmp_path / "x.lookalike"), "--home", str(own_home)]
    assert "pictures   2" in CliRunner().invoke(lookalike, words).stdout
    words = ["gallery", "copy", postgres_url, postgres_url, "--home", str(own_home)]
    assert isinstance(CliRunner().invoke(lookalike, words).exception, BadSettings)
