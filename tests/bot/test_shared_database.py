"""Several bots, and the commands beside them, on one PostgreSQL server."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import click.testing
import pytest
from postgres_server import LOCKED_PASSWORD, PostgresServer, name_of
from talking import Person, chatting

from bot.cli.main import EXIT_SETUP, lookalike
from bot.settings import load_settings, secrets_of
from bot.values import Sender
from engine.errors import BadSettings, TryLater
from gallery.gallery import Gallery

KEY = "one key for every bot that shares it"

Run = Callable[..., click.testing.Result]


@pytest.fixture
def machine(starter_home: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Makes another machine: a data folder with nothing but compiled networks."""

    def make(name: str) -> Path:
        home = tmp_path / name
        home.mkdir()
        (home / "cache").symlink_to(starter_home / "cache", target_is_directory=True)
        return home

    return make


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, postgres_url: str) -> Run:
    """Runs `lookalike` with everything on the server."""
    for name in list(os.environ):
        if name.upper().startswith("LOOKALIKE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path, url: str = postgres_url) -> click.testing.Result:
        settings = {"GALLERY__URL": url, "DATABASE__URL": url, "DATABASE__KEY": KEY}
        return click.testing.CliRunner().invoke(
            lookalike,
            [str(argument) for argument in arguments],
            env={f"LOOKALIKE_{name}": value for name, value in settings.items()},
        )

    return run


async def test_two_bots_share_people_choices_and_history(
    postgres_url: str, machine: Callable[[str], Path], hopper_jpeg: bytes
) -> None:
    shared = {
        "gallery": {"url": postgres_url, "starter": False},
        "database": {"url": postgres_url, "key": KEY},
    }
    somebody = Sender("web", "somebody", "a chat")
    async with (
        chatting(machine("one"), **shared) as one,
        chatting(machine("another"), **shared) as another,
    ):
        here, there = Person(one, somebody), Person(another, somebody)
        answer = await here.says("", hopper_jpeg)
        assert answer.picture is not None
        assert "Grace Hopper" in answer.text
        answer = await there.says("", hopper_jpeg)
        assert answer.picture is not None
        assert "Grace Hopper" in answer.text
        await here.says("/top 2")
        history = await there.says("/history")
        assert history.text.count("Grace Hopper") == 2
        assert (await there.says("", hopper_jpeg)).text.count("Collins") == 1
        await there.says("/forget")
    with pytest.raises(BadSettings, match="another secret key"):
        async with chatting(
            machine("stranger"),
            gallery=shared["gallery"],
            database={"url": postgres_url, "key": "x" * 40},
        ):
            pass


def test_every_command_works_on_the_shared_gallery(
    run: Run,
    machine: Callable[[str], Path],
    hopper_jpeg: bytes,
    collins_jpeg: bytes,
    tmp_path: Path,
    postgres_url: str,
) -> None:
    home, other = machine("one"), machine("another")
    people = tmp_path / "people"
    for name, content in (("Grace_Hopper", hopper_jpeg), ("Eileen_Collins", collins_jpeg)):
        (people / name).mkdir(parents=True)
        (people / name / "1.jpg").write_bytes(content)

    upgraded = run("db", "upgrade", "--home", home)
    assert upgraded.exit_code == 0, upgraded.output
    assert upgraded.stdout.count("postgresql://postgres:***@/") == 2
    added = run("gallery", "add", people, "--home", home, "--model", "dlib")
    assert added.exit_code == 0, added.output

    stats = json.loads(run("gallery", "stats", "--json", "--home", other).stdout)
    assert (stats["people"], stats["portraits"]) == (2, 2)
    assert stats["place"].startswith("postgresql://postgres:***@/")
    assert "Eileen Collins" in run("gallery", "list", "--home", other).stdout
    photo = people / "Grace_Hopper" / "1.jpg"
    answer = tmp_path / "answer.jpg"
    matched = run("match", photo, "--model", "dlib", "--json", "--card", answer, "--home", other)
    assert matched.exit_code == 0, matched.output
    (first, *_) = json.loads(matched.stdout)["faces"][0]["matches"]
    assert (first["person"], first["score"]) == ("Grace Hopper", 100.0)
    assert first["portrait"] > 0
    assert answer.stat().st_size > 10_000

    doctor = run("doctor", "--home", other)
    assert doctor.exit_code == 0, doctor.output
    assert "2 people, 2 portraits in postgresql://postgres:***@/" in doctor.stdout
    assert run("gallery", "remove", "Eileen", "Collins", "--home", other).exit_code == 0
    with Gallery.open(home / "gallery", postgres_url) as gallery:
        assert [person.name for person in gallery.people()] == ["Grace Hopper"]


def test_a_server_that_is_down_or_refuses_is_told_without_its_password(
    run: Run, machine: Callable[[str], Path], postgres: PostgresServer, postgres_url: str
) -> None:
    home = machine("one")
    down = f"postgresql://me:{LOCKED_PASSWORD[:6]}@127.0.0.1:1/lookalike"
    refused = postgres.locked_url(name_of(postgres_url), "a-wrong-password")
    for url, kind, sentence in (
        (down, TryLater, "does not answer"),
        (refused, BadSettings, "refuses the connection"),
    ):
        for arguments in (("gallery", "stats"), ("gallery", "list"), ("db", "upgrade")):
            result = run(*arguments, "--home", home, url=url)
            assert isinstance(result.exception, kind)
            shown = str(result.exception) + result.output
            assert sentence in shown
            assert "s3cret" not in shown
            assert "wrong-password" not in shown
        doctor = run("doctor", "--home", home, url=url)
        assert doctor.exit_code == EXIT_SETUP
        assert "stop  gallery" in doctor.output
        assert sentence in doctor.output
        assert "s3cret" not in doctor.output
        assert "wrong-password" not in doctor.output


def test_passwords_in_urls_are_secrets(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        "[gallery]\nurl = 'postgresql://me:p%40ss%3Aword@host/db'\n"
        "[database]\nurl = 'postgresql://me@host/db?password=another-one'\n",
        encoding="utf-8",
    )
    settings = load_settings(config)
    assert {"p%40ss%3Aword", "p@ss:word", "another-one"} <= set(secrets_of(settings))
    assert "ss:word" not in repr(settings)
    assert "another-one" not in repr(settings.model_dump())
    config.write_text("[database]\nurl = 'sqlite:////tmp/x.db'\n", encoding="utf-8")
    assert secrets_of(load_settings(config)) == ()
