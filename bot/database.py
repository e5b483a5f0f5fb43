"""Opens the store's database: address, driver, file, pragmas, migrations, the right key.

A file of SQLite, or anything else that SQLAlchemy speaks to with asyncio; PostgreSQL is tested.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from filelock import AsyncFileLock
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import migrations
from bot.identity import Identity
from bot.tables import KeyRow
from engine.errors import BadSettings
from gallery.postgres.server import (
    CONNECTING,
    DRIVER,
    STORE_TURN,
    address,
    need_packages,
    take_turn,
    tell_plainly,
)

__all__ = ["connect", "database_url", "prepare", "why"]

BUSY_TIMEOUT_MS = 5_000
LOCK_TIMEOUT_S = 30


def database_url(url: str | None, home: Path) -> sa.URL:
    """The database's address with a driver that works with asyncio.

    Args:
        url: Any SQLAlchemy URL; None for a SQLite file in the data folder.
        home: The data folder.

    Raises:
        BadSettings: If the URL can't be read; its password is not shown.
    """
    if url is None:
        return sa.URL.create("sqlite+aiosqlite", database=str(home / "lookalike.db"))
    found = address(url, "database.url")
    return found.set(drivername="sqlite+aiosqlite") if found.drivername == "sqlite" else found


def connect(url: sa.URL) -> AsyncEngine:
    """An engine for that address; nothing is connected yet.

    Raises:
        BadSettings: If its driver is missing or its file can't be made.
    """
    is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
    is_postgres = url.drivername == DRIVER
    if is_postgres:
        need_packages()
    try:
        if is_file:
            _make_file(Path(str(url.database)))
        # Parameters are sealed rows and keys: they stay out of every message.
        engine = create_async_engine(
            url,
            connect_args=dict(CONNECTING) if is_postgres else {},
            hide_parameters=True,
            pool_pre_ping=not is_file,
        )
    except ImportError as problem:
        raise BadSettings(f"database.url needs the package {problem.name}: install it") from None
    except OSError as problem:
        raise BadSettings(f"the database can't be made: {problem.strerror}") from None
    except SQLAlchemyError as problem:
        raise BadSettings(why(problem)) from None
    if url.get_backend_name() == "sqlite":
        sa.event.listen(engine.sync_engine, "connect", _tune_sqlite)
    if is_postgres:
        tell_plainly(engine.sync_engine, url)
    return engine


def _make_file(path: Path) -> None:
    """The database is for its owner's eyes; SQLite gives its log the same mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)


def _tune_sqlite(connection: Any, _record: object) -> None:
    """Write-ahead log: readers never wait for a writer. Deleted content is overwritten."""
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        "synchronous = NORMAL",
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "secure_delete = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


async def prepare(engine: AsyncEngine, url: sa.URL, identity: Identity) -> None:
    """Migrates and checks the secret; one process at a time.

    Raises:
        BadSettings: If the database was written with another secret.
        SetupProblem: If a newer program made it.
    """
    async with AsyncExitStack() as stack:
        if url.get_backend_name() == "sqlite" and url.database:
            lock = AsyncFileLock(f"{url.database}.lock", timeout=LOCK_TIMEOUT_S)
            await stack.enter_async_context(lock)
        connection = await stack.enter_async_context(engine.begin())
        if url.get_backend_name() == "postgresql":
            await connection.run_sync(lambda plain: take_turn(plain, STORE_TURN))
        await connection.run_sync(lambda plain: migrations.upgrade("store", plain))
        recorded = await connection.scalar(sa.select(KeyRow.fingerprint))
        if recorded is None:
            await connection.execute(
                sa.insert(KeyRow).values(id=1, fingerprint=identity.fingerprint())
            )
        elif recorded != identity.fingerprint():
            raise BadSettings(
                "the database was written with another secret key: put the right secret.key (or "
                "LOOKALIKE_DATABASE__KEY) back, or delete the database to start afresh"
            )


def why(problem: Exception) -> str:
    """What the driver says, without SQL and without values."""
    original = getattr(problem, "orig", None) or problem
    return f"the database does not answer: {type(original).__name__}"
