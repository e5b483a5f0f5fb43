"""Runs the adapters: one task group, one stop event, a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

from bot.adapters import Adapter
from bot.app import open_conversation
from bot.logs import where
from engine.errors import LookalikeError, SetupProblem

if TYPE_CHECKING:
    from bot.conversation import Conversation
    from bot.settings import Settings

__all__ = ["Crash", "run_adapters", "serve"]

log = logging.getLogger(__name__)

# With what comes after it the whole end stays below the 10 s that supervisors grant.
PATIENCE_S = 7.0

# Adapter -> its module, class and the extra that brings its SDK.
ADAPTERS = {
    "telegram": ("bot.adapters.telegram", "TelegramAdapter"),
    "discord": ("bot.adapters.discord", "DiscordAdapter"),
    "web": ("bot.adapters.web", "WebAdapter"),
}


class Crash(Exception):  # noqa: N818 - it is what it says
    """An adapter failed in a way nobody foresaw; the log says where."""


async def serve(settings: Settings) -> None:
    """Runs every adapter that the settings ask for until SIGINT or SIGTERM.

    Raises:
        SetupProblem: If a token, a setting or a package is wrong or missing.
        Crash: If an adapter failed for another reason.
    """
    wanted = adapters_wanted(settings)
    makers = {name: _adapter_class(name) for name in wanted}
    stop = asyncio.Event()
    async with (
        _stopped_by_signals(stop),
        open_conversation(settings, fills_gallery=True) as conversation,
    ):
        adapters = [
            _make(name, makers[name], conversation, settings, alone=len(wanted) == 1)
            for name in wanted
        ]
        log.info("serving", extra={"adapters": ",".join(wanted)})
        await run_adapters(adapters, stop)
        log.info("stopping")


def adapters_wanted(settings: Settings) -> tuple[str, ...]:
    """Names of the adapters to run: those with a token, and the web chat if told or if alone."""
    platforms = [
        name
        for name, section in (("telegram", settings.telegram), ("discord", settings.discord))
        if section.token is not None
    ]
    web = settings.web.enabled if settings.web.enabled is not None else not platforms
    wanted = (*platforms, "web") if web else tuple(platforms)
    if not wanted:
        raise SetupProblem(
            "there is nothing to run: set a token for Telegram or Discord, or web.enabled = true"
        )
    return wanted


async def run_adapters(adapters: Sequence[Adapter], stop: asyncio.Event) -> None:
    """Runs them side by side until ``stop``; if one ends or fails, all end.

    Raises:
        LookalikeError: What one of them raised.
        Crash: If one of them failed for another reason.
    """
    failures: list[Exception] = []

    async def run(adapter: Adapter) -> None:
        try:
            await adapter.run(stop)
        except LookalikeError as problem:
            failures.append(problem)
        except Exception as problem:  # noqa: BLE001 - its message may hold what must not be shown
            log.error("crashed", extra={"adapter": adapter.name, "fault": where(problem)})  # noqa: TRY400
            failures.append(Crash(f"{adapter.name} failed unexpectedly; the log says where"))
        finally:
            stop.set()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(adapter), name=adapter.name) for adapter in adapters]
        await stop.wait()
        _, late = await asyncio.wait(tasks, timeout=PATIENCE_S)
        for task in late:
            log.warning("cut short", extra={"adapter": task.get_name()})
            task.cancel()
    if failures:
        raise next((one for one in failures if isinstance(one, SetupProblem)), failures[0])


def _adapter_class(name: str) -> Callable[..., Adapter]:
    module, attribute = ADAPTERS[name]
    try:
        found: Callable[..., Adapter] = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] == "bot":
            raise
        raise SetupProblem(
            f"the package {missing.name} is missing: run `pip install 'lookalike[{name}]'`"
        ) from None
    return found


def _make(
    name: str,
    make: Callable[..., Adapter],
    conversation: Conversation,
    settings: Settings,
    *,
    alone: bool,
) -> Adapter:
    extra: dict[str, Any] = {"alone": alone} if name == "web" else {}
    section = getattr(settings, name)
    return make(conversation, section, cache_folder=settings.cache_folder, **extra)


@contextlib.asynccontextmanager
async def _stopped_by_signals(stop: asyncio.Event) -> AsyncIterator[None]:
    """The first SIGINT or SIGTERM sets ``stop``; a second SIGINT interrupts as usual."""
    loop = asyncio.get_running_loop()
    watched = (signal.SIGINT, signal.SIGTERM)

    def asked(_number: int) -> None:
        stop.set()
        with contextlib.suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGINT)

    installed = []
    for number in watched:
        with contextlib.suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, asked, number)
            installed.append(number)
    try:
        yield
    finally:
        for number in installed:
            loop.remove_signal_handler(number)
