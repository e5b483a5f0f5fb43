"""The order of writing, compared with python-bidi (Rust's unicode-bidi)."""

from __future__ import annotations

from bidi import get_display
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bot.pictures.text import base_level, embedding_levels, visual_order

LETTERS = "abcXY" + "אבגד" + "سمةبل" + "12345" + "٤٥٦" + "()[]{}-.,!+/:%&@#€ " + "\u0301\u05b0"


def displayed(text: str) -> str:
    levels = embedding_levels(text, base_level(text))
    return "".join(text[at] for at in visual_order(levels))


@settings(max_examples=600)
@given(st.text(alphabet=LETTERS, min_size=1, max_size=24))
@example("محمد (Muhammad) 2024 - صلاح!")
@example("Muhammad (محمد) Ali, 12-13")
@example("\u05b0\u0644Y(X)\u05b0")
@example("/!\u0665!Y/2\u05d1\u05d2-Y\u05d3[\u05d0.\u0628")
def test_order_equals_the_reference(text: str) -> None:
    """Characters stand in the order that the published implementation puts them in."""
    text = " ".join(text.split())  # rule L1 is about spaces at line ends, which are never set
    base = "R" if base_level(text) else "L"
    assert displayed(text) == get_display(text, base_dir=base)


def test_hebrew_turns_and_digits_do_not() -> None:
    """The reversed word keeps its number readable."""
    assert displayed("אבג 123") == "123 גבא"


@given(st.lists(st.integers(0, 3), max_size=20))
def test_visual_order_is_a_permutation(levels: list[int]) -> None:
    """Nothing is lost or drawn twice."""
    assert sorted(visual_order(levels)) == list(range(len(levels)))
