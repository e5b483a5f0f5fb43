"""Adds people: photos are looked at in threads, and enrolled in batches of one transaction each.

All of it may be stopped at any moment, by Ctrl-C or by a kill: what a finished batch changed is
kept, what an unfinished one began does not count, and running the command again goes on.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from engine.engine import Engine
from gallery.build import complete
from gallery.changes import Transaction
from gallery.gallery import Gallery
from gallery.progress import Progress, Rejection, Report, no_progress
from gallery.records import FoundPerson, FoundPortrait
from gallery.screen import (
    SCREENING,
    Fresh,
    Known,
    Reason,
    Refused,
    Screened,
    Screener,
    owned,
)
from gallery.sources.folder import scan

_BATCH_FRESH: Final = 64
_BATCH_SEEN: Final = 512
_BATCH_S: Final = 5.0

Item = TypeVar("Item")
Result = TypeVar("Result")
Batch = Sequence[tuple[FoundPortrait, Screened]]


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
    report.notes = contents.notes
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
    for name in backbones:
        engine.backbone(name)  # fails before anything is done
    with gallery.writing():
        try:
            _take_in(gallery, engine, found, backbones, report, total, progress, again=again)
            complete(gallery, engine, backbones, report, progress)
        except KeyboardInterrupt:
            report.interrupted = True
            gallery.refresh()
    report.seconds = time.perf_counter() - started
    return report


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
    screener = Screener(gallery, engine, backbones, again=again)
    batch: list[tuple[FoundPortrait, Screened]] = []
    fresh = done = 0
    since = time.monotonic()
    with contextlib.closing(_in_order(screener, found)) as screened:
        try:
            for one, seen in screened:
                batch.append((one, seen))
                fresh += isinstance(seen, Fresh)
                late = time.monotonic() - since > _BATCH_S
                if fresh == _BATCH_FRESH or len(batch) == _BATCH_SEEN or late:
                    whole, batch, fresh = batch, [], 0
                    _enrol(gallery, engine, backbones, whole, report)
                    since = time.monotonic()
                done += 1
                progress("photos", done, total)
        finally:
            if batch:
                _enrol(gallery, engine, backbones, batch, report)


def _in_order(
    function: Callable[[Item], Result], items: Iterable[Item]
) -> Generator[tuple[Item, Result], None, None]:
    """Every item with its result, in order, worked on by as many threads as there are cores.

    As many as one batch may wait, so that the threads go on while a batch is enrolled.
    """
    threads = max(2, os.cpu_count() or 1)
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="screener")
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


def _enrol(
    gallery: Gallery, engine: Engine, backbones: Sequence[str], batch: Batch, report: Report
) -> None:
    """Makes a batch count: all of it, or nothing."""
    settled, newcomers = list(batch), 0
    # Embedded before the transaction begins, which keeps others from writing.
    places = [place for place, (_, seen) in enumerate(batch) if isinstance(seen, Fresh)]
    fresh = [seen for _, seen in batch if isinstance(seen, Fresh)]
    vectors = {}
    for name in backbones if fresh else ():
        embedded = engine.backbone(name).embed([seen.crops[name] for seen in fresh])
        vectors[name] = np.stack([one.vector for one in embedded])
    if any(
        seen.news or seen.photo if isinstance(seen, Known) else seen.sha256 for _, seen in batch
    ):
        with gallery.transaction() as changes:
            settled = _without_duplicates(gallery, batch)
            before = changes.person_count()
            rows = _write(changes, settled)
            chosen = [row for row, place in enumerate(places) if place in rows]
            portrait_ids = [rows[places[row]] for row in chosen]
            for name in backbones if chosen else ():
                space = engine.backbone(name).space
                changes.add_vectors(space, vectors[name][chosen], portrait_ids)
            newcomers = changes.person_count() - before
    _count(settled, newcomers, backbones, report)


def _without_duplicates(gallery: Gallery, batch: Batch) -> list[tuple[FoundPortrait, Screened]]:
    """The batch, where a photo that came twice, or came in since it was seen, counts once."""
    settled: list[tuple[FoundPortrait, Screened]] = []
    first: dict[str, FoundPortrait] = {}
    hashes = {seen.sha256 for _, seen in batch if isinstance(seen, Fresh)}
    known = gallery.owners(hashes)
    for found, seen in batch:
        now: Screened = seen
        if isinstance(seen, Fresh):
            twin = first.setdefault(seen.sha256, found)
            if seen.sha256 in known:
                now = owned(found, known[seen.sha256])
            elif twin is not found:
                same = twin.person.key == found.person.key
                name = twin.person.name
                now = Known(news=True) if same else Refused(f"{Reason.DUPLICATE} {name}")
        settled.append((found, now))
    return settled


def _write(changes: Transaction, settled: Batch) -> dict[int, int]:
    """Writes people and portraits; the ids of those that are new, by their place in the batch."""
    people: dict[FoundPerson, int] = {}
    made: dict[int, int] = {}
    for place, (found, seen) in enumerate(settled):
        if isinstance(seen, Refused):
            if seen.sha256 is not None:
                changes.reject(seen.sha256, seen.reason, SCREENING)
            continue
        if found.person not in people:
            people[found.person] = changes.add_person(found.person)
        if isinstance(seen, Fresh):
            changes.forget_rejection(seen.sha256)
            made[place] = changes.add_portrait(
                people[found.person],
                found,
                sha256=seen.sha256,
                jpeg=seen.thumbnail.jpeg,
                **_geometry(seen),
            )
        elif seen.photo is not None and seen.portrait_id is not None:
            jpeg = seen.photo.thumbnail.jpeg
            changes.set_photo(seen.portrait_id, jpeg, **_geometry(seen.photo))
    return made


def _geometry(seen: Fresh) -> Mapping[str, Any]:
    small = seen.thumbnail
    return {
        "size_px": (small.width_px, small.height_px),
        "landmarks": small.landmarks.tolist(),
        "box": small.box,
    }


def _count(settled: Batch, newcomers: int, backbones: Sequence[str], report: Report) -> None:
    report.people_added += newcomers
    for found, seen in settled:
        if isinstance(seen, Refused):
            reason = str(seen.reason)
            report.rejected.append(Rejection(found.origin, found.person.name, reason))
        elif isinstance(seen, Known):
            report.unchanged += 1
        else:
            report.added += 1
            report.embedded.update(backbones)
