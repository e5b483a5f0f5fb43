"""The Discord bot: how it connects, which commands it registers, and how it stops."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import discord
import yarl
from discord import app_commands

from bot.adapters import backoff_s, or_stop, retry
from bot.adapters.discord.sender import FAILURES
from bot.adapters.discord.session import AnyInteraction, Session, attachment, avatar, pictures
from bot.conversation import COMMANDS
from bot.logs import where
from bot.settings import DiscordSettings
from bot.text import FALLBACK, LANGUAGES, Wording
from bot.values import MOST_MATCHES, STYLES
from engine.errors import BadToken, SetupProblem

if TYPE_CHECKING:
    from bot.conversation import Conversation


log = logging.getLogger(__name__)

REFUSED = "Discord refuses the token: copy it again from the developer pages into discord.token"
LONGEST_PAUSE_S = 60.0
# Close codes of https://docs.discord.com/developers/topics/opcodes-and-status-codes (Gateway).
BAD_TOKEN_CODE = 4004
SHARDING_REQUIRED_CODE = 4011

DESCRIPTION_CHARS = 100
# Slash command -> its options, in the order in which a message would name them. Photos are
# required, except of those commands that do something without one.
OPTIONS: dict[str, tuple[str, ...]] = {
    "lookalike": ("photo", "top", "model", "category"),
    "compare": ("first", "second"),
    "morph": ("photo", "model", "category"),
    "parents": ("photo", "model", "category"),
    "twins": ("name", "photo"),
    "top": ("number", "photo"),
    "model": ("name",),
    "category": ("name",),
    "style": ("name", "photo"),
}
OPTIONAL_PHOTO = frozenset({"twins", "top", "style"})
# Option -> the wording key of its description, and its type where that is not text.
DESCRIPTIONS = {
    "photo": "discord.photo",
    "first": "discord.first",
    "second": "discord.second",
    "top": "command.top.description",
    "number": "command.top.description",
    "model": "command.model.description",
    "category": "command.category.description",
    "name": "discord.choice",
}
TYPES: dict[str, Any] = {
    **dict.fromkeys(("photo", "first", "second"), discord.Attachment),
    **dict.fromkeys(("top", "number"), app_commands.Range[int, 1, MOST_MATCHES]),
}
CHOICES = {
    command: [app_commands.Choice(name=choice, value=choice) for choice in choices]
    for command, choices in (("style", STYLES), ("twins", ("on", "off")))
}


class DiscordAdapter:
    """Discord, over its gateway.

    Args:
        conversation: Answers.
        settings: With a token.
        cache_folder: Where it is noted which commands were registered last.
        wording: The sentences said by the adapter itself, and the menus'.
        grace_s: How long unanswered requests are waited for when the program stops.
        first_pause_s: Before a failed connection is tried again; doubled each time.
    """

    name = "discord"

    def __init__(
        self,
        conversation: Conversation,
        settings: DiscordSettings,
        *,
        cache_folder: Path | None = None,
        wording: Wording | None = None,
        grace_s: float = 4.5,
        first_pause_s: float = 1.0,
    ) -> None:
        logging.getLogger("discord").setLevel(logging.WARNING)
        # A bot that never speaks need not be told what speaking takes.
        discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
        self._conversation = conversation
        self._settings = settings
        self._note = cache_folder / "discord-commands.json" if cache_folder else None
        self._wording = wording or Wording.load()
        self._grace_s = grace_s
        self._first_pause_s = first_pause_s

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until ``stop`` is set; then what is in flight is finished or its sender told.

        A network failure is retried for ever, at the very first connection too; discord.py
        itself retries only what broke after that.

        Raises:
            BadToken: If Discord refuses the token.
            SetupProblem: If Discord refuses the bot's settings.
        """
        self._point_library()
        failures = 0
        while not stop.is_set():
            client = _client(self._settings, self._set_up)
            try:
                await self._serve(client, stop)
            except discord.LoginFailure:
                raise BadToken(REFUSED) from None
            except discord.PrivilegedIntentsRequired:
                raise SetupProblem("Discord refuses the bot's intents") from None
            except discord.ConnectionClosed as closed:
                _raise_if_final(closed)
                log.warning("discord: connection lost", extra={"code": closed.code})
            except Exception as problem:  # noqa: BLE001 - see below
                # The first handshake fails in discord.py 2.7 with whatever its own handler
                # stumbles over (AttributeError); every failure here is one to connect.
                log.warning("discord: not connected", extra={"fault": where(problem)})
            failures = 1 if client.was_ready else failures + 1
            pause_s = backoff_s(failures, self._first_pause_s, LONGEST_PAUSE_S)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause_s * random.uniform(0.75, 1.25))  # noqa: S311

    async def _serve(self, client: _AnyClient, stop: asyncio.Event) -> None:
        """Serves until ``stop`` is set or the connection can't be kept."""
        assert self._settings.token is not None
        async with _closing(client):
            token = self._settings.token.get_secret_value()
            serving = asyncio.create_task(client.start(token, reconnect=True))
            try:
                await or_stop(asyncio.shield(serving), stop)
                if client.session:
                    await client.session.finish(self._grace_s)
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)

    async def _set_up(self, client: _AnyClient) -> None:
        """Called by discord.py between logging in and connecting."""
        session = client.session = Session(client, self._conversation, wording=self._wording)
        tree = app_commands.CommandTree(
            client,
            allowed_contexts=app_commands.AppCommandContext(
                guild=True, dm_channel=True, private_channel=True
            ),
            allowed_installs=app_commands.AppInstallationType(guild=True, user=True),
        )
        tree.on_error = _on_tree_error  # type: ignore[method-assign] # as documented
        await tree.set_translator(_Translator(self._wording))
        _add_commands(tree, session, self._wording)
        # Never awaited here: waiting inside setup_hook would delay or block the connection.
        session.keep(self._register(tree))

    async def _register(self, tree: app_commands.CommandTree[Any]) -> None:
        """Registers the commands if they changed since the last time; tries until it works."""
        digest = await _digest(tree)
        if _noted(self._note) == digest:
            return

        def pause_s(problem: Exception, failures: int) -> float | None:
            if not isinstance(problem, FAILURES):
                return None
            log.warning("discord: commands not registered", extra={"fault": where(problem)})
            return backoff_s(failures, self._first_pause_s, LONGEST_PAUSE_S)

        await retry(tree.sync, pause_s)
        log.info("discord: commands registered")
        if self._note is not None:
            with suppress(OSError):
                self._note.parent.mkdir(parents=True, exist_ok=True)
                draft = self._note.with_suffix(".part")
                draft.write_text(json.dumps({"sha256": digest}), encoding="utf-8")
                draft.replace(self._note)

    def _point_library(self) -> None:
        """discord.py keeps its addresses in class attributes; they are set before a client is."""
        if self._settings.api_url:
            discord.http.Route.BASE = self._settings.api_url.rstrip("/")
        if self._settings.gateway_url:
            gateway = yarl.URL(self._settings.gateway_url)
            discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = gateway
        if self._settings.cdn_url:
            discord.Asset.BASE = self._settings.cdn_url.rstrip("/")


class _Events:
    """What both kinds of client do with events."""

    session: Session | None = None
    set_up: Callable[[Any], Awaitable[None]]
    was_ready = False

    async def setup_hook(self) -> None:
        await self.set_up(self)

    async def on_ready(self) -> None:
        self.was_ready = True
        log.info("discord: connected")

    async def on_message(self, message: discord.Message) -> None:
        if self.session:
            await self.session.hear(message)

    async def on_interaction(self, interaction: AnyInteraction) -> None:
        if self.session and interaction.type is discord.InteractionType.component:
            await self.session.press(interaction)

    async def on_error(self, event: str, *_: Any, **__: Any) -> None:
        log.error("discord: fault", extra={"where": event})


class _Client(_Events, discord.Client):
    """One connection."""


class _ShardedClient(_Events, discord.AutoShardedClient):
    """As many connections as Discord asks for."""


_AnyClient = _Client | _ShardedClient


def _client(settings: DiscordSettings, set_up: Callable[[Any], Awaitable[None]]) -> _AnyClient:
    kind = _ShardedClient if settings.sharded else _Client
    # No privileged intent: slash commands, menus, direct messages and mentions need none.
    intents = discord.Intents.none()
    intents.guilds = intents.guild_messages = intents.dm_messages = True
    client = kind(
        intents=intents,
        allowed_mentions=discord.AllowedMentions.none(),
        max_messages=None,
        member_cache_flags=discord.MemberCacheFlags.none(),
        chunk_guilds_at_startup=False,
    )
    client.set_up = set_up
    return client


@asynccontextmanager
async def _closing(client: discord.Client) -> AsyncIterator[None]:
    try:
        yield
    finally:
        # discord.py waits 2 s for servers after connecting, and leaves that task behind.
        state: Any = client._connection  # noqa: SLF001
        for waiting in (state._ready_task, *getattr(state, "_ready_tasks", {}).values()):  # noqa: SLF001
            if waiting is not None:
                waiting.cancel()
        with suppress(Exception):
            await asyncio.wait_for(client.close(), 5)
        await asyncio.sleep(0)  # events that were on their way begin, and end, before the loop does


def _raise_if_final(closed: discord.ConnectionClosed) -> None:
    if closed.code == BAD_TOKEN_CODE:
        raise BadToken(REFUSED) from None
    if closed.code == SHARDING_REQUIRED_CODE:
        raise SetupProblem("the bot is in too many servers: set discord.sharded = true") from None


class _Translator(app_commands.Translator):
    """Tells Discord the menus' words in the languages that the bot speaks."""

    def __init__(self, wording: Wording) -> None:
        self._wording = wording

    async def translate(
        self,
        string: app_commands.locale_str,
        locale: discord.Locale,
        context: app_commands.TranslationContextTypes,  # noqa: ARG002 - discord.py's signature
    ) -> str | None:
        """The words in that language; None where the bot does not speak it."""
        key = string.extras.get("key")
        language = locale.value.partition("-")[0]
        if key is None or language not in LANGUAGES or language == FALLBACK:
            return None
        return self._wording.text(key, language)[:DESCRIPTION_CHARS]


def _add_commands(tree: app_commands.CommandTree[Any], session: Session, wording: Wording) -> None:
    """Fills the tree: every chat command, a menu of messages and one of people."""

    async def of_message(interaction: AnyInteraction, message: discord.Message) -> None:
        await session.ask(interaction, "lookalike", "", pictures(message, asker=interaction.user))

    async def of_user(interaction: AnyInteraction, user: discord.User) -> None:
        await session.ask(interaction, "lookalike", "", [avatar(user)])

    for name in COMMANDS:
        description = _words(wording, f"command.{name}.description")
        callback = _callback(session, name, wording)
        tree.add_command(
            app_commands.Command(name=name, description=description, callback=callback)
        )
    for key, menu in (("discord.message_menu", of_message), ("discord.user_menu", of_user)):
        tree.add_command(app_commands.ContextMenu(name=_words(wording, key), callback=menu))


def _words(wording: Wording, key: str) -> app_commands.locale_str:
    return app_commands.locale_str(wording.text(key)[:DESCRIPTION_CHARS], key=key)


def _callback(session: Session, command: str, wording: Wording) -> Any:
    """What discord.py calls for a slash command; it reads the options from the signature."""
    options = OPTIONS.get(command, ())

    async def call(interaction: AnyInteraction, **given: Any) -> None:
        values = [given[option] for option in options if given.get(option) is not None]
        files = [value for value in values if isinstance(value, discord.Attachment)]
        words = [str(value) for value in values if not isinstance(value, discord.Attachment)]
        photos = [attachment(file, own=True) for file in files]
        await session.ask(interaction, command, " ".join(words), photos)

    def completion(subject: str) -> Any:
        async def complete(
            interaction: AnyInteraction, typed: str
        ) -> list[app_commands.Choice[str]]:
            return await session.choices(interaction, subject, typed)

        return complete

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter("interaction", kind, annotation=AnyInteraction)]
    for option in options:
        of_type = TYPES.get(option, str)
        required = of_type is discord.Attachment and command not in OPTIONAL_PHOTO
        default = inspect.Parameter.empty if required else None
        annotation = of_type if required else of_type | None
        parameters.append(inspect.Parameter(option, kind, annotation=annotation, default=default))
        app_commands.describe(**{option: _words(wording, DESCRIPTIONS[option])})(call)
        subject = command if option == "name" else option
        if subject in CHOICES:
            app_commands.choices(**{option: CHOICES[subject]})(call)
        elif subject in ("model", "category"):
            app_commands.autocomplete(**{option: completion(subject)})(call)
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


async def _on_tree_error(_: AnyInteraction, error: app_commands.AppCommandError) -> None:
    """What discord.py could not match to a command: an old client's menu."""
    log.warning("discord: command not understood", extra={"fault": where(error)})


async def _digest(tree: app_commands.CommandTree[Any]) -> str:
    """SHA-256 of the commands as they would be registered."""
    commands = [
        await command.get_translated_payload(tree, tree.translator)
        if tree.translator
        else command.to_dict(tree)
        for command in tree._get_all_commands()  # noqa: SLF001 - get_commands leaves out menus
    ]
    payload = json.dumps([*commands, str(discord.http.Route.BASE)], sort_keys=True, default=str)
    return hashlib.sha256(payload.encode()).hexdigest()


def _noted(note: Path | None) -> str | None:
    try:
        found = json.loads(note.read_text(encoding="utf-8")) if note else None
    except (OSError, ValueError):
        return None
    return found.get("sha256") if isinstance(found, dict) else None
