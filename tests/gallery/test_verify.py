"""Galleries that were damaged or mislabelled on purpose, examined and mended."""

from __future__ import annotations

import contextlib
import io
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from made_up_people import put_photo
from PIL import Image, ImageOps
from sqlalchemy import insert

from bot.pictures.card import entry_of
from engine.engine import Engine
from engine.errors import BadSettings, Busy, GalleryCorrupt, SetupProblem
from gallery.add import add
from gallery.build import build
from gallery.gallery import Gallery
from gallery.records import FoundPerson, FoundPortrait, Portrait
from gallery.tables import CATEGORIES
from gallery.verify import verify
from gallery.verify.checks import Examination, Kind

Variant = Callable[[int], bytes]


def found(people: Mapping[str, Sequence[bytes]]) -> list[FoundPortrait]:
    return [
        FoundPortrait(
            FoundPerson(key=f"name:{name.casefold()}", name=name, categories=("made up",)),
            f"{name} {number}",
            lambda _most, content=content: content,
        )
        for name, contents in people.items()
        for number, content in enumerate(contents)
    ]


def enrol(gallery: Gallery, engine: Engine, people: Mapping[str, Sequence[bytes]]) -> None:
    portraits = found(people)
    report = add(gallery, engine, portraits, backbones=["dlib"])
    assert report.added == len(portraits), report.rejected


@pytest.fixture(params=["folder", "database"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Gallery]:
    """A gallery in a folder, and one in PostgreSQL."""
    server = request.getfixturevalue("postgres") if request.param == "database" else None
    url = server.gallery() if server else None
    with Gallery.open(tmp_path / "home" / "gallery", url) as opened:
        yield opened


@pytest.fixture(scope="module")
def two_people(tmp_path_factory: pytest.TempPathFactory, engine: Engine, variant: Variant) -> Path:
    """The folder of a gallery; read it, or copy it, never write it."""
    faces = {"Grace": [variant(n) for n in (0, 2, 4, 6)], "Eileen": [variant(n) for n in (1, 3, 5)]}
    folder = tmp_path_factory.mktemp("sound") / "gallery"
    with Gallery.open(folder) as gallery:
        enrol(gallery, engine, faces)
    return folder


@pytest.fixture
def sound(two_people: Path, tmp_path: Path) -> Iterator[Gallery]:
    """Two people with four portraits and three."""
    with Gallery.open(Path(shutil.copytree(two_people, tmp_path / "home" / "gallery"))) as gallery:
        yield gallery


def again(content: bytes) -> bytes:
    """The same picture, cut, smaller and compressed anew."""
    image = Image.open(io.BytesIO(content))
    image = image.crop((6, 4, image.width - 3, image.height - 5))
    image = image.resize((round(image.width * 0.9), round(image.height * 0.9)))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


def jpeg_of(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def mirrored(content: bytes) -> bytes:
    """The same person in what counts as another picture."""
    buffer = io.BytesIO()
    ImageOps.mirror(Image.open(io.BytesIO(content))).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def kinds(examination: Examination) -> list[Kind]:
    return [one.kind for one in examination.findings]


def portraits(gallery: Gallery, name: str) -> tuple[Portrait, ...]:
    person = gallery.find_person(name)
    assert person is not None
    return gallery.portraits(person.id)


def assert_mended(gallery: Gallery, engine: Engine, *wrong: Kind) -> Examination:
    """Finds what is wrong, mends it, and finds nothing the next time."""
    before = verify(gallery, engine)
    assert sorted(kinds(before)) == sorted(wrong)
    mended = verify(gallery, engine, fix=True)
    assert set(wrong) <= {one.kind for one in mended.mended}
    assert mended.findings == []
    after = verify(gallery, engine, fix=True)
    assert (after.findings, after.mended) == ([], [])
    return mended


def test_nothing_is_wrong_with_a_gallery_that_was_just_built(
    sound: Gallery, engine: Engine
) -> None:
    revision = sound.revision()
    examination = verify(sound, engine)
    assert (examination.findings, examination.unchecked) == ([], [])
    assert (examination.backbone, examination.people, examination.portraits) == ("dlib", 2, 7)
    assert sound.revision() == revision


def test_an_empty_gallery_is_in_order(either: Gallery, engine: Engine) -> None:
    assert verify(either, engine, fix=True).findings == []


def test_unreadable_pictures_are_forgotten_so_that_their_source_can_bring_them_again(
    sound: Gallery, engine: Engine, variant: Variant, blank_jpeg: bytes
) -> None:
    cut, gone, other = portraits(sound, "Grace")[:3]
    put_photo(sound, cut, sound.thumbnail(cut)[:500])
    put_photo(sound, gone, b"")
    put_photo(sound, other, blank_jpeg)
    assert_mended(sound, engine, Kind.PICTURE, Kind.PICTURE, Kind.PICTURE)
    assert len(portraits(sound, "Grace")) == 1
    (space,) = sound.spaces()
    assert len(sound.embedded(space)) == 4
    enrol(sound, engine, {"Grace": [variant(n) for n in (0, 2, 4)]})


def overwrite(gallery: Gallery, table: str, change: str) -> None:
    """Changes rows as no rule of the tables would allow."""
    file = gallery.folder / "gallery.db"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(f"UPDATE {table} SET {change}")
    gallery.close()  # nothing that was read before is remembered


OVERWRITTEN = {
    "a half": "landmarks = '[[1, 2], [3, 4'",
    "brackets without end": f"landmarks = '{'[' * 10_000}'",
    "no number": "landmarks = '[[1, 2], [3, 4], [5, 6], [7, 8], [9, NaN]]'",
    "too few": "landmarks = '[[1, 2]]'",
    "something else": "landmarks = x'ff00', box_x = 'left'",
    "a size of nothing": "width_px = -5",
    "a text for a photo": "sha256 = sha256",
}


@pytest.mark.parametrize("how", OVERWRITTEN)
def test_a_damaged_record_costs_its_picture_alone(
    sound: Gallery,
    engine: Engine,
    variant: Variant,
    how: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Everybody is found; who has no other picture is shown without, and the operator told."""
    photo = engine.decode(variant(4))
    (query,) = engine.embed([(photo, engine.detect(photo)[0])], "dlib")
    (one, *_), others = portraits(sound, "Grace"), portraits(sound, "Eileen")
    ids = ", ".join(str(portrait.id) for portrait in (one, *others))
    overwrite(sound, "portrait", f"{OVERWRITTEN[how]} WHERE id IN ({ids})")
    if how == "a text for a photo":
        overwrite(sound, "thumbnail", f"jpeg = 'a text' WHERE portrait_id IN ({ids})")
    with Gallery.open(sound.folder) as gallery:
        found = gallery.top_matches(query, 2)
        said = {"name": "", "word": "", "credit": ""}
        cards = [entry_of(engine, match, **said) for match in found]
        assert [match.person.name for match in found] == ["Grace", "Eileen"]
        assert [card.silhouette for card in cards] == [False, True]
        assert "gallery verify --fix" in caplog.text
        copied = Gallery.open(Path(shutil.copytree(sound.folder, sound.folder.with_name("copy"))))
        assert_mended(gallery, engine, *[Kind.PICTURE] * 4)
    with copied:
        assert build(copied, engine, "dlib").dropped == ["Grace", "Eileen", "Eileen", "Eileen"]
        assert len(portraits(copied, "Grace")) == 3
        enrol(copied, engine, {"Grace": [variant(0)], "Eileen": [variant(n) for n in (1, 3, 5)]})
        assert verify(copied, engine).findings == []


def test_records_that_say_nothing_of_where_their_vectors_are_are_mended(
    sound: Gallery, engine: Engine, variant: Variant
) -> None:
    photo = engine.decode(variant(4))
    (query,) = engine.embed([(photo, engine.detect(photo)[0])], "dlib")
    whole = sound.top_matches(query, 2)
    for table, change in (
        ("portrait_vector", "row = 'nowhere' WHERE portrait_id = 1"),
        ("portrait_vector", f"row = {2**63 - 1} WHERE portrait_id = 1"),
        ("space", "row_count = 'many'"),
        ("calibration", f"content = '{'[' * 10_000}'"),
    ):
        for mend in (partial(verify, fix=True), partial(build, backbone="dlib")):
            overwrite(sound, table, change)
            with Gallery.open(sound.folder) as gallery:
                with pytest.raises(GalleryCorrupt, match=r"run `lookalike gallery"):
                    gallery.top_matches(query, 2)
                mend(gallery, engine)
                again = gallery.top_matches(query, 2)
                assert [one.person for one in again] == [one.person for one in whole]
    overwrite(sound, "portrait", "person_id = 'nobody' WHERE id = 1")
    with Gallery.open(sound.folder) as gallery:
        with pytest.raises(GalleryCorrupt, match="verify --fix"):
            gallery.top_matches(query, 2)
        assert Kind.LINKS in kinds(verify(gallery, engine))
        assert verify(gallery, engine, fix=True).findings == []
        assert len(gallery.top_matches(query, 2)) == 2


@pytest.mark.parametrize("room_bytes", [1_500, 9_000, 40_000, 90_000])
def test_what_a_full_disk_leaves_is_swept_and_adding_again_completes(
    sound: Gallery, engine: Engine, variant: Variant, room_bytes: int
) -> None:
    """The disk is full when a file has that size: tables, their log or vectors."""
    resource = pytest.importorskip("resource")
    people = {"Third": [mirrored(variant(n)) for n in (0, 2)], "Fourth": [mirrored(variant(1))]}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, before[1]))
    try:
        with pytest.raises(SetupProblem, match=r"space|can't be (used|written)"):
            enrol(sound, engine, people)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with Gallery.open(sound.folder) as gallery:
        verify(gallery, engine, fix=True)
        after = verify(gallery, engine)
        assert set(kinds(after)) <= {Kind.TWO_NAMES}  # they are Grace and Eileen, mirrored
        assert after.people >= 2
        report = add(gallery, engine, found(people), backbones=["dlib"])
        assert report.added + report.unchanged == 3
        assert len(gallery.people()) == 4
        assert set(kinds(verify(gallery, engine))) == {Kind.TWO_NAMES}


def test_a_picture_of_somebody_else_in_a_portraits_place_is_noticed(
    sound: Gallery, engine: Engine
) -> None:
    mine, theirs = portraits(sound, "Grace")[0], portraits(sound, "Eileen")[0]
    image = Image.open(io.BytesIO(sound.thumbnail(theirs)))
    put_photo(sound, mine, jpeg_of(image.resize((mine.width_px, mine.height_px))))
    examination = verify(sound, engine)
    assert set(kinds(examination)) <= {Kind.OTHER_VECTOR, Kind.FACE}
    assert examination.findings


def test_who_loses_the_only_picture_leaves_and_is_named(sound: Gallery, engine: Engine) -> None:
    for portrait in portraits(sound, "Eileen"):
        put_photo(sound, portrait, b"")
    mended = verify(sound, engine, fix=True)
    assert [one.kind for one in mended.mended] == [Kind.PICTURE] * 3 + [Kind.NOBODY]
    assert "Eileen" in mended.mended[-1].why
    assert [person.name for person in sound.people()] == ["Grace"]
    assert verify(sound, engine).findings == []


def test_leftovers_go_and_what_somebody_may_be_writing_stays(
    sound: Gallery, engine: Engine
) -> None:
    (space,) = sound.spaces()
    stray = [sound.folder / "vectors" / "old-space", sound.space_folder(space)]
    for folder in stray:
        folder.mkdir(exist_ok=True)
        (folder / "vectors-000099.f32").write_bytes(b"x")
    assert verify(sound, engine).findings == []  # young files
    with sound.transaction() as changes:
        changes.run(insert(CATEGORIES).values(name="nobody's"))
        changes.add_person(FoundPerson(key="name:x", name="X"))
    mended = verify(sound, engine, fix=True)
    leftovers = [Kind.STRAY, Kind.NOBODY, Kind.EMPTY]
    assert sorted(one.kind for one in mended.mended) == sorted(leftovers)
    assert mended.mended[0].number == 2
    assert not stray[0].exists()
    assert not (stray[1] / "vectors-000099.f32").exists()
    assert sound.categories() == ("made up",)
    assert verify(sound, engine, fix=True).mended == []


@pytest.mark.parametrize("damage", ["zeros", "nan", "short", "gone"])
def test_damaged_vectors_are_made_anew(sound: Gallery, engine: Engine, damage: str) -> None:
    (space,) = sound.spaces()
    folder = sound.space_folder(space)
    (vectors,) = folder.glob("vectors-*")
    content = np.fromfile(vectors, np.float32)
    before = content.reshape(-1, space.dimensions)[:7].copy()
    if damage in {"zeros", "nan"}:
        content[:128] = 0.0 if damage == "zeros" else np.nan
        vectors.write_bytes(content.tobytes())
    elif damage == "short":
        vectors.write_bytes(content.tobytes()[:1000])
    else:
        vectors.unlink()
    assert_mended(sound, engine, Kind.VECTORS)
    ids = sound.embedded(space)
    assert len(ids) == 7
    cosines = np.sum(sound.vectors(space, ids) * before, axis=1)
    assert cosines.min() > 0.99


def test_swapped_vectors_are_made_anew(sound: Gallery, engine: Engine) -> None:
    """Every vector is sound, but none is that of its picture."""
    (space,) = sound.spaces()
    (path,) = sound.space_folder(space).glob("vectors-*")
    content = np.fromfile(path, np.float32)
    content[: 7 * 128] = np.roll(content[: 7 * 128].reshape(7, 128), 3, axis=0).ravel()
    path.write_bytes(content.tobytes())
    examination = verify(sound, engine, fix=True)
    assert Kind.VECTORS in {one.kind for one in examination.mended}
    assert verify(sound, engine).findings == []


def test_damaged_scores_are_learned_anew_and_missing_vectors_made(
    sound: Gallery, engine: Engine
) -> None:
    (space,) = sound.spaces()
    victim = portraits(sound, "Grace")[0]
    with sound.transaction() as changes:
        changes.keep_calibration(space, "{}")
        changes.remove_vectors([victim.id])
    assert_mended(sound, engine, Kind.CALIBRATION, Kind.UNSEARCHABLE)
    assert victim.id in sound.embedded(space)


def test_one_picture_under_two_names_stays_where_it_fits(
    either: Gallery, engine: Engine, variant: Variant
) -> None:
    faces = {
        "Grace": [*(mirrored(variant(n)) for n in (0, 4, 6)), variant(2)],
        "Eileen": [*(variant(n) for n in (1, 3, 5)), again(variant(2))],
    }
    enrol(either, engine, faces)
    mended = assert_mended(either, engine, Kind.COPY)
    (copy,) = mended.mended
    assert copy.subject is not None
    assert copy.other is not None
    assert (copy.subject.person, copy.other.person) == ("Eileen", "Grace")
    assert len(portraits(either, "Eileen")) == 3
    report = add(
        either,
        engine,
        [FoundPortrait(FoundPerson("name:eileen", "Eileen"), "x", lambda _: again(variant(2)))],
        backbones=["dlib"],
    )
    assert report.added == 0  # it does not come back


def test_a_picture_that_may_be_either_persons_is_left_to_people(
    gallery: Gallery, engine: Engine, variant: Variant
) -> None:
    enrol(gallery, engine, {"A": [variant(0)], "B": [again(variant(0))], "C": [variant(1)]})
    examination = verify(gallery, engine, fix=True)
    assert examination.mended == []
    assert {one.kind for one in examination.findings} <= {Kind.COPY, Kind.TWO_NAMES}
    assert examination.findings
    assert gallery.stats().portraits == 3


def test_a_portrait_of_somebody_else_goes_if_it_is_clear_whose_it_is(
    either: Gallery, engine: Engine, variant: Variant
) -> None:
    faces = {
        "Grace": [*(variant(n) for n in (0, 2, 4)), mirrored(variant(7))],
        "Eileen": [variant(n) for n in (1, 3, 5)],
    }
    enrol(either, engine, faces)
    mended = assert_mended(either, engine, Kind.OUTLIER)
    (outlier,) = mended.mended
    assert outlier.other is not None
    assert outlier.other.person == "Eileen"
    assert outlier.number < 50
    assert [len(portraits(either, name)) for name in ("Grace", "Eileen")] == [3, 3]


def test_of_two_portraits_that_disagree_neither_goes(
    either: Gallery, engine: Engine, variant: Variant
) -> None:
    enrol(
        either,
        engine,
        {"Both": [variant(0), mirrored(variant(1))], "Eileen": [variant(3), variant(5)]},
    )
    examination = verify(either, engine, fix=True)
    (finding,) = examination.findings
    assert finding.kind is Kind.OUTLIER
    assert finding.why.startswith("one of the two")
    assert finding.other is not None
    assert finding.other.person == "Eileen"
    assert either.stats().portraits == 4


def test_one_person_with_two_names_is_reported_and_merged_if_the_name_is_the_same(
    either: Gallery, engine: Engine, variant: Variant
) -> None:
    faces = {
        "Grace Hopper": [variant(n) for n in (0, 2)],
        "Amazing Grace": [variant(n) for n in (4, 6)],
        "Eileen": [variant(n) for n in (1, 3)],
    }
    enrol(either, engine, faces)
    (finding,) = verify(either, engine, fix=True).findings
    assert (finding.kind, finding.remedy) == (Kind.TWO_NAMES, None)
    known = FoundPerson("Q11641", "GRACE HOPPER", ("science",), wikidata_id="Q11641", fame=90)
    more = [
        FoundPortrait(known, "8", lambda _most: variant(8)),
        FoundPortrait(known, "10", lambda _most: variant(10)),
    ]
    add(either, engine, more, backbones=["dlib"])
    mended = verify(either, engine, fix=True).mended
    assert [one.kind for one in mended] == [Kind.TWO_NAMES]
    grace = either.find_person("Q11641")
    assert grace is not None
    assert (grace.categories, grace.fame) == (("made up", "science"), 90)
    assert len(either.portraits(grace.id)) == 4
    (space,) = either.spaces()
    assert len(either.embedded(space)) == 8
    probe = either.vectors(space, np.asarray([either.portraits(grace.id)[0].id]))
    assert grace.id in either.index(space).person_ids
    assert len(either.index(space).person_ids) == 3
    assert np.linalg.norm(probe) == pytest.approx(1.0, abs=1e-3)


def test_a_second_face_of_about_the_same_size_is_reported(
    sound: Gallery, engine: Engine, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """As in galleries from elsewhere: this one's own screening refuses such photos."""
    victim = portraits(sound, "Grace")[0]
    picture = Image.open(io.BytesIO(sound.thumbnail(victim)))
    face = Image.open(io.BytesIO(collins_jpeg)).crop((150, 0, 310, 200))
    wide = Image.new("RGB", (picture.width + 160, max(picture.height, 200)))
    wide.paste(picture, (0, 0))
    wide.paste(face, (picture.width, 0))
    put_photo(sound, victim, jpeg_of(wide))
    with sound.transaction() as changes:
        changes.connection.exec_driver_sql(
            "UPDATE portrait SET width_px = ?, height_px = ? WHERE id = ?",
            (wide.width, wide.height, victim.id),
        )
    assert Kind.FACES in kinds(verify(sound, engine))
    del hopper_jpeg


def test_ctrl_c_keeps_what_was_mended(sound: Gallery, engine: Engine) -> None:
    put_photo(sound, portraits(sound, "Grace")[0], b"")

    def impatient(what: str, done: int, total: int | None) -> None:  # noqa: ARG001
        if what == "faces":
            raise KeyboardInterrupt

    examination = verify(sound, engine, fix=True, progress=impatient)
    assert examination.interrupted
    assert [one.kind for one in examination.mended] == [Kind.PICTURE]
    assert verify(sound, engine, fix=True).mended == []


def test_mending_waits_for_whoever_is_changing_the_gallery(
    sound: Gallery, engine: Engine, tmp_path: Path
) -> None:
    with Gallery.open(tmp_path / "home" / "gallery") as beside, beside.writing():
        with pytest.raises(Busy):
            verify(sound, engine, fix=True)
        assert verify(sound, engine).findings == []


def test_a_backbone_that_the_gallery_is_not_built_for_is_refused(
    sound: Gallery, engine: Engine
) -> None:
    with pytest.raises(BadSettings, match="senet"):
        verify(sound, engine, backbone="senet")


def test_a_damaged_database_is_mended(either: Gallery, engine: Engine, variant: Variant) -> None:
    """An unreadable picture, a missing vector and leftovers in the catalogue, in either storage."""
    enrol(either, engine, {"Grace": [mirrored(variant(n)) for n in (0, 2, 4)], "B": [variant(1)]})
    lost, unseen = portraits(either, "Grace")[:2]
    put_photo(either, lost, b"no picture")
    with either.transaction() as changes:
        changes.remove_vectors([unseen.id])
        changes.add_person(FoundPerson(key="name:x", name="X"))
    assert_mended(either, engine, Kind.PICTURE, Kind.UNSEARCHABLE, Kind.NOBODY)
    assert len(portraits(either, "Grace")) == 2
    (space,) = either.spaces()
    assert len(either.embedded(space)) == 3
