"""What a photo costs, by stage: what benchmarks/scaling.py simulates with.

Processor time of each photo, not time by the clock, so that other work on the machine matters
little. The stages are measured on one core, in one process that asks itself; what the platform's
SDK, HTTP and the event loop add, in a bot of its own that people write to, over loopback. Then the
same bot is kept busy by more and more people, and so is `lookalike serve-engine` with one and with
two replicas of a core each: the simulation is compared with these. The gallery holds 10,000 made-up
people and two real ones.

    python benchmarks/service_times.py [--photos 60] [--record]

With ``--record`` what was measured goes to benchmarks/service_times.json. Linux only (schedstat).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from figures import SERVICE_TIMES, record
from made_people import MadePeople
from postgres_search import analyse, fill, server
from telegram_latency import SETTINGS, BotApi, Crowd, photos_of_1280_px, quantile, resident_mb

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

T = TypeVar("T")
Ms = dict[str, list[float]]
PEOPLE = 10_000
REST_S = 0.5  # between photos: what is done after an answer, such as packing, is counted with it
BUSY_S = 15.0
CROWDS = (1, 4, 16, 50)
CLIENTS_PER_REPLICA = 4
NOT_FETCHED = {"models": {"fetch": False, "configured": ("dlib",)}, "default_model": "dlib"}


def processor_ms(pids: Iterable[int]) -> float:
    """What these processes have used of all cores together, to the nanosecond."""
    total_ns = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with suppress(OSError):  # the thread has just ended
                total_ns += int(task.read_text(encoding="ascii").split()[0])
    return total_ns / 1e6


def process_status(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, see proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text(encoding="ascii").split()]


def descendants(pid: int) -> list[int]:
    """And those that they started."""
    return [one for child in children(pid) for one in (child, *descendants(child))]


def make_home(home: Path, url: str | None = None) -> None:
    """A data folder whose gallery holds the two portraits and made-up people."""
    from bot.app import open_engine, open_gallery
    from bot.settings import Settings
    from gallery.add import add
    from gallery.sources.bundled import bundled_portraits

    settings = Settings(home=home, gallery={"url": url}, **NOT_FETCHED)  # type: ignore[arg-type]
    with open_gallery(settings) as gallery:
        add(gallery, open_engine(settings), bundled_portraits(), backbones=("dlib",))
        (space,) = gallery.spaces()
        fill(gallery, space, MadePeople(space.dimensions), PEOPLE, 1)
        gallery.settle(space)
        if url is not None:
            analyse(gallery)


class Stages:
    """Counts the processor time of what is called, by stage; one question at a time."""

    def __init__(self) -> None:
        self.ms: Ms = defaultdict(list)

    def watch(self, owner: Any, name: str, stage: str) -> None:
        """Counts every call of a method as that stage."""
        inner: Callable[..., T] = getattr(owner, name)

        def counted(*given: Any, **named: Any) -> Any:
            began = time.process_time()
            try:
                return inner(*given, **named)
            finally:
                self.ms[stage].append((time.process_time() - began) * 1000)

        object.__setattr__(owner, name, counted)


async def measure_stages(home: Path, count: int, url: str | None = None) -> dict[str, Any]:
    """Milliseconds of each stage of so many photos, asked about in this process."""
    from talking import Person, chatting

    from bot.values import Sender

    stages, pictures = Stages(), photos_of_1280_px()
    databases = {"gallery": {"url": url}, "database": {"url": url}} if url else {}
    async with chatting(
        home, **NOT_FETCHED, queue={"photos_per_minute": 10**6}, **databases
    ) as talk:  # type: ignore[arg-type]
        person = Person(talk, Sender("telegram", "1", "1"))
        for picture in pictures * 3:
            await person.says("", picture)
        engine, recognizer = talk.recognizer.engine, talk.recognizer
        for name in ("decode", "detect", "embed"):
            stages.watch(engine, name, name)
        stages.watch(talk.gallery, "top_matches", "search")
        finish = recognizer.finish

        async def finished(function: Callable[[], T], ms: Any = None, step: str = "") -> T:
            if step != "draw":
                return await finish(function, ms, step)

            def counted() -> T:
                began = time.process_time()
                try:
                    return function()
                finally:
                    stages.ms["draw"].append((time.process_time() - began) * 1000)

            return await finish(counted, ms, step)

        object.__setattr__(recognizer, "finish", finished)
        whole, workers, card_bytes = [], [], 0
        for number in range(count):
            before, before_workers = time.process_time(), processor_ms(children(os.getpid()))
            reply = await person.says("", pictures[number % len(pictures)])
            await asyncio.sleep(REST_S)
            whole.append((time.process_time() - before) * 1000)
            workers.append(processor_ms(children(os.getpid())) - before_workers)
            card_bytes = max(card_bytes, len(reply.picture.jpeg if reply.picture else b""))
    ms = {stage: values for stage, values in stages.ms.items() if len(values) == count}
    here_ms = statistics.mean(ms["decode"])
    decoded = zip(ms["decode"], workers, strict=True)
    ms["decode"] = [here + there for here, there in decoded]
    sums = map(sum, zip(*ms.values(), strict=True))
    pairs = zip(whole, workers, sums, strict=True)
    ms["conversation"] = [max(0.0, all_ms + there - known) for all_ms, there, known in pairs]
    sizes = {"photo_kb": statistics.mean(map(len, pictures)) / 1000, "card_kb": card_bytes / 1000}
    return {"ms": ms, "decode_here_ms": here_ms, **sizes}


@asynccontextmanager
async def bot_of(home: Path, api: BotApi, **settings: str) -> Any:
    """A bot of its own process that people can write to."""
    chosen = {**SETTINGS, "HOME": str(home), **settings}
    environment = os.environ | {f"LOOKALIKE_{name}": value for name, value in chosen.items()}
    environment |= {
        "LOOKALIKE_TELEGRAM__TOKEN": api.token,
        "LOOKALIKE_TELEGRAM__BASE_URL": f"{api.url}/bot",
        "LOOKALIKE_TELEGRAM__BASE_FILE_URL": f"{api.url}/file/bot",
    }
    bot = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", "run", env=environment, stdout=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(120):
            while not api.called("getUpdates"):  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.1)
        yield bot
    finally:
        if bot.returncode is None:
            bot.terminate()
        await bot.wait()


async def measure_bot(home: Path, count: int) -> tuple[list[float], list[dict[str, float]]]:
    """Milliseconds of the bot's process for each of so many photos, and what crowds waited."""
    async with BotApi() as api, bot_of(home, api) as bot:
        crowd, alone = Crowd(api), list[float]()
        for person in range(6):
            await crowd.wait_ms(person)
        for _ in range(count):
            before = processor_ms([bot.pid])
            await crowd.wait_ms(0)
            await asyncio.sleep(REST_S)
            alone.append(processor_ms([bot.pid]) - before)
        return alone, [await kept_busy(crowd, people, bot.pid) for people in CROWDS]


async def kept_busy(crowd: Crowd, people: int, bot: int) -> dict[str, float]:
    """So many people who send the next photo when the last is answered."""
    waited, began, load = list[float](), time.perf_counter(), os.getloadavg()[0]
    pids = {"bot": [bot], "driver": [os.getpid()]}
    before = {name: processor_ms(of) for name, of in pids.items()}

    async def ask(person: int) -> None:
        while time.perf_counter() < began + BUSY_S:
            waited.append(await crowd.wait_ms(person))

    await asyncio.gather(*map(ask, range(people)))
    seconds = time.perf_counter() - began
    used = {name: (processor_ms(of) - before[name]) / len(waited) for name, of in pids.items()}
    return {
        "people": people,
        "load": load,
        "answers_per_s": len(waited) / seconds,
        "median_ms": statistics.median(waited),
        "within_95_ms": quantile(waited, 0.95),
        **{f"{name}_ms": ms for name, ms in used.items()},
        "resident_mb": resident_mb(bot),
    }


def measure_engine(home: Path, replicas: int) -> dict[str, float]:
    """Photos looked at by so many replicas: for one client alone, then for many."""
    from engine.remote import EngineService

    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    command = ["serve-engine", "--cores", "1", "--replicas", str(replicas), str(replicas)]
    chosen = {**SETTINGS, "HOME": str(home)}
    environment = os.environ | {f"LOOKALIKE_{name}": value for name, value in chosen.items()}
    served = subprocess.Popen(
        [sys.executable, "-m", "bot", *command, "--port", str(port)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert served.stdout is not None
    try:
        if not any("answers at" in line for line in served.stdout):
            raise SystemExit("the engine does not start")
        pictures = [np.frombuffer(picture, np.uint8) for picture in photos_of_1280_px()]
        with EngineService(f"http://127.0.0.1:{port}") as service:
            service.connect()

            def look(number: int) -> float:
                began = time.perf_counter()
                question = {"ask": "look", "models": ["dlib"]}
                service.ask(question, [pictures[number % 2]], lambda *_: None)
                return (time.perf_counter() - began) * 1000

            for number in range(10 * replicas):
                look(number)
            alone, load = [look(number) for number in range(60)], os.getloadavg()[0]
            pids, until = [served.pid, *descendants(served.pid)], time.perf_counter() + BUSY_S
            before, own, began = processor_ms(pids), time.process_time(), time.perf_counter()

            def client(number: int) -> list[float]:
                found = []
                while time.perf_counter() < until:
                    found.append(look(number))
                return found

            clients = CLIENTS_PER_REPLICA * replicas
            with ThreadPoolExecutor(clients) as threads:
                waited = [ms for found in threads.map(client, range(clients)) for ms in found]
            seconds = time.perf_counter() - began
            used_ms = processor_ms(pids) - before
            return {
                "replicas": replicas,
                "clients": clients,
                "load": load,
                "answers_per_s": len(waited) / seconds,
                "median_ms": statistics.median(waited),
                "within_95_ms": quantile(waited, 0.95),
                "alone_median_ms": statistics.median(alone),
                "engine_ms": used_ms / len(waited),
                "client_ms": (time.process_time() - own) * 1000 / len(waited),
                "resident_mb": max(map(resident_mb, descendants(served.pid))),
            }
    finally:
        served.terminate()
        served.wait()


async def measure_postgres(count: int) -> dict[str, Any]:
    """What the server is asked by a bot that keeps all in it, for each of so many photos."""
    import psycopg

    asked = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    with (
        server(None) as url,
        tempfile.TemporaryDirectory() as folder,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        postmaster = int(process_status(row[0])[1])

        def state() -> tuple[float, int]:
            found = connection.execute(asked).fetchone()
            assert found is not None
            ended = sum(map(int, process_status(postmaster)[13:15]))  # that it waited for
            ended_ms = 1000 * ended / os.sysconf("SC_CLK_TCK")
            return ended_ms + processor_ms(children(postmaster)), int(found[0])

        make_home(Path(folder), url)
        before = state()
        measured = await measure_stages(Path(folder), count, url)
        after = state()
        row = connection.execute("SELECT avg(pg_column_size(m.*)) FROM past_match m").fetchone()
        assert row is not None
    photos_asked = count + 6
    return {
        "server_ms": (after[0] - before[0]) / photos_asked,
        "transactions": (after[1] - before[1]) / photos_asked,
        "row_bytes": float(row[0]),
        "search_ms": statistics.mean(measured["ms"]["search"]),
        "conversation_ms": statistics.mean(measured["ms"]["conversation"]),
    }


def main() -> None:
    """Measures, prints, and writes what was measured if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=60, help="for each figure")
    parser.add_argument("--record", action="store_true", help=f"write {SERVICE_TIMES.name}")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home, cores = Path(folder) / "home", os.sched_getaffinity(0)
        make_home(home)
        alone, crowds = asyncio.run(measure_bot(home, arguments.photos))
        os.sched_setaffinity(0, {min(cores)})
        measured = asyncio.run(measure_stages(home, arguments.photos))
        os.sched_setaffinity(0, cores)
        engines = [measure_engine(home, replicas) for replicas in (1, 2)]
        postgres = asyncio.run(measure_postgres(arguments.photos))
    stages = measured["ms"]
    inside = (
        "detect",
        "embed",
        "search",
        "draw",
    )  # decoding is in a process of its own, nearly all
    known_ms = sum(statistics.mean(stages[stage]) for stage in inside)
    known_ms += measured["decode_here_ms"]
    del stages["conversation"]
    stages["talk"] = [max(0.0, ms - known_ms) for ms in alone]
    measured |= {"runs": crowds, "engines": engines, "postgres": postgres, "people": PEOPLE}
    for stage, values in stages.items():
        print(
            f"{stage:8} {statistics.mean(values):6.2f} ms, 95 %: {quantile(values, 0.95):6.2f} ms"
        )
    for name in ("runs", "engines", "postgres", "photo_kb", "card_kb"):
        print(name, measured[name])
    if arguments.record:
        rounded = json.loads(json.dumps(measured), parse_float=lambda text: round(float(text), 3))
        record("photo", rounded, file=SERVICE_TIMES)


if __name__ == "__main__":
    main()
