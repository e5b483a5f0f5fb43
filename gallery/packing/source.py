"""A gallery as contents to take along: everybody in order, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from engine.types import Space
from gallery.gallery import Gallery
from gallery.packing.contents import (
    BATCH_PORTRAITS,
    Batch,
    PackedPerson,
    PackedPortrait,
    PackedSpace,
    Rows,
    StaysAway,
)
from gallery.packing.fields import MOST, MOST_CATEGORIES, MOST_FAME, WIKIDATA_ID, plain_text
from gallery.records import FoundPerson, Person, Portrait, folded
from gallery.scores import read_learned
from gallery.tables import BannedRow, PersonRow, PortraitRow

if TYPE_CHECKING:
    from gallery.scores import Calibration

__all__ = ["GalleryContents"]


class GalleryContents:
    """What a gallery holds; nobody may change it meanwhile.

    Args:
        gallery: Read through its own methods, wherever it keeps its things.

    Attributes:
        portrait_ids: int64 (n,), by person and then by id: the order of ``batches``.
        people: How many people there are.
        spaces: Those in which somebody has a vector.
    """

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        with gallery.reading() as connection:
            order = select(PortraitRow.id).order_by(PortraitRow.person_id, PortraitRow.id)
            self.portrait_ids: NDArray[np.int64] = _ids(connection.scalars(order))
            owners = select(PortraitRow.person_id).distinct()
            bare = select(PersonRow.id).where(PersonRow.id.not_in(owners)).order_by(PersonRow.id)
            self._bare = _ids(connection.scalars(bare))
        self.people, _ = gallery.counts()
        self._embedded = {space: gallery.embedded(space) for space in gallery.spaces()}
        self.spaces = tuple(
            PackedSpace(space, len(ids), self._learned(space))
            for space, ids in self._embedded.items()
        )

    @property
    def portraits(self) -> int:
        """How many portraits there are."""
        return len(self.portrait_ids)

    def never_again(self) -> tuple[StaysAway, ...]:
        """Who was removed for good, by key."""
        with self._gallery.reading() as connection:
            rows = connection.execute(select(BannedRow).order_by(BannedRow.key)).all()
        return tuple(StaysAway(row.key, row.name, row.wikidata_id) for row in rows)

    def batches(self) -> Iterator[Batch]:
        """Everybody with a portrait by id, then those without."""
        for start in range(0, len(self.portrait_ids), BATCH_PORTRAITS):
            ids = self.portrait_ids[start : start + BATCH_PORTRAITS]
            rows = {}
            for space in self._embedded:
                places = self.places(space, ids)
                rows[space] = Rows(places, self._gallery.vectors(space, ids[places]))
            yield Batch(self.packed_people(ids), rows)
        for start in range(0, len(self._bare), BATCH_PORTRAITS):
            yield Batch(self.bare_people(start, start + BATCH_PORTRAITS), {})

    def packed_people(self, portrait_ids: NDArray[np.int64]) -> tuple[PackedPerson, ...]:
        """The people of neighbouring portraits, each with those of them that are theirs."""
        portraits = self._gallery.portraits_by_id(portrait_ids.tolist())
        whose: dict[int, list[PackedPortrait]] = {}
        for one in portrait_ids.tolist():
            portrait = portraits[one]
            whose.setdefault(portrait.person_id, []).append(self._packed(portrait))
        people = self._gallery.people_by_id(whose)
        return tuple(
            PackedPerson(_found(people[person_id]), tuple(theirs))
            for person_id, theirs in whose.items()
        )

    def bare_people(self, first: int = 0, last: int | None = None) -> tuple[PackedPerson, ...]:
        """Those without a portrait, by id, from one place to another."""
        ids = self._bare[first:last].tolist()
        people = self._gallery.people_by_id(ids)
        return tuple(PackedPerson(_found(people[one]), ()) for one in ids)

    def places(self, space: Space, portrait_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which of the portraits have a vector in a space: places among them, rising."""
        return np.flatnonzero(np.isin(portrait_ids, self._embedded[space])).astype(np.int64)

    def vectors(self, space: Space, portrait_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors of portraits that have one: float32 (n, D), in that order."""
        return self._gallery.vectors(space, portrait_ids)

    def _learned(self, space: Space) -> Calibration | None:
        learned = read_learned(self._gallery, space)
        return learned.calibration if learned else None

    def _packed(self, portrait: Portrait) -> PackedPortrait:
        def photo() -> bytes | None:
            return self._gallery.photo(portrait)

        return PackedPortrait(
            sha256=portrait.sha256,
            width_px=portrait.width_px,
            height_px=portrait.height_px,
            landmarks=portrait.landmarks,
            box=portrait.box,
            author=_cut(portrait.author, "author"),
            licence=_cut(portrait.licence, "license"),
            licence_url=_cut(portrait.licence_url, "license_url"),
            source_url=_cut(portrait.source_url, "source_url"),
            photo=photo,
        )


def _ids(values: Iterable[int]) -> NDArray[np.int64]:
    return np.fromiter(values, dtype=np.int64)


def _found(person: Person) -> FoundPerson:
    """A person as sources hand them over, in fields that fit everywhere."""
    categories = (_cut(one, "category") for one in person.categories[:MOST_CATEGORIES])
    known = WIKIDATA_ID.fullmatch(person.wikidata_id or "")
    name = person.name[: MOST["name"]]
    return FoundPerson(
        key=person.key[: MOST["key"]],
        name=name if folded(plain_text(name)) else person.key[: MOST["key"]],
        categories=tuple(one for one in categories if one),
        wikidata_id=known.group() if known else None,
        country=_cut(person.country, "country"),
        gender=_cut(person.gender, "gender"),
        fame=None if person.fame is None else min(max(person.fame, 0), MOST_FAME),
    )


def _cut(text: str | None, field: str) -> str | None:
    return None if text is None else text[: MOST[field]]
