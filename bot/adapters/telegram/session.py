"""Answers Telegram's updates, and says of each one when it is answered."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from secrets import token_hex
from typing import Any

import aiohttp
from telegram import Bot, CallbackQuery, Message, Update
from telegram.constants import ChatAction
from telegram.error import BadRequest, NetworkError, TelegramError

from bot.adapters import InFlight, claimed, was_done
from bot.adapters.telegram.messages import Asked, Reader
from bot.adapters.telegram.sender import TELEGRAM_LIMITS, Sender
from bot.adapters.telegram.updates import Updates
from bot.conversation import Conversation
from bot.values import Reply

TYPING_EVERY_S = 4.5  # shown for 5 s (https://core.telegram.org/bots/api#sendchataction)
# A pressed button is answered within this time, by the result if there is one by then.
BUTTON_WAITS_S = 0.4
NOTE_CHARS = 200  # https://core.telegram.org/bots/api#answercallbackquery
TOAST_CHARS = 60  # a longer note would vanish before it is read; it waits for a tap
ALBUM_S, QUIET_LOOKS = 60.0, 6  # how long an album is known; how often it is looked for more
MOST_ALBUM_ITEMS = 10  # https://core.telegram.org/bots/api#sendmediagroup: 2-10 items
# Commands whose answer is, with a photo, a picture.
DRAWN = frozenset({None, "lookalike", "compare", "top"})


@dataclass(slots=True)
class _Work:
    """An update being answered; what it asks, once that is known to be answered in a chat."""

    update_id: int
    asked: Asked | None = None
    silent: bool = True  # whether nothing is said to it


class Session:
    """Answers updates; any number of them at once.

    ``updates`` is told of each update that needs nothing more. An album is complete when nothing
    has been added to it for ``album_quiet_s``.
    """

    def __init__(
        self,
        bot: Bot,
        conversation: Conversation,
        client: aiohttp.ClientSession,
        album_quiet_s: float,
        updates: Updates,
    ) -> None:
        self._bot, self._conversation = bot, conversation
        self._reader, self._sender = Reader(bot, client, conversation.memory), Sender(bot)
        self._album_quiet_s, self._updates = album_quiet_s, updates
        self._in_flight = InFlight(self._tell, excuses=False)
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
        self._updates.answered(update.update_id, silently=work.silent)

    async def _tell(self, work: _Work, key: str) -> None:
        if work.asked:
            sentence = self._conversation.wording.text(key, work.asked.request.sender.language)
            await self._sender.send(work.asked.place, Reply(sentence))

    async def _hear_album(self, message: Message, work: _Work) -> None:
        """Answers an album with its first item; the others wait until all of it is answered.

        Telegram says only which album an item belongs to, and may send it to any process. Nothing
        of an album counts as answered before. What arrives after an album is complete is an album
        of its own, as is what a process that was killed had not answered.
        """
        memory, item, gone = self._conversation.memory, message.to_json(), ""
        name, lead = ("album", str(message.chat.id), str(message.media_group_id)), token_hex(8)

        def with_item(known: Any) -> dict[str, Any]:
            if not known or known["lead"] == gone or len(known["items"]) >= MOST_ALBUM_ITEMS:
                return {"lead": lead, "items": [item]}
            return {**known, "items": [*known["items"], item]}

        async with claimed(memory, "lead", lead):
            while (album := await memory.change(name, ALBUM_S, with_item))["lead"] != lead:
                gone = album["lead"]
                if await was_done(memory, "lead", gone):
                    return
            count = quiet = 0
            while quiet < QUIET_LOOKS and count < MOST_ALBUM_ITEMS:
                await asyncio.sleep(self._album_quiet_s / QUIET_LOOKS)
                album = await memory.get(name) or album
                quiet = quiet + 1 if len(album["items"]) == count else 0
                count = len(album["items"])
            album = await memory.take(name) or album
            found = (Message.de_json(json.loads(one), self._bot) for one in album["items"])
            await self._hear(sorted(found, key=lambda one: one.message_id), work)

    async def _hear(
        self, messages: Sequence[Message], work: _Work, *, edited: bool = False
    ) -> None:
        asked = await self._reader.read(messages, edited=edited)
        if asked is None:
            return
        first = messages[0]
        if first.guest_query_id:
            reply = await self._answer(asked, work)
            asker_id = first.from_user.id if first.from_user and not first.sender_chat else None
            sent: object = await self._sender.answer_guest(first.guest_query_id, asker_id, reply)
        else:
            work.asked = asked
            async with self._typing(asked):
                reply = await self._answer(asked, work)
            asked = asked.about(reply.about)
            sent = await self._in_flight.send(self._sender.send(asked.place, reply))
        await self._reader.remember(sent, asked.request.photos, asked.request.sender.chat_id)

    async def _answer(self, asked: Asked, work: _Work) -> Reply:
        work.silent = False
        if work.update_id in self._updates.given_up:
            language = asked.request.sender.language
            return Reply(self._conversation.wording.text("error.internal", language))
        reply = await self._conversation.answer(asked.request, TELEGRAM_LIMITS)
        work.silent = reply.silent
        return reply

    async def _press(self, query: CallbackQuery, work: _Work) -> None:
        asked = await self._reader.read_button(query)
        if asked is None:
            await self._toast(query, None)
            return
        if query.message is not None:
            work.asked = asked
        answering = asyncio.ensure_future(self._answer(asked, work))
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
        await self._reader.remember(sent, asked.request.photos)

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
