"""What the bot says, by key and language, from the TOML files beside this module.

A sentence is a template with named placeholders (``{name}``), or a table of CLDR plural
categories (``one``, ``few``, ``many``, ``other``) chosen by the placeholder ``count``.
"""

from __future__ import annotations

import re
import string
import tomllib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

__all__ = ["FALLBACK", "LANGUAGES", "Wording", "isolate", "plain"]

LANGUAGES = ("en", "hi", "es", "ru")
FALLBACK = "en"

PLURALS = frozenset({"zero", "one", "two", "few", "many", "other"})

# Thousands separators by CLDR 46 (common/main/*.xml): Spanish groups from five digits on.
_THIN_SPACE = "\N{NARROW NO-BREAK SPACE}"
_NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"

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
    """Every sentence in every language.

    Args:
        sentences: Language -> key -> template, or plural category -> template.
    """

    def __init__(self, sentences: Mapping[str, Mapping[str, str | Mapping[str, str]]]) -> None:
        self._sentences = sentences

    @classmethod
    @lru_cache(maxsize=1)
    def load(cls) -> Wording:
        """The sentences that come with the program."""
        return cls({language: dict(_flat(_read(language))) for language in LANGUAGES})

    def language(self, tag: str | None) -> str:
        """The language spoken to somebody whose platform says ``tag``, such as ``"es-MX"``."""
        base = re.split("[-_]", tag or "", maxsplit=1)[0].lower()
        return base if base in self._sentences else FALLBACK

    def keys(self, language: str = FALLBACK) -> frozenset[str]:
        """Every key of that language."""
        return frozenset(self._sentences[language])

    def templates(self, key: str, language: str) -> Mapping[str, str]:
        """The templates of a key by plural category; ``"other"`` alone where there is one."""
        found = self._sentences[language][key]
        return {"other": found} if isinstance(found, str) else found

    def text(self, key: str, language: str | None = None, **details: object) -> str:
        """A sentence.

        Args:
            key: Such as ``"error.no_face"``.
            language: BCP 47 tag; English where it is not spoken.
            **details: Values of the placeholders. Integers are grouped as the language does;
                ``count`` chooses the plural. Strings stand as they are.

        Raises:
            KeyError: If the key, or a placeholder's value, is missing.
        """
        spoken = self.language(language)
        forms = self.templates(key, spoken)
        count = details.get("count")
        category = plural_category(spoken, count) if isinstance(count, int) else "other"
        template = forms.get(category) or forms["other"]
        return template.format_map(
            {
                name: self.number(value, spoken)
                if isinstance(value, int) and not isinstance(value, bool)
                else value
                for name, value in details.items()
            }
        )

    def number(self, value: int, language: str | None = None) -> str:
        """A whole number with the thousands separators of the language."""
        spoken = self.language(language)
        if spoken == "hi":
            return _indian(value)
        if spoken == "ru":
            return f"{value:,}".replace(",", _NO_BREAK_SPACE)
        if spoken == "es":
            return str(value) if abs(value) < 10_000 else f"{value:,}".replace(",", _THIN_SPACE)
        return f"{value:,}"


def placeholders(template: str) -> frozenset[str]:
    """Names of the placeholders of a template."""
    return frozenset(name for _, name, _, _ in string.Formatter().parse(template) if name)


def _indian(value: int) -> str:
    """12,34,567: the last three digits, then pairs."""
    sign, digits = ("-" if value < 0 else ""), str(abs(value))
    head, tail = digits[:-3], digits[-3:]
    pairs = re.sub(r"(?<=\d)(?=(?:\d\d)+$)", ",", head)
    return sign + (f"{pairs},{tail}" if pairs else tail)


def _read(language: str) -> dict[str, Any]:
    return tomllib.loads(
        (resources.files(__name__) / f"{language}.toml").read_text(encoding="utf-8")
    )


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
        return _russian(abs(count))
    if language == "hi":
        return "one" if count in (0, 1) else "other"
    if language == "es" and count and count % 1_000_000 == 0:
        return "many"
    return "one" if abs(count) == 1 else "other"


def _russian(count: int) -> str:
    tens, ones = count % 100, count % 10
    if ones == 1 and tens != 11:
        return "one"
    if 2 <= ones <= 4 and not 12 <= tens <= 14:
        return "few"
    return "many"
