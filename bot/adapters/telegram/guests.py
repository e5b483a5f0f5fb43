"""Guest mode (Bot API 10.0): the bot is named in a chat that it is not a member of."""

from __future__ import annotations

import contextlib
import logging
from functools import partial

from telegram import (
    Bot,
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
    TELEGRAM_LIMITS,
    Sender,
    UndeliverableError,
    keyboard,
    split_text,
    uploads,
)
from bot.values import Reply


log = logging.getLogger(__name__)


class Guests:
    """Answers where the bot is a guest.

    Such an answer is one inline message, and those carry only pictures that Telegram holds
    already (https://core.telegram.org/bots/api#editmessagemedia). So the picture is uploaded to
    the asker's private chat, without a sound, and deleted there at once. Somebody who never
    started the bot has no such chat and gets the answer in words.
    """

    def __init__(self, bot: Bot, sender: Sender) -> None:
        self._bot = bot
        self._sender = sender

    async def send(self, query_id: str, asker_id: int | None, reply: Reply) -> str | None:
        """Answers a guest message.

        Returns:
            The inline message's id; None if nothing could be delivered.
        """
        markup = keyboard(reply.buttons)
        uploaded = await self._upload(asker_id, reply)
        text = (split_text(reply.text or reply.notice or "") or ["…"])[0]
        content = InputTextMessageContent(text, link_preview_options=NO_PREVIEW)
        title = text.splitlines()[0][:64]
        results: list[
            InlineQueryResultArticle
            | InlineQueryResultCachedPhoto
            | InlineQueryResultCachedMpeg4Gif
        ] = [InlineQueryResultArticle("1", title, content, reply_markup=markup)]
        if uploaded and uploaded.animation:
            film = InlineQueryResultCachedMpeg4Gif(
                "1", uploaded.animation.file_id, caption=_caption(reply), reply_markup=markup
            )
            results.insert(0, film)
        elif uploaded:
            photo = InlineQueryResultCachedPhoto(
                "1",
                uploaded.photo[-1].file_id,
                title=PICTURE_NAME,
                caption=_caption(reply),
                reply_markup=markup,
            )
            results.insert(0, photo)
        try:
            for result in results:
                answer = partial(self._bot.answer_guest_query, query_id, result)
                with contextlib.suppress(BadRequest):  # words are taken where a picture is not
                    return (await self._sender.deliver(answer)).inline_message_id
        except UndeliverableError as problem:
            log.info("telegram: a guest's answer can't be delivered: %s", problem)
        finally:
            await self._delete(uploaded)
        return None

    async def replace(self, inline_message_id: str, asker_id: int, reply: Reply) -> None:
        """Puts a reply in the place of an inline message."""
        caption = _caption(reply)
        uploaded = await self._upload(asker_id, reply)
        try:
            if uploaded:
                media = (
                    InputMediaAnimation(uploaded.animation.file_id, caption=caption)
                    if uploaded.animation
                    else InputMediaPhoto(uploaded.photo[-1].file_id, caption=caption)
                )
                await self._bot.edit_message_media(
                    media,
                    inline_message_id=inline_message_id,
                    reply_markup=keyboard(reply.buttons),
                )
            elif caption:
                await self._edit_words(inline_message_id, caption, reply)
        except TelegramError as problem:
            log.info("telegram: a guest's answer can't be changed: %s", type(problem).__name__)
        finally:
            await self._delete(uploaded)

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

    async def _upload(self, asker_id: int | None, reply: Reply) -> Message | None:
        """The reply's picture or film in the asker's private chat; None where there is no way."""
        if asker_id is None or not (reply.picture or reply.animation):
            return None
        upload = uploads(self._bot, reply)[0]
        try:
            return await upload(chat_id=asker_id, disable_notification=True)
        except (Forbidden, BadRequest):
            return None  # never started, or blocked
        except TelegramError as problem:
            log.info("telegram: a picture can't be uploaded: %s", type(problem).__name__)
            return None

    async def _delete(self, uploaded: Message | None) -> None:
        if uploaded:
            with contextlib.suppress(TelegramError):
                await uploaded.delete()


def _caption(reply: Reply) -> str:
    return (split_text(reply.text, TELEGRAM_LIMITS.caption_chars) or [""])[0]
