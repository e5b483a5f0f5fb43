"""What is remembered about people between restarts: their choices and their match history.

Nothing outside this module sees a user id: rows, queues and memories are keyed by
HMAC-SHA256(secret, platform and id), and the secret lies apart from the database. What a row says
is sealed with AES-256-GCM (NIST SP 800-38D) under a key of the person's own, with a random 96-bit
nonce; table and key are bound to the text, so that a row moved elsewhere does not open. Only keys
and times stand in the clear.

The database is a file of SQLite, or anything else that SQLAlchemy speaks to with asyncio;
PostgreSQL is tested.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from filelock import AsyncFileLock
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import migrations
from bot.values import Sender
from engine.errors import BadSettings, SetupProblem, TryLater
from gallery.database import (
    CONNECTING,
    DRIVER,
    STORE_TURN,
    address,
    take_turn,
    tell_plainly,
)

LEAST_KEY_CHARS = 32
NONCE_BYTES = 12
BUSY_TIMEOUT_MS = 5_000
LOCK_TIMEOUT_S = 30
DAY_S = 86_400
EVERYWHERE = frozenset({"model", "style"})

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Who:
    """A person in a chat, as keys of 32 bytes."""

    user: bytes = field(repr=False)  # of the person on their platform
    # Of the person in this chat; two people in one chat have unrelated keys
    chat: bytes = field(repr=False)
    # Of the chat, the same for everybody in it; in memory only, never in a database
    room: bytes = field(repr=False)


class Identity:
    """Derives keys from one secret of at least 32 characters or bytes of randomness."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def who(self, sender: Sender) -> Who:
        """The keys of a sender."""
        return Who(
            user=self._keyed("user", sender.platform, sender.user_id),
            chat=self._keyed("chat", sender.platform, sender.user_id, sender.chat_id),
            room=self._keyed("room", sender.platform, sender.chat_id),
        )

    def tag(self, purpose: str, who: Who) -> str:
        """A short proof that a button was made for that person: 12 hexadecimal digits."""
        return self._keyed("tag", purpose, who.user.hex()).hex()[:12]

    def fingerprint(self) -> str:
        """A hash that identifies the secret without revealing it."""
        return self._keyed("fingerprint").hex()

    def sealing_key(self, user: bytes) -> bytes:
        """The AES-256 key of a person's rows."""
        return self._keyed("seal", user.hex())

    def cookie_secret(self) -> str:
        """Signs the cookies by which the web chat tells one browser from another."""
        return self._keyed("cookie").hex()

    def _keyed(self, *parts: str) -> bytes:
        # Lengths keep ("ab", "c") and ("a", "bc") apart.
        message = b"".join(
            len(raw).to_bytes(4, "big") + raw for raw in [part.encode() for part in parts]
        )
        return hmac.digest(self._secret, message, hashlib.sha256)


def secret_key(path: Path, given: str | None = None) -> bytes:
    """The secret: the given one, else that of the file, made at first use.

    The file is made complete, for its owner alone (mode 600), and by one process only, however
    many start at once.

    Raises:
        BadSettings: If the given one is too short, or the file can't be read, made or used.
    """
    if given is not None:
        if len(given) < LEAST_KEY_CHARS:
            raise BadSettings(f"database.key has fewer than {LEAST_KEY_CHARS} characters")
        return given.encode()
    try:
        if not path.exists():
            _make_secret(path)
        found = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not text"
        raise BadSettings(f"the secret key {path} can't be used: {reason}") from None
    if len(found) < LEAST_KEY_CHARS:
        raise BadSettings(f"the secret key {path} is too short; put the right one back")
    return found.encode()


def _make_secret(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)  # fails if somebody else was first; rename would overwrite
    finally:
        draft.unlink()


def seal(key: bytes, place: str, content: dict[str, Any]) -> bytes:
    """The content as nonce and ciphertext, under 32 bytes of key, for that table alone."""
    nonce = os.urandom(NONCE_BYTES)
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return nonce + AESGCM(key).encrypt(nonce, text, place.encode())


def unseal(key: bytes, place: str, sealed: bytes) -> dict[str, Any]:
    """What was sealed.

    Raises:
        SetupProblem: If it was sealed with another key, for another place, or was changed.
    """
    try:
        text = AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.encode())
    except (InvalidTag, ValueError):
        raise SetupProblem("a row of the database was changed or sealed elsewhere") from None
    content: dict[str, Any] = json.loads(text)
    return content


class StoreTables(DeclarativeBase):
    """Base of every table of the store."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {str: sa.String(64), bytes: sa.LargeBinary}  # str: hex keys


class KeyRow(StoreTables):
    """One row: the fingerprint of the secret under which everything here is filed."""

    __tablename__ = "store_key"
    __table_args__ = (sa.CheckConstraint("id = 1", name="single"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]


class UserChoiceRow(StoreTables):
    """A person's choices for every chat: the model, how cards are drawn."""

    __tablename__ = "user_choice"

    user_key: Mapped[str] = mapped_column(primary_key=True)
    sealed: Mapped[bytes]


class ChatChoiceRow(StoreTables):
    """A person's choices for one chat: how many matches, which category."""

    __tablename__ = "chat_choice"

    chat_key: Mapped[str] = mapped_column(primary_key=True)
    user_key: Mapped[str] = mapped_column(index=True)
    sealed: Mapped[bytes]


class PastMatchRow(StoreTables):
    """A match of the history: who, score and model are sealed; the time is needed to expire it."""

    __tablename__ = "past_match"
    __table_args__ = (
        sa.Index("ix_past_match_user_key", "user_key", "at_s"),
        sa.Index("ix_past_match_at_s", "at_s"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    user_key: Mapped[str]
    at_s: Mapped[int] = mapped_column(sa.BigInteger)
    sealed: Mapped[bytes]


USER_CHOICES = StoreTables.metadata.tables[UserChoiceRow.__tablename__]
CHAT_CHOICES = StoreTables.metadata.tables[ChatChoiceRow.__tablename__]
MATCHES = PastMatchRow.__tablename__


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


def _connect(url: sa.URL) -> AsyncEngine:
    """An engine for that address; nothing is connected yet."""
    is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
    is_postgres = url.drivername == DRIVER
    try:
        if is_file:  # readable by its owner only; SQLite gives its log the same mode
            path = Path(str(url.database))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
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
        raise BadSettings(_why(problem)) from None
    if url.get_backend_name() == "sqlite":
        sa.event.listen(engine.sync_engine, "connect", _tune_sqlite)
    if is_postgres:
        tell_plainly(engine.sync_engine, url)
    return engine


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


async def _prepare(engine: AsyncEngine, url: sa.URL, fingerprint: str) -> None:
    """Migrates and checks the secret; one process at a time."""
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
            await connection.execute(sa.insert(KeyRow).values(id=1, fingerprint=fingerprint))
        elif recorded != fingerprint:
            raise BadSettings(
                "the database was written with another secret key: put the right secret.key (or "
                "LOOKALIKE_DATABASE__KEY) back, or delete the database to start afresh"
            )


def _why(problem: Exception) -> str:
    """What the driver says, without SQL and without values."""
    original = getattr(problem, "orig", None) or problem
    return f"the database does not answer: {type(original).__name__}"


@dataclass(frozen=True, slots=True)
class Choice:
    """A person's choices, None where the default holds; model and style hold in every chat."""

    model: str | None = None
    top: int | None = None
    category: str | None = None
    style: str | None = None


@dataclass(frozen=True, slots=True)
class PastMatch:
    """A match of the history: the name as it was shown, a score of 0 to 100, Unix time."""

    person: str
    score: float
    model: str
    at_s: int


class Store:
    """Choices and history, for any number of tasks at once.

    ``Store.open`` makes one. Every method raises TryLater when the database does not answer.

    Attributes:
        history_days: How long matches are kept; 0 keeps none.
    """

    def __init__(
        self, engine: AsyncEngine, identity: Identity, *, history_days: int, clock: Clock
    ) -> None:
        self._engine = engine
        self._identity = identity
        self.history_days = history_days
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
        engine = _connect(url)
        try:
            try:
                await _prepare(engine, url, identity.fingerprint())
            except SQLAlchemyError as problem:
                raise BadSettings(_why(problem)) from None
            store = cls(engine, identity, history_days=history_days, clock=clock)
            await store.sweep()
            yield store
        finally:
            await engine.dispose()

    async def choice(self, who: Who) -> Choice:
        """A person's choices, in this chat and everywhere."""
        everywhere = sa.select(sa.literal(USER_CHOICES.name), UserChoiceRow.sealed)
        here = sa.select(sa.literal(CHAT_CHOICES.name), ChatChoiceRow.sealed)
        both = sa.union_all(
            everywhere.where(UserChoiceRow.user_key == who.user.hex()),
            here.where(ChatChoiceRow.chat_key == who.chat.hex()),
        )
        async with self._transaction() as connection:
            found = (await connection.execute(both)).all()
        content: dict[str, Any] = {}
        for table, sealed in found:
            content |= self._unseal(table, who, sealed)
        return Choice(*(content.get(name) for name in ("model", "top", "category", "style")))

    async def choose(self, who: Who, **choices: object) -> None:
        """Remembers choices, named as in ``Choice``; None returns to the default.

        The model and the style hold in every chat, the others in this one.
        """
        everywhere = {name: value for name, value in choices.items() if name in EVERYWHERE}
        here = {name: value for name, value in choices.items() if name not in EVERYWHERE}
        if everywhere:
            await self._change(USER_CHOICES, {"user_key": who.user.hex()}, who, everywhere)
        if here:
            keys = {"chat_key": who.chat.hex(), "user_key": who.user.hex()}
            await self._change(CHAT_CHOICES, keys, who, here)

    async def remember(self, who: Who, *matches: PastMatch) -> None:
        """Adds matches to the history; nothing where none is kept."""
        if not self.history_days:
            return
        rows = []
        for match in matches:
            content = {"person": match.person, "score": round(match.score, 1), "model": match.model}
            sealed = self._seal(MATCHES, who, content)
            rows.append({"user_key": who.user.hex(), "at_s": match.at_s, "sealed": sealed})
        async with self._transaction() as connection:
            await connection.execute(sa.insert(PastMatchRow), rows)

    async def history(self, who: Who, limit: int | None = None) -> tuple[PastMatch, ...]:
        """A person's matches that are not expired, newest first."""
        async with self._transaction() as connection:
            rows = await connection.execute(
                sa.select(PastMatchRow.at_s, PastMatchRow.sealed)
                .where(PastMatchRow.user_key == who.user.hex(), PastMatchRow.at_s >= self._oldest())
                .order_by(PastMatchRow.at_s.desc(), PastMatchRow.id.desc())
                .limit(limit)
            )
            found = rows.all()
        return tuple(
            PastMatch(at_s=at_s, **self._unseal(MATCHES, who, sealed)) for at_s, sealed in found
        )

    async def export(self, who: Who) -> dict[str, Any]:
        """Everything stored about a person, in every chat, as values for JSON."""
        found = {}
        async with self._transaction() as connection:
            for table in (USER_CHOICES, CHAT_CHOICES):
                mine = sa.select(table.c.sealed).where(table.c.user_key == who.user.hex())
                rows = (await connection.scalars(mine)).all()
                found[table] = [self._unseal(table.name, who, sealed) for sealed in rows]
        matches = [asdict(match) for match in await self.history(who)]
        for match in matches:
            at = time.gmtime(match.pop("at_s"))
            match["time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", at)
        return {
            "choices": next(iter(found[USER_CHOICES]), {}),
            "choices_by_chat": found[CHAT_CHOICES],
            "matches": matches,
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
        if not self.history_days:
            return 2**62  # nothing is young enough
        return self.now_s() - self.history_days * DAY_S

    async def _change(
        self, table: sa.Table, keys: dict[str, str], who: Who, change: dict[str, object]
    ) -> None:
        """Reads, changes and writes one row of choices; an empty one is deleted.

        The first of ``keys`` is the primary key's; None in ``change`` deletes a choice.
        """
        name, key = next(iter(keys.items()))
        row = table.c[name] == key
        # Two presses by one person at once must not lose one: writers take turns.
        async with self._writing, self._transaction() as connection:
            if self._engine.dialect.name == "postgresql":  # other processes may write, too
                lock = int.from_bytes(bytes.fromhex(key)[:8], signed=True)
                await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock)))
            sealed = await connection.scalar(sa.select(table.c.sealed).where(row))
            content = {} if sealed is None else self._unseal(table.name, who, sealed)
            content = {name: one for name, one in (content | change).items() if one is not None}
            await connection.execute(sa.delete(table).where(row))
            if content:
                sealed = self._seal(table.name, who, content)
                await connection.execute(sa.insert(table).values(**keys, sealed=sealed))

    def _seal(self, table: str, who: Who, content: dict[str, Any]) -> bytes:
        return seal(self._identity.sealing_key(who.user), table, content)

    def _unseal(self, table: str, who: Who, sealed: bytes) -> dict[str, Any]:
        return unseal(self._identity.sealing_key(who.user), table, sealed)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.begin() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as problem:
            raise TryLater(_why(problem)) from None

    async def _empty_log(self) -> None:
        """Deleted rows also leave SQLite's write-ahead log."""
        if self._engine.dialect.name == "sqlite":
            async with self._transaction() as connection:
                await connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
