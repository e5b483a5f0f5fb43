"""Pictures that Discord holds for the bot, fetched when they are needed."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from functools import partial
from typing import Any

import aiohttp
import discord

from bot.values import Attachment
from engine.errors import NotAnImage, SourceDown, TooLarge

__all__ = ["DOWNLOAD_LIMIT_BYTES", "Held", "attachment_of", "avatar_of", "pictures_of"]

DOWNLOAD_LIMIT_BYTES = 20_000_000
AVATAR_PX = 1024
PAUSES_S = (0.2, 0.8, 2.0)
PICTURE_SUFFIX = re.compile(r"\.(avif|bmp|gif|hei[cf]|hif|jpe?g|png|tiff?|webp)\Z", re.IGNORECASE)


def attachment_of(file: discord.Attachment) -> Attachment:
    """A file of a message or command; downloaded soon, since its address expires."""
    if not _may_be_picture(file):
        return Attachment(fetch=_no_picture, media_type=file.content_type)
    fetch = partial(_fetch, file, file.size)
    return Attachment(fetch=fetch, size_bytes=file.size, media_type=file.content_type)


def avatar_of(user: discord.User | discord.Member) -> Attachment:
    """The picture by which a person is shown; the first frame where it moves."""
    asset = user.display_avatar
    if asset.key.isdecimal():  # one of Discord's own, for those who chose none
        return Attachment(fetch=partial(_fetch, asset, None), media_type="image/png")
    still = asset.replace(size=AVATAR_PX, static_format="png", format="png")
    return Attachment(fetch=partial(_fetch, still, None), media_type="image/png")


def pictures_of(
    message: discord.Message, *, asker: discord.abc.Snowflake | None = None
) -> tuple[Attachment, ...]:
    """The pictures in a message, forwarded ones too; for other files one that says it is none.

    Args:
        message: Where they are.
        asker: Who asks about them; those that they sent themselves are marked as their own.
    """
    files = list(message.attachments)
    mine = asker is not None and asker.id == message.author.id and not message.message_snapshots
    for snapshot in message.message_snapshots:
        files += snapshot.attachments
    pictures = [file for file in files if _may_be_picture(file)]
    return tuple(replace(attachment_of(file), own=mine) for file in pictures or files[:1])


class Held:
    """Pictures of the message that another one replies to."""

    @staticmethod
    async def of_reply(message: discord.Message) -> tuple[Attachment, ...]:
        """Of the message replied to; where that is an answer of ours, of what it answered."""
        replied = await _replied_to(message)
        if replied is None:
            return ()
        mine = message.guild.me if message.guild else getattr(message.channel, "me", None)
        if mine is not None and replied.author.id == mine.id and replied.reference:
            asked = await _replied_to(replied)
            return pictures_of(asked) if asked else ()
        return pictures_of(replied, asker=message.author)

    @staticmethod
    def of_answer(answer: discord.Message) -> tuple[Attachment, ...]:
        """Of the message that an answer of ours replies to; looked up only when needed."""
        if answer.reference is None:
            return ()
        return (Attachment(fetch=partial(_of_question, answer)),)


async def _of_question(answer: discord.Message) -> bytes:
    asked = await _replied_to(answer)
    pictures = pictures_of(asked) if asked else ()
    if not pictures:
        raise NotAnImage("the message with the photo is gone")
    return await pictures[0].fetch()


async def _replied_to(message: discord.Message) -> discord.Message | None:
    reference = message.reference
    if reference is None or reference.message_id is None:
        return None
    if isinstance(reference.resolved, discord.Message):
        return reference.resolved
    try:
        return await message.channel.fetch_message(reference.message_id)
    except (discord.HTTPException, aiohttp.ClientError, OSError):
        return None  # deleted, or the bot may not read there


def _may_be_picture(file: discord.Attachment) -> bool:
    kind = (file.content_type or "").partition(";")[0].strip().lower()
    if kind.startswith("image/"):
        return True
    vague = kind in {"", "application/octet-stream", "binary/octet-stream"}
    return vague and PICTURE_SUFFIX.search(file.filename) is not None


async def _no_picture() -> bytes:
    raise NotAnImage("the file is no picture")


async def _fetch(source: Any, size_bytes: int | None) -> bytes:
    """The bytes of an attachment or asset.

    Raises:
        TooLarge: If Discord says that it is larger than what is downloaded.
        SourceDown: If Discord does not hand it over.
    """
    if size_bytes is not None and size_bytes > DOWNLOAD_LIMIT_BYTES:
        raise TooLarge("the file is larger than 20 MB", megabytes=DOWNLOAD_LIMIT_BYTES // 1_000_000)
    for pause_s in (*PAUSES_S, None):
        try:
            data: bytes = await source.read()
        except (discord.NotFound, discord.Forbidden) as problem:
            raise SourceDown("Discord no longer has the picture") from problem
        except (discord.HTTPException, aiohttp.ClientError, OSError, TimeoutError) as problem:
            if pause_s is None:
                raise SourceDown("Discord does not hand over the picture") from problem
            await asyncio.sleep(pause_s)
            continue
        if len(data) > DOWNLOAD_LIMIT_BYTES:
            raise TooLarge("the file is larger than 20 MB", megabytes=20)
        return data
    raise AssertionError("the last pause is None")
