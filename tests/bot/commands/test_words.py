"""What people write after a command, and what buttons carry."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.commands.words import (
    means_best,
    means_everybody,
    read_category,
    read_model,
    read_top,
    read_wish,
)
from bot.values import Action, category_tag

MODELS = ("resnet", "senet", "dlib")
CATEGORIES = ("bollywood", "film", "música", "боевики", "rock and roll")


@pytest.mark.parametrize(
    ("text", "top"),
    [
        ("3", 3),
        (" 10 ", 10),
        ("३", 3),
        ("٣", 3),
        ("top 5", 5),
        ("5.", 5),
        ("0", None),
        ("11", None),
        ("-3", None),
        ("3.5", None),
        ("three", None),
        ("", None),
        ("9" * 5000, None),
        ("²", None),
    ],
)
def test_numbers(text: str, top: int | None) -> None:
    assert read_top(text) == top


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("senet", "senet"),
        ("SENet", "senet"),
        ("SE-Net 50", "senet"),
        ("SE-ResNet-50", "senet"),
        ("sennet", "senet"),
        ("resnet50", "resnet"),
        ("ResNet-50", "resnet"),
        ("VGGFace", "resnet"),
        ("resnt", "resnet"),
        ("dlib.", "dlib"),
        ("\N{FULLWIDTH LATIN SMALL LETTER D}lib", "dlib"),
        ("vgg16!?", None),
        ("facenet512", None),
        ("", None),
        ("🙂", None),
    ],
)
def test_models(text: str, model: str | None) -> None:
    assert read_model(text, MODELS) == model


def test_a_model_that_is_not_configured_is_not_meant() -> None:
    assert read_model("senet", ("dlib",)) is None


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("Bollywood", "bollywood"),
        ("bolywood", "bollywood"),
        ("MUSICA", "música"),
        ("Боевики", "боевики"),
        ("rock-and-roll", "rock and roll"),
        ("cooking", None),
        ("", None),
    ],
)
def test_categories(text: str, category: str | None) -> None:
    assert read_category(text, CATEGORIES) == category
    assert not means_everybody(text)


@pytest.mark.parametrize("given", ["best", " BEST ", "el mejor", "лучшая", "सबसे अच्छा"])
def test_all_models_together_are_meant_by_their_names_alone(given: str) -> None:
    assert means_best(given)
    assert read_model(given, [*MODELS, "best"]) == "best"
    assert read_model(given, MODELS) is None  # not offered
    assert not any(map(means_best, ("rest", "test", "senet", "")))
    assert read_model("rest", ["dlib", "best"]) is None


def test_wishes() -> None:
    def wish(text: str) -> tuple[dict[str, Any], dict[str, str]]:
        return read_wish(text, models=MODELS, categories=CATEGORIES)

    assert wish("3 SENet bollywood") == ({"model": "senet", "top": 3, "category": "bollywood"}, {})
    polite = {"top": 5, "category": "bollywood"}, {"": "please"}
    assert wish("bollywood please 5") == polite
    assert wish("who is this?") == ({}, {"": "who is this?"})
    assert wish("top:99 senet") == ({"model": "senet"}, {"top": "99"})
    assert wish("99 model:vggface category:film") == (
        {"model": "resnet", "category": "film"},
        {"top": "99"},
    )
    assert wish("rock and roll 3") == ({"top": 3, "category": "rock and roll"}, {})
    assert wish("all") == ({"category": None}, {})
    assert wish("") == ({}, {})


@given(st.text(max_size=60))
def test_whatever_is_written_means_something_or_nothing(text: str) -> None:
    assert read_top(text) in {None, *range(1, 11)}
    assert read_model(text, MODELS) in {None, *MODELS}
    assert read_category(text, CATEGORIES) in {None, *CATEGORIES}
    read_wish(text, models=MODELS, categories=CATEGORIES)


words = st.from_regex(r"[A-Za-z0-9_.-]{0,9}", fullmatch=True)


@given(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.lists(words, max_size=5))
def test_an_action_comes_back_as_it_was(verb: str, arguments: list[str]) -> None:
    encoded = Action.encode(verb, *arguments)
    assert re.fullmatch(r"[A-Za-z0-9_:.-]{1,64}", encoded)
    assert Action.parse(encoded) == Action(verb, tuple(arguments))


@given(st.text(max_size=100))
def test_whatever_a_platform_hands_back_is_an_action_or_none(text: str) -> None:
    action = Action.parse(text)
    if action is not None:
        assert Action.encode(action.verb, *action.arguments) == text
        assert action.number(0) is None or 0 <= action.number(0) <= 10_000  # type: ignore[operator]
        assert action.text(99) == ""


def test_an_action_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="see"):
        Action.encode("see", "x" * 64)
    with pytest.raises(ValueError, match="category"):
        Action.encode("category", "боевики")


@given(st.text(max_size=300))
def test_every_category_has_a_tag_that_a_button_can_carry(category: str) -> None:
    assert re.fullmatch("[0-9a-f]{12}", category_tag(category))
