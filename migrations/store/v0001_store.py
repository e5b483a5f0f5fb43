"""People's choices, their match history, and the fingerprint of the key they are filed under.

The tables are those of bot/store.py as they are: no release has other ones yet. The next version
has to write down here what they are now.
"""  # noqa: INP001 - Alembic loads versions by their path

from alembic import op

from bot.store import METADATA

revision = "store_0001"
down_revision = None


def upgrade() -> None:
    """Creates the tables."""
    METADATA.create_all(op.get_bind())


def downgrade() -> None:
    """Drops the tables."""
    METADATA.drop_all(op.get_bind())
