"""What people write after a command: a number, a model, a category; in whatever spelling."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from bot.values import MOST_MATCHES, SIDE, SPLIT, STYLES
from gallery.scores.ensemble import BEST

__all__ = [
    "Wish",
    "means_best",
    "means_everybody",
    "read_category",
    "read_model",
    "read_style",
    "read_top",
    "read_wish",
]

# What people call the models together, in the languages that the bot speaks.
BEST_NAMES = frozenset(
    {BEST, "ensemble", "together", "fused"}
    | {"mejor", "elmejor", "juntos"}
    | {"лучшая", "лучший", "вместе"}
    | {"सर्वश्रेष्ठ", "सबसेअच्छा", "साथ"}
)

# "All" in the languages that the bot speaks.
EVERYBODY = frozenset(
    {"*", "all", "any", "everybody", "everyone", "none", "off"}
    | {"todo", "todos", "todas"}
    | {"все", "всех", "всё", "любые"}
    | {"सब", "सभी"}
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants for one photo; None where their settings hold.

    Attributes:
        model: Backbone.
        top: How many matches, 1 to 10.
        category: The category to search.
        everybody: Whether all categories are to be searched, whatever the settings say.
        style: One of ``STYLES``.
    """

    model: str | None = None
    top: int | None = None
    category: str | None = None
    everybody: bool = False
    style: str | None = None


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
    wanted = _folded(text)
    for name in names:
        if _folded(name) == wanted:
            return name
    near = difflib.get_close_matches(wanted, [_folded(name) for name in names], n=1, cutoff=0.8)
    return next((name for name in names if near and _folded(name) == near[0]), None)


def read_wish(text: str, *, models: Sequence[str], categories: Sequence[str]) -> Wish:
    """What ``/lookalike 3 senet bollywood`` asks for; words that mean nothing are passed over."""
    model = top = category = style = None
    everybody = False
    for word in text.split():
        if top is None and (top := read_top(word)) is not None:
            continue
        if style is None and word.casefold() in STYLES:
            style = word.casefold()
            continue
        if model is None and len(word) > 2 and (model := read_model(word, models)) is not None:
            continue
        if category is None and (category := read_category(word, categories)) is not None:
            continue
        everybody = everybody or means_everybody(word)
    return Wish(model, top, category, everybody, style)


def means_everybody(text: str) -> bool:
    """Whether a category means all of them."""
    return text.strip().casefold() in EVERYBODY


def _folded(text: str) -> str:
    spread = unicodedata.normalize("NFKD", text)
    bare = "".join(c for c in spread if not unicodedata.combining(c) or ord(c) > 0x36F)
    return " ".join(bare.casefold().replace("_", " ").replace("-", " ").split())
