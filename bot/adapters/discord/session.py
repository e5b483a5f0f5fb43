"""What happens between an interaction or a message and its answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import discord
from discord import app_commands

from bot.adapters.discord.photos import Held, attachment_of, avatar_of, pictures_of
from bot.adapters.discord.sender import LIMITS, Courier
from bot.commands import CHAT_COMMANDS, PRIVATE
from bot.logs import where
from bot.values import Attachment, Choices, Limits, Reply, Request, Sender
from bot.wording import Wording

__all__ = ["Answers", "Session"]

log = logging.getLogger(__name__)

TYPING_EVERY_S = 8.0  # the sign is shown for 10 s (docs: Trigger Typing Indicator)
EXCUSE_S = 1.5
MOST_CHOICES = 25
AnyInteraction = discord.Interaction[Any]


class Answers(Protocol):
    """What answers: ``bot.conversation.Conversation``."""

    async def answer(self, request: Request, limits: Limits) -> Reply:
        """The reply to a request, within the limits; raises nothing."""

    async def choices(self, sender: Sender) -> Choices:
        """What the sender could choose."""


class Session:
    """Answers interactions and messages; any number of them at once.

    Args:
        client: Connected, or about to be.
        conversation: Answers.
        wording: What is said when an answer can't be waited for.
    """

    def __init__(self, client: discord.Client, conversation: Answers, *, wording: Wording) -> None:
        self._client = client
        self._conversation = conversation
        self._wording = wording
        self._courier = Courier()
        self._works: dict[asyncio.Task[Any], Any] = {}
        self._kept: set[asyncio.Task[Any]] = set()
        self._closing = False

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Holds a background task until it ends; it is cancelled with the session."""
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)

    async def finish(self, grace_s: float) -> None:
        """Waits for what is in work; who still has no answer then is asked to try again."""
        if self._works:
            await asyncio.wait(set(self._works), timeout=grace_s)
        self._closing = True
        unanswered = dict(self._works)
        for task in (*unanswered, *self._kept):
            task.cancel()
        await asyncio.gather(*unanswered, *self._kept, return_exceptions=True)
        excuses = (self._excuse(origin) for origin in unanswered.values())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*excuses, return_exceptions=True), EXCUSE_S)

    async def ask(
        self,
        interaction: AnyInteraction,
        command: str,
        arguments: str = "",
        *,
        photos: Sequence[discord.Attachment | Attachment] = (),
    ) -> None:
        """Answers a slash command or a menu: defers at once, then edits that first response."""
        if self._closing:
            return
        private = command in PRIVATE
        async with self._work(interaction, "command"):
            if not await _acknowledged(
                interaction.response.defer(thinking=True, ephemeral=private)
            ):
                return
            attachments = tuple(
                replace(attachment_of(photo), own=True)
                if isinstance(photo, discord.Attachment)
                else photo
                for photo in photos
            )
            request = Request(_sender(interaction), command, arguments.strip(), attachments)
            reply = await self._conversation.answer(request, _limits(interaction))
            await self._courier.respond(interaction, reply)

    async def press(self, interaction: AnyInteraction) -> None:
        """Answers a pressed button or a chosen option, also of a message sent before a restart."""
        if self._closing:
            return
        action = _action(interaction)
        if action is None:
            return
        async with self._work(interaction, "button"):
            if not await _acknowledged(interaction.response.defer()):
                return
            photos = Held.of_answer(interaction.message) if interaction.message else ()
            request = Request(_sender(interaction), photos=photos, action=action)
            reply = await self._conversation.answer(request, _limits(interaction))
            if reply.replaces:
                await self._courier.respond(interaction, reply)
            else:
                await self._courier.follow_up(interaction, reply)

    async def hear(self, message: discord.Message) -> None:
        """Answers a direct message, or one that mentions the bot; passes over all others."""
        if self._closing or message.author.bot or self._client.user is None:
            return
        group = message.guild is not None or isinstance(message.channel, discord.GroupChannel)
        me = self._client.user.id
        if group and me not in {user.id for user in message.mentions}:
            return
        text = message.content
        for mention in (f"<@{me}>", f"<@!{me}>"):
            text = text.replace(mention, " ")
        command, arguments = _command(text)
        locale = message.guild.preferred_locale.value if message.guild else None
        sender = Sender(
            "discord",
            user_id=str(message.author.id),
            chat_id=str(message.channel.id),
            language=locale,
            is_group=group,
            name=message.author.display_name,
        )
        async with self._work(message, "message"), self._typing(message.channel):
            photos = await self._meant(message, command)
            request = Request(sender, command, arguments, photos)
            reply = await self._conversation.answer(request, LIMITS)
            await self._courier.reply(message, reply)

    async def models(self, interaction: AnyInteraction, typed: str) -> list[tuple[str, str]]:
        """Names and labels of the models there are that contain what was typed."""
        choices = await self._conversation.choices(_sender(interaction))
        labels = {one.name: f"{one.name}: {one.title} ({one.state})" for one in choices.models}
        found = [one for one in labels.items() if typed.casefold() in one[1].casefold()]
        return found[:MOST_CHOICES]

    async def categories(self, interaction: AnyInteraction, typed: str) -> list[str]:
        """Categories that contain what was typed."""
        choices = await self._conversation.choices(_sender(interaction))
        names = ["all", *choices.categories]
        return [name for name in names if typed.casefold() in name.casefold()][:MOST_CHOICES]

    def pictures(
        self, interaction: AnyInteraction, message: discord.Message
    ) -> tuple[Attachment, ...]:
        """The pictures in a message that a menu was opened on."""
        return pictures_of(message, asker=interaction.user)

    def avatar(self, user: discord.User | discord.Member) -> Attachment:
        """The picture by which a person is shown."""
        return avatar_of(user)

    async def on_tree_error(
        self,
        interaction: AnyInteraction,  # noqa: ARG002 - discord.py's signature
        error: app_commands.AppCommandError,
    ) -> None:
        """What discord.py could not match to a command: an old client's menu."""
        log.warning("discord: command not understood", extra={"fault": where(error)})

    async def _meant(self, message: discord.Message, command: str | None) -> tuple[Attachment, ...]:
        """The photos of the message, of the one it replies to, or both for a comparison."""
        own = pictures_of(message, asker=message.author)
        if own and command != "compare":
            return own
        return (*await Held.of_reply(message), *own)

    @contextlib.asynccontextmanager
    async def _work(self, origin: Any, kind: str) -> AsyncIterator[None]:
        """Remembers who waits; one that fails must not end the others."""
        task = asyncio.current_task()
        assert task is not None
        self._works[task] = origin
        try:
            yield
        except Exception as problem:  # noqa: BLE001 - its message may quote what must not be shown
            log.error("discord: fault", extra={"kind": kind, "fault": where(problem)})  # noqa: TRY400
            await self._tell(origin, "error.internal")
        finally:
            del self._works[task]

    async def _excuse(self, origin: AnyInteraction | discord.Message) -> None:
        await self._tell(origin, "error.try_later")

    async def _tell(self, origin: AnyInteraction | discord.Message, key: str) -> None:
        with contextlib.suppress(discord.HTTPException, OSError):
            if isinstance(origin, discord.Interaction):
                sentence = self._wording.text(key, origin.locale.value)
                if origin.type is discord.InteractionType.component:
                    await self._courier.follow_up(origin, Reply(sentence, private=True))
                else:
                    await self._courier.respond(origin, Reply(sentence))
            else:
                locale = origin.guild.preferred_locale.value if origin.guild else None
                await self._courier.reply(origin, Reply(self._wording.text(key, locale)))

    @contextlib.asynccontextmanager
    async def _typing(self, channel: discord.abc.Messageable) -> AsyncIterator[None]:
        """Shows that an answer is being written; that it can't be shown hinders nothing."""

        async def sign() -> None:
            while True:
                with contextlib.suppress(discord.HTTPException, OSError):
                    await channel.typing()
                await asyncio.sleep(TYPING_EVERY_S)

        task = asyncio.create_task(sign())
        try:
            yield
        finally:
            task.cancel()


def _sender(interaction: AnyInteraction) -> Sender:
    alone = interaction.guild_id is None and not interaction.context.private_channel
    return Sender(
        "discord",
        user_id=str(interaction.user.id),
        chat_id=str(interaction.channel_id or interaction.user.id),
        language=interaction.locale.value,
        is_group=not alone,
        name=interaction.user.display_name,
    )


def _limits(interaction: AnyInteraction) -> Limits:
    largest = min(interaction.filesize_limit, LIMITS.picture_bytes)
    if largest == LIMITS.picture_bytes:
        return LIMITS
    return Limits(
        text_chars=LIMITS.text_chars,
        caption_chars=LIMITS.caption_chars,
        picture_bytes=largest,
        document_bytes=largest,
        animation_bytes=largest,
        action_bytes=LIMITS.action_bytes,
        label_chars=LIMITS.label_chars,
        whispers=True,
    )


def _action(interaction: AnyInteraction) -> str | None:
    """What the pressed button carries, or the chosen option."""
    data: Any = interaction.data or {}
    values = data.get("values")
    if values:
        return str(values[0])
    custom_id = data.get("custom_id")
    return str(custom_id) if custom_id else None


def _command(text: str) -> tuple[str | None, str]:
    """The command in what was written, with or without slash, and what follows it."""
    first, _, rest = text.strip().partition(" ")
    name = first.lstrip("/!").lower()
    if name in CHAT_COMMANDS or first.startswith("/"):
        return name, rest.strip()
    return None, text.strip()


async def _acknowledged(acknowledgement: Awaitable[object]) -> bool:
    """Whether Discord still waits for an answer to the interaction."""
    try:
        await acknowledgement
    except discord.NotFound:
        log.warning("discord: an interaction had expired")
        return False
    return True
