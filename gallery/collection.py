"""The gallery as everybody else sees it: people, portraits, and who is most like a face."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadSettings, Busy
from engine.types import Embedding, Space
from gallery.catalogue import Catalogue, Person, Portrait
from gallery.database import connect, migrate, translated
from gallery.disk import unwritable
from gallery.index import GalleryIndex
from gallery.moment import Moment
from gallery.spaces import SpaceState
from gallery.vectors import VectorFiles

if TYPE_CHECKING:
    from gallery.calibration import Calibration

__all__ = ["Gallery", "Match", "Stats"]

_DATABASE: Final = "gallery.db"
_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """A person who resembles the face that was asked about.

    Attributes:
        person: Who.
        portrait: Their portrait that is most like it.
        cosine: Likeness to the person, in [-1, 1] (gallery/likeness.py).
        score: 0 to 100, the same meaning in every space.
        one_in: A likeness this high is found between one in so many strangers; at least 1.
    """

    person: Person
    portrait: Portrait
    cosine: float
    score: float
    one_in: float


@dataclass(frozen=True, slots=True)
class Stats:
    """What there is.

    Attributes:
        people: How many.
        portraits: How many.
        categories: People per category.
        vectors: Portraits that can be searched, per space.
        rejections: Pictures that were not taken, by reason.
    """

    people: int
    portraits: int
    categories: dict[str, int]
    vectors: dict[Space, int]
    rejections: dict[str, int]


class Gallery:
    """People and their portraits in one folder, which may be moved as a whole.

    Safe to use from several threads. What another process changes is seen at the next match, or
    by ``refresh``.

    Args:
        folder: Holds catalogue, portraits and vectors.
        catalogue: Migrated.
    """

    def __init__(self, folder: Path, catalogue: Catalogue) -> None:
        self.folder = folder
        self.catalogue = catalogue
        self._moment = Moment(catalogue, folder / "vectors")

    @classmethod
    def open(cls, folder: Path) -> Gallery:
        """The gallery in a folder; an empty one is made where there is none.

        Raises:
            BadSettings: If the folder can't be made or written.
            GalleryCorrupt: If the catalogue is damaged.
            SetupProblem: If a newer program made it.
        """
        folder = folder.absolute()
        file = folder / _DATABASE
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise BadSettings(
                f"the gallery's folder {folder} can't be made ({problem.strerror}): choose another "
                "data folder with --home"
            ) from problem
        database = connect(file)
        try:
            with translated(file):
                migrate(database)
                return cls(folder, Catalogue(database, folder / "portraits"))
        except BaseException:
            database.dispose()
            raise

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
        return self.catalogue.portraits(person_id)

    def portrait_counts(self) -> dict[int, int]:
        """How many portraits everybody has, by person id."""
        return self.catalogue.portrait_counts()

    def categories(self) -> tuple[str, ...]:
        """Every category that somebody is in, by name."""
        return tuple(self.catalogue.categories())

    def spaces(self) -> tuple[Space, ...]:
        """The spaces in which somebody can be found."""
        return self._moment.spaces()

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
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def refresh(self) -> None:
        """Sees what has been changed since, here or by another process; cheap if nothing has."""
        if self.catalogue.revision() != self._moment.revision:
            self._moment = Moment(self.catalogue, self.folder / "vectors", self._moment)

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
                ``gallery.gender.WOMEN``; None for everybody.

        Returns:
            Matches by falling cosine; equal cosines by person id.

        Raises:
            GalleryMissing: If nobody can be found: the gallery or the category is empty, or not
                built for the query's backbone.
            SpaceMismatch: If the gallery was built with other weights or another recipe of it.
            GalleryCorrupt: If vectors that should be there are not.
        """
        for _ in range(_ATTEMPTS):
            self.refresh()
            moment = self._moment
            index = moment.index(query.space)
            hits = index.top(query, k, allowed=moment.allowed(index, category, genders))
            found = moment.recall(hits)
            if len(found) == len(hits):
                break  # else somebody was removed since
        calibration = moment.calibration(query.space)
        return tuple(
            Match(
                person=person,
                portrait=portrait,
                cosine=hit.cosine,
                score=calibration.score(hit.cosine),
                one_in=calibration.one_in(hit.cosine),
            )
            for hit, person, portrait in found
        )

    def calibration(self, space: Space) -> Calibration:
        """How cosines of a space become scores: as learned from this gallery, else as shipped."""
        return self._moment.calibration(space)

    def index(self, space: Space) -> GalleryIndex:
        """The vectors of a space; see ``top_matches`` for the errors."""
        return self._moment.index(space)

    def picture(self, portrait: Portrait) -> bytes:
        """The JPEG that is kept of a portrait.

        Raises:
            OSError: If it is gone or can't be read.
        """
        return portrait.thumbnail.read_bytes()

    def embedded(self, space: Space) -> NDArray[np.int64]:
        """Ids of the portraits that have a vector in a space, rising; none if nothing has."""
        stored = self._stored(space)
        if stored is None:
            return np.empty(0, np.int64)
        state, files = stored
        portraits: NDArray[np.int64] = files.records(state.row_count)["portrait"]
        return np.sort(np.delete(portraits, state.dead))

    def vectors(self, space: Space, portrait_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of portraits, in that order: float32 (len(portrait_ids), D).

        Args:
            space: Whose vectors.
            portrait_ids: int64 (n,); every one of them in ``embedded(space)``.

        Raises:
            KeyError: If a portrait has none.
            GalleryCorrupt: If the files are shorter than the catalogue says.
        """
        stored = self._stored(space)
        if stored is None:
            raise KeyError(f"no portrait has a vector in {space.id}")
        state, files = stored
        portraits = files.records(state.row_count)["portrait"]
        alive = np.delete(np.arange(state.row_count), state.dead)
        order = alive[np.argsort(portraits[alive], kind="stable")]
        places = np.searchsorted(portraits[order], portrait_ids)
        places = np.minimum(places, max(len(order) - 1, 0))
        if len(portrait_ids) and not (
            len(order) and np.array_equal(portraits[order[places]], portrait_ids)
        ):
            raise KeyError(f"a portrait has no vector in {space.id}")
        return files.reader(state.row_count).rows(order[places])

    def _stored(self, space: Space) -> tuple[SpaceState, VectorFiles] | None:
        """What counts of a space now, and its files; None without the space."""
        states = self.catalogue.space_states()
        state = next((one for one in states if one.space == space), None)
        if state is None:
            return None
        return state, VectorFiles.open(self.space_folder(space), space, state.generation)

    def space_folder(self, space: Space) -> Path:
        """Where a space's vectors and calibration are kept."""
        return self.folder / "vectors" / space.id

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Makes this process the only one that changes the gallery; reading goes on.

        Raises:
            Busy: If another process is changing it.
            BadSettings: If the folder can't be written.
        """
        import filelock

        lock = filelock.FileLock(self.folder / "gallery.lock", timeout=0)
        try:
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(errno.EACCES, "Permission denied")
            lock.acquire()
        except filelock.Timeout as problem:
            raise Busy(
                "another `lookalike gallery` command is changing this gallery: wait until it is "
                "done, then try again"
            ) from problem
        except OSError as problem:
            raise unwritable(self.folder, problem) from problem
        try:
            with translated(self.folder / _DATABASE):
                yield
        except OSError as problem:
            raise unwritable(self.folder, problem) from problem
        finally:
            lock.release()
