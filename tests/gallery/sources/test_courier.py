"""How a server is asked: as itself, few times at once, and not before it wants."""

from __future__ import annotations

import email.utils
import threading
import time
from collections.abc import Iterator

import pytest
from http_source import Behaviour, Source, serving

from engine.errors import BadSettings, SourceDown
from gallery.sources.courier import Courier, NotThere, Patience, Stopped, TooSlow, user_agent

HURRIED = Patience(
    first_pause_s=0.01, longest_pause_s=0.05, answer_s=0.3, tries=5, tries_to_connect=2
)


@pytest.fixture
def source() -> Iterator[Source]:
    with serving(b"hello") as served:
        yield served


def ask(source: Source, patience: Patience = HURRIED, stop: threading.Event | None = None) -> bytes:
    with Courier(user_agent("a@b.org"), connections=2, patience=patience, stop=stop) as courier:
        return courier.ask(source.url, lambda answer: answer.body)


def test_pauses_are_as_long_as_the_server_says(source: Source) -> None:
    date = email.utils.formatdate(time.time() + 3, usegmt=True)
    source.script = [Behaviour(429, {"Retry-After": "1"}), Behaviour(503, {"Retry-After": date})]
    began = time.monotonic()
    assert ask(source) == b"hello"
    assert 1.9 < time.monotonic() - began < 10


def test_what_is_not_there_is_not_asked_for_again(source: Source) -> None:
    source.script = [Behaviour(404), Behaviour(410)]
    for _ in range(2):
        with pytest.raises(NotThere):
            ask(source)
    assert len(source.requests) == 2


def test_a_refusal_names_the_contact(source: Source) -> None:
    source.script = [Behaviour(403)]
    with pytest.raises(SourceDown, match=r"gallery\.contact"):
        ask(source)
    assert len(source.requests) == 1


def test_a_server_that_is_too_slow_is_given_up(source: Source) -> None:
    source.usual = Behaviour(delay_s=5)
    with pytest.raises(TooSlow):
        ask(source, Patience(answer_s=0.1, tries_when_slow=1))
    assert len(source.requests) == 1


def test_an_answer_cut_short_is_asked_for_again(source: Source) -> None:
    source.script = [Behaviour(bytes_sent=2)]
    assert ask(source) == b"hello"


def test_a_pause_ends_when_the_work_is_given_up(source: Source) -> None:
    source.script = [Behaviour(429, {"Retry-After": "60"})]
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        ask(source, stop=stop)
    assert time.monotonic() - began < 5


def test_the_name_carries_version_and_contact() -> None:
    assert user_agent(" https://example.org/bot (me) ").startswith("Lookalike/")
    assert "(https://example.org/bot me) httpx/" in user_agent("https://example.org/bot (me)")
    for wrong in ("", "me", "a@b\r\nX: y", "é@b.org"):
        with pytest.raises(BadSettings, match=r"gallery\.contact"):
            user_agent(wrong)
