"""What the log says, and what it must never say."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.logs import OURS, RedactingFormatter, set_up_logs, where

TELEGRAM_TOKEN = "123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
DISCORD_TOKEN = "MTIzNDU2Nzg5MDEyMzQ1Njc4.GabcDE.abcdefghijklmnopqrstuvwxyz0123456789AB"
USER_ID = "8765432109"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """The log set up at DEBUG; the logging of the test run is put back afterwards."""
    root = logging.getLogger()
    before = root.handlers, root.level
    levels = {name: logging.getLogger(name).level for name in (*OURS, "telegram")}
    logging.getLogger("telegram").setLevel(logging.NOTSET)  # its adapter silences it for good
    text = io.StringIO()
    set_up_logs("DEBUG", secrets=["a-secret-of-the-operator"], stream=text)
    yield text
    root.handlers, root.level = before
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(capture=False)


def test_our_lines_are_key_and_value(stream: io.StringIO) -> None:
    logging.getLogger("bot.conversation").info(
        "answer", extra={"outcome": "answered", "total_ms": 12.5, "group": True, "said": 'a "b" c'}
    )
    line = stream.getvalue()
    assert line.endswith(
        'level=info event=answer outcome=answered total_ms=12.5 group=true said="a \\"b\\" c"\n'
    )
    assert line.startswith("time=20")


def test_debug_is_for_our_lines_alone(stream: io.StringIO) -> None:
    for name in ("httpx", "telegram.ext.Application", "discord.gateway", "asyncio", "PIL", "new"):
        logging.getLogger(name).debug("update %s", USER_ID)
        logging.getLogger(name).info("GET https://api.telegram.org/bot%s/getMe", TELEGRAM_TOKEN)
    logging.getLogger("engine.decode").debug("seen")
    assert stream.getvalue().count("\n") == 1
    assert "event=seen" in stream.getvalue()


@pytest.mark.parametrize("secret", [TELEGRAM_TOKEN, DISCORD_TOKEN, "a-secret-of-the-operator"])
@pytest.mark.parametrize("name", ["httpx", "bot.app"])
def test_a_secret_that_reaches_a_line_all_the_same_is_taken_out(
    stream: io.StringIO, name: str, secret: str
) -> None:
    log = logging.getLogger(name)
    log.warning("POST https://api.example.org/bot%s/sendPhoto failed", secret)
    log.error("failed", extra={"url": f"https://x/bot{secret}/y"})
    try:
        raise OSError(f"no route to {secret}")  # noqa: TRY301
    except OSError:
        log.exception("failed")
    assert stream.getvalue().count("\n") == 3
    assert secret not in stream.getvalue()
    assert "[redacted]" in stream.getvalue()


def test_ids_in_other_peoples_warnings_are_taken_out(stream: io.StringIO) -> None:
    for said in (
        f"chat_id={USER_ID}",
        f"{{'id': {USER_ID}, 'text': 'x'}}",
        f"User {USER_ID} left",
        f"/users/{USER_ID}/messages",
        f"-100{USER_ID}",
    ):
        logging.getLogger("telegram.ext").warning("Odd update: %s", said)
    assert stream.getvalue().count("\n") == 5
    assert USER_ID not in stream.getvalue()


def test_a_fault_is_told_by_type_and_place_and_not_by_its_message(stream: io.StringIO) -> None:
    try:
        int(USER_ID + "x")
    except ValueError as problem:
        text = where(problem)
        logging.getLogger("bot.x").exception("fault")
    assert text.startswith("ValueError at bot/test_logs.py:")
    assert "test_a_fault_is_told" in text
    assert USER_ID not in text + stream.getvalue()
    assert "ValueError at" in stream.getvalue()


@given(st.dictionaries(st.from_regex("[a-z]{3,8}_x", fullmatch=True), st.text(), max_size=4))
def test_every_event_is_one_line_that_can_be_read_back(fields: dict[str, str]) -> None:
    record = logging.LogRecord("bot.x", logging.INFO, "", 0, "event\nwith break", (), None)
    vars(record).update(fields)
    line = RedactingFormatter().format(record)
    assert "\n" not in line
    rest = line
    for name, value in fields.items():
        _, found, after = rest.partition(f" {name}=")
        assert found
        if after.startswith('"'):
            said, end = json.JSONDecoder().raw_decode(after)
            rest = after[end:]
        else:
            said, _, rest = after.partition(" ")
            rest = " " + rest
        assert said == value or "[redacted]" in said
    in_json = RedactingFormatter(as_json=True).format(record)
    assert "\n" not in in_json
    read = json.loads(in_json)
    assert all(read[name] == value or "[redacted]" in read[name] for name, value in fields.items())
