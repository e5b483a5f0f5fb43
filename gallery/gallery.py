"""The gallery as everybody else sees it: people, portraits, and who is most like a face."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from engine.errors import BadSettings, Busy, GalleryCorrupt, GalleryMissing, SpaceMismatch
from engine.types import Embedding, Space
from gallery.changes import Transaction
from gallery.database import GALLERY_WRITER, changing, try_turn
from gallery.progress import Progress, no_progress
from gallery.records import Hit, Match, MemberScore, Person, Portrait
from gallery.scores import Calibration, prior, read_learned
from gallery.search import SearchIndex
from gallery.search.cache import newest_cache
from gallery.search.index import GalleryIndex, counted_rows, will_do
from gallery.search.pgvector import PostgresIndex, counted, settle_index
from gallery.silhouette import draw_silhouette
from gallery.store import SpaceState, Store, missing
from gallery.tables import REVISION
from gallery.vector_file import VectorFile, senseless

if TYPE_CHECKING:
    from gallery.scores.ensemble import Ensemble
    from gallery.scores.trial import Trial

_ATTEMPTS: Final = 5
_REMEMBERED: Final = 2_000  # people; more are forgotten and read again
_THUMBNAILS: Final = 24  # kept as read: some are found again and again, 50 kB each
_AS_GOOD: Final = 0.85  # of the best looks: a portrait of these is as good
_CHUNK_ROWS: Final = 4_096
_RAISED: Final = sa.update(REVISION).values(number=REVISION.c.number + 1)
Genders = frozenset[str] | None
Found = tuple[Sequence[Hit], Calibration, dict[int, tuple[MemberScore, ...]]]


class Snapshot:
    """The gallery at one revision; what follows from it is made at first use.

    Threads share it. Indexes of an earlier snapshot are taken over where they still hold.
    ``spaces`` are those in which somebody can be found; states and indexes are by space id.
    """

    def __init__(self, store: Gallery, before: Snapshot | None = None) -> None:
        self._store = store
        self.thumbnail = functools.lru_cache(_THUMBNAILS)(store.thumbnail)
        with store.reading():
            self.revision = store.revision()
            self.states = {state.space.id: state for state in store.space_states()}
        self.spaces = tuple(state.space for state in self.states.values() if state.filled)
        self.indexes: dict[str, SearchIndex] = dict(before.indexes) if before else {}
        self._current: set[str] = set()
        self._calibrations: dict[str, Calibration] = {}
        self._allowed: dict[tuple[str, str | None, Genders], NDArray[np.bool_]] = {}
        self._people: dict[int, Person] = {}
        self._portraits: dict[int, dict[int, tuple[float, Portrait]]] = {}
        self._lock = threading.Lock()

    def index(self, space: Space) -> SearchIndex:
        """The vectors of a space; see ``Gallery.top_matches`` for the errors."""
        state = self.states.get(space.id)
        if state is None or not state.filled:
            raise self._why_missing(space)
        with self._lock:
            if space.id not in self._current:
                before = self.indexes.get(space.id)
                self.indexes[space.id] = _open_index(self._store, state, before)
                self._current.add(space.id)
            return self.indexes[space.id]

    def allowed(
        self, index: SearchIndex, category: str | None, genders: Genders = None
    ) -> NDArray[np.bool_] | None:
        """Who of an index may be found: bool (len(index),); None if everybody may be.

        Only people in the category and of one of the genders (``gallery.records``). Raises
        GalleryMissing if nobody may be.
        """
        if category is None and genders is None:
            return None
        key = (index.space.id, category, genders)
        if key not in self._allowed:
            mask = np.ones(len(index), dtype=np.bool_)
            if category is not None:
                mask &= np.isin(index.person_ids, self._store.category_person_ids(category))
            if not mask.any():
                known = ", ".join(self._store.categories()) or "none"
                raise GalleryMissing(
                    f"nobody in the gallery is in the category {category}; its categories: {known}"
                )
            if genders is not None:
                mask &= np.isin(index.person_ids, self._store.gender_person_ids(genders))
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
        """The people found and a portrait to show of each; whoever was removed since is missing."""
        if len(self._people) > _REMEMBERED:
            self._people, self._portraits = {}, {}
        people, portraits = self._people, self._portraits
        if strangers := {hit.person_id for hit in hits} - portraits.keys():
            with self._store.reading():
                people.update(self._store.people_by_id(strangers))
                portraits.update(self._store.portraits_by_looks(strangers))
        return [
            (hit, people[hit.person_id], _shown(portraits[hit.person_id], hit.portrait_id))
            for hit in hits
            if hit.person_id in people and hit.portrait_id in portraits.get(hit.person_id, ())
        ]

    def calibration(self, space: Space) -> Calibration:
        """What this gallery taught about a space's cosines, else what the program comes with."""
        if space.id not in self._calibrations:
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


def _shown(portraits: dict[int, tuple[float, Portrait]], nearest_id: int) -> Portrait:
    """The portrait that looks best, or the one most like the face if it looks about as good."""
    looks, nearest = portraits[nearest_id]
    best, other = max(portraits.values(), key=lambda one: one[0])
    return nearest if looks >= _AS_GOOD * best else other


class Gallery(Store):
    """People and their portraits: in one folder, or on a PostgreSQL server that many share.

    Safe to use from several threads. What another process changes is seen at the next match, or
    by ``refresh``. See ``Store`` for the arguments and errors.
    """

    _latest: Snapshot | None = None

    @classmethod
    def open(cls, folder: Path, url: str | None = None) -> Gallery:
        """The gallery in a folder or database; an empty one is made where there is none."""
        return cls(folder, url)

    def genders(self) -> frozenset[str]:
        """Every gender said of somebody, lower case, as of the last match or ``refresh``."""
        return self._snapshot.genders

    def size(self, space: Space, category: str | None = None) -> int:
        """How many people of a space may be found; see ``top_matches`` for the errors."""
        index, snapshot = self.index(space), self._snapshot
        allowed = snapshot.allowed(index, category)
        return len(index) if allowed is None else int(allowed.sum())

    def spaces(self) -> tuple[Space, ...]:
        """The spaces in which somebody can be found, as of the last match or ``refresh``."""
        return self._snapshot.spaces

    def trial(self) -> Trial | None:
        """Whether this gallery's backbones are better together; None if nobody has tried."""
        return self._snapshot.trial

    def calibration(self, space: Space) -> Calibration:
        """How cosines of a space become scores: as learned from this gallery, else as shipped.

        Raises GalleryCorrupt if what was learned makes no sense.
        """
        return self._snapshot.calibration(space)

    def index(self, space: Space) -> SearchIndex:
        """The vectors of a space; see ``top_matches`` for the errors."""
        return self._snapshot.index(space)

    def thumbnail(self, portrait: Portrait) -> bytes:
        """A portrait's picture as a JPEG: its photo, or a silhouette without a sound one."""
        jpeg = self.photo(portrait) if portrait.sound else None
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
        self, query: Embedding, k: int, *, category: str | None = None, genders: Genders = None
    ) -> tuple[Match, ...]:
        """The k people nearest to the query, nearest first; each person once.

        Fewer if there are fewer people; equal cosines by person id.

        Only people in the category (None: in any), of whom the gallery says one of the genders,
        such as ``gallery.records.WOMEN``. The query is of one of ``spaces()``, k at least 1.

        Raises:
            GalleryMissing: If nobody can be found: the gallery or the category is empty, or not
                built for the query's backbone.
            SpaceMismatch: If the gallery was built with other weights or another recipe of it.
            GalleryCorrupt: If vectors that should be there are not.
        """

        def search(snapshot: Snapshot) -> Found:
            index = snapshot.index(query.space)
            hits = index.top(query, k, allowed=snapshot.allowed(index, category, genders))
            return hits, snapshot.calibration(query.space), {}

        return self._matches(search)

    def fused_matches(
        self,
        ensemble: Ensemble,
        queries: Sequence[Embedding],
        k: int,
        *,
        category: str | None = None,
        genders: Genders = None,
    ) -> tuple[Match, ...]:
        """The k people most like a face by several backbones together; else as ``top_matches``.

        ``queries`` are the face in each member's space, in the members' order.
        """
        from gallery.scores.ensemble import fused_top

        def search(snapshot: Snapshot) -> Found:
            indexes = [snapshot.index(space) for space in ensemble.spaces]
            allowed = [snapshot.allowed(index, category, genders) for index in indexes]
            found = fused_top(ensemble, indexes, queries, k, allowed=allowed)
            scores = {hit.person_id: ensemble.member_scores(found[hit]) for hit in found}
            return list(found), ensemble.calibration, scores

        return self._matches(search)

    def _matches(self, search: Callable[[Snapshot], Found]) -> tuple[Match, ...]:
        """Who a search finds: again where somebody was removed since."""
        for _ in range(_ATTEMPTS):
            self.refresh()
            snapshot = self._snapshot
            hits, calibration, member_scores = search(snapshot)
            found = snapshot.recall(hits)
            if len(found) == len(hits):
                break
        return tuple(
            Match(
                person=person,
                portrait=portrait,
                thumbnail=functools.partial(snapshot.thumbnail, portrait),
                cosine=hit.cosine,
                score=calibration.score(hit.cosine),
                one_in=calibration.one_in(hit.cosine),
                member_scores=member_scores.get(person.id, ()),
            )
            for hit, person, portrait in found
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
        before = getattr(self._local, "connection", None)
        with changing(self.database) as connection:
            changes = Transaction(self, connection)
            self._local.connection, self._local.changes = connection, changes
            try:
                yield changes
            finally:
                self._local.connection, self._local.changes = before, None
            if changes.changed:
                connection.execute(_RAISED)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Makes this process the only one that changes the gallery; reading goes on.

        Raises Busy if another process is changing it, and BadSettings if it can't be written.
        """
        busy = Busy(
            "another `lookalike gallery` command is changing this gallery: wait until it is done, "
            "then try again"
        )
        if self.shared:
            # A transaction's lock, not a session's, so that it works through a pooler, too.
            options = self.database.execution_options(isolation_level="READ COMMITTED")
            with options.connect() as connection:
                connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
                if not try_turn(connection, GALLERY_WRITER):
                    raise busy
                yield
            return
        import filelock

        try:
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(errno.EACCES, "Permission denied")
            lock = filelock.FileLock(self.folder / "gallery.lock", timeout=0)
            with lock:
                yield
        except filelock.Timeout as problem:
            raise busy from problem
        except OSError as problem:
            raise BadSettings(
                f"the gallery's folder {self.folder} can't be written ({problem.strerror}): check "
                "its rights and free space, or choose another data folder with --home"
            ) from problem

    @contextmanager
    def working(self, report: Any, *, alone: bool = True) -> Iterator[None]:
        """Times work for a report, within ``writing`` if ``alone``; Ctrl-C ends it and is noted."""
        started = time.perf_counter()
        with self.writing() if alone else contextlib.nullcontext():
            try:
                yield
            except KeyboardInterrupt:
                report.interrupted = True
                self.refresh()
        report.seconds += time.perf_counter() - started

    def settle(self, space: Space, progress: Progress = no_progress) -> None:
        """Prepares the search of a space for as many people as it has now.

        For who may change the gallery, as of the last ``refresh``.
        """
        if space not in self.spaces():
            return
        if self.shared:
            with self.transaction() as changes:
                if settle_index(changes.connection, space):
                    changes.note_vectors(space)
            return
        # More than have changed since the cache; to open the index would take ten times as long.
        states = self._snapshot.states
        gone = sum(one.row_count for one in states.values()) - self.vector_count()
        state = states[space.id]
        file, rows = self.vector_file(state), state.row_count
        cache = newest_cache(file, rows, self._snapshot.revision)
        if cache is not None and will_do(cache, rows - cache.rows.row_count + gone):
            return
        if isinstance(index := self.index(space), GalleryIndex):
            index.settle(progress)

    def check_vectors(self, state: SpaceState) -> None:
        """Raises GalleryCorrupt or FileNotFoundError unless a folder has the rows that count."""
        if not self.shared:
            self.vector_file(state).check(state.row_count)
            with self.reading() as connection:
                rows = counted_rows(connection, state.space)[:, 2]
            if rows.max(initial=-1) >= state.row_count:
                raise senseless(state.space)

    def drop_damaged(self, space: Space) -> None:
        """Forgets a space whose vectors are gone or incomplete, so that they are made anew."""
        with self.transaction() as changes:
            state = self.space_state(space)
            if state is None:
                return
            try:
                self.check_vectors(state)
                if self.shared and len(counted(changes.connection, space)) != 1:
                    changes.remove_space(space)
            except (FileNotFoundError, GalleryCorrupt):
                changes.remove_space(space)

    def compact(self, space: Space) -> bool:
        """Drops dead rows from a space's file; PostgreSQL does so by itself."""
        if self.shared:
            return False
        with self.transaction() as changes:
            state = self.space_state(space)
            if state is None or self.vector_count(space) == state.row_count:
                return False
            found = counted_rows(changes.connection, space)
            found = found[np.lexsort((found[:, 1], found[:, 0]))]
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


def _open_index(store: Store, state: SpaceState, before: SearchIndex | None) -> SearchIndex:
    """The index of a space in that state, or of a newer one."""
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
