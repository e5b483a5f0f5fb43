"""Examines a gallery: is everything there, is it whole, is everybody who they are said to be?

In the order of what depends on what: catalogue, vectors and scores, every picture, then how alike
the faces are. Mending goes on until it finds nothing more to mend.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import delete, literal_column

from engine.engine import Engine
from engine.errors import BadSettings
from engine.types import Space
from gallery.build import embed_missing, learn_scores
from gallery.gallery import Gallery
from gallery.progress import Progress, Report, in_batches, no_progress
from gallery.screen import SCREENING, Reason
from gallery.tables import CATEGORIES, METADATA
from gallery.verify import checks
from gallery.verify.checks import Examination, Finding, Kind, Remedy, owners_of
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
    """Examines a gallery, and mends what is safe to mend if ``fix``; people judge the rest.

    The backbone compares faces; None for dlib if the gallery is built for it, else the first.
    Raises BadSettings if it is not, Busy if it is to be mended and another process is changing it.
    """
    examination = Examination()
    with gallery.working(examination, alone=fix):
        _Examiner(gallery, engine, examination, fix, progress).run(backbone)
        gallery.refresh()
    examination.people, examination.portraits = gallery.counts()
    return examination


def pictures(gallery: Gallery, findings: Sequence[Finding]) -> dict[int, bytes]:
    """The JPEGs of the portraits that findings are about, by id."""
    subjects = [one for finding in findings for one in (finding.subject, finding.other) if one]
    return gallery.photos({one.portrait_id for one in subjects if one.portrait_id is not None})


@dataclass(slots=True)
class _Examiner:
    """One examination; every step of mending is a transaction: stopped, the next run goes on."""

    gallery: Gallery
    engine: Engine
    examination: Examination
    fix: bool
    progress: Progress
    usable: dict[str, Space] = field(default_factory=dict)  # where vectors can be made here, by id

    def run(self, backbone: str | None) -> None:
        """Examines everything, in the order of what depends on what."""
        gallery, left = self.gallery, self.examination.findings
        if backbone is not None and all(one.backbone != backbone for one in self._spaces()):
            raise BadSettings(
                f"the gallery is not built for {backbone}: run `lookalike gallery build --model "
                f"{backbone}`, or choose another one"
            )
        for space in self._spaces():
            why = self.engine.why_unavailable(space.backbone)
            if why is None and self.engine.backbone(space.backbone).space == space:
                self.usable[space.id] = space
            else:
                why = why or "this version of the program makes others"
                told = f"vectors of {space.backbone} can't be made again here: {why}"
                self.examination.unchecked.append(told)
        left += self._mended(checks.stray_findings(gallery, alone=self.fix))
        owners = owners_of(gallery)
        found, sound = checks.space_findings(gallery, owners, self.progress)
        sampled = [space for space in sound if space.id in self.usable]
        seen, turned = checks.picture_findings(gallery, self.engine, owners, sampled, self.progress)
        left += self._mended([one for one in seen if one.kind is not Kind.VECTORS])
        left += self._mended([*found, *(one for one in seen if one.kind is Kind.VECTORS)])
        damaged = {one.space_id for one in left if one.remedy is Remedy.REBUILD}
        spaces = [space for space in self._spaces() if space.id not in damaged]
        wanted = [space for space in spaces if space.backbone == (backbone or "dlib")]
        wanted += spaces if backbone is None else []
        if wanted:
            left += self._compared(wanted[0], turned)
        else:
            why = "faces could not be compared: there are no sound vectors"
            self.examination.unchecked.append(why)
        left += self._mended(checks.catalogue_findings(gallery))
        if self.fix:
            left += self._mended(checks.stray_findings(gallery, alone=True))

    def _compared(self, space: Space, turned: frozenset[int]) -> list[Finding]:
        self.examination.backbone = space.backbone
        for _ in range(_ROUNDS):
            owners = owners_of(self.gallery)
            found = face_findings(self.gallery, space, owners, turned, self.progress)
            left = self._mended(found)
            if len(left) == len(found):
                break
        return left

    def _spaces(self) -> list[Space]:
        return [state.space for state in self.gallery.space_states()]

    def _mended(self, findings: Sequence[Finding]) -> list[Finding]:
        """Mends what can be mended, if that is wanted; returns the rest."""
        done: list[Finding] = []
        for remedy in Remedy if self.fix else ():
            concerned = [finding for finding in findings if finding.remedy is remedy]
            if concerned:
                now = getattr(self, f"_{remedy.name.lower()}")(concerned)
                self.examination.mended += now
                done += now
                self.gallery.refresh()
        return [finding for finding in findings if not any(finding is one for one in done)]

    def _sweep(self, findings: list[Finding]) -> list[Finding]:
        if any(one.kind is Kind.STRAY for one in findings):
            self.gallery.sweep_vectors()
        with self.gallery.transaction() as changes:
            if any(one.kind is Kind.EMPTY for one in findings):
                changes.run(delete(CATEGORIES).where(checks.NOBODYS))
            for table, row_id in checks.broken_links(self.gallery):
                mine = literal_column("rowid") == row_id
                changes.run(delete(METADATA.tables[table]).where(mine))
        return findings

    def _forget(self, findings: list[Finding]) -> list[Finding]:
        """Takes portraits away; for good those that are to be removed."""
        subjects = [one.subject.portrait_id for one in findings if one.subject]
        ids = [one for one in subjects if one is not None]
        for batch in in_batches(ids, _BATCH):
            portraits = self.gallery.portraits_by_id(batch)
            with self.gallery.transaction() as changes:
                changes.remove_portraits(list(portraits))
                if findings[0].remedy is Remedy.REMOVE:
                    for portrait in portraits.values():
                        changes.reject(portrait.sha256, Reason.NOT_THEM, SCREENING)
        return findings

    def _remove(self, findings: list[Finding]) -> list[Finding]:
        """Nobody loses their last portrait."""
        left = Counter(self.gallery.portrait_counts())
        chosen = {}
        for finding in findings:
            whose = finding.subject
            if whose is not None and whose.portrait_id not in chosen and left[whose.person_id] > 1:
                chosen[whose.portrait_id] = finding
                left[whose.person_id] -= 1
        return self._forget(list(chosen.values()))

    def _merge(self, findings: list[Finding]) -> list[Finding]:
        """Into the one whom Wikidata knows, else the one who was there first."""
        done = []
        for finding in findings:
            both = [one.person_id for one in (finding.subject, finding.other) if one]
            there = self.gallery.people_by_id(both).values()
            if len(there) == 2:  # else one of them was merged with a third just now
                kept, other = sorted(there, key=lambda one: (one.wikidata_id is None, one.id))
                with self.gallery.transaction() as changes:
                    changes.merge_people(kept, other)
                done.append(finding)
        return done

    def _rebuild(self, findings: list[Finding]) -> list[Finding]:
        """Never takes away what can't be made again here."""
        for space_id in {str(one.space_id) for one in findings} & self.usable.keys():
            with self.gallery.transaction() as changes:
                changes.remove_space(self.usable[space_id])
        done = self._embed(findings)
        self.gallery.sweep_vectors()  # not before: names of files would be reused
        return done

    def _embed(self, findings: list[Finding]) -> list[Finding]:
        done = [one for one in findings if one.space_id in self.usable]
        for space_id in dict.fromkeys(str(one.space_id) for one in done):
            space = self.usable[space_id]
            embed_missing(self.gallery, self.engine, space.backbone, Report(), self.progress)
            learn_scores(self.gallery, space)
        return done

    def _learn(self, findings: list[Finding]) -> list[Finding]:
        for space in self._spaces():
            if any(finding.space_id == space.id for finding in findings):
                learn_scores(self.gallery, space)
        return findings

    def _delete(self, findings: list[Finding]) -> list[Finding]:
        """Only those who still have no portrait."""
        counts = self.gallery.portrait_counts()
        people = {one.subject.person_id for one in findings if one.subject}
        gone = people - counts.keys()
        with self.gallery.transaction() as changes:
            for person_id in gone:
                changes.remove_person(person_id)
        return [one for one in findings if one.subject and one.subject.person_id in gone]
