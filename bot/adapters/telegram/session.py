"""What happens between an update and its answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from telegram import Bot, CallbackQuery, Message, Update
from telegram.constants import ChatAction
from telegram.error import TelegramError

from bot.adapters.telegram.albums import Albums
from bot.adapters.telegram.files import Files
from bot.adapters.telegram.guests import Guests
from bot.adapters.telegram.messages import Asked, Place, Reader
from bot.adapters.telegram.sender import Courier
from bot.adapters.telegram.texts import TELEGRAM_LIMITS
from bot.logs import where
from bot.values import Limits, Reply, Request
from bot.wording import Wording

__all__ = ["Answers", "Session"]

log = logging.getLogger(__name__)

# The sign is shown for 5 s (https://core.telegram.org/bots/api#sendchataction).
TYPING_EVERY_S = 4.5
# A pressed button is answered within this time, by the result if there is one by then.
BUTTON_WAITS_S = 0.4
# https://core.telegram.org/bots/api#answercallbackquery
NOTE_CHARS = 200
# How long it may take to tell people that they have to ask again.
EXCUSE_S = 1.5
# A longer note would vanish before it is read; it waits for a tap.
TOAST_CHARS = 60


class Answers(Protocol):
    """What answers: ``bot.conversation.Conversation``."""

    async def answer(self, request: Request, limits: Limits) -> Reply:
        """The reply to a request, within the limits; raises nothing."""


@dataclass(slots=True)
class _Work:
    update_id: int
    asked: Asked | None = None


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
        conversation: Answers,
        *,
        wording: Wording,
        files: Files,
        album_quiet_s: float,
        done: Callable[[int], None],
    ) -> None:
        self._bot = bot
        self._conversation = conversation
        self._wording = wording
        self._reader = Reader(bot.id, bot.username, files)
        self._courier = Courier(bot)
        self._guests = Guests(bot, self._courier)
        self._albums = Albums(quiet_s=album_quiet_s)
        self._done = done
        self._works: dict[asyncio.Task[Any], _Work] = {}
        self._signs: set[asyncio.Task[None]] = set()
        self._closing = False

    async def take(self, update: Update, _context: object = None) -> None:
        """Answers an update. Nothing but cancellation passes through."""
        task = asyncio.current_task()
        if self._closing or task is None:
            return  # stays unconfirmed, so that the next start answers it
        work = self._works[task] = _Work(update.update_id)
        try:
            message = update.message or update.guest_message
            if update.callback_query:
                await self._press(update.callback_query, work)
            elif message and message.media_group_id:
                await self._hear_album(message, work)
            elif message:
                await self._hear([message], work)
        except Exception as problem:  # noqa: BLE001 - one update must not end the others
            log.error("telegram: fault", extra={"fault": where(problem)})  # noqa: TRY400
            await self._tell(work, "error.internal")
        finally:
            del self._works[task]
        self._done(update.update_id)

    async def finish(self, grace_s: float) -> None:
        """Waits for what is in work; who still has no answer then is asked to send it again."""
        if self._works:
            await asyncio.wait(self._works, timeout=grace_s)
        self._closing = True
        unanswered = dict(self._works)
        for task in (*unanswered, *self._signs):
            task.cancel()
        await asyncio.gather(*unanswered, *self._signs, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(
                asyncio.gather(*map(self._excuse, unanswered.values())), EXCUSE_S
            )

    async def _excuse(self, work: _Work) -> None:
        await self._tell(work, "error.try_later")
        self._done(work.update_id)

    async def _tell(self, work: _Work, key: str) -> None:
        if work.asked:
            sentence = self._wording.text(key, work.asked.request.sender.language)
            await self._courier.send(work.asked.place, Reply(sentence))

    async def _hear_album(self, message: Message, work: _Work) -> None:
        album = await self._albums.collect(message)
        if album is None:
            return
        try:
            await self._hear(album.items, work)
        finally:
            album.answered.set()

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
        self._remember(asked, await self._courier.send(asked.place, reply))

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
                await self._settle(query, asked, answering.result())
                return
            await self._toast(query, None)
            async with self._typing(asked):
                reply = await answering
            await self._show(query, asked, reply)
        finally:
            answering.cancel()

    async def _settle(self, query: CallbackQuery, asked: Asked, reply: Reply) -> None:
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
            self._remember(asked, await self._courier.replace(message, asked.place, reply))
        else:
            self._remember(asked, await self._courier.send(asked.place, reply))

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

    @contextlib.asynccontextmanager
    async def _typing(self, asked: Asked) -> AsyncIterator[None]:
        """Shows that something is being done for as long as it is."""
        is_photo = bool(asked.request.photos or asked.request.action)
        if asked.request.command not in {None, "lookalike", "compare", "top"}:
            is_photo = False
        action = ChatAction.UPLOAD_PHOTO if is_photo else ChatAction.TYPING
        ended = asyncio.Event()
        sign = asyncio.create_task(self._show_sign(asked.place, action, ended))
        self._signs.add(sign)
        sign.add_done_callback(self._signs.discard)
        try:
            yield
        finally:
            ended.set()

    async def _show_sign(self, place: Place, action: str, ended: asyncio.Event) -> None:
        while not ended.is_set():
            with contextlib.suppress(TelegramError):
                await self._bot.send_chat_action(
                    place.chat_id, action, message_thread_id=place.thread_id
                )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), TYPING_EVERY_S)


def _note(reply: Reply) -> str | None:
    """The words of a reply that can be shown on the pressed button, to the presser alone."""
    if reply.replaces or reply.picture or reply.document or reply.buttons:
        return None
    words = reply.notice or (reply.text if reply.private else None)
    return words if words and len(words) <= NOTE_CHARS else None
