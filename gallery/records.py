"""Values of the gallery: people, portraits, matches; and how names are compared."""

import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from engine.align import yaw_degrees
from engine.types import Box, Space

_LARGE_PX: Final = 150  # a face that fills a card
_DETAILED: Final = 0.22  # bytes a pixel, of a sharp photo in good light

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
    """Somebody a source knows; the key is ``name:`` and the lower-case name, or a Wikidata id."""

    LEARNED: ClassVar = ("wikidata_id", "country", "gender", "fame")  # by what is found later, too

    key: str  # unique across sources
    name: str  # as shown
    categories: tuple[str, ...] = ()  # any case; added to those the person already has
    wikidata_id: str | None = None  # such as Q11641
    country: str | None = None  # as the source says, and so is the gender
    gender: str | None = None
    fame: int | None = None  # larger is more famous (number of Wikipedia articles)


@dataclass(frozen=True, slots=True)
class Person(FoundPerson):
    """Somebody in the gallery: names in Unicode NFC, categories in lower case, sorted.

    The id is never given to anybody else, even after removal.
    """

    id: int = field(kw_only=True)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Credit:
    """What a source says of a picture; None where it says nothing."""

    author: str | None = None  # who made it, plain text
    licence: str | None = None  # short name such as CC BY-SA 4.0
    licence_url: str | None = None  # where the licence is
    source_url: str | None = None  # the page the picture comes from


@dataclass(frozen=True, slots=True, eq=False)
class Thumbnail:
    """What is kept of a picture, and where the face is in it, in its pixels."""

    jpeg: bytes | None  # the file; None of a portrait without its photo
    width_px: int
    height_px: int
    landmarks: NDArray[np.float32]  # (5, 2), in the order of engine.types.Face
    box: Box


@dataclass(frozen=True, slots=True, eq=False)
class Portrait(Credit):
    """One picture of one person; its id is never given to another.

    ``sha256`` is of the original file's bytes, in hexadecimal; the rest is as in ``Thumbnail``, or
    a silhouette's where the record is damaged, and not ``sound``.
    """

    id: int
    person_id: int
    sha256: str
    width_px: int
    height_px: int
    landmarks: NDArray[np.float32]
    box: Box
    sound: bool = True


def looks(portrait: Portrait, photo_bytes: int) -> float:
    """How good a portrait is to look at, 0 to 1, as far as it is known without decoding it.

    The face is large, seen from the front, and there is room around it; the JPEG, of which every
    one is kept in the same quality, has many bytes a pixel: it is sharp, and its light is good.
    """
    box, points = portrait.box, portrait.landmarks
    left, right, _, *corners = (complex(x, y) for x, y in points.tolist())
    eyes, mouth = (left + right) / 2, sum(corners) / 2
    above, below = eyes.imag, portrait.height_px - mouth.imag
    drop = max(abs(mouth - eyes), 1.0)
    detail = photo_bytes / (portrait.width_px * portrait.height_px) / _DETAILED
    aside = min(1.0, abs(yaw_degrees(points)) / 50.0)
    room = max(min(above / (2.0 * drop), below / (1.2 * drop), 1.0), 0.0)
    size = min(1.0, min(box.w, box.h) / _LARGE_PX)
    size *= portrait.sound
    return size * math.sqrt(min(1.0, detail)) * (1 - 0.6 * aside**2) * (0.7 + 0.3 * room)


@dataclass(frozen=True, slots=True)
class FoundPortrait(Credit):
    """A picture that should show one person.

    ``read`` gives its bytes; it raises PhotoProblem if there are too many (the argument is the most
    that will be looked at) and OSError if it can't be read.
    """

    person: FoundPerson
    origin: str  # how reports name the picture: a path below the folder, or a page
    read: Callable[[int], bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Hit:
    """A person found: their portrait most like the face, and the likeness to them, in [-1, 1]."""

    person_id: int
    portrait_id: int
    cosine: float


@dataclass(frozen=True, slots=True)
class MemberScore:
    """What one of several backbones alone says of a match: cosine in [-1, 1], score 0 to 100."""

    backbone: str
    cosine: float
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """A person who resembles the face that was asked about.

    ``cosine`` is the likeness to the person, in [-1, 1] (gallery/likeness.py), of an ensemble the
    fused value; ``thumbnail`` reads the portrait's JPEG, see ``gallery.gallery.Gallery.thumbnail``.
    """

    person: Person
    portrait: Portrait  # most like it of theirs, or one that is much better to look at
    cosine: float
    score: float  # 0 to 100, the same meaning in every space
    one_in: float  # so many strangers one has a likeness this high; at least 1
    thumbnail: Callable[[], bytes] = field(repr=False)
    member_scores: tuple[MemberScore, ...] = ()  # of an ensemble, the weightiest backbone first


@dataclass(frozen=True, slots=True)
class Stats:
    """How many people and portraits there are.

    People per category, searchable portraits per space, pictures that were not taken by reason.
    """

    people: int
    portraits: int
    categories: dict[str, int]
    vectors: dict[Space, int]
    rejections: dict[str, int]


@dataclass(frozen=True, slots=True)
class Banned:
    """People who asked to be removed: folded name and Wikidata id, if it is known, by key."""

    keys: Mapping[str, tuple[str, str | None]]

    def __contains__(self, person: FoundPerson) -> bool:
        """Whether somebody is one of them.

        Two people with Wikidata ids are told apart by these; where one of the two has none, the
        same name means the same person: rather one too many stays away.
        """
        mine, called = person.wikidata_id, folded(person.name)
        return person.key in self.keys or any(
            mine == theirs if mine and theirs else called == name
            for name, theirs in self.keys.values()
        )


def folded(name: str) -> str:
    """A name for comparing: no case, no Latin, Greek or Cyrillic accents, single spaces."""
    spread = unicodedata.normalize("NFKD", name)
    bare = re.sub("[\u0300-\u036f]", "", spread).replace("_", " ")
    return " ".join(unicodedata.normalize("NFKC", bare).casefold().split())


def category_name(words: str) -> str:
    """A category as it is kept: lower case, single spaces, Unicode NFC."""
    return " ".join(unicodedata.normalize("NFC", words).replace("_", " ").casefold().split())


def knows_more(person: FoundPerson, owner: Person) -> bool:
    """Whether a source knows something of a person that the gallery doesn't."""
    joins = {category_name(name) for name in person.categories} - set(owner.categories)
    more = ((getattr(person, name), getattr(owner, name)) for name in FoundPerson.LEARNED)
    return bool(joins) or any(new not in (None, old) for new, old in more)
