"""The catalogue's tables, on SQLite and on PostgreSQL.

Written truth, in the order of a write: thumbnails and vectors reach the disk first, then one
transaction here makes them count. What no row mentions does not exist.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Double,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = [
    "CategoryRow",
    "DeadRow",
    "FindingRow",
    "GalleryTables",
    "NeverAgainRow",
    "PersonCategoryRow",
    "PersonRow",
    "PortraitRow",
    "RejectionRow",
    "RevisionRow",
    "SpaceRow",
]


class GalleryTables(DeclarativeBase):
    """Base of every table of the gallery; constraints carry names so that they can be altered."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def _text(usual_chars: int) -> String:
    """SQLite does not mind a longer text; PostgreSQL would, and would sort by its locale."""
    return String(usual_chars).with_variant(Text(collation="C"), "postgresql")


class PersonRow(GalleryTables):
    """Somebody; ids are never given twice, because vectors and histories remember them."""

    __tablename__ = "person"
    __table_args__ = (UniqueConstraint("key"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    key: Mapped[str] = mapped_column(_text(400))
    name: Mapped[str] = mapped_column(_text(400))
    folded_name: Mapped[str] = mapped_column(_text(800), index=True)
    wikidata_id: Mapped[str | None] = mapped_column(_text(20), index=True)
    country: Mapped[str | None] = mapped_column(_text(100))
    gender: Mapped[str | None] = mapped_column(_text(50))
    fame: Mapped[int | None]


class CategoryRow(GalleryTables):
    """A kind of people, such as film."""

    __tablename__ = "category"
    __table_args__ = (UniqueConstraint("name"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(_text(200))


class PersonCategoryRow(GalleryTables):
    """Who belongs where; a person may belong to many categories."""

    __tablename__ = "person_category"

    person_id: Mapped[int] = mapped_column(
        ForeignKey("person.id", ondelete="CASCADE"), primary_key=True
    )
    category_id: Mapped[int] = mapped_column(
        ForeignKey("category.id", ondelete="CASCADE"), primary_key=True, index=True
    )


class PortraitRow(GalleryTables):
    """One picture of one person; its thumbnail's file name is its hash.

    Coordinates are thumbnail pixels; ``landmarks`` is five pairs (x, y).
    """

    __tablename__ = "portrait"
    __table_args__ = (
        UniqueConstraint("sha256"),
        CheckConstraint("width_px > 0 AND height_px > 0", name="size"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id", ondelete="CASCADE"), index=True)
    sha256: Mapped[str] = mapped_column(String(64))
    width_px: Mapped[int]
    height_px: Mapped[int]
    landmarks: Mapped[list[list[float]]] = mapped_column(JSON)
    box_x: Mapped[float] = mapped_column(Double)
    box_y: Mapped[float] = mapped_column(Double)
    box_w: Mapped[float] = mapped_column(Double)
    box_h: Mapped[float] = mapped_column(Double)
    author: Mapped[str | None] = mapped_column(_text(1000))
    licence: Mapped[str | None] = mapped_column(_text(200))
    licence_url: Mapped[str | None] = mapped_column(_text(1000))
    source_url: Mapped[str | None] = mapped_column(_text(2000))


class RejectionRow(GalleryTables):
    """A picture that was looked at and not taken, so that it need not be looked at again."""

    __tablename__ = "rejection"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    reason: Mapped[str] = mapped_column(_text(40))
    screening: Mapped[int]


class NeverAgainRow(GalleryTables):
    """Somebody who asked to be removed, so that no source brings them back."""

    __tablename__ = "never_again"

    key: Mapped[str] = mapped_column(_text(400), primary_key=True)
    name: Mapped[str] = mapped_column(_text(400))
    folded_name: Mapped[str] = mapped_column(_text(800))
    wikidata_id: Mapped[str | None] = mapped_column(_text(20))


class SpaceRow(GalleryTables):
    """One embedding space: which files hold its vectors, and how many of their rows count."""

    __tablename__ = "space"
    __table_args__ = (CheckConstraint("row_count >= 0", name="row_count"),)

    id: Mapped[str] = mapped_column(String(100), primary_key=True)
    backbone: Mapped[str] = mapped_column(String(50))
    weights_sha256: Mapped[str] = mapped_column(String(64))
    recipe: Mapped[int]
    dimensions: Mapped[int]
    generation: Mapped[int]
    row_count: Mapped[int]


class DeadRow(GalleryTables):
    """A row of a space's vectors that no longer counts; `gallery build` drops it for good."""

    __tablename__ = "dead_row"

    space_id: Mapped[str] = mapped_column(
        ForeignKey("space.id", ondelete="CASCADE"), primary_key=True
    )
    row_number: Mapped[int] = mapped_column(primary_key=True)


class FindingRow(GalleryTables):
    """What was found out about the gallery as a whole; see gallery/scores/trial.py."""

    __tablename__ = "finding"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    content: Mapped[dict[str, Any]] = mapped_column(JSON)


class RevisionRow(GalleryTables):
    """One row, whose number rises with every change: readers compare it to theirs."""

    __tablename__ = "revision"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    number: Mapped[int]
