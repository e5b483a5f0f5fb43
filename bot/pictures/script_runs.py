"""Text of mixed scripts as runs: neighbours that one typeface draws in one direction."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from bot.pictures.bidi import base_level, embedding_levels, visual_order
from bot.pictures.fonts import EMOJI, Typeface, candidates, covers, han_typeface

__all__ = ["Dressed", "Run", "cleaned", "dressed", "line_breaks", "runs_of"]

_MARKS_PER_LETTER = 4
"""More combining marks than this on one letter are decoration that climbs out of its line."""

_LONGEST = 400
"""Characters of a text that are looked at; more never fits a box."""

_JOINERS = {"\u200c", "\u200d"}
_VIRAMA = 9  # canonical combining class

Dressed = tuple[tuple[str, Typeface], ...]
"""Clusters (a letter with its marks, a joined emoji) in the order of reading, each with a typeface
that has a glyph for every character of it."""


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring characters of one typeface and one direction.

    Attributes:
        text: The characters in the order of reading.
        typeface: Has a glyph for each of them.
        level: Embedding level; odd: written right to left.
    """

    text: str
    typeface: Typeface
    level: int


def cleaned(text: str) -> str:
    """The text in Unicode's composed form without what can't or must not be drawn.

    Line ends become spaces; controls (those that turn the direction of writing too), lone
    surrogates, private and unassigned characters go, and so do all but a few combining marks on
    one letter.
    """
    kept: list[str] = []
    marks = 0
    for char in unicodedata.normalize("NFC", text[: 4 * _LONGEST]):
        category = unicodedata.category(char)
        marks = marks + 1 if category in {"Mn", "Me"} else 0
        if char.isspace():
            kept.append(" ")
        elif marks > _MARKS_PER_LETTER:
            continue
        elif category[0] != "C" or char in _JOINERS or _is_tag(char):
            kept.append(char)
    return " ".join("".join(kept)[:_LONGEST].split())


def _is_tag(char: str) -> bool:
    """The characters that spell the flags of England, Scotland and Wales."""
    return 0xE0020 <= ord(char) <= 0xE007F


def _is_regional(text: str) -> bool:
    return len(text) == 1 and 0x1F1E6 <= ord(text) <= 0x1F1FF


def _belongs(char: str, piece: str) -> bool:
    """Whether the character must not be parted from the cluster before it."""
    category = unicodedata.category(char)[0]
    return (
        category == "M"
        or char in _JOINERS
        or _is_tag(char)
        or (piece[-1] == "\u200d" and category != "Z")
        or 0x1F3FB <= ord(char) <= 0x1F3FF  # skin tones
        or (category == "L" and unicodedata.combining(piece[-1]) == _VIRAMA)
        or (_is_regional(char) and _is_regional(piece))
    )


def _clusters(text: str) -> Iterator[str]:
    piece = ""
    for char in text:
        if piece and not _belongs(char, piece):
            yield piece
            piece = ""
        piece += char
    if piece:
        yield piece


def _needs_glyph(char: str) -> bool:
    """Joiners, variation selectors and tags steer the shaping and are drawn as nothing."""
    return not (char in _JOINERS or 0xFE00 <= ord(char) <= 0xFE0F or _is_tag(char))


def _choose(cluster: str, han: Typeface, current: Typeface | None) -> Typeface | None:
    """The typeface for a cluster; digits, spaces and signs stay with their neighbour."""
    visible = [char for char in cluster if _needs_glyph(char)]
    if not visible:
        return None
    neutral = unicodedata.category(cluster[0])[0] not in "LM" and current != EMOJI
    if current and neutral and all(covers(current, char) for char in visible):
        return current
    for face in candidates(visible[0], han):
        if all(covers(face, char) for char in visible):
            return face
    return None


@lru_cache(maxsize=1024)
def dressed(text: str) -> Dressed:
    """The clusters of cleaned text with their typefaces.

    What no installed typeface has a glyph for is left out: first the marks on a letter, then the
    letter.
    """
    han = han_typeface(text)
    found: list[tuple[str, Typeface]] = []
    current: Typeface | None = None
    for cluster in _clusters(text):
        for drawn in (cluster, cluster[0]):
            face = _choose(drawn, han, current)
            if face is not None:
                found.append((drawn, face))
                current = face
                break
    return tuple(found)


def runs_of(clusters: Sequence[tuple[str, Typeface]], base: int | None = None) -> tuple[Run, ...]:
    """One line as runs, from left to right.

    Args:
        clusters: A part of what ``dressed`` returned.
        base: Level of the paragraph that the line belongs to; None: the line is all of it.
    """
    text = "".join(cluster for cluster, _ in clusters)
    levels = embedding_levels(text, base_level(text) if base is None else base)
    runs: list[Run] = []
    at = 0
    for cluster, face in clusters:
        level = levels[at]
        at += len(cluster)
        last = runs[-1] if runs else None
        if last and last.typeface == face and last.level == level:
            runs[-1] = Run(last.text + cluster, face, level)
        else:
            runs.append(Run(cluster, face, level))
    return tuple(runs[at] for at in visual_order([run.level for run in runs]))


def line_breaks(clusters: Sequence[tuple[str, Typeface]]) -> Iterator[int]:
    """Where a line may end: after a space or hyphen, and between ideographs, kana and emoji."""
    for at in range(1, len(clusters)):
        before, after = clusters[at - 1][0], clusters[at][0]
        if after == " ":
            continue
        if before in {" ", "-"} or (_stands_alone(before) and _stands_alone(after)):
            yield at


def _stands_alone(cluster: str) -> bool:
    first = cluster[0]
    ideograph = "\u3041" <= first <= "\u9fff" or "\U00020000" <= first <= "\U0003ffff"
    return ideograph or unicodedata.category(first) == "So"
