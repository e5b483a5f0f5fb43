"""Brings a database's tables up to date: Alembic, one line of versions per room.

The rooms keep their own versions (``migrations/gallery``, ``migrations/store``) and their own
version tables, so that both may live in one database. A version file is called
``vNNNN_what_it_does.py`` and its revision is ``ROOM_NNNN``; the highest is the head.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engine.errors import SetupProblem

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

Room = Literal["gallery", "store"]

FOLDER = Path(__file__).parent


def version_table(room: Room) -> str:
    """Name of the table that records the room's revision."""
    return f"alembic_version_{room}"


@cache
def revisions(room: Room) -> tuple[str, ...]:
    """The revisions that come with this program, the newest last."""
    return tuple(sorted(f"{room}_{one.name[1:5]}" for one in (FOLDER / room).glob("v[0-9]*.py")))


def head(room: Room) -> str:
    """The newest revision that comes with this program."""
    return revisions(room)[-1]


def current(room: Room, connection: Connection) -> str | None:
    """The revision that the database records, or None for one without the room's tables."""
    import sqlalchemy as sa

    table = sa.table(version_table(room), sa.column("version_num"))
    known = sa.inspect(connection).has_table(table.name)
    return connection.scalar(sa.select(table.c.version_num)) if known else None


def upgrade(room: Room, connection: Connection) -> None:
    """Makes the room's tables those of this program; the caller commits.

    A database that is up to date costs two look-ups; Alembic is imported only for one that isn't.
    Raises SetupProblem if a newer program made the database.
    """
    recorded = current(room, connection)
    if recorded == head(room):
        return
    if recorded is not None and recorded not in revisions(room):
        raise SetupProblem(
            f"the {room}'s tables were made by a newer version of lookalike "
            f"({recorded}; this one knows {head(room)}): update lookalike"
        )
    from alembic import command

    config = alembic_config(room)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def alembic_config(room: Room) -> Config:
    """Alembic's view of one room."""
    from alembic.config import Config

    config = Config()
    folder = str(FOLDER).replace("%", "%%")  # Config interpolates percent signs
    config.set_main_option("script_location", folder)
    config.set_main_option("version_locations", f"{folder}/{room}")
    config.set_main_option("path_separator", "newline")
    config.attributes["room"] = room
    return config
