"""Groups on Telegram with /twins: who sent a photo, under which name, and the whole bot."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from talking import chatting
from telegram_mirror import Mirror, running
from telegram_people import Person, group
from telegram_server import BotApi

from bot.text import Wording

SAY = Wording.load().text


@pytest.fixture
async def api() -> AsyncIterator[BotApi]:
    async with BotApi() as server:
        yield server


async def test_a_group_plays_twins_in_privacy_mode(
    api: BotApi, own_home: Path, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """By command, by button and by a reply to one's own photo; then one leaves."""
    ada, bob = group(Person(api), Person(api, first_name="Bob", last_name="@durov"))
    async with chatting(own_home) as conversation, running(api, conversation):
        await ada.say("/twins@lookalike_test_bot")
        shown = await ada.reply()
        assert shown.words.startswith(SAY("twins.too_few", count=0))
        toast = await ada.toast(await ada.press(shown, SAY("button.twins_on")))
        assert toast == SAY("twins.joined")
        await bob.say("/twins on")
        assert (await bob.reply()).words.startswith(SAY("twins.joined"))

        photo = await ada.send_photo(hopper_jpeg)
        await ada.say("/lookalike", answers=photo)
        assert (await ada.reply()).words.endswith(SAY("twins.counted"))
        await bob.say("/lookalike", answers=photo)
        assert SAY("twins.counted") not in (await bob.reply()).words
        await bob.send_photo(collins_jpeg, "/lookalike")
        assert (await bob.reply()).words.endswith(SAY("twins.counted"))

        await ada.press(shown, SAY("button.twins_show"))
        again = await ada.reply()
        assert (again.kind, again.id) == ("edited", shown.id)
        pair = again.words.splitlines()[1]
        assert "Ada" in pair
        assert "Bob" in pair
        assert "@" not in pair

        await bob.say("/twins off")
        assert (await bob.reply()).words == SAY("twins.left")
        await ada.press(again, SAY("button.twins_show"))
        assert "Bob" not in (await ada.reply()).words


async def test_whose_photo_it_is(api: BotApi, hopper_jpeg: bytes) -> None:
    """One's own by caption, album or reply; nobody's own if forwarded, or sent for a chat."""
    mirror = Mirror()
    ada, bob = group(Person(api), Person(api, first_name="Bob", last_name="Builder"))
    forwarded = {"type": "hidden_user", "sender_user_name": "Eve", "date": 1}
    async with running(api, mirror):
        photo = await ada.send_photo(hopper_jpeg, "/lookalike")
        card = await ada.reply()
        await ada.say("/lookalike", answers=photo)
        await ada.reply()
        await bob.say("/lookalike", answers=photo)
        await bob.reply()
        await bob.say("/lookalike", answers=card.id)
        await bob.reply()
        await bob.send_photo(hopper_jpeg, "/lookalike", forward_origin=forwarded)
        await bob.reply()
        passed_on = await bob.send_photo(hopper_jpeg, forward_origin=forwarded)
        await bob.say("/lookalike", answers=passed_on)
        await bob.reply()
        await bob.press(card, "Again")
        await bob.reply()
        ada.sender_chat = ada.chat.description
        await ada.send_photo(hopper_jpeg, "/lookalike")
        await ada.reply()
    assert [request.photos[0].own for request in mirror.requests] == [
        *(True, True, False, False, False, False, False, False),
    ]
    names = [request.sender.name for request in mirror.requests]
    assert names == ["Ada", "Ada", *["Bob Builder"] * 5, ""]
    assert "Bob" not in repr(mirror.requests)


async def test_a_guest_has_no_name_for_a_chat_it_is_not_in(api: BotApi, hopper_jpeg: bytes) -> None:
    mirror = Mirror()
    ada = Person(api)
    ada.private_chat()
    (chat,) = group(ada)
    async with running(api, mirror):
        await chat.mention_as_guest("@lookalike_test_bot", picture=hopper_jpeg)
    (request,) = mirror.requests
    assert request.sender.name == ""
    assert request.sender.is_group
