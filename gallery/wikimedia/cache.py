"""What was asked and fetched, so that nothing is asked twice: one SQLite file in the home.

An answer or a picture is there whole or not at all, whenever the program is killed. Losing the
file costs nothing but asking again.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from engine.errors import BadSettings, TooLarge
from gallery.database import set_pragma

_DAMAGED: Final = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
_LASTING: Final = frozenset({"note", "refusal", "sha256", "picture"})
_SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS answer (
        kind TEXT NOT NULL, key TEXT NOT NULL, value NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (kind, key)
    );
"""
_GET: Final = """
    SELECT key, value FROM answer
    WHERE kind = ? AND at > ? AND key IN (SELECT value FROM json_each(?))
"""


class Cache(AbstractContextManager["Cache"]):
    """Remembers values by kind and key: JSON, or bytes; safe to use from several threads.

    Kinds: ``people`` and ``labels`` (Wikidata), ``file``, ``members`` and ``missing`` (Commons),
    ``refusal`` (why a picture is not somebody's portrait), ``picture`` (its bytes until they are
    dropped), ``sha256`` (of a picture ever fetched), ``note`` (the contact, the starter).

    The file is made if it is missing or damaged; BadSettings is raised if it can't be used. What is
    older than ``lifetime_s`` is not remembered, but for notes, refusals and pictures.
    """

    def __init__(self, file: Path, *, lifetime_s: float = 30 * 86_400.0) -> None:
        self._lifetime_s = lifetime_s
        self._lock = threading.Lock()
        try:
            self._connection = _opened(file)
        except sqlite3.DatabaseError as problem:
            if problem.sqlite_errorcode & 0xFF not in _DAMAGED:
                raise BadSettings(f"{file} can't be used ({problem})") from problem
            for path in file.parent.glob(f"{file.name}*"):
                path.unlink()
            self._connection = _opened(file)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._connection.close()

    def get(self, kind: str, key: str) -> Any:
        """What is remembered, or None."""
        return self.get_many(kind, [key]).get(key)

    def get_many(self, kind: str, keys: Iterable[str]) -> dict[str, Any]:
        """What is remembered of these keys."""
        since = 0.0 if kind in _LASTING else time.time() - self._lifetime_s
        with self._lock:
            rows = self._connection.execute(_GET, (kind, since, json.dumps([*keys]))).fetchall()
        return {key: v if isinstance(v, bytes) else json.loads(v) for key, v in rows}

    def put(self, kind: str, key: str, value: Any) -> None:
        """Remembers a value in place of what was there."""
        self.put_many(kind, {key: value})

    def put_many(self, kind: str, values: Mapping[str, Any]) -> None:
        """Remembers all of the values, or none if the program ends now."""
        rows = [
            (kind, key, value if isinstance(value, bytes) else json.dumps(value), time.time())
            for key, value in values.items()
        ]
        self._change("INSERT OR REPLACE INTO answer VALUES (?, ?, ?, ?)", rows)

    def forget(self, *kinds: str) -> None:
        """Forgets everything of these kinds."""
        self._change("DELETE FROM answer WHERE kind = ?", [(kind,) for kind in kinds])

    def read_picture(self, title: str, most_bytes: int) -> bytes:
        """A picture that is kept; raises TooLarge, or FileNotFoundError if it is not kept."""
        content: bytes | None = self.get("picture", title)
        if content is None:
            raise FileNotFoundError(title)
        if len(content) > most_bytes:
            raise TooLarge(f"the picture has more than {most_bytes} bytes")
        return content

    def drop_pictures(self, titles: Iterable[str]) -> None:
        """Gives up the bytes of pictures that are not needed any more."""
        rows = [("picture", title) for title in titles]
        self._change("DELETE FROM answer WHERE kind = ? AND key = ?", rows)

    def _change(self, query: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with self._lock, self._connection as connection:
            connection.executemany(query, rows)


def _opened(file: Path) -> sqlite3.Connection:
    opened = sqlite3.connect(file, timeout=15, check_same_thread=False, isolation_level="IMMEDIATE")
    try:
        for pragma in ("auto_vacuum = FULL", "journal_mode = WAL", "synchronous = NORMAL"):
            set_pragma(opened, pragma)
        opened.executescript(_SCHEMA)
    except BaseException:
        opened.close()
        raise
    return opened


def folder_of(gallery_folder: Path) -> Path:
    """The folder for what is downloaded; made if it is missing, or BadSettings is raised."""
    folder = gallery_folder / "wikimedia"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BadSettings(f"{folder} can't be made ({problem.strerror})") from problem
    return folder


def cache_of(gallery_folder: Path) -> Cache:
    """The cache of what was asked and fetched for a gallery; a context."""
    return Cache(folder_of(gallery_folder) / "cache.db")
