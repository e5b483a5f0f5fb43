"""The commands of the chat, the same on every platform."""

from __future__ import annotations

from typing import Literal

from bot.values import ChatCommand
from bot.wording import Wording

__all__ = ["CHAT_COMMANDS", "PRIVATE", "chat_commands"]

# Command -> how many photos it can take. The order is that of menus and of /help.
CHAT_COMMANDS: dict[str, Literal[0, 1, 2]] = {
    "lookalike": 1,
    "compare": 2,
    "morph": 1,
    "parents": 1,
    "twins": 1,
    "top": 1,
    "model": 1,
    "category": 1,
    "style": 1,
    "settings": 0,
    "history": 0,
    "about": 0,
    "privacy": 0,
    "mydata": 0,
    "forget": 0,
    "help": 0,
    "start": 0,
}

# Commands whose answer is nobody else's business.
PRIVATE = frozenset({"history", "mydata", "forget"})


def chat_commands(wording: Wording, language: str | None = None) -> tuple[ChatCommand, ...]:
    """Every command, in the order of menus, described in that language."""
    hints = {
        "morph": wording.text("command.morph.hint", language),
        "parents": wording.text("command.parents.hint", language),
        "twins": wording.text("command.twins.hint", language),
        "top": wording.text("command.top.hint", language),
        "model": wording.text("command.model.hint", language),
        "category": wording.text("command.category.hint", language),
        "style": wording.text("command.style.hint", language),
    }
    return tuple(
        ChatCommand(
            name=name,
            description=wording.text(f"command.{name}.description", language),
            argument=hints.get(name),
            photos=photos,
            private=name in PRIVATE,
        )
        for name, photos in CHAT_COMMANDS.items()
    )
