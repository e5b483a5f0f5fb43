"""How many files and functions one photo passes, and how many transactions one portrait takes.

The bot runs as a process of its own under ``sys.setprofile``, in every thread, against a Bot API
server on loopback. Counted are calls of functions in files of ``bot``, ``engine`` and ``gallery``,
in the order in which all threads make them, from the update (``telegram.Update.de_json``) to the
call that sends the card (``Bot.send_photo``), for a photo with one face, when others have been
answered before. A change of file is a call in another file than the call before it.

    python benchmarks/photo_walk.py [--files]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from matplotlib import cbook
from telegram_latency import SETTINGS, BotApi, Crowd, portraits

ROOT: Final = Path(__file__).parents[1]

PROFILER: Final = """
import json, os, signal, sys, threading
ROOT = sys.argv.pop(1) + os.sep
OUT = sys.argv.pop(1)
PLACES = tuple(ROOT + top + os.sep for top in ("bot", "engine", "gallery"))
NAMES, LAST = {}, [""]
FILES, FUNCTIONS, CHANGES = {}, set(), [0]
STATE = ["waiting"]

def place(code):
    name = NAMES.get(code)
    if name is None:
        path = code.co_filename
        name = path[len(ROOT):] if path.startswith(PLACES) else ""
        NAMES[code] = name
    return name

def profile(frame, event, _argument):
    if event != "call":
        return
    code = frame.f_code
    if "telegram" in code.co_filename:
        if code.co_name == "de_json" and code.co_filename.endswith("_update.py"):
            if STATE[0] == "armed":
                FILES.clear(); FUNCTIONS.clear(); CHANGES[0] = 0
                STATE[0] = "counting"
        elif code.co_name == "send_photo" and STATE[0] == "counting":
            STATE[0] = "done"
            with open(OUT + ".part", "w") as file:
                json.dump({"files": FILES, "functions": len(FUNCTIONS),
                           "changes": CHANGES[0]}, file)
            os.replace(OUT + ".part", OUT)
    if STATE[0] != "counting":
        return
    here = place(code)
    if not here:
        return
    FILES[here] = FILES.get(here, 0) + 1
    FUNCTIONS.add(code)
    if LAST[0] != here:
        CHANGES[0] += 1
        LAST[0] = here

def arm(*_):
    STATE[0] = "armed"

signal.signal(signal.SIGUSR1, arm)
threading.setprofile(profile)
sys.setprofile(profile)
from bot.cli.main import main
main()
"""

TRANSACTIONS: Final = """
import sys
from sqlalchemy import Engine, event
BEGUN = [0]
CONNECTED = [0]
@event.listens_for(Engine, "begin")
def _(connection):
    BEGUN[0] += 1
@event.listens_for(Engine, "connect")
def _(*_):
    CONNECTED[0] += 1
from bot.cli.main import main
try:
    main()
finally:
    print(f"{BEGUN[0]} transactions, {CONNECTED[0]} connections", file=sys.stderr)
"""


def count_transactions(environment: Mapping[str, str], folder: Path) -> str:
    """What `lookalike gallery add` of one portrait to a gallery that has others begins."""
    one = folder / "one" / "Somebody New"
    one.mkdir(parents=True)
    shutil.copy(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False), one / "1.jpg")
    with (one / "1.jpg").open("ab") as file:
        file.write(b" ")  # another file to the gallery, the same picture
    done = subprocess.run(
        [sys.executable, "-c", TRANSACTIONS, "gallery", "add", str(folder / "one")],
        env=dict(environment),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr.strip().splitlines()[-1]


async def count_walk(environment: dict[str, str], folder: Path) -> dict[str, Any]:
    """Sends photos to a running bot; what one of them passed when the bot was warm."""
    out = folder / "walk.json"
    async with BotApi() as api:
        environment |= {
            "LOOKALIKE_TELEGRAM__TOKEN": api.token,
            "LOOKALIKE_TELEGRAM__BASE_URL": f"{api.url}/bot",
            "LOOKALIKE_TELEGRAM__BASE_FILE_URL": f"{api.url}/file/bot",
        }
        bot = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROFILER, str(ROOT), str(out), "run", env=environment
        )
        try:
            async with asyncio.timeout(60):
                while not api.called("getUpdates"):  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(0.1)
            crowd = Crowd(api)
            for _ in range(5):
                await crowd.wait_ms(0)
            await asyncio.sleep(1)
            bot.send_signal(signal.SIGUSR1)
            await asyncio.sleep(0.2)
            await crowd.wait_ms(0)
            found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
            return found
        finally:
            if bot.returncode is None:
                bot.terminate()
            await bot.wait()


def main(*, files: bool) -> None:
    """Counts and prints."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for person, picture in portraits().items():
            (folder / "people" / person).mkdir(parents=True)
            picture.convert("RGB").save(folder / "people" / person / "portrait.jpg")
        environment = {
            **os.environ,
            **{f"LOOKALIKE_{key}": value for key, value in SETTINGS.items()},
            "LOOKALIKE_HOME": str(folder / "home"),
            "PYTHONPATH": str(ROOT),
        }
        subprocess.run(
            [sys.executable, "-m", "bot", "gallery", "add", str(folder / "people")],
            env=environment,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        walk = asyncio.run(count_walk(dict(environment), folder))
        print(
            f"one photo: {len(walk['files'])} files, {walk['functions']} functions, "
            f"{walk['changes']} changes of file (bars: under 40 files, under 250 changes)"
        )
        if files:
            for file, calls in sorted(walk["files"].items()):
                print(f"  {calls:5d} {file}")
        print(f"one portrait added: {count_transactions(environment, folder)} (bar: 3)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", action="store_true", help="list the files and their calls")
    main(files=parser.parse_args().files)
