"""`lookalike run` on a fresh machine: real processes, with a terminal and without."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from talking import Person
from variants import variants_of
from wikimedia_server import Fact, Picture, Wiki, playing

from bot.app import open_conversation
from bot.background import BACKGROUND, contact_of
from bot.cli import main
from bot.settings import Settings
from bot.values import Sender
from gallery.gallery import Gallery

PATIENCE_S = 90.0
OCCUPATIONS = ("Q33999", "Q177220", "Q82955", "Q937857", "Q901", "Q36180")


@pytest.fixture
def wiki(hopper_jpeg: bytes, collins_jpeg: bytes) -> Iterator[Wiki]:
    """Twelve famous people of six kinds."""
    served = Wiki()
    variant = variants_of(hopper_jpeg, collins_jpeg)
    for number in range(12):
        title = f"Portrait {number}.jpg"
        served.facts.append(
            Fact(f"Q{number + 1}", f"Somebody {number}", 90, [title], [OCCUPATIONS[number % 6]])
        )
        served.pictures[title] = Picture(variant(number))
    with playing(served):
        yield served


class Terminal:
    """A terminal with `lookalike run` in it."""

    def __init__(self, home: Path, wiki: Wiki) -> None:
        self.screen, inside = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bot", "run", "--home", home],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env=environment(wiki),
            start_new_session=True,
        )
        os.close(inside)
        self.shown = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the terminal of a process that has ended
            while piece := os.read(self.screen, 4096):
                self.shown += piece.decode(errors="replace")

    def types(self, line: str) -> None:
        os.write(self.screen, f"{line}\n".encode())

    def sees(self, words: str) -> bool:
        return words in " ".join(self.shown.split())

    def leaves(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        os.close(self.screen)
        return code


@contextlib.contextmanager
def terminal(home: Path, wiki: Wiki) -> Iterator[Terminal]:
    opened = Terminal(home, wiki)
    try:
        yield opened
    finally:
        if opened.process.poll() is None:
            opened.process.kill()
            opened.process.wait()


def environment(wiki: Wiki) -> dict[str, str]:
    return os.environ | {
        "LOOKALIKE_GALLERY__WIKIDATA_URL": wiki.url,
        "LOOKALIKE_GALLERY__COMMONS_URL": wiki.url,
        "LOOKALIKE_MODELS__FETCH": "false",
        "LOOKALIKE_WEB__PORT": "0",
        "TERM": "xterm",
        "COLUMNS": "200",
    }


def wait_until(holds: Callable[[], bool], why: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, why()
        time.sleep(0.1)


def people(home: Path) -> set[str]:
    if not (home / "gallery" / "gallery.db").exists():
        return set()
    with Gallery.open(home / "gallery") as gallery:
        return {person.name for person in gallery.people()}


@pytest.fixture
def fresh_home(tmp_path: Path, starter_home: Path) -> Path:
    """A data folder with compiled networks and nobody in it."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "cache").symlink_to(starter_home / "cache", target_is_directory=True)
    return home


def is_asked(home: Path) -> bool:
    """Whether the next start at a terminal would ask."""
    keyboard, inside = pty.openpty()
    try:
        with os.fdopen(inside) as stdin, pytest.MonkeyPatch.context() as patch:
            questions: list[object] = []
            patch.setattr(sys, "stdin", stdin)
            patch.setattr(main, "ask_for_contact", lambda *asked: questions.append(asked) or True)
            context = main.Context()
            context.home = home
            main._prepare_to_run(context)
    finally:
        os.close(keyboard)
    return bool(questions)


def test_one_typed_answer_brings_the_starter_gallery(fresh_home: Path, wiki: Wiki) -> None:
    with terminal(fresh_home, wiki) as opened:
        wait_until(lambda: opened.sees("e-mail address or web page"), lambda: opened.shown)
        opened.types("nobody")  # neither
        wait_until(lambda: opened.sees("should be an e-mail address"), lambda: opened.shown)
        opened.types("op@example.org")
        wanted = {fact.name for fact in wiki.facts}
        wait_until(lambda: wanted <= people(fresh_home), lambda: opened.shown)
        wait_until(lambda: opened.sees("starter gallery downloaded"), lambda: opened.shown)
        assert opened.leaves() == 0
    assert {"(op@example.org)" in agent for agent in wiki.agents} == {True}
    with Gallery.open(fresh_home / "gallery") as gallery:
        assert contact_of(Settings(home=fresh_home), gallery) == "op@example.org"
    assert not is_asked(fresh_home)


def test_who_does_not_want_to_is_asked_once(fresh_home: Path, wiki: Wiki) -> None:
    with terminal(fresh_home, wiki) as opened:
        wait_until(lambda: opened.sees("Enter: don't fetch"), lambda: opened.shown)
        opened.types("")
        wait_until(lambda: opened.sees("gallery.contact"), lambda: opened.shown)
        assert opened.leaves() == 0
    assert not is_asked(fresh_home)
    assert wiki.requests == []


def test_without_a_terminal_one_sentence_says_what_to_set(fresh_home: Path, wiki: Wiki) -> None:
    log = fresh_home.parent / "log.txt"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "bot", "run", "--home", fresh_home],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment(wiki),
        )
    try:
        wait_until(lambda: "gallery.contact" in log.read_text(), log.read_text)
        wait_until(lambda: "serving" in log.read_text(), log.read_text)
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
    assert "LOOKALIKE_GALLERY__CONTACT" in log.read_text()
    assert wiki.requests == []
    assert is_asked(fresh_home)


async def test_answers_say_that_the_gallery_is_growing_until_it_has_grown(
    own_home: Path, wiki: Wiki, collins_jpeg: bytes
) -> None:
    """In the asker's language."""
    languages = {"en": "still growing", "es": "creciendo", "hi": "बढ़", "ru": "пополняется"}
    wiki.delay_s = PATIENCE_S  # all four have asked before everybody is there
    settings = Settings.model_validate(
        {
            "home": own_home,
            "default_model": "dlib",
            "models": {"configured": ("dlib",), "fetch": False},
            "queue": {"photos_per_minute": 1000},
            "gallery": {
                "contact": "op@example.org",
                "wikidata_url": wiki.url,
                "commons_url": wiki.url,
            },
        }
    )
    wanted = {fact.name for fact in wiki.facts}
    async with open_conversation(settings, fills_gallery=True) as conversation:
        for language, words in languages.items():
            somebody = Person(conversation, Sender("web", language, "1", language=language))
            first = (await somebody.says("", collins_jpeg)).text or ""
            assert words in first
            assert "200" in first
        deadline = time.monotonic() + PATIENCE_S
        wiki.release.set()
        while words in (last := (await somebody.says("", collins_jpeg)).text or ""):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
        assert "Collins" in last
        assert wanted <= people(own_home)


async def test_the_end_does_not_wait_for_a_server_that_says_nothing(
    fresh_home: Path, wiki: Wiki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.app.STOP_S", 0.0)
    wiki.delay_s = PATIENCE_S
    source = {"contact": "op@example.org", "wikidata_url": wiki.url, "commons_url": wiki.url}
    settings = Settings.model_validate(
        {"home": fresh_home, "gallery": source, "models": {"fetch": False}}
    )
    async with open_conversation(settings, fills_gallery=True), asyncio.timeout(PATIENCE_S):
        while not wiki.requests:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.05)
    left = [one for one in threading.enumerate() if one.name == BACKGROUND]
    assert left
    wiki.release.set()
    for thread in left:
        await asyncio.to_thread(thread.join, PATIENCE_S)
        assert not thread.is_alive()
    assert len(people(fresh_home)) == 2  # those that everybody has


async def test_a_chat_answers_from_who_is_there_while_the_first_people_are_added(
    fresh_home: Path, tmp_path: Path, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """It is opened before anybody is there; the other process never ends, nor goes on."""
    variant = variants_of(hopper_jpeg, collins_jpeg)
    for number in range(24):
        photo = tmp_path / "people" / f"Somebody {number % 2}" / f"{number}.jpg"
        photo.parent.mkdir(parents=True, exist_ok=True)
        photo.write_bytes(variant(number))
    smaller = "from gallery import add; add._BATCH_FRESH = 8"
    code = f"{smaller}; from bot.cli.main import main; main()"
    command = [sys.executable, "-c", code, "gallery", "add", tmp_path / "people"]
    adding = await asyncio.create_subprocess_exec(*command, "--home", fresh_home)
    try:
        wait_until((fresh_home / "gallery" / "gallery.lock").exists, lambda: "no lock")
        settings = Settings(home=fresh_home, models={"fetch": False})
        async with open_conversation(settings) as conversation:
            person = Person(conversation, Sender("web", "1", "1", "en"))
            assert "No model" not in (await person.says("", hopper_jpeg)).text
            wait_until(lambda: bool(people(fresh_home)), lambda: "nobody came")
            adding.send_signal(signal.SIGSTOP)
            async with asyncio.timeout(PATIENCE_S):
                while not (await person.says("", hopper_jpeg)).picture:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
            assert adding.returncode is None
    finally:
        adding.kill()
        await adding.wait()
