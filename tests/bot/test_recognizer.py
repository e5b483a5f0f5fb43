"""Admission, fairness, batches and deadlines with the real engine; the loop is never held up."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from homes import copy_home
from PIL import Image
from talking import Person, chatting

from bot.app import open_engine
from bot.process_memory import Memory
from bot.recognizer import Recognizer
from bot.settings import Settings
from bot.values import Sender
from engine import decode as decoding
from engine.decode import DecodeLimits
from engine.engine import Engine
from engine.errors import Busy, Deadline, NotAnImage, TooFast
from engine.runtime import cores

LONGEST_BLOCK_MS = 50.0


@pytest.fixture(scope="module")
def engine(starter_home: Path) -> Engine:
    opened = open_engine(Settings(home=starter_home))
    opened.backbone("dlib")
    return opened


@contextlib.asynccontextmanager
async def running(engine: Engine, **options: object) -> AsyncIterator[Recognizer]:
    recognizer = Recognizer(engine, **options)  # type: ignore[arg-type]
    try:
        yield recognizer
    finally:
        await recognizer.close(0.5)


def giving(data: bytes) -> Callable[[], Awaitable[bytes]]:
    async def fetch() -> bytes:
        return data

    return fetch


async def test_faces_of_different_people_share_a_batch(engine: Engine, hopper_jpeg: bytes) -> None:
    """The vectors are those that each face gets alone."""
    async with running(engine) as recognizer:
        async with recognizer.admitted(b"ann") as slot:
            seen = await slot.detect(giving(hopper_jpeg))
        pair = (seen.photo(), seen.faces[0])
        alone = await recognizer.embed(pair, "dlib")
        together = await asyncio.gather(*(recognizer.embed(pair, "dlib") for _ in range(20)))
    assert all(one.cosine(alone) > 0.9999 for one in together)


async def test_one_odd_photo_harms_nobody_elses(engine: Engine, hopper_jpeg: bytes) -> None:
    async with running(engine) as recognizer:
        async with recognizer.admitted(b"ann") as slot:
            seen = await slot.detect(giving(hopper_jpeg))
        good, odd = (seen.photo(), seen.faces[0]), (seen.photo(), None)
        outcomes = await asyncio.gather(
            recognizer.embed(good, "dlib"),
            recognizer.embed(odd, "dlib"),  # type: ignore[arg-type]
            recognizer.embed(good, "dlib"),
            return_exceptions=True,
        )
    assert [isinstance(outcome, Exception) for outcome in outcomes] == [False, True, False]


async def test_a_full_queue_says_so_at_once(engine: Engine) -> None:
    async with running(engine, length=2) as recognizer, contextlib.AsyncExitStack() as stack:
        for person in (b"ann", b"ben"):
            await stack.enter_async_context(recognizer.admitted(person))
        with pytest.raises(Busy) as problem:
            async with asyncio.timeout(1), recognizer.admitted(b"cid"):
                pass
        assert float(str(problem.value.details["seconds"])) >= 1


async def test_one_persons_photos_leave_places_in_the_queue_to_others(engine: Engine) -> None:
    many = {"length": 32, "photos_per_minute": 100}
    async with running(engine, **many) as recognizer, contextlib.AsyncExitStack() as stack:

        async def come(person: bytes) -> None:
            await stack.enter_async_context(recognizer.admitted(person))

        for person in (b"ben", *[b"ann"] * 23):
            await come(person)
        for again in (False, True, True):
            with pytest.raises(TooFast) as problem:
                await come(b"ann")
            assert problem.value.details["again"] is again
        for person in (b"ben", *map(bytes, range(7))):
            await come(person)
        with pytest.raises(Busy) as full:
            await come(b"zoe")
        assert not isinstance(full.value, TooFast)


async def test_one_person_is_held_back_and_others_are_not(engine: Engine) -> None:
    now = [1000.0]
    limits = {"photos_per_minute": 3, "chat_photos_per_minute": 4, "admins": frozenset({b"eve"})}
    clock: dict[str, Any] = {"clock": lambda: now[0]}
    memory = Memory(**clock)
    async with running(engine, **limits, **clock, memory=memory) as recognizer:

        async def ask(person: bytes, room: bytes = b"", **more: Any) -> None:
            async with recognizer.admitted(person, room, **more):
                pass

        await ask(b"ann", photos=2)
        now[0] += 20
        await ask(b"ann")
        with pytest.raises(TooFast) as problem:
            await ask(b"ann")
        assert problem.value.details == {"seconds": pytest.approx(40), "again": False}
        for _ in range(2):
            with pytest.raises(TooFast) as problem:
                await ask(b"ann")
            assert problem.value.details["again"]
        await ask(b"ben")
        for person in (b"cid", b"cid", b"dan", b"dan"):
            await ask(person, b"group")
        with pytest.raises(TooFast) as problem:  # that chat, whoever asks there
            await ask(b"fay", b"group")
        assert not problem.value.details["again"]
        await ask(b"fay", b"elsewhere")
        for _ in range(9):
            await ask(b"eve", b"group")
        for _ in range(9):
            await ask(b"ann", press=True)
        with pytest.raises(TooFast):
            await ask(b"ann", press=True)
        now[0] += 41
        await ask(b"ann")
        async with recognizer.admitted(b"dan") as slot:  # an album in which nothing is found
            for _ in range(3):
                with pytest.raises(NotAnImage):
                    await slot.detect(giving(b"no picture"))
        with pytest.raises(TooFast):
            await ask(b"dan")
        now[0] += 60
        memory.tidy()
        assert not memory._kept


async def test_what_takes_too_long_ends_with_a_deadline(engine: Engine) -> None:
    async def never() -> bytes:
        await asyncio.sleep(3600)
        return b""

    async with running(engine, deadline_s=0.05, length=1) as recognizer:
        for _ in range(3):  # the place is free again each time
            with pytest.raises(Deadline):
                async with recognizer.admitted(b"ann") as slot:
                    await slot.detect(never)


async def test_problems_of_a_photo_reach_who_sent_it(engine: Engine, hopper_jpeg: bytes) -> None:
    async with running(engine) as recognizer:
        for data, kind in ((b"no picture", NotAnImage), (hopper_jpeg[:50], NotAnImage)):
            with pytest.raises(kind):
                async with recognizer.admitted(b"ann") as slot:
                    await slot.detect(giving(data))


def test_a_face_that_was_lost_by_reducing_is_found(engine: Engine, hopper_jpeg: bytes) -> None:
    large, file = Image.new("RGB", (2_000, 1_400), (120, 140, 160)), io.BytesIO()
    large.paste(Image.open(io.BytesIO(hopper_jpeg)).resize((105, 123)), (900, 500))
    large.save(file, "JPEG")
    engine = replace(engine, limits=DecodeLimits(long_side_px=400))
    photo = engine.decode(file.getvalue())
    assert engine.detect(photo) == ()
    near, (face,) = engine.detect_closer(photo, (), file.getvalue())
    assert max(near.pixels.shape) < 400
    assert (face.box.w > 32, face.concerns) == (True, ())


@pytest.mark.parametrize("more_bytes", [0, 100_000])
async def test_the_bytes_are_dropped_as_soon_as_they_are_decoded(
    engine: Engine, hopper_jpeg: bytes, more_bytes: int
) -> None:
    """But those that take no more room than the photo compressed anew are what is kept of it."""

    class Tracked(bytes):
        """Bytes that can be found again."""

    def alive() -> int:
        gc.collect()
        return sum(isinstance(thing, Tracked) for thing in gc.get_objects())

    async def fetch() -> bytes:
        return Tracked(hopper_jpeg + bytes(more_bytes))

    async with running(engine) as recognizer, recognizer.admitted(b"ann") as slot:
        seen = await slot.detect(fetch)
        assert seen.kept.packed == (not more_bytes)
        assert alive() == seen.kept.packed
        assert np.array_equal(seen.kept.photo().pixels, seen.photo().pixels)


async def test_who_sends_one_photo_does_not_wait_for_who_sends_many(
    engine: Engine, hopper_jpeg: bytes
) -> None:
    async with running(engine, photos_per_minute=100, workers=1) as recognizer:
        order: list[bytes] = []

        async def ask(person: bytes) -> None:
            async with recognizer.admitted(person) as slot:
                await slot.detect(giving(hopper_jpeg))
                order.append(person)

        async with asyncio.TaskGroup() as group:
            for _ in range(30):
                group.create_task(ask(b"flooder"))
            await asyncio.sleep(0.01)
            group.create_task(ask(b"somebody"))
    # What is being fetched or decoded when somebody comes is not thrown out for them.
    assert order.index(b"somebody") < 20


async def test_heavy_photos_wait_for_each_other_and_nobody_for_them(
    engine: Engine, hopper_jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = Image.open(io.BytesIO(hopper_jpeg))
    monkeypatch.setattr(decoding, "_LIGHT_BYTES", 4 * picture.width * picture.height)
    stream = io.BytesIO()
    picture.resize((picture.width + 8, picture.height + 8)).save(stream, "PNG", compress_level=1)
    heavy, order = stream.getvalue(), list[bytes]()
    async with running(engine, workers=2) as recognizer:

        async def ask(person: bytes, content: bytes) -> None:
            async with recognizer.admitted(person) as slot:
                await slot.detect(giving(content))
                order.append(person)

        people = [b"%d" % number for number in range(8)]
        with decoding._heavy_turn:  # as if one were being decoded: the first that comes waits
            asked = [asyncio.create_task(ask(person, heavy)) for person in people]
            with pytest.raises(Busy):  # more of them than may wait
                await next(asyncio.as_completed(asked))
            await ask(b"ann", hopper_jpeg)
            assert order == [b"ann"]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        await asyncio.wait_for(ask(b"late", heavy), 30)
    assert sum(isinstance(one, Busy) for one in outcomes) == 1
    assert len(order) == 9


async def test_the_loop_is_never_blocked_while_fifty_photos_are_in_flight(
    starter_home: Path, tmp_path: Path, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """A watchdog looks every 2 ms; the best of three counts.

    A busy machine holds up every program, so there only what the loop's thread computes counts.
    """
    home = copy_home(starter_home, tmp_path / "home")
    settings = {"queue": {"photos_per_minute": 10}}
    load = os.getloadavg()[0]
    async with chatting(home, **settings) as conversation:
        people = [Person(conversation, Sender("web", str(n), "c", "en")) for n in range(50)]
        await people[0].says("", hopper_jpeg)  # what is made at first use is made
        waited_ms, computed_ms = [], []
        for _ in range(3):
            watchdog = asyncio.create_task(_longest_block_ms())
            replies = await asyncio.gather(
                *(
                    person.says("", hopper_jpeg if number % 2 else collins_jpeg)
                    for number, person in enumerate(people)
                )
            )
            watchdog.cancel()
            assert all(reply.picture is not None for reply in replies)
            waited, computed = await watchdog
            waited_ms.append(waited)
            computed_ms.append(computed)
            if waited < LONGEST_BLOCK_MS:
                break
    assert min(computed_ms) < LONGEST_BLOCK_MS, computed_ms
    if max(load, os.getloadavg()[0]) < 2 * cores():
        assert min(waited_ms) < LONGEST_BLOCK_MS, waited_ms


async def _longest_block_ms() -> tuple[float, float]:
    """Until cancelled: the longest that a timer waited, and that the loop computed meanwhile."""
    waited, computed, looks = 0.0, 0.0, 0
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            before, before_cpu = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.002)
            waited = max(waited, (time.perf_counter() - before) * 1000 - 2)
            computed = max(computed, (time.thread_time() - before_cpu) * 1000)
            looks += 1
    assert looks > 20
    return waited, computed


async def test_many_photos_leave_no_memory_behind(
    starter_home: Path, tmp_path: Path, hopper_jpeg: bytes
) -> None:
    """A shorter run of the bar: 1,000 photos, less than 30 MB after the first 100."""
    home = copy_home(starter_home, tmp_path / "home")
    settings = {"queue": {"photos_per_minute": 10_000}, "memory": {"megabytes": 4}}
    async with chatting(home, **settings) as conversation:
        person = Person(conversation, Sender("web", "1", "c", "en"))

        async def send(count: int) -> None:
            for _ in range(count):
                assert (await person.says("", hopper_jpeg)).picture is not None

        await send(25)
        grown = []
        for _ in range(4):
            await asyncio.sleep(0.1)
            before = _resident_mb()
            await send(25)
            await asyncio.sleep(0.1)
            grown.append(_resident_mb() - before)
            if grown[-1] < 0.75:
                break
    # What photos leave behind shows in every stretch (each is 0.9 MB decoded); what the allocator
    # and other tests do, in some. 0.75 MB in 25 photos is the bar of 30 MB in 1,000.
    assert min(grown) < 0.75, grown


def _resident_mb() -> float:
    status = Path("/proc/self/statm")
    if not status.exists():
        pytest.skip("resident memory is read from /proc")
    import resource

    return int(status.read_text().split()[1]) * resource.getpagesize() / 1e6


async def test_lengthy_work_is_done_one_by_one_and_holds_up_no_photo(
    engine: Engine, hopper_jpeg: bytes
) -> None:
    """Nor does whoever waits for it keep the place of a decoded photo, even if given up."""
    working = most = 0
    begun, seen_beside = threading.Event(), threading.Event()

    def film() -> None:
        nonlocal working, most
        working += 1
        most = max(most, working)
        begun.set()
        seen_beside.wait(60)
        time.sleep(0.01)
        working -= 1

    async with running(engine, workers=1, deadline_s=20.0) as recognizer:

        async def ask(person: bytes) -> None:
            async with recognizer.admitted(person) as slot:
                await slot.detect(giving(hopper_jpeg))
                await recognizer.lengthy(slot, film)

        people = [asyncio.create_task(ask(bytes([number]))) for number in range(8)]
        await asyncio.to_thread(begun.wait, 60)
        async with recognizer.admitted(b"ben") as slot:
            seen = await slot.detect(giving(hopper_jpeg))
        assert seen.faces
        assert not any(person.done() for person in people)
        people[-1].cancel()
        seen_beside.set()
        await asyncio.gather(*people, return_exceptions=True)
        async with recognizer.admitted(b"eve") as slot:  # every place is free again
            await recognizer.lengthy(slot, film)
    assert most == 1
