"""What a run did, and how it says how far it is."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done (``"photos"``, or the name of a backbone), how many are done, and
of how many (None if nobody knows)."""


def no_progress(what: str, done: int, total: int | None) -> None:
    """Tells nobody."""


def in_batches(ones: Any, size: int, what: str = "", tell: Progress = no_progress) -> Iterator[Any]:
    """Slices of so many of a sequence or array; tells after each how many are done."""
    for start in range(0, len(ones), size):
        yield ones[start : start + size]
        tell(what, min(start + size, len(ones)), len(ones))


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
    """What a run did."""

    added: int = 0  # portraits that are new
    unchanged: int = 0  # portraits that were there already
    people_added: int = 0  # people who are new
    rejected: list[Rejection] = field(default_factory=list)  # photos not taken
    embedded: Counter[str] = field(default_factory=Counter)  # vectors made, by backbone
    dropped: list[str] = field(default_factory=list)  # whose thumbnail is lost or damaged, by name
    astray: list[str] = field(default_factory=list)  # photos in nobody's folder
    closed: list[str] = field(default_factory=list)  # folders that can't be read
    ignored: list[str] = field(default_factory=list)  # files and folders, each with the reason
    strangers: list[str] = field(default_factory=list)  # names in people.csv that are nobody's
    notes: list[str] = field(default_factory=list)  # what was joined, how people.csv was read
    swept: int = 0  # files that nothing refers to, removed
    seconds: float = 0.0
    interrupted: bool = False  # before the end; what is done is kept

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
