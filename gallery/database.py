"""Opens a folder's catalogue, and changes any: pragmas, transactions and migration."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError

from engine.errors import BadSettings, GalleryCorrupt
from migrations import current, head, upgrade

__all__ = ["changing", "connect", "migrate", "translated"]

_BUSY_TIMEOUT_S = 15.0


def connect(file: Path) -> Engine:
    """The SQLite database in a file, which need not exist yet.

    Write-ahead logging, so that others read while one writes; foreign keys are checked. One in a
    folder that can't be written (a read-only mount) can be read, if nobody is writing it.
    """
    options = {"timeout": _BUSY_TIMEOUT_S}
    if _is_read_only(file):
        query = {"uri": "true", "mode": "ro", "immutable": "1"}
        url = URL.create("sqlite", database=f"file:{quote(str(file))}", query=query)
        database = create_engine(url, connect_args=options)
        event.listen(database, "connect", _on_read_only_connect)
    else:
        database = create_engine(URL.create("sqlite", database=str(file)), connect_args=options)
        event.listen(database, "connect", _on_connect)
    event.listen(database, "begin", _on_begin)
    return database


def migrate(database: Engine) -> None:
    """Brings the tables up to date; the caller holds the gallery's lock where that matters."""
    with database.connect() as connection:
        if current("gallery", connection) == head("gallery"):
            return
    with changing(database) as connection:
        upgrade("gallery", connection)


@contextmanager
def changing(database: Engine) -> Iterator[Connection]:
    """A transaction that will write: all of it counts, or nothing; one at a time."""
    if database.dialect.name == "postgresql":
        from gallery.postgres.server import GALLERY_TURN, take_turn

        # What was committed while this one waited for its turn must be seen.
        with database.execution_options(isolation_level="READ COMMITTED").begin() as connection:
            take_turn(connection, GALLERY_TURN)
            yield connection
        return
    with database.execution_options(lookalike_writes=True).begin() as connection:
        yield connection


@contextmanager
def translated(file: Path) -> Iterator[None]:
    """Turns what SQLite says of a bad file into a sentence for the operator.

    Raises:
        BadSettings: If the file can't be opened or written.
        GalleryCorrupt: If it is no database.
    """
    try:
        yield
    except DatabaseError as problem:
        reason = problem.orig
        code = getattr(reason, "sqlite_errorcode", 0) & 0xFF
        if code in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
            raise GalleryCorrupt(
                f"{file} is damaged: restore it from a backup, or move the folder away and add "
                "the people again"
            ) from problem
        if isinstance(problem, OperationalError) and code in _UNUSABLE:
            raise BadSettings(
                f"the gallery {file} can't be used ({reason}): check the folder's rights and "
                "free space, or choose another one with --home"
            ) from problem
        raise


_UNUSABLE = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
}


def _is_read_only(file: Path) -> bool:
    unfinished = file.with_name(f"{file.name}-wal")  # immutable=1 would not see what is in it
    return file.is_file() and not os.access(file.parent, os.W_OK) and not unfinished.exists()


def _on_read_only_connect(connection: Any, _record: object) -> None:
    connection.isolation_level = None


def _on_connect(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where _on_begin says, not where sqlite3
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    # A transaction that reads first and writes later fails when somebody else wrote in between,
    # whatever the timeout; one that is going to write says so at once.
    writes = connection.get_execution_options().get("lookalike_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
