"""Files made to harm: whatever is wrong with an exported gallery, nothing of it is taken in."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.errors import GalleryCorrupt, LookalikeError, SetupProblem
from gallery.gallery import Gallery
from gallery.pack import export_gallery, import_file
from gallery.packing import archive as pack_archive
from gallery.packing.layout import array_header
from gallery.packing.reader import PackFile

Members = dict[str, bytes]
Change = Callable[[Members, dict[str, Any]], None]


@pytest.fixture(scope="module")
def sound(starter_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two people that everybody has, as a file."""
    from homes import copy_home

    home = tmp_path_factory.mktemp("sound")
    copy_home(starter_home, home / "home")
    with Gallery.open(home / "home" / "gallery") as gallery:
        export_gallery(gallery, home / "all.zip")
    return home / "all.zip"


def vectors_name(members: Members) -> str:
    return next(name for name in members if name.endswith(".npy"))


def remade(sound: Path, file: Path, change: Change, *, promise: bool = True) -> Path:
    """The file with something changed, and with hashes that agree again if ``promise``."""
    with zipfile.ZipFile(sound) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members["manifest.json"])
    before = dict(members)
    change(members, manifest)
    for name in manifest.get("members", {}) if promise else ():
        if name in members and members[name] != before.get(name):
            content = members[name]
            digest = hashlib.sha256(content).hexdigest()
            manifest["members"][name] = {"bytes": len(content), "sha256": digest}
    if members.get("manifest.json") == before["manifest.json"]:
        members["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file


def edit_portrait(**news: Any) -> Change:
    def change(members: Members, _: dict[str, Any]) -> None:
        first, rest = members["portraits.jsonl"].split(b"\n", 1)
        line = {**json.loads(first), **news}
        members["portraits.jsonl"] = json.dumps(line).encode() + b"\n" + rest

    return change


def edit_person(**news: Any) -> Change:
    def change(members: Members, _: dict[str, Any]) -> None:
        first, rest = members["people.jsonl"].split(b"\n", 1)
        line = {**json.loads(first), **news}
        members["people.jsonl"] = json.dumps(line).encode() + b"\n" + rest

    return change


def edit_manifest(**news: Any) -> Change:
    return lambda _, manifest: manifest.update(news)


def edit_space(**news: Any) -> Change:
    return lambda _, manifest: manifest["spaces"][0].update(news)


def edit_vectors(edit: Callable[[bytes], bytes]) -> Change:
    def change(members: Members, _: dict[str, Any]) -> None:
        name = vectors_name(members)
        members[name] = edit(members[name])

    return change


def numbers(change: Callable[[Any], Any]) -> Change:
    """Changes the vectors themselves."""

    def edit(content: bytes) -> bytes:
        vectors = np.load(io.BytesIO(content), allow_pickle=False)
        changed: bytes = change(vectors.copy()).astype("<f4").tobytes()
        return array_header(*vectors.shape) + changed

    return edit_vectors(edit)


def with_nan(vectors: Any) -> Any:
    vectors[1, 5] = np.nan
    return vectors


def replace(name: str, content: bytes) -> Change:
    return lambda members, _: members.__setitem__(name, content)


def drop(name: str) -> Change:
    return lambda members, _: members.pop(name) and None


def lines(name: str, edit: Callable[[list[bytes]], list[bytes]]) -> Change:
    def change(members: Members, _: dict[str, Any]) -> None:
        members[name] = b"".join(edit(members[name].splitlines(keepends=True)))

    return change


def other_array(*shape: int, dtype: str = "<f4", pickled: bool = False) -> Change:
    def edit(_: bytes) -> bytes:
        buffer = io.BytesIO()
        array = np.zeros(shape, object if pickled else dtype)
        np.save(buffer, array, allow_pickle=pickled)
        return buffer.getvalue()

    return edit_vectors(edit)


LONG = "x" * 5000
DEEP = b'{"key":' + b"[" * 20_000 + b"]" * 20_000 + b"}\n"
WRONG: dict[str, Change] = {
    "another format": edit_manifest(format="something else"),
    "no format": lambda _, manifest: manifest.pop("format") and None,
    "more portraits than there are": edit_manifest(portraits=3),
    "fewer people than there are": edit_manifest(people=1),
    "counts below zero": edit_manifest(people=-1),
    "counts that are none": edit_manifest(portraits="2"),
    "true is no count": edit_manifest(people=True),
    "absurdly many portraits": edit_manifest(portraits=10**12),
    "no list of spaces": edit_manifest(spaces=7),
    "spaces without description": edit_manifest(spaces=[1]),
    "no list of members": edit_manifest(members=[]),
    "a manifest that is no JSON": replace("manifest.json", b"{"),
    "a manifest that is a list": replace("manifest.json", b"[]"),
    "a manifest that is too large": replace("manifest.json", b" " * 2_000_000 + b"{}"),
    "a manifest that is nested": replace("manifest.json", b"[" * 100_000),
    "no manifest": drop("manifest.json"),
    "no people": drop("people.jsonl"),
    "no portraits": drop("portraits.jsonl"),
    "no list of absentees": drop("never_again.jsonl"),
    "a path out of the folder": replace("../../evil.txt", b"x"),
    "an absolute path": replace("/etc/cron.d/evil", b"x"),
    "a photo below a path": replace("portraits/../../evil.jpg", b"x"),
    "a drive": replace("C:\\evil.jpg", b"x"),
    "a file nobody asked for": replace("readme.txt", b"x"),
    "an unknown backbone": edit_space(backbone="../../../tmp/evil"),
    "no backbone": edit_space(backbone=None),
    "weights that are no hash": edit_space(weights_sha256="../" * 20),
    "a recipe below zero": edit_space(recipe=-1),
    "a recipe that is no number": edit_space(recipe="2"),
    "other dimensions": edit_space(dimensions=127),
    "more rows": edit_space(rows=3),
    "absurdly many rows": edit_space(rows=2**39),
    "a calibration of another space": edit_space(calibration={"format": 1, "space": "x"}),
    "a calibration that is none": edit_space(calibration=[1, 2]),
    "a vector of NaN": numbers(with_nan),
    "vectors of another length": numbers(lambda vectors: 1.5 * vectors),
    "vectors of nothing": numbers(lambda vectors: 0 * vectors),
    "infinite vectors": numbers(lambda vectors: vectors * np.inf),
    "huge vectors": numbers(lambda vectors: vectors * np.float32(1e38)),
    "vectors of another shape": other_array(1, 256),
    "vectors of another type": other_array(2, 64, dtype="<f8"),
    "vectors in another byte order": other_array(2, 128, dtype=">f4"),
    "an array of Python objects": other_array(2, 128, pickled=True),
    "vectors that end early": edit_vectors(lambda content: content[:-4]),
    "vectors that go on": edit_vectors(lambda content: content + bytes(512)),
    "vectors without a header": edit_vectors(lambda content: content[128:]),
    "vectors of nobody": lambda members, _: members.update(
        {name: b"0" * 64 + b"\n" + members[name][65:] for name in members if name[-1] == "s"}
    ),
    "vectors in another order": lambda members, _: members.update(
        {name: members[name][65:] + members[name][:65] for name in members if name[-1] == "s"}
    ),
    "a name that is too long": edit_person(name=LONG),
    "a name of nothing": edit_person(name=" \x00\u2028 "),
    "a name of accents only": edit_person(name="\u0301"),
    "a name that is no text": edit_person(name=["Grace"]),
    "a key of nothing": edit_person(key=""),
    "a name that unfolds": edit_person(name="\ufdfa" * 400),
    "a Wikidata id that is none": edit_person(wikidata_id="Q1'; DROP TABLE person; --"),
    "categories that are none": edit_person(categories="film"),
    "absurdly many categories": edit_person(categories=[str(n) for n in range(101)]),
    "a category of nothing": edit_person(categories=["\x07"]),
    "fame beyond all": edit_person(fame=2**31),
    "fame in parts": edit_person(fame=1.5),
    "an absurd number": replace("people.jsonl", b'{"key":"a","name":"a","fame":1' + b"0" * 9999),
    "people nested beyond reason": replace("people.jsonl", DEEP),
    "people that are no text": replace("people.jsonl", b'{"key":"\xff\xfe"}\n'),
    "a line without an end": replace("people.jsonl", b"x" * 200_000),
    "one person twice": lines("people.jsonl", lambda all_of: all_of + all_of[:1]),
    "people in another order": lines("people.jsonl", lambda all_of: all_of[::-1]),
    "a person too few": lines("people.jsonl", lambda all_of: all_of[:1]),
    "one portrait twice": lines("portraits.jsonl", lambda all_of: [all_of[0], *all_of]),
    "portraits in another order": lines("portraits.jsonl", lambda all_of: all_of[::-1]),
    "a portrait too few": lines("portraits.jsonl", lambda all_of: all_of[:1]),
    "a hash that is a path": edit_portrait(sha256="../../../../etc/passwd"),
    "a hash in capitals": edit_portrait(sha256="AB" * 32),
    "a portrait of nobody": edit_portrait(person="name:nobody"),
    "no size": edit_portrait(size_px=[0, 512]),
    "an absurd size": edit_portrait(size_px=[475, 10**9]),
    "a size of one number": edit_portrait(size_px=[475]),
    "four landmarks": edit_portrait(landmarks=[[1, 2]] * 4),
    "landmarks in space": edit_portrait(landmarks=[[1, 2, 3]] * 5),
    "landmarks far away": edit_portrait(landmarks=[[1e9, 2]] * 5),
    "a box of nothing": edit_portrait(box=[1, 2, 0, 5]),
    "a box that is none": edit_portrait(box=None),
    "an author that is too long": edit_portrait(author=LONG),
    "a licence that is a list": edit_portrait(license=["CC BY 4.0"]),
    "a photo that is not there": edit_portrait(photo={"bytes": 5, "sha256": "00" * 32}),
    "a photo without a hash": edit_portrait(photo={"bytes": 5}),
    "a photo of an absurd size": edit_portrait(photo={"bytes": 10**9, "sha256": "00" * 32}),
    "absentees that are none": replace("never_again.jsonl", b'{"key":"Q1"}\n'),
    "not a number": replace("people.jsonl", b'{"key":"a","name":"a","fame":NaN}\n'),
}


@pytest.mark.parametrize("what", WRONG)
def test_nothing_is_taken_in(what: str, sound: Path, tmp_path: Path) -> None:
    file = remade(sound, tmp_path / "evil.zip", WRONG[what])
    with Gallery.open(tmp_path / "own") as gallery:
        before = gallery.revision()
        with pytest.raises(GalleryCorrupt, match=r"evil\.zip is no exported gallery, or a damaged"):
            import_file(gallery, file)
        assert gallery.revision() == before
        assert gallery.stats().people == 0
        assert not list((tmp_path / "own").rglob("*.jpg"))
    assert {path.name for path in tmp_path.iterdir()} == {"evil.zip", "own"}


@pytest.mark.parametrize("name", ["people.jsonl", "portraits.jsonl", "never_again.jsonl", "npy"])
def test_a_file_that_was_changed_is_noticed(name: str, sound: Path, tmp_path: Path) -> None:
    def change(members: Members, _: dict[str, Any]) -> None:
        full = vectors_name(members) if name == "npy" else name
        members[full] = members[full][:-1] + b"~" if members[full] else b"\n"

    file = remade(sound, tmp_path / "evil.zip", change, promise=False)
    with Gallery.open(tmp_path / "own") as gallery, pytest.raises(GalleryCorrupt):
        import_file(gallery, file)


def test_a_newer_format_is_told_from_a_damaged_one(sound: Path, tmp_path: Path) -> None:
    file = remade(sound, tmp_path / "new.zip", edit_manifest(version=2))
    with pytest.raises(SetupProblem, match=r"version 2 of the format.*update lookalike"):
        PackFile(file)


def test_no_file_and_no_archive(sound: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupProblem, match="No such file"):
        PackFile(tmp_path / "nowhere.zip")
    for content in (b"", b"x", b"PK\x05\x06" + bytes(17), b"\x80\x04]." * 50, bytes(100)):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(GalleryCorrupt):
            PackFile(tmp_path / "x")
    whole = sound.read_bytes()
    for part in (whole[:-1], whole[: len(whole) // 2], whole[-6000:], whole + b"\0"):
        (tmp_path / "x").write_bytes(part)
        with pytest.raises(GalleryCorrupt):
            PackFile(tmp_path / "x")


def test_a_bomb_does_not_go_off(tmp_path: Path) -> None:
    """Compressed files are refused unread: here 100 MB that were zeros."""
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("people.jsonl", bytes(100_000_000))
    assert bomb.stat().st_size < 200_000
    with pytest.raises(GalleryCorrupt, match="compressed"):
        PackFile(bomb)


def test_sizes_that_lie_are_noticed(sound: Path, tmp_path: Path) -> None:
    """A member that claims to be as large as the whole file, so that members overlap."""
    content = bytearray(sound.read_bytes())
    at = content.index(b"PK\x01\x02")
    struct.pack_into("<LL", content, at + 20, len(content), len(content))
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(GalleryCorrupt, match="overlap"):
        PackFile(tmp_path / "x.zip")
    struct.pack_into("<LL", content, at + 20, 5, 50_000)
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(GalleryCorrupt, match="two sizes"):
        PackFile(tmp_path / "x.zip")


def test_an_archive_of_too_many_files_is_not_even_opened(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(sound.read_bytes())
    struct.pack_into("<L", content, len(content) - 10, 2**32 - 2)
    (tmp_path / "x.zip").write_bytes(content)
    monkeypatch.setattr(pack_archive.zipfile, "ZipFile", None)
    with pytest.raises(GalleryCorrupt, match="too many files"):
        PackFile(tmp_path / "x.zip")


def test_two_files_of_one_name(sound: Path, tmp_path: Path) -> None:
    file = tmp_path / "twice.zip"
    file.write_bytes(sound.read_bytes())
    with (
        zipfile.ZipFile(file, "a") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr("people.jsonl", b"")
    with pytest.raises(GalleryCorrupt, match="two files of one name"):
        PackFile(file)


def test_an_encrypted_archive(sound: Path, tmp_path: Path) -> None:
    content = bytearray(sound.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(GalleryCorrupt, match="encrypted"):
        PackFile(tmp_path / "x.zip")


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, "PNG")
    return buffer.getvalue()


PHOTOS = {
    "no picture": b"GIF89a, but only in name",
    "another kind of picture": png(475, 512),
    "another size": png(10, 10),
    "a script": b"<script>alert(1)</script>",
    "half a picture": None,
}


@pytest.mark.parametrize("what", PHOTOS)
def test_a_photo_that_is_none_costs_its_portrait_only(
    what: str, sound: Path, tmp_path: Path
) -> None:
    def change(members: Members, _: dict[str, Any]) -> None:
        name = next(name for name in members if name.endswith(".jpg"))
        content = PHOTOS[what]
        members[name] = members[name][:20_000] if content is None else content
        digest = hashlib.sha256(members[name]).hexdigest()
        edit_portrait(photo={"bytes": len(members[name]), "sha256": digest})(members, {})

    file = remade(sound, tmp_path / "evil.zip", change)
    with Gallery.open(tmp_path / "own") as gallery:
        report = import_file(gallery, file)
        assert (report.added, [one.reason for one in report.rejected]) == (1, ["damaged photo"])
        assert [person.name for person in gallery.people()] == ["Eileen Collins"]
        assert [len(gallery.embedded(space)) for space in gallery.spaces()] == [1]


def test_a_photo_that_was_changed_costs_its_portrait_only(sound: Path, tmp_path: Path) -> None:
    def change(members: Members, _: dict[str, Any]) -> None:
        name = next(name for name in members if name.endswith(".jpg"))
        members[name] = members[name][:-100] + bytes(100)

    file = remade(sound, tmp_path / "evil.zip", change)
    with Gallery.open(tmp_path / "own") as gallery:
        report = import_file(gallery, file)
        assert (report.added, [one.reason for one in report.rejected]) == (1, ["damaged photo"])


def test_odd_names_are_made_harmless(sound: Path, tmp_path: Path) -> None:
    def change(members: Members, manifest: dict[str, Any]) -> None:
        edit_person(name="\x1b[31mGrace\x00 \u202eHop\u2066per\n\ud800")(members, manifest)
        news = {"source_url": "javascript:alert(1)", "license_url": "https://a b", "author": "\x07"}
        edit_portrait(**news)(members, manifest)

    file = remade(sound, tmp_path / "odd.zip", change)
    with Gallery.open(tmp_path / "own") as gallery:
        import_file(gallery, file)
        person = gallery.find_person("name:grace hopper")
        assert person is not None
        assert person.name == "[31mGrace Hopper"
        (portrait,) = gallery.portraits(person.id)
        assert (portrait.source_url, portrait.licence_url, portrait.author) == (None, None, None)
        assert portrait.licence == "public domain"


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
    tail=st.booleans(),
)
def test_random_damage_is_an_error_for_people_or_costs_a_photo(
    sound: Path, tmp_path: Path, places: list[tuple[float, int]], tail: bool
) -> None:
    content = bytearray(sound.read_bytes())
    start = len(content) - 6000 if tail else 0  # lists, vectors and directory are at the end
    for place, value in places:
        content[start + int(place * (len(content) - start - 1))] = value
    (tmp_path / "x.zip").write_bytes(content)
    try:
        with PackFile(tmp_path / "x.zip") as pack:
            pack.check()
            portraits = [
                portrait
                for batch in pack.batches()
                for person in batch.people
                for portrait in person.portraits
            ]
        assert len(portraits) == 2
    except LookalikeError:
        pass
