"""What Telegram messages and pressed buttons ask for, and the pictures in them."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from telegram import (
    Animation,
    Bot,
    CallbackQuery,
    Document,
    ExternalReplyInfo,
    MaybeInaccessibleMessage,
    Message,
    PhotoSize,
    ReplyParameters,
    Sticker,
    User,
)
from telegram.constants import ChatType, MessageEntityType
from telegram.error import BadRequest, RetryAfter, TelegramError

from bot.adapters import (
    DOWNLOAD_LIMIT_BYTES,
    fetch_pause_s,
    is_picture,
    no_picture,
    refuse_too_large,
    retry,
)
from bot.conversation import CHAT_COMMANDS
from bot.values import Attachment, Request, Sender
from engine.errors import SourceDown


COMMAND = re.compile(
    r"/(?P<name>[A-Za-z0-9_]{1,32})(?:@(?P<bot>\w+))?(?:\s+(?P<arguments>.*))?\Z", re.DOTALL
)
GUEST = "guest:"  # before the id of a chat that the bot is not a member of
MOST_ANSWERS, MOST_ALBUMS = 4096, 512  # remembered for buttons and /compare


@dataclass(frozen=True, slots=True)
class Asked:
    """A request and where its answer goes; repr shows no id.

    Attributes:
        request: What is asked.
        place: Arguments of Telegram's sending methods: the chat, and where there are any the forum
            topic, the topic of a channel's direct messages, and the message that is answered.
    """

    request: Request
    place: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ParsedMessage:
    """What the words of a message or caption mean to one bot.

    Attributes:
        command: Name without slash, lower case; None where there is none.
        arguments: What follows the command, else all the words.
        to_me: Whether the bot is named, as ``@bot`` or ``/command@bot``.
        to_another: Whether the command names another bot.
    """

    command: str | None
    arguments: str
    to_me: bool
    to_another: bool


class Files:
    """Makes attachments of what Telegram says about files, and downloads them."""

    def __init__(self, bot: Bot, tls: ssl.SSLContext) -> None:
        self._bot = bot
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
        spoiler = bool(message.has_media_spoiler)
        # An animation comes with a document of the same file; its own kind is the truer one.
        file = message.animation or message.document
        if sizes := message.photo:
            fitting = [size for size in sizes if (size.file_size or 0) <= DOWNLOAD_LIMIT_BYTES]
            largest = max(fitting or sizes, key=lambda size: size.width * size.height)
            return (self._attachment(largest, "image/jpeg", spoiler=spoiler),)
        if sticker := message.sticker:
            still = not (sticker.is_animated or sticker.is_video)
            return (self._attachment(sticker, "image/webp") if still else no_picture(),)
        if file and is_picture(file.mime_type, file.file_name):
            return (self._attachment(file, file.mime_type, spoiler=spoiler),)
        if file or message.video or message.video_note or message.voice or message.audio:
            return (no_picture(file.mime_type if file else None),)
        return ()

    def _attachment(
        self,
        file: PhotoSize | Animation | Document | Sticker,
        media_type: str | None,
        *,
        spoiler: bool = False,
    ) -> Attachment:
        return Attachment(
            fetch=partial(self._fetch, file.file_id, file.file_size),
            size_bytes=file.file_size,
            media_type=media_type,
            spoiler=spoiler,
        )

    async def _fetch(self, file_id: str, size_bytes: int | None) -> bytes:
        """The file's bytes.

        Raises:
            TooLarge: If it is larger than the limit, before anything is asked if that is known.
            SourceDown: If Telegram does not hand it over.
        """
        refuse_too_large(size_bytes)
        try:
            return await retry(partial(self._fetch_once, file_id), _fetch_pause_s)
        except BadRequest as problem:
            if "too big" in problem.message.lower():
                refuse_too_large(DOWNLOAD_LIMIT_BYTES + 1)
        except (TelegramError, httpx.HTTPError, OSError):
            pass
        # Outside of the handlers: the cause would carry the file's address, and so the token.
        raise SourceDown("Telegram does not hand over a file")

    async def _fetch_once(self, file_id: str) -> bytes:
        file = await self._bot.get_file(file_id)
        refuse_too_large(file.file_size)
        path = file.file_path or ""
        if Path(path).is_absolute():
            # A Bot API server of one's own in local mode names a file on this machine.
            return await asyncio.to_thread(_read, Path(path))
        # The library leaves out the address where a file of that name lies in the working folder.
        url = path if "://" in path else f"{self._bot.base_file_url}/{path}"
        content = bytearray()
        async with self._client.stream("GET", url) as response:
            if response.status_code != httpx.codes.OK:
                raise httpx.TransportError(f"status {response.status_code}")
            async for chunk in response.aiter_bytes():
                content += chunk
                refuse_too_large(len(content))
        return bytes(content)


class Reader:
    """Understands messages addressed to one bot."""

    def __init__(self, bot: Bot, files: Files) -> None:
        self._bot_id = bot.id
        self._username = bot.username
        self._files = files
        # What was answered by which message of the bot, and what belongs to which album, so that
        # buttons and /compare need no second upload. File ids only, and those in memory.
        self._answered: OrderedDict[Hashable, tuple[Attachment, ...]] = OrderedDict()
        self._albums: OrderedDict[Hashable, tuple[Attachment, ...]] = OrderedDict()

    def remember(self, message_key: Hashable, photos: tuple[Attachment, ...]) -> None:
        """Keeps which photos a message of the bot answers."""
        _keep(self._answered, message_key, photos, MOST_ANSWERS)

    def read(self, messages: Sequence[Message]) -> Asked | None:
        """What a message, or the messages of an album, ask for; None if nothing.

        In private chats everything that somebody wrote is a question; elsewhere only a command, a
        mention, or a photo in reply to the bot.
        """
        first = messages[0]
        sender = _sender(first)
        if sender is None:
            return None
        words = next((words for words in map(_words, messages) if words), "")
        named = any(self._is_named(message) for message in messages)
        said = parse_message(words, self._username)
        if said.to_another:
            return None
        attached = tuple(photo for item in messages for photo in self._files.pictures(item))
        if first.media_group_id:
            _keep(self._albums, (first.chat.id, first.media_group_id), attached, MOST_ALBUMS)
        if sender.is_group and not (named or self._is_asked(said, first, attached)):
            return None
        photos = self._photos(said.command, first, attached)
        if not (words or photos or _is_something(first)):
            return None
        request = Request(sender, said.command, said.arguments, photos)
        return Asked(request, _place(first, reply=bool(sender.is_group or photos)))

    def read_button(self, query: CallbackQuery) -> Asked | None:
        """What a pressed button asks for; None if it is not one of this bot's."""
        if not query.data:
            return None
        message = query.message
        if message is None:
            key: Hashable = query.inline_message_id
            sender = _person(query.from_user, f"{GUEST}{query.chat_instance}", is_group=True)
            place: dict[str, Any] = {"chat_id": query.from_user.id}
        else:
            key = (message.chat.id, message.message_id)
            is_group = message.chat.type != ChatType.PRIVATE
            sender = _person(query.from_user, str(message.chat.id), is_group=is_group)
            place = {"chat_id": message.chat.id, "reply_parameters": _reply_to(message)}
        photos = self._answered.get(key) or ()
        if isinstance(message, Message) and message.is_accessible:
            original = message.reply_to_message
            place = _place(original or message, topic_of=message)
            if original and not photos:
                photos = self._files.pictures(original)
        # Whoever presses need not be who sent the photo.
        photos = tuple(replace(photo, own=False) for photo in photos)
        return Asked(Request(sender, photos=photos, action=query.data), place)

    def _photos(
        self, command: str | None, message: Message, attached: tuple[Attachment, ...]
    ) -> tuple[Attachment, ...]:
        # Of an album all or none is forwarded, so its first message speaks for it.
        mine = _sent_by_themselves(message)
        attached = tuple(replace(photo, own=mine) for photo in attached)
        if attached and command != "compare":
            return attached
        return (*self._replied(command, message), *attached)

    def _replied(self, command: str | None, message: Message) -> tuple[Attachment, ...]:
        original = message.reply_to_message
        if original is None:
            elsewhere = message.external_reply
            return self._files.pictures(elsewhere) if elsewhere else ()
        if original.from_user and original.from_user.id == self._bot_id:
            # The bot's own cards show celebrities; what they answered is meant.
            answered = self._answered.get((original.chat.id, original.message_id)) or ()
            return tuple(replace(photo, own=False) for photo in answered) if command else ()
        if command == "compare" and original.media_group_id:
            album = self._albums.get((original.chat.id, original.media_group_id))
            if album:
                return album
        author, asker = original.from_user, message.from_user
        same = author is not None and asker is not None and author.id == asker.id
        mine = same and _sent_by_themselves(original) and not message.sender_chat
        return tuple(replace(photo, own=mine) for photo in self._files.pictures(original))

    def _is_asked(
        self, said: ParsedMessage, message: Message, attached: tuple[Attachment, ...]
    ) -> bool:
        if said.to_me:
            return True
        if said.command is not None:
            return said.command in CHAT_COMMANDS
        original = message.reply_to_message
        if original is None or original.from_user is None or original.forum_topic_created:
            return False
        return bool(attached) and original.from_user.id == self._bot_id

    def _is_named(self, message: Message) -> bool:
        entities = (*message.entities, *message.caption_entities)
        return any(
            entity.type == MessageEntityType.TEXT_MENTION
            and entity.user is not None
            and entity.user.id == self._bot_id
            for entity in entities
        )


def _place(
    message: Message, *, reply: bool = True, topic_of: Message | None = None
) -> dict[str, Any]:
    """Where an answer to a message goes; the topic may be another message's."""
    topic_of = topic_of or message
    place: dict[str, Any] = {"chat_id": message.chat.id}
    if topic_of.is_topic_message:
        place["message_thread_id"] = topic_of.message_thread_id
    if topic := topic_of.direct_messages_topic:
        place["direct_messages_topic_id"] = topic.topic_id
    if reply:
        place["reply_parameters"] = _reply_to(message)
    return place


def _reply_to(message: MaybeInaccessibleMessage) -> ReplyParameters:
    return ReplyParameters(message.message_id, allow_sending_without_reply=True)


def parse_message(text: str, username: str) -> ParsedMessage:
    """What words mean to the bot of that name."""
    mention = re.compile(rf"(?<!\w)@{re.escape(username)}(?!\w)", re.IGNORECASE)
    command = COMMAND.match(text.strip()) or COMMAND.match(mention.sub("", text).strip())
    if command is None:
        rest, named = mention.subn(" ", text)
        return ParsedMessage(None, " ".join(rest.split()), bool(named), to_another=False)
    addressee = command["bot"]
    to_me = addressee is not None and addressee.lower() == username.lower()
    arguments, named = mention.subn(" ", command["arguments"] or "")
    return ParsedMessage(
        command=command["name"].lower(),
        arguments=" ".join(arguments.split()),
        to_me=to_me or bool(named) or bool(mention.match(text.strip())),
        to_another=addressee is not None and not to_me,
    )


def _keep(
    kept: OrderedDict[Hashable, tuple[Attachment, ...]],
    key: Hashable,
    photos: tuple[Attachment, ...],
    most: int,
) -> None:
    """Keeps photos, if there are any, in the place of the oldest ones if need be."""
    if photos:
        kept[key] = photos
        kept.move_to_end(key)
        if len(kept) > most:
            kept.popitem(last=False)


def _read(path: Path) -> bytes:
    refuse_too_large(path.stat().st_size)
    return path.read_bytes()


def _fetch_pause_s(problem: Exception, failures: int) -> float | None:
    passing = isinstance(problem, (TelegramError, httpx.HTTPError, OSError))
    if not passing or isinstance(problem, (BadRequest, RetryAfter)):
        return None
    return fetch_pause_s(failures)


def _sender(message: Message) -> Sender | None:
    """Who wrote a message; None for what nobody wrote to the bot.

    An anonymous administrator or a channel writes under a user made up by Telegram that all of
    them share (https://core.telegram.org/bots/api#message, ``sender_chat``): the chat that they
    speak for takes the user's place.
    """
    chat_id = f"{GUEST}{message.chat.id}" if message.guest_query_id else str(message.chat.id)
    is_group = message.chat.type != ChatType.PRIVATE or bool(message.guest_query_id)
    if message.is_automatic_forward or message.chat.type == ChatType.CHANNEL:
        return None
    if message.sender_chat:
        return Sender("telegram", str(message.sender_chat.id), chat_id, None, is_group)
    if message.from_user is None or message.from_user.is_bot:
        return None
    return _person(message.from_user, chat_id, is_group=is_group)


def _person(user: User, chat_id: str, *, is_group: bool) -> Sender:
    # Under an inline message the chat goes by another id than in the question: it can't be told
    # who belongs together where the bot is but a guest.
    name = "" if chat_id.startswith(GUEST) else user.full_name
    return Sender("telegram", str(user.id), chat_id, user.language_code, is_group, name)


def _sent_by_themselves(message: Message) -> bool:
    """Whether the person who wrote it took the photo out of no other message."""
    return message.forward_origin is None and message.sender_chat is None


def _words(message: Message) -> str:
    return message.text or message.caption or ""


def _is_something(message: Message) -> bool:
    """Whether somebody sent this, in contrast to what Telegram reports."""
    return any(
        (message.contact, message.dice, message.game, message.location, message.poll, message.story)
    )
