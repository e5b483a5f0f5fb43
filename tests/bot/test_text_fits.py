"""Replies never exceed the platform's limits, and are cut where a reader would cut."""

from __future__ import annotations

import dataclasses
import unicodedata

import regex
from hypothesis import given
from hypothesis import strategies as st

from bot.text import fit, shorten, utf16_length
from bot.values import Animation, Button, Document, Limits, Picture, Reply

FAMILY = "👨‍👩‍👧‍👦"
FLAG = "🇮🇳"


def utf16(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


texts = st.text(max_size=400) | st.lists(
    st.sampled_from([FAMILY, FLAG, "é", "क्षि", "\u2068فيروز\u2069", "a", " ", "\n"]), max_size=80
).map("".join)


@given(texts)
def test_lengths_are_counted_as_the_platforms_do(text: str) -> None:
    assert utf16_length(text) == utf16(text)


@given(texts, st.integers(0, 300))
def test_a_shortened_text_fits_and_ends_between_graphemes(text: str, most: int) -> None:
    short = shorten(text, most)
    assert utf16(short) <= most
    if utf16(text) <= most:
        assert short == text
    elif short:
        kept = short.rstrip("\u2069").removesuffix("…")
        assert text.startswith(kept)
        rest = text[len(kept) :].lstrip()
        whole = regex.findall(r"\X", text)
        assert "".join(regex.findall(r"\X", kept)) == kept
        assert kept == "" or any(
            "".join(whole[:n]).rstrip() == kept for n in range(len(whole) + 1)
        ), (kept, rest)


@given(texts, st.integers(0, 300))
def test_isolates_stay_balanced(text: str, most: int) -> None:
    if text.count("\u2068") == text.count("\u2069"):
        short = shorten(text, most)
        assert short.count("\u2068") == short.count("\u2069")


def test_a_family_is_not_torn_apart() -> None:
    assert shorten(f"a{FAMILY}b{FAMILY}", 14) == f"a{FAMILY}b…"
    assert shorten("e\u0301" * 3, 4) == "e\u0301…"
    assert unicodedata.normalize("NFC", shorten("e\u0301" * 3, 5)) == "éé…"


@given(texts, st.integers(1, 200), st.integers(1, 400))
def test_text_and_caption_fit(text: str, caption_chars: int, text_chars: int) -> None:
    limits = Limits(text_chars=text_chars, caption_chars=caption_chars)
    assert utf16(fit(Reply(text=text), limits).text) <= text_chars
    picture = Picture(b"jpeg", 100, 100, "alt")
    assert utf16(fit(Reply(text=text, picture=picture), limits).text) <= caption_chars


def test_the_longest_lines_are_shortened_first() -> None:
    text = "1. Grace Hopper: 51 ▰▰▰▱▱\nPhotos: " + "somebody, CC BY-SA 4.0; " * 60 + "\nModel: dlib"
    fitted = fit(Reply(text=text), Limits(text_chars=200)).text.split("\n")
    assert fitted[0] == "1. Grace Hopper: 51 ▰▰▰▱▱"
    assert fitted[1].endswith("…")
    assert fitted[2] == "Model: dlib"


@given(
    st.lists(st.lists(st.text(max_size=60), max_size=9), max_size=9),
    st.integers(1, 8),
    st.integers(1, 6),
    st.integers(1, 40),
)
def test_buttons_fit(labels: list[list[str]], per_row: int, rows: int, label_chars: int) -> None:
    limits = Limits(buttons_per_row=per_row, button_rows=rows, label_chars=label_chars)
    reply = Reply(buttons=tuple(tuple(Button(label, "top:1") for label in row) for row in labels))
    fitted = fit(reply, limits).buttons
    assert len(fitted) <= rows
    assert all(1 <= len(row) <= per_row for row in fitted)
    assert all(utf16(button.label) <= label_chars for row in fitted for button in row)


def test_an_action_that_does_not_fit_is_left_out() -> None:
    buttons = ((Button("a", "x" * 65), Button("b", "x" * 64)),)
    assert [button.label for button in fit(Reply(buttons=buttons), Limits()).buttons[0]] == ["b"]


def test_what_is_too_large_is_left_out_and_the_words_stay() -> None:
    wide = Picture(b"jpeg", 9_000, 2_000, "alt")
    heavy = Picture(b"x" * 11, 10, 10, "alt")
    limits = Limits(picture_bytes=10, document_bytes=10)
    assert fit(Reply(text="words", picture=wide), limits) == Reply(text="words")
    assert fit(Reply(text="words", picture=heavy), limits) == Reply(text="words")
    document = Document(b"x" * 11, "application/json", "a.json")
    assert fit(Reply(text="words", document=document), limits) == Reply(text="words")


def test_a_film_fits_or_is_left_out() -> None:
    """With a caption's room for its words."""
    film = Animation(b"x" * 100, "video/mp4", "a.mp4", 2, 2, 1.0, "moves")
    limits = Limits(animation_bytes=99, caption_chars=30, text_chars=60)
    words = "w" * 50
    assert fit(Reply(text=words, animation=film), limits) == Reply(text=words)
    roomier = dataclasses.replace(limits, animation_bytes=100)
    fitted = fit(Reply(text=words, animation=film), roomier)
    assert fitted.animation == film
    assert utf16(fitted.text) <= 30
