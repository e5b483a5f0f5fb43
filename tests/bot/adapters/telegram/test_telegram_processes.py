"""Two processes of one bot behind one webhook, on one PostgreSQL and one Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from homes import copy_home
from postgres_server import PostgresServer
from telegram_mirror import until
from telegram_pair import KEY, Pair, started
from telegram_people import Person, Talk, group
from valkey_server import ValkeyServer

from bot.memory import RecentPhotos
from bot.store import Identity
from bot.text import Wording
from bot.valkey import Valkey
from bot.values import Sender

SAY = Wording.load().text
LIMIT = 5

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(
    starter_home: Path,
    tmp_path_factory: pytest.TempPathFactory,
    postgres: PostgresServer,
    valkey: ValkeyServer,
) -> AsyncIterator[Pair]:
    folder = tmp_path_factory.mktemp("processes")
    homes = [copy_home(starter_home, folder / name) for name in ("one", "another")]
    limit = {"QUEUE__PHOTOS_PER_MINUTE": str(LIMIT)}
    async with started(homes, postgres.fresh(), valkey.url, claim_s=6.0, **limit) as pair:
        first, second = pair.api.called("setWebhook")
        assert first.parameters["secret_token"] == second.parameters["secret_token"]
        yield pair


async def answered(chat: Talk, picture: bytes, caption: str = "") -> str:
    """What a photo is answered with."""
    await chat.send_photo(picture, caption)
    return (await chat.reply()).words


async def remembered(valkey: ValkeyServer, chat: Talk) -> bool:
    """Whether a photo of that person is in the memory that the processes share."""
    identity = Identity(KEY.encode())
    who = identity.who(Sender("telegram", str(chat.person.id), str(chat.id)))
    async with Valkey(valkey.url, identity, unchecked=False) as memory:
        return await RecentPhotos(memory).latest(who.user) is not None


async def test_buttons_and_choices_hold_at_the_other_process(
    pair: Pair, valkey: ValkeyServer, hopper_jpeg: bytes
) -> None:
    chat = Person(pair.api).private_chat()
    pair.at(0)
    await chat.send_photo(hopper_jpeg)
    card = await chat.reply()
    assert "Grace Hopper" in card.words
    pair.at(1)
    await chat.press(card, SAY("button.more"), forgotten=True)  # nothing but the token is left
    assert "Eileen Collins" in (await chat.reply()).words
    await chat.say("/top 2")
    await chat.reply()
    pair.at(0)
    assert "Eileen Collins" in await answered(chat, hopper_jpeg)
    await chat.say("/history")
    assert (await chat.reply()).words.count("Grace Hopper") == 2
    assert await remembered(valkey, chat)
    pair.at(1)
    await chat.say("/forget")
    asked = await chat.reply()
    pair.at(0)
    await chat.press(asked, SAY("button.forget_yes"))
    assert (await chat.reply()).words == SAY("forget.done")
    assert not await remembered(valkey, chat)


async def test_twins_meet_wherever_they_are_answered(
    pair: Pair, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    ann, ben = Person(pair.api, first_name="Ann"), Person(pair.api, first_name="Ben")
    one, other = group(ann, ben)
    for door, chat, picture in ((0, one, hopper_jpeg), (1, other, collins_jpeg)):
        pair.at(door)
        await chat.say("/twins on")
        await chat.reply()
        pair.at(1 - door)
        assert SAY("twins.counted") in await answered(chat, picture, "/lookalike")
    await one.say("/twins")
    shown = (await one.reply()).words
    assert "Ann" in shown
    assert "Ben" in shown


async def test_an_album_is_one_question_and_its_photos_stay_together(
    pair: Pair, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """Whichever process gets which item, the button or the reply."""
    chat = Person(pair.api).private_chat()
    pair.at(0, 1)
    await chat.send_album([hopper_jpeg, collins_jpeg, hopper_jpeg])
    card = await chat.reply()
    assert SAY("answer.album", count=2) in card.words
    for door, name in enumerate(("Eileen Collins", "Grace Hopper")):
        pair.at(door)
        await chat.press(card, SAY("button.photo", number=2 + door))
        assert name in (await chat.reply()).words
        await chat.say("/lookalike", answers=card.id)
        assert "Grace Hopper" in (await chat.reply()).words
    assert await chat.stays_silent(0.1)


async def test_what_comes_to_both_is_answered_once(pair: Pair, hopper_jpeg: bytes) -> None:
    chat = Person(pair.api).private_chat()
    pair.at(0, 1, both=True)
    for _ in range(3):
        assert "Grace Hopper" in await answered(chat, hopper_jpeg)
    await chat.say("/top 3")
    assert (await chat.reply()).words == SAY("top.chosen", count=3)
    assert await chat.stays_silent(0.1)


async def test_limits_count_what_both_answered(pair: Pair, hopper_jpeg: bytes) -> None:
    chat = Person(pair.api).private_chat()
    pair.at(0, 1)
    for _ in range(LIMIT):
        assert "Grace Hopper" in await answered(chat, hopper_jpeg)
    assert "Grace" not in await answered(chat, hopper_jpeg)
    await chat.send_photo(hopper_jpeg)
    await chat.say("/top 2")
    assert (await chat.reply()).words == SAY("top.chosen", count=2)  # told once, by either


async def test_what_a_process_had_in_work_when_it_was_killed_is_answered_by_the_other(
    pair: Pair, hopper_jpeg: bytes
) -> None:
    chat = Person(pair.api).private_chat()
    pair.at(0)
    before = len(pair.api.called("getFile"))
    pair.api.slow_s["getFile"] = 3600
    await chat.send_photo(hopper_jpeg)
    await until(lambda: not pair.api.updates)
    await until(lambda: len(pair.api.called("getFile")) > before)
    pair.processes[0].kill()
    pair.api.slow_s["getFile"] = 0
    assert "Grace Hopper" in (await chat.reply(within_s=60)).words
    assert await chat.stays_silent(0.1)
