"""Guest mode (Bot API 10.0): the bot is named in a chat that it is not a member of."""

from __future__ import annotations

import contextlib
import logging
from functools import partial

from telegram import (
    Bot,
    InlineKeyboardMarkup,
    InlineQueryResultArticle,
    InlineQueryResultCachedMpeg4Gif,
    InlineQueryResultCachedPhoto,
    InputMediaAnimation,
    InputMediaPhoto,
    InputTextMessageContent,
    Message,
)
from telegram.error import BadRequest, Forbidden, TelegramError

from bot.adapters.telegram.sender import (
    NO_PREVIEW,
    PICTURE_NAME,
    Courier,
    UndeliverableError,
    keyboard,
    measures,
)
from bot.adapters.telegram.texts import TELEGRAM_LIMITS, split_text
from bot.values import Reply

__all__ = ["Guests"]

Result = InlineQueryResultArticle | InlineQueryResultCachedPhoto | InlineQueryResultCachedMpeg4Gif

log = logging.getLogger(__name__)


class Guests:
    """Answers where the bot is a guest.

    Such an answer is one inline message, and those carry only pictures that Telegram holds
    already (https://core.telegram.org/bots/api#editmessagemedia). So the picture is handed in
    through the asker's private chat, without a sound, and taken away there at once. Somebody who
    never started the bot has no such chat and gets the answer in words.
    """

    def __init__(self, bot: Bot, courier: Courier) -> None:
        self._bot = bot
        self._courier = courier

    async def send(self, query_id: str, asker_id: int | None, reply: Reply) -> str | None:
        """Answers a guest message.

        Returns:
            The inline message's id; None if nothing could be delivered.
        """
        markup = keyboard(reply.buttons)
        results: list[Result] = []
        handed_in = await self._hand_in(asker_id, reply)
        if handed_in:
            caption = (split_text(reply.text, TELEGRAM_LIMITS.caption_chars) or [""])[0]
            results.append(_held(handed_in, caption, markup))
        text = (split_text(reply.text or reply.notice or "") or ["…"])[0]
        content = InputTextMessageContent(text, link_preview_options=NO_PREVIEW)
        title = text.splitlines()[0][:64]
        results.append(InlineQueryResultArticle("1", title, content, reply_markup=markup))
        try:
            return await self._first_accepted(query_id, results)
        finally:
            await self._take_away(handed_in)

    async def replace(self, inline_message_id: str, asker_id: int, reply: Reply) -> None:
        """Puts a reply in the place of an inline message."""
        markup = keyboard(reply.buttons)
        caption = (split_text(reply.text, TELEGRAM_LIMITS.caption_chars) or [""])[0]
        handed_in = await self._hand_in(asker_id, reply)
        try:
            if handed_in:
                media = _media(handed_in, caption)
                await self._bot.edit_message_media(
                    media, inline_message_id=inline_message_id, reply_markup=markup
                )
            elif caption:
                await self._edit_words(inline_message_id, caption, reply)
        except TelegramError as problem:
            log.info("telegram: a guest's answer can't be changed: %s", type(problem).__name__)
        finally:
            await self._take_away(handed_in)

    async def _first_accepted(
        self,
        query_id: str,
        results: list[Result],
    ) -> str | None:
        for result in results:
            try:
                answer = partial(self._bot.answer_guest_query, query_id, result)
                sent = await self._courier.deliver(answer)
            except BadRequest as problem:
                log.info("telegram: a guest's answer is refused: %s", problem)
            except UndeliverableError as problem:
                log.info("telegram: a guest's answer can't be delivered: %s", problem)
                return None
            else:
                return sent.inline_message_id
        return None

    async def _edit_words(self, inline_message_id: str, words: str, reply: Reply) -> None:
        markup = keyboard(reply.buttons)
        try:
            await self._bot.edit_message_caption(
                inline_message_id=inline_message_id, caption=words, reply_markup=markup
            )
        except BadRequest:  # it is a message without a picture
            await self._bot.edit_message_text(
                words, inline_message_id=inline_message_id, reply_markup=markup
            )

    async def _hand_in(self, asker_id: int | None, reply: Reply) -> Message | None:
        if asker_id is None:
            return None
        try:
            if reply.picture:
                return await self._bot.send_photo(
                    asker_id, reply.picture.jpeg, filename=PICTURE_NAME, disable_notification=True
                )
            if reply.animation:
                return await self._bot.send_animation(
                    asker_id,
                    reply.animation.content,
                    filename=reply.animation.filename,
                    disable_notification=True,
                    **measures(reply.animation),
                )
        except (Forbidden, BadRequest):
            return None  # never started, or blocked
        except TelegramError as problem:
            log.info("telegram: a picture can't be handed in: %s", type(problem).__name__)
        return None

    async def _take_away(self, handed_in: Message | None) -> None:
        if handed_in:
            with contextlib.suppress(TelegramError):
                await handed_in.delete()


def _held(message: Message, caption: str, markup: InlineKeyboardMarkup | None) -> Result:
    """What Telegram holds, as an answer to a guest message."""
    if message.animation:
        return InlineQueryResultCachedMpeg4Gif(
            "1", message.animation.file_id, caption=caption, reply_markup=markup
        )
    return InlineQueryResultCachedPhoto(
        "1", message.photo[-1].file_id, title=PICTURE_NAME, caption=caption, reply_markup=markup
    )


def _media(message: Message, caption: str) -> InputMediaPhoto | InputMediaAnimation:
    """What Telegram holds, in the place of what an inline message shows."""
    if message.animation:
        return InputMediaAnimation(message.animation.file_id, caption=caption)
    return InputMediaPhoto(message.photo[-1].file_id, caption=caption)
