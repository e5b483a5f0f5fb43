"""Examines a gallery: is everything there, is it whole, is everybody who they are said to be?

In the order of what depends on what: catalogue, vectors and scores, every picture, then how alike
the faces are. Mending goes on until it finds nothing more to mend.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from sqlalchemy import delete, select

from engine.engine import Engine
from engine.errors import BadSettings
from engine.types import Space
from gallery.build import embed_missing, learn_scores
from gallery.gallery import Gallery
from gallery.progress import Progress, Report, no_progress
from gallery.screen import SCREENING, Reason
from gallery.tables import CategoryRow, PersonCategoryRow
from gallery.verify.checks import (
    Examination,
    Finding,
    Kind,
    Remedy,
    catalogue_findings,
    owners_of,
    picture_findings,
    space_findings,
    stray_findings,
)
from gallery.verify.faces import face_findings

_ROUNDS: Final = 10  # of comparing faces: what is removed may show what else is wrong
_BATCH: Final = 500  # portraits taken away in one transaction


def verify(
    gallery: Gallery,
    engine: Engine,
    *,
    backbone: str | None = None,
    fix: bool = False,
    progress: Progress = no_progress,
) -> Examination:
    """Examines a gallery, and mends what is safe to mend if that is wanted.

    Args:
        gallery: Which.
        engine: Detects faces, and makes vectors.
        backbone: Compares faces; None for dlib if the gallery is built for it, else the first.
        fix: Whether to mend. What only a person can judge is left as it is.
        progress: Told about vectors, pictures and faces.

    Returns:
        What was found; ``interrupted`` after Ctrl-C, with everything kept that was mended.

    Raises:
        Busy: If another process is changing the gallery and it is to be mended.
        BadSettings: If it is not built for that backbone.
    """
    began = time.perf_counter()
    examination = Examination()
    with gallery.writing() if fix else contextlib.nullcontext():
        try:
            _Examiner(gallery, engine, examination, fix=fix, progress=progress).run(backbone)
        except KeyboardInterrupt:
            examination.interrupted = True
        gallery.refresh()
    examination.people, examination.portraits = gallery.counts()
    examination.seconds = time.perf_counter() - began
    return examination


def save_pictures(gallery: Gallery, findings: Sequence[Finding], folder: Path) -> None:
    """Writes the pictures of the portraits that findings are about, ``<portrait id>.jpg``.

    Raises:
        BadSettings: If the folder can't be written.
    """
    subjects = [one for finding in findings for one in (finding.subject, finding.other) if one]
    ids = {one.portrait_id for one in subjects if one.portrait_id is not None}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for portrait_id, jpeg in gallery.photos(ids).items():
            (folder / f"{portrait_id}.jpg").write_bytes(jpeg)
    except OSError as problem:
        raise BadSettings(f"{folder} can't be written ({problem.strerror})") from problem


class _Examiner:
    """One examination.

    Every step of mending is a transaction of its own: stopped at any moment, what is mended is
    mended and what is not is found again.
    """

    def __init__(
        self,
        gallery: Gallery,
        engine: Engine,
        examination: Examination,
        *,
        fix: bool,
        progress: Progress,
    ) -> None:
        self._gallery = gallery
        self._engine = engine
        self._examination = examination
        self._fix = fix
        self._progress = progress
        self._usable = self._usable_spaces()

    def run(self, backbone: str | None) -> None:
        """Examines everything, in the order of what depends on what."""
        gallery = self._gallery
        if backbone is not None and all(one.backbone != backbone for one in self._spaces()):
            raise BadSettings(
                f"the gallery is not built for {backbone}: run `lookalike gallery build --model "
                f"{backbone}`, or choose another one"
            )
        self._settle(stray_findings(gallery, alone=self._fix))
        owners = owners_of(gallery)
        found, sound = space_findings(gallery, owners, self._progress)
        sampled = [space for space in sound if space.id in self._usable]
        pictures, turned = picture_findings(gallery, self._engine, owners, sampled, self._progress)
        self._settle([one for one in pictures if one.kind is not Kind.VECTORS])
        self._settle([*found, *(one for one in pictures if one.kind is Kind.VECTORS)])
        damaged = {
            one.space_id for one in self._examination.findings if one.remedy is Remedy.REBUILD
        }
        self._compare([one for one in self._spaces() if one.id not in damaged], backbone, turned)
        self._settle(catalogue_findings(gallery))
        if self._fix:
            self._settle(stray_findings(gallery, alone=True))

    def _compare(
        self, spaces: Sequence[Space], backbone: str | None, turned: frozenset[int]
    ) -> None:
        wanted = [space for space in spaces if space.backbone == (backbone or "dlib")]
        wanted += spaces if backbone is None else []
        if not wanted:
            why = "faces could not be compared: there are no sound vectors"
            self._examination.unchecked.append(why)
            return
        self._examination.backbone = wanted[0].backbone
        for _ in range(_ROUNDS):
            owners = owners_of(self._gallery)
            found = face_findings(self._gallery, wanted[0], owners, turned, self._progress)
            left = self._mended(found)
            if len(left) == len(found):
                break
        self._examination.findings += left

    def _spaces(self) -> list[Space]:
        return [state.space for state in self._gallery.space_states()]

    def _usable_spaces(self) -> dict[str, Space]:
        """The gallery's spaces in which this machine can make vectors, by id."""
        usable = {}
        for space in self._spaces():
            why = self._engine.why_unavailable(space.backbone)
            if why is None and self._engine.backbone(space.backbone).space == space:
                usable[space.id] = space
            else:
                why = why or "this version of the program makes others"
                self._examination.unchecked.append(
                    f"vectors of {space.backbone} can't be made again here: {why}"
                )
        return usable

    def _settle(self, findings: Sequence[Finding]) -> None:
        self._examination.findings += self._mended(findings)

    def _mended(self, findings: Sequence[Finding]) -> list[Finding]:
        """Mends what can be mended, if that is wanted; returns the rest."""
        steps: dict[Remedy, Callable[[list[Finding]], list[Finding]]] = {
            Remedy.SWEEP: self._sweep,
            Remedy.FORGET: self._forget,
            Remedy.REMOVE: self._remove,
            Remedy.MERGE: self._merge,
            Remedy.REBUILD: self._rebuild,
            Remedy.EMBED: self._embed,
            Remedy.LEARN: self._learn,
            Remedy.DELETE: self._delete,
        }
        done: list[Finding] = []
        for remedy, step in steps.items() if self._fix else ():
            concerned = [finding for finding in findings if finding.remedy is remedy]
            if concerned:
                now = step(concerned)
                self._examination.mended += now
                done += now
                self._gallery.refresh()
        return [finding for finding in findings if not any(finding is one for one in done)]

    def _sweep(self, findings: list[Finding]) -> list[Finding]:
        kinds = {finding.kind for finding in findings}
        if Kind.STRAY in kinds:
            self._gallery.sweep_vectors()
        if Kind.EMPTY in kinds:
            used = select(PersonCategoryRow.category_id)
            with self._gallery.transaction() as changes:
                changes.run(delete(CategoryRow).where(CategoryRow.id.not_in(used)))
        return findings

    def _forget(self, findings: list[Finding]) -> list[Finding]:
        self._take_away(findings, for_good=False)
        return findings

    def _remove(self, findings: list[Finding]) -> list[Finding]:
        """Nobody loses their last portrait."""
        left = Counter(self._gallery.portrait_counts())
        chosen = {}
        for finding in findings:
            whose = finding.subject
            if whose is not None and whose.portrait_id not in chosen and left[whose.person_id] > 1:
                chosen[whose.portrait_id] = finding
                left[whose.person_id] -= 1
        self._take_away(list(chosen.values()), for_good=True)
        return list(chosen.values())

    def _take_away(self, findings: Sequence[Finding], *, for_good: bool) -> None:
        gallery = self._gallery
        ids = [one.subject.portrait_id for one in findings if one.subject is not None]
        wanted = [portrait_id for portrait_id in ids if portrait_id is not None]
        for start in range(0, len(wanted), _BATCH):
            portraits = gallery.portraits_by_id(wanted[start : start + _BATCH])
            hashes = [portrait.sha256 for portrait in portraits.values()]
            with gallery.transaction() as changes:
                changes.remove_portraits(list(portraits))
                for sha256 in hashes if for_good else ():
                    changes.reject(sha256, Reason.NOT_THEM, SCREENING)

    def _merge(self, findings: list[Finding]) -> list[Finding]:
        """Into the one whom Wikidata knows, else the one who was there first."""
        gallery = self._gallery
        done = []
        for finding in findings:
            assert finding.subject is not None
            assert finding.other is not None
            ids = (finding.subject.person_id, finding.other.person_id)
            there = gallery.people_by_id(ids)
            if len(there) == 2:  # else one of them was merged with a third just now
                kept, other = sorted(
                    there.values(), key=lambda one: (one.wikidata_id is None, one.id)
                )
                with gallery.transaction() as changes:
                    changes.merge_people(kept, other)
                done.append(finding)
        return done

    def _rebuild(self, findings: list[Finding]) -> list[Finding]:
        """Never takes away what can't be made again here."""
        done = [one for one in findings if one.space_id in self._usable]
        for space_id in dict.fromkeys(one.space_id for one in done):
            with self._gallery.transaction() as changes:
                changes.remove_space(self._usable[str(space_id)])
        self._embed(done)
        self._gallery.sweep_vectors()  # not before: names of files would be reused
        return done

    def _embed(self, findings: list[Finding]) -> list[Finding]:
        done = [one for one in findings if one.space_id in self._usable]
        for space_id in dict.fromkeys(one.space_id for one in done):
            space = self._usable[str(space_id)]
            embed_missing(self._gallery, self._engine, space.backbone, Report(), self._progress)
            learn_scores(self._gallery, space)
        return done

    def _learn(self, findings: list[Finding]) -> list[Finding]:
        for space in self._spaces():
            if any(finding.space_id == space.id for finding in findings):
                learn_scores(self._gallery, space)
        return findings

    def _delete(self, findings: list[Finding]) -> list[Finding]:
        """Only those who still have no portrait."""
        counts = self._gallery.portrait_counts()
        gone = [one for one in findings if one.subject and one.subject.person_id not in counts]
        with self._gallery.transaction() as changes:
            for finding in gone:
                assert finding.subject is not None
                changes.remove_person(finding.subject.person_id)
        return gone
