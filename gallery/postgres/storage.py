"""A gallery on a PostgreSQL server with pgvector, which several machines share.

Everything is in the database; what this machine's folder holds are copies of the pictures it has
shown, so that every portrait handed out is a file, and may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy import Connection, delete, func, insert, select
from sqlalchemy.dialects.postgresql import insert as insert_or_replace

from engine.errors import BadSettings, Busy
from engine.types import Space
from gallery import registrar
from gallery.catalogue import Catalogue
from gallery.database import changing, migrate
from gallery.disk import unwritable, write_atomically
from gallery.postgres.index import PostgresIndex
from gallery.postgres.server import GALLERY_WRITER, address, connect, masked, try_turn
from gallery.postgres.tables import (
    CalibrationRow,
    PersonVectorRow,
    PictureRow,
    PortraitVectorRow,
    PostgresTables,
)
from gallery.postgres.vectors import (
    add_vectors,
    settle_index,
    take_away,
    vectors_of_portraits,
)
from gallery.progress import Progress, no_progress
from gallery.records import Portrait, thumbnail_path
from gallery.spaces import SpaceState, space_states
from gallery.storage import SweptPictures
from gallery.tables import GalleryTables, PortraitRow

__all__ = ["PostgresStorage"]

_OLDEST_PGVECTOR: Final = (0, 5)  # the first with HNSW
_SWEEP_S: Final = 60.0  # at most that often copies of removed pictures are looked for
_CHUNK: Final = 1_000


class PostgresStorage:
    """Keeps a gallery in a database; ``PostgresStorage.open`` makes one.

    Args:
        place: The database without its password.
        catalogue: Of that database, migrated.
    """

    def __init__(self, place: str, catalogue: Catalogue) -> None:
        self.place = place
        self.catalogue = catalogue
        self._database = catalogue.database
        self._copies = catalogue.portraits_folder
        self._swept_s = time.monotonic()
        self._lock = threading.Lock()

    @classmethod
    def open(cls, folder: Path, url: str) -> PostgresStorage:
        """The storage in a database; an empty one is made where there is none.

        Args:
            folder: Of the gallery on this machine; copies of pictures go below it.
            url: Of the database.

        Raises:
            BadSettings: If the URL, the server or the folder can't be used.
            SetupProblem: If a newer program made the gallery.
            TryLater: If the server does not answer.
        """
        where = address(url, "gallery.url")
        place = masked(where)
        # Another database has other pictures, and a gallery in this folder has its own.
        copies = folder / "copies" / hashlib.sha256(place.encode()).hexdigest()[:12]
        try:
            copies.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise unwritable(copies, problem) from problem
        database = connect(where)
        try:
            _check_encoding(database, place)
            migrate(database)
            _check_pgvector(database, place)
            storage = cls(place, Catalogue(database, copies))
            storage.sweep_copies()
        except BaseException:
            database.dispose()
            raise
        return storage

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See ``gallery.storage.Storage``, here and below.

        The lock is a transaction's, not a session's, so that it works through a pooler, too.
        """
        options = self._database.execution_options(isolation_level="READ COMMITTED")
        with options.connect() as connection:
            connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            if not try_turn(connection, GALLERY_WRITER):
                raise Busy(
                    "another `lookalike gallery` command is changing this gallery: wait until it "
                    "is done, then try again"
                )
            yield

    def size_bytes(self) -> int:
        """Of the gallery's tables and their indexes."""
        tables = (*GalleryTables.metadata.tables, *PostgresTables.metadata.tables)
        sizes = [func.pg_total_relation_size(func.to_regclass(name)) for name in tables]
        with self.catalogue.snapshot() as connection:
            return sum(filter(None, connection.execute(select(*sizes)).one()))

    def noticed(self) -> None:
        """Whoever was removed elsewhere does not stay in this machine's folder."""
        if time.monotonic() - self._swept_s > _SWEEP_S:
            self._swept_s = time.monotonic()
            self.sweep_copies()

    def sweep_copies(self) -> None:
        """Removes copies of pictures that are not in the gallery any more."""
        files = {path.stem: path for path in self._copies.glob("*/*.jpg")}
        hashes = sorted(files)
        here: set[str] = set()
        with self.catalogue.snapshot() as connection:
            for start in range(0, len(hashes), _CHUNK):
                some = hashes[start : start + _CHUNK]
                query = select(PictureRow.sha256).where(PictureRow.sha256.in_(some))
                here.update(connection.scalars(query))
        self.discard_pictures(files.keys() - here)

    def keep_picture(self, connection: Connection, sha256: str, jpeg: bytes) -> None:
        """Writes the row; a copy of an earlier picture goes."""
        statement = insert_or_replace(PictureRow).values(sha256=sha256, jpeg=jpeg)
        connection.execute(
            statement.on_conflict_do_update(index_elements=["sha256"], set_={"jpeg": jpeg})
        )
        self.discard_pictures([sha256])

    def picture(self, portrait: Portrait) -> bytes:
        """From the copy on this machine, which is made if need be."""
        self.present([portrait])
        return portrait.thumbnail.read_bytes()

    def present(self, portraits: Iterable[Portrait]) -> None:
        """Fetches what is not on this machine yet."""
        missing = {p.sha256: p.thumbnail for p in portraits if not _is_whole(p.thumbnail)}
        if not missing:
            return
        query = select(PictureRow.sha256, PictureRow.jpeg).where(PictureRow.sha256.in_(missing))
        with self.catalogue.snapshot() as connection:
            rows = connection.execute(query).all()
        for row in rows:
            path = missing[row.sha256]
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, row.jpeg, durable=False)
            except OSError as problem:
                raise unwritable(path.parent, problem) from problem

    def discard_pictures(self, hashes: Collection[str]) -> None:
        """Removes the copies; the pictures went with their portraits."""
        for sha256 in hashes:
            with suppress(OSError):
                thumbnail_path(self._copies, sha256).unlink()

    def sweep_pictures(self, wanted: Collection[str]) -> SweptPictures:
        """No picture is there without its portrait; a portrait may have lost its picture."""
        self.sweep_copies()
        query = (
            select(PortraitRow.sha256)
            .outerjoin(PictureRow, PictureRow.sha256 == PortraitRow.sha256)
            .where(func.coalesce(func.octet_length(PictureRow.jpeg), 0) == 0)
        )
        with self.catalogue.snapshot() as connection:
            lost = frozenset(connection.scalars(query))
        return SweptPictures(0, lost & frozenset(wanted))

    def open_index(self, state: SpaceState) -> tuple[SpaceState, PostgresIndex]:
        """Reads who is in it."""
        return state, PostgresIndex(self._database, state.space)

    def embedded(self, space: Space) -> NDArray[np.int64]:
        """From the rows."""
        query = (
            select(PortraitVectorRow.portrait_id)
            .where(PortraitVectorRow.space_id == space.id)
            .order_by(PortraitVectorRow.portrait_id)
        )
        with self.catalogue.snapshot() as connection:
            return np.asarray(connection.scalars(query).all(), dtype=np.int64)

    def vectors(self, space: Space, portrait_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """All at one moment."""
        with self.catalogue.snapshot() as connection:
            return vectors_of_portraits(connection, space, portrait_ids)

    def append(
        self,
        connection: Connection,
        space: Space,
        vectors: NDArray[np.float32],
        portraits: Sequence[int],
        persons: Sequence[int],
    ) -> None:
        """Adds rows."""
        add_vectors(connection, space, vectors, portraits, persons)

    def bury(self, connection: Connection, portrait_ids: Sequence[int]) -> None:
        """Deletes rows."""
        take_away(connection, [int(one) for one in portrait_ids])

    def drop_damaged(self, space: Space) -> None:
        """Counts the rows, which nobody but this program should have changed."""
        with changing(self._database) as connection:
            states = {state.space: state.row_count for state in space_states(connection)}
            if space not in states:
                return
            portraits = select(func.count()).where(PortraitVectorRow.space_id == space.id)
            people = select(func.coalesce(func.sum(PersonVectorRow.portraits), 0)).where(
                PersonVectorRow.space_id == space.id
            )
            counted = {connection.scalar(portraits), connection.scalar(people)}
            if counted != {states[space]}:
                registrar.delete_space(connection, space)
                registrar.note_change(connection)

    def compact(self, space: Space) -> None:
        """The server does so by itself."""
        self.settle(space)

    def settle(self, space: Space, progress: Progress = no_progress) -> None:
        """Makes or drops the index by which many people are searched."""
        del progress  # the server does not say how far it is
        with changing(self._database) as connection:
            if settle_index(connection, space):
                registrar.note_change(connection)

    def sweep_vectors(self) -> int:
        """No vector is there without its portrait and its space."""
        return 0

    def read_calibration(self, space: Space) -> bytes | None:
        """From its row."""
        query = select(CalibrationRow.content).where(CalibrationRow.space_id == space.id)
        with self.catalogue.snapshot() as connection:
            content = connection.scalar(query)
        return None if content is None else content.encode()

    def keep_calibration(self, connection: Connection, space: Space, content: bytes) -> None:
        """Writes the row; the space must be there."""
        connection.execute(delete(CalibrationRow).where(CalibrationRow.space_id == space.id))
        connection.execute(
            insert(CalibrationRow).values(space_id=space.id, content=content.decode())
        )

    def calibration_place(self, space: Space) -> str:
        """The row."""
        return f"the calibration of {space.id} in {self.place}"


def _is_whole(path: Path) -> bool:
    try:
        return path.stat().st_size > 0  # a power cut may have left it empty
    except OSError:
        return False


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
