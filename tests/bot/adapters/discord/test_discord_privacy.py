"""Who sees what on Discord: private answers, failures, and permissions that are missing."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from unittest.mock import AsyncMock

import pytest
from discord_server import BOT_ID, DIRECT_ID, Discord
from test_discord import EPHEMERAL, SAY, bot, discord

from bot import adapters
from bot.conversation import PRIVATE
from engine.errors import Busy

__all__ = ["discord"]  # a fixture

MISSING_PERMISSIONS = {"code": 50013, "message": "Missing Permissions"}
CLOSED = {"code": 50007, "message": "Cannot send messages to this user"}
NO_HISTORY = {"code": 160002, "message": "Cannot reply without permission to read history"}
CHANNEL = "channels/500/messages"


async def said(discord: Discord) -> dict[str, object]:
    """The next message in a channel."""
    return await asyncio.wait_for(discord.channel_messages.get(), 20)


@pytest.mark.parametrize("command", sorted(PRIVATE))
async def test_private_answers_are_seen_by_the_asker_alone(
    discord: Discord, own_home: Path, command: str
) -> None:
    """By mention in a server: a direct message, and a word in public; by slash: ephemeral."""
    ann = discord.user()
    async with bot(discord, own_home):
        for asked_as in (f"{command} now", f"/{command}", f"!{command}", command.upper(), command):
            for text in (f"<@{BOT_ID}> {asked_as}", f"{asked_as} <@{BOT_ID}>"):
                await discord.say(ann, text, guild=True)
                answer, word = await said(discord), await said(discord)
                assert answer["channel_id"] == DIRECT_ID
                assert (word["channel_id"], word["content"]) == ("500", SAY("discord.written"))
                assert not word["attachments"]
                assert not word["components"]
        asked = await discord.slash(ann, command, guild=True)
        assert (await asked.answer())["content"] == answer["content"]
        assert asked.deferred["data"]["flags"] & EPHEMERAL
        discord.fail("POST", f"channels/{DIRECT_ID}/messages", 403, body=CLOSED)
        await discord.say(ann, f"<@{BOT_ID}> {command}", guild=True)
        assert (await said(discord))["content"] == SAY("discord.closed")
    assert discord.channel_messages.empty()


async def test_a_failure_of_a_slash_command_is_seen_by_the_asker_alone(
    discord: Discord, own_home: Path, hopper_jpeg: bytes
) -> None:
    ann = discord.user()
    async with bot(discord, own_home):
        asked = await discord.slash(
            ann, "lookalike", guild=True, photo=discord.attachment(b"no picture")
        )
        answer = await asked.answer()
        assert answer["content"] == SAY("error.not_an_image")
        assert answer["flags"] & EPHEMERAL
        assert asked.taken_back
        photo = discord.attachment(hopper_jpeg)
        well = await discord.slash(ann, "lookalike", guild=True, photo=photo)
        assert not (await well.answer())["flags"] & EPHEMERAL
        assert not well.taken_back


async def test_who_is_refused_at_once_is_told_alone_in_one_call(
    discord: Discord, own_home: Path, hopper_jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, photo = discord.user(), discord.attachment(hopper_jpeg)
    async with bot(discord, own_home):
        with monkeypatch.context() as patch:
            full = AsyncMock(side_effect=Busy("the queue is full", seconds=3))
            patch.setattr("bot.recognizer.Recognizer.refuse", full)
            asked = await discord.slash(ann, "lookalike", guild=True, photo=photo)
            answer = await asked.answer()
        assert answer["content"].startswith("I'm busy just now.")
        assert answer["flags"] & EPHEMERAL
        assert (asked.deferred["type"], asked.taken_back) == (4, False)
        card = await (await discord.slash(ann, "lookalike", guild=True, photo=photo)).answer()
        assert card["content"].startswith("Your closest of 2")
    assert len(asked.messages) == 1


async def test_a_missing_permission_is_named(
    discord: Discord, own_home: Path, hopper_jpeg: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Attach Files, and Read Message History to reply and to see what is replied to."""
    ann = discord.user()
    async with bot(discord, own_home):
        discord.fail("POST", CHANNEL, 403, times=2, body=MISSING_PERMISSIONS)
        photo = discord.attachment(hopper_jpeg)
        await discord.say(ann, f"<@{BOT_ID}>", photo, guild=True)
        answer = await said(discord)
        assert str(answer["content"]).startswith("Your closest of 2: Grace Hopper")
        assert str(answer["content"]).endswith(SAY("discord.no_files"))
        assert answer["components"]

        discord.fail("POST", CHANNEL, 400, body=NO_HISTORY)
        await discord.say(ann, f"<@{BOT_ID}>", photo, guild=True)
        answer = await said(discord)
        assert answer["attachments"]
        assert "message_reference" not in answer

        discord.fail("GET", CHANNEL, 403, body={"code": 50001, "message": "Missing Access"})
        gone = {"id": discord.id(), "channel_id": "500"}
        await discord.say(ann, f"<@{BOT_ID}>", guild=True, replies_to=gone, resolved=False)
        assert (await said(discord))["content"] == SAY("discord.no_history")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_spoilered_photo_is_answered_by_a_spoilered_card(
    discord: Discord, own_home: Path, hopper_jpeg: bytes
) -> None:
    """So is a button under an answer to one."""
    ann = discord.user()
    async with bot(discord, own_home):
        await discord.say(ann, "", discord.attachment(hopper_jpeg, "SPOILER_me.jpg"))
        card = await asyncio.wait_for(discord.channel_messages.get(), 20)
        assert card["attachments"][0]["filename"] == "SPOILER_lookalike.jpg"
        more = await (await discord.press(ann, card, SAY("button.more"))).answer()
        assert more["attachments"][0]["filename"] == "SPOILER_lookalike.jpg"


async def test_a_file_that_can_not_be_had_for_some_seconds_is_waited_for(
    discord: Discord, own_home: Path, hopper_jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For 10 s (tests/bot/adapters/telegram/test_telegram_faults.py)."""
    monkeypatch.setattr(adapters, "FETCH_PAUSES_S", (0.01,) * len(adapters.FETCH_PAUSES_S))
    ann = discord.user()
    async with bot(discord, own_home):
        discord.fail("GET", "/cdn/attachments", 500, times=4)
        asked = await discord.slash(ann, "lookalike", photo=discord.attachment(hopper_jpeg))
        assert (await asked.answer())["content"].startswith("Your closest of 2: Grace Hopper")
    assert len(asked.messages) == 1
