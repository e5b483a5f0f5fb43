"""A gallery in one portable file (gallery/pack.py), or carried straight from one place to another.

What is there already is known by its hash, so that the same people may come again: after an
interruption, or with photos that were left out before. A batch is taken in whole or not at all.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from sqlalchemy import select

from engine.decode import DecodeLimits, decode
from engine.errors import BadSettings, PhotoProblem
from engine.types import Space
from gallery.build import learn_scores
from gallery.gallery import Gallery
from gallery.pack import PackReader, write_pack
from gallery.progress import Progress, Rejection, Report, in_batches, no_progress
from gallery.records import REMOVED, Person, Portrait, Thumbnail
from gallery.scores import read_learned
from gallery.scores.trial import try_ensemble
from gallery.screen import Reason
from gallery.store import Store
from gallery.tables import BANNED, PEOPLE, PORTRAITS

_BATCH: Final = 512  # portraits that are taken in whole or not at all
_DAMAGED: Final = "damaged photo"
_THUMBNAIL: Final = DecodeLimits(max_pixels=4_000_000)  # of a portrait; a pack may hold bombs


class ExportReport(NamedTuple):
    """How much was written."""

    people: int
    portraits: int
    photos: int  # of the portraits, that came along
    vectors: dict[Space, int]
    never_again: int  # people who were removed for good
    size_bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As printed with ``--json``."""
        record = self._asdict()
        vectors = {space.id: count for space, count in self.vectors.items()}
        sizes = {"bytes": record.pop("size_bytes"), "seconds": round(self.seconds, 3)}
        return record | {"vectors": vectors} | sizes


@dataclass(slots=True)
class ImportReport(Report):
    """What was taken in; counts of what ``Report`` knows, and these."""

    without_photo: int = 0  # of the new portraits, whose photo did not come along
    photos_brought: int = 0  # for portraits that had none
    vectors: Counter[Space] = field(default_factory=Counter)  # new ones
    left_out: dict[Space, str] = field(default_factory=dict)  # spaces not taken, and why
    calibrations: list[Space] = field(default_factory=list)  # whose calibration came along
    never_again: int = 0  # people who stay away from now on

    def to_json(self) -> dict[str, Any]:
        """As printed with ``--json``."""
        return Report.to_json(self) | {
            "vectors": {space.id: count for space, count in self.vectors.items()},
            "left_out": {space.id: reason for space, reason in self.left_out.items()},
            "calibrations": [space.id for space in self.calibrations],
        }


def export_gallery(
    gallery: Gallery,
    file: Path,
    *,
    photos: bool = True,
    replace: bool = False,
    progress: Progress = no_progress,
) -> ExportReport:
    """Writes a gallery into one file, whole or not at all; nobody changes it meanwhile.

    Without photos the importing gallery finds and names people, and shows a silhouette. The file's
    folder exists; a file of that name goes only if ``replace``. Raises Busy if another process is
    changing the gallery, and BadSettings if the file can't be written, or exists.
    """
    started = time.perf_counter()
    with _unchanged(gallery):
        rows = write_pack(gallery, file, photos=photos, replace=replace, progress=progress)
        vectors = {space: gallery.vector_count(space) for space in gallery.spaces()}
    seconds = time.perf_counter() - started
    counts = rows["person"], rows["portrait"], rows["thumbnail"]
    return ExportReport(*counts, vectors, rows["banned"], file.stat().st_size, seconds)


def import_file(gallery: Gallery, file: Path, *, progress: Progress = no_progress) -> ImportReport:
    """Takes in everybody of an exported gallery; the file may have been made by anybody.

    The whole file but its photos is checked before anything is changed; a photo that is none costs
    its portrait. People are merged by key, their categories united; known portraits stay as they
    are. Raises Busy if another process is changing the gallery, GalleryCorrupt if the file is
    damaged, and SetupProblem if there is none, or it was made by a newer program.
    """
    with PackReader(file) as pack:
        pack.check(progress)
        return _take_in(gallery, pack, progress)


def copy_gallery(
    source: Gallery, target: Gallery, *, progress: Progress = no_progress
) -> ImportReport:
    """Takes everybody of one gallery into another, wherever each keeps its things.

    Raises Busy if another process is changing one of them, and BadSettings if the two are one.
    """
    if source.place == target.place:
        raise BadSettings(f"{source.place} can't be copied onto itself: name two galleries")
    with _unchanged(source):
        return _take_in(target, source, progress)


@contextlib.contextmanager
def _unchanged(gallery: Gallery) -> Iterator[None]:
    """Keeps other processes from changing a gallery; one that can't be written nobody changes."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(BadSettings):
            stack.enter_context(gallery.writing())
        yield


def _take_in(gallery: Gallery, source: Store, progress: Progress) -> ImportReport:
    report = ImportReport()
    with gallery.working(report):
        _Intake(gallery, source, report).run(progress)
        gallery.refresh()
    return report


@dataclass(slots=True, eq=False)
class _Candidate:
    """A portrait on its way in; person and portrait as they are at the source."""

    person: Person
    portrait: Portrait
    id: int = 0  # of the portrait of that hash that is in the gallery already
    reason: str | None = None  # why it is not taken
    jpeg: bytes | None = None  # to be kept; None if it is there already or does not come along


class _Intake:
    """Takes one gallery into another, batch by batch; only within ``Gallery.writing``."""

    def __init__(self, gallery: Gallery, source: Store, report: ImportReport) -> None:
        self._gallery, self._source, self._report = gallery, source, report
        there = {state.space.id: state.space for state in gallery.space_states()}
        spaces = [state.space for state in source.space_states() if state.filled]
        taken = [space for space in spaces if there.get(space.id, space) == space]
        left_out = "another space has that name here"
        report.left_out = {space: left_out for space in spaces if space not in taken}
        self._offered = {space: source.embedded(space) for space in taken}
        self._embedded = {space: gallery.embedded(space) for space in taken}
        self._without_photo = set(gallery.without_photo().tolist())

    def run(self, progress: Progress) -> None:
        """Takes in everybody, and what was learned of them."""
        source = self._source
        self._ban()
        for batch in in_batches(source.portrait_ids().tolist(), _BATCH, "portraits", progress):
            self._take(batch)
        query = select(PEOPLE.c.id).where(PEOPLE.c.id.not_in(select(PORTRAITS.c.person_id)))
        with source.reading() as connection:
            bare = connection.scalars(query.order_by(PEOPLE.c.id)).all()
        for batch in in_batches(bare, _BATCH):
            people = source.people_by_id(batch).values()
            self._write([one for one in people if one not in self._banned], [])
        self._calibrate(progress)

    def _ban(self) -> None:
        """Nobody whom either gallery has removed for good comes along."""
        known = self._gallery.banned().keys
        with self._source.reading() as connection:
            rows = connection.execute(select(BANNED).order_by(BANNED.c.key)).all()
        with self._gallery.transaction() as changes:
            for row in rows:
                if row.key not in known:
                    changes.ban(row.key, row.name, row.wikidata_id)
                    self._report.never_again += 1
        self._banned = self._gallery.banned()

    def _take(self, portrait_ids: Sequence[int]) -> None:
        """Takes in a batch of portraits, with their people and vectors."""
        portraits = self._source.portraits_by_id(portrait_ids).values()
        owners = self._source.people_by_id({one.person_id for one in portraits})
        candidates = [_Candidate(owners[one.person_id], one) for one in portraits]
        self._recognize(candidates)
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._read_photo, (one for one in candidates if one.reason is None)))
        taken = [one for one in candidates if one.reason is None]
        self._write([one.person for one in taken], taken)
        report = self._report
        for one in candidates:
            if one.reason is not None:
                rejection = Rejection(one.portrait.sha256, one.person.name, one.reason)
                report.rejected.append(rejection)
            elif one.id:
                report.unchanged += 1
                report.photos_brought += one.jpeg is not None
            else:
                report.added += 1
                report.without_photo += one.jpeg is None

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
            photo = None if one.jpeg is None else decode(one.jpeg, _THUMBNAIL)
        except (OSError, PhotoProblem):
            one.reason = _DAMAGED
            return
        size_px = one.portrait.width_px, one.portrait.height_px
        if photo and (photo.format, photo.width_px, photo.height_px) != ("JPEG", *size_px):
            one.reason = _DAMAGED

    def _write(self, people: Sequence[Person], candidates: Sequence[_Candidate]) -> None:
        """Makes a batch count in one transaction; what is there already changes nothing."""
        added: dict[Space, int] = {}
        with self._gallery.transaction() as changes:
            before = changes.people_added
            person_ids = {one: changes.add_person(one) for one in dict.fromkeys(people)}
            ids = []
            for one in candidates:
                it = one.portrait
                photo = Thumbnail(one.jpeg, it.width_px, it.height_px, it.landmarks, it.box)
                if one.id and one.jpeg is not None:
                    changes.set_photo(one.id, photo)
                person_id = person_ids[one.person]
                ids.append(one.id or changes.add_portrait(person_id, it, it.sha256, photo))
            theirs = np.asarray([one.portrait.id for one in candidates], np.int64)
            mine = np.asarray(ids, np.int64)
            for space, offered in self._offered.items():
                wanted = np.isin(theirs, offered) & ~np.isin(mine, self._embedded[space])
                if wanted.any():
                    vectors = self._source.vectors(space, theirs[wanted])
                    changes.add_vectors(space, vectors, mine[wanted].tolist())
                    added[space] = len(vectors)
            newcomers = changes.people_added - before
        self._report.people_added += newcomers
        self._report.vectors.update(added)

    def _calibrate(self, progress: Progress) -> None:
        """Takes calibrations over where there are none, and fits anew what has changed much."""
        there = [one.space for one in self._gallery.space_states()]  # none if nobody was taken
        for space in filter(there.__contains__, self._offered):
            learned = read_learned(self._source, space)
            if learned is not None and read_learned(self._gallery, space) is None:
                with self._gallery.transaction() as changes:
                    changes.keep_calibration(space, learned.content())
                self._report.calibrations.append(space)
            self._gallery.settle(space, progress)
            learn_scores(self._gallery, space)
        try_ensemble(self._gallery)
