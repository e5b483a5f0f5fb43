"""Everything that commands print: sentences, tables, JSON, progress and pictures.

What a stream's encoding lacks is replaced (JSON is escaped), control characters of names never
reach a terminal as such, and an output that can't be written any more is one sentence.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.errors import BadSettings

if TYPE_CHECKING:
    from gallery.progress import Progress, Report

EXIT_INTERRUPTED = 130  # as shells report a command that Ctrl-C ended
EXAMPLES = 5  # how many of a kind are named
KEPT = "Interrupted; what was done is kept. Run the same command again to go on."

_REPLACED = "lookalike-replaced"
_PLAIN = {"▰": "#", "▱": "."}
_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
_LINE_EVERY_S = 10.0


class OutputLost(Exception):  # noqa: N818 - named like the errors of engine.errors
    """Standard output can't be written any more; its text is the system's reason."""


@contextmanager
def _as_lost_output() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # the reader has seen enough
        raise
    except OSError as problem:
        raise OutputLost(problem.strerror) from problem


class _Output(io.TextIOWrapper):
    """Standard output that tells its own failures from those of other files."""

    write = _as_lost_output()(io.TextIOWrapper.write)
    flush = _as_lost_output()(io.TextIOWrapper.flush)


def prepare_streams() -> None:
    """Lets both streams replace what their encoding lacks, for this and every other printer.

    What the input's encoding lacks is kept, and closed streams lead nowhere.
    """

    def replaced(problem: UnicodeError) -> tuple[str, int]:
        import unicodedata

        assert isinstance(problem, UnicodeEncodeError)
        text = ""
        for char in problem.object[problem.start : problem.end]:
            plain = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()
            text += _PLAIN.get(char) or plain or "?"
        return text, problem.end

    codecs.register_error(_REPLACED, replaced)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed: a database must not become its file
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123,SIM115 - it stays open
    if type(sys.stdout) is io.TextIOWrapper:
        encoding, lines = sys.stdout.encoding, sys.stdout.line_buffering
        sys.stdout = _Output(sys.stdout.detach(), encoding, line_buffering=lines)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # paths that are read are bytes
            stream.reconfigure(errors="surrogateescape" if stream is sys.stdin else _REPLACED)


def drop_output() -> None:
    """Drops what is still to be written, or the interpreter tries it again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: object = "", *, before: str = "", err: bool = False) -> None:
    """Prints a line; ``before`` may hold colours."""
    from bot.logs import printable

    # Left to itself, click writes UTF-8 where the stream says ASCII.
    stream = sys.stderr if err else sys.stdout
    click.echo(before + printable(str(text)).replace("\n", " "), file=stream)


def wrapped(text: str, first: str = "", rest: str = "  ") -> None:
    """Prints a paragraph of at most 88 columns, its first line and the rest indented."""
    for line in click.wrap_text(text, 88, first, rest).splitlines():
        say(line)


def print_json(content: Any) -> None:
    """Prints JSON; letters stay as they are where the output's encoding has them."""
    import json

    from bot.logs import as_json

    text = as_json(content, indent=2)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(content, indent=2)
    click.echo(text, file=sys.stdout)


@contextmanager
def interruptible(sentence: str) -> Iterator[None]:
    """Ends the program with that sentence and exit code 130 when Ctrl-C ends the block."""
    try:
        yield
    except KeyboardInterrupt:
        say(sentence, err=True)
        sys.exit(EXIT_INTERRUPTED)


def print_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], title: str = "", numbers_from: int = 9
) -> None:
    """Prints columns that fit the terminal; those from ``numbers_from`` on are flush right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from bot.logs import printable

    frame: dict[str, Any] = {"box": None, "pad_edge": False, "padding": (0, 3, 0, 0)}
    if title:
        frame = {"box": box.SIMPLE, "title": title, "padding": (0, 1, 0, 0)}
    table = Table(*headings, header_style="bold", **frame)
    for column in table.columns[numbers_from:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*(Text(re.sub(r"\s", " ", printable(cell))) for cell in row))
    Console(highlight=False).print(table)


@contextmanager
def progress(*, quiet: bool) -> Iterator[Progress]:
    """How far long work is, on stderr: bars in a terminal, elsewhere lines, none if ``quiet``."""
    if not sys.stderr.isatty():
        from gallery.progress import no_progress

        yield no_progress if quiet else lines()
        return
    from rich import progress as bars

    columns = (bars.MofNCompleteColumn(), bars.TextColumn("{task.fields[speed]}"))
    with _bars(*columns, bars.TimeRemainingColumn(elapsed_when_finished=True)) as shown:
        tasks: dict[str, bars.TaskID] = {}

        def show(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(_describe(what), total=total, speed="")
            task = shown.tasks[tasks[what]]
            speed = task.finished_speed or task.speed
            words = f"{speed:.0f}/s" if speed else ""
            shown.update(tasks[what], completed=done, total=total, speed=words)

        yield show


@contextmanager
def download_bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """How many bytes of a file have come, on stderr."""
    from rich import progress as bars

    columns = (bars.DownloadColumn(), bars.TransferSpeedColumn(), bars.TimeRemainingColumn())
    with _bars(*columns) as shown:
        task = shown.add_task(name, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def _bars(*columns: Any) -> Any:
    from rich import progress as bars
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    words = bars.TextColumn("{task.description}")
    return bars.Progress(words, bars.BarColumn(), *columns, console=console)


def lines(clock: Callable[[], float] = time.monotonic) -> Progress:
    """Progress as a line every few seconds, for logs and pipes."""
    working, started, said, first = "", 0.0, 0.0, 0

    def show(what: str, done: int, total: int | None) -> None:
        nonlocal working, started, said, first
        now = clock()
        if what != working:
            working, started, said, first = what, now, now, done
        last = done == total and now - started >= _LINE_EVERY_S
        if now - said < _LINE_EVERY_S and not last:
            return
        said = now
        speed = (done - first) / (now - started) if now > started else 0.0
        of, left = f" of {total:,}" if total is not None else "", ""
        if total and speed:
            left_s = timedelta(seconds=round((total - done) / speed))
            left = f", {re.sub('^0:0?', '', str(left_s))} left"
        say(f"{_describe(what)}: {done:,}{of}, {speed:.0f} a second{left}", err=True)

    return show


_WORK = {
    "photos": "photos",
    "people": "people",
    "lists": "asking Wikidata",
    "vectors": "checking vectors",
    "pictures": "checking pictures",
    "faces": "comparing faces",
    "check": "checking the file",
    "portraits": "portraits",
    "search": "preparing the search",
    "written vectors": "vectors",
}


def _describe(what: str) -> str:
    return _WORK.get(what) or f"embedding with {what}"


def numbered(count: int, one: str, several: str | None = None) -> str:
    """A number of things: ``1 portrait``, ``2,984 portraits``."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def people_of(count: int) -> str:
    """A number of people: ``1 person``, ``12 people``."""
    return numbered(count, "person", "people")


def either(names: Sequence[str]) -> str:
    """``A, B or C``."""
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def some(names: Sequence[str], most: int = EXAMPLES) -> str:
    """The first few names, and how many more there are: ``A, B and 12 more``."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def news_lines(report: Report) -> Iterator[str]:
    """How many portraits and people are new, and how many portraits were there."""
    added = numbered(report.added, "portrait")
    if report.people_added:
        added += f", {numbered(report.people_added, 'new person', 'new people')}"
    yield f"added      {added}"
    if report.unchanged:
        yield f"unchanged  {numbered(report.unchanged, 'portrait')}"


_USUAL = (" (hidden)", " of the system)")
_MOST_NAMED = 20


def add_lines(report: Report, models: Sequence[str]) -> Iterator[str]:
    """What adding people did, line by line."""
    yield from news_lines(report)
    if report.rejected:
        yield f"not taken  {numbered(len(report.rejected), 'photo')}"
    for reason, count in report.reasons().most_common():
        yield f"  {reason}: {count:,}"
        for one in [r for r in report.rejected if r.reason.startswith(reason)][:_MOST_NAMED]:
            yield f"    {one.photo}" + (f", {one.reason}" if one.reason != reason else "")
        if count > _MOST_NAMED:
            yield "    ... (--json lists all)"
    for heading, names in (
        ("in nobody's folder", report.astray),
        ("can't be read", report.closed),
        # What people may miss comes first.
        ("passed over", sorted(report.ignored, key=lambda one: one.endswith(_USUAL))),
        ("in people.csv, but without a photo", report.strangers),
        ("lost or damaged, add them again", sorted(set(report.dropped))),
    ):
        if names:
            most = max(EXAMPLES, sum(not one.endswith(_USUAL) for one in names[:_MOST_NAMED]))
            cut = " (--json lists all)" if len(names) > most else ""
            yield f"{heading}: {some(names, most)}{cut}"
    yield from report.notes
    yield (
        f"{numbered(report.photos, 'photo')} in {report.seconds:.1f} s, "
        f"{report.photos_per_s:.0f} a second; models: {', '.join(models)}"
    )
    if report.interrupted:
        yield KEPT


def card_option(name: str, words: str) -> Callable[[Any], Any]:
    """An option for the path of a picture, whose ending says the format."""

    def checked(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
        if value is not None and value.suffix.lower() not in _FORMATS:
            message = f"{value} is no picture's name: it must end in {either(list(_FORMATS))}"
            raise click.BadParameter(message, ctx, param)
        return value

    return click.option(name, type=click.Path(path_type=Path), callback=checked, help=words)


def write_file(path: Path, content: bytes | None) -> None:
    """Writes a file so that it is whole or not there; BadSettings if it can't be written.

    A JPEG becomes a picture of the format that the name asks for. None, before long work, only
    makes the folder and tries.
    """
    kind = _FORMATS.get(path.suffix.lower(), "JPEG")
    if content and content.startswith(b"\xff\xd8") and kind != "JPEG":
        from PIL import Image

        buffer = io.BytesIO()
        Image.open(io.BytesIO(content)).save(buffer, kind)
        content = buffer.getvalue()
    if path.is_dir():
        raise BadSettings(f"{path} is a folder: give the name of a file in it")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content or b"")
        if content is not None:
            part.replace(path)
    except OSError as problem:
        raise BadSettings(f"{path} can't be written ({problem.strerror})") from problem
    finally:
        with suppress(OSError):  # where it could not be made
            part.unlink(missing_ok=True)
