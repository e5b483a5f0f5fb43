"""What travels from one gallery to another, as values: in a file, or straight across.

People come in batches, each with its portraits and their vectors, so that memory stays flat and
every batch can count whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.types import Box, Space
from gallery.records import FoundPerson

if TYPE_CHECKING:
    from gallery.scores import Calibration

__all__ = [
    "BATCH_PORTRAITS",
    "Batch",
    "Contents",
    "PackedPerson",
    "PackedPortrait",
    "PackedSpace",
    "Rows",
    "StaysAway",
    "in_batches",
]

BATCH_PORTRAITS: Final = 512


@dataclass(frozen=True, slots=True, eq=False)
class PackedPortrait:
    """A portrait on its way.

    Attributes:
        sha256: Of the original file's bytes, 64 hexadecimal digits.
        width_px: Width of the thumbnail.
        height_px: Height of the thumbnail.
        landmarks: float32 (5, 2), thumbnail pixels.
        box: The face, thumbnail pixels.
        author: Plain text, or None.
        licence: Short name, or None.
        licence_url: Or None.
        source_url: Or None.
        photo: Reads the thumbnail: its bytes, or None if there is none (any more). Raises OSError
            if the bytes are not those that were packed. None if none comes along.
    """

    sha256: str
    width_px: int
    height_px: int
    landmarks: NDArray[np.float32]
    box: Box
    author: str | None = None
    licence: str | None = None
    licence_url: str | None = None
    source_url: str | None = None
    photo: Callable[[], bytes | None] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class PackedPerson:
    """A person on their way, with some or all of their portraits, or none."""

    person: FoundPerson
    portraits: tuple[PackedPortrait, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Vectors of one space.

    Attributes:
        places: int64 (n,), rising: whose each is, among the batch's portraits in their order.
        vectors: float32 (n, D), unit length.
    """

    places: NDArray[np.int64]
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What counts whole or not at all; someone with many portraits may come in several batches."""

    people: tuple[PackedPerson, ...]
    rows: Mapping[Space, Rows]


@dataclass(frozen=True, slots=True)
class PackedSpace:
    """A space of which vectors come along.

    Attributes:
        space: Which.
        rows: How many vectors.
        calibration: As learned from them, or None.
    """

    space: Space
    rows: int
    calibration: Calibration | None = None


@dataclass(frozen=True, slots=True)
class StaysAway:
    """Somebody who was removed for good, by key, name and Wikidata id."""

    key: str
    name: str
    wikidata_id: str | None = None


class Contents(Protocol):
    """A gallery to take in."""

    @property
    def portraits(self) -> int:
        """How many portraits there are."""

    @property
    def spaces(self) -> tuple[PackedSpace, ...]:
        """Of which spaces there are vectors."""

    def never_again(self) -> tuple[StaysAway, ...]:
        """Who was removed for good."""

    def batches(self) -> Iterator[Batch]:
        """Everybody."""


def in_batches(
    everybody: Iterator[tuple[FoundPerson, PackedPortrait | None]],
) -> Iterator[tuple[PackedPerson, ...]]:
    """People with their portraits, so many at a time."""
    batch: list[tuple[FoundPerson, list[PackedPortrait]]] = []
    for count, (person, portrait) in enumerate(everybody, 1):
        if not batch or batch[-1][0] is not person:
            batch.append((person, []))
        if portrait is not None:
            batch[-1][1].append(portrait)
        if count % BATCH_PORTRAITS == 0:
            yield _packed(batch)
            batch = []
    if batch:
        yield _packed(batch)


def _packed(batch: list[tuple[FoundPerson, list[PackedPortrait]]]) -> tuple[PackedPerson, ...]:
    return tuple(PackedPerson(person, tuple(portraits)) for person, portraits in batch)
