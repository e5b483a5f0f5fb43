"""The console script `lookalike`: what commands share, and `run`, `chat` and `db`.

The other commands are imported when they are called, so that --help is instant.
"""

from __future__ import annotations

import gc
import importlib
import shutil
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bot.cli import output
from bot.cli.output import EXIT_INTERRUPTED, people_of, progress, say
from engine.errors import BadSettings, GalleryMissing, LookalikeError, PhotoProblem, SetupProblem

if TYPE_CHECKING:
    from sqlalchemy import URL

    from bot.settings import Settings
    from engine.engine import Engine
    from gallery.gallery import Gallery
    from gallery.progress import Progress

F = TypeVar("F", bound=Callable[..., Any])

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
    "serve-engine": ("serve_engine", "Run the engine for bots on other machines."),
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


class Context:
    """Options that every command takes, and what they lead to; opened at first use."""

    home: Path | None = None
    config: Path | None = None
    json: bool = False

    @cached_property
    def settings(self) -> Settings:
        """The settings in force; raises BadSettings."""
        from bot.settings import load_settings

        return load_settings(self.config, home=self.home)

    @cached_property
    def engine(self) -> Engine:
        """Networks are loaded at first use."""
        from bot.app import open_engine

        return open_engine(self.settings)

    def gallery(self) -> Gallery:
        """The gallery as configured; closes itself at the end of a ``with`` block."""
        from bot.app import open_gallery

        return open_gallery(self.settings)

    @contextmanager
    def working(self, *, people: bool = False) -> Iterator[tuple[Gallery, Engine, Progress]]:
        """What long work needs, and its progress is shown; with ``people`` there must be some."""
        with self.gallery() as gallery, progress(quiet=self.json) as show:
            if people and gallery.stats().people == 0:
                add = "add people with `lookalike gallery add DIR`"
                raise GalleryMissing(f"there is nobody in the gallery yet: {add}")
            yield gallery, self.engine, show

    def usable(self, wanted: Sequence[str]) -> list[str]:
        """The backbones asked for, or every configured one that can be used; raises if none can."""
        if wanted:
            return list(dict.fromkeys(wanted))
        names = self.settings.models.configured
        reasons = {name: self.engine.why_unavailable(name) for name in names}
        found: list[str] = [name for name, reason in reasons.items() if reason is None]
        if not found:
            raise SetupProblem("no backbone can be used: " + "; ".join(map(str, reasons.values())))
        return found

    def command(self, words: str) -> str:
        """A command as it works here when it is pasted, such as ``.venv/bin/lookalike match``."""
        import shlex

        given = Path(sys.argv[0])
        program = given.name if shutil.which(given.name) else str(given)
        if given.suffix == ".py":
            program = f"{shlex.quote(sys.executable)} -m bot"
        home = f" --home {shlex.quote(str(self.home.absolute()))}" if self.home else ""
        return f"{program}{home} {words}"

    def finish(
        self, content: Any, words: Iterable[str] | Callable[[], None], *, interrupted: bool = False
    ) -> None:
        """Prints what was done, as JSON or in words; ends the program if it was stopped."""
        if self.json:
            output.print_json(content)
        elif callable(words):
            words()
        else:
            for line in words:
                say(line)
        if interrupted:
            sys.exit(EXIT_INTERRUPTED)


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    context = ctx.ensure_object(Context)
    if value and param.name:
        setattr(context, param.name, value)


def _common(name: str, words: str, **more: Any) -> click.Option:
    return click.Option([name], callback=_remember, expose_value=False, help=words, **more)


_HOME = "Data folder (default: $LOOKALIKE_HOME, else the user's data folder)."
_CONFIG = "Settings file (default: config.toml here, if there is one)."
_PLACES = [
    _common(name, words, metavar="PATH", type=PATH)
    for name, words in (("--home", _HOME), ("--config", _CONFIG))
]


class Command(click.Command):
    """A command with the options that every one takes; its first argument is the ``Context``.

    ``json`` are the words on ``--json``, which sets ``Context.json``; none: it prints no JSON.
    """

    def __init__(
        self, name: str | None, *, callback: F, json: str = "Print JSON.", **more: Any
    ) -> None:
        super().__init__(name, callback=click.pass_obj(callback), **more)
        self.params += [*([_common("--json", json, is_flag=True)] if json else []), *_PLACES]


class Group(click.Group):
    """Commands, with the options that say where everything is."""

    command_class = Command

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.params += _PLACES


def model_option(
    words: str, names: Sequence[str] = BACKBONES, several: bool = False
) -> Callable[[F], F]:
    """The option for a model, or for several of them."""
    options = ("--model", "models") if several else ("--model",)
    return click.option(*options, multiple=several, type=click.Choice(names), help=words)


usable_option = model_option(
    "Backbone; may be given several times (default: every one whose weights are here).",
    several=True,
)
person_argument = click.argument(
    "name", metavar="PERSON", nargs=-1, required=True, callback=lambda *given: " ".join(given[-1])
)


def path_option(name: str, metavar: str | None, words: str, **limits: bool) -> Callable[[F], F]:
    """An option for a path; limits are those of ``click.Path``."""
    kind = click.Path(path_type=Path, **limits)
    return click.option(name, metavar=metavar, type=kind, help=words)


def count_option(
    name: str, words: str, least: int = 1, most: int | None = None, *, default: int
) -> Callable[[F], F]:
    """An option for a whole number from the least to the most; a default above 0 is shown."""
    kind, shown = click.IntRange(least, most), default > 0
    return click.option(
        name, metavar="N", type=kind, default=default, show_default=shown, help=words
    )


class _LazyGroup(Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as problem:  # may name a file
            from bot.logs import printable

            problem.message = printable(problem.message)  # type: ignore[misc]
            raise

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            if cmd_name.startswith("-"):
                return None
            if Path(cmd_name).is_file():
                ctx.fail(f"a photo is asked about with `lookalike match {cmd_name}`")
            raise click.NoSuchCommand(cmd_name, possibilities=COMMANDS, ctx=ctx)
        module = importlib.import_module(f"bot.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lookalike", message="lookalike %(version)s")
def lookalike() -> None:
    """Find the celebrity a face resembles."""


@click.command(cls=Command, json="")
def run(context: Context) -> None:
    """Run the bots: those with a token, and the web chat if there is none.

    Without tokens the chat opens at http://127.0.0.1:8080. On a fresh machine it fetches famous
    people from Wikimedia in the background and asks for the contact that Wikimedia wants, once.
    SIGINT and SIGTERM end it cleanly.
    """
    gc.disable()  # until it serves: looking through what is imported is a fifth of the start
    from bot.app import serve

    _run(context, serve)


@click.command(cls=Command, json="")
def chat(context: Context) -> None:
    """Talk to the bot here: type the path of a photo, or a command such as /help.

    The card is written beside the photo. Works in a pipe, too: one line, one answer.
    """
    import asyncio

    from bot.adapters.terminal import TerminalAdapter
    from bot.app import open_conversation

    async def talk(settings: Settings) -> None:
        async with open_conversation(settings) as conversation:
            await TerminalAdapter(conversation, home=settings.home).run(asyncio.Event())

    _run(context, talk, chatting=True)


def _run(
    context: Context, work: Callable[[Settings], Coroutine[Any, Any, None]], chatting: bool = False
) -> None:
    import asyncio

    from bot.app import Crash
    from bot.background import leave
    from bot.logs import set_up_logs
    from bot.settings import secrets_of

    settings = context.settings
    # Lines about answers and models would only stand in the way of the answers.
    quiet = chatting and settings.log.level == "INFO"
    # Before any SDK is imported: their first lines may hold the token.
    level, as_json = settings.log.level, settings.log.format == "json"
    set_up_logs("ERROR" if quiet else level, secrets=secrets_of(settings), as_json=as_json)
    if not chatting:
        _prepare_to_run(context)
    try:
        asyncio.run(work(settings))
    except Crash as crash:
        say(f"lookalike: {crash}", err=True)
        leave(EXIT_CRASH)
    except KeyboardInterrupt:
        click.echo("\n" * chatting, nl=False)
        leave(EXIT_INTERRUPTED)
    leave(0)


@click.group(cls=Group)
def db() -> None:
    """Look after the databases: choices and history, and the gallery's catalogue."""


@db.command(short_help="Bring the tables up to date.", json="")
def upgrade(context: Context) -> None:
    """Bring the tables up to date; `run` and `chat` do so by themselves."""
    try:
        import migrations
        from gallery.database import masked

        url = open_store(context.settings)
    except ModuleNotFoundError as missing:
        mend = "run `pip install 'lookalike[chat]'`"
        raise SetupProblem(f"the package {missing.name} is missing: {mend}") from None
    say(f"{masked(url)} is up to date ({migrations.head('store')})")
    with context.gallery() as gallery:
        say(f"{gallery.place} is up to date ({migrations.head('gallery')})")


def open_store(settings: Settings) -> URL:
    """Opens the database of choices and history once, which brings it up to date; its address."""
    import asyncio

    from bot import app
    from bot.store import database_url

    async def open_once() -> None:
        async with app.open_store(settings):
            pass

    asyncio.run(open_once())
    return database_url(settings.database_url, settings.home)


def _prepare_to_run(context: Context) -> None:
    """Says what the gallery holds and who is answered; asks for a contact if that is needed."""
    from bot.app import adapters_wanted
    from bot.background import FEW_PEOPLE, STARTER_PEOPLE, contact_of, noted, starter_wanted

    settings = context.settings
    chats = [name.title() for name in adapters_wanted(settings) if name != "web"]
    with context.gallery() as gallery:
        people, coming = gallery.counts()[0], settings.gallery.starter and starter_wanted(gallery)
        if coming and not chats and contact_of(settings, gallery) is None:
            few = (
                f"The gallery is nearly empty. About {STARTER_PEOPLE} famous people can be fetched "
                "from Wikimedia in the background. "
            )
            asked = sys.stdin.isatty() and not noted(gallery, "contact declined")
            coming = asked and ask_for_contact(gallery, few)
    there = people_of(people) if people else "the two people who come with the program"
    told = there
    if coming:
        told = f"{there}; about {STARTER_PEOPLE} famous ones are coming from Wikimedia"
    elif people < FEW_PEOPLE:
        told = f"only {there}. `{context.command('gallery download')}` brings famous people"
    say(f"Gallery: {told}.")
    if chats:
        say(f"Answering in {' and '.join(chats)}. Ctrl+C ends it.")


def ask_for_contact(gallery: Gallery, before: str = "") -> bool:
    """Asks whom Wikimedia can reach until there is an answer that can be used.

    Returns False after Enter alone, which is taken and noted where something is said ``before``.
    """
    from bot.background import note, remember_contact

    def kept(answer: str) -> bool:
        if before and not answer.strip():
            note(gallery, "contact declined", value=True)
            return False
        try:
            remember_contact(gallery, answer)
        except BadSettings as problem:
            raise click.UsageError(str(problem)) from None
        return True

    say(before + _WHY, err=True)
    question = "Your e-mail address or web page" + " (Enter: don't fetch)" * bool(before)
    default = "" if before else None  # without one, click asks again
    done: bool = click.prompt(question, default, value_proc=kept, show_default=False, err=True)
    return done


def main() -> None:
    """Runs a command; errors made for people become one sentence and an exit code."""
    output.prepare_streams()
    try:
        try:
            lookalike(standalone_mode=True)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough
        output.drop_output()
        sys.exit(1)
    except output.OutputLost as problem:
        output.drop_output()
        say(f"lookalike: the output can't be written ({problem})", err=True)
        sys.exit(EXIT_OUTPUT)
    except LookalikeError as problem:
        say(f"lookalike: {problem}", err=True)
        if isinstance(problem, PhotoProblem):
            sys.exit(EXIT_PHOTO)
        sys.exit(EXIT_SETUP if isinstance(problem, SetupProblem) else EXIT_TRY_LATER)
