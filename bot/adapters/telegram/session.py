"""Fetches updates from Telegram, answers them, and confirms each one only when it is answered."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlencode

import aiohttp
from telegram import Bot, CallbackQuery, Message, Update
from telegram.constants import ChatAction
from telegram.error import (
    BadRequest,
    Conflict,
    InvalidToken,
    NetworkError,
    RetryAfter,
    TelegramError,
)
from telegram.request import BaseRequest

from bot.adapters import InFlight, backoff_s, or_stop, retry
from bot.adapters.telegram.messages import Asked, Reader
from bot.adapters.telegram.sender import JSON, TELEGRAM_LIMITS, Sender, seconds_asked
from bot.conversation import Conversation
from bot.values import Reply
from engine.errors import BadToken, LookalikeError

log = logging.getLogger(__name__)

TYPING_EVERY_S = 4.5  # shown for 5 s (https://core.telegram.org/bots/api#sendchataction)
# A pressed button is answered within this time, by the result if there is one by then.
BUTTON_WAITS_S = 0.4
NOTE_CHARS = 200  # https://core.telegram.org/bots/api#answercallbackquery
TOAST_CHARS = 60  # a longer note would vanish before it is read; it waits for a tap
MOST_ALBUM_ITEMS = 10  # https://core.telegram.org/bots/api#sendmediagroup: 2-10 items
# Commands whose answer is, with a photo, a picture.
DRAWN = frozenset({None, "lookalike", "compare", "top"})

REFUSED_TOKEN = (
    "Telegram refuses the bot's token; "  # noqa: S105 - a sentence
    "put the one that @BotFather gave you into telegram.token"
)
ALLOWED_UPDATES = ("message", "edited_message", "callback_query", "guest_message")
POLL_S = 30  # how long Telegram may wait before it says that there is nothing
# Between polls while something is in work: soon after news, since a crowd comes together, then
# rarely. (Telegram itself lets a poll for the same update wait half a second.)
PACES_S = (0.08, 0.5)
# Reading an update takes a fraction of a millisecond, during which nothing else is done.
NEW_AT_ONCE = 30
# How long an update in work stays unconfirmed, how many do (well below 100, the most that one poll
# brings), and at how many starts it may be the oldest.
HOLD_S, HOLD_MOST, HOLD_STARTS = 60.0, 60, 2

Bookmarks = Callable[..., Awaitable[dict[str, int]]]  # see Store.bookmarks


@dataclass(slots=True)
class _Work:
    """An update being answered; what it asks, once that is known to be answered in a chat."""

    update_id: int
    asked: Asked | None = None


@dataclass(slots=True, eq=False)
class _Album:
    """Messages that were sent as one; Telegram says only which album an item belongs to."""

    items: list[Message]
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    grown: asyncio.Event = field(default_factory=asyncio.Event)


class Session:
    """Answers updates; any number of them at once.

    ``done`` is called with the id of each update that needs nothing more. An album is complete
    when nothing has been added to it for ``album_quiet_s``.
    """

    def __init__(
        self,
        bot: Bot,
        conversation: Conversation,
        client: aiohttp.ClientSession,
        album_quiet_s: float,
        done: Callable[[int], None],
    ) -> None:
        self._bot, self._conversation = bot, conversation
        self._reader, self._sender = Reader(bot, client), Sender(bot)
        self._album_quiet_s, self._done = album_quiet_s, done
        self._albums: dict[Hashable, _Album] = {}
        self._in_flight = InFlight(self._tell)
        self.finish = self._in_flight.finish  # to be called at the end

    async def take(self, update: Update, _context: object = None) -> None:
        """Answers an update. Nothing but cancellation passes through."""
        if self._in_flight.closing:
            return  # stays unconfirmed, so that the next start answers it
        work = _Work(update.update_id)
        async with self._in_flight.answering(work):
            message = update.message or update.guest_message
            if update.callback_query:
                await self._press(update.callback_query, work)
            elif message and message.media_group_id:
                await self._hear_album(message, work)
            elif message:
                await self._hear([message], work)
            elif update.edited_message:
                await self._hear([update.edited_message], work, edited=True)
        self._done(update.update_id)

    async def _tell(self, work: _Work, key: str) -> None:
        if work.asked:
            sentence = self._conversation.wording.text(key, work.asked.request.sender.language)
            await self._sender.send(work.asked.place, Reply(sentence))
        self._done(work.update_id)

    async def _hear_album(self, message: Message, work: _Work) -> None:
        """Answers an album with its first item; the others wait until all of it is answered.

        Nothing of an album counts as answered before. What arrives after an album is complete is
        an album of its own.
        """
        key = (message.chat.id, message.media_group_id)
        album = self._albums.get(key)
        if album is not None:
            album.items.append(message)
            album.grown.set()
            await album.answered.wait()
            return
        album = self._albums[key] = _Album([message])
        try:
            with suppress(TimeoutError):
                while len(album.items) < MOST_ALBUM_ITEMS:
                    album.grown.clear()
                    await asyncio.wait_for(album.grown.wait(), self._album_quiet_s)
            del self._albums[key]
            await self._hear(sorted(album.items, key=lambda item: item.message_id), work)
        finally:
            album.answered.set()

    async def _hear(
        self, messages: Sequence[Message], work: _Work, *, edited: bool = False
    ) -> None:
        asked = self._reader.read(messages, edited=edited)
        if asked is None:
            return
        first = messages[0]
        if first.guest_query_id:
            reply = await self._conversation.answer(asked.request, TELEGRAM_LIMITS)
            asker_id = first.from_user.id if first.from_user and not first.sender_chat else None
            sent: object = await self._sender.answer_guest(first.guest_query_id, asker_id, reply)
        else:
            work.asked = asked
            async with self._typing(asked):
                reply = await self._conversation.answer(asked.request, TELEGRAM_LIMITS)
            asked = asked.about(reply.about)
            sent = await self._sender.send(asked.place, reply)
        self._reader.remember(sent, asked.request.photos)

    async def _press(self, query: CallbackQuery, work: _Work) -> None:
        asked = self._reader.read_button(query)
        if asked is None:
            await self._toast(query, None)
            return
        if query.message is not None:
            work.asked = asked
        answering = asyncio.ensure_future(self._conversation.answer(asked.request, TELEGRAM_LIMITS))
        try:
            await asyncio.wait({answering}, timeout=BUTTON_WAITS_S)
            if not answering.done():
                await self._toast(query, None)
                async with self._typing(asked):
                    await answering
                await self._show(query, asked, answering.result())
                return
            reply = answering.result()
            more = reply.replaces or reply.picture or reply.document or reply.buttons
            # What the presser alone is to see can stand on the button, if it is short.
            note = None if more else reply.notice or (reply.text if reply.private else None)
            if note and len(note) <= NOTE_CHARS:
                if not await self._toast(query, note):
                    await self._show(query, asked, reply)
            else:
                shown = self._show(query, asked, reply)
                await asyncio.gather(self._toast(query, reply.notice), shown)
        finally:
            answering.cancel()

    async def _show(self, query: CallbackQuery, asked: Asked, reply: Reply) -> None:
        message, asked = query.message, asked.about(reply.about)
        if message is None:
            if query.inline_message_id:
                asker_id = query.from_user.id
                await self._sender.replace_inline(query.inline_message_id, asker_id, reply)
            return
        if reply.replaces and isinstance(message, Message) and message.is_accessible:
            sent = await self._sender.replace(message, asked.place, reply)
        else:
            sent = await self._sender.send(asked.place, reply)
        self._reader.remember(sent, asked.request.photos)

    async def _toast(self, query: CallbackQuery, notice: str | None) -> bool:
        """Answers a pressed button; False where Telegram does not take the answer."""
        text = notice[:NOTE_CHARS] if notice else None
        alert = len(notice or "") > TOAST_CHARS
        for again in (False, True):
            try:
                return await self._bot.answer_callback_query(query.id, text=text, show_alert=alert)
            except BadRequest:
                return again  # taken the first time, though what Telegram said of it was lost
            except NetworkError:
                continue
            except TelegramError:
                break
        return False

    def _typing(self, asked: Asked) -> AbstractAsyncContextManager[None]:
        request, place = asked.request, asked.place
        drawn = (request.photos or request.action) and request.command in DRAWN
        action = ChatAction.UPLOAD_PHOTO if drawn else ChatAction.TYPING
        topic = {"message_thread_id": place.get("message_thread_id")}
        show = partial(self._bot.send_chat_action, place["chat_id"], action, **topic)
        return self._in_flight.repeating(show, TYPING_EVERY_S)


class Polling:
    """Long polling that loses no update when the process is killed.

    Telegram forgets an update as soon as a poll names a higher one. So while something is being
    answered, polls name the oldest unanswered update, and what they bring again is recognised.

    An update is let go unanswered after ``HOLD_S``, when ``HOLD_MOST`` came after it, or when it
    was the oldest at ``HOLD_STARTS`` starts before: what its predecessors died of is tried once
    more, not for ever.

    Not by ``Bot.get_updates``: it would read all updates, those seen before too, and raise if one
    can't be read.
    """

    def __init__(self, app: Any, request: BaseRequest, bookmarks: Bookmarks) -> None:
        self._bot, self._queue = app.bot, app.update_queue
        self._request, self._bookmarks = request, bookmarks
        self.connected = False  # whether the last poll was answered
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
        """Fetches until it is cancelled, after ``stop`` is set; a network failure is retried.

        Raises BadToken if Telegram refuses the token.
        """
        pace_s, failures = PACES_S[0], 0
        # Asked for as well: Python 3.11's wait_for may swallow the cancellation.
        while not stop.is_set():
            long_ago = time.monotonic() - HOLD_S
            for update_id, since in sorted(self._held.items()):
                later = sum(other > update_id for other in self._seen)
                if since < long_ago or later >= HOLD_MOST:
                    self.answered(update_id)
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
            failures, self.connected = 0, True
            fresh = await self._take(found, offset)
            pace_s = PACES_S[0] if fresh else min(pace_s * 1.7, PACES_S[1])
            if self._held:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._all_answered.wait(), pace_s)

    async def confirm(self) -> None:
        """Tells Telegram, once polling has ended, what need not come again."""
        if self._next is not None:
            last = self._poll(min(self._held, default=self._next), limit=1, timeout_s=0)
            await asyncio.wait_for(last, timeout=0.8)

    async def _poll(self, offset: int | None, limit: int = 100, timeout_s: int = POLL_S) -> Any:
        timeout_s = 0 if self._held else timeout_s
        asked: JSON = {
            "limit": min(limit, len(self._seen) + NEW_AT_ONCE),
            "timeout": timeout_s,
            "allowed_updates": json.dumps(ALLOWED_UPDATES),
        }
        if offset is not None:
            asked["offset"] = offset
        url = f"{self._bot.base_url}/getUpdates?{urlencode(asked)}"
        read_s = (self._request.read_timeout or 0) + timeout_s
        return await self._request.post(url, read_timeout=read_s)

    async def _take(self, found: object, offset: int | None) -> bool:
        """Hands over what is new of an answer; whether anything is."""
        updates = {
            update["update_id"]: update
            for update in (found if isinstance(found, list) else ())
            if isinstance(update, dict) and isinstance(update.get("update_id"), int)
        }
        fresh = [update_id for update_id in updates if update_id not in self._seen]
        starts, oldest = 0, min(fresh, default=0)
        if fresh and self._next is None:
            with suppress(LookalikeError):
                starts = (await self._bookmarks("telegram")).get(str(oldest), 0)
                await self._bookmarks("telegram", str(oldest), starts + 1)
        for update_id in fresh:
            self._next = update_id + 1
            try:
                read = Update.de_json(updates[update_id], self._bot)
            except Exception as problem:  # noqa: BLE001 - the library lets KeyError and the like out
                # One must not hide the others.
                log.warning("telegram: an update can't be read (%s)", type(problem).__name__)
                continue
            if update_id != oldest or starts < HOLD_STARTS:
                self._held[update_id] = time.monotonic()
                self._all_answered.clear()
            self._queue.put_nowait(read)
        self._seen.update(updates)
        if offset is not None:
            self._seen = {update_id for update_id in self._seen if update_id >= offset}
        return bool(fresh)


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
    if failures in {1, 5} or failures % 50 == 0:
        reason = f"no answer ({type(problem.__cause__ or problem).__name__})"
        if isinstance(problem, Conflict):
            reason = "another process polls with the same token; stop one of them"
        log.warning("telegram: %s; trying again", reason)
    spread = random.uniform(0.8, 1.2)  # noqa: S311 - spreads retries, guards nothing
    return spread * backoff_s(failures, 0.5, 30.0)
