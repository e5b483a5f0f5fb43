"""What monitoring systems are told, by a real server on loopback."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from talking import Person, chatting

from bot.monitor import Monitor
from bot.settings import MonitorSettings
from bot.values import Sender
from engine.errors import SetupProblem


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


async def test_answers_are_counted_and_parts_that_are_gone_are_named(
    own_home: Path, hopper_jpeg: bytes
) -> None:
    telegram: Any = SimpleNamespace(name="telegram", connected=True)
    async with chatting(own_home) as conversation:
        monitor, settings = Monitor(conversation, [telegram]), MonitorSettings(port=free_port())
        url = f"http://127.0.0.1:{settings.port}"
        async with monitor.served(settings), httpx.AsyncClient(base_url=url) as client:
            person = Person(conversation, Sender("telegram", "secret-user-17", "secret-chat-18"))
            await person.says("", hopper_jpeg)
            await person.says("", b"no picture")
            assert (await client.get("/healthz")).text == "ok\n"
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()["ready"]) == (200, True)
            told = (await client.get("/metrics")).text
            samples = {
                (sample.name, *sample.labels.values()): sample.value
                for family in text_string_to_metric_families(told)
                for sample in family.samples
            }
            assert samples["lookalike_answers_total", "dlib", "answered", "telegram"] == 1
            assert samples["lookalike_answers_total", "", "NotAnImage", "telegram"] == 1
            assert samples["lookalike_stage_seconds_count", "detect"] == 1
            assert samples["lookalike_connected", "telegram"] == 1
            assert samples["lookalike_queue",] == 0
            assert samples["process_resident_memory_bytes",] > 0
            assert "secret" not in told
            assert "Hopper" not in told

            telegram.connected = False
            conversation.gallery.close()
            (own_home / "gallery" / "gallery.db").write_bytes(b"no database" * 1000)
            ready = await client.get("/readyz")
            assert ready.status_code == 503
            gone = [name for name, works in ready.json().items() if not works]
            assert gone == ["ready", "telegram", "gallery"]
            with pytest.raises(SetupProblem, match=str(settings.port)):
                await Monitor(conversation, []).served(settings).__aenter__()
