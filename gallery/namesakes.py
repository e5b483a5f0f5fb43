"""Makes one person of two."""

from __future__ import annotations

import numpy as np
from sqlalchemy import Connection, delete, update

from gallery import registrar
from gallery.gallery import Gallery
from gallery.records import FoundPerson, Person
from gallery.registrar import append_rows
from gallery.tables import PersonRow, PortraitRow
from gallery.upkeep import bury_portraits

__all__ = ["merge"]


def merge(gallery: Gallery, connection: Connection, kept: Person, other: Person) -> None:
    """Gives the portraits of one person to another, who is then all there is of both.

    Args:
        gallery: Within ``Gallery.writing``.
        connection: Inside ``changing(gallery.catalogue.database)``.
        kept: Takes everything over: categories, and what was not known of them.
        other: Is gone afterwards.
    """
    portraits = np.asarray(
        [portrait.id for portrait in gallery.catalogue.portraits(other.id)], np.int64
    )
    held = []
    for space in [state.space for state in gallery.catalogue.space_states()]:
        ids = np.intersect1d(portraits, gallery.embedded(space))
        held.append((space, ids, gallery.vectors(space, ids)))
    bury_portraits(gallery, connection, portraits.tolist())
    connection.execute(
        update(PortraitRow).where(PortraitRow.person_id == other.id).values(person_id=kept.id)
    )
    for space, ids, vectors in held:
        if len(ids):
            append_rows(connection, gallery, space, vectors, ids.tolist(), [kept.id] * len(ids))
    connection.execute(delete(PersonRow).where(PersonRow.id == other.id))
    registrar.enrol_person(
        connection,
        FoundPerson(
            key=kept.key,
            name=kept.name,
            categories=other.categories,
            wikidata_id=kept.wikidata_id or other.wikidata_id,
            country=kept.country or other.country,
            gender=kept.gender or other.gender,
            fame=max((one.fame for one in (kept, other) if one.fame is not None), default=None),
        ),
    )
    registrar.note_change(connection)
