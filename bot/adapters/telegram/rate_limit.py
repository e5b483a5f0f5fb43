"""How fast Telegram is spoken to, and what happens when it says "too fast"."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

from telegram.error import RetryAfter
from telegram.ext import AIORateLimiter

__all__ = ["ChatRateLimiter", "pause_after"]

log = logging.getLogger(__name__)

# The library warns at every 429 until its coming way to tell time spans is chosen
# (python-telegram-bot 22.2, telegram.error.RetryAfter).
os.environ.setdefault("PTB_TIMEDELTA", "true")

JSON = dict[str, Any]
Answer = bool | JSON | list[JSON]

# Nobody waits longer than this for an answer; Telegram names hours after gross abuse.
LONGEST_PAUSE_S = 600.0
# Shown for a moment only: worth nothing once it would have to wait.
MOMENTARY = frozenset({"sendChatAction", "answerCallbackQuery", "deleteMessage"})


class ChatRateLimiter(AIORateLimiter):
    """The library's limiter, but one chat's flood control never makes another chat wait.

    ``AIORateLimiter`` stops every request after a 429. Telegram counts per chat as a rule, so here
    only that chat waits, and its answer is delivered afterwards. What is shown for a moment only
    (the typing sign) neither counts as a message nor is repeated.

    Args:
        retries: How often a request is repeated after a 429.
    """

    __slots__ = ("_retries",)

    def __init__(self, *, retries: int = 10) -> None:
        super().__init__(max_retries=0)
        self._retries = retries

    async def process_request(
        self,
        callback: Callable[..., Coroutine[Any, Any, Answer]],
        args: Any,
        kwargs: JSON,
        endpoint: str,
        data: JSON,
        rate_limit_args: int | None,
    ) -> Answer:
        """Sends a request when the limits allow it, again after each 429.

        Raises:
            RetryAfter: If Telegram still refuses after every repetition, or names a pause that
                nobody would wait for.
        """
        if endpoint in MOMENTARY:
            return await callback(*args, **kwargs)
        for left in reversed(range(self._retries + 1)):
            try:
                return await super().process_request(
                    callback, args, kwargs, endpoint, data, rate_limit_args
                )
            except RetryAfter as problem:
                pause_s = pause_after(problem)
                if not left or pause_s > LONGEST_PAUSE_S:
                    raise
                log.info("telegram: %s has to wait %.0f s", endpoint, pause_s)
                await asyncio.sleep(pause_s + 0.1)
        raise AssertionError("unreachable")


def pause_after(problem: RetryAfter) -> float:
    """Seconds that Telegram asks to wait."""
    pause = problem.retry_after
    return pause.total_seconds() if isinstance(pause, timedelta) else float(pause)
