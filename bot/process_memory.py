"""What is known for a while, by name: the interface to it, and that of one process alone."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Name = tuple[str, ...]  # such as ("photo", token)

SAME: Any = object()  # what ``Memory.change`` is told to leave all as it is
MOST_LISTED = 5_000


@dataclass(eq=False, repr=False)
class Memory:
    """Values by name, each for some seconds; what was used least lately goes where all are large.

    This one is the process's own, and does at once what it is asked; ``bot.valkey`` has one that
    processes share. Where it is ``shared``, values are JSON's. No method fails.
    """

    most: float = math.inf  # the largest sum of sizes; what has no size stays
    size: Callable[[Any], float] = lambda _: 0
    clock: Callable[[], float] = time.monotonic
    shared = False
    connected = True  # whether what other processes know can be reached
    # Since and until when something is known, and what
    _kept: OrderedDict[Name, tuple[float, float, Any]] = field(default_factory=OrderedDict)
    _total: float = 0.0

    async def get(self, name: Name) -> Any:
        """What is known; None if nothing is."""
        if not self._is_known(name):
            self._drop(name)
            return None
        self._kept.move_to_end(name)
        return self._kept[name][2]

    async def change(self, name: Name, lives_s: float | None, change: Callable[[Any], Any]) -> Any:
        """Puts what ``change`` makes of what is known in its place, None for nothing; returns it.

        Without ``lives_s`` it stays as long as what was known would. Nobody else changes it
        meanwhile. ``change`` may be called more than once; where it raises, or returns ``SAME``,
        all stays as it was.
        """
        now, known = self.clock(), await Memory.get(self, name)
        value = change(known)
        if value is SAME:
            return known
        since, until, _ = self._drop(name)
        times = (since, until) if lives_s is None else (now, now + lives_s)
        if value is not None:
            self._kept[name] = *times, value
            self._total += self.size(value)
            self._shrink()
        return value

    async def put(
        self, name: Name, value: Any, lives_s: float | None = None, *, absent: bool = False
    ) -> bool:
        """Keeps a value, with ``absent`` only where nothing is known; whether it did.

        Without ``lives_s`` in the place of what is still known, and for as long as that.
        """
        does = False

        def with_value(known: Any) -> Any:
            nonlocal does
            does = known is None if absent else not (known is None and lives_s is None)
            return value if does else SAME

        await self.change(name, lives_s, with_value)
        return does

    async def take(self, name: Name) -> Any:
        """What is known, and forgets it."""
        found = None

        def gone(known: Any) -> None:
            nonlocal found
            found = known

        await self.change(name, None, gone)
        return found

    async def relist(self, name: Name, lives_s: float | None, last: str, *gone: str) -> None:
        """Puts an item at the end of a list, in which it is once, and takes others out."""

        def listed(known: list[str] | None) -> list[str] | None:
            kept = [one for one in known or () if one != last and one not in gone]
            return [*kept, last][-MOST_LISTED:] if last else kept or None

        await self.change(name, lives_s, listed)

    def tidy(self) -> None:
        """Drops what is too old, and the least used while there is too much."""
        for name in [name for name in self._kept if not self._is_known(name)]:
            self._drop(name)
        self._total = sum(self.size(value) for *_, value in self._kept.values())
        self._shrink()

    def _shrink(self) -> None:
        while self._total > self.most:
            sized = (name for name, kept in self._kept.items() if self.size(kept[2]))
            if (name := next(sized, None)) is None:
                break
            self._drop(name)

    def _drop(self, name: Name) -> tuple[float, float, Any]:
        found = self._kept.pop(name, (0.0, 0.0, None))
        self._total -= self.size(found[2]) if found[2] is not None else 0
        return found

    def _is_known(self, name: Name) -> bool:
        """Not so, too, if the clock was set back behind its beginning."""
        since, until, _ = self._kept.get(name, (math.inf, math.inf, None))
        return since <= self.clock() < until
