"""Two processes of one bot, 500 people: is it one bot?

Two processes with the ``dlib`` backbone and a gallery of two, on one PostgreSQL and one Valkey,
over a Bot API server on loopback. Each of the people sends a photo, chooses how many matches they
want, sends another photo and presses a button under its answer; a balancer gives each update to
one of the processes by chance, and one in eleven to both. Counted is what must not be: an answer
that does not come or comes twice, a choice that is lost, a button that is dead.

    python benchmarks/two_processes.py --people 500

With ``--record`` the figures go to benchmarks/figures.json.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from figures import record
from telegram_latency import Crowd, portraits, quantile, run

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from postgres_server import PostgresServer
from telegram_pair import Pair, started
from telegram_people import Person, Received, Talk
from valkey_server import ValkeyServer

from bot.text import Wording

SAY = Wording.load().text
AT_ONCE = 20
NAMES = [*portraits()]
MORE = SAY("button.more")


class Visits:
    """What people do, and what went wrong."""

    def __init__(self, pair: Pair) -> None:
        self._pair, self._crowd = pair, Crowd(pair.api)
        self.wrong, self.waited_ms = Counter[str](), list[float]()
        chance = random.Random(7)
        doors = [[door] for door in pair.doors] * 5
        pair.api.doors = iter(lambda: chance.choice([*doors, list(pair.doors)]), None)

    async def _reply(self, talk: Talk, what: str) -> Received | None:
        began = time.perf_counter()
        try:
            reply = await talk.reply(within_s=60)
        except TimeoutError:
            self.wrong[f"no answer to {what}"] += 1
            return None
        self.waited_ms.append((time.perf_counter() - began) * 1000)
        return reply

    async def visit(self, number: int) -> None:
        """One person's."""
        talk, top = Person(self._pair.api).private_chat(), 1 + number % 2
        photos = self._crowd._photos  # noqa: SLF001 - a script of the same folder
        await talk.send_other(photo=photos[number % 2])
        await self._reply(talk, "a photo")
        await talk.say(f"/top {top}")
        await self._reply(talk, "a choice")
        await talk.send_other(photo=photos[1 - number % 2])
        card = await self._reply(talk, "a photo")
        label = next(iter(card.buttons.keys() & {MORE, SAY("button.best")}), "") if card else ""
        if card is None or not label:
            self.wrong[f"instead of a card: {card and card.words}"] += 1
            return
        names = sum(name in card.words for name in NAMES)
        self.wrong["choices lost"] += names != top
        await talk.press(card, label, forgotten=True)
        changed = await self._reply(talk, "a button")
        if changed is not None:
            names = sum(name in changed.words for name in NAMES)
            self.wrong["buttons dead"] += names != (2 if label == MORE else 1)
        self.wrong["answers twice"] += not await talk.stays_silent(1.0)


async def main(people: int) -> dict[str, object]:
    """Starts everything, lets people come, stops; the figures."""
    environment = {**os.environ, "LOOKALIKE_MODELS__CONFIGURED": '["dlib"]'}
    postgres, valkey = PostgresServer(), ValkeyServer()
    with tempfile.TemporaryDirectory() as folder:
        homes = [Path(folder) / name for name in ("one", "another")]
        for name, picture in portraits().items():
            (Path(folder) / "people" / name).mkdir(parents=True)
            picture.convert("RGB").save(Path(folder) / "people" / name / "portrait.jpg")
        for home in homes:
            added = ("gallery", "add", str(Path(folder) / "people"))
            await run(
                "--home",
                str(home),
                *added,
                environment=environment,
            )
        quiet = {"LOG__LEVEL": "WARNING"}
        try:
            async with started(homes, postgres.fresh(), valkey.url, **quiet) as pair:
                visits, free = Visits(pair), asyncio.Semaphore(AT_ONCE)

                async def one(number: int) -> None:
                    async with free:
                        await visits.visit(number)

                began = time.perf_counter()
                await asyncio.gather(*map(one, range(people)))
                took_s = time.perf_counter() - began
                with valkey.ask() as server:
                    used_mb = int(server.info("memory")["used_memory"]) / 1e6  # type: ignore[index]
                    keys = server.dbsize()
        finally:
            valkey.stop()
            postgres.stop()
    wrong = {what: count for what, count in visits.wrong.items() if count}
    print(
        f"{people} people, {len(visits.waited_ms)} answers in {took_s:.0f} s; wrong: {wrong or 0}"
    )
    print(
        f"median {statistics.median(visits.waited_ms):.0f} ms, "
        f"p95 {quantile(visits.waited_ms, 0.95):.0f} ms; Valkey: {keys} keys, {used_mb:.0f} MB"
    )
    return {
        "people": people,
        "answers": len(visits.waited_ms),
        "wrong": sum(wrong.values()),
        "median_ms": round(statistics.median(visits.waited_ms)),
        "95 % within_ms": round(quantile(visits.waited_ms, 0.95)),
        "Valkey_mb": round(used_mb),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=500)
    parser.add_argument("--record", action="store_true", help="write benchmarks/figures.json")
    arguments = parser.parse_args()
    measured = asyncio.run(main(arguments.people))
    if arguments.record:
        record("processes", measured)
