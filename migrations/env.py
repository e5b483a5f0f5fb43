"""Alembic's entry: migrates the room named by the configuration on the connection given in it."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from migrations import Room, version_table

__all__: list[str] = []


def run(room: Room, connection: Connection) -> None:
    """Runs the pending versions of one room."""
    context.configure(
        connection=connection,
        version_table=version_table(room),
        render_as_batch=True,  # SQLite alters a table by copying it
    )
    with context.begin_transaction():
        context.run_migrations()


run(context.config.attributes["room"], context.config.attributes["connection"])
