"""Between the event loop and the engine's threads: admission, fairness, batches, deadline.

A photo goes through three steps, each off the event loop: sight (fetch, decode, detect), embed
(with everybody else's faces that wait for the same model), finish (search, draw).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from engine.errors import Busy, Deadline, TooFast
from engine.runtime import cores

if TYPE_CHECKING:
    from engine.engine import Engine
    from engine.types import Embedding, Face, Photo

__all__ = ["FairSemaphore", "Recognizer", "Sight", "Slot"]

T = TypeVar("T")
Sighting = tuple["Photo", "Face"]
Waiting = tuple[Sighting, "asyncio.Future[Embedding]"]

WINDOW_S = 60.0
# Buttons under an answer cost less than a photo, and pressing through them is no flood.
PRESSES_PER_PHOTO = 3
# Photos being downloaded or waiting to be decoded at once: each may be as large as the limit.
MOST_FETCHING = 12
# Photos that are decoded and not answered yet, per worker: enough to keep the cores busy.
MOST_DECODED_PER_WORKER = 2
MOST_FACES_PER_BATCH = 16
# Weight of the newest photo in the running mean of what one costs.
SMOOTHING = 0.1
FIRST_GUESS_S = 0.1


@dataclass(frozen=True, slots=True)
class Sight:
    """A photo that was decoded and searched for faces.

    Attributes:
        photo: As decoded.
        faces: Largest first; may be empty.
        ms: Milliseconds by step: fetch, wait, decode, detect.
    """

    photo: Photo
    faces: tuple[Face, ...]
    ms: dict[str, float]


class Slot:
    """One admitted question, from ``Recognizer.admitted``."""

    def __init__(self, recognizer: Recognizer, person: bytes) -> None:
        self._recognizer = recognizer
        self.person = person
        self.begun = False

    async def begin(self) -> None:
        """Waits for the person's turn to have pixels in memory; once is enough."""
        if not self.begun:
            await self._recognizer.decoded.enter(self.person)
            self.begun = True

    def pause(self) -> None:
        """Gives that turn to somebody else."""
        if self.begun:
            self._recognizer.decoded.leave()
            self.begun = False

    async def sight(self, fetch: Callable[[], Awaitable[bytes]]) -> Sight:
        """Fetches, decodes and searches a photo, in the person's turn.

        Raises:
            PhotoProblem: If it is no picture or too large.
            TryLater: If the platform does not hand it over.
        """
        return await self._recognizer.sight(self, fetch)


class Recognizer:
    """One engine for everybody.

    Args:
        engine: Decodes, detects, embeds.
        length: Most photos and presses that are in work or wait; beyond it Busy is raised at once.
        per_minute: Most photos of one person in a minute.
        deadline_s: Longest time from asking to answer.
        workers: Threads for decoding and detecting; the processor's cores by default.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        length: int = 64,
        per_minute: int = 20,
        deadline_s: float = 30.0,
        workers: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._length = length
        self._per_minute = per_minute
        self._deadline_s = deadline_s
        self._clock = clock
        self._workers = workers or cores()
        self._fetching = FairSemaphore(max(MOST_FETCHING, self._workers))
        self._sighting = FairSemaphore(self._workers)
        self.decoded = FairSemaphore(MOST_DECODED_PER_WORKER * self._workers)
        self._lengthy = FairSemaphore(1)
        # One more than look at photos, so that answers are finished while odd photos take long;
        # not more, because every thread that wants the interpreter makes the event loop wait.
        self._threads = ThreadPoolExecutor(self._workers + 1, thread_name_prefix="recognizer")
        self._waiting: dict[str, deque[Waiting]] = {}
        self._batches: dict[str, asyncio.Task[None]] = {}
        self._asked: OrderedDict[tuple[bytes, str], deque[float]] = OrderedDict()
        self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._cost_s = FIRST_GUESS_S
        self._work_s = 0.0
        self._closed = False

    @asynccontextmanager
    async def admitted(
        self, person: bytes, *, photos: int = 1, press: bool = False
    ) -> AsyncIterator[Slot]:
        """One photo's, or one pressed button's, place in the queue and its deadline.

        Args:
            person: The asker's key.
            photos: How many photos are answered at once.
            press: For a button: it counts against a more generous limit.

        Raises:
            TooFast: At once, if this person has asked too often in the last minute.
            Busy: At once, if the queue is full or the program is stopping.
            Deadline: If what is done inside takes too long.
        """
        if self._closed or self._inside >= self._length:
            raise Busy("the queue is full", seconds=self.wait_s())
        self._count(person, "press" if press else "photo", photos)
        self._inside += 1
        self._empty.clear()
        visit = Slot(self, person)
        try:
            async with asyncio.timeout(self._deadline_s):
                yield visit
        except TimeoutError:
            raise Deadline("the answer took too long") from None
        finally:
            visit.pause()
            self._inside -= 1
            if not self._inside:
                self._empty.set()
            # Thread time since the last one left: with many inside, that of one on average.
            self._cost_s += SMOOTHING * (self._work_s - self._cost_s)
            self._work_s = 0.0

    def wait_s(self) -> float:
        """About how long a new photo would wait, from what the last ones took."""
        return max(1.0, self._inside * self._cost_s / self._workers)

    async def sight(self, visit: Slot, fetch: Callable[[], Awaitable[bytes]]) -> Sight:
        """See ``Slot.sight``."""
        began = time.perf_counter()
        await self._fetching.enter(visit.person)
        try:
            entered = time.perf_counter()
            # A list, so that the thread that decodes can drop the only reference to the bytes.
            data = [await fetch()]
            fetched = time.perf_counter()
            await visit.begin()
            await self._sighting.enter(visit.person)
            photo, faces, ms = await self._in_thread(lambda: self._see(data), self._sighting.leave)
        finally:
            self._fetching.leave()
        ended = time.perf_counter()
        ms["fetch"] = (fetched - entered) * 1000
        ms["wait"] = (ended - began) * 1000 - sum(ms.values())
        return Sight(photo, faces, ms)

    async def embed(self, sightings: Sequence[Sighting], model: str) -> tuple[Embedding, ...]:
        """One embedding per face; faces of other people that wait meanwhile share the batch."""
        loop = asyncio.get_running_loop()
        queue = self._waiting.setdefault(model, deque())
        futures = [loop.create_future() for _ in sightings]
        queue.extend(zip(sightings, futures, strict=True))
        running = self._batches.get(model)
        if running is None or running.done():
            self._batches[model] = asyncio.create_task(self._embed_waiting(model))
        return tuple(await asyncio.gather(*futures))

    async def finish(self, function: Callable[[], T]) -> T:
        """Runs what is left of an answer, such as searching and drawing, off the event loop."""
        return await self._in_thread(function)

    async def lengthy(self, visit: Slot, function: Callable[[], T]) -> T:
        """The same for what takes much longer than a card: one at a time, in people's turn.

        So the other threads go on answering photos, however many films are asked for. Who waits
        here no longer takes the place of somebody whose photo could be decoded: what ``function``
        holds meanwhile should be a remembered photo, which is small.
        """
        visit.pause()
        await self._lengthy.enter(visit.person)
        return await self._in_thread(function, self._lengthy.leave)

    async def close(self, patience_s: float = 8.0) -> None:
        """Admits nobody any more, waits for what is inside, then stops the threads."""
        self._closed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._empty.wait()
        for batch in self._batches.values():
            batch.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def tidy(self) -> None:
        """Forgets who has not asked in the last minute."""
        oldest = self._clock() - WINDOW_S
        for key in [key for key, times in self._asked.items() if times[-1] < oldest]:
            del self._asked[key]

    def _see(self, data: list[bytes]) -> tuple[Photo, tuple[Face, ...], dict[str, float]]:
        started = time.perf_counter()
        photo = self._engine.decode(data.pop())
        decoded = time.perf_counter()
        faces = self._engine.detect(photo)
        detected = time.perf_counter()
        ms = {"decode": (decoded - started) * 1000, "detect": (detected - decoded) * 1000}
        return photo, faces, ms

    async def _embed_waiting(self, model: str) -> None:
        """Embeds in batches until nobody waits for this model."""
        queue = self._waiting[model]
        while queue:
            batch = [queue.popleft() for _ in range(min(len(queue), MOST_FACES_PER_BATCH))]
            batch = [(sighting, future) for sighting, future in batch if not future.done()]
            if not await self._embed_batch(batch, model):
                for single in batch:  # so that one odd photo harms nobody else's
                    await self._embed_batch([single], model)

    async def _embed_batch(self, batch: Sequence[Waiting], model: str) -> bool:
        """Embeds them at once; False if that failed and may succeed one by one."""
        if not batch:
            return True
        sightings = [sighting for sighting, _ in batch]
        try:
            embeddings = await self._in_thread(lambda: self._engine.embed(sightings, model))
        except Exception as problem:  # noqa: BLE001 - handed to whoever waits for it
            if len(batch) > 1:
                return False
            if not batch[0][1].done():
                batch[0][1].set_exception(problem)
            return True
        for (_, future), embedding in zip(batch, embeddings, strict=True):
            if not future.done():
                future.set_result(embedding)
        return True

    async def _in_thread(
        self, function: Callable[[], T], leave: Callable[[], object] | None = None
    ) -> T:
        """Runs it in a thread; its place at a gate is free when the thread is, not before."""
        loop = asyncio.get_running_loop()

        def timed() -> tuple[T, float]:
            started = time.perf_counter()
            result = function()
            return result, time.perf_counter() - started

        def free(_: object) -> None:
            assert leave is not None
            with suppress(RuntimeError):  # the loop is gone, and so is everybody at the gate
                loop.call_soon_threadsafe(leave)

        future = self._threads.submit(timed)
        if leave is not None:
            future.add_done_callback(free)
        result, spent_s = await asyncio.wrap_future(future)
        self._work_s += spent_s
        return result

    def _count(self, person: bytes, kind: str, asked: int) -> None:
        most = self._per_minute * (PRESSES_PER_PHOTO if kind == "press" else 1)
        now = self._clock()
        times = self._asked.setdefault((person, kind), deque())
        while times and times[0] <= now - WINDOW_S:
            times.popleft()
        if len(times) >= most:
            raise TooFast("one person has asked too often", seconds=times[0] + WINDOW_S - now)
        times.extend([now] * asked)


class FairSemaphore:
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
