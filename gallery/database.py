"""Databases: opens SQLite and PostgreSQL, transactions, locks, and errors as plain sentences.

The gallery and the bot's own store use what is said here of PostgreSQL.
"""

import json
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.exc import ArgumentError

from engine.errors import BadSettings, Busy, GalleryCorrupt, LookalikeError, TryLater
from migrations import current, head, upgrade

_BUSY_TIMEOUT_S: Final = 15.0
_AGAIN_S: Final = 0.01
_PRAGMAS: Final = ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON")
_UNUSABLE: Final = ("CANTOPEN", "READONLY", "PERM", "FULL", "IOERR")  # SQLite's codes
_DAMAGED: Final = ("NOTADB", "CORRUPT")
_LOCKED: Final = ("BUSY", "LOCKED")

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

# First halves of advisory locks; the second is the schema, so that galleries in two schemas of one
# database don't wait for each other. Any numbers that nobody else is likely to use would do.
GALLERY_WRITER: Final = 0x10_0CA1  # held by whoever changes the gallery, for as long as it takes
GALLERY_TURN: Final = 0x10_0CA2  # held for one transaction that writes
STORE_TURN: Final = 0x10_0CA3  # the same, in the store

_SCHEMA: Final = sa.func.hashtext(sa.func.coalesce(sa.func.current_schema(), ""))

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
    folder that can't be written (a read-only mount) can be read, if nobody is writing it. What
    SQLite complains of is raised as Busy, BadSettings or GalleryCorrupt: as a sentence.
    """
    unfinished = file.with_name(f"{file.name}-wal")  # immutable=1 would not see what is in it
    read_only = file.is_file() and not os.access(file.parent, os.W_OK) and not unfinished.exists()
    url = URL.create("sqlite", database=str(file))
    if read_only:
        query = {"uri": "true", "mode": "ro", "immutable": "1"}
        url = URL.create("sqlite", database=f"file:{quote(str(file))}", query=query)
    waits = {"timeout": _BUSY_TIMEOUT_S}
    database = create_engine(url, connect_args=waits, json_deserializer=_read_json)

    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions begin where ``begin`` says
        for pragma in () if read_only else _PRAGMAS:
            set_pragma(connection, pragma)

    def begin(connection: Connection) -> None:
        # A transaction that reads first and writes later fails when somebody else wrote in
        # between, whatever the timeout; one that is going to write says so at once.
        writes = connection.get_execution_options().get("lookalike_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(database, "connect", prepare)

    def translate(context: ExceptionContext) -> BaseException | None:
        return _told_of_file(context.original_exception, file)

    event.listen(database, "begin", begin)
    event.listen(database, "handle_error", translate, retval=True)
    return database


def set_pragma(connection: Any, pragma: str) -> None:
    """Tells SQLite something such as ``journal_mode = WAL``, which fails where others do so, too.

    SQLite waits for the locks of others with a timeout, but not for this one.
    """
    until = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute(f"PRAGMA {pragma}").close()
        except sqlite3.OperationalError as problem:
            if problem.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(_AGAIN_S)
        else:
            return


def migrate(database: Engine) -> None:
    """Brings the tables up to date; the caller holds the gallery's lock where that matters."""
    if database.dialect.name == "sqlite":
        # One statement rather than a transaction: every command does this at its start.
        query = "SELECT version_num FROM alembic_version_gallery"
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
    shared = database.dialect.name == "postgresql"
    # What was committed while this one waited for its turn must be seen.
    options = {"isolation_level": "READ COMMITTED"} if shared else {"lookalike_writes": True}
    with database.execution_options(**options).begin() as connection:
        if shared:
            take_turn(connection, GALLERY_TURN)
        yield connection


def _told_of_file(problem: BaseException, file: Path) -> LookalikeError | None:
    """What SQLite complains of, as a sentence; None for faults of this program."""
    code = getattr(problem, "sqlite_errorname", "").removeprefix("SQLITE_").split("_")[0]
    if code in _DAMAGED:
        return GalleryCorrupt(
            f"{file} is damaged: restore it from a backup, or move the folder away and add the "
            "people again"
        )
    if code in _LOCKED:
        return Busy(f"another program has locked {file}: wait until it is done, then try again")
    if code in _UNUSABLE:
        return BadSettings(
            f"the gallery {file} can't be used ({problem}): check the folder's rights and free "
            "space, or choose another one with --home"
        )
    return None


def _read_json(text: str | bytes) -> Any:
    """What a column holds; None where it is no JSON: a damaged record must not hide the others."""
    with suppress(ValueError, TypeError, RecursionError):
        return json.loads(text)
    return None


def address(url: str, setting: str) -> sa.URL:
    """A database's address, with psycopg as the driver of PostgreSQL.

    ``postgres://`` means ``postgresql://``; ``setting`` is the URL's name, for the sentence. Raises
    BadSettings if the URL can't be read, whose password is not shown, or what talks to PostgreSQL
    is not installed.
    """
    try:
        read = sa.make_url(url)
    except (ArgumentError, ValueError):
        raise BadSettings(f"{setting} is not an address that SQLAlchemy can read") from None
    if read.drivername in {"postgres", "postgresql"}:
        read = read.set(drivername=DRIVER)
    try:
        if read.drivername == DRIVER:
            import pgvector  # noqa: F401 - the tables need it
            import psycopg  # noqa: F401 - SQLAlchemy needs it
    except ImportError as problem:
        raise BadSettings(
            f"PostgreSQL needs the package {problem.name}: run `pip install 'lookalike[postgres]'`"
        ) from None
    return read


def masked(url: sa.URL) -> str:
    """The address without its password, which may stand in two places."""
    shown = url.difference_update_query(["password", "sslpassword"])
    name = os.fsencode(url.database or "").decode("utf-8", "replace") or None
    shown = shown.set(drivername=url.get_backend_name(), database=name)
    return shown.render_as_string(hide_password=True)


def connect_server(setting: str) -> Engine:
    """The gallery's database at the address ``gallery.url``; nothing is connected yet.

    Readers see one moment from a transaction's begin to its end; ``changing`` lets writers take
    turns. What psycopg complains of becomes a sentence (``told``). Raises BadSettings if it is no
    PostgreSQL, or see ``address``.
    """
    url = address(setting, "gallery.url")
    if url.get_backend_name() != "postgresql":
        raise BadSettings("gallery.url must begin with postgresql://")
    engine = sa.create_engine(
        url,
        connect_args=dict(CONNECTING),
        hide_parameters=True,  # vectors of people's faces stay out of every message
        isolation_level="REPEATABLE READ",
        max_overflow=25,  # connections besides the 5 that are kept
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
    """What psycopg complains of, as a sentence for the operator; ``place`` shows no password.

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
    said = type(problem).__name__
    if not state and isinstance(problem, psycopg.OperationalError):
        # Without a connection there are no codes, only libpq's words, hints below them; a colon
        # would part the sentence from its mend.
        said = (str(problem).strip().splitlines() or [said])[0].removeprefix("connection failed: ")
        said = said.strip().replace(": ", ", ")
        if _REFUSED.search(said):
            return BadSettings(
                f"the database {place} refuses the connection ({said}): put the right user, "
                "password and database into its URL"
            )
    elif not state.startswith(_LATER):
        return None
    return TryLater(f"the database {place} does not answer ({said})")


def try_turn(connection: Connection, lock: int) -> bool:
    """Takes a lock until the transaction ends, unless somebody else has it."""
    return bool(connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(lock, _SCHEMA))))


def take_turn(connection: Connection, lock: int) -> None:
    """Waits for a lock, and has it until the transaction ends."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock, _SCHEMA)))
