"""A gallery in one SQLite file, written for anybody and read from anybody.

The tables are those of gallery/tables.py. Vectors stand in ``portrait_vector.value`` as
little-endian float32, pictures in ``thumbnail``. One table more, ``checksum``, holds the SHA-256
of every thumbnail; the finding ``pack`` holds that of all other rows. ``application_id`` says what
the file is, ``user_version`` the version of the tables.

A file that is read may have been made to harm. It is opened read-only, with SQLite's limits set
low; its tables must be exactly ours, so that no trigger, view or virtual table of somebody else
exists; then SQLite checks its pages, constraints and references, and pydantic every row.
"""

import contextlib
import hashlib
import json
import os
import re
import sqlite3
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, Field, Json, ValidationError, create_model
from sqlalchemy import JSON, String, Table, create_engine, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool
from sqlalchemy.schema import CreateIndex, CreateTable

from engine.backbones import BACKBONES
from engine.errors import BadSettings, GalleryCorrupt, SetupProblem
from engine.types import Space
from gallery.progress import Progress, in_batches, no_progress
from gallery.records import Portrait, folded
from gallery.scores import Learned, read_learned
from gallery.store import Store
from gallery.tables import METADATA, VECTORS

VERSION: Final = 1  # of the tables, in user_version; raised when gallery/tables.py changes
_APPLICATION_ID: Final = int.from_bytes(b"Look", "big")
_CHUNK: Final = 512  # people, portraits or vectors that are read at once
_CHUNK_PHOTOS: Final = 64
_WIKIDATA_ID: Final = re.compile(r"Q[1-9][0-9]{0,18}")
_LINK: Final = re.compile(r"https?://[^ ]*")
_MOST_FOLDED: Final = 800  # characters of a folded name, as wide as the column
_MOST_CATEGORIES: Final = 100  # of one person
_MOST_FAME: Final = 2**31 - 1
_MOST_PHOTO_BYTES: Final = 4_000_000  # of a thumbnail, which is 512 px wide and 100 kB at most
_MOST_CHARACTERS: Final = 10_000  # of any text or JSON before it is looked at
_MOST_ROWS: Final = {
    "person": 1_200_000,
    "category": 100_000,
    "portrait": 1_200_000,
    "banned": 100_000,
    "space": 100,
    "finding": 10,
}
_COPIED: Final = ("category", "person", "person_category", "portrait", "banned")
_CHECKED: Final = ("person", "category", "portrait", "banned", "space", "calibration")
_LIMITS: Final = {
    sqlite3.SQLITE_LIMIT_LENGTH: _MOST_PHOTO_BYTES + 1000,  # bytes of a value, and of a row
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 20_000,
    sqlite3.SQLITE_LIMIT_COLUMN: 50,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 50,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 5,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 50_000,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 10,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 50,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
}
_READING: Final = ("trusted_schema = OFF", "cell_size_check = ON", "query_only = ON")
_WRITING: Final = ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE")
_CHECKSUM: Final = "CREATE TABLE checksum (portrait_id INTEGER PRIMARY KEY, sha256 BLOB NOT NULL)"
_SCHEMA: Final = "SELECT type, name, tbl_name, sql FROM sqlite_master"
_MORE_CATEGORIES: Final = f"""
DELETE FROM person_category WHERE rowid IN (SELECT number FROM (
    SELECT rowid AS number, row_number() OVER (PARTITION BY person_id ORDER BY category_id) AS place
    FROM person_category) WHERE place > {_MOST_CATEGORIES})
"""

# What reading bytes made to confuse raises, besides errors of SQLite.
_ODD: Final = (ValueError, KeyError, TypeError, AttributeError, OverflowError)
# Queries that find nothing in a sound pack, and what is wrong if they do.
_FAULTS: Final = {
    "rows that belong to nothing": "PRAGMA foreign_key_check",
    "vectors of another length": (
        "SELECT 1 FROM portrait_vector LEFT JOIN space ON space.id = space_id "
        "WHERE typeof(value) <> 'blob' OR length(value) <> 4 * dimensions LIMIT 1"
    ),
    "missing vectors": (
        "SELECT 1 FROM space LEFT JOIN (SELECT space_id, count(*) AS found FROM portrait_vector "
        "GROUP BY space_id) ON space_id = id WHERE row_count <> coalesce(found, 0) LIMIT 1"
    ),
    "somebody in too many categories": (
        "SELECT 1 FROM person_category GROUP BY person_id "
        f"HAVING count(*) > {_MOST_CATEGORIES} LIMIT 1"
    ),
}
_UNRULY: Final = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_UNPRINTED: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})


def plain_text(text: str) -> str:
    """A text from anywhere on one line, without what is not printed or rearranges what is."""
    if text.isascii() and text.isprintable():  # as almost all are
        return " ".join(text.split())
    ruly = unicodedata.normalize("NFC", _UNRULY.sub("", text))
    printed = (" " if unicodedata.category(one) in _UNPRINTED else one for one in ruly)
    return " ".join("".join(printed).split())


def _is_plain(text: str) -> str:
    if not text or text != plain_text(text):
        raise ValueError("not on one line, or with characters that are not printed")
    return text


def _can_be_compared(name: str) -> bool:
    return 0 < len(folded(name)) <= _MOST_FOLDED


_PX: Final = Field(ge=-20_000, le=20_000, allow_inf_nan=False)
_Px = Annotated[float, _PX]
_Point = tuple[_Px, _Px]
# What must be true of columns besides what their types say.
_RULES: Final[dict[str, Any]] = {
    "wikidata_id": Field(pattern=rf"\A{_WIKIDATA_ID.pattern}\z"),
    "fame": Field(ge=0, le=_MOST_FAME),
    "recipe": Field(ge=0, le=1_000_000),
    **dict.fromkeys(("sha256", "weights_sha256"), Field(pattern=r"\A[0-9a-f]{64}\z")),
    **dict.fromkeys(("licence_url", "source_url"), Field(pattern=rf"\A{_LINK.pattern}\z")),
    # Larger pictures are reduced when decoded.
    **dict.fromkeys(("width_px", "height_px"), Field(ge=1, le=2_000)),
    **dict.fromkeys(("box_x", "box_y"), _PX),
    **dict.fromkeys(("box_w", "box_h"), Field(gt=0, le=20_000, allow_inf_nan=False)),
}
_Landmarks = Json[tuple[_Point, _Point, _Point, _Point, _Point]]
_JSON: Final[dict[str, Any]] = {"landmarks": _Landmarks, "content": Json[Learned]}


@cache
def _row_model(table: Table) -> type[BaseModel]:
    """What a row of a table is as ``write_pack`` could have written it."""
    kinds: dict[str, Any] = {}
    for column in table.columns:
        kind: Any = _JSON.get(column.name, column.type.python_type)
        if kind is str:  # SQLite does not mind how wide a column is
            width = getattr(column.type, "length", None)
            kind = Annotated[str, Field(max_length=width), AfterValidator(_is_plain)]
        if column.name in _RULES:
            kind = Annotated[kind, _RULES[column.name]]
        kinds[column.name] = (kind | None if column.nullable else kind, ...)
    kinds.pop("folded_name", None)  # nobody relies on it
    return create_model(table.name, __config__={"strict": True}, **kinds)


class PackReader(Store):
    """A pack that may have been made by anybody, read as any other store; a context manager.

    Raises SetupProblem if it is missing or of a newer program, GalleryCorrupt if it is not sound.
    """

    def __init__(self, path: Path) -> None:
        self.folder, self.place, self.shared = path.parent, str(path), False
        self._local = threading.local()
        with self._translated():
            _check_header(path)
            self._connection = _opened(path)
        self.database = create_engine(
            "sqlite://", creator=lambda: self._connection, poolclass=StaticPool
        )

    def close(self) -> None:
        """Lets go of the file."""
        super().close()
        self._connection.close()

    def check(self, progress: Progress = no_progress) -> None:
        """Reads everything but the photos; raises GalleryCorrupt if anything is damaged."""
        with self._translated():
            self._check_database()
            self._check_rows()
            for state in self.space_states():
                ids = self.embedded(state.space)
                for chunk in in_batches(ids, _CHUNK, "check", progress):
                    with np.errstate(all="ignore"):
                        lengths = np.linalg.norm(self.vectors(state.space, chunk), axis=1)
                    # As far off as engine.types.Embedding allows; nor if any is not finite.
                    if not np.all(np.abs(lengths - 1) < 1e-3):
                        raise ValueError(f"a vector of {state.space.id} that is none")

    def photo(self, portrait: Portrait) -> bytes | None:
        """See ``Store.photo``; raises OSError if it can't be read, or is not what was packed."""
        query = (
            "SELECT jpeg, sha256 FROM thumbnail LEFT JOIN checksum USING (portrait_id) "
            "WHERE portrait_id = ?"
        )
        try:
            found = self._connection.execute(query, [portrait.id]).fetchone()
        except sqlite3.Error as problem:
            raise OSError("the photo can't be read") from problem
        jpeg, sha256 = found or (None, None)
        if found and (not isinstance(jpeg, bytes) or hashlib.sha256(jpeg).digest() != sha256):
            raise OSError("the photo was changed")
        return jpeg

    def vectors(self, space: Space, portrait_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """See ``Store.vectors``; at most 512 at a time."""
        ids = portrait_ids.tolist()
        columns = select(VECTORS.c.portrait_id, VECTORS.c.value)
        query = columns.where(VECTORS.c.space_id == space.id, VECTORS.c.portrait_id.in_(ids))
        values = self._fetch_pairs(query)
        vectors = np.frombuffer(b"".join(values[one] for one in ids), "<f4")
        return vectors.reshape(len(ids), space.dimensions).astype(np.float32, copy=False)

    def _check_database(self) -> None:
        """Whether SQLite finds nothing wrong, and everything is of a size to be read."""
        if [list(row.values()) for row in self._rows("PRAGMA integrity_check(1)")] != [["ok"]]:
            raise ValueError("its pages or constraints are damaged")
        for table, most in _MOST_ROWS.items():
            if next(self._rows(f"SELECT count(*) AS n FROM {table}"))["n"] > most:
                raise ValueError(f"too many rows in {table}")
        for name, columns in METADATA.tables.items():
            texts = [one.name for one in columns.c if isinstance(one.type, String | JSON)]
            long = " OR ".join(f"length({text}) > {_MOST_CHARACTERS}" for text in texts)
            if texts and any(self._rows(f"SELECT 1 FROM {name} WHERE {long} LIMIT 1")):
                raise ValueError(f"a text in {name} that is too long")
        for fault, query in _FAULTS.items():
            if any(self._rows(query)):
                raise ValueError(fault)
        if [*self._rows("SELECT content FROM finding")] != [{"content": _seal(self._connection)}]:
            raise ValueError("it was changed")

    def _check_rows(self) -> None:
        """Whether every row is one that ``write_pack`` could have written."""
        for name in _CHECKED:
            model = _row_model(METADATA.tables[name])
            for row in self._rows(f"SELECT * FROM {name}"):
                one: Any = model.model_validate(row)
                if "key" in row and not _can_be_compared(one.name):
                    raise ValueError("a name that can't be compared")
                if name == "calibration" and one.content.calibration.space_id != one.space_id:
                    raise ValueError("a calibration of another space")
                if name == "space":
                    space = Space(one.backbone, one.weights_sha256, one.recipe, one.dimensions)
                    known = BACKBONES.get(space.backbone)
                    dimensions = known.dimensions if known else 0
                    if (one.id, one.dimensions) != (space.id, dimensions):
                        raise ValueError("a space of another name, or of an unknown backbone")

    def _rows(self, query: str) -> Iterator[dict[str, Any]]:
        """Rows one by one, as they stand in the file."""
        cursor = self._connection.cursor()
        cursor.row_factory = sqlite3.Row
        return map(dict, cursor.execute(query))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            raise SetupProblem(f"{self.place} can't be read ({problem.strerror})") from problem
        except (sqlite3.Error, SQLAlchemyError, *_ODD) as problem:
            reason = plain_text(str(problem))[:200] or type(problem).__name__
            if isinstance(problem, ValidationError):
                first = problem.errors(include_input=False, include_url=False)[0]
                reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:200]
            raise GalleryCorrupt(
                f"{self.place} is no exported gallery, or a damaged one ({reason}): export it again"
            ) from problem


def _check_header(path: Path) -> None:
    """Looks at the first bytes before SQLite does: https://www.sqlite.org/fileformat.html, 1.3."""
    if path.exists() and not path.is_file():
        raise ValueError("no file")  # but a folder, or a pipe that nobody may write to
    with path.open("rb") as file:
        header = file.read(100)
        size = file.seek(0, os.SEEK_END)
    pages, made_by, kind = (int.from_bytes(header[at : at + 4], "big") for at in (28, 60, 68))
    if not header.startswith(b"SQLite format 3\0") or kind != _APPLICATION_ID:
        raise ValueError("another kind of file")
    if made_by != VERSION:
        raise SetupProblem(
            f"{path} is of version {made_by} of the format, and this program reads version "
            f"{VERSION}: update lookalike"
        )
    if size != pages * int.from_bytes(header[16:18], "big"):
        raise ValueError("a part of it is missing, or something was added")


def _opened(path: Path) -> sqlite3.Connection:
    """A connection that writes nothing, looks at no journal beside the file and runs nothing."""
    address = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    connection = sqlite3.connect(
        address, uri=True, isolation_level=None, check_same_thread=False, cached_statements=20
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(connection))
        for limit, most in _LIMITS.items():
            connection.setlimit(limit, most)
        for pragma in _READING:
            connection.execute(f"PRAGMA {pragma}")
        found = connection.execute(_SCHEMA).fetchmany(len(_our_schema()) + 1)
        if _without_spaces(found) != _our_schema():
            raise ValueError("other tables than there should be")
        stack.pop_all()
    return connection


@cache
def _our_schema() -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        _make_tables(connection)
        return _without_spaces(connection.execute(_SCHEMA).fetchall())


def _without_spaces(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows of the schema without spaces and quotes, which versions of SQLAlchemy set otherwise."""
    return sorted((*names, re.sub(r'[\s"]+', "", sql or "")) for *names, sql in rows)


def _make_tables(connection: sqlite3.Connection) -> None:
    dialect = sqlite.dialect()
    for table in METADATA.sorted_tables:
        connection.execute(str(CreateTable(table).compile(dialect=dialect)))
        for index in sorted(table.indexes, key=lambda one: str(one.name)):
            connection.execute(str(CreateIndex(index).compile(dialect=dialect)))
    connection.execute(_CHECKSUM)


def _seal(connection: sqlite3.Connection) -> str:
    """JSON with the SHA-256 of all rows but those of thumbnails and findings, in rowid order."""
    digest = hashlib.sha256()
    tables = sorted({*METADATA.tables, "checksum"} - {"thumbnail", "finding"})
    for table in tables:
        for row in connection.execute(f"SELECT * FROM {table} ORDER BY rowid"):
            plain = [len(value) if isinstance(value, bytes) else value for value in row]
            digest.update(repr((table, plain)).encode())
            for value in row:
                if isinstance(value, bytes):
                    digest.update(value)
    return json.dumps({"rows_sha256": digest.hexdigest()})


def seal(connection: sqlite3.Connection) -> None:
    """Writes the finding by which a reader knows that nothing was changed since."""
    values = [_seal(connection)]
    connection.execute("INSERT OR REPLACE INTO finding (name, content) VALUES ('pack', ?)", values)


def note_checksums(connection: sqlite3.Connection, photos: Iterable[tuple[int, bytes]]) -> None:
    """Writes the checksums of thumbnails, by the ids of their portraits."""
    rows = [(portrait_id, hashlib.sha256(jpeg).digest()) for portrait_id, jpeg in photos]
    connection.executemany("INSERT OR REPLACE INTO checksum VALUES (?, ?)", rows)


@contextmanager
def _written_whole(target: Path, *, replace: bool) -> Iterator[sqlite3.Connection]:
    """An empty pack to fill, which takes its name when all of it is on the disk."""
    part = target.with_name(f".{target.name}.part")
    taken = BadSettings(f"{target} exists already: choose another name, or replace it with --force")
    if target.is_dir():
        raise BadSettings(f"{target} is a folder: name a file in it")
    if target.exists() and not replace:
        raise taken
    try:
        part.write_bytes(b"")  # in place of what a killed export left
        with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as connection:
            for pragma in _WRITING:
                connection.execute(f"PRAGMA {pragma}")
            connection.execute("BEGIN")
            _make_tables(connection)
            yield connection
            seal(connection)
            connection.execute("COMMIT")
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        with part.open("rb") as file:
            os.fsync(file.fileno())
        if target.exists() and not replace:
            raise taken
        part.replace(target)
    except (OSError, sqlite3.Error) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise BadSettings(
            f"{target} can't be written ({reason}): check the folder's rights and free space"
        ) from problem
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_pack(
    store: Store, file: Path, *, photos: bool, replace: bool, progress: Progress
) -> dict[str, int]:
    """Writes a gallery that nobody changes meanwhile into one file, in flat memory.

    See ``gallery.transfer.export_gallery``. Returns how many rows each table has.
    """
    tables = METADATA.tables
    with _written_whole(file, replace=replace) as pack:
        with store.reading() as connection:
            for name in _COPIED:
                query = select(tables[name]).order_by(*tables[name].primary_key)
                found = connection.execution_options(yield_per=_CHUNK).execute(query)
                for rows in found.mappings().partitions():
                    _insert(pack, name, [_fitting(tables[name], dict(row)) for row in rows])
        pack.execute(_MORE_CATEGORIES)
        ids = store.portrait_ids().tolist()
        for chunk in in_batches(ids, _CHUNK_PHOTOS, "portraits", progress):
            kept = sorted(store.photos(chunk).items()) if photos else ()
            fitting = [(one, jpeg) for one, jpeg in kept if 0 < len(jpeg) <= _MOST_PHOTO_BYTES]
            pack.executemany("INSERT INTO thumbnail VALUES (?, ?)", fitting)
            note_checksums(pack, fitting)
        for state in store.space_states():
            _write_space(store, state.space, pack, progress)
        count = "SELECT count(*) FROM "
        return {name: pack.execute(count + name).fetchone()[0] for name in tables}


def _write_space(store: Store, space: Space, pack: sqlite3.Connection, progress: Progress) -> None:
    """Writes a space's vectors and calibration; nothing of one without vectors."""
    ids = store.embedded(space)
    if not len(ids):
        return
    described = {"id": space.id, **asdict(space), "generation": 0, "row_count": len(ids)}
    _insert(pack, "space", [described])
    if (learned := read_learned(store, space)) is not None:
        pack.execute("INSERT INTO calibration VALUES (?, ?)", [space.id, learned.content()])
    inserted = "INSERT INTO portrait_vector (portrait_id, space_id, value) VALUES (?, ?, ?)"
    for chunk in in_batches(ids, _CHUNK, "written vectors", progress):
        values = [row.tobytes() for row in store.vectors(space, chunk).astype("<f4", copy=False)]
        pack.executemany(inserted, zip(chunk.tolist(), repeat(space.id), values, strict=False))


def _insert(pack: sqlite3.Connection, table: str, rows: Sequence[dict[str, Any]]) -> None:
    columns, values = ", ".join(rows[0]), ", ".join(f":{name}" for name in rows[0])
    pack.executemany(f"INSERT INTO {table} ({columns}) VALUES ({values})", rows)


def _fitting(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    """A row in values that a reader takes; SQLite keeps what is longer than its column."""
    for column in table.columns:
        value = row[column.name]
        if isinstance(column.type, JSON):
            row[column.name] = json.dumps(value)
        elif isinstance(column.type, String) and isinstance(value, str):
            text = plain_text(value)[: column.type.length].rstrip()
            row[column.name] = text or (None if column.nullable else "")
    patterns = {"licence_url": _LINK, "source_url": _LINK, "wikidata_id": _WIKIDATA_ID}
    for name, pattern in patterns.items():
        if row.get(name) is not None and not pattern.fullmatch(row[name]):
            row[name] = None
    if "key" in row and not _can_be_compared(row["name"]):
        row["name"] = row["key"]
    if row.get("fame") is not None:
        row["fame"] = min(max(row["fame"], 0), _MOST_FAME)
    return row
