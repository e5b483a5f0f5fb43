"""The whole bot on Telegram: real photos, the dlib backbone, a gallery of two, over HTTP."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import films
import pytest
from PIL import Image
from telegram_mirror import running, size, until
from telegram_people import Person, group
from telegram_server import JSON, BotApi

from bot.adapters.telegram.updates import Polling
from bot.app import open_conversation, open_engine, open_gallery
from bot.conversation import PRIVATE
from bot.settings import Settings
from bot.text import Wording
from gallery.add import add_folder

SAY = Wording.load().text


@pytest.fixture(scope="module")
def settings(
    tmp_path_factory: pytest.TempPathFactory, hopper_jpeg: bytes, collins_jpeg: bytes
) -> Settings:
    """A home with Grace Hopper and Eileen Collins in its gallery."""
    folder = tmp_path_factory.mktemp("bot")
    for name, jpeg in (("Grace Hopper", hopper_jpeg), ("Eileen Collins", collins_jpeg)):
        (folder / "people" / name).mkdir(parents=True)
        (folder / "people" / name / "portrait.jpg").write_bytes(jpeg)
    chosen = Settings.model_validate(
        {
            "home": folder / "home",
            "default_model": "dlib",
            "models": {"configured": ("dlib",), "fetch": False},
            "queue": {"photos_per_minute": 10_000},
        }
    )
    gallery = open_gallery(chosen)
    report = add_folder(gallery, open_engine(chosen), folder / "people", backbones=["dlib"])
    gallery.close()
    assert report.added == 2
    return chosen


@asynccontextmanager
async def bot(api: BotApi, settings: Settings) -> AsyncIterator[None]:
    """The bot as it is run, with Telegram alone."""
    async with open_conversation(settings) as conversation, running(api, conversation):
        yield


@pytest.fixture
async def api() -> AsyncIterator[BotApi]:
    async with BotApi() as server:
        yield server


async def test_a_flood_is_told_once_and_then_passed_over_unread(
    api: BotApi, settings: Settings, hopper_jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is more than a photo is read all the same, and others' photos are answered."""
    queue = settings.queue.model_copy(update={"photos_per_minute": 2})
    few = settings.model_copy(update={"queue": queue})
    read, chat, other = list[int](), Person(api).private_chat(), Person(api).private_chat()
    hand_over = Polling._hand_over

    def handed_over(polling: Polling, update: JSON) -> bool:
        read.append(update["update_id"])
        return hand_over(polling, update)

    monkeypatch.setattr(Polling, "_hand_over", handed_over)
    async with bot(api, few):
        for _ in range(2):
            await chat.send_photo(hopper_jpeg)
            assert (await chat.reply()).picture
        await chat.send_photo(hopper_jpeg)
        assert (await chat.reply()).words.startswith("That's a lot of photos")
        known = len(read)
        for _ in range(5):
            await chat.send_photo(hopper_jpeg)
        await chat.send_photo(hopper_jpeg, "/help")
        assert (await chat.reply()).words
        await other.send_photo(hopper_jpeg)
        assert (await other.reply()).picture
        await until(lambda: api.confirmed >= other.last_update)
    assert read[known:] == [chat.last_update, other.last_update]
    assert await chat.stays_silent(0)


async def test_a_split_face_and_a_film_of_it(
    api: BotApi, settings: Settings, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """By captions, by a reply to a photo in a group, and by the button under an answer."""
    ann, ben = Person(api), Person(api)
    chat, other = group(ann, ben)
    async with bot(api, settings):
        await chat.send_photo(hopper_jpeg, "/style split")
        card = await chat.reply()
        width, height = size(card.picture)
        assert height > width
        await chat.press(card, SAY("button.morph"))
        film = await chat.reply()
        assert (film.kind, film.answers_to) != ("edited", None)
        assert film.film
        seen = films.seen(film.film)
        assert (len(seen.frames) > 40, seen.has_sound) == (True, False)
        assert "Grace Hopper" in film.words
        photo = await chat.send_photo(collins_jpeg)
        await other.say("/morph", answers=photo)
        moving = await other.reply()
        assert moving.film
        assert "Eileen Collins" in moving.words
        await other.press(moving, SAY("button.card"))
        shown = await other.reply()
        assert shown.picture
        assert size(shown.picture)[0] > size(shown.picture)[1]  # ben chose no style


async def test_a_day_with_the_bot(
    api: BotApi, settings: Settings, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """Photos, files, buttons, settings, what is stored, and its end."""
    chat = Person(api).private_chat()
    async with bot(api, settings):
        await chat.say("/start")
        assert (await chat.reply()).words == SAY("start.text")

        photo = await chat.send_photo(hopper_jpeg)
        card = await chat.reply()
        assert card.words.startswith("Your closest of 2: Grace Hopper")
        assert "dlib" in card.words
        assert card.answers_to == photo
        width, height = size(card.picture)
        assert width > height > 200

        await chat.press(card, SAY("button.more"))
        ranked = await chat.reply()
        assert (ranked.kind, ranked.id) == ("edited", card.id)
        assert "Eileen Collins" in ranked.words
        assert ranked.picture != card.picture
        note = await chat.toast(await chat.press(card, SAY("button.numbers")))
        assert "cosine" in note

        await chat.send_file(_sideways(collins_jpeg), "me.jpg", "image/jpeg", "/top 2")
        both = await chat.reply()
        assert both.words.index("Eileen Collins") < both.words.index("Grace Hopper")

        await chat.send_album([hopper_jpeg, collins_jpeg], "/compare")
        assert (await chat.reply()).words.startswith("How alike? ")
        await chat.send_photo(collins_jpeg, "/compare", answers=photo)
        assert (await chat.reply()).words.startswith("How alike? ")

        await chat.say("/model nosuch")
        assert "dlib" in (await chat.reply()).words
        await chat.say("/top 11")
        assert (await chat.reply()).words == SAY("top.out_of_range", most=10)
        await chat.send_photo(_blank())
        assert (await chat.reply()).words == SAY("error.no_face")
        await chat.send_file(b"no picture", "me.png", "image/png")
        assert (await chat.reply()).words == SAY("error.not_an_image")

        await chat.say("/mydata")
        stored = await chat.reply()
        assert stored.document
        assert "Grace Hopper" in json.dumps(json.loads(stored.document))
        assert str(chat.person.id).encode() not in stored.document
        await chat.say("/forget")
        question = await chat.reply()
        await chat.press(question, SAY("button.forget_yes"))
        assert (await chat.reply()).words == SAY("forget.done")
        await chat.say("/history")
        assert (await chat.reply()).words == SAY("history.empty")


async def test_a_spoilered_photo_is_answered_by_spoilered_pictures(
    api: BotApi, settings: Settings, hopper_jpeg: bytes
) -> None:
    """The card, what a button makes of it, and the film."""
    chat = Person(api).private_chat()
    async with bot(api, settings):
        await chat.send_photo(hopper_jpeg, has_media_spoiler=True)
        card = await chat.reply()
        assert card.message["has_media_spoiler"]
        await chat.press(card, SAY("button.more"))
        assert (await chat.reply()).message["has_media_spoiler"]
        await chat.press(card, SAY("button.morph"))
        film = await chat.reply()
        assert film.film
        assert film.message["has_media_spoiler"]
        await chat.send_photo(hopper_jpeg)
        assert "has_media_spoiler" not in (await chat.reply()).message


async def test_a_group_with_privacy_mode(
    api: BotApi, settings: Settings, hopper_jpeg: bytes
) -> None:
    """Somebody's photo, answered in the asker's language with the asker's settings."""
    ada, bob = group(Person(api), Person(api, language="ru"))
    async with bot(api, settings):
        await bob.say("/top@lookalike_test_bot 2")
        assert (await bob.reply()).words == SAY("top.chosen", "ru", count=2)
        photo = await ada.send_photo(hopper_jpeg)
        asked = await bob.say("/lookalike", answers=photo)
        for_bob = await bob.reply()
        assert for_bob.answers_to == asked
        assert SAY("answer.model", "ru", model="dlib") in for_bob.words
        assert "Eileen Collins" in for_bob.words
        await ada.send_photo(hopper_jpeg, "@lookalike_test_bot")
        for_ada = await ada.reply()
        assert "Eileen Collins" not in for_ada.words
        await ada.say("/mydata")
        assert (await ada.reply()).words == SAY("private.ask_privately")


async def test_nothing_private_is_shown_to_a_group(
    api: BotApi, settings: Settings, hopper_jpeg: bytes
) -> None:
    """However it is asked for: as a command, a mention, a caption, in a topic, as a guest."""
    ada, me = Person(api), "@lookalike_test_bot"
    private = ada.private_chat()
    async with bot(api, settings):
        await private.send_photo(hopper_jpeg)
        assert (await private.reply()).words.startswith("Your closest of 2: Grace Hopper")
        for command in sorted(PRIVATE):
            ways = [f"/{command}", f"/{command}{me}", f"{me} /{command}", f"/{command.upper()} now"]
            for words in ways:
                for forum, send in itertools.product((True, False), ("say", "send_photo")):
                    (chat,) = group(ada, forum=forum)
                    content = (words,) if send == "say" else (hopper_jpeg, words)
                    await getattr(chat, send)(*content)
                    answer = await chat.reply()
                    assert (answer.words, answer.document) == (SAY("private.ask_privately"), None)
            (chat,) = group(ada)
            result = await chat.mention_as_guest(f"{me} /{command}")
            assert SAY("private.ask_privately") in json.dumps(result, ensure_ascii=False)


async def test_choices_and_buttons_outlive_a_restart(
    api: BotApi, settings: Settings, hopper_jpeg: bytes
) -> None:
    """What was chosen is stored; a button finds its photo at Telegram."""
    chat = Person(api).private_chat()
    async with bot(api, settings):
        await chat.say("/top 2")
        await chat.reply()
        await chat.send_photo(hopper_jpeg)
        card = await chat.reply()
        assert "Eileen Collins" in card.words
    async with bot(api, settings):
        await chat.press(card, SAY("button.best"))
        best = await chat.reply()
        assert best.kind == "edited"
        assert "Eileen Collins" not in best.words
        await chat.send_photo(hopper_jpeg)
        assert "Eileen Collins" in (await chat.reply()).words


async def test_the_first_face_of_an_album_is_answered(
    api: BotApi, settings: Settings, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """Every later photo has a button; answers reply to the photo that they are about."""
    chat = Person(api).private_chat()
    async with bot(api, settings):
        items = await chat.send_album([_blank(), hopper_jpeg, hopper_jpeg, collins_jpeg])
        card = await chat.reply()
        assert card.words.startswith("Your closest of 2: Grace Hopper")
        assert SAY("answer.first_face", number=2) in card.words
        assert SAY("answer.album_rest", count=2) in card.words
        assert card.answers_to == items[1]
        photos = [label for label in card.buttons if label.startswith("Photo ")]
        assert photos == ["Photo 3", "Photo 4"]
        await chat.press(card, "Photo 4")
        later = await chat.reply()
        assert later.words.startswith("Your closest of 2: Eileen Collins")
        assert SAY("answer.photo", number=4) in later.words
        assert (later.kind, later.answers_to) == ("sent", items[3])
        await chat.press(card, SAY("button.more"))
        more = await chat.reply()
        assert "Photo 3" in more.buttons
        sent = await chat.send_album([hopper_jpeg] * 10)
        ten = await chat.reply()
        assert SAY("answer.album", count=9) in ten.words
        assert [f"Photo {number}" for number in range(2, 11)] == list(ten.buttons)[:9]
        await chat.send_album([_blank(), _blank()])
        assert (await chat.reply()).words == SAY("error.no_face")
    async with bot(api, settings):
        await chat.press(later, SAY("button.more"))
        assert (await chat.reply()).words.startswith("Your closest of 2:\n1. Eileen Collins: ")
        await chat.press(card, "Photo 4")
        again = await chat.reply()
        assert again.words.startswith("Your closest of 2: Eileen Collins")
        assert (again.kind, again.answers_to) == ("sent", items[3])
        await chat.press(more, SAY("button.best"))
        assert {"Photo 3", "Photo 4"} <= (await chat.reply()).buttons.keys()
        # No copy of what was forwarded stays; what was deleted is told.
        assert not [one for one in chat.chat.messages.values() if "forward_origin" in one]
        del chat.chat.messages[sent[3]]
        assert await chat.toast(await chat.press(ten, "Photo 4")) == SAY("stale.photo")


async def test_an_album_that_begins_with_a_video_is_answered_at_its_photo(
    api: BotApi, settings: Settings, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """So that its buttons find the photos after a restart."""
    chat = Person(api).private_chat()
    video = {"file_id": "v", "file_unique_id": "v", "width": 9, "height": 9, "duration": 1}
    async with bot(api, settings):
        film = {"video": video}
        _, first, _, second = await chat.send_album([film, hopper_jpeg, film, collins_jpeg])
        card = await chat.reply()
        assert card.answers_to == first
    async with bot(api, settings):
        await chat.press(card, "Photo 2")
        later = await chat.reply()
        assert later.words.startswith("Your closest of 2: Eileen Collins")
        assert later.answers_to == second
        await chat.press(card, SAY("button.compare"))
        assert (await chat.reply()).words.startswith("How alike? ")


async def test_buttons_of_an_album_outlive_what_is_kept(
    api: BotApi, settings: Settings, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """Once the photos are forgotten they are fetched again."""
    chat = Person(api).private_chat()
    memory = settings.memory.model_copy(update={"minutes": 0.0})
    async with bot(api, settings.model_copy(update={"memory": memory})):
        await chat.send_album([_blank(), hopper_jpeg, collins_jpeg])
        card = await chat.reply()
        await chat.press(card, "Photo 3")
        later = await chat.reply()
        assert later.words.startswith("Your closest of 2: Eileen Collins")
        assert SAY("answer.photo", number=3) in later.words
        await chat.press(later, SAY("button.more"))
        assert (await chat.reply()).words.startswith("Your closest of 2:\n1. Eileen Collins: ")
        await chat.send_album([hopper_jpeg, collins_jpeg])
        card = await chat.reply()
        await chat.press(card, SAY("button.compare"))
        assert (await chat.reply()).words.startswith("How alike? ")


async def test_every_button_of_an_old_card_works_or_says_why_not(
    api: BotApi, settings: Settings, hopper_jpeg: bytes
) -> None:
    """After a restart; where Telegram no longer says which photo it was, one sentence."""
    chat = Person(api).private_chat()
    async with bot(api, settings):
        await chat.send_photo(hopper_jpeg)
        card = await chat.reply()
        await chat.send_album([hopper_jpeg, hopper_jpeg], "/compare")
        pair = await chat.reply()
    for label in card.buttons:
        async with bot(api, settings):
            said = await chat.toast(await chat.press(card, label))
            assert said or (await chat.reply()).words.count("Grace Hopper")
            assert chat.chat.outgoing.empty()
    async with bot(api, settings):
        for message, forgotten in ((card, True), (pair, False), (pair, True)):
            for label in message.buttons:
                said = await chat.toast(await chat.press(message, label, forgotten=forgotten))
                assert said == SAY("stale.photo")
                assert chat.chat.outgoing.empty()


async def test_a_wish_that_is_not_understood_is_told_and_the_photo_answered(
    api: BotApi, settings: Settings, hopper_jpeg: bytes
) -> None:
    """In one message, also where the command has settings only."""
    wishes = [
        ("/lookalike Tom Cruise", "Tom Cruise"),
        ("/lookalike 99", SAY("top.out_of_range", most=10)),
        ("/lookalike model:nonsense", "nonsense"),
        ("/lookalike category:nonsense", SAY("category.none")),
        ("/top 99", SAY("top.out_of_range", most=10)),
        ("/top 2 film", "film"),
        ("/top film 2", "2. Eileen Collins"),
        ("model:nonsense", "nonsense"),
        ("me in May, top:2 category:nonsense", SAY("category.none")),
        ("/model senet", "senet"),
        ("/model nonsense", "nonsense"),
        ("/category film", SAY("category.none")),
        ("/style nonsense", "nonsense"),
        ("/morph nonsense", "nonsense"),
    ]
    chats = [Person(api).private_chat() for _ in wishes]
    async with bot(api, settings):
        for chat, (caption, said) in zip(chats, wishes, strict=True):
            await chat.send_photo(hopper_jpeg, caption)
            reply = await chat.reply()
            assert "Grace Hopper" in reply.words
            assert said in reply.words
            assert reply.picture or reply.film
        assert await chats[-1].stays_silent()
        assert all(chat.chat.outgoing.empty() for chat in chats)


async def test_compare_in_a_group_says_what_works_there(
    api: BotApi, settings: Settings, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """With privacy mode an album's other photos never reach the bot; a reply does."""
    (ada,) = group(Person(api))
    async with bot(api, settings):
        await ada.send_album([hopper_jpeg, collins_jpeg], "/compare nonsense")
        assert (await ada.reply()).words == SAY("compare.reply_here")
        photo = await ada.send_photo(hopper_jpeg)
        await ada.send_photo(collins_jpeg, "/compare nonsense", answers=photo)
        words = (await ada.reply()).words
        assert words.startswith("How alike? ")
        assert "nonsense" in words
    api.me["can_read_all_group_messages"] = True
    async with bot(api, settings):
        await ada.say("/compare")
        assert (await ada.reply()).words == SAY("compare.need_two")


async def test_a_guest_finds_lookalikes(
    api: BotApi, settings: Settings, hopper_jpeg: bytes
) -> None:
    """In a chat that the bot is not in."""
    ada = Person(api)
    ada.private_chat()
    (chat,) = group(ada)
    async with bot(api, settings):
        result = await chat.mention_as_guest("@lookalike_test_bot", picture=hopper_jpeg)
    assert result["caption"].startswith("Your closest of 2: Grace Hopper")
    assert size(api.files[result["photo_file_id"]].content)[0] > 200


async def test_a_crowd_is_answered_and_nobody_twice(
    api: BotApi, settings: Settings, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """Twenty people at once, each with the right answer, while the event loop stays free."""
    names = {0: "Grace Hopper", 1: "Eileen Collins"}
    chats = [Person(api).private_chat() for _ in range(20)]
    async with bot(api, settings):
        for at, chat in enumerate(chats):
            await chat.send_photo((hopper_jpeg, collins_jpeg)[at % 2])
        for at, chat in enumerate(chats):
            assert (await chat.reply(within_s=30)).words.startswith(
                f"Your closest of 2: {names[at % 2]}\n"
            )
        await asyncio.sleep(0.2)
        assert all(chat.chat.outgoing.empty() for chat in chats)


@asynccontextmanager
async def program(api: BotApi, settings: Settings) -> AsyncIterator[asyncio.subprocess.Process]:
    """`lookalike run` as an operator starts it, at the most talkative log level."""
    chosen = {
        "HOME": str(settings.home),
        "DEFAULT_MODEL": "dlib",
        "MODELS__FETCH": "false",
        "GALLERY__STARTER": "false",
        "MODELS__CONFIGURED": '["dlib"]',
        "LOG__LEVEL": "DEBUG",
        "TELEGRAM__TOKEN": api.token,
        "TELEGRAM__BASE_URL": f"{api.url}/bot",
        "TELEGRAM__BASE_FILE_URL": f"{api.url}/file/bot",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bot", "run"),
        env={**os.environ, **{f"LOOKALIKE_{key}": value for key, value in chosen.items()}},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_program_stops_cleanly_and_keeps_secrets(
    api: BotApi, settings: Settings, hopper_jpeg: bytes
) -> None:
    """At DEBUG nothing written holds token or id, and SIGTERM ends it with what is in work done."""
    ada = Person(api, username="ada_by_name")
    chat = ada.private_chat()
    (crowd,) = group(ada)
    async with program(api, settings) as process:
        await until(lambda: api.called("getUpdates") or process.returncode, within_s=30)
        api.drop("sendPhoto")
        await chat.send_photo(hopper_jpeg, "my caption")
        card = await chat.reply(within_s=30)
        await chat.press(card, SAY("button.more"))
        await chat.reply()
        photo = await crowd.send_photo(hopper_jpeg, "/lookalike")
        await until(lambda: len(api.called("download")) == 2)
        process.terminate()
        assert (await crowd.reply()).answers_to == photo
        output, _ = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 0
    written = output.decode()
    assert "asked=photo" in written
    for secret in (
        api.token.split(":")[1],
        str(ada.id),
        str(crowd.id),
        "ada_by_name",
        "my caption",
        *api.files,
    ):
        assert secret not in written


def _sideways(jpeg: bytes) -> bytes:
    """The picture lying on its side, with an EXIF note that says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(jpeg)) as upright:
        upright.rotate(90, expand=True).save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


def _blank() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (400, 400), "grey").save(buffer, "JPEG")
    return buffer.getvalue()
