"""Folders of people, arranged in every way that people arrange them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.errors import SetupProblem, TooLarge
from gallery.records import FoundPortrait
from gallery.sources.folder import person_name, scan


def plant(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return root


def found(root: Path, category: str | None = None) -> list[tuple[str, tuple[str, ...], str]]:
    return [
        (one.person.name, one.person.categories, one.origin)
        for one in scan(root, category=category).portraits
    ]


def test_a_folder_for_each_person(tmp_path: Path) -> None:
    plant(tmp_path, "Tom_Hanks/2.jpg", "Tom_Hanks/1.JPG", "Grace Hopper/a.webp")
    assert found(tmp_path) == [
        ("Grace Hopper", (), "Grace Hopper/a.webp"),
        ("Tom Hanks", (), "Tom_Hanks/1.JPG"),
        ("Tom Hanks", (), "Tom_Hanks/2.jpg"),
    ]
    assert found(tmp_path, "film")[0][1] == ("film",)


def test_a_folder_for_each_category(tmp_path: Path) -> None:
    plant(tmp_path, "film/Tom_Hanks/1.jpg", "sports/tennis/Serena_Williams/1.png")
    assert found(tmp_path, "famous") == [
        ("Tom Hanks", ("famous", "film"), "film/Tom_Hanks/1.jpg"),
        ("Serena Williams", ("famous", "sports", "tennis"), "sports/tennis/Serena_Williams/1.png"),
    ]


def test_both_side_by_side_with_photos_astray(tmp_path: Path) -> None:
    plant(
        tmp_path,
        "loose.jpg",
        "Grace_Hopper/1.jpg",
        "film/Tom_Hanks/1.jpg",
        "film/stray.png",
        "Zoe/notes/readme.txt",
        "Zoe/1.gif",
    )
    contents = scan(tmp_path)
    assert [one.person.name for one in contents.portraits] == ["Grace Hopper", "Zoe", "Tom Hanks"]
    assert contents.astray == ["loose.jpg", "film/stray.png"]
    assert contents.ignored == ["Zoe/notes/readme.txt (not a kind of photo that is read)"]


def test_what_is_no_photo_or_hidden_is_passed_over(tmp_path: Path) -> None:
    plant(
        tmp_path,
        "A/1.jpg",
        "A/Thumbs.db",
        "A/desktop.ini",
        "A/.DS_Store",
        "A/._1.jpg",
        "A/.cache/2.jpg",
        ".git/x.jpg",
        "A/noending",
        "@eaDir/notes.txt",
    )
    contents = scan(tmp_path)
    assert [one.origin for one in contents.portraits] == ["A/1.jpg"]
    assert set(contents.ignored) == {
        ".git (hidden)",
        "@eaDir (a folder of the system)",
        "A/.DS_Store (hidden)",
        "A/._1.jpg (hidden)",
        "A/.cache (hidden)",
        "A/Thumbs.db (a file of the system)",
        "A/desktop.ini (a file of the system)",
        "A/noending (not a kind of photo that is read)",
    }


def test_links_out_of_the_tree_and_odd_files_are_passed_over(tmp_path: Path) -> None:
    outside = plant(tmp_path / "outside", "secret/1.jpg")
    root = plant(tmp_path / "root", "A/1.jpg", "B/1.jpg")
    (root / "A/out.jpg").symlink_to(outside / "secret/1.jpg")
    (root / "A/gone.jpg").symlink_to(root / "nowhere.jpg")
    (root / "A/circle.jpg").symlink_to(root / "A/circle.jpg")
    (root / "A/inside.jpg").symlink_to(root / "B/1.jpg")
    (root / "C").symlink_to(outside / "secret")
    (root / "A/up").symlink_to(root)
    os.mkfifo(root / "A/pipe.jpg")
    assert [origin for _, _, origin in found(root)] == ["A/1.jpg", "A/inside.jpg", "B/1.jpg"]
    assert set(scan(root).ignored) == {
        "A/circle.jpg (a link to nothing)",
        "A/gone.jpg (a link to nothing)",
        "A/out.jpg (a link out of the folder)",
        "A/pipe.jpg (no regular file)",
        "A/up (a link to a folder)",
        "C (a link out of the folder)",
    }


@pytest.mark.parametrize(
    "name",
    [
        *("@eaDir", "#recycle", "@Recycle", "__MACOSX", "$RECYCLE.BIN", "lost+found", "@__thumb"),
        *("Thumbnails", "Config.Msi", "Photos Library.photoslibrary", "System Volume Information"),
        *("@sharebin", "@Transcode", "$Extend", "Recycle Bin", "WPSettings", "unheard of/1.jpg"),
    ],
)
def test_folders_of_systems_are_passed_over_and_said(tmp_path: Path, name: str) -> None:
    """Synology's @eaDir holds a folder of small copies for each photo."""
    plant(
        tmp_path, "Grace_Hopper/1.jpg", f"Grace_Hopper/{name}/1.jpg/THUMB_XL.jpg", f"{name}/B/1.jpg"
    )
    assert found(tmp_path) == [("Grace Hopper", (), "Grace_Hopper/1.jpg")]
    assert set(scan(tmp_path).ignored) == {
        f"{name} (a folder of the system)",
        f"Grace_Hopper/{name} (a folder of the system)",
    }


@pytest.mark.parametrize(
    "below", ["old photos", "Old Photos", "2019", "New folder", "raw/2020", "Paris", "Party 2"]
)
def test_what_is_below_a_persons_folder_is_theirs(tmp_path: Path, below: str) -> None:
    plant(tmp_path, "film/Grace_Hopper/1.jpg", f"film/Grace_Hopper/{below}/2.jpg", "film/Bo/1.jpg")
    contents = scan(tmp_path)
    assert {(one.person.name, one.person.categories) for one in contents.portraits} == {
        ("Grace Hopper", ("film",)),
        ("Bo", ("film",)),
    }
    assert len(contents.portraits) == 3
    assert contents.astray == []
    (note,) = contents.notes
    assert "taken as photos of Grace Hopper" in note


def test_what_is_too_deep_is_named(tmp_path: Path) -> None:
    plant(tmp_path, "Ann/1.jpg", f"Ann/{'a/' * 40}2.jpg")
    contents = scan(tmp_path)
    assert [one.origin for one in contents.portraits] == ["Ann/1.jpg"]
    assert contents.ignored == [f"Ann/{'a/' * 29}a (too deep)"]


def test_a_folder_of_nothing_but_old_photos_and_years_is_a_person(tmp_path: Path) -> None:
    folders = ("Grace_Hopper/old photos", "Grace_Hopper/2019", "film/Bo", "film/2019/Cy", "x/tom")
    plant(tmp_path, *(f"{name}/1.jpg" for name in folders))
    assert {name for name, _, _ in found(tmp_path)} == {"Grace Hopper", "Bo", "Cy", "tom"}


def test_photos_beside_folders_of_people_are_nobodys(tmp_path: Path) -> None:
    people = ("music/Cher/1.jpg", "music/Madonna/1.jpg", "film/Tom_Hanks/1.jpg")
    plant(
        tmp_path, *people, "music/a.jpg", "music/b.jpg", "music/c.jpg", "film/a.jpg", "film/b.jpg"
    )
    assert {name for name, _, _ in found(tmp_path)} == {"Cher", "Madonna", "Tom Hanks"}
    assert len(scan(tmp_path).astray) == 5


def test_photos_are_known_by_their_first_bytes(tmp_path: Path) -> None:
    starts = {
        "jpeg": b"\xff\xd8\xff\xe0",
        "photo.jpg_large": b"\xff\xd8\xff\xe1",
        "png": b"\x89PNG\r\n\x1a\n",
        "webp": b"RIFF\x00\x01\x02\x03WEBP",
        "gif": b"GIF89a",
        "heic": b"\x00\x00\x00\x18ftypheic",
        "avif": b"\x00\x00\x00\x18ftypavif",
        "DSC1.HIF": b"",
        "scan": b"II*\0\x08\0\0\0",
    }
    others = {
        "video.mp4": b"\x00\x00\x00\x18ftypisom",
        "scan.jp2": b"\x00\x00\x00\x0cjP  \r\n\x87\n",
        "photo.jxl": b"\xff\x0a",
        "empty": b"",
        "raw.nef": b"MM\0*\0\0\0\x08",
    }
    plant(tmp_path, "A/1.jpg")
    for name, content in (starts | others).items():
        (tmp_path / "A" / name).write_bytes(content)
    contents = scan(tmp_path)
    assert {one.origin for one in contents.portraits} == {"A/1.jpg", *(f"A/{n}" for n in starts)}
    assert {line.partition(" (")[0] for line in contents.ignored} == {f"A/{n}" for n in others}


def test_a_link_to_the_whole_folder_is_followed(tmp_path: Path) -> None:
    plant(tmp_path / "real", "A/1.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert found(tmp_path / "link") == [("A", (), "A/1.jpg")]


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("Grace_Hopper", "Grace Hopper"),
        ("Grace  Hopper_02", "Grace Hopper 02"),
        ("person_1", "person 1"),
        ("Blink_182", "Blink 182"),
        ("Grace Hopper (2)", "Grace Hopper (2)"),
        ("50_Cent", "50 Cent"),
        ("deadmau5", "deadmau5"),
        ("007", "007"),
        ("Zoe\u0308", "Zo\u00eb"),
        ("宮崎_駿", "宮崎 駿"),
        ("शाहरुख़_ख़ान", "शाहरुख़ ख़ान"),
        ("A_J_Buckley", "A J Buckley"),
        ("bad\udcff", "bad\ufffd"),
    ],
)
def test_a_folder_names_a_person(folder: str, name: str) -> None:
    import unicodedata

    assert person_name(folder) == unicodedata.normalize("NFC", name)


def test_spellings_of_one_name_are_one_person(tmp_path: Path) -> None:
    plant(tmp_path, "Tom_Hanks/1.jpg", "film/tom hanks/2.jpg")
    assert {one.person.key for one in scan(tmp_path).portraits} == {"name:tom hanks"}


def test_numbers_belong_to_names(tmp_path: Path) -> None:
    names = ("person_1", "person_2", "Apollo", "Apollo_13", "Henry_8", "Solo (3)", "Solo")
    plant(tmp_path, *(f"{name}/1.jpg" for name in names))
    assert {name for name, _, _ in found(tmp_path)} == {name.replace("_", " ") for name in names}
    assert scan(tmp_path).notes == []


def test_a_number_is_cut_off_where_the_faces_agree(tmp_path: Path) -> None:
    """The first photo of a folder may show nobody."""
    names = ("Ann_1", "Ann_2", "Ann_3", "Bob", "Bob (2)", "Cid_7", "person_1", "person_2")
    plant(tmp_path, *(f"{name}/1.jpg" for name in names), "Bob/2.jpg")
    asked = []

    def agree(one: FoundPortrait, other: FoundPortrait) -> bool:
        asked.append((one.person.name, other.person.name))
        return other.person.name == "Ann 2" or one.origin == "Bob/2.jpg"

    contents = scan(tmp_path, agree=agree)
    keys = {one.origin: one.person.key for one in contents.portraits}
    assert {keys[f"Ann_{number}/1.jpg"] for number in (1, 2)} == {"name:ann"}
    assert (keys["Ann_3/1.jpg"], keys["Bob (2)/1.jpg"]) == ("name:ann 3", "name:bob")
    assert (keys["Cid_7/1.jpg"], keys["person_2/1.jpg"]) == ("name:cid 7", "name:person 2")
    assert contents.notes == [
        f"{one} was taken for {one[:3]}" for one in ("Ann 1", "Ann 2", "Bob (2)")
    ]
    assert len(asked) == 5


def test_names_that_are_no_unicode_are_read(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/Bj\xf6rk"
    os.mkdir(folder)  # noqa: PTH102 - a name of bytes
    Path(os.fsdecode(folder) + "/1.jpg").write_bytes(b"x")
    ((name, _, origin),) = found(tmp_path)
    assert name == "Bj\ufffdrk"
    origin.encode()
    assert scan(tmp_path).portraits[0].read(10) == b"x"


@pytest.mark.parametrize(
    ("planted", "sentence"),
    [
        ([], "there are no photos"),
        (["A/readme.txt"], "there are no photos"),
        (["1.jpg", "2.jpg"], "give the one above"),
    ],
)
def test_a_folder_without_people_is_a_sentence(
    tmp_path: Path, planted: list[str], sentence: str
) -> None:
    plant(tmp_path, *planted)
    with pytest.raises(SetupProblem, match=sentence):
        scan(tmp_path)


def test_no_folder_is_a_sentence(tmp_path: Path) -> None:
    plant(tmp_path, "file.jpg")
    for wrong in ("nowhere", "file.jpg"):
        with pytest.raises(SetupProblem, match="there is no folder"):
            scan(tmp_path / wrong)


def test_a_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    plant(tmp_path, "A/1.jpg")
    (one,) = scan(tmp_path).portraits
    assert one.read(7) == b"A/1.jpg"
    with pytest.raises(TooLarge):
        one.read(6)
    (tmp_path / "A/1.jpg").unlink()
    with pytest.raises(FileNotFoundError):
        one.read(7)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_is_closed_is_named(tmp_path: Path) -> None:
    plant(tmp_path, "A/1.jpg", "B/1.jpg")
    (tmp_path / "B").chmod(0)
    try:
        assert scan(tmp_path).closed == ["B"]
    finally:
        (tmp_path / "B").chmod(0o700)
