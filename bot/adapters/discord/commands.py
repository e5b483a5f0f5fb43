"""The commands as Discord's menus show them, in every language."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import discord
from discord import app_commands

from bot.commands import chat_commands
from bot.values import MOST_MATCHES, STYLES
from bot.wording import FALLBACK, LANGUAGES, Wording

if TYPE_CHECKING:
    from bot.adapters.discord.session import Session

__all__ = ["Translator", "add_commands"]

MOST_CHOICES = 25
DESCRIPTION_CHARS = 100
STYLES_SHOWN: list[app_commands.Choice[str | int | float]] = [
    app_commands.Choice(name=name, value=name) for name in STYLES
]

ON_OFF: list[app_commands.Choice[str | int | float]] = [
    app_commands.Choice(name=name, value=name) for name in ("on", "off")
]

Top = app_commands.Range[int, 1, MOST_MATCHES]
AnyInteraction = discord.Interaction[Any]


class Translator(app_commands.Translator):
    """Tells Discord the menus' words in the languages that the bot speaks."""

    def __init__(self, wording: Wording) -> None:
        self._wording = wording

    async def translate(
        self,
        string: app_commands.locale_str,
        locale: discord.Locale,
        context: app_commands.TranslationContextTypes,  # noqa: ARG002 - discord.py's signature
    ) -> str | None:
        """The words in that language; None where the bot does not speak it."""
        key = string.extras.get("key")
        language = locale.value.partition("-")[0]
        if key is None or language not in LANGUAGES or language == FALLBACK:
            return None
        return self._wording.text(key, language)[:DESCRIPTION_CHARS]


def add_commands(tree: app_commands.CommandTree[Any], session: Session, wording: Wording) -> None:
    """Fills the tree: every chat command, a menu of messages and one of people."""
    callbacks = _with_arguments(session)
    described = {
        "photo": "discord.photo",
        "first": "discord.first",
        "second": "discord.second",
        "top": "command.top.description",
        "number": "command.top.description",
        "model": "command.model.description",
        "category": "command.category.description",
        "name": "discord.choice",
    }

    async def categories(interaction: AnyInteraction, typed: str) -> list[app_commands.Choice[str]]:
        found = await session.categories(interaction, typed)
        return [app_commands.Choice(name=name[:100], value=name[:100]) for name in found]

    async def models(interaction: AnyInteraction, typed: str) -> list[app_commands.Choice[str]]:
        found = await session.models(interaction, typed)
        return [app_commands.Choice(name=label[:100], value=name) for name, label in found]

    for listed in chat_commands(wording):
        command: app_commands.Command[Any, ..., None] = app_commands.Command(
            name=listed.name,
            description=_words(wording, f"command.{listed.name}.description"),
            callback=callbacks.get(listed.name) or _plain(session, listed.name),
        )
        for name, parameter in command._params.items():  # noqa: SLF001 - decorators need literals
            parameter.description = _words(wording, described[name])
            about = listed.name if name == "name" else name
            if about == "model":
                command.autocomplete(name)(models)
            elif about == "style":
                parameter.choices = STYLES_SHOWN
            elif about == "twins":
                parameter.choices = ON_OFF
            elif about == "category":
                command.autocomplete(name)(categories)
        tree.add_command(command)
    _add_menus(tree, session, wording)


def _with_arguments(session: Session) -> dict[str, Any]:
    async def lookalike(
        interaction: AnyInteraction,
        photo: discord.Attachment,
        top: Top | None = None,
        model: str | None = None,
        category: str | None = None,
    ) -> None:
        wish = " ".join(str(part) for part in (top, model, category) if part is not None)
        await session.ask(interaction, "lookalike", wish, photos=(photo,))

    async def compare(
        interaction: AnyInteraction, first: discord.Attachment, second: discord.Attachment
    ) -> None:
        await session.ask(interaction, "compare", photos=(first, second))

    async def top(
        interaction: AnyInteraction,
        number: Top | None = None,
        photo: discord.Attachment | None = None,
    ) -> None:
        photos = (photo,) if photo else ()
        await session.ask(interaction, "top", str(number or ""), photos=photos)

    async def model(interaction: AnyInteraction, name: str | None = None) -> None:
        await session.ask(interaction, "model", name or "")

    async def category(interaction: AnyInteraction, name: str | None = None) -> None:
        await session.ask(interaction, "category", name or "")

    async def morph(
        interaction: AnyInteraction,
        photo: discord.Attachment,
        model: str | None = None,
        category: str | None = None,
    ) -> None:
        wish = " ".join(part for part in (model, category) if part)
        await session.ask(interaction, "morph", wish, photos=(photo,))

    async def parents(
        interaction: AnyInteraction,
        photo: discord.Attachment,
        model: str | None = None,
        category: str | None = None,
    ) -> None:
        wish = " ".join(part for part in (model, category) if part)
        await session.ask(interaction, "parents", wish, photos=(photo,))

    async def twins(
        interaction: AnyInteraction,
        name: str | None = None,
        photo: discord.Attachment | None = None,
    ) -> None:
        photos = (photo,) if photo else ()
        await session.ask(interaction, "twins", name or "", photos=photos)

    async def style(
        interaction: AnyInteraction,
        name: str | None = None,
        photo: discord.Attachment | None = None,
    ) -> None:
        photos = (photo,) if photo else ()
        await session.ask(interaction, "style", name or "", photos=photos)

    return {
        "lookalike": lookalike,
        "compare": compare,
        "morph": morph,
        "parents": parents,
        "twins": twins,
        "top": top,
        "model": model,
        "category": category,
        "style": style,
    }


def _add_menus(tree: app_commands.CommandTree[Any], session: Session, wording: Wording) -> None:
    async def of_message(interaction: AnyInteraction, message: discord.Message) -> None:
        await session.ask(interaction, "lookalike", photos=session.pictures(interaction, message))

    async def of_user(interaction: AnyInteraction, user: discord.User) -> None:
        await session.ask(interaction, "lookalike", photos=(session.avatar(user),))

    for key, menu in (("discord.message_menu", of_message), ("discord.user_menu", of_user)):
        tree.add_command(app_commands.ContextMenu(name=_words(wording, key), callback=menu))


def _words(wording: Wording, key: str) -> app_commands.locale_str:
    return app_commands.locale_str(wording.text(key)[:DESCRIPTION_CHARS], key=key)


def _plain(session: Session, name: str) -> Any:
    async def plain(interaction: AnyInteraction) -> None:
        await session.ask(interaction, name)

    return plain
