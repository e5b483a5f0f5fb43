"""What the bot says: sentences by key and language, names within them, replies that fit.

Sentences come from the TOML files of ``bot/wording``. One is a template with named placeholders
(``{name}``), or a table of CLDR plural categories (``one``, ``few``, ``many``, ``other``) chosen by
the placeholder ``count``.
"""

import dataclasses
import math
import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any, Self

from bot.values import Button, Limits, Reply, Rows
from gallery.records import MemberScore, Portrait

LANGUAGES = ("en", "hi", "es", "ru")
FALLBACK = "en"

PLURALS = frozenset({"zero", "one", "two", "few", "many", "other"})

# Thousands separators by CLDR 46 (common/main/*.xml); Spanish groups from five digits on.
_SEPARATORS = {"ru": "\N{NO-BREAK SPACE}", "es": "\N{NARROW NO-BREAK SPACE}"}

# Letters of right-to-left scripts (Unicode blocks from Hebrew to Arabic Extended-A, the
# presentation forms and the supplementary right-to-left planes).
_RIGHT_TO_LEFT = re.compile(
    "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]"
)
# Controls, line breaks and directional marks that could rearrange the text around a name.
_UNRULY = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]+"
)


def plain(text: str) -> str:
    """A name on one line, without characters that could rearrange the text around it."""
    return " ".join(_UNRULY.sub(" ", text).split())


def isolate(text: str) -> str:
    """A name that keeps its own direction inside a sentence of another one.

    Right-to-left names are put between FIRST STRONG ISOLATE and POP DIRECTIONAL ISOLATE
    (Unicode Standard Annex 9); others stay as they are.
    """
    text = plain(text)
    if _RIGHT_TO_LEFT.search(text):
        return f"\N{FIRST STRONG ISOLATE}{text}\N{POP DIRECTIONAL ISOLATE}"
    return text


class Wording:
    """Every sentence: language -> key -> template, or plural category -> template."""

    def __init__(self, sentences: Mapping[str, Mapping[str, str | Mapping[str, str]]]) -> None:
        self.sentences = sentences

    @classmethod
    @lru_cache(maxsize=1)
    def load(cls) -> Self:
        """The sentences that come with the program."""
        folder, sentences = resources.files("bot") / "wording", {}
        for language in LANGUAGES:
            text = (folder / f"{language}.toml").read_text(encoding="utf-8")
            sentences[language] = dict(_flat(tomllib.loads(text)))
        return cls(sentences)

    def language(self, tag: str | None) -> str:
        """The language spoken to somebody whose platform says ``tag``, such as ``"es-MX"``."""
        base = (tag or "").replace("_", "-").partition("-")[0].lower()
        return base if base in self.sentences else FALLBACK

    def text(self, key: str, language: str | None = None, **details: object) -> str:
        """A sentence, such as ``"error.no_face"``, in the language of a BCP 47 tag, or in English.

        ``details`` are the values of the placeholders, and the ``platform``, where
        ``"discord.start.text"`` stands in the place of ``"start.text"``. Integers are grouped as
        the language does; ``count`` chooses the plural. Raises KeyError if the key or a value is
        missing.
        """
        spoken, count = self.language(language), details.get("count")
        sentences = self.sentences[spoken]
        forms = sentences.get(f"{details.get('platform')}.{key}") or sentences[key]
        if not isinstance(forms, str):
            category = plural_category(spoken, count) if isinstance(count, int) else "other"
            forms = forms.get(category) or forms["other"]
        for name, value in details.items():
            if isinstance(value, int):
                details[name] = self.number(value, spoken)
        return forms.format_map(details)

    def number(self, value: int, language: str | None = None) -> str:
        """A whole number with the thousands separators of the language."""
        spoken = self.language(language)
        if spoken == "hi":  # 12,34,567: the last three digits, then pairs
            return re.sub(r"(?<=\d)(?=(\d\d)*\d{3}$)", ",", str(value))
        if spoken == "es" and abs(value) < 10_000:
            return str(value)
        return f"{value:,}".replace(",", _SEPARATORS.get(spoken, ","))


def _flat(
    table: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, str | Mapping[str, str]]]:
    for name, value in table.items():
        key = f"{prefix}{name}"
        if isinstance(value, str):
            yield key, value.strip()
        elif set(value) <= PLURALS:
            yield key, value
        else:
            yield from _flat(value, f"{key}.")


def plural_category(language: str, count: int) -> str:
    """CLDR's plural category of a whole number: ``"one"``, ``"few"``, ``"many"`` or ``"other"``.

    Source: Unicode CLDR 46, common/supplemental/plurals.xml.
    """
    if language == "ru":
        tens, ones = abs(count) % 100, abs(count) % 10
        if 2 <= ones <= 4 and not 12 <= tens <= 14:
            return "few"
        return "one" if ones == 1 and tens != 11 else "many"
    if language == "hi":
        return "one" if count in (0, 1) else "other"
    if language == "es" and count and count % 1_000_000 == 0:
        return "many"
    return "one" if abs(count) == 1 else "other"


# Lowest score -> what it is called. Strangers reach 75 once in 10,000 pairs and the same person 95
# in the median (gallery/scores); so the last words are kept for what chance alone hardly makes.
WORDS = (
    (93.0, "word.same"),
    (82.0, "word.twins"),
    (70.0, "word.family"),
    (55.0, "word.clear"),
    (45.0, "word.some"),
    (30.0, "word.hint"),
    (float("-inf"), "word.hardly"),
)
# A million strangers: beyond it the number says more about the law fitted to the tail than about
# people.
RAREST = 1_000_000
_AUTHOR_CHARS = 60  # so that ten credits and their licences fit under a picture


def word_key(score: float, concerns: Sequence[str] = ()) -> str:
    """Key of what a score is called; of a face that is covered nothing strong is said."""
    if "covered" in concerns:
        score = min(score, 54.0)
    return next(key for least, key in WORDS if score >= least)


def rated(score: float, cells: int = 10) -> str:
    """A score from 0 to 100 as it stands in texts: the number and its bar, ``72 ▰▰▰▰▱``."""
    full = round(score * cells / 100)
    return f"{score:.0f} " + "▰" * full + "▱" * (cells - full)


def rarity(one_in: float) -> tuple[str, int]:
    """Key and ``count`` of the sentence that says how rare such a likeness is, to two digits."""
    if one_in > RAREST:
        return "answer.rarest", RAREST
    digits = max(0, math.floor(math.log10(max(1.0, one_in))) - 1)
    count = round(one_in / 10**digits) * 10**digits
    return "answer.rarity" if count > 1 else "answer.common", count


def credit_of(portrait: Portrait, unknown_author: str) -> str:
    """Author, shortened, and licence on one line; "" if neither is known."""
    author = shorten(plain(portrait.author or ""), _AUTHOR_CHARS)
    parts = [part for part in (author, plain(portrait.licence or "")) if part]
    if portrait.licence and not portrait.author:
        parts = [unknown_author, *parts]
    return ", ".join(parts)


def shown_model(model: str, member_scores: Sequence[MemberScore]) -> str:
    """The model's name, and those of the models behind it: ``best (senet + dlib)``."""
    backbones = " + ".join(one.backbone for one in member_scores)
    return f"{model} ({backbones})" if member_scores else model


NOTICE_CHARS = 200


def utf16_length(text: str) -> int:
    """Length as Telegram and Discord count it: UTF-16 code units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def shorten(text: str, most: int) -> str:
    """The text, or its beginning and an ellipsis, in at most that many UTF-16 code units.

    What a reader sees as one character is never cut, nor is a directional isolate left open.
    """
    if utf16_length(text) <= most:
        return text
    if most < 1:
        return ""
    import regex

    room = most - 1  # for the ellipsis
    kept, open_isolates = "", 0
    for grapheme in regex.findall(r"\X", text):
        opened = open_isolates + grapheme.count("\N{FIRST STRONG ISOLATE}")
        opened = max(0, opened - grapheme.count("\N{POP DIRECTIONAL ISOLATE}"))
        # Each isolate that is still open needs one more unit to be closed.
        room -= utf16_length(grapheme) + opened - open_isolates
        if room < 0:
            break
        kept, open_isolates = kept + grapheme, opened
    return kept.rstrip() + "…" + "\N{POP DIRECTIONAL ISOLATE}" * open_isolates


def fit(reply: Reply, limits: Limits) -> Reply:
    """The same reply within the limits: longest lines shortened, least important buttons left out.

    A picture, animation or document that is too large is left out, and the text stays.
    """
    picture, document, animation = reply.picture, reply.document, reply.animation
    if picture and (
        len(picture.jpeg) > limits.picture_bytes
        or picture.width_px + picture.height_px > limits.picture_width_plus_height_px
    ):
        picture = None
    if document and len(document.content) > limits.document_bytes:
        document = None
    if animation and len(animation.content) > limits.animation_bytes:
        animation = None
    kept: dict[str, Any] = {"picture": picture, "document": document, "animation": animation}
    text = _fit_lines(reply.text, limits.caption_chars if any(kept.values()) else limits.text_chars)
    notice = None if reply.notice is None else shorten(reply.notice, NOTICE_CHARS)
    buttons = _fit_buttons(reply.buttons, limits)
    return dataclasses.replace(reply, text=text, notice=notice, buttons=buttons, **kept)


def _fit_lines(text: str, most: int) -> str:
    """Shortens the longest lines alike until the text fits; then cuts its end."""
    if utf16_length(text) <= most:
        return text
    lines = text.split("\n")

    def cut(line_chars: int) -> str:
        return "\n".join(shorten(line, line_chars) for line in lines)

    # The largest line length at which the whole fits.
    sizes = range(25, max(map(utf16_length, lines)) + 1)
    return shorten(cut(24 + bisect_right(sizes, most, key=lambda n: utf16_length(cut(n)))), most)


def grid(buttons: Sequence[Button], per_row: int) -> Rows:
    """Buttons in rows."""
    return tuple(tuple(buttons[at : at + per_row]) for at in range(0, len(buttons), per_row))


def _fit_buttons(rows: Rows, limits: Limits) -> Rows:
    fitting: list[tuple[Button, ...]] = []
    for row in rows:
        usable = [
            dataclasses.replace(button, label=shorten(button.label, limits.label_chars))
            for button in row
            if len(button.action.encode()) <= limits.action_bytes
        ]
        fitting += grid(usable, limits.buttons_per_row)
    return tuple(fitting[: limits.button_rows])
