"""`lookalike doctor`: what is wrong with the set-up, and how to mend it."""

from __future__ import annotations

import asyncio
import sys

import click

from bot.cli.main import EXIT_SETUP, Context, common
from bot.health import Finding, Verdict, examine, examine_online
from engine.errors import BadSettings

__all__ = ["command"]

COLOURS = {Verdict.FINE: "green", Verdict.WARNING: "yellow", Verdict.BLOCKING: "red"}


@click.command()
@click.option(
    "--online", is_flag=True, help="Ask Telegram and Discord whether they know the token."
)
@common
@click.pass_obj
def command(context: Context, *, online: bool) -> None:
    """Look at settings, tokens, weights, gallery, database, processor and memory.

    A line for each finding, with its mend. The exit code is 78 if something keeps the bot from
    running, else 0.
    """
    blocking = False

    def show(finding: Finding) -> None:
        nonlocal blocking
        blocking |= finding.verdict is Verdict.BLOCKING
        mark = click.style(f"{finding.verdict:<5}", fg=COLOURS[finding.verdict])
        mend = f" -> {finding.mend}" if finding.mend else ""
        click.echo(f"{mark} {finding.subject:<10} {finding.text}{mend}")

    try:
        settings = context.settings()
    except BadSettings as problem:
        show(Finding("settings", Verdict.BLOCKING, str(problem)))
        sys.exit(EXIT_SETUP)
    show(Finding("settings", Verdict.FINE, "every setting is known"))
    for finding in examine(settings):
        show(finding)
    if online:
        for finding in asyncio.run(examine_online(settings)):
            show(finding)
    sys.exit(EXIT_SETUP if blocking else 0)
