"""Opens the store's database: address, driver, file, pragmas, migrations, the right key.

A file of SQLite, or anything else that SQLAlchemy speaks to with asyncio; PostgreSQL is tested.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from filelock import AsyncFileLock
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

import migrations
from bot.store.keys import Identity, Who, seal, unseal
from bot.store.tables import ChatChoiceRow, KeyRow, PastMatchRow, StoreTables, UserChoiceRow
from engine.errors import BadSettings, TryLater
from gallery.database import (
    CONNECTING,
    DRIVER,
    STORE_TURN,
    address,
    need_packages,
    take_turn,
    tell_plainly,
)

__all__ = ["Choice", "PastMatch", "Store", "connect", "database_url", "prepare", "why"]

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
    """Creates the file readable by its owner only; SQLite gives its log the same mode."""
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


DAY_S = 86_400

USER_CHOICES = StoreTables.metadata.tables[UserChoiceRow.__tablename__]
CHAT_CHOICES = StoreTables.metadata.tables[ChatChoiceRow.__tablename__]

EVERYWHERE = frozenset({"model", "style"})

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Choice:
    """A person's choices; None where the default holds.

    Attributes:
        model: Backbone, in every chat.
        top: How many matches are shown in this chat, 1 to 10.
        category: The category searched in this chat.
        style: How cards are drawn, in every chat.
    """

    model: str | None = None
    top: int | None = None
    category: str | None = None
    style: str | None = None


@dataclass(frozen=True, slots=True)
class PastMatch:
    """A match of the history.

    Attributes:
        person: Name, as it was shown.
        score: 0 to 100.
        model: Backbone that answered.
        at_s: When, seconds since 1970 (UTC).
    """

    person: str
    score: float
    model: str
    at_s: int


class Store:
    """Choices and history, for any number of tasks at once.

    ``Store.open`` makes one. Every method raises TryLater when the database does not answer.
    """

    def __init__(
        self, engine: AsyncEngine, identity: Identity, *, history_days: int, clock: Clock
    ) -> None:
        self._engine = engine
        self._identity = identity
        self._history_days = history_days
        self._clock = clock
        self._writing = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: sa.URL, identity: Identity, *, history_days: int = 30, clock: Clock = time.time
    ) -> AsyncIterator[Store]:
        """Connects, brings the tables up to date, deletes what is too old; closes at the end.

        Args:
            url: From ``database_url``.
            identity: Whose secret files and seals the rows.
            history_days: How long matches are kept; 0 keeps none.
            clock: Seconds since 1970.

        Raises:
            BadSettings: If the database can't be opened, or belongs to another secret.
            SetupProblem: If a newer program made it.
        """
        engine = connect(url)
        try:
            try:
                await prepare(engine, url, identity)
            except SQLAlchemyError as problem:
                raise BadSettings(why(problem)) from None
            store = cls(engine, identity, history_days=history_days, clock=clock)
            await store.sweep()
            yield store
        finally:
            await engine.dispose()

    @property
    def history_days(self) -> int:
        """How long matches are kept; 0 keeps none."""
        return self._history_days

    async def choice(self, who: Who) -> Choice:
        """A person's choices, in this chat and everywhere."""
        everywhere = sa.select(sa.literal(USER_CHOICES.name), UserChoiceRow.sealed)
        here = sa.select(sa.literal(CHAT_CHOICES.name), ChatChoiceRow.sealed)
        async with self._reading() as connection:
            rows = await connection.execute(
                sa.union_all(
                    everywhere.where(UserChoiceRow.user_key == who.user.hex()),
                    here.where(ChatChoiceRow.chat_key == who.chat.hex()),
                )
            )
            found = rows.all()
        content: dict[str, Any] = {}
        for table, sealed in found:
            content |= self._unseal(table, who.user, sealed)
        return Choice(*(content.get(name) for name in ("model", "top", "category", "style")))

    async def choose(self, who: Who, **choices: object) -> None:
        """Remembers choices, named as in ``Choice``; None returns to the default.

        The model and the style hold in every chat, the others in this one.
        """
        everywhere = {name: value for name, value in choices.items() if name in EVERYWHERE}
        here = {name: value for name, value in choices.items() if name not in EVERYWHERE}
        if everywhere:
            await self._change(USER_CHOICES, who.user, who, everywhere)
        if here:
            await self._change(CHAT_CHOICES, who.chat, who, here)

    async def remember(self, who: Who, *matches: PastMatch) -> None:
        """Adds matches to the history; nothing where none is kept."""
        if not self._history_days:
            return
        rows = []
        for match in matches:
            content = {"person": match.person, "score": round(match.score, 1), "model": match.model}
            sealed = self._seal(PastMatchRow.__tablename__, who.user, content)
            rows.append({"user_key": who.user.hex(), "at_s": match.at_s, "sealed": sealed})
        async with self._transaction() as connection:
            await connection.execute(sa.insert(PastMatchRow), rows)

    async def history(self, who: Who, limit: int | None = None) -> tuple[PastMatch, ...]:
        """A person's matches that are not expired, newest first."""
        async with self._reading() as connection:
            rows = await connection.execute(
                sa.select(PastMatchRow.at_s, PastMatchRow.sealed)
                .where(PastMatchRow.user_key == who.user.hex(), PastMatchRow.at_s >= self._oldest())
                .order_by(PastMatchRow.at_s.desc(), PastMatchRow.id.desc())
                .limit(limit)
            )
            found = rows.all()
        return tuple(
            PastMatch(at_s=at_s, **self._unseal(PastMatchRow.__tablename__, who.user, sealed))
            for at_s, sealed in found
        )

    async def export(self, who: Who) -> dict[str, Any]:
        """Everything stored about a person, in every chat, as values for JSON."""
        async with self._reading() as connection:
            user = await self._content(connection, USER_CHOICES, who.user, who.user)
            rows = await connection.execute(
                sa.select(ChatChoiceRow.sealed).where(ChatChoiceRow.user_key == who.user.hex())
            )
            choices = [self._unseal(CHAT_CHOICES.name, who.user, row.sealed) for row in rows]
        return {
            "choices": user,
            "choices_by_chat": choices,
            "matches": [
                {
                    "person": match.person,
                    "score": match.score,
                    "model": match.model,
                    "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(match.at_s)),
                }
                for match in await self.history(who)
            ],
        }

    async def forget(self, who: Who) -> None:
        """Deletes everything stored about a person, in every chat."""
        async with self._transaction() as connection:
            for table in (PastMatchRow, ChatChoiceRow, UserChoiceRow):
                await connection.execute(sa.delete(table).where(table.user_key == who.user.hex()))
        await self._empty_log()

    async def sweep(self) -> int:
        """Deletes matches that are too old; how many there were."""
        async with self._transaction() as connection:
            result = await connection.execute(
                sa.delete(PastMatchRow).where(PastMatchRow.at_s < self._oldest())
            )
        if result.rowcount:
            await self._empty_log()
        return int(result.rowcount)

    def now_s(self) -> int:
        """The time for a new match."""
        return int(self._clock())

    def _oldest(self) -> int:
        if not self._history_days:
            return 2**62  # nothing is young enough
        return int(self._clock()) - self._history_days * DAY_S

    async def _change(
        self, table: sa.Table, key: bytes, who: Who, change: dict[str, object]
    ) -> None:
        """Reads, changes and writes one row of choices; an empty one is deleted."""
        # Two presses by one person at once must not lose one: writers take turns.
        async with self._writing, self._transaction() as connection:
            if self._engine.dialect.name == "postgresql":  # other processes may write, too
                lock = int.from_bytes(key[:8], signed=True)
                await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock)))
            content = await self._content(connection, table, key, who.user)
            content = {
                name: value for name, value in (content | change).items() if value is not None
            }
            column = table.primary_key.columns[0]
            await connection.execute(sa.delete(table).where(column == key.hex()))
            if content:
                row = {column.name: key.hex(), "sealed": self._seal(table.name, who.user, content)}
                if "user_key" in table.c:
                    row["user_key"] = who.user.hex()
                await connection.execute(sa.insert(table).values(row))

    async def _content(
        self, connection: AsyncConnection, table: sa.Table, key: bytes, user: bytes
    ) -> dict[str, Any]:
        sealed = await connection.scalar(
            sa.select(table.c.sealed).where(table.primary_key.columns[0] == key.hex())
        )
        return {} if sealed is None else self._unseal(table.name, user, sealed)

    def _seal(self, table: str, user: bytes, content: dict[str, Any]) -> bytes:
        return seal(self._identity.sealing_key(user), table, content)

    def _unseal(self, table: str, user: bytes, sealed: bytes) -> dict[str, Any]:
        return unseal(self._identity.sealing_key(user), table, sealed)

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.connect() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as problem:
            raise TryLater(why(problem)) from None

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.begin() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as problem:
            raise TryLater(why(problem)) from None

    async def _empty_log(self) -> None:
        """Deleted rows also leave SQLite's write-ahead log."""
        if self._engine.dialect.name == "sqlite":
            async with self._reading() as connection:
                await connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
