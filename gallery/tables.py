"""The gallery's tables: the same in a folder (SQLite), on PostgreSQL and in a pack (SQLite).

What no row mentions does not exist. A vector is written to its space's file first (append, fsync),
then one transaction here makes it count (commit).
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class GalleryTables(DeclarativeBase):
    """Base of every table of the gallery; constraints carry names so that they can be altered."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def _text(usual_chars: int) -> sa.String:
    """SQLite does not mind a longer text; PostgreSQL would, and would sort by its locale."""
    return sa.String(usual_chars).with_variant(sa.Text(collation="C"), "postgresql")


def _of(table: str, *kind: Any, **options: Any) -> Any:
    """The id of a row of another table, with which this one goes."""
    return mapped_column(*kind, sa.ForeignKey(f"{table}.id", ondelete="CASCADE"), **options)


class PersonRow(GalleryTables):
    """Somebody; ids are never given twice, because vectors and histories remember them."""

    __tablename__ = "person"
    __table_args__ = (sa.UniqueConstraint("key"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(sa.Integer, primary_key=True)
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
    __table_args__ = (sa.UniqueConstraint("name"),)

    id: Mapped[int] = mapped_column(sa.Integer, primary_key=True)
    name: Mapped[str] = mapped_column(_text(200))


class PersonCategoryRow(GalleryTables):
    """Who belongs where; a person may belong to many categories."""

    __tablename__ = "person_category"

    person_id: Mapped[int] = _of("person", primary_key=True)
    category_id: Mapped[int] = _of("category", primary_key=True, index=True)


class PortraitRow(GalleryTables):
    """One picture of one person; a portrait without a row in ``thumbnail`` has no photo.

    ``sha256`` is of the original file's bytes. Coordinates are thumbnail pixels; ``landmarks`` is
    five pairs (x, y).
    """

    __tablename__ = "portrait"
    __table_args__ = (
        sa.UniqueConstraint("sha256"),
        sa.CheckConstraint("width_px > 0 AND height_px > 0", name="size"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(sa.Integer, primary_key=True)
    person_id: Mapped[int] = _of("person", index=True)
    sha256: Mapped[str] = mapped_column(sa.String(64))
    width_px: Mapped[int]
    height_px: Mapped[int]
    landmarks: Mapped[list[list[float]]] = mapped_column(sa.JSON)
    box_x: Mapped[float] = mapped_column(sa.Double)
    box_y: Mapped[float] = mapped_column(sa.Double)
    box_w: Mapped[float] = mapped_column(sa.Double)
    box_h: Mapped[float] = mapped_column(sa.Double)
    author: Mapped[str | None] = mapped_column(_text(1000))
    licence: Mapped[str | None] = mapped_column(_text(200))
    licence_url: Mapped[str | None] = mapped_column(_text(1000))
    source_url: Mapped[str | None] = mapped_column(_text(2000))


class RejectionRow(GalleryTables):
    """A picture that was looked at and not taken, so that it need not be looked at again."""

    __tablename__ = "rejection"

    sha256: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    reason: Mapped[str] = mapped_column(_text(40))
    screening: Mapped[int]


class ThumbnailRow(GalleryTables):
    """The photo that is kept of a portrait, a JPEG of the portrait's size."""

    __tablename__ = "thumbnail"

    portrait_id: Mapped[int] = _of("portrait", primary_key=True, autoincrement=False)
    jpeg: Mapped[bytes] = mapped_column(sa.LargeBinary)


class BannedRow(GalleryTables):
    """Somebody who asked to be removed, so that no source brings them back."""

    __tablename__ = "banned"

    key: Mapped[str] = mapped_column(_text(400), primary_key=True)
    name: Mapped[str] = mapped_column(_text(400))
    folded_name: Mapped[str] = mapped_column(_text(800))
    wikidata_id: Mapped[str | None] = mapped_column(_text(20))


class SpaceRow(GalleryTables):
    """One embedding space.

    ``generation`` is the number of the file that holds its vectors, ``row_count`` how many rows of
    that file have ever counted; what follows them is overwritten. On PostgreSQL ``generation``
    rises with every change of the space's vectors, and ``row_count`` is how many there are.
    """

    __tablename__ = "space"
    __table_args__ = (sa.CheckConstraint("row_count >= 0", name="row_count"),)

    id: Mapped[str] = mapped_column(sa.String(100), primary_key=True)
    backbone: Mapped[str] = mapped_column(sa.String(50))
    weights_sha256: Mapped[str] = mapped_column(sa.String(64))
    recipe: Mapped[int]
    dimensions: Mapped[int]
    generation: Mapped[int]
    row_count: Mapped[int]


class VectorRow(GalleryTables):
    """A portrait's unit vector in a space.

    In a folder ``row`` is its row of the space's file (gallery/vector_file.py). On PostgreSQL
    ``value`` is a pgvector, in a pack little-endian float32. A row of the file that is named here
    by nothing is dead; `gallery build` drops it.
    """

    __tablename__ = "portrait_vector"
    __table_args__ = (
        # Readers ask for the rows that are new since they last looked.
        sa.Index(
            "ix_portrait_vector_space_id",
            "space_id",
            "row",
            unique=True,
            sqlite_where=sa.text("row IS NOT NULL"),
        ),
    )

    portrait_id: Mapped[int] = _of("portrait", primary_key=True, autoincrement=False)
    space_id: Mapped[str] = _of("space", sa.String(100), primary_key=True)
    row: Mapped[int | None]
    value: Mapped[bytes | None] = mapped_column(sa.LargeBinary)


class CalibrationRow(GalleryTables):
    """What was learned of a space's scores, as JSON (see gallery/scores)."""

    __tablename__ = "calibration"

    space_id: Mapped[str] = _of("space", sa.String(100), primary_key=True)
    content: Mapped[str] = mapped_column(_text(100_000))


class FindingRow(GalleryTables):
    """What was found out about the gallery as a whole, such as whether an ensemble helps."""

    __tablename__ = "finding"

    name: Mapped[str] = mapped_column(sa.String(40), primary_key=True)
    content: Mapped[dict[str, Any]] = mapped_column(sa.JSON)


class RevisionRow(GalleryTables):
    """One row, whose number rises with every change: readers compare it to theirs."""

    __tablename__ = "revision"
    __table_args__ = (sa.CheckConstraint("id = 1", name="single"),)

    id: Mapped[int] = mapped_column(sa.Integer, primary_key=True)
    number: Mapped[int]
