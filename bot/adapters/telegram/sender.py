"""Replies -> Telegram messages, within Telegram's limits, delivered if it can be done."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from typing import Any, TypeVar

from telegram import (
    Bot,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    InputMediaAnimation,
    InputMediaPhoto,
    LinkPreviewOptions,
    Message,
    ReplyParameters,
)
from telegram.error import BadRequest, ChatMigrated, Forbidden, NetworkError, TelegramError

from bot.adapters.telegram.messages import Place
from bot.adapters.telegram.texts import TELEGRAM_LIMITS, split_text
from bot.values import Animation, Button, Reply

__all__ = ["Courier", "keyboard", "measures"]

log = logging.getLogger(__name__)
T = TypeVar("T")

PICTURE_NAME = "lookalike.jpg"
# What a closed topic or a lost question is refused with.
MISPLACED = re.compile("thread|topic|repl", re.IGNORECASE)
NO_PREVIEW = LinkPreviewOptions(is_disabled=True)


class UndeliverableError(Exception):
    """It is of no use to go on with a delivery; the message says why."""


class Courier:
    """Delivers replies.

    A network failure is retried with growing pauses: the answer may then arrive twice, which is
    better than never. Somebody who blocked the bot gets nothing, and that is no error.

    Args:
        bot: Sends.
        patience_s: How long a failing delivery is retried.
    """

    def __init__(self, bot: Bot, *, patience_s: float = 120.0) -> None:
        self._bot = bot
        self._patience_s = patience_s

    async def send(self, place: Place, reply: Reply) -> Message | None:
        """Sends a reply.

        Returns:
            The message that carries the buttons; None if nothing could be delivered.
        """
        try:
            return await self._send(place, reply)
        except (UndeliverableError, TelegramError) as problem:
            # Of an UndeliverableError the message is ours, of a BadRequest it is Telegram's for
            # developers; neither holds an id.
            log.info("telegram: an answer can't be delivered: %s", problem)
            return None

    async def replace(self, message: Message, place: Place, reply: Reply) -> Message | None:
        """Puts a reply in the place of a message, or sends it where that can't be done.

        Returns:
            The message that carries the reply; None if nothing could be delivered.
        """
        edit = self._edit(reply, message)
        if edit is None:
            return await self.send(place, reply)
        try:
            edited = await self.deliver(edit)
        except UndeliverableError as problem:
            log.info("telegram: a message can't be changed: %s", problem)
            return None
        except (BadRequest, ChatMigrated) as problem:
            if "not modified" in problem.message.lower():
                return message
            return await self.send(place, reply)
        return edited if isinstance(edited, Message) else message

    async def deliver(self, call: Callable[[], Awaitable[T]]) -> T:
        """The result of a request, which is repeated while the network fails.

        Raises:
            BadRequest: If Telegram does not accept the request as it is.
            ChatMigrated: If the group has become a supergroup with another id.
            UndeliverableError: If it is of no use to go on.
        """
        loop = asyncio.get_running_loop()
        until, pause_s = loop.time() + self._patience_s, 0.5
        while True:
            try:
                return await call()
            except (BadRequest, ChatMigrated):
                raise
            except Forbidden:
                raise UndeliverableError("the bot may not write there") from None
            except NetworkError as problem:
                cause = type(problem.__cause__ or problem).__name__
                if loop.time() + pause_s > until:
                    raise UndeliverableError(f"the network fails ({cause})") from None
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, 15.0)
            except TelegramError as problem:
                raise UndeliverableError(type(problem).__name__) from None

    async def _send(self, place: Place, reply: Reply) -> Message | None:
        markup = keyboard(reply.buttons)
        carrier: Message | None = None
        chunks = split_text(reply.text or reply.notice or "")
        if reply.picture or reply.animation or reply.document:
            caption, *overflow = split_text(reply.text, TELEGRAM_LIMITS.caption_chars) or [""]
            carrier = await self._send_file(place, reply, caption, markup)
            if carrier:
                chunks, markup = overflow, None
        for position, chunk in enumerate(chunks, start=1):
            is_last = position == len(chunks)
            sent = await self._insert(place, self._text(chunk, markup if is_last else None))
            carrier = carrier or (sent if is_last else None)
        return carrier

    async def _send_file(
        self, place: Place, reply: Reply, caption: str, markup: InlineKeyboardMarkup | None
    ) -> Message | None:
        """Sends the picture or film, as a file where it is refused as such, or the document."""
        ways = []
        if reply.picture:
            jpeg = reply.picture.jpeg
            ways = [self._photo(jpeg, caption, markup)]
            ways += [self._document(jpeg, PICTURE_NAME, caption, markup)]
        elif reply.animation:
            film = reply.animation
            ways = [self._animation(film, caption, markup)]
            ways += [self._document(film.content, film.filename, caption, markup)]
        elif reply.document:
            content, name = reply.document.content, reply.document.filename
            ways = [self._document(content, name, caption, markup)]
        for way in ways:
            try:
                return await self._insert(place, way)
            except BadRequest as problem:
                log.info("telegram: a file is refused: %s", problem)
        return None

    async def _insert(self, place: Place, send: Callable[..., Awaitable[Message]]) -> Message:
        """Sends a message; once more as a plain one where it is refused as a reply in a topic."""
        for attempt in count():
            where = _where(place)
            try:
                return await self.deliver(partial(send, **where))
            except ChatMigrated as problem:
                if attempt > 1:
                    raise
                place = Place(problem.new_chat_id)
            except BadRequest as problem:
                if attempt or not MISPLACED.search(problem.message):
                    raise
                place = Place(place.chat_id)
        raise AssertionError("unreachable")

    def _photo(
        self, jpeg: bytes, caption: str, markup: InlineKeyboardMarkup | None
    ) -> Callable[..., Awaitable[Message]]:
        return partial(
            self._bot.send_photo,
            photo=jpeg,
            filename=PICTURE_NAME,
            caption=caption,
            reply_markup=markup,
        )

    def _animation(
        self, film: Animation, caption: str, markup: InlineKeyboardMarkup | None
    ) -> Callable[..., Awaitable[Message]]:
        return partial(
            self._bot.send_animation,
            animation=film.content,
            filename=film.filename,
            caption=caption,
            reply_markup=markup,
            **measures(film),
        )

    def _document(
        self, content: bytes, name: str, caption: str, markup: InlineKeyboardMarkup | None
    ) -> Callable[..., Awaitable[Message]]:
        return partial(
            self._bot.send_document,
            document=content,
            filename=name,
            caption=caption,
            reply_markup=markup,
        )

    def _text(
        self, text: str, markup: InlineKeyboardMarkup | None
    ) -> Callable[..., Awaitable[Message]]:
        return partial(
            self._bot.send_message,
            text=text,
            link_preview_options=NO_PREVIEW,
            reply_markup=markup,
        )

    def _edit(
        self, reply: Reply, message: Message
    ) -> Callable[[], Awaitable[Message | bool]] | None:
        """How to turn a message into the reply; None where only a new message will do."""
        markup = keyboard(reply.buttons)
        where: dict[str, Any] = {
            "chat_id": message.chat.id,
            "message_id": message.message_id,
            "reply_markup": markup,
        }
        limit = TELEGRAM_LIMITS.text_chars if message.text else TELEGRAM_LIMITS.caption_chars
        if reply.picture or reply.animation:
            limit = TELEGRAM_LIMITS.caption_chars
        chunks = split_text(reply.text, limit)
        if reply.document or len(chunks) > 1:
            return None
        text = chunks[0] if chunks else ""
        if reply.picture:
            media = InputMediaPhoto(reply.picture.jpeg, caption=text, filename=PICTURE_NAME)
            return partial(self._bot.edit_message_media, media=media, **where)
        if reply.animation:
            film = reply.animation
            moving = InputMediaAnimation(
                film.content, caption=text, filename=film.filename, **measures(film)
            )
            return partial(self._bot.edit_message_media, media=moving, **where)
        if not text:
            return partial(self._bot.edit_message_reply_markup, **where)
        if message.text:
            options = NO_PREVIEW
            return partial(
                self._bot.edit_message_text, text=text, link_preview_options=options, **where
            )
        return partial(self._bot.edit_message_caption, caption=text, **where)


def measures(film: Animation) -> dict[str, Any]:
    """Known beforehand, so that a chat shows the frame while the film still loads."""
    return {
        "width": film.width_px,
        "height": film.height_px,
        "duration": max(1, round(film.duration_s)),
    }


def _where(place: Place) -> dict[str, Any]:
    where: dict[str, Any] = {"chat_id": place.chat_id}
    if place.thread_id is not None:
        where["message_thread_id"] = place.thread_id
    if place.direct_topic_id is not None:
        where["direct_messages_topic_id"] = place.direct_topic_id
    if place.reply_to is not None:
        where["reply_parameters"] = ReplyParameters(
            place.reply_to, allow_sending_without_reply=True
        )
    return where


def keyboard(rows: tuple[tuple[Button, ...], ...]) -> InlineKeyboardMarkup | None:
    """The buttons as Telegram takes them; None where there are none."""
    if not any(rows):
        return None
    return InlineKeyboardMarkup(
        [
            [InlineKeyboardButton(button.label, callback_data=button.action) for button in row]
            for row in rows
            if row
        ]
    )
