"""A gallery in one portable file (gallery/pack.py), or carried straight from one place to another.

What is there already is known by its hash, so that the same people may come again: after an
interruption, or with photos that were left out before. A batch is taken in whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from sqlalchemy import select

from engine.decode import decode
from engine.errors import BadSettings, PhotoProblem
from engine.types import Space
from gallery.build import learn_scores
from gallery.changes import Transaction
from gallery.gallery import Gallery
from gallery.pack import PackReader, write_pack
from gallery.progress import Progress, Rejection, Report, no_progress
from gallery.records import REMOVED, FoundPerson, FoundPortrait, Person, Portrait
from gallery.scores import read_learned
from gallery.scores.trial import try_ensemble
from gallery.screen import Reason
from gallery.store import Store
from gallery.tables import BannedRow, PersonRow, PortraitRow

_THREADS: Final = max(2, os.cpu_count() or 1)
_BATCH: Final = 512  # portraits that are taken in whole or not at all
_DAMAGED: Final = "damaged photo"


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written.

    Attributes:
        people: How many.
        portraits: How many.
        photos: How many of these came along.
        vectors: How many, per space.
        banned: People who were removed for good.
        size_bytes: Of the file.
        seconds: How long it took.
    """

    people: int
    portraits: int
    photos: int
    vectors: dict[Space, int]
    banned: int
    size_bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As printed with ``--json``."""
        return {
            "people": self.people,
            "portraits": self.portraits,
            "photos": self.photos,
            "vectors": {space.id: count for space, count in self.vectors.items()},
            "never_again": self.banned,
            "bytes": self.size_bytes,
            "seconds": round(self.seconds, 3),
        }


@dataclass(slots=True)
class ImportReport(Report):
    """What was taken in; counts of what ``Report`` knows, and these.

    Attributes:
        without_photo: Portraits among the new ones whose photo did not come along.
        photos_brought: Photos for portraits that had none.
        vectors: Vectors that are new, per space.
        left_out: Spaces not taken, and why.
        calibrated: Spaces whose calibration came along.
        banned: People who stay away from now on.
    """

    without_photo: int = 0
    photos_brought: int = 0
    vectors: Counter[Space] = field(default_factory=Counter)
    left_out: dict[Space, str] = field(default_factory=dict)
    calibrated: list[Space] = field(default_factory=list)
    banned: int = 0

    def to_json(self) -> dict[str, Any]:
        """As printed with ``--json``."""
        known = Report.to_json(self)
        names = ("added", "unchanged", "people_added", "rejected", "seconds", "interrupted")
        reasons = Counter(one.reason.split(" of ")[0] for one in self.rejected)
        return {
            **{name: known[name] for name in names},
            "without_photo": self.without_photo,
            "photos_brought": self.photos_brought,
            "rejected_by_reason": dict(reasons.most_common()),
            "vectors": {space.id: count for space, count in self.vectors.items()},
            "left_out": {space.id: reason for space, reason in self.left_out.items()},
            "calibrations": [space.id for space in self.calibrated],
            "never_again": self.banned,
        }


def export_gallery(
    gallery: Gallery,
    file: Path,
    *,
    photos: bool = True,
    replace: bool = False,
    progress: Progress = no_progress,
) -> ExportReport:
    """Writes a gallery into one file, whole or not at all.

    Args:
        gallery: Is not changed, and not changed by others meanwhile.
        file: Its folder exists.
        photos: Whether the thumbnails come along. Without them the importing gallery finds and
            names people, and shows a silhouette.
        replace: Whether a file of that name may go.
        progress: Told about portraits and vectors.

    Raises:
        Busy: If another process is changing the gallery.
        BadSettings: If the file can't be written, or exists.
    """
    started = time.perf_counter()
    with _unchanged(gallery):
        counts = write_pack(gallery, file, photos=photos, replace=replace, progress=progress)
        vectors = {space: len(gallery.embedded(space)) for space in gallery.spaces()}
    return ExportReport(
        people=counts["person"],
        portraits=counts["portrait"],
        photos=counts["thumbnail"],
        vectors=vectors,
        banned=counts["banned"],
        size_bytes=file.stat().st_size,
        seconds=time.perf_counter() - started,
    )


def import_file(gallery: Gallery, file: Path, *, progress: Progress = no_progress) -> ImportReport:
    """Takes in everybody of an exported gallery; the file may have been made by anybody.

    The whole file but its photos is checked before anything is changed; a photo that is none costs
    its portrait. People are merged by key, their categories united; known portraits stay as they
    are.

    Raises:
        Busy: If another process is changing the gallery.
        GalleryCorrupt: If the file is damaged.
        SetupProblem: If there is none, or it was made by a newer program.
    """
    with PackReader(file) as pack:
        pack.check(progress)
        return _take_in(gallery, pack, progress)


def copy_gallery(
    source: Gallery, target: Gallery, *, progress: Progress = no_progress
) -> ImportReport:
    """Takes everybody of one gallery into another, wherever each keeps its things.

    Raises:
        Busy: If another process is changing one of them.
        BadSettings: If the two are one.
    """
    if source.place == target.place:
        raise BadSettings(f"{source.place} can't be copied onto itself: name two galleries")
    with _unchanged(source):
        return _take_in(target, source, progress)


@dataclass(slots=True, eq=False)
class _Candidate:
    """A portrait on its way in.

    Attributes:
        person: Whose, at the source.
        portrait: As it is at the source.
        reason: Why it is not taken, or None.
        jpeg: The photo to keep; None if it is there already, or does not come along.
        id: Of the portrait of that hash that is in the gallery already, or 0.
    """

    person: FoundPerson
    portrait: Portrait
    reason: str | None = None
    jpeg: bytes | None = field(default=None, repr=False)
    id: int = 0


def _take_in(gallery: Gallery, source: Store, progress: Progress) -> ImportReport:
    started = time.perf_counter()
    report = ImportReport()
    with gallery.writing():
        try:
            spaces = _wanted(gallery, source, report)
            _ban(gallery, source, report)
            intake = _Intake(gallery, source, spaces, report)
            portraits = source.portrait_ids()
            for start in range(0, len(portraits), _BATCH):
                intake.take(portraits[start : start + _BATCH].tolist())
                progress("portraits", min(start + _BATCH, len(portraits)), len(portraits))
            intake.take_people_without_portraits()
            _calibrate(gallery, source, spaces, report, progress)
        except KeyboardInterrupt:
            report.interrupted = True
        gallery.refresh()
    report.seconds = time.perf_counter() - started
    return report


def _wanted(gallery: Gallery, source: Store, report: ImportReport) -> list[Space]:
    """The spaces that can be kept beside those that are there."""
    there = {state.space.id: state.space for state in gallery.space_states()}
    spaces = [state.space for state in source.space_states() if state.filled]
    taken = [space for space in spaces if there.get(space.id, space) == space]
    left_out = "another space has that name here"
    report.left_out = {space: left_out for space in spaces if space not in taken}
    return taken


def _ban(gallery: Gallery, source: Store, report: ImportReport) -> None:
    """Nobody whom either gallery has removed for good comes along."""
    known = gallery.banned().keys
    with source.reading() as connection:
        rows = connection.execute(select(BannedRow).order_by(BannedRow.key)).all()
    with gallery.transaction() as changes:
        for row in rows:
            if row.key not in known:
                changes.ban(row.key, row.name, row.wikidata_id)
                report.banned += 1


def _calibrate(
    gallery: Gallery,
    source: Store,
    spaces: Sequence[Space],
    report: ImportReport,
    progress: Progress,
) -> None:
    """Takes calibrations over where there are none, and fits anew what has changed much."""
    for space in spaces:
        learned = read_learned(source, space)
        if learned is not None and read_learned(gallery, space) is None:
            with gallery.transaction() as changes:
                changes.keep_calibration(space, learned.content())
            report.calibrated.append(space)
        gallery.settle(space, progress)
        learn_scores(gallery, space)
    try_ensemble(gallery)


class _Intake:
    """Takes in batches; only within ``Gallery.writing``.

    Args:
        gallery: Where.
        source: From where.
        spaces: Whose vectors are wanted.
        report: Counts what is done, when it is done.
    """

    def __init__(
        self, gallery: Gallery, source: Store, spaces: Sequence[Space], report: ImportReport
    ) -> None:
        self._gallery = gallery
        self._source = source
        self._report = report
        self._offered = {space: source.embedded(space) for space in spaces}
        self._embedded = {space: gallery.embedded(space) for space in spaces}
        self._without_photo = set(gallery.without_photo().tolist())
        self._banned = gallery.banned()

    def take_people_without_portraits(self) -> None:
        """Takes in whoever has no portrait at the source."""
        query = select(PersonRow.id).where(PersonRow.id.not_in(select(PortraitRow.person_id)))
        with self._source.reading() as connection:
            ids = connection.scalars(query.order_by(PersonRow.id)).all()
        for start in range(0, len(ids), _BATCH):
            people = map(_found, self._source.people_by_id(ids[start : start + _BATCH]).values())
            self._write([one for one in people if one not in self._banned], [])

    def take(self, portrait_ids: Sequence[int]) -> None:
        """Takes in a batch of portraits, with their people and vectors."""
        portraits = self._source.portraits_by_id(portrait_ids)
        owners = self._source.people_by_id({one.person_id for one in portraits.values()})
        people = {person_id: _found(person) for person_id, person in owners.items()}
        candidates = [_Candidate(people[one.person_id], one) for one in portraits.values()]
        self._recognize(candidates)
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(self._read_photo, (one for one in candidates if one.reason is None)))
        taken = [one for one in candidates if one.reason is None]
        self._write(list(dict.fromkeys(one.person for one in taken)), taken)
        self._count(candidates)

    def _recognize(self, candidates: Sequence[_Candidate]) -> None:
        """Finds what is there already, and what may not come."""
        known = self._gallery.portraits_by_hash([one.portrait.sha256 for one in candidates])
        by_hash = {one.sha256: one for one in known}
        owners = self._gallery.people_by_id({one.person_id for one in known})
        for one in candidates:
            there = by_hash.get(one.portrait.sha256)
            if one.person in self._banned:
                one.reason = REMOVED
            elif there is not None and owners[there.person_id].key != one.person.key:
                one.reason = f"{Reason.DUPLICATE} {owners[there.person_id].name}"
            elif there is not None:
                one.id = there.id

    def _read_photo(self, one: _Candidate) -> None:
        """Reads and decodes the photo of a portrait that has none here."""
        if one.id and one.id not in self._without_photo:
            return
        try:
            one.jpeg = self._source.photo(one.portrait)
            photo = None if one.jpeg is None else decode(one.jpeg)
        except (OSError, PhotoProblem):
            one.reason = _DAMAGED
            return
        size_px = one.portrait.width_px, one.portrait.height_px
        if photo and (photo.format, photo.width_px, photo.height_px) != ("JPEG", *size_px):
            one.reason = _DAMAGED

    def _write(self, people: Sequence[FoundPerson], candidates: Sequence[_Candidate]) -> None:
        """Makes a batch count in one transaction; what is there already changes nothing."""
        added: dict[Space, list[int]] = {}
        with self._gallery.transaction() as changes:
            before = changes.person_count()
            person_ids = {one: changes.add_person(one) for one in people}
            ids = [_enrol(changes, one, person_ids[one.person]) for one in candidates]
            theirs = np.asarray([one.portrait.id for one in candidates], np.int64)
            mine = np.asarray(ids, np.int64)
            for space, offered in self._offered.items():
                wanted = np.isin(theirs, offered) & ~np.isin(mine, self._embedded[space])
                if wanted.any():
                    vectors = self._source.vectors(space, theirs[wanted])
                    added[space] = mine[wanted].tolist()
                    changes.add_vectors(space, vectors, added[space])
            newcomers = changes.person_count() - before
        self._report.people_added += newcomers
        self._report.vectors.update({space: len(rows) for space, rows in added.items()})

    def _count(self, candidates: Sequence[_Candidate]) -> None:
        report = self._report
        for one in candidates:
            if one.reason is not None:
                sha256 = one.portrait.sha256
                report.rejected.append(Rejection(sha256, one.person.name, one.reason))
            elif one.id:
                report.unchanged += 1
                report.photos_brought += one.jpeg is not None
            else:
                report.added += 1
                report.without_photo += one.jpeg is None


def _enrol(changes: Transaction, one: _Candidate, person_id: int) -> int:
    """Adds a portrait, or the photo that it lacked; its id."""
    portrait, jpeg = one.portrait, one.jpeg
    geometry: dict[str, Any] = {
        "size_px": (portrait.width_px, portrait.height_px),
        "landmarks": portrait.landmarks.tolist(),
        "box": portrait.box,
    }
    if one.id:
        if jpeg is not None:
            changes.set_photo(one.id, jpeg, **geometry)
        return one.id
    changes.forget_rejection(portrait.sha256)
    found = FoundPortrait(
        person=one.person,
        origin=portrait.sha256,
        read=lambda _: b"",
        author=portrait.author,
        licence=portrait.licence,
        licence_url=portrait.licence_url,
        source_url=portrait.source_url,
    )
    return changes.add_portrait(person_id, found, sha256=portrait.sha256, jpeg=jpeg, **geometry)


def _found(person: Person) -> FoundPerson:
    """A person as sources hand them over."""
    fields = asdict(person)
    del fields["id"]
    return FoundPerson(**fields)


@contextlib.contextmanager
def _unchanged(gallery: Gallery) -> Iterator[None]:
    """Keeps other processes from changing a gallery; one that can't be written nobody changes."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(BadSettings):
            stack.enter_context(gallery.writing())
        yield
