"""Adding, building and removing people, with the real engine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update

from engine.decode import decode
from engine.engine import Engine
from engine.errors import (
    BadSettings,
    Busy,
    GalleryCorrupt,
    GalleryMissing,
    SetupProblem,
    SpaceMismatch,
)
from engine.types import Embedding, Space
from gallery.add import add, add_folder
from gallery.build import build, remove
from gallery.gallery import Gallery
from gallery.progress import Report
from gallery.records import FoundPerson, FoundPortrait
from gallery.tables import CALIBRATIONS, SPACES, THUMBNAILS, VECTORS

Variant = Callable[[int], bytes]


def plant(root: Path, photos: dict[str, bytes]) -> Path:
    for path, content in photos.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def put(
    gallery: Gallery, engine: Engine, folder: Path, category: str | None = None, **more: bool
) -> Report:
    return add_folder(gallery, engine, folder, category=category, backbones=["dlib"], **more)


def probe(engine: Engine, content: bytes) -> Embedding:
    photo = engine.decode(content)
    return engine.embed([(photo, engine.detect(photo)[0])], "dlib")[0]


def files(folder: Path) -> dict[str, bytes]:
    """Every file that is not the database's own business."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("gallery.")
    }


@pytest.fixture
def two_people(tmp_path: Path, variant: Variant) -> Path:
    return plant(
        tmp_path / "people",
        {
            **{f"Grace_Hopper/{n}.jpg": variant(n) for n in (0, 2, 4)},
            **{f"Eileen_Collins/{n}.jpg": variant(n) for n in (1, 3)},
        },
    )


def test_people_are_added_and_found(
    gallery: Gallery, engine: Engine, two_people: Path, variant: Variant
) -> None:
    report = put(gallery, engine, two_people, "science")
    assert (report.added, report.people_added, report.rejected) == (5, 2, [])
    assert report.embedded == {"dlib": 5}
    assert [person.name for person in gallery.people("science")] == [
        "Eileen Collins",
        "Grace Hopper",
    ]
    best, other = gallery.top_matches(probe(engine, variant(6)), 5)
    assert (best.person.name, other.person.name) == ("Grace Hopper", "Eileen Collins")
    assert best.cosine > 0.93 > other.cosine
    assert best.score > 60 > other.score
    assert best.one_in > other.one_in >= 1
    assert best.portrait.person_id == best.person.id


def test_a_thumbnail_shows_the_face_where_the_catalogue_says(
    gallery: Gallery, engine: Engine, two_people: Path
) -> None:
    put(gallery, engine, two_people)
    for person in gallery.people():
        for portrait in gallery.portraits(person.id):
            photo = decode(gallery.thumbnail(portrait))
            assert (photo.width_px, photo.height_px) == (portrait.width_px, portrait.height_px)
            (face,) = engine.detect(photo)
            assert np.abs(face.landmarks - portrait.landmarks).max() < 0.06 * portrait.box.w


def test_adding_again_changes_nothing(
    gallery: Gallery, engine: Engine, two_people: Path, tmp_path: Path
) -> None:
    put(gallery, engine, two_people)
    before, revision = files(gallery.folder), gallery.revision()
    moved = tmp_path / "elsewhere"
    shutil.move(two_people, moved)
    report = put(gallery, engine, moved)
    assert (report.added, report.unchanged, report.people_added) == (0, 5, 0)
    assert files(gallery.folder) == before
    assert gallery.revision() == revision


def test_only_what_is_new_is_added(
    gallery: Gallery, engine: Engine, two_people: Path, variant: Variant
) -> None:
    put(gallery, engine, two_people)
    plant(two_people, {"Grace_Hopper/new.jpg": variant(8), "Sally Ride/1.jpg": variant(5)})
    report = put(gallery, engine, two_people)
    assert (report.added, report.unchanged, report.people_added) == (2, 5, 1)
    assert gallery.stats().portraits == 7


def test_a_person_comes_into_another_category_without_new_photos(
    gallery: Gallery, engine: Engine, two_people: Path
) -> None:
    put(gallery, engine, two_people, "navy")
    report = put(gallery, engine, two_people, "science")
    assert (report.added, report.unchanged) == (0, 5)
    assert gallery.people()[0].categories == ("navy", "science")
    assert gallery.categories() == ("navy", "science")


def test_what_is_not_taken_has_a_reason_that_is_remembered(
    gallery: Gallery, engine: Engine, tmp_path: Path, variant: Variant, blank_jpeg: bytes
) -> None:
    side_by_side = _beside(variant(0), variant(2))
    folder = plant(
        tmp_path / "people",
        {
            "Grace_Hopper/0.jpg": variant(0),
            "Grace_Hopper/blank.jpg": blank_jpeg,
            "Grace_Hopper/broken.jpg": b"\xff\xd8\xff\xe0 not really",
            "Grace_Hopper/empty.jpg": b"",
            "Grace_Hopper/two.png": side_by_side,
            "Grace_Hopper/zero.jpg": variant(0),
            "Somebody_Else/0.jpg": variant(0),
        },
    )
    report = put(gallery, engine, folder)
    reasons = {one.photo.split("/", 1)[1]: one.reason for one in report.rejected}
    assert reasons == {
        "blank.jpg": "no face",
        "broken.jpg": "unreadable",
        "empty.jpg": "unreadable",
        "two.png": "several faces",
        "0.jpg": "duplicate of Grace Hopper",
    }
    assert (report.added, report.unchanged) == (1, 1)
    assert [person.name for person in gallery.people()] == ["Grace Hopper"]

    class Blind(Engine):
        """Fails the test if a photo is looked at again."""

        def decode(self, data: bytes) -> None:  # type: ignore[override]
            raise AssertionError(len(data))

    blind = Blind(load_detector=engine.load_detector, load_backbone=engine.load_backbone)
    second = put(gallery, blind, folder)
    assert {one.photo: one.reason for one in second.rejected} == {
        one.photo: one.reason for one in report.rejected
    }
    assert second.unchanged == 2
    third = put(gallery, engine, folder, again=True)
    assert third.reasons() == report.reasons()


def _beside(left: bytes, right: bytes) -> bytes:
    import cv2

    one, two = decode(left).pixels, decode(right).pixels
    height = min(one.shape[0], two.shape[0])
    both = np.hstack([one[:height], two[:height]])[:, :, ::-1]
    done, encoded = cv2.imencode(".png", both)
    assert done
    return encoded.tobytes()


def test_a_photo_that_is_too_large_is_not_even_read(
    gallery: Gallery, engine: Engine, tmp_path: Path, variant: Variant
) -> None:
    folder = plant(tmp_path / "people", {"A/1.jpg": variant(0), "A/2.jpg": b""})
    with (folder / "A/2.jpg").open("wb") as sparse:
        sparse.truncate(engine.limits.max_bytes + 1)
    report = put(gallery, engine, folder)
    assert report.reasons() == {"too large": 1}
    assert report.added == 1


def test_a_source_brings_what_it_knows(gallery: Gallery, engine: Engine, variant: Variant) -> None:
    hopper = FoundPerson(
        "Q11641",
        "Grace Hopper",
        ("Science", "Navy"),
        wikidata_id="Q11641",
        country="United States",
        gender="female",
        fame=98,
    )
    found = FoundPortrait(
        hopper,
        "https://example.org/hopper",
        lambda _: variant(0),
        author="US Navy",
        licence="Public domain",
        licence_url="https://example.org/pd",
        source_url="https://example.org/hopper",
    )
    report = add(gallery, engine, iter([found]), backbones=["dlib"])
    assert report.added == 1
    person = gallery.find_person("Q11641")
    assert person is not None
    assert person.categories == ("navy", "science")
    assert (person.country, person.gender, person.fame) == ("United States", "female", 98)
    (portrait,) = gallery.portraits(person.id)
    assert (portrait.author, portrait.licence) == ("US Navy", "Public domain")


def test_two_people_may_have_one_name(gallery: Gallery, engine: Engine, variant: Variant) -> None:
    people = [FoundPerson(key, "Grace Hopper", wikidata_id=key) for key in ("Q1", "Q2")]
    found = [
        FoundPortrait(person, str(number), lambda _, number=number: variant(number))  # type: ignore[misc]
        for number, person in enumerate(people)
    ]
    assert add(gallery, engine, found, backbones=["dlib"]).people_added == 2


def test_building_twice_does_nothing(gallery: Gallery, engine: Engine, two_people: Path) -> None:
    put(gallery, engine, two_people)
    before, revision = files(gallery.folder), gallery.revision()
    report = build(gallery, engine, "dlib")
    assert (report.embedded["dlib"], report.swept, report.dropped) == (0, 0, [])
    assert files(gallery.folder) == before
    assert gallery.revision() == revision


def test_whoever_is_removed_is_not_found_and_build_drops_their_vectors(
    gallery: Gallery, engine: Engine, two_people: Path, variant: Variant
) -> None:
    put(gallery, engine, two_people)
    hopper = gallery.find_person("Grace Hopper")
    assert hopper is not None
    portraits = gallery.portraits(hopper.id)
    (space,) = gallery.spaces()
    held = bytes(gallery.index(space).training_rows(100)[0][-1])
    assert remove(gallery, hopper) == 3
    assert gallery.photos([portrait.id for portrait in portraits]) == {}
    query = probe(engine, variant(6))
    assert [match.person.name for match in gallery.top_matches(query, 5)] == ["Eileen Collins"]
    report = build(gallery, engine, "dlib")
    assert report.swept > 0
    assert not any(held in content for content in files(gallery.folder).values())
    assert [match.person.name for match in gallery.top_matches(query, 5)] == ["Eileen Collins"]
    again = put(gallery, engine, two_people)
    assert (again.added, again.unchanged) == (3, 2)
    assert gallery.top_matches(query, 1)[0].person.name == "Grace Hopper"


def test_an_empty_gallery_says_how_to_fill_it(gallery: Gallery, engine: Engine) -> None:
    query = Embedding(np.eye(1, 128, dtype=np.float32)[0], engine.backbone("dlib").space)
    with pytest.raises(GalleryMissing, match="gallery add"):
        gallery.top_matches(query, 1)


def test_removing_everybody_empties_the_gallery(
    gallery: Gallery, engine: Engine, two_people: Path, variant: Variant
) -> None:
    put(gallery, engine, two_people)
    for person in gallery.people():
        remove(gallery, person)
    with pytest.raises(GalleryMissing, match="nobody in the gallery"):
        gallery.top_matches(probe(engine, variant(6)), 1)
    build(gallery, engine, "dlib")
    assert gallery.stats().portraits == 0
    assert gallery.spaces() == ()


def test_a_query_of_another_model_is_refused(
    gallery: Gallery, engine: Engine, two_people: Path
) -> None:
    put(gallery, engine, two_people)
    ours = gallery.spaces()[0]
    newer = Space("dlib", "e" * 64, ours.recipe, 128)
    other = Space("resnet", "e" * 64, 1, 2048)
    vector = np.eye(1, 128, dtype=np.float32)[0]
    with pytest.raises(SpaceMismatch, match="gallery build --model dlib"):
        gallery.top_matches(Embedding(vector, newer), 1)
    with pytest.raises(GalleryMissing, match="gallery build --model resnet"):
        gallery.top_matches(Embedding(np.eye(1, 2048, dtype=np.float32)[0], other), 1)


def test_a_category_without_anybody_is_named_with_those_there_are(
    gallery: Gallery, engine: Engine, two_people: Path, variant: Variant
) -> None:
    put(gallery, engine, two_people, "Science")
    query = probe(engine, variant(6))
    assert len(gallery.top_matches(query, 5, category="SCIENCE")) == 2
    with pytest.raises(GalleryMissing, match="science"):
        gallery.top_matches(query, 5, category="sports")


def lose_vectors(gallery: Gallery, space: Space) -> None:
    shutil.rmtree(gallery.space_folder(space))


def shorten_vectors(gallery: Gallery, space: Space) -> None:
    (path,) = gallery.space_folder(space).glob("vectors-*")
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("harm", [lose_vectors, shorten_vectors])
def test_damaged_vectors_are_noticed_and_build_makes_them_anew(
    gallery: Gallery,
    engine: Engine,
    two_people: Path,
    variant: Variant,
    harm: Callable[[Gallery, Space], None],
) -> None:
    put(gallery, engine, two_people)
    query = probe(engine, variant(6))
    expected = gallery.top_matches(query, 2)
    harm(gallery, gallery.spaces()[0])
    with Gallery.open(gallery.folder) as opened:
        with pytest.raises(GalleryCorrupt, match="gallery build"):
            opened.top_matches(query, 2)
        report = build(opened, engine, "dlib")
        assert report.embedded["dlib"] == 5
        found = opened.top_matches(query, 2)
    assert [match.person for match in found] == [match.person for match in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.cosine == pytest.approx(other.cosine, abs=0.01)


@pytest.mark.parametrize("content", ["{}", "[", '{"rows": 5, "calibration": {"format": 1}}'])
def test_a_damaged_calibration_is_noticed_and_build_mends_it(
    gallery: Gallery, engine: Engine, two_people: Path, variant: Variant, content: str
) -> None:
    put(gallery, engine, two_people)
    (space,) = gallery.spaces()
    learned = gallery.read_calibration(space)
    with gallery.transaction() as changes:
        changes.keep_calibration(space, content)
    with Gallery.open(gallery.folder) as opened:
        with pytest.raises(GalleryCorrupt, match="calibration"):
            opened.top_matches(probe(engine, variant(6)), 1)
        build(opened, engine, "dlib")
        opened.top_matches(probe(engine, variant(6)), 1)
    assert json.loads(gallery.read_calibration(space) or "") == json.loads(learned or "")


def test_build_sweeps_files_that_nothing_refers_to(
    gallery: Gallery, engine: Engine, two_people: Path
) -> None:
    put(gallery, engine, two_people)
    (space,) = gallery.spaces()
    folder = gallery.space_folder(space)
    orphan, part = folder / "vectors-000009.f32", folder / "cache-000009-1.part"
    stranger = folder / "notes.txt"
    orphan.write_bytes(b"x")
    part.mkdir()
    stranger.write_text("mine")
    assert build(gallery, engine, "dlib").swept == 2
    assert not orphan.exists()
    assert not part.exists()
    assert stranger.exists()


def test_a_damaged_thumbnail_is_dropped_when_its_vector_is_needed(
    gallery: Gallery, engine: Engine, two_people: Path
) -> None:
    put(gallery, engine, two_people)
    hopper = gallery.find_person("Grace Hopper")
    assert hopper is not None
    damaged = gallery.portraits(hopper.id)[1].id
    with gallery.transaction() as changes:
        changes.run(
            update(THUMBNAILS).where(THUMBNAILS.c.portrait_id == damaged).values(jpeg=b"no picture")
        )
    lose_vectors(gallery, gallery.spaces()[0])
    report = build(gallery, engine, "dlib")
    assert report.dropped == ["Grace Hopper"]
    assert gallery.stats().portraits == 4
    assert list(gallery.stats().vectors.values()) == [4]
    assert put(gallery, engine, two_people).added == 1


def test_vectors_of_an_older_recipe_are_replaced(
    gallery: Gallery, engine: Engine, two_people: Path
) -> None:
    put(gallery, engine, two_people)
    (space,) = gallery.spaces()
    older = Space(space.backbone, "0" * 64, space.recipe, space.dimensions)
    gallery.space_folder(space).rename(gallery.space_folder(older))
    with gallery.transaction() as changes:
        changes.connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        changes.run(update(VECTORS).values(space_id=older.id))
        changes.run(update(CALIBRATIONS).values(space_id=older.id))
        changes.run(update(SPACES).values(id=older.id, weights_sha256="0" * 64))
    with Gallery.open(gallery.folder) as opened:
        build(opened, engine, "dlib")
        assert opened.spaces() == (space,)
    assert not gallery.space_folder(older).exists()


def test_one_process_writes_at_a_time(gallery: Gallery, engine: Engine, two_people: Path) -> None:
    with (
        Gallery.open(gallery.folder) as other,
        other.writing(),
        pytest.raises(Busy, match="another"),
    ):
        put(gallery, engine, two_people)
    assert put(gallery, engine, two_people).added == 5


def test_a_folder_that_cannot_be_written_is_a_sentence(
    gallery: Gallery, engine: Engine, two_people: Path
) -> None:
    (gallery.folder / "gallery.lock").mkdir()
    with pytest.raises(BadSettings, match="can't be written"):
        put(gallery, engine, two_people)


def test_no_folder_is_a_sentence(gallery: Gallery, engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(SetupProblem, match="no folder"):
        put(gallery, engine, tmp_path / "nowhere")


def test_progress_tells_of_every_photo(gallery: Gallery, engine: Engine, two_people: Path) -> None:
    said: list[tuple[str, int, int | None]] = []
    add_folder(
        gallery,
        engine,
        two_people,
        backbones=["dlib"],
        progress=lambda *step: said.append(step),
    )
    assert said == [("photos", number, 5) for number in range(1, 6)]


def test_a_gallery_moves_as_one_folder(
    gallery: Gallery, engine: Engine, two_people: Path, variant: Variant, tmp_path: Path
) -> None:
    put(gallery, engine, two_people)
    gallery.close()
    moved = tmp_path / "other place é"
    shutil.move(gallery.folder, moved)
    with Gallery.open(moved) as opened:
        (match,) = opened.top_matches(probe(engine, variant(6)), 1)
        assert match.thumbnail().startswith(b"\xff\xd8")


def test_others_see_at_once_what_was_changed(
    gallery: Gallery, engine: Engine, two_people: Path, variant: Variant
) -> None:
    with Gallery.open(gallery.folder) as reader:
        query = probe(engine, variant(6))
        with pytest.raises(GalleryMissing):
            reader.top_matches(query, 1)
        put(gallery, engine, two_people)
        assert len(reader.top_matches(query, 5)) == 2
        hopper = gallery.find_person("Grace Hopper")
        assert hopper is not None
        remove(gallery, hopper)
        names = [match.person.name for match in reader.top_matches(query, 5)]
        assert names == ["Eileen Collins"]
        build(gallery, engine, "dlib")
        with Gallery.open(gallery.folder) as late:
            assert [match.person.name for match in late.top_matches(query, 5)] == names
