"""people.csv beside a folder's people: what it may say, and what becomes of it in the gallery."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.app import open_engine
from bot.settings import Settings
from engine.errors import GalleryMissing
from gallery.add import add_folder
from gallery.gallery import Gallery
from gallery.records import MEN, WOMEN
from gallery.sources.folder import scan


def folder(tmp_path: Path, table: str | bytes, *people: str) -> Path:
    """A folder of photos that nobody opens, and its people.csv."""
    root = tmp_path / "people"
    for person in people or ("Ann_Lee", "film/José_Díaz"):
        (root / person).mkdir(parents=True, exist_ok=True)
        (root / person / "1.jpg").write_bytes(b"x")
    content = table if isinstance(table, bytes) else table.encode()
    (root / "people.csv").write_bytes(content)
    return root


def test_what_the_file_says_completes_what_the_folders_say(tmp_path: Path) -> None:
    """Names in any case, with or without accents and underscores, as Excel writes it, too."""
    table = (
        "\ufeffPerson;Category;Country;Gender;Wikidata_ID\r\n"
        "ann_lee;music; ;female;q42\r\n"
        "JOSE DIAZ 02;theatre,stage;Spain;male;\r\n"
    )
    contents = scan(folder(tmp_path, table))
    ann, jose = (portrait.person for portrait in contents.portraits)
    assert (ann.key, ann.name, ann.gender, ann.country) == (
        *("name:ann lee", "Ann Lee", "female", None),
    )
    assert (ann.categories, ann.wikidata_id) == (("music",), "Q42")
    assert (jose.name, jose.categories) == ("José Díaz", ("film", "theatre,stage"))
    assert (jose.country, jose.gender, jose.wikidata_id) == ("Spain", "male", None)
    assert contents.ignored == contents.notes == []
    assert contents.strangers == []


def test_several_lines_and_folders_of_one_person(tmp_path: Path) -> None:
    table = "person,category,gender\nAnn Lee,a;b,\nAnn Lee,c,female\n"
    contents = scan(folder(tmp_path, table, "film/Ann Lee", "music/Ann Lee"))
    assert [one.person.categories for one in contents.portraits] == [
        ("film", "a", "b", "c"),
        ("music", "a", "b", "c"),
    ]
    assert {one.person.gender for one in contents.portraits} == {"female"}


def test_names_that_are_nobodys_are_told(tmp_path: Path) -> None:
    contents = scan(folder(tmp_path, "person,gender\nAnn Leigh,female\nAnn Lee,female\n,male\n"))
    assert contents.strangers == ["Ann Leigh"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("name,gender\nAnn Lee,female\n", "needs the column person"),
        ("", "needs the column person"),
        ("person,wikidata_id\nAnn Lee,42\n", "should be like Q42, not 42"),
        ("person,gender\n" + "B,female\n" * 1_000_001, "more than 1,000,000 lines"),
    ],
)
def test_a_file_that_makes_no_sense_is_one_sentence_and_people_come_without_it(
    tmp_path: Path, table: str | bytes, words: str
) -> None:
    contents = scan(folder(tmp_path, table))
    assert len(contents.portraits) == 2
    (note,) = contents.notes
    assert words in note


def test_what_spreadsheets_write_besides_is_read(tmp_path: Path) -> None:
    """A first line that names the delimiter; Cyrillic where no name tells the encoding."""
    table = "sep=;\r\n\r\n;\r\nperson;category\r\nAnn Lee;наука\r\n"
    contents = scan(folder(tmp_path, table.encode("cp1251"), "Ann Lee"))
    assert contents.portraits[0].person.categories == ("наука",)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize(
    ("encoding", "person", "country"),
    [
        ("cp1252", "José Díaz", "España"),
        ("latin-1", "Grace Hopper", "São Tomé"),
        ("cp1250", "Lech Wałęsa", "Polska"),
        ("cp1251", "Иван Петров", "Россия"),
        ("shift_jis", "宮崎 駿", "日本"),
        ("gb18030", "成龙", "中国"),
        ("utf-16", "José Díaz", "España"),
        ("utf-32", "José Díaz", "España"),
        ("utf-16-le", "José Díaz", "España"),
        ("utf-16-be", "José Díaz", "España"),
        ("utf-8", "José Díaz", "España"),
        ("utf-8-sig", "José Díaz", "España"),
    ],
)
def test_a_file_is_read_as_spreadsheets_save_it(
    tmp_path: Path, encoding: str, person: str, country: str, delimiter: str
) -> None:
    table = f"person{delimiter}country\r\n{person}{delimiter}{country}\r\n".encode(encoding)
    contents = scan(folder(tmp_path, table, person))
    (portrait,) = contents.portraits
    assert (portrait.person.country, contents.strangers) == (country, [])


def test_a_file_that_is_no_text_is_said_and_people_come_without_it(tmp_path: Path) -> None:
    contents = scan(folder(tmp_path, b"PK\x03\x04\x00\x00" + bytes(range(256)) * 8))
    assert len(contents.portraits) == 2
    (note,) = contents.notes
    assert "save it as CSV UTF-8" in note


def test_cells_too_long_for_the_catalogue_are_cut(tmp_path: Path) -> None:
    table = f"person,country,gender\nAnn Lee,{'c' * 300},{'g' * 300}\n"
    ann = scan(folder(tmp_path, table, "Ann Lee")).portraits[0].person
    assert ann.country == "c" * 100
    assert ann.gender == "g" * 50


def test_a_gallery_learns_it_also_of_people_it_has_already(
    tmp_path: Path, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """So that a search can be restricted to women or to men."""
    root = tmp_path / "people"
    for name, jpeg in (("Ann Lee", hopper_jpeg), ("Ben Low", collins_jpeg)):
        (root / name).mkdir(parents=True)
        (root / name / "1.jpg").write_bytes(jpeg)
    engine = open_engine(Settings(home=tmp_path / "home"))
    with Gallery.open(tmp_path / "gallery") as gallery:
        assert add_folder(gallery, engine, root, backbones=["dlib"]).added == 2
        assert gallery.genders() == frozenset()
        (root / "people.csv").write_text("person,gender\nann lee,Female\nben low,m\nEve,f\n")
        report = add_folder(gallery, engine, root, backbones=["dlib"])
        assert (report.added, report.unchanged, report.strangers) == (0, 2, ["Eve"])
        assert gallery.genders() == {"female", "m"}
        photo = engine.decode(hopper_jpeg)
        (query,) = engine.embed([(photo, engine.detect(photo)[0])], "dlib")
        for genders, name in ((WOMEN, "Ann Lee"), (MEN, "Ben Low")):
            (match,) = gallery.top_matches(query, 5, genders=genders)
            assert match.person.name == name
        with pytest.raises(GalleryMissing, match="gallery download"):
            gallery.top_matches(query, 1, genders=frozenset({"non-binary"}))
