"""The HTTP client: few connections, retries with backoff, Retry-After, resumed downloads.

One ``HttpClient`` serves one server and any number of threads; when the server wants a pause, all
of them pause. ``SourceDown`` (``Failing``, ``TooSlow``) is for later, ``Refused`` is for good.
"""

from __future__ import annotations

import contextlib
import email.utils
import errno
import functools
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

from engine.errors import SetupProblem, SourceDown

if TYPE_CHECKING:
    import ssl

    import httpx

T = TypeVar("T")
Progress = Callable[[int, int | None], object]
"""Called with the bytes that are there and the bytes there will be, if known."""

_MOST_ANSWER_BYTES: Final = 60_000_000
_MOST_FILE_BYTES: Final = 1_000_000_000  # ten times the largest weight file


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a server; attempts at a file count if they bring nothing new."""

    connect_s: float = 10.0  # for a connection
    stall_s: float = 30.0  # for the next bytes of an answer
    tries: int = 8
    tries_first: int = 2  # while the server was never reached: there may be no network
    tries_to_connect: int = 5  # while a server that was reached before is not any more
    tries_when_slow: int = 4  # while connections bring no answer
    tries_when_limited: int = 4  # answered 429 without saying for how long
    first_pause_s: float = 1.0  # doubled each time, times 0.5 to 1.5 by chance
    longest_pause_s: float = 60.0  # between two attempts, unless the server asks for more
    lag_pause_s: float = 5.0  # the least when a MediaWiki server says that its databases lag
    most_s: float = 900.0  # a server that asks for a longer pause is left alone


class Refused(Exception):  # noqa: N818 - named like the errors of engine/errors.py
    """Other 4xx, too large, an unusable address; ``reason`` is the message without it."""

    def __init__(self, url: str, reason: str, verb: str = "can't be used:") -> None:
        super().__init__(f"{url} {verb} {reason}")
        self.reason = reason


class NotThere(Refused):
    """The server has nothing at that address: 404, 410."""


class Stopped(Exception):  # noqa: N818 - no error: the work is being given up
    """The stop event was set."""


class Failing(SourceDown):
    """It fails again and again, maybe at this address only; ``details``: last status, reason."""


class TooSlow(Failing):
    """The server can be reached, but takes longer than it or ``Patience.stall_s`` allows."""


@dataclass(eq=False)
class Retry(Exception):  # noqa: N818 - named like the errors of engine/errors.py
    """An attempt that may be repeated."""

    reason: str  # such as "it answers 500"
    pause_s: float | None = None  # what the server asked for
    status: int | None = None  # of the answer, if there was one
    slow: bool = False  # there was a connection, but no answer in time
    advanced: bool = False  # it brought something new all the same: the tries start again


@functools.cache
def _trusted(*_: str | None) -> ssl.SSLContext:
    """The certificates that are trusted, read once: 20 ms for each client otherwise."""
    import httpx

    return httpx.create_ssl_context()


class HttpClient(contextlib.AbstractContextManager["HttpClient"]):
    """Asks one server; safe to use from several threads, all of which pause when one must.

    Redirects are followed, 20 at most, but never from https to http. A server that does not answer
    raises SourceDown, of which TooSlow and Failing say how; one that refuses Refused, or NotThere;
    the stop event, which ends every wait, Stopped. ``advice`` ends the sentence about a server that
    is down.
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

        self.patience = patience or Patience()
        self.stop = stop or threading.Event()
        self._advice = advice
        self._resume_at = 0.0
        self._reached = False
        self._client = httpx.Client(
            headers={"User-Agent": agent},
            limits=httpx.Limits(max_connections=connections),
            follow_redirects=True,
            verify=_trusted(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")),
        )

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(
        self,
        url: str,
        read: Callable[[bytes, float | None], T],
        params: Mapping[str, str] | None = None,
        patience: Patience | None = None,
    ) -> T:
        """What ``read`` makes of a body, at most 60 MB, and its Retry-After in seconds.

        ``read`` may raise Retry; there are as many attempts as ``patience`` has.
        """
        waits = patience or self.patience

        def attempt() -> T:
            with self._stream(url, waits, {"Accept-Encoding": "gzip"}, params) as response:
                body = bytearray()
                for piece in response.iter_bytes():
                    body += piece
                    if len(body) > _MOST_ANSWER_BYTES:
                        raise Refused(url, "too large", "is")
            _check_status(url, response, body)
            return read(bytes(body), _retry_after_s(response))

        return self._persist(url, attempt, waits)

    def download(
        self, url: str, part: Path, progress: Progress = lambda _done, _total: None
    ) -> None:
        """Downloads a file of at most 1 GB, going on where an earlier call for it stopped.

        What has arrived is continued only while the server says, by ETag or date, that it still
        has the same file; otherwise the download starts again. ``part`` grows and is whole when
        this returns; beside it ``<part>.json`` remembers which file it belongs to. SetupProblem is
        raised if they can't be written.
        """
        most = 0  # bytes that ever arrived

        def attempt() -> None:
            nonlocal most
            known, have = _so_far(url, part)
            if have == known.total:
                return
            most = max(most, have)
            headers = {"Accept-Encoding": "identity"}
            if have and known.validator is not None:
                headers |= {"Range": f"bytes={have}-", "If-Range": known.validator}
            try:
                with self._stream(url, self.patience, headers) as response:
                    _receive(response, part, known, have, progress)
            except Retry as problem:
                problem.advanced = part.exists() and part.stat().st_size > most
                raise

        try:
            self._persist(url, attempt, self.patience)
        except OSError as problem:
            full = problem.errno == errno.ENOSPC
            reason = "the disk is full" if full else problem.strerror or problem
            raise SetupProblem(
                f"{part.parent} can't be written: {reason}; mend that and run the command again, "
                "what has arrived is kept"
            ) from problem

    def _persist(self, url: str, attempt: Callable[[], T], patience: Patience) -> T:
        """Repeats an attempt until it succeeds, or the patience ends; everybody pauses between."""
        failures: list[Retry] = []
        while True:
            while (left_s := self._resume_at - time.monotonic()) > 0 and not self.stop.is_set():
                self.stop.wait(left_s)
            if self.stop.is_set():
                raise Stopped
            try:
                return attempt()
            except Retry as problem:
                failures = [problem] if problem.advanced else [*failures, problem]
                chance = 0.5 + random.random()  # noqa: S311 - to scatter, not to hide
                grown_s = patience.first_pause_s * 2.0 ** (len(failures) - 1) * chance
                pause_s = problem.pause_s or min(patience.longest_pause_s, grown_s)
                limited = sum(one.status == 429 and one.pause_s is None for one in failures)
                unreached = patience.tries_to_connect if self._reached else patience.tries_first
                if (
                    len(failures) >= patience.tries
                    or limited >= patience.tries_when_limited
                    or sum(one.status is None for one in failures) >= unreached
                    or sum(one.slow for one in failures) >= patience.tries_when_slow
                    or pause_s > patience.most_s
                ):
                    raise self._source_down(problem, urlsplit(url).netloc) from problem
                self._resume_at = max(self._resume_at, time.monotonic() + pause_s)

    def _source_down(self, problem: Retry, host: str) -> SourceDown:
        """The sentence about a server that was given up."""
        last = {"status": problem.status, "reason": problem.reason}
        if problem.pause_s and problem.pause_s > self.patience.most_s:
            return SourceDown(
                f"{host} asks to be left alone for {problem.pause_s / 60:.0f} minutes: try again "
                "then; what has arrived is kept"
            )
        if problem.slow:
            return TooSlow(f"{host} takes too long to answer; {self._advice}", **last)
        if problem.status is None:
            online = "" if self._reached else " (is this machine online?)"
            return SourceDown(f"{host} can't be reached{online}: {problem.reason}; {self._advice}")
        return Failing(f"{host} does not deliver ({problem.reason}); {self._advice}", **last)

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
            urlsplit(url)  # stricter than httpx
            with self._client.stream(
                "GET", url, params=params, headers=headers, timeout=timeout
            ) as response:
                self._reached = True
                status = response.status_code
                hops = [*response.history, response]
                if url.startswith("https:") and any(hop.url.scheme != "https" for hop in hops):
                    raise Refused(url, "from https", "leads away")
                yield response
        except (httpx.UnsupportedProtocol, httpx.InvalidURL, ValueError) as problem:
            raise Refused(url, str(problem)) from problem
        except httpx.TooManyRedirects as problem:
            raise Refused(url, "too many redirects") from problem
        except httpx.RequestError as problem:
            late = isinstance(problem, httpx.TimeoutException)
            reason = "no answer in time" if late else str(problem) or type(problem).__name__
            slow = isinstance(problem, httpx.ReadTimeout)
            raise Retry(reason, status=status, slow=slow) from problem


class _Identity(NamedTuple):
    """Which file the server has: its URL, ETag or date, and size in bytes."""

    url: str
    validator: str | None = None
    total: int | None = None


def note_of(path: Path) -> Path:
    """Where is noted what a downloaded file, or its part, is."""
    return path.with_name(f"{path.name}.json")


def discard(part: Path) -> None:
    """Deletes a download that is done with, and what was noted to resume it."""
    part.unlink(missing_ok=True)
    note_of(part).unlink(missing_ok=True)


def _so_far(url: str, part: Path) -> tuple[_Identity, int]:
    """What is known of a file, and how many bytes of it have arrived."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        known = _Identity(*json.loads(note_of(part).read_text(encoding="utf-8")))
        have = part.stat().st_size
        if known.url == url and have <= (known.total or have):
            return known, have
    return _Identity(url), 0


def _receive(
    response: httpx.Response, part: Path, known: _Identity, have: int, progress: Progress
) -> None:
    """Writes what an answer brings; raises Retry if it ends early or is of another file."""
    status, url = response.status_code, known.url
    etag = response.headers.get("ETag")
    continued = bool(have) and status == 206
    start, _, total = response.headers.get("Content-Range", "").rpartition("/")
    same = start.startswith(f"bytes {have}-") and total in ("*", str(known.total or total))
    if str(known.validator).startswith('"'):
        same = same and etag in (None, known.validator)
    if status == 416 or (continued and not same):
        discard(part)
        raise Retry("the file changed on the server", status=status)
    _check_status(url, response)
    if not continued:
        if etag is None or etag.startswith("W/"):  # can't vouch for bytes (RFC 9110, 8.8.1)
            etag = response.headers.get("Last-Modified")
        length = response.headers.get("Content-Length", "")
        have, known = 0, _Identity(url, etag, int(length) if length.isdecimal() else None)
        if (known.total or 0) > _MOST_FILE_BYTES:
            raise Refused(url, "far too large", "is")
        note_of(part).write_text(json.dumps(known), encoding="utf-8")
    with part.open("r+b" if have else "wb") as file:
        file.seek(have)
        file.truncate()
        progress(have, known.total)
        for piece in response.iter_raw():
            have += len(piece)
            if have > (known.total or _MOST_FILE_BYTES):
                raise Refused(url, "more than it announced", "sends")
            file.write(piece)
            progress(have, known.total)
        file.flush()
        os.fsync(file.fileno())
    if known.total is not None and have < known.total:
        raise Retry(f"{have} of {known.total} bytes arrived", status=status)


def _check_status(url: str, response: httpx.Response, body: bytes | bytearray = b"") -> None:
    """Raises NotThere, Refused or Retry for answers without content."""
    status = response.status_code
    if status in (408, 425, 429) or status >= 500:
        slow = status == 504 or (status >= 500 and b"timeout" in body.lower())
        raise Retry(f"it answers {status}", _retry_after_s(response), status, slow)
    if status not in (200, 206):
        refusal = NotThere if status in (404, 410) else Refused
        raise refusal(url, f"{status} {response.reason_phrase}", "answers")


def _retry_after_s(response: httpx.Response) -> float | None:
    """Retry-After in seconds, from a number or a date (RFC 9110, 10.2.3); None without it."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None
