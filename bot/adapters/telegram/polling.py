"""Fetches updates from Telegram, and confirms each one only when it is answered."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from telegram import Bot, Update
from telegram.error import BadRequest, Conflict, InvalidToken, RetryAfter, TelegramError
from telegram.request import HTTPXRequest

from bot.adapters.telegram.rate_limit import pause_after
from engine.errors import BadToken

__all__ = ["REFUSED_TOKEN", "Polling", "UpdatesRequest", "insist", "or_stop"]

log = logging.getLogger(__name__)
T = TypeVar("T")

REFUSED_TOKEN = (
    "Telegram refuses the bot's token; "  # noqa: S105 - a sentence
    "put the one that @BotFather gave you into telegram.token"
)
LONGEST_PAUSE_S = 30.0
CONFIRM_S = 0.8
# Between polls while something is in work: soon after news, since a crowd comes together, then
# rarely. (Telegram itself lets a poll for the same update wait half a second.)
PACES_S = (0.03, 0.5)
# Reading an update takes a fraction of a millisecond, during which nothing else is done.
NEW_AT_ONCE = 30


class UpdatesRequest(HTTPXRequest):
    """Fetches updates, and hands on only what is worth reading.

    Of an update that was seen before only the id is left, since reading it again takes time; and
    of one that the library can't read, since it would hide all others.

    Args:
        seen: Ids of the updates seen before; shared with ``Polling``.
        tls: Whom to trust.
        timeout_s: For connecting, and for an answer beyond the time of the long poll.
    """

    def __init__(self, seen: set[int], tls: ssl.SSLContext, *, timeout_s: float = 10.0) -> None:
        super().__init__(
            connection_pool_size=4,
            connect_timeout=timeout_s,
            read_timeout=timeout_s,
            pool_timeout=timeout_s,
            httpx_kwargs={"verify": tls},
        )
        self._seen = seen

    async def do_request(self, *args: Any, **kwargs: Any) -> tuple[int, bytes]:
        """Status and content of the answer, without what need not be read."""
        code, content = await super().do_request(*args, **kwargs)
        try:
            answer = json.loads(content)
            answer["result"] = [self._worth_reading(update) for update in answer["result"]]
        except (ValueError, KeyError, TypeError):
            return code, content  # no updates
        return code, json.dumps(answer).encode()

    def _worth_reading(self, update: dict[str, Any]) -> dict[str, Any]:
        stub = {"update_id": update["update_id"]}
        if update["update_id"] in self._seen:
            return stub
        try:
            Update.de_json(update, None)
        except Exception as problem:  # noqa: BLE001 - the library lets KeyError and the like out
            log.warning("telegram: an update can't be read (%s)", type(problem).__name__)
            return stub
        return update


class Polling:
    """Long polling that loses no update when the process is killed.

    Telegram forgets an update as soon as a poll names a higher one. So while something is being
    answered, polls name the oldest unanswered update, and what they bring again is recognised.

    An update is let go unanswered after ``hold_s``, when ``hold_most`` came after it, or when it is
    older than this process: what a predecessor died of is tried once more, not for ever.

    Args:
        bot: Asks Telegram.
        queue: Where updates go.
        allowed_updates: The kinds asked for.
        seen: Ids that need not be read again; shared with ``UpdatesRequest``.
        poll_s: How long Telegram may wait before it says that there is nothing.
        hold_s: How long an update in work stays unconfirmed.
        hold_most: How many stay unconfirmed; well below 100, the most that one poll brings.
    """

    def __init__(
        self,
        bot: Bot,
        queue: asyncio.Queue[object],
        *,
        allowed_updates: Sequence[str],
        seen: set[int],
        poll_s: int = 30,
        hold_s: float = 60.0,
        hold_most: int = 60,
    ) -> None:
        self._bot = bot
        self._queue = queue
        self._allowed_updates = allowed_updates
        self._poll_s = poll_s
        self._hold_s = hold_s
        self._hold_most = hold_most
        self._born = time.time()
        self._next: int | None = None
        self._held: dict[int, float] = {}
        self._seen = seen
        self._all_answered = asyncio.Event()
        self._all_answered.set()

    def answered(self, update_id: int) -> None:
        """Notes that an update needs nothing more."""
        self._held.pop(update_id, None)
        if not self._held:
            self._all_answered.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Fetches until ``stop`` is set; a failing network is retried for ever.

        Raises:
            BadToken: If Telegram refuses the token.
        """
        failures, pace_s = 0, PACES_S[0]
        while not stop.is_set():
            self._let_go()
            offset = self._offset()
            try:
                updates = await or_stop(self._poll(offset), stop)
            except InvalidToken:
                raise BadToken(REFUSED_TOKEN) from None
            except TelegramError as problem:
                failures += 1
                await or_stop(asyncio.sleep(_pause_s(problem, failures)), stop)
                continue
            failures = 0
            fresh = self._take(updates or (), offset)
            pace_s = PACES_S[0] if fresh else min(pace_s * 2.5, PACES_S[1])
            if self._held:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._all_answered.wait(), pace_s)

    async def confirm(self) -> None:
        """Tells Telegram, once polling has ended, what need not come again."""
        if self._next is not None:
            last = self._bot.get_updates(
                offset=self._offset(), limit=1, timeout=0, allowed_updates=self._allowed_updates
            )
            await asyncio.wait_for(last, CONFIRM_S)

    def _offset(self) -> int | None:
        return min(self._held, default=self._next)

    async def _poll(self, offset: int | None) -> tuple[Update, ...]:
        return await self._bot.get_updates(
            offset=offset,
            limit=min(100, len(self._seen) + NEW_AT_ONCE),
            timeout=0 if self._held else self._poll_s,
            allowed_updates=self._allowed_updates,
        )

    def _take(self, updates: Sequence[Update], offset: int | None) -> bool:
        """Hands over what is new; says whether anything is."""
        fresh = [update for update in updates if update.update_id not in self._seen]
        for update in fresh:
            if self._is_young(update):
                self._held[update.update_id] = time.monotonic()
                self._all_answered.clear()
            self._next = update.update_id + 1
            self._queue.put_nowait(update)
        self._seen.update(update.update_id for update in updates)
        if offset is not None:
            self._seen -= {update_id for update_id in self._seen if update_id < offset}
        return bool(fresh)

    def _is_young(self, update: Update) -> bool:
        message = update.message or update.guest_message
        return message is not None and message.date.timestamp() >= self._born - 1

    def _let_go(self) -> None:
        long_ago = time.monotonic() - self._hold_s
        for update_id, since in sorted(self._held.items()):
            later = sum(other > update_id for other in self._seen)
            if since < long_ago or later >= self._hold_most:
                self.answered(update_id)


async def insist(
    call: Callable[[], Awaitable[object]], stop: asyncio.Event, *, purpose: str
) -> bool:
    """Repeats a request until it succeeds (True) or ``stop`` is set (False).

    Raises:
        InvalidToken: If Telegram refuses the token.
        BadRequest: If Telegram does not accept the request as it is.
    """
    failures = 0
    while not stop.is_set():
        try:
            return await or_stop(_true(call), stop) or False
        except (InvalidToken, BadRequest):
            raise
        except TelegramError as problem:
            failures += 1
            if failures == 1:
                log.info("telegram: %s has to be repeated", purpose)
            await or_stop(asyncio.sleep(_pause_s(problem, failures)), stop)
    return False


async def or_stop(call: Awaitable[T], stop: asyncio.Event) -> T | None:
    """The result of a call; None, and the call is cancelled, once ``stop`` is set."""
    work = asyncio.ensure_future(call)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        for task in (work, stopped):
            task.cancel()
        await asyncio.gather(work, stopped, return_exceptions=True)


async def _true(call: Callable[[], Awaitable[object]]) -> bool:
    await call()
    return True


def _pause_s(problem: TelegramError, failures: int) -> float:
    if isinstance(problem, RetryAfter):
        return 0.1 + pause_after(problem)
    pause_s = min(LONGEST_PAUSE_S, 0.5 * 2.0 ** min(failures - 1, 10))
    if failures in {1, 5} or failures % 50 == 0:
        cause = type(problem.__cause__ or problem).__name__
        reason = (
            "another process polls with the same token; stop one of them"
            if isinstance(problem, Conflict)
            else f"no answer ({cause})"
        )
        log.warning("telegram: %s; trying again", reason)
    return pause_s * random.uniform(0.8, 1.2)  # noqa: S311 - spreads retries, guards nothing
