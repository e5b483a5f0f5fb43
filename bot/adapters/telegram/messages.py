"""What a Telegram message or a pressed button asks for: messages -> Asked."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from telegram import CallbackQuery, Message, User
from telegram.constants import ChatType, MessageEntityType

from bot.adapters.telegram.files import Files
from bot.commands import CHAT_COMMANDS
from bot.values import Attachment, Request, Sender

__all__ = ["Asked", "Place", "Reader", "Recent", "Spoken", "spoken"]

COMMAND = re.compile(
    r"/(?P<name>[A-Za-z0-9_]{1,32})(?:@(?P<bot>\w+))?(?:\s+(?P<arguments>.*))?\Z", re.DOTALL
)

GUEST = "guest:"

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an answer goes. Lives in memory only; repr shows no id.

    Attributes:
        chat_id: The chat.
        reply_to: The message that is answered, or None.
        thread_id: The forum topic, or None.
        direct_topic_id: The topic of a channel's direct messages, or None.
    """

    chat_id: int = field(repr=False)
    reply_to: int | None = field(default=None, repr=False)
    thread_id: int | None = field(default=None, repr=False)
    direct_topic_id: int | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request and where its answer goes."""

    request: Request
    place: Place


@dataclass(frozen=True, slots=True)
class Spoken:
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


class Recent(Generic[K, V]):
    """The values used last, at most ``size`` of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[K, V] = OrderedDict()

    def put(self, key: K, value: V) -> None:
        """Keeps a value, in place of the oldest one if need be."""
        self._values[key] = value
        self._values.move_to_end(key)
        while len(self._values) > self._size:
            self._values.popitem(last=False)

    def get(self, key: K) -> V | None:
        """The value, or None."""
        return self._values.get(key)


class Reader:
    """Understands messages addressed to one bot.

    Args:
        bot_id: Of the bot.
        username: Of the bot, without ``@``.
        files: Makes attachments.
    """

    def __init__(self, bot_id: int, username: str, files: Files) -> None:
        self._bot_id = bot_id
        self._username = username
        self._files = files
        # What was answered by which message of the bot, and what belongs to which album, so that
        # buttons and /compare need no second upload. File ids only, and those in memory.
        self._answered: Recent[Hashable, tuple[Attachment, ...]] = Recent(4096)
        self._albums: Recent[Hashable, tuple[Attachment, ...]] = Recent(512)

    def remember(self, message_key: Hashable, photos: tuple[Attachment, ...]) -> None:
        """Keeps which photos a message of the bot answers."""
        if photos:
            self._answered.put(message_key, photos)

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
        said = spoken(words, self._username)
        if said.to_another:
            return None
        attached = tuple(photo for item in messages for photo in self._files.pictures(item))
        if first.media_group_id and attached:
            self._albums.put((first.chat.id, first.media_group_id), attached)
        if sender.is_group and not (named or self._is_asked(said, first, attached)):
            return None
        photos = self._photos(said.command, first, attached)
        if not (words or photos or _is_something(first)):
            return None
        request = Request(sender, said.command, said.arguments, photos)
        return Asked(request, self._place(first, bool(sender.is_group or photos)))

    def read_button(self, query: CallbackQuery) -> Asked | None:
        """What a pressed button asks for; None if it is not one of this bot's."""
        if not query.data:
            return None
        message = query.message
        if message is None:
            key: Hashable = query.inline_message_id
            sender = _person(query.from_user, f"{GUEST}{query.chat_instance}", is_group=True)
            place = Place(query.from_user.id)
        else:
            key = (message.chat.id, message.message_id)
            is_group = message.chat.type != ChatType.PRIVATE
            sender = _person(query.from_user, str(message.chat.id), is_group=is_group)
            place = Place(message.chat.id, reply_to=message.message_id)
        photos = self._answered.get(key) or ()
        if isinstance(message, Message) and message.is_accessible:
            original = message.reply_to_message
            place = self._place(original or message, threaded_by=message)
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

    def _is_asked(self, said: Spoken, message: Message, attached: tuple[Attachment, ...]) -> bool:
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
        self, message: Message, reply: bool = True, *, threaded_by: Message | None = None
    ) -> Place:
        thread = threaded_by or message
        topic = thread.direct_messages_topic
        return Place(
            chat_id=message.chat.id,
            reply_to=message.message_id if reply else None,
            thread_id=thread.message_thread_id if thread.is_topic_message else None,
            direct_topic_id=topic.topic_id if topic else None,
        )


def spoken(text: str, username: str) -> Spoken:
    """What words mean to the bot of that name."""
    mention = re.compile(rf"(?<!\w)@{re.escape(username)}(?!\w)", re.IGNORECASE)
    command = COMMAND.match(text.strip()) or COMMAND.match(mention.sub("", text).strip())
    if command is None:
        rest, named = mention.subn(" ", text)
        return Spoken(None, " ".join(rest.split()), bool(named), to_another=False)
    addressee = command["bot"]
    to_me = addressee is not None and addressee.lower() == username.lower()
    arguments, named = mention.subn(" ", command["arguments"] or "")
    return Spoken(
        command=command["name"].lower(),
        arguments=" ".join(arguments.split()),
        to_me=to_me or bool(named) or bool(mention.match(text.strip())),
        to_another=addressee is not None and not to_me,
    )


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
