"""A gallery goes into one file and comes out as it was, with or without its photos."""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packed import DLIB, RESNET, everything, fill, jpeg, units
from sqlalchemy import delete, update

from engine.backbones.network import portrait_jpeg
from engine.engine import Engine
from engine.errors import BadSettings
from engine.types import Box, Embedding, Space
from gallery import gallery as gallery_module
from gallery import pack, transfer
from gallery.add import add
from gallery.build import build, learn_scores, remove
from gallery.gallery import Gallery
from gallery.pack import PackReader
from gallery.records import Credit, FoundPerson, FoundPortrait, Thumbnail
from gallery.scores import read_learned
from gallery.silhouette import draw_silhouette, is_silhouette
from gallery.tables import METADATA, THUMBNAILS
from gallery.transfer import copy_gallery, export_gallery, import_file


def rows(file: Path) -> dict[str, list[Any]]:
    """All rows of a file by table, but the program's own."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        names = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
        tables = [name for (name,) in connection.execute(names)]
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in tables}


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Gallery]:
    with Gallery.open(tmp_path / "other") as opened:
        yield opened


def test_what_is_exported_comes_out_as_it_was(
    gallery: Gallery, other: Gallery, tmp_path: Path
) -> None:
    fill(gallery, 40, 3, DLIB, RESNET)
    file = tmp_path / "all.lookalike"
    written = export_gallery(gallery, file)
    assert (written.people, written.portraits, written.photos) == (40, 120, 120)
    assert written.vectors == {DLIB: 120, RESNET: 96}
    assert written.size_bytes == file.stat().st_size
    report = import_file(other, file)
    assert (report.people_added, report.added, report.rejected) == (40, 120, [])
    assert dict(report.vectors) == written.vectors
    assert report.without_photo == 0
    assert everything(other) == everything(gallery)
    query = Embedding(units(np.random.default_rng(7), 1, 2048)[0], RESNET)
    found = [(m.person.key, m.portrait.sha256, m.cosine) for m in other.top_matches(query, 20)]
    assert found == [
        (m.person.key, m.portrait.sha256, m.cosine) for m in gallery.top_matches(query, 20)
    ]
    again = tmp_path / "again.lookalike"
    export_gallery(other, again)
    first, second = rows(file), rows(again)
    for name in first.keys() - {"calibration", "finding"}:  # learned from fewer vectors there
        assert first[name] == second[name]


def test_the_same_gallery_makes_the_same_file(gallery: Gallery, tmp_path: Path) -> None:
    fill(gallery, 3, 2, DLIB)
    for name in "ab":
        export_gallery(gallery, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_file_is_plain_and_anybody_can_read_it(gallery: Gallery, tmp_path: Path) -> None:
    fill(gallery, 3, 2, DLIB)
    export_gallery(gallery, tmp_path / "all.lookalike")
    ids = gallery.embedded(DLIB)
    with contextlib.closing(sqlite3.connect(tmp_path / "all.lookalike")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        values = connection.execute(
            "SELECT value FROM portrait_vector ORDER BY portrait_id"
        ).fetchall()
        people = connection.execute("SELECT name FROM person ORDER BY id").fetchall()
        licences = connection.execute("SELECT DISTINCT licence FROM portrait").fetchall()
        jpegs = connection.execute("SELECT jpeg FROM thumbnail").fetchall()
    vectors = np.frombuffer(b"".join(value for (value,) in values), "<f4").reshape(-1, 128)
    assert np.array_equal(vectors, gallery.vectors(DLIB, ids))
    assert people == [("Persón 0",), ("Persón 1",), ("Persón 2",)]
    assert licences == [("CC BY 4.0",)]
    assert all(one.startswith(b"\xff\xd8") for (one,) in jpegs)


def test_importing_twice_does_nothing_the_second_time(
    gallery: Gallery, other: Gallery, tmp_path: Path
) -> None:
    fill(gallery, 10, 2, DLIB)
    export_gallery(gallery, tmp_path / "all.lookalike")
    import_file(other, tmp_path / "all.lookalike")
    revision = other.revision()
    report = import_file(other, tmp_path / "all.lookalike")
    assert (report.added, report.unchanged, report.people_added) == (0, 20, 0)
    assert not report.vectors
    assert other.revision() == revision


def test_people_are_merged_and_what_is_here_stays(
    gallery: Gallery, other: Gallery, tmp_path: Path
) -> None:
    fill(gallery, 4, 1, DLIB)
    with other.writing(), other.transaction() as changes:
        here = FoundPerson(key="Q1", name="Known Otherwise", categories=("chess",))
        changes.add_person(here)
        bystander = FoundPerson(key="name:x", name="Bystander")
        owner = changes.add_person(bystander)
        changes.add_portrait(  # the photo of Q2, under another name
            owner,
            Credit(),
            f"{1000:064x}",
            Thumbnail(None, 48, 60, np.ones((5, 2), np.float32), Box(1, 1, 2, 2)),
        )
    export_gallery(gallery, tmp_path / "all.lookalike")
    report = import_file(other, tmp_path / "all.lookalike")
    assert [(one.person, one.reason) for one in report.rejected] == [
        ("Persón 1", "duplicate of Bystander")
    ]
    person = other.find_person("Q1")
    assert person is not None
    assert (person.name, person.categories) == ("Known Otherwise", ("chess", "film", "sports"))
    assert (person.country, person.fame) == ("Elbonia", 0)
    assert other.find_person("Q2") is None
    assert len(other.embedded(DLIB)) == 3


def test_who_was_removed_for_good_stays_away(
    gallery: Gallery, other: Gallery, tmp_path: Path
) -> None:
    fill(gallery, 4, 2, DLIB)
    gone_there, gone_here = gallery.find_person("Q1"), gallery.find_person("Q2")
    assert gone_there is not None
    assert gone_here is not None
    with other.transaction() as changes:
        changes.ban(gone_here.key, gone_here.name, gone_here.wikidata_id)
    remove(gallery, gone_there, never_again=True)
    export_gallery(gallery, tmp_path / "all.lookalike")
    report = import_file(other, tmp_path / "all.lookalike")
    assert report.never_again == 1
    assert {one.reason for one in report.rejected} == {"removed, never again"}
    assert {person.key for person in other.people()} == {"Q3", "Q4"}
    assert other.banned().keys.keys() == {"Q1", "Q2"}


def test_without_photos_people_are_found_and_cards_show_a_silhouette(
    engine: Engine, own_home: Path, other: Gallery, tmp_path: Path, hopper_jpeg: bytes
) -> None:
    with Gallery.open(own_home / "gallery") as gallery:
        export_gallery(gallery, tmp_path / "few.lookalike", photos=False)
        export_gallery(gallery, tmp_path / "all.lookalike")
        report = import_file(other, tmp_path / "few.lookalike")
        assert (report.added, report.without_photo) == (2, 2)
        assert everything(other, pictures=False) == everything(gallery, pictures=False)
        photo = engine.decode(hopper_jpeg)
        (probe,) = engine.embed([(photo, engine.detect(photo)[0])], "dlib")
        (match,) = other.top_matches(probe, 1)
        assert (match.person.name, match.portrait.licence) == ("Grace Hopper", "public domain")
        assert match.score > 99
        picture = engine.decode(other.thumbnail(match.portrait))
        assert (picture.width_px, picture.height_px) == (
            match.portrait.width_px,
            match.portrait.height_px,
        )
        assert other.photo(match.portrait) is None
        # A build neither embeds nor drops them.
        vectors = everything(other)
        revision = other.revision()
        built = build(other, engine, "dlib")
        assert (built.dropped, built.swept, built.embedded.total()) == ([], 0, 0)
        assert everything(other) == vectors
        assert other.revision() == revision
        # An export of it says that there are none.
        assert export_gallery(other, tmp_path / "again.lookalike").photos == 0
        brought = import_file(other, tmp_path / "all.lookalike")
        assert (brought.photos_brought, brought.added) == (2, 0)
        assert everything(other) == everything(gallery)


def test_a_silhouette_without_vectors_is_embedded_by_nobody(
    engine: Engine, own_home: Path, other: Gallery, tmp_path: Path
) -> None:
    """And the photo takes its place when a source brings it."""
    with Gallery.open(own_home / "gallery") as gallery:
        export_gallery(gallery, tmp_path / "few.lookalike", photos=False)
        import_file(other, tmp_path / "few.lookalike")
        space = engine.backbone("dlib").space
        with other.writing(), other.transaction() as changes:
            changes.remove_space(space)
        built = build(other, engine, "dlib")
        assert (built.embedded.total(), built.dropped) == (0, [])
        assert len(other.embedded(space)) == 0
        (known,) = gallery.portraits(gallery.people()[1].id)
        person = FoundPerson(key="name:grace hopper", name="Grace Hopper")
        found = FoundPortrait(person, "hopper.jpg", lambda _: portrait_jpeg("grace_hopper"))
        report = add(other, engine, [found], backbones=["dlib"])
        assert (report.unchanged, report.added, report.embedded.total()) == (1, 0, 1)
        (now,) = other.portraits_by_hash([known.sha256])
        assert other.photo(now) == gallery.photo(known) is not None
        assert now.author == known.author
        assert other.embedded(space).tolist() == [now.id]


def test_scores_come_along_where_none_were_learned(
    gallery: Gallery, other: Gallery, tmp_path: Path
) -> None:
    fill(gallery, 120, 2, DLIB)
    gallery.refresh()
    learn_scores(gallery, DLIB)
    export_gallery(gallery, tmp_path / "all.lookalike")
    report = import_file(other, tmp_path / "all.lookalike")
    assert report.calibrations == [DLIB]
    assert other.calibration(DLIB) == gallery.calibration(DLIB)
    fill(gallery, 300, 1, DLIB, seed=1)  # merged by key; many more portraits
    learn_scores(gallery, DLIB)
    export_gallery(gallery, tmp_path / "more.lookalike")
    report = import_file(other, tmp_path / "more.lookalike")
    assert report.calibrations == []
    learned = read_learned(other, DLIB)
    assert learned is not None
    assert learned.rows == 540
    assert learned.calibration != gallery.calibration(DLIB) or learned.calibration.people == 300


def test_spaces_of_other_weights_are_kept_apart(
    gallery: Gallery, other: Gallery, tmp_path: Path
) -> None:
    foreign = Space("dlib", "ef" * 32, 2, 128)
    fill(gallery, 5, 1, DLIB)
    fill(other, 5, 1, foreign, seed=2)
    export_gallery(gallery, tmp_path / "all.lookalike")
    import_file(other, tmp_path / "all.lookalike")
    assert set(other.spaces()) == {DLIB, foreign}
    assert len(other.embedded(DLIB)) == len(other.embedded(foreign)) == 5
    query = Embedding(gallery.vectors(DLIB, gallery.embedded(DLIB))[0], DLIB)
    (match,) = other.top_matches(query, 1)
    assert match.cosine == pytest.approx(1)


def test_a_space_of_the_same_short_name_is_left_out(
    gallery: Gallery, other: Gallery, tmp_path: Path
) -> None:
    twin = Space("dlib", DLIB.weights_sha256[:12] + "0" * 52, 2, 128)
    fill(gallery, 5, 1, DLIB)
    fill(other, 2, 1, twin, seed=3)
    export_gallery(gallery, tmp_path / "all.lookalike")
    report = import_file(other, tmp_path / "all.lookalike")
    assert list(report.left_out) == [DLIB]
    assert report.added == 5
    assert other.spaces() == (twin,)


def test_a_file_is_not_replaced_unasked(gallery: Gallery, tmp_path: Path) -> None:
    fill(gallery, 1, 1, DLIB)
    file = tmp_path / "all.lookalike"
    file.write_bytes(b"dear to somebody")
    with pytest.raises(BadSettings, match="--force"):
        export_gallery(gallery, file)
    assert file.read_bytes() == b"dear to somebody"
    with pytest.raises(BadSettings, match="is a folder"):
        export_gallery(gallery, tmp_path, replace=True)
    with pytest.raises(BadSettings, match="can't be written"):
        export_gallery(gallery, tmp_path / "nowhere" / "all.lookalike")
    export_gallery(gallery, file, replace=True)
    assert file.read_bytes().startswith(b"SQLite")
    assert not list(tmp_path.glob(".*"))


def test_an_interrupted_export_leaves_nothing(gallery: Gallery, tmp_path: Path) -> None:
    fill(gallery, 4, 1, DLIB)
    (tmp_path / "all.lookalike").write_bytes(b"old")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_gallery(gallery, tmp_path / "all.lookalike", replace=True, progress=stop)
    assert (tmp_path / "all.lookalike").read_bytes() == b"old"
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_is_said_of_the_file_and_leaves_nothing(
    gallery: Gallery, tmp_path: Path
) -> None:
    """A limit on the size of files stands for the disk."""
    fill(gallery, 30, 1, DLIB)
    folder = tmp_path / "full"
    folder.mkdir()
    code = (
        "import resource, sys; from pathlib import Path; from gallery.gallery import Gallery; "
        "from gallery.transfer import export_gallery; from engine.errors import BadSettings\n"
        "g = Gallery.open(Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, 90_000))\n"
        "try: export_gallery(g, Path(sys.argv[2]))\n"
        "except BadSettings as problem: print(problem)"
    )
    words = [sys.executable, "-c", code, str(gallery.folder), str(folder / "x.lookalike")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{folder / 'x.lookalike'} can't be written (")
    assert list(folder.iterdir()) == []


def test_an_interrupted_import_keeps_what_is_done_and_goes_on(
    gallery: Gallery, other: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_BATCH", 32)
    fill(gallery, 20, 2, DLIB)
    export_gallery(gallery, tmp_path / "all.lookalike")

    def stop(what: str, *_: object) -> None:
        if what == "portraits":
            raise KeyboardInterrupt

    report = import_file(other, tmp_path / "all.lookalike", progress=stop)
    assert report.interrupted
    assert report.added == other.stats().portraits == len(other.embedded(DLIB)) == 32
    report = import_file(other, tmp_path / "all.lookalike")
    assert (report.added, report.unchanged) == (40 - 32, 32)
    assert everything(other) == everything(gallery)


def test_a_killed_import_leaves_a_whole_gallery(gallery: Gallery, tmp_path: Path) -> None:
    fill(gallery, 35, 2, DLIB)
    export_gallery(gallery, tmp_path / "all.lookalike")
    home = tmp_path / "killed"
    code = (
        "import sys; from pathlib import Path; from gallery.gallery import Gallery; "
        "from gallery import transfer; transfer._BATCH = 8; "
        "g = Gallery.open(Path(sys.argv[1])); print(flush=True); "
        "transfer.import_file(g, Path(sys.argv[2]))"
    )
    for _ in range(2):
        command = [sys.executable, "-c", code, home, tmp_path / "all.lookalike"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.read(1)
        time.sleep(0.2 * random.random())
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with Gallery.open(home) as killed:
        assert killed.stats().portraits == len(killed.embedded(DLIB))
        assert killed.stats().portraits % 8 in {0, 70 % 8}
        import_file(killed, tmp_path / "all.lookalike")
        assert everything(killed) == everything(gallery)


def test_a_copy_needs_no_file_and_goes_on(gallery: Gallery, other: Gallery) -> None:
    fill(gallery, 50, 2, DLIB, RESNET)
    with gallery.writing(), gallery.transaction() as changes:
        changes.add_person(FoundPerson(key="name:bare", name="Bare"))
    report = copy_gallery(gallery, other)
    assert (report.added, report.people_added) == (100, 51)
    assert everything(other) == everything(gallery)
    report = copy_gallery(gallery, other)
    assert (report.added, report.unchanged, report.people_added) == (0, 100, 0)
    with pytest.raises(BadSettings, match="onto itself"):
        copy_gallery(gallery, gallery)


def test_a_lost_or_damaged_thumbnail_does_not_end_an_export(
    gallery: Gallery, other: Gallery, tmp_path: Path
) -> None:
    fill(gallery, 3, 1, DLIB)
    first, second, _ = (gallery.portraits(person.id)[0] for person in gallery.people())
    with gallery.writing(), gallery.transaction() as changes:
        changes.run(delete(THUMBNAILS).where(THUMBNAILS.c.portrait_id == first.id))
        changes.run(
            update(THUMBNAILS).where(THUMBNAILS.c.portrait_id == second.id).values(jpeg=b"")
        )
    assert export_gallery(gallery, tmp_path / "all.lookalike").photos == 1
    assert import_file(other, tmp_path / "all.lookalike").without_photo == 2


def test_what_is_too_long_for_its_column_is_cut_and_comes_out(
    gallery: Gallery, other: Gallery, tmp_path: Path
) -> None:
    """SQLite keeps what it is given; a file that its own program refused would be of no use."""
    long = FoundPerson(
        key="name:" + "k" * 500,
        name="N" * 500,
        categories=("c" * 300, *(f"kind {n}" for n in range(120))),
        country="l" * 300,
        gender="g" * 300,
        fame=2**40,
    )
    with gallery.writing(), gallery.transaction() as changes:
        owner = changes.add_person(long)
        changes.add_portrait(
            owner,
            Credit(author="a" * 2000, licence="b" * 300, source_url="https://" * 900),
            "ab" * 32,
            Thumbnail(None, 48, 60, np.ones((5, 2), np.float32), Box(1, 1, 2, 2)),
        )
        odd = FoundPerson(key="name:\u0301\x07", name="\u0301\x07", wikidata_id="q42")
        changes.add_person(odd)
    export_gallery(gallery, tmp_path / "all.lookalike")
    assert import_file(other, tmp_path / "all.lookalike").added == 1
    person, nameless = sorted(other.people(), key=lambda one: -len(one.name))
    assert (nameless.name, nameless.wikidata_id) == ("name:\u0301", None)
    assert (len(person.name), len(person.categories), person.fame) == (400, 100, 2**31 - 1)
    assert len(other.portraits(person.id)[0].author or "") == 1000
    assert import_file(other, tmp_path / "all.lookalike").unchanged == 1


def test_memory_stays_flat(gallery: Gallery, tmp_path: Path) -> None:
    """1,500 vectors of 2048 numbers are 12 MB; benchmarks/pack_speed.py measures the rest."""
    fill(gallery, 300, 5, RESNET)
    tracemalloc.start()
    try:
        export_gallery(gallery, tmp_path / "all.lookalike", photos=False)
        _, exporting = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        with PackReader(tmp_path / "all.lookalike") as reader:
            reader.check()
        _, checking = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert exporting < 18e6
    assert checking < 18e6


def test_a_gallery_that_nobody_may_write_can_be_exported(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(gallery, 2, 1, DLIB)
    monkeypatch.setattr(gallery_module.os, "access", lambda *_: False)
    assert export_gallery(gallery, tmp_path / "all.lookalike").portraits == 2


texts = st.text(st.characters(codec="utf-8"), max_size=60) | st.text("aé\u0301\u200e \n\x07")
maybe = st.none() | texts


@given(texts, texts, maybe, maybe, st.none() | st.integers(-(2**62), 2**62))
def test_whoever_is_written_can_be_read(
    key: str, name: str, wikidata_id: str | None, country: str | None, fame: int | None
) -> None:
    """A file that its own program refused would be of no use."""
    row = {
        "id": 1,
        "key": f"name:{key}",
        "name": name,
        "folded_name": name,
        "gender": country,
        "wikidata_id": wikidata_id,
        "country": country and country * 40,
        "fame": fame,
    }
    table = METADATA.tables["person"]
    written = pack._row_model(table).model_validate(pack._fitting(table, row))
    assert written.key == pack.plain_text(f"name:{key}")


@given(texts)
def test_plain_text_stays_as_it_is(text: str) -> None:
    plain = pack.plain_text(text)
    assert pack.plain_text(plain) == plain
    assert plain.isprintable() or not plain.isascii()


def test_a_silhouette_is_a_jpeg_that_says_so(engine: Engine) -> None:
    landmarks = np.array([[60, 90], [100, 90], [80, 110], [65, 130], [95, 130]], np.float32)
    drawn = draw_silhouette(160, 200, landmarks)
    photo = engine.decode(drawn)
    assert (photo.format, photo.width_px, photo.height_px) == ("JPEG", 160, 200)
    assert is_silhouette(drawn)
    assert not is_silhouette(jpeg(1))
    assert photo.pixels[110, 80].mean() > 1.5 * photo.pixels[5, 5].mean()
    for odd in (np.zeros((5, 2)), np.full((5, 2), 19999.0), landmarks[::-1], landmarks * 0.01):
        engine.decode(draw_silhouette(160, 200, odd.astype(np.float32)))
