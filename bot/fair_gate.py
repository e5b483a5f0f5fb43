"""A door that lets a few in at a time, taking turns between people, not between requests."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

__all__ = ["FairGate"]


class FairGate:
    """At most so many inside; who waits is let in one per person in turn.

    Somebody who sends a hundred photos at once so delays somebody who sends one by one photo,
    not by a hundred. Used from one event loop.

    Args:
        places: How many may be inside.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._queues: OrderedDict[bytes, deque[asyncio.Future[None]]] = OrderedDict()

    async def enter(self, person: bytes) -> None:
        """Waits for a place; who entered must ``leave``. Cancelled while waiting, none is taken."""
        if self._free > 0 and not self._queues:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._queues.setdefault(person, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # the place was given in the very moment of cancellation
            else:
                self._give_up(person, turn)
            raise

    def leave(self) -> None:
        """Gives the place to the next person in turn."""
        while self._queues:
            person, queue = self._queues.popitem(last=False)
            turn = queue.popleft()
            if queue:
                self._queues[person] = queue
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _give_up(self, person: bytes, turn: asyncio.Future[None]) -> None:
        queue = self._queues.get(person)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._queues[person]
