"""The whole bot on a Discord server with /twins, and /parents, over loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from discord_server import BOT_ID, Discord
from talking import chatting

from bot.settings import DiscordSettings
from bot.text import Wording

SAY = Wording.load().text
EPHEMERAL = 64


@pytest.fixture
async def discord() -> AsyncIterator[Discord]:
    async with Discord() as server:
        yield server


@asynccontextmanager
async def bot(discord: Discord, home: Path) -> AsyncIterator[None]:
    """The bot as it is run, with Discord alone."""
    from bot.adapters.discord import DiscordAdapter

    section = DiscordSettings.model_validate(discord.settings)
    async with chatting(home) as conversation:
        adapter = DiscordAdapter(
            conversation, section, cache_folder=home / "discord", first_pause_s=0.05
        )
        stop = asyncio.Event()
        running = asyncio.create_task(adapter.run(stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait_for(running, 10)


async def test_a_server_plays_twins(
    discord: Discord, own_home: Path, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """By slash command, button, message and menu; a press is told to its presser alone."""
    ann, ben = discord.user("ann"), discord.user("ben")
    mine, his = (discord.attachment(jpeg) for jpeg in (hopper_jpeg, collins_jpeg))
    async with bot(discord, own_home):
        joined = await (await discord.slash(ann, "twins", guild=True, name="on")).answer()
        assert joined["content"].startswith(SAY("twins.joined"))
        pressed = await discord.press(ben, joined, SAY("button.twins_on"), guild=True)
        told = await pressed.answer()
        assert told["content"] == SAY("twins.joined")
        assert told["flags"] & EPHEMERAL

        counted = await (await discord.slash(ann, "lookalike", guild=True, photo=mine)).answer()
        assert counted["content"].endswith(SAY("twins.counted"))
        posted = await discord.say(ben, f"<@{BOT_ID}>", his, guild=True)
        his_answer = await asyncio.wait_for(discord.channel_messages.get(), 20)
        assert his_answer["content"].endswith(SAY("twins.counted"))
        of_ben = await (await discord.message_menu(ann, posted)).answer()
        assert SAY("twins.counted") not in of_ben["content"]
        shown = await (await discord.slash(ann, "twins", guild=True)).answer()
        title, pair, *_ = shown["content"].splitlines()
        assert title == SAY("twins.title")
        assert "Ann" in pair
        assert "Ben" in pair

        left = await discord.press(ben, shown, SAY("button.twins_off"), guild=True)
        assert (await left.answer())["content"] == SAY("twins.left")
        again = await discord.press(ann, shown, SAY("button.twins_show"), guild=True)
        assert "Ben" not in (await again.answer())["content"]


async def test_in_a_direct_message_a_sentence_says_where(
    discord: Discord, own_home: Path, hopper_jpeg: bytes
) -> None:
    """And parents answer there as anywhere."""
    ann = discord.user()
    async with bot(discord, own_home):
        assert (await (await discord.slash(ann, "twins")).answer())["content"] == SAY(
            "discord.twins.where"
        )
        asked = await discord.slash(ann, "parents", photo=discord.attachment(hopper_jpeg))
        assert (await asked.answer())["content"] == SAY("parents.unknown")
