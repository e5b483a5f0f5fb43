"""The same sentences in every language, and exactly those that are spoken."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.conversation import COMMANDS, described
from bot.models import State
from bot.text import LANGUAGES, WORDS, Wording, isolate, plain
from bot.values import STYLES
from engine import errors
from engine.types import Concern

ROOT = Path(__file__).resolve().parents[2]
# CLDR 46: the categories that whole numbers have in each language.
CATEGORIES = {
    "en": {"one", "other"},
    "hi": {"one", "other"},
    "es": {"one", "many", "other"},
    "ru": {"one", "few", "many", "other"},
}
ERROR_KEYS = {
    kind.key
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.LookalikeError)
}


@pytest.fixture(scope="module")
def wording() -> Wording:
    return Wording.load()


def spoken_in(path: Path) -> set[str]:
    """Every string literal of a file, and what its f-strings "section.{...}" may make of them."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    literals = {
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    prefixes = {
        node.values[0].value
        for node in nodes
        if isinstance(node, ast.JoinedStr)
        and isinstance(node.values[0], ast.Constant)
        and re.fullmatch(r"[a-z_.]+\.", str(node.values[0].value))
    }
    return literals | {f"{prefix}{literal}" for prefix in prefixes for literal in literals}


def said_in(path: Path) -> set[str]:
    """The keys that a file says outright: first arguments of ``say`` and ``text``."""
    return {
        part.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"say", "_say", "text"}
        and node.args
        for part in (
            (node.args[0].body, node.args[0].orelse)
            if isinstance(node.args[0], ast.IfExp)
            else (node.args[0],)
        )
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and "." in part.value
    }


def placeholders(template: str) -> frozenset[str]:
    """Names of the placeholders of a template."""
    return frozenset(name for _, name, _, _ in string.Formatter().parse(template) if name)


def templates(wording: Wording, key: str, language: str) -> Mapping[str, str]:
    """The templates of a key by plural category; ``"other"`` alone where there is one."""
    found = wording.sentences[language][key]
    return {"other": found} if isinstance(found, str) else found


def code() -> list[Path]:
    """The files of the bot that may say something."""
    files = [path for path in (ROOT / "bot").rglob("*.py") if "cli" not in path.parts]
    assert len(files) > 20, "the code was not found"
    return files


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_the_same_keys(wording: Wording, language: str) -> None:
    assert wording.sentences[language].keys() == wording.sentences["en"].keys()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_template_has_the_placeholders_of_the_english_one(
    wording: Wording, language: str
) -> None:
    """In a plural form the count may be left out ("the other one"), nothing else."""
    for key in wording.sentences["en"]:
        english = frozenset().union(*map(placeholders, templates(wording, key, "en").values()))
        for category, template in templates(wording, key, language).items():
            assert placeholders(template) <= english, (key, category)
            assert english - placeholders(template) <= {"count"}, (key, category)


@pytest.mark.parametrize("language", LANGUAGES)
def test_plural_forms_are_complete(wording: Wording, language: str) -> None:
    for key in wording.sentences[language]:
        forms = set(templates(wording, key, language))
        assert forms in ({"other"}, CATEGORIES[language]), key


def test_every_sentence_is_spoken_somewhere_and_every_spoken_one_exists(wording: Wording) -> None:
    """Keys in the code, in the tables that name keys, and in the files are the same set."""
    literals = set().union(*map(spoken_in, code()))
    page = (ROOT / "bot/adapters/web/page.html").read_text(encoding="utf-8")
    literals |= set(re.findall(r"""["']([a-z]+\.[a-z_.]+)["']""", page))
    commands = {f"command.{name}.description" for name in COMMANDS}
    named = (
        ERROR_KEYS
        | commands
        | {key for _, key in WORDS}
        | {f"answer.{one}" for one in tuple(Concern)[1:]}
    )
    named |= {state.value for state in State}
    named |= {f"style.{how}{one}" for how in ("", "chosen_") for one in STYLES}
    of_platforms = re.compile(r"(?:discord|terminal|web)\.(.+)")
    found = map(of_platforms.fullmatch, wording.sentences["en"])
    named |= {one[0] for one in found if one and one[1] in literals | ERROR_KEYS}
    assert named <= wording.sentences["en"].keys()
    said = {key for path in code() for key in said_in(path)}
    said |= set(re.findall(r"""\bsay\(["']([a-z]+\.[a-z_.]+)["']""", page))
    assert len(said) > 50, "the sentences were not found in the code"
    assert said - wording.sentences["en"].keys() == set(), "spoken, but not written"
    assert wording.sentences["en"].keys() - literals - named == set(), "written, but never spoken"


@pytest.mark.parametrize("language", [*LANGUAGES, "pt-BR", "", None, "zh-Hant-TW"])
def test_every_sentence_can_be_said(wording: Wording, language: str | None) -> None:
    for key in sorted(wording.sentences["en"].keys()):
        for count in (0, 1, 2, 5, 11, 21, 1_000_000):
            spoken = wording.language(language)
            template = templates(wording, key, spoken)
            names = frozenset().union(*map(placeholders, template.values())) - {"count"}
            text = wording.text(key, language, count=count, **dict.fromkeys(names, "x"))
            assert text.strip() == text
            assert "{" not in text


def test_languages_of_regions_and_unknown_ones(wording: Wording) -> None:
    assert [wording.language(tag) for tag in ("es-MX", "hi_IN", "RU", "pt-BR", "tlh", None)] == [
        "es",
        "hi",
        "ru",
        "en",
        "en",
        "en",
    ]


def test_russian_plurals(wording: Wording) -> None:
    said = [wording.text("error.busy", "ru", count=count) for count in (1, 2, 5, 11, 21, 112)]
    words = [re.search(r"секунд\w*", text)[0] for text in said]  # type: ignore[index]
    assert words == ["секунду", "секунды", "секунд", "секунд", "секунду", "секунд"]


def test_numbers_are_grouped_as_the_language_does(wording: Wording) -> None:
    assert wording.number(1234567, "en") == "1,234,567"
    assert wording.number(1234567, "hi-IN") == "12,34,567"
    assert wording.number(1234, "es") == "1234"
    assert wording.number(12345, "es") == "12\u202f345"
    assert wording.number(-1234567, "ru") == "-1\u00a0234\u00a0567"


@given(st.integers(-(10**15), 10**15), st.sampled_from(LANGUAGES))
def test_grouping_keeps_the_digits(value: int, language: str) -> None:
    said = Wording.load().number(value, language)
    assert "".join(c for c in said if c in string.digits + "-") == str(value)


def test_commands_fit_the_menus_of_both_platforms(wording: Wording) -> None:
    """Telegram: 1 to 32 characters, description 256; Discord: 100."""
    for language in LANGUAGES:
        for name, description in described(wording, language).items():
            assert re.fullmatch(r"[a-z]{1,32}", name)
            assert 1 <= len(description) <= 100


def test_words_go_down_with_the_score() -> None:
    assert all(high > low for (high, _), (low, _) in pairwise(WORDS))
    assert len({key for _, key in WORDS}) == len(WORDS)


def test_a_right_to_left_name_is_isolated_and_others_stand_as_they_are() -> None:
    assert isolate("Grace Hopper") == "Grace Hopper"
    assert isolate("प्रियंका चोपड़ा") == "प्रियंका चोपड़ा"
    assert isolate("فيروز") == "\u2068فيروز\u2069"
    assert isolate("גל גדות 🙂") == "\u2068גל גדות 🙂\u2069"


@given(st.text())
def test_a_name_can_rearrange_nothing(name: str) -> None:
    """No line break, no override; isolates are opened and closed once."""
    said = isolate(name)
    assert not re.search("[\n\r\u202a-\u202e\u2066\u2067]", said)
    assert said.count("\u2068") == said.count("\u2069") <= 1
    assert plain(said) == plain(name)
