"""Mends what was found wrong with a gallery, as far as that is safe.

Every step is a transaction of its own: stopped at any moment, what is mended is mended and what is
not is found again. One process at a time (``Gallery.writing``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import delete, select

from engine.engine import Engine
from engine.types import Space
from gallery import registrar, upkeep
from gallery.database import changing
from gallery.gallery import Gallery
from gallery.namesakes import merge
from gallery.progress import Progress, Report
from gallery.screen import SCREENING, Reason
from gallery.tables import CategoryRow, PersonCategoryRow
from gallery.verifying.findings import Finding, Kind, Remedy

__all__ = ["Mender"]

_BATCH: Final = 500


class Mender:
    """Applies remedies.

    Args:
        gallery: Which; the caller holds ``Gallery.writing``.
        engine: Makes vectors anew.
        usable: Spaces whose backbone can be used here.
        progress: Told about vectors being made.
    """

    def __init__(
        self, gallery: Gallery, engine: Engine, usable: Sequence[Space], progress: Progress
    ) -> None:
        self._gallery = gallery
        self._engine = engine
        self._usable = {space.id: space for space in usable}
        self._progress = progress
        self.mended: list[Finding] = []

    def apply(self, findings: Sequence[Finding]) -> list[Finding]:
        """Mends what can be mended; returns the rest."""
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
        for remedy, step in steps.items():
            concerned = [finding for finding in findings if finding.remedy is remedy]
            if concerned:
                now = step(concerned)
                self.mended += now
                done += now
                self._gallery.refresh()
        return [finding for finding in findings if not any(finding is one for one in done)]

    def _sweep(self, findings: list[Finding]) -> list[Finding]:
        gallery = self._gallery
        if any(finding.kind is Kind.STRAY for finding in findings):
            upkeep.sweep_vectors(gallery, Report())
            gallery.storage.sweep_pictures(set(gallery.catalogue.hashes()))
        if any(finding.kind is Kind.EMPTY for finding in findings):
            used = select(PersonCategoryRow.category_id)
            with changing(gallery.catalogue.database) as connection:
                connection.execute(delete(CategoryRow).where(CategoryRow.id.not_in(used)))
                registrar.note_change(connection)
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
            portraits = gallery.catalogue.portraits_by_id(wanted[start : start + _BATCH])
            hashes = [portrait.sha256 for portrait in portraits.values()]
            with changing(gallery.catalogue.database) as connection:
                upkeep.bury_portraits(gallery, connection, list(portraits))
                registrar.delete_portraits(connection, list(portraits))
                for sha256 in hashes if for_good else ():
                    registrar.remember_rejection(connection, sha256, Reason.NOT_THEM, SCREENING)
                registrar.note_change(connection)
            gallery.storage.discard_pictures(hashes)

    def _merge(self, findings: list[Finding]) -> list[Finding]:
        """Into the one whom Wikidata knows, else the one who was there first."""
        gallery = self._gallery
        done = []
        for finding in findings:
            assert finding.subject is not None
            assert finding.other is not None
            ids = (finding.subject.person_id, finding.other.person_id)
            there = gallery.catalogue.people_by_id(ids)
            if len(there) == 2:  # else one of them was merged with a third just now
                kept, other = sorted(
                    there.values(), key=lambda one: (one.wikidata_id is None, one.id)
                )
                with changing(gallery.catalogue.database) as connection:
                    merge(gallery, connection, kept, other)
                done.append(finding)
        return done

    def _rebuild(self, findings: list[Finding]) -> list[Finding]:
        """Never takes away what can't be made again here."""
        gallery = self._gallery
        done = [one for one in findings if one.space_id in self._usable]
        for space_id in dict.fromkeys(one.space_id for one in done):
            with changing(gallery.catalogue.database) as connection:
                registrar.delete_space(connection, self._usable[str(space_id)])
                registrar.note_change(connection)
        self._make_vectors(done)
        upkeep.sweep_vectors(gallery, Report())  # not before: files of one name would be mistaken
        return done

    def _embed(self, findings: list[Finding]) -> list[Finding]:
        done = [one for one in findings if one.space_id in self._usable]
        self._make_vectors(done)
        return done

    def _learn(self, findings: list[Finding]) -> list[Finding]:
        for finding in findings:
            for state in self._gallery.catalogue.space_states():
                if state.space.id == finding.space_id:
                    upkeep.learn_scores(self._gallery, state.space)
        return findings

    def _delete(self, findings: list[Finding]) -> list[Finding]:
        """Only those who still have no portrait."""
        counts = self._gallery.portrait_counts()
        gone = [one for one in findings if one.subject and one.subject.person_id not in counts]
        with changing(self._gallery.catalogue.database) as connection:
            for finding in gone:
                assert finding.subject is not None
                registrar.delete_person(connection, finding.subject.person_id)
            registrar.note_change(connection)
        return gone

    def _make_vectors(self, findings: Sequence[Finding]) -> None:
        for space_id in dict.fromkeys(one.space_id for one in findings):
            space = self._usable[str(space_id)]
            upkeep.embed_missing(
                self._gallery, self._engine, space.backbone, Report(), self._progress
            )
            upkeep.learn_scores(self._gallery, space)
