"""What has been asked and answered, so that nothing is asked twice: SQLite, one row an answer.

A row is there whole or not at all, whenever the program is killed. Losing the file costs nothing
but asking again.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from engine.errors import BadSettings

__all__ = ["Journal"]

_CHUNK: Final = 500  # values in one IN (...); SQLite's oldest limit is 999
_DAMAGED: Final = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})


class Journal:
    """Remembers JSON values by kind and key; safe to use from several threads.

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
        lasting: frozenset[str] = frozenset(),
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
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
            query = f"SELECT key, value FROM entry WHERE kind = ? AND at > ? AND key IN ({marks})"  # noqa: S608 - question marks only
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
        with self._lock, _transaction(self._connection):
            self._connection.executemany("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?)", rows)

    def forget(self, *kinds: str) -> None:
        """Forgets everything of these kinds."""
        with self._lock, _transaction(self._connection):
            for kind in kinds:
                self._connection.execute("DELETE FROM entry WHERE kind = ?", [kind])

    def _opened(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._file, timeout=15, check_same_thread=False, isolation_level=None
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS entry (kind TEXT NOT NULL, key TEXT NOT NULL, "
                "value TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID"
            )
        except BaseException:
            connection.close()
            raise
        return connection


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Any:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
