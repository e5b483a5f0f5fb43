"""Talking to the conversation as a person would, in tests that need no platform."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bot.app import open_conversation
from bot.conversation import Conversation
from bot.memory import TwinsGroups
from bot.settings import Settings
from bot.values import Attachment, Button, Limits, Reply, Request, Sender

__all__ = ["Person", "blank", "chatting", "photo", "side_by_side"]

WIDE = Limits(whispers=True)


@asynccontextmanager
async def chatting(
    home: Path, *, twins: TwinsGroups | None = None, **sections: dict[str, Any]
) -> AsyncIterator[Conversation]:
    """A conversation on a data folder, with nothing fetched from anywhere.

    Args:
        home: The data folder.
        twins: Who takes part in ``/twins``; nobody if it is left out.
        **sections: Settings, such as ``queue={"length": 3}``.
    """
    sections.setdefault("models", {"fetch": False})
    settings = Settings(home=home, **sections)
    async with open_conversation(settings, twins=twins) as conversation:
        yield conversation


@dataclasses.dataclass
class Person:
    """Somebody in a chat; remembers the last reply, so that its buttons can be pressed."""

    conversation: Conversation
    sender: Sender
    limits: Limits = WIDE
    last: Reply = dataclasses.field(default_factory=Reply)

    async def says(self, text: str = "", *photos: bytes) -> Reply:
        """A command with its arguments, bare words, or nothing, and photos."""
        command, arguments = None, text
        if text.startswith("/"):
            command, _, arguments = text[1:].partition(" ")
        own = tuple(photo(data, own=True) for data in photos)
        return await self._asks(Request(self.sender, command, arguments.strip(), own))

    async def points_at(self, data: bytes, text: str = "/lookalike") -> Reply:
        """A command in reply to a photo of somebody else."""
        return await self._asks(Request(self.sender, text[1:], photos=(photo(data),)))

    async def presses(self, label: str, *photos: bytes) -> Reply:
        """The button of the last reply whose label holds that; the platform may know the photo."""
        (button,) = [one for one in self.buttons if label in one.label]
        return await self.acts(button.action, *photos)

    async def acts(self, action: str, *photos: bytes) -> Reply:
        """Any action, of whatever reply."""
        return await self._asks(
            Request(self.sender, photos=tuple(map(photo, photos)), action=action)
        )

    @property
    def buttons(self) -> list[Button]:
        """Of the last reply."""
        return [button for row in self.last.buttons for button in row]

    @property
    def labels(self) -> list[str]:
        """Of the last reply's buttons."""
        return [button.label for button in self.buttons]

    async def _asks(self, request: Request) -> Reply:
        reply = await self.conversation.answer(request, self.limits)
        if reply.buttons or request.action is None:
            self.last = reply
        return reply


def photo(data: bytes, *, own: bool = False) -> Attachment:
    """A photo that the platform hands over at once; ``own`` if the asker sent it."""

    async def fetch() -> bytes:
        return data

    return Attachment(fetch, own)


def side_by_side(*photos: bytes, height_px: int = 512) -> bytes:
    """One JPEG with all of them in a row, so that it shows several people."""
    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in photos]
    images = [
        image.resize((round(image.width * height_px / image.height), height_px)) for image in images
    ]
    row = Image.new("RGB", (sum(image.width for image in images), height_px))
    left = 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width
    return _jpeg(row)


def blank(width_px: int = 320, height_px: int = 240) -> bytes:
    """A JPEG of noise without a face."""
    noise = np.random.default_rng(1).integers(90, 110, (height_px, width_px, 3), np.uint8)
    return _jpeg(Image.fromarray(noise))


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()
