"""The gallery as everybody else sees it: people, portraits, and who is most like a face."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from engine.types import Embedding, Space
from gallery.file_storage import FileStorage
from gallery.records import Match, Person, Portrait, Stats
from gallery.snapshot import Snapshot
from gallery.storage import SearchIndex, Storage

if TYPE_CHECKING:
    from gallery.records import Hit
    from gallery.scores import Calibration
    from gallery.scores.ensemble import Ensemble, FusedHit, MemberScore
    from gallery.scores.trial import Trial

__all__ = ["Gallery"]

_ATTEMPTS: Final = 5


class Gallery:
    """People and their portraits: in one folder, or on a PostgreSQL server that many share.

    Safe to use from several threads. What another process changes is seen at the next match, or
    by ``refresh``.

    Args:
        folder: Absolute. Holds the gallery, or what this machine remembers of a shared one.
        storage: Keeps it.
    """

    def __init__(self, folder: Path, storage: Storage) -> None:
        self.folder = folder
        self.storage = storage
        self.catalogue = storage.catalogue
        self._snapshot = Snapshot(storage)

    @classmethod
    def open(cls, folder: Path, url: str | None = None) -> Gallery:
        """The gallery in a folder or database; an empty one is made where there is none.

        Args:
            folder: Of the gallery; with ``url`` it only keeps copies of the pictures shown.
            url: A PostgreSQL database, as SQLAlchemy writes it; None for the folder itself.

        Raises:
            BadSettings: If the folder can't be made or written, or the URL can't be used.
            GalleryCorrupt: If the catalogue is damaged.
            SetupProblem: If a newer program made it.
            TryLater: If the database does not answer.
        """
        folder = folder.absolute()
        storage = _storage(folder, url)
        try:
            return cls(folder, storage)
        except BaseException:
            storage.catalogue.database.dispose()
            raise

    @property
    def place(self) -> str:
        """How the operator calls it: the folder or the database, without its password."""
        return self.storage.place

    def close(self) -> None:
        """Lets go of the catalogue; the gallery can't be used any more."""
        self.catalogue.database.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def people(self, category: str | None = None) -> tuple[Person, ...]:
        """Everybody, or everybody in a category, by name."""
        return self.catalogue.people(category)

    def find_person(self, name: str) -> Person | None:
        """The person of that name, key or Wikidata id; case and accents don't matter."""
        return self.catalogue.find_person(name)

    def close_names(self, name: str) -> tuple[str, ...]:
        """A few names like this one, most alike first."""
        return self.catalogue.close_names(name)

    def portraits(self, person_id: int) -> tuple[Portrait, ...]:
        """Every portrait of a person, oldest first."""
        portraits = self.catalogue.portraits(person_id)
        self.storage.present(portraits)
        return portraits

    def portrait_counts(self) -> dict[int, int]:
        """How many portraits everybody has, by person id."""
        return self.catalogue.portrait_counts()

    def categories(self) -> tuple[str, ...]:
        """Every category that somebody is in, by name."""
        return tuple(self.catalogue.categories())

    def genders(self) -> frozenset[str]:
        """Every gender said of somebody, lower case, as of the last match or ``refresh``."""
        return self._snapshot.genders

    def spaces(self) -> tuple[Space, ...]:
        """The spaces in which somebody can be found."""
        return self._snapshot.spaces()

    def stats(self) -> Stats:
        """How much there is of everything."""
        people, portraits = self.catalogue.counts()
        return Stats(
            people=people,
            portraits=portraits,
            categories=self.catalogue.categories(),
            vectors={
                state.space: state.row_count - len(state.dead)
                for state in self.catalogue.space_states()
            },
            rejections=self.catalogue.rejections(),
        )

    def size_bytes(self) -> int:
        """What the gallery takes on disk."""
        return self.storage.size_bytes()

    def refresh(self) -> None:
        """Sees what has been changed since, here or by another process; cheap if nothing has."""
        if self.catalogue.revision() != self._snapshot.revision:
            self._snapshot = Snapshot(self.storage, self._snapshot)
            self.storage.noticed()

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
            genders: Only people of whom the catalogue says one of these, such as
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
        return tuple(_match(*one, calibration) for one in found)

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

        Args:
            ensemble: How their scores are fused.
            queries: The face in each member's space, in the members' order.
            k: See ``top_matches``, also for the rest.
            category: See there.
            genders: See there.
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
            _match(
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

    def trial(self) -> Trial | None:
        """Whether this gallery's backbones are better together; None if nobody has tried."""
        return self._snapshot.trial()

    def calibration(self, space: Space) -> Calibration:
        """How cosines of a space become scores: as learned from this gallery, else as shipped."""
        return self._snapshot.calibration(space)

    def index(self, space: Space) -> SearchIndex:
        """The vectors of a space; see ``top_matches`` for the errors."""
        return self._snapshot.index(space)

    def picture(self, portrait: Portrait) -> bytes:
        """The JPEG that is kept of a portrait.

        Raises:
            OSError: If it is gone or can't be read.
        """
        return self.storage.picture(portrait)

    def keep_picture(self, connection: Connection, sha256: str, jpeg: bytes) -> None:
        """Keeps a portrait's thumbnail, in place of an earlier one.

        Args:
            connection: Inside ``changing(self.catalogue.database)``, in whose transaction the
                portrait is enrolled, before or after this.
            sha256: The portrait's.
            jpeg: The thumbnail.

        Raises:
            BadSettings: If the folder can't be written.
        """
        self.storage.keep_picture(connection, sha256, jpeg)

    def embedded(self, space: Space) -> NDArray[np.int64]:
        """Ids of the portraits that have a vector in a space, rising; none if nothing has."""
        return self.storage.embedded(space)

    def vectors(self, space: Space, portrait_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of portraits, in that order: float32 (len(portrait_ids), D).

        Args:
            space: Whose vectors.
            portrait_ids: int64 (n,); every one of them in ``embedded(space)``.

        Raises:
            KeyError: If a portrait has none.
            GalleryCorrupt: If files are shorter than the catalogue says.
        """
        return self.storage.vectors(space, portrait_ids)

    def space_folder(self, space: Space) -> Path:
        """Where a gallery in a folder keeps a space's vectors and calibration."""
        return self.folder / "vectors" / space.id

    def writing(self) -> AbstractContextManager[None]:
        """Makes this process the only one that changes the gallery; reading goes on.

        Raises:
            Busy: If another process is changing it.
            BadSettings: If it can't be written.
        """
        return self.storage.writing()


def _storage(folder: Path, url: str | None) -> Storage:
    if url is None:
        return FileStorage.open(folder)
    from gallery.postgres.server import need_packages

    need_packages()
    from gallery.postgres.storage import PostgresStorage

    return PostgresStorage.open(folder, url)


def _match(
    hit: Hit,
    person: Person,
    portrait: Portrait,
    calibration: Calibration,
    member_scores: tuple[MemberScore, ...] = (),
) -> Match:
    return Match(
        person=person,
        portrait=portrait,
        cosine=hit.cosine,
        score=calibration.score(hit.cosine),
        one_in=calibration.one_in(hit.cosine),
        member_scores=member_scores,
    )
