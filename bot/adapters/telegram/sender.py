"""Delivers replies as Telegram messages: within its limits, its rates, and despite failures."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
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
)
from telegram.error import BadRequest, ChatMigrated, NetworkError, RetryAfter, TelegramError
from telegram.ext import AIORateLimiter

from bot.adapters import backoff_s, retry
from bot.values import Animation, Button, Limits, Reply


log = logging.getLogger(__name__)
T = TypeVar("T")
JSON = dict[str, Any]
Answer = bool | JSON | list[JSON]
Send = Callable[..., Awaitable[Message]]

# The library warns at every 429 until its coming way to tell time spans is chosen
# (python-telegram-bot 22.2, telegram.error.RetryAfter).
os.environ.setdefault("PTB_TIMEDELTA", "true")

# https://core.telegram.org/bots/api: sendMessage, sendPhoto, sendDocument, sendAnimation,
# InlineKeyboardButton.
# Three buttons side by side are as many as a phone shows with their words.
TELEGRAM_LIMITS = Limits(
    text_chars=4096,
    caption_chars=1024,
    picture_bytes=10_000_000,
    picture_width_plus_height_px=10_000,
    document_bytes=50_000_000,
    animation_bytes=50_000_000,
    action_bytes=64,
    buttons_per_row=3,
    button_rows=10,
    label_chars=40,
)
# How long a failing delivery is retried.
PATIENCE_S = 120.0
# Nobody waits longer than this for an answer; Telegram names hours after gross abuse.
LONGEST_RATE_LIMIT_S = 600.0
MOST_RATE_LIMITS = 10
# Shown for a moment only: worth nothing once it would have to wait.
MOMENTARY = frozenset({"sendChatAction", "answerCallbackQuery", "deleteMessage"})
PICTURE_NAME = "lookalike.jpg"
# What a closed topic or a lost question is refused with.
MISPLACED = re.compile("thread|topic|repl", re.IGNORECASE)
NO_PREVIEW = LinkPreviewOptions(is_disabled=True)


class UndeliverableError(Exception):
    """It is of no use to go on with a delivery; the message says why, without an id."""


class ChatRateLimiter(AIORateLimiter):
    """The library's rate limiter, but one chat's flood control never makes another chat wait.

    ``AIORateLimiter`` stops every request after a 429. Telegram counts per chat as a rule, so here
    only that chat waits, and its answer is delivered afterwards. What is shown for a moment only
    (the typing sign) neither counts as a message nor is repeated.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(max_retries=0)

    async def process_request(
        self,
        callback: Callable[..., Coroutine[Any, Any, Answer]],
        args: Any,
        kwargs: JSON,
        endpoint: str,
        data: JSON,
        rate_limit_args: int | None,
    ) -> Answer:
        """Sends a request when the limits allow it, again after each 429.

        Raises:
            RetryAfter: If Telegram still refuses after every repetition, or names a pause that
                nobody would wait for.
        """
        if endpoint in MOMENTARY:
            return await callback(*args, **kwargs)

        def pause_s(problem: Exception, failures: int) -> float | None:
            if not isinstance(problem, RetryAfter) or failures > MOST_RATE_LIMITS:
                return None
            asked_s = seconds_asked(problem)
            if asked_s > LONGEST_RATE_LIMIT_S:
                return None
            log.info("telegram: %s has to wait %.0f s", endpoint, asked_s)
            return asked_s + 0.1

        request = super().process_request
        return await retry(
            lambda: request(callback, args, kwargs, endpoint, data, rate_limit_args), pause_s
        )


class Sender:
    """Delivers replies.

    A network failure is retried with growing pauses: the answer may then arrive twice, which is
    better than never. Somebody who blocked the bot gets nothing, and that is no error.
    """

    def __init__(self, bot: Bot) -> None:
        self._bot = bot

    async def send(self, place: JSON, reply: Reply) -> Message | None:
        """Sends a reply.

        Returns:
            The message that carries the buttons; None if nothing could be delivered.
        """
        try:
            return await self._send(place, reply)
        except (UndeliverableError, TelegramError) as problem:
            # A BadRequest's message is Telegram's for developers and holds no id.
            log.info("telegram: an answer can't be delivered: %s", problem)
            return None

    async def replace(self, message: Message, place: JSON, reply: Reply) -> Message | None:
        """Puts a reply in the place of a message, or sends it where that can't be done.

        Returns:
            The message that carries the reply; None if nothing could be delivered.
        """
        edit = self._edit(message, reply)
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
        until = time.monotonic() + PATIENCE_S

        def pause_s(problem: Exception, failures: int) -> float | None:
            if not isinstance(problem, NetworkError) or isinstance(problem, BadRequest):
                return None
            wait_s = backoff_s(failures, 0.5, 15.0)
            return wait_s if time.monotonic() + wait_s <= until else None

        try:
            return await retry(call, pause_s)
        except (BadRequest, ChatMigrated):
            raise
        except TelegramError as problem:
            raise UndeliverableError(type(problem.__cause__ or problem).__name__) from None

    async def _send(self, place: JSON, reply: Reply) -> Message | None:
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
            text = partial(
                self._bot.send_message,
                text=chunk,
                link_preview_options=NO_PREVIEW,
                reply_markup=markup if is_last else None,
            )
            sent = await self._insert(place, text)
            carrier = carrier or (sent if is_last else None)
        return carrier

    async def _send_file(
        self, place: JSON, reply: Reply, caption: str, markup: InlineKeyboardMarkup | None
    ) -> Message | None:
        """Sends the picture, film or document; None where Telegram takes it in no way."""
        for upload in uploads(self._bot, reply):
            try:
                return await self._insert(
                    place, partial(upload, caption=caption, reply_markup=markup)
                )
            except BadRequest as problem:
                log.info("telegram: a file is refused: %s", problem)
        return None

    async def _insert(self, place: JSON, send: Send) -> Message:
        """Sends a message; once more as a plain one where it is refused as a reply in a topic."""
        for attempt in count():
            try:
                return await self.deliver(partial(send, **place))
            except ChatMigrated as problem:
                if attempt > 1:
                    raise
                place = {"chat_id": problem.new_chat_id}
            except BadRequest as problem:
                if attempt or not MISPLACED.search(problem.message):
                    raise
                place = {"chat_id": place["chat_id"]}
        raise AssertionError("unreachable")

    def _edit(
        self, message: Message, reply: Reply
    ) -> Callable[[], Awaitable[Message | bool]] | None:
        """How to turn a message into the reply; None where only a new message will do."""
        is_text = message.text and not (reply.picture or reply.animation)
        limit = TELEGRAM_LIMITS.text_chars if is_text else TELEGRAM_LIMITS.caption_chars
        chunks = split_text(reply.text, limit)
        if reply.document or len(chunks) > 1:
            return None
        text = chunks[0] if chunks else ""
        media: InputMediaPhoto | InputMediaAnimation | None = None
        about: JSON = {
            "caption": text,
            "has_spoiler": reply.spoiler or bool(message.has_media_spoiler),
        }
        if reply.picture:
            media = InputMediaPhoto(reply.picture.jpeg, filename=PICTURE_NAME, **about)
        elif film := reply.animation:
            media = InputMediaAnimation(
                film.content, filename=film.filename, **about, **_measures(film)
            )
        bot = self._bot
        if media:
            edit: Callable[..., Awaitable[Message | bool]]
            edit = partial(bot.edit_message_media, media=media)
        elif not text:
            edit = bot.edit_message_reply_markup
        elif is_text:
            edit = partial(bot.edit_message_text, text=text, link_preview_options=NO_PREVIEW)
        else:
            edit = partial(bot.edit_message_caption, caption=text)
        return partial(
            edit,
            chat_id=message.chat.id,
            message_id=message.message_id,
            reply_markup=keyboard(reply.buttons),
        )


def uploads(bot: Bot, reply: Reply) -> list[Send]:
    """How to send the file of a reply: as what it is, then as a plain file if that is refused."""
    if reply.picture:
        content, name = reply.picture.jpeg, PICTURE_NAME
        first: Send = partial(bot.send_photo, photo=content, has_spoiler=reply.spoiler)
    elif film := reply.animation:
        content, name = film.content, film.filename
        first = partial(
            bot.send_animation, animation=content, has_spoiler=reply.spoiler, **_measures(film)
        )
    elif reply.document:
        document = reply.document
        return [partial(bot.send_document, document=document.content, filename=document.filename)]
    else:
        return []
    return [
        partial(first, filename=name),
        partial(bot.send_document, document=content, filename=name),
    ]


def _measures(film: Animation) -> JSON:
    """Known beforehand, so that a chat shows the frame while the film still loads."""
    return {
        "width": film.width_px,
        "height": film.height_px,
        "duration": max(1, round(film.duration_s)),
    }


def keyboard(rows: tuple[tuple[Button, ...], ...]) -> InlineKeyboardMarkup | None:
    """The buttons as Telegram takes them; None where there are none."""
    buttons = [
        [InlineKeyboardButton(button.label, callback_data=button.action) for button in row]
        for row in rows
        if row
    ]
    return InlineKeyboardMarkup(buttons) if buttons else None


def split_text(
    text: str, first: int = TELEGRAM_LIMITS.text_chars, rest: int = TELEGRAM_LIMITS.text_chars
) -> list[str]:
    """A text in pieces that Telegram carries, cut at the end of a paragraph, line or word.

    Args:
        text: Any text; what is no character (a lone surrogate) becomes U+FFFD.
        first: Longest first piece, UTF-16 code units, above 1.
        rest: Longest other piece, UTF-16 code units, above 1.

    Returns:
        Pieces without white space around them, none of them empty.
    """
    left = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").strip()
    pieces: list[str] = []
    limit = first
    while left:
        head = left.encode("utf-16-le")[: 2 * limit].decode("utf-16-le", "ignore")
        if len(head) < len(left):
            # Cut late, and at the best boundary of the second half.
            cuts = (head.rfind(boundary) for boundary in ("\n\n", "\n", " "))
            head = head[: next((at for at in cuts if at > len(head) // 2), len(head))]
        if piece := head.strip():
            pieces.append(piece)
            limit = rest
        left = left[len(head) :].lstrip()
    return pieces


def seconds_asked(problem: RetryAfter) -> float:
    """Seconds that Telegram asks to wait."""
    asked = problem.retry_after
    return asked.total_seconds() if isinstance(asked, timedelta) else float(asked)
