"""The whole bot on Discord: real photos, the dlib backbone, a gallery of two, over loopback."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from discord_server import BOT_ID, TOKEN, Discord, Link
from PIL import Image

from bot.app import open_conversation, open_store
from bot.conversation import COMMANDS
from bot.settings import DiscordSettings, Settings
from bot.text import LANGUAGES, Wording
from engine.errors import BadToken

SAY = Wording.load().text
EPHEMERAL = 64


@pytest.fixture
async def discord() -> AsyncIterator[Discord]:
    async with Discord() as server:
        yield server


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is tried again soon: discord.py waits 1 to 5 s, the bot half a second."""
    from discord import client, http, shard
    from discord.webhook import async_

    from bot.adapters.discord import sender

    soon = SimpleNamespace(**vars(asyncio))
    soon.sleep = lambda seconds: asyncio.sleep(min(seconds, 0.2))
    for module in (client, http, shard, async_):
        monkeypatch.setattr(module, "asyncio", soon)
    monkeypatch.setattr(sender, "LONGEST_PAUSE_S", 0.05)


@asynccontextmanager
async def bot(
    discord: Discord, home: Path, *, grace_s: float = 4.5, **changes: object
) -> AsyncIterator[asyncio.Task[None]]:
    """The bot as it is run, with Discord alone."""
    from bot.adapters.discord import DiscordAdapter

    settings = Settings.model_validate(
        {
            "home": home,
            "default_model": "dlib",
            "models": {"configured": ("dlib",), "fetch": False},
            "queue": {"photos_per_minute": 10_000},
        }
    )
    section = DiscordSettings.model_validate(discord.settings | changes)
    async with open_conversation(settings) as conversation:
        adapter = DiscordAdapter(
            conversation,
            section,
            cache_folder=home / "discord",
            first_pause_s=0.05,
            grace_s=grace_s,
        )
        stop = asyncio.Event()
        running = asyncio.create_task(adapter.run(stop))
        try:
            yield running
        finally:
            stop.set()
            await asyncio.wait_for(running, 10)


def picture_size(message: dict[str, object]) -> tuple[int, int]:
    data = message["bytes"][0]  # type: ignore[index]
    return Image.open(io.BytesIO(data)).size


async def test_a_slash_command_with_a_photo(
    discord: Discord, own_home: Path, hopper_jpeg: bytes
) -> None:
    """Deferred at once, answered by editing that response, with buttons that need no upload."""
    ann = discord.user()
    async with bot(discord, own_home):
        asked = await discord.slash(ann, "lookalike", photo=discord.attachment(hopper_jpeg))
        card = await asked.answer()
        assert asked.deferred["type"] == 5
        assert card["content"].startswith("Your closest of 2: Grace Hopper")
        width, height = picture_size(card)
        assert width > height > 200
        assert "Grace Hopper" in card["attachments"][0]["description"]

        more = await discord.press(ann, card, SAY("button.more"))
        ranked = await more.answer()
        assert more.deferred["type"] == 6
        assert "Eileen Collins" in ranked["content"]

        numbers = await (await discord.press(ann, card, SAY("button.numbers"))).answer()
        assert "cosine" in numbers["content"]
        assert numbers["flags"] & EPHEMERAL


async def test_the_models_there_are_are_offered_as_one_types(
    discord: Discord, own_home: Path
) -> None:
    ann = discord.user()
    async with bot(discord, own_home):
        (choice,) = await discord.types(ann, "model", "name", "")
        assert choice["value"] == "dlib"
        assert choice["name"] == "dlib: dlib face ResNet (ready)"
        assert await discord.types(ann, "lookalike", "model", "Dlib") == [choice]
        assert await discord.types(ann, "model", "name", "best") == []


@pytest.mark.usefixtures("hurried")
async def test_a_sharded_bot_answers_the_same(
    discord: Discord, own_home: Path, hopper_jpeg: bytes
) -> None:
    """Also where its first handshake is refused."""
    discord.handshakes_to_refuse = 1
    async with bot(discord, own_home, sharded=True):
        photo = discord.attachment(hopper_jpeg)
        asked = await discord.slash(discord.user(), "lookalike", photo=photo)
        assert (await asked.answer())["content"].startswith("Your closest of 2: Grace Hopper")
    assert discord.identifies[0]["shard"] == [0, 1]


async def test_what_is_in_work_at_the_end_is_answered(
    discord: Discord, own_home: Path, hopper_jpeg: bytes
) -> None:
    ann = discord.user()
    async with bot(discord, own_home):
        await (await discord.slash(ann, "start")).answer()
        photo = discord.attachment(hopper_jpeg)
        waiting = [await discord.slash(ann, "lookalike", photo=photo) for _ in range(4)]
        while not all(one.deferred for one in waiting):  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)
    for one in waiting:
        assert (await one.answer(timeout_s=1))["content"]


async def test_every_command_answers(
    discord: Discord, own_home: Path, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    ann = discord.user()
    async with bot(discord, own_home):
        compared = await discord.slash(
            ann,
            "compare",
            first=discord.attachment(hopper_jpeg),
            second=discord.attachment(collins_jpeg),
        )
        assert (await compared.answer())["content"].startswith("How alike? ")
        top = await discord.slash(ann, "top", number=2, photo=discord.attachment(collins_jpeg))
        both = (await top.answer())["content"]
        assert both.index("Eileen Collins") < both.index("Grace Hopper")
        wished = {"photo": discord.attachment(hopper_jpeg), "category": "K pop", "top": 2}
        said = (await (await discord.slash(ann, "lookalike", **wished)).answer())["content"]
        assert said.index("Grace Hopper") < said.index("Eileen Collins")
        assert "I have no category “K pop”" in said
        for name in ("start", "help", "settings", "about", "privacy", "model", "category"):
            answer = await (await discord.slash(ann, name)).answer()
            assert answer["content"], name
        history = await discord.slash(ann, "history")
        assert "Eileen Collins" in (await history.answer())["content"]
        assert history.deferred["data"]["flags"] & EPHEMERAL
        stored = await (await discord.slash(ann, "mydata")).answer()
        assert ann["id"] not in json.dumps(json.loads(stored["bytes"][0]))
        ask = await (await discord.slash(ann, "forget")).answer()
        await (await discord.press(ann, ask, SAY("button.forget_yes"))).answer()
        empty = await (await discord.slash(ann, "history")).answer()
        assert empty["content"] == SAY("history.empty")


async def test_answers_speak_the_askers_language(discord: Discord, own_home: Path) -> None:
    ann = discord.user()
    async with bot(discord, own_home):
        for locale, language in (("es-419", "es"), ("ru", "ru"), ("hi", "hi"), ("de", "en")):
            answer = await (await discord.slash(ann, "start", locale=locale)).answer()
            assert answer["content"] == SAY("discord.start.text", language)


async def test_menus_of_messages_and_people(
    discord: Discord, own_home: Path, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """Both carry the picture without the message-content intent."""
    ann, bob = discord.user(), discord.user("bob")
    discord.avatar(bob, collins_jpeg)
    async with bot(discord, own_home):
        message = await discord.say(bob, "look!", guild=True)
        message["attachments"] = [discord.attachment(hopper_jpeg)]  # seen through the menu only
        found = await (await discord.message_menu(ann, message)).answer()
        assert found["content"].startswith("Your closest of 2: Grace Hopper")
        person = await (await discord.user_menu(ann, bob)).answer()
        assert person["content"].startswith("Your closest of 2: Eileen Collins")


async def test_messages_are_answered_when_asked(
    discord: Discord,
    own_home: Path,
    hopper_jpeg: bytes,
    collins_jpeg: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A direct message, a mention, a reply to somebody's photo; nothing else in a server."""
    monkeypatch.setattr("bot.adapters.SIGN_AFTER_S", 0)
    ann, bob = discord.user(), discord.user("bob")
    async with bot(discord, own_home):
        await discord.say(ann, "", discord.attachment(hopper_jpeg))
        card = await asyncio.wait_for(discord.channel_messages.get(), 20)
        assert card["content"].startswith("Your closest of 2: Grace Hopper")
        assert discord.typing

        photo = await discord.say(bob, "me", discord.attachment(collins_jpeg), guild=True)
        photo["attachments"] = [discord.attachment(collins_jpeg)]
        asked = await discord.say(ann, f"<@{BOT_ID}> top 2", guild=True, replies_to=photo)
        both = await asyncio.wait_for(discord.channel_messages.get(), 20)
        assert both["content"].index("Eileen Collins") < both["content"].index("Grace Hopper")
        assert str(both["message_reference"]["message_id"]) == asked["id"]
        await asyncio.sleep(0.2)
        assert discord.channel_messages.empty()  # bob's own message was not answered


async def test_a_button_works_after_a_restart(
    discord: Discord, own_home: Path, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """The photo that the card is about is read again from the message that was answered."""
    ann, bob = discord.user(), discord.user("bob")
    blank = io.BytesIO()
    Image.new("RGB", (200, 200)).save(blank, "JPEG")
    several = [blank.getvalue(), hopper_jpeg, collins_jpeg, hopper_jpeg]
    async with bot(discord, own_home):
        sent = await discord.say(ann, "", *map(discord.attachment, several))
        card = await asyncio.wait_for(discord.channel_messages.get(), 20)
        later = await (await discord.press(ann, card, "Photo 3")).answer()
        photo = await discord.say(bob, "me", discord.attachment(collins_jpeg), guild=True)
        photo["attachments"] = [discord.attachment(collins_jpeg)]
        await discord.say(ann, f"<@{BOT_ID}>", guild=True, replies_to=photo)
        of_bob = await asyncio.wait_for(discord.channel_messages.get(), 20)
    discord.connected.clear()
    async with bot(discord, own_home):
        await asyncio.wait_for(discord.connected.wait(), 20)
        for answer, best in ((card, "Grace"), (later, "Eileen"), (of_bob, "Eileen")):
            more = await (await discord.press(ann, answer, SAY("button.more"))).answer()
            assert f"\n1. {best} " in more["content"]
        again = await (await discord.press(ann, card, "Photo 3")).answer()
        assert again["content"].startswith("Your closest of 2: Eileen Collins")
        await discord.say(ann, "top 2", replies_to=again, resolved=False)
        said = await asyncio.wait_for(discord.channel_messages.get(), 20)
        assert "\n1. Eileen " in said["content"]
        await discord.say(ann, "compare", *map(discord.attachment, several[1:3]))
        pair = await asyncio.wait_for(discord.channel_messages.get(), 20)
    discord.connected.clear()
    async with bot(discord, own_home):
        await asyncio.wait_for(discord.connected.wait(), 20)
        numbers = await (await discord.press(ann, pair, SAY("button.numbers"))).answer()
        assert "cosine" in numbers["content"]
        del discord._messages[sent["id"]]
        gone = await (await discord.press(ann, card, SAY("button.more"))).answer()
        assert gone["content"] == SAY("stale.photo")


async def test_two_people_in_one_server_have_their_own_settings(
    discord: Discord, own_home: Path, hopper_jpeg: bytes
) -> None:
    """And a choice outlives a restart."""
    ann, bob = discord.user(), discord.user("bob")
    async with bot(discord, own_home):
        await (await discord.slash(ann, "top", number=2, guild=True)).answer()
    discord.connected.clear()
    async with bot(discord, own_home):
        for person, names in ((ann, 2), (bob, 1)):
            photo = discord.attachment(hopper_jpeg)
            asked = await discord.slash(person, "lookalike", photo=photo, guild=True)
            content = (await asked.answer())["content"]
            assert content.count(" ▰") == names


async def test_commands_are_registered_once(discord: Discord, own_home: Path) -> None:
    for _ in range(2):
        discord.connected.clear()
        async with bot(discord, own_home):
            await asyncio.wait_for(discord.connected.wait(), 20)
            async with asyncio.timeout(10):
                while not (own_home / "discord" / "discord-commands.json").exists():  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
    assert discord.syncs == 1
    assert discord.commands is not None
    assert len([c for c in discord.commands if c.get("type", 1) == 1]) == len(COMMANDS)
    assert all(set(c["integration_types"]) == {0, 1} for c in discord.commands)


@pytest.mark.usefixtures("hurried")
async def test_faults_on_the_way_lose_no_answer(
    discord: Discord, own_home: Path, hopper_jpeg: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """First handshake refused, login 502, sync 500, CDN 503, a 429 without Via, a lost edit."""
    ann = discord.user()
    caplog.set_level(logging.INFO, "bot")
    discord.handshakes_to_refuse = 2
    discord.fail("GET", "users/@me", 502)
    discord.fail("PUT", "commands", 500)
    discord.fail("GET", "/cdn/attachments", 503)
    discord.fail("PATCH", "@original", 429, headers={"Retry-After": "0.2"})
    async with bot(discord, own_home):
        asked = await discord.slash(ann, "lookalike", photo=discord.attachment(hopper_jpeg))
        assert "Your closest of 2: Grace Hopper" in (await asked.answer()).get("content", "")
        await discord.reconnect()
        await asyncio.wait_for(discord.connected.wait(), 20)
        again = await (await discord.slash(ann, "start")).answer()
        assert again["content"] == SAY("discord.start.text")
        assert discord.resumes == 1
        # Away for so long that Discord no longer knows the session.
        async with asyncio.timeout(20):
            while "discord: connected" not in caplog.text:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.02)
        await discord.say(ann, "about")
        await asyncio.wait_for(discord.channel_messages.get(), 20)
        photo = discord.attachment(hopper_jpeg)
        waiting = await discord.slash(ann, "lookalike", photo=photo)
        discord.handshakes_to_refuse = 8
        discord.sessions_known = False
        await discord.hang_up()
        await discord.say(ann, "privacy", heard=False)
        said = await asyncio.wait_for(discord.channel_messages.get(), 60)
        assert said["content"].startswith(SAY("privacy.text", minutes=60, retention="")[:20])
        assert (await waiting.answer())["content"].startswith("Your closest of 2: Grace Hopper")
    assert len(discord.identifies) == 2
    assert discord.channel_messages.empty()
    assert caplog.text.count("discord: connection lost") == 1
    assert not any(record.levelno > logging.WARNING for record in caplog.records)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("garbage", ["<html>", "", "null", "{}", "[]", '"yes"'])
async def test_a_garbage_answer_costs_nobody_a_card_and_makes_no_second(
    discord: Discord, own_home: Path, hopper_jpeg: bytes, garbage: str
) -> None:
    """To deferring, the edit of the deferred answer, a button's message, a channel's."""
    ann = discord.user()
    async with bot(discord, own_home):
        for method, path in (("POST", "callback"), ("PATCH", "@original")):
            discord.fail(method, path, 200, garbage=garbage)
            asked = await discord.slash(ann, "lookalike", photo=discord.attachment(hopper_jpeg))
            assert (await asked.answer())["content"].startswith("Your closest of 2: Grace Hopper")
        card = await asked.answer()
        discord.fail("POST", "webhooks/900", 200, garbage=garbage)
        numbers = await discord.press(ann, card, SAY("button.numbers"))
        assert "cosine" in (await numbers.answer())["content"]
        discord.fail("POST", "channels/501/messages", 200, garbage=garbage)
        await discord.say(ann, "", discord.attachment(hopper_jpeg))
        card = await asyncio.wait_for(discord.channel_messages.get(), 20)
        assert card["content"].startswith("Your closest of 2: Grace Hopper")
    # The end waits for what is in work: nothing comes after it.
    assert len(numbers.messages) == 1
    assert discord.channel_messages.empty()
    assert {message["content"] for message in asked.messages} == {asked.messages[0]["content"]}


@pytest.mark.usefixtures("hurried")
async def test_answers_wait_until_discord_takes_calls_again(
    discord: Discord, own_home: Path, hopper_jpeg: bytes
) -> None:
    """Longer than discord.py tries, the gateway being up; nothing is lost or told twice."""
    ann, me, photo = discord.user(), f"<@{BOT_ID}>", discord.attachment(hopper_jpeg)
    async with bot(discord, own_home):
        await discord.say(ann, "", photo, photo)
        card = await asyncio.wait_for(discord.channel_messages.get(), 20)
        shown = await discord.say(discord.user(), me, photo, guild=True, heard=False)
        goes_on, asked = asyncio.Event(), []
        for ask in (
            lambda: discord.slash(ann, "lookalike", photo=discord.attachment(hopper_jpeg)),
            lambda: discord.press(ann, card, "Photo 2"),
        ):
            fetched = asyncio.Event()
            discord.fail("GET", "/cdn/attachments", 200, hangs=fetched, until=goes_on)
            asked.append(await ask())
            await asyncio.wait_for(fetched.wait(), 20)
            while not asked[-1].deferred:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.01)
        discord.away = True
        goes_on.set()
        written = [
            await discord.say(ann, "", discord.attachment(hopper_jpeg)),
            await discord.say(ann, me, guild=True, replies_to=shown, resolved=False),
            await discord.say(ann, "about"),
        ]
        async with asyncio.timeout(60):  # four kinds of calls, discord.py makes five of each
            while sum(count > 6 for count in discord.refused.values()) < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        discord.away = False
        said = {}
        for _ in written:
            answer = await asyncio.wait_for(discord.channel_messages.get(), 60)
            said[str(answer["message_reference"]["message_id"])] = answer["content"]
        cards = [(await one.answer(timeout_s=60))["content"] for one in asked]
        cards += [said[one["id"]] for one in written[:2]]
        assert all("of 2: Grace Hopper" in one for one in cards), cards
    assert len(said) == 3
    assert discord.channel_messages.empty()
    assert [len(one.messages) for one in asked] == [1, 1]


async def test_who_waits_when_it_stops_is_told_once(
    discord: Discord, own_home: Path, hopper_jpeg: bytes
) -> None:
    """Also who pressed a button; the next start answers none of them again."""
    ann, photo = discord.user(), discord.attachment(hopper_jpeg)
    async with bot(discord, own_home, grace_s=0.0):
        await discord.say(ann, "", photo, photo)
        card, asked = await asyncio.wait_for(discord.channel_messages.get(), 20), []
        for ask in (
            lambda: discord.slash(ann, "lookalike", locale="de", photo=photo),
            lambda: discord.press(ann, card, "Photo 2"),
            lambda: discord.say(ann, "", photo),
        ):
            fetched = asyncio.Event()
            discord.fail("GET", "/cdn/attachments", 200, hangs=fetched)
            asked.append(await ask())
            await asyncio.wait_for(fetched.wait(), 20)
    told = await asyncio.wait_for(discord.channel_messages.get(), 1)
    assert told["content"] == SAY("error.try_later")
    assert str(told["message_reference"]["message_id"]) == asked[2]["id"]
    assert (await asked[0].answer(timeout_s=1))["content"] == SAY("error.try_later", "de")
    assert (await asked[1].answer(timeout_s=1))["content"] == SAY("error.try_later")
    discord.connected.clear()
    async with bot(discord, own_home):
        await discord.say(ann, "about")
        last = await asyncio.wait_for(discord.channel_messages.get(), 20)
        assert last["content"].startswith("Lookalike ")
    assert discord.channel_messages.empty()
    assert [len(one.messages) for one in asked[:2]] == [1, 1]


@asynccontextmanager
async def program(discord: Discord, home: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """`lookalike run` as an operator starts it; it is killed at the end."""
    chosen = {f"DISCORD__{name.upper()}": value for name, value in discord.settings.items()}
    chosen |= {"HOME": str(home), "MODELS__FETCH": "false", "GALLERY__STARTER": "false"}
    discord.connected.clear()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bot", "run"),
        env={**os.environ, **{f"LOOKALIKE_{key}": value for key, value in chosen.items()}},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await asyncio.wait_for(discord.connected.wait(), 60)
        yield process
    finally:
        process.kill()
        await process.wait()


async def test_what_a_kill_left_unanswered_is_answered_at_the_next_start(
    discord: Discord, own_home: Path, hopper_jpeg: bytes
) -> None:
    """Direct messages and mentions, those in work and those written meanwhile; nothing twice.

    Who used a command or pressed a button is told to try again.
    """
    ann, me = discord.user(), f"<@{BOT_ID}>"
    waiting, told = [], []
    photo = discord.attachment(hopper_jpeg)
    async with program(discord, own_home):
        answered = await discord.slash(ann, "about")
        await answered.answer()
        await discord.say(ann, "", photo, photo)
        card = await asyncio.wait_for(discord.channel_messages.get(), 20)
        for ask in (
            lambda: discord.slash(ann, "lookalike", photo=discord.attachment(hopper_jpeg)),
            lambda: discord.press(ann, card, "Photo 2"),
        ):
            fetched = asyncio.Event()
            discord.fail("GET", "/cdn/attachments", 200, hangs=fetched)
            told.append(await ask())
            await asyncio.wait_for(fetched.wait(), 20)
        for guild in (True, False):
            await discord.say(ann, f"{me} about", guild=guild)
            await asyncio.wait_for(discord.channel_messages.get(), 20)
            fetched = asyncio.Event()
            discord.fail("GET", "/cdn/attachments", 200, hangs=fetched)
            photo = discord.attachment(hopper_jpeg)
            waiting.append(await discord.say(ann, me, photo, guild=guild))
            await asyncio.wait_for(fetched.wait(), 20)
            await discord.say(ann, f"{me} about", guild=guild)  # answered beside it
            await asyncio.wait_for(discord.channel_messages.get(), 20)
        async with open_store(Settings(home=own_home)) as store, asyncio.timeout(20):
            while len(await store.kept("discord")) < 2:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.02)
    for guild in (True, False):
        waiting.append(await discord.say(ann, f"{me} privacy", guild=guild, heard=False))
        await discord.say(ann, "talk of people" if guild else "help", guild=guild, heard=False)
    async with program(discord, own_home):
        answers = [await asyncio.wait_for(discord.channel_messages.get(), 30) for _ in range(5)]
        assert {one["id"] for one in waiting} <= {
            str(answer["message_reference"]["message_id"]) for answer in answers
        }
        assert sum("of 2: Grace Hopper" in answer["content"] for answer in answers) == 2
        for asked in told:
            assert (await asked.answer())["content"] == SAY("error.try_later")
        async with open_store(Settings(home=own_home)) as store, asyncio.timeout(20):
            while any((await store.kept("discord asked")).values()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await discord.say(ann, "about")
        last = await asyncio.wait_for(discord.channel_messages.get(), 20)
        assert last["content"].startswith("Lookalike ")
    async with program(discord, own_home):  # nothing is left
        await discord.say(ann, "about")
        last = await asyncio.wait_for(discord.channel_messages.get(), 20)
        assert last["content"].startswith("Lookalike ")
    assert discord.channel_messages.empty()
    assert [len(one.messages) for one in (answered, *told)] == [1, 1, 1]


async def test_help_says_what_works_on_discord(discord: Discord, own_home: Path) -> None:
    """Discord has no captions, and nobody replies with a slash command."""
    ann = discord.user()
    async with bot(discord, own_home):
        for language in LANGUAGES:
            for command in ("start", "help", "twins"):
                asked = await discord.slash(ann, command, locale=language)
                said = (await asked.answer())["content"]
                key = {"start": "text", "help": "intro", "twins": "where"}[command]
                assert said.startswith(SAY(f"discord.{command}.{key}", language))
        await discord.say(ann, "compare")
        said = await asyncio.wait_for(discord.channel_messages.get(), 20)
        assert said["content"] == SAY("discord.compare.need_two")


@pytest.mark.parametrize("where", ["rest", "gateway"])
async def test_a_refused_token_is_one_sentence(
    discord: Discord, own_home: Path, where: str
) -> None:
    if where == "rest":
        discord.accepted_token = "another"
    else:
        discord.fail("GET", "nothing", 500)
        original = discord._gateway_heard

        async def refuse(link: Link, heard: dict[str, object]) -> None:
            if heard["op"] == 2:
                await link[0].close(code=4004)
                return
            await original(link, heard)

        discord._gateway_heard = refuse  # type: ignore[method-assign]
    with pytest.raises(BadToken) as refused:
        async with bot(discord, own_home) as running:
            await asyncio.wait({running}, timeout=60)
    assert TOKEN not in str(refused.value)


async def test_bad_files_get_friendly_sentences(discord: Discord, own_home: Path) -> None:
    ann = discord.user()
    large = discord.attachment(b"x")
    large["size"] = 30_000_000
    cases = [
        (discord.attachment(b"no picture"), SAY("error.not_an_image")),
        (discord.attachment(b"%PDF-1.4", "me.pdf", "application/pdf"), SAY("error.not_an_image")),
        (large, SAY("error.too_large", limit="20 MB")),
    ]
    async with bot(discord, own_home):
        for photo, sentence in cases:
            answer = await (await discord.slash(ann, "lookalike", photo=photo)).answer()
            assert answer["content"] == sentence


async def test_nothing_private_is_logged(
    discord: Discord, own_home: Path, hopper_jpeg: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    ann = discord.user()
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("discord").setLevel(logging.DEBUG)  # the adapter raises it again
        async with bot(discord, own_home):
            photo = discord.attachment(hopper_jpeg)
            await (await discord.slash(ann, "lookalike", photo=photo)).answer()
    # The line of each answer is written by bot.conversation.
    assert any(record.name.startswith("bot") for record in caplog.records)
    for record in caplog.records:
        if record.name.startswith(("bot", "engine", "gallery", "discord")):
            assert TOKEN not in record.getMessage() + str(vars(record))
            assert ann["id"] not in record.getMessage() + str(vars(record))
