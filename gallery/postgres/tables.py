"""The tables that only a gallery on PostgreSQL has, besides those of gallery/tables.py.

A space's vectors all have its dimensions, yet one column holds those of every space: it carries no
number of dimensions, and indexes are made for one space each (gallery/postgres/vectors.py).
"""

from __future__ import annotations

from typing import Any

from pgvector.sqlalchemy import Vector
from sqlalchemy import Double, ForeignKey, Index, LargeBinary, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from gallery.tables import GalleryTables, PersonRow, PortraitRow, SpaceRow

__all__ = [
    "CalibrationRow",
    "PersonVectorRow",
    "PictureRow",
    "PortraitVectorRow",
    "PostgresTables",
]

_SPACE_ID_CHARS = 100


class PostgresTables(DeclarativeBase):
    """Base of these tables; what they refer to is in the same database."""

    metadata = MetaData(naming_convention=GalleryTables.metadata.naming_convention)


class PictureRow(PostgresTables):
    """A portrait's thumbnail."""

    __tablename__ = "picture"

    sha256: Mapped[str] = mapped_column(
        String(64),
        # At the end of the transaction, so that picture and portrait may come in either order.
        ForeignKey(PortraitRow.sha256, ondelete="CASCADE", deferrable=True, initially="DEFERRED"),
        primary_key=True,
    )
    jpeg: Mapped[bytes] = mapped_column(LargeBinary)


class PortraitVectorRow(PostgresTables):
    """A portrait's vector in a space: a unit vector."""

    __tablename__ = "portrait_vector"
    __table_args__ = (Index("ix_portrait_vector_space_id", "space_id", "person_id"),)

    portrait_id: Mapped[int] = mapped_column(
        ForeignKey(PortraitRow.id, ondelete="CASCADE"), primary_key=True
    )
    space_id: Mapped[str] = mapped_column(
        String(_SPACE_ID_CHARS), ForeignKey(SpaceRow.id, ondelete="CASCADE"), primary_key=True
    )
    person_id: Mapped[int]
    vector: Mapped[Any] = mapped_column(Vector())


class PersonVectorRow(PostgresTables):
    """A person's portraits in a space as one vector, by which they are found.

    Attributes:
        portraits: How many there are.
        sum_norm: Length of the sum of their vectors.
        length: Length of ``vector``, which has the sum's direction: an inner product with it is
            the likeness of gallery/likeness.py.
        nearness: Least cosine between ``vector`` and one of the portraits.
    """

    __tablename__ = "person_vector"

    person_id: Mapped[int] = mapped_column(
        ForeignKey(PersonRow.id, ondelete="CASCADE"), primary_key=True
    )
    space_id: Mapped[str] = mapped_column(
        String(_SPACE_ID_CHARS), ForeignKey(SpaceRow.id, ondelete="CASCADE"), primary_key=True
    )
    portraits: Mapped[int]
    sum_norm: Mapped[float] = mapped_column(Double)
    length: Mapped[float] = mapped_column(Double)
    nearness: Mapped[float] = mapped_column(Double)
    vector: Mapped[Any] = mapped_column(Vector())


class CalibrationRow(PostgresTables):
    """What was learned of a space's scores (gallery/scores), as JSON."""

    __tablename__ = "calibration"

    space_id: Mapped[str] = mapped_column(
        String(_SPACE_ID_CHARS), ForeignKey(SpaceRow.id, ondelete="CASCADE"), primary_key=True
    )
    content: Mapped[str] = mapped_column(Text)
