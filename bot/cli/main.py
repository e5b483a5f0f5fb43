"""The console script `lookalike`: finds the command, reports errors, sets the exit code."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bot.cli.output import OutputLost, drop_output, prepare_streams, say
from engine.errors import LookalikeError, PhotoProblem, SetupProblem

if TYPE_CHECKING:
    from bot.settings import Settings
    from engine.engine import Engine
    from gallery.gallery import Gallery

EXIT_PHOTO = 1
EXIT_OUTPUT = 74  # EX_IOERR of sysexits.h
EXIT_TRY_LATER = 75  # EX_TEMPFAIL
EXIT_SETUP = 78  # EX_CONFIG

BACKBONES = ("resnet", "senet", "dlib")
PATH = click.Path(path_type=Path)

# Command -> the module that holds it, and its line in `--help`.
COMMANDS = {
    "run": ("run", "Run the bots; without a token, the chat in the browser."),
    "chat": ("run", "Talk to the bot in the terminal."),
    "match": ("match", "Find the lookalikes of the faces in a photo."),
    "gallery": ("gallery", "Add, build, list and remove people."),
    "models": ("models", "List, download and verify backbones."),
    "evaluate": ("evaluate", "Measure accuracy on labelled photos."),
    "bench": ("bench", "Measure speed, side by side with the published packages."),
    "demo": ("match", "Show a first answer on a sample photo."),
    "doctor": ("doctor", "Find what is wrong with the set-up, and how to mend it."),
    "db": ("run", "Bring the databases up to date."),
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


def command_options(function: F) -> F:
    """Options that every command takes; its first argument is the ``Context``."""
    passed: F = click.pass_obj(function)  # type: ignore[assignment]
    return common(passed)


def model_option(words: str, *more: str) -> Callable[[F], F]:
    """The option for one backbone, or another name for several."""
    return click.option("--model", type=click.Choice((*BACKBONES, *more)), help=words)


models_option = click.option(
    "--model",
    "models",
    multiple=True,
    type=click.Choice(BACKBONES),
    help="Backbone; may be given several times (default: every one whose weights are here).",
)


def opened(settings: Settings) -> contextlib.closing[Gallery]:
    """The gallery as configured; closed at the end."""
    from bot.app import open_gallery

    return contextlib.closing(open_gallery(settings))


def usable(engine: Engine, settings: Settings, wanted: Sequence[str]) -> list[str]:
    """The backbones asked for, or every configured one that can be used.

    Raises:
        SetupProblem: If none can.
    """
    if wanted:
        return list(dict.fromkeys(wanted))
    reasons = {name: engine.why_unavailable(name) for name in settings.models.configured}
    found: list[str] = [name for name, reason in reasons.items() if reason is None]
    if not found:
        raise SetupProblem("no backbone can be used: " + "; ".join(map(str, reasons.values())))
    return found


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are called, so that --help is instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"bot.cli.{module}"), cmd_name)
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002
        formatter: click.HelpFormatter,
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lookalike", message="lookalike %(version)s")
@common
def lookalike() -> None:
    """Find the celebrity a face resembles."""


def main() -> None:
    """Runs a command; errors made for people become one sentence and an exit code."""
    prepare_streams()
    try:
        try:
            lookalike(standalone_mode=True)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough
        drop_output()
        sys.exit(1)
    except OutputLost as problem:
        drop_output()
        say(f"lookalike: the output can't be written ({problem})", err=True)
        sys.exit(EXIT_OUTPUT)
    except LookalikeError as problem:
        say(f"lookalike: {problem}", err=True)
        if isinstance(problem, PhotoProblem):
            sys.exit(EXIT_PHOTO)
        sys.exit(EXIT_SETUP if isinstance(problem, SetupProblem) else EXIT_TRY_LATER)
