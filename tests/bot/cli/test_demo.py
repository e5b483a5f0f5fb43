"""`lookalike demo` from an empty folder to the card, as a newcomer runs it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from bot.cli.main import lookalike


def run(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(lookalike, ["--home", str(home), "demo", *arguments])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "home"


@pytest.fixture(scope="module")
def first(home: Path) -> Result:
    """Without what only extras bring."""
    with pytest.MonkeyPatch.context() as plain:
        for extra in (
            "aiohttp",
            "av",
            "cryptography",
            "discord",
            "matplotlib",
            "nicegui",
            "prometheus_client",
            "psycopg",
            "sklearn",
            "telegram",
            "tensorflow",
        ):
            plain.setitem(sys.modules, extra, None)
        result = run(home)
    assert result.exit_code == 0, result.output
    return result


def test_demo_says_who_how_much_and_where(home: Path, first: Result) -> None:
    """Nobody is found in her own portrait, two strangers are called so; the card's full path."""
    assert "Sample photo: Eileen Collins" in first.output
    assert "The only one to compare with: Grace Hopper" in first.output
    (score,) = (line for line in first.output.splitlines() if " ▰" in line)
    assert int(score.split()[0]) < 45
    assert "are strangers" in first.output
    assert "gallery download --limit 200" in first.output
    assert "public domain" in first.output
    assert f"picture: {home / 'answer.jpg'}" in first.output
    assert str(home / "sample.jpg") in first.output


def test_demo_leaves_a_card_and_the_sample(home: Path, first: Result) -> None:
    assert first.exit_code == 0
    with Image.open(home / "answer.jpg") as card:
        assert (card.format, card.width) == ("JPEG", 1080)
    with Image.open(home / "sample.jpg") as sample:
        assert sample.format == "JPEG"
    assert (home / "answer.jpg").stat().st_size <= 250_000


def test_demo_may_be_run_again_and_elsewhere(home: Path, first: Result, tmp_path: Path) -> None:
    """A second run finds its gallery and gives the same answer, in a folder that it makes."""
    out = tmp_path / "new folder" / "карта.jpg"
    again = run(home, "--out", str(out))
    assert again.exit_code == 0, again.output
    assert str(out) in again.output
    assert out.read_bytes() == (home / "answer.jpg").read_bytes()
    answers = [
        [line for line in result.output.splitlines() if " ▰" in line] for result in (first, again)
    ]
    assert answers[0] == answers[1]


def test_a_place_that_cannot_be_written_is_named(home: Path, first: Result) -> None:
    assert first.exit_code == 0
    result = run(home, "--out", str(home / "sample.jpg" / "card.jpg"))
    assert result.exit_code == 1
    assert "card.jpg" in result.output
