"""Two processes of one bot behind one webhook, and the balancer in front of them."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from telegram_mirror import until
from telegram_server import BotApi

from bot import adapters

__all__ = ["KEY", "Pair", "started"]

KEY = "one key for all the processes of a bot"
PATH = "/hook"
PROGRAM = """
import sys
from bot import adapters
from bot.cli.main import main
adapters.CLAIM_S = float(sys.argv[1])
sys.argv = ["lookalike", "run"]
main()
"""


@dataclass
class Pair:
    """A bot of two processes, each with a door; a balancer in front knocks in turn."""

    api: BotApi
    doors: tuple[str, str]
    processes: tuple[asyncio.subprocess.Process, asyncio.subprocess.Process]

    def at(self, *doors: int, both: bool = False) -> None:
        """The next updates go there in turn, or each to both."""
        chosen = (
            [[self.doors[door] for door in doors]] if both else [[self.doors[one]] for one in doors]
        )
        self.api.doors = itertools.cycle(chosen)


@asynccontextmanager
async def started(
    homes: Sequence[Path],
    database_url: str,
    memory_url: str,
    *,
    claim_s: float = adapters.CLAIM_S,
    **settings: str,
) -> AsyncIterator[Pair]:
    """A process for each of two data folders, on one database and one Valkey; ended at the end.

    ``claim_s`` says how soon one that was killed is missed.
    """
    ports = []
    for _ in homes:
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports.append(free.getsockname()[1])
    doors = [f"http://127.0.0.1:{port}{PATH}" for port in ports]
    async with BotApi() as api:
        common = {
            "DATABASE__URL": database_url,
            "DATABASE__KEY": KEY,
            "MEMORY__URL": memory_url,
            "DEFAULT_MODEL": "dlib",
            "MODELS__CONFIGURED": '["dlib"]',
            "MODELS__FETCH": "false",
            "GALLERY__STARTER": "false",
            "TELEGRAM__TOKEN": api.token,
            "TELEGRAM__BASE_URL": f"{api.url}/bot",
            "TELEGRAM__BASE_FILE_URL": f"{api.url}/file/bot",
            "TELEGRAM__WEBHOOK__URL": doors[0],
        }
        others = {name: v for name, v in os.environ.items() if not name.startswith("LOOKALIKE_")}
        processes = []
        for home, port in zip(homes, ports, strict=True):
            own = common | settings | {"HOME": str(home), "TELEGRAM__WEBHOOK__PORT": str(port)}
            env = others | {f"LOOKALIKE_{name}": value for name, value in own.items()}
            command = (sys.executable, "-c", PROGRAM, str(claim_s))
            processes.append(await asyncio.create_subprocess_exec(*command, env=env))
        try:
            await until(lambda: len(api.called("setWebhook")) == 2, within_s=60)
            yield Pair(api, (doors[0], doors[1]), (processes[0], processes[1]))
        finally:
            for process in processes:
                if process.returncode is None:
                    process.terminate()
                await process.wait()
