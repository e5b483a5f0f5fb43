"""Fields of records that nobody trusts: texts, numbers and links, checked one by one.

Every fault is a ValueError.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

from gallery.records import folded

__all__ = [
    "MOST",
    "MOST_CATEGORIES",
    "MOST_FAME",
    "WIKIDATA_ID",
    "coordinate",
    "link",
    "maybe",
    "name_of",
    "numbers",
    "plain_text",
    "sha256_of",
    "text",
    "whole_number",
    "wikidata_id",
]

_MOST_COORDINATE_PX: Final = 20_000.0
MOST: Final = {
    "key": 400,
    "name": 400,
    "country": 100,
    "gender": 50,
    "category": 200,
    "author": 1000,
    "license": 200,
    "license_url": 1000,
    "source_url": 2000,
}
"""Characters of a field; as wide as the columns (gallery/tables.py), which SQLite does not mind."""

MOST_CATEGORIES: Final = 100
MOST_FAME: Final = 2**31 - 1

_MOST_FOLDED: Final = 800  # as wide as the column

_SHA256 = re.compile(r"[0-9a-f]{64}")
WIKIDATA_ID: Final = re.compile(r"Q[1-9][0-9]{0,18}")
_UNRULY = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_UNPRINTED: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})


def plain_text(text: str) -> str:
    """A text from anywhere on one line, without what is not printed or rearranges what is."""
    if text.isascii() and text.isprintable():  # as almost all are
        return " ".join(text.split())
    ruly = _UNRULY.sub("", unicodedata.normalize("NFC", text))
    printed = (" " if unicodedata.category(one) in _UNPRINTED else one for one in ruly)
    return " ".join("".join(printed).split())


def whole_number(value: Any, most: int, least: int = 0) -> int:
    """A whole number in a range.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{str(value)[:40]!r} is no number from {least} to {most}")
    return value


def sha256_of(value: Any) -> str:
    """64 hexadecimal digits.

    Raises:
        ValueError: If it is something else.
    """
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ValueError("something that is no SHA-256")
    return value


def text(record: Mapping[str, Any], field: str) -> str:
    """A text that must be there; see ``maybe``."""
    value = maybe(record, field)
    if value is None:
        raise ValueError(f"no {field}")
    return value


def maybe(record: Mapping[str, Any], field: str) -> str | None:
    """A text on one line, without what could rearrange the text around it; None for none."""
    value, most = record.get(field), MOST[field]
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"{field} is no text")  # noqa: TRY004 - every fault of a file is one
    plain = plain_text(value[: 4 * most])
    if len(plain) > most:
        raise ValueError(f"{field} has more than {most} characters")
    return plain or None


def name_of(record: Mapping[str, Any]) -> str:
    """A person's name: one that can be compared and fits its columns."""
    name = text(record, "name")
    if not 0 < len(folded(name)) <= _MOST_FOLDED:
        raise ValueError("a name that can't be compared")
    return name


def wikidata_id(record: Mapping[str, Any]) -> str | None:
    """A Wikidata id such as ``Q11641``, or None."""
    value = record.get("wikidata_id")
    if value is not None and not (isinstance(value, str) and WIKIDATA_ID.fullmatch(value)):
        raise ValueError("a Wikidata id that is none")
    return value


def link(record: Mapping[str, Any], field: str) -> str | None:
    """An address on the web; None without one, and for what only looks like one."""
    value = maybe(record, field)
    known = value is not None and value.startswith(("https://", "http://")) and " " not in value
    return value if known else None


def numbers(record: Mapping[str, Any], field: str, count: int) -> list[Any]:
    """A list of so many things, to be checked one by one."""
    value = record.get(field)
    if not isinstance(value, list) or len(value) != count:
        raise ValueError(f"{field} are not {count} numbers")
    return value


def coordinate(value: Any) -> float:
    """A finite number of pixels, within reason."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or abs(value) > _MOST_COORDINATE_PX:
        raise ValueError(f"{str(value)[:40]!r} is no coordinate")
    return float(value)
