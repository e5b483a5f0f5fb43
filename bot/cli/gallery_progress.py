"""How far long gallery commands are, on stderr: a bar in a terminal, elsewhere a line at times."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from gallery.progress import Progress

__all__ = ["Lines", "shown"]

_EVERY_S: Final = 10.0


@contextmanager
def shown(*, quiet: bool) -> Iterator[Progress]:
    """What long work may call to say how far it is.

    Args:
        quiet: Say nothing unless somebody watches a terminal.
    """
    if sys.stderr.isatty():
        with _bars() as progress:
            yield progress
    elif quiet:
        from gallery.progress import no_progress

        yield no_progress
    else:
        yield Lines()


class Lines:
    """A line every few seconds, for logs and pipes.

    Args:
        clock: Seconds since any moment.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._what = ""
        self._started = self._said = self._first = 0.0

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Says how far it is, if it has not said so lately."""
        now = self._clock()
        if what != self._what:
            self._what, self._started, self._said, self._first = what, now, now, done
        if now - self._said < _EVERY_S and (done != total or now - self._started < _EVERY_S):
            return
        self._said = now
        speed = (done - self._first) / (now - self._started) if now > self._started else 0.0
        of = f" of {total:,}" if total is not None else ""
        left = f", {_clock((total - done) / speed)} left" if total and speed else ""
        click.echo(f"{_describe(what)}: {done:,}{of}, {speed:.0f} a second{left}", err=True)


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich import progress
    from rich.console import Console
    from rich.text import Text

    class Speed(progress.ProgressColumn):
        """Photos in a second."""

        def render(self, task: Any) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.0f}/s" if speed else "", style="progress.data.speed")

    with progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        Speed(),
        progress.TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
    ) as bars:
        tasks: dict[str, progress.TaskID] = {}

        def show(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(_describe(what), total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield show


_KINDS: Final = {
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
    return _KINDS.get(what) or f"embedding with {what}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
