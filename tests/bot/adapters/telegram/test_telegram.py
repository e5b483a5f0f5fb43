"""What people ask the Telegram bot, and what arrives: over HTTP, with a mirror that answers."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from PIL import Image
from telegram_mirror import Mirror, running, size, until
from telegram_people import Person, group
from telegram_server import BotApi

from bot.values import Document, Reply


@pytest.fixture
async def api() -> AsyncIterator[BotApi]:
    async with BotApi() as server:
        yield server


@pytest.fixture(autouse=True)
async def mirror(api: BotApi) -> AsyncIterator[Mirror]:
    conversation = Mirror()
    async with running(api, conversation):
        yield conversation


async def test_a_photo_is_answered_with_a_picture(
    api: BotApi, mirror: Mirror, hopper_jpeg: bytes
) -> None:
    """The largest size is fetched, and the photo is replied to."""
    chat = Person(api, language="es-MX").private_chat()
    sent = await chat.send_photo(hopper_jpeg)
    reply = await chat.reply()
    assert reply.words == "None [] 1"
    assert size(reply.picture) == size(hopper_jpeg)
    assert reply.answers_to == sent
    assert set(reply.buttons) == {"Again", "Note"}
    assert mirror.requests[0].sender.language == "es-MX"
    assert not mirror.requests[0].sender.is_group
    assert "parse_mode" not in api.called("sendPhoto")[0].parameters


async def test_a_file_arrives_untouched(api: BotApi, mirror: Mirror, hopper_jpeg: bytes) -> None:
    """Sent as a file, a picture keeps every byte, and its name counts where its kind is vague."""
    chat = Person(api).private_chat()
    await chat.send_file(hopper_jpeg, "me.jpg", "image/jpeg", "/top 3")
    assert (await chat.reply()).words == "top [3] 1"
    await chat.send_file(hopper_jpeg, "ME.HEIC", "application/octet-stream")
    assert (await chat.reply()).words == "None [] 1"
    await chat.send_file(hopper_jpeg, "IMG_1234", None)
    assert (await chat.reply()).words == "None [] 1"
    assert mirror.fetched == [[hopper_jpeg]] * 3


@pytest.mark.parametrize(
    "content",
    [
        {"document": {"mime_type": "application/pdf", "file_name": "a.pdf"}},
        {"document": {"mime_type": "video/mp4"}, "animation": {"mime_type": "video/mp4"}},
        {"video": {"mime_type": "video/mp4"}},
        {"video_note": {"length": 240}},
        {"voice": {"mime_type": "audio/ogg"}},
        {"sticker": {"type": "regular", "is_animated": True, "is_video": False}},
        {"sticker": {"type": "regular", "is_animated": False, "is_video": True}},
    ],
    ids="-".join,
)
async def test_what_is_no_picture_is_refused_without_a_download(
    api: BotApi, content: dict[str, dict[str, object]]
) -> None:
    """Videos, moving stickers and other files are told from pictures by what Telegram says."""
    chat = Person(api).private_chat()
    basics = {"file_id": "x", "file_unique_id": "x", "width": 5, "height": 5, "duration": 1}
    await chat.send_other(**{kind: {**basics, **more} for kind, more in content.items()})
    assert (await chat.reply()).words == "NotAnImage"
    assert not api.called("getFile")


async def test_a_still_sticker_is_a_picture(api: BotApi, hopper_jpeg: bytes) -> None:
    """A sticker that does not move is a WebP picture."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(hopper_jpeg)).resize((512, 512)).save(buffer, "WEBP")
    file_id = api.hold(buffer.getvalue(), "stickers", ".webp")
    chat = Person(api).private_chat()
    await chat.send_other(
        sticker={
            "file_id": file_id,
            "file_unique_id": "x",
            "type": "regular",
            "width": 512,
            "height": 512,
            "is_animated": False,
            "is_video": False,
        }
    )
    assert size((await chat.reply()).picture) == (512, 512)


async def test_a_file_above_20_mb_is_not_even_asked_for(api: BotApi) -> None:
    """Bots can't fetch more, so the size that Telegram names decides."""
    chat = Person(api).private_chat()
    await chat.send_file(b"", "big.tif", "image/tiff", claimed_size=20_000_001)
    assert (await chat.reply()).words == "TooLarge"
    assert not api.called("getFile")


async def test_a_file_that_lies_about_its_size_is_cut_off(api: BotApi) -> None:
    """The server's word, or the bytes that come, decide where the message was wrong."""
    chat = Person(api).private_chat()
    await chat.send_file(bytes(20_500_000), "big.tif", "image/tiff", claimed_size=5)
    assert (await chat.reply()).words == "TooLarge"


async def test_a_bot_api_server_of_ones_own_names_files_on_this_machine(
    api: BotApi, mirror: Mirror, hopper_jpeg: bytes, tmp_path: Path
) -> None:
    """In its local mode."""
    (tmp_path / "photo.jpg").write_bytes(hopper_jpeg)
    api.folder = str(tmp_path)
    chat = Person(api).private_chat()
    await chat.send_file(hopper_jpeg, "photo.jpg", "image/jpeg")
    assert size((await chat.reply()).picture) == size(hopper_jpeg)
    assert mirror.fetched == [[hopper_jpeg]]
    assert not api.called("download")


async def test_a_path_at_the_server_is_none_on_this_machine(
    api: BotApi,
    mirror: Mirror,
    hopper_jpeg: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even where a file of that name lies in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "file_1000").write_bytes(b"of this machine")
    chat = Person(api).private_chat()
    await chat.send_file(hopper_jpeg, "photo.jpg", "image/jpeg")
    await chat.reply()
    assert next(iter(api.files.values())).path == "documents/file_1000"
    assert mirror.fetched == [[hopper_jpeg]]


@pytest.mark.parametrize(
    ("words", "understood"),
    [
        ("/model senet", "model [senet] 0"),
        ("/top@Lookalike_Test_Bot  3 ", "top [3] 0"),
        ("/TOP 3", "top [3] 0"),
        ("@lookalike_test_bot /category bollywood", "category [bollywood] 0"),
        ("/category हिंदी film", "category [हिंदी film] 0"),
        ("/start ref_42", "start [ref_42] 0"),
        ("/nosuch", "nosuch [] 0"),
        ("hello", "None [hello] 0"),
        ("шарж/top 3", "None [шарж/top 3] 0"),
    ],
)
async def test_words_in_a_private_chat(api: BotApi, words: str, understood: str) -> None:
    """Commands are found with and without the bot's name; everything else is plain words."""
    chat = Person(api).private_chat()
    await chat.say(words)
    assert (await chat.reply()).words == understood


async def test_a_command_for_another_bot_is_not_answered(api: BotApi, hopper_jpeg: bytes) -> None:
    """Not even where it is a photo's caption."""
    chat = Person(api).private_chat()
    await chat.say("/top@other_bot 3")
    await chat.send_photo(hopper_jpeg, "/top@other_bot 3")
    assert await chat.stays_silent()


async def test_a_command_in_reply_to_a_photo_means_that_photo(
    api: BotApi, mirror: Mirror, hopper_jpeg: bytes
) -> None:
    """So does a caption, and a command in reply to the bot's card means what that answers."""
    chat = Person(api).private_chat()
    photo = await chat.send_photo(hopper_jpeg, "/top 3")
    card = await chat.reply()
    assert card.words == "top [3] 1"
    await chat.say("/lookalike", answers=photo)
    assert (await chat.reply()).words == "lookalike [] 1"
    await chat.say("/top 2", answers=card.id)
    assert (await chat.reply()).words == "top [2] 1"
    assert mirror.fetched[0] == mirror.fetched[1] == mirror.fetched[2]


async def test_compare_takes_the_photo_replied_to_and_the_one_sent(
    api: BotApi, mirror: Mirror, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """In the order in which they were sent."""
    chat = Person(api).private_chat()
    first = await chat.send_photo(hopper_jpeg)
    await chat.reply()
    await chat.send_photo(collins_jpeg, "/compare", answers=first)
    assert (await chat.reply()).words == "compare [] 2"
    assert [size(photo) for photo in mirror.fetched[1]] == [size(hopper_jpeg), size(collins_jpeg)]


async def test_an_album_is_one_question(
    api: BotApi, mirror: Mirror, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """Its items are collected, in order, and /compare in reply to one of them finds them all."""
    chat = Person(api).private_chat()
    pictures = [hopper_jpeg, collins_jpeg, hopper_jpeg]
    items = await chat.send_album(pictures, "/compare")
    reply = await chat.reply()
    assert reply.words == "compare [] 3"
    assert reply.answers_to == items[0]
    assert [size(photo) for photo in mirror.fetched[0]] == [size(item) for item in pictures]
    await chat.say("/compare", answers=items[1])
    assert (await chat.reply()).words == "compare [] 3"
    assert await chat.stays_silent()


async def test_a_command_counts_under_any_photo_of_an_album(
    api: BotApi, hopper_jpeg: bytes
) -> None:
    """Whatever stands under the others."""
    chat = Person(api).private_chat()
    await chat.send_album([hopper_jpeg, await chat.photo(hopper_jpeg, "/top 3")], "my holidays")
    assert (await chat.reply()).words == "top [3] 2"


async def test_other_people_are_answered_meanwhile(
    api: BotApi, mirror: Mirror, hopper_jpeg: bytes
) -> None:
    """Updates are worked on at the same time, however long one of them takes."""
    mirror.gate.clear()
    chats = [Person(api).private_chat() for _ in range(5)]
    for chat in chats:
        await chat.send_photo(hopper_jpeg)
    await until(lambda: len(mirror.requests) == 5)
    mirror.gate.set()
    for chat in chats:
        assert (await chat.reply()).picture
    senders = {request.sender.user_id for request in mirror.requests}
    assert len(senders) == len(mirror.requests) == 5


async def test_the_sign_is_kept_alive(
    api: BotApi, mirror: Mirror, hopper_jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Telegram shows it for five seconds at most, so it is sent again."""
    monkeypatch.setattr("bot.adapters.telegram.session.TYPING_EVERY_S", 0.1)
    mirror.gate.clear()
    chat = Person(api).private_chat()
    await chat.send_photo(hopper_jpeg)
    await until(lambda: len(api.called("sendChatAction")) >= 4)
    mirror.gate.set()
    await chat.reply()
    signs = len(api.called("sendChatAction"))
    await asyncio.sleep(0.3)
    assert len(api.called("sendChatAction")) <= signs + 1
    assert api.called("sendChatAction")[0].parameters["action"] == "upload_photo"


async def test_edited_messages_and_channel_posts_are_nobodys_question(
    api: BotApi, mirror: Mirror
) -> None:
    """They are not even fetched."""
    chat = Person(api).private_chat()
    await chat.say("/help")
    await chat.reply()
    message = next(iter(chat.chat.messages.values()))
    for kind in ("edited_message", "channel_post", "business_message"):
        api.push(kind, message)
    await chat.send_other(pinned_message={**message, "date": 1})
    await chat.send_other(new_chat_title="x")
    assert await chat.stays_silent()
    assert len(mirror.requests) == 1
    kinds = api.called("getUpdates")[0].parameters["allowed_updates"]
    assert set(kinds) == {"message", "edited_message", "callback_query", "guest_message"}


async def test_a_caption_edited_to_a_command_asks(api: BotApi, hopper_jpeg: bytes) -> None:
    """Of an album it asks about all of it; other words under a photo are just talk."""
    chat = Person(api).private_chat()
    photo = await chat.send_photo(hopper_jpeg)
    await chat.reply()
    await chat.edit_caption(photo, "my passport")
    await chat.edit_caption(photo, "/top 3")
    reply = await chat.reply()
    assert (reply.words, reply.answers_to) == ("top [3] 1", photo)
    items = await chat.send_album([hopper_jpeg] * 3)
    await chat.reply()
    await chat.edit_caption(items[1], "/compare")
    assert (await chat.reply()).words == "compare [] 3"
    (ada,) = group(Person(api))
    photo = await ada.send_photo(hopper_jpeg)
    await ada.edit_caption(photo, "/top@lookalike_test_bot 2")
    assert (await ada.reply()).words == "top [2] 1"
    assert await chat.stays_silent()


async def test_paid_media_are_answered_where_they_are_paid(api: BotApi, hopper_jpeg: bytes) -> None:
    """What the bot is not shown is told to be no picture."""
    chat = Person(api).private_chat()
    sizes = chat._photo_sizes(hopper_jpeg)
    bought = {"star_count": 5, "paid_media": [{"type": "photo", "photo": sizes}]}
    await chat.send_other(paid_media=bought)
    assert size((await chat.reply()).picture) == size(hopper_jpeg)
    hidden = {"type": "preview", "width": 9, "height": 9}
    await chat.send_other(paid_media={"star_count": 5, "paid_media": [hidden]})
    assert (await chat.reply()).words == "NotAnImage"


@pytest.mark.parametrize("kind", ["video", "animation", "document"])
async def test_what_is_no_photo_in_an_album_is_passed_over(
    api: BotApi, mirror: Mirror, hopper_jpeg: bytes, kind: str
) -> None:
    """Photos are answered and counted; a word where nothing in the album is one."""
    chat = Person(api).private_chat()
    basics = {"file_id": "x", "file_unique_id": "x", "width": 5, "height": 5, "duration": 1}
    other = {kind: {**basics, "mime_type": "application/pdf"}}
    _, photo, *_ = await chat.send_album([other, hopper_jpeg, other, hopper_jpeg])
    assert (await chat.reply()).words == "None [] 2"
    await chat.say("/compare", answers=photo)
    assert (await chat.reply()).words == "compare [] 2"
    await chat.send_album([other, other])
    assert (await chat.reply()).words == "NotAnImage"
    assert len(mirror.requests) == 3


async def test_names_of_every_script_arrive_as_they_are(api: BotApi, mirror: Mirror) -> None:
    """No markup is read into them, and what is no character does no harm."""
    name = "<b>عمر الشريف</b> & *นาตาชา* _Стоичков_ [x](http://e.org) 👩🏽‍🚀"
    mirror.replies["history"] = Reply(name + "\ud83d")
    chat = Person(api).private_chat()
    await chat.say("/history")
    reply = await chat.reply()
    assert reply.words == name + "\N{REPLACEMENT CHARACTER}"
    assert api.called("sendMessage")[0].parameters["link_preview_options"] == {"is_disabled": True}


async def test_a_document_is_handed_over(api: BotApi, mirror: Mirror) -> None:
    """/mydata answers with a file."""
    content = '{"who": "Олена"}'.encode()
    document = Document(content, "application/json", "mydata.json")
    mirror.replies["mydata"] = Reply("All of it.", document=document)
    chat = Person(api).private_chat()
    await chat.say("/mydata")
    reply = await chat.reply()
    assert (reply.document, reply.words) == (content, "All of it.")
