"""The memory that processes share, on a real server of Valkey or Redis."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from talking import Person, chatting
from test_recent_photos import a_face, a_photo
from valkey_server import ValkeyServer

from bot.memory import KeptPhoto, Member, RecentAnswer, RecentPhotos, TwinsGroups
from bot.monitor import Monitor
from bot.process_memory import SAME, Memory
from bot.store import Identity
from bot.text import Wording
from bot.valkey import Valkey
from bot.values import Attachment, Sender
from engine.errors import BadSettings, PhotoGone, SetupProblem
from engine.types import Embedding, Space

SECRET = b"one secret for all of these processes"
SAY = Wording.load().text
SPACE = Space("dlib", "0" * 64, 1, 8)


@contextlib.asynccontextmanager
async def opened(
    url: str, *, secret: bytes = SECRET, unchecked: bool = False
) -> AsyncIterator[Any]:
    async with Valkey(url, Identity(secret), unchecked=unchecked) as memory:
        yield memory


@pytest.fixture
def started() -> Iterator[Callable[..., ValkeyServer]]:
    """Starts servers that a test may do with what it likes."""
    with contextlib.ExitStack() as stack:

        def start(*options: str) -> ValkeyServer:
            server = ValkeyServer(*options)
            stack.callback(server.stop)
            return server

        yield start


def seen(seed: int) -> Embedding:
    vector = np.random.default_rng(seed).normal(size=SPACE.dimensions)
    return Embedding((vector / np.linalg.norm(vector)).astype(np.float32), SPACE)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - a test looks from outside
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("is_shared", [False, True])
async def test_what_a_memory_does(valkey: ValkeyServer, *, is_shared: bool) -> None:
    """The same in one process and in several."""
    async with opened(valkey.url) as shared:
        memory, name = shared if is_shared else Memory(), ("some", str(is_shared))
        assert await memory.get(name) is None
        assert not await memory.put(name, 1)
        assert await memory.put(name, [1], 60, absent=True)
        assert not await memory.put(name, [2], 60, absent=True)
        assert await memory.put(name, [3])
        assert await memory.get(name) == [3]

        def count(known: Any) -> Any:
            return [known[0] + 1]

        await asyncio.gather(*(memory.change(name, 60, count) for _ in range(20)))
        assert await memory.get(name) == [23]

        def refuse(_: Any) -> Any:
            raise LookupError

        with pytest.raises(LookupError):
            await memory.change(name, 60, refuse)
        assert await memory.change(name, 60, lambda _: SAME) == [23]
        assert await memory.take(name) == [23]
        assert await memory.take(name) is None
        for last, *gone in (("a",), ("b",), ("a",), ("", "b"), ("c",)):
            await memory.relist(name, 60, last, *gone)
        assert await memory.get(name) == ["a", "c"]
        await memory.relist(name, 60, "", "a", "c")
        assert await memory.get(name) is None
        await memory.put(name, 1, 0.01)
        await memory.put(name, 1, 60)  # the same once more, and for longer
        await asyncio.sleep(0.03)
        assert await memory.get(name) == 1
        await memory.put(name, 1, 0.01)
        await asyncio.sleep(0.03)
        assert await memory.get(name) is None


async def test_nothing_stands_there_in_the_clear_or_without_an_end(valkey: ValkeyServer) -> None:
    """And whoever has another secret finds nothing, nor can put anything in its place."""
    valkey.ask().flushall()
    async with opened(valkey.url) as memory, opened(valkey.url, secret=b"another" * 9) as other:
        await TwinsGroups(memory).join(b"-100777", b"user-17", "Wilhelmina Xyzzy")
        answer = RecentAnswer(
            b"user-17", b"-100777", (KeptPhoto(a_photo(), (a_face(10, 10, 20),)),)
        )
        await RecentPhotos(memory).keep("token", answer)
        name = ("photo", b"-100777".hex(), "token")
        assert await memory.get(name)
        with valkey.ask() as server:
            keys: Any = server.keys("*")
            assert len(keys) == 5
            for key in keys:
                text: Any = key + server.get(key)
                for told in (b"user-17", b"user-17".hex().encode(), b"Xyzzy", b"token", b"twin"):
                    assert told not in text
                assert 0 < int(server.ttl(key)) <= 86_400  # type: ignore[arg-type]
            assert await other.get(name) is None
            server.set(memory._place(name), b"from somebody else")
        assert await memory.get(name) is None


async def test_another_process_knows_photos_and_twins(valkey: ValkeyServer) -> None:
    """As they were, until they are forgotten by any of them."""

    async def fetch() -> bytes:
        return b"here"

    photo = KeptPhoto(a_photo(), (a_face(10, 10, 20),))
    photo.embeddings[1, "dlib"] = seen(1)
    photo.answered.add((1, "dlib", False))
    rest = (Attachment(fetch, own=True, spoiler=True, message_id=18),)
    answer = RecentAnswer(b"ann", b"room", (photo,), "film", rest, "split", 2, 17)
    async with opened(valkey.url) as one, opened(valkey.url) as another:
        here, there = RecentPhotos(one), RecentPhotos(another)
        token = here.token(answer)
        await here.keep(token, answer)
        found = await there.find(token, b"room")
        assert found is not None
        assert (found.owner, found.room, found.category, found.style) == (
            b"ann",
            b"room",
            "film",
            "split",
        )
        assert (found.first, found.message_id, found.elsewhere) == (2, 17, True)
        (later,) = found.rest
        assert (later.own, later.spoiler, later.message_id) == (True, True, 18)
        with pytest.raises(PhotoGone):
            await later.fetch()
        (copy,) = found.photos
        np.testing.assert_array_equal(copy.photo().pixels, photo.photo().pixels)
        np.testing.assert_array_equal(copy.faces[0].landmarks, photo.faces[0].landmarks)
        assert (copy.faces[0].box, copy.answered) == (photo.faces[0].box, photo.answered)
        assert copy.embeddings[1, "dlib"].cosine(seen(1)) == pytest.approx(1)
        copy.answered.add((1, "best", False))
        await there.keep(token, found, again=True)
        latest = await here.latest(b"ann")
        assert latest is not None
        assert latest.photos[0].answered == copy.answered
        groups, others = TwinsGroups(one), TwinsGroups(another)
        await groups.join(b"room", b"ann", "Ann")
        await others.join(b"room", b"ben", "Ben")
        member = await others.member(b"room", b"ann")
        assert isinstance(member, Member)
        assert await others.count(b"room", b"ann", member, seen(2), "Ann")
        assert not await groups.count(b"room", b"ann", member, seen(3), "Ann")
        members = await groups.members(b"room")
        assert set(members) == {b"ann", b"ben"}
        assert members[b"ann"].embedding is not None
        await there.forget(b"ann")
        await others.forget(b"ann")
        await here.keep(token, answer, again=True)  # a button that was pressed meanwhile
        assert await here.find(token, b"room") is None
        assert set(await groups.members(b"room")) == {b"ben"}


async def test_a_server_that_goes_away_is_told_once_and_comes_back(
    started: Callable[..., ValkeyServer], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = started()
    async with opened(server.url) as memory:
        await memory.put(("kept",), "there", 60)
        server.kill()
        for number in range(3):
            await memory.put(("kept",), number, 60)
            assert await memory.get(("kept",)) == number
            assert await memory.change(("count",), 60, lambda known: (known or 0) + 1) == number + 1
        assert not memory.connected
        server.start()
        await until(lambda: memory.connected)
        assert await memory.get(("kept",)) == 2
        assert await memory.put(("kept",), 5)  # no longer than it was
        assert await memory.get(("kept",)) == 5
        assert await memory.change(("count",), 60, lambda known: (known or 0) + 1) == 4
        with server.ask() as direct:
            assert all(int(direct.ttl(key)) > 0 for key in direct.keys("*"))  # type: ignore[arg-type, union-attr]
        assert await memory.take(("kept",)) == 5
        assert await memory.get(("kept",)) is None
        server.kill()
        assert await memory.get(("count",)) is None
    said = [record.message for record in caplog.records if record.name == "bot.valkey"]
    told = "memory.url does not answer (ConnectionError): until it does, this process is on its own"
    assert said == [told, "memory.url answers again", told]


async def test_a_server_that_is_away_at_the_start_holds_nothing_up(
    started: Callable[..., ValkeyServer],
) -> None:
    server = started()
    server.kill()
    async with opened(server.url) as memory:
        assert not memory.connected
        assert await memory.put(("kept",), 1, 60)
        server.start()
        await until(lambda: memory.connected)


@pytest.mark.parametrize(
    ("options", "url", "sentence"),
    [
        (("--save", "60 1"), "{}", "write people's photos to its disk"),
        (("--save", "", "--appendonly", "yes"), "{}", "write people's photos to its disk"),
        (("--save", "", "--rename-command", "CONFIG", "hidden"), "{}", "does not say whether"),
        (("--save", "", "--requirepass", "right"), "unix://:wr0ng@{}", "refuses the password"),
        (("--save", ""), "http://somewhere", "is no address"),
    ],
)
async def test_a_server_that_can_not_be_used_ends_with_a_sentence(
    started: Callable[..., ValkeyServer], options: tuple[str, ...], url: str, sentence: str
) -> None:
    server = started(*options)
    address = url.format(server.url.removeprefix("unix://") if "@" in url else server.url)
    with pytest.raises(SetupProblem, match=sentence) as problem:
        async with opened(address):
            pass
    assert "wr0ng" not in str(problem.value)
    if not isinstance(problem.value, BadSettings):
        async with opened(address, unchecked=True) as memory:
            assert memory.connected


async def test_a_full_server_leaves_each_process_its_own(
    started: Callable[..., ValkeyServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = started("--save", "", "--maxmemory-policy", "noeviction")
    async with opened(server.url) as memory:
        assert "allkeys-lru" in caplog.text
        with server.ask() as direct:
            direct.config_set("maxmemory", 1)
            with pytest.raises(redis.OutOfMemoryError):
                direct.set("a", "b")
        assert await memory.put(("kept",), 1, 60)
        assert await memory.get(("kept",)) == 1
        assert memory.connected


async def test_a_bot_goes_on_while_its_memory_is_away(
    started: Callable[..., ValkeyServer], own_home: Path, hopper_jpeg: bytes
) -> None:
    """With buttons and limits of its own; but it does not say that all is forgotten."""
    server = started()
    section = {"memory": {"url": server.url}, "queue": {"photos_per_minute": 2}}
    async with chatting(own_home, **section) as conversation:
        monitor = Monitor(conversation, [])
        ann = Person(conversation, Sender("telegram", "1", "a chat", "en"))
        await ann.says("", hopper_jpeg)
        assert (await monitor.parts())["memory"]
        server.kill()
        for _ in range(2):
            assert (await ann.says("", hopper_jpeg)).picture
        assert "cosine" in (await ann.presses(SAY("button.numbers"))).text
        assert not (await ann.says("", hopper_jpeg)).picture
        await ann.says("/forget")
        assert (await ann.presses(SAY("button.forget_yes"))).text == SAY("error.try_later")
        assert not (await monitor.parts())["memory"]
        server.start()
        await until(lambda: conversation.memory.connected)
        await ann.says("/forget")
        assert (await ann.presses(SAY("button.forget_yes"))).text == SAY("forget.done")
