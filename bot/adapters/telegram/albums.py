"""Items of an album arrive as separate messages; here they become one question again."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass, field

from telegram import Message

__all__ = ["Album", "Albums"]

# https://core.telegram.org/bots/api#sendmediagroup: 2-10 items.
MOST_ITEMS = 10


@dataclass(slots=True, eq=False)
class Album:
    """Messages that were sent as one.

    Attributes:
        items: In the order of sending.
        answered: To be set when all of it is answered.
    """

    items: list[Message]
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    _grown: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, message: Message) -> None:
        """Adds an item, whatever the order of arrival."""
        self.items.append(message)
        self.items.sort(key=lambda item: item.message_id)
        self._grown.set()

    async def settle(self, quiet_s: float) -> None:
        """Waits until nothing has been added for so long, or nothing more can be."""
        while len(self.items) < MOST_ITEMS:
            self._grown.clear()
            try:
                await asyncio.wait_for(self._grown.wait(), quiet_s)
            except TimeoutError:
                return


class Albums:
    """Waits until an album is complete; Telegram says only which album an item belongs to.

    Args:
        quiet_s: An album is complete when nothing has been added to it for so long.
    """

    def __init__(self, *, quiet_s: float) -> None:
        self._quiet_s = quiet_s
        self._open: dict[Hashable, Album] = {}

    async def collect(self, message: Message) -> Album | None:
        """The complete album, for the item that came first; the caller sets ``answered``.

        The other items wait until then and get None: nothing of an album counts as answered
        before all of it is. What arrives after an album is complete is an album of its own.
        """
        key = (message.chat.id, message.media_group_id)
        album = self._open.get(key)
        if album is not None:
            album.add(message)
            await album.answered.wait()
            return None
        album = self._open[key] = Album([message])
        try:
            await album.settle(self._quiet_s)
        except asyncio.CancelledError:
            album.answered.set()
            raise
        finally:
            del self._open[key]
        return album
