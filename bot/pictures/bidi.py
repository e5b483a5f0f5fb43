"""The order in which the characters of a line stand, left to right.

The implicit part of Unicode Standard Annex 9 (revision 50): rules P2 to P3, W1 to W7, N0 to N2,
I1, I2 and L2. Explicit embeddings and isolates do not occur: names are cleaned of them, since they
could make one name look like another.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

__all__ = ["base_level", "embedding_levels", "visual_order"]

_CLOSING = {"(": ")", "[": "]", "{": "}"}
_RIGHT = {"R", "AL", "AN"}
_NEUTRAL = {"B", "S", "WS", "ON", "ES", "ET", "CS", "BN", "NSM"}


def base_level(text: str) -> int:
    """1 if the first letter is written right to left, else 0 (rules P2 and P3)."""
    for char in text:
        kind = unicodedata.bidirectional(char)
        if kind in {"L", "R", "AL"}:
            return int(kind != "L")
    return 0


def embedding_levels(text: str, base: int) -> tuple[int, ...]:
    """The level of every character: odd ones are written right to left.

    Args:
        text: One line without explicit directional controls.
        base: Level of the paragraph, 0 or 1.
    """
    if not base and (
        text.isascii() or not _RIGHT.intersection(map(unicodedata.bidirectional, text))
    ):
        return (0,) * len(text)
    start = "R" if base else "L"
    kinds = [unicodedata.bidirectional(char) or "ON" for char in text]
    _resolve_weak(kinds, start)
    _resolve_brackets(text, kinds, start)
    _resolve_neutral(kinds, start)
    return tuple(_implicit_level(kind, base) for kind in kinds)


def _implicit_level(kind: str, base: int) -> int:
    if base:
        return 1 if kind == "R" else 2
    return {"L": 0, "R": 1}.get(kind, 2)


def _resolve_weak(kinds: list[str], start: str) -> None:
    previous = start
    for at, kind in enumerate(kinds):  # W1
        previous = kinds[at] = previous if kind == "NSM" else kind
    strong = start
    for at, kind in enumerate(kinds):  # W2
        if kind in {"L", "R", "AL"}:
            strong = kind
        elif kind == "EN" and strong == "AL":
            kinds[at] = "AN"
    kinds[:] = ["R" if kind == "AL" else kind for kind in kinds]  # W3
    for at in range(1, len(kinds) - 1):  # W4
        before, kind, after = kinds[at - 1 : at + 2]
        if before == after and ((kind == "ES" and before == "EN") or (kind == "CS")):
            kinds[at] = before if before in {"EN", "AN"} else kind
    _resolve_terminators(kinds)
    strong = start
    for at, kind in enumerate(kinds):  # W7
        if kind in {"L", "R"}:
            strong = kind
        elif kind == "EN" and strong == "L":
            kinds[at] = "L"


def _resolve_terminators(kinds: list[str]) -> None:
    at = 0
    while at < len(kinds):  # W5
        end = at
        while end < len(kinds) and kinds[end] in {"ET", "BN"}:
            end += 1
        beside = (at > 0 and kinds[at - 1] == "EN") or (end < len(kinds) and kinds[end] == "EN")
        if end > at and beside:
            kinds[at:end] = ["EN"] * (end - at)
        at = end + 1
    kinds[:] = ["ON" if kind in {"ES", "ET", "CS"} else kind for kind in kinds]  # W6


def _direction(kind: str) -> str | None:
    if kind in {"R", "EN", "AN"}:
        return "R"
    return "L" if kind == "L" else None


def _resolve_brackets(text: str, kinds: list[str], start: str) -> None:
    for first, last in _bracket_pairs(text, kinds):  # N0
        inside = {_direction(kind) for kind in kinds[first + 1 : last]} - {None}
        if not inside:
            continue
        side = start
        if start not in inside:
            before = (_direction(kind) for kind in reversed(kinds[:first]))
            side = next((found for found in before if found), start)
        for bracket in (first, last):
            kinds[bracket] = side
            for at in range(bracket + 1, len(kinds)):  # marks on a bracket go with it
                if unicodedata.bidirectional(text[at]) != "NSM":
                    break
                kinds[at] = side


def _bracket_pairs(text: str, kinds: Sequence[str]) -> list[tuple[int, int]]:
    waiting: list[tuple[str, int]] = []
    pairs = []
    for at, char in enumerate(text):
        if kinds[at] != "ON":
            continue
        if char in _CLOSING:
            waiting.append((_CLOSING[char], at))
        for depth in reversed(range(len(waiting))):
            if waiting[depth][0] == char:
                pairs.append((waiting[depth][1], at))
                del waiting[depth:]
                break
    return sorted(pairs)


def _resolve_neutral(kinds: list[str], start: str) -> None:
    at = 0
    while at < len(kinds):  # N1 and N2
        end = at
        while end < len(kinds) and kinds[end] in _NEUTRAL:
            end += 1
        if end > at:
            before = _direction(kinds[at - 1]) if at else start
            after = _direction(kinds[end]) if end < len(kinds) else start
            kinds[at:end] = [before if before == after and before else start] * (end - at)
        at = end + 1


def visual_order(levels: Sequence[int]) -> tuple[int, ...]:
    """Indices of the items from left to right (rule L2)."""
    order = list(range(len(levels)))
    for level in range(max(levels, default=0), 0, -1):
        at = 0
        while at < len(order):
            end = at
            while end < len(order) and levels[order[end]] >= level:
                end += 1
            order[at:end] = reversed(order[at:end])
            at = end + 1
    return tuple(order)
