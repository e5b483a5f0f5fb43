"""`lookalike gallery export`, `import`, `import-pickle` and `copy`, used as a person would."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from bot.cli.main import lookalike, main
from engine.errors import BadSettings, GalleryCorrupt, GalleryMissing, SetupProblem


def run(home: Path, *arguments: str | Path) -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(lookalike, ["gallery", *words, "--home", str(home)])


def told(home: Path, *arguments: str | Path) -> Any:
    result = run(home, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def new_home(tmp_path: Path, starter_home: Path) -> Path:
    """A data folder without people."""
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "cache").symlink_to(starter_home / "cache", target_is_directory=True)
    return folder


def test_a_gallery_moves_in_one_file(own_home: Path, new_home: Path, tmp_path: Path) -> None:
    file = tmp_path / "celebrities.lookalike"
    result = run(own_home, "export", file)
    assert result.exit_code == 0
    assert "2 people, 2 portraits" in result.stdout
    assert "pictures   2" in result.stdout
    assert f"{file}: 0.3 MB" in result.stdout
    result = run(new_home, "import", file)
    assert result.exit_code == 0
    assert "added      2 portraits, 2 new people" in result.stdout
    assert "dlib: 2 of 2 portraits searchable" in result.stdout
    names = [person["name"] for person in told(new_home, "list")]
    assert names == ["Eileen Collins", "Grace Hopper"]
    again = told(new_home, "import", file)
    assert (again["added"], again["unchanged"], again["interrupted"]) == (0, 2, False)


def test_without_photos_the_card_is_whole(
    own_home: Path, new_home: Path, tmp_path: Path, hopper_jpeg: bytes
) -> None:
    file = tmp_path / "names.lookalike"
    assert told(own_home, "export", file, "--no-photos")["photos"] == 0
    assert file.stat().st_size < 200_000
    result = run(new_home, "import", file)
    assert "no picture 2 portraits: people are found and named" in result.stdout
    (tmp_path / "me.jpg").write_bytes(hopper_jpeg)
    card = tmp_path / "card.jpg"
    words = ["match", str(tmp_path / "me.jpg"), "--model", "dlib", "--card", str(card)]
    answer = CliRunner().invoke(lookalike, [*words, "--home", str(new_home)])
    assert answer.exit_code == 0, answer.output
    assert "Grace Hopper" in answer.stdout
    assert "James S. Davis, U.S. Navy, public domain" in answer.stdout
    assert card.stat().st_size > 20_000
    built = told(new_home, "build", "--model", "dlib")
    assert built["dlib"]["dropped"] == []
    shown = told(new_home, "show", "Grace Hopper")
    assert shown["portraits"][0]["source"].startswith("https://commons.wikimedia.org/")
    checked = run(new_home, "verify")
    assert checked.exit_code == 0, checked.output


def test_export_says_what_is_in_the_way(own_home: Path, new_home: Path, tmp_path: Path) -> None:
    file = tmp_path / "celebrities.lookalike"
    file.write_text("mine")
    assert isinstance(run(own_home, "export", file).exception, BadSettings)
    assert file.read_text() == "mine"
    assert run(own_home, "export", file, "--force").exit_code == 0
    assert file.read_bytes().startswith(b"SQLite")
    empty = run(new_home, "export", tmp_path / "x.lookalike")
    assert isinstance(empty.exception, GalleryMissing)
    assert not (tmp_path / "x.lookalike").exists()


def test_import_refuses_what_is_no_gallery(new_home: Path, tmp_path: Path) -> None:
    (tmp_path / "x.lookalike").write_bytes(b"PK nothing")
    assert isinstance(run(new_home, "import", tmp_path / "x.lookalike").exception, GalleryCorrupt)
    assert isinstance(run(new_home, "import", tmp_path / "none.lookalike").exception, SetupProblem)


def test_a_space_of_other_weights_is_told(own_home: Path, new_home: Path, tmp_path: Path) -> None:
    from engine.types import Space
    from gallery.gallery import Gallery

    foreign = Space("dlib", "ef" * 32, 2, 128)
    unknown = Space("senet", "ef" * 32, 1, 2048)
    with Gallery.open(own_home / "gallery") as gallery:
        ids = gallery.portrait_ids().tolist()
        with gallery.writing(), gallery.transaction() as changes:
            changes.remove_space(gallery.spaces()[0])
            for space in (foreign, unknown):
                vectors = np.full((2, space.dimensions), space.dimensions**-0.5, np.float32)
                changes.add_vectors(space, vectors, ids)
    run(own_home, "export", tmp_path / "foreign.lookalike")
    result = run(new_home, "import", tmp_path / "foreign.lookalike")
    assert "dlib: 0 of 2 portraits searchable; `lookalike gallery build --model dlib`" in (
        result.stdout
    )
    assert "2 vectors of other weights or of another version than this machine's" in result.stdout
    assert "senet: 2 vectors, no weights: `lookalike models download senet`" in result.stdout
    assert told(new_home, "build", "--model", "dlib")["dlib"]["embedded"] == {"dlib": 2}


def test_copy_takes_folders_of_either_kind(own_home: Path, tmp_path: Path) -> None:
    result = run(own_home, "copy", own_home, tmp_path / "b")
    assert result.exit_code == 0, result.output
    assert "added      2 portraits, 2 new people" in result.stdout
    assert (tmp_path / "b" / "gallery" / "gallery.db").is_file()
    assert told(own_home, "copy", tmp_path / "b" / "gallery", tmp_path / "b2")["added"] == 2
    assert told(own_home, "copy", tmp_path / "b2", tmp_path / "b")["unchanged"] == 2
    assert told(own_home, "copy", own_home / "gallery", tmp_path / "c" / "gallery")["added"] == 2
    assert (tmp_path / "c" / "gallery" / "gallery.db").is_file()
    nowhere = run(own_home, "copy", tmp_path / "nowhere", tmp_path / "d")
    assert isinstance(nowhere.exception, GalleryMissing)
    assert not (tmp_path / "nowhere").exists()
    assert isinstance(run(own_home, "copy", own_home, own_home).exception, BadSettings)


def old_app(folder: Path, paths: list[str]) -> tuple[Path, Path]:
    """What the older web app left: a vector of ResNet-50 and a path for every photo."""
    rng = np.random.default_rng(0)
    vectors = [rng.random(2048, dtype=np.float32) * 5 for _ in paths]
    files = folder / "embedding.pkl", folder / "filenames.pkl"
    for file, content in zip(files, (vectors, paths), strict=True):
        with file.open("wb") as opened:
            pickle.dump(content, opened)
    return files


def test_the_older_app_s_people_come_with_their_photos(
    new_home: Path, tmp_path: Path, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    site = tmp_path / "site"
    for name, jpeg in (("Grace_Hopper", hopper_jpeg), ("Eileen_Collins", collins_jpeg)):
        (site / "data" / "science" / name).mkdir(parents=True)
        (site / "data" / "science" / name / f"{name}.1.jpg").write_bytes(jpeg)
    files = old_app(
        site,
        [
            "data\\science\\Grace_Hopper\\Grace_Hopper.1.jpg",
            "data/science/Eileen_Collins/Eileen_Collins.1.jpg",
            "data/film/Aamir_Khan/Aamir_Khan.1.jpg",
            "data/film/Aamir_Khan/Aamir_Khan.2.jpg",
            "strays.jpg",
            "../../../etc/passwd",
        ],
    )
    result = run(new_home, "import-pickle", *files, "--model", "dlib")
    assert result.exit_code == 0, result.output
    words = result.stdout
    assert "read       6 entries of 3 people, vectors of 2,048 numbers" in words
    assert "vectors    not taken: another crop made them" in words
    assert "photos     2 found, embedded anew:" in words
    assert "added      2 portraits, 2 new people" in words
    assert "no person  2 paths" in words
    assert "no photo   2 entries" in words
    assert "name only  1 person (Aamir Khan)" in words
    people = {person["name"]: person for person in told(new_home, "list")}
    assert {name: one["portraits"] for name, one in people.items()} == {
        "Aamir Khan": 0,
        "Eileen Collins": 1,
        "Grace Hopper": 1,
    }
    assert people["Grace Hopper"]["categories"] == ["science"]
    stats = told(new_home, "stats")
    assert [space["model"] for space in stats["vectors"].values()] == ["dlib"]


def test_photos_may_be_elsewhere_and_come_later(
    new_home: Path, tmp_path: Path, hopper_jpeg: bytes
) -> None:
    (tmp_path / "old").mkdir()
    files = old_app(tmp_path / "old", ["C:\\Users\\me\\app\\data\\Grace_Hopper\\1.jpg"])
    first = told(new_home, "import-pickle", *files, "--model", "dlib")
    assert (first["photos_found"], first["photos_missing"], first["added"]) == (0, 1, 0)
    assert first["names_only"] == ["Grace Hopper"]
    match = CliRunner().invoke(
        lookalike, ["match", str(files[0]), "--model", "dlib", "--home", str(new_home)]
    )
    assert match.exit_code == 1  # no picture; and nobody is compared with what the file holds
    photos = tmp_path / "photos" / "Grace_Hopper"
    photos.mkdir(parents=True)
    (photos / "1.jpg").write_bytes(hopper_jpeg)
    second = told(
        new_home, "import-pickle", *files, "--photos", tmp_path / "photos", "--model", "dlib"
    )
    assert (second["photos_found"], second["added"], second["people_added"]) == (1, 1, 0)
    assert second["names_only"] == []
    third = told(
        new_home, "import-pickle", *files, "--photos", tmp_path / "photos", "--model", "dlib"
    )
    assert (third["added"], third["unchanged"]) == (0, 1)


def test_nothing_outside_the_folder_is_read(
    new_home: Path, tmp_path: Path, hopper_jpeg: bytes
) -> None:
    secret = tmp_path / "secret" / "Grace_Hopper"
    secret.mkdir(parents=True)
    (secret / "1.jpg").write_bytes(hopper_jpeg)
    site = tmp_path / "site"
    (site / "data").mkdir(parents=True)
    (site / "data" / "Grace_Hopper").symlink_to(secret)
    paths = [
        str(secret / "1.jpg"),
        "../secret/Grace_Hopper/1.jpg",
        "data/../../secret/Grace_Hopper/1.jpg",
        "data/Grace_Hopper/1.jpg",
        f"data/{'x' * 300}/1.jpg",
        "data/a\x00b/1.jpg",
        "data/\ud800/1.jpg",
    ]
    report = told(new_home, "import-pickle", *old_app(site, paths), "--model", "dlib")
    assert (report["photos_found"], report["added"]) == (0, 0)


def test_files_that_don_t_belong_together(new_home: Path, tmp_path: Path) -> None:
    vectors, paths = old_app(tmp_path, ["data/A/1.jpg", "data/B/1.jpg"])
    paths.write_bytes(pickle.dumps(["data/A/1.jpg"]))
    refused = run(new_home, "import-pickle", vectors, paths, "--model", "dlib")
    assert isinstance(refused.exception, SetupProblem)
    assert "2 vectors" in str(refused.exception)
    refused = run(new_home, "import-pickle", paths, vectors, "--model", "dlib")
    assert "is not a list of vectors" in str(refused.exception)
    assert told(new_home, "stats")["people"] == 0


def test_a_malicious_pickle_does_nothing_but_an_error(
    new_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    vectors, paths = old_app(tmp_path, ["data/A/1.jpg"])
    vectors.write_bytes(pickle.dumps([Evil()]))
    words = ["gallery", "import-pickle", str(vectors), str(paths), "--home", str(new_home)]
    monkeypatch.setattr(sys, "argv", ["bot", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 78
    said = capsys.readouterr().err
    assert said.startswith("lookalike: ")
    assert "nothing in it was run" in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "ran").exists()


def test_ctrl_c_leaves_no_half_file(own_home: Path, tmp_path: Path) -> None:
    """A gallery large enough that the signal arrives in the middle."""
    from engine.types import Box
    from gallery.gallery import Gallery
    from gallery.records import Credit, FoundPerson, Thumbnail

    person = FoundPerson("name:x", "X")
    with (
        Gallery.open(own_home / "gallery") as gallery,
        gallery.writing(),
        gallery.transaction() as changes,
    ):
        owner = changes.add_person(person)
        for number in range(3000):
            changes.add_portrait(
                owner,
                Credit(),
                f"{number:064x}",
                Thumbnail(bytes(30_000), 9, 9, np.ones((5, 2), np.float32), Box(1, 1, 5, 5)),
            )
    folder = tmp_path / "out"
    folder.mkdir()
    command = ["gallery", "export", str(folder / "x.lookalike"), "--home", str(own_home)]
    process = subprocess.Popen([sys.executable, "-m", "bot", *command], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in folder.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Interrupted" in said
    assert list(folder.iterdir()) == []


def test_an_empty_gallery_is_not_copied(new_home: Path, tmp_path: Path) -> None:
    assert told(new_home, "stats")["people"] == 0
    result = run(new_home, "copy", new_home, tmp_path / "b")
    assert isinstance(result.exception, GalleryMissing)
    assert "there is nobody" in str(result.exception)
