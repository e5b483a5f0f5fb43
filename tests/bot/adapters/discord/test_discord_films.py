"""Styles and films on Discord, with the real bot over loopback."""

from __future__ import annotations

from pathlib import Path

from discord_server import Discord
from films import seen
from test_discord import SAY, bot, discord

__all__ = ["discord"]  # a fixture


async def test_a_film_comes_as_a_file_that_plays(
    discord: Discord, own_home: Path, hopper_jpeg: bytes
) -> None:
    """By command, and by the button under an answer, which stays; it is described."""
    ann = discord.user()
    async with bot(discord, own_home):
        photo = discord.attachment(hopper_jpeg)
        film = await (await discord.slash(ann, "morph", photo=photo)).answer()
        assert film["content"].startswith("Your closest of 2: Grace Hopper")
        (attached,) = film["attachments"]
        assert attached["filename"] == "lookalike.mp4"
        assert "Grace Hopper" in attached["description"]
        assert len(seen(film["bytes"][0]).frames) > 40

        card = await (await discord.slash(ann, "lookalike", photo=photo)).answer()
        pressed = await discord.press(ann, card, SAY("button.morph"))
        again = await pressed.answer()
        assert again["id"] != card["id"]
        assert again["attachments"][0]["filename"] == "lookalike.mp4"


async def test_a_style_is_a_choice_of_two(
    discord: Discord, own_home: Path, hopper_jpeg: bytes
) -> None:
    ann = discord.user()
    async with bot(discord, own_home):
        photo = discord.attachment(hopper_jpeg)
        card = await (await discord.slash(ann, "style", name="split", photo=photo)).answer()
        assert "two halves" in card["attachments"][0]["description"]
        chosen = await (await discord.slash(ann, "style", name="side")).answer()
        assert "side by side" in chosen["content"]
        menu = await (await discord.slash(ann, "style")).answer()
        await (await discord.press(ann, menu, f"○ {SAY('style.split')}")).answer()
        settings = await (await discord.slash(ann, "settings")).answer()
        assert "one split face" in settings["content"]
