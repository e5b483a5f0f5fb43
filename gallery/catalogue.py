"""Who is in the gallery: people, portraits and what is known of each. Reading only.

Writes are in gallery/registrar.py. Look-ups by id cost the same however many people there are.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, Select, func, or_, select

from engine.types import Box
from gallery.records import Person, Portrait, Rejected, category_name, folded, thumbnail_path
from gallery.spaces import SpaceState, space_states
from gallery.tables import (
    CategoryRow,
    PersonCategoryRow,
    PersonRow,
    PortraitRow,
    RejectionRow,
    RevisionRow,
)

if TYPE_CHECKING:
    from sqlalchemy import Row

__all__ = ["Catalogue", "revision"]

Value = TypeVar("Value")

_CHUNK = 500  # values in one IN (...); SQLite's oldest limit is 999


class Catalogue:
    """Reads the tables.

    Args:
        database: Migrated, with the pragmas of gallery/database.py.
        portraits_folder: Where the thumbnails are.
    """

    def __init__(self, database: Engine, portraits_folder: Path) -> None:
        self.database = database
        self.portraits_folder = portraits_folder

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """One consistent view, whatever other processes write meanwhile."""
        with self.database.connect() as connection:
            yield connection

    def revision(self) -> int:
        """A number that has risen if anything has changed."""
        with self.snapshot() as connection:
            return revision(connection)

    def people(self, category: str | None = None) -> tuple[Person, ...]:
        """Everybody, or everybody in one category, by name."""
        query = select(PersonRow).order_by(PersonRow.folded_name, PersonRow.id)
        if category is not None:
            query = query.where(PersonRow.id.in_(_in_category(category)))
        with self.snapshot() as connection:
            return self._people(connection, query)

    def people_by_id(self, ids: Collection[int]) -> dict[int, Person]:
        """The people with these ids; whoever is gone is missing."""
        with self.snapshot() as connection:
            return {
                person.id: person
                for chunk in _chunks(ids)
                for person in self._people(
                    connection, select(PersonRow).where(PersonRow.id.in_(chunk))
                )
            }

    def find_person(self, name: str) -> Person | None:
        """The person of that name, key or Wikidata id; of several the most famous.

        Case and accents don't matter, unless somebody is called exactly like that.
        """
        query = (
            select(PersonRow)
            .where(
                or_(
                    PersonRow.key == name,
                    PersonRow.wikidata_id == name.upper(),
                    PersonRow.folded_name == folded(name),
                )
            )
            .order_by(
                PersonRow.key != name,
                PersonRow.name != unicodedata.normalize("NFC", name),
                func.coalesce(PersonRow.fame, -1).desc(),
                PersonRow.id,
            )
            .limit(1)
        )
        with self.snapshot() as connection:
            found = self._people(connection, query)
        return found[0] if found else None

    def close_names(self, name: str, count: int = 3) -> tuple[str, ...]:
        """Names like this one, most alike first; those that contain it lead."""
        with self.snapshot() as connection:
            names = {
                row.folded_name: row.name
                for row in connection.execute(select(PersonRow.folded_name, PersonRow.name))
            }
        wanted = folded(name)
        containing = sorted((n for n in names if wanted and wanted in n), key=len)
        alike = difflib.get_close_matches(wanted, names, n=count, cutoff=0.6)
        return tuple(names[n] for n in dict.fromkeys([*containing, *alike]))[:count]

    def portraits(self, person_id: int) -> tuple[Portrait, ...]:
        """Every portrait of one person, oldest first."""
        query = select(PortraitRow).where(PortraitRow.person_id == person_id)
        with self.snapshot() as connection:
            return self._portraits(connection, query.order_by(PortraitRow.id))

    def portraits_by_id(self, ids: Collection[int]) -> dict[int, Portrait]:
        """The portraits with these ids; what is gone is missing."""
        with self.snapshot() as connection:
            return {
                portrait.id: portrait
                for chunk in _chunks(ids)
                for portrait in self._portraits(
                    connection, select(PortraitRow).where(PortraitRow.id.in_(chunk))
                )
            }

    def portraits_by_hash(self, hashes: Collection[str]) -> tuple[Portrait, ...]:
        """The portraits of pictures with these hashes."""
        with self.snapshot() as connection:
            return tuple(
                portrait
                for chunk in _chunks(hashes)
                for portrait in self._portraits(
                    connection, select(PortraitRow).where(PortraitRow.sha256.in_(chunk))
                )
            )

    def categories(self) -> dict[str, int]:
        """Every category with somebody in it, and how many people, by name."""
        query = (
            select(CategoryRow.name, func.count())
            .join(PersonCategoryRow, PersonCategoryRow.category_id == CategoryRow.id)
            .group_by(CategoryRow.name)
            .order_by(CategoryRow.name)
        )
        with self.snapshot() as connection:
            return {key: value for key, value in connection.execute(query)}  # noqa: C416 - rows are no pairs to mypy

    def category_person_ids(self, category: str) -> NDArray[np.int64]:
        """Ids of the people in a category, rising; empty if there is no such category."""
        with self.snapshot() as connection:
            ids = connection.scalars(_in_category(category)).all()
        return np.sort(np.asarray(ids, dtype=np.int64))

    def genders(self) -> frozenset[str]:
        """Every gender that the catalogue says of somebody, lower case."""
        query = select(func.lower(PersonRow.gender)).where(PersonRow.gender.is_not(None))
        with self.snapshot() as connection:
            return frozenset(connection.scalars(query.distinct()))

    def gender_person_ids(self, genders: Collection[str]) -> NDArray[np.int64]:
        """Ids of the people whose gender is one of these words (lower case), rising."""
        query = select(PersonRow.id).where(func.lower(PersonRow.gender).in_(sorted(genders)))
        with self.snapshot() as connection:
            ids = connection.scalars(query).all()
        return np.sort(np.asarray(ids, dtype=np.int64))

    def counts(self) -> tuple[int, int]:
        """How many people and portraits there are."""
        with self.snapshot() as connection:
            people = connection.scalar(select(func.count()).select_from(PersonRow))
            portraits = connection.scalar(select(func.count()).select_from(PortraitRow))
        return people or 0, portraits or 0

    def portrait_counts(self) -> dict[int, int]:
        """How many portraits everybody has, by person id."""
        query = select(PortraitRow.person_id, func.count()).group_by(PortraitRow.person_id)
        with self.snapshot() as connection:
            return {key: value for key, value in connection.execute(query)}  # noqa: C416 - rows are no pairs to mypy

    def rejections(self) -> dict[str, int]:
        """How many pictures were not taken, by reason."""
        query = select(RejectionRow.reason, func.count()).group_by(RejectionRow.reason)
        with self.snapshot() as connection:
            return {key: value for key, value in connection.execute(query)}  # noqa: C416 - rows are no pairs to mypy

    def moment(self) -> tuple[int, tuple[SpaceState, ...]]:
        """The revision and every embedding space, as of one moment."""
        with self.snapshot() as connection:
            return revision(connection), space_states(connection)

    def space_states(self) -> tuple[SpaceState, ...]:
        """Every embedding space, by id."""
        return self.moment()[1]

    def known(self, sha256: str, screening: int) -> Person | Rejected | None:
        """What became of a picture when it was seen before.

        Args:
            sha256: Of its bytes.
            screening: Version of the rules; what others rejected is not known.

        Returns:
            Whose portrait it is, or why it was not taken; None if it is new.
        """
        owner = select(PortraitRow.person_id).where(PortraitRow.sha256 == sha256)
        rejection = select(RejectionRow.reason).where(
            RejectionRow.sha256 == sha256, RejectionRow.screening == screening
        )
        with self.snapshot() as connection:
            person_id = connection.scalar(owner)
            if person_id is not None:
                query = select(PersonRow).where(PersonRow.id == person_id)
                return self._people(connection, query)[0]
            reason = connection.scalar(rejection)
        return None if reason is None else Rejected(reason)

    def portrait_ids(self) -> NDArray[np.int64]:
        """The id of every portrait, rising."""
        with self.snapshot() as connection:
            ids = connection.scalars(select(PortraitRow.id).order_by(PortraitRow.id)).all()
        return np.asarray(ids, dtype=np.int64)

    def hashes(self) -> Iterator[str]:
        """The hash of every portrait, rising."""
        with self.snapshot() as connection:
            yield from connection.scalars(select(PortraitRow.sha256).order_by(PortraitRow.sha256))

    def _people(self, connection: Connection, query: Select[Any]) -> tuple[Person, ...]:
        rows = connection.execute(query).all()
        categories: dict[int, list[str]] = {row.id: [] for row in rows}
        for chunk in _chunks(categories):
            memberships = (
                select(PersonCategoryRow.person_id, CategoryRow.name)
                .join(CategoryRow, CategoryRow.id == PersonCategoryRow.category_id)
                .where(PersonCategoryRow.person_id.in_(chunk))
            )
            for person_id, name in connection.execute(memberships):
                categories[person_id].append(name)
        return tuple(
            Person(
                id=row.id,
                key=row.key,
                name=row.name,
                categories=tuple(sorted(categories[row.id])),
                wikidata_id=row.wikidata_id,
                country=row.country,
                gender=row.gender,
                fame=row.fame,
            )
            for row in rows
        )

    def _portraits(self, connection: Connection, query: Select[Any]) -> tuple[Portrait, ...]:
        return tuple(self._portrait(row) for row in connection.execute(query))

    def _portrait(self, row: Row[Any]) -> Portrait:
        return Portrait(
            id=row.id,
            person_id=row.person_id,
            sha256=row.sha256,
            thumbnail=thumbnail_path(self.portraits_folder, row.sha256),
            width_px=row.width_px,
            height_px=row.height_px,
            landmarks=np.asarray(row.landmarks, dtype=np.float32),
            box=Box(row.box_x, row.box_y, row.box_w, row.box_h),
            author=row.author,
            licence=row.licence,
            licence_url=row.licence_url,
            source_url=row.source_url,
        )


def revision(connection: Connection) -> int:
    """The catalogue's revision as this connection sees it."""
    return connection.scalar(select(RevisionRow.number)) or 0


def _in_category(category: str) -> Select[Any]:
    return (
        select(PersonCategoryRow.person_id)
        .join(CategoryRow, CategoryRow.id == PersonCategoryRow.category_id)
        .where(CategoryRow.name == category_name(category))
    )


def _chunks(values: Collection[Value]) -> Iterator[Sequence[Value]]:
    listed = list(values)
    for start in range(0, len(listed), _CHUNK):
        yield listed[start : start + _CHUNK]
