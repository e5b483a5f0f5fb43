"""`lookalike gallery download`, killed at any moment as a power cut would, goes on where it was."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner
from wikimedia_server import Fact, Picture, Wiki, kept_pictures, playing

from bot.cli.main import lookalike
from gallery.gallery import Gallery

Variant = Callable[[int], bytes]

PEOPLE = 12
PATIENCE_S = 120.0
IN_FLIGHT = {"sparql": 1, "api": 3, "picture": 2}  # a kill loses answers to these at most


def famous(variant: Variant) -> Wiki:
    """People with one to three pictures each, and some who can't be taken."""
    wiki = Wiki(delay_s=0.03)
    for number in range(PEOPLE):
        title = f"Portrait {number}.jpg"
        category = f"Category {number}"
        wiki.facts.append(
            Fact(
                f"Q{number + 1}",
                f"Somebody {number}",
                200 - number,
                [title],
                ["Q33999"],
                commons=category,
            )
        )
        if number % 7:
            wiki.pictures[title] = Picture(variant(number))
        wiki.members[category] = [title]
        for more in range(number % 3):
            extra = f"Extra {number} {more}.jpg"
            wiki.pictures[extra] = Picture(variant(100 * (more + 1) + number))
            wiki.members[category].append(extra)
    return wiki


WORDS = ["gallery", "download", "--category", "film", "--limit", "10", "--model", "dlib"]


def settings(wiki: Wiki) -> dict[str, str]:
    return {
        "LOOKALIKE_GALLERY__CONTACT": "tests@example.org",
        "LOOKALIKE_GALLERY__WIKIDATA_URL": wiki.url,
        "LOOKALIKE_GALLERY__COMMONS_URL": wiki.url,
    }


def start(home: Path, wiki: Wiki) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bot", *WORDS, "--home", str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | settings(wiki),
        text=True,
    )


def finish(home: Path, wiki: Wiki) -> None:
    result = CliRunner(env=settings(wiki)).invoke(lookalike, [*WORDS, "--home", str(home)])
    assert result.exit_code == 0, result.output


def catalogue(home: Path) -> dict[str, tuple[str, str | None, str | None]]:
    """Whose every portrait is, by the hash of its original."""
    with Gallery.open(home / "gallery") as gallery:
        found = {
            portrait.sha256: (person.key, portrait.source_url, portrait.author)
            for person in gallery.people()
            for portrait in gallery.portraits(person.id)
        }
        (space,) = gallery.spaces()
        assert len(gallery.embedded(space)) == gallery.stats().portraits == len(found)
    return found


def home_of(folder: Path, starter_home: Path) -> Path:
    folder.mkdir()
    (folder / "cache").symlink_to(starter_home / "cache", target_is_directory=True)
    return folder


def test_kills_at_random_moments_cost_nothing_and_change_nothing(
    tmp_path: Path, starter_home: Path, variant: Variant
) -> None:
    undisturbed = home_of(tmp_path / "undisturbed", starter_home)
    with playing(famous(variant)) as wiki:
        finish(undisturbed, wiki)
        needed = Counter((what, question) for what, question, _ in wiki.requests)
        assert set(needed.values()) == {1}
    moments = random.Random()  # other moments in every run of the test
    killed_home = home_of(tmp_path / "killed", starter_home)
    with playing(famous(variant)) as wiki:
        kills = 0
        for part in (0.2, 0.5, 0.8):
            process = start(killed_home, wiki)
            wait_for(process, wiki, round(part * len(needed)))
            time.sleep(moments.uniform(0, 0.3))
            kills += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=PATIENCE_S)
        assert kills >= 1
        finish(killed_home, wiki)
        asked = Counter((what, question) for what, question, _ in wiki.requests)
        assert asked.keys() == needed.keys()
        for what, lost in IN_FLIGHT.items():
            again = sum(count - 1 for (kind, _), count in asked.items() if kind == what)
            assert again <= lost * kills, (what, again, kills)
    assert catalogue(killed_home) == catalogue(undisturbed)
    with Gallery.open(killed_home / "gallery") as gallery:
        assert not kept_pictures(gallery)


def wait_for(process: subprocess.Popen[str], wiki: Wiki, questions: int) -> None:
    """Until so many questions were asked in all."""
    deadline = time.monotonic() + PATIENCE_S
    while len(wiki.requests) < questions and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
