"""People who asked to be removed: no source brings them back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from gallery.database import changing
from gallery.gallery import Gallery
from gallery.records import FoundPerson, Person, folded
from gallery.tables import NeverAgainRow

__all__ = ["REMOVED", "Barred", "bar", "barred", "permit", "remember"]

REMOVED = "removed, never again"
"""Why such a person's photo is not taken."""


@dataclass(frozen=True, slots=True)
class Barred:
    """Who stays away.

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


def barred(gallery: Gallery) -> Barred:
    """Who stays away now."""
    with gallery.catalogue.snapshot() as connection:
        rows = connection.execute(select(NeverAgainRow)).all()
    return Barred(
        keys=frozenset(row.key for row in rows),
        wikidata_ids=frozenset(row.wikidata_id for row in rows if row.wikidata_id is not None),
        names=frozenset(row.folded_name for row in rows),
        bare_names=frozenset(row.folded_name for row in rows if row.wikidata_id is None),
    )


def bar(gallery: Gallery, person: Person) -> None:
    """Remembers that somebody stays away; it does not remove them.

    Raises:
        Busy: If another process is changing the gallery.
    """
    with gallery.writing(), changing(gallery.catalogue.database) as connection:
        remember(connection, person.key, person.name, person.wikidata_id)


def remember(connection: Connection, key: str, name: str, wikidata_id: str | None) -> None:
    """Remembers it within a transaction that writes."""
    connection.execute(delete(NeverAgainRow).where(NeverAgainRow.key == key))
    connection.execute(
        insert(NeverAgainRow).values(
            key=key, name=name, folded_name=folded(name), wikidata_id=wikidata_id
        )
    )


def permit(gallery: Gallery, names: Iterable[str]) -> int:
    """Forgets it for those of a name, key or Wikidata id; returns how many there were.

    Raises:
        Busy: If another process is changing the gallery.
    """
    count = 0
    with gallery.writing(), changing(gallery.catalogue.database) as connection:
        for name in names:
            count += connection.execute(
                delete(NeverAgainRow).where(
                    (NeverAgainRow.key == name)
                    | (NeverAgainRow.wikidata_id == name.upper())
                    | (NeverAgainRow.folded_name == folded(name))
                )
            ).rowcount
    return count
