"""Pictures that Telegram holds for the bot, fetched when they are needed."""

from __future__ import annotations

import asyncio
import functools
import re
import ssl
from pathlib import Path
from typing import Any

import httpx
from telegram import Animation, Bot, Document, ExternalReplyInfo, Message, PhotoSize, Sticker
from telegram.error import BadRequest, RetryAfter, TelegramError

from bot.values import Attachment
from engine.errors import NotAnImage, SourceDown, TooLarge

__all__ = ["DOWNLOAD_LIMIT_BYTES", "Files"]

# https://core.telegram.org/bots/api#getfile: "bots can download files of up to 20MB in size".
DOWNLOAD_LIMIT_BYTES = 20_000_000

PICTURE_SUFFIX = re.compile(
    r"\.(avif|bmp|gif|hei[cf]|hif|ico|jfif|jp2|jpe|jpe?g|jxl|png|tiff?|webp)\Z", re.IGNORECASE
)
# How a picture sent as a file is labelled by clients that don't know its kind.
VAGUE_TYPES = frozenset({None, "", "application/octet-stream", "binary/octet-stream"})
PAUSES_S = (0.2, 0.8, 2.0)


class Files:
    """Makes attachments of what Telegram says about a file.

    Args:
        bot: Asked where a file lies.
        tls: Whom to trust.
        limit_bytes: Larger files are not fetched.
    """

    def __init__(
        self, bot: Bot, tls: ssl.SSLContext, *, limit_bytes: int = DOWNLOAD_LIMIT_BYTES
    ) -> None:
        self._bot = bot
        self._limit_bytes = limit_bytes
        self._client = httpx.AsyncClient(
            verify=tls,
            timeout=httpx.Timeout(20, pool=60),
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=16),
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    def pictures(self, message: Message | ExternalReplyInfo) -> tuple[Attachment, ...]:
        """The picture in a message; for other media one whose fetch says that it is none."""
        if message.photo:
            return (self._photo(message.photo),)
        if message.sticker:
            return (self._sticker(message.sticker),)
        # An animation comes with a document of the same file; its own kind is the truer one.
        file = message.animation or message.document
        if file:
            picture = _is_picture(file)
            return (self._file(file, file.mime_type) if picture else _no_picture(file.mime_type),)
        if message.video or message.video_note or message.voice or message.audio:
            return (_no_picture(None),)
        return ()

    def _photo(self, sizes: tuple[PhotoSize, ...]) -> Attachment:
        fitting = [size for size in sizes if (size.file_size or 0) <= self._limit_bytes]
        largest = max(fitting or sizes, key=lambda size: size.width * size.height)
        return self._file(largest, "image/jpeg")

    def _sticker(self, sticker: Sticker) -> Attachment:
        if sticker.is_animated or sticker.is_video:
            return _no_picture("video/webm" if sticker.is_video else "application/x-tgsticker")
        return self._file(sticker, "image/webp")

    def _file(
        self, file: PhotoSize | Animation | Document | Sticker, media_type: str | None
    ) -> Attachment:
        return Attachment(
            fetch=functools.partial(self._fetch, file.file_id, file.file_size),
            size_bytes=file.file_size,
            media_type=media_type,
        )

    async def _fetch(self, file_id: str, size_bytes: int | None) -> bytes:
        """The file's bytes.

        Raises:
            TooLarge: If it is larger than the limit, before anything is asked if that is known.
            SourceDown: If Telegram does not hand it over.
        """
        self._refuse_above_limit(size_bytes)
        for pause_s in (*PAUSES_S, None):
            try:
                return await self._fetch_once(file_id)
            except BadRequest as problem:
                if "too big" in problem.message.lower():
                    raise self._too_large() from None
                break
            except (TelegramError, httpx.HTTPError, OSError) as problem:
                if pause_s is None or isinstance(problem, RetryAfter):
                    break
                await asyncio.sleep(pause_s)
        # The cause would carry the address of the file, and with it the token.
        raise SourceDown("Telegram does not hand over a file") from None

    async def _fetch_once(self, file_id: str) -> bytes:
        file = await self._bot.get_file(file_id)
        self._refuse_above_limit(file.file_size)
        path = file.file_path or ""
        if Path(path).is_absolute():
            # A Bot API server of one's own in local mode names a file on this machine.
            return await asyncio.to_thread(self._read, Path(path))
        # The library leaves out the address where a file of that name lies in the working folder.
        url = path if "://" in path else f"{self._bot.base_file_url}/{path}"
        content = bytearray()
        async with self._client.stream("GET", url) as response:
            if response.status_code != httpx.codes.OK:
                raise httpx.TransportError(f"status {response.status_code}")
            async for chunk in response.aiter_bytes():
                content += chunk
                self._refuse_above_limit(len(content))
        return bytes(content)

    def _read(self, path: Path) -> bytes:
        self._refuse_above_limit(path.stat().st_size)
        return path.read_bytes()

    def _refuse_above_limit(self, size_bytes: int | None) -> None:
        if size_bytes is not None and size_bytes > self._limit_bytes:
            raise self._too_large()

    def _too_large(self) -> TooLarge:
        limit_mb = self._limit_bytes // 1_000_000
        return TooLarge(f"bots can fetch files of at most {limit_mb} MB", limit_mb=limit_mb)


def _is_picture(file: Document | Animation) -> bool:
    media_type = file.mime_type
    if media_type in VAGUE_TYPES:
        return bool(PICTURE_SUFFIX.search(file.file_name or ""))
    return str(media_type).startswith("image/")


def _no_picture(media_type: str | None) -> Attachment:
    async def refuse() -> Any:
        raise NotAnImage("the file is not a picture")

    return Attachment(fetch=refuse, media_type=media_type)
