"""People who are to stay away once they were removed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__: list[str] = []

revision = "gallery_0002"
down_revision = "gallery_0001"


def upgrade() -> None:
    """Creates the table."""
    op.create_table(
        "never_again",
        sa.Column("key", sa.String(400), nullable=False),
        sa.Column("name", sa.String(400), nullable=False),
        sa.Column("folded_name", sa.String(800), nullable=False),
        sa.Column("wikidata_id", sa.String(20)),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_never_again")),
    )


def downgrade() -> None:
    """Drops the table."""
    op.drop_table("never_again")
