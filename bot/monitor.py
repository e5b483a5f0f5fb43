"""What monitoring systems ask: ``/healthz``, ``/readyz``, ``/metrics``, on their own port."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from bot.adapters import Adapter, listening_socket
from bot.conversation import Conversation
from bot.settings import MonitorSettings
from engine.decode import tally
from engine.errors import SetupProblem

CHECK_S = 5.0  # a database or a gallery that takes longer to answer counts as gone
BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Monitor:
    """Counts answers, and says how the parts are. No label holds what a person sent or is called.

    A process that does not answer ``/healthz`` hangs: restart it. ``/readyz`` names the parts that
    can't work now, such as ``telegram``; those mend themselves or are named in the log.
    """

    def __init__(self, conversation: Conversation, adapters: Sequence[Adapter[Any]]) -> None:
        self._conversation, self._adapters = conversation, adapters
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # resident memory, processor time, open files
        answered = ("platform", "outcome", "model")
        self._answers = Counter("lookalike_answers", "Answers given.", answered, registry=registry)
        self._seconds = Histogram(
            "lookalike_stage_seconds",
            "Time spent on an answer by stage; total is the whole of it.",
            ("stage",),
            buckets=BUCKETS_S,
            registry=registry,
        )
        said = "Whether a platform is reached."
        connected = Gauge("lookalike_connected", said, ("platform",), registry=registry)
        for adapter in adapters:
            reached = functools.partial(getattr, adapter, "connected")
            connected.labels(adapter.name).set_function(reached)
        queue = Gauge("lookalike_queue", "Questions in work or waiting.", registry=registry)
        queue.set_function(lambda: conversation.recognizer.inside)
        self._service = service = conversation.recognizer.engine.service
        if service is not None:
            said = "Whether the engine, which is elsewhere, is reached."
            there = Gauge("lookalike_engine_reached", said, registry=registry)
            there.set_function(lambda: service.reached)
            said = "Questions to it that were asked once more."
            retried = Gauge("lookalike_engine_retried", said, registry=registry)
            retried.set_function(lambda: service.retried)
        replaced = Gauge(
            "lookalike_decode_workers_replaced",
            "Processes that a picture ended, or that were ended over one.",
            registry=registry,
        )
        replaced.set_function(lambda: tally["replaced"])
        conversation.listeners.append(self.count)

    def count(self, facts: Mapping[str, object], spent_ms: Mapping[str, float]) -> None:
        """Counts one answer."""
        labels = (str(facts.get(name, "")) for name in ("platform", "outcome", "model"))
        self._answers.labels(*labels).inc()
        for stage, ms in spent_ms.items():
            self._seconds.labels(stage).observe(ms / 1000)

    async def parts(self) -> dict[str, bool]:
        """Whether each part can work now."""
        found = {adapter.name: adapter.connected for adapter in self._adapters}
        found["model"] = bool(self._conversation.models.ready())
        if self._service is not None:
            found["engine"] = self._service.reached
        if self._conversation.memory.shared:
            found["memory"] = self._conversation.memory.connected
        checks = {
            "store": self._conversation.store.kept("readyz"),
            "gallery": asyncio.to_thread(self._conversation.gallery.counts),
        }
        for name, check in checks.items():
            found[name] = False
            with contextlib.suppress(Exception):  # whatever it is, the part is not ready
                await asyncio.wait_for(check, CHECK_S)
                found[name] = True
        return found

    async def _answer(self, request: web.Request) -> web.Response:
        if request.path == "/healthz":
            return web.Response(text="ok\n")
        if request.path == "/metrics":
            metrics = generate_latest(self.registry)
            return web.Response(body=metrics, headers={"Content-Type": CONTENT_TYPE_LATEST})
        parts = await self.parts()
        # Without the shared memory each process answers on its own.
        ready = all(works for part, works in parts.items() if part != "memory")
        return web.json_response({"ready": ready, **parts}, status=200 if ready else 503)

    @contextlib.asynccontextmanager
    async def served(self, settings: MonitorSettings) -> AsyncIterator[None]:
        """Answers while the block runs; raises SetupProblem if the port can't be had."""
        site = web.Application()
        paths = ("/healthz", "/readyz", "/metrics")
        site.add_routes([web.get(path, self._answer) for path in paths])
        try:
            door = listening_socket(settings.host, settings.port or 0)
        except OSError as problem:
            place = f"{settings.host}:{settings.port}"
            raise SetupProblem(f"monitor: can't listen on {place}: {problem.strerror}") from None
        runner = web.AppRunner(site, access_log=None)
        await runner.setup()
        try:
            await web.SockSite(runner, door).start()
            yield
        finally:
            await runner.cleanup()
