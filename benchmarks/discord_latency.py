"""How long somebody on Discord waits, and how the bot's memory grows.

The same measurements as ``telegram_latency.py``, over the gateway and REST: from the moment the
slash command is sent until the answer has arrived.

    python benchmarks/discord_latency.py                 # one user, 20 users at once
    python benchmarks/discord_latency.py --photos 1000   # and memory over so many photos

With ``--record`` the figures go to benchmarks/figures.json.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import sys
import tempfile
import time
from pathlib import Path

from figures import record
from telegram_latency import PHOTO_PX, SETTINGS, measure, only_cards, portraits, run

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "bot" / "adapters" / "discord"))

from discord_server import JSON, Discord


class Crowd:
    """People with photos of 1280 px."""

    def __init__(self, discord: Discord) -> None:
        self._discord = discord
        self._photos: list[JSON] = []
        for picture in portraits().values():
            scale = PHOTO_PX / max(picture.size)
            size = (round(picture.width * scale), round(picture.height * scale))
            buffer = io.BytesIO()
            picture.convert("RGB").resize(size).save(buffer, "JPEG", quality=87)
            self._photos.append(discord.attachment(buffer.getvalue()))
        self._people: dict[int, JSON] = {}

    async def ask(self, person: int) -> tuple[float, str | None]:
        """How long a person waits for the answer to a photo; its words where it is no card."""
        user = self._people.setdefault(person, self._discord.user())
        photo = self._photos[person % len(self._photos)]
        started = time.perf_counter()
        asked = await self._discord.slash(user, "lookalike", photo=photo)
        answer = await asked.answer(timeout_s=60)
        waited_ms = (time.perf_counter() - started) * 1000
        self._discord.forget(asked)
        return waited_ms, None if answer["bytes"] else answer["content"]

    async def wait_ms(self, person: int) -> float:
        """The same where only a card will do."""
        return only_cards(await self.ask(person))


async def main(photos: int, crowd_s: float) -> dict[str, object]:
    """Starts everything, measures, stops; the figures."""
    with tempfile.TemporaryDirectory() as folder:
        people = Path(folder) / "people"
        for name, picture in portraits().items():
            (people / name).mkdir(parents=True)
            picture.convert("RGB").save(people / name / "portrait.jpg")
        home = {"LOOKALIKE_HOME": str(Path(folder) / "home")}
        chosen = {f"LOOKALIKE_{key}": value for key, value in SETTINGS.items()}
        environment = {**os.environ, **chosen, **home}
        await run("gallery", "add", str(people), environment=environment)
        async with Discord() as discord:
            environment |= {
                f"LOOKALIKE_DISCORD__{key.upper()}": value
                for key, value in discord.settings.items()
            }
            bot = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bot", "run", env=environment
            )
            try:
                await asyncio.wait_for(discord.connected.wait(), 60)
                return await measure(photos, bot.pid, Crowd(discord), crowd_s)
            finally:
                if bot.returncode is None:
                    bot.terminate()
                await bot.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=0, help="photos in a row for memory")
    parser.add_argument("--record", action="store_true", help="write benchmarks/figures.json")
    parser.add_argument("--crowd", type=float, default=0, help="seconds of 200 chats, alone")
    arguments = parser.parse_args()
    measured = asyncio.run(main(arguments.photos, arguments.crowd))
    if arguments.record:
        record("discord", measured)
