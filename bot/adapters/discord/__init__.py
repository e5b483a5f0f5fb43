"""The Discord bot: how it connects, registers its commands, and stops."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import discord
import yarl
from discord import app_commands

from bot.adapters.discord.commands import Translator, add_commands
from bot.adapters.discord.session import Answers, Session
from bot.logs import where
from bot.settings import DiscordSettings
from bot.wording import Wording
from engine.errors import BadToken, SetupProblem

__all__ = ["DiscordAdapter"]

log = logging.getLogger(__name__)

REFUSED = "Discord refuses the token: copy it again from the developer pages into discord.token"
LONGEST_PAUSE_S = 60.0
# Close codes of https://docs.discord.com/developers/topics/opcodes-and-status-codes (Gateway).
BAD_TOKEN_CODE = 4004
SHARDING_REQUIRED_CODE = 4011


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
        conversation: Answers,
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
        self._cache_folder = cache_folder
        self._wording = wording or Wording.load()
        self._grace_s = grace_s
        self._first_pause_s = first_pause_s

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until ``stop`` is set; then what is in work is finished or its sender told.

        A network failure is retried for ever, at the very first connection too; discord.py
        itself retries only what broke after that.

        Raises:
            BadToken: If Discord refuses the token.
            SetupProblem: If Discord refuses the bot's settings.
        """
        self._point_library()
        pause_s = self._first_pause_s
        while not stop.is_set():
            client = _client(self._settings, self._serve_client)
            was_ready = asyncio.Event()
            client.add_ready_mark(was_ready)
            try:
                await self._connect_once(client, stop)
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
            if was_ready.is_set():
                pause_s = self._first_pause_s
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause_s * random.uniform(0.75, 1.25))  # noqa: S311
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _connect_once(self, client: _AnyClient, stop: asyncio.Event) -> None:
        """Serves until ``stop`` is set or the connection can't be kept."""
        assert self._settings.token is not None
        async with _closing(client):
            stopping = asyncio.create_task(stop.wait())
            token = self._settings.token.get_secret_value()
            serving = asyncio.create_task(client.start(token, reconnect=True))
            try:
                await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
                if serving.done():
                    serving.result()
                elif client.session is not None:
                    await client.session.finish(self._grace_s)
            finally:
                for task in (stopping, serving):
                    task.cancel()
                await asyncio.gather(stopping, serving, return_exceptions=True)

    async def _serve_client(self, client: _AnyClient) -> None:
        """Called by discord.py between logging in and connecting."""
        session = Session(client, self._conversation, wording=self._wording)
        client.session = session
        tree = app_commands.CommandTree(
            client,
            allowed_contexts=app_commands.AppCommandContext(
                guild=True, dm_channel=True, private_channel=True
            ),
            allowed_installs=app_commands.AppInstallationType(guild=True, user=True),
        )
        tree.on_error = session.on_tree_error  # type: ignore[method-assign] # as documented
        await tree.set_translator(Translator(self._wording))
        add_commands(tree, session, self._wording)
        # Never awaited here: waiting inside setup_hook would delay or block the connection.
        session.keep(asyncio.create_task(self._register(tree)))

    async def _register(self, tree: app_commands.CommandTree[Any]) -> None:
        """Registers the commands if they changed since the last time; tries until it works."""
        digest = await _digest(tree)
        note = self._cache_folder / "discord-commands.json" if self._cache_folder else None
        if note is not None and _noted(note) == digest:
            return
        pause_s = self._first_pause_s
        while True:
            try:
                await tree.sync()
            except (discord.HTTPException, aiohttp.ClientError, OSError, TimeoutError) as problem:
                log.warning("discord: commands not registered", extra={"fault": where(problem)})
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            break
        log.info("discord: commands registered")
        if note is not None:
            with suppress(OSError):
                note.parent.mkdir(parents=True, exist_ok=True)
                draft = note.with_suffix(".part")
                draft.write_text(json.dumps({"sha256": digest}), encoding="utf-8")
                draft.replace(note)

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
    _at_login: Any
    _connected: asyncio.Event | None = None

    def add_ready_mark(self, ready: asyncio.Event) -> None:
        self._connected = ready

    async def setup_hook(self) -> None:
        await self._at_login(self)

    async def on_ready(self) -> None:
        if self._connected:
            self._connected.set()
        log.info("discord: connected")

    async def on_message(self, message: discord.Message) -> None:
        if self.session:
            await self.session.hear(message)

    async def on_interaction(self, interaction: discord.Interaction[Any]) -> None:
        if self.session and interaction.type is discord.InteractionType.component:
            await self.session.press(interaction)

    async def on_error(self, event: str, *_: Any, **__: Any) -> None:
        log.error("discord: fault", extra={"where": event})


class _Client(_Events, discord.Client):
    """One connection."""


class _ShardedClient(_Events, discord.AutoShardedClient):
    """As many connections as Discord asks for."""


_AnyClient = _Client | _ShardedClient


def _client(settings: DiscordSettings, serve: Any) -> _AnyClient:
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
    client._at_login = serve  # noqa: SLF001 - the constructor belongs to discord.py
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


def _noted(note: Path) -> str | None:
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found.get("sha256") if isinstance(found, dict) else None
