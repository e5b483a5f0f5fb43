"""Between the event loop and the engine's threads: admission, fairness, batches, deadline.

A photo goes through three steps, each off the event loop: detect (fetch, decode, find faces), embed
(with everybody else's faces that wait for the same model), finish (search, draw).
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import KW_ONLY, dataclass, field
from typing import TypeVar

import cv2

from bot.memory import KeptPhoto
from bot.process_memory import SAME, Memory
from engine.engine import Engine, comparable
from engine.errors import Busy, Deadline, Heavy, TooFast
from engine.runtime import cores
from engine.types import Embedding, Face, Photo

T = TypeVar("T")
PhotoFace = tuple[Photo, Face]
Waiting = tuple[PhotoFace, asyncio.Future[Embedding]]

WINDOW_S = 60.0
# Buttons under an answer cost less than a photo, and pressing through them is no flood.
PRESSES_PER_PHOTO = 3
# Photos being downloaded or waiting to be decoded at once: each may be as large as the limit.
MOST_FETCHING = 12
# Of these places, those for people who have none: each download is work for the event loop.
KEPT_FETCHING = 8
# Of the photos in these places, heavy ones that wait for what is lengthy.
MOST_HEAVY = 6
# Photos that are decoded and not answered yet, per worker: enough to keep the cores busy.
MOST_DECODED_PER_WORKER = 2
MOST_FACES_PER_BATCH = 16
# Of the queue's length: when only the first share is free it is for those who have less than the
# second in it, so that no crowd of one person's photos shuts out others.
KEPT_SHARE, OWN_SHARE = 1 / 4, 1 / 16
# Photos at once that an engine elsewhere looks at; a process draws no more cards meanwhile.
MOST_ELSEWHERE = 8
# Weight of the newest photo in the running mean of what one costs.
SMOOTHING = 0.1
FIRST_GUESS_S = 0.1
# Photos are compressed when their answers are on their way and the cores are free.
PACK_AFTER_S = 0.2


@contextmanager
def timed(ms: dict[str, float], step: str) -> Iterator[None]:
    """Adds the milliseconds spent inside to that step."""
    began = time.perf_counter()
    try:
        yield
    finally:
        ms[step] = ms.get(step, 0.0) + (time.perf_counter() - began) * 1000


@dataclass(frozen=True, slots=True)
class DetectedPhoto:
    """A photo whose faces are known: decoded just now, or kept from an earlier question."""

    # Its pixels; for a kept photo that means decoding, so not on the event loop
    photo: Callable[[], Photo]
    # Large enough to be compared, largest first, in the pixels of ``photo``; at least one
    faces: tuple[Face, ...]
    kept: KeptPhoto  # what is remembered of it
    fresh: bool = False  # whether it is decoded already

    @classmethod
    def from_kept(cls, kept: KeptPhoto) -> DetectedPhoto:
        """A photo that was kept; it is decoded once."""
        return cls(functools.cache(kept.photo), kept.faces, kept)


class Slot:
    """One admitted question's place in the queue, from ``Recognizer.admitted``."""

    def __init__(self, recognizer: Recognizer, person: bytes, unseen: int) -> None:
        self._decoded = recognizer.decoded
        self.person = person
        self.unseen = unseen  # photos that were counted and not looked at yet
        self.begun = False
        self.detect = functools.partial(recognizer.detect, self)

    async def begin(self) -> None:
        """Acquires a decoded-photo slot, fair per person. Idempotent."""
        if not self.begun:
            await self._decoded.enter(self.person)
            self.begun = True

    def pause(self) -> None:
        """Releases the decoded-photo slot. Idempotent."""
        if self.begun:
            self._decoded.leave(self.person)
            self.begun = False


@dataclass(eq=False)
class Recognizer:
    """Admits questions and runs the engine for them in threads."""

    engine: Engine
    _: KW_ONLY
    length: int = 64  # of photos and presses in work or waiting; beyond it Busy is raised at once
    photos_per_minute: int = 20  # of one person, at most
    chat_photos_per_minute: int | None = None  # of one chat, at most; None for any number
    deadline_s: float = 30.0  # longest time from asking to answer
    admins: frozenset[bytes] = frozenset()  # keys of people without a limit
    workers: int = field(default_factory=cores)  # threads for decoding and detecting
    finishers: int = 1  # further threads, so that answers are finished meanwhile
    memory: Memory = field(default_factory=Memory)  # of who asked when
    clock: Callable[[], float] = time.monotonic  # the same in all processes that share it

    def __post_init__(self) -> None:
        self._fetching = FairSemaphore(max(MOST_FETCHING, self.workers), KEPT_FETCHING)
        self._detecting = FairSemaphore(self.workers)
        self.decoded = FairSemaphore(MOST_DECODED_PER_WORKER * self.workers)
        self._lengthy = FairSemaphore(1)
        # More than look at photos, so that answers are finished while odd photos take long; not
        # many more, because every thread that wants the interpreter makes the event loop wait.
        # OpenCV's own would only spin beside them: 10 ms of processor time a photo.
        cv2.setNumThreads(1)
        threads = self.workers + self.finishers
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="recognizer")
        self._waiting: defaultdict[str, deque[Waiting]] = defaultdict(deque)
        self._batches: dict[str, asyncio.Task[None]] = {}
        self.inside = 0  # questions in work or waiting
        self._own = Counter[bytes]()  # by person
        self._empty = asyncio.Event()
        self._empty.set()
        self._cost_s = FIRST_GUESS_S
        self._work_s = 0.0
        self._closed = False

    @asynccontextmanager
    async def admitted(
        self, person: bytes, room: bytes = b"", *, photos: int = 1, press: bool = False
    ) -> AsyncIterator[Slot]:
        """The place in the queue and the deadline of a question about so many photos.

        ``person`` is the asker's key, ``room`` the chat's; a pressed button counts against a more
        generous limit.

        Raises:
            TooFast: At once, if person or chat have asked too often in the last minute, or the
                person has many photos in a queue that is nearly full; ``again`` in its details says
                whether this person was told so before.
            Busy: At once, if the queue is full, the program is stopping, or the engine, which is
                elsewhere, can't be reached.
            Deadline: If what is done inside takes too long.
        """
        await self.refuse(person, room, press=press)
        await self.refuse_too_fast(person, room, photos=photos, press=press)
        self.inside += 1
        self._own[person] += 1
        self._empty.clear()
        slot = Slot(self, person, photos)
        try:
            async with asyncio.timeout(self.deadline_s):
                yield slot
        except TimeoutError:
            raise Deadline("the answer took too long") from None
        finally:
            slot.pause()
            self.inside -= 1
            self._own[person] -= 1
            self._own += Counter()  # drops who has none
            if not self.inside:
                self._empty.set()
            # Thread time since the last one left: with many inside, that of one on average.
            self._cost_s += SMOOTHING * (self._work_s - self._cost_s)
            self._work_s = 0.0

    async def refuse(self, person: bytes, room: bytes = b"", *, press: bool = False) -> None:
        """Raises TooFast or Busy at once, as ``admitted`` does; counts nothing."""
        await self.refuse_too_fast(person, room, press=press)
        # About how long a new photo would wait, from what the last ones took.
        wait_s = max(1.0, self.inside * self._cost_s / self.workers)
        if self._closed or self.inside >= self.length:
            raise Busy("the queue is full", seconds=wait_s)
        nearly_full = self.inside >= math.ceil(self.length * (1 - KEPT_SHARE))
        if nearly_full and self._own[person] > self.length * OWN_SHARE:
            raise await self._too_fast(person, wait_s)
        if self.engine.service is not None:
            self.engine.service.refuse_if_away()

    async def passes_over(self, person: bytes) -> bool:
        """Whether one more photo is refused without a word, since the person was told before."""
        if await self.memory.get(("told", person.hex())):
            try:
                await self.refuse(person)
            except Busy as problem:
                return isinstance(problem, TooFast)
        return False

    async def refuse_too_fast(
        self, person: bytes, room: bytes = b"", *, photos: int = 0, press: bool = False
    ) -> None:
        """Raises TooFast as ``admitted`` does; else counts so many for the person and the chat."""
        limits = {person: self.photos_per_minute}
        if room and self.chat_photos_per_minute is not None:
            limits[room] = self.chat_photos_per_minute
        for key, limit in limits.items():
            most = math.inf if person in self.admins else limit
            try:
                await self._note(key, photos, press, most * (PRESSES_PER_PHOTO if press else 1))
            except TooFast as problem:
                if key != person:
                    await self._note(person, -photos, press)
                free_s = float(str(problem.details["seconds"]))
                raise await self._too_fast(person, free_s) from None

    async def _too_fast(self, person: bytes, free_s: float) -> TooFast:
        told = not await self.memory.put(("told", person.hex()), 1, free_s, absent=True)
        return TooFast("asked too often", seconds=free_s, again=told)

    async def _note(self, key: bytes, more: int, press: bool, most: float = math.inf) -> None:
        """Notes that so many more, or fewer, were asked just now; raises TooFast at ``most``."""
        now = self.clock()

        def noted(times: list[float] | None) -> list[float]:
            times = [one for one in times or () if now - WINDOW_S < one]
            if len(times) >= most:
                free_s = times[0] + WINDOW_S - now
                raise TooFast("asked too often", seconds=free_s)
            return [*times, *[now] * more][: max(0, len(times) + more)] if more else SAME

        await self.memory.change(("asked", key.hex(), str(press)), WINDOW_S, noted)

    async def detect(
        self,
        slot: Slot,
        fetch: Callable[[], Awaitable[bytes]],
        ms: dict[str, float] | None = None,
        models: Sequence[str] = (),
    ) -> DetectedPhoto:
        """Fetches and decodes a photo and finds its faces; counts it if it is one more.

        An engine elsewhere embeds the first face by the ``models`` in the same step. The
        milliseconds of the steps fetch, wait, decode and detect are added to ``ms``. Raises
        PhotoProblem if it is no picture or too large, or shows no face that is large enough, and
        TryLater if the platform does not hand it over.
        """
        began, spent_ms = time.perf_counter(), dict[str, float]()
        slot.unseen -= 1
        if slot.unseen < 0:
            await self._note(slot.person, 1, press=False)

        def decode_and_detect(*, waits: bool) -> DetectedPhoto:
            step = functools.partial(timed, spent_ms)
            photo, found, embedded = self.engine.look(data[0], models, step, waits=waits)
            with timed(spent_ms, "detect"):
                faces = comparable(found)
                kept = KeptPhoto(photo, faces, data.pop(), self.engine.decode)
                kept.embeddings |= {(1, model): one for model, one in embedded.items()}
            return DetectedPhoto(lambda: photo, faces, kept, fresh=True)

        await self._fetching.enter(slot.person)
        try:
            # A list, so that the thread that decodes can drop the only reference to the bytes. A
            # task, so that each chunk from the network wakes up the download alone.
            with timed(spent_ms, "fetch"):
                data = [await asyncio.ensure_future(fetch())]
            await slot.begin()
            await self._detecting.enter(slot.person)
            leave = functools.partial(self._detecting.leave, slot.person)
            try:
                found = await self._in_thread(lambda: decode_and_detect(waits=False), leave)
            except Heavy:
                if sum(map(len, self._lengthy.queues.values())) >= MOST_HEAVY:
                    raise Busy("many heavy photos wait", seconds=3 * MOST_HEAVY) from None
                found = await self.lengthy(slot, lambda: decode_and_detect(waits=True))
                await slot.begin()
        finally:
            self._fetching.leave(slot.person)
        spent_ms["wait"] = (time.perf_counter() - began) * 1000 - sum(spent_ms.values())
        if ms is not None:
            ms |= {step: ms.get(step, 0.0) + step_ms for step, step_ms in spent_ms.items()}
        return found

    async def embeddings(
        self, photo: DetectedPhoto, number: int, models: Iterable[str], ms: dict[str, float]
    ) -> tuple[Embedding, ...]:
        """The embeddings of the face of that number, from 1, by each model; computed once each.

        The milliseconds of the step embed are added to ``ms``.
        """
        known = photo.kept.embeddings
        for model in models:
            if (number, model) in known:
                continue
            with timed(ms, "embed"):
                pixels = photo.photo() if photo.fresh else await self.finish(photo.photo)
                known[number, model] = await self.embed((pixels, photo.faces[number - 1]), model)
        return tuple(known[number, model] for model in models)

    async def embed(self, face: PhotoFace, model: str) -> Embedding:
        """A face's embedding; faces of other people that wait meanwhile share the batch."""
        future: asyncio.Future[Embedding] = asyncio.get_running_loop().create_future()
        self._waiting[model].append((face, future))
        running = self._batches.get(model)
        if running is None or running.done():
            self._batches[model] = asyncio.create_task(self._embed_waiting(model))
        return await future

    async def finish(
        self, function: Callable[[], T], ms: dict[str, float] | None = None, step: str = ""
    ) -> T:
        """Runs what is left of an answer, such as searching and drawing, off the event loop.

        The milliseconds until it was done are added to those of ``step`` in ``ms``.
        """
        with timed({} if ms is None else ms, step):
            return await self._in_thread(function)

    async def lengthy(self, slot: Slot, function: Callable[[], T]) -> T:
        """Runs what takes much longer than a card: one at a time, fair per person.

        The other threads go on answering, however many films and heavy photos come. Who waits here
        releases the decoded-photo slot: what ``function`` holds meanwhile should be a kept photo or
        a file, which are small.
        """
        slot.pause()
        await self._lengthy.enter(slot.person)
        return await self._in_thread(function, functools.partial(self._lengthy.leave, slot.person))

    def pack_later(self, photos: Sequence[KeptPhoto]) -> None:
        """Compresses kept photos that are not yet, in a thread, a little later."""

        def pack() -> None:
            with suppress(RuntimeError):  # the program is stopping
                for kept in photos:
                    self._threads.submit(kept.pack)

        if not all(kept.packed for kept in photos):
            asyncio.get_running_loop().call_later(PACK_AFTER_S, pack)

    async def close(self, patience_s: float = 8.0) -> None:
        """Stops admitting, waits for what was admitted, then stops the threads."""
        self._closed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._empty.wait()
        for task in self._batches.values():
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _embed_waiting(self, model: str) -> None:
        """Embeds in batches until nobody waits for this model."""
        queue = self._waiting[model]
        while queue:
            batch = [queue.popleft() for _ in range(min(len(queue), MOST_FACES_PER_BATCH))]
            batch = [(face, future) for face, future in batch if not future.done()]
            if batch:
                await self._embed_batch(batch, model)

    async def _embed_batch(self, batch: Sequence[Waiting], model: str) -> None:
        """Embeds them at once; if that fails one by one, so that one harms nobody else's."""
        try:
            faces = [face for face, _ in batch]
            embeddings = await self._in_thread(lambda: self.engine.embed(faces, model))
        except Exception as problem:  # noqa: BLE001 - handed to whoever waits for it
            if len(batch) > 1:
                for single in batch:
                    await self._embed_batch([single], model)
            elif not batch[0][1].done():
                batch[0][1].set_exception(problem)
            return
        for (_, future), embedding in zip(batch, embeddings, strict=True):
            if not future.done():
                future.set_result(embedding)

    async def _in_thread(
        self, function: Callable[[], T], leave: Callable[[], object] | None = None
    ) -> T:
        """Runs it in a thread; ``leave`` is called when the thread is free, not before."""
        loop, ms = asyncio.get_running_loop(), dict[str, float]()

        def run() -> T:
            with timed(ms, "work"):
                return function()

        def free(_: object) -> None:
            assert leave is not None
            with suppress(RuntimeError):  # the loop is gone, and so is everybody who waits
                loop.call_soon_threadsafe(leave)

        future = self._threads.submit(run)
        if leave is not None:
            future.add_done_callback(free)
        result = await asyncio.wrap_future(future)
        self._work_s += ms["work"] / 1000
        return result


class FairSemaphore:
    """At most so many inside; who waits is let in one per person in turn.

    A person with a hundred photos in the queue so delays another person's photo by one photo, not
    by a hundred. Of more than two places the last, or so many that are ``kept``, are for people who
    have none yet. Used from one event loop.
    """

    def __init__(self, places: int, kept: int = 1) -> None:
        self._free, self._kept_free = places, kept if places > 2 else 0
        self._inside = Counter[bytes]()
        self.queues: OrderedDict[bytes, deque[asyncio.Future[None]]] = OrderedDict()

    def _let_in(self, person: bytes) -> bool:
        fits = self._free > (self._kept_free if self._inside[person] else 0)
        self._free -= fits
        self._inside[person] += fits
        return fits

    async def enter(self, person: bytes) -> None:
        """Waits for a place; who entered must ``leave``. Cancelled while waiting, none is taken."""
        if person not in self.queues and self._let_in(person):
            return
        turn = asyncio.get_running_loop().create_future()
        self.queues.setdefault(person, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(person)  # the place was given in the very moment of cancellation
            raise  # else ``leave`` passes over the turn, which is cancelled

    def leave(self, person: bytes) -> None:
        """Gives the place back, and those that are free to the next people in turn."""
        self._free += 1
        self._inside[person] -= 1
        self._inside += Counter()  # drops who has none
        for waiting, queue in list(self.queues.items()):
            while queue and queue[0].done():  # given up
                queue.popleft()
            if queue and self._let_in(waiting):
                queue.popleft().set_result(None)
                self.queues.move_to_end(waiting)
            if not queue:
                del self.queues[waiting]
