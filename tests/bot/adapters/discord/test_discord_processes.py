"""Two processes of one bot on Discord, each with its own connections, on one Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from discord_server import Discord
from homes import copy_home
from pydantic import ValidationError
from valkey_server import ValkeyServer

from bot.adapters.discord import DiscordAdapter
from bot.app import open_conversation
from bot.settings import DiscordSettings, Settings
from bot.text import Wording

SAY = Wording.load().text


@asynccontextmanager
async def process(
    discord: Discord, home: Path, store: Path, memory: ValkeyServer, **shards: object
) -> AsyncIterator[None]:
    """One of several, in a data folder of its own; the store is theirs together."""
    settings = Settings.model_validate(
        {
            "home": home,
            "default_model": "dlib",
            "models": {"configured": ("dlib",), "fetch": False},
            "database": {"url": f"sqlite:///{store}", "key": "one key for all the processes of it"},
            "memory": {"url": memory.url},
        }
    )
    section = DiscordSettings.model_validate(discord.settings | shards)
    async with open_conversation(settings) as conversation:
        adapter, stop = (
            DiscordAdapter(conversation, section, home, first_pause_s=0.05),
            asyncio.Event(),
        )
        running = asyncio.create_task(adapter.run(stop))
        try:
            async with asyncio.timeout(30):
                while not adapter.connected:  # noqa: ASYNC110 - the adapter tells nobody
                    await asyncio.sleep(0.01)
            yield
        finally:
            stop.set()
            await asyncio.wait_for(running, 10)


async def test_two_processes_are_one_bot(
    starter_home: Path, tmp_path: Path, valkey: ValkeyServer, hopper_jpeg: bytes
) -> None:
    """One registers the commands; a button and a choice hold at the other; nothing comes twice."""
    async with Discord() as discord, AsyncExitStack() as stack:
        for shard in (1, 0):
            home = copy_home(starter_home, tmp_path / str(shard))
            own = {"shard_ids": [shard], "shard_count": 2}
            at = process(discord, home, tmp_path / "store.db", valkey, **own)
            await stack.enter_async_context(at)
            assert discord.identifies[-1]["shard"] == [shard, 2]
            assert discord.syncs <= 1 - shard
        async with asyncio.timeout(20):
            while not discord.syncs:  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.01)
        ann = discord.user()
        await (await discord.slash(ann, "top", number=2)).answer()
        discord.links.reverse()
        asked = await discord.slash(ann, "lookalike", photo=discord.attachment(hopper_jpeg))
        card = await asked.answer()
        assert "Eileen Collins" in card["content"]
        discord.links.reverse()
        numbers = await (await discord.press(ann, card, SAY("button.numbers"))).answer()
        assert "cosine" in numbers["content"]

        # As while one process takes over from another: both hear of it.
        say = discord._send

        async def say_to_both(frame: dict[str, object], link: object = None) -> None:
            for one in [link] if link else discord.links:
                await say(frame, one)

        discord._send = say_to_both  # type: ignore[method-assign, assignment]
        await discord.say(ann, "", discord.attachment(hopper_jpeg))
        answer = await asyncio.wait_for(discord.channel_messages.get(), 20)
        assert "Grace Hopper" in answer["content"]
        pressed = await discord.press(ann, answer, SAY("button.numbers"))
        assert "cosine" in (await pressed.answer())["content"]
        await discord.say(ann, "about")
        await asyncio.wait_for(discord.channel_messages.get(), 20)
        assert discord.channel_messages.empty()
        assert len(pressed.messages) == 1
        assert discord.syncs == 1


@pytest.mark.parametrize("shards", [{"shard_ids": [0]}, {"shard_ids": [2], "shard_count": 2}])
def test_shards_that_do_not_fit_are_told(shards: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="belong together"):
        DiscordSettings.model_validate(shards)
