"""Adds people, (re)builds vectors and scores, removes people. One process at a time.

All of it may be stopped at any moment, by Ctrl-C or by a kill: what a finished batch changed is
kept, what an unfinished one began does not count, and running the command again goes on.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from engine.pipeline import Engine
from engine.types import Space
from gallery import registrar, upkeep
from gallery.catalogue import Person
from gallery.collection import Gallery
from gallery.database import changing
from gallery.ensembles.verdict import judge
from gallery.intake import Enroller, Fresh, Looked, Looker
from gallery.report import Progress, Report, no_progress
from gallery.sources import FoundPortrait
from gallery.sources.folder import scan

__all__ = ["add", "add_folder", "build", "remove"]

_BATCH_FRESH: Final = 64
_BATCH_SEEN: Final = 512
_BATCH_S: Final = 5.0

Item = TypeVar("Item")
Result = TypeVar("Result")


def add_folder(
    gallery: Gallery,
    engine: Engine,
    folder: Path,
    *,
    category: str | None = None,
    backbones: Sequence[str],
    progress: Progress = no_progress,
    again: bool = False,
) -> Report:
    """Adds the people of a folder (gallery/sources/folder.py says how it is arranged).

    See ``add`` for the arguments and errors.

    Raises:
        SetupProblem: If there is no such folder, or nobody in it.
    """
    contents = scan(folder, category=category)
    report = add(
        gallery,
        engine,
        contents.portraits,
        backbones=backbones,
        total=len(contents.portraits),
        progress=progress,
        again=again,
    )
    report.astray, report.closed = contents.astray, contents.closed
    report.ignored, report.strangers = contents.ignored, contents.strangers
    return report


def add(
    gallery: Gallery,
    engine: Engine,
    found: Iterable[FoundPortrait],
    *,
    backbones: Sequence[str],
    total: int | None = None,
    progress: Progress = no_progress,
    again: bool = False,
) -> Report:
    """Adds what any source found.

    What is there already is known by its content and costs little.

    Args:
        gallery: Where.
        engine: Sees and embeds.
        found: Photos of people, in any order; read lazily.
        backbones: Names, at least one; afterwards every portrait has a vector of each.
        total: How many photos there are, if it is known.
        progress: Told about every photo.
        again: Whether to look again at photos that were refused before.

    Returns:
        What was done; ``interrupted`` after Ctrl-C, with everything kept that was done.

    Raises:
        Busy: If another process is changing the gallery.
        SetupProblem: If a backbone or the gallery can't be used.
    """
    started = time.perf_counter()
    report = Report()
    spaces = [engine.backbone(name).space for name in backbones]  # fails before anything is done
    with gallery.writing():
        try:
            _take_in(gallery, engine, found, backbones, report, total, progress, again=again)
            for name, space in zip(backbones, spaces, strict=True):
                _complete(gallery, engine, name, space, report, progress)
            judge(gallery)
        except KeyboardInterrupt:
            report.interrupted = True
        gallery.refresh()
    report.seconds = time.perf_counter() - started
    return report


def build(
    gallery: Gallery, engine: Engine, backbone: str, *, progress: Progress = no_progress
) -> Report:
    """Makes the gallery whole for one backbone.

    Portraits that lack a vector get one from their thumbnail; vectors of older versions of the
    backbone, dead rows and files that nothing refers to go; scores, and whether several backbones
    are better together, are learned anew if enough has changed. Running it twice does nothing the
    second time.

    Raises:
        Busy: If another process is changing the gallery.
        SetupProblem: If the backbone or the gallery can't be used.
    """
    started = time.perf_counter()
    report = Report()
    space = engine.backbone(backbone).space
    with gallery.writing():
        try:
            upkeep.sweep_vectors(gallery, report)
            upkeep.sweep_portraits(gallery, report)
            upkeep.drop_damaged_space(gallery, space)
            _complete(gallery, engine, backbone, space, report, progress)
            upkeep.drop_other_versions(gallery, space)
            upkeep.compact(gallery, space)
            upkeep.sweep_vectors(gallery, report)
            judge(gallery)
        except KeyboardInterrupt:
            report.interrupted = True
        gallery.refresh()
    report.seconds = time.perf_counter() - started
    return report


def remove(gallery: Gallery, person: Person) -> int:
    """Removes a person, their portraits and thumbnails.

    They are not found from now on; their vectors leave the files at the next ``build``.

    Returns:
        How many portraits they had.

    Raises:
        Busy: If another process is changing the gallery.
    """
    with gallery.writing():
        portraits = gallery.portraits(person.id)
        with changing(gallery.catalogue.database) as connection:
            upkeep.bury_portraits(gallery, connection, [portrait.id for portrait in portraits])
            registrar.delete_person(connection, person.id)
            registrar.note_change(connection)
        gallery.storage.discard_pictures([portrait.sha256 for portrait in portraits])
        gallery.refresh()
    return len(portraits)


def _take_in(
    gallery: Gallery,
    engine: Engine,
    found: Iterable[FoundPortrait],
    backbones: Sequence[str],
    report: Report,
    total: int | None,
    progress: Progress,
    *,
    again: bool,
) -> None:
    looker = Looker(gallery, engine, backbones, again=again)
    enrol = Enroller(gallery, engine, backbones, report)
    batch: list[tuple[FoundPortrait, Looked]] = []
    fresh = done = 0
    since = time.monotonic()
    with contextlib.closing(_in_order(looker, found)) as looked:
        try:
            for one, seen in looked:
                batch.append((one, seen))
                fresh += isinstance(seen, Fresh)
                late = time.monotonic() - since > _BATCH_S
                if fresh == _BATCH_FRESH or len(batch) == _BATCH_SEEN or late:
                    complete, batch, fresh = batch, [], 0
                    enrol(complete)
                    since = time.monotonic()
                done += 1
                progress("photos", done, total)
        finally:
            if batch:
                enrol(batch)


def _complete(
    gallery: Gallery,
    engine: Engine,
    backbone: str,
    space: Space,
    report: Report,
    progress: Progress,
) -> None:
    upkeep.embed_missing(gallery, engine, backbone, report, progress)
    gallery.storage.settle(space, progress)
    upkeep.learn_scores(gallery, space)


def _in_order(
    function: Callable[[Item], Result], items: Iterable[Item]
) -> Generator[tuple[Item, Result], None, None]:
    """Every item with its result, in order, worked on by as many threads as there are cores.

    As many as one batch may wait, so that the threads go on while a batch is enrolled.
    """
    threads = max(2, os.cpu_count() or 1)
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="looker")
    try:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > _BATCH_FRESH + threads:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
