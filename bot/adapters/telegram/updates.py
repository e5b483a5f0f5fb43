"""Fetches updates from Telegram, or is sent them, and lets go of each only when it is answered."""

import asyncio
import hmac
import json
import logging
import random
import secrets
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urlencode, urlsplit

from aiohttp import web
from telegram import Update
from telegram.error import BadRequest, Conflict, InvalidToken, RetryAfter, TelegramError
from telegram.request import BaseRequest

from bot.adapters import CLAIM_S, MOST_TRIES, Recovery, backoff_s, listening_socket, or_stop, retry
from bot.adapters.telegram.sender import JSON, seconds_asked
from bot.conversation import Conversation
from bot.process_memory import Memory
from bot.settings import WebhookSettings
from bot.store import Store
from bot.values import Sender
from engine.errors import BadSettings, BadToken, LookalikeError

log = logging.getLogger(__name__)

REFUSED_TOKEN = (
    "Telegram refuses the bot's token; "  # noqa: S105 - a sentence
    "put the one that @BotFather gave you into telegram.token"
)
ALLOWED_UPDATES = ("message", "edited_message", "callback_query", "guest_message")
POLL_S = 30  # how long Telegram may wait before it says that there is nothing
# Between polls while something is in work: soon after news, since a crowd comes together, then
# rarely. (Telegram itself lets a poll for the same update wait half a second.)
PACES_S = (0.08, 0.5)
MOST_AT_ONCE = 100  # https://core.telegram.org/bots/api#getupdates
# How long an update in work stays unconfirmed, and how many do (well below ``MOST_AT_ONCE``),
# before the store keeps it instead.
HOLD_S, HOLD_MOST = 60.0, 60
MOST_UPDATE_BYTES, UPDATE_S = 1_000_000, 10.0  # of a request to the webhook
NAME, ANSWERED = "telegram", "telegram answered"  # in the store
# What a message has that is not a photo and nothing else, by the person who sent it.
MORE = frozenset({"caption", "media_group_id", "sender_chat"})
MISSED = 3  # so often that whoever was cut off from the shared memory would be back


class Updates:
    """Hands each update over once; what a process leaves unanswered, the next one answers.

    Also of those that Telegram would not send again: the store keeps them, sealed. What waited at
    a start is handed over as ``Recovery`` does, and ``given_up`` after ``MOST_TRIES``.
    """

    def __init__(self, app: Any, store: Store, memory: Memory) -> None:
        self._bot, self._queue, self._store = app.bot, app.update_queue, store
        self._memory, self._process = memory, secrets.token_hex(8)
        self._missed = Counter[str | None]()  # how often in a row a process was not heard of
        self.connected = False  # whether Telegram is reached, or has been told the webhook
        self.served = False  # whether that ever was so
        self.given_up = set[int]()  # handed over so that the sender is told
        self._aside = set[int]()  # unanswered, kept by the store
        self._done_before = set[int]()  # answered by processes before this one
        self._unnoted = list[int]()  # answered, and the store is not told yet
        self._noting: asyncio.Task[None] | None = None
        self._recovery = Recovery[JSON](self._begin)

    async def restore(self) -> None:
        """Puts in line what processes left that have ended, and says that this one has not."""
        memory = self._memory
        await memory.put(("process", self._process), 1, CLAIM_S)
        if not memory.connected:
            self._missed.clear()
            return  # it can't be told which have
        with suppress(LookalikeError):
            kept = await self._store.kept(NAME)
            left = {number: one for number, one in kept.items() if int(number) not in self._aside}
            for process in {one.get("by") for one in left.values()}:
                lives = await memory.get(("process", str(process)))
                self._missed[process] = 0 if lives else self._missed[process] + 1
            for number, one in left.items():
                ended = self._missed[one.get("by")] >= (MISSED if memory.shared else 1)
                free = ended and await memory.put(("left", number), 1, CLAIM_S, absent=True)
                if free and await self._put_aside({int(number): one["update"]}, one["tries"]):
                    self._wait(one["update"], one["tries"])

    async def watch(self) -> None:
        """Takes over what other processes leave, where there are any."""
        while self._memory.shared:
            await asyncio.sleep(CLAIM_S / 3)
            await self.restore()

    async def recover(self) -> None:
        """Hands over what waits in line, until it is cancelled."""
        await self._recovery.run()

    def _wait(self, update: JSON, tries: int = 0) -> None:
        message = update.get("message")
        album = message.get("media_group_id") if isinstance(message, dict) else None
        self._recovery.add(update["update_id"], update, tries, album)

    async def _begin(self, update_id: int, update: JSON, tries: int) -> None:
        if tries >= MOST_TRIES:
            log.error("telegram: an update is given up: the program ended each time it was begun")
            self.given_up.add(update_id)
        filed = ANSWERED if update_id in self.given_up else ""
        await self._put_aside({update_id: update}, tries + 1, filed)
        if not self._hand_over(update):
            self.answered(update_id)

    async def _put_aside(self, updates: dict[int, JSON], tries: int, filed: str = "") -> bool:
        """Leaves updates, or that they need nothing more, to the store; whether that took them."""
        kept: dict[str, object] = {
            str(update_id): None if filed else {"tries": tries, "update": one, "by": self._process}
            for update_id, one in updates.items()
        }
        try:
            await self._store.keep_all(NAME, kept, filed=filed)
        except LookalikeError:
            return False
        self._aside.update(updates)
        return True

    def answered(self, update_id: int, *, silently: bool = False) -> None:  # noqa: ARG002
        """Notes that an update needs nothing more; ``silently`` if nothing was said."""
        self._recovery.ended(update_id)
        if update_id in self._aside:
            self._aside.discard(update_id)
            self._unnoted.append(update_id)
            if self._noting is None or self._noting.done():
                self._noting = asyncio.create_task(self._note_answered())

    async def _note_answered(self) -> None:
        """Tells the store; together what is answered while it is busy with those before."""
        while self._unnoted:
            answered, self._unnoted = dict.fromkeys(map(str, self._unnoted)), []
            try:
                await self._store.keep_all(NAME, answered, filed=ANSWERED)
            except Exception:  # noqa: BLE001 - the next ones are noted all the same
                log.warning("telegram: it can't be noted which updates are answered")

    def _hand_over(self, update: JSON) -> bool:
        try:
            self._queue.put_nowait(Update.de_json(update, self._bot))
        except Exception as problem:  # noqa: BLE001 - the library lets KeyError and the like out
            # One must not hide the others.
            log.warning("telegram: an update can't be read (%s)", type(problem).__name__)
            return False
        return True

    async def close(self) -> None:
        """Ends what is being noted, and leaves the rest to other processes."""
        if self._noting is not None:
            await asyncio.wait([self._noting])
        await self._memory.take(("process", self._process))


class Polling(Updates):
    """Long polling.

    Telegram forgets an update as soon as a poll names a higher one. So while something is being
    answered, polls name the oldest unanswered update, and what they bring again is recognised.
    After ``HOLD_S``, or when ``HOLD_MOST`` came after it, the store keeps an update instead.

    Not by ``Bot.get_updates``: it would read all updates, those seen before too, and raise if one
    can't be read.
    """

    def __init__(self, app: Any, request: BaseRequest, conversation: Conversation) -> None:
        super().__init__(app, conversation.store, conversation.memory)
        self._request, self._passes_over = request, conversation.passes_over
        self._next: int | None = None
        self._caught_up = asyncio.Event()  # polls have brought what waited before the start
        self._held: dict[int, tuple[float, JSON]] = {}  # update id -> when it came, and it
        self._seen: set[int] = set()  # those that Telegram may send again
        self._all_answered = asyncio.Event()
        self._all_answered.set()

    def answered(self, update_id: int, *, silently: bool = False) -> None:
        """Notes that an update needs nothing more."""
        self._held.pop(update_id, None)
        if not self._held:
            self._all_answered.set()
        if not silently and min(self._held, default=update_id) < update_id:
            self._aside.add(update_id)  # after a kill Telegram sends both again
        super().answered(update_id)

    async def recover(self) -> None:
        """As soon as all is known that waited, so that the least tried come first."""
        await self._caught_up.wait()
        await super().recover()

    async def run(self, stop: asyncio.Event) -> None:
        """Fetches until it is cancelled, after ``stop`` is set; a network failure is retried.

        Raises BadToken if Telegram refuses the token.
        """
        with suppress(LookalikeError):
            self._done_before.update(map(int, await self._store.kept(ANSWERED)))
        pace_s, failures = PACES_S[0], 0
        # Asked for as well: Python 3.11's wait_for may swallow the cancellation.
        while not stop.is_set():
            long_ago, seen = time.monotonic() - HOLD_S, sorted(self._seen)
            if long := {
                update_id: update
                for update_id, (since, update) in self._held.items()
                if since < long_ago or len(seen) - bisect_right(seen, update_id) >= HOLD_MOST
            }:
                await self._put_aside(long, 0)
            offset = min(self._held, default=self._next)
            try:
                # As a task of its own: nothing here wakes up before the answer is there.
                found = await asyncio.create_task(self._poll(offset))
            except InvalidToken:
                raise BadToken(REFUSED_TOKEN) from None
            except (TelegramError, KeyError, TypeError) as problem:  # or no answer of the Bot API
                failures += 1
                self.connected = False
                await asyncio.sleep(_pause_s(problem, failures))
                continue
            failures, self.connected, self.served = 0, True, True
            fresh, more = await self._take(found, offset)
            pace_s = PACES_S[0] if fresh else min(pace_s * 1.7, PACES_S[1])
            if self._held and not more:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._all_answered.wait(), pace_s)

    async def confirm(self) -> None:
        """Tells Telegram, once polling has ended, what need not come again."""
        await self.close()
        if self._next is not None:
            last = self._poll(min(self._held, default=self._next), limit=1, timeout_s=0)
            await asyncio.wait_for(last, timeout=0.8)

    async def _put_aside(self, updates: dict[int, JSON], tries: int, filed: str = "") -> bool:
        """Telegram can then be told that they are known; what the store can't keep stays there."""
        held = updates.keys() & self._held.keys()
        kept = await super()._put_aside(updates, tries, filed)
        for update_id in held if kept else ():
            if self._held.pop(update_id, None) is None:  # answered meanwhile
                self.answered(update_id)
        return kept

    async def _poll(
        self, offset: int | None, limit: int = MOST_AT_ONCE, timeout_s: int = POLL_S
    ) -> Any:
        timeout_s = timeout_s if self._caught_up.is_set() and not self._held else 0
        asked: JSON = {
            "limit": limit,
            "timeout": timeout_s,
            "allowed_updates": json.dumps(ALLOWED_UPDATES),
        }
        if offset is not None:
            asked["offset"] = offset
        url = f"{self._bot.base_url}/getUpdates?{urlencode(asked)}"
        read_s = (self._request.read_timeout or 0) + timeout_s
        return await self._request.post(url, read_timeout=read_s)

    async def _is_one_more(self, update: JSON) -> bool:
        """Whether it is one more photo of somebody whose photos are passed over: others' wait."""
        message: Any = update.get("message") or {}
        if "photo" not in message or not MORE.isdisjoint(message):
            return False
        return await self._passes_over(Sender(NAME, str(message["from"]["id"]), ""))

    async def _take(self, found: object, offset: int | None) -> tuple[bool, bool]:
        """Hands over what is new of an answer; whether anything is, and may be beyond it."""
        updates = {
            update["update_id"]: update
            for update in (found if isinstance(found, list) else ())
            if isinstance(update, dict) and isinstance(update.get("update_id"), int)
        }
        fresh = [update_id for update_id in updates if update_id not in self._seen]
        for update_id in fresh:
            self._next, update = update_id + 1, updates[update_id]
            if update_id in self._aside or update_id in self._done_before:
                continue
            live = self._caught_up.is_set()
            with suppress(LookupError, TypeError, AttributeError):  # it makes no sense
                if live and await self._is_one_more(update):
                    continue
            if not live or self._hand_over(update):
                self._held[update_id] = time.monotonic(), update
                self._all_answered.clear()
                if not live:  # the last process may have died of it
                    self._wait(update)
        if not (full := len(updates) >= MOST_AT_ONCE):
            self._caught_up.set()
        self._seen.update(updates)
        if offset is not None:
            self._seen = {update_id for update_id in self._seen if update_id >= offset}
        return bool(fresh), full and bool(fresh)


class Webhook(Updates):
    """Is sent updates: each is kept by the store before Telegram is told that it arrived.

    For Telegram sends the items of an album one after another, and each only when the one before
    has been taken.
    """

    async def run(self, settings: WebhookSettings, stop: asyncio.Event) -> None:
        """Listens until ``stop`` is set; raises BadSettings if that or the address is refused."""
        url = settings.url or ""
        secret = settings.secret.get_secret_value() if settings.secret else secrets.token_hex(32)
        if self._memory.shared and not settings.secret:  # the same for all who listen there
            secret = self._store.identity.keyed("webhook").hex()
        try:
            door = listening_socket(settings.listen, settings.port)
        except OSError as problem:
            place = f"{settings.listen}:{settings.port}"
            raise BadSettings(
                f"telegram.webhook: {place} can't be used: {problem.strerror}"
            ) from None
        site = web.Application(client_max_size=MOST_UPDATE_BYTES)
        site.add_routes([web.post(urlsplit(url).path or "/", partial(self._receive, secret))])
        runner = web.AppRunner(site, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.SockSite(runner, door).start()
            tell = partial(
                self._bot.set_webhook,
                url,
                allowed_updates=ALLOWED_UPDATES,
                secret_token=secret,
                drop_pending_updates=False,
            )
            if await insist(tell, stop):
                log.info("telegram: listening for the webhook")
                self.connected = self.served = True
                await stop.wait()
        except BadRequest as problem:
            raise BadSettings(f"Telegram refuses telegram.webhook: {problem.message}") from None
        finally:
            await runner.cleanup()

    async def _receive(self, secret: str, request: web.Request) -> web.Response:
        told = request.headers.get("X-Telegram-Bot-Api-Secret-Token", "")
        if not hmac.compare_digest(told.encode(), secret.encode()):
            return web.Response(status=403)
        try:
            async with asyncio.timeout(UPDATE_S):
                update = json.loads(await request.read())
            update_id = int(update["update_id"])
        except TimeoutError:
            return web.Response(status=408)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return web.Response(status=400)
        try:
            new = {"tries": 0, "update": update, "by": self._process}
            is_new = await self._store.keep_all(NAME, {str(update_id): new}, replace=False)
        except LookalikeError:
            return web.Response(status=503)  # Telegram sends it again
        if is_new:
            self._aside.add(update_id)
            if not self._hand_over(update):
                self.answered(update_id)
        return web.Response()


async def insist(call: Callable[[], Awaitable[object]], stop: asyncio.Event) -> bool:
    """Repeats a request until it succeeds (True) or ``stop`` is set (False).

    A token that Telegram refuses (InvalidToken), and what it does not accept (BadRequest), raise.
    """

    async def done() -> bool:
        await call()
        return True

    def pause_s(problem: Exception, failures: int) -> float | None:
        lasting = isinstance(problem, (BadRequest, InvalidToken))
        passing = isinstance(problem, TelegramError) and not lasting
        return _pause_s(problem, failures) if passing else None

    return await or_stop(retry(done, pause_s), stop) or False


def _pause_s(problem: Exception, failures: int) -> float:
    if isinstance(problem, RetryAfter):
        return 0.1 + seconds_asked(problem)
    if failures == 1 or failures % 50 == 0:
        reason = f"no answer ({type(problem.__cause__ or problem).__name__})"
        if isinstance(problem, Conflict):
            reason = "another process polls with the same token; stop one of them, or set "
            reason += "telegram.webhook.url, which any number of processes can share"
        log.warning("telegram: %s; trying again", reason)
    spread = random.uniform(0.8, 1.2)  # noqa: S311 - spreads retries, guards nothing
    return spread * backoff_s(failures, 0.5, 30.0)
