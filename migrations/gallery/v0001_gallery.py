"""All tables of the gallery; on PostgreSQL with pgvector, too."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

__all__: list[str] = []

revision = "gallery_0001"
down_revision = None


def upgrade() -> None:
    """Creates the tables."""
    shared = op.get_bind().dialect.name == "postgresql"
    if shared:
        op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    _create_people()
    _create_portraits()
    _create_vectors(_pgvector() if shared else sa.LargeBinary())
    if shared:
        # JPEG does not shrink. Vectors of people, by which they are searched: derived.
        op.execute("ALTER TABLE thumbnail ALTER COLUMN jpeg SET STORAGE EXTERNAL")
        _create_person_vectors()
    revision_table = op.create_table(
        "revision",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_revision_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revision")),
    )
    op.bulk_insert(revision_table, [{"id": 1, "number": 0}])


def downgrade() -> None:
    """Drops the tables; the extension stays, for others may use it."""
    if op.get_bind().dialect.name == "postgresql":
        op.drop_table("person_vector")
    for table in (
        "revision",
        "finding",
        "calibration",
        "portrait_vector",
        "space",
        "banned",
        "rejection",
        "thumbnail",
        "portrait",
        "person_category",
        "category",
        "person",
    ):
        op.drop_table(table)


def _text(usual_chars: int) -> sa.String:
    """As in gallery/tables.py: of any length, by code point, on PostgreSQL."""
    return sa.String(usual_chars).with_variant(sa.Text(collation="C"), "postgresql")


def _pgvector() -> Any:
    from pgvector.sqlalchemy import Vector

    return Vector()


def _key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns, name=op.f(f"pk_{table}"))


def _belongs(table: str, column: str, to: str) -> sa.ForeignKeyConstraint:
    """A row that goes with the row of another table."""
    return sa.ForeignKeyConstraint(
        [column], [f"{to}.id"], name=op.f(f"fk_{table}_{column}"), ondelete="CASCADE"
    )


def _create_people() -> None:
    op.create_table(
        "person",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", _text(400), nullable=False),
        sa.Column("name", _text(400), nullable=False),
        sa.Column("folded_name", _text(800), nullable=False),
        sa.Column("wikidata_id", _text(20)),
        sa.Column("country", _text(100)),
        sa.Column("gender", _text(50)),
        sa.Column("fame", sa.Integer()),
        _key("person", "id"),
        sa.UniqueConstraint("key", name=op.f("uq_person_key")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_person_folded_name"), "person", ["folded_name"])
    op.create_index(op.f("ix_person_wikidata_id"), "person", ["wikidata_id"])
    op.create_table(
        "category",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", _text(200), nullable=False),
        _key("category", "id"),
        sa.UniqueConstraint("name", name=op.f("uq_category_name")),
    )
    op.create_table(
        "person_category",
        sa.Column("person_id", sa.Integer(), nullable=False),
        sa.Column("category_id", sa.Integer(), nullable=False),
        _belongs("person_category", "person_id", "person"),
        _belongs("person_category", "category_id", "category"),
        _key("person_category", "person_id", "category_id"),
    )
    op.create_index(op.f("ix_person_category_category_id"), "person_category", ["category_id"])
    op.create_table(
        "banned",
        sa.Column("key", _text(400), nullable=False),
        sa.Column("name", _text(400), nullable=False),
        sa.Column("folded_name", _text(800), nullable=False),
        sa.Column("wikidata_id", _text(20)),
        _key("banned", "key"),
    )


def _create_portraits() -> None:
    op.create_table(
        "portrait",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("person_id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("width_px", sa.Integer(), nullable=False),
        sa.Column("height_px", sa.Integer(), nullable=False),
        sa.Column("landmarks", sa.JSON(), nullable=False),
        sa.Column("box_x", sa.Double(), nullable=False),
        sa.Column("box_y", sa.Double(), nullable=False),
        sa.Column("box_w", sa.Double(), nullable=False),
        sa.Column("box_h", sa.Double(), nullable=False),
        sa.Column("author", _text(1000)),
        sa.Column("licence", _text(200)),
        sa.Column("licence_url", _text(1000)),
        sa.Column("source_url", _text(2000)),
        sa.CheckConstraint("width_px > 0 AND height_px > 0", name=op.f("ck_portrait_size")),
        _belongs("portrait", "person_id", "person"),
        _key("portrait", "id"),
        sa.UniqueConstraint("sha256", name=op.f("uq_portrait_sha256")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_portrait_person_id"), "portrait", ["person_id"])
    op.create_table(
        "thumbnail",
        sa.Column("portrait_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("jpeg", sa.LargeBinary(), nullable=False),
        _belongs("thumbnail", "portrait_id", "portrait"),
        _key("thumbnail", "portrait_id"),
    )
    op.create_table(
        "rejection",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("reason", _text(40), nullable=False),
        sa.Column("screening", sa.Integer(), nullable=False),
        _key("rejection", "sha256"),
    )


def _create_vectors(value: Any) -> None:
    op.create_table(
        "space",
        sa.Column("id", sa.String(100), nullable=False),
        sa.Column("backbone", sa.String(50), nullable=False),
        sa.Column("weights_sha256", sa.String(64), nullable=False),
        sa.Column("recipe", sa.Integer(), nullable=False),
        sa.Column("dimensions", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.CheckConstraint("row_count >= 0", name=op.f("ck_space_row_count")),
        _key("space", "id"),
    )
    op.create_table(
        "portrait_vector",
        sa.Column("portrait_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("space_id", sa.String(100), nullable=False),
        sa.Column("row", sa.Integer()),
        sa.Column("value", value),
        _belongs("portrait_vector", "portrait_id", "portrait"),
        _belongs("portrait_vector", "space_id", "space"),
        _key("portrait_vector", "portrait_id", "space_id"),
    )
    op.create_index(
        op.f("ix_portrait_vector_space_id"),
        "portrait_vector",
        ["space_id", "row"],
        unique=True,
        sqlite_where=sa.text("row IS NOT NULL"),
        postgresql_where=sa.text("row IS NOT NULL"),
    )
    op.create_table(
        "calibration",
        sa.Column("space_id", sa.String(100), nullable=False),
        sa.Column("content", _text(100_000), nullable=False),
        _belongs("calibration", "space_id", "space"),
        _key("calibration", "space_id"),
    )
    op.create_table(
        "finding",
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        _key("finding", "name"),
    )


def _create_person_vectors() -> None:
    """See gallery/search/pgvector.py."""
    op.create_table(
        "person_vector",
        sa.Column("person_id", sa.Integer(), nullable=False),
        sa.Column("space_id", sa.String(100), nullable=False),
        sa.Column("portraits", sa.Integer(), nullable=False),
        sa.Column("sum_norm", sa.Double(), nullable=False),
        sa.Column("length", sa.Double(), nullable=False),
        sa.Column("nearness", sa.Double(), nullable=False),
        sa.Column("vector", _pgvector(), nullable=False),
        _belongs("person_vector", "person_id", "person"),
        _belongs("person_vector", "space_id", "space"),
        _key("person_vector", "person_id", "space_id"),
    )
