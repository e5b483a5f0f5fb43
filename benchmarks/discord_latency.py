"""How long somebody on Discord waits, and how the bot's memory grows.

The same measurements as ``telegram_latency.py``, over the gateway and REST: from the moment the
slash command is sent until the answer has arrived.

    python benchmarks/discord_latency.py                 # one user, 20 users at once
    python benchmarks/discord_latency.py --photos 1000   # and memory over so many photos

With ``--record`` the figures go to benchmarks/figures.json.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from figures import record
from telegram_latency import Platform, command_line, main, only_cards, photos_of_1280_px

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "bot" / "adapters" / "discord"))

from discord_server import JSON, Discord, Interaction


class Crowd:
    """People with photos of 1280 px."""

    def __init__(self, discord: Discord) -> None:
        self._discord = discord
        self._photos = [discord.attachment(photo) for photo in photos_of_1280_px()]
        self._people: dict[int, JSON] = {}
        self._last: dict[int, Interaction] = {}
        self._more_than_asked = 0

    async def ask(self, person: int) -> tuple[float, str | None]:
        """How long a person waits for the answer to a photo; its words where it is no card."""
        user = self._people.setdefault(person, self._discord.user())
        photo = self._photos[person % len(self._photos)]
        started = time.perf_counter()
        asked = await self._discord.slash(user, "lookalike", photo=photo)
        answer = await asked.answer(timeout_s=60)
        waited_ms = (time.perf_counter() - started) * 1000
        self._forget(person)  # the question before: to this one more may be told
        self._last[person] = asked
        return waited_ms, None if answer["bytes"] else answer["content"]

    async def wait_ms(self, person: int) -> float:
        """The same where only a card will do."""
        return only_cards(await self.ask(person))

    def more_than_asked(self) -> int:
        """How many messages came beside one for each photo."""
        for person in [*self._last]:
            self._forget(person)
        return self._more_than_asked

    def _forget(self, person: int) -> None:
        if person in self._last:
            asked = self._last.pop(person)
            self._more_than_asked += len(asked.messages) - 1
            self._discord.forget(asked)


@asynccontextmanager
async def discord() -> AsyncIterator[Platform]:
    """Discord's gateway and REST API."""
    async with Discord() as server:
        settings = {
            f"LOOKALIKE_DISCORD__{key.upper()}": value for key, value in server.settings.items()
        }
        yield settings, server.connected.wait, Crowd(server)


if __name__ == "__main__":
    arguments = command_line().parse_args()
    measured = asyncio.run(main({"Discord": discord()}, arguments.photos, arguments.crowd))
    if arguments.record:
        record("discord", measured)
