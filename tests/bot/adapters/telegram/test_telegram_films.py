"""Films on Telegram: sent, put in the place of a picture and back, through guest mode."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator

import pytest
from films import small_film
from PIL import Image
from telegram_mirror import Mirror, mirrored, running, size, until
from telegram_people import Person, group
from telegram_rules import Refusal, check_film
from telegram_server import BotApi

from bot.values import Button, Reply

ME = "@lookalike_test_bot"
FILM = small_film()
BUTTONS = ((Button("Show the card", "card"),),)


@pytest.fixture
async def api() -> AsyncIterator[BotApi]:
    async with BotApi() as server:
        yield server


@pytest.fixture(autouse=True)
async def mirror(api: BotApi) -> AsyncIterator[Mirror]:
    conversation = Mirror()
    conversation.replies["morph"] = Reply("Grace Hopper", buttons=BUTTONS, animation=FILM)
    async with running(api, conversation):
        yield conversation


async def test_a_film_is_sent_as_one_that_plays(api: BotApi, hopper_jpeg: bytes) -> None:
    """As an animation with its caption, its buttons, and its measures known beforehand."""
    chat = Person(api).private_chat()
    sent = await chat.send_photo(hopper_jpeg, "/morph")
    reply = await chat.reply()
    assert reply.film == FILM.content
    assert reply.words == "Grace Hopper"
    assert reply.answers_to == sent
    assert set(reply.buttons) == {"Show the card"}
    told = api.called("sendAnimation")[0].parameters
    assert (told["width"], told["height"], told["duration"]) == (96, 64, 1)


async def test_a_picture_becomes_a_film_and_a_picture_again(
    api: BotApi, mirror: Mirror, hopper_jpeg: bytes
) -> None:
    """By editing one message, whatever it showed before."""
    mirror.replies["again"] = Reply("moves", buttons=BUTTONS, animation=FILM, replaces=True)
    mirror.replies["card"] = Reply("still", mirrored(hopper_jpeg), replaces=True)
    chat = Person(api).private_chat()
    await chat.send_photo(hopper_jpeg)
    picture = await chat.reply()
    await chat.press(picture, "Again")
    film = await chat.reply()
    assert (film.kind, film.id, film.words) == ("edited", picture.id, "moves")
    assert film.film == FILM.content
    assert film.picture is None
    await chat.press(film, "Show the card")
    card = await chat.reply()
    assert (card.kind, card.id, card.words) == ("edited", picture.id, "still")
    assert size(card.picture) == size(hopper_jpeg)
    assert card.film is None


async def test_a_refused_film_arrives_as_a_file(api: BotApi, hopper_jpeg: bytes) -> None:
    """With the same words, so that nobody waits in vain."""
    api.fail("sendAnimation", status=400)
    chat = Person(api).private_chat()
    await chat.send_photo(hopper_jpeg, "/morph")
    reply = await chat.reply()
    assert reply.film is None
    assert reply.document == FILM.content
    assert reply.words == "Grace Hopper"


async def test_a_guest_shows_a_film(api: BotApi, mirror: Mirror, hopper_jpeg: bytes) -> None:
    """It goes through the asker's private chat, and nothing stays there."""
    ada = Person(api)
    own = ada.private_chat()
    (chat,) = group(ada)
    photo = await chat.send_photo(hopper_jpeg)
    result = await chat.mention_as_guest(f"{ME} /morph", answers=photo)
    assert result["type"] == "mpeg4_gif"
    assert api.files[result["mpeg4_file_id"]].content == FILM.content
    await until(lambda: not own.chat.messages)
    mirror.replies["card"] = Reply("moves on", animation=small_film(40), replaces=True)
    await chat.press_inline(result, "Show the card")
    inline = result["inline_message_id"]
    await until(lambda: api.inline[inline].get("caption") == "moves on")


def test_the_server_takes_nothing_for_a_film_that_is_none() -> None:
    """Its rules are the point of these tests."""
    check_film(FILM.content)
    jpeg = io.BytesIO()
    Image.new("RGB", (64, 64)).save(jpeg, "JPEG")
    for content in (b"", b"no film at all", FILM.content[:200], jpeg.getvalue()):
        with pytest.raises(Refusal):
            check_film(content)
