"""`lookalike run`: Telegram, Discord and the web chat in one process."""

from __future__ import annotations

import asyncio

import click

from bot.background import leave
from bot.cli.main import Context, common

__all__ = ["command"]

EXIT_CRASH = 70  # EX_SOFTWARE of sysexits.h


@click.command()
@common
@click.pass_obj
def command(context: Context) -> None:
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
    from bot.cli.contact import ask_before_running

    ask_before_running(settings)
    code = 0
    try:
        asyncio.run(serve(settings))
    except Crash as crash:
        click.echo(f"lookalike: {crash}", err=True)
        code = EXIT_CRASH
    except KeyboardInterrupt:
        code = 130
    leave(code)
