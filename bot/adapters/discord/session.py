"""Answers Discord interactions and messages: what they ask, and how the answer goes back."""

import asyncio
import contextlib
import logging
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import discord
from discord import app_commands

from bot.adapters import (
    DONE,
    MOST_TRIES,
    NO_PICTURE,
    InFlight,
    Recovery,
    claimed,
    fetch,
    is_picture,
    only_pictures,
    retry,
)
from bot.adapters.discord import sender
from bot.adapters.discord.sender import FAILURES, LIMITS
from bot.conversation import COMMANDS, PRIVATE, Conversation
from bot.values import Attachment, Reply, Request, Sender, photo_number
from engine.errors import LookalikeError

log = logging.getLogger(__name__)

TYPING_EVERY_S = 8.0  # the sign is shown for 10 s (docs: Trigger Typing Indicator)
MOST_CHOICES, CHOICE_CHARS = 25, 100
MOST_PLACES = 100  # channels that are looked at after a lost connection
MOST_MISSED = 100  # messages that are looked at in a channel for what was asked meanwhile
# How long an answer to an interaction is taken (docs: Receiving and Responding, Followup Messages).
TOKEN_LIVES_S = 15 * 60
# Turns of the event loop after which who is refused at once is: without a call of the network.
REFUSED_WITHIN = 8
LASTING = (discord.NotFound, discord.Forbidden)
AnyInteraction = discord.Interaction[Any]


class Session(discord.Client):
    """One connection, and answers to interactions and messages; any number of them at once.

    ``set_up`` is called between logging in and connecting.
    """

    was_ready = reached = False  # whether Discord takes the connection: ever, and now

    def __init__(
        self,
        conversation: Conversation,
        set_up: Callable[["Session"], Awaitable[None]],
        **shards: Any,
    ) -> None:
        # No privileged intent: slash commands, menus, direct messages and mentions need none.
        intents = discord.Intents.none()
        intents.guilds = intents.guild_messages = intents.dm_messages = True
        super().__init__(
            intents=intents,
            allowed_mentions=discord.AllowedMentions.none(),
            max_messages=None,
            member_cache_flags=discord.MemberCacheFlags.none(),
            chunk_guilds_at_startup=False,
            **shards,
        )
        self._conversation, self._set_up = conversation, set_up
        self._in_flight = InFlight(self._tell)
        self._claimed = partial(claimed, conversation.memory, "discord")
        # Messages that are being answered, by channel
        self._in_work: defaultdict[str, set[int]] = defaultdict(set)
        # Bookmarks of when messages were last heard; what an earlier program left unanswered.
        self._left_off, self._unanswered = dict[str, int](), dict[str, Any]()
        self._attempts = 0  # to connect again
        self._bookmarks: dict[str, int] = {}  # up to which message of a channel all are answered
        self._recovery = Recovery[discord.Message](self._begin)
        self.keep = self._in_flight.keep  # runs something as long as the session lasts
        self.finish = self._in_flight.finish  # to be called at the end

    async def setup_hook(self) -> None:
        """Called by discord.py, as what follows."""
        with contextlib.suppress(LookalikeError):
            self._unanswered = await self._conversation.store.kept("discord asked")
            self._bookmarks = await self._conversation.store.kept("discord")
        self._left_off = dict(self._bookmarks)
        await self._set_up(self)

    async def on_disconnect(self) -> None:
        """Notes up to where messages were heard; called again at each attempt that fails."""
        self._attempts = 1 if self.reached else self._attempts + 1
        if self._attempts == 2 or self._attempts % 50 == 0:
            log.warning("discord: connection lost; trying again")
        self.reached = False
        self._left_off = self._bookmarks | self._left_off

    async def on_connect(self) -> None:
        """Notes that Discord takes the connection; what servers there are follows."""
        self.reached = True

    async def on_resumed(self) -> None:
        """Discord sends what was written meanwhile."""
        self._left_off, self.reached = {}, True

    async def on_ready(self) -> None:
        """Answers what was asked meanwhile."""
        log.info("discord: connected")
        page = f"https://discord.com/oauth2/authorize?client_id={self.application_id}"
        self.keep(self._conversation.filling.introduce(page))
        places, self._left_off = self._left_off, {}
        self.keep(self._catch_up(places, first=not self.was_ready))
        self.was_ready = True

    async def _catch_up(self, places: dict[str, int], *, first: bool) -> None:
        for number, kept in self._unanswered.items() if first else ():
            age = discord.utils.utcnow() - discord.utils.snowflake_time(int(number))
            if kept and "token" in kept and age.total_seconds() < TOKEN_LIVES_S:
                payload = kept | {"id": number, "version": 1, "attachment_size_limit": 0}
                interaction = AnyInteraction(data=payload, state=self._connection)
                self.keep(self._tell_lost(interaction))
        await asyncio.gather(*(self._look_back(*one) for one in places.items()))
        if first:
            await self._recovery.run()

    async def _tell_lost(self, interaction: AnyInteraction) -> None:
        async with self._claimed(str(interaction.id), waits=True) as was_lost:
            if was_lost:
                await self._tell(interaction, "error.try_later")

    async def _look_back(self, place: str, answered: int) -> None:
        """Puts in line what stands in a channel since then, and that the bot did not reply to."""
        guild_id, channel_id = map(int, place.split("/"))
        channel = self.get_partial_messageable(channel_id, guild_id=guild_id or None)
        since = discord.Object(answered)
        with contextlib.suppress(*FAILURES, *sender.GARBAGE):  # as where the bot may not read
            found = [one async for one in channel.history(limit=MOST_MISSED, after=since)]
            mine = [one.reference for one in found if self._by_me(one)]
            replies = {reference.message_id for reference in mine if reference}
            for message in found:
                kept = self._unanswered.get(str(message.id), {"tries": 0})
                state = await self._conversation.memory.get(("discord", str(message.id)))
                known = message.id in replies or state == DONE
                if kept and not known and self._is_asked(message):
                    self._recovery.add(message.id, message, kept["tries"])

    async def _begin(self, number: int, message: discord.Message, tries: int) -> None:
        async def answer() -> None:
            if tries < MOST_TRIES:
                await self.on_message(message, waits=True)
            else:
                log.error("discord: a message is given up: the program ended each time")
                await self._tell(message, "error.internal")
            self._recovery.ended(number)
            await self._note(number, None)

        await self._note(number, {"tries": tries + 1} if tries < MOST_TRIES else None)
        self.keep(answer())

    async def _note(self, number: int, kept: object) -> None:
        """Lets the store keep what is to be known, if this program is killed, of what is asked."""
        with contextlib.suppress(LookalikeError):
            await self._conversation.store.keep("discord asked", str(number), kept)

    @contextlib.asynccontextmanager
    async def _noted(self, interaction: AnyInteraction) -> AsyncIterator[None]:
        """What the asker is told by the next program, if this one does not end the block."""
        kept: dict[str, Any] = {"token": interaction.token, "locale": interaction.locale.value}
        kept |= {"type": interaction.type.value, "application_id": interaction.application_id}
        noting = asyncio.ensure_future(self._note(interaction.id, kept))
        yield
        await noting
        await self._note(interaction.id, None)

    def _by_me(self, message: discord.Message) -> bool:
        return self.user is not None and message.author.id == self.user.id

    @contextlib.asynccontextmanager
    async def _bookmarked(self, message: discord.Message) -> AsyncIterator[None]:
        """Notes up to which message of the channel all are answered."""
        place = f"{message.guild.id if message.guild else 0}/{message.channel.id}"
        in_work = self._in_work[place]

        async def note() -> None:
            answered = min(in_work, default=message.id + 1) - 1
            self._bookmarks.pop(place, None)
            self._bookmarks[place] = answered
            if len(self._bookmarks) > MOST_PLACES:
                del self._bookmarks[next(iter(self._bookmarks))]
            with contextlib.suppress(LookalikeError):
                await self._conversation.store.keep("discord", place, answered)

        in_work.add(message.id)
        self.keep(note())
        try:
            yield
        finally:
            in_work.discard(message.id)
            if not in_work:
                self._in_work.pop(place, None)
            await note()

    async def on_error(self, event_method: str, /, *_: Any, **__: Any) -> None:
        """Logs where, and quotes nothing."""
        log.error("discord: fault", extra={"where": event_method})

    async def ask(
        self, interaction: AnyInteraction, command: str, words: str, photos: Sequence[Attachment]
    ) -> None:
        """Answers a slash command or menu: defers at once, then edits that first response."""
        request = Request(_asker(interaction), command, words, tuple(photos))
        await self._answer(interaction, request, thinking=True, ephemeral=command in PRIVATE)

    async def on_interaction(self, interaction: AnyInteraction) -> None:
        """Answers a pressed button, also of a message sent before a restart."""
        data: Any = interaction.data or {}
        action = data.get("custom_id")
        if interaction.type is discord.InteractionType.component and action:
            await self._answer(interaction, Request(_asker(interaction), action=str(action)))

    async def _answer(
        self, interaction: AnyInteraction, request: Request, **deferral: bool
    ) -> None:
        if self._in_flight.closing:
            text = self._conversation.wording.text("error.try_later", interaction.locale.value)
            with contextlib.suppress(*FAILURES, *sender.GARBAGE):
                await interaction.response.send_message(text, ephemeral=True)
            return
        async with self._claimed(str(interaction.id)) as is_mine:
            if is_mine:
                await self._answer_claimed(interaction, request, deferral)

    async def _answer_claimed(
        self, interaction: AnyInteraction, request: Request, deferral: dict[str, bool]
    ) -> None:
        aloud = not request.action and request.command not in PRIVATE
        async with self._in_flight.answering(interaction):
            answering = asyncio.ensure_future(self._reply(interaction, request))
            try:
                for _ in range(REFUSED_WITHIN):
                    await asyncio.sleep(0)
                if answering.done() and aloud and answering.result().private:
                    await sender.refuse(interaction, answering.result())
                    return
                async with self._noted(interaction):
                    try:
                        with contextlib.suppress(*sender.GARBAGE):
                            await interaction.response.defer(**deferral)
                    except discord.NotFound:
                        log.warning("discord: an interaction had expired")
                        return
                    reply, deliver = await answering, sender.respond
                    if request.action and not reply.replaces:
                        deliver = sender.follow_up
                    elif aloud and reply.private:
                        deliver = sender.whisper
                    await self._in_flight.send(deliver(interaction, reply))
            finally:
                answering.cancel()

    async def _reply(self, interaction: AnyInteraction, request: Request) -> Reply:
        most = min(interaction.filesize_limit, LIMITS.picture_bytes)
        limits = replace(LIMITS, picture_bytes=most, document_bytes=most, animation_bytes=most)
        above, action = interaction.message, request.action
        if above and action and not await self._conversation.remembers(request):
            photos = await self._sent_again(above)
            request = replace(request, photos=photos[photo_number(action) - 1 :])
        reply = await self._conversation.answer(request, limits)
        hidden = above is not None and any(file.is_spoiler() for file in above.attachments)
        return replace(reply, spoiler=True) if hidden else reply

    async def on_message(self, message: discord.Message, *, waits: bool = False) -> None:
        """Answers a direct message, or one that mentions the bot; passes over all others.

        What another process may have in work is waited for, where that is wished.
        """
        if self._in_flight.closing or not self._is_asked(message):
            return
        async with self._claimed(str(message.id), waits=waits) as is_mine:
            if is_mine:
                await self._hear(message)

    async def _hear(self, message: discord.Message) -> None:
        group = _in_group(message)
        command, words = self._understood(message)
        author, chat_id, language = message.author, str(message.channel.id), _locale(message)
        asker = Sender("discord", str(author.id), chat_id, language, group, author.display_name)
        typing = self._in_flight.repeating(message.channel.typing, TYPING_EVERY_S)
        async with self._in_flight.answering(message), typing, self._bookmarked(message):
            say = partial(self._conversation.wording.text, language=language)
            try:
                photos = await self._meant(message)
            except discord.Forbidden:
                await sender.answer_message(message, Reply(say("discord.no_history")), say)
                return
            request = Request(asker, command, words.strip(), photos)
            reply = await self._conversation.answer(request, LIMITS)
            if group and command in PRIVATE and not reply.silent:
                written = await sender.write_privately(author, reply)
                reply = Reply(say("discord.written" if written else "discord.closed"))
            await self._in_flight.send(sender.answer_message(message, reply, say))

    def _is_asked(self, message: discord.Message) -> bool:
        if message.author.bot or self.user is None:
            return False
        return not _in_group(message) or self.user.id in {user.id for user in message.mentions}

    def _understood(self, message: discord.Message) -> tuple[str | None, str]:
        """The command in a message, and the words after it; None, and all words, without one."""
        text = message.content
        if self.user:
            text = re.sub(rf"<@!?{self.user.id}>", " ", text)
        first, _, rest = text.strip().partition(" ")
        name = first.lstrip("/!").lower()
        return (name, rest) if name in COMMANDS or first.startswith("/") else (None, text)

    async def _meant(self, message: discord.Message) -> tuple[Attachment, ...]:
        """The pictures in a message, those of the one it replies to, or for /compare both.

        Raises discord.Forbidden if the bot may not read the message replied to.
        """
        photos = pictures(message, asker=message.author)
        if photos and self._understood(message)[0] != "compare":
            return photos
        replied = await _replied_to(message)
        if replied is None:
            return photos
        if not self._by_me(replied):
            return (*pictures(replied, asker=message.author), *photos)
        rows: list[Any] = list(replied.components)
        items = [item for row in rows for item in getattr(row, "children", ())]
        actions = [str(getattr(item, "custom_id", "")) for item in items]
        number = max(map(photo_number, actions), default=1)
        return (*(await self._sent_again(replied))[number - 1 :], *photos)

    async def _sent_again(self, answer: discord.Message) -> tuple[Attachment, ...]:
        """All pictures that were sent for an answer of the bot's; none if they are gone."""
        asked: discord.Message | None = answer
        with contextlib.suppress(discord.Forbidden):
            while asked and self._by_me(asked):
                asked = await _replied_to(asked)
            if asked:
                return tuple(replace(photo, own=False) for photo in await self._meant(asked))
        return ()

    async def choices(
        self, interaction: AnyInteraction, typed: str
    ) -> list[app_commands.Choice[str]]:
        """The models or categories that contain what was typed, as many as Discord shows."""
        known = await self._conversation.choices(_asker(interaction))
        shown = [(name, name) for name in ("all", *known.categories)]
        data: Any = interaction.data
        option = next((one["name"] for one in data["options"] if one.get("focused")), "")
        if "model" in {option, data["name"]}:
            shown = [(f"{one.name}: {one.title} ({one.state})", one.name) for one in known.models]
        found = [
            app_commands.Choice(name=label[:CHOICE_CHARS], value=value[:CHOICE_CHARS])
            for label, value in shown
            if typed.casefold() in label.casefold()
        ]
        return found[:MOST_CHOICES]

    async def _tell(self, origin: AnyInteraction | discord.Message, key: str) -> None:
        with contextlib.suppress(*FAILURES):
            if isinstance(origin, discord.Message):
                say = partial(self._conversation.wording.text, language=_locale(origin))
                await sender.answer_message(origin, Reply(say(key)), say)
                return
            pressed = origin.type is discord.InteractionType.component
            text = self._conversation.wording.text(key, origin.locale.value)
            deliver = sender.follow_up if pressed else sender.respond
            await deliver(origin, Reply(text, private=True))
            await self._note(origin.id, None)


class ShardedSession(Session, discord.AutoShardedClient):
    """As many connections as Discord asks for."""


def _asker(interaction: AnyInteraction) -> Sender:
    user, language = interaction.user, interaction.locale.value
    chat_id = str(interaction.channel_id or user.id)
    group = interaction.guild_id is not None or interaction.context.private_channel
    return Sender("discord", str(user.id), chat_id, language, group, user.display_name)


def _in_group(message: discord.Message) -> bool:
    return message.guild is not None or isinstance(message.channel, discord.GroupChannel)


def _locale(message: discord.Message) -> str | None:
    return message.guild.preferred_locale.value if message.guild else None


def attachment(file: discord.Attachment, *, own: bool = False) -> Attachment:
    """A file of a message or command; downloaded soon, since its address expires."""
    if not is_picture(file.content_type, file.filename):
        return NO_PICTURE
    load = partial(fetch, file.read, file.size, FAILURES, LASTING)
    return Attachment(load, own, file.is_spoiler())


def avatar(user: discord.User | discord.Member) -> Attachment:
    """The picture by which a person is shown; the first frame where it moves."""
    asset = user.display_avatar
    if not asset.key.isdecimal():  # else it is one of Discord's own, for those who chose none
        asset = asset.replace(size=1024, static_format="png", format="png")
    return Attachment(partial(fetch, asset.read, None, FAILURES, LASTING))


def pictures(
    message: discord.Message, *, asker: discord.abc.Snowflake | None = None
) -> tuple[Attachment, ...]:
    """The pictures in a message, forwarded ones too; for other files one that says it is none.

    Those that ``asker`` sent themselves are marked as their own.
    """
    snapshots = message.message_snapshots
    files = [*message.attachments, *(file for one in snapshots for file in one.attachments)]
    mine = asker is not None and asker.id == message.author.id and not snapshots
    return only_pictures([attachment(file, own=mine) for file in files])


async def _replied_to(message: discord.Message) -> discord.Message | None:
    reference = message.reference
    if reference is None or reference.message_id is None:
        return None
    if isinstance(reference.resolved, discord.Message):
        return reference.resolved
    load = partial(message.channel.fetch_message, reference.message_id)
    until = time.monotonic() + sender.PATIENCE_S
    try:
        return await retry(load, partial(sender.pause_s, again=False, until=until))
    except discord.Forbidden:
        raise
    except FAILURES:
        return None  # deleted
