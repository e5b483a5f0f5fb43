"""What was asked and fetched, so that nothing is asked twice: one SQLite file in the home.

An answer or a picture is there whole or not at all, whenever the program is killed. Losing the
file costs nothing but asking again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from engine.errors import BadSettings, TooLarge

if TYPE_CHECKING:
    from gallery.gallery import Gallery

_CHUNK: Final = 500  # values in one IN (...); SQLite's oldest limit is 999
_DAMAGED: Final = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
_LASTING: Final = frozenset({"note", "refusal"})
_SCHEMA: Final = """
    PRAGMA auto_vacuum = FULL;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS answer (
        kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (kind, key)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS picture (
        title TEXT PRIMARY KEY, sha256 TEXT NOT NULL, content BLOB
    );
"""


class Cache:
    """Remembers JSON values by kind and key, and pictures; safe to use from several threads.

    Kinds: ``people`` and ``labels`` (Wikidata), ``file``, ``members`` and ``missing`` (Commons),
    ``refusal`` (why a picture is not somebody's portrait), ``note`` (the contact, the starter).

    Args:
        file: In a folder that exists; made if it is missing or damaged.
        lasting: Kinds that are remembered for ever.
        lifetime_s: What is older is not remembered, but for these.

    Raises:
        BadSettings: If the file can't be opened or written.
    """

    def __init__(
        self,
        file: Path,
        *,
        lasting: frozenset[str] = _LASTING,
        lifetime_s: float = 30 * 86_400.0,
    ) -> None:
        self._file = file
        self._lasting = lasting
        self._lifetime_s = lifetime_s
        self._lock = threading.Lock()
        try:
            self._connection = self._opened()
        except sqlite3.DatabaseError as problem:
            if problem.sqlite_errorcode & 0xFF not in _DAMAGED:
                raise BadSettings(f"{file} can't be used ({problem})") from problem
            for path in file.parent.glob(f"{file.name}*"):
                path.unlink()
            self._connection = self._opened()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._connection.close()

    def get(self, kind: str, key: str) -> Any:
        """What is remembered, or None."""
        return self.get_many(kind, [key]).get(key)

    def get_many(self, kind: str, keys: Iterable[str]) -> dict[str, Any]:
        """What is remembered of these keys."""
        wanted = list(dict.fromkeys(keys))
        since = 0.0 if kind in self._lasting else time.time() - self._lifetime_s
        found: dict[str, Any] = {}
        for start in range(0, len(wanted), _CHUNK):
            chunk = wanted[start : start + _CHUNK]
            marks = ",".join("?" * len(chunk))
            query = f"SELECT key, value FROM answer WHERE kind = ? AND at > ? AND key IN ({marks})"  # noqa: S608 - question marks only
            with self._lock:
                rows = self._connection.execute(query, [kind, since, *chunk]).fetchall()
            found |= {key: json.loads(value) for key, value in rows}
        return found

    def put(self, kind: str, key: str, value: Any) -> None:
        """Remembers a value in place of what was there."""
        self.put_many(kind, {key: value})

    def put_many(self, kind: str, values: Mapping[str, Any]) -> None:
        """Remembers all of the values, or none if the program ends now."""
        now = time.time()
        rows = [
            (kind, key, json.dumps(value, ensure_ascii=False), now) for key, value in values.items()
        ]
        with self._changing() as connection:
            connection.executemany("INSERT OR REPLACE INTO answer VALUES (?, ?, ?, ?)", rows)

    def forget(self, *kinds: str) -> None:
        """Forgets everything of these kinds."""
        with self._changing() as connection:
            connection.executemany("DELETE FROM answer WHERE kind = ?", [(kind,) for kind in kinds])

    def put_picture(self, title: str, content: bytes) -> None:
        """Keeps a picture until it is dropped, and its SHA-256 for ever."""
        sha256 = hashlib.sha256(content).hexdigest()
        with self._changing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO picture VALUES (?, ?, ?)", (title, sha256, content)
            )

    def sha256(self, title: str) -> str | None:
        """The SHA-256 of a picture that was ever fetched."""
        with self._lock:
            row = self._connection.execute(
                "SELECT sha256 FROM picture WHERE title = ?", (title,)
            ).fetchone()
        return row and str(row[0])

    def picture_titles(self) -> list[str]:
        """Titles of the pictures whose bytes are kept."""
        with self._lock:
            query = "SELECT title FROM picture WHERE content IS NOT NULL"
            return [title for (title,) in self._connection.execute(query)]

    def read_picture(self, title: str, most_bytes: int | None = None) -> bytes:
        """A picture that is kept.

        Raises:
            TooLarge: If it has more bytes than that.
            FileNotFoundError: If it is not kept.
        """
        with self._lock:
            row = self._connection.execute(
                "SELECT content FROM picture WHERE title = ?", (title,)
            ).fetchone()
        if row is None or row[0] is None:
            raise FileNotFoundError(title)
        content: bytes = row[0]
        if most_bytes is not None and len(content) > most_bytes:
            raise TooLarge(f"the picture has more than {most_bytes} bytes")
        return content

    def drop_pictures(self, titles: Collection[str]) -> None:
        """Gives up the bytes of pictures that are not needed any more."""
        with self._changing() as connection:
            connection.executemany(
                "UPDATE picture SET content = NULL WHERE title = ?", [(title,) for title in titles]
            )

    def _opened(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._file, timeout=15, check_same_thread=False, isolation_level=None
        )
        try:
            connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


def folder_of(gallery: Gallery) -> Path:
    """The folder for what is downloaded; made if it is missing.

    Raises:
        BadSettings: If it can't be made.
    """
    folder = gallery.folder / "wikimedia"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BadSettings(f"{folder} can't be made ({problem.strerror})") from problem
    return folder


def cache_of(gallery: Gallery) -> Cache:
    """The cache of what was asked and fetched for a gallery; a context."""
    return Cache(folder_of(gallery) / "cache.db")
