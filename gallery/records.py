"""Values of the gallery: people, portraits, matches; and how names are compared."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from engine.types import Box, Space

if TYPE_CHECKING:
    from gallery.scores.ensemble import MemberScore

REMOVED: Final = "removed, never again"
"""Why a photo of somebody who asked to be removed is not taken."""

# Words that sources use for a gender, lower case. Wikidata's items Q6581072 and Q6581097 arrive as
# "female" and "male", every other item of property P21 under its English label; the rest is what
# people write in lists. Whoever is said to be something else, or nothing, is found by every search
# that does not ask for a gender.
WOMEN: Final = frozenset({"female", "woman", "f", "w", "trans woman", "cisgender woman", "girl"})
MEN: Final = frozenset({"male", "man", "m", "trans man", "cisgender man", "boy"})


@dataclass(frozen=True, slots=True)
class FoundPerson:
    """Somebody a source knows.

    Attributes:
        key: Unique across sources: ``name:`` and the name in lower case, or a Wikidata id.
        name: As shown.
        categories: Any case; they are added to those the person already has.
        wikidata_id: Such as ``Q11641``.
        country: As the source says.
        gender: As the source says.
        fame: Larger is more famous (number of Wikipedia articles).
    """

    key: str
    name: str
    categories: tuple[str, ...] = ()
    wikidata_id: str | None = None
    country: str | None = None
    gender: str | None = None
    fame: int | None = None


@dataclass(frozen=True, slots=True)
class Person(FoundPerson):
    """Somebody in the gallery: names in Unicode NFC, categories in lower case, sorted.

    Attributes:
        id: Never given to anybody else, even after removal.
    """

    id: int = field(kw_only=True)


@dataclass(frozen=True, slots=True, eq=False)
class Portrait:
    """One picture of one person.

    Attributes:
        id: Never given to another portrait.
        person_id: Whose.
        sha256: Of the original file's bytes, 64 hexadecimal digits.
        width_px: Width of the thumbnail.
        height_px: Height of the thumbnail.
        landmarks: float32 (5, 2), thumbnail pixels, in the order of ``engine.types.Face``.
        box: The face, thumbnail pixels.
        author: Who made the picture, plain text, or None.
        licence: Short name such as ``CC BY-SA 4.0``, or None.
        licence_url: Where the licence is, or None.
        source_url: The page the picture comes from, or None.
    """

    id: int
    person_id: int
    sha256: str
    width_px: int
    height_px: int
    landmarks: NDArray[np.float32]
    box: Box
    author: str | None = None
    licence: str | None = None
    licence_url: str | None = None
    source_url: str | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A picture that an earlier run did not take, and why."""

    reason: str


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


@dataclass(frozen=True, slots=True)
class Hit:
    """A person found.

    Attributes:
        person_id: Who.
        portrait_id: Their portrait that is most like the face.
        cosine: The likeness to the person, in [-1, 1] (gallery/likeness.py).
    """

    person_id: int
    portrait_id: int
    cosine: float


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """A person who resembles the face that was asked about.

    Attributes:
        person: Who.
        portrait: Their portrait that is most like it.
        cosine: Likeness to the person, in [-1, 1] (gallery/likeness.py); of an ensemble the fused
            value (gallery/scores/ensemble.py).
        score: 0 to 100, the same meaning in every space.
        one_in: A likeness this high is found between one in so many strangers; at least 1.
        thumbnail: Reads the portrait's JPEG, see ``gallery.gallery.Gallery.thumbnail``.
        member_scores: What each backbone of an ensemble says, the weightiest first; none of one
            backbone.
    """

    person: Person
    portrait: Portrait
    cosine: float
    score: float
    one_in: float
    thumbnail: Callable[[], bytes] = field(repr=False)
    member_scores: tuple[MemberScore, ...] = ()


@dataclass(frozen=True, slots=True)
class Stats:
    """What there is.

    Attributes:
        people: How many.
        portraits: How many.
        categories: People per category.
        vectors: Portraits that can be searched, per space.
        rejections: Pictures that were not taken, by reason.
    """

    people: int
    portraits: int
    categories: dict[str, int]
    vectors: dict[Space, int]
    rejections: dict[str, int]


@dataclass(frozen=True, slots=True)
class Banned:
    """People who asked to be removed: no source brings them back.

    Attributes:
        keys: Of people.
        wikidata_ids: Theirs, as far as they are known.
        names: Folded names of all of them.
        bare_names: Folded names of those without a Wikidata id.
    """

    keys: frozenset[str]
    wikidata_ids: frozenset[str]
    names: frozenset[str]
    bare_names: frozenset[str]

    def __contains__(self, person: FoundPerson) -> bool:
        """Whether somebody is one of them.

        Two people with Wikidata ids are told apart by these; where one of the two has none, the
        same name means the same person: rather one too many stays away.
        """
        if person.key in self.keys:
            return True
        if person.wikidata_id is not None:
            return person.wikidata_id in self.wikidata_ids or (
                folded(person.name) in self.bare_names
            )
        return folded(person.name) in self.names


def folded(name: str) -> str:
    """A name for comparing: no case, no Latin, Greek or Cyrillic accents, single spaces."""
    spread = unicodedata.normalize("NFKD", name)
    bare = re.sub("[\u0300-\u036f]", "", spread).replace("_", " ")
    return " ".join(unicodedata.normalize("NFKC", bare).casefold().split())


def category_name(words: str) -> str:
    """A category as it is kept: lower case, single spaces, Unicode NFC."""
    return " ".join(unicodedata.normalize("NFC", words).replace("_", " ").casefold().split())
