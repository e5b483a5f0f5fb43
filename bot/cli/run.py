"""`lookalike run`, `chat` and `db`: the bots, the conversation in the terminal, the databases."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import click

from bot.background import leave
from bot.cli.main import Context, command_options, opened
from bot.cli.output import EXIT_INTERRUPTED, say
from engine.errors import BadSettings, SetupProblem

if TYPE_CHECKING:
    from bot.settings import Settings
    from gallery.gallery import Gallery

EXIT_CRASH = 70  # EX_SOFTWARE of sysexits.h

_WHY = (
    "Wikimedia asks whoever fetches pictures for a contact, to be told of problems. It goes into "
    "the requests to Wikimedia and nowhere else."
)
_QUESTION = "Your e-mail address or web page"


@click.command()
@command_options
def run(context: Context) -> None:
    """Run the bots: those with a token, and the web chat if there is none.

    Without tokens the chat opens at http://127.0.0.1:8080. On a fresh machine it fetches famous
    people from Wikimedia in the background and asks for the contact that Wikimedia wants, once.
    SIGINT and SIGTERM end it cleanly.
    """
    from bot.logs import set_up_logs
    from bot.settings import secrets_of

    settings = context.settings()
    # Before any SDK is imported: their first lines may hold the token.
    set_up_logs(settings.log.level, secrets=secrets_of(settings))
    from bot.app import Crash, serve

    _ask_before_running(settings)
    code = 0
    try:
        asyncio.run(serve(settings))
    except Crash as crash:
        say(f"lookalike: {crash}", err=True)
        code = EXIT_CRASH
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    leave(code)


@click.command()
@command_options
def chat(context: Context) -> None:
    """Talk to the bot here: type the path of a photo, or a command such as /help.

    The card is written beside the photo. Works in a pipe, too: one line, one answer.
    """
    from bot.adapters.terminal import TerminalAdapter
    from bot.app import open_conversation
    from bot.logs import set_up_logs
    from bot.settings import secrets_of

    settings = context.settings()
    # Lines about every answer would only stand in the way of the answers.
    level = "WARNING" if settings.log.level == "INFO" else settings.log.level
    set_up_logs(level, secrets=secrets_of(settings))

    async def talk() -> None:
        async with open_conversation(settings) as conversation:
            await TerminalAdapter(conversation, home=settings.home).run(asyncio.Event())

    code = 0
    try:
        asyncio.run(talk())
    except KeyboardInterrupt:
        say()
        code = EXIT_INTERRUPTED
    leave(code)


@click.group()
def db() -> None:
    """Look after the databases: choices and history, and the gallery's catalogue."""


@db.command()
@command_options
def upgrade(context: Context) -> None:
    """Bring the tables up to date; `run` and `chat` do so by themselves."""
    try:
        from bot.store.keys import Identity, secret_key
        from bot.store.store import Store, database_url
    except ModuleNotFoundError as missing:
        raise SetupProblem(
            f"the package {missing.name} is missing: run `pip install 'lookalike[chat]'`"
        ) from None
    import migrations
    from gallery.database import masked

    settings = context.settings()
    given = settings.database.key
    key = secret_key(settings.home / "secret.key", given.get_secret_value() if given else None)
    url = database_url(settings.database_url, settings.home)

    async def open_once() -> None:
        async with Store.open(url, Identity(key), history_days=settings.database.history_days):
            pass

    asyncio.run(open_once())
    say(f"{masked(url)} is up to date ({migrations.head('store')})")
    with opened(settings) as gallery:
        say(f"{gallery.place} is up to date ({migrations.head('gallery')})")


def ask_for_contact(settings: Settings, gallery: Gallery) -> None:
    """Asks whom Wikimedia can reach until there is an answer, if nobody has given one yet.

    Without anybody at the terminal nothing is asked.
    """
    from bot.background import contact_of

    if contact_of(settings, gallery) is None and sys.stdin.isatty():
        say(_WHY, err=True)
        while not _remembered(gallery, click.prompt(_QUESTION, err=True)):
            pass


def _ask_before_running(settings: Settings) -> None:
    """Asks once in the life of a gallery, if the starter gallery needs it and somebody is there.

    Enter alone means no; then the bot runs with whom it has.
    """
    if not settings.gallery.starter or not sys.stdin.isatty():
        return
    from bot.background import STARTER_PEOPLE, contact_of, decline, declined, starter_wanted

    with opened(settings) as gallery:
        if (
            contact_of(settings, gallery) is not None
            or declined(gallery)
            or not starter_wanted(gallery)
        ):
            return
        say(
            f"The gallery is nearly empty. About {STARTER_PEOPLE} famous people can be fetched "
            f"from Wikimedia in the background. {_WHY}",
            err=True,
        )
        question = f"{_QUESTION} (Enter: don't fetch)"
        while True:
            answer = click.prompt(question, default="", show_default=False, err=True)
            if not answer.strip():
                decline(gallery)
                return
            if _remembered(gallery, answer):
                return


def _remembered(gallery: Gallery, answer: str) -> bool:
    """Keeps an answer that can be used, and says why not otherwise."""
    from bot.background import remember_contact

    try:
        remember_contact(gallery, answer)
    except BadSettings as problem:
        say(problem, err=True)
        return False
    return True
