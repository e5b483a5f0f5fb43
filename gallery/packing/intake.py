"""Takes packed people into a gallery, batch by batch; only within ``Gallery.writing``.

A batch counts whole or not at all. What is there already is known by its hash, so that the same
contents may come again: after an interruption, or with photos that were left out before.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.decode import decode
from engine.errors import PhotoProblem
from engine.types import Space
from gallery.gallery import Gallery
from gallery.packing.contents import Batch, PackedPortrait
from gallery.packing.report import ImportReport
from gallery.progress import Rejection
from gallery.records import REMOVED, Banned, FoundPerson, FoundPortrait, Person, Portrait
from gallery.screen import Reason, knows_more
from gallery.silhouette import is_silhouette
from gallery.store import Transaction

__all__ = ["BatchIntake"]

_THREADS = max(2, os.cpu_count() or 1)
_DAMAGED = "damaged photo"


@dataclass(slots=True, eq=False)
class _Candidate:
    """A portrait on its way in.

    Attributes:
        person: Whose.
        portrait: It.
        reason: Why it is not taken, or None.
        known: The gallery's own portrait of that hash, or None.
        jpeg: The photo to keep; None if it is there already, or does not come along.
        id: In the gallery.
        person_id: In the gallery.
    """

    person: FoundPerson
    portrait: PackedPortrait
    reason: str | None = None
    known: Portrait | None = None
    jpeg: bytes | None = field(default=None, repr=False)
    id: int = 0
    person_id: int = 0


class BatchIntake:
    """Takes in batches.

    Args:
        gallery: Where.
        spaces: Whose vectors are wanted.
        barred: Who stays away.
        report: Counts what is done, when it is done.
    """

    def __init__(
        self, gallery: Gallery, spaces: Sequence[Space], barred: Banned, report: ImportReport
    ) -> None:
        self._gallery = gallery
        self._embedded = {space: gallery.embedded(space) for space in spaces}
        self._barred = barred
        self._report = report
        self._any_refused = bool(gallery.stats().rejections)

    def __call__(self, batch: Batch) -> None:
        """Makes a batch count."""
        candidates = [
            _Candidate(one.person, portrait) for one in batch.people for portrait in one.portraits
        ]
        owners = self._recognize(candidates)
        wanted = [one for one in candidates if one.reason is None]
        with ThreadPoolExecutor(_THREADS) as pool:
            for _ in pool.map(self._look, wanted):
                pass
        people = self._people(batch, candidates)
        if self._news(people, candidates, owners, batch):
            with self._gallery.transaction() as changes:
                before = changes.person_count()
                ids = {one: changes.add_person(one) for one in people}
                self._enrol(changes, candidates, ids)
                vectors = self._append(changes, candidates, batch)
                newcomers = changes.person_count() - before
            self._report.people_added += newcomers
            self._report.vectors.update(vectors)
        self._count(candidates)

    def _recognize(self, candidates: Sequence[_Candidate]) -> dict[str, Person]:
        """Finds what is there already and what may not come; returns the known owners by key."""
        catalogue = self._gallery
        known = {
            one.sha256: one
            for one in catalogue.portraits_by_hash([one.portrait.sha256 for one in candidates])
        }
        owners = catalogue.people_by_id({one.person_id for one in known.values()})
        for one in candidates:
            there = known.get(one.portrait.sha256)
            if one.person in self._barred:
                one.reason = REMOVED
            elif there is not None and owners[there.person_id].key != one.person.key:
                one.reason = f"{Reason.DUPLICATE} {owners[there.person_id].name}"
            elif there is not None:
                one.known, one.id, one.person_id = there, there.id, there.person_id
        return {owner.key: owner for owner in owners.values()}

    def _look(self, one: _Candidate) -> None:
        """Reads and decodes the photo of a portrait that has none yet."""
        if one.portrait.photo is None:
            return
        if one.known is not None and self._gallery.photo(one.known) is not None:
            return
        try:
            jpeg = one.portrait.photo()
        except OSError:
            jpeg, one.reason = None, _DAMAGED
        if jpeg is None or is_silhouette(jpeg):
            return
        if _is_photo(jpeg, one.portrait):
            one.jpeg = jpeg
        else:
            one.reason = _DAMAGED

    def _people(self, batch: Batch, candidates: Sequence[_Candidate]) -> list[FoundPerson]:
        """Who is to be enrolled: everybody with a portrait that is taken, or with none at all."""
        shown = {one.person.key for one in candidates if one.reason is None}
        return [
            one.person
            for one in batch.people
            if one.person.key in shown or (not one.portraits and one.person not in self._barred)
        ]

    def _news(
        self,
        people: Sequence[FoundPerson],
        candidates: Sequence[_Candidate],
        owners: dict[str, Person],
        batch: Batch,
    ) -> bool:
        """Whether there is anything that the gallery does not hold."""
        if any(
            one.reason is None and (one.known is None or one.jpeg is not None) for one in candidates
        ):
            return True
        for person in people:
            owner = owners.get(person.key) or self._gallery.find_person(person.key)
            if owner is None or owner.key != person.key or knows_more(person, owner):
                return True
        return any(len(self._lacking(space, candidates, batch)) for space in self._embedded)

    def _enrol(
        self,
        changes: Transaction,
        candidates: Sequence[_Candidate],
        person_ids: dict[FoundPerson, int],
    ) -> None:
        for one in candidates:
            if one.reason is not None:
                continue
            portrait = one.portrait
            geometry: dict[str, Any] = {
                "size_px": (portrait.width_px, portrait.height_px),
                "landmarks": portrait.landmarks.tolist(),
                "box": portrait.box,
            }
            jpeg = one.jpeg
            if one.known is None:
                one.person_id = person_ids[one.person]
                if self._any_refused:
                    changes.forget_rejection(portrait.sha256)
                one.id = changes.add_portrait(
                    one.person_id, _found(one), sha256=portrait.sha256, jpeg=jpeg, **geometry
                )
            elif jpeg is not None:
                changes.set_photo(one.id, jpeg, **geometry)

    def _lacking(
        self, space: Space, candidates: Sequence[_Candidate], batch: Batch
    ) -> NDArray[np.int64]:
        """Which of the batch's vectors of a space are taken: their numbers, rising."""
        rows = batch.rows.get(space)
        if rows is None:
            return np.empty(0, np.int64)
        taken = np.array([candidates[place].reason is None for place in rows.places])
        ids = np.array([candidates[place].id for place in rows.places], np.int64)
        lacking: NDArray[np.int64] = np.flatnonzero(taken & ~np.isin(ids, self._embedded[space]))
        return lacking

    def _append(
        self, changes: Transaction, candidates: Sequence[_Candidate], batch: Batch
    ) -> dict[Space, int]:
        appended = {}
        for space in self._embedded:
            lacking = self._lacking(space, candidates, batch)
            if not len(lacking):
                continue
            rows = batch.rows[space]
            owners = [candidates[place] for place in rows.places[lacking]]
            changes.add_vectors(
                space,
                rows.vectors[lacking],
                [one.id for one in owners],
            )
            appended[space] = len(lacking)
        return appended

    def _count(self, candidates: Sequence[_Candidate]) -> None:
        report = self._report
        for one in candidates:
            if one.reason is not None:
                sha256 = one.portrait.sha256
                report.rejected.append(Rejection(sha256, one.person.name, one.reason))
            elif one.known is None:
                report.added += 1
                report.without_photo += one.jpeg is None
            else:
                report.unchanged += 1
                report.photos_brought += one.jpeg is not None


def _is_photo(jpeg: bytes, portrait: PackedPortrait) -> bool:
    """Whether bytes from anywhere are a JPEG of the size that landmarks and box refer to."""
    try:
        photo = decode(jpeg)
    except PhotoProblem:
        return False
    size_px = (photo.width_px, photo.height_px)
    return photo.format == "JPEG" and size_px == (portrait.width_px, portrait.height_px)


def _found(one: _Candidate) -> FoundPortrait:
    """A portrait as sources hand it over; nobody reads it."""
    portrait = one.portrait
    return FoundPortrait(
        person=one.person,
        origin=portrait.sha256,
        read=lambda _: b"",
        author=portrait.author,
        licence=portrait.licence,
        licence_url=portrait.licence_url,
        source_url=portrait.source_url,
    )
