"""`lookalike doctor` and `lookalike db`, run as people run them."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import click.testing
import pytest

from bot.adapters import listening_socket
from bot.cli.main import EXIT_SETUP, lookalike

TELEGRAM_TOKEN = "123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
DISCORD_TOKEN = "MTIzNDU2Nzg5MDEyMzQ1Njc4.GabcDE.abcdefghijklmnopqrstuvwxyz0123456789AB"

Run = Callable[..., click.testing.Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs `lookalike` with a home and an environment of the test's own."""
    for name in list(os.environ):
        if name.upper().startswith("LOOKALIKE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **environment: str) -> click.testing.Result:
        return click.testing.CliRunner().invoke(
            lookalike, arguments, env={f"LOOKALIKE_{k}": v for k, v in environment.items()}
        )

    return run


@contextmanager
def platform(status: int) -> Iterator[str]:
    """A platform on loopback that answers everything with that status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"ok": status == 200}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keeps standard error clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def findings(result: click.testing.Result) -> dict[tuple[str, str], str]:
    """(level, subject) -> what was said, of every line."""
    lines = [line.split(None, 2) for line in result.output.splitlines()]
    assert lines
    return {(level, subject): text for level, subject, text in lines}


def test_a_home_in_order_is_fine(run: Run, own_home: Path) -> None:
    assert run("db", "upgrade", "--home", str(own_home)).exit_code == 0
    result = run("doctor", "--home", str(own_home))
    found = findings(result)
    assert result.exit_code == 0
    assert "only 2 people, 2 portraits" in found["warn", "gallery"]
    assert "weights are here" in found["ok", "dlib"]
    assert "lookalike.db" in found["ok", "database"]
    assert "-> wait: the running bot fetches them" in found["warn", "senet"]
    assert not any(level == "stop" for level, _ in found)


def test_a_fresh_machine_is_no_problem(run: Run, tmp_path: Path) -> None:
    result = run("doctor", "--home", str(tmp_path / "new"), MODELS__FETCH="false")
    found = findings(result)
    assert result.exit_code == 0
    assert "lookalike gallery add" in found["warn", "gallery"]
    assert "lookalike models download resnet" in found["warn", "resnet"]
    assert not (tmp_path / "new").exists()


def test_a_wrong_setting_stops(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[telegram]\ntokn = 'x'\n", encoding="utf-8")
    result = run("doctor")
    assert result.exit_code == EXIT_SETUP
    assert "did you mean telegram.token?" in findings(result)["stop", "settings"]


def test_tokens_are_judged_by_their_shape_and_never_shown(run: Run, own_home: Path) -> None:
    result = run(
        "doctor",
        "--home",
        str(own_home),
        TELEGRAM__TOKEN=TELEGRAM_TOKEN,
        DISCORD__TOKEN="no-token-at-all",
    )
    found = findings(result)
    assert result.exit_code == 0
    assert "looks right" in found["ok", "telegram"]
    assert "discord.com/developers" in found["warn", "discord"]
    assert TELEGRAM_TOKEN not in result.output
    assert "no-token-at-all" not in result.output


@pytest.mark.parametrize(("status", "level"), [(200, "ok"), (401, "stop"), (502, "warn")])
def test_online_the_platforms_are_asked(run: Run, own_home: Path, status: int, level: str) -> None:
    with platform(status) as url:
        result = run(
            "doctor",
            "--online",
            "--home",
            str(own_home),
            TELEGRAM__TOKEN=TELEGRAM_TOKEN,
            TELEGRAM__BASE_URL=f"{url}/bot",
            DISCORD__TOKEN=DISCORD_TOKEN,
            DISCORD__API_URL=f"{url}/api/v10",
        )
    last = [line.split(None, 2)[:2] for line in result.output.splitlines()[-2:]]
    assert last == [[level, "telegram"], [level, "discord"]]
    assert result.exit_code == (EXIT_SETUP if level == "stop" else 0)
    assert TELEGRAM_TOKEN not in result.output


def test_no_network_is_a_warning(run: Run, own_home: Path) -> None:
    with platform(200) as url:
        pass
    result = run(
        "doctor",
        "--online",
        "--home",
        str(own_home),
        TELEGRAM__TOKEN=TELEGRAM_TOKEN,
        TELEGRAM__BASE_URL=f"{url}/bot",
    )
    assert "no answer (ConnectError)" in findings(result)["warn", "telegram"]
    assert result.exit_code == 0


def test_a_lost_key_stops(run: Run, own_home: Path) -> None:
    assert run("db", "upgrade", "--home", str(own_home)).exit_code == 0
    (own_home / "secret.key").unlink()
    result = run("doctor", "--home", str(own_home))
    assert result.exit_code == EXIT_SETUP
    assert "put secret.key back" in findings(result)["stop", "database"]
    assert not (own_home / "secret.key").exists()


@pytest.mark.skipif(os.name != "posix", reason="modes are a matter of POSIX")
def test_a_key_that_others_can_read_is_a_warning(run: Run, own_home: Path) -> None:
    assert run("db", "upgrade", "--home", str(own_home)).exit_code == 0
    (own_home / "secret.key").chmod(0o644)
    result = run("doctor", "--home", str(own_home))
    assert "chmod 600" in findings(result)["warn", "database"]


def test_a_damaged_gallery_stops(run: Run, own_home: Path) -> None:
    (own_home / "gallery" / "gallery.db").write_bytes(b"no database" * 1000)
    result = run("doctor", "--home", str(own_home))
    assert result.exit_code == EXIT_SETUP
    assert ("stop", "gallery") in findings(result)


def test_a_web_chat_that_lets_everybody_in_stops(run: Run, own_home: Path) -> None:
    result = run("doctor", "--home", str(own_home), WEB__HOST="0.0.0.0", WEB__PORT="0")
    assert "web.password" in findings(result)["stop", "web"]
    opened = {"WEB__HOST": "0.0.0.0", "WEB__PORT": "0", "WEB__PASSWORD": "hush"}
    assert ("stop", "web") not in findings(run("doctor", "--home", str(own_home), **opened))


def test_a_taken_port_names_the_setting(run: Run, own_home: Path) -> None:
    with listening_socket("127.0.0.1", 0) as other:
        port = str(other.getsockname()[1])
        result = run("doctor", "--home", str(own_home), WEB__PORT=port)
    assert "set web.port" in findings(result)["warn", "web"]
    assert result.exit_code == 0


def test_nothing_to_run_stops(run: Run, own_home: Path) -> None:
    result = run("doctor", "--home", str(own_home), WEB__ENABLED="false")
    assert result.exit_code == EXIT_SETUP
    assert "web.enabled = true" in findings(result)["stop", "adapters"]


def test_the_database_is_upgraded_as_often_as_one_likes(run: Run, tmp_path: Path) -> None:
    for _ in range(2):
        result = run("db", "upgrade", "--home", str(tmp_path / "home"))
        assert result.exit_code == 0
        assert "is up to date (store_" in result.output
        assert "is up to date (gallery_" in result.output
    connection = sqlite3.connect(tmp_path / "home" / "lookalike.db")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()
    assert {"choice", "past_match", "alembic_version_store"} <= tables
