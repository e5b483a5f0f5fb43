"""`lookalike gallery`, used as a person would use it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from homes import copy_home

from bot.cli.main import lookalike, main
from bot.cli.output import lines
from engine.errors import Busy, GalleryMissing, SetupProblem
from gallery.gallery import Gallery


def run(home: Path, *arguments: str | Path, answer: str | None = None) -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(lookalike, ["gallery", *words, "--home", str(home)], input=answer)


def told(home: Path, *arguments: str | Path) -> Any:
    """What a command that goes well prints as JSON."""
    result = run(home, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def people(tmp_path: Path, hopper_jpeg: bytes, collins_jpeg: bytes) -> Path:
    root = tmp_path / "my people ✓"
    for path, content in {
        "Grace_Hopper/portrait.jpg": hopper_jpeg,
        "宮崎_駿/1.jpg": collins_jpeg,
        "宮崎_駿/broken.jpg": b"nothing",
        "宮崎_駿/Thumbs.db": b"x",
        "loose.jpg": hopper_jpeg,
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


@pytest.fixture
def home(tmp_path: Path, starter_home: Path) -> Path:
    """A data folder without people; networks are compiled already."""
    folder = tmp_path / "data of mine"
    folder.mkdir()
    (folder / "cache").symlink_to(starter_home / "cache", target_is_directory=True)
    return folder


def test_add_tells_what_it_took_and_why_it_left_the_rest(home: Path, people: Path) -> None:
    result = run(home, "add", people, "--category", "Pioneers", "--model", "dlib")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "added      2 portraits, 2 new people"
    assert lines[1:4] == ["not taken  1 photo", "  unreadable: 1", "    宮崎_駿/broken.jpg"]
    assert lines[4] == "in nobody's folder: loose.jpg"
    assert lines[5].startswith("passed over: 宮崎_駿/Thumbs.db (")
    assert lines[6].endswith("models: dlib")
    again = run(home, "add", people, "--model", "dlib").stdout.splitlines()
    assert again[:2] == ["added      0 portraits", "unchanged  2 portraits"]
    credited = run(home, "credits").stdout
    assert credited == "Nothing is known of 2 pictures: Grace Hopper, 宮崎 駿\n"


def test_what_is_passed_over_begins_with_what_people_may_miss(home: Path, people: Path) -> None:
    for number in range(9):
        (people / f"Grace_Hopper/.hidden{number}").touch()
    (people / "Grace_Hopper/scan.jp2").touch()
    assert (
        "passed over: Grace_Hopper/scan.jp2 (not a kind of photo" in run(home, "add", people).output
    )


IN_TURN = """
import contextlib, sys
from bot.cli.main import main
_, home, *commands = sys.argv
for number, command in enumerate(commands):
    if number:
        print("====", flush=True)
    sys.argv = ["lookalike", *command.split(), "--home", home]
    with contextlib.suppress(SystemExit):
        main()
"""


def test_a_data_folder_may_have_any_name(
    tmp_path: Path, starter_home: Path, hopper_jpeg: bytes
) -> None:
    """Its name is no UTF-8, and the terminal knows ASCII only."""
    home = copy_home(starter_home, tmp_path / os.fsdecode(b"daten \xff"))
    (home / "1.jpg").write_bytes(hopper_jpeg)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    told = {
        "db upgrade": "lookalike.db is up to date",
        "doctor": "lookalike.db",
        "gallery stats": "2 people",
        "match 1.jpg": "Grace Hopper",
        "chat": "? dlib: dlib face ResNet",
    }
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN, home, *told],
        env=environment,
        cwd=home,
        input=b"/about\n",
        capture_output=True,
        check=False,
        timeout=90,
    )
    answers = done.stdout.decode("ascii").split("====\n")
    for wanted, answer in zip(told.values(), answers, strict=True):
        assert wanted in answer, done.stderr


def test_add_as_json(home: Path, people: Path) -> None:
    report = told(home, "add", people, "--model", "dlib")
    assert (report["added"], report["unchanged"], report["people_added"]) == (2, 0, 2)
    assert report["rejected"] == [
        {"photo": "宮崎_駿/broken.jpg", "person": "宮崎 駿", "reason": "unreadable"}
    ]
    assert report["rejected_by_reason"] == {"unreadable": 1}
    assert report["astray"] == ["loose.jpg"]
    assert report["models"] == ["dlib"]
    assert report["photos_per_s"] > 0


def test_add_takes_every_backbone_that_is_ready(home: Path, people: Path) -> None:
    assert told(home, "add", people)["models"] == ["dlib"]


def test_list_show_stats_and_remove(own_home: Path) -> None:
    assert [one["name"] for one in told(own_home, "list")] == ["Eileen Collins", "Grace Hopper"]
    listed = run(own_home, "list").stdout
    assert "Grace Hopper" in listed
    assert listed.splitlines()[-1] == "2 people"
    shown = told(own_home, "show", "grace", "hopper")
    (portrait,) = shown["portraits"]
    assert portrait["license"]
    assert portrait["source"].startswith("https://commons.wikimedia.org/")
    words = run(own_home, "show", "Grace Hopper").stdout
    assert words.startswith("Grace Hopper\n")
    assert portrait["source"] in words
    assert f"{portrait['width']} x {portrait['height']}" in words
    assert portrait["license"] in words
    counted = told(own_home, "stats")
    assert (counted["people"], counted["portraits"]) == (2, 2)
    assert [vectors["portraits"] for vectors in counted["vectors"].values()] == [2]
    assert "searchable with dlib: 2 portraits" in run(own_home, "stats").stdout
    removed = run(own_home, "remove", "Grace", "Hopper")
    assert removed.stdout == "Removed Grace Hopper and 1 portrait.\n"
    assert [one["name"] for one in told(own_home, "list")] == ["Eileen Collins"]
    assert told(own_home, "remove", "Eileen Collins", "--yes")["portraits"] == 1
    assert run(own_home, "list").stdout.startswith("There is nobody in the gallery yet")


def test_list_by_category(own_home: Path) -> None:
    (name, *_) = told(own_home, "stats")["categories"]
    assert told(own_home, "list", "--category", name.upper())
    result = run(own_home, "list", "--category", "curling")
    assert isinstance(result.exception, GalleryMissing)
    assert name in str(result.exception)


def test_an_unknown_person_is_answered_with_names_like_it(own_home: Path) -> None:
    for command in ("show", "remove"):
        result = run(own_home, command, "hoper")
        assert isinstance(result.exception, GalleryMissing)
        assert str(result.exception) == (
            "nobody called 'hoper' is in the gallery; did you mean Grace Hopper?"
        )


def test_build_says_what_it_did(own_home: Path) -> None:
    assert run(own_home, "build", "--model", "dlib").stdout.startswith(
        "dlib: every portrait has its vector"
    )
    run(own_home, "remove", "Grace Hopper")
    report = told(own_home, "build")["dlib"]
    assert report["swept"] > 0


def test_build_refuses_an_empty_gallery(home: Path) -> None:
    assert isinstance(run(home, "build").exception, GalleryMissing)


def test_a_backbone_that_is_not_here_says_how_to_get_it(own_home: Path) -> None:
    result = run(own_home, "build", "--model", "resnet")
    assert isinstance(result.exception, SetupProblem)
    assert "lookalike models download resnet" in str(result.exception)


def test_another_process_that_writes_is_waited_for(own_home: Path) -> None:
    with Gallery.open(own_home / "gallery") as other, other.writing():
        result = run(own_home, "remove", "Grace Hopper")
    assert isinstance(result.exception, Busy)
    assert told(own_home, "stats")["people"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["add", "nowhere"], 78, "there is no folder nowhere"),
        (["add", "empty"], 78, "there are no photos in empty"),
        (["add"], 2, "Missing argument"),
        (["show", "Nobody At All"], 78, "nobody called 'Nobody At All'"),
        (["list", "--home", "file/below"], 78, "--home"),
        (["frobnicate"], 2, "No such command"),
    ],
)
def test_mistakes_end_in_a_sentence_and_an_exit_code(
    tmp_path: Path,
    arguments: list[str],
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("in the way")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "argv", ["lookalike", "gallery", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr()
    assert stop.value.code == code, said.err
    assert words in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


def test_a_home_that_is_read_only_can_be_read(own_home: Path) -> None:
    folders = [own_home, *(path for path in own_home.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        if os.access(own_home, os.W_OK) and shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere")
        counted = _without_privileges(own_home, "stats", "--json")
        removed = _without_privileges(own_home, "remove", "Grace Hopper")
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert json.loads(counted.stdout)["people"] == 2
    assert removed.returncode == 78
    assert "can't be written" in removed.stderr


def _without_privileges(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    capabilities = "-dac_override,-dac_read_search"
    ordinary = [f"--bounding-set={capabilities}", f"--inh-caps={capabilities}"]
    prefix = ["setpriv", *ordinary] if os.geteuid() == 0 else []
    return subprocess.run(
        [*prefix, sys.executable, "-m", "bot", "gallery", *arguments, "--home", home],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_terminal_shows_a_bar(home: Path, people: Path) -> None:
    terminal, stderr = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "bot", "gallery", "add", people, "--home", home, "--model", "dlib"],
        stdout=subprocess.PIPE,
        stderr=stderr,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
        text=True,
    )
    os.close(stderr)
    shown = b""
    with contextlib.suppress(OSError), os.fdopen(terminal, "rb", 0) as screen:
        while piece := screen.read(4096):  # the terminal of a process that has ended is an error
            shown += piece
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert printed.startswith("added      2 portraits")
    assert b"photos" in shown
    assert b"3/3" in shown
    assert "━".encode() in shown


def test_elsewhere_a_line_is_said_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = itertools.count(100, 0.125)
    show = lines(clock=lambda: next(now))
    for done in range(1, 3001):
        show("photos", done, 3000)
    show("dlib", 1, None)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 38
    assert said[0] == "photos: 81 of 3,000, 8 a second, 6:05 left"
    assert said[-1] == "photos: 3,000 of 3,000, 8 a second, 0:00 left"
