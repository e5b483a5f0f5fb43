"""The Telegram bot: how it connects, listens and stops."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import ssl
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
from telegram import (
    Bot,
    BotCommand,
    BotCommandScopeAllGroupChats,
    BotCommandScopeAllPrivateChats,
    Update,
)
from telegram.error import BadRequest, InvalidToken, TelegramError
from telegram.ext import Application, ApplicationBuilder, TypeHandler
from telegram.request import HTTPXRequest

from bot.adapters import listening_socket, or_stop
from bot.adapters.telegram.sender import ChatRateLimiter
from bot.adapters.telegram.session import ALLOWED_UPDATES, REFUSED_TOKEN, Polling, Session, insist
from bot.conversation import PRIVATE, described
from bot.settings import TelegramSettings
from bot.text import FALLBACK, LANGUAGES, Wording
from engine.errors import BadSettings, BadToken

if TYPE_CHECKING:
    from bot.conversation import Conversation


log = logging.getLogger(__name__)

CONCURRENT_UPDATES = 256
CONNECTIONS = 256

AnyApplication = Application[Any, Any, Any, Any, Any, Any]


class TelegramAdapter:
    """Telegram, by long polling or, where ``webhook.url`` is set, by webhook.

    Polling loses no photo when the process is killed (``polling``). A webhook may: its
    updates count as delivered when they arrive, since Telegram sends the items of an album one
    after another and each only when the one before has been taken.

    Args:
        conversation: Conversation.
        settings: With a token.
        cache_folder: Not used; every adapter takes it.
        wording: The sentences said by the adapter itself, and the menu's.
        grace_s: How long unanswered updates are waited for when the program stops.
        album_quiet_s: An album is complete when nothing has been added to it for so long.
    """

    name = "telegram"

    def __init__(
        self,
        conversation: Conversation,
        settings: TelegramSettings,
        *,
        cache_folder: Path | None = None,  # noqa: ARG002 - every adapter takes it
        wording: Wording | None = None,
        grace_s: float = 4.5,
        album_quiet_s: float = 0.6,
    ) -> None:
        _silence_libraries()
        self._conversation = conversation
        self._settings = settings
        self._wording = wording or Wording.load()
        self._grace_s = grace_s
        self._album_quiet_s = album_quiet_s

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until ``stop`` is set; then what is in work is finished or its sender told.

        A network failure is retried for ever, at the very first request too.

        Raises:
            BadToken: If Telegram refuses the token.
            BadSettings: If the webhook can't be used.
        """
        tls = await asyncio.to_thread(httpx.create_ssl_context)  # reads every authority there is
        updates = _request(tls, connections=4, timeout_s=10)
        app = self._application(updates, _request(tls, connections=CONNECTIONS, timeout_s=20))
        try:
            if await insist(app.initialize, stop):
                await self._serve(app, updates, tls, stop)
        except InvalidToken:
            raise BadToken(REFUSED_TOKEN) from None  # the library's message quotes the token
        finally:
            await app.shutdown()
            await app.bot.shutdown()  # where the application was never initialised

    def _application(self, updates: HTTPXRequest, others: HTTPXRequest) -> AnyApplication:
        token = self._settings.token
        try:
            return (
                ApplicationBuilder()
                .token(token.get_secret_value() if token else "")
                .base_url(self._settings.base_url)
                .base_file_url(self._settings.base_file_url)
                .rate_limiter(ChatRateLimiter())
                .concurrent_updates(CONCURRENT_UPDATES)
                .request(others)
                .get_updates_request(updates)
                .job_queue(None)
                .build()
            )
        except InvalidToken:
            raise BadToken(REFUSED_TOKEN) from None

    async def _serve(
        self,
        app: AnyApplication,
        updates: HTTPXRequest,
        tls: ssl.SSLContext,
        stop: asyncio.Event,
    ) -> None:
        client = httpx.AsyncClient(
            verify=tls,
            timeout=httpx.Timeout(20, pool=60),
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=16),
        )
        polling = Polling(app.bot, updates, app.update_queue)
        session = Session(
            app.bot,
            self._conversation,
            wording=self._wording,
            client=client,
            album_quiet_s=self._album_quiet_s,
            done=polling.answered,
        )
        app.add_handler(TypeHandler(Update, session.take))
        await app.start()
        publishing = asyncio.create_task(self._publish_commands(app.bot, stop))
        try:
            if self._settings.webhook.url:
                await self._listen(app, self._settings.webhook.url, stop)
            else:
                delete = partial(app.bot.delete_webhook, drop_pending_updates=False)
                if await insist(delete, stop):
                    log.info("telegram: polling")
                    await or_stop(polling.run(stop), stop)
        finally:
            publishing.cancel()
            await session.finish(self._grace_s)
            await asyncio.gather(publishing, polling.confirm(), return_exceptions=True)
            await app.stop()
            await client.aclose()

    async def _listen(self, app: AnyApplication, url: str, stop: asyncio.Event) -> None:
        hook = self._settings.webhook
        assert app.updater  # the builder makes one
        try:
            door = listening_socket(hook.listen, hook.port)
        except OSError as problem:
            raise BadSettings(
                f"telegram.webhook: {hook.listen}:{hook.port} can't be used: {problem.strerror}"
            ) from None
        door.setblocking(False)
        start = partial(
            app.updater.start_webhook,
            unix=door,  # any listening socket
            url_path=re.escape(urlsplit(url).path),  # the library takes a regular expression
            webhook_url=url,
            secret_token=hook.secret.get_secret_value() if hook.secret else secrets.token_hex(32),
            allowed_updates=ALLOWED_UPDATES,
            drop_pending_updates=False,
        )
        try:
            if await insist(start, stop):
                log.info("telegram: listening for the webhook")
                await stop.wait()
        except BadRequest as problem:
            raise BadSettings(f"Telegram refuses telegram.webhook: {problem.message}") from None
        finally:
            if app.updater.running:
                await app.updater.stop()
            door.close()

    async def _publish_commands(self, bot: Bot, stop: asyncio.Event) -> None:
        """Registers the menu for private chats and groups in every language."""
        for language in LANGUAGES:
            commands = described(self._wording, language)
            hidden = {*PRIVATE, "start"}
            in_groups = {name: what for name, what in commands.items() if name not in hidden}
            for scope, chosen in (
                (BotCommandScopeAllPrivateChats(), commands),
                (BotCommandScopeAllGroupChats(), in_groups),
            ):
                publish = partial(
                    bot.set_my_commands,
                    [BotCommand(*command) for command in chosen.items()],
                    scope=scope,
                    # English is for everybody whose language is not spoken.
                    language_code=None if language == FALLBACK else language,
                )
                try:
                    await insist(publish, stop)
                except TelegramError as problem:
                    log.warning("telegram: the menu is refused: %s", type(problem).__name__)
                    return


def _request(tls: ssl.SSLContext, *, connections: int, timeout_s: float) -> HTTPXRequest:
    # Idle connections are looked at one by one before each request: a few are kept for all.
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=32)
    return HTTPXRequest(
        connect_timeout=10,
        read_timeout=timeout_s,
        write_timeout=20,
        media_write_timeout=60,
        pool_timeout=60,
        httpx_kwargs={"verify": tls, "limits": limits},
    )


def _silence_libraries() -> None:
    """Keeps tokens and ids out of the log, whatever its level.

    httpx logs every address, and Telegram's hold the token; python-telegram-bot logs whole
    updates, and quotes the token where it is refused. What an operator needs is logged here.
    """
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("telegram").setLevel(logging.CRITICAL + 1)
