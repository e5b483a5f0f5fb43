"""From a photo that a source found to a portrait in the gallery.

Looking at a photo (``Looker``) runs in several threads. What was seen is enrolled in batches
(``Enroller``) by one thread: thumbnails and vectors first, last the transaction that makes it all
count.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from engine.engine import Engine
from engine.errors import PhotoProblem, SetupProblem, TooLarge
from gallery import registrar
from gallery.build import complete
from gallery.database import changing
from gallery.gallery import Gallery
from gallery.never_again import REMOVED, barred
from gallery.progress import Progress, Rejection, Report, no_progress
from gallery.records import FoundPerson, FoundPortrait, Person, category_name
from gallery.registrar import append_rows
from gallery.scores.trial import try_ensemble
from gallery.screen import SCREENING, Reason, Thumbnail, clear_face, thumbnail
from gallery.silhouette import lacks_photo
from gallery.sources.folder import scan

__all__ = [
    "Enroller",
    "Fresh",
    "Known",
    "Looked",
    "Looker",
    "Refused",
    "add",
    "add_folder",
    "knows_more",
]

_log = logging.getLogger(__name__)

_BATCH_FRESH: Final = 64
_BATCH_SEEN: Final = 512
_BATCH_S: Final = 5.0

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Refused:
    """A photo that can't be a portrait.

    Attributes:
        reason: A ``Reason``, for duplicates followed by the name.
        sha256: Of a photo that need not be looked at again, else None.
    """

    reason: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """A photo that is a portrait of the same person already.

    Attributes:
        news: Whether the source knows more about the person than the gallery.
        photo: What the gallery lacked of it so far (gallery/silhouette.py), or None.
    """

    news: bool
    photo: Fresh | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Fresh:
    """A photo that can become a portrait.

    Attributes:
        sha256: Of its bytes.
        thumbnail: What is kept of it.
        crops: Per backbone, what it embeds.
    """

    sha256: str
    thumbnail: Thumbnail
    crops: Mapping[str, NDArray[np.uint8]]


Looked = Refused | Known | Fresh


class Looker:
    """Looks at photos; safe to use from several threads.

    Args:
        gallery: Knows which photos it has and which it refused.
        engine: Sees.
        backbones: For which ones to cut crops.
        again: Whether to look again at photos that were refused before.
    """

    def __init__(
        self, gallery: Gallery, engine: Engine, backbones: Sequence[str], *, again: bool
    ) -> None:
        self._gallery = gallery
        self._catalogue = gallery.catalogue
        self._engine = engine
        self._backbones = tuple(backbones)
        self._again = again
        self._barred = barred(gallery)

    def __call__(self, found: FoundPortrait) -> Looked:
        """What becomes of a photo."""
        return Refused(REMOVED) if found.person in self._barred else self._looked_at(found)

    def _looked_at(self, found: FoundPortrait) -> Looked:
        try:
            content = found.read(self._engine.limits.max_bytes)
        except TooLarge:
            return Refused(Reason.TOO_LARGE)
        except OSError:
            return Refused(Reason.UNREADABLE)
        sha256 = hashlib.sha256(content).hexdigest()
        known = self._catalogue.known(sha256, SCREENING)
        if isinstance(known, Person):
            return self._completed(_owned(found, known), found, content, sha256)
        if known is not None and not self._again:
            return Refused(known.reason)
        return self._judged(found, content, sha256)

    def _completed(
        self, owned: Known | Refused, found: FoundPortrait, content: bytes, sha256: str
    ) -> Known | Refused:
        """What becomes of a known photo; the gallery may know of it and not have it."""
        if isinstance(owned, Refused):
            return owned
        portraits = self._catalogue.portraits_by_hash([sha256])
        if not any(lacks_photo(self._gallery, portrait) for portrait in portraits):
            return owned
        seen = self._judged(found, content, sha256)
        return replace(owned, photo=seen) if isinstance(seen, Fresh) else owned

    def _judged(self, found: FoundPortrait, content: bytes, sha256: str) -> Refused | Fresh:
        try:
            return self._screened(content, sha256)
        except SetupProblem:
            raise
        except Exception:  # noqa: BLE001 - one odd photo must not end a night's work
            _log.exception("looking at %s failed", found.origin)
            return Refused(Reason.FAILED)

    def _screened(self, content: bytes, sha256: str) -> Refused | Fresh:
        try:
            photo = self._engine.decode(content)
        except TooLarge:
            return Refused(Reason.TOO_LARGE)
        except PhotoProblem:
            return Refused(Reason.UNREADABLE, sha256)
        face = clear_face(photo, self._engine.detect(photo))
        if isinstance(face, Reason):
            return Refused(face, sha256)
        crops = {name: self._engine.backbone(name).crop(photo, face) for name in self._backbones}
        return Fresh(sha256, thumbnail(photo, face), crops)


class Enroller:
    """Enrols what was seen; only within ``Gallery.writing``.

    Args:
        gallery: Where.
        engine: Embeds.
        backbones: Into whose spaces.
        report: Counts what is done, when it is done.
    """

    def __init__(
        self, gallery: Gallery, engine: Engine, backbones: Sequence[str], report: Report
    ) -> None:
        self._gallery = gallery
        self._engine = engine
        self._backbones = tuple(backbones)
        self._report = report

    def __call__(self, batch: Sequence[tuple[FoundPortrait, Looked]]) -> None:
        """Makes a batch count: all of it, or nothing."""
        settled = self._without_duplicates(batch)
        fresh = [(found, seen) for found, seen in settled if isinstance(seen, Fresh)]
        pictures = [seen for _, seen in fresh]
        vectors = {name: self._embedded(name, pictures) for name in self._backbones}
        if not any(map(_changes, (seen for _, seen in settled))):
            self._count(settled, 0)
            return
        with changing(self._gallery.catalogue.database) as connection:
            newcomers = self._enrol(connection, settled, vectors)
            registrar.note_change(connection)
        self._count(settled, newcomers)

    def _without_duplicates(
        self, batch: Sequence[tuple[FoundPortrait, Looked]]
    ) -> list[tuple[FoundPortrait, Looked]]:
        """The batch, where a photo that came twice, or came in since it was seen, counts once."""
        settled: list[tuple[FoundPortrait, Looked]] = []
        first: dict[str, FoundPortrait] = {}
        for found, seen in batch:
            now: Looked = seen
            if isinstance(seen, Fresh):
                known = self._gallery.catalogue.known(seen.sha256, SCREENING)
                twin = first.setdefault(seen.sha256, found)
                if isinstance(known, Person):
                    now = _owned(found, known)
                elif twin is not found and twin.person.key == found.person.key:
                    now = Known(news=True)
                elif twin is not found:
                    now = Refused(f"{Reason.DUPLICATE} {twin.person.name}")
            settled.append((found, now))
        return settled

    def _embedded(self, name: str, fresh: Sequence[Fresh]) -> NDArray[np.float32]:
        if not fresh:
            return np.empty((0, 0), np.float32)
        embeddings = self._engine.backbone(name).embed([seen.crops[name] for seen in fresh])
        return np.stack([embedding.vector for embedding in embeddings])

    def _enrol(
        self,
        connection: Connection,
        settled: Sequence[tuple[FoundPortrait, Looked]],
        vectors: Mapping[str, NDArray[np.float32]],
    ) -> int:
        before = registrar.person_count(connection)
        ids: dict[FoundPerson, int] = {}
        portraits: list[int] = []
        persons: list[int] = []
        for found, seen in settled:
            if isinstance(seen, Refused):
                if seen.sha256 is not None:
                    registrar.remember_rejection(connection, seen.sha256, seen.reason, SCREENING)
                continue
            if found.person not in ids:
                ids[found.person] = registrar.enrol_person(connection, found.person)
            person_id = ids[found.person]
            if isinstance(seen, Fresh):
                registrar.forget_rejection(connection, seen.sha256)
                portraits.append(
                    registrar.enrol_portrait(
                        connection,
                        person_id,
                        found,
                        sha256=seen.sha256,
                        size_px=(seen.thumbnail.width_px, seen.thumbnail.height_px),
                        landmarks=seen.thumbnail.landmarks.tolist(),
                        box=seen.thumbnail.box,
                    )
                )
                persons.append(person_id)
                self._gallery.keep_picture(connection, seen.sha256, seen.thumbnail.jpeg)
            elif seen.photo is not None:
                self._complete(connection, seen.photo)
        if portraits:
            for name, rows in vectors.items():
                space = self._engine.backbone(name).space
                append_rows(connection, self._gallery, space, rows, portraits, persons)
        return registrar.person_count(connection) - before

    def _complete(self, connection: Connection, photo: Fresh) -> None:
        """Gives a portrait that came without its photo the photo."""
        small = photo.thumbnail
        registrar.reframe_portrait(
            connection,
            photo.sha256,
            size_px=(small.width_px, small.height_px),
            landmarks=small.landmarks.tolist(),
            box=small.box,
        )
        self._gallery.keep_picture(connection, photo.sha256, small.jpeg)

    def _count(self, settled: Sequence[tuple[FoundPortrait, Looked]], newcomers: int) -> None:
        report = self._report
        report.people_added += newcomers
        for found, seen in settled:
            if isinstance(seen, Refused):
                name = found.person.name
                report.rejected.append(Rejection(found.origin, name, str(seen.reason)))
            elif isinstance(seen, Known):
                report.unchanged += 1
            else:
                report.added += 1
                report.embedded.update(self._backbones)


def _owned(found: FoundPortrait, owner: Person) -> Known | Refused:
    """What becomes of a photo that is somebody's portrait already."""
    if owner.key != found.person.key:
        return Refused(f"{Reason.DUPLICATE} {owner.name}")
    return Known(news=knows_more(found.person, owner))


def knows_more(person: FoundPerson, owner: Person) -> bool:
    """Whether a source knows something of a person that the gallery doesn't."""
    more = [
        (person.wikidata_id, owner.wikidata_id),
        (person.country, owner.country),
        (person.gender, owner.gender),
        (person.fame, owner.fame),
    ]
    joins = {category_name(name) for name in person.categories} - set(owner.categories)
    return bool(joins) or any(new not in (None, old) for new, old in more)


def _changes(seen: Looked) -> bool:
    """Whether the catalogue has to be written for it."""
    if isinstance(seen, Known):
        return seen.news or seen.photo is not None
    return isinstance(seen, Fresh) or seen.sha256 is not None


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
                complete(gallery, engine, name, space, report, progress)
            try_ensemble(gallery)
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
