"""Help, greeting, and what the bot is made of."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bot import __version__
from bot.commands import chat_commands
from bot.context import Turn
from bot.values import Reply
from bot.wording import Wording
from engine.backbones import BACKBONES

if TYPE_CHECKING:
    from bot.models import Models
    from gallery.gallery import Gallery

__all__ = ["Telling"]


class Telling:
    """Answers ``/start``, ``/help`` and ``/about``."""

    def __init__(self, *, wording: Wording, desk: Models, gallery: Gallery) -> None:
        self._wording = wording
        self._desk = desk
        self._gallery = gallery

    async def start(self, turn: Turn) -> Reply:
        """A greeting that says what to do."""
        return Reply(text=turn.say("start.text"))

    async def help(self, turn: Turn) -> Reply:
        """Every command."""
        lines = [
            f"/{command.name} - {command.description}"
            for command in chat_commands(self._wording, turn.request.sender.language)
            if command.name not in {"start", "help"}
        ]
        parts = (turn.say("help.intro"), "\n".join(lines), turn.say("help.outro"))
        return Reply(text="\n\n".join(parts))

    async def about(self, turn: Turn) -> Reply:
        """Version, people, models and their licences, whose the portraits are."""
        models = [
            turn.say(
                "about.model",
                name=standing.name,
                title=standing.title,
                licence=BACKBONES[standing.name].licence,
            )
            if standing.name in BACKBONES
            else turn.say("about.together", name=standing.name, models=standing.title)
            for standing in self._desk.standings()
        ]
        stats = await asyncio.to_thread(self._gallery.stats)
        people = turn.say("about.people", count=stats.people)
        text = turn.say("about.text", version=__version__, people=people, models="\n".join(models))
        return Reply(text=text)
