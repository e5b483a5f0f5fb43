"""What goes on behind the conversation: models, retention, memory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from bot.logs import where
from engine.errors import LookalikeError

if TYPE_CHECKING:
    from bot.circles import Circles
    from bot.growing import Growing
    from bot.model_desk import ModelDesk
    from bot.recognizer import Recognizer
    from bot.recollections import Recollections
    from bot.settings import Settings
    from bot.store import Store
    from engine.engine import Engine
    from gallery.gallery import Gallery

__all__ = ["fill_gallery", "keep_up"]

log = logging.getLogger(__name__)

SWEEP_S = 3600.0
TIDY_S = 60.0


@contextlib.asynccontextmanager
async def keep_up(
    *,
    desk: ModelDesk,
    store: Store,
    recognizer: Recognizer,
    recollections: Recollections,
    circles: Circles,
) -> AsyncIterator[None]:
    """Runs the upkeep for as long as the context is open; a failure is logged and tried again."""

    async def tidy() -> None:
        recollections.tidy()
        circles.tidy()
        recognizer.tidy()

    tasks = [
        asyncio.create_task(_again_and_again(desk.keep_up, 60.0)),
        asyncio.create_task(_again_and_again(store.sweep, SWEEP_S)),
        asyncio.create_task(_again_and_again(tidy, TIDY_S)),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def fill_gallery(
    gallery: Gallery, engine: Engine, settings: Settings, growing: Growing
) -> AsyncIterator[None]:
    """Downloads the starter gallery in the background, if the gallery is that of a fresh machine.

    The bot answers meanwhile with whom it has, and says so; what is fetched joins as it comes.
    Without a contact or a network the log says in one sentence how to add people.
    """
    stop = threading.Event()

    async def fill() -> None:
        from bot.starter import STARTER_PEOPLE, download_starter, starter_wanted

        try:
            if not await asyncio.to_thread(starter_wanted, gallery):
                return
            growing.begin(STARTER_PEOPLE)
            harvest = await asyncio.to_thread(
                download_starter, gallery, engine, settings, stop=stop
            )
            if harvest is not None:
                log.info("starter gallery downloaded", extra={"added": harvest.report.added})
        except LookalikeError as problem:
            log.warning(
                "the gallery holds the bundled portraits only; add people with "
                "`lookalike gallery download` or `lookalike gallery add FOLDER`",
                extra={"reason": str(problem)},
            )
        except Exception as problem:  # noqa: BLE001 - it must not end the program
            log.error("starter gallery failed", extra={"fault": where(problem)})  # noqa: TRY400
        finally:
            growing.end()

    task = asyncio.create_task(fill()) if settings.gallery.starter else None
    try:
        yield
    finally:
        stop.set()  # the thread ends at the next picture; it can't be cancelled
        if task is not None:
            await task


async def _again_and_again(work: Callable[[], Awaitable[object]], pause_s: float) -> None:
    while True:
        try:
            await work()
        except LookalikeError as problem:
            log.warning("upkeep failed", extra={"reason": str(problem)})
        except Exception as problem:  # noqa: BLE001 - it must not end the program, nor itself
            log.error("upkeep failed", extra={"fault": where(problem)})  # noqa: TRY400
        await asyncio.sleep(pause_s)
