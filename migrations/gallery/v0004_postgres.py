"""What only a gallery on PostgreSQL has: vectors, pictures, calibrations, texts of any length."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__: list[str] = []

revision = "gallery_0004"
down_revision = "gallery_0003"

# SQLite never minded longer texts, PostgreSQL would. "C" sorts by code point, as SQLite does,
# whatever the server's locale.
_TEXTS = (
    ("category", "name", 200),
    ("never_again", "folded_name", 800),
    ("never_again", "key", 400),
    ("never_again", "name", 400),
    ("never_again", "wikidata_id", 20),
    ("person", "country", 100),
    ("person", "folded_name", 800),
    ("person", "gender", 50),
    ("person", "key", 400),
    ("person", "name", 400),
    ("person", "wikidata_id", 20),
    ("portrait", "author", 1000),
    ("portrait", "licence", 200),
    ("portrait", "licence_url", 1000),
    ("portrait", "source_url", 2000),
    ("rejection", "reason", 40),
)


def upgrade() -> None:
    """Creates the tables; a database that is no PostgreSQL keeps all that in files."""
    if op.get_bind().dialect.name != "postgresql":
        return
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    for table, column, _ in _TEXTS:
        op.alter_column(table, column, type_=sa.Text(collation="C"))
    _create_vectors()
    op.create_table(
        "picture",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("jpeg", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["sha256"],
            ["portrait.sha256"],
            name=op.f("fk_picture_sha256"),
            ondelete="CASCADE",
            deferrable=True,
            initially="DEFERRED",
        ),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_picture")),
    )
    op.execute("ALTER TABLE picture ALTER COLUMN jpeg SET STORAGE EXTERNAL")  # JPEG won't shrink
    op.create_table(
        "calibration",
        sa.Column("space_id", sa.String(100), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["space_id"], ["space.id"], name=op.f("fk_calibration_space_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("space_id", name=op.f("pk_calibration")),
    )


def downgrade() -> None:
    """Drops the tables; the extension stays, for others may use it."""
    if op.get_bind().dialect.name != "postgresql":
        return
    for table in ("calibration", "picture", "person_vector", "portrait_vector"):
        op.drop_table(table)
    for table, column, length in _TEXTS:
        op.alter_column(table, column, type_=sa.String(length))


def _create_vectors() -> None:
    from pgvector.sqlalchemy import Vector

    for owner in ("portrait", "person"):
        table = f"{owner}_vector"
        op.create_table(
            table,
            sa.Column(f"{owner}_id", sa.Integer(), nullable=False),
            sa.Column("space_id", sa.String(100), nullable=False),
            *_columns(owner),
            sa.Column("vector", Vector(), nullable=False),
            sa.ForeignKeyConstraint(
                [f"{owner}_id"],
                [f"{owner}.id"],
                name=op.f(f"fk_{table}_{owner}_id"),
                ondelete="CASCADE",
            ),
            sa.ForeignKeyConstraint(
                ["space_id"], ["space.id"], name=op.f(f"fk_{table}_space_id"), ondelete="CASCADE"
            ),
            sa.PrimaryKeyConstraint(f"{owner}_id", "space_id", name=op.f(f"pk_{table}")),
        )
    op.create_index(
        op.f("ix_portrait_vector_space_id"), "portrait_vector", ["space_id", "person_id"]
    )


def _columns(owner: str) -> list[sa.Column[int] | sa.Column[float]]:
    if owner == "portrait":
        return [sa.Column("person_id", sa.Integer(), nullable=False)]
    return [
        sa.Column("portraits", sa.Integer(), nullable=False),
        sa.Column("sum_norm", sa.Double(), nullable=False),
        sa.Column("length", sa.Double(), nullable=False),
        sa.Column("nearness", sa.Double(), nullable=False),
    ]
