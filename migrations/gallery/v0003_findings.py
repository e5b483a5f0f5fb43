"""What was found out about a gallery as a whole, such as whether an ensemble helps."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__: list[str] = []

revision = "gallery_0003"
down_revision = "gallery_0002"


def upgrade() -> None:
    """Creates the table."""
    op.create_table(
        "finding",
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_finding")),
    )


def downgrade() -> None:
    """Drops the table."""
    op.drop_table("finding")
