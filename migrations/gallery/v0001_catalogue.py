"""People, portraits, rejections and embedding spaces."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__: list[str] = []

revision = "gallery_0001"
down_revision = None


def upgrade() -> None:
    """Creates the first tables."""
    _create_people()
    _create_portraits()
    _create_spaces()
    revision_table = op.create_table(
        "revision",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_revision_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revision")),
    )
    op.bulk_insert(revision_table, [{"id": 1, "number": 0}])


def downgrade() -> None:
    """Drops every table of the gallery."""
    for table in (
        "revision",
        "dead_row",
        "space",
        "rejection",
        "portrait",
        "person_category",
        "category",
        "person",
    ):
        op.drop_table(table)


def _create_people() -> None:
    op.create_table(
        "person",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(400), nullable=False),
        sa.Column("name", sa.String(400), nullable=False),
        sa.Column("folded_name", sa.String(800), nullable=False),
        sa.Column("wikidata_id", sa.String(20)),
        sa.Column("country", sa.String(100)),
        sa.Column("gender", sa.String(50)),
        sa.Column("fame", sa.Integer()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_person")),
        sa.UniqueConstraint("key", name=op.f("uq_person_key")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_person_folded_name"), "person", ["folded_name"])
    op.create_index(op.f("ix_person_wikidata_id"), "person", ["wikidata_id"])
    op.create_table(
        "category",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_category")),
        sa.UniqueConstraint("name", name=op.f("uq_category_name")),
    )
    op.create_table(
        "person_category",
        sa.Column("person_id", sa.Integer(), nullable=False),
        sa.Column("category_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["person.id"],
            name=op.f("fk_person_category_person_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["category_id"],
            ["category.id"],
            name=op.f("fk_person_category_category_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("person_id", "category_id", name=op.f("pk_person_category")),
    )
    op.create_index(op.f("ix_person_category_category_id"), "person_category", ["category_id"])


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
        sa.Column("author", sa.String(1000)),
        sa.Column("licence", sa.String(200)),
        sa.Column("licence_url", sa.String(1000)),
        sa.Column("source_url", sa.String(2000)),
        sa.CheckConstraint("width_px > 0 AND height_px > 0", name=op.f("ck_portrait_size")),
        sa.ForeignKeyConstraint(
            ["person_id"], ["person.id"], name=op.f("fk_portrait_person_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_portrait")),
        sa.UniqueConstraint("sha256", name=op.f("uq_portrait_sha256")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_portrait_person_id"), "portrait", ["person_id"])
    op.create_table(
        "rejection",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("reason", sa.String(40), nullable=False),
        sa.Column("screening", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_rejection")),
    )


def _create_spaces() -> None:
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
        sa.PrimaryKeyConstraint("id", name=op.f("pk_space")),
    )
    op.create_table(
        "dead_row",
        sa.Column("space_id", sa.String(100), nullable=False),
        sa.Column("row_number", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["space_id"], ["space.id"], name=op.f("fk_dead_row_space_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("space_id", "row_number", name=op.f("pk_dead_row")),
    )
