"""`lookalike chat`: the conversation in the terminal."""

from __future__ import annotations

import asyncio

import click

from bot.background import leave
from bot.cli.main import Context, common

__all__ = ["command"]


@click.command()
@common
@click.pass_obj
def command(context: Context) -> None:
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
        click.echo()
        code = 130
    leave(code)
