"""Databases: opens SQLite and PostgreSQL, transactions, locks, and errors as plain sentences.

The gallery and the bot's own store use what is said here of PostgreSQL.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError

from engine.errors import BadSettings, GalleryCorrupt, LookalikeError, TryLater
from migrations import current, head, upgrade, version_table

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import ExceptionContext

_BUSY_TIMEOUT_S: Final = 15.0
_UNUSABLE: Final = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
    }
)

DRIVER: Final = "postgresql+psycopg"

CONNECTING: Final = MappingProxyType(
    {
        "application_name": "lookalike",
        "connect_timeout": 10,  # s
        # A server that vanished without a word is given up after half a minute, not two hours.
        "keepalives_idle": 15,  # s
        "keepalives_interval": 5,  # s
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,  # ms
        # Poolers such as PgBouncer hand out another server process with each transaction, which
        # does not know what an earlier one prepared.
        "prepare_threshold": None,
    }
)
_MOST_CONNECTIONS: Final = 30

# First halves of advisory locks; the second is the schema, so that galleries in two schemas of one
# database don't wait for each other. Any numbers that nobody else is likely to use would do.
GALLERY_WRITER: Final = 0x10_0CA1  # held by whoever changes the gallery, for as long as it takes
GALLERY_TURN: Final = 0x10_0CA2  # held for one transaction that writes
STORE_TURN: Final = 0x10_0CA3  # the same, in the store

_REFUSED = re.compile(
    r"authentication|password|no pg_hba\.conf entry|(role|database|user) .*does not exist"
    r"|not permitted to log in|permission denied|not currently accepting connections"
    r"|invalid connection option|SSL",
    re.IGNORECASE,
)
# https://www.postgresql.org/docs/16/errcodes-appendix.html
_MENDS: Final = MappingProxyType(
    {
        "25006": "can only be read: name the primary server, not a copy of it",
        "42501": "does not let this user write: let its owner `GRANT ALL ON SCHEMA public` and on "
        "the tables in it to this user",
        "53100": "has no space left: make room on its disk",
    }
)
_INSTALL = "has no pgvector: install it on the server (packages are called postgresql-16-pgvector)"
_WITHOUT_PGVECTOR: Final = MappingProxyType(
    {
        "0A000": _INSTALL,
        "58P01": _INSTALL,
        "42704": _INSTALL,
        "42501": "lacks pgvector, which this user must not create: let a superuser run "
        "`CREATE EXTENSION vector` in it",
    }
)
_LATER = ("08", "40", "53", "55", "57")  # connection, conflict, resources, locks, intervention


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
    if database.dialect.name == "sqlite":
        # One statement rather than a transaction: every command does this at its start.
        query = f"SELECT version_num FROM {version_table('gallery')}"  # noqa: S608 - a fixed name
        with suppress(sqlite3.Error), closing(database.raw_connection()) as connection:
            if connection.cursor().execute(query).fetchall() == [(head("gallery"),)]:
                return
    else:
        with database.connect() as connection:
            if current("gallery", connection) == head("gallery"):
                return
    with changing(database) as connection:
        upgrade("gallery", connection)


@contextmanager
def changing(database: Engine) -> Iterator[Connection]:
    """A transaction that will write: all of it counts, or nothing; one at a time."""
    if database.dialect.name == "postgresql":
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


def address(url: str, setting: str) -> sa.URL:
    """A database's address, with psycopg as the driver of PostgreSQL.

    Args:
        url: As set; ``postgres://`` means ``postgresql://``.
        setting: Its name, for the sentence.

    Raises:
        BadSettings: If the URL can't be read; its password is not shown.
    """
    try:
        read = sa.make_url(url)
    except (ArgumentError, ValueError):
        raise BadSettings(f"{setting} is not an address that SQLAlchemy can read") from None
    return read.set(drivername=DRIVER) if read.drivername in {"postgres", "postgresql"} else read


def need_packages() -> None:
    """Makes sure that what talks to PostgreSQL is installed.

    Raises:
        BadSettings: If it is not.
    """
    try:
        import pgvector  # noqa: F401 - the tables need it
        import psycopg  # noqa: F401 - SQLAlchemy needs it
    except ImportError as problem:
        raise BadSettings(
            f"PostgreSQL needs the package {problem.name}: run `pip install 'lookalike[postgres]'`"
        ) from None


def masked(url: sa.URL) -> str:
    """The address without its password, which may stand in two places."""
    shown = url.difference_update_query(["password", "sslpassword"])
    return shown.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)


def connect_server(url: sa.URL) -> Engine:
    """The gallery's database; nothing is connected yet.

    Readers see one moment from a transaction's begin to its end; ``changing`` lets writers take
    turns. What psycopg complains of becomes a sentence (``told``).

    Raises:
        BadSettings: If it is no PostgreSQL.
    """
    if url.get_backend_name() != "postgresql":
        raise BadSettings("gallery.url must begin with postgresql://")
    engine = sa.create_engine(
        url,
        connect_args=dict(CONNECTING),
        hide_parameters=True,  # vectors of people's faces stay out of every message
        isolation_level="REPEATABLE READ",
        max_overflow=_MOST_CONNECTIONS - 5,
        pool_pre_ping=True,
    )
    tell_plainly(engine, url)
    return engine


def tell_plainly(engine: Engine, url: sa.URL) -> None:
    """Lets an engine raise ``told`` sentences in place of its driver's errors."""
    place = masked(url)

    def translate(context: ExceptionContext) -> BaseException | None:
        if context.is_pre_ping:
            return None  # the pool connects anew
        return told(context.original_exception, place)

    event.listen(engine, "handle_error", translate, retval=True)


def told(problem: BaseException, place: str) -> LookalikeError | None:
    """What psycopg complains of, as a sentence for the operator.

    Args:
        problem: As raised.
        place: The database, without its password.

    Returns:
        TryLater if it may pass, BadSettings if somebody has to mend it; None for faults of this
        program, whose own words help more.
    """
    import psycopg

    if not isinstance(problem, psycopg.Error):
        return None
    state = problem.sqlstate or ""
    mends = _WITHOUT_PGVECTOR if '"vector"' in str(problem) else _MENDS
    if state in mends:
        return BadSettings(f"the database {place} {mends[state]}")
    if not state and isinstance(problem, psycopg.OperationalError):
        return _unconnected(_first_line(problem), place)
    if state.startswith(_LATER):
        return TryLater(f"the database {place} does not answer ({type(problem).__name__})")
    return None


def _unconnected(said: str, place: str) -> LookalikeError:
    """Without a connection there are no codes, only words."""
    if _REFUSED.search(said):
        return BadSettings(
            f"the database {place} refuses the connection ({said}): put the right user, password "
            "and database into its URL"
        )
    return TryLater(f"the database {place} does not answer ({said})")


def try_turn(connection: Connection, lock: int) -> bool:
    """Takes a lock until the transaction ends, unless somebody else has it."""
    taken: Any = connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(lock, _schema())))
    return bool(taken)


def take_turn(connection: Connection, lock: int) -> None:
    """Waits for a lock, and has it until the transaction ends."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock, _schema())))


def _schema() -> sa.Function[int]:
    return sa.func.hashtext(sa.func.coalesce(sa.func.current_schema(), ""))


def _first_line(problem: BaseException) -> str:
    """What libpq says, without "connection failed:" before and hints after it; no password."""
    line = next(iter(str(problem).strip().splitlines()), type(problem).__name__)
    # A colon would part the sentence from its mend.
    return line.removeprefix("connection failed: ").strip().replace(": ", ", ")


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
