"""How long somebody on Telegram waits, and how the bot's memory grows.

The bot runs as a process of its own, as an operator runs it, with the ``dlib`` backbone and a
gallery of two; a Bot API server and the people who write are in this one, over loopback. Timed is
what a person feels: from the moment the update is there until the answer has arrived.

    python benchmarks/telegram_latency.py                 # one user, 20 users at once, 50 chats
    python benchmarks/telegram_latency.py --photos 1000   # and memory over so many photos
    python benchmarks/telegram_latency.py --crowd 300     # 200 chats at once, for so many seconds
    python benchmarks/telegram_latency.py --crowd 300 --discord   # half of them on Discord

With ``--record`` the figures go to benchmarks/figures.json.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import math
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from figures import record
from matplotlib import cbook
from PIL import Image
from skimage import data

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "bot" / "adapters" / "telegram"))

from telegram_people import Person, Talk
from telegram_server import BotApi

PHOTO_PX = 1280
CROWDED_S = 20.0
SETTINGS = {
    "DEFAULT_MODEL": "dlib",
    "MODELS__FETCH": "false",
    "GALLERY__STARTER": "false",
    "MODELS__CONFIGURED": '["dlib"]',
    "QUEUE__PHOTOS_PER_MINUTE": "100000",
    "LOG__LEVEL": "WARNING",
}


def portraits() -> dict[str, Image.Image]:
    """Two portraits in the public domain, by name."""
    hopper = cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    return {"Grace Hopper": Image.open(hopper), "Eileen Collins": Image.fromarray(data.astronaut())}


def photos_of_1280_px() -> list[bytes]:
    """The portraits as files, as people send them."""
    photos = []
    for picture in portraits().values():
        scale = PHOTO_PX / max(picture.size)
        size = (round(picture.width * scale), round(picture.height * scale))
        buffer = io.BytesIO()
        picture.convert("RGB").resize(size).save(buffer, "JPEG", quality=87)
        photos.append(buffer.getvalue())
    return photos


async def run(*command: str, environment: dict[str, str]) -> None:
    """Runs a command of the program to its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", *command, env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    if await process.wait():
        raise SystemExit(f"`lookalike {' '.join(command)}` failed")


class Crowd:
    """People with photos of 1280 px."""

    def __init__(self, api: BotApi) -> None:
        self._api = api
        talk = Person(api).private_chat()
        self._photos = [talk._photo_sizes(photo) for photo in photos_of_1280_px()]  # noqa: SLF001 - the server's own
        self._talks: dict[int, Talk] = {}

    async def ask(self, person: int) -> tuple[float, str | None]:
        """How long a person waits for the answer to a photo; its words where it is no card."""
        if person not in self._talks:
            self._talks[person] = Person(self._api).private_chat()
        talk, started = self._talks[person], time.perf_counter()
        await talk.send_other(photo=self._photos[person % len(self._photos)])
        reply = await talk.reply(within_s=60)
        waited_ms = (time.perf_counter() - started) * 1000
        self._api.calls.clear()  # so that thousands of them fit into memory
        for photo in reply.message.get("photo", ()):
            del self._api.files[photo["file_id"]]
        return waited_ms, None if "photo" in reply.message else reply.words

    def more_than_asked(self) -> int:
        """How many messages came beside one for each photo."""
        return sum(talk.chat.outgoing.qsize() for talk in self._talks.values())

    async def wait_ms(self, person: int) -> float:
        """The same where only a card will do."""
        return only_cards(await self.ask(person))


def only_cards(answer: tuple[float, str | None]) -> float:
    """How long that took; ends the program where it is no card."""
    if answer[1] is not None:
        raise SystemExit(f"instead of a card came: {answer[1]}")
    return answer[0]


def quantile(values: Sequence[float], share: float) -> float:
    """The value that so large a share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return float(line.split()[1]) / 1024


def processor_ms(pid: int) -> float:
    """What the process has used of all cores together."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


class Used:
    """Processor time since it was made: of the bot, its decode workers, and this process."""

    def __init__(self, bot: int) -> None:
        self._bot = bot
        self._before = self._now()

    def _now(self) -> tuple[float, ...]:
        threads = Path(f"/proc/{self._bot}/task").glob("*/children")
        workers = [int(pid) for one in threads for pid in one.read_text().split()]
        measured = (self._bot,), workers, (os.getpid(),)
        return tuple(sum(map(processor_ms, pids)) for pids in measured)

    def a_photo(self, photos: int) -> tuple[float, ...]:
        """Milliseconds of each, of so many photos."""
        pairs = zip(self._now(), self._before, strict=True)
        return tuple((now - before) / photos for now, before in pairs)


def told(used_ms: tuple[float, ...]) -> str:
    """The milliseconds of ``Used`` in words."""
    bot, workers, driver = used_ms
    return (
        f"processor time a photo: {bot:.0f} ms, decode workers {workers:.0f}, driver {driver:.0f}"
    )


async def measure(photos: int, pid: int, crowd: Any) -> dict[str, object]:
    """Prints and returns what a crowd waits and what the bot's process uses for it."""
    for person in range(5):
        await crowd.wait_ms(person)
    used = Used(pid)
    alone = [await crowd.wait_ms(0) for _ in range(40)]
    used_ms = used.a_photo(len(alone))
    print(
        f"one user: median {statistics.median(alone):.0f} ms, "
        f"p95 {quantile(alone, 0.95):.0f} ms (bar: median 60 ms); {told(used_ms)} (bar: 60 ms); "
        f"load of this machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    used, together = Used(pid), list[float]()
    for _ in range(5):
        together += await asyncio.gather(*(crowd.wait_ms(person) for person in range(20)))
        await asyncio.sleep(1.5)  # Telegram's 30 messages a second
    print(
        f"20 users at once: median {statistics.median(together):.0f} ms, "
        f"p95 {quantile(together, 0.95):.0f} ms (bar: p95 800 ms); {told(used.a_photo(100))}"
    )
    used, began, waited = Used(pid), time.perf_counter(), list[float]()

    async def chat(person: int) -> None:
        while time.perf_counter() < began + CROWDED_S:
            waited.append(await crowd.wait_ms(person))

    await asyncio.gather(*(chat(person) for person in range(50)))
    a_second = len(waited) / (time.perf_counter() - began)
    print(
        f"50 chats without a pause: {a_second:.1f} answers a second (bar: 25), p95 "
        f"{quantile(waited, 0.95):.0f} ms; {told(used.a_photo(len(waited)))}"
    )
    before_mb = resident_mb(pid)
    print(f"resident memory: {before_mb:.0f} MB (bar: 300 MB)")
    figures: dict[str, object] = {
        "one user, median_ms": round(statistics.median(alone)),
        "one user, 95 % within_ms": round(quantile(alone, 0.95)),
        "processor time a photo_ms": round(used_ms[0]),
        "20 users at once, median_ms": round(statistics.median(together)),
        "20 users at once, 95 % within_ms": round(quantile(together, 0.95)),
        "50 chats without a pause, answers a second": round(a_second, 1),
        "resident memory_mb": round(before_mb),
    }
    for done in range(1, photos + 1):
        await crowd.wait_ms(done % 50)
        if done == 100:
            before_mb = resident_mb(pid)
        if done % 200 == 0 or done == photos:
            grown_mb = resident_mb(pid) - before_mb
            print(f"after {done} photos: {grown_mb:+.1f} MB since the first 100 (bar: 30 MB)")
            figures[f"memory grown after {done:,} photos, since the first 100_mb"] = round(
                grown_mb, 1
            )
    return figures


async def throng(pid: int, crowds: dict[str, Any], seconds: float) -> dict[str, object]:
    """Prints what becomes of 200 chats; who is told that the bot is busy asks again in a second.

    As many are on each platform. Each chat sends its next photo when it has the answer to the last.
    """
    for crowd in crowds.values():
        await crowd.wait_ms(0)
    used, began = Used(pid), time.perf_counter()
    outcomes = {name: defaultdict[str, list[float]](list) for name in crowds}

    async def chat(name: str, person: int) -> None:
        while time.perf_counter() < began + seconds:
            try:
                waited_ms, words = await crowds[name].ask(person)
            except TimeoutError:
                waited_ms, words = math.inf, "lost"
            kind = "busy" if words and words.startswith("I'm busy") else words or "card"
            outcomes[name][kind].append(waited_ms)
            if kind == "busy":
                await asyncio.sleep(1)

    async def watch() -> list[float]:
        memory = []
        for until_s in (min(60.0, seconds / 2), seconds):
            await asyncio.sleep(began + until_s - time.perf_counter())
            memory.append(resident_mb(pid))
        return memory

    people = range(200 // len(crowds))
    chats = (chat(name, person) for name in crowds for person in people)
    memory, *_ = await asyncio.gather(watch(), *chats)
    took_s, cards = time.perf_counter() - began, 0
    used_ms = used.a_photo(sum(len(outcome["card"]) for outcome in outcomes.values()) or 1)
    await asyncio.sleep(2)  # for what is told twice
    for name, outcome in outcomes.items():
        card, busy, lost = (outcome.pop(kind, []) for kind in ("card", "busy", "lost"))
        cards += len(card)
        print(
            f"{len(people)} chats on {name} for {seconds:.0f} s: {len(card)} cards, "
            f"{len(card) / took_s:.1f} a second, half of them within "
            f"{quantile(card or [0], 0.5):.0f} ms, 99 % within {quantile(card or [0], 0.99):.0f} "
            f"ms (bar: 3000); {len(busy)} told to come again, half of them within "
            f"{quantile(busy or [0], 0.5):.0f} ms, 99 % within {quantile(busy or [0], 0.99):.0f} "
            f"ms (bar: 500); {len(lost)} lost, {crowds[name].more_than_asked()} more than asked "
            f"for, {sum(map(len, outcome.values()))} other answers {sorted(outcome)[:3]}"
        )
    after_mb, end_mb = memory
    print(
        f"all: {cards / took_s:.1f} cards a second (bar: 25); resident memory {after_mb:.0f} MB "
        f"after {min(60.0, seconds / 2):.0f} s, {end_mb:.0f} MB at the end; {told(used_ms)}; "
        f"load {os.getloadavg()[0]:.1f}"
    )
    return {"200 chats, answers a second": round(cards / took_s, 1)}


# What the bot has to know of a platform, until when it is connected, and the people there.
Platform = tuple[dict[str, str], Callable[[], Awaitable[object]], Any]


@asynccontextmanager
async def telegram() -> AsyncIterator[Platform]:
    """A Bot API server."""
    async with BotApi() as api:
        api.decodes = False  # here, where the bot is measured, on the same cores
        settings = {
            "LOOKALIKE_TELEGRAM__TOKEN": api.token,
            "LOOKALIKE_TELEGRAM__BASE_URL": f"{api.url}/bot",
            "LOOKALIKE_TELEGRAM__BASE_FILE_URL": f"{api.url}/file/bot",
        }

        async def connected() -> None:
            while not api.called("getUpdates"):  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.1)

        yield settings, connected, Crowd(api)


async def main(platforms: dict[str, Any], photos: int, crowd_s: float) -> dict[str, object]:
    """Starts the bot on these platforms (``telegram``), measures, stops; the figures."""
    with tempfile.TemporaryDirectory() as folder:
        people = Path(folder) / "people"
        for name, picture in portraits().items():
            (people / name).mkdir(parents=True)
            picture.convert("RGB").save(people / name / "portrait.jpg")
        home = {"LOOKALIKE_HOME": str(Path(folder) / "home")}
        chosen = {f"LOOKALIKE_{key}": value for key, value in SETTINGS.items()}
        environment = {**os.environ, **chosen, **home}
        await run("gallery", "add", str(people), environment=environment)
        # As at every start but the first, which makes the tables and keeps what that takes: 10 MB.
        await run("db", "upgrade", environment=environment)
        async with AsyncExitStack() as open_ones:
            crowds, waits = dict[str, Any](), []
            for name, platform in platforms.items():
                settings, connected, crowds[name] = await open_ones.enter_async_context(platform)
                environment |= settings
                waits.append(connected())
            bot = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bot", "run", env=environment
            )
            try:
                async with asyncio.timeout(60):
                    await asyncio.gather(*waits)
                if crowd_s:
                    return await throng(bot.pid, crowds, crowd_s)
                return await measure(photos, bot.pid, *crowds.values())
            finally:
                if bot.returncode is None:
                    bot.terminate()
                await bot.wait()


def command_line() -> argparse.ArgumentParser:
    """What can be said to this program and to ``discord_latency.py``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=0, help="photos in a row for memory")
    parser.add_argument("--record", action="store_true", help="write benchmarks/figures.json")
    parser.add_argument("--crowd", type=float, default=0, help="seconds of 200 chats, alone")
    return parser


if __name__ == "__main__":
    parser = command_line()
    parser.add_argument("--discord", action="store_true", help="half of the crowd is on Discord")
    arguments = parser.parse_args()
    on: dict[str, Any] = {"Telegram": telegram()}
    if arguments.discord:
        from discord_latency import discord

        on["Discord"] = discord()
    measured = asyncio.run(main(on, arguments.photos, arguments.crowd))
    if arguments.record:
        record("telegram", measured)
