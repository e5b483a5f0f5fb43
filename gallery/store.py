"""The store: people, portraits, thumbnails, vectors, bans and scores, on SQLite and PostgreSQL.

One implementation for both. A gallery in a folder, which may be moved as a whole, is::

    gallery.db      the tables of gallery/tables.py
    gallery.lock    held by whoever is changing it
    vectors/        a folder for each space (gallery/vector_file.py)

On PostgreSQL all of it is in the database, the vectors as pgvector keeps them
(gallery/search/pgvector.py).

``Store`` reads and is safe to use from several threads; ``Transaction`` writes. Every read takes
one transaction and sees one moment.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import shutil
import threading
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy import Connection, Select, delete, func, insert, or_, select, update

from engine.errors import BadSettings, Busy, GalleryCorrupt
from engine.types import Box, Space
from gallery.database import (
    GALLERY_WRITER,
    address,
    changing,
    connect,
    connect_server,
    masked,
    migrate,
    need_packages,
    translated,
    try_turn,
)
from gallery.records import (
    Banned,
    FoundPerson,
    FoundPortrait,
    Person,
    Portrait,
    Rejected,
    Stats,
    category_name,
    folded,
)
from gallery.tables import (
    BannedRow,
    CalibrationRow,
    CategoryRow,
    FindingRow,
    GalleryTables,
    PersonCategoryRow,
    PersonRow,
    PortraitRow,
    RejectionRow,
    RevisionRow,
    SpaceRow,
    ThumbnailRow,
    VectorRow,
)
from gallery.vector_file import VectorFile, generation_of, unwritable

if TYPE_CHECKING:
    from sqlalchemy import Row

Value = TypeVar("Value")

_DATABASE: Final = "gallery.db"
_OLDEST_PGVECTOR: Final = (0, 5)  # the first with HNSW
_CHUNK: Final = 500  # values in one IN (...); SQLite's oldest limit is 999
_CHUNK_ROWS: Final = 4_096
_NEW_PORTRAIT: Final = insert(PortraitRow).returning(PortraitRow.id)


@dataclass(frozen=True, slots=True)
class SpaceState:
    """What counts of one space's vectors.

    Attributes:
        space: Which space.
        generation: See ``gallery.tables.SpaceRow``.
        row_count: See there.
        filled: Whether any portrait has a vector.
    """

    space: Space
    generation: int
    row_count: int
    filled: bool


class Store:
    """Keeps a gallery; an empty one is made where there is none.

    Args:
        folder: Of the gallery; with ``url`` nothing is written into it.
        url: A PostgreSQL database, as SQLAlchemy writes it; None for the folder itself.

    Attributes:
        folder: Absolute.
        place: How the operator calls it: the folder or the database, without its password.
        database: Migrated, with the pragmas of gallery/database.py.
        shared: Whether it is on a server.

    Raises:
        BadSettings: If the folder can't be made or written, or the URL or server can't be used.
        GalleryCorrupt: If the database is damaged.
        SetupProblem: If a newer program made it.
        TryLater: If the server does not answer.
    """

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.folder = folder.absolute()
        self.shared = url is not None
        self._local = threading.local()
        if url is None:
            self.place = str(self.folder)
            self.database = _open_folder(self.folder)
        else:
            need_packages()
            where = address(url, "gallery.url")
            self.place = masked(where)
            self.database = _open_server(where, self.place)

    def close(self) -> None:
        """Lets go of the database; the gallery can't be used any more."""
        self.database.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view, whatever other processes write meanwhile.

        Every read of this thread within the block shares it. Within ``transaction``, the view is
        that of the changes.
        """
        within: Connection | None = getattr(self._local, "connection", None)
        if within is not None:
            yield within
            return
        with self.database.connect() as connection, self._shared_by_thread(connection):
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Changes that count all together when the block ends well, else not at all."""
        with changing(self.database) as connection, self._shared_by_thread(connection):
            changes = Transaction(self, connection)
            yield changes
            if changes.changed:
                raised = update(RevisionRow).values(number=RevisionRow.number + 1)
                connection.execute(raised)

    @contextmanager
    def _shared_by_thread(self, connection: Connection) -> Iterator[None]:
        before = getattr(self._local, "connection", None)
        self._local.connection = connection
        try:
            yield
        finally:
            self._local.connection = before

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

        lock = filelock.FileLock(self.folder / "gallery.lock", timeout=0)
        try:
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(errno.EACCES, "Permission denied")
            lock.acquire()
        except filelock.Timeout as problem:
            raise _busy() from problem
        except OSError as problem:
            raise unwritable(self.folder, problem) from problem
        try:
            with translated(self.folder / _DATABASE):
                yield
        except OSError as problem:
            raise unwritable(self.folder, problem) from problem
        finally:
            lock.release()

    @contextmanager
    def _server_lock(self) -> Iterator[None]:
        """A transaction's lock, not a session's, so that it works through a pooler, too."""
        options = self.database.execution_options(isolation_level="READ COMMITTED")
        with options.connect() as connection:
            connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            if not try_turn(connection, GALLERY_WRITER):
                raise _busy()
            yield

    def size_bytes(self) -> int:
        """What the gallery takes on disk."""
        if not self.shared:
            return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        tables = (*GalleryTables.metadata.tables, "person_vector")
        sizes = [func.pg_total_relation_size(func.to_regclass(name)) for name in tables]
        with self.reading() as connection:
            return sum(filter(None, connection.execute(select(*sizes)).one()))

    def revision(self) -> int:
        """A number that has risen if anything has changed."""
        with self.reading() as connection:
            return connection.scalar(select(RevisionRow.number)) or 0

    def people(self, category: str | None = None) -> tuple[Person, ...]:
        """Everybody, or everybody in a category, by name."""
        query = select(PersonRow).order_by(PersonRow.folded_name, PersonRow.id)
        if category is not None:
            query = query.where(PersonRow.id.in_(_in_category(category)))
        with self.reading() as connection:
            return _people(connection, query)

    def people_by_id(self, ids: Collection[int]) -> dict[int, Person]:
        """The people with these ids; whoever is gone is missing."""
        with self.reading() as connection:
            return {
                person.id: person
                for chunk in _chunks(ids)
                for person in _people(connection, select(PersonRow).where(PersonRow.id.in_(chunk)))
            }

    def find_person(self, name: str) -> Person | None:
        """The person of that name, key or Wikidata id; of several the most famous.

        Case and accents don't matter, unless somebody is called exactly like that.
        """
        query = (
            select(PersonRow)
            .where(
                or_(
                    PersonRow.key == name,
                    PersonRow.wikidata_id == name.upper(),
                    PersonRow.folded_name == folded(name),
                )
            )
            .order_by(
                PersonRow.key != name,
                PersonRow.name != unicodedata.normalize("NFC", name),
                func.coalesce(PersonRow.fame, -1).desc(),
                PersonRow.id,
            )
            .limit(1)
        )
        with self.reading() as connection:
            found = _people(connection, query)
        return found[0] if found else None

    def close_names(self, name: str, count: int = 3) -> tuple[str, ...]:
        """Names like this one, most alike first; those that contain it lead."""
        with self.reading() as connection:
            names = {
                row.folded_name: row.name
                for row in connection.execute(select(PersonRow.folded_name, PersonRow.name))
            }
        wanted = folded(name)
        containing = sorted((n for n in names if wanted and wanted in n), key=len)
        alike = difflib.get_close_matches(wanted, names, n=count, cutoff=0.6)
        return tuple(names[n] for n in dict.fromkeys([*containing, *alike]))[:count]

    def portraits(self, person_id: int) -> tuple[Portrait, ...]:
        """Every portrait of a person, oldest first."""
        query = select(PortraitRow).where(PortraitRow.person_id == person_id)
        with self.reading() as connection:
            return _portraits(connection, query.order_by(PortraitRow.id))

    def portraits_by_id(self, ids: Collection[int]) -> dict[int, Portrait]:
        """The portraits with these ids; what is gone is missing."""
        with self.reading() as connection:
            return {
                portrait.id: portrait
                for chunk in _chunks(ids)
                for portrait in _portraits(
                    connection, select(PortraitRow).where(PortraitRow.id.in_(chunk))
                )
            }

    def portraits_by_hash(self, hashes: Collection[str]) -> tuple[Portrait, ...]:
        """The portraits of pictures with these hashes."""
        with self.reading() as connection:
            return tuple(
                portrait
                for chunk in _chunks(hashes)
                for portrait in _portraits(
                    connection, select(PortraitRow).where(PortraitRow.sha256.in_(chunk))
                )
            )

    def portrait_ids(self) -> NDArray[np.int64]:
        """The id of every portrait, rising."""
        return self._ids(select(PortraitRow.id))

    def portrait_counts(self) -> dict[int, int]:
        """How many portraits everybody has, by person id."""
        query = select(PortraitRow.person_id, func.count()).group_by(PortraitRow.person_id)
        with self.reading() as connection:
            return _pairs(connection, query)

    def photo(self, portrait: Portrait) -> bytes | None:
        """The JPEG that is kept of a portrait; None where it came without its photo."""
        query = select(ThumbnailRow.jpeg).where(ThumbnailRow.portrait_id == portrait.id)
        with self.reading() as connection:
            return connection.scalar(query)

    def photos(self, portrait_ids: Collection[int]) -> dict[int, bytes]:
        """The JPEGs of portraits by their ids; those that came without a photo are missing."""
        found: dict[int, bytes] = {}
        with self.reading() as connection:
            for chunk in _chunks(portrait_ids):
                query = select(ThumbnailRow).where(ThumbnailRow.portrait_id.in_(chunk))
                found |= _pairs(connection, query)
        return found

    def without_photo(self) -> NDArray[np.int64]:
        """Ids of the portraits that came without a photo, rising."""
        photo = ThumbnailRow.portrait_id
        query = select(PortraitRow.id).outerjoin(ThumbnailRow, photo == PortraitRow.id)
        return self._ids(query.where(photo.is_(None)))

    def categories(self) -> tuple[str, ...]:
        """Every category that somebody is in, by name."""
        return tuple(self.category_sizes())

    def category_sizes(self) -> dict[str, int]:
        """Every category with somebody in it, and how many people, by name."""
        query = (
            select(CategoryRow.name, func.count())
            .join(PersonCategoryRow, PersonCategoryRow.category_id == CategoryRow.id)
            .group_by(CategoryRow.name)
            .order_by(CategoryRow.name)
        )
        with self.reading() as connection:
            return _pairs(connection, query)

    def category_person_ids(self, category: str) -> NDArray[np.int64]:
        """Ids of the people in a category, rising; empty if there is no such category."""
        return self._ids(_in_category(category))

    def genders(self) -> frozenset[str]:
        """Every gender that is said of somebody, lower case."""
        query = select(func.lower(PersonRow.gender)).where(PersonRow.gender.is_not(None))
        with self.reading() as connection:
            return frozenset(connection.scalars(query.distinct()))

    def gender_person_ids(self, genders: Collection[str]) -> NDArray[np.int64]:
        """Ids of the people whose gender is one of these words (lower case), rising."""
        return self._ids(
            select(PersonRow.id).where(func.lower(PersonRow.gender).in_(sorted(genders)))
        )

    def counts(self) -> tuple[int, int]:
        """How many people and portraits there are."""
        with self.reading() as connection:
            people = connection.scalar(select(func.count()).select_from(PersonRow))
            portraits = connection.scalar(select(func.count()).select_from(PortraitRow))
        return people or 0, portraits or 0

    def stats(self) -> Stats:
        """How much there is of everything."""
        rejected = select(RejectionRow.reason, func.count()).group_by(RejectionRow.reason)
        embedded = select(VectorRow.space_id, func.count()).group_by(VectorRow.space_id)
        with self.reading() as connection:
            vectors = _pairs(connection, embedded)
            people, portraits = self.counts()
            return Stats(
                people=people,
                portraits=portraits,
                categories=self.category_sizes(),
                vectors={s.space: vectors.get(s.space.id, 0) for s in self.space_states()},
                rejections=_pairs(connection, rejected),
            )

    def known(self, sha256: str, screening: int) -> Person | Rejected | None:
        """What became of a picture when it was seen before.

        Args:
            sha256: Of its bytes.
            screening: Version of the rules; what others rejected is not known.

        Returns:
            Whose portrait it is, or why it was not taken; None if it is new.
        """
        with self.reading() as connection:
            owner = self.owners([sha256]).get(sha256)
            if owner is not None:
                return owner
            query = select(RejectionRow.reason).where(
                RejectionRow.sha256 == sha256, RejectionRow.screening == screening
            )
            reason = connection.scalar(query)
        return None if reason is None else Rejected(reason)

    def owners(self, hashes: Collection[str]) -> dict[str, Person]:
        """Whose portraits pictures are, by their hashes; what is new is missing."""
        found: dict[str, int] = {}
        with self.reading() as connection:
            for chunk in _chunks(hashes):
                query = select(PortraitRow.sha256, PortraitRow.person_id)
                found |= _pairs(connection, query.where(PortraitRow.sha256.in_(chunk)))
            people = self.people_by_id(set(found.values()))
        return {sha256: people[person_id] for sha256, person_id in found.items()}

    def banned(self) -> Banned:
        """Who asked to be removed, so that no source brings them back."""
        with self.reading() as connection:
            rows = connection.execute(select(BannedRow)).all()
        return Banned(
            keys=frozenset(row.key for row in rows),
            wikidata_ids=frozenset(row.wikidata_id for row in rows if row.wikidata_id is not None),
            names=frozenset(row.folded_name for row in rows),
            bare_names=frozenset(row.folded_name for row in rows if row.wikidata_id is None),
        )

    def finding(self, name: str) -> dict[str, Any] | None:
        """What ``Transaction.keep_finding`` kept under a name."""
        query = select(FindingRow.content).where(FindingRow.name == name)
        with self.reading() as connection:
            return connection.scalar(query)

    def read_calibration(self, space: Space) -> bytes | None:
        """What ``Transaction.keep_calibration`` kept of a space; None without."""
        query = select(CalibrationRow.content).where(CalibrationRow.space_id == space.id)
        with self.reading() as connection:
            content = connection.scalar(query)
        return None if content is None else content.encode()

    def calibration_place(self, space: Space) -> str:
        """How the operator calls what ``read_calibration`` reads."""
        return f"the calibration of {space.id} in {self.place}"

    def space_states(self) -> tuple[SpaceState, ...]:
        """Every embedding space, by id."""
        filled = select(VectorRow.portrait_id).where(VectorRow.space_id == SpaceRow.id).exists()
        query = select(SpaceRow, filled.label("filled")).order_by(SpaceRow.id)
        with self.reading() as connection:
            return tuple(
                SpaceState(
                    space=Space(row.backbone, row.weights_sha256, row.recipe, row.dimensions),
                    generation=row.generation,
                    row_count=row.row_count,
                    filled=bool(row.filled),
                )
                for row in connection.execute(query)
            )

    def space_state(self, space: Space) -> SpaceState | None:
        """What counts of one space's vectors; None if there is no such space."""
        return next((state for state in self.space_states() if state.space == space), None)

    def unembedded(self, space: Space) -> NDArray[np.int64]:
        """Ids of the portraits with a photo that have no vector in a space, rising."""
        vector = (VectorRow.portrait_id == ThumbnailRow.portrait_id) & (
            VectorRow.space_id == space.id
        )
        query = select(ThumbnailRow.portrait_id).outerjoin(VectorRow, vector)
        return self._ids(query.where(VectorRow.portrait_id.is_(None)))

    def vector_count(self, space: Space) -> int:
        """How many portraits have a vector in a space."""
        query = select(func.count()).where(VectorRow.space_id == space.id)
        with self.reading() as connection:
            return connection.scalar(query) or 0

    def embedded(self, space: Space) -> NDArray[np.int64]:
        """Ids of the portraits that have a vector in a space, rising; none if nothing has."""
        return self._ids(select(VectorRow.portrait_id).where(VectorRow.space_id == space.id))

    def vectors(self, space: Space, portrait_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of portraits, in that order: float32 (len(portrait_ids), D).

        Args:
            space: Whose vectors.
            portrait_ids: int64 (n,); every one of them in ``embedded(space)``.

        Raises:
            KeyError: If a portrait has none.
            GalleryCorrupt: If the file is gone or shorter than the database says.
        """
        with self.reading() as connection:
            if self.shared:
                from gallery.search.pgvector import vectors_of_portraits

                return vectors_of_portraits(connection, space, portrait_ids)
            state, rows = self.space_state(space), self._row_numbers(space, portrait_ids)
        if state is None:
            return np.empty((0, space.dimensions), np.float32)
        with _present(space):
            return self.vector_file(state).rows(rows)

    def _row_numbers(self, space: Space, portrait_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        query = select(VectorRow.portrait_id, VectorRow.row).where(VectorRow.space_id == space.id)
        rows: dict[int, int] = {}
        with self.reading() as connection:
            if len(portrait_ids) > 20 * _CHUNK:
                rows = _pairs(connection, query)
            else:
                for chunk in _chunks(portrait_ids.tolist()):
                    rows |= _pairs(connection, query.where(VectorRow.portrait_id.in_(chunk)))
        try:
            return np.array([rows[one] for one in portrait_ids.tolist()], np.int64)
        except KeyError:
            raise KeyError(f"a portrait has no vector in {space.id}") from None

    def space_folder(self, space: Space) -> Path:
        """Where a gallery in a folder keeps a space's vectors."""
        return self.folder / "vectors" / space.id

    def vector_file(self, state: SpaceState) -> VectorFile:
        """The file that holds a space's vectors; only of a gallery in a folder."""
        return VectorFile(self.space_folder(state.space), state.space, state.generation)

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

    def drop_damaged(self, space: Space) -> bool:
        """Forgets a space whose vectors are gone or incomplete, so that they are made anew."""
        with self.transaction() as changes:
            state = self.space_state(space)
            if state is None or self._is_whole(changes.connection, state):
                return False
            changes.remove_space(space)
        return True

    def _is_whole(self, connection: Connection, state: SpaceState) -> bool:
        if self.shared:
            from gallery.search.pgvector import counted

            return len(counted(connection, state.space)) == 1
        try:
            self.vector_file(state).check(state.row_count)
        except (FileNotFoundError, GalleryCorrupt):
            return False
        return True

    def compact(self, space: Space) -> bool:
        """Drops dead rows from a space's file; PostgreSQL does so by itself."""
        if self.shared:
            return False
        columns = select(PortraitRow.person_id, VectorRow.portrait_id, VectorRow.row)
        query = columns.join(PortraitRow, PortraitRow.id == VectorRow.portrait_id)
        query = query.where(VectorRow.space_id == space.id)
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

    def stray_files(self) -> list[Path]:
        """Files and folders of vectors that don't count; on a server there are none."""
        root = self.folder / "vectors"
        if self.shared or not root.is_dir():
            return []
        generations = {state.space.id: state.generation for state in self.space_states()}
        return [
            path
            for folder in sorted(root.iterdir())
            if folder.is_dir()
            for path in sorted(folder.iterdir())
            if folder.name not in generations
            or generation_of(path.name) not in {None, generations[folder.name]}
        ]

    def sweep_vectors(self) -> int:
        """Removes files of spaces and generations that don't count; how many there were."""
        stray = self.stray_files()
        for path in stray:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            with contextlib.suppress(OSError):  # others are in it
                path.parent.rmdir()
        return len(stray)

    def _ids(self, query: Select[Any]) -> NDArray[np.int64]:
        with self.reading() as connection:
            ids = connection.scalars(query).all()
        return np.sort(np.asarray(ids, dtype=np.int64))


class Transaction:
    """Changes that count together; ``Store.transaction`` makes and commits it.

    Attributes:
        connection: For statements of the caller's own.
        changed: Whether anything has changed, so that readers look again.
    """

    def __init__(self, store: Store, connection: Connection) -> None:
        self._store = store
        self.connection = connection
        self.changed = False

    def run(self, statement: Any, values: Any = None) -> Any:
        """Executes a statement that changes something."""
        self.changed = True
        return self.connection.execute(statement, values)

    def add_person(self, person: FoundPerson) -> int:
        """The person's id; they are added if they are new, and completed if more is known now."""
        query = select(PersonRow).where(PersonRow.key == person.key)
        row = self.connection.execute(query).one_or_none()
        known = {
            "wikidata_id": person.wikidata_id,
            "country": person.country,
            "gender": person.gender,
            "fame": person.fame,
        }
        if row is None:
            name = unicodedata.normalize("NFC", person.name)
            new = {"key": person.key, "name": name, "folded_name": folded(name), **known}
            person_id: int = self.run(insert(PersonRow).returning(PersonRow.id), new).scalar_one()
        else:
            person_id = row.id
            news = {
                field: value
                for field, value in known.items()
                if value is not None and getattr(row, field) != value
            }
            if news:
                self.run(update(PersonRow).where(PersonRow.id == person_id).values(**news))
        self._join_categories(person_id, person.categories)
        return person_id

    def _join_categories(self, person_id: int, names: Sequence[str]) -> None:
        wanted = {category_name(name) for name in names} - {""}
        if not wanted:
            return
        known = select(CategoryRow.name, CategoryRow.id).where(CategoryRow.name.in_(wanted))
        ids: dict[str, int] = _pairs(self.connection, known)
        for name in sorted(wanted - ids.keys()):
            made = insert(CategoryRow).values(name=name).returning(CategoryRow.id)
            ids[name] = self.run(made).scalar_one()
        query = select(PersonCategoryRow.category_id).where(
            PersonCategoryRow.person_id == person_id
        )
        joined = set(self.connection.scalars(query))
        for category_id in sorted(set(ids.values()) - joined):
            self.run(
                insert(PersonCategoryRow), {"person_id": person_id, "category_id": category_id}
            )

    def add_portrait(
        self,
        person_id: int,
        found: FoundPortrait,
        *,
        sha256: str,
        size_px: tuple[int, int],
        landmarks: Sequence[Sequence[float]],
        box: Box,
        jpeg: bytes | None = None,
    ) -> int:
        """Adds a portrait and returns its id.

        Args:
            person_id: Whose.
            found: Author, licence and source.
            sha256: Of the original bytes; not in the gallery yet.
            size_px: Width and height of the thumbnail.
            landmarks: Five pairs (x, y), thumbnail pixels.
            box: The face, thumbnail pixels.
            jpeg: The thumbnail; None for a portrait without its photo.
        """
        # Given as parameters, not as values(...): so the statement is put together only once.
        content = {
            "person_id": person_id,
            "sha256": sha256,
            **_geometry(size_px, landmarks, box),
            "author": found.author,
            "licence": found.licence,
            "licence_url": found.licence_url,
            "source_url": found.source_url,
        }
        portrait_id: int = self.run(_NEW_PORTRAIT, content).scalar_one()
        if jpeg is not None:
            self.run(insert(ThumbnailRow), {"portrait_id": portrait_id, "jpeg": jpeg})
        return portrait_id

    def set_photo(
        self,
        portrait_id: int,
        jpeg: bytes,
        *,
        size_px: tuple[int, int],
        landmarks: Sequence[Sequence[float]],
        box: Box,
    ) -> None:
        """Gives a portrait its photo, in place of an earlier one; see ``add_portrait``."""
        geometry = _geometry(size_px, landmarks, box)
        self.run(update(PortraitRow).where(PortraitRow.id == portrait_id).values(**geometry))
        self.run(delete(ThumbnailRow).where(ThumbnailRow.portrait_id == portrait_id))
        self.run(insert(ThumbnailRow), {"portrait_id": portrait_id, "jpeg": jpeg})

    def reject(self, sha256: str, reason: str, screening: int) -> None:
        """Remembers why a picture was not taken, in place of what was remembered before."""
        self.forget_rejection(sha256)
        self.run(insert(RejectionRow), {"sha256": sha256, "reason": reason, "screening": screening})

    def forget_rejection(self, sha256: str) -> None:
        """Forgets that a picture was not taken."""
        self.connection.execute(delete(RejectionRow).where(RejectionRow.sha256 == sha256))

    def person_count(self) -> int:
        """How many people there are."""
        return self.connection.scalar(select(func.count()).select_from(PersonRow)) or 0

    def add_vectors(
        self, space: Space, vectors: NDArray[np.float32], portrait_ids: Sequence[int]
    ) -> None:
        """Adds vectors of portraits to a space, which is made if there is none of it yet.

        Args:
            space: Which.
            vectors: float32 (n, D), n >= 1, unit length.
            portrait_ids: n of them; none has a vector in the space yet.

        Raises:
            GalleryCorrupt: If the vectors that should be there are gone or damaged.
        """
        state = self._store.space_state(space) or self._add_space(space)
        if self._store.shared:
            from gallery.search.pgvector import add_vectors

            persons = self._owners(portrait_ids)
            whose = [persons[one] for one in portrait_ids]
            add_vectors(self.connection, space, vectors, portrait_ids, whose)
            self.note_vectors(space, len(vectors))
            return
        from gallery.search.cache import remove_caches

        file = self._store.vector_file(state)
        # A cache of rows that are about to be overwritten: the database is an older copy.
        remove_caches(file.folder, beyond=state.row_count)
        with _present(space):
            row_count = file.append(state.row_count, vectors)
        rows = range(state.row_count, row_count)
        values = [
            {"space_id": space.id, "portrait_id": portrait_id, "row": row}
            for portrait_id, row in zip(portrait_ids, rows, strict=True)
        ]
        self.run(insert(VectorRow), values)
        self._set_rows(space, state.generation, row_count)

    def remove_person(self, person_id: int) -> int:
        """Removes a person with all their portraits; how many these were."""
        query = select(PortraitRow.id).where(PortraitRow.person_id == person_id)
        portrait_ids = list(self.connection.scalars(query))
        self.remove_portraits(portrait_ids)
        self.run(delete(PersonRow).where(PersonRow.id == person_id))
        unused = select(PersonCategoryRow.category_id)
        self.run(delete(CategoryRow).where(CategoryRow.id.not_in(unused)))
        return len(portrait_ids)

    def remove_portraits(self, portrait_ids: Sequence[int]) -> None:
        """Removes portraits, their thumbnails and vectors."""
        self.remove_vectors(portrait_ids)
        for chunk in _chunks(portrait_ids):
            self.run(delete(PortraitRow).where(PortraitRow.id.in_(chunk)))

    def remove_vectors(self, portrait_ids: Sequence[int]) -> None:
        """Removes the vectors of portraits, in every space."""
        people = self._owners(portrait_ids) if self._store.shared else {}
        for state in self._store.space_states() if portrait_ids else ():
            gone: list[int] = []
            for chunk in _chunks(portrait_ids):
                statement = delete(VectorRow).where(
                    VectorRow.space_id == state.space.id, VectorRow.portrait_id.in_(chunk)
                )
                gone += self.run(statement.returning(VectorRow.portrait_id)).scalars()
            if gone and self._store.shared:
                from gallery.search.pgvector import sum_up

                sum_up(self.connection, state.space, [people[one] for one in gone])
                self.note_vectors(state.space, -len(gone))

    def merge_people(self, kept: Person, other: Person) -> None:
        """Gives the portraits of one person to another, who is then all there is of both.

        Args:
            kept: Takes everything over: categories, and what was not known of them.
            other: Is gone afterwards.
        """
        query = select(PortraitRow.id).where(PortraitRow.person_id == other.id)
        moved = list(self.connection.scalars(query))
        held = []
        for state in self._store.space_states():
            mine = select(VectorRow.portrait_id).where(
                VectorRow.space_id == state.space.id, VectorRow.portrait_id.in_(query)
            )
            ids = np.array(self.connection.scalars(mine).all(), np.int64)
            held.append((state.space, ids, self._store.vectors(state.space, ids)))
        # New rows, so that whoever has the old ones in memory sees that they are other people's.
        self.remove_vectors(moved)
        self.run(
            update(PortraitRow).where(PortraitRow.person_id == other.id).values(person_id=kept.id)
        )
        for space, ids, vectors in held:
            if len(ids):
                self.add_vectors(space, vectors, ids.tolist())
        self.run(delete(PersonRow).where(PersonRow.id == other.id))
        fame = [one.fame for one in (kept, other) if one.fame is not None]
        self.add_person(
            FoundPerson(
                key=kept.key,
                name=kept.name,
                categories=other.categories,
                wikidata_id=kept.wikidata_id or other.wikidata_id,
                country=kept.country or other.country,
                gender=kept.gender or other.gender,
                fame=max(fame, default=None),
            )
        )

    def remove_space(self, space: Space) -> None:
        """Forgets a space; its file is swept by the next build."""
        self.run(delete(SpaceRow).where(SpaceRow.id == space.id))

    def renumber(self, space: Space, generation: int, portrait_ids: Sequence[int]) -> None:
        """Switches a space to a new file, whose rows are those of these portraits."""
        self.run(delete(VectorRow).where(VectorRow.space_id == space.id))
        values = [
            {"space_id": space.id, "portrait_id": portrait_id, "row": row}
            for row, portrait_id in enumerate(portrait_ids)
        ]
        if values:
            self.run(insert(VectorRow), values)
        self._set_rows(space, generation, len(values))

    def keep_calibration(self, space: Space, content: bytes) -> None:
        """Keeps what was learned of a space's scores; the space must be there."""
        self.run(delete(CalibrationRow).where(CalibrationRow.space_id == space.id))
        self.run(insert(CalibrationRow), {"space_id": space.id, "content": content.decode()})

    def keep_finding(self, name: str, content: dict[str, Any] | None) -> None:
        """Keeps what was found out about the gallery, in place of what was; None forgets it."""
        self.run(delete(FindingRow).where(FindingRow.name == name))
        if content is not None:
            self.run(insert(FindingRow), {"name": name, "content": content})

    def ban(self, key: str, name: str, wikidata_id: str | None) -> None:
        """Remembers that no source brings somebody back."""
        self.run(delete(BannedRow).where(BannedRow.key == key))
        row = {"key": key, "name": name, "folded_name": folded(name), "wikidata_id": wikidata_id}
        self.run(insert(BannedRow), row)

    def unban(self, name: str) -> int:
        """Forgets bans of those of a name, key or Wikidata id; how many there were."""
        named = or_(
            BannedRow.key == name,
            BannedRow.wikidata_id == name.upper(),
            BannedRow.folded_name == folded(name),
        )
        count: int = self.run(delete(BannedRow).where(named)).rowcount
        return count

    def _add_space(self, space: Space) -> SpaceState:
        generation = 0
        if not self._store.shared:
            generation = VectorFile.create(self._store.space_folder(space), space).generation
        values = {
            "id": space.id,
            "backbone": space.backbone,
            "weights_sha256": space.weights_sha256,
            "recipe": space.recipe,
            "dimensions": space.dimensions,
            "generation": generation,
            "row_count": 0,
        }
        self.run(insert(SpaceRow), values)
        return SpaceState(space, generation, 0, filled=False)

    def _set_rows(self, space: Space, generation: int, row_count: int) -> None:
        values = {"generation": generation, "row_count": row_count}
        self.run(update(SpaceRow).where(SpaceRow.id == space.id).values(**values))

    def note_vectors(self, space: Space, more: int = 0) -> None:
        """Counts vectors of a space on PostgreSQL.

        Whoever has the space's people in memory sees by the generation that they changed.
        """
        values = {"generation": SpaceRow.generation + 1, "row_count": SpaceRow.row_count + more}
        self.run(update(SpaceRow).where(SpaceRow.id == space.id).values(**values))

    def settle_index(self, space: Space) -> bool:
        """Makes or drops PostgreSQL's index of many people; whether anything changed."""
        from gallery.search.pgvector import settle_index

        changed = settle_index(self.connection, space)
        if changed:
            self.note_vectors(space)
        return changed

    def _owners(self, portrait_ids: Sequence[int]) -> dict[int, int]:
        found: dict[int, int] = {}
        for chunk in _chunks(portrait_ids):
            query = select(PortraitRow.id, PortraitRow.person_id).where(PortraitRow.id.in_(chunk))
            found |= _pairs(self.connection, query)
        return found


def _people(connection: Connection, query: Select[Any]) -> tuple[Person, ...]:
    rows = connection.execute(query).all()
    categories: dict[int, list[str]] = {row.id: [] for row in rows}
    for chunk in _chunks(categories):
        memberships = (
            select(PersonCategoryRow.person_id, CategoryRow.name)
            .join(CategoryRow, CategoryRow.id == PersonCategoryRow.category_id)
            .where(PersonCategoryRow.person_id.in_(chunk))
        )
        for person_id, name in connection.execute(memberships):
            categories[person_id].append(name)
    return tuple(
        Person(
            id=row.id,
            key=row.key,
            name=row.name,
            categories=tuple(sorted(categories[row.id])),
            wikidata_id=row.wikidata_id,
            country=row.country,
            gender=row.gender,
            fame=row.fame,
        )
        for row in rows
    )


def _portraits(connection: Connection, query: Select[Any]) -> tuple[Portrait, ...]:
    return tuple(_portrait(row) for row in connection.execute(query))


def _portrait(row: Row[Any]) -> Portrait:
    return Portrait(
        id=row.id,
        person_id=row.person_id,
        sha256=row.sha256,
        width_px=row.width_px,
        height_px=row.height_px,
        landmarks=np.asarray(row.landmarks, dtype=np.float32),
        box=Box(row.box_x, row.box_y, row.box_w, row.box_h),
        author=row.author,
        licence=row.licence,
        licence_url=row.licence_url,
        source_url=row.source_url,
    )


def _geometry(
    size_px: tuple[int, int], landmarks: Sequence[Sequence[float]], box: Box
) -> dict[str, Any]:
    return {
        "width_px": size_px[0],
        "height_px": size_px[1],
        "landmarks": [[float(x), float(y)] for x, y in landmarks],
        "box_x": box.x,
        "box_y": box.y,
        "box_w": box.w,
        "box_h": box.h,
    }


def _in_category(category: str) -> Select[Any]:
    return (
        select(PersonCategoryRow.person_id)
        .join(CategoryRow, CategoryRow.id == PersonCategoryRow.category_id)
        .where(CategoryRow.name == category_name(category))
    )


def _pairs(connection: Connection, query: Any) -> dict[Any, Any]:
    """A dictionary of the rows of a query for two columns."""
    return {key: value for key, value in connection.execute(query)}  # noqa: C416 - rows are no pairs to mypy


def _chunks(values: Collection[Value]) -> Iterator[Sequence[Value]]:
    listed = list(values)
    for start in range(0, len(listed), _CHUNK):
        yield listed[start : start + _CHUNK]


@contextmanager
def _present(space: Space) -> Iterator[None]:
    """Says in a sentence that a space's file is gone."""
    try:
        yield
    except FileNotFoundError as problem:
        raise missing(space) from problem


def missing(space: Space) -> GalleryCorrupt:
    """What the operator is told of a space whose file is gone."""
    return GalleryCorrupt(
        f"vectors of {space.id} are missing: run `lookalike gallery build --model {space.backbone}`"
    )


def _busy() -> Busy:
    return Busy(
        "another `lookalike gallery` command is changing this gallery: wait until it is done, "
        "then try again"
    )


def _open_folder(folder: Path) -> sa.Engine:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BadSettings(
            f"the gallery's folder {folder} can't be made ({problem.strerror}): choose another "
            "data folder with --home"
        ) from problem
    file = folder / _DATABASE
    database = connect(file)
    try:
        with translated(file):
            migrate(database)
    except BaseException:
        database.dispose()
        raise
    return database


def _open_server(where: sa.URL, place: str) -> sa.Engine:
    database = connect_server(where)
    try:
        _check_encoding(database, place)
        migrate(database)
        _check_pgvector(database, place)
    except BaseException:
        database.dispose()
        raise
    return database


def _check_encoding(database: sa.Engine, place: str) -> None:
    with database.connect() as connection:
        encoding = connection.scalar(select(func.current_setting("server_encoding")))
    if encoding != "UTF8":
        raise BadSettings(
            f"the database {place} can't hold every name, for its encoding is {encoding}: make one "
            "with ENCODING 'UTF8' TEMPLATE template0"
        )


def _check_pgvector(database: sa.Engine, place: str) -> None:
    query = sa.text("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    with database.connect() as connection:
        version = connection.scalar(query)
    numbers = tuple(int(part) for part in str(version or "0").split(".")[:2] if part.isdigit())
    if numbers < _OLDEST_PGVECTOR:
        raise BadSettings(
            f"the database {place} has pgvector {version}, which is too old: install 0.5 or newer "
            "and run `ALTER EXTENSION vector UPDATE`"
        )
