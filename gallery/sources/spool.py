"""Pictures that were fetched and are not in the gallery yet.

They are files on disk, so that a program that was killed has them when it starts again.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.errors import TooLarge
from gallery.sources.commons import CommonsFile
from gallery.sources.courier import Courier, NotThere, Unwilling
from gallery.sources.journal import Journal
from gallery.vectors import write_atomically

__all__ = ["Missing", "Spool", "Spooled"]

_FAILURES: Final = 3  # pictures in a row that a server can't deliver: it is ill, not they


@dataclass(frozen=True, slots=True)
class Missing:
    """A picture that can't be had.

    Attributes:
        reason: Why.
        for_good: Whether it need not be asked for again.
    """

    reason: str
    for_good: bool


@dataclass(frozen=True, slots=True)
class Spooled:
    """A picture in the spool.

    Attributes:
        path: Its file.
        sha256: Of its bytes.
    """

    path: Path
    sha256: str

    def read(self, most_bytes: int) -> bytes:
        """The bytes.

        Raises:
            TooLarge: If they are more than that.
            OSError: If they can't be read.
        """
        if self.path.stat().st_size > most_bytes:
            raise TooLarge(f"the picture has more than {most_bytes} bytes")
        return self.path.read_bytes()


class Spool:
    """Fetches pictures, each once, over a few connections.

    Args:
        folder: Made if it is missing.
        courier: To the server that has the pictures.
        journal: Remembers the hash of everything that was fetched.
        connections: As many pictures at once.
    """

    def __init__(
        self, folder: Path, courier: Courier, journal: Journal, *, connections: int
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._courier = courier
        self._journal = journal
        self._pool = ThreadPoolExecutor(connections, thread_name_prefix="wikimedia-picture")
        self._lock = threading.Lock()
        self._coming: dict[str, Future[Spooled | Missing]] = {}
        self._failures = 0

    def close(self) -> None:
        """Gives up what has not begun."""
        self._pool.shutdown(cancel_futures=True)

    def fetch(self, file: CommonsFile) -> Callable[[], Spooled | Missing]:
        """Begins to fetch a picture; the result waits for it: the picture, or why there is none.

        Raises (the result):
            SourceDown: If the server does not answer.
        """
        with self._lock:
            coming = self._coming.get(file.title)
            if coming is None:
                coming = self._pool.submit(self._fetched, file)
                self._coming[file.title] = coming
        return coming.result

    def sha256(self, title: str) -> str | None:
        """Of a picture that was ever fetched."""
        known: str | None = self._journal.get("picture", title)
        return known

    def drop(self, title: str) -> None:
        """Deletes a picture that is not needed any more."""
        with self._lock:
            self._coming.pop(title, None)
        with contextlib.suppress(OSError):
            self._path(title).unlink()

    def sweep(self) -> None:
        """Deletes every picture."""
        for path in self._folder.iterdir():
            with contextlib.suppress(OSError):
                path.unlink()

    def _path(self, title: str) -> Path:
        return self._folder / hashlib.sha256(title.encode()).hexdigest()[:32]

    def _fetched(self, file: CommonsFile) -> Spooled | Missing:
        path = self._path(file.title)
        there = self._there(file.title, path)
        if there is not None:
            return there
        assert file.thumb_url is not None
        try:
            content = self._courier.ask(file.thumb_url, lambda answer: answer.body)
        except NotThere:
            return Missing("the picture was deleted", for_good=True)
        except Unwilling as problem:
            self._failures += 1
            if problem.status < 500 or self._failures >= _FAILURES:
                raise
            return Missing(
                f"the picture can't be fetched (the server answers {problem.status})",
                for_good=False,
            )
        self._failures = 0
        sha256 = hashlib.sha256(content).hexdigest()
        write_atomically(path, content, durable=False)
        self._journal.put("picture", file.title, sha256)
        return Spooled(path, sha256)

    def _there(self, title: str, path: Path) -> Spooled | None:
        """The picture that an earlier run fetched, if it is whole."""
        try:
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            return None
        known = self.sha256(title)
        if known is None:  # the program was killed before it could note this
            self._journal.put("picture", title, sha256)
        elif known != sha256:
            return None
        return Spooled(path, sha256)
