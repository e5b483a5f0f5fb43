"""`lookalike gallery verify`, used as a person would use it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from made_up_people import put_photo

from bot.cli.main import lookalike
from engine.errors import BadSettings
from gallery.gallery import Gallery


def run(home: Path, *arguments: str) -> Result:
    words = ["gallery", "verify", *arguments, "--home", str(home)]
    return CliRunner().invoke(lookalike, words)


@pytest.fixture
def damaged_home(own_home: Path) -> Path:
    """Grace Hopper's only picture is cut off; there is a leftover."""
    with Gallery.open(own_home / "gallery") as gallery:
        grace = gallery.find_person("Grace Hopper")
        assert grace is not None
        (portrait,) = gallery.portraits(grace.id)
        put_photo(gallery, portrait, gallery.thumbnail(portrait)[:300])
        stray = gallery.folder / "vectors" / "old-space" / "vectors-000001.f32"
        stray.parent.mkdir()
        stray.write_bytes(b"x")
        os.utime(stray, (1, 1))
    return own_home


def test_nothing_wrong_is_said_in_one_line(own_home: Path) -> None:
    result = run(own_home)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Nothing is wrong: 2 people, 2 portraits, ")
    assert len(result.stdout.splitlines()) == 1


def test_findings_say_whom_what_why_and_what_mending_does(damaged_home: Path) -> None:
    result = run(damaged_home)
    assert result.exit_code == 1
    said = result.stdout
    assert "unreadable picture: 1" in said
    assert "Grace Hopper: it can't be read" in said
    assert "https://commons.wikimedia.org/" in said
    assert "--fix: forget the portrait" in said
    assert "`lookalike gallery verify --fix` mends 2 of these." in said


def test_mending_says_what_was_done_and_leaves_nothing(damaged_home: Path) -> None:
    result = run(damaged_home, "--fix")
    assert result.exit_code == 0, result.output
    assert "Mended (3):" in result.stdout
    assert "Grace Hopper has no portrait" in result.stdout
    assert "Nothing is wrong: 1 person, 1 portrait" in result.stdout
    assert run(damaged_home, "--fix").stdout.count("\n") == 1


def test_json_holds_every_finding(damaged_home: Path) -> None:
    result = run(damaged_home, "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["model"] == "dlib"
    assert told["findings_by_kind"] == {"files of nobody": 1, "unreadable picture": 1}
    (picture,) = [one for one in told["findings"] if one["person"] == "Grace Hopper"]
    assert picture["picture"].startswith("https://commons.wikimedia.org/")
    assert picture["fix"].startswith("forget")
    fixed = json.loads(run(damaged_home, "--fix", "--json").stdout)
    assert (len(fixed["fixed"]), fixed["findings"]) == (3, [])


def test_pictures_can_be_looked_at(damaged_home: Path, tmp_path: Path) -> None:
    result = run(damaged_home, "--json", "--pictures", str(tmp_path / "look"))
    (picture,) = [one for one in json.loads(result.stdout)["findings"] if one["person"]]
    (path,) = (tmp_path / "look").iterdir()
    assert path.name == f"{picture['portrait_id']}.jpg"
    assert len(path.read_bytes()) == 300
    assert isinstance(run(damaged_home, "--pictures", "/proc/look").exception, BadSettings)


def test_a_model_that_the_gallery_lacks_is_a_setting_to_mend(own_home: Path) -> None:
    result = run(own_home, "--model", "resnet")
    assert result.exit_code != 0
    assert "not built for resnet" in str(result.exception)
