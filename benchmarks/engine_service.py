"""The engine as a service: what it adds to a photo, what two replicas do, and one of two killed.

    python benchmarks/engine_service.py [--seconds 20] [--record]

`lookalike serve-engine` runs as a process of its own, with dlib. What it adds is measured photo by
photo, in turns with an engine in this process. Replicas of one core each are pinned, with their
decode workers, the first to core 0 and the second to core 1; who asks them only sends and reads.
The killed one dies under questions that are decoded here, too, as in a bot.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from figures import record

from bot.app import open_engine
from bot.settings import Settings
from engine.backbones.network import portrait_jpeg
from engine.engine import Engine, comparable
from engine.errors import LookalikeError
from engine.runtime import cores

ASKING = 8  # as many as a bot asks at once
ROUNDS = 150
ONE_PHOTO = """
import asyncio, resource, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from talking import Person, chatting
from bot.values import Sender
async def main():
    async with chatting(Path({home!r}), **{sections!r}) as conversation:
        person = Person(conversation, Sender("telegram", "1", "1"))
        for _ in range(5):
            reply = await person.says("", Path({photo!r}).read_bytes())
            assert reply.picture is not None, reply
print(asyncio.run(main()) or int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6)
"""


@contextlib.contextmanager
def serving(home: Path, *options: str) -> Iterator[tuple[str, int]]:
    """The service's address, and the id of its process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "bot", "serve-engine", "--home", str(home), "--port", port]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if not any("The engine answers" in line for line in process.stdout):
        raise SystemExit("the service does not start")
    try:
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.communicate()


def replicas_of(service: int) -> list[int]:
    """Process ids of a service's replicas."""
    parents, found = {}, []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name = status.read_text()
            parents[int(status.parent.name)] = int(name.rpartition(") ")[2].split()[1])
    for one, raylet in parents.items():
        with contextlib.suppress(OSError):
            started_here = parents.get(raylet) == service
            if started_here and "ServeReplica" in Path(f"/proc/{one}/cmdline").read_text():
                found.append(one)
    return found


def remote(home: Path, url: str) -> Engine:
    """An engine whose work is done there."""
    return open_engine(Settings(home=home, engine={"address": url}))


def added_ms(here: Engine, there: Engine, photos: list[bytes]) -> dict[str, float]:
    """Medians of a photo here and there, asked in turns."""
    spent: dict[str, list[float]] = {"here": [], "there": []}

    def look_here(data: bytes) -> None:
        photo, faces, _ = here.look(data)
        here.embed([(photo, comparable(faces)[0])], "dlib")

    ways: dict[str, Callable[[bytes], object]]
    ways = {"here": look_here, "there": lambda data: there.look(data, ["dlib"])}
    for number in range(ROUNDS + 10):
        for way, look in ways.items():
            began = time.perf_counter()
            look(photos[number % len(photos)])
            spent[way] += [(time.perf_counter() - began) * 1000] * (number >= 10)
    medians = {f"{way}_ms": statistics.median(ms) for way, ms in spent.items()}
    return medians | {"added_ms": medians["there_ms"] - medians["here_ms"]}


def asked(
    look: Callable[[], object], seconds: float, kill: Callable[[], None] | None = None
) -> list[float]:
    """Seconds that each answer took that several threads got; NaN for none."""
    until, spent = time.perf_counter() + seconds, list[float]()

    def ask() -> None:
        while time.perf_counter() < until:
            began = time.perf_counter()
            try:
                look()
                spent.append(time.perf_counter() - began)
            except LookalikeError as problem:
                print("  not answered:", problem)
                spent.append(float("nan"))

    threads = [threading.Thread(target=ask) for _ in range(ASKING)]
    for thread in threads:
        thread.start()
    if kill is not None:
        time.sleep(seconds / 3)
        kill()
    for thread in threads:
        thread.join()
    return spent


def bot_memory_mb(home: Path, folder: Path, **sections: dict[str, str]) -> float:
    """Resident memory of a bot that has answered five photos."""
    tests, photo = Path(__file__).parents[1] / "tests", folder / "photo.jpg"
    photo.write_bytes(portrait_jpeg("grace_hopper"))
    known = {"tests": str(tests), "home": str(home), "photo": str(photo), "sections": sections}
    command = [sys.executable, "-c", ONE_PHOTO.format(**known)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Measures, and prints a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run under load")
    parser.add_argument("--record", action="store_true", help="keep the figures for the docs")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    photos = [portrait_jpeg(name) for name in ("grace_hopper", "eileen_collins")]
    with tempfile.TemporaryDirectory() as name:
        folder, home = Path(name), Path(name) / "home"
        here = open_engine(Settings(home=home))
        here.load("dlib")
        figures["bot_memory_mb"] = bot_memory_mb(home, folder)
        with serving(home) as (url, _):
            figures |= added_ms(here, remote(home, url), photos)
            engine = {"address": url}
            figures["bot_memory_elsewhere_mb"] = bot_memory_mb(home, folder, engine=engine)
        whole = here.decode(photos[0])
        for count in (1, min(2, cores())):
            pinned = ("--cores", "1", "--replicas", str(count), str(count))
            with serving(home, *pinned) as (url, pid):
                there = remote(home, url)
                service = there.service
                assert service is not None
                light = lambda: service.look(photos[0], ["dlib"], lambda *_: whole)  # noqa: B023, E731
                asked(light, 3.0)
                spent = asked(light, arguments.seconds)
                figures[f"photos_per_s_{count}"] = len(spent) / arguments.seconds
                if count == 1:
                    continue
                kill = lambda: os.kill(replicas_of(pid)[0], signal.SIGKILL)  # noqa: E731
                spent = asked(lambda: there.look(photos[0], ["dlib"]), arguments.seconds, kill)  # noqa: B023
                answered = sorted(one for one in spent if not math.isnan(one))
                figures["killed_answered"] = len(answered)
                figures["killed_unanswered"] = len(spent) - len(answered)
                figures["killed_asked_again"] = service.retried
                figures["killed_p50_s"] = statistics.median(answered)
                figures["killed_p99_s"] = answered[int(0.99 * len(answered))]
                figures["killed_longest_s"] = answered[-1]
        figures["two_against_one"] = figures["photos_per_s_2"] / figures["photos_per_s_1"]
    for what, value in figures.items():
        print(f"{what} {value:,.4g}")
    if arguments.record:
        record("engine_service", figures)


if __name__ == "__main__":
    main()
