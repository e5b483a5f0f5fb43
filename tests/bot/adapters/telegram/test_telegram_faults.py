"""Telegram when it stumbles: start-up, network, flood control, stops, webhooks, logs."""

from __future__ import annotations

import asyncio
import io
import itertools
import logging
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr
from telegram_mirror import Mirror, mirrored, running, settings, size, until
from telegram_people import Person, group
from telegram_server import BotApi

from bot import adapters
from bot.adapters.telegram import TelegramAdapter, sender, updates
from bot.settings import TelegramSettings, WebhookSettings
from bot.text import Wording
from bot.values import Limits, Reply, Request
from engine.errors import BadSettings, BadToken, TryLater

# A process of its own that never answers.
MUTE_BOT = f"""
import asyncio, sys
sys.path[:0] = {[str(Path(__file__).parents[at]) for at in (0, 3)]!r}
from pydantic import SecretStr
from telegram_mirror import Mirror
from bot import adapters
from bot.adapters.telegram import TelegramAdapter, sender, updates
from bot.settings import TelegramSettings

url, token = sys.argv[1:]
mirror = Mirror()
mirror.gate.clear()
settings = TelegramSettings(
    token=SecretStr(token), base_url=url + "/bot", base_file_url=url + "/file/bot"
)
asyncio.run(TelegramAdapter(mirror, settings).run(asyncio.Event()))
"""


@pytest.fixture
async def api() -> AsyncIterator[BotApi]:
    async with BotApi() as server:
        yield server


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is tried again at once."""
    for module in (sender, updates):
        monkeypatch.setattr(module, "backoff_s", lambda *_: 0.01)


# Start


async def test_a_stumbling_start_is_no_end(api: BotApi, hopper_jpeg: bytes) -> None:
    """Every request of the start is repeated, and nothing that waited is lost."""
    api.fail("getMe", status=502)
    api.drop("getMe")
    api.drop("deleteWebhook")
    api.flood("setMyCommands", 1)
    api.fail("getUpdates", status=500)
    chat = Person(api).private_chat()
    await chat.send_photo(hopper_jpeg)
    async with running(api, Mirror()):
        assert (await chat.reply()).picture
        await until(lambda: len(api.menus) == 8)
    assert api.called("deleteWebhook")[0].parameters.get("drop_pending_updates") is False


async def test_the_menu_is_in_every_language(api: BotApi) -> None:
    """For private chats and groups; in groups without what is nobody else's business."""
    async with running(api, Mirror()):
        await until(lambda: len(api.menus) == 8)
    scopes = {scope for scope, _ in api.menus}
    assert scopes == {"all_private_chats", "all_group_chats"}
    assert {language for _, language in api.menus} == {"", "hi", "es", "ru"}
    private = {item["command"]: item for item in api.menus["all_private_chats", "ru"]}
    assert {"model", "top", "privacy", "settings", "start", "help", "mydata"} <= set(private)
    assert private["top"]["description"] == Wording.load().text("command.top.description", "ru")
    in_groups = {item["command"] for item in api.menus["all_group_chats", ""]}
    assert {"lookalike", "top", "privacy"} <= in_groups
    assert not {"mydata", "history", "forget", "start"} & in_groups


async def test_a_refused_menu_stops_nothing(api: BotApi) -> None:
    """A Bot API server that does not know the method is one without a menu."""
    api.refuse("setMyCommands", 404, "Not Found")
    async with running(api, Mirror()):
        chat = Person(api).private_chat()
        await chat.say("/help")
        assert (await chat.reply()).words == "help [] 0"


@pytest.mark.parametrize("token", ["1234567:wrong", "nonsense", ""])
async def test_a_wrong_token_ends_with_a_sentence(api: BotApi, token: str) -> None:
    """The sentence says what to do and does not quote the token."""
    chosen = settings(api).model_copy(update={"token": SecretStr(token)})
    with pytest.raises(BadToken) as caught:
        await asyncio.wait_for(TelegramAdapter(Mirror(), chosen).run(asyncio.Event()), 5)
    assert "@BotFather" in str(caught.value)
    assert not token or token not in str(caught.value)
    assert caught.value.__suppress_context__


async def test_a_token_revoked_later_ends_the_same_way(api: BotApi) -> None:
    """401 to a poll is no network failure."""
    adapter = asyncio.create_task(TelegramAdapter(Mirror(), settings(api)).run(asyncio.Event()))
    await until(lambda: api.called("getUpdates"))
    api.token = "1:other"
    api.push("message", {})
    with pytest.raises(BadToken):
        await asyncio.wait_for(adapter, 10)


async def test_it_stops_while_nobody_answers() -> None:
    """A stop during the very first, failing request is a clean one."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    chosen = TelegramSettings(
        token=SecretStr("1:x"), base_url=f"{url}/bot", base_file_url=f"{url}/file/bot"
    )
    stop = asyncio.Event()
    adapter = asyncio.create_task(TelegramAdapter(Mirror(), chosen).run(stop))
    await asyncio.sleep(0.2)
    assert not adapter.done()
    stop.set()
    await asyncio.wait_for(adapter, 2)


# Network


async def test_a_stumbling_network_loses_no_answer(api: BotApi, hopper_jpeg: bytes) -> None:
    """Fetching the photo and sending the answer are repeated."""
    chat = Person(api).private_chat()
    async with running(api, Mirror()):
        api.fail("getFile", status=502)
        api.drop("download")
        api.fail("sendChatAction", status=500)
        api.drop("sendPhoto")
        api.fail("sendPhoto", status=500)
        api.drop("getUpdates")
        await chat.send_photo(hopper_jpeg)
        assert size((await chat.reply()).picture) == size(hopper_jpeg)


@pytest.mark.parametrize("how", ["fails", "hangs", "drops"])
async def test_a_long_absence_of_telegram_loses_nobody(
    api: BotApi, hopper_jpeg: bytes, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """What was in work, what was on its way, what came meanwhile; the log has a line or two."""
    working, later = Person(api).private_chat(), Person(api).private_chat()
    mirror, stop = Mirror(), asyncio.Event()
    adapter = TelegramAdapter(mirror, settings(api), album_quiet_s=0.3)
    running = asyncio.create_task(adapter.run(stop))
    await until(lambda: len(api.called("getUpdates")) > 1)
    mirror.gate.clear()
    await working.send_photo(hopper_jpeg)
    await until(lambda: mirror.requests)
    assert adapter.connected
    api.away = how
    mirror.gate.set()
    await until(lambda: api.turned_away >= (2 if how == "hangs" else 30))
    if how != "hangs":
        await until(lambda: not adapter.connected)
    await later.say("/help")
    api.away = ""
    api.back.set()
    assert (await working.reply()).picture
    assert (await later.reply()).words == "help [] 0"
    await until(lambda: adapter.connected)
    stop.set()
    await asyncio.wait_for(running, 15)
    assert _all_confirmed(api)
    said = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(said) <= 2 + api.turned_away // 50  # of polls, and of the menu


async def test_an_update_that_can_not_be_read_hides_no_other(api: BotApi) -> None:
    """It is passed over and does not come again."""
    chat = Person(api).private_chat()
    api.push("message", {"message_id": 1, "chat": {}})
    api.push("callback_query", {"id": "x"})
    await chat.say("/help")
    async with running(api, Mirror()):
        assert (await chat.reply()).words == "help [] 0"
    assert _all_confirmed(api)


async def test_a_photo_that_telegram_withholds_is_a_matter_of_time(
    api: BotApi, hopper_jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again for 10 s; then the sender is told, not left waiting."""
    assert sum(adapters.FETCH_PAUSES_S) == 10.0
    monkeypatch.setattr(adapters, "FETCH_PAUSES_S", (0.01,) * len(adapters.FETCH_PAUSES_S))
    chat = Person(api).private_chat()
    async with running(api, Mirror()):
        api.fail("getFile", status=500, times=4)
        await chat.send_photo(hopper_jpeg)
        assert (await chat.reply()).picture
        api.drop("download", times=12)  # each is tried again at once on a new connection
        await chat.send_photo(hopper_jpeg)
        assert (await chat.reply()).words == "SourceDown"
        api.files.clear()
        gone = {"file_id": "gone", "file_unique_id": "g", "width": 9, "height": 9}
        await chat.send_other(photo=[gone])
        assert (await chat.reply()).words == "SourceDown"


async def test_flood_control_is_obeyed_and_the_answer_delivered(
    api: BotApi, hopper_jpeg: bytes
) -> None:
    """That chat waits; another one is answered meanwhile."""
    slow, quick = Person(api).private_chat(), Person(api).private_chat()
    async with running(api, Mirror()):
        api.flood("sendPhoto", 1, times=2)
        await slow.send_photo(hopper_jpeg)
        await until(lambda: api.called("sendPhoto"))
        await quick.say("/help")
        assert (await quick.reply(within_s=4)).words == "help [] 0"
        assert slow.chat.outgoing.empty()
        assert (await slow.reply(within_s=10)).picture
    attempts = [call.at for call in api.called("sendPhoto")]
    pauses = [later - earlier for earlier, later in itertools.pairwise(attempts)]
    assert len(attempts) == 3
    assert min(pauses) >= 1.0


async def test_twenty_at_once_are_within_telegrams_limits(api: BotApi, hopper_jpeg: bytes) -> None:
    """Thirty messages a second at most; the sign counts for nothing."""
    chats = [Person(api).private_chat() for _ in range(20)]
    async with running(api, Mirror()):
        for chat in chats:
            await chat.send_photo(hopper_jpeg)
        started = time.monotonic()
        for chat in chats:
            assert (await chat.reply()).picture
        assert time.monotonic() - started < 15
    assert all(call.status == 200 for call in api.calls if call.method.startswith("send"))


@pytest.mark.parametrize("garbage", [None, "", "<html>", "[]", "null", '{"ok": true}', '"x"'])
async def test_a_picture_whose_answer_is_of_no_bot_api_is_sent_again_and_stands_once(
    api: BotApi, hopper_jpeg: bytes, garbage: str | None
) -> None:
    """It may have been a gateway that never passed it on: once more, then in words."""
    chat = Person(api).private_chat()
    async with running(api, Mirror()):
        api.fail("sendPhoto", status=200)
        await chat.send_photo(hopper_jpeg)
        assert (await chat.reply()).picture
        api.garble("sendPhoto", garbage)
        await chat.send_photo(hopper_jpeg)
        first, second = await chat.reply(), await chat.reply()
        assert first.picture
        assert second.picture
        await until(lambda: first.id not in chat.chat.messages)
        await chat.say("/help")
        assert (await chat.reply()).words == "help [] 0"
        assert second.id in chat.chat.messages
        api.fail("sendPhoto", status=200, times=2)
        await chat.send_photo(hopper_jpeg)
        assert not (await chat.reply()).picture
    assert chat.chat.outgoing.empty()  # the end waits for what is in work


@pytest.mark.parametrize(
    "result", ["true", "[]", "{}", "null", "7", '"x"', '{"message_id": "x", "chat": 1, "date": {}}']
)
async def test_a_delivered_picture_is_not_followed_by_an_excuse(
    api: BotApi, hopper_jpeg: bytes, result: str
) -> None:
    """Telegram's answer has a shape that nobody knows: the person has the picture."""
    chat = Person(api).private_chat()
    async with running(api, Mirror()):
        api.garble("sendPhoto", f'{{"ok": true, "result": {result}}}')
        await chat.send_photo(hopper_jpeg)
        card = await chat.reply()
        assert card.picture
        api.garble("editMessageMedia", f'{{"ok": true, "result": {result}}}')
        await chat.press(card, "Again")
        assert (await chat.reply()).kind == "edited"
        await chat.say("/help")
        assert (await chat.reply()).words == "help [] 0"
        assert len(api.called("sendPhoto")) == 1


async def test_somebody_who_blocked_the_bot_disturbs_nobody(
    api: BotApi, hopper_jpeg: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """No retry, no error in the log, and the others are answered."""
    gone, here = Person(api).private_chat(), Person(api).private_chat()
    async with running(api, Mirror()):
        gone.chat.blocked = True
        await gone.send_photo(hopper_jpeg)
        await until(lambda: api.called("sendPhoto"))
        await here.send_photo(hopper_jpeg)
        assert (await here.reply()).picture
    assert sum(call.status == 403 for call in api.called("sendPhoto")) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_group_that_became_a_supergroup_is_followed(api: BotApi) -> None:
    """Telegram names the new id, and the answer goes there."""
    (old,), (new,) = group(Person(api)), group(Person(api))
    async with running(api, Mirror()) as _:
        api.refuse(
            "sendMessage",
            400,
            "Bad Request: group chat was upgraded to a supergroup chat",
            migrate_to_chat_id=new.id,
        )
        await old.say("/help")
        assert (await new.reply()).words == "help [] 0"


async def test_a_fault_is_told_and_ends_nothing(
    api: BotApi, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says where it is, and quotes nothing of it."""
    chat, mirror = Person(api).private_chat(), Mirror()
    async with running(api, mirror):
        await chat.send_file(b"secret: no picture", "me.png", "image/png")  # the mirror breaks
        assert (await chat.reply()).words == Wording.load().text("error.internal")
        await chat.say("/help")
        assert (await chat.reply()).words == "help [] 0"
    ours = [record for record in caplog.records if record.name.startswith("bot")]
    faults = [vars(record)["fault"] for record in ours if record.levelname == "ERROR"]
    assert len(faults) == 1
    assert "UnidentifiedImageError" in faults[0]
    assert "secret" not in faults[0]


# Stop and kill


async def test_what_is_in_work_is_finished_before_it_stops(api: BotApi, hopper_jpeg: bytes) -> None:
    """A stop waits for the answer and comes in time."""
    chat, mirror = Person(api).private_chat(), Mirror()
    async with running(api, mirror) as stop:
        mirror.gate.clear()
        await chat.send_photo(hopper_jpeg)
        await until(lambda: mirror.requests)
        stop.set()
        await asyncio.sleep(0.3)
        mirror.gate.set()
        assert (await chat.reply()).picture
    assert _all_confirmed(api)


async def test_what_can_not_be_finished_is_left_to_telegram(
    api: BotApi, hopper_jpeg: bytes
) -> None:
    """Nobody is told to send it again: the next start is sent it again, and answers."""
    chat, mirror = Person(api).private_chat(), Mirror()
    mirror.gate.clear()
    started = time.monotonic()
    async with running(api, mirror, grace_s=0.3):
        await chat.send_photo(hopper_jpeg)
        await chat.send_album([hopper_jpeg, hopper_jpeg])
        await until(lambda: len(mirror.requests) == 2)
    assert time.monotonic() - started < 15
    assert await chat.stays_silent(0.1)
    async with running(api, Mirror(updates=mirror.updates)):
        assert [bool((await chat.reply()).picture) for _ in range(2)] == [True, True]
    assert _all_confirmed(api)


async def test_a_hundred_in_work_at_a_kill_are_answered_once_each(
    api: BotApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that Telegram sends again, those that the store keeps, those answered behind others."""
    chats = [Person(api).private_chat() for _ in range(100)]
    mirror = Mirror()
    answer = mirror.answer

    async def every_third(request: Request, limits: Limits) -> Reply:
        if int(request.arguments) % 3:
            await asyncio.Event().wait()
        return await answer(request, limits)

    monkeypatch.setattr(mirror, "answer", every_third)
    with monkeypatch.context() as killed:
        killed.setattr(updates.Polling, "confirm", updates.Polling.close)
        async with running(api, mirror, grace_s=0.0):
            await until(lambda: len(api.called("getUpdates")) > 1)  # the first: what waited
            for number, chat in enumerate(chats):
                await chat.say(f"/lookalike {number}")
            for chat in chats[::3]:
                await chat.reply()
            await until(
                lambda: any(mirror.updates.values())
            )  # beyond what Telegram is asked to keep
    again = Mirror(updates=mirror.updates)
    async with running(api, again):
        for number, chat in enumerate(chats):
            if number % 3:
                assert (await chat.reply()).words == f"lookalike [{number}] 0"
        await until(lambda: api.confirmed >= chats[-1].last_update)
    assert len(again.requests) == 66
    assert await chats[0].stays_silent(0.1)


async def test_what_is_answered_while_the_store_is_busy_is_noted_together(
    api: BotApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though what was noted before them could not be."""
    stuck, mirror = Person(api).private_chat(), Mirror()
    chats = [Person(api).private_chat() for _ in range(4)]
    answer, keep_all, told, goes_on = mirror.answer, mirror.keep_all, list[int](), asyncio.Event()

    async def waiting(request: Request, limits: Limits) -> Reply:
        await (asyncio.Event().wait() if request.command == "history" else asyncio.sleep(0))
        return await answer(request, limits)

    async def busy(name: str, said: dict[str, Any], **more: Any) -> bool:
        told.append(len(said))
        if len(told) == 1:
            await goes_on.wait()
            raise TryLater("the database does not answer")
        return await keep_all(name, said, **more)

    monkeypatch.setattr(mirror, "answer", waiting)
    monkeypatch.setattr(mirror, "keep_all", busy)
    async with running(api, mirror, grace_s=0.0):
        await until(lambda: len(api.called("getUpdates")) > 1)  # the first: what waited
        await stuck.say("/history")
        for chat in chats:
            await chat.say("/help")
            await chat.reply()
            await until(lambda: told)
        goes_on.set()
        await until(lambda: len(mirror.updates) == 3)
    assert len(told) < len(chats)


async def test_what_the_store_can_not_keep_stays_with_telegram(
    api: BotApi, hopper_jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat, mirror = Person(api).private_chat(), Mirror()

    async def down(*_: object, **__: object) -> bool:
        raise TryLater("the database does not answer")

    await chat.send_photo(hopper_jpeg)  # waits before the start
    mirror.gate.clear()
    with monkeypatch.context() as broken:
        broken.setattr(Mirror, "keep_all", down)
        async with running(api, mirror, grace_s=0.0):
            await until(lambda: mirror.requests)
    assert not _all_confirmed(api)
    async with running(api, Mirror()):
        assert (await chat.reply()).picture
    assert _all_confirmed(api)


async def test_a_photo_outlives_a_kill(api: BotApi, hopper_jpeg: bytes) -> None:
    """What was in work when the process died is answered by the next one, once."""
    chat = Person(api).private_chat()
    dying = await asyncio.create_subprocess_exec(sys.executable, "-c", MUTE_BOT, api.url, api.token)
    await until(lambda: api.called("getUpdates"), within_s=60)
    photo = await chat.send_photo(hopper_jpeg)
    album = await chat.send_album([hopper_jpeg, hopper_jpeg], "/compare")
    await until(lambda: len(api.called("sendChatAction")) == 2)
    dying.kill()
    await dying.wait()
    mirror = Mirror()
    async with running(api, mirror):
        replies = [await chat.reply() for _ in range(2)]
        assert {reply.answers_to for reply in replies} == {photo, album[0]}
        assert await chat.stays_silent()
    assert len(mirror.requests) == 2
    assert _all_confirmed(api)


async def test_a_pressed_button_outlives_a_kill(api: BotApi, hopper_jpeg: bytes) -> None:
    """What was pressed is done by the next process, once."""
    chat = Person(api).private_chat()
    async with running(api, Mirror()):
        await chat.send_photo(hopper_jpeg)
        card = await chat.reply()
    polls = len(api.called("getUpdates"))
    dying = await asyncio.create_subprocess_exec(sys.executable, "-c", MUTE_BOT, api.url, api.token)
    await until(lambda: len(api.called("getUpdates")) >= polls + 2, within_s=60)
    query = await chat.press(card, "Again")
    await until(lambda: query in api.toasts)
    dying.kill()
    await dying.wait()
    async with running(api, Mirror()):
        changed = await chat.reply()
        assert (changed.kind, changed.words) == ("edited", "pressed again 1")
        assert await chat.stays_silent()
    assert _all_confirmed(api)


async def test_what_kills_is_given_up_and_harms_nothing_beside_it(
    api: BotApi, hopper_jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in work alone at three starts, then its sender is told; an album stays together."""
    monkeypatch.setattr(updates.Polling, "confirm", updates.Polling.close)  # as if it was killed
    chats = [Person(api).private_chat() for _ in range(6)]
    kept: dict[str, Any] = {}
    lives = []
    for life in range(5):
        mirror, died = Mirror(updates=kept), asyncio.Event()
        answer, begun = mirror.answer, list[str]()

        async def killed(request: Request, limits: Limits) -> Reply:
            begun.append(request.arguments)  # noqa: B023 - of this life
            if request.arguments == "2":
                died.set()  # noqa: B023
            if request.arguments == "2" or not lives:
                await asyncio.Event().wait()
            return await answer(request, limits)  # noqa: B023

        monkeypatch.setattr(mirror, "answer", killed)
        async with running(api, mirror, grace_s=0.0):
            if life == 0:
                await until(lambda: len(api.called("getUpdates")) > 1)  # the first: what waited
                for number, chat in enumerate(chats[:5]):
                    await chat.say(f"/lookalike {number}")
                await chats[5].send_album([hopper_jpeg, hopper_jpeg], "/compare 5")
                await until(lambda: len(begun) == 6)  # noqa: B023
            elif life < 4:
                await asyncio.wait_for(died.wait(), 20)
            else:
                assert (await chats[2].reply()).words == Wording.load().text("error.internal")
        lives.append(begun)
    assert lives[1:] == [["0", "1", "2"], ["3", "4", "5", "2"], ["2"], []]
    for number, chat in enumerate(chats):
        said = f"compare [{number}] 2" if number == 5 else f"lookalike [{number}] 0"
        assert number == 2 or (await chat.reply()).words == said
        assert chat.chat.outgoing.empty()


async def test_a_fault_of_ours_blocks_nobody_and_is_told_once(
    api: BotApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the sentence about it can't be said: it does not come again."""
    poisoned, other, mirror = Person(api).private_chat(), Person(api).private_chat(), Mirror()
    answer = mirror.answer

    async def broken(request: Request, limits: Limits) -> Reply:
        if request.command == "poison":
            monkeypatch.setattr(Wording, "text", lambda *_: 1 / 0)
            raise RuntimeError
        return await answer(request, limits)

    monkeypatch.setattr(mirror, "answer", broken)
    async with running(api, mirror):
        await poisoned.say("/poison")
        await other.say("/help")
        assert (await other.reply()).words == "help [] 0"
    assert _all_confirmed(api)
    assert len([one for one in caplog.records if one.levelname == "ERROR"]) == 1


async def test_updates_in_work_come_again_and_are_answered_once(
    api: BotApi, hopper_jpeg: bytes
) -> None:
    """Unconfirmed updates are fetched again with every poll, and new ones with them.

    Also where this machine's clock is ahead of Telegram's.
    """
    mirror = Mirror()
    mirror.gate.clear()
    chats = [Person(api).private_chat() for _ in range(3)]
    async with running(api, mirror):
        await until(lambda: len(api.called("getUpdates")) > 1)  # the first brings what waited
        for number, chat in enumerate(chats, 1):
            await chat.send_photo(hopper_jpeg)
            api.updates[-1]["message"]["date"] -= 600
            await until(lambda: len(mirror.requests) >= number)  # noqa: B023 - awaited at once
        await until(lambda: len(api.delivered) > 3)
        assert len(mirror.requests) == 3
        assert api.confirmed < chats[0].last_update
        mirror.gate.set()
        for chat in chats:
            await chat.reply()
            assert await chat.stays_silent(0.1)
        await until(lambda: api.confirmed >= chats[2].last_update)
    assert len(mirror.requests) == 3


async def test_one_that_takes_long_holds_up_nobody(api: BotApi, hopper_jpeg: bytes) -> None:
    """Of a hundred updates after it, more than one poll brings, each is seen once."""
    api.me["can_read_all_group_messages"] = True
    stuck, asker, mirror = Person(api).private_chat(), Person(api).private_chat(), Mirror()
    (talkers,) = group(Person(api))
    async with running(api, mirror):
        mirror.gate.clear()
        await stuck.send_photo(hopper_jpeg)
        await until(lambda: mirror.requests)
        for _ in range(130):
            await talkers.say("just talk")
        await asker.say("/help")
        await until(lambda: len(mirror.requests) == 2)
        mirror.gate.set()
        assert (await asker.reply()).words == "help [] 0"
        assert (await stuck.reply()).picture
        await until(lambda: api.confirmed >= asker.last_update)
    assert len(mirror.requests) == 2


async def test_what_is_answered_while_another_is_put_aside_is_done(
    api: BotApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of messages ended the program so."""
    api.me["can_read_all_group_messages"] = True
    stuck, quick, mirror = Person(api).private_chat(), Person(api).private_chat(), Mirror()
    (talkers,) = group(Person(api))
    released = asyncio.Event()
    answer, keep = mirror.answer, mirror.keep_all

    async def waiting(request: Request, limits: Limits) -> Reply:
        await (asyncio.Event() if request.command == "history" else released).wait()
        return await answer(request, limits)

    async def slow(*given: Any, **more: Any) -> bool:
        if not released.is_set():
            released.set()
            assert (await quick.reply()).words == "help [] 0"
            await until(lambda: quick.last_update not in adapter_held())
        return await keep(*given, **more)

    monkeypatch.setattr(mirror, "answer", waiting)
    monkeypatch.setattr(mirror, "keep_all", slow)
    made, take = list[updates.Polling](), updates.Polling.__init__

    def noticed(polling: updates.Polling, *given: Any) -> None:
        take(polling, *given)
        made.append(polling)

    def adapter_held() -> Any:
        return made[0]._held

    monkeypatch.setattr(updates.Polling, "__init__", noticed)
    async with running(api, mirror, grace_s=0.0):
        await until(lambda: len(api.called("getUpdates")) > 1)
        await stuck.say("/history")
        await quick.say("/help")
        for _ in range(70):
            await talkers.say("just talk")
        await until(lambda: mirror.updates.get(str(stuck.last_update)))
        await until(lambda: api.confirmed >= quick.last_update)
    kept = {number for number, one in mirror.updates.items() if one}
    assert kept == {str(stuck.last_update)}


# Webhook


@pytest.fixture
def webhook() -> WebhookSettings:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/hooks/telegram.v1"
    return WebhookSettings(url=url, port=port, secret=SecretStr("s3cret_-"))


async def test_updates_come_by_webhook(
    api: BotApi, webhook: WebhookSettings, hopper_jpeg: bytes
) -> None:
    """Photos and albums are answered; a request without the secret is refused."""
    api.fail("setWebhook", status=502)
    api.webhook = {"url": "http://127.0.0.1:1/old"}
    mirror = Mirror()
    async with running(api, mirror, webhook=webhook):
        await until(lambda: api.webhook["url"] == webhook.url)
        assert api.webhook["secret_token"] == "s3cret_-"
        assert set(api.webhook["allowed_updates"]) == {
            "message",
            "edited_message",
            "callback_query",
            "guest_message",
        }
        chat = Person(api).private_chat()
        await chat.send_photo(hopper_jpeg)
        assert size((await chat.reply()).picture) == size(hopper_jpeg)
        await chat.send_album([hopper_jpeg, hopper_jpeg], "/compare")
        assert (await chat.reply()).words == "compare [] 2"
        async with aiohttp.ClientSession() as forger:
            for headers in ({}, {"X-Telegram-Bot-Api-Secret-Token": "guess"}):
                async with forger.post(str(webhook.url), json={}, headers=headers) as response:
                    assert response.status == 403
            for body in (b"[]", b"{", b"[" * 100_000):
                headers = {"X-Telegram-Bot-Api-Secret-Token": "s3cret_-"}
                async with forger.post(str(webhook.url), data=body, headers=headers) as response:
                    assert response.status == 400
            large = forger.post(
                str(webhook.url), data=io.BytesIO(b" " * 2_000_000), headers=headers
            )
            async with large as response:
                assert response.status == 413
            for again in api.updates[-2:]:  # as Telegram does where the answer was lost
                async with forger.post(str(webhook.url), json=again, headers=headers) as response:
                    assert response.status == 200
            async with forger.get(str(webhook.url), headers=headers) as response:
                assert response.status == 405
        assert await chat.stays_silent(0.1)
    assert len(mirror.requests) == 2
    assert not api.called("getUpdates")


async def test_what_came_by_webhook_outlives_a_kill(
    api: BotApi, webhook: WebhookSettings, hopper_jpeg: bytes
) -> None:
    chat, mirror = Person(api).private_chat(), Mirror()
    mirror.gate.clear()
    async with running(api, mirror, webhook=webhook, grace_s=0.0):
        await until(lambda: api.webhook.get("url"))
        await chat.send_photo(hopper_jpeg)
        await until(lambda: mirror.requests)
    assert await chat.stays_silent(0.1)
    async with running(api, Mirror(updates=mirror.updates), webhook=webhook):
        assert (await chat.reply()).picture
        await until(lambda: not any(mirror.updates.values()))


async def test_a_webhook_without_a_secret_gets_one(api: BotApi, webhook: WebhookSettings) -> None:
    """Made anew at every start."""
    chosen = webhook.model_copy(update={"secret": None})
    async with running(api, Mirror(), webhook=chosen):
        await until(lambda: api.webhook.get("url"))
        assert len(api.webhook["secret_token"]) >= 32


async def test_a_webhook_that_can_not_be_used_ends_with_a_sentence(
    api: BotApi, webhook: WebhookSettings
) -> None:
    """Telegram's reason, or the port's, is told."""
    api.refuse("setWebhook", 400, "Bad Request: bad webhook: HTTPS url must be provided")
    with pytest.raises(BadSettings, match="https url must be provided"):
        await TelegramAdapter(Mirror(), settings(api, webhook)).run(asyncio.Event())
    busy = pytest.raises(BadSettings, match=f"{webhook.port} can't be used")
    with socket.create_server(("127.0.0.1", webhook.port)), busy:
        await TelegramAdapter(Mirror(), settings(api, webhook)).run(asyncio.Event())


# Log


async def test_the_log_holds_no_token_and_no_id(
    api: BotApi, hopper_jpeg: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """At DEBUG, with everything that can go wrong going wrong."""
    caplog.set_level(logging.DEBUG)
    ada = Person(api, username="ada_secret_name")
    chat, mirror = ada.private_chat(), Mirror()
    (crowd,) = group(ada)
    for method in ("getMe", "getUpdates", "getFile", "sendPhoto"):
        api.drop(method)
    api.fail("sendMessage", status=502)
    api.fail("download", status=404)
    api.flood("setMyCommands", 1)
    async with running(api, mirror):
        await chat.send_photo(hopper_jpeg, "secret caption")
        card = await chat.reply()
        await chat.press(card, "Again")
        await chat.reply()
        await crowd.send_photo(hopper_jpeg, "/lookalike")
        await crowd.reply()
        mirror.replies["about"] = Reply("x", mirrored(hopper_jpeg))
        crowd.chat.forbids_media = True
        await crowd.say("/about")
        await crowd.reply()
        chat.chat.blocked = True
        await chat.say("/help")
        await until(lambda: any(call.status == 403 for call in api.calls))
    wrong = settings(api).model_copy(update={"token": SecretStr("8:SECRET")})
    with pytest.raises(BadToken):
        await TelegramAdapter(mirror, wrong).run(asyncio.Event())
    written = caplog.text + "".join(str(vars(record)) for record in caplog.records)
    assert "telegram: polling" in written
    for secret in (
        api.token.split(":")[1],
        "SECRET",
        str(ada.id),
        str(crowd.id),
        "ada_secret_name",
        "secret caption",
        "Friends",
        f"{api.url}/bot",
        *(file_id for file_id in api.files),
    ):
        assert secret not in written


async def test_buttons_work_after_a_restart(api: BotApi, hopper_jpeg: bytes) -> None:
    """What the card replies to comes with the button; an old card gets a new one."""
    chat = Person(api).private_chat()
    async with running(api, Mirror()):
        photo = await chat.send_photo(hopper_jpeg)
        card = await chat.reply()
    after = Mirror()
    async with running(api, after):
        await chat.press(card, "Again")
        changed = await chat.reply()
        assert (changed.kind, changed.words) == ("edited", "pressed again 1")
        assert size(after.fetched[0][0]) == size(hopper_jpeg)
        await chat.press(card, "Again", forgotten=True)
        fresh = await chat.reply()
        assert (fresh.kind, fresh.words) == ("sent", "pressed again 1")
        after.replies["again"] = Reply("more", mirrored(hopper_jpeg))
        await chat.press(card, "Again")
        more = await chat.reply()
        assert (more.kind, more.answers_to) == ("sent", photo)


def _all_confirmed(api: BotApi) -> bool:
    """Whether no update would come again."""
    return all(update["update_id"] <= api.confirmed for update in api.updates)
