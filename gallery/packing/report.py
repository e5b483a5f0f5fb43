"""What an export and an import did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from engine.types import Space
from gallery.progress import Rejection

__all__ = ["ExportReport", "ImportReport"]


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written.

    Attributes:
        people: How many.
        portraits: How many.
        photos: How many of these came along.
        vectors: How many, per space.
        stay_away: People who were removed for good.
        size_bytes: Of the file.
        seconds: How long it took.
    """

    people: int
    portraits: int
    photos: int
    vectors: dict[Space, int]
    stay_away: int
    size_bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As printed with ``--json``."""
        return {
            "people": self.people,
            "portraits": self.portraits,
            "photos": self.photos,
            "vectors": {space.id: count for space, count in self.vectors.items()},
            "never_again": self.stay_away,
            "bytes": self.size_bytes,
            "seconds": round(self.seconds, 3),
        }


@dataclass(slots=True)
class ImportReport:
    """What was taken in.

    Attributes:
        added: Portraits that are new.
        unchanged: Portraits that were there already.
        people_added: People who are new.
        without_photo: Portraits among the new ones whose photo did not come along.
        photos_brought: Photos for portraits that had none.
        rejected: Portraits not taken.
        vectors: Vectors that are new, per space.
        left_out: Spaces not taken, and why.
        taken_scores: Spaces whose calibration came along.
        stay_away: People who stay away from now on.
        seconds: How long it took.
        interrupted: Whether it was stopped before the end; what is done is kept.
    """

    added: int = 0
    unchanged: int = 0
    people_added: int = 0
    without_photo: int = 0
    photos_brought: int = 0
    rejected: list[Rejection] = field(default_factory=list)
    vectors: Counter[Space] = field(default_factory=Counter)
    left_out: dict[Space, str] = field(default_factory=dict)
    taken_scores: list[Space] = field(default_factory=list)
    stay_away: int = 0
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def portraits(self) -> int:
        """How many portraits were looked at."""
        return self.added + self.unchanged + len(self.rejected)

    def to_json(self) -> dict[str, Any]:
        """As printed with ``--json``."""
        reasons = Counter(one.reason.split(" of ")[0] for one in self.rejected)
        return {
            "added": self.added,
            "unchanged": self.unchanged,
            "people_added": self.people_added,
            "without_photo": self.without_photo,
            "photos_brought": self.photos_brought,
            "rejected": [
                {"photo": one.photo, "person": one.person, "reason": one.reason}
                for one in self.rejected
            ],
            "rejected_by_reason": dict(reasons.most_common()),
            "vectors": {space.id: count for space, count in self.vectors.items()},
            "left_out": {space.id: reason for space, reason in self.left_out.items()},
            "calibrations": [space.id for space in self.taken_scores],
            "never_again": self.stay_away,
            "seconds": round(self.seconds, 3),
            "interrupted": self.interrupted,
        }
