"""Fetches updates from Telegram, and confirms each one only when it is answered."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from telegram import Bot, Update
from telegram.error import BadRequest, Conflict, InvalidToken, RetryAfter, TelegramError
from telegram.request import HTTPXRequest

from bot.adapters import backoff_s, or_stop, retry
from bot.adapters.telegram.sender import seconds_asked
from engine.errors import BadToken


log = logging.getLogger(__name__)
JSON = dict[str, Any]

REFUSED_TOKEN = (
    "Telegram refuses the bot's token; "  # noqa: S105 - a sentence
    "put the one that @BotFather gave you into telegram.token"
)
CONFIRM_S = 0.8
# Between polls while something is in work: soon after news, since a crowd comes together, then
# rarely. (Telegram itself lets a poll for the same update wait half a second.)
PACES_S = (0.03, 0.5)
# Reading an update takes a fraction of a millisecond, during which nothing else is done.
NEW_AT_ONCE = 30


class UpdatesRequest(HTTPXRequest):
    """The request of polls: keeps the updates of the last answer as they are in its JSON.

    python-telegram-bot would read all of them, those seen before too, and raise if one can't be
    read; it is handed an empty answer, and ``Polling`` reads what is new.

    Args:
        tls: Whom to trust.
        timeout_s: For connecting, and for an answer beyond the time of the long poll.
    """

    def __init__(self, tls: ssl.SSLContext, *, timeout_s: float = 10.0) -> None:
        super().__init__(
            connection_pool_size=4,
            connect_timeout=timeout_s,
            read_timeout=timeout_s,
            pool_timeout=timeout_s,
            httpx_kwargs={"verify": tls},
        )
        self.updates: list[JSON] = []

    def parse_json_payload(self, payload: bytes) -> JSON:  # type: ignore[override] # static there
        """The answer without its updates.

        Raises:
            TelegramError: If it is no answer of the Bot API.
        """
        answer: object = HTTPXRequest.parse_json_payload(payload)
        if not isinstance(answer, dict):
            raise TelegramError("no answer of the Bot API")
        found = answer.get("result")
        self.updates = [
            update
            for update in (found if isinstance(found, list) else ())
            if isinstance(update, dict) and isinstance(update.get("update_id"), int)
        ]
        return {**answer, "result": []}


class Polling:
    """Long polling that loses no update when the process is killed.

    Telegram forgets an update as soon as a poll names a higher one. So while something is being
    answered, polls name the oldest unanswered update, and what they bring again is recognised.

    An update is let go unanswered after ``hold_s``, when ``hold_most`` came after it, or when it is
    older than this process: what a predecessor died of is tried once more, not for ever.

    Args:
        bot: Asks Telegram.
        request: What it asks for updates with.
        queue: Where updates go.
        allowed_updates: The kinds asked for.
        poll_s: How long Telegram may wait before it says that there is nothing.
        hold_s: How long an update in work stays unconfirmed.
        hold_most: How many stay unconfirmed; well below 100, the most that one poll brings.
    """

    def __init__(
        self,
        bot: Bot,
        request: UpdatesRequest,
        queue: asyncio.Queue[object],
        *,
        allowed_updates: Sequence[str],
        poll_s: int = 30,
        hold_s: float = 60.0,
        hold_most: int = 60,
    ) -> None:
        self._bot = bot
        self._request = request
        self._queue = queue
        self._allowed_updates = allowed_updates
        self._poll_s = poll_s
        self._hold_s = hold_s
        self._hold_most = hold_most
        self._born = time.time()
        self._next: int | None = None
        self._held: dict[int, float] = {}  # update id -> when it came
        self._seen: set[int] = set()  # those that Telegram may send again
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
        pace_s = PACES_S[0]
        while not stop.is_set():
            self._let_go()
            offset = self._offset()
            try:
                polled = await or_stop(retry(partial(self._poll, offset), _pause_s), stop)
            except InvalidToken:
                raise BadToken(REFUSED_TOKEN) from None
            fresh = self._take(self._request.updates if polled is not None else [], offset)
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

    def _poll(self, offset: int | None) -> Awaitable[object]:
        """Asks for updates; they are then in ``UpdatesRequest.updates``."""
        return self._bot.get_updates(
            offset=offset,
            limit=min(100, len(self._seen) + NEW_AT_ONCE),
            timeout=0 if self._held else self._poll_s,
            allowed_updates=self._allowed_updates,
        )

    def _take(self, found: list[JSON], offset: int | None) -> bool:
        """Hands over what is new; whether anything is."""
        fresh = [update for update in found if update["update_id"] not in self._seen]
        for update in fresh:
            update_id = update["update_id"]
            self._next = update_id + 1
            if read := self._read(update):
                if self._is_young(read):
                    self._held[update_id] = time.monotonic()
                    self._all_answered.clear()
                self._queue.put_nowait(read)
        self._seen.update(update["update_id"] for update in found)
        if offset is not None:
            self._seen = {update_id for update_id in self._seen if update_id >= offset}
        return bool(fresh)

    def _read(self, update: JSON) -> Update | None:
        """The update; None if it can't be read, since one must not hide the others."""
        try:
            return Update.de_json(update, self._bot)
        except Exception as problem:  # noqa: BLE001 - the library lets KeyError and the like out
            log.warning("telegram: an update can't be read (%s)", type(problem).__name__)
            return None

    def _is_young(self, update: Update) -> bool:
        message = update.message or update.guest_message
        return message is not None and message.date.timestamp() >= self._born - 1

    def _let_go(self) -> None:
        long_ago = time.monotonic() - self._hold_s
        for update_id, since in sorted(self._held.items()):
            later = sum(other > update_id for other in self._seen)
            if since < long_ago or later >= self._hold_most:
                self.answered(update_id)


async def insist(call: Callable[[], Awaitable[object]], stop: asyncio.Event) -> bool:
    """Repeats a request until it succeeds (True) or ``stop`` is set (False).

    Raises:
        InvalidToken: If Telegram refuses the token.
        BadRequest: If Telegram does not accept the request as it is.
    """

    async def done() -> bool:
        await call()
        return True

    def pause_s(problem: Exception, failures: int) -> float | None:
        return None if isinstance(problem, BadRequest) else _pause_s(problem, failures)

    return await or_stop(retry(done, pause_s), stop) or False


def _pause_s(problem: Exception, failures: int) -> float | None:
    """Seconds before the next attempt to reach Telegram; None where that is of no use."""
    if isinstance(problem, InvalidToken) or not isinstance(problem, TelegramError):
        return None
    if isinstance(problem, RetryAfter):
        return 0.1 + seconds_asked(problem)
    if failures in {1, 5} or failures % 50 == 0:
        cause = type(problem.__cause__ or problem).__name__
        reason = (
            "another process polls with the same token; stop one of them"
            if isinstance(problem, Conflict)
            else f"no answer ({cause})"
        )
        log.warning("telegram: %s; trying again", reason)
    spread = random.uniform(0.8, 1.2)  # noqa: S311 - spreads retries, guards nothing
    return spread * backoff_s(failures, 0.5, 30.0)
