"""/twins as people in a group live it, with the real engine, gallery and database."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from homes import copy_home
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from talking import Person, blank, chatting, side_by_side

import bot.background
from bot.commands.twins import NAME_CHARS, shown_name
from bot.conversation import Conversation
from bot.logs import OURS, set_up_logs
from bot.memory import MOST_TWINS, TwinsGroups, is_twin
from bot.process_memory import Memory
from bot.text import Wording
from bot.values import Limits, Sender

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAY = Wording.load().text
FAST = {"photos_per_minute": 1000}
Meet = Callable[..., Person]


class Clock:
    """Unix time that a test can move."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@pytest.fixture(scope="module")
def home(starter_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_home(starter_home, tmp_path_factory.mktemp("twins") / "home")


@pytest.fixture(scope="module")
def groups() -> TwinsGroups:
    return TwinsGroups()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def conversation(home: Path, groups: TwinsGroups) -> AsyncIterator[Conversation]:
    async with chatting(home, twins=groups, queue=FAST) as opened:
        yield opened


@pytest.fixture
def meet(conversation: Conversation, request: pytest.FixtureRequest) -> Meet:
    """Makes the acquaintance of people in a group of the test's own."""

    def person(name: str, *, chat: str = request.node.name, group: bool = True) -> Person:
        sender = Sender("telegram", f"id of {name}", chat, "en", group, name)
        return Person(conversation, sender, Limits())

    return person


def again(jpeg: bytes) -> bytes:
    """Another picture of the same face, which no gallery holds."""
    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(jpeg))
    image.resize((image.width * 3 // 4, image.height * 3 // 4)).save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def hopper_again(hopper_jpeg: bytes) -> bytes:
    return again(hopper_jpeg)


async def test_the_two_most_alike_of_those_who_take_part(
    meet: Meet, hopper_jpeg: bytes, hopper_again: bytes, collins_jpeg: bytes
) -> None:
    ann, ben, eve = map(meet, ("Ann", "Ben", "Eve"))
    for person, photo in ((ann, hopper_jpeg), (eve, collins_jpeg), (ben, hopper_again)):
        joined = await person.says("/twins on")
        assert SAY("twins.joined") in joined.text
        answer = await person.says("/lookalike", photo)
        assert answer.picture
        assert answer.text.endswith(SAY("twins.counted"))
    shown = await eve.says("/twins")
    title, first, *others, people = shown.text.splitlines()
    assert title == SAY("twins.title")
    assert "Ann" in first
    assert "Ben" in first
    assert first.startswith("1. ")
    assert SAY("word.same") in first
    assert [line[0] for line in others] == ["2", "3"]
    assert people.startswith("3 people take part.")
    assert shown.picture is None


async def test_who_did_not_join_is_not_looked_at(
    meet: Meet, hopper_jpeg: bytes, hopper_again: bytes
) -> None:
    ann, ben = meet("Ann"), meet("Ben")
    await ann.says("/twins on", hopper_jpeg)
    reply = await ben.says("/lookalike", hopper_again)
    assert "/twins" not in reply.text
    shown = await ben.says("/twins", hopper_again)
    assert shown.text.startswith(SAY("twins.too_few", count=1))
    assert "Ben" not in shown.text


async def test_a_photo_with_the_command_itself_counts(
    meet: Meet, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    ann, ben = meet("Ann"), meet("Ben")
    assert (await ann.says("/twins on", hopper_jpeg)).text.endswith(SAY("twins.counted"))
    await ben.says("/twins yes!")
    shown = await ben.says("/twins", collins_jpeg)
    assert shown.text.startswith(SAY("twins.counted"))
    assert "1. " in shown.text


@pytest.mark.parametrize(
    "command", ["/top 2", "/model dlib", "/category all", "/morph", "/parents", ""]
)
async def test_whatever_was_asked_of_the_photo(
    meet: Meet, hopper_jpeg: bytes, command: str
) -> None:
    ann = meet("Ann")
    await ann.says("/twins on")
    counted = SAY("twins.counted") in (await ann.says(command, hopper_jpeg)).text
    assert counted == (command != "/parents")  # this gallery does not say who is what


async def test_only_a_photo_of_oneself_alone_counts(
    meet: Meet, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """Not one with others, not one of somebody else's message, not one without a face."""
    ann, ben = meet("Ann"), meet("Ben")
    for person in (ann, ben):
        await person.says("/twins on")
    several = await ann.says("/lookalike", side_by_side(hopper_jpeg, collins_jpeg))
    assert several.text.endswith(SAY("twins.several"))
    assert SAY("twins.counted") not in (await ann.points_at(collins_jpeg)).text
    assert SAY("twins.not_own") in (await ann.points_at(collins_jpeg, "/twins")).text
    assert (await ann.says("/lookalike", blank())).text == SAY("error.no_face")
    await ann.says("/compare", hopper_jpeg, collins_jpeg)
    shown = await ben.says("/twins", hopper_jpeg)
    assert SAY("twins.too_few", count=1) in shown.text


async def test_a_button_under_somebodys_answer_counts_nobodys_photo(
    meet: Meet, hopper_jpeg: bytes
) -> None:
    ann, ben = meet("Ann"), meet("Ben")
    await ben.says("/twins on")
    await ann.says("/lookalike", hopper_jpeg)
    ben.last = ann.last
    assert SAY("twins.counted") not in (await ben.presses("More matches", hopper_jpeg)).text
    assert SAY("twins.too_few", count=0) in (await ben.says("/twins")).text


async def test_whoever_presses_takes_part_and_not_whoever_asked(
    meet: Meet, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    ann, ben = meet("Ann"), meet("Ben")
    await ann.says("/twins")
    assert ann.labels == ["Take part", "Leave", "Look again"]
    ben.last = ann.last
    joined = await ben.presses("Take part")
    assert joined.notice == SAY("twins.joined")
    assert joined.private
    assert SAY("twins.counted") in (await ben.says("/lookalike", hopper_jpeg)).text
    assert SAY("twins.counted") not in (await ann.says("/lookalike", collins_jpeg)).text
    ben.last = await ann.says("/twins")
    again = await ben.presses("Look again")
    assert again.replaces
    assert "1 person takes part." in again.text
    assert (await ben.presses("Leave")).notice == SAY("twins.left")
    assert (await ben.presses("Leave")).notice == SAY("twins.was_not_in")
    assert "0 people take part." in (await ann.says("/twins")).text


async def test_leaving_deletes_at_once(meet: Meet, hopper_jpeg: bytes, collins_jpeg: bytes) -> None:
    ann, ben = meet("Ann"), meet("Ben")
    await ann.says("/twins on", hopper_jpeg)
    await ben.says("/twins on", collins_jpeg)
    assert "Ann" in (await ben.says("/twins")).text
    assert (await ann.says("/twins off")).text == SAY("twins.left")
    shown = await ben.says("/twins")
    assert "Ann" not in shown.text
    assert SAY("twins.too_few", count=1) in shown.text
    await ann.says("/twins on")
    assert SAY("twins.too_few", count=1) in (await ben.says("/twins")).text


async def test_chats_know_nothing_of_each_other(
    meet: Meet, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    ann, ben = meet("Ann", chat="here"), meet("Ben", chat="there")
    await ann.says("/twins on", hopper_jpeg)
    await ben.says("/twins on", collins_jpeg)
    assert SAY("twins.too_few", count=1) in (await ben.says("/twins")).text
    elsewhere = meet("Ann", chat="there")
    assert SAY("twins.counted") not in (await elsewhere.says("/lookalike", hopper_jpeg)).text


async def test_private_chats_and_people_without_a_name(meet: Meet, hopper_jpeg: bytes) -> None:
    """An anonymous administrator shares an id with others, who did not ask to take part."""
    alone = meet("Ann", group=False)
    for said in ("/twins", "/twins on", "/twins off"):
        assert (await alone.says(said, hopper_jpeg)).text == SAY("twins.where")
    assert (await alone.acts("twins:on")).text == SAY("twins.where")
    nameless = meet("")
    assert (await nameless.says("/twins on")).text == SAY("twins.nameless")
    assert (await nameless.acts("twins:on")).notice == SAY("twins.nameless")
    assert SAY("twins.too_few", count=0) in (await nameless.says("/twins")).text


async def test_other_words_get_the_three_ways_to_ask(meet: Meet) -> None:
    assert (await meet("Ann").says("/twins maybe")).text == SAY("twins.usage")


async def test_people_with_different_models_are_compared_by_one(
    meet: Meet, hopper_jpeg: bytes, hopper_again: bytes
) -> None:
    """Ann would like another model, which is not ready here; the spaces are the same."""
    ann, ben = meet("Ann"), meet("Ben")
    await ann.says("/model senet")
    await ann.says("/twins on", hopper_jpeg)
    await ben.says("/twins on", hopper_again)
    assert SAY("word.same") in (await ben.says("/twins")).text


async def test_forgetting_reaches_every_chat(
    meet: Meet, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """Before that, /mydata tells of it without any of it."""
    rooms = [meet("Ada", chat=f"room {number}") for number in range(2)]
    bobs = [meet("Bob", chat=f"room {number}") for number in range(2)]
    for ada, bob in zip(rooms, bobs, strict=True):
        await ada.says("/twins on", hopper_jpeg)
        await bob.says("/twins on", collins_jpeg)
        assert "1. " in (await bob.says("/twins")).text
    private = meet("Ada", chat="private", group=False)
    stored = await private.says("/mydata")
    assert "you take part in /twins in 2 chats" in stored.text
    assert stored.document
    assert "twins" not in json.dumps(json.loads(stored.document.content))
    await private.says("/forget")
    await private.presses("Yes")
    for bob in bobs:
        shown = await bob.says("/twins")
        assert "Ada" not in shown.text
        assert "1 person takes part." in shown.text
    assert "/twins" not in (await private.says("/mydata")).text


async def test_a_day_later_everything_is_gone_by_itself(
    home: Path, hopper_jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timer drops it, though nobody asks anything."""
    monkeypatch.setattr(bot.background, "TIDY_S", 0.02)
    clock = Clock()
    known = Memory(MOST_TWINS, is_twin, clock)
    groups = TwinsGroups(known, clock=clock)
    async with chatting(home, twins=groups) as opened:
        ann = Person(opened, Sender("telegram", "1", "c", "en", is_group=True, name="Ann"))
        await ann.says("/twins on", hopper_jpeg)
        clock.ahead_s = 86_000
        await asyncio.sleep(0.1)
        assert known._kept
        clock.ahead_s = 86_500
        async with asyncio.timeout(5):
            while known._kept:  # noqa: ASYNC110 - the timer is what is tested
                await asyncio.sleep(0.01)
        assert SAY("twins.was_not_in") == (await ann.says("/twins off")).text


async def test_a_full_chat_says_so(home: Path) -> None:
    async with chatting(home, twins=TwinsGroups(most_in_a_chat=1)) as opened:
        ann = Person(opened, Sender("discord", "1", "c", "en", is_group=True, name="Ann"))
        ben = replace(ann, sender=replace(ann.sender, user_id="2", name="Ben"))
        await ann.says("/twins on")
        assert (await ben.says("/twins on")).text == SAY("twins.full")
        assert (await ben.acts("twins:on")).notice == SAY("twins.full")


def files(folder: Path) -> list[Path]:
    """Every file below a folder."""
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_nothing_of_it_is_written_or_logged(
    meet: Meet,
    home: Path,
    conversation: Conversation,
    groups: TwinsGroups,
    hopper_jpeg: bytes,
    collins_jpeg: bytes,
) -> None:
    """Neither names nor ids nor keys nor embeddings: not on disk, not at DEBUG."""
    root, stream = logging.getLogger(), io.StringIO()
    before = root.handlers, root.level
    set_up_logs("DEBUG", stream=stream)
    people = [meet(name, chat="-100777888999") for name in ("Zebulon Quux", "Wilhelmina Xyzzy")]
    try:
        for person, photo in zip(people, (hopper_jpeg, collins_jpeg), strict=True):
            await person.says("/twins on")
            await person.says("/lookalike", again(photo))
        assert "Quux" in (await people[0].says("/twins")).text
    finally:
        root.handlers, root.level = before
        for name in OURS:
            logging.getLogger(name).setLevel(logging.NOTSET)
        logging.captureWarnings(capture=False)
    secrets = [b"Zebulon", b"Quux", b"Xyzzy", b"id of", b"-100777888999"]
    for person in people:
        who = conversation._services.store.identity.who(person.sender)
        member = await groups.member(who.room, who.user)
        assert member is not None
        assert member.embedding is not None
        keys = (who.room, who.room.hex().encode())
        secrets += [*keys, member.embedding.vector.tobytes()[:32]]
    written = {path.name: path.read_bytes() for path in files(home)}
    assert "lookalike.db" in written
    for secret in secrets:
        assert secret not in stream.getvalue().encode()
        assert [name for name, content in written.items() if secret in content] == []
    assert "members=2" in stream.getvalue()


async def test_a_restart_forgets_everybody(home: Path, hopper_jpeg: bytes) -> None:
    texts = []
    for _ in range(2):
        async with chatting(home) as opened:
            ann = Person(opened, Sender("telegram", "1", "c", "en", is_group=True, name="Ann"))
            texts.append((await ann.says("/twins")).text)
            await ann.says("/twins on", hopper_jpeg)
    assert texts[0] == texts[1]
    assert "0 people take part." in texts[1]


async def test_a_name_pings_nobody_and_stays_on_its_line(
    meet: Meet, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    ann = meet("@durov /forget https://t.me/x #tag <@123>")
    ben = meet("Ben\n1. Ann and the Pope: 100\u202e")
    await ann.says("/twins on", hopper_jpeg)
    await ben.says("/twins on", collins_jpeg)
    lines = (await ben.says("/twins")).text.splitlines()
    assert len(lines) == 3
    assert not {"@", "#", "\u202e"} & set(lines[1])
    assert "://" not in lines[1]
    assert "t.me" not in lines[1]


@given(st.text(max_size=200))
async def test_any_name_is_shown_short_and_harmless(name: str) -> None:
    shown = shown_name(name)
    assert 1 <= len(shown) <= NAME_CHARS
    assert not set("@#/:.\n\r\u2028\u202e\u2066") & set(shown)
