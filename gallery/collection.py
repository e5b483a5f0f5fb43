"""The gallery as everybody else sees it: people, portraits, and who is most like a face."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadSettings, Busy, GalleryCorrupt, GalleryMissing, SpaceMismatch
from engine.types import Embedding, Space
from gallery.catalogue import Catalogue, Person, Portrait
from gallery.database import connect, migrate, translated
from gallery.index import GalleryIndex, Hit
from gallery.spaces import SpaceState
from gallery.vectors import VectorFiles

if TYPE_CHECKING:
    from gallery.calibration import Calibration

__all__ = ["Gallery", "Match", "Stats", "unwritable"]

_DATABASE: Final = "gallery.db"
_ATTEMPTS: Final = 5
_REMEMBERED: Final = 2_000  # portraits; more are forgotten and read again


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


@dataclass(slots=True)
class _Moment:
    """The gallery at one revision; what is derived from it is made at first use."""

    revision: int
    states: dict[str, SpaceState]
    indexes: dict[str, GalleryIndex] = field(default_factory=dict)
    calibrations: dict[str, Calibration] = field(default_factory=dict)
    allowed: dict[tuple[str, str], NDArray[np.bool_]] = field(default_factory=dict)
    people: dict[int, Person] = field(default_factory=dict)
    portraits: dict[int, Portrait] = field(default_factory=dict)


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
        self._lock = threading.Lock()
        self._moment = self._look()

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
        return tuple(
            state.space
            for state in self._moment.states.values()
            if state.row_count > len(state.dead)
        )

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
            self._moment = self._look(self._moment)

    def top_matches(
        self, query: Embedding, k: int, *, category: str | None = None
    ) -> tuple[Match, ...]:
        """The k people nearest to the query, nearest first; each person once.

        Args:
            query: Of one of ``spaces()``.
            k: At least 1; fewer are returned if there are fewer people.
            category: Only people in this category; None for everybody.

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
            index = self._index(moment, query.space)
            hits = index.top(query, k, allowed=self._allowed(moment, index, category))
            self._recall(moment, hits)
            people, portraits = moment.people, moment.portraits
            if all(hit.person_id in people and hit.portrait_id in portraits for hit in hits):
                break  # else somebody was removed since
        calibration = self._calibration(moment, query.space)
        return tuple(
            Match(
                person=people[hit.person_id],
                portrait=portraits[hit.portrait_id],
                cosine=hit.cosine,
                score=calibration.score(hit.cosine),
                one_in=calibration.one_in(hit.cosine),
            )
            for hit in hits
            if hit.person_id in people and hit.portrait_id in portraits
        )

    def calibration(self, space: Space) -> Calibration:
        """How cosines of a space become scores: as learned from this gallery, else as shipped."""
        return self._calibration(self._moment, space)

    def index(self, space: Space) -> GalleryIndex:
        """The vectors of a space; see ``top_matches`` for the errors."""
        return self._index(self._moment, space)

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

    def _look(self, before: _Moment | None = None) -> _Moment:
        revision, states = self.catalogue.moment()
        now = _Moment(revision, {state.space.id: state for state in states})
        if before is not None:
            for space_id, index in before.indexes.items():
                then, state = before.states[space_id], now.states.get(space_id)
                if state is not None and state.same_rows(then):
                    now.indexes[space_id] = index
        return now

    def _index(self, moment: _Moment, space: Space) -> GalleryIndex:
        state = moment.states.get(space.id)
        if state is None or state.row_count == len(state.dead):
            raise self._why_missing(moment, space)
        with self._lock:
            for _ in range(_ATTEMPTS):
                if (ready := moment.indexes.get(space.id)) is not None:
                    return ready
                try:
                    files = VectorFiles.open(self.space_folder(space), space, state.generation)
                    moment.indexes[space.id] = GalleryIndex(files, state.row_count, state.dead)
                except FileNotFoundError as problem:  # swept after a build
                    latest = {s.space.id: s for s in self.catalogue.space_states()}.get(space.id)
                    if latest is None or latest.same_rows(state):
                        raise GalleryCorrupt(
                            f"vectors of {space.id} are missing: run `lookalike gallery build "
                            f"--model {space.backbone}`"
                        ) from problem
                    state = moment.states[space.id] = latest
        return moment.indexes[space.id]

    def _recall(self, moment: _Moment, hits: Sequence[Hit]) -> None:
        """Reads of the people and portraits found what was not read before."""
        if len(moment.portraits) > _REMEMBERED:
            moment.people, moment.portraits = {}, {}
        people = {hit.person_id for hit in hits} - moment.people.keys()
        portraits = {hit.portrait_id for hit in hits} - moment.portraits.keys()
        if people:
            moment.people.update(self.catalogue.people_by_id(people))
        if portraits:
            moment.portraits.update(self.catalogue.portraits_by_id(portraits))

    def _why_missing(self, moment: _Moment, space: Space) -> GalleryMissing | SpaceMismatch:
        build = f"run `lookalike gallery build --model {space.backbone}`"
        if self.catalogue.counts()[1] == 0:
            return GalleryMissing(
                "there is nobody in the gallery yet: add people with `lookalike gallery add "
                "FOLDER`, where FOLDER has a folder of photos for each person"
            )
        others = [s.space for s in moment.states.values() if s.row_count > len(s.dead)]
        if any(other.backbone == space.backbone for other in others):
            return SpaceMismatch(
                f"the gallery was built with another version of {space.backbone}: {build}"
            )
        return GalleryMissing(f"the gallery is not built for the model {space.backbone}: {build}")

    def _allowed(
        self, moment: _Moment, index: GalleryIndex, category: str | None
    ) -> NDArray[np.bool_] | None:
        if category is None:
            return None
        key = (index.space.id, category)
        if key not in moment.allowed:
            members = self.catalogue.category_person_ids(category)
            moment.allowed[key] = np.isin(index.person_ids, members)
        if not moment.allowed[key].any():
            known = ", ".join(self.categories()) or "none"
            raise GalleryMissing(
                f"nobody in the gallery is in the category {category}; its categories: {known}"
            )
        return moment.allowed[key]

    def _calibration(self, moment: _Moment, space: Space) -> Calibration:
        from gallery.calibration import Calibration, prior

        if space.id not in moment.calibrations:
            path = self.space_folder(space) / "calibration.json"
            try:
                learned = Calibration.from_json(json.loads(path.read_bytes())["calibration"])
                if learned.space_id != space.id:
                    raise ValueError("a calibration of another space")  # noqa: TRY301 - as below
            except FileNotFoundError:
                learned = prior(space)
            except (OSError, ValueError, KeyError, TypeError) as problem:
                raise GalleryCorrupt(
                    f"{path} is damaged: run `lookalike gallery build --model {space.backbone}`"
                ) from problem
            moment.calibrations[space.id] = learned
        return moment.calibrations[space.id]


def unwritable(folder: Path, problem: OSError) -> BadSettings:
    """What the operator is told when a folder of the gallery can't be written."""
    return BadSettings(
        f"the gallery's folder {folder} can't be written ({problem.strerror}): check its rights "
        "and free space, or choose another data folder with --home"
    )
