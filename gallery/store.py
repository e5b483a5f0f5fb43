"""What a gallery holds, as read: people, portraits, photos, vectors, bans and scores.

One implementation for SQLite and PostgreSQL. A gallery in a folder, which may be moved as a whole,
is::

    gallery.db      the tables of gallery/tables.py
    gallery.lock    held by whoever is changing it
    vectors/        a folder for each space (gallery/vector_file.py)

On PostgreSQL all of it is in the database, the vectors as pgvector keeps them
(gallery/search/pgvector.py). gallery/changes.py writes.
"""

from __future__ import annotations

import difflib
import threading
import unicodedata
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy import Connection, Select, func, or_, select

from engine.errors import BadSettings, GalleryCorrupt
from engine.types import Box, Space
from gallery.database import (
    address,
    connect,
    connect_server,
    masked,
    migrate,
    need_packages,
    translated,
)
from gallery.records import Banned, Person, Portrait, Rejected, Stats, category_name, folded
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
from gallery.vector_file import VectorFile, generation_of

DATABASE: Final = "gallery.db"
_OLDEST_PGVECTOR: Final = (0, 5)  # the first with HNSW
CHUNK: Final = 500  # values in one IN (...); SQLite's oldest limit is 999


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
    """Reads a gallery; safe to use from several threads. An empty one is made if there is none.

    Every read takes one transaction and sees one moment.

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the database; the gallery can't be used any more."""
        self.database.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view, whatever other processes write meanwhile.

        Every read of this thread within the block shares it. Within ``Gallery.transaction``, the
        view is that of the changes.
        """
        within: Connection | None = getattr(self._local, "connection", None)
        if within is not None:
            yield within
            return
        with self.database.connect() as connection, self._shared_by_thread(connection):
            yield connection

    @contextmanager
    def _shared_by_thread(self, connection: Connection) -> Iterator[None]:
        before = getattr(self._local, "connection", None)
        self._local.connection = connection
        try:
            yield
        finally:
            self._local.connection = before

    def _fetch(
        self, query: Any, column: Any = None, values: Collection[Any] | None = None
    ) -> list[Any]:
        """The rows of a query; with a column only those where it has one of the values."""
        with self.reading() as connection:
            if values is None:
                return list(connection.execute(query))
            listed = list(values)
            rows: list[Any] = []
            for start in range(0, len(listed), CHUNK):
                chunk = listed[start : start + CHUNK]
                rows += connection.execute(query.where(column.in_(chunk)))
            return rows

    def _fetch_pairs(
        self, query: Any, column: Any = None, values: Collection[Any] | None = None
    ) -> dict[Any, Any]:
        """See ``_fetch``, of a query for two columns."""
        return dict(map(tuple, self._fetch(query, column, values)))

    def _scalar(self, query: Select[Any]) -> Any:
        with self.reading() as connection:
            return connection.scalar(query)

    def _ids(self, query: Select[Any]) -> NDArray[np.int64]:
        with self.reading() as connection:
            return np.sort(np.asarray(connection.scalars(query).all(), dtype=np.int64))

    def size_bytes(self) -> int:
        """What the gallery takes on disk."""
        if not self.shared:
            return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        tables = (*GalleryTables.metadata.tables, "person_vector")
        sizes = [func.pg_total_relation_size(func.to_regclass(name)) for name in tables]
        return sum(filter(None, self._fetch(select(*sizes))[0]))

    def revision(self) -> int:
        """A number that has risen if anything has changed."""
        return self._scalar(select(RevisionRow.number)) or 0

    def people(self, category: str | None = None) -> tuple[Person, ...]:
        """Everybody, or everybody in a category, by name."""
        query = select(PersonRow).order_by(PersonRow.folded_name, PersonRow.id)
        if category is not None:
            query = query.where(PersonRow.id.in_(_in_category(category)))
        return self._people(query)

    def people_by_id(self, ids: Collection[int]) -> dict[int, Person]:
        """The people with these ids; whoever is gone is missing."""
        return {one.id: one for one in self._people(select(PersonRow), ids)}

    def _people(self, query: Select[Any], ids: Collection[int] | None = None) -> tuple[Person, ...]:
        with self.reading():
            rows = self._fetch(query, PersonRow.id, ids)
            categories: dict[int, list[str]] = {row.id: [] for row in rows}
            member = PersonCategoryRow.person_id
            joined = select(member, CategoryRow.name).join(
                CategoryRow, CategoryRow.id == PersonCategoryRow.category_id
            )
            for person_id, name in self._fetch(joined, member, categories):
                categories[person_id].append(name)
        fields = ("id", "key", "name", "wikidata_id", "country", "gender", "fame")
        return tuple(
            Person(
                categories=tuple(sorted(categories[row.id])),
                **{field: getattr(row, field) for field in fields},
            )
            for row in rows
        )

    def find_person(self, name: str) -> Person | None:
        """The person of that name, key or Wikidata id; of several the most famous.

        Case and accents don't matter, unless somebody is called exactly like that.
        """
        query = (
            select(PersonRow)
            .where(named(PersonRow, name))
            .order_by(
                PersonRow.key != name,
                PersonRow.name != unicodedata.normalize("NFC", name),
                func.coalesce(PersonRow.fame, -1).desc(),
                PersonRow.id,
            )
            .limit(1)
        )
        return next(iter(self._people(query)), None)

    def close_names(self, name: str, count: int = 3) -> tuple[str, ...]:
        """Names like this one, most alike first; those that contain it lead."""
        names: dict[str, str] = self._fetch_pairs(select(PersonRow.folded_name, PersonRow.name))
        wanted = folded(name)
        containing = sorted((n for n in names if wanted and wanted in n), key=len)
        alike = difflib.get_close_matches(wanted, names, n=count, cutoff=0.6)
        return tuple(names[n] for n in dict.fromkeys([*containing, *alike]))[:count]

    def portraits(self, person_id: int) -> tuple[Portrait, ...]:
        """Every portrait of a person, oldest first."""
        query = select(PortraitRow).where(PortraitRow.person_id == person_id)
        return tuple(map(_portrait, self._fetch(query.order_by(PortraitRow.id))))

    def portraits_by_id(self, ids: Collection[int]) -> dict[int, Portrait]:
        """The portraits with these ids; what is gone is missing."""
        rows = self._fetch(select(PortraitRow), PortraitRow.id, ids)
        return {row.id: _portrait(row) for row in rows}

    def portraits_by_hash(self, hashes: Collection[str]) -> tuple[Portrait, ...]:
        """The portraits of pictures with these hashes."""
        return tuple(map(_portrait, self._fetch(select(PortraitRow), PortraitRow.sha256, hashes)))

    def portrait_ids(self) -> NDArray[np.int64]:
        """The id of every portrait, rising."""
        return self._ids(select(PortraitRow.id))

    def portrait_owners(self) -> NDArray[np.int64]:
        """The id of every portrait and whose it is, int64 (N, 2), by rising portrait id."""
        query = select(PortraitRow.id, PortraitRow.person_id).order_by(PortraitRow.id)
        return np.array([tuple(row) for row in self._fetch(query)], np.int64).reshape(-1, 2)

    def person_ids(self, portrait_ids: Collection[int]) -> dict[int, int]:
        """Whose portraits these are, by their ids; what is gone is missing."""
        query = select(PortraitRow.id, PortraitRow.person_id)
        return self._fetch_pairs(query, PortraitRow.id, portrait_ids)

    def portrait_counts(self) -> dict[int, int]:
        """How many portraits everybody has, by person id."""
        query = select(PortraitRow.person_id, func.count()).group_by(PortraitRow.person_id)
        return self._fetch_pairs(query)

    def photo(self, portrait: Portrait) -> bytes | None:
        """The JPEG that is kept of a portrait; None where it came without its photo."""
        return self.photos([portrait.id]).get(portrait.id)

    def photos(self, portrait_ids: Collection[int]) -> dict[int, bytes]:
        """The JPEGs of portraits by their ids; those that came without a photo are missing."""
        return self._fetch_pairs(select(ThumbnailRow), ThumbnailRow.portrait_id, portrait_ids)

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
        return self._fetch_pairs(query)

    def category_person_ids(self, category: str) -> NDArray[np.int64]:
        """Ids of the people in a category, rising; empty if there is no such category."""
        return self._ids(_in_category(category))

    def genders(self) -> frozenset[str]:
        """Every gender that is said of somebody, lower case."""
        query = select(func.lower(PersonRow.gender)).where(PersonRow.gender.is_not(None))
        return frozenset(row[0] for row in self._fetch(query.distinct()))

    def gender_person_ids(self, genders: Collection[str]) -> NDArray[np.int64]:
        """Ids of the people whose gender is one of these words (lower case), rising."""
        return self._ids(
            select(PersonRow.id).where(func.lower(PersonRow.gender).in_(sorted(genders)))
        )

    def counts(self) -> tuple[int, int]:
        """How many people and portraits there are."""
        tables = (PersonRow, PortraitRow)
        sizes = [select(func.count()).select_from(one).scalar_subquery() for one in tables]
        people, portraits = self._fetch(select(*sizes))[0]
        return people, portraits

    def stats(self) -> Stats:
        """How much there is of everything."""
        rejected = select(RejectionRow.reason, func.count()).group_by(RejectionRow.reason)
        embedded = select(VectorRow.space_id, func.count()).group_by(VectorRow.space_id)
        with self.reading():
            vectors = self._fetch_pairs(embedded)
            people, portraits = self.counts()
            return Stats(
                people=people,
                portraits=portraits,
                categories=self.category_sizes(),
                vectors={s.space: vectors.get(s.space.id, 0) for s in self.space_states()},
                rejections=self._fetch_pairs(rejected),
            )

    def known(self, sha256: str, screening: int) -> Person | Rejected | None:
        """What became of a picture when it was seen before.

        Args:
            sha256: Of its bytes.
            screening: Version of the rules; what others rejected is not known.

        Returns:
            Whose portrait it is, or why it was not taken; None if it is new.
        """
        query = select(RejectionRow.reason).where(
            RejectionRow.sha256 == sha256, RejectionRow.screening == screening
        )
        with self.reading():
            owner = self.owners([sha256]).get(sha256)
            reason = None if owner else self._scalar(query)
        return owner if reason is None else Rejected(reason)

    def owners(self, hashes: Collection[str]) -> dict[str, Person]:
        """Whose portraits pictures are, by their hashes; what is new is missing."""
        query = select(PortraitRow.sha256, PortraitRow.person_id)
        with self.reading():
            found = self._fetch_pairs(query, PortraitRow.sha256, hashes)
            people = self.people_by_id(set(found.values()))
        return {sha256: people[person_id] for sha256, person_id in found.items()}

    def banned(self) -> Banned:
        """Who asked to be removed, so that no source brings them back."""
        rows = self._fetch(select(BannedRow))
        return Banned(
            keys=frozenset(row.key for row in rows),
            wikidata_ids=frozenset(row.wikidata_id for row in rows if row.wikidata_id is not None),
            names=frozenset(row.folded_name for row in rows),
            bare_names=frozenset(row.folded_name for row in rows if row.wikidata_id is None),
        )

    def finding(self, name: str) -> dict[str, Any] | None:
        """What ``Transaction.keep_finding`` kept under a name."""
        content: dict[str, Any] | None = self._scalar(
            select(FindingRow.content).where(FindingRow.name == name)
        )
        return content

    def read_calibration(self, space: Space) -> bytes | None:
        """What ``Transaction.keep_calibration`` kept of a space; None without."""
        query = select(CalibrationRow.content).where(CalibrationRow.space_id == space.id)
        content: str | None = self._scalar(query)
        return None if content is None else content.encode()

    def calibration_place(self, space: Space) -> str:
        """How the operator calls what ``read_calibration`` reads."""
        return f"the calibration of {space.id} in {self.place}"

    def space_states(self) -> tuple[SpaceState, ...]:
        """Every embedding space, by id."""
        filled = select(VectorRow.portrait_id).where(VectorRow.space_id == SpaceRow.id).exists()
        query = select(SpaceRow, filled.label("filled")).order_by(SpaceRow.id)
        return tuple(
            SpaceState(
                Space(row.backbone, row.weights_sha256, row.recipe, row.dimensions),
                row.generation,
                row.row_count,
                filled=bool(row.filled),
            )
            for row in self._fetch(query)
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
        return self._scalar(select(func.count()).where(VectorRow.space_id == space.id)) or 0

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
        query = select(VectorRow.portrait_id, VectorRow.row).where(VectorRow.space_id == space.id)
        with self.reading() as connection:
            if self.shared:
                from gallery.search.pgvector import vectors_of_portraits

                return vectors_of_portraits(connection, space, portrait_ids)
            state, ids = self.space_state(space), portrait_ids.tolist()
            few = len(ids) <= 20 * CHUNK
            rows = self._fetch_pairs(query, VectorRow.portrait_id, ids if few else None)
        try:
            numbers = np.array([rows[one] for one in ids], np.int64)
        except KeyError:
            raise KeyError(f"a portrait has no vector in {space.id}") from None
        if state is None:
            return np.empty((0, space.dimensions), np.float32)
        try:
            return self.vector_file(state).rows(numbers)
        except FileNotFoundError as problem:
            raise missing(space) from problem

    def space_folder(self, space: Space) -> Path:
        """Where a gallery in a folder keeps a space's vectors."""
        return self.folder / "vectors" / space.id

    def vector_file(self, state: SpaceState) -> VectorFile:
        """The file that holds a space's vectors; only of a gallery in a folder."""
        return VectorFile(self.space_folder(state.space), state.space, state.generation)

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


def named(table: type[PersonRow | BannedRow], name: str) -> sa.ColumnElement[bool]:
    """Those of that name, key or Wikidata id."""
    return or_(
        table.key == name,
        table.wikidata_id == name.upper(),
        table.folded_name == folded(name),
    )


def _portrait(row: sa.Row[Any]) -> Portrait:
    names = ("id", "person_id", "sha256", "width_px", "height_px")
    credit = ("author", "licence", "licence_url", "source_url")
    return Portrait(
        landmarks=np.asarray(row.landmarks, dtype=np.float32),
        box=Box(row.box_x, row.box_y, row.box_w, row.box_h),
        **{name: getattr(row, name) for name in names + credit},
    )


def _in_category(category: str) -> Select[Any]:
    return (
        select(PersonCategoryRow.person_id)
        .join(CategoryRow, CategoryRow.id == PersonCategoryRow.category_id)
        .where(CategoryRow.name == category_name(category))
    )


def missing(space: Space) -> GalleryCorrupt:
    """What the operator is told of a space whose file is gone."""
    return GalleryCorrupt(
        f"vectors of {space.id} are missing: run `lookalike gallery build --model {space.backbone}`"
    )


def _open_folder(folder: Path) -> sa.Engine:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BadSettings(
            f"the gallery's folder {folder} can't be made ({problem.strerror}): choose another "
            "data folder with --home"
        ) from problem
    file = folder / DATABASE
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
        _prepare_server(database, place)
    except BaseException:
        database.dispose()
        raise
    return database


def _prepare_server(database: sa.Engine, place: str) -> None:
    extension = sa.text("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    with database.connect() as connection:
        encoding = connection.scalar(select(func.current_setting("server_encoding")))
    if encoding != "UTF8":
        raise BadSettings(
            f"the database {place} can't hold every name, for its encoding is {encoding}: make one "
            "with ENCODING 'UTF8' TEMPLATE template0"
        )
    migrate(database)
    with database.connect() as connection:
        version = connection.scalar(extension)
    numbers = tuple(int(part) for part in str(version or "0").split(".")[:2] if part.isdigit())
    if numbers < _OLDEST_PGVECTOR:
        raise BadSettings(
            f"the database {place} has pgvector {version}, which is too old: install 0.5 or newer "
            "and run `ALTER EXTENSION vector UPDATE`"
        )
