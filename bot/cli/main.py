"""The console script `lookalike`: finds the command, reports errors, sets the exit code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from engine.errors import LookalikeError, PhotoProblem, SetupProblem

if TYPE_CHECKING:
    from bot.settings import Settings

__all__ = ["EXIT_PHOTO", "EXIT_SETUP", "EXIT_TRY_LATER", "Context", "common", "lookalike", "main"]

EXIT_PHOTO = 1
EXIT_SETUP = 78  # EX_CONFIG of sysexits.h
EXIT_TRY_LATER = 75  # EX_TEMPFAIL of sysexits.h

# Command -> its line in `--help`. The module bot.cli.<name> holds its `command`.
COMMANDS = {
    "run": "Run the bots; without a token, the chat in the browser.",
    "chat": "Talk to the bot in the terminal.",
    "match": "Find the lookalikes of the faces in a photo.",
    "gallery": "Add, build, list and remove people.",
    "models": "List, download and verify backbones.",
    "evaluate": "Measure accuracy on labelled photos.",
    "bench": "Measure speed, side by side with the published packages.",
    "demo": "Show a first answer on a sample photo.",
    "doctor": "Find what is wrong with the set-up, and how to mend it.",
    "db": "Bring the databases up to date.",
}


@dataclass
class Context:
    """What every command may ask for.

    Attributes:
        home: Data folder given on the command line, or None.
        config: Settings file given on the command line, or None.
    """

    home: Path | None = None
    config: Path | None = None

    def settings(self) -> Settings:
        """The settings in force, read now."""
        from bot.settings import load_settings

        return load_settings(self.config, home=self.home)


F = TypeVar("F", bound=Callable[..., Any])


def _remember(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    context = ctx.ensure_object(Context)
    if value is not None and param.name is not None:
        setattr(context, param.name, Path(value))


def common(function: F) -> F:
    """Adds ``--home`` and ``--config``, which every command takes, to a command."""
    for name, words in (
        ("--config", "Settings file (default: config.toml here, if there is one)."),
        ("--home", "Data folder (default: $LOOKALIKE_HOME, else the user's data folder)."),
    ):
        option = click.option(
            name, metavar="PATH", callback=_remember, expose_value=False, help=words
        )
        function = option(function)
    return function


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are called, so that --help is instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"bot.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002
        formatter: click.HelpFormatter,
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lookalike", message="lookalike %(version)s")
@common
def lookalike() -> None:
    """Find the celebrity a face resembles."""


def main() -> None:
    """Runs a command; errors made for people become one sentence and an exit code."""
    try:
        lookalike(standalone_mode=True)
    except LookalikeError as problem:
        click.echo(f"lookalike: {problem}", err=True)
        if isinstance(problem, PhotoProblem):
            sys.exit(EXIT_PHOTO)
        sys.exit(EXIT_SETUP if isinstance(problem, SetupProblem) else EXIT_TRY_LATER)
