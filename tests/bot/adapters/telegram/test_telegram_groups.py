"""Groups, buttons and guests on Telegram: who is answered, where, and how messages change."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator

import pytest
from PIL import Image
from telegram_mirror import Mirror, mirrored, running, size, until
from telegram_people import Person, group
from telegram_server import BotApi

from bot.values import Button, Picture, Reply

ME = "@lookalike_test_bot"


@pytest.fixture
async def api() -> AsyncIterator[BotApi]:
    async with BotApi() as server:
        yield server


@pytest.fixture(autouse=True)
async def mirror(api: BotApi) -> AsyncIterator[Mirror]:
    conversation = Mirror()
    async with running(api, conversation):
        yield conversation


async def test_a_group_is_left_in_peace(api: BotApi, mirror: Mirror, hopper_jpeg: bytes) -> None:
    """Photos, words, albums and other bots' commands that don't ask for an answer get none."""
    api.me["can_read_all_group_messages"] = True
    ada, bob = group(Person(api), Person(api))
    photo = await ada.send_photo(hopper_jpeg)
    await bob.say("nice!", answers=photo)
    await bob.say("/ban ada")
    await bob.say("/lookalike@other_bot", answers=photo)
    await bob.say("write to me@lookalike_test_bot_fan")
    await ada.send_album([hopper_jpeg, hopper_jpeg])
    assert await ada.stays_silent(0.8)
    assert not mirror.requests
    assert not api.called("sendChatAction")


@pytest.mark.parametrize("words", ["/lookalike", f"/lookalike{ME}", ME, f"{ME} who is that?"])
async def test_somebody_elses_photo(
    api: BotApi, mirror: Mirror, hopper_jpeg: bytes, words: str
) -> None:
    """A command or a mention in reply to a photo asks about it; the asker is answered."""
    ada, bob = group(Person(api), Person(api))
    photo = await ada.send_photo(hopper_jpeg)
    asked = await bob.say(words, answers=photo)
    reply = await bob.reply()
    assert size(reply.picture) == size(hopper_jpeg)
    assert reply.answers_to == asked
    (request,) = mirror.requests
    assert request.sender.user_id == str(bob.person.id)
    assert request.sender.chat_id == str(bob.id)
    assert request.sender.is_group


@pytest.mark.parametrize("caption", ["/top 3", f"/top{ME} 3", f"look {ME}"])
async def test_a_caption_asks_in_a_group(api: BotApi, hopper_jpeg: bytes, caption: str) -> None:
    """A command or a mention as the photo's own caption."""
    (ada,) = group(Person(api))
    photo = await ada.send_photo(hopper_jpeg, caption)
    reply = await ada.reply()
    assert reply.picture
    assert reply.answers_to == photo


async def test_a_photo_in_reply_to_the_bot_is_meant_for_it(api: BotApi, hopper_jpeg: bytes) -> None:
    """Words in reply to it are just talk."""
    (ada,) = group(Person(api))
    await ada.say(f"/help{ME}")
    answer = await ada.reply()
    await ada.say("thanks!", answers=answer.id)
    assert await ada.stays_silent()
    await ada.send_photo(hopper_jpeg, answers=answer.id)
    assert (await ada.reply()).picture


async def test_an_album_in_a_group_needs_only_one_caption(
    api: BotApi, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """The command under the first photo asks for all of them."""
    api.me["can_read_all_group_messages"] = True
    (ada,) = group(Person(api))
    await ada.send_album([hopper_jpeg, collins_jpeg], "/compare")
    assert (await ada.reply()).words == "compare [] 2"


async def test_a_forum_topic_is_kept(api: BotApi, mirror: Mirror, hopper_jpeg: bytes) -> None:
    """The sign and the answer go where the question was, and elsewhere once that is closed."""
    (ada,) = group(Person(api), forum=True)
    ada.topic = 77
    mirror.gate.clear()
    await ada.send_photo(hopper_jpeg, "/lookalike")
    await until(lambda: api.called("sendChatAction"))
    mirror.gate.set()
    assert (await ada.reply()).message["message_thread_id"] == 77
    assert api.called("sendChatAction")[0].parameters["message_thread_id"] == 77
    ada.chat.topics_closed.add(77)
    await ada.send_photo(hopper_jpeg, "/lookalike")
    assert (await ada.reply()).picture


async def test_anonymous_administrators_and_channels_are_somebody(
    api: BotApi, mirror: Mirror
) -> None:
    """The chat that they speak for takes the place of the user made up by Telegram."""
    (ada,) = group(Person(api))
    ada.sender_chat = ada.chat.description
    await ada.say("/settings")
    await ada.reply()
    ada.sender_chat = {"id": -1001234, "type": "channel", "title": "News"}
    await ada.say("/settings")
    await ada.reply()
    assert [request.sender.user_id for request in mirror.requests] == [str(ada.id), "-1001234"]


async def test_bots_and_channels_posts_in_discussion_groups_ask_nothing(
    api: BotApi, mirror: Mirror
) -> None:
    """Two bots would talk for ever."""
    (other,) = group(Person(api, is_bot=True))
    await other.say("/help")
    (ada,) = group(Person(api))
    ada.sender_chat = {"id": -1001234, "type": "channel", "title": "News"}
    await ada._write({"text": "/help"}, is_automatic_forward=True)
    assert await other.stays_silent()
    assert not mirror.requests


async def test_a_picture_that_may_not_be_sent_becomes_words(
    api: BotApi, hopper_jpeg: bytes
) -> None:
    """Some groups allow no media; the words and the buttons still arrive."""
    (ada,) = group(Person(api))
    ada.chat.forbids_media = True
    await ada.send_photo(hopper_jpeg, "/lookalike")
    reply = await ada.reply()
    assert reply.words == "lookalike [] 1"
    assert reply.buttons


async def test_a_picture_too_long_for_a_photo_is_sent_as_a_file(
    api: BotApi, mirror: Mirror
) -> None:
    """Telegram refuses photos of extreme proportions, not files."""
    buffer = io.BytesIO()
    Image.new("RGB", (2100, 100)).save(buffer, "JPEG")
    mirror.replies["about"] = Reply("wide", Picture(buffer.getvalue(), 2100, 100, ""))
    chat = Person(api).private_chat()
    await chat.say("/about")
    reply = await chat.reply()
    assert reply.document == buffer.getvalue()
    assert reply.words == "wide"


async def test_a_deleted_question_is_still_answered(
    api: BotApi, mirror: Mirror, hopper_jpeg: bytes
) -> None:
    """The answer then replies to nothing."""
    (ada,) = group(Person(api))
    mirror.gate.clear()
    photo = await ada.send_photo(hopper_jpeg, "/lookalike")
    await until(lambda: mirror.requests)
    del ada.chat.messages[photo]
    mirror.gate.set()
    assert (await ada.reply()).answers_to is None


# Buttons


async def test_a_button_changes_the_message(
    api: BotApi, mirror: Mirror, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """Picture, words and buttons of the card change in place; nothing is uploaded again."""
    chat = Person(api).private_chat()
    await chat.send_photo(hopper_jpeg)
    card = await chat.reply()
    mirror.replies["again"] = Reply(
        "new", mirrored(collins_jpeg), ((Button("Back", "back"),),), replaces=True
    )
    query = await chat.press(card, "Again")
    changed = await chat.reply()
    assert (changed.kind, changed.id, changed.words) == ("edited", card.id, "new")
    assert size(changed.picture) == size(collins_jpeg)
    assert list(changed.buttons) == ["Back"]
    assert await chat.toast(query) == ""
    assert mirror.fetched[1] == mirror.fetched[0]

    mirror.replies["back"] = Reply("only words", replaces=True)
    await chat.press(changed, "Back")
    changed = await chat.reply()
    assert (changed.kind, changed.words, changed.buttons) == ("edited", "only words", {})
    assert changed.picture


async def test_a_button_under_words_changes_them(api: BotApi, mirror: Mirror) -> None:
    """And pressing it twice, which changes nothing, is no fault."""
    chat = Person(api).private_chat()
    mirror.replies["model"] = Reply("which?", buttons=((Button("dlib", "model:dlib"),),))
    mirror.replies["model:dlib"] = Reply(
        "dlib it is", buttons=((Button("dlib", "model:dlib"),),), replaces=True, notice="dlib"
    )
    await chat.say("/model")
    menu = await chat.reply()
    assert await chat.toast(await chat.press(menu, "dlib")) == "dlib"
    assert (await chat.reply()).words == "dlib it is"
    assert await chat.toast(await chat.press(menu, "dlib")) == "dlib"
    assert await chat.stays_silent()


async def test_a_note_is_a_toast(api: BotApi, mirror: Mirror, hopper_jpeg: bytes) -> None:
    """Long ones wait for a tap; where Telegram takes no toast any more, words are sent."""
    chat = Person(api).private_chat()
    await chat.send_photo(hopper_jpeg)
    card = await chat.reply()
    mirror.replies["note"] = Reply("score 91, cosine 0.93", notice="score 91, cosine 0.93")
    query = await chat.press(card, "Note")
    assert await chat.toast(query) == "score 91, cosine 0.93"
    assert not api.toasts[query].get("show_alert")
    mirror.replies["note"] = Reply("", notice="n" * 200)
    query = await chat.press(card, "Note")
    assert await chat.toast(query) == "n" * 200
    assert api.toasts[query]["show_alert"] is True
    for garbage in ("<html>", None):  # delivered all the same
        api.garble("answerCallbackQuery", garbage)
        calls = len(api.called("answerCallbackQuery"))
        query = await chat.press(card, "Note")
        assert await chat.toast(query) == "n" * 200
        await until(lambda: len(api.called("answerCallbackQuery")) == calls + 2)  # noqa: B023
    assert await chat.stays_silent()
    api.query_lives_s = 0.0
    await chat.press(card, "Note")
    assert (await chat.reply()).words == "n" * 200


async def test_a_slow_button_is_answered_at_once(
    api: BotApi, mirror: Mirror, hopper_jpeg: bytes
) -> None:
    """The clock on the button ends long before the answer is there."""
    chat = Person(api).private_chat()
    await chat.send_photo(hopper_jpeg)
    card = await chat.reply()
    mirror.gate.clear()
    query = await chat.press(card, "Again")
    assert await chat.toast(query) == ""
    mirror.gate.set()
    assert (await chat.reply()).words == "pressed again 1"


async def test_a_card_that_can_no_longer_be_changed_is_sent_anew(
    api: BotApi, hopper_jpeg: bytes
) -> None:
    """Somebody deleted it, or it is too old."""
    chat = Person(api).private_chat()
    await chat.send_photo(hopper_jpeg)
    card = await chat.reply()
    api.refuse("editMessageMedia", 400, "Bad Request: message can't be edited")
    await chat.press(card, "Again")
    fresh = await chat.reply()
    assert (fresh.kind, fresh.words) == ("sent", "pressed again 1")
    assert fresh.picture


async def test_the_presser_is_the_asker(api: BotApi, mirror: Mirror, hopper_jpeg: bytes) -> None:
    """In a group anybody may press; their settings count, and the chat is the same."""
    ada, bob = group(Person(api), Person(api, language="ru"))
    await ada.send_photo(hopper_jpeg, "/lookalike")
    card = await ada.reply()
    await bob.press(card, "Again")
    await bob.reply()
    pressed = mirror.requests[-1]
    assert pressed.sender.user_id == str(bob.person.id)
    assert (pressed.sender.language, pressed.sender.chat_id) == ("ru", str(ada.id))
    assert pressed.sender.is_group
    assert pressed.photos


# Guest mode


async def test_a_guest_answers_with_a_picture(
    api: BotApi, mirror: Mirror, hopper_jpeg: bytes
) -> None:
    """The picture goes through the asker's private chat, and nothing stays there."""
    ada = Person(api)
    own = ada.private_chat()
    (chat,) = group(ada)
    photo = await chat.send_photo(hopper_jpeg)
    result = await chat.mention_as_guest(f"{ME} /top 3", answers=photo)
    assert result["type"] == "photo"
    assert result["caption"] == "top [3] 1"
    picture = api.files[result["photo_file_id"]].content
    assert size(picture) == size(hopper_jpeg)
    assert await chat.stays_silent()
    assert not own.chat.messages
    (request,) = mirror.requests
    assert request.sender.chat_id != str(chat.id)
    assert not api.called("sendChatAction")

    query = await chat.press_inline(result, "Again")
    assert await chat.toast(query) == ""
    inline = result["inline_message_id"]
    await until(lambda: api.inline[inline].get("caption") == "pressed again 1")


async def test_a_guest_whom_nobody_started_answers_in_words(
    api: BotApi, hopper_jpeg: bytes
) -> None:
    """Without a private chat there is no way for a picture."""
    ada = Person(api)
    ada.private_chat(started=False)
    (chat,) = group(ada)
    result = await chat.mention_as_guest(f"{ME} who?", picture=hopper_jpeg)
    assert result["type"] == "article"
    assert result["input_message_content"]["message_text"] == "None [who?] 1"
    await chat.press_inline(result, "Again")
    inline = result["inline_message_id"]
    await until(lambda: api.inline[inline].get("text") == "pressed again 1")
