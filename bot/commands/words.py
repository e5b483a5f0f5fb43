"""What people write after a command: a number, a model, a category; in whatever spelling."""

import difflib
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from bot.commands import Turn
from bot.text import isolate
from bot.values import ALL, MOST_MATCHES, SIDE, SPLIT, STYLES
from gallery.records import folded
from gallery.scores.ensemble import BEST

# What people call the models together, in the languages that the bot speaks.
BEST_NAMES = frozenset(
    {BEST, "ensemble", "together", "fused"}
    | {"mejor", "elmejor", "juntos"}
    | {"лучшая", "лучший", "вместе"}
    | {"सर्वश्रेष्ठ", "सबसेअच्छा", "साथ"}
)

SHOWN_GIVEN_CHARS = 40
SETTINGS = ("top", "style", "model", "category")

# "All" in the languages that the bot speaks.
EVERYBODY = frozenset(
    {"*", "all", "any", "everybody", "everyone", "none", "off"}
    | {"todo", "todos", "todas"}
    | {"все", "всех", "всё", "любые"}
    | {"सब", "सभी"}
)


def read_top(text: str) -> int | None:
    """A number of matches from 1 to 10, in the digits of any script; None if it is none."""
    text = text.strip().removeprefix("top").strip(" .:=#")
    if not text.isdecimal() or len(text) > 3:
        return None
    number = int(text)
    return number if 1 <= number <= MOST_MATCHES else None


def read_model(text: str, names: Sequence[str]) -> str | None:
    """The model meant, such as ``senet`` by "SE-Net 50"; None if it is none of the names."""
    bare = re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold())
    if means_best(text):
        return BEST if BEST in names else None
    if not bare:
        return None
    meant = None
    if "dlib" in bare:
        meant = "dlib"
    elif "senet" in bare or "seresnet" in bare or bare == "se":
        meant = "senet"
    elif "resnet" in bare or "vggface" in bare or bare in {"res", "vgg"}:
        meant = "resnet"
    if meant in names:
        return meant
    alone = [name for name in names if name != BEST]  # "rest" is no way of writing it
    near = difflib.get_close_matches(bare, alone, n=1, cutoff=0.75)
    return near[0] if near else None


def means_best(text: str) -> bool:
    """Whether the model meant is all of them together."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split()) in BEST_NAMES


def read_style(text: str) -> str | None:
    """The style meant, such as ``split`` by "Split!"; None if it is none."""
    bare = re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold())
    if bare in {"sidebyside", "both", "pair"}:
        return SIDE
    if bare in {"half", "halves", "halfandhalf", "splitface"}:
        return SPLIT
    near = difflib.get_close_matches(bare, STYLES, n=1, cutoff=0.7)
    return near[0] if near else None


def read_category(text: str, names: Sequence[str]) -> str | None:
    """The category meant, whatever its case and accents; None if it is none of the names."""
    known = {folded(name.replace("-", " ")): name for name in reversed(names)}
    near = difflib.get_close_matches(folded(text.replace("-", " ")), known, n=1, cutoff=0.8)
    return known[near[0]] if near else None


def read_wish(
    text: str, *, models: Sequence[str], categories: Sequence[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """What ``/lookalike 3 senet bollywood`` or ``/lookalike top:3 model:senet`` asks for.

    Returns values of ``SETTINGS``, a category of None for all, and what was understood as none of
    these, as written: by setting, or "" for words that name none.
    """
    found: dict[str, Any] = {}
    unknown: dict[str, str] = {}
    for word in text.split():
        name, _, value = word.partition(":")
        if not names_setting(word):
            name, value = "", word
        for setting in (name.casefold(),) if name else SETTINGS:
            if setting not in found:
                read = _read(setting, value, models, categories, named=bool(name))
                if read is not None:
                    found[setting] = read
                    break
        else:
            kind = "top" if not name and value.isdecimal() else name.casefold()
            unknown[kind] = f"{unknown.get(kind, '')} {value}".strip()
    if "category" not in found and "" in unknown:  # it may have several words
        several = read_category(unknown[""], categories)
        if several is not None:
            found["category"] = several
            del unknown[""]
    return {setting: None if value == "" else value for setting, value in found.items()}, unknown


def names_setting(word: str) -> bool:
    """Whether a word is one such as ``model:senet``."""
    name, _, value = word.partition(":")
    return bool(value) and name.casefold() in SETTINGS


def _read(
    setting: str, word: str, models: Sequence[str], categories: Sequence[str], *, named: bool
) -> str | int | None:
    """A word as a value of a setting, "" for all categories; None if it is none."""
    if setting == "top":
        return read_top(word)
    if setting == "style":
        return read_style(word) if named or word.casefold() in STYLES else None
    if setting == "model":
        return read_model(word, models) if named or len(word) > 2 else None
    return "" if means_everybody(word) else read_category(word, categories)


def unknown_sentence(
    turn: Turn, setting: str, given: str, models: Sequence[str] = (), categories: Sequence[str] = ()
) -> str:
    """What to say about a value of ``SETTINGS``, if any, that is none of those there are."""
    if setting == "top":
        return turn.say("top.out_of_range", most=MOST_MATCHES)
    if setting == "category" and not categories:
        return turn.say("category.none")
    there = {"model": models, "style": STYLES}.get(setting, (*categories, ALL))
    said = {"listed": ", ".join(map(isolate, there)), "given": shown(given), "command": setting}
    key = {"model": "model.unknown", "style": "style.unknown"}.get(setting, "category.unknown")
    return turn.say(key if given else "hint.which", **said)


def shown(given: str) -> str:
    """What somebody wrote, short enough to be quoted."""
    short = " ".join(given.replace("_", " ").split())
    return isolate(short[:SHOWN_GIVEN_CHARS] + "…" * (len(short) > SHOWN_GIVEN_CHARS))


def means_everybody(text: str) -> bool:
    """Whether a category means all of them."""
    return text.strip().casefold() in EVERYBODY
