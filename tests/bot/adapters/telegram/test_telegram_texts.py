"""Cutting long texts, and reading the words of messages: laws."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.adapters.telegram.messages import parse_message
from bot.adapters.telegram.sender import keyboard, split_text
from bot.values import Button

TEXTS = st.text(st.characters() | st.sampled_from("\n 😀"), max_size=400)


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


@given(TEXTS, st.integers(2, 60), st.integers(2, 60))
def test_pieces_fit_and_hold_every_word(text: str, first: int, rest: int) -> None:
    """No piece is empty or too long, and no character but white space is lost."""
    pieces = split_text(text, first, rest)
    assert all(piece and piece == piece.strip() for piece in pieces)
    assert all(_units(piece) <= (rest if at else first) for at, piece in enumerate(pieces))
    lost = "".join("".join(pieces).split())
    assert lost == "".join(
        text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").split()
    )


def test_a_text_is_cut_at_the_end_of_a_line() -> None:
    """A word is cut only where it would leave half of a message empty."""
    text = "one two\nthree four\n\nfive " + "x" * 30
    assert split_text(text, 20, 20) == ["one two\nthree four", "five " + "x" * 15, "x" * 15]
    assert split_text("short") == ["short"]
    assert split_text(" \n ") == []


def test_what_is_no_character_is_replaced() -> None:
    """A lone surrogate can't be sent."""
    assert split_text("a\ud83db") == ["a\N{REPLACEMENT CHARACTER}b"]


def test_a_reply_without_buttons_has_no_keyboard() -> None:
    """Empty rows are none."""
    assert keyboard(()) is None
    assert keyboard(((),)) is None
    found = keyboard(((), (Button("A", "a"), Button("B", "b"))))
    assert found
    assert [[button.callback_data for button in row] for row in found.inline_keyboard] == [
        ["a", "b"]
    ]


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
