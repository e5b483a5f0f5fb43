"""What goes on behind the conversation: the starter gallery of a fresh machine."""

from __future__ import annotations

import asyncio
import logging
import socket
from mmap import PAGESIZE
from pathlib import Path

import pytest
from pydantic import SecretStr
from talking import Person

from bot.app import open_conversation
from bot.background import release_memory
from bot.settings import Settings, TelegramSettings
from bot.values import Sender


def settings(home: Path, **gallery: object) -> Settings:
    chosen = {"configured": ("dlib",), "fetch": False}
    values = {"home": home, "default_model": "dlib", "models": chosen, "gallery": gallery}
    return Settings.model_validate(values)


async def warnings_of(chosen: Settings, caplog: pytest.LogCaptureFixture) -> list[str]:
    with caplog.at_level(logging.INFO, "bot.background"):
        async with open_conversation(chosen, fills_gallery=True), asyncio.timeout(30):
            while chosen.gallery.starter and not _ours(caplog):  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.1)
    return _ours(caplog)


def _ours(caplog: pytest.LogCaptureFixture) -> list[str]:
    records = [record for record in caplog.records if record.name == "bot.background"]
    return [f"{record.getMessage()} {vars(record).get('reason')}" for record in records]


async def test_without_a_contact_one_sentence_says_how_to_add_people(
    own_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (warning,) = await warnings_of(settings(own_home), caplog)
    assert "lookalike gallery download" in warning
    assert "gallery.contact" in warning


async def test_without_a_network_the_bundled_portraits_stay(
    own_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}/sparql"
    chosen = settings(own_home, contact="op@example.org", wikidata_url=closed, commons_url=closed)
    (warning,) = await warnings_of(chosen, caplog)
    assert "lookalike gallery add" in warning


async def test_a_bots_own_page_is_the_contact_where_none_is_set(
    own_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}/sparql"
    chosen = settings(own_home, wikidata_url=closed, commons_url=closed)
    chosen = chosen.model_copy(update={"telegram": TelegramSettings(token=SecretStr("1:a"))})
    async with open_conversation(chosen, fills_gallery=True) as conversation:
        filling, page = conversation.filling, "https://t.me/somebody_bot"
        await filling.introduce(page)
        while filling.problem is None:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.02)
        assert await filling.contact() == page
        await filling.introduce("https://t.me/another_bot")
        assert await filling.contact() == page
        about = await Person(conversation, Sender("telegram", "1", "1", "en")).says("/about")
        assert page in about.text
    (warning,) = _ours(caplog)
    assert "lookalike gallery add" in warning


async def test_it_can_be_switched_off(own_home: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert await warnings_of(settings(own_home, starter=False), caplog) == []


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_that_photos_took_goes_back_to_the_system() -> None:
    """Freed blocks below one that is still in use stay with glibc."""

    def resident_mb() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGESIZE / 1e6

    blocks = [b"x" * (100_000 + number) for number in range(1_000)]
    kept = blocks[::50]
    before_mb = resident_mb()
    del blocks

    release_memory()

    assert len(kept) == 20
    assert resident_mb() < before_mb - 60
