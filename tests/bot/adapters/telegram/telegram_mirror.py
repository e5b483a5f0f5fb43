"""A conversation that answers with what it was asked, and the adapter at work in front of it."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from pydantic import SecretStr
from telegram_server import BotApi

from bot.adapters.telegram import TelegramAdapter
from bot.adapters.telegram.sender import TELEGRAM_LIMITS
from bot.conversation import Conversation
from bot.process_memory import Memory
from bot.settings import TelegramSettings, WebhookSettings
from bot.text import Wording
from bot.values import Button, Limits, Picture, Reply, Request, Sender
from engine.errors import LookalikeError


@dataclass
class Mirror:
    """Answers photos with their mirror image, and everything with what it understood.

    Attributes:
        requests: What was asked, in order.
        fetched: The photos of each request that was answered.
        replies: Fixed replies by button action, or by command.
        gate: Nothing is answered while it is closed.
        page: Where the bot can be found.
        updates: Those kept, by number; None for those that are answered.
        wording: What the adapter itself says.
    """

    requests: list[Request] = field(default_factory=list)
    fetched: list[list[bytes]] = field(default_factory=list)
    replies: dict[str, Reply] = field(default_factory=dict)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    wording: Wording = field(default_factory=Wording.load)
    updates: dict[str, Any] = field(default_factory=dict)
    page: str = ""
    memory: Memory = field(default_factory=Memory)

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def store(self) -> Any:
        """Keeps what the adapter asks it to, like ``bot.store.Store``."""
        return self

    @property
    def filling(self) -> Any:
        """Has all that it needs."""
        return self

    async def introduce(self, page: str) -> None:
        self.page = page

    async def keep_all(
        self, _: str, said: dict[str, Any], *, replace: bool = True, filed: str = ""
    ) -> bool:
        assert all((one is None) == bool(filed) for one in said.values())
        is_new = not said.keys() & self.updates.keys()
        if is_new or replace:
            self.updates |= json.loads(json.dumps(said))
        return is_new

    async def kept(self, name: str) -> dict[str, Any]:
        answered = name != "telegram"
        return {number: kept for number, kept in self.updates.items() if (not kept) == answered}

    async def passes_over(self, _: Sender) -> bool:
        return False

    async def answer(self, request: Request, limits: Limits) -> Reply:
        assert limits == TELEGRAM_LIMITS
        self.requests.append(request)
        await self.gate.wait()
        try:
            photos = [await photo.fetch() for photo in request.photos]
        except LookalikeError as problem:
            return Reply(type(problem).__name__)
        self.fetched.append(photos)
        fixed = self.replies.get(request.action or request.command or "")
        if fixed:
            return fixed
        words = f"{request.command} [{request.arguments}] {len(photos)}"
        if request.action:
            words = f"pressed {request.action} {len(photos)}"
        picture = await asyncio.to_thread(mirrored, photos[0]) if photos else None
        buttons = ((Button("Again", "again"), Button("Note", "note")),) if picture else ()
        return Reply(words, picture, buttons, replaces=request.action is not None)


def mirrored(jpeg: bytes) -> Picture:
    """The mirror image of a picture."""
    with Image.open(io.BytesIO(jpeg)) as opened:
        turned = opened.convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG")
    return Picture(buffer.getvalue(), *turned.size, alt="")


def size(jpeg: bytes | None) -> tuple[int, int]:
    """Width and height of a picture that arrived."""
    assert jpeg
    with Image.open(io.BytesIO(jpeg)) as picture:
        picture.load()
        return picture.size


async def until(condition: Callable[[], object], *, within_s: float = 20.0) -> None:
    """Waits until something is so."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - a test looks from outside; there is no event
            await asyncio.sleep(0.005)


def settings(api: BotApi, webhook: WebhookSettings | None = None) -> TelegramSettings:
    """Settings that lead to the tests' server."""
    return TelegramSettings(
        token=SecretStr(api.token),
        base_url=f"{api.url}/bot",
        base_file_url=f"{api.url}/file/bot",
        webhook=webhook or WebhookSettings(),
    )


@asynccontextmanager
async def running(
    api: BotApi,
    conversation: Conversation,
    *,
    webhook: WebhookSettings | None = None,
    grace_s: float = 6.0,
) -> AsyncIterator[asyncio.Event]:
    """The adapter at work; stopped cleanly at the end."""
    stop = asyncio.Event()
    adapter = TelegramAdapter(
        conversation, settings(api, webhook), grace_s=grace_s, album_quiet_s=0.3
    )
    task = asyncio.create_task(adapter.run(stop))
    try:
        yield stop
    finally:
        stop.set()
        await asyncio.wait_for(task, 15)
