"""The Telegram bot: how it connects, listens and stops."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import telegram
from telegram.error import InvalidToken, TelegramError
from telegram.ext import Application, ApplicationBuilder, TypeHandler

from bot.adapters import Adapter, or_stop
from bot.adapters.telegram.sender import ApiRequest, ChatRateLimiter, connections
from bot.adapters.telegram.session import Session
from bot.adapters.telegram.updates import REFUSED_TOKEN, Polling, Updates, Webhook, insist
from bot.conversation import PRIVATE, described
from bot.settings import TelegramSettings
from bot.text import FALLBACK, LANGUAGES
from engine.errors import BadToken

log = logging.getLogger(__name__)

AnyApplication = Application[Any, Any, Any, Any, Any, Any]


@dataclass
class TelegramAdapter(Adapter[TelegramSettings]):
    """Telegram, by long polling or, where ``webhook.url`` is set, by webhook."""

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
        conversation, hook = self.conversation, self.settings.webhook
        polling = Polling(app, requests, conversation)
        webhook = Webhook(app, conversation.store, conversation.memory)
        updates: Updates = webhook if hook.url else polling
        session = Session(app.bot, conversation, requests.client, self.album_quiet_s, updates)
        app.add_handler(TypeHandler(telegram.Update, session.take))
        await app.start()
        await updates.restore()
        recovering = asyncio.gather(updates.recover(), updates.watch())
        publishing = asyncio.create_task(self._publish_commands(app.bot, stop))
        self._reached = lambda: updates.connected
        try:
            if hook.url:
                await webhook.run(hook, stop)
            else:
                delete = partial(app.bot.delete_webhook, drop_pending_updates=False)
                if await insist(delete, stop):
                    log.info("telegram: polling")
                    await or_stop(polling.run(stop), stop)
        finally:
            self.served |= updates.served
            recovering.cancel()
            publishing.cancel()
            await session.finish(self.grace_s)
            ends = polling.confirm() if updates is polling else updates.close()
            await asyncio.gather(publishing, recovering, ends, return_exceptions=True)
            await app.stop()

    async def _publish_commands(self, bot: telegram.Bot, stop: asyncio.Event) -> None:
        await self.conversation.filling.introduce(f"https://t.me/{bot.username}")
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
