"""The HTTP client: few connections, retries with backoff, Retry-After, resumed downloads.

One ``HttpClient`` serves one server and any number of threads; when the server wants a pause, all
of them pause. What can go wrong::

    SourceDown             the server does not answer, or asks for a long pause
    ├── TooSlow            connections, but no answer in time
    └── Failing            an answer that fails, again and again; one address may be to blame
    Refused                trying again would not help: other 4xx, too large, an unusable address
    └── NotThere           404, 410
    Stopped                the stop event was set
"""

from __future__ import annotations

import contextlib
import email.utils
import errno
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

from engine.errors import SetupProblem, SourceDown

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes there will be, if known."""

_MOST_ANSWER_BYTES: Final = 60_000_000
_MOST_FILE_BYTES: Final = 1_000_000_000  # ten times the largest weight file
_GONE: Final = frozenset({404, 410})
_PASSING: Final = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a server.

    Attributes:
        connect_s: For a connection.
        stall_s: For the next bytes of an answer.
        tries: Attempts at one question; at a file: attempts in a row that bring nothing new.
        tries_first: Attempts while the server was never reached: there may be no network.
        tries_to_connect: Attempts while a server that was reached before is not any more.
        tries_when_slow: Attempts while connections bring no answer.
        tries_when_limited: Attempts answered 429 without saying for how long.
        first_pause_s: Before the second attempt; doubled each time, times 0.5 to 1.5 by chance.
        longest_pause_s: Between two attempts, unless the server asks for more.
        lag_pause_s: At least so long when a MediaWiki server says that its databases lag.
        most_s: A server that asks for a longer pause than this is left alone.
    """

    connect_s: float = 10.0
    stall_s: float = 30.0
    tries: int = 8
    tries_first: int = 2
    tries_to_connect: int = 5
    tries_when_slow: int = 4
    tries_when_limited: int = 4
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0
    lag_pause_s: float = 5.0
    most_s: float = 900.0


class Answer(NamedTuple):
    """What came back.

    Attributes:
        status: Of HTTP.
        pause_s: Retry-After in seconds, or None.
        body: Decompressed.
    """

    status: int
    pause_s: float | None
    body: bytes


class Refused(Exception):  # noqa: N818 - named like the errors of engine/errors.py
    """Trying again would not help.

    Attributes:
        reason: Such as ``403 Forbidden``; the message has the address as well.
    """

    def __init__(self, url: str, reason: str, verb: str = "can't be used:") -> None:
        super().__init__(f"{url} {verb} {reason}")
        self.reason = reason


class NotThere(Refused):
    """The server has nothing at that address."""


class Stopped(Exception):  # noqa: N818 - no error: the work is being given up
    """Somebody wants the work to end."""


class TooSlow(SourceDown):
    """The server can be reached, but takes longer than ``Patience.stall_s``."""


class Failing(SourceDown):
    """The server answers, but with an error, again and again.

    Attributes:
        status: The last one.
        reason: Such as ``it answers 500``.
    """

    def __init__(self, message: str, status: int, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


@dataclass(eq=False)
class Retry(Exception):  # noqa: N818 - named like the errors of engine/errors.py
    """An attempt that may be repeated.

    Attributes:
        pause_s: What the server asked for; None if it did not say.
        status: Of the answer; None without one.
        slow: There was a connection, but no answer in time.
        advanced: It brought something new all the same, so the count of tries starts again.
    """

    reason: str
    pause_s: float | None = None
    status: int | None = None
    slow: bool = False
    advanced: bool = False


class HttpClient:
    """Asks one server; safe to use from several threads, all of which pause when one must.

    Redirects are followed, 20 at most, but never from https to http.

    Args:
        agent: The User-Agent.
        connections: How many at once.
        patience: How long to wait.
        stop: Ends every wait when it is set.
        advice: What to do about a server that is down: the end of such a sentence.
    """

    def __init__(
        self,
        agent: str,
        *,
        connections: int = 1,
        patience: Patience | None = None,
        stop: threading.Event | None = None,
        advice: str = "what has arrived is kept, run the same command again later to go on",
    ) -> None:
        import httpx  # only to download

        self._patience = patience or Patience()
        self._stop = stop or threading.Event()
        self._advice = advice
        self._turn = threading.BoundedSemaphore(connections)
        self._resume_at = 0.0
        self._reached = False
        self._client = httpx.Client(
            headers={"User-Agent": agent},
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            follow_redirects=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(
        self,
        url: str,
        read: Callable[[Answer], T],
        params: Mapping[str, str] | None = None,
        *,
        early: Callable[[Answer], None] | None = None,
        patience: Patience | None = None,
    ) -> T:
        """What the server answers, after as many attempts and pauses as it takes.

        Args:
            url: http or https.
            read: Takes what it needs from an answer with status 200; may raise ``Retry``.
            params: Of the URL.
            early: Sees every answer before its status is judged; may raise what it likes.
            patience: For this question, in place of the client's.

        Raises:
            NotThere: If there is nothing at that address.
            Refused: If the server refuses, or the answer has more than 60 MB.
            SourceDown: If it does not answer; ``TooSlow`` and ``Failing`` say how.
            Stopped: If somebody wants the work to end.
        """
        waits = patience or self._patience

        def attempt() -> T:
            headers = {"Accept-Encoding": "gzip"}
            with self._stream(url, waits, headers, params) as response:
                body = bytearray()
                for piece in response.iter_bytes():
                    body += piece
                    if len(body) > _MOST_ANSWER_BYTES:
                        raise Refused(url, "too large", "is")
            answer = Answer(response.status_code, _retry_after_s(response), bytes(body))
            if early is not None:
                early(answer)
            _check_status(url, response)
            return read(answer)

        return self._persist(url, attempt, waits)

    def download(self, url: str, part: Path, progress: Progress | None = None) -> None:
        """Downloads a file, going on where an earlier call for the same file stopped.

        What has arrived is continued only while the server says, by ETag or date, that it still
        has the same file; otherwise the download starts again.

        Args:
            url: http or https.
            part: The file that grows; whole when this returns. Beside it ``<part>.json`` remembers
                which file it belongs to.
            progress: Told about every piece.

        Raises:
            Refused: If the server refuses, the URL can't be used, or the file has more than 1 GB.
            SourceDown: If the server does not answer, or stops answering again and again.
            SetupProblem: If the file can't be written.
            Stopped: If somebody wants the work to end.
        """
        file = _PartialFile(url, part, progress or (lambda _done, _total: None))

        def attempt() -> None:
            known, have = file.so_far()
            if known is not None and have == known.total:
                return
            headers = {"Accept-Encoding": "identity"}
            if known is not None and known.validator is not None and have:
                headers |= {"Range": f"bytes={have}-", "If-Range": known.validator}
            try:
                with self._stream(url, self._patience, headers) as response:
                    file.receive(response, known, have)
            except Retry as problem:
                problem.advanced = file.advanced()
                raise

        with _local_errors(part):
            self._persist(url, attempt, self._patience)

    def _persist(self, url: str, attempt: Callable[[], T], patience: Patience) -> T:
        """Repeats an attempt until it succeeds, or the patience ends."""
        import stamina  # only to download

        host = _host(url)
        failures: list[Retry] = []

        def pause_after(problem: Exception) -> bool | float:
            if not isinstance(problem, Retry) or not self._repeats(problem, failures, patience):
                return False
            return 0.0  # the pause is not stamina's: all threads share it, and the stop event

        try:
            for once in stamina.retry_context(on=pause_after, attempts=None, timeout=None):
                with once:
                    self._wait()
                    with self._turn:
                        return attempt()
        except Retry as problem:
            raise self._source_down(problem, host) from problem
        raise AssertionError  # pragma: no cover - the loop returns or raises

    def _repeats(self, problem: Retry, failures: list[Retry], patience: Patience) -> bool:
        """Whether an attempt is to be repeated; then everybody pauses first."""
        if problem.advanced:
            failures.clear()
        failures.append(problem)
        limited = sum(one.status == 429 and one.pause_s is None for one in failures)
        unanswered = sum(one.status is None for one in failures)
        pause_s = problem.pause_s
        if not pause_s:
            chance = 0.5 + random.random()  # noqa: S311 - to scatter, not to hide
            grown_s = patience.first_pause_s * 2.0 ** (len(failures) - 1) * chance
            pause_s = min(patience.longest_pause_s, grown_s)
        if (
            len(failures) >= patience.tries
            or limited >= patience.tries_when_limited
            or sum(one.slow for one in failures) >= patience.tries_when_slow
            or unanswered >= (patience.tries_to_connect if self._reached else patience.tries_first)
            or pause_s > patience.most_s
        ):
            return False
        self._resume_at = max(self._resume_at, time.monotonic() + pause_s)
        return True

    def _source_down(self, problem: Retry, host: str) -> SourceDown:
        """The sentence about a server that was given up."""
        if problem.pause_s and problem.pause_s > self._patience.most_s:
            minutes = f"{problem.pause_s / 60:.0f} minutes"
            return SourceDown(
                f"{host} asks to be left alone for {minutes}: try again then; what has arrived is "
                "kept"
            )
        if problem.slow:
            return TooSlow(f"{host} takes too long to answer; {self._advice}")
        if problem.status is None:
            online = "" if self._reached else " (is this machine online?)"
            return SourceDown(f"{host} can't be reached{online}: {problem.reason}; {self._advice}")
        message = f"{host} does not deliver ({problem.reason}); {self._advice}"
        return Failing(message, problem.status, problem.reason)

    def _wait(self) -> None:
        while True:
            left_s = self._resume_at - time.monotonic()
            if self._stop.wait(max(0.0, left_s)):
                raise Stopped
            if left_s <= 0:
                return

    @contextmanager
    def _stream(
        self,
        url: str,
        patience: Patience,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None = None,
    ) -> Iterator[httpx.Response]:
        """An answer whose body is still to be read; errors of httpx become ours."""
        import httpx  # only to download

        status = None
        timeout = httpx.Timeout(patience.stall_s, connect=patience.connect_s, pool=None)
        try:
            with self._client.stream(
                "GET", url, params=params, headers=dict(headers), timeout=timeout
            ) as response:
                self._reached = True
                status = response.status_code
                hops = [*response.history, response]
                if url.startswith("https:") and any(hop.url.scheme != "https" for hop in hops):
                    raise Refused(url, "from https", "leads away")
                yield response
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as problem:
            raise Refused(url, str(problem)) from problem
        except httpx.TooManyRedirects as problem:
            raise Refused(url, "too many redirects") from problem
        except httpx.TimeoutException as problem:
            slow = isinstance(problem, httpx.ReadTimeout)
            raise Retry("no answer in time", status=status, slow=slow) from problem
        except httpx.RequestError as problem:
            raise Retry(str(problem) or type(problem).__name__, status=status) from problem


def _host(url: str) -> str:
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname:
            return parts.netloc
    raise Refused(url, "it is no web address")


class _Identity(NamedTuple):
    """Which file the server has: its URL, ETag or date, and size in bytes."""

    url: str
    validator: str | None
    total: int | None


class _PartialFile:
    """One file on its way; every attempt goes on where the last one stopped."""

    def __init__(self, url: str, part: Path, progress: Progress) -> None:
        self._url = url
        self._part = part
        self._note = part.with_name(f"{part.name}.json")
        self._progress = progress
        self._most = 0  # bytes that ever arrived

    def so_far(self) -> tuple[_Identity | None, int]:
        """What is known of the file, and how much of it has arrived; (None, 0) at the start."""
        try:
            identity = _Identity(*json.loads(self._note.read_text(encoding="utf-8")))
            have = self._part.stat().st_size
        except (OSError, ValueError, TypeError):
            return None, 0
        if identity.url != self._url or have > (identity.total or have):
            return None, 0
        self._most = max(self._most, have)
        return identity, have

    def advanced(self) -> bool:
        """Whether there is more than there ever was."""
        return self._part.exists() and self._part.stat().st_size > self._most

    def receive(self, response: httpx.Response, known: _Identity | None, have: int) -> None:
        """Writes what an answer brings.

        Raises:
            Retry: If it ends early, or the file has changed on the server.
            Refused: If it is an error for good, or too large.
        """
        status = response.status_code
        partial = status == 206 and known is not None
        if status == 416 or (partial and not _continues(response, known, have)):
            self._part.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)
            raise Retry("the file changed on the server", status=status)
        _check_status(self._url, response)
        identity = known if partial and known is not None else _identity(self._url, response)
        if (identity.total or 0) > _MOST_FILE_BYTES:
            raise Refused(self._url, "far too large", "is")
        if not partial:
            have = 0
            self._note.write_text(json.dumps(identity), encoding="utf-8")
        with self._part.open("r+b" if have else "wb") as file:
            file.seek(have)
            file.truncate()
            self._progress(have, identity.total)
            for piece in response.iter_raw():
                have += len(piece)
                if have > (identity.total or _MOST_FILE_BYTES):
                    raise Refused(self._url, "more than it announced", "sends")
                file.write(piece)
                self._progress(have, identity.total)
            file.flush()
            os.fsync(file.fileno())
        if identity.total is not None and have < identity.total:
            raise Retry(f"{have} of {identity.total} bytes arrived", status=status)


def _identity(url: str, response: httpx.Response) -> _Identity:
    """Which file a complete answer brings; weak ETags can't vouch for bytes (RFC 9110, 8.8.1)."""
    etag = response.headers.get("ETag")
    if etag is None or etag.startswith("W/"):
        etag = response.headers.get("Last-Modified")
    length = response.headers.get("Content-Length", "")
    return _Identity(url, etag, int(length) if length.isdecimal() else None)


def _continues(response: httpx.Response, known: _Identity | None, have: int) -> bool:
    """Whether a partial answer starts where we stopped, in the same file."""
    content_range = response.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content_range)
    if known is None or found is None or int(found[1]) != have:
        return False
    if known.total is not None and found[2] not in ("*", str(known.total)):
        return False
    etag = response.headers.get("ETag")
    return etag is None or not str(known.validator).startswith('"') or etag == known.validator


def _check_status(url: str, response: httpx.Response) -> None:
    """Raises NotThere, Refused or Retry for answers without content."""
    status = response.status_code
    reason = f"{status} {response.reason_phrase}"
    if status in _GONE:
        raise NotThere(url, reason, "answers")
    if status in _PASSING or status >= 500:
        raise Retry(f"it answers {status}", _retry_after_s(response), status=status)
    if status not in (200, 206):
        raise Refused(url, reason, "answers")


def _retry_after_s(response: httpx.Response) -> float | None:
    """Retry-After in seconds, from a number or a date (RFC 9110, 10.2.3); None without it."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None


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
