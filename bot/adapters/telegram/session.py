"""Answers Telegram updates: what happens between an update and the messages that answer it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from telegram import Bot, CallbackQuery, Message, Update
from telegram.constants import ChatAction
from telegram.error import TelegramError

from bot.adapters import InFlight
from bot.adapters.telegram.guests import Guests
from bot.adapters.telegram.messages import Asked, Files, Reader
from bot.adapters.telegram.sender import TELEGRAM_LIMITS, Sender
from bot.text import Wording
from bot.values import Reply

if TYPE_CHECKING:
    from bot.conversation import Conversation


# The sign is shown for 5 s (https://core.telegram.org/bots/api#sendchataction).
TYPING_EVERY_S = 4.5
# A pressed button is answered within this time, by the result if there is one by then.
BUTTON_WAITS_S = 0.4
# https://core.telegram.org/bots/api#answercallbackquery
NOTE_CHARS = 200
# A longer note would vanish before it is read; it waits for a tap.
TOAST_CHARS = 60
# https://core.telegram.org/bots/api#sendmediagroup: 2-10 items.
MOST_ALBUM_ITEMS = 10
# Commands whose answer is, with a photo, a picture.
DRAWN = frozenset({None, "lookalike", "compare", "top"})


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

    Args:
        bot: Connected.
        conversation: Answers.
        wording: What is said when an answer can't be waited for.
        files: Makes attachments.
        album_quiet_s: An album is complete when nothing has been added to it for so long.
        done: Called with the id of each update that needs nothing more.
    """

    def __init__(
        self,
        bot: Bot,
        conversation: Conversation,
        *,
        wording: Wording,
        files: Files,
        album_quiet_s: float,
        done: Callable[[int], None],
    ) -> None:
        self._bot = bot
        self._conversation = conversation
        self._wording = wording
        self._reader = Reader(bot, files)
        self._sender = Sender(bot)
        self._guests = Guests(bot, self._sender)
        self._album_quiet_s = album_quiet_s
        self._albums: dict[Hashable, _Album] = {}
        self._done = done
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
        self._done(update.update_id)

    async def _tell(self, work: _Work, key: str) -> None:
        if work.asked:
            sentence = self._wording.text(key, work.asked.request.sender.language)
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
            try:
                await self._complete(album)
            finally:
                del self._albums[key]
            await self._hear(sorted(album.items, key=lambda item: item.message_id), work)
        finally:
            album.answered.set()

    async def _complete(self, album: _Album) -> None:
        """Waits until nothing has been added for a while, or nothing more can be."""
        while len(album.items) < MOST_ALBUM_ITEMS:
            album.grown.clear()
            try:
                await asyncio.wait_for(album.grown.wait(), self._album_quiet_s)
            except TimeoutError:
                return

    async def _hear(self, messages: Sequence[Message], work: _Work) -> None:
        asked = self._reader.read(messages)
        if asked is None:
            return
        first = messages[0]
        if first.guest_query_id:
            reply = await self._conversation.answer(asked.request, TELEGRAM_LIMITS)
            asker_id = first.from_user.id if first.from_user and not first.sender_chat else None
            sent = await self._guests.send(first.guest_query_id, asker_id, reply)
            self._reader.remember(sent, asked.request.photos)
            return
        work.asked = asked
        async with self._typing(asked):
            reply = await self._conversation.answer(asked.request, TELEGRAM_LIMITS)
        self._remember(asked, await self._sender.send(asked.place, reply))

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
            if answering.done():
                await self._answer_press(query, asked, answering.result())
                return
            await self._toast(query, None)
            async with self._typing(asked):
                reply = await answering
            await self._show(query, asked, reply)
        finally:
            answering.cancel()

    async def _answer_press(self, query: CallbackQuery, asked: Asked, reply: Reply) -> None:
        """Answers a press by a note, where the reply is no more than that, or a message."""
        note = _note(reply)
        if note and await self._toast(query, note):
            return
        if note:
            await self._show(query, asked, reply)
        else:
            await asyncio.gather(self._toast(query, reply.notice), self._show(query, asked, reply))

    async def _show(self, query: CallbackQuery, asked: Asked, reply: Reply) -> None:
        message = query.message
        if message is None:
            if query.inline_message_id:
                asker_id = query.from_user.id
                await self._guests.replace(query.inline_message_id, asker_id, reply)
        elif reply.replaces and isinstance(message, Message) and message.is_accessible:
            self._remember(asked, await self._sender.replace(message, asked.place, reply))
        else:
            self._remember(asked, await self._sender.send(asked.place, reply))

    async def _toast(self, query: CallbackQuery, notice: str | None) -> bool:
        """Answers a pressed button; False where Telegram no longer takes the answer."""
        try:
            await self._bot.answer_callback_query(
                query.id,
                text=notice[:NOTE_CHARS] if notice else None,
                show_alert=len(notice or "") > TOAST_CHARS,
            )
        except TelegramError:
            return False
        return True

    def _remember(self, asked: Asked, sent: Message | None) -> None:
        if sent:
            self._reader.remember((sent.chat.id, sent.message_id), asked.request.photos)

    def _typing(self, asked: Asked) -> AbstractAsyncContextManager[None]:
        """Shows that something is being done for as long as it is."""
        request, place = asked.request, asked.place
        drawn = (request.photos or request.action) and request.command in DRAWN
        action = ChatAction.UPLOAD_PHOTO if drawn else ChatAction.TYPING
        show = partial(
            self._bot.send_chat_action,
            place["chat_id"],
            action,
            message_thread_id=place.get("message_thread_id"),
        )
        return self._in_flight.repeating(show, TYPING_EVERY_S)


def _note(reply: Reply) -> str | None:
    """The words of a reply that can be shown on the pressed button, to the presser alone."""
    if reply.replaces or reply.picture or reply.document or reply.buttons:
        return None
    words = reply.notice or (reply.text if reply.private else None)
    return words if words and len(words) <= NOTE_CHARS else None
