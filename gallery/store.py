"""What a gallery holds, as read: people, portraits, photos, vectors, bans and scores.

One implementation for SQLite and PostgreSQL. A gallery in a folder, which may be moved as a whole,
is::

    gallery.db      the tables of gallery/tables.py
    gallery.lock    held by whoever is changing it
    vectors/        a folder for each space (gallery/vector_file.py)

On PostgreSQL all of it is in the database, the vectors as pgvector keeps them
(gallery/search/pgvector.py). gallery/changes.py writes.
"""

import difflib
import functools
import threading
import unicodedata
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy import Connection, Select, exists, func, or_, select

from engine.errors import BadSettings, GalleryCorrupt
from engine.types import Box, Space
from gallery.database import connect, connect_server, masked, migrate
from gallery.records import Banned, Person, Portrait, Stats, category_name, folded, looks
from gallery.silhouette import LANDMARKS, SIZE_PX
from gallery.tables import (
    BANNED,
    CALIBRATIONS,
    CATEGORIES,
    FINDINGS,
    MEMBERS,
    METADATA,
    PEOPLE,
    PORTRAITS,
    REJECTIONS,
    REVISION,
    SPACES,
    THUMBNAILS,
    VECTORS,
)
from gallery.vector_file import VectorFile, generation_of, senseless

DATABASE: Final = "gallery.db"
_OLDEST_PGVECTOR: Final = (0, 5)  # the first with HNSW
CHUNK: Final = 500  # values in one IN (...); SQLite's oldest limit is 999
# Text in its place, of a damaged record, reads as bytes.
_JPEG: Final = sa.cast(THUMBNAILS.c.jpeg, sa.LargeBinary).label("jpeg")
_SOI: Final = b"\xff\xd8"  # how a JPEG begins
# What stands in the place of a record that makes no sense.
_NOBODY: Final = {
    **dict(zip(("width_px", "height_px"), SIZE_PX, strict=True)),
    "landmarks": LANDMARKS,
    "box": Box(180, 180, 240, 300),
    "sound": False,
}
_WHO: Final = ("id", "key", "name", *Person.LEARNED)
_PERSON: Final = (  # once for each category
    select(*(PEOPLE.c[name] for name in _WHO), CATEGORIES.c.name.label("category"))
    .outerjoin_from(PEOPLE, MEMBERS)
    .outerjoin(CATEGORIES)
)
_PHOTO_BYTES: Final = func.coalesce(func.length(THUMBNAILS.c.jpeg), 0).label("photo_bytes")
_PORTRAIT: Final = select(PORTRAITS, _PHOTO_BYTES).outerjoin(THUMBNAILS)
_REVISION: Final = select(REVISION.c.number)
_FILLED: Final = exists().where(VECTORS.c.space_id == SPACES.c.id).label("filled")
_SPACES: Final = select(SPACES, _FILLED).order_by(SPACES.c.id)
_VECTOR_COUNT: Final = select(func.count()).select_from(VECTORS)


@dataclass(frozen=True, slots=True)
class SpaceState:
    """What counts of one space's vectors (``gallery.tables.SPACES``), and whether any does."""

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
        TryLater: If the server does not answer, or another program has locked the file.
    """

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.folder = folder.absolute()
        self.shared = url is not None
        self._local = threading.local()
        if url is not None:
            self.database = connect_server(url)
            self.place = masked(self.database.url)
        else:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as problem:
                raise BadSettings(
                    f"the gallery's folder {folder} can't be made ({problem.strerror}): choose "
                    "another data folder with --home"
                ) from problem
            self.place, self.database = str(self.folder), connect(self.folder / DATABASE)
        try:
            if self.shared:
                self._prepare_server()
            else:
                migrate(self.database)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the database; the gallery can't be used any more."""
        self.database.dispose()

    def _prepare_server(self) -> None:
        encoding = self._scalar(select(func.current_setting("server_encoding")))
        if encoding != "UTF8":
            raise BadSettings(
                f"the database {self.place} can't hold every name, for its encoding is {encoding}: "
                "make one with ENCODING 'UTF8' TEMPLATE template0"
            )
        migrate(self.database)
        extension = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
        version = str(self._scalar(sa.text(extension)) or "0")
        if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_PGVECTOR:
            raise BadSettings(
                f"the database {self.place} has pgvector {version}, which is too old: install 0.5 "
                "or newer and run `ALTER EXTENSION vector UPDATE`"
            )

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
        with self.database.connect() as connection:
            self._local.connection = connection
            try:
                yield connection
            finally:
                self._local.connection = None

    def _fetch(
        self, query: Any, column: Any = None, values: Collection[Any] | None = None
    ) -> list[Any]:
        """The rows of a query; with a column only those where it has one of the values."""
        with self.reading() as connection:
            if values is None:
                return list(connection.execute(query))
            listed = list(values)
            query = _among(query, column)
            chunks = ({"values": listed[at : at + CHUNK]} for at in range(0, len(listed), CHUNK))
            return [row for chunk in chunks for row in connection.execute(query, chunk)]

    def _fetch_pairs(
        self, query: Any, column: Any = None, values: Collection[Any] | None = None
    ) -> dict[Any, Any]:
        """See ``_fetch``, of a query for two columns."""
        return dict(map(tuple, self._fetch(query, column, values)))

    def _scalar(self, query: sa.Executable) -> Any:
        with self.reading() as connection:
            return connection.scalar(query)

    def _ids(self, query: Select[Any]) -> NDArray[np.int64]:
        with self.reading() as connection:
            return np.sort(np.asarray(connection.scalars(query).all(), dtype=np.int64))

    def size_bytes(self) -> int:
        """What the gallery takes on disk."""
        if not self.shared:
            return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        tables = (*METADATA.tables, "person_vector")
        sizes = [func.pg_total_relation_size(func.to_regclass(name)) for name in tables]
        return sum(filter(None, self._fetch(select(*sizes))[0]))

    def revision(self) -> int:
        """A number that has risen if anything has changed."""
        return self._scalar(_REVISION) or 0

    def people(self, category: str | None = None) -> tuple[Person, ...]:
        """Everybody, or everybody in a category, by name."""
        query = _PERSON.order_by(PEOPLE.c.folded_name, PEOPLE.c.id)
        if category is not None:
            query = query.where(PEOPLE.c.id.in_(_in_category(category)))
        return self._people(query)

    def people_by_id(self, ids: Collection[int]) -> dict[int, Person]:
        """The people with these ids; whoever is gone is missing."""
        return {one.id: one for one in self._people(_PERSON, ids)}

    def _people(self, query: Select[Any], ids: Collection[int] | None = None) -> tuple[Person, ...]:
        found: dict[tuple[Any, ...], list[str]] = {}
        for *about, category in self._fetch(query, PEOPLE.c.id, ids):
            names = found.setdefault(tuple(about), [])
            names += [] if category is None else [str(category)]
        return tuple(
            Person(**dict(zip(_WHO, one, strict=True)), categories=tuple(sorted(names)))
            for one, names in found.items()
        )

    def find_person(self, name: str) -> Person | None:
        """The person of that name, key or Wikidata id; of several the most famous.

        Case and accents don't matter, unless somebody is called exactly like that.
        """
        query = _PERSON.where(named(PEOPLE, name)).order_by(
            PEOPLE.c.key != name,
            PEOPLE.c.name != unicodedata.normalize("NFC", name),
            func.coalesce(PEOPLE.c.fame, -1).desc(),
            PEOPLE.c.id,
        )
        return next(iter(self._people(query)), None)

    def close_names(self, name: str, count: int = 3) -> tuple[str, ...]:
        """Names like this one or with a part like it, most alike first; those with it lead."""
        names: dict[str, str] = self._fetch_pairs(select(PEOPLE.c.folded_name, PEOPLE.c.name))
        wanted = folded(name)
        containing = sorted((n for n in names if wanted and wanted in n), key=len)
        whole = {part: n for n in names for part in (*n.split(), n)}
        alike = difflib.get_close_matches(wanted, whole, n=count, cutoff=0.6)
        found = dict.fromkeys([*containing, *(whole[n] for n in alike)])
        return tuple(names[n] for n in found)[:count]

    def portraits(self, person_id: int) -> tuple[Portrait, ...]:
        """Every portrait of a person, oldest first."""
        query = select(PORTRAITS).where(PORTRAITS.c.person_id == person_id)
        return tuple(map(_portrait, self._fetch(query.order_by(PORTRAITS.c.id))))

    def leading_people(self, most: int, *, newest: bool = False) -> dict[str, bytes]:
        """Names and the JPEG of one portrait each: the most famous, or who came last."""
        order = PEOPLE.c.id if newest else func.coalesce(PEOPLE.c.fame, -1)
        first = select(PEOPLE.c.id, PEOPLE.c.name).order_by(order.desc()).limit(most).subquery()
        query = select(first.c.name, _JPEG).join_from(first, PORTRAITS)
        return self._fetch_pairs(query.join(THUMBNAILS))

    def portraits_by_id(self, ids: Collection[int]) -> dict[int, Portrait]:
        """The portraits with these ids; what is gone is missing."""
        rows = self._fetch(select(PORTRAITS), PORTRAITS.c.id, ids)
        return {row.id: _portrait(row) for row in rows}

    def portraits_by_looks(
        self, person_ids: Collection[int]
    ) -> dict[int, dict[int, tuple[float, Portrait]]]:
        """The portraits of people, each with how good it looks, by person id and portrait id."""
        found = dict[int, Any]()
        for row in self._fetch(_PORTRAIT, PORTRAITS.c.person_id, person_ids):
            one = _portrait(row)
            found.setdefault(one.person_id, {})[one.id] = looks(one, row.photo_bytes), one
        return found

    def portraits_by_hash(self, hashes: Collection[str]) -> tuple[Portrait, ...]:
        """The portraits of pictures with these hashes."""
        return tuple(map(_portrait, self._fetch(select(PORTRAITS), PORTRAITS.c.sha256, hashes)))

    def portrait_ids(self) -> NDArray[np.int64]:
        """The id of every portrait, rising."""
        return self._ids(select(PORTRAITS.c.id))

    def portrait_owners(self) -> NDArray[np.int64]:
        """The id of every portrait and whose it is, int64 (N, 2), by rising portrait id."""
        query = select(PORTRAITS.c.id, PORTRAITS.c.person_id).join(PEOPLE).order_by(PORTRAITS.c.id)
        return np.array([tuple(row) for row in self._fetch(query)], np.int64).reshape(-1, 2)

    def person_ids(self, portrait_ids: Collection[int]) -> dict[int, int]:
        """Whose portraits these are, by their ids; what is gone is missing."""
        query = select(PORTRAITS.c.id, PORTRAITS.c.person_id)
        return self._fetch_pairs(query, PORTRAITS.c.id, portrait_ids)

    def portrait_counts(self) -> dict[int, int]:
        """How many portraits everybody has, by person id."""
        query = select(PORTRAITS.c.person_id, func.count()).group_by(PORTRAITS.c.person_id)
        return self._fetch_pairs(query)

    def photo(self, portrait: Portrait) -> bytes | None:
        """The JPEG that is kept of a portrait; None where it came without its photo."""
        return self.photos([portrait.id]).get(portrait.id)

    def photos(self, portrait_ids: Collection[int]) -> dict[int, bytes]:
        """The JPEGs of portraits by their ids; those that came without a photo are missing."""
        query = select(THUMBNAILS.c.portrait_id, _JPEG)
        return self._fetch_pairs(query, THUMBNAILS.c.portrait_id, portrait_ids)

    def damaged(self) -> list[int]:
        """Ids of the portraits whose record makes no sense, or whose photo is no JPEG."""
        begin = func.substr(_JPEG, 1, len(_SOI)).label("begin")
        query = select(PORTRAITS, begin).join(THUMBNAILS, isouter=True)
        with self.reading() as connection:
            rows = connection.execute(query)
            return [
                one.id for one in rows if one.begin not in (None, _SOI) or not _portrait(one).sound
            ]

    def without_photo(self) -> NDArray[np.int64]:
        """Ids of the portraits that came without a photo, rising."""
        photo = exists().where(THUMBNAILS.c.portrait_id == PORTRAITS.c.id)
        return self._ids(select(PORTRAITS.c.id).where(~photo))

    def categories(self) -> tuple[str, ...]:
        """Every category that somebody is in, by name."""
        return tuple(self.category_sizes())

    def category_sizes(self) -> dict[str, int]:
        """Every category with somebody in it, and how many people, by name."""
        query = select(CATEGORIES.c.name, func.count()).join_from(CATEGORIES, MEMBERS)
        return self._fetch_pairs(query.group_by(CATEGORIES.c.name).order_by(CATEGORIES.c.name))

    def category_person_ids(self, category: str) -> NDArray[np.int64]:
        """Ids of the people in a category, rising; empty if there is no such category."""
        return self._ids(_in_category(category))

    def genders(self) -> frozenset[str]:
        """Every gender that is said of somebody, lower case."""
        query = select(func.lower(PEOPLE.c.gender)).where(PEOPLE.c.gender.is_not(None))
        return frozenset(row[0] for row in self._fetch(query.distinct()))

    def gender_person_ids(self, genders: Collection[str]) -> NDArray[np.int64]:
        """Ids of the people whose gender is one of these words (lower case), rising."""
        said = func.lower(PEOPLE.c.gender).in_(sorted(genders))
        return self._ids(select(PEOPLE.c.id).where(said))

    def counts(self) -> tuple[int, int]:
        """How many people and portraits there are."""
        tables = (PEOPLE, PORTRAITS)
        sizes = [select(func.count()).select_from(one).scalar_subquery() for one in tables]
        people, portraits = self._fetch(select(*sizes))[0]
        return people, portraits

    def stats(self) -> Stats:
        """How much there is of everything."""
        rejected = select(REJECTIONS.c.reason, func.count()).group_by(REJECTIONS.c.reason)
        embedded = select(VECTORS.c.space_id, func.count()).group_by(VECTORS.c.space_id)
        with self.reading():
            sizes = self._fetch_pairs(embedded)
            vectors = {one.space: sizes.get(one.space.id, 0) for one in self.space_states()}
            rejections = self._fetch_pairs(rejected)
            return Stats(*self.counts(), self.category_sizes(), vectors, rejections)

    def known(self, sha256: str, screening: int) -> Person | str | None:
        """Whose portrait a picture is, or why it was not taken; None if it is new.

        What was rejected by another version of the rules (``screening``) is not known.
        """
        query = select(REJECTIONS.c.reason).where(
            REJECTIONS.c.sha256 == sha256, REJECTIONS.c.screening == screening
        )
        with self.reading():
            return self.owners([sha256]).get(sha256) or self._scalar(query)

    def owners(self, hashes: Collection[str]) -> dict[str, Person]:
        """Whose portraits pictures are, by their hashes; what is new is missing."""
        query = select(PORTRAITS.c.sha256, PORTRAITS.c.person_id)
        with self.reading():
            found = self._fetch_pairs(query, PORTRAITS.c.sha256, hashes)
            people = self.people_by_id(set(found.values()))
        return {sha256: people[person_id] for sha256, person_id in found.items()}

    def banned(self) -> Banned:
        """Who asked to be removed, so that no source brings them back."""
        rows = self._fetch(select(BANNED))
        return Banned({row.key: (row.folded_name, row.wikidata_id) for row in rows})

    def finding(self, name: str) -> dict[str, Any] | None:
        """What ``Transaction.keep_finding`` kept under a name."""
        query = select(FINDINGS.c.content).where(FINDINGS.c.name == name)
        found: dict[str, Any] | None = self._scalar(query)
        return found

    def read_calibration(self, space: Space) -> str | None:
        """What ``Transaction.keep_calibration`` kept of a space; None without."""
        query = select(CALIBRATIONS.c.content).where(CALIBRATIONS.c.space_id == space.id)
        content: str | None = self._scalar(query)
        return content

    def space_states(self) -> tuple[SpaceState, ...]:
        """Every embedding space, by id; without those whose record is another's."""
        found = []
        for row in self._fetch(_SPACES):
            space = Space(row.backbone, row.weights_sha256, row.recipe, _whole(row.dimensions))
            if space.id == row.id:
                counts = _whole(row.generation), _whole(row.row_count)
                found.append(SpaceState(space, *counts, filled=bool(row.filled)))
        return tuple(found)

    def space_state(self, space: Space) -> SpaceState | None:
        """What counts of one space's vectors; None if there is no such space."""
        return next((state for state in self.space_states() if state.space == space), None)

    def unembedded(self, space: Space) -> NDArray[np.int64]:
        """Ids of the portraits with a photo that have no vector in a space, rising."""
        photo = THUMBNAILS.c.portrait_id
        vector = exists().where(VECTORS.c.portrait_id == photo, VECTORS.c.space_id == space.id)
        return self._ids(select(photo).where(~vector))

    def vector_count(self, space: Space | None = None) -> int:
        """How many vectors there are in a space; in all together, which is counted much faster."""
        count = _VECTOR_COUNT
        if space is not None:
            count = count.where(VECTORS.c.space_id == space.id)
        return self._scalar(count) or 0

    def embedded(self, space: Space) -> NDArray[np.int64]:
        """Ids of the portraits that have a vector in a space, rising; none if nothing has."""
        return self._ids(select(VECTORS.c.portrait_id).where(VECTORS.c.space_id == space.id))

    def vectors(self, space: Space, portrait_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of portraits, in that order: float32 (len(portrait_ids), D).

        Raises KeyError if a portrait has none, and GalleryCorrupt if the file is gone or shorter
        than the database says.
        """
        query = select(VECTORS.c.portrait_id, VECTORS.c.row).where(VECTORS.c.space_id == space.id)
        with self.reading() as connection:
            if self.shared:
                from gallery.search.pgvector import vectors_of_portraits

                return vectors_of_portraits(connection, space, portrait_ids)
            state, ids = self.space_state(space), portrait_ids.tolist()
            few = len(ids) <= 20 * CHUNK
            rows = self._fetch_pairs(query, VECTORS.c.portrait_id, ids if few else None)
        if state is None and not ids:
            return np.empty((0, space.dimensions), np.float32)
        if state is None or not rows.keys() >= set(ids):
            raise KeyError(f"a portrait has no vector in {space.id}")
        try:
            return self.vector_file(state).rows(np.array([rows[one] for one in ids], np.int64))
        except FileNotFoundError as problem:
            raise missing(space) from problem
        except (ValueError, TypeError, OverflowError) as problem:
            raise senseless(space) from problem

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


@functools.lru_cache
def _among(query: Select[Any], column: sa.Column[Any]) -> Select[Any]:
    return query.where(column.in_(sa.bindparam("values", expanding=True)))


def named(table: sa.Table, name: str) -> sa.ColumnElement[bool]:
    """Those of that name, key or Wikidata id."""
    known = table.c
    return or_(
        known.key == name, known.wikidata_id == name.upper(), known.folded_name == folded(name)
    )


def _whole(number: object) -> int:
    """A count; of a damaged record more than there can be."""
    return number if isinstance(number, int) else 2**40


def _portrait(row: sa.Row[Any]) -> Portrait:
    """A record as it stands there; one that makes no sense is marked, and looks like nobody."""
    content = dict(zip(PORTRAITS.c.keys(), row, strict=False))  # what follows is no part of it
    box = [content.pop(f"box_{side}") for side in "xywh"]
    with suppress(ValueError, TypeError):
        points = np.asarray(content["landmarks"], np.float32)
        size = content["width_px"], content["height_px"]
        numbers = np.array([*box, *size], np.float64)
        if points.shape == (5, 2) and np.isfinite([*points.flat, *numbers]).all() and min(size) > 0:
            return Portrait(**content | {"landmarks": points}, box=Box(*box))
    return Portrait(**content | _NOBODY)


def _in_category(category: str) -> Select[Any]:
    return (
        select(MEMBERS.c.person_id)
        .join(CATEGORIES, CATEGORIES.c.id == MEMBERS.c.category_id)
        .where(CATEGORIES.c.name == category_name(category))
    )


def missing(space: Space) -> GalleryCorrupt:
    """What the operator is told of a space whose file is gone."""
    return GalleryCorrupt(
        f"vectors of {space.id} are missing: run `lookalike gallery build --model {space.backbone}`"
    )
