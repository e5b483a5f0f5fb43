"""Writes the catalogue: people, portraits, rejections, and which rows of the vectors count.

Every function works inside the caller's transaction (gallery/database.py, ``changing``), so that
a batch counts whole or not at all.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, delete, func, insert, select, update

from engine.types import Box, Space
from gallery.records import FoundPerson, FoundPortrait, category_name, folded
from gallery.tables import (
    CategoryRow,
    DeadRow,
    PersonCategoryRow,
    PersonRow,
    PortraitRow,
    RejectionRow,
    RevisionRow,
    SpaceRow,
)

if TYPE_CHECKING:
    from gallery.gallery import Gallery

__all__ = [
    "append_rows",
    "bury_rows",
    "delete_person",
    "delete_portraits",
    "delete_space",
    "enrol_person",
    "enrol_portrait",
    "forget_rejection",
    "note_change",
    "person_count",
    "reframe_portrait",
    "register_space",
    "remember_rejection",
    "set_rows",
    "unbury_rows",
]

_NEW_PORTRAIT = insert(PortraitRow).returning(PortraitRow.id)


def note_change(connection: Connection) -> None:
    """Tells every reader to look again."""
    connection.execute(update(RevisionRow).values(number=RevisionRow.number + 1))


def enrol_person(connection: Connection, person: FoundPerson) -> int:
    """The person's id; they are added if they are new, and completed if more is known now."""
    row = connection.execute(select(PersonRow).where(PersonRow.key == person.key)).one_or_none()
    known = {
        "wikidata_id": person.wikidata_id,
        "country": person.country,
        "gender": person.gender,
        "fame": person.fame,
    }
    if row is None:
        name = unicodedata.normalize("NFC", person.name)
        person_id = connection.execute(
            insert(PersonRow)
            .values(key=person.key, name=name, folded_name=folded(name), **known)
            .returning(PersonRow.id)
        ).scalar_one()
    else:
        person_id = row.id
        news = {
            field: value
            for field, value in known.items()
            if value is not None and getattr(row, field) != value
        }
        if news:
            connection.execute(update(PersonRow).where(PersonRow.id == person_id).values(**news))
    _join_categories(connection, person_id, person.categories)
    return person_id


def _join_categories(connection: Connection, person_id: int, names: Sequence[str]) -> None:
    wanted = {category_name(name) for name in names} - {""}
    if not wanted:
        return
    known = select(CategoryRow.name, CategoryRow.id).where(CategoryRow.name.in_(wanted))
    ids = {row.name: row.id for row in connection.execute(known)}
    for name in sorted(wanted - ids.keys()):
        ids[name] = connection.execute(
            insert(CategoryRow).values(name=name).returning(CategoryRow.id)
        ).scalar_one()
    joined = set(
        connection.scalars(
            select(PersonCategoryRow.category_id).where(PersonCategoryRow.person_id == person_id)
        )
    )
    for category_id in sorted(set(ids.values()) - joined):
        connection.execute(
            insert(PersonCategoryRow).values(person_id=person_id, category_id=category_id)
        )


def enrol_portrait(
    connection: Connection,
    person_id: int,
    found: FoundPortrait,
    *,
    sha256: str,
    size_px: tuple[int, int],
    landmarks: Sequence[Sequence[float]],
    box: Box,
) -> int:
    """Adds a portrait and returns its id.

    Args:
        connection: Inside a transaction that writes.
        person_id: Whose.
        found: Author, licence and source.
        sha256: Of the original bytes; not in the catalogue yet.
        size_px: Width and height of the thumbnail.
        landmarks: Five pairs (x, y), thumbnail pixels.
        box: The face, thumbnail pixels.
    """
    # Given as parameters, not as values(...): so the statement is put together only once.
    content = {
        "person_id": person_id,
        "sha256": sha256,
        **_geometry(size_px, landmarks, box),
        "author": found.author,
        "licence": found.licence,
        "licence_url": found.licence_url,
        "source_url": found.source_url,
    }
    return connection.execute(_NEW_PORTRAIT, content).scalar_one()


def reframe_portrait(
    connection: Connection,
    sha256: str,
    *,
    size_px: tuple[int, int],
    landmarks: Sequence[Sequence[float]],
    box: Box,
) -> None:
    """Says where the face is in a thumbnail that takes the place of another.

    Args:
        connection: Inside a transaction that writes.
        sha256: The portrait's.
        size_px: Width and height of the thumbnail.
        landmarks: Five pairs (x, y), thumbnail pixels.
        box: The face, thumbnail pixels.
    """
    connection.execute(
        update(PortraitRow)
        .where(PortraitRow.sha256 == sha256)
        .values(**_geometry(size_px, landmarks, box))
    )


def _geometry(
    size_px: tuple[int, int], landmarks: Sequence[Sequence[float]], box: Box
) -> dict[str, Any]:
    return {
        "width_px": size_px[0],
        "height_px": size_px[1],
        "landmarks": [[float(x), float(y)] for x, y in landmarks],
        "box_x": box.x,
        "box_y": box.y,
        "box_w": box.w,
        "box_h": box.h,
    }


def remember_rejection(connection: Connection, sha256: str, reason: str, screening: int) -> None:
    """Remembers why a picture was not taken, in place of what was remembered before."""
    forget_rejection(connection, sha256)
    connection.execute(
        insert(RejectionRow).values(sha256=sha256, reason=reason, screening=screening)
    )


def forget_rejection(connection: Connection, sha256: str) -> None:
    """Forgets that a picture was not taken."""
    connection.execute(delete(RejectionRow).where(RejectionRow.sha256 == sha256))


def person_count(connection: Connection) -> int:
    """How many people there are."""
    return connection.scalar(select(func.count()).select_from(PersonRow)) or 0


def delete_person(connection: Connection, person_id: int) -> tuple[str, ...]:
    """Removes a person and their portraits; returns the portraits' hashes.

    Rows of vectors are left to ``bury_rows``.
    """
    hashes = connection.scalars(
        select(PortraitRow.sha256).where(PortraitRow.person_id == person_id)
    ).all()
    connection.execute(delete(PersonRow).where(PersonRow.id == person_id))
    unused = select(PersonCategoryRow.category_id)
    connection.execute(delete(CategoryRow).where(CategoryRow.id.not_in(unused)))
    return tuple(hashes)


def delete_portraits(connection: Connection, portrait_ids: Sequence[int]) -> None:
    """Removes portraits; rows of vectors are left to ``bury_rows``."""
    for portrait_id in portrait_ids:
        connection.execute(delete(PortraitRow).where(PortraitRow.id == portrait_id))


def register_space(connection: Connection, space: Space, generation: int) -> None:
    """Adds a space without rows, whose manifest has that number."""
    connection.execute(
        insert(SpaceRow).values(
            id=space.id,
            backbone=space.backbone,
            weights_sha256=space.weights_sha256,
            recipe=space.recipe,
            dimensions=space.dimensions,
            generation=generation,
            row_count=0,
        )
    )


def set_rows(connection: Connection, space: Space, *, generation: int, row_count: int) -> None:
    """Says which generation's files hold the space's vectors, and how many rows count."""
    connection.execute(
        update(SpaceRow)
        .where(SpaceRow.id == space.id)
        .values(generation=generation, row_count=row_count)
    )


def unbury_rows(connection: Connection, space: Space) -> None:
    """Forgets which rows don't count, because there are new files without them."""
    connection.execute(delete(DeadRow).where(DeadRow.space_id == space.id))


def bury_rows(connection: Connection, space: Space, row_numbers: Iterable[int]) -> None:
    """Marks rows of the vectors as no longer counting."""
    rows = [{"space_id": space.id, "row_number": int(number)} for number in row_numbers]
    if rows:
        connection.execute(insert(DeadRow), rows)


def delete_space(connection: Connection, space: Space) -> None:
    """Forgets a space; its files are swept by the next build."""
    connection.execute(delete(SpaceRow).where(SpaceRow.id == space.id))


def append_rows(
    connection: Connection,
    gallery: Gallery,
    space: Space,
    vectors: NDArray[np.float32],
    portraits: Sequence[int],
    persons: Sequence[int],
) -> None:
    """Adds vectors of portraits to a space, within a transaction that is to count them.

    Args:
        connection: Inside ``changing(gallery.catalogue.database)``.
        gallery: Where.
        space: Which; it is made if the gallery has none of it yet.
        vectors: float32 (n, D), n >= 1, unit length.
        portraits: Their ids; none has a vector in the space yet.
        persons: Ids of the people whose portraits they are.

    Raises:
        GalleryCorrupt: If the vectors that should be there are gone or damaged.
    """
    gallery.storage.append(connection, space, vectors, portraits, persons)
