"""Plural categories of the languages spoken, for whole numbers.

Source: Unicode CLDR 46, common/supplemental/plurals.xml.
"""

from __future__ import annotations

__all__ = ["plural_category"]


def plural_category(language: str, count: int) -> str:
    """``"one"``, ``"few"``, ``"many"`` or ``"other"`` for that many things."""
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
