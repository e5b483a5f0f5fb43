"""`lookalike gallery download`, `credits` and `remove --never-again`, used as a person would."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image, ImageEnhance
from wikimedia_server import Fact, Picture, Wiki, playing

from bot.background import download_starter, starter_wanted
from bot.cli.main import lookalike, main
from bot.settings import Settings
from engine.errors import BadSettings, GalleryMissing, SourceDown

ACTOR, SINGER = "Q33999", "Q177220"


@pytest.fixture
def wiki(hopper_jpeg: bytes, collins_jpeg: bytes) -> Iterator[Wiki]:
    """Two people who can be taken and one who can't; one name is an attack."""
    served = Wiki(
        facts=[
            Fact("Q1", "Ann <b>Lee</b>", 90, ["A.jpg"], [ACTOR, SINGER], ["Q30"]),
            Fact("Q2", "Bo Katan", 80, ["B.jpg"], [ACTOR]),
            Fact("Q3", "Cy Ray", 70, ["C.jpg"], [ACTOR]),
        ],
        pictures={
            "A.jpg": Picture(hopper_jpeg, {"Artist": {"value": "<i>X</i> &lt;script&gt;"}}),
            "B.jpg": Picture(collins_jpeg, {"LicenseUrl": None}),
            "C.jpg": Picture(hopper_jpeg, {"LicenseShortName": {"value": "CC BY-NC 2.0"}}),
        },
    )
    with playing(served):
        yield served


@pytest.fixture
def home(tmp_path: Path, starter_home: Path, wiki: Wiki, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder without people, that knows the made-up servers."""
    monkeypatch.setenv("LOOKALIKE_GALLERY__WIKIDATA_URL", wiki.url)
    monkeypatch.setenv("LOOKALIKE_GALLERY__COMMONS_URL", f"{wiki.url}/w/api.php")
    monkeypatch.setenv("LOOKALIKE_GALLERY__CONTACT", "tests@example.org")
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "cache").symlink_to(starter_home / "cache", target_is_directory=True)
    return folder


def run(home: Path, *arguments: str | Path) -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(lookalike, ["gallery", *words, "--home", str(home)])


def told(home: Path, *arguments: str | Path) -> Any:
    result = run(home, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_download_tells_who_came_and_why_others_did_not(home: Path, wiki: Wiki) -> None:
    result = run(home, "download", "--category", "film", "--category", "music")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[:4] == [
        "people     2 of 3 people are in the gallery",
        "left out   1 person",
        "  no free picture: 1 (Cy Ray)",
        "added      2 portraits, 2 new people",
    ]
    asked = len(wiki.requests)
    again = told(home, "download", "--category", "film", "--category", "music")
    assert (again["people"], again["in_gallery"], again["added"]) == (3, 2, 0)
    assert again["left_out"] == [
        {"person": "Cy Ray", "wikidata_id": "Q3", "reason": "no free picture (CC BY-NC 2.0)"}
    ]
    assert len(wiki.requests) == asked
    assert told(home, "show", "Q1")["categories"] == ["film", "music"]


def test_limit_and_fame(home: Path) -> None:
    assert told(home, "download", "--category", "film", "--limit", "1")["people"] == 1
    assert told(home, "download", "--category", "film", "--min-fame", "75")["people"] == 2


def test_list_shows_the_table_without_asking_anybody(home: Path, wiki: Wiki) -> None:
    (home / "categories.toml").write_text('[chess]\noccupations = { c = "Q10873124" }\n')
    names = [one["category"] for one in told(home, "download", "--list")]
    assert {"film", "bollywood", "k-pop", "chess"} <= set(names)
    assert "Film actors of India" in run(home, "download", "--list").stdout
    assert wiki.requests == []


def test_an_unknown_category_is_answered_with_those_there_are(home: Path) -> None:
    result = run(home, "download", "--category", "curling")
    assert isinstance(result.exception, BadSettings)
    assert "bollywood" in str(result.exception)


def test_credits_name_every_picture(home: Path, tmp_path: Path) -> None:
    assert run(home, "credits").stdout == "There is nobody in the gallery yet.\n"
    run(home, "download", "--category", "film")
    ann, bo = told(home, "credits")
    assert (ann["author"], ann["license"]) == ("X <script>", "CC BY-SA 4.0")
    assert bo["license_url"] is None
    assert bo["source"] == "https://commons.wikimedia.org/wiki/File:B.jpg"
    assert run(home, "credits").stdout.splitlines()[1] == (
        "Bo Katan: A. Photographer, CC BY-SA 4.0, https://commons.wikimedia.org/wiki/File:B.jpg"
    )
    page = tmp_path / "credits.html"
    assert run(home, "credits", "--html", page).exit_code == 0
    reader = _Page()
    reader.feed(page.read_text(encoding="utf-8"))
    assert "script" not in reader.tags
    assert "b" not in reader.tags
    assert "Ann <b>Lee</b>" in reader.text
    assert reader.links.count("https://commons.wikimedia.org/wiki/File:B.jpg") == 1
    wrong = run(home, "credits", "--html", page / "x.html")
    assert isinstance(wrong.exception, BadSettings)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_never_again_keeps_a_person_away(home: Path) -> None:
    run(home, "download", "--category", "film")
    result = run(home, "remove", "Bo Katan", "--never-again")
    assert "No source will bring them back." in result.stdout
    report = told(home, "download", "--category", "film")
    assert {"person": "Bo Katan", "wikidata_id": "Q2", "reason": "removed, never again"} in (
        report["left_out"]
    )
    assert [one["name"] for one in told(home, "list")] == ["Ann <b>Lee</b>"]
    assert isinstance(run(home, "permit", "Nobody").exception, GalleryMissing)
    assert run(home, "permit", "bo", "katan").exit_code == 0
    assert told(home, "download", "--category", "film")["in_gallery"] == 2


def test_without_a_contact_the_setting_is_named(
    home: Path, wiki: Wiki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOOKALIKE_GALLERY__CONTACT")
    result = run(home, "download")
    assert isinstance(result.exception, BadSettings)
    assert "gallery.contact" in str(result.exception)
    assert wiki.requests == []


def test_a_person_at_a_terminal_is_asked_for_a_contact_once(
    home: Path, wiki: Wiki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOOKALIKE_GALLERY__CONTACT")
    keyboard, terminal = pty.openpty()
    os.write(keyboard, b"nobody\nme@example.org\n")
    command = [sys.executable, "-m", "bot", "gallery", "download", "--category", "film"]
    done = subprocess.run(
        [*command, "--home", home],
        stdin=terminal,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "gallery.contact should be" in done.stderr
    assert {agent.split("(")[1].split(")")[0] for agent in wiki.agents} == {"me@example.org"}
    os.close(keyboard)
    os.close(terminal)
    assert run(home, "download", "--category", "music").exit_code == 0


def test_without_a_network_there_is_one_sentence(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOOKALIKE_GALLERY__WIKIDATA_URL", "http://127.0.0.1:9/sparql")
    monkeypatch.setattr(sys, "argv", ["bot", "gallery", "download", "--home", str(home)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 75
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("lookalike: 127.0.0.1:9 can't be reached")
    assert "Traceback" not in said


def varied(original: bytes, number: int) -> bytes:
    image = Image.open(io.BytesIO(original)).convert("RGB")
    image = ImageEnhance.Brightness(image).enhance(0.8 + 0.01 * number)
    image.thumbnail((300, 300))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()


def test_a_download_that_is_interrupted_goes_on_and_asks_nothing_twice(
    home: Path, wiki: Wiki, hopper_jpeg: bytes
) -> None:
    """By Ctrl-C; gallery/wikimedia/test_download_killed.py shows the same of a kill."""
    wiki.facts = [Fact(f"Q{n}", f"P{n}", 300 - n, [f"P{n}.jpg"], [ACTOR]) for n in range(1, 13)]
    wiki.pictures = {f"P{n}.jpg": Picture(varied(hopper_jpeg, n)) for n in range(1, 13)}
    wiki.delay_s = 0.02
    command = [sys.executable, "-m", "bot", "gallery", "download", "--category", "film"]
    process = subprocess.Popen(
        [*command, "--home", home], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while len(wiki.asked("picture")) < 4 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    first = [(kind, question) for kind, question, _ in wiki.requests]
    report = told(home, "download", "--category", "film")
    assert report["in_gallery"] == 12
    every = [(kind, question) for kind, question, _ in wiki.requests]
    twice = {one for one in every if every.count(one) > 1}
    # What was on its way at the kill never arrived: at most one for each connection.
    assert twice <= set(first[-2:])


def test_the_starter_gallery_is_fetched_once(
    own_home: Path, wiki: Wiki, hopper_jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bot.app import open_engine, open_gallery

    monkeypatch.setenv("LOOKALIKE_GALLERY__WIKIDATA_URL", wiki.url)
    monkeypatch.setenv("LOOKALIKE_GALLERY__COMMONS_URL", wiki.url)
    wiki.pictures["A.jpg"] = Picture(varied(hopper_jpeg, 3))
    wiki.pictures["B.jpg"] = Picture(varied(hopper_jpeg, 5))
    settings = Settings(home=own_home)
    engine = open_engine(settings)
    with open_gallery(settings) as gallery:
        assert starter_wanted(gallery)
        with pytest.raises(BadSettings, match=r"gallery\.contact"):
            download_starter(gallery, engine, settings)
        monkeypatch.setenv("LOOKALIKE_GALLERY__CONTACT", "tests@example.org")
        settings = Settings(home=own_home)
        wiki.down_after = len(wiki.requests)
        with pytest.raises(SourceDown):
            download_starter(gallery, engine, settings)
        assert starter_wanted(gallery)
        wiki.down_after = None
        harvest = download_starter(gallery, engine, settings)
        assert harvest is not None
        assert harvest.there == 2
        assert len(gallery.people()) == 4
        ann = gallery.find_person("Q1")
        assert ann is not None
        assert ann.categories == ("film", "hollywood", "music")
        assert not starter_wanted(gallery)
        assert download_starter(gallery, engine, settings) is None
    assert threading.active_count() < 30
