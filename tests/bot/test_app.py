"""Adapters side by side: started together, ended together, within time and with one sentence."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bot import app as serving
from bot.app import Crash, adapters_wanted, run_adapters, serve
from bot.cli.main import EXIT_SETUP
from bot.settings import DiscordSettings, Settings, TelegramSettings, WebSettings
from engine.errors import BadToken, SetupProblem, SourceDown

TOKEN = "123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"


class Front:
    """An adapter of the test's own, told what happens to it."""

    def __init__(
        self,
        name: str,
        problem: Exception | None = None,
        *,
        deaf: bool = False,
        served: bool = False,
    ) -> None:
        self.name, self.served, self.connected = name, served, problem is None
        self.problem = problem
        self.deaf = deaf
        self.story: list[str] = []

    async def run(self, stop: asyncio.Event) -> None:
        self.story.append("started")
        try:
            if self.problem is not None:
                await asyncio.sleep(0)
                raise self.problem
            await (asyncio.Event() if self.deaf else stop).wait()
            await asyncio.sleep(0.01)  # what is in flight is answered
            self.story.append("finished")
        except asyncio.CancelledError:
            self.story.append("cut short")
            raise


async def test_all_end_when_asked_to() -> None:
    one, two, stop = Front("one"), Front("two"), asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, stop.set)
    await run_adapters([one, two], stop)
    assert one.story == two.story == ["started", "finished"]


async def test_a_wrong_token_of_one_ends_all_cleanly() -> None:
    problem = BadToken("Telegram refuses the token")
    bad, good = Front("bad", problem), Front("good")
    with pytest.raises(BadToken) as raised:
        await run_adapters([bad, good], asyncio.Event())
    assert raised.value is problem
    assert good.story == ["started", "finished"]


async def test_a_token_that_is_revoked_while_running_costs_its_platform_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad, good = Front("bad", BadToken("the token is refused"), served=True), Front("good")
    stop = asyncio.Event()
    running = asyncio.create_task(run_adapters([bad, good], stop))
    for _ in range(20):  # steps of the event loop
        await asyncio.sleep(0)
    assert "bad stopped, the others go on: the token is refused" in caplog.text
    assert good.story == ["started"]
    stop.set()
    await running
    assert good.story == ["started", "finished"]
    alone = [Front(name, BadToken(name), served=True) for name in "ab"]
    with pytest.raises(BadToken, match="b"):
        await run_adapters(alone, asyncio.Event())


async def test_what_the_operator_can_mend_is_told_first() -> None:
    fronts = [Front("a", SourceDown("later")), Front("b", SetupProblem("mend this"))]
    with pytest.raises(SetupProblem, match="mend this"):
        await run_adapters(fronts, asyncio.Event())


async def test_a_fault_ends_all_and_its_message_stays_unsaid(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad, good = Front("bad", RuntimeError(f"no route to {TOKEN}")), Front("good")
    with caplog.at_level(logging.DEBUG), pytest.raises(Crash, match="bad failed"):
        await run_adapters([bad, good], asyncio.Event())
    assert good.story == ["started", "finished"]
    assert any("RuntimeError at" in vars(record).get("fault", "") for record in caplog.records)
    assert TOKEN not in caplog.text + str([vars(record) for record in caplog.records])


async def test_who_does_not_hear_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "PATIENCE_S", 0.1)
    deaf, good, stop = Front("deaf", deaf=True), Front("good"), asyncio.Event()
    stop.set()
    started = time.perf_counter()
    await run_adapters([deaf, good], stop)
    assert time.perf_counter() - started < 2
    assert deaf.story == ["started", "cut short"]


@pytest.mark.parametrize(
    ("telegram", "discord", "web", "wanted"),
    [
        (None, None, None, ("web",)),
        (TOKEN, None, None, ("telegram",)),
        (TOKEN, "d", None, ("telegram", "discord")),
        (TOKEN, "d", True, ("telegram", "discord", "web")),
        (None, "d", False, ("discord",)),
    ],
)
def test_who_has_a_token_runs_and_the_web_chat_where_nobody_has(
    telegram: str | None, discord: str | None, web: bool | None, wanted: tuple[str, ...]
) -> None:
    settings = Settings(
        telegram=TelegramSettings(token=telegram),  # type: ignore[arg-type]
        discord=DiscordSettings(token=discord),  # type: ignore[arg-type]
        web=WebSettings(enabled=web),
    )
    assert adapters_wanted(settings) == wanted


def test_nothing_to_run_is_said() -> None:
    with pytest.raises(SetupProblem, match=r"web\.enabled"):
        adapters_wanted(Settings(web=WebSettings(enabled=False)))


async def test_a_missing_package_names_the_extra(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("nicegui", "bot.adapters.web"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "nicegui", None)
    with pytest.raises(SetupProblem, match=r"pip install 'lookalike\[web\]'"):
        await serve(Settings(home=own_home))


async def test_without_what_seals_the_extra_of_chats_is_named(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(SetupProblem, match=r"pip install 'lookalike\[chat\]'"):
        async with serving.open_conversation(Settings(home=own_home)):
            pass


@contextlib.contextmanager
def refusing() -> Iterator[str]:
    """A Bot API that knows no token."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b'{"ok": false, "error_code": 401, "description": "Unauthorized"}'
            self.send_response(401)
            self.send_header("Content-Type", "application/json")
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


@contextlib.contextmanager
def lookalike_run(home: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """`lookalike run` as a process of its own."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("LOOKALIKE_")}
    given = {f"LOOKALIKE_{name}": value for name, value in environment.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "bot", "run", "--home", str(home)],
        env={**inherited, "LOOKALIKE_MODELS__FETCH": "false", **given},
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until_said(process: subprocess.Popen[str], words: str) -> list[str]:
    """The lines of standard error up to the one with those words."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError(f"it ended before it said {words!r}: {''.join(lines)}")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as POSIX has them")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_within_ten_seconds(own_home: Path, number: int) -> None:
    with lookalike_run(own_home, WEB__PORT="0", LOG__LEVEL="DEBUG") as process:
        assert process.stdout is not None
        plain = [process.stdout.readline() for _ in range(2)]
        assert plain[0].startswith("Gallery: only 2 people. `")
        assert re.fullmatch(r"Open http://127\.0\.0\.1:\d+ in your browser.*\n", plain[1])
        started = time.perf_counter()
        process.send_signal(number)
        output, log = process.communicate(timeout=15)
        assert time.perf_counter() - started < 10
    assert process.returncode == 0
    assert output == ""
    assert "event=stopping" in log
    assert "Traceback" not in log


def test_a_wrong_token_is_one_sentence_and_exit_78(own_home: Path) -> None:
    with refusing() as url:
        environment = {"TELEGRAM__TOKEN": TOKEN, "TELEGRAM__BASE_URL": f"{url}/bot"}
        with lookalike_run(own_home, **environment, LOG__LEVEL="DEBUG") as process:
            output, log = process.communicate(timeout=30)
    assert process.returncode == EXIT_SETUP
    assert log.splitlines()[-1].startswith("lookalike: ")
    assert "token" in log.splitlines()[-1]
    assert TOKEN not in output + log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"TELEGRAM__TOKN": TOKEN}, "did you mean LOOKALIKE_TELEGRAM__TOKEN?"),
        ({"DATABASE__URL": "nosuch://somewhere"}, "database"),
    ],
)
def test_a_wrong_setting_is_one_sentence_and_exit_78(
    own_home: Path, environment: dict[str, str], words: str
) -> None:
    with lookalike_run(own_home, WEB__PORT="0", **environment) as process:
        _, log = process.communicate(timeout=30)
    assert process.returncode == EXIT_SETUP
    assert words in log.splitlines()[-1]
    assert "Traceback" not in log
