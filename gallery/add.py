"""Adds people: photos are looked at in threads, and enrolled in batches of one transaction each.

All of it may be stopped at any moment, by Ctrl-C or by a kill: what a finished batch changed is
kept, what an unfinished one began does not count, and running the command again goes on.
"""

import contextlib
import functools
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from engine.engine import Engine
from engine.errors import PhotoProblem
from engine.types import Embedding, Face
from gallery.build import complete
from gallery.changes import Transaction
from gallery.gallery import Gallery
from gallery.progress import Progress, Rejection, Report, no_progress
from gallery.records import FoundPerson, FoundPortrait
from gallery.scores import prior
from gallery.screen import SCREENING, Reason, Screened, Screener, clear_face, owned
from gallery.sources.folder import Agree, scan

_BATCH_FRESH: Final = 64
_BATCH_SEEN: Final = 512
_BATCH_S: Final = 5.0
_SAME_PERSON_SCORE: Final = 82.0  # what 1 in 100,000 strangers reach

Item = tuple[FoundPortrait, Screened]
Batch = Sequence[Item]
One = TypeVar("One")
Result = TypeVar("Result")


def add_folder(
    gallery: Gallery, engine: Engine, folder: Path, *, category: str | None = None, **options: Any
) -> Report:
    """Adds the people of a folder (gallery/sources/folder.py says how it is arranged).

    See ``add`` for the other arguments and errors. Raises SetupProblem if there is no such folder,
    or nobody in it.
    """
    same_person = _same_person(engine, options["backbones"][0])
    contents = scan(folder, category=category, agree=same_person)
    report = add(gallery, engine, contents.portraits, total=len(contents.portraits), **options)
    for name in ("astray", "closed", "ignored", "strangers", "notes"):
        setattr(report, name, getattr(contents, name))
    return report


def _same_person(engine: Engine, backbone: str) -> Agree:
    """Whether two photos show one person: by no calibration that a gallery changes."""

    @functools.cache
    def embedded(found: FoundPortrait) -> Embedding | None:
        with contextlib.suppress(PhotoProblem, OSError):
            photo = engine.decode(found.read(engine.limits.max_bytes))
            face = clear_face(photo, engine.detect(photo))
            if isinstance(face, Face):
                return engine.embed([(photo, face)], backbone)[0]
        return None

    def agree(one: FoundPortrait, other: FoundPortrait) -> bool:
        a, b = embedded(one), embedded(other)
        return bool(a and b and prior(a.space).score(a.cosine(b)) >= _SAME_PERSON_SCORE)

    return agree


def add(
    gallery: Gallery,
    engine: Engine,
    found: Iterable[FoundPortrait],
    *,
    backbones: Sequence[str],
    total: int | None = None,
    progress: Progress = no_progress,
    again: bool = False,
    report: Report | None = None,
) -> Report:
    """Adds what any source found, and notes it in the report, perhaps one that was begun.

    What is there already is known by its content and costs little; photos that were refused before
    are looked at ``again`` if that is wanted. They come in any order and are read lazily; ``total``
    is how many there are, if it is known. Afterwards every portrait has a vector of each backbone,
    of which there is at least one. What was done before Ctrl-C is kept. Raises Busy if another
    process is changing the gallery, and SetupProblem if a backbone or the gallery can't be used.
    """
    report = report or Report()
    for name in backbones:
        engine.backbone(name)  # fails before anything is done
    with gallery.working(report):
        screener = Screener(gallery, engine, backbones, again)
        enrol = partial(_enrol, gallery, engine, backbones, report)
        threads = max(2, os.cpu_count() or 1)
        pool = ThreadPoolExecutor(threads, thread_name_prefix="screener")
        try:
            # As many as a batch may wait, so that threads go on while one is enrolled.
            ahead = _BATCH_FRESH + threads
            screened = in_order(pool, lambda one: (one, screener(one)), found, ahead, at_once=True)
            _in_batches(enrol, screened, lambda done: progress("photos", done, total))
        finally:
            pool.shutdown(cancel_futures=True)
        complete(gallery, engine, backbones, report, progress)
    return report


def _in_batches(
    enrol: Callable[[Batch], None], screened: Iterable[Item], progress: Callable[[int], None]
) -> None:
    batch: list[Item] = []
    fresh, since = 0, time.monotonic()
    try:
        for done, one in enumerate(screened, 1):
            batch.append(one)
            fresh += one[1].fresh
            late = time.monotonic() - since > _BATCH_S
            if fresh == _BATCH_FRESH or len(batch) == _BATCH_SEEN or late:
                whole, batch, fresh = batch, [], 0
                enrol(whole)
                since = time.monotonic()
            progress(done)
    finally:
        if batch:
            enrol(batch)


def in_order(
    pool: ThreadPoolExecutor,
    function: Callable[[One], Result],
    ones: Iterable[One],
    ahead: int,
    at_once: bool = False,
) -> Iterator[Result]:
    """The results in order, when so many of the next are worked on, or ``at_once`` when known."""
    waiting: deque[Future[Result]] = deque()
    for one in ones:
        waiting.append(pool.submit(function, one))
        while len(waiting) > ahead or (at_once and waiting and waiting[0].done()):
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _enrol(
    gallery: Gallery, engine: Engine, backbones: Sequence[str], report: Report, batch: Batch
) -> None:
    """Makes a batch count: all of it, or nothing."""
    newcomers = 0
    # Embedded before the transaction begins, which keeps others from writing.
    places = [place for place, (_, seen) in enumerate(batch) if seen.fresh]
    vectors = {}
    for name in backbones if places else ():
        embedded = engine.backbone(name).embed([batch[place][1].crops[name] for place in places])
        vectors[name] = np.stack([one.vector for one in embedded])
    if any(seen.news or seen.sha256 for _, seen in batch):
        with gallery.transaction() as changes:
            batch = _without_duplicates(gallery, batch)
            before = changes.people_added
            made = _write(changes, batch)
            chosen = [row for row, place in enumerate(places) if place in made]
            for name in backbones if chosen else ():
                portrait_ids = [made[places[row]] for row in chosen]
                changes.add_vectors(
                    engine.backbone(name).space, vectors[name][chosen], portrait_ids
                )
            newcomers = changes.people_added - before
    report.people_added += newcomers
    for found, seen in batch:
        if seen.reason is not None:
            report.rejected.append(Rejection(found.origin, found.person.name, str(seen.reason)))
        elif seen.fresh:
            report.added += 1
            report.embedded.update(backbones)
        else:
            report.unchanged += 1


def _without_duplicates(gallery: Gallery, batch: Batch) -> Batch:
    """The batch, where a photo that came twice, or came in since it was seen, counts once."""
    known = gallery.owners({seen.sha256 for _, seen in batch if seen.fresh and seen.sha256})
    settled = []
    first: dict[str | None, FoundPortrait] = {}
    for found, seen in batch:
        now = seen
        if seen.fresh:
            twin = first.setdefault(seen.sha256, found)
            if seen.sha256 in known:
                now = owned(found, known[seen.sha256])
            elif twin is not found and twin.person.key == found.person.key:
                now = Screened(news=True)
            elif twin is not found:
                now = Screened(f"{Reason.DUPLICATE} {twin.person.name}")
        settled.append((found, now))
    return settled


def _write(changes: Transaction, batch: Batch) -> dict[int, int]:
    """Writes people and portraits; the ids of those that are new, by their place in the batch."""
    people: dict[FoundPerson, int] = {}
    made: dict[int, int] = {}
    for place, (found, seen) in enumerate(batch):
        if seen.reason is not None:
            if seen.sha256 is not None:
                changes.reject(seen.sha256, seen.reason, SCREENING)
            continue
        if found.person not in people:
            people[found.person] = changes.add_person(found.person)
        if seen.portrait_id is not None and seen.thumbnail is not None:
            changes.set_photo(seen.portrait_id, seen.thumbnail)
        elif seen.sha256 is not None and seen.thumbnail is not None:
            person_id = people[found.person]
            made[place] = changes.add_portrait(person_id, found, seen.sha256, seen.thumbnail)
    return made
