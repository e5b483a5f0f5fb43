"""One request while it is being answered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bot.values import Limits, Reply, Request
from bot.wording import Wording

if TYPE_CHECKING:
    from bot.store.keys import Who

__all__ = ["Refusal", "Turn"]


@dataclass(slots=True)
class Turn:
    """A request, who asks, and what is noted for the log on the way to the answer.

    Attributes:
        request: What was asked.
        limits: What the platform can carry.
        who: The asker's keys; never an id.
        wording: Every sentence.
        notes: Facts for the log line: no photo, no id, no name of a person.
        ms: Milliseconds by step.
    """

    request: Request
    limits: Limits
    who: Who
    wording: Wording
    notes: dict[str, object] = field(default_factory=dict)
    ms: dict[str, float] = field(default_factory=dict)

    def say(self, key: str, **details: object) -> str:
        """A sentence in the asker's language."""
        return self.wording.text(key, self.request.sender.language, **details)

    def number(self, value: int) -> str:
        """A whole number as the asker's language writes it."""
        return self.wording.number(value, self.request.sender.language)

    @property
    def public(self) -> bool:
        """Whether others would read the reply."""
        return self.request.sender.is_group and not self.limits.whispers

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Adds the time spent inside to that step."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.ms[step] = self.ms.get(step, 0.0) + (time.perf_counter() - started) * 1000


class Refusal(Exception):  # noqa: N818 - not an error of ours: the asker is told what to do
    """Ends a turn with a reply that says what to do instead."""

    def __init__(self, reply: Reply) -> None:
        super().__init__("refused")
        self.reply = reply
