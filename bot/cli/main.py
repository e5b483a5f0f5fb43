"""The console script `lookalike`: what commands share, and `run`, `chat` and `db`.

The other commands are imported when they are called, so that --help is instant.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bot.cli.output import EXIT_INTERRUPTED, OutputLost, drop_output, prepare_streams, progress, say
from engine.errors import BadSettings, GalleryMissing, LookalikeError, PhotoProblem, SetupProblem

if TYPE_CHECKING:
    from sqlalchemy import URL

    from bot.settings import Settings
    from engine.engine import Engine
    from gallery.gallery import Gallery
    from gallery.progress import Progress

EXIT_PHOTO = 1
EXIT_CRASH = 70  # EX_SOFTWARE of sysexits.h
EXIT_OUTPUT = 74  # EX_IOERR
EXIT_TRY_LATER = 75  # EX_TEMPFAIL
EXIT_SETUP = 78  # EX_CONFIG

BACKBONES = ("resnet", "senet", "dlib")
PATH = click.Path(path_type=Path)

_WHY = (
    "Wikimedia asks whoever fetches pictures for a contact, to be told of problems. It goes into "
    "the requests to Wikimedia and nowhere else."
)

# Command -> the module that holds it, and its line in `--help`.
COMMANDS = {
    "run": ("main", "Run the bots; without a token, the chat in the browser."),
    "chat": ("main", "Talk to the bot in the terminal."),
    "match": ("match", "Find the lookalikes of the faces in a photo."),
    "gallery": ("gallery", "Add, build, list and remove people."),
    "models": ("models", "List, download and verify backbones."),
    "evaluate": ("evaluate", "Measure accuracy on labelled photos."),
    "bench": ("bench", "Measure speed, side by side with the published packages."),
    "demo": ("match", "Show a first answer on a sample photo."),
    "doctor": ("doctor", "Find what is wrong with the set-up, and how to mend it."),
    "db": ("main", "Bring the databases up to date."),
}


@dataclass
class Context:
    """Data folder and settings file as given on the command line."""

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
        function = click.option(
            name, metavar="PATH", callback=_remember, expose_value=False, help=words
        )(function)
    return function


def command_options(function: F) -> F:
    """Options that every command takes; its first argument is the ``Context``."""
    passed: F = click.pass_obj(function)  # type: ignore[assignment]
    return common(passed)


def model_option(words: str, *more: str) -> Callable[[F], F]:
    """The option for one backbone, or another name for several."""
    return click.option("--model", type=click.Choice((*BACKBONES, *more)), help=words)


def models_option(words: str, names: Sequence[str] = BACKBONES) -> Callable[[F], F]:
    """The option for backbones, which may be given several times."""
    return click.option("--model", "models", multiple=True, type=click.Choice(names), help=words)


def path_option(name: str, metavar: str, words: str, **limits: bool) -> Callable[[F], F]:
    """An option for a path; limits are those of ``click.Path``."""
    return click.option(
        name, metavar=metavar, type=click.Path(path_type=Path, **limits), help=words
    )


usable_option = models_option(
    "Backbone; may be given several times (default: every one whose weights are here)."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def json_command(function: F) -> F:
    """Options that every command takes, and ``--json``."""
    return json_option(command_options(function))


def opened(settings: Settings) -> contextlib.closing[Gallery]:
    """The gallery as configured; closed at the end."""
    from bot.app import open_gallery

    return contextlib.closing(open_gallery(settings))


@contextlib.contextmanager
def at_work(
    context: Context, *, quiet: bool, wanted: Sequence[str] | None = None
) -> Iterator[tuple[Settings, Engine, Gallery, Progress, list[str]]]:
    """What long work needs: settings, engine, gallery, progress, and the backbones to use.

    Of ``wanted`` backbones, () means every one that can be used, and None none.
    """
    from bot.app import open_engine

    settings = context.settings()
    engine = open_engine(settings)
    with opened(settings) as gallery, progress(quiet=quiet) as show_progress:
        names = [] if wanted is None else usable(engine, settings, wanted)
        yield settings, engine, gallery, show_progress, names


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


def check_inhabited(gallery: Gallery) -> None:
    """Raises ``GalleryMissing`` if there is nobody in the gallery."""
    if gallery.stats().people == 0:
        raise GalleryMissing(
            "there is nobody in the gallery yet: add people with `lookalike gallery add DIR`"
        )


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"bot.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lookalike", message="lookalike %(version)s")
@common
def lookalike() -> None:
    """Find the celebrity a face resembles."""


@click.command()
@command_options
def run(context: Context) -> None:
    """Run the bots: those with a token, and the web chat if there is none.

    Without tokens the chat opens at http://127.0.0.1:8080. On a fresh machine it fetches famous
    people from Wikimedia in the background and asks for the contact that Wikimedia wants, once.
    SIGINT and SIGTERM end it cleanly.
    """
    from bot.background import leave
    from bot.logs import set_up_logs
    from bot.settings import secrets_of

    settings = context.settings()
    # Before any SDK is imported: their first lines may hold the token.
    set_up_logs(settings.log.level, secrets=secrets_of(settings))
    from bot.app import Crash, serve

    _ask_before_running(settings)
    try:
        asyncio.run(serve(settings))
    except Crash as crash:
        say(f"lookalike: {crash}", err=True)
        leave(EXIT_CRASH)
    except KeyboardInterrupt:
        leave(EXIT_INTERRUPTED)
    leave(0)


@click.command()
@command_options
def chat(context: Context) -> None:
    """Talk to the bot here: type the path of a photo, or a command such as /help.

    The card is written beside the photo. Works in a pipe, too: one line, one answer.
    """
    from bot.adapters.terminal import TerminalAdapter
    from bot.app import open_conversation
    from bot.background import leave
    from bot.logs import set_up_logs
    from bot.settings import secrets_of

    settings = context.settings()
    # Lines about every answer would only stand in the way of the answers.
    level = "WARNING" if settings.log.level == "INFO" else settings.log.level
    set_up_logs(level, secrets=secrets_of(settings))

    async def talk() -> None:
        async with open_conversation(settings) as conversation:
            await TerminalAdapter(conversation, home=settings.home).run(asyncio.Event())

    try:
        asyncio.run(talk())
    except KeyboardInterrupt:
        say()
        leave(EXIT_INTERRUPTED)
    leave(0)


@click.group()
def db() -> None:
    """Look after the databases: choices and history, and the gallery's catalogue."""


@db.command()
@command_options
def upgrade(context: Context) -> None:
    """Bring the tables up to date; `run` and `chat` do so by themselves."""
    try:
        import migrations
        from gallery.database import masked

        settings = context.settings()
        url = open_store(settings)
    except ModuleNotFoundError as missing:
        raise SetupProblem(
            f"the package {missing.name} is missing: run `pip install 'lookalike[chat]'`"
        ) from None
    say(f"{masked(url)} is up to date ({migrations.head('store')})")
    with opened(settings) as gallery:
        say(f"{gallery.place} is up to date ({migrations.head('gallery')})")


def open_store(settings: Settings) -> URL:
    """Opens the database of choices and history once, which brings it up to date; its address."""
    from bot.store import Identity, Store, database_url, secret_key

    given = settings.database.key
    key = secret_key(settings.home / "secret.key", given.get_secret_value() if given else None)
    url = database_url(settings.database_url, settings.home)

    async def open_once() -> None:
        async with Store.open(url, Identity(key), history_days=settings.database.history_days):
            pass

    asyncio.run(open_once())
    return url


def ask_for_contact(settings: Settings, gallery: Gallery) -> None:
    """Asks whom Wikimedia can reach, if nobody has said so yet and somebody is at the terminal."""
    from bot.background import contact_of

    if contact_of(settings, gallery) is None and sys.stdin.isatty():
        say(_WHY, err=True)
        _ask(gallery, optional=False)


def _ask_before_running(settings: Settings) -> None:
    """Asks once in the life of a gallery, if the starter gallery needs it and somebody is there."""
    if not settings.gallery.starter or not sys.stdin.isatty():
        return
    from bot.background import STARTER_PEOPLE, contact_of, note, noted, starter_wanted

    with opened(settings) as gallery:
        known = contact_of(settings, gallery) is not None or noted(gallery, "contact declined")
        if known or not starter_wanted(gallery):
            return
        say(
            f"The gallery is nearly empty. About {STARTER_PEOPLE} famous people can be fetched "
            f"from Wikimedia in the background. {_WHY}",
            err=True,
        )
        if not _ask(gallery, optional=True):
            note(gallery, "contact declined", value=True)


def _ask(gallery: Gallery, *, optional: bool) -> bool:
    """Asks until there is an answer that can be used; False: Enter alone, where that may be."""
    from bot.background import remember_contact

    question = "Your e-mail address or web page" + " (Enter: don't fetch)" * optional
    default = "" if optional else None  # without one, click asks again
    while True:
        answer = click.prompt(question, default=default, show_default=False, err=True)
        if optional and not answer.strip():
            return False
        try:
            remember_contact(gallery, answer)
        except BadSettings as problem:
            say(problem, err=True)
        else:
            return True


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
