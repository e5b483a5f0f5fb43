"""What a run did, and how it says how far it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done (``"photos"``, or the name of a backbone), how many are done, and
of how many (None if nobody knows)."""


def no_progress(what: str, done: int, total: int | None) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A photo that did not become somebody's portrait, as its source calls it.

    The reason is a ``gallery.screen.Reason``, for duplicates followed by whose it is.
    """

    photo: str
    person: str
    reason: str


@dataclass(slots=True)
class Report:
    """What a run did.

    Attributes:
        added: Portraits that are new.
        unchanged: Portraits that were there already.
        people_added: People who are new.
        rejected: Photos not taken.
        embedded: Vectors made, per backbone.
        dropped: Portraits of the catalogue whose thumbnail is lost or damaged, as person names.
        astray: Photos in nobody's folder.
        closed: Folders that can't be read.
        ignored: Files and folders that were not looked at, each with the reason.
        strangers: Names in the folder's people.csv that are nobody's there.
        notes: What else was decided about the folder: what was joined, how people.csv was read.
        swept: Files that nothing refers to, removed.
        seconds: How long it took.
        interrupted: Whether it was stopped before the end; what is done is kept.
    """

    added: int = 0
    unchanged: int = 0
    people_added: int = 0
    rejected: list[Rejection] = field(default_factory=list)
    embedded: Counter[str] = field(default_factory=Counter)
    dropped: list[str] = field(default_factory=list)
    astray: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    swept: int = 0
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def photos(self) -> int:
        """How many photos were looked at."""
        return self.added + self.unchanged + len(self.rejected)

    @property
    def photos_per_s(self) -> float:
        """Photos looked at in a second."""
        return self.photos / self.seconds if self.seconds > 0 else 0.0

    def reasons(self) -> Counter[str]:
        """Rejections by reason; duplicates together."""
        return Counter(
            "duplicate" if r.reason.startswith("duplicate of") else r.reason for r in self.rejected
        )

    def to_json(self) -> dict[str, Any]:
        """As printed with ``--json``."""
        return {one.name: getattr(self, one.name) for one in fields(self)} | {
            "rejected": [asdict(one) for one in self.rejected],
            "embedded": dict(self.embedded),
            "rejected_by_reason": dict(self.reasons().most_common()),
            "seconds": round(self.seconds, 3),
            "photos_per_s": round(self.photos_per_s, 1),
        }
