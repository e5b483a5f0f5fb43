"""Fetches one large file over HTTP: resumes, retries, and leaves a file that is whole or none."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from engine.errors import SetupProblem, SourceDown, WeightsMissing

if TYPE_CHECKING:
    import httpx

__all__ = ["Patience", "Progress", "fetch"]

Progress = Callable[[int, int | None], None]

_MOST_BYTES = 1_000_000_000  # ten times the largest weight file
_LONGEST_RETRY_AFTER_S = 60.0
_RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a server.

    Attributes:
        connect_s: For a connection.
        stall_s: For the next bytes.
        tries: Attempts in a row that bring nothing new, before giving up.
        first_pause_s: Before the second attempt; doubled each time, with some chance in it.
        longest_pause_s: Between two attempts.
    """

    connect_s: float = 10.0
    stall_s: float = 20.0
    tries: int = 5
    first_pause_s: float = 0.5
    longest_pause_s: float = 15.0


class _Interrupted(Exception):  # noqa: N818 - named like the errors of engine/errors.py
    """An attempt that ended early and may be repeated; the server may ask for a pause."""

    def __init__(self, reason: str, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


class _Advanced(Exception):  # noqa: N818 - named like the errors of engine/errors.py
    """An attempt that ended early but brought something new: the count of tries starts again."""


def fetch(
    url: str,
    part: Path,
    *,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> None:
    """Downloads to ``part``, going on where an earlier call for the same file stopped.

    What has arrived is continued only while the server says, by ETag or date, that it still has
    the same file; otherwise the download starts again.

    Args:
        url: http or https; redirects are followed, but never from https to http.
        part: The file that grows; whole when this returns. Beside it ``<part>.json`` remembers
            which file it belongs to.
        progress: Called with the bytes there are and the bytes there will be, if known.
        patience: How long to wait for the server.

    Raises:
        WeightsMissing: If the server refuses, or the URL can't be used.
        SourceDown: If the server does not answer, or stops answering again and again.
        SetupProblem: If the file can't be written.
    """
    import httpx  # only to download

    patience = patience or Patience()
    _check_url(url)
    timeout = httpx.Timeout(patience.stall_s, connect=patience.connect_s)
    headers = {"Accept-Encoding": "identity", "User-Agent": "lookalike"}
    with (
        _local_errors(part),
        httpx.Client(timeout=timeout, headers=headers, follow_redirects=True) as client,
    ):
        transfer = _Transfer(client, url, part, progress or (lambda _done, _total: None))
        while True:
            with contextlib.suppress(_Advanced):
                _persist(transfer, patience)
                return


def _persist(transfer: _Transfer, patience: Patience) -> None:
    """Repeats attempts that bring nothing new, with growing pauses."""
    import stamina  # only to download

    def pause_after(problem: Exception) -> bool | float:
        if not isinstance(problem, _Interrupted):
            return False
        return True if problem.pause_s is None else problem.pause_s

    try:
        for attempt in stamina.retry_context(
            on=pause_after,
            attempts=patience.tries,
            timeout=None,
            wait_initial=patience.first_pause_s,
            wait_max=patience.longest_pause_s,
            wait_jitter=patience.first_pause_s,
        ):
            with attempt:
                transfer.attempt()
    except _Interrupted as exc:
        host = urlsplit(transfer.url).netloc
        raise SourceDown(
            f"{host} does not deliver ({exc}); try again later, what has arrived is kept, "
            "or set models.base_url to a mirror"
        ) from exc


@dataclass(frozen=True, slots=True)
class _Identity:
    """Which file the server has: its URL, ETag or date, and size."""

    url: str
    validator: str | None
    total: int | None


class _Transfer:
    """One file on its way; every attempt goes on where the last one stopped."""

    def __init__(self, client: httpx.Client, url: str, part: Path, progress: Progress) -> None:
        self.url = url
        self._client = client
        self._part = part
        self._note = part.with_name(f"{part.name}.json")
        self._progress = progress
        self._most = 0  # bytes that ever arrived

    def attempt(self) -> None:
        """Goes on until the file is whole.

        Raises:
            _Interrupted: If it ended early.
            _Advanced: If it ended early but got further than ever before.
            WeightsMissing: If the server refuses.
        """
        known, have = self._so_far()
        self._most = max(self._most, have)
        if known is not None and have == known.total:
            return
        try:
            with _remote_errors(self.url):
                self._receive(known, have)
        except _Interrupted as exc:
            arrived = self._part.stat().st_size if self._part.exists() else 0
            if arrived > self._most:
                raise _Advanced from exc
            raise

    def _receive(self, known: _Identity | None, have: int) -> None:
        headers = {}
        if known is not None and known.validator is not None and have:
            headers = {"Range": f"bytes={have}-", "If-Range": known.validator}
        with self._client.stream("GET", self.url, headers=headers) as response:
            self._check(response)
            if response.status_code == 206 and known is not None:
                if not _continues(response, known, have):
                    self._discard()
                    raise _Interrupted("the file changed on the server")
                identity = known
            else:
                have = 0
                identity = _identity(self.url, response)
                self._note.write_text(json.dumps([*_fields(identity)]), encoding="utf-8")
            if (identity.total or 0) > _MOST_BYTES:
                raise WeightsMissing(f"{self.url} is far too large; {_MIRROR}")
            with self._part.open("r+b" if have else "wb") as file:
                file.seek(have)
                file.truncate()
                self._write(file, response, have, identity.total)

    def _write(
        self, file: BinaryIO, response: httpx.Response, done: int, total: int | None
    ) -> None:
        self._progress(done, total)
        for piece in response.iter_raw():
            done += len(piece)
            if done > (total or _MOST_BYTES):
                raise WeightsMissing(f"{self.url} sends more than it announced; {_MIRROR}")
            file.write(piece)
            self._progress(done, total)
        file.flush()
        os.fsync(file.fileno())
        if total is not None and done < total:
            raise _Interrupted(f"{done} of {total} bytes arrived")

    def _check(self, response: httpx.Response) -> None:
        """Refuses answers that bring no file."""
        hops = [*response.history, response]
        if urlsplit(self.url).scheme == "https" and any(r.url.scheme != "https" for r in hops):
            raise WeightsMissing(f"{self.url} leads away from https; {_MIRROR}")
        status = response.status_code
        if status in (200, 206):
            return
        if status == 416:
            self._discard()
            raise _Interrupted("the file changed on the server")
        if status in _RETRYABLE or status > 504:
            raise _Interrupted(f"it answers {status}", _retry_after_s(response))
        raise WeightsMissing(f"{self.url} answers {status} {response.reason_phrase}; {_MIRROR}")

    def _so_far(self) -> tuple[_Identity | None, int]:
        """What is known of the file, and how much of it has arrived; (None, 0) at the start."""
        try:
            identity = _Identity(*json.loads(self._note.read_text(encoding="utf-8")))
            have = self._part.stat().st_size
        except (OSError, ValueError, TypeError):
            return None, 0
        if identity.url != self.url or have > (identity.total or have):
            return None, 0
        return identity, have

    def _discard(self) -> None:
        self._part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


_MIRROR = "set models.base_url to a server that has the file"


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise WeightsMissing(f"{url} is no web address; {_MIRROR}")


def _fields(identity: _Identity) -> tuple[str, str | None, int | None]:
    return identity.url, identity.validator, identity.total


def _identity(url: str, response: httpx.Response) -> _Identity:
    """Which file a complete answer brings; weak ETags can't vouch for bytes (RFC 9110, 8.8.1)."""
    etag = response.headers.get("ETag")
    if etag is None or etag.startswith("W/"):
        etag = response.headers.get("Last-Modified")
    length = response.headers.get("Content-Length", "")
    return _Identity(url, etag, int(length) if length.isdecimal() else None)


def _continues(response: httpx.Response, known: _Identity, have: int) -> bool:
    """Whether a partial answer starts where we stopped, in the same file."""
    content_range = response.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content_range)
    if found is None or int(found[1]) != have:
        return False
    if known.total is not None and found[2] not in ("*", str(known.total)):
        return False
    etag = response.headers.get("ETag")
    return etag is None or not str(known.validator).startswith('"') or etag == known.validator


def _retry_after_s(response: httpx.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    return min(float(value), _LONGEST_RETRY_AFTER_S) if value.isdecimal() else None


@contextmanager
def _remote_errors(url: str) -> Iterator[None]:
    """Errors of httpx, translated by who can mend them."""
    import httpx  # only to download

    try:
        yield
    except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.TooManyRedirects) as exc:
        raise WeightsMissing(f"{url} can't be used ({exc}); {_MIRROR}") from exc
    except httpx.TimeoutException as exc:
        raise _Interrupted("no answer in time") from exc
    except httpx.TransportError as exc:
        raise _Interrupted(str(exc) or type(exc).__name__) from exc


@contextmanager
def _local_errors(part: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        reason: Any = "the disk is full" if exc.errno == errno.ENOSPC else exc.strerror or exc
        raise SetupProblem(
            f"{part.parent} can't be written: {reason}; mend that and run the command again, "
            "what has arrived is kept"
        ) from exc
