"""The commands and buttons of the chat, the same on every platform: one table of each.

A command is a function of the services and the request that returns a reply; a button's function
also gets the button's action (``bot.values.Action``). /help, menus and registration are made from
the table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from bot import __version__
from bot.commands import compare, personal, photo, preferences, twins
from bot.context import Services, Turn
from bot.values import Action, ChatCommand, Reply
from bot.wording import Wording
from engine.backbones import BACKBONES

__all__ = ["BUTTONS", "CHAT_COMMANDS", "COMMANDS", "PRIVATE", "Command", "chat_commands"]


@dataclass(frozen=True, slots=True)
class Command:
    """A row of the table of commands.

    Attributes:
        answer: What it does.
        photos: How many photos it can take.
        hint: Whether something may follow it (wording key ``command.NAME.hint``).
        private: Whether the answer is nobody else's business.
    """

    answer: Callable[[Services, Turn], Awaitable[Reply]]
    photos: Literal[0, 1, 2] = 0
    hint: bool = False
    private: bool = False


async def start(_services: Services, turn: Turn) -> Reply:
    """``/start``: a greeting that says what to do."""
    return Reply(text=turn.say("start.text"))


async def show_help(_services: Services, turn: Turn) -> Reply:
    """``/help``: every command."""
    lines = [
        f"/{command.name} - {command.description}"
        for command in chat_commands(turn.wording, turn.request.sender.language)
        if command.name not in {"start", "help"}
    ]
    parts = (turn.say("help.intro"), "\n".join(lines), turn.say("help.outro"))
    return Reply(text="\n\n".join(parts))


async def about(services: Services, turn: Turn) -> Reply:
    """``/about``: version, people, models and their licences, whose the portraits are."""
    models = [
        turn.say(
            "about.model",
            name=status.name,
            title=status.title,
            licence=BACKBONES[status.name].licence,
        )
        if status.name in BACKBONES
        else turn.say("about.together", name=status.name, models=status.title)
        for status in services.models.statuses()
    ]
    stats = await asyncio.to_thread(services.gallery.stats)
    people = turn.say("about.people", count=stats.people)
    text = turn.say("about.text", version=__version__, people=people, models="\n".join(models))
    return Reply(text=text)


# The order is that of menus and of /help.
COMMANDS: dict[str, Command] = {
    "lookalike": Command(photo.lookalike, photos=1),
    "compare": Command(compare.compare, photos=2),
    "morph": Command(photo.morph, photos=1, hint=True),
    "parents": Command(photo.parents, photos=1, hint=True),
    "twins": Command(twins.twins, photos=1, hint=True),
    **{
        preference.name: Command(preference.command, photos=1, hint=True)
        for preference in preferences.PREFERENCES
    },
    "settings": Command(preferences.settings),
    "history": Command(personal.history, private=True),
    "about": Command(about),
    "privacy": Command(personal.privacy),
    "mydata": Command(personal.my_data, private=True),
    "forget": Command(personal.ask_to_forget, private=True),
    "help": Command(show_help),
    "start": Command(start),
}
CHAT_COMMANDS = {name: command.photos for name, command in COMMANDS.items()}
PRIVATE = frozenset(name for name, command in COMMANDS.items() if command.private)

# By the verb of their action.
BUTTONS: dict[str, Callable[[Services, Turn, Action], Awaitable[Reply]]] = {
    "see": photo.see,
    "raw": photo.raw,
    "next": photo.next_photo,
    "morph": photo.press_morph,
    "parents": photo.press_parents,
    "rawkin": photo.raw_parents,
    "twins": twins.press_twins,
    "both": compare.both,
    "pair": compare.pair,
    "rawpair": compare.raw_pair,
    **{preference.name: preference.press for preference in preferences.PREFERENCES},
    "forget": personal.press_forget,
}


def chat_commands(wording: Wording, language: str | None = None) -> tuple[ChatCommand, ...]:
    """Every command, in the order of menus, described in that language."""
    return tuple(
        ChatCommand(
            name=name,
            description=wording.text(f"command.{name}.description", language),
            argument=wording.text(f"command.{name}.hint", language) if command.hint else None,
            photos=command.photos,
            private=command.private,
        )
        for name, command in COMMANDS.items()
    )
