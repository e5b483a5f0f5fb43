"""What is remembered about people between restarts: their choices and their match history.

Nothing outside this module sees a user id: rows, queues and memories are keyed by
HMAC-SHA256(secret, platform and id), and the secret lies apart from the database. What a row says
is sealed with AES-256-GCM (NIST SP 800-38D) under a key of the person's own, with a random 96-bit
nonce; table and key are bound to the text, so that a row moved elsewhere does not open. Only keys
and times stand in the clear.

The database is a file of SQLite, or anything else that SQLAlchemy speaks to; PostgreSQL is tested.
Transactions run in threads of the store's own, one hop each: a driver of asyncio hops five times.
"""

import asyncio
import hmac
import json
import os
import secrets
import time
from collections import ChainMap
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Self, TypeVar

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy.exc import SQLAlchemyError

import migrations
from bot.values import Sender
from engine.errors import BadSettings, SetupProblem, TryLater
from gallery.database import CONNECTING, DRIVER, STORE_TURN, address, take_turn, tell_plainly

LEAST_KEY_CHARS = 32
NONCE_BYTES = 12
LOCK_TIMEOUT_S = 10
BUSY_MS, CHECKPOINT_MS = 5000, 100  # how long SQLite waits for others
DAY_S = 86_400
# Of front ends: in how many hours what is kept counts (this one, the next, where a clock is set
# back, and those before), and how much of it.
KEPT: dict[str, tuple[int, int | None]] = {
    "telegram": (3, None),
    "telegram answered": (3, None),
    "discord": (25, 100),
    "discord asked": (3, None),
    "decode": (25, 1_000),
}
EVERYWHERE = frozenset({"model", "style"})

T = TypeVar("T")
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
            user=self.keyed("user", sender.platform, sender.user_id),
            chat=self.keyed("chat", sender.platform, sender.user_id, sender.chat_id),
            room=self.keyed("room", sender.platform, sender.chat_id),
        )

    def tag(self, purpose: str, who: Who) -> str:
        """A short proof that a button was made for that person: 12 hexadecimal digits."""
        return self.keyed("tag", purpose, who.user.hex()).hex()[:12]

    def sealing_key(self, user: bytes) -> bytes:
        """The AES-256 key of a person's rows."""
        return self.keyed("seal", user.hex())

    def keyed(self, *parts: str) -> bytes:
        """A hash of the parts, 32 bytes, that reveals neither them nor the secret."""
        # Lengths keep ("ab", "c") and ("a", "bc") apart.
        raw = [part.encode() for part in parts]
        message = b"".join(len(part).to_bytes(4, "big") + part for part in raw)
        return hmac.digest(self._secret, message, "sha256")


def secret_key(path: Path, given: str | None = None) -> bytes:
    """The secret: the given one, else that of the file, made at first use.

    The file is made complete, for its owner alone (mode 600), and by one process only, however
    many start at once. Raises BadSettings if the given one is too short, or the file unusable.
    """
    if given is not None:
        if len(given) < LEAST_KEY_CHARS:
            raise BadSettings(f"database.key has fewer than {LEAST_KEY_CHARS} characters")
        return given.encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with NamedTemporaryFile("w", dir=path.parent, encoding="ascii") as draft:  # mode 600
                draft.write(secrets.token_hex(32) + "\n")
                draft.flush()
                os.fsync(draft.fileno())
                with suppress(FileExistsError):
                    os.link(draft.name, path)  # fails if another was first; rename would overwrite
        found = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not text"
        raise BadSettings(f"the secret key {path} can't be used: {reason}") from None
    if len(found) < LEAST_KEY_CHARS:
        raise BadSettings(f"the secret key {path} is too short; put the right one back")
    return found.encode()


def seal(key: bytes, place: str, content: dict[str, Any]) -> bytes:
    """The content as nonce and ciphertext, under 32 bytes of key, for that place alone."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # of the extra "chat"

    nonce = os.urandom(NONCE_BYTES)
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return nonce + AESGCM(key).encrypt(nonce, text, place.encode())


def unseal(key: bytes, place: str, sealed: bytes) -> dict[str, Any]:
    """What was sealed; raises SetupProblem if it was for another key or place, or was changed."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        text = AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.encode())
    except (InvalidTag, ValueError):
        raise SetupProblem("a row of the database was changed or sealed elsewhere") from None
    content: dict[str, Any] = json.loads(text)
    return content


METADATA = sa.MetaData()

# One row: the fingerprint of the secret under which everything here is filed.
STORE_KEY = sa.Table(
    "store_key",
    METADATA,
    sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1"), primary_key=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
)
# A person's choices for every chat under their own key, and those for one chat under its key.
CHOICES = sa.Table(
    "choice",
    METADATA,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("user_key", sa.String(64), nullable=False, index=True),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
)
# The history: who, score and model are sealed; the time is needed to expire a match.
MATCHES = sa.Table(
    "past_match",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("user_key", sa.String(64), nullable=False),
    sa.Column("at_s", sa.BigInteger, nullable=False, index=True),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Index("ix_past_match_user_key", "user_key", "at_s"),
)
# Made once: SQLAlchemy takes longer to build a statement than SQLite to execute it.
_ROWS = sa.select(CHOICES.c.key, CHOICES.c.user_key, CHOICES.c.sealed)
_THERE = CHOICES.c.key == sa.bindparam("there")
_IN_CHAT = _ROWS.where(_THERE | (CHOICES.c.key == sa.bindparam("in_chat")))
_OLD_ROW = _ROWS.where(_THERE).with_for_update()
_NO_ROW, _NEW_ROW, _NEW_MATCH = CHOICES.delete().where(_THERE), CHOICES.insert(), MATCHES.insert()


def database_url(url: str | None, home: Path) -> sa.URL:
    """A SQLAlchemy URL, or that of the SQLite file in the data folder.

    Raises BadSettings if the URL can't be read; its password is not shown.
    """
    if url is None:
        return sa.URL.create("sqlite", database=str(home / "lookalike.db"))
    found = address(url, "database.url")
    return found.set(drivername="sqlite") if found.get_backend_name() == "sqlite" else found


def _connect(url: sa.URL) -> sa.Engine:
    """An engine for that address; nothing is connected yet."""
    is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
    is_postgres = url.drivername == DRIVER
    try:
        if is_file:  # readable by its owner only; SQLite gives its log the same mode
            path = Path(str(url.database))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
        # Parameters are sealed rows and keys: they stay out of every message.
        engine = sa.create_engine(
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
    if is_postgres:
        tell_plainly(engine, url)
    if url.get_backend_name() == "sqlite":

        @sa.event.listens_for(engine, "connect")
        def tune(connection: Any, _record: object) -> None:
            """Readers never wait for a writer; deleted content is overwritten."""
            for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "secure_delete = ON"):
                connection.execute(f"PRAGMA {pragma}").close()

    return engine


def _prepare(engine: sa.Engine, url: sa.URL, fingerprint: str) -> None:
    """Migrates and checks the secret; one process at a time."""
    with ExitStack() as stack:
        if url.get_backend_name() == "sqlite" and url.database:
            lock = FileLock(f"{url.database}.lock", timeout=LOCK_TIMEOUT_S, mode=0o600)
            try:
                stack.enter_context(lock)
            except Timeout:
                sentence = f"another process is opening {url.database}: "
                raise TryLater(sentence + "wait for it, or stop it if it hangs") from None
        connection = stack.enter_context(engine.begin())
        if url.get_backend_name() == "postgresql":
            take_turn(connection, STORE_TURN)
        migrations.upgrade("store", connection)
        recorded = connection.scalar(sa.select(STORE_KEY.c.fingerprint))
        if recorded is None:
            connection.execute(STORE_KEY.insert().values(id=1, fingerprint=fingerprint))
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
    """Choices and history, for any number of tasks at once; matches are kept ``history_days``.

    ``Store.open`` makes one. Every method raises TryLater when the database does not answer.
    """

    def __init__(
        self, engine: sa.Engine, identity: Identity, *, history_days: int, clock: Clock
    ) -> None:
        self._engine, self._clock, self._log_holds_more = engine, clock, False
        self.identity, self.history_days = identity, history_days
        # A database in memory lives in one thread. ``bot.background.leave`` waits for none.
        several = 4 if engine.url.database not in (None, "", ":memory:") else 1
        self._threads = ThreadPoolExecutor(several, "background")
        self._in_thread = partial(asyncio.get_running_loop().run_in_executor, self._threads)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: sa.URL, identity: Identity, *, history_days: int = 30, clock: Clock = time.time
    ) -> AsyncIterator[Self]:
        """Connects, brings the tables up to date, deletes what is too old; closes at the end.

        ``url`` is from ``database_url``; the secret of ``identity`` files and seals the rows.
        Raises BadSettings if the database can't be opened, or belongs to another secret, and
        SetupProblem if a newer program made it.
        """
        store = cls(_connect(url), identity, history_days=history_days, clock=clock)
        fingerprint = identity.keyed("fingerprint").hex()
        try:
            try:
                await store._in_thread(_prepare, store._engine, url, fingerprint)
            except SQLAlchemyError as problem:
                raise BadSettings(_why(problem)) from None
            await store.sweep()
            yield store
        finally:
            store._threads.shutdown(wait=False, cancel_futures=True)
            store._engine.dispose()

    async def choice(self, who: Who) -> Choice:
        """A person's choices, in this chat and everywhere."""
        keys = {"there": who.user.hex(), "in_chat": who.chat.hex()}
        found = await self._rows(_IN_CHAT, **keys)
        content = ChainMap(*found.values())
        return Choice(*(content.get(one.name) for one in fields(Choice)))

    async def choose(self, who: Who, **choices: object) -> None:
        """Remembers choices, named as in ``Choice``; None returns to the default.

        The model and the style hold in every chat, the others in this one.
        """
        for key, everywhere in ((who.user.hex(), True), (who.chat.hex(), False)):
            change = {name: v for name, v in choices.items() if (name in EVERYWHERE) is everywhere}
            if change:
                await self._change(key, who.user.hex(), change)

    async def remember(self, who: Who, *matches: PastMatch) -> None:
        """Adds matches to the history; nothing where none is kept."""
        if not self.history_days:
            return
        rows = []
        for match in matches:
            content = {"person": match.person, "score": round(match.score, 1), "model": match.model}
            sealed = seal(self.identity.sealing_key(who.user), MATCHES.name, content)
            rows.append({"user_key": who.user.hex(), "at_s": match.at_s, "sealed": sealed})
        await self._transaction(lambda connection: connection.execute(_NEW_MATCH, rows))

    async def history(self, who: Who, limit: int | None = None) -> tuple[PastMatch, ...]:
        """A person's matches that are not expired, newest first."""
        oldest_s = self._oldest(self.now_s())
        young = (MATCHES.c.user_key == who.user.hex()) & (MATCHES.c.at_s >= oldest_s)
        newest_first = (MATCHES.c.at_s.desc(), MATCHES.c.id.desc())
        query = sa.select(MATCHES.c.at_s, MATCHES.c.sealed).where(young).order_by(*newest_first)
        rows = await self._transaction(lambda one: one.execute(query.limit(limit)).all())
        key = self.identity.sealing_key(who.user)
        return tuple(PastMatch(at_s=at_s, **unseal(key, MATCHES.name, one)) for at_s, one in rows)

    async def export(self, who: Who) -> dict[str, Any]:
        """Everything stored about a person, in every chat, as values for JSON."""
        choices = await self._rows(_ROWS.where(CHOICES.c.user_key == who.user.hex()))
        matches = [asdict(match) for match in await self.history(who)]
        for match in matches:
            at = time.gmtime(match.pop("at_s"))
            match["time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", at)
        everywhere = choices.pop(who.user.hex(), {})
        return {"choices": everywhere, "choices_by_chat": [*choices.values()], "matches": matches}

    async def forget(self, who: Who) -> bool:
        """Deletes everything stored about a person, in every chat.

        Whether nothing of it is left in the files either: what another program reads meanwhile
        leaves them when ``tidy`` is called after its end.
        """
        tables, mine = (MATCHES, CHOICES), who.user.hex()
        deletions = [table.delete().where(table.c.user_key == mine) for table in tables]
        await self._transaction(lambda one: [one.execute(deletion) for deletion in deletions])
        return await self._empty_log()

    async def keep(self, name: str, what: str, content: object) -> bool:
        """Keeps, for the next start of a front end, what it says of a place; see ``keep_all``."""
        return await self.keep_all(name, {what: content})

    async def keep_all(
        self, name: str, said: Mapping[str, object], *, replace: bool = True, filed: str = ""
    ) -> bool:
        """Keeps what a front end says of places or updates, sealed: all of it, or nothing.

        Returns whether nothing was kept of them; what was stays without ``replace``. ``kept``
        finds it under the name under which it is ``filed``.
        """
        user_key, at_s = self._hour(filed or name, 0), self._clock()
        contents = {
            self.identity.keyed("kept", name, what).hex(): {
                "what": what,
                "content": one,
                "at_s": at_s,
            }
            for what, one in said.items()
        }

        def write(connection: sa.Connection) -> bool:
            self._take_turn(connection, *contents)
            if not replace:
                known = [connection.execute(_OLD_ROW, {"there": key}).first() for key in contents]
                if any(known):
                    return False
            return not self._put(connection, user_key, contents)

        return await self._transaction(write)

    async def kept(self, name: str) -> dict[str, Any]:
        """What ``keep`` was told within the hours of ``KEPT``, newest first."""
        hours, most = KEPT.get(name, (0, 0))
        files = [self._hour(name, ago) for ago in range(-1, hours - 1)]
        rows = await self._rows(_ROWS.where(CHOICES.c.user_key.in_(files)))
        newest_first = sorted(rows.values(), key=lambda row: -row["at_s"])
        return {row["what"]: row.get("content") for row in newest_first[:most]}

    def _hour(self, name: str, ago: int) -> str:
        """What files the rows kept so many hours ago; -1 is the next hour."""
        return self.identity.keyed("kept", name, str(self.now_s() // 3600 - ago)).hex()

    async def sweep(self) -> int:
        """Deletes matches that are too old, and what was kept; how many matches there were.

        Too old by the clock, but no more than a day after the last sweep's: a clock that is wrong
        for a while costs nobody's history.
        """
        mark = self.identity.keyed("sweep").hex()
        before = (await self._rows(_ROWS.where(_THERE), there=mark)).get(mark, {})
        seen_s = min(self.now_s(), before.get("at_s", self.now_s()) + DAY_S)
        await self._change(mark, mark, {"at_s": seen_s})
        old_hours = [
            self._hour(name, ago)
            for name, (hours, _) in KEPT.items()
            for ago in range(hours - 1, 48)
        ]
        old = MATCHES.delete().where(MATCHES.c.at_s < self._oldest(seen_s))

        def delete(connection: sa.Connection) -> int:
            connection.execute(CHOICES.delete().where(CHOICES.c.user_key.in_(old_hours)))
            return int(connection.execute(old).rowcount)

        deleted = await self._transaction(delete)
        await self._empty_log()
        return deleted

    async def tidy(self) -> None:
        """Takes out of the files what could not leave them before."""
        if self._log_holds_more:
            await self._empty_log()

    def now_s(self) -> int:
        """The time for a new match."""
        return int(self._clock())

    def _oldest(self, now_s: int) -> int:
        days = self.history_days
        return now_s - days * DAY_S if days else 2**62  # nothing is young enough

    async def _rows(self, query: sa.Select[Any], **bound: str) -> dict[str, dict[str, Any]]:
        rows = await self._transaction(lambda connection: connection.execute(query, bound).all())
        return {place: self._unsealed(place, *row) for place, *row in rows}

    def _unsealed(self, place: str, user_key: str, sealed: bytes) -> dict[str, Any]:
        return unseal(self.identity.sealing_key(bytes.fromhex(user_key)), place, sealed)

    async def _change(self, key: str, user_key: str, change: dict[str, object]) -> None:
        """Reads, changes and writes a row of choices; None deletes one, an empty row goes."""

        def write(connection: sa.Connection) -> None:
            self._take_turn(connection, key)
            known = connection.execute(_OLD_ROW, {"there": key}).first()
            content = {} if known is None else self._unsealed(*known)
            content = {name: one for name, one in (content | change).items() if one is not None}
            self._put(connection, user_key, {key: content})

        await self._transaction(write)

    def _take_turn(self, connection: sa.Connection, *keys: str) -> None:
        """Two presses by one person at once must not lose one: writers of a row take turns."""
        if connection.dialect.name == "postgresql":
            for key in sorted(keys):
                lock = int.from_bytes(bytes.fromhex(key)[:8], signed=True)
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock)))
        elif connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    def _put(
        self, connection: sa.Connection, user_key: str, contents: dict[str, dict[str, Any]]
    ) -> int:
        """Writes rows anew, but for empty ones; how many of them there were before."""
        sealing_key = self.identity.sealing_key(bytes.fromhex(user_key))
        were = connection.execute(_NO_ROW, [{"there": key} for key in contents]).rowcount
        rows = [
            {"key": key, "user_key": user_key, "sealed": seal(sealing_key, key, content)}
            for key, content in contents.items()
            if content
        ]
        if rows:
            connection.execute(_NEW_ROW, rows)
        return int(were)

    async def _transaction(self, work: Callable[[sa.Connection], T]) -> T:
        def committed() -> T:
            with self._engine.begin() as connection:
                return work(connection)

        try:
            return await self._in_thread(committed)
        except (SQLAlchemyError, OSError) as problem:
            raise TryLater(_why(problem)) from None

    async def _empty_log(self) -> bool:
        """Deleted rows also leave SQLite's write-ahead log; False while somebody reads them."""

        def empty(connection: sa.Connection) -> bool:
            # Writers wait meanwhile, so not for long.
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {CHECKPOINT_MS}").close()
            try:
                return not connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar()
            finally:
                connection.exec_driver_sql(f"PRAGMA busy_timeout = {BUSY_MS}").close()

        if self._engine.dialect.name == "sqlite":
            self._log_holds_more = not await self._transaction(empty)
        return not self._log_holds_more
