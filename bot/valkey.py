"""The memory that the processes of one bot share: a server of Valkey or Redis (``memory.url``).

Nothing stands there in the clear, nor for longer than it may: names are hashed and values sealed
with the store's key, and the server itself drops what is too old. While it is away each process
remembers for itself.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Self, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, OutOfMemoryError, RedisError, ResponseError

from bot.process_memory import SAME, Memory, Name
from bot.store import Identity, seal, unseal
from engine.errors import BadSettings, SetupProblem

log = logging.getLogger(__name__)
T = TypeVar("T")

FAILURES = (RedisError, OSError)
ANSWER_S = 1.0  # a server that takes longer counts as gone
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 3.0  # before it is asked again
CONNECTIONS = 16
OWN_BYTES = 24_000_000  # while the server is away


class Valkey(Memory):
    """A memory for any number of processes that have the same secret."""

    shared, connected = True, False

    def __init__(self, url: str, identity: Identity, *, unchecked: bool) -> None:
        super().__init__(OWN_BYTES, len)
        pool: BlockingConnectionPool
        try:
            pool = BlockingConnectionPool.from_url(
                url.replace("valkey", "redis", 1) if url.startswith("valkey") else url,
                max_connections=CONNECTIONS,
                timeout=ANSWER_S,
                socket_timeout=ANSWER_S,
                socket_connect_timeout=ANSWER_S,
                retry=Retry(NoBackoff(), 1),  # for a connection that was closed meanwhile
            )
        except (ValueError, TypeError):
            sentence = "is no address of a server, such as rediss://:password@host:6379/0"
            raise BadSettings(f"memory.url {sentence}") from None
        self._client = Redis.from_pool(pool)
        self._identity, self._unchecked = identity, unchecked
        self._return: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Connects, now or once the server is there.

        Raises SetupProblem if the server writes to its disk, or does not say whether it does, and
        that is not to be left ``unchecked``, or if it refuses the password.
        """
        try:
            await self._connect()
        except FAILURES as problem:
            self._lose(problem)
        except SetupProblem:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._return is not None:
            self._return.cancel()
        with suppress(*FAILURES):
            await self._client.aclose()

    async def get(self, name: Name) -> Any:
        """See ``Memory``, as for what follows; one request."""
        sealed = await self._or_none(lambda: self._client.get(self._place(name)))
        return self._opened(name, sealed or await super().get(name))

    async def change(self, name: Name, lives_s: float | None, change: Callable[[Any], Any]) -> Any:
        """Three requests, and again where somebody else has changed it meanwhile."""
        place, value, own = self._place(name), None, await super().get(name)
        lives: dict[str, Any] = {"keepttl": True}
        if lives_s is not None:
            lives = {"px": round(lives_s * 1000) or 1}

        def sealed_change(sealed: Any) -> Any:
            nonlocal value
            known = self._opened(name, sealed)
            value = change(known)
            if value is SAME:
                value = known
                return SAME
            return None if value is None else self._sealed(name, value)

        async def transact(pipe: Any) -> bool:
            before = await pipe.get(place)  # at once, since it is watched
            if before is None and own and lives_s is None:
                return False
            after = sealed_change(before or own)
            pipe.multi()
            if after is None:
                pipe.delete(place)
            elif after is not SAME:
                pipe.set(place, after, **lives)
            return True

        asked = partial(self._client.transaction, transact, place, value_from_callable=True)
        done = await self._or_none(asked)
        await super().change(name, lives_s, lambda known: None if done else sealed_change(known))
        return value

    def _place(self, name: Name) -> str:
        return f"lookalike:{self._identity.keyed('memory', *name).hex()}"

    def _sealed(self, name: Name, value: Any) -> bytes:
        return seal(self._identity.keyed("memory"), self._place(name), {"": value})

    def _opened(self, name: Name, sealed: Any) -> Any:
        with suppress(SetupProblem):  # somebody else's, or changed
            key, place = self._identity.keyed("memory"), self._place(name)
            return None if sealed is None else unseal(key, place, sealed)[""]
        return None

    async def _or_none(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """What the server says; None where it is away or full."""
        if self.connected:
            try:
                return await ask()
            except OutOfMemoryError:
                pass  # told at the start
            except FAILURES as problem:
                self._lose(problem)
        return None

    async def _connect(self) -> None:
        """Asks how the server is set; raises SetupProblem if it can't be used."""
        names = ("save", "appendonly", "maxmemory", "maxmemory-policy")
        try:
            await self._client.ping()
            told = [
                (await self._client.config_get(name)).get(name)
                for name in (names if not self._unchecked else ())
            ]
        except RedisError as problem:
            if isinstance(problem.__cause__ or problem, AuthenticationError):
                raise BadSettings("the server of memory.url refuses the password") from None
            if not isinstance(problem, ResponseError):
                raise
            raise SetupProblem(
                "the server of memory.url does not say whether it writes to its disk: see to it "
                "that it does not, then set memory.unchecked = true"
            ) from None
        if told and (told[0] or told[1] == "yes"):
            raise SetupProblem(
                "the server of memory.url would write people's photos to its disk, though sealed: "
                'set `save ""` and `appendonly no` there, or memory.unchecked = true'
            )
        if told and (told[2] == "0" or told[3] == "noeviction"):
            log.warning("memory.url: set `maxmemory` there, and `maxmemory-policy allkeys-lru`")
        self.connected = True

    def _lose(self, problem: Exception) -> None:
        self.connected = False
        if self._return is None or self._return.done():
            said = "memory.url does not answer (%s): until it does, this process is on its own"
            log.warning(said, type(problem).__name__)
            self._return = asyncio.create_task(self._come_back())

    async def _come_back(self) -> None:
        pause_s, told = FIRST_PAUSE_S, ""
        while not self.connected:
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))  # noqa: S311 - spreads them
            pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
            with suppress(*FAILURES):
                try:
                    await self._connect()
                except SetupProblem as problem:
                    if str(problem) != told:
                        log.error("%s", problem)  # noqa: TRY400
                    told = str(problem)
        log.info("memory.url answers again")
