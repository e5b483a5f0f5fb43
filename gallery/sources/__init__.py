"""Where people and portraits come from: what every source hands over.

A source yields pictures in any order; the same person may come again and again, known by their
key. What is done with them (screening, thumbnails, vectors) is the same for every source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["FoundPerson", "FoundPortrait"]


@dataclass(frozen=True, slots=True)
class FoundPerson:
    """Somebody a source knows.

    Attributes:
        key: Unique across sources: ``name:`` and the name in lower case, or a Wikidata id.
        name: As shown.
        categories: Any case; they are added to those the person already has.
        wikidata_id: Such as ``Q11641``.
        country: Free text.
        gender: Free text.
        fame: Larger is more famous.
    """

    key: str
    name: str
    categories: tuple[str, ...] = ()
    wikidata_id: str | None = None
    country: str | None = None
    gender: str | None = None
    fame: int | None = None


@dataclass(frozen=True, slots=True)
class FoundPortrait:
    """A picture that should show one person.

    Attributes:
        person: Whom.
        origin: How reports name the picture: a path below the folder, or a page.
        read: The bytes of the picture; raises PhotoProblem if there are too many (the argument
            is the most that will be looked at) and OSError if it can't be read.
        author: Who made it, plain text.
        licence: Short name.
        licence_url: Where the licence is.
        source_url: The page it comes from.
    """

    person: FoundPerson
    origin: str
    read: Callable[[int], bytes] = field(repr=False)
    author: str | None = None
    licence: str | None = None
    licence_url: str | None = None
    source_url: str | None = None
