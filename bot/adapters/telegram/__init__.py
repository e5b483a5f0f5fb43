"""The Telegram bot: how it connects, listens and stops."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import telegram
from telegram.error import BadRequest, InvalidToken, TelegramError
from telegram.ext import Application, ApplicationBuilder, TypeHandler

from bot.adapters import Adapter, listening_socket, or_stop
from bot.adapters.telegram.sender import ApiRequest, ChatRateLimiter, connections
from bot.adapters.telegram.session import ALLOWED_UPDATES, REFUSED_TOKEN, Polling, Session, insist
from bot.conversation import PRIVATE, described
from bot.settings import TelegramSettings
from bot.text import FALLBACK, LANGUAGES
from engine.errors import BadSettings, BadToken

log = logging.getLogger(__name__)

AnyApplication = Application[Any, Any, Any, Any, Any, Any]


@dataclass
class TelegramAdapter(Adapter[TelegramSettings]):
    """Telegram, by long polling or, where ``webhook.url`` is set, by webhook.

    Polling loses no photo when the process is killed (``Polling``). A webhook may: its
    updates count as delivered when they arrive, since Telegram sends the items of an album one
    after another and each only when the one before has been taken.
    """

    name = "telegram"
    album_quiet_s: float = 0.6  # an album is complete when nothing has been added for so long
    _reached: Callable[[], bool] = field(default=lambda: False, init=False)

    @property
    def connected(self) -> bool:
        """Whether the last poll was answered, or the webhook is set."""
        return self._reached()

    async def run(self, stop: asyncio.Event) -> None:
        """Serves; raises BadSettings, too, if the webhook can't be used."""
        # httpx logs every address, and Telegram's hold the token; python-telegram-bot logs whole
        # updates, and quotes the token where it is refused. What an operator needs is logged here.
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger("telegram").setLevel(logging.CRITICAL + 1)
        try:
            async with connections(self.settings.base_url) as client:
                await self._connect(ApiRequest(client), stop)
        except InvalidToken:
            raise BadToken(REFUSED_TOKEN) from None  # the library's message quotes the token

    async def _connect(self, requests: ApiRequest, stop: asyncio.Event) -> None:
        app = (
            ApplicationBuilder()
            .token(self.settings.token.get_secret_value() if self.settings.token else "")
            .base_url(self.settings.base_url)
            .base_file_url(self.settings.base_file_url)
            .rate_limiter(ChatRateLimiter())
            .concurrent_updates(256)
            .request(requests)
            .get_updates_request(requests)
            .job_queue(None)
            .build()
        )
        try:
            if await insist(app.initialize, stop):
                await self._serve(app, requests, stop)
        finally:
            await app.shutdown()
            await app.bot.shutdown()  # where the application was never initialised

    async def _serve(self, app: AnyApplication, requests: ApiRequest, stop: asyncio.Event) -> None:
        polling = Polling(app, requests, self.conversation.bookmarks)
        album_quiet_s, done = self.album_quiet_s, polling.answered
        session = Session(app.bot, self.conversation, requests.client, album_quiet_s, done)
        app.add_handler(TypeHandler(telegram.Update, session.take))
        await app.start()
        publishing = asyncio.create_task(self._publish_commands(app.bot, stop))
        try:
            if self.settings.webhook.url:
                await self._listen(app, self.settings.webhook.url, stop)
            else:
                delete = partial(app.bot.delete_webhook, drop_pending_updates=False)
                if await insist(delete, stop):
                    log.info("telegram: polling")
                    self._reached, self.served = lambda: polling.connected, True
                    await or_stop(polling.run(stop), stop)
        finally:
            publishing.cancel()
            await session.finish(self.grace_s)
            await asyncio.gather(publishing, polling.confirm(), return_exceptions=True)
            await app.stop()

    async def _listen(self, app: AnyApplication, url: str, stop: asyncio.Event) -> None:
        hook = self.settings.webhook
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
                self._reached, self.served = lambda: app.running, True
                await stop.wait()
        except BadRequest as problem:
            raise BadSettings(f"Telegram refuses telegram.webhook: {problem.message}") from None
        finally:
            if app.updater.running:
                await app.updater.stop()
            door.close()

    async def _publish_commands(self, bot: telegram.Bot, stop: asyncio.Event) -> None:
        for language in LANGUAGES:
            commands = described(self.conversation.wording, language)
            hidden = {*PRIVATE, "start"}
            in_groups = {name: what for name, what in commands.items() if name not in hidden}
            for scope, chosen in (
                (telegram.BotCommandScopeAllPrivateChats(), commands),
                (telegram.BotCommandScopeAllGroupChats(), in_groups),
            ):
                # English is for everybody whose language is not spoken.
                code = None if language == FALLBACK else language
                menu = [*chosen.items()]
                publish = partial(bot.set_my_commands, menu, scope=scope, language_code=code)
                try:
                    await insist(publish, stop)
                except TelegramError as problem:
                    log.warning("telegram: the menu is refused: %s", type(problem).__name__)
                    return
