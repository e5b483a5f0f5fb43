"""The Discord bot: how it connects, which commands it registers, and how it stops."""

import asyncio
import hashlib
import inspect
import json
import logging
import random
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import discord
import yarl
from discord import app_commands

from bot.adapters import Adapter, backoff_s, or_stop, retry
from bot.adapters.discord import session as sessions
from bot.adapters.discord.sender import FAILURES
from bot.adapters.discord.session import AnyInteraction, Session, ShardedSession
from bot.commands.words import SETTINGS
from bot.conversation import COMMANDS
from bot.logs import where
from bot.settings import DiscordSettings
from bot.text import FALLBACK, LANGUAGES, Wording
from bot.values import MOST_MATCHES, STYLES
from engine.errors import BadToken, SetupProblem

log = logging.getLogger(__name__)

REFUSED = "Discord refuses the token: copy it again from the developer pages into discord.token"
LONGEST_PAUSE_S = 60.0
# Close codes of https://docs.discord.com/developers/topics/opcodes-and-status-codes (Gateway)
# after which it is of no use to connect again.
FINAL_CODES: dict[int, tuple[type[SetupProblem], str]] = {
    4004: (BadToken, REFUSED),
    4011: (SetupProblem, "the bot is in too many servers: set discord.sharded = true"),
}

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
NUMBER: Any = app_commands.Range[int, 1, MOST_MATCHES]
# Option -> its type, and the wording key of its description.
KINDS: dict[str, tuple[Any, str]] = {
    "photo": (discord.Attachment, "discord.photo"),
    "first": (discord.Attachment, "discord.first"),
    "second": (discord.Attachment, "discord.second"),
    "top": (NUMBER, "command.top.description"),
    "number": (NUMBER, "command.top.description"),
    "model": (str, "command.model.description"),
    "category": (str, "command.category.description"),
    "name": (str, "discord.choice"),
}
CHOICES = {
    command: [app_commands.Choice(name=choice, value=choice) for choice in choices]
    for command, choices in (("style", STYLES), ("twins", ("on", "off")))
}


class _Backoff(discord.backoff.ExponentialBackoff[Any]):
    def delay(self) -> float:  # type: ignore[override]
        return min(float(super().delay()), LONGEST_PAUSE_S)


@dataclass
class DiscordAdapter(Adapter[DiscordSettings]):
    """Discord, over its gateway; the cache notes which commands were registered last."""

    name = "discord"
    first_pause_s: float = 1.0  # before a failed connection is tried again; doubled each time
    _session: Session | None = field(default=None, init=False)

    @property
    def connected(self) -> bool:
        """Whether the gateway is."""
        return self._session is not None and self._session.reached

    async def run(self, stop: asyncio.Event) -> None:
        """Serves; discord.py itself retries only what broke after the first connection."""
        logging.getLogger("discord").setLevel(logging.WARNING)
        for module in (discord.client, discord.shard):
            # It would log each attempt to connect, and pause for up to 17 minutes.
            logging.getLogger(module.__name__).setLevel(logging.CRITICAL)
            vars(module)["ExponentialBackoff"] = _Backoff
        # A bot that never speaks need not be told what speaking takes.
        discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
        # discord.py keeps its addresses in class attributes.
        discord.http.Route.BASE = (self.settings.api_url or discord.http.Route.BASE).rstrip("/")
        discord.Asset.BASE = (self.settings.cdn_url or discord.Asset.BASE).rstrip("/")
        if self.settings.gateway_url:
            gateway = yarl.URL(self.settings.gateway_url)
            discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = gateway
        failures = 0
        while not stop.is_set():
            shards, count = self.settings.shard_ids, self.settings.shard_count
            kind = ShardedSession if self.settings.sharded or shards else Session
            own = {"shard_ids": [*shards], "shard_count": count} if shards else {}
            self._session = session = kind(self.conversation, self._set_up, **own)
            try:
                await self._serve(session, stop)
            except discord.LoginFailure:
                raise BadToken(REFUSED) from None
            except discord.PrivilegedIntentsRequired:
                raise SetupProblem("Discord refuses the bot's intents") from None
            except discord.ConnectionClosed as closed:
                if closed.code in FINAL_CODES:
                    problem, sentence = FINAL_CODES[closed.code]
                    raise problem(sentence) from None
                log.warning("discord: connection closed", extra={"code": closed.code})
            except Exception as problem:  # noqa: BLE001 - see below
                # The first handshake fails in discord.py 2.7 with whatever its own handler
                # stumbles over (AttributeError); every failure here is one to connect.
                if failures % 50 == 0:
                    log.warning("discord: not connected", extra={"fault": where(problem)})
            finally:
                self.served |= session.was_ready
            failures = 1 if session.was_ready else failures + 1
            pause_s = backoff_s(failures, self.first_pause_s, LONGEST_PAUSE_S)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause_s * random.uniform(0.75, 1.25))  # noqa: S311

    async def _serve(self, session: Session, stop: asyncio.Event) -> None:
        token = self.settings.token.get_secret_value() if self.settings.token else ""
        serving = asyncio.create_task(session.start(token, reconnect=True))
        try:
            await or_stop(asyncio.shield(serving), stop)
        finally:
            await session.finish(self.grace_s)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            # discord.py waits 2 s for servers after connecting, and leaves that task behind.
            state: Any = session._connection  # noqa: SLF001
            for waiting in (state._ready_task, *getattr(state, "_ready_tasks", {}).values()):  # noqa: SLF001
                if waiting is not None:
                    waiting.cancel()
            with suppress(Exception):
                await asyncio.wait_for(session.close(), 5)
            await asyncio.sleep(0)  # events on their way begin, and end, before the loop does

    async def _set_up(self, session: Session) -> None:
        anywhere = app_commands.AppCommandContext(guild=True, dm_channel=True, private_channel=True)
        both = app_commands.AppInstallationType(guild=True, user=True)
        tree = app_commands.CommandTree(session, allowed_contexts=anywhere, allowed_installs=both)

        async def misunderstood(_: AnyInteraction, error: app_commands.AppCommandError) -> None:
            # What discord.py could not match to a command: an old client's menu.
            log.warning("discord: command not understood", extra={"fault": where(error)})

        tree.error(misunderstood)
        wording = self.conversation.wording
        await tree.set_translator(_Translator())
        for name in COMMANDS:
            words = _words(wording, f"command.{name}.description")
            call = _callback(session, name, wording)
            tree.add_command(app_commands.Command(name=name, description=words, callback=call))

        async def of_message(interaction: AnyInteraction, message: discord.Message) -> None:
            photos = sessions.pictures(message, asker=interaction.user)
            await session.ask(interaction, "lookalike", "", photos)

        async def of_user(interaction: AnyInteraction, user: discord.User) -> None:
            await session.ask(interaction, "lookalike", "", [sessions.avatar(user)])

        for key, menu in (("discord.message_menu", of_message), ("discord.user_menu", of_user)):
            tree.add_command(app_commands.ContextMenu(name=_words(wording, key), callback=menu))
        # Never awaited here: waiting inside setup_hook would delay or block the connection. Of
        # several processes the one with the first connection does it for all.
        if 0 in (self.settings.shard_ids or (0,)):
            session.keep(self._register(tree))

    async def _register(self, tree: app_commands.CommandTree[Any]) -> None:
        """Registers the commands if they changed since the last time; tries until it works."""
        assert tree.translator
        commands = [
            await command.get_translated_payload(tree, tree.translator)
            for command in tree._get_all_commands()  # noqa: SLF001 - get_commands leaves out menus
        ]
        payload = json.dumps([*commands, str(discord.http.Route.BASE)], sort_keys=True, default=str)
        digest = hashlib.sha256(payload.encode()).hexdigest()
        note = self.cache_folder / "discord-commands.json" if self.cache_folder else None
        with suppress(OSError, ValueError):
            if note and json.loads(note.read_text(encoding="utf-8")) == {"sha256": digest}:
                return

        def pause_s(problem: Exception, failures: int) -> float | None:
            if not isinstance(problem, FAILURES):
                return None
            log.warning("discord: commands not registered", extra={"fault": where(problem)})
            return backoff_s(failures, self.first_pause_s, LONGEST_PAUSE_S)

        await retry(tree.sync, pause_s)
        log.info("discord: commands registered")
        if note:
            with suppress(OSError):
                note.parent.mkdir(parents=True, exist_ok=True)
                note.write_text(json.dumps({"sha256": digest}), encoding="utf-8")


class _Translator(app_commands.Translator):
    """Tells Discord the menus' words in the languages that the bot speaks."""

    async def translate(
        self, string: app_commands.locale_str, locale: discord.Locale, _: object, /
    ) -> str | None:
        """The words in that language; None where the bot does not speak it."""
        return string.extras.get(locale.value.partition("-")[0])


def _words(wording: Wording, key: str) -> app_commands.locale_str:
    words = {language: wording.text(key, language)[:DESCRIPTION_CHARS] for language in LANGUAGES}
    return app_commands.locale_str(words.pop(FALLBACK), **words)


def _callback(session: Session, command: str, wording: Wording) -> Any:
    """What discord.py calls for a slash command; it reads the options from the signature."""
    options = OPTIONS.get(command, ())

    async def call(interaction: AnyInteraction, **given: Any) -> None:
        values = {option: given[option] for option in options if given.get(option) is not None}
        files = [value for value in values.values() if isinstance(value, discord.Attachment)]
        words = [
            f"{option}:{'_'.join(str(value).split())}" if option in SETTINGS else str(value)
            for option, value in values.items()
            if value not in files
        ]
        photos = [sessions.attachment(file, own=True) for file in files]
        await session.ask(interaction, command, " ".join(words), photos)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter("interaction", kind, annotation=AnyInteraction)]
    for option in options:
        of_type, key = KINDS[option]
        required = of_type is discord.Attachment and command not in OPTIONAL_PHOTO
        default = inspect.Parameter.empty if required else None
        annotation = of_type if required else of_type | None
        parameters.append(inspect.Parameter(option, kind, annotation=annotation, default=default))
        app_commands.describe(**{option: _words(wording, key)})(call)
        subject = command if option == "name" else option
        if subject in CHOICES:
            app_commands.choices(**{option: CHOICES[subject]})(call)
        elif subject in ("model", "category"):
            app_commands.autocomplete(**{option: session.choices})(call)
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call
