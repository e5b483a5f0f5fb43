"""``/style`` and ``/morph`` as people use them, with the real engine, gallery and database."""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from films import seen
from homes import copy_home
from talking import Person, blank, chatting, side_by_side

from bot.conversation import Conversation
from bot.values import Limits, Reply, Sender

pytestmark = pytest.mark.asyncio(loop_scope="module")

ids = map(str, itertools.count(7000))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def conversation(
    starter_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Conversation]:
    home = copy_home(starter_home, tmp_path_factory.mktemp("styles") / "home")
    async with chatting(home, queue={"photos_per_minute": 1000}) as opened:
        yield opened


@pytest.fixture
def ann(conversation: Conversation) -> Person:
    """Somebody new, in a private chat."""
    return Person(conversation, Sender("telegram", next(ids), "private", "en-GB"))


def is_split(reply: Reply) -> bool:
    """By what those hear who can't see it; the card is higher, too."""
    assert reply.picture
    return "two halves" in reply.picture.alt and reply.picture.height_px > 1100


async def test_a_style_is_chosen_once_and_holds_everywhere(ann: Person, hopper_jpeg: bytes) -> None:
    assert not is_split(await ann.says("", hopper_jpeg))
    assert "one face" in (await ann.says("/style split")).text
    split = await ann.says("", hopper_jpeg)
    assert is_split(split)
    assert "Card style: one split face" in (await ann.says("/settings")).text
    elsewhere = Person(ann.conversation, Sender("telegram", ann.sender.user_id, "group", "en"))
    assert is_split(await elsewhere.says("", hopper_jpeg))
    await ann.says("/style side by side")
    assert not is_split(await ann.says("", hopper_jpeg))


async def test_a_photo_with_a_style_is_answered_in_it(ann: Person, hopper_jpeg: bytes) -> None:
    """`/style split` as its caption chooses, too; `/lookalike split` holds for it alone."""
    once = await ann.says("/lookalike split", hopper_jpeg)
    assert is_split(once)
    assert "one split face" not in (await ann.says("/settings")).text
    assert is_split(await ann.says("/style Split!", hopper_jpeg))
    assert is_split(await ann.says("", hopper_jpeg))


async def test_styles_have_buttons(ann: Person) -> None:
    menu = await ann.says("/style")
    assert ann.labels == ["● side by side", "○ one split face"]
    pressed = await ann.presses("split")
    assert pressed.replaces
    assert "● one split face" in str(pressed.buttons)
    assert "Now: side by side" in menu.text
    unknown = await ann.says("/style watercolour")
    assert "“watercolour”" in unknown.text
    assert "side, split" in unknown.text


async def test_buttons_keep_the_style_of_their_answer(ann: Person, collins_jpeg: bytes) -> None:
    """More matches are one sheet of split faces; the raw numbers stay numbers."""
    assert is_split(await ann.says("/lookalike split", collins_jpeg))
    more = await ann.presses("More matches")
    assert "joined with each" in (more.picture.alt if more.picture else "")
    assert "2. Grace Hopper" in more.text
    assert "cosine" in (await ann.presses("Raw numbers")).text


async def test_ranks_are_one_picture_in_both_styles(ann: Person, hopper_jpeg: bytes) -> None:
    side = await ann.says("/top 2", hopper_jpeg)
    split = await ann.says("/lookalike 2 split", hopper_jpeg)
    for reply in (side, split):
        assert reply.picture
        assert len(reply.answers[0].matches) == 2
        assert len(reply.picture.jpeg) <= 250_000
    assert side.picture != split.picture


async def test_several_faces_are_numbered_in_a_split_answer(
    ann: Person, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    await ann.says("/lookalike split", side_by_side(hopper_jpeg, collins_jpeg))
    other = await ann.presses("Face 2")
    assert is_split(other)
    assert "Face 2 of 2" in other.text


async def test_a_profile_is_answered_side_by_side_and_told_so(
    ann: Person, hard_faces: Path
) -> None:
    """With every photo of a profile in which a face is found."""
    answered = 0
    for path in sorted((hard_faces / "profile_and_pose").iterdir()):
        reply = await ann.says("/lookalike split", path.read_bytes())
        told = "side by side" in reply.text
        if reply.picture is not None:
            answered += 1
            assert told != is_split(reply)
    assert answered > 3


async def test_a_choice_is_exported_and_forgotten(ann: Person) -> None:
    await ann.says("/style split")
    handed = await ann.says("/mydata")
    assert handed.document
    assert json.loads(handed.document.content)["choices"] == {"style": "split"}
    await ann.says("/forget")
    await ann.presses("Yes")
    assert "Card style: side by side" in (await ann.says("/settings")).text


async def test_a_morph_ends_with_the_best_match(ann: Person, hopper_jpeg: bytes) -> None:
    """A film with the words and credit of the answer, and a button back to the card."""
    reply = await ann.says("/morph", hopper_jpeg)
    assert reply.picture is None
    assert reply.animation
    assert "Grace Hopper" in reply.animation.alt
    assert "Your closest of 2: Grace Hopper\n" in reply.text
    assert "Photo: James S. Davis, U.S. Navy, public domain" in reply.text
    assert len(seen(reply.animation.content).frames) > 40
    assert ann.labels == ["Show the card"]
    card = await ann.presses("card")
    assert card.picture
    assert "Morph" in str(card.buttons)


async def test_the_button_morphs_the_face_that_was_answered(
    ann: Person, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """As a message of its own, so that the answer stays; also once the photo is forgotten."""
    both = side_by_side(hopper_jpeg, collins_jpeg)
    await ann.says("", both)
    second = await ann.presses("Face 2")
    named = second.answers[0].matches[0].name
    film = await ann.presses("Morph")
    assert film.animation
    assert named in film.animation.alt
    assert not film.replaces
    again = await ann.acts("morph:forgottentok:1:dlib", hopper_jpeg)
    assert again.animation
    assert "Grace Hopper" in again.animation.alt
    gone = await ann.acts("morph:forgottentok:1:dlib")
    assert gone.animation is None
    assert gone.text


async def test_a_morph_without_a_face_or_photo_says_what_to_do(ann: Person) -> None:
    assert "/morph" in (await ann.says("/morph")).text
    reply = await ann.says("/morph", blank())
    assert reply.animation is None
    assert "find a face" in reply.text


async def test_a_film_that_is_too_large_leaves_its_words(
    conversation: Conversation, hopper_jpeg: bytes
) -> None:
    """On a platform that carries next to nothing."""
    narrow = Person(
        conversation, Sender("discord", next(ids), "c", "en"), Limits(animation_bytes=1000)
    )
    reply = await narrow.says("/morph", hopper_jpeg)
    assert reply.animation is None
    assert "Your closest of 2: Grace Hopper\n" in reply.text


async def test_morphs_are_in_the_history_once(ann: Person, hopper_jpeg: bytes) -> None:
    await ann.says("/morph", hopper_jpeg)
    await ann.presses("card")
    history = (await ann.says("/history")).text
    assert history.count("Grace Hopper") == 1


async def test_a_flood_of_morphs_starves_nobody(
    conversation: Conversation, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """While one person waits for many films, another's photo is answered among the first."""
    ann, ben = (
        Person(conversation, Sender("telegram", next(ids), "private", "en")) for _ in range(2)
    )
    films = [asyncio.create_task(ann.says("/morph", hopper_jpeg)) for _ in range(6)]
    await asyncio.sleep(0.05)
    started = time.monotonic()
    answer = await ben.says("", collins_jpeg)
    waited_s = time.monotonic() - started
    unfinished = sum(not film.done() for film in films)
    assert answer.picture
    assert unfinished >= 3, f"{waited_s:.1f} s"
    assert all(film.animation for film in await asyncio.gather(*films))


async def test_choices_made_before_there_were_styles_are_kept(
    starter_home: Path, tmp_path: Path
) -> None:
    """What is sealed in a row may grow: no column tells a reader of the file who likes what."""
    home = copy_home(starter_home, tmp_path / "home")
    sender = Sender("telegram", "1", "private", "en")
    async with chatting(home) as conversation:
        await Person(conversation, sender).says("/model dlib")
        await Person(conversation, sender).says("/top 2")
    with sqlite3.connect(home / "lookalike.db") as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(choice)")]
    database.close()
    assert columns == ["key", "user_key", "sealed"]
    async with chatting(home) as conversation:
        ann = Person(conversation, sender)
        assert "Card style: side by side" in (await ann.says("/settings")).text
        await ann.says("/style split")
        settings = (await ann.says("/settings")).text
        assert "Model: dlib" in settings
        assert "Matches shown in this chat: 2" in settings
        assert "Card style: one split face" in settings
    assert b"split" not in (home / "lookalike.db").read_bytes()
