"""What goes on behind the conversation: models, retention, memory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from bot.logs import where
from engine.errors import LookalikeError

if TYPE_CHECKING:
    from bot.model_desk import ModelDesk
    from bot.recognizer import Recognizer
    from bot.recollections import Recollections
    from bot.store import Store

__all__ = ["keep_up"]

log = logging.getLogger(__name__)

SWEEP_S = 3600.0
TIDY_S = 60.0


@contextlib.asynccontextmanager
async def keep_up(
    *, desk: ModelDesk, store: Store, recognizer: Recognizer, recollections: Recollections
) -> AsyncIterator[None]:
    """Runs the upkeep for as long as the context is open; a failure is logged and tried again."""

    async def tidy() -> None:
        recollections.tidy()
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


async def _again_and_again(work: Callable[[], Awaitable[object]], pause_s: float) -> None:
    while True:
        try:
            await work()
        except LookalikeError as problem:
            log.warning("upkeep failed", extra={"reason": str(problem)})
        except Exception as problem:  # noqa: BLE001 - it must not end the program, nor itself
            log.error("upkeep failed", extra={"fault": where(problem)})  # noqa: TRY400
        await asyncio.sleep(pause_s)
