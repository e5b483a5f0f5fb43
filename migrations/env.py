"""Alembic's entry: migrates the room named by the configuration on the connection given in it."""

from alembic import context

from migrations import version_table

context.configure(
    connection=context.config.attributes["connection"],
    version_table=version_table(context.config.attributes["room"]),
    render_as_batch=True,  # SQLite alters a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
