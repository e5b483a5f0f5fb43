"""The gallery as everybody else sees it: people, portraits, and who is most like a face."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from engine.errors import Busy, GalleryCorrupt, GalleryMissing, SpaceMismatch
from engine.types import Embedding, Space
from gallery.changes import Transaction
from gallery.database import GALLERY_WRITER, changing, translated, try_turn
from gallery.progress import Progress, no_progress
from gallery.records import Hit, Match, Person, Portrait
from gallery.scores import read_learned
from gallery.search import SearchIndex
from gallery.search.index import GalleryIndex, is_large
from gallery.search.pgvector import PostgresIndex, counted
from gallery.silhouette import draw_silhouette
from gallery.store import DATABASE, SpaceState, Store, missing
from gallery.tables import PortraitRow, RevisionRow, VectorRow
from gallery.vector_file import VectorFile, unwritable

if TYPE_CHECKING:
    from gallery.scores import Calibration
    from gallery.scores.ensemble import Ensemble, FusedHit, MemberScore
    from gallery.scores.trial import Trial

_ATTEMPTS: Final = 5
_REMEMBERED: Final = 2_000  # portraits; more are forgotten and read again
_CHUNK_ROWS: Final = 4_096


class Snapshot:
    """The gallery at one revision; what follows from it is made at first use.

    Threads share it. Indexes of an earlier snapshot are taken over where they still hold.
    """

    def __init__(self, store: Store, before: Snapshot | None = None) -> None:
        self._store = store
        with store.reading():
            self.revision = store.revision()
            self._states = {state.space.id: state for state in store.space_states()}
        self._before: dict[str, SearchIndex] = before.indexes() if before else {}
        self._indexes: dict[str, SearchIndex] = {}
        self._calibrations: dict[str, Calibration] = {}
        self._allowed: dict[tuple[str, str | None, frozenset[str] | None], NDArray[np.bool_]] = {}
        self._people: dict[int, Person] = {}
        self._portraits: dict[int, Portrait] = {}
        self._lock = threading.Lock()

    def indexes(self) -> dict[str, SearchIndex]:
        """The indexes in use or of use, by space id."""
        return self._before | self._indexes

    @functools.cached_property
    def spaces(self) -> tuple[Space, ...]:
        """The spaces in which somebody can be found."""
        return tuple(state.space for state in self._states.values() if state.filled)

    def index(self, space: Space) -> SearchIndex:
        """The vectors of a space.

        Raises:
            GalleryMissing: If there are none.
            SpaceMismatch: If there are none, but some of other weights or another recipe.
            GalleryCorrupt: If there should be some.
        """
        state = self._states.get(space.id)
        if state is None or not state.filled:
            raise self._why_missing(space)
        with self._lock:
            if space.id not in self._indexes:
                before = self._before.pop(space.id, None)
                self._indexes[space.id] = _open_index(self._store, state, before)
            return self._indexes[space.id]

    def allowed(
        self, index: SearchIndex, category: str | None, genders: frozenset[str] | None = None
    ) -> NDArray[np.bool_] | None:
        """Who of an index may be found: bool (len(index),); None if everybody may be.

        Only people in the category and of one of the genders (``gallery.records``).

        Raises:
            GalleryMissing: If nobody may be.
        """
        if category is None and genders is None:
            return None
        key = (index.space.id, category, genders)
        if key not in self._allowed:
            mask = np.ones(len(index), dtype=np.bool_)
            if category is not None:
                members = self._store.category_person_ids(category)
                mask &= np.isin(index.person_ids, members)
            if not mask.any():
                known = ", ".join(self._store.categories()) or "none"
                raise GalleryMissing(
                    f"nobody in the gallery is in the category {category}; its categories: {known}"
                )
            if genders is not None:
                members = self._store.gender_person_ids(genders)
                mask &= np.isin(index.person_ids, members)
            if not mask.any():
                raise GalleryMissing(
                    "the gallery says of nobody here that they are of that gender: `lookalike "
                    "gallery download` brings people with it"
                )
            self._allowed[key] = mask
        return self._allowed[key]

    @functools.cached_property
    def genders(self) -> frozenset[str]:
        """Every gender that is said of somebody, lower case."""
        return Store.genders(self._store)  # Gallery's own asks its snapshot

    def recall(self, hits: Sequence[Hit]) -> list[tuple[Hit, Person, Portrait]]:
        """The people and portraits found; whoever was removed since is missing."""
        if len(self._portraits) > _REMEMBERED:
            self._people, self._portraits = {}, {}
        people, portraits = self._people, self._portraits
        strangers = {hit.person_id for hit in hits} - people.keys()
        unseen = {hit.portrait_id for hit in hits} - portraits.keys()
        if strangers or unseen:
            with self._store.reading():
                people.update(self._store.people_by_id(strangers))
                portraits.update(self._store.portraits_by_id(unseen))
        return [
            (hit, people[hit.person_id], portraits[hit.portrait_id])
            for hit in hits
            if hit.person_id in people and hit.portrait_id in portraits
        ]

    def calibration(self, space: Space) -> Calibration:
        """What this gallery taught about a space's cosines, else what the program comes with.

        Raises:
            GalleryCorrupt: If what was kept makes no sense.
        """
        if space.id not in self._calibrations:
            from gallery.scores import prior

            learned = read_learned(self._store, space)
            self._calibrations[space.id] = learned.calibration if learned else prior(space)
        return self._calibrations[space.id]

    @functools.cached_property
    def trial(self) -> Trial | None:
        """Whether the backbones are better together, as found out last; None if nobody tried."""
        from gallery.scores.trial import read_trial

        return read_trial(self._store)

    def _why_missing(self, space: Space) -> GalleryMissing | SpaceMismatch:
        build = f"run `lookalike gallery build --model {space.backbone}`"
        if self._store.counts()[1] == 0:
            return GalleryMissing(
                "there is nobody in the gallery yet: add people with `lookalike gallery add "
                "FOLDER`, where FOLDER has a folder of photos for each person"
            )
        if any(other.backbone == space.backbone for other in self.spaces):
            return SpaceMismatch(
                f"the gallery was built with another version of {space.backbone}: {build}"
            )
        return GalleryMissing(f"the gallery is not built for the model {space.backbone}: {build}")


class Gallery(Store):
    """People and their portraits: in one folder, or on a PostgreSQL server that many share.

    Safe to use from several threads. What another process changes is seen at the next match, or
    by ``refresh``. See ``Store`` for the arguments and errors.
    """

    def __init__(self, folder: Path, url: str | None = None) -> None:
        super().__init__(folder, url)
        self._latest: Snapshot | None = None

    @classmethod
    def open(cls, folder: Path, url: str | None = None) -> Gallery:
        """The gallery in a folder or database; an empty one is made where there is none."""
        return cls(folder, url)

    def genders(self) -> frozenset[str]:
        """Every gender said of somebody, lower case, as of the last match or ``refresh``."""
        return self._snapshot.genders

    def spaces(self) -> tuple[Space, ...]:
        """The spaces in which somebody can be found, as of the last match or ``refresh``."""
        return self._snapshot.spaces

    def trial(self) -> Trial | None:
        """Whether this gallery's backbones are better together; None if nobody has tried."""
        return self._snapshot.trial

    def calibration(self, space: Space) -> Calibration:
        """How cosines of a space become scores: as learned from this gallery, else as shipped."""
        return self._snapshot.calibration(space)

    def index(self, space: Space) -> SearchIndex:
        """The vectors of a space; see ``top_matches`` for the errors."""
        return self._snapshot.index(space)

    def thumbnail(self, portrait: Portrait) -> bytes:
        """A portrait's picture as a JPEG: its photo, or a silhouette where there is none."""
        jpeg = self.photo(portrait)
        if jpeg is not None:
            return jpeg
        return draw_silhouette(portrait.width_px, portrait.height_px, portrait.landmarks)

    def refresh(self) -> None:
        """Sees what has been changed since, here or by another process; cheap if nothing has."""
        with self.reading():
            if self._latest is None or self.revision() != self._latest.revision:
                self._latest = Snapshot(self, self._latest)

    @property
    def _snapshot(self) -> Snapshot:
        if self._latest is None:
            self._latest = Snapshot(self)
        return self._latest

    def top_matches(
        self,
        query: Embedding,
        k: int,
        *,
        category: str | None = None,
        genders: frozenset[str] | None = None,
    ) -> tuple[Match, ...]:
        """The k people nearest to the query, nearest first; each person once.

        Args:
            query: Of one of ``spaces()``.
            k: At least 1; fewer are returned if there are fewer people.
            category: Only people in this category; None for everybody.
            genders: Only people of whom the gallery says one of these, such as
                ``gallery.records.WOMEN``; None for everybody.

        Returns:
            Matches by falling cosine; equal cosines by person id.

        Raises:
            GalleryMissing: If nobody can be found: the gallery or the category is empty, or not
                built for the query's backbone.
            SpaceMismatch: If the gallery was built with other weights or another recipe of it.
            GalleryCorrupt: If vectors that should be there are not.
        """

        def search(snapshot: Snapshot) -> tuple[Hit, ...]:
            index = snapshot.index(query.space)
            return index.top(query, k, allowed=snapshot.allowed(index, category, genders))

        snapshot, found = self._recalled(search)
        calibration = snapshot.calibration(query.space)
        return tuple(self._match(*one, calibration) for one in found)

    def fused_matches(
        self,
        ensemble: Ensemble,
        queries: Sequence[Embedding],
        k: int,
        *,
        category: str | None = None,
        genders: frozenset[str] | None = None,
    ) -> tuple[Match, ...]:
        """The k people most like a face by several backbones together; else as ``top_matches``.

        ``queries`` are the face in each member's space, in the members' order.
        """
        from gallery.scores.ensemble import fused_top

        fused: dict[int, FusedHit] = {}

        def search(snapshot: Snapshot) -> tuple[Hit, ...]:
            indexes = [snapshot.index(space) for space in ensemble.spaces]
            allowed = [snapshot.allowed(index, category, genders) for index in indexes]
            hits = fused_top(ensemble, indexes, queries, k, allowed=allowed)
            fused.update((one.hit.person_id, one) for one in hits)
            return tuple(one.hit for one in hits)

        _, found = self._recalled(search)
        return tuple(
            self._match(
                *one, ensemble.calibration, ensemble.member_scores(fused[one[0].person_id].cosines)
            )
            for one in found
        )

    def _recalled(
        self, search: Callable[[Snapshot], tuple[Hit, ...]]
    ) -> tuple[Snapshot, list[tuple[Hit, Person, Portrait]]]:
        """Who a search finds, and at which snapshot: again where somebody was removed since."""
        for _ in range(_ATTEMPTS):
            self.refresh()
            snapshot = self._snapshot
            hits = search(snapshot)
            found = snapshot.recall(hits)
            if len(found) == len(hits):
                break
        return snapshot, found

    def _match(
        self,
        hit: Hit,
        person: Person,
        portrait: Portrait,
        calibration: Calibration,
        member_scores: tuple[MemberScore, ...] = (),
    ) -> Match:
        return Match(
            person=person,
            portrait=portrait,
            thumbnail=functools.partial(self.thumbnail, portrait),
            cosine=hit.cosine,
            score=calibration.score(hit.cosine),
            one_in=calibration.one_in(hit.cosine),
            member_scores=member_scores,
        )

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Changes that count all together when the block ends well, else not at all.

        Within another transaction of this thread, it is that one.
        """
        within: Transaction | None = getattr(self._local, "changes", None)
        if within is not None:
            yield within
            return
        with changing(self.database) as connection, self._shared_by_thread(connection):
            changes = self._local.changes = Transaction(self, connection)
            try:
                yield changes
            finally:
                self._local.changes = None
            if changes.changed:
                raised = sa.update(RevisionRow).values(number=RevisionRow.number + 1)
                connection.execute(raised)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Makes this process the only one that changes the gallery; reading goes on.

        Raises:
            Busy: If another process is changing it.
            BadSettings: If it can't be written.
        """
        with self._server_lock() if self.shared else self._folder_lock():
            yield

    @contextmanager
    def _folder_lock(self) -> Iterator[None]:
        import filelock

        try:
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(errno.EACCES, "Permission denied")
            with (
                filelock.FileLock(self.folder / "gallery.lock", timeout=0),
                translated(self.folder / DATABASE),
            ):
                yield
        except filelock.Timeout as problem:
            raise _busy() from problem
        except OSError as problem:
            raise unwritable(self.folder, problem) from problem

    @contextmanager
    def _server_lock(self) -> Iterator[None]:
        """A transaction's lock, not a session's, so that it works through a pooler, too."""
        options = self.database.execution_options(isolation_level="READ COMMITTED")
        with options.connect() as connection:
            connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            if not try_turn(connection, GALLERY_WRITER):
                raise _busy()
            yield

    def ban(self, person: Person) -> None:
        """Remembers that no source brings somebody back; it does not remove them.

        Raises:
            Busy: If another process is changing the gallery.
        """
        with self.writing(), self.transaction() as changes:
            changes.ban(person.key, person.name, person.wikidata_id)

    def unban(self, names: Collection[str]) -> int:
        """Lets sources bring those of a name, key or Wikidata id again; how many there were.

        Raises:
            Busy: If another process is changing the gallery.
        """
        with self.writing(), self.transaction() as changes:
            return sum(changes.unban(name) for name in names)

    def settle(self, space: Space, progress: Progress = no_progress) -> None:
        """Prepares the search of a space for as many people as it has now.

        For who may change the gallery, as of the last ``refresh``.
        """
        if space not in self.spaces():
            return
        if self.shared:
            with self.transaction() as changes:
                changes.settle_index(space)
        elif is_large(space, self.vector_count(space)):
            index = self.index(space)
            assert isinstance(index, GalleryIndex)
            index.settle(progress)

    def drop_damaged(self, space: Space) -> None:
        """Forgets a space whose vectors are gone or incomplete, so that they are made anew."""
        with self.transaction() as changes:
            state = self.space_state(space)
            if state is None:
                return
            try:
                if not self.shared:
                    self.vector_file(state).check(state.row_count)
                elif len(counted(changes.connection, space)) != 1:
                    changes.remove_space(space)
            except (FileNotFoundError, GalleryCorrupt):
                changes.remove_space(space)

    def compact(self, space: Space) -> bool:
        """Drops dead rows from a space's file; PostgreSQL does so by itself."""
        if self.shared:
            return False
        query = (
            sa.select(PortraitRow.person_id, VectorRow.portrait_id, VectorRow.row)
            .join(PortraitRow, PortraitRow.id == VectorRow.portrait_id)
            .where(VectorRow.space_id == space.id)
        )
        with self.transaction() as changes:
            state = self.space_state(space)
            if state is None or self.vector_count(space) == state.row_count:
                return False
            rows = [tuple(row) for row in changes.connection.execute(query)]
            found = np.array(sorted(rows), np.int64).reshape(-1, 3)
            old = self.vector_file(state)
            fresh = VectorFile.create(old.folder, space)
            for start in range(0, len(found), _CHUNK_ROWS):
                fresh.append(start, old.rows(found[start : start + _CHUNK_ROWS, 2]))
            changes.renumber(space, fresh.generation, found[:, 1].tolist())
        return True

    def sweep_vectors(self) -> int:
        """Removes files of spaces and generations that don't count; how many there were."""
        stray = self.stray_files()
        for path in stray:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            with contextlib.suppress(OSError):  # others are in it
                path.parent.rmdir()
        return len(stray)


def _busy() -> Busy:
    return Busy(
        "another `lookalike gallery` command is changing this gallery: wait until it is done, "
        "then try again"
    )


def _open_index(store: Store, state: SpaceState, before: SearchIndex | None) -> SearchIndex:
    """The index of a space in that state, or of a newer one.

    Raises:
        GalleryCorrupt: If vectors are missing or damaged.
    """
    if store.shared:
        if isinstance(before, PostgresIndex) and before.generation == state.generation:
            return before
        return PostgresIndex(store.database, state.space)
    known = before if isinstance(before, GalleryIndex) else None
    for _ in range(_ATTEMPTS):
        # Without the file it was swept after a build, or is lost.
        with store.reading() as connection, contextlib.suppress(FileNotFoundError):
            now = store.space_state(state.space) or state
            file, revision = store.vector_file(now), store.revision()
            return GalleryIndex.open(connection, file, now.row_count, revision, known)
    raise missing(state.space)
