"""Files made to harm: whatever is wrong with an exported gallery, nothing of it is taken in."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from engine import decode as decoding
from engine.errors import GalleryCorrupt, LookalikeError, SetupProblem
from gallery import pack
from gallery.gallery import Gallery
from gallery.pack import PackReader
from gallery.transfer import export_gallery, import_file

Change = str | Callable[[sqlite3.Connection], Any]


@pytest.fixture(scope="module")
def sound(starter_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two people that everybody has, as a file."""
    from homes import copy_home

    home = tmp_path_factory.mktemp("sound")
    copy_home(starter_home, home / "home")
    with Gallery.open(home / "home" / "gallery") as gallery:
        export_gallery(gallery, home / "all.lookalike")
    return home / "all.lookalike"


def remade(sound: Path, file: Path, change: Change, *, sealed: bool = True) -> Path:
    """The file with something changed, and with a checksum that agrees again if ``sealed``."""
    shutil.copyfile(sound, file)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        if isinstance(change, str):
            connection.executescript(change)
        else:
            change(connection)
        if sealed:
            pack.seal(connection)
    return file


def schema(statement: str) -> Change:
    """Changes what stands in the file about its tables, as no statement of SQL would."""

    def change(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(statement)
        connection.execute("PRAGMA writable_schema = RESET")

    return change


def person(column: str, value: Any) -> Change:
    return lambda pack: pack.execute(f"UPDATE person SET {column} = ? WHERE id = 1", [value])


def portrait(column: str, value: Any) -> Change:
    return lambda pack: pack.execute(f"UPDATE portrait SET {column} = ? WHERE id = 1", [value])


def space(column: str, value: Any) -> Change:
    return lambda pack: pack.execute(f"UPDATE space SET {column} = ?", [value])


def calibration(content: Any) -> Change:
    insert = "INSERT OR REPLACE INTO calibration SELECT id, ? FROM space"
    return lambda pack: pack.execute(insert, [content])


def vector(edit: Callable[[Any], Any]) -> Change:
    """Changes the numbers of one vector."""

    def change(pack: sqlite3.Connection) -> None:
        ((value,),) = pack.execute("SELECT value FROM portrait_vector WHERE portrait_id = 1")
        edited = edit(np.frombuffer(value, "<f4").copy())
        content = edited if isinstance(edited, str | bytes) else edited.tobytes()
        pack.execute("UPDATE portrait_vector SET value = ? WHERE portrait_id = 1", [content])

    return change


def categories(count: int) -> Change:
    def change(pack: sqlite3.Connection) -> None:
        for number in range(1000, 1000 + count):
            pack.execute("INSERT INTO category VALUES (?, ?)", [number, f"kind {number}"])
            pack.execute("INSERT INTO person_category VALUES (1, ?)", [number])

    return change


def with_nan(vector: Any) -> Any:
    vector[5] = np.nan
    return vector


LONG = "x" * 5000
DEEP = "[" * 4_000 + "]" * 4_000
ABSURD = "[[1, 2], [1, 2], [1, 2], [1, 2], [1, 1" + "0" * 4_000 + "]]"
UNSEALED: dict[str, Change] = {
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON person BEGIN SELECT 1; END",
    "a view": "CREATE VIEW v AS SELECT * FROM person",
    "a virtual table": "CREATE VIRTUAL TABLE v USING fts5(x)",
    "one table more": "CREATE TABLE evil (x)",
    "one index more": "CREATE INDEX i ON person (name)",
    "an index on an expression": "CREATE INDEX i ON person (abs(fame))",
    "a column more": "ALTER TABLE person ADD COLUMN evil",
    "a generated column": "ALTER TABLE person ADD COLUMN evil AS (upper(name))",
    "a table less": "DROP TABLE rejection",
    "an index less": "DROP INDEX ix_portrait_person_id",
    "a view in a table's place": "ALTER TABLE banned RENAME TO evil;"
    "CREATE VIEW banned AS SELECT * FROM evil",
    "a table with another check": schema(
        "UPDATE sqlite_master SET sql = replace(sql, 'width_px > 0', 'abs(width_px) > 0')"
    ),
    "a table that is another's": schema(
        "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master "
        "WHERE name = 'portrait') WHERE name = 'person'"
    ),
    "a table on no page": schema("UPDATE sqlite_master SET rootpage = 9999 WHERE name = 'person'"),
    "a table that is no SQL": schema("UPDATE sqlite_master SET sql = 'evil' WHERE name = 'banned'"),
    "people without their key": schema(
        "UPDATE sqlite_master SET sql = replace(sql, 'UNIQUE', '') WHERE name = 'person'"
    ),
    "a finding more": "INSERT INTO finding VALUES ('evil', '{}')",
    "a finding of an absurd size": "UPDATE finding SET content = hex(zeroblob(1000000))",
    "a name that is no UTF-8": "UPDATE person SET name = CAST(x'fffe' AS TEXT)",
}
WRONG: dict[str, Change] = {
    "fewer vectors than there should be": "DELETE FROM portrait_vector WHERE portrait_id = 1",
    "more rows": "UPDATE space SET row_count = 3",
    "absurdly many rows": "UPDATE space SET row_count = 1 << 62",
    "an unknown backbone": space("backbone", "../../../tmp/evil"),
    "a backbone that is no text": space("backbone", 5),
    "weights that are no hash": space("weights_sha256", "../" * 20),
    "weights in capitals": space("weights_sha256", "AB" * 32),
    "a recipe below zero": space("recipe", -1),
    "a recipe that is no number": space("recipe", "two"),
    "other dimensions": space("dimensions", 127),
    "a space of another name": "UPDATE space SET id = 'x';"
    "UPDATE portrait_vector SET space_id = 'x';"
    "UPDATE calibration SET space_id = 'x'",
    "a calibration of another space": calibration('{"rows": 2, "calibration": {"space": "x"}}'),
    "a calibration that is none": calibration("[1, 2]"),
    "a calibration that is no JSON": calibration("{"),
    "a nested calibration": calibration(DEEP),
    "a calibration of bytes": calibration(b"{}"),
    "a calibration of an absurd size": calibration("[" + "1," * 100_000 + "1]"),
    "a vector of NaN": vector(with_nan),
    "vectors of another length": vector(lambda v: 1.5 * v),
    "vectors of nothing": vector(lambda v: 0 * v),
    "infinite vectors": vector(lambda v: v * np.float32(np.inf)),
    "huge vectors": vector(lambda v: v * np.float32(1e38)),
    "vectors of another type": vector(lambda v: v.astype("<f8")),
    "vectors of half the numbers": vector(lambda v: v[:64]),
    "vectors in another byte order": vector(lambda v: v.astype(">f4")),
    "vectors that end early": vector(lambda v: v.tobytes()[:-1]),
    "vectors that go on": vector(lambda v: v.tobytes() + bytes(512)),
    "a vector of text": vector(lambda _: "x" * 512),
    "a vector of nothing at all": "UPDATE portrait_vector SET value = NULL",
    "a vector of an absurd size": "UPDATE portrait_vector SET value = zeroblob(3000000)",
    "vectors of nobody": "UPDATE portrait_vector SET portrait_id = 99 WHERE portrait_id = 1",
    "a vector of no space": "UPDATE portrait_vector SET space_id = 'x' WHERE portrait_id = 1",
    "a name that is too long": person("name", LONG),
    "a name beyond all": person("name", "x" * 3_000_000),
    "a name of nothing": person("name", " \x00\u2028 "),
    "a name of accents only": person("name", "\u0301"),
    "a name that is no text": person("name", b"Grace"),
    "a name that unfolds": person("name", "\ufdfa" * 400),
    "a name that rearranges what is around it": person("name", "Grace \u202eHopper"),
    "a name of two lines": person("name", "Grace\nHopper"),
    "a name with an escape": person("name", "\x1b[31mGrace"),
    "a key of nothing": person("key", ""),
    "a key that is too long": person("key", LONG),
    "a Wikidata id that is none": person("wikidata_id", "Q1'; DROP TABLE person; --"),
    "a Wikidata id with an end": person("wikidata_id", "Q1\n"),
    "absurdly many categories": categories(101),
    "a category of nothing": "INSERT INTO category VALUES (99, char(7));"
    "INSERT INTO person_category VALUES (1, 99)",
    "a category of bytes": "INSERT INTO category VALUES (99, x'00');"
    "INSERT INTO person_category VALUES (1, 99)",
    "fame beyond all": person("fame", 2**31),
    "fame below zero": person("fame", -1),
    "fame in parts": person("fame", 1.5),
    "fame in words": person("fame", "very"),
    "a person too few": "DELETE FROM person WHERE id = 1",
    "a portrait of nobody": portrait("person_id", 99),
    "a portrait too few": "DELETE FROM portrait WHERE id = 1",
    "a hash that is a path": portrait("sha256", "../../../../etc/passwd"),
    "a hash in capitals": portrait("sha256", "AB" * 32),
    "a hash of bytes": portrait("sha256", b"ab" * 32),
    "no size": "PRAGMA ignore_check_constraints = ON; UPDATE portrait SET width_px = 0",
    "an absurd size": portrait("height_px", 10**9),
    "a size that is no number": portrait("width_px", "wide"),
    "four landmarks": portrait("landmarks", "[[1, 2], [1, 2], [1, 2], [1, 2]]"),
    "landmarks in space": portrait("landmarks", str([[1, 2, 3]] * 5)),
    "landmarks far away": portrait("landmarks", str([[1e9, 2]] * 5)),
    "landmarks of nothing": portrait("landmarks", str([[True, 2]] * 5).lower()),
    "landmarks that are no number": portrait("landmarks", "[[1, 2], [1, NaN], [1, 2], [1, 2]]"),
    "landmarks that are no JSON": portrait("landmarks", "{"),
    "landmarks of bytes": portrait("landmarks", b"[]"),
    "nested landmarks": portrait("landmarks", DEEP),
    "an absurd number": portrait("landmarks", ABSURD),
    "a box of nothing": portrait("box_w", 0.0),
    "a box that is none": portrait("box_x", "left"),
    "a box without end": portrait("box_h", np.inf),
    "an author that is too long": portrait("author", LONG),
    "a script for a source": portrait("source_url", "javascript:alert(1)"),
    "a link with a space": portrait("licence_url", "https://a b"),
    "an author of nothing": portrait("author", ""),
    "a licence of bytes": portrait("licence", b"CC"),
    "absentees of no name": "INSERT INTO banned VALUES ('Q1', '', '', NULL)",
    "absentees that are none": "INSERT INTO banned VALUES ('Q1', x'00', '', 'Q')",
}


@pytest.mark.parametrize("what", [*WRONG, *UNSEALED])
def test_nothing_is_taken_in(what: str, sound: Path, tmp_path: Path) -> None:
    change = (WRONG | UNSEALED)[what]
    file = remade(sound, tmp_path / "evil.lookalike", change, sealed=what in WRONG)
    with Gallery.open(tmp_path / "own") as gallery:
        before = gallery.revision()
        with pytest.raises(GalleryCorrupt, match=r"evil\.lookalike is no exported gallery, or a"):
            import_file(gallery, file)
        assert gallery.revision() == before
        assert gallery.stats().people == 0
    assert {path.name for path in tmp_path.iterdir()} == {"evil.lookalike", "own"}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE person SET name = 'Somebody' WHERE id = 1",
        "UPDATE portrait SET author = 'Somebody' WHERE id = 1",
        "INSERT INTO banned VALUES ('Q5', 'Somebody', 'somebody', 'Q5')",
        "UPDATE portrait_vector SET value = zeroblob(512)",
        "UPDATE checksum SET sha256 = zeroblob(32)",
        "DELETE FROM finding",
    ],
)
def test_a_file_that_was_changed_is_noticed(change: str, sound: Path, tmp_path: Path) -> None:
    file = remade(sound, tmp_path / "evil.lookalike", change, sealed=False)
    with Gallery.open(tmp_path / "own") as gallery, pytest.raises(GalleryCorrupt):
        import_file(gallery, file)


def test_a_newer_format_is_told_from_a_damaged_one(sound: Path, tmp_path: Path) -> None:
    file = remade(sound, tmp_path / "new.lookalike", "PRAGMA user_version = 2")
    with pytest.raises(SetupProblem, match=r"version 2 of the format.*update lookalike"):
        PackReader(file)


def test_no_file_and_no_pack(sound: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupProblem, match="No such file"):
        PackReader(tmp_path / "nowhere.lookalike")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(GalleryCorrupt):
            PackReader(path)
    magic = b"SQLite format 3\0"
    for content in (b"", b"x", magic, magic + bytes(84), b"PK\x05\x06" + bytes(17), bytes(100)):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(GalleryCorrupt):
            PackReader(tmp_path / "x")
    whole = sound.read_bytes()
    for part in (whole[:-1], whole[: len(whole) // 2], whole[-6000:], whole + b"\0", whole[:100]):
        (tmp_path / "x").write_bytes(part)
        with pytest.raises(GalleryCorrupt):
            PackReader(tmp_path / "x")


def test_another_database_is_refused(sound: Path, tmp_path: Path) -> None:
    file = remade(sound, tmp_path / "x.db", "PRAGMA application_id = 0")
    with pytest.raises(GalleryCorrupt, match="another kind of file"):
        PackReader(file)


def test_a_journal_beside_the_file_is_not_played_back(sound: Path, tmp_path: Path) -> None:
    """It would be written into the file; and a write-ahead log would change what is read."""
    file = Path(shutil.copyfile(sound, tmp_path / "x.lookalike"))
    for ending in ("-journal", "-wal", "-shm"):
        file.with_name(file.name + ending).write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" * 100)
    with PackReader(file) as reader:
        reader.check()
    assert file.read_bytes() == sound.read_bytes()
    assert len(list(tmp_path.iterdir())) == 4


def test_pages_that_claim_more_than_they_hold_are_noticed(sound: Path, tmp_path: Path) -> None:
    """Counts, offsets and sizes of cells beyond their page, on every page of the file."""
    whole = sound.read_bytes()
    for page in range(0, len(whole), 4096):
        for offset, size in ((3, 2), (5, 2), (8, 2), (12, 2), (4090, 4)):
            content = bytearray(whole)
            content[page + offset : page + offset + size] = b"\xff" * size
            (tmp_path / "x").write_bytes(content)
            with contextlib.suppress(GalleryCorrupt, SetupProblem), PackReader(tmp_path / "x") as x:
                x.check()


def test_a_database_that_says_it_is_huge_costs_nothing(sound: Path, tmp_path: Path) -> None:
    content = bytearray(sound.read_bytes())
    struct.pack_into(">L", content, 28, 2**32 - 1)
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(GalleryCorrupt, match="missing"):
        PackReader(tmp_path / "x")


def test_too_many_rows_are_not_even_read(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pack._MOST_ROWS, "portrait", 1)
    with PackReader(sound) as reader, pytest.raises(GalleryCorrupt, match="too many rows"):
        reader.check()
    del tmp_path


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, "PNG")
    return buffer.getvalue()


PHOTOS = {
    "no picture": b"GIF89a, but only in name",
    "nothing": b"",
    "a text": "GIF89a",
    "another kind of picture": png(475, 512),
    "another size": png(10, 10),
    "a script": b"<script>alert(1)</script>",
    "half a picture": None,
}


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("what", PHOTOS)
def test_a_photo_that_is_none_costs_its_portrait_only(
    what: str, checked: bool, sound: Path, tmp_path: Path
) -> None:
    def change(connection: sqlite3.Connection) -> None:
        ((jpeg,),) = connection.execute("SELECT jpeg FROM thumbnail WHERE portrait_id = 1")
        photo = jpeg[:20_000] if PHOTOS[what] is None else PHOTOS[what]
        connection.execute("UPDATE thumbnail SET jpeg = ? WHERE portrait_id = 1", [photo])
        if checked and isinstance(photo, bytes):
            pack.note_checksums(connection, [(1, photo)])

    file = remade(sound, tmp_path / "evil.lookalike", change)
    with Gallery.open(tmp_path / "own") as gallery:
        report = import_file(gallery, file)
        assert (report.added, [one.reason for one in report.rejected]) == (1, ["damaged photo"])
        assert len(gallery.people()) == 1
        assert [len(gallery.embedded(space)) for space in gallery.spaces()] == [1]


def test_a_pack_of_bombs_alone_brings_nobody_and_costs_little(sound: Path, tmp_path: Path) -> None:
    """Each would be 100 megapixels; it is refused by its header."""
    flat = io.BytesIO()
    Image.new("L", (10_000, 10_000)).save(flat, "PNG", compress_level=1)
    bomb, before = flat.getvalue(), decoding.tally["replaced"]

    def change(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE thumbnail SET jpeg = ?", [bomb])
        pack.note_checksums(connection, [(1, bomb), (2, bomb)])

    file = remade(sound, tmp_path / "evil.lookalike", change)
    with Gallery.open(tmp_path / "own") as gallery:
        report = import_file(gallery, file)
        assert [one.reason for one in report.rejected] == ["damaged photo"] * 2
        assert len(gallery.people()) == 0
    assert decoding.tally["replaced"] == before


def test_a_photo_that_was_changed_costs_its_portrait_only(sound: Path, tmp_path: Path) -> None:
    change = "UPDATE thumbnail SET jpeg = substr(jpeg, 1, length(jpeg) - 100) || zeroblob(100)"
    file = remade(sound, tmp_path / "evil.lookalike", f"{change} WHERE portrait_id = 1")
    with Gallery.open(tmp_path / "own") as gallery:
        report = import_file(gallery, file)
        assert (report.added, [one.reason for one in report.rejected]) == (1, ["damaged photo"])


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
    part=st.sampled_from([0.0, 0.7, 1.0]),
)
def test_random_damage_is_an_error_for_people_or_costs_a_photo(
    sound: Path, tmp_path: Path, places: list[tuple[float, int]], part: float
) -> None:
    content = bytearray(sound.read_bytes())
    first, last = round(part * (len(content) - 20_000)), len(content) if part else 20_000
    for place, value in places:
        content[first + int(place * (last - first - 1))] = value
    (tmp_path / "x").write_bytes(content)
    with contextlib.suppress(LookalikeError), PackReader(tmp_path / "x") as reader:
        reader.check()
        assert len(reader.portraits_by_id(reader.portrait_ids().tolist())) == 2
