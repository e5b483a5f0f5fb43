"""Keyboards, and reading the words of messages: laws."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.adapters.telegram.messages import parse_message
from bot.adapters.telegram.sender import keyboard
from bot.values import Button


def test_a_reply_without_buttons_has_no_keyboard() -> None:
    """Empty rows are none."""
    assert keyboard(()) is None
    assert keyboard(((),)) is None
    buttons = [[{"text": "A", "callback_data": "a"}, {"text": "B", "callback_data": "b"}]]
    found = keyboard(((), (Button("A", "a"), Button("B", "b"))))
    assert found == {"reply_markup": {"inline_keyboard": buttons}}


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_words_are_understood_somehow(text: str, username: str) -> None:
    """Nothing that people write is a fault, and a command is what Telegram calls one."""
    said = parse_message(text, "lookalike_bot")
    assert said.command is None or re.fullmatch("[a-z0-9_]{1,32}", said.command)
    assert not (said.to_me and said.to_another)
    assert parse_message(f"/top@{username}", "lookalike_bot").command in {None, "top"}


@pytest.mark.parametrize(
    ("text", "command", "arguments", "to_me", "to_another"),
    [
        ("/top 3", "top", "3", False, False),
        ("/top@my_bot 3", "top", "3", True, False),
        ("/TOP@My_Bot\n3", "top", "3", True, False),
        ("/top@other_bot 3", "top", "3", False, True),
        ("@my_bot /top 3", "top", "3", True, False),
        ("/top 3 @my_bot", "top", "3", True, False),
        ("hi @my_bot!", None, "hi !", True, False),
        ("hi @my_bots", None, "hi @my_bots", False, False),
        ("mail@my_bot", None, "mail@my_bot", False, False),
        ("/top3/4", None, "/top3/4", False, False),
        ("/ top", None, "/ top", False, False),
        ("", None, "", False, False),
    ],
)
def test_commands_and_mentions(
    text: str, command: str | None, arguments: str, *, to_me: bool, to_another: bool
) -> None:
    """The bot's name counts in any case and place, another's only in its command."""
    said = parse_message(text, "my_bot")
    assert (said.command, said.arguments) == (command, arguments)
    assert (said.to_me, said.to_another) == (to_me, to_another)
