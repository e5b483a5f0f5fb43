"""What an examination of a gallery finds, as values."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Examination", "Finding", "Kind", "Remedy", "Subject"]


class Kind(StrEnum):
    """What is wrong."""

    PICTURE = "unreadable picture"
    FACE = "no face where it should be"
    OTHER_VECTOR = "vector of another picture"
    VECTORS = "damaged vectors"
    CALIBRATION = "damaged scores"
    UNSEARCHABLE = "not searchable"
    STRAY = "files of nobody"
    NOBODY = "person without a portrait"
    EMPTY = "category without people"
    FACES = "several faces"
    OUTLIER = "unlike the person's others"
    MIXED = "different people under one name"
    COPY = "one picture, two names"
    TWO_NAMES = "one person, two names"


class Remedy(StrEnum):
    """What mending does about it."""

    NONE = "nothing: look yourself"
    FORGET = "forget the portrait, so that its source can bring it again"
    REMOVE = "remove the portrait and not take it again"
    DELETE = "remove the person"
    SWEEP = "delete it"
    EMBED = "make the missing vectors"
    REBUILD = "make the vectors anew from the pictures"
    LEARN = "learn the scores anew"
    MERGE = "make them one person"


@dataclass(frozen=True, slots=True)
class Subject:
    """A person or one of their portraits.

    Attributes:
        person_id: Whom.
        person: Their name.
        portrait_id: Which portrait; None for the person.
        picture: Where the portrait's picture is, as people can look it up; None if nowhere.
    """

    person_id: int
    person: str
    portrait_id: int | None = None
    picture: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As printed with ``--json``."""
        return {
            "person_id": self.person_id,
            "person": self.person,
            "portrait_id": self.portrait_id,
            "picture": self.picture,
        }


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong, or likely so.

    Attributes:
        kind: What.
        why: A sentence with the number that a person can judge it by.
        number: That number: a score from 0 to 100 for likenesses, else a count or a ratio.
        remedy: What mending does about it.
        subject: Whom or which portrait it concerns; None for the gallery.
        other: Somebody else involved.
        space_id: Whose vectors it concerns, or None.
    """

    kind: Kind
    why: str
    number: float
    remedy: Remedy = Remedy.NONE
    subject: Subject | None = None
    other: Subject | None = None
    space_id: str | None = None

    @property
    def mendable(self) -> bool:
        """Whether mending does anything about it."""
        return self.remedy is not Remedy.NONE

    def to_json(self) -> dict[str, Any]:
        """As printed with ``--json``."""
        return {
            "kind": str(self.kind),
            **(self.subject.to_json() if self.subject else {"person": None}),
            "why": self.why,
            "number": round(self.number, 3),
            "other": self.other.to_json() if self.other else None,
            "space": self.space_id,
            "fix": str(self.remedy) if self.mendable else None,
        }


@dataclass(slots=True)
class Examination:
    """What was looked at, found and mended.

    Attributes:
        backbone: Whose vectors compared faces; None if there were none.
        people: How many there are.
        portraits: How many there are.
        unchecked: What could not be checked, as sentences.
        findings: What is wrong and was not mended.
        mended: What was, in order.
        seconds: How long it took.
        interrupted: Whether it was stopped before the end; what was mended is kept.
    """

    backbone: str | None = None
    people: int = 0
    portraits: int = 0
    unchecked: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    mended: list[Finding] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False

    def kinds(self) -> Counter[str]:
        """How many findings there are of each kind."""
        return Counter(str(finding.kind) for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """As printed with ``--json``."""
        return {
            "model": self.backbone,
            "people": self.people,
            "portraits": self.portraits,
            "findings": [finding.to_json() for finding in self.findings],
            "findings_by_kind": dict(self.kinds().most_common()),
            "fixed": [finding.to_json() for finding in self.mended],
            "unchecked": self.unchecked,
            "seconds": round(self.seconds, 2),
            "interrupted": self.interrupted,
        }
