"""People's choices, their match history, and the fingerprint of the key they are filed under."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__: list[str] = []

revision = "store_0001"
down_revision = None


def upgrade() -> None:
    """Creates the first tables."""
    op.create_table(
        "store_key",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_store_key_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_store_key")),
    )
    op.create_table(
        "user_choice",
        sa.Column("user_key", sa.String(64), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("user_key", name=op.f("pk_user_choice")),
    )
    op.create_table(
        "chat_choice",
        sa.Column("chat_key", sa.String(64), nullable=False),
        sa.Column("user_key", sa.String(64), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chat_key", name=op.f("pk_chat_choice")),
    )
    op.create_index(op.f("ix_chat_choice_user_key"), "chat_choice", ["user_key"])
    op.create_table(
        "past_match",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_key", sa.String(64), nullable=False),
        sa.Column("at_s", sa.BigInteger(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_past_match")),
    )
    op.create_index(op.f("ix_past_match_user_key"), "past_match", ["user_key", "at_s"])
    op.create_index(op.f("ix_past_match_at_s"), "past_match", ["at_s"])


def downgrade() -> None:
    """Drops every table of the store."""
    for table in ("past_match", "chat_choice", "user_choice", "store_key"):
        op.drop_table(table)
