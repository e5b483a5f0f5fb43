"""What Telegram messages and pressed buttons ask for, and the pictures in them."""

import asyncio
import contextlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import aiohttp
import telegram
from telegram import Message
from telegram.constants import ChatType
from telegram.error import BadRequest, Forbidden, RetryAfter, TelegramError

from bot import adapters
from bot.adapters import NO_PICTURE, only_pictures
from bot.conversation import COMMANDS
from bot.process_memory import Memory
from bot.values import Action, Attachment, Request, Sender
from engine.errors import PhotoGone

COMMAND = re.compile(
    r"/(?P<name>[A-Za-z0-9_]{1,32})(?:@(?P<bot>\w+))?(?:\s+(?P<arguments>.*))?\Z", re.DOTALL
)
FAILURES = (TelegramError, aiohttp.ClientError, OSError)
GUEST = "guest:"  # before the id of a chat that the bot is not a member of
MOST_REMEMBERED = 8192  # answers and albums
REMEMBERED_S = 3_600.0  # how long several processes do together
# Arguments of Telegram's sending methods: the chat, and where there are any the forum topic, the
# topic of a channel's direct messages, and the message that is answered.
Place = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request and where its answer goes; repr shows no id."""

    request: Request
    place: Place = field(repr=False)

    def about(self, photo: Attachment | None) -> Self:
        """The same question about a later one of several photos and those after it."""
        if photo is None or photo.message_id is None:
            return self
        later = [one for one in self.request.photos if (one.message_id or 0) > photo.message_id]
        reply = telegram.ReplyParameters(photo.message_id, allow_sending_without_reply=True)
        request = replace(self.request, photos=(photo, *later))
        return replace(self, request=request, place=self.place | {"reply_parameters": reply})


class ParsedMessage(NamedTuple):
    """What the words of a message or caption mean to one bot."""

    command: str | None  # without slash, lower case
    arguments: str  # what follows the command, else all the words
    to_me: bool  # whether the bot is named, as ``@bot`` or ``/command@bot``
    to_another: bool  # whether the command names another bot


class Reader:
    """Understands messages addressed to one bot, and downloads the files in them."""

    def __init__(self, bot: telegram.Bot, client: aiohttp.ClientSession, memory: Memory) -> None:
        self._bot, self._client = bot, client
        # Which photos a message of the bot answers (by chat and message id, or inline id) and an
        # album holds (by chat and album id), so that buttons and /compare need no second upload.
        # File ids only, and those in memory.
        self._photos = memory if memory.shared else Memory(MOST_REMEMBERED, lambda _: 1)

    async def remember(
        self, sent: object, photos: tuple[Attachment, ...], chat_id: str = ""
    ) -> None:
        """Keeps the photos of an answer or album, if any, in the place of the oldest if need be.

        Of an answer to a guest, by inline id, also the chat where that was asked.
        """
        key = (sent.chat.id, sent.message_id) if isinstance(sent, Message) else sent
        said = [(*one.file, one.own, one.spoiler, one.message_id) for one in photos if one.file]
        if key and said and len(said) == len(photos):
            lives_s = REMEMBERED_S if self._photos.shared else math.inf
            await self._photos.put(("telegram photos", str(key)), (said, chat_id), lives_s)

    async def _remembered(self, key: object) -> tuple[tuple[Attachment, ...], str]:
        said, chat_id = await self._photos.get(("telegram photos", str(key))) or ((), "")
        return tuple(self._attached(*one) for one in said), chat_id

    async def read(self, messages: Sequence[Message], *, edited: bool = False) -> Asked | None:
        """What a message, or the messages of an album, ask for; None if nothing.

        In private chats everything that somebody wrote is a question; elsewhere only a command, a
        mention, or a photo in reply to the bot. An edited caption is one if it is a command.
        """
        first = messages[0]
        sender = _sender(first)
        if sender is None:
            return None
        if sender.is_group and not self._bot.bot.can_read_all_group_messages:
            sender = replace(sender, hears_all=False)
        captions = [item.text or item.caption or "" for item in messages]
        read = [parse_message(words, self._bot.username) for words in captions]
        # Of an album's captions a command counts, else one that names the bot, else the first.
        said = max(read, key=lambda one: (one.command is not None, one.to_me, bool(one.arguments)))
        if said.to_another or (edited and not (first.caption and said.command in COMMANDS)):
            return None
        attached = only_pictures([one for item in messages for one in self._pictures(item)])
        if first.media_group_id:
            album = (first.chat.id, first.media_group_id)
            attached = (edited and (await self._remembered(album))[0]) or attached
            await self.remember(album, attached)
        if sender.is_group and not self._is_asked(said, messages, attached):
            return None
        # Of an album all or none is forwarded, so its first message speaks for it.
        photos = _owned(attached, own=_sent_by_themselves(first))
        if not photos or said.command == "compare":
            photos = (*await self._replied(said.command, first), *photos)
        if not (any(captions) or photos or first.effective_attachment):
            return None  # nobody sent it, Telegram reports something
        request = Request(sender, said.command, said.arguments, photos)
        sent = {item.message_id: item for item in messages}
        answered = sent.get(attached[0].message_id or 0, first) if attached else first
        return Asked(request, _place(answered, reply=bool(sender.is_group or photos)))

    async def read_button(self, query: telegram.CallbackQuery) -> Asked | None:
        """What a pressed button asks for; None if it is not one of this bot's."""
        if not query.data:
            return None
        message = query.message
        if message is None:
            key: object = query.inline_message_id
            # Under an inline message the chat goes by another id than in the question.
            chat_id = (await self._remembered(key))[1] or f"{GUEST}{query.chat_instance}"
            sender = _person(query.from_user, chat_id, is_group=True)
            place: Place = {"chat_id": query.from_user.id}
        else:
            key = (message.chat.id, message.message_id)
            is_group = message.chat.type != ChatType.PRIVATE
            sender = _person(query.from_user, str(message.chat.id), is_group=is_group)
            place = {"chat_id": message.chat.id, "reply_parameters": _reply_to(message)}
        photos, _ = await self._remembered(key)
        if isinstance(message, Message) and message.is_accessible:
            original = message.reply_to_message
            place = _place(original or message, topic_of=message)
            if original and not photos:
                photos = (*self._pictures(original), *self._below(message, original))
        # Whoever presses need not be who sent the photo.
        photos = _owned(photos, own=False)
        return Asked(Request(sender, photos=photos, action=query.data), place)

    async def _replied(self, command: str | None, message: Message) -> tuple[Attachment, ...]:
        original = message.reply_to_message
        if original is None:
            elsewhere = message.external_reply
            return self._pictures(elsewhere) if elsewhere else ()
        if original.from_user and original.from_user.id == self._bot.id:
            # The bot's own cards show celebrities; what they answered is meant.
            answered, _ = await self._remembered((original.chat.id, original.message_id))
            return _owned(answered, own=False) if command else ()
        album, _ = await self._remembered((original.chat.id, original.media_group_id))
        if command == "compare" and album:
            return album
        same = original.from_user is not None and original.from_user == message.from_user
        mine = same and _sent_by_themselves(original) and not message.sender_chat
        return _owned(self._pictures(original), own=mine)

    def _pictures(self, message: Message | telegram.ExternalReplyInfo) -> tuple[Attachment, ...]:
        """The picture in a message; for other media one whose fetch says that it is none."""
        # An animation comes with a document of the same file; its own kind is the truer one.
        moving = message.animation or message.document
        file: Any = moving
        paid = message.paid_media.paid_media if message.paid_media else ()
        bought = [one.photo for one in paid if isinstance(one, telegram.PaidMediaPhoto)]
        if sizes := message.photo or (bought[0] if bought else ()):
            fitting = [
                size for size in sizes if (size.file_size or 0) <= adapters.DOWNLOAD_LIMIT_BYTES
            ]
            file = max(fitting or sizes, key=lambda size: size.width * size.height)
        elif sticker := message.sticker:
            if sticker.is_animated or sticker.is_video:
                return (NO_PICTURE,)
            file = sticker
        elif not moving or not adapters.is_picture(moving.mime_type, moving.file_name):
            others = (file, message.video, message.video_note, message.voice, message.audio)
            return (NO_PICTURE,) if any((*others, paid)) else ()
        spoiler = bool(message.has_media_spoiler)
        message_id = message.message_id if isinstance(message, Message) else None
        return (self._attached(file.file_id, file.file_size, False, spoiler, message_id),)

    def _attached(
        self, file_id: str, size_bytes: int | None, own: bool, spoiler: bool, message_id: int | None
    ) -> Attachment:
        download = partial(self._download, file_id)
        load = partial(adapters.fetch, download, size_bytes, FAILURES, (BadRequest, RetryAfter))
        return Attachment(load, own, spoiler, message_id, (file_id, size_bytes))

    def _below(self, card: Message, original: Message) -> tuple[Attachment, ...]:
        """The later photos of an album: the buttons of a card say where their messages are."""
        rows = card.reply_markup.inline_keyboard if card.reply_markup else ()
        actions = [Action.parse(str(button.callback_data)) for row in rows for button in row]
        below = [one.number(3, least=1) for one in actions if one and one.verb == "next"]
        chat_id, hidden = original.chat.id, bool(original.has_media_spoiler)
        found = []
        for message_id in [original.message_id + distance for distance in below if distance]:
            forward = partial(self._forwarded, chat_id, message_id)
            load = partial(adapters.fetch, forward, None, FAILURES, FAILURES)
            found.append(Attachment(load, spoiler=hidden, message_id=message_id))
        return tuple(found)

    async def _forwarded(self, chat_id: int, message_id: int) -> bytes:
        """The photo of a message: only when it is forwarded Telegram says what it holds.

        The copy in the same chat makes no sound, and is deleted at once.
        """
        try:
            copy = await self._bot.forward_message(
                chat_id, chat_id, message_id, disable_notification=True
            )
        except (BadRequest, Forbidden):
            raise PhotoGone("Telegram no longer has the photo") from None
        with contextlib.suppress(TelegramError):
            await copy.delete()
        return await next(iter(self._pictures(copy)), NO_PICTURE).fetch()

    async def _download(self, file_id: str) -> bytes:
        """The bytes of a file, but not many more than the limit."""
        try:
            file = await self._bot.get_file(file_id)
        except BadRequest as problem:
            if "too big" in problem.message.lower():
                adapters.refuse_too_large(adapters.DOWNLOAD_LIMIT_BYTES + 1)
            raise
        adapters.refuse_too_large(file.file_size)
        path = file.file_path or ""
        if Path(path).is_absolute():
            # A Bot API server of one's own in local mode names a file on this machine.
            return await asyncio.to_thread(_read, Path(path))
        # The library leaves out the address where a file of that name lies in the working folder.
        url = path if "://" in path else f"{self._bot.base_file_url}/{path}"
        content = bytearray()
        async with self._client.get(url) as response:
            response.raise_for_status()
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > adapters.DOWNLOAD_LIMIT_BYTES:
                    break
        return bytes(content)

    def _is_asked(
        self, said: ParsedMessage, messages: Sequence[Message], attached: tuple[Attachment, ...]
    ) -> bool:
        entities = [one for item in messages for one in (*item.entities, *item.caption_entities)]
        if any(one.user and one.user.id == self._bot.id for one in entities):
            return True  # mentioned without a name
        if said.to_me or said.command is not None:
            return said.to_me or said.command in COMMANDS
        original = messages[0].reply_to_message
        author = original.from_user if original and not original.forum_topic_created else None
        return bool(attached) and author is not None and author.id == self._bot.id


def _place(message: Message, *, reply: bool = True, topic_of: Message | None = None) -> Place:
    """Where an answer to a message goes; the topic may be another message's."""
    topic_of = topic_of or message
    place: Place = {"chat_id": message.chat.id}
    if topic_of.is_topic_message:
        place["message_thread_id"] = topic_of.message_thread_id
    if topic := topic_of.direct_messages_topic:
        place["direct_messages_topic_id"] = topic.topic_id
    if reply:
        place["reply_parameters"] = _reply_to(message)
    return place


def _reply_to(message: telegram.MaybeInaccessibleMessage) -> telegram.ReplyParameters:
    return telegram.ReplyParameters(message.message_id, allow_sending_without_reply=True)


def parse_message(text: str, username: str) -> ParsedMessage:
    """What words mean to the bot of that name."""
    mention = re.compile(rf"(?<!\w)@{re.escape(username)}(?!\w)", re.IGNORECASE)
    command = COMMAND.match(text.strip()) or COMMAND.match(mention.sub("", text).strip())
    if command is None:
        rest, named = mention.subn(" ", text)
        return ParsedMessage(None, " ".join(rest.split()), bool(named), to_another=False)
    addressee = command["bot"]
    addressed = addressee is not None and addressee.lower() == username.lower()
    arguments, named = mention.subn(" ", command["arguments"] or "")
    to_me = addressed or bool(named) or bool(mention.match(text.strip()))
    to_another = addressee is not None and not addressed
    return ParsedMessage(command["name"].lower(), " ".join(arguments.split()), to_me, to_another)


def _read(path: Path) -> bytes:
    adapters.refuse_too_large(path.stat().st_size)
    return path.read_bytes()


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


def _person(user: telegram.User, chat_id: str, *, is_group: bool) -> Sender:
    # Under an inline message the chat goes by another id than in the question: it can't be told
    # who belongs together where the bot is but a guest.
    name = "" if chat_id.startswith(GUEST) else user.full_name
    return Sender("telegram", str(user.id), chat_id, user.language_code, is_group, name)


def _owned(photos: tuple[Attachment, ...], *, own: bool) -> tuple[Attachment, ...]:
    return tuple(replace(photo, own=own) for photo in photos)


def _sent_by_themselves(message: Message) -> bool:
    """Whether the person who wrote it took the photo out of no other message."""
    return message.forward_origin is None and message.sender_chat is None
