"""Asks a server as its keepers wish: few connections, a name and a contact, pauses when told to.

Source: https://www.mediawiki.org/wiki/API:Etiquette and Manual:Maxlag_parameter,
https://foundation.wikimedia.org/wiki/Policy:User-Agent_policy.
"""

from __future__ import annotations

import contextlib
import email.utils
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, NoReturn, Self, TypeVar
from urllib.parse import urlsplit

from engine.errors import BadSettings, SourceDown

if TYPE_CHECKING:
    import httpx

__all__ = [
    "Again",
    "Answer",
    "Courier",
    "NotThere",
    "Patience",
    "Stopped",
    "TooSlow",
    "Unwilling",
    "user_agent",
]

T = TypeVar("T")

_MOST_BYTES: Final = 60_000_000
_GONE: Final = frozenset({404, 410})
_PASSING: Final = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a server.

    Attributes:
        connect_s: For a connection.
        answer_s: For the next bytes of an answer.
        tries: Attempts at one question.
        tries_at_first: Attempts while a server was never reached: there may be no network.
        tries_to_connect: Attempts while a server that was reached before is not any more.
        tries_when_slow: Attempts while connections bring no answer.
        first_pause_s: Before the second attempt; doubled each time, with some chance in it.
        longest_pause_s: Between two attempts, unless the server asks for more.
        lag_pause_s: At least so long when the server's databases lag.
        most_s: A server that asks for a longer pause than this is left alone.
    """

    connect_s: float = 10.0
    answer_s: float = 30.0
    tries: int = 8
    tries_at_first: int = 2
    tries_to_connect: int = 5
    tries_when_slow: int = 4
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0
    lag_pause_s: float = 5.0
    most_s: float = 900.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: Of HTTP.
        reason: The words beside it.
        headers: Names in lower case.
        body: Decompressed.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    def pause_s(self) -> float | None:
        """Retry-After in seconds, from a number or a date (RFC 9110, 10.2.3); None without it."""
        value = self.headers.get("retry-after", "").strip()
        if value.isdecimal():
            return float(value)
        with contextlib.suppress(ValueError, TypeError):
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
        return None


class NotThere(Exception):  # noqa: N818 - an answer, not a failure
    """The server has nothing at that address."""


class Stopped(Exception):  # noqa: N818 - no error: the work is being given up
    """Somebody wants the work to end."""


class TooSlow(SourceDown):
    """The server can be reached, but takes longer than ``Patience.answer_s``."""


class Unwilling(SourceDown):
    """The server answers, but with an error, again and again.

    Attributes:
        status: The last one.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Again(Exception):  # noqa: N818 - named like the errors of engine/errors.py
    """An attempt that may be repeated.

    Attributes:
        pause_s: What the server asked for; None if it did not say.
        status: Of the answer; None without one.
    """

    def __init__(
        self, reason: str, pause_s: float | None = None, *, status: int | None = None
    ) -> None:
        super().__init__(reason)
        self.pause_s = pause_s
        self.status = status


class _Slow(Again):
    """There was a connection, but no answer in time."""


class Courier:
    """Asks one server; safe to use from several threads, all of which pause when one must.

    Args:
        agent: From ``user_agent``.
        connections: How many at once.
        patience: How long to wait.
        stop: Ends every wait when it is set.
    """

    def __init__(
        self,
        agent: str,
        *,
        connections: int,
        patience: Patience,
        stop: threading.Event | None = None,
    ) -> None:
        import httpx

        self._patience = patience
        self._stop = stop or threading.Event()
        self._turn = threading.BoundedSemaphore(connections)
        self._resume_at = 0.0
        self._reached = False
        self._client = httpx.Client(
            headers={"User-Agent": agent, "Accept-Encoding": "gzip"},
            timeout=httpx.Timeout(patience.answer_s, connect=patience.connect_s, pool=None),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            follow_redirects=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def ask(
        self,
        url: str,
        read: Callable[[Answer], T],
        params: Mapping[str, str] | None = None,
        *,
        early: Callable[[Answer], None] | None = None,
    ) -> T:
        """What the server answers, after as many attempts and pauses as it takes.

        Args:
            url: http or https.
            read: Takes what it needs from an answer with status 200; may raise ``Again``.
            params: Of the URL.
            early: Sees every answer before its status is judged; may raise what it likes.

        Raises:
            NotThere: If there is nothing at that address.
            TooSlow: If it takes too long.
            Unwilling: If it keeps answering with errors.
            SourceDown: If it does not answer, or refuses.
            Stopped: If somebody wants the work to end.
        """
        import stamina

        host = urlsplit(url).netloc
        attempts = stamina.retry_context(
            on=_at_once, attempts=self._patience.tries, timeout=None, wait_jitter=0
        )
        failures: list[Again] = []
        try:
            for attempt in attempts:
                with attempt:
                    self._wait()
                    with self._turn, self._paused_after(failures, host), _translated(url):
                        return self._attempt(url, read, params, early)
        except Again as problem:
            message = f"{host} does not deliver ({problem}); {_LATER}"
            if problem.status is not None:
                raise Unwilling(message, problem.status) from problem
            raise SourceDown(message) from problem
        raise AssertionError  # pragma: no cover - the loop returns or raises

    def _attempt(
        self,
        url: str,
        read: Callable[[Answer], T],
        params: Mapping[str, str] | None,
        early: Callable[[Answer], None] | None,
    ) -> T:
        with self._client.stream("GET", url, params=params) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            body = _body(response)
            self._reached = True
            answer = Answer(response.status_code, response.reason_phrase, headers, body)
        if early is not None:
            early(answer)
        status = answer.status
        if status in _GONE:
            raise NotThere
        if status in _PASSING or status >= 500:
            raise Again(f"it answers {status}", answer.pause_s(), status=status)
        if status != 200:
            raise SourceDown(
                f"{urlsplit(url).netloc} refuses ({status} {answer.reason}): see that "
                "gallery.contact is an address it can reach you at, and try again later"
            )
        return read(answer)

    @contextmanager
    def _paused_after(self, failures: list[Again], host: str) -> Iterator[None]:
        """Lets everybody pause after an attempt that failed, and adds it to the failures."""
        patience = self._patience
        try:
            yield
        except Again as problem:
            failures.append(problem)
            if sum(isinstance(one, _Slow) for one in failures) >= patience.tries_when_slow:
                raise TooSlow(f"{host} takes too long to answer; {_LATER}") from problem
            tries = patience.tries_to_connect if self._reached else patience.tries_at_first
            if sum(one.status is None for one in failures) >= tries:
                online = "" if self._reached else " (is this machine online?)"
                raise SourceDown(f"{host} can't be reached{online}: {problem}; {_LATER}") from (
                    problem
                )
            pause_s = problem.pause_s
            if not pause_s:
                grown_s = patience.first_pause_s * 2.0 ** (len(failures) - 1)
                chance = 0.5 + random.random()  # noqa: S311 - to scatter, not to hide
                pause_s = min(patience.longest_pause_s, grown_s * chance)
            if pause_s > patience.most_s:
                raise SourceDown(
                    f"{host} asks to be left alone for {pause_s / 60:.0f} minutes: try again "
                    "then; what has arrived is kept"
                ) from problem
            self._resume_at = max(self._resume_at, time.monotonic() + pause_s)
            raise

    def _wait(self) -> None:
        while True:
            left_s = self._resume_at - time.monotonic()
            if self._stop.wait(max(0.0, left_s)):
                raise Stopped
            if left_s <= 0:
                return


_LATER: Final = "what has arrived is kept, run the same command again later to go on"


def user_agent(contact: str) -> str:
    """How this program names itself: ``Lookalike/0.1.0 (you@example.org) httpx/0.28.1``.

    Raises:
        BadSettings: If the contact is neither an e-mail address nor a web address.
    """
    from importlib.metadata import version

    contact = contact.strip()
    if not contact.isprintable() or not contact.isascii() or not ("@" in contact or ":" in contact):
        raise BadSettings(
            "gallery.contact should be an e-mail address or a web address, such as you@example.org"
        )
    words = contact.replace("(", "").replace(")", "")
    return f"Lookalike/{version('lookalike')} ({words}) httpx/{version('httpx')}"


def _at_once(problem: Exception) -> bool | float:
    """For stamina: what may be repeated. Pauses are the courier's, for all threads together."""
    return 0.0 if isinstance(problem, Again) else False


def _body(response: httpx.Response) -> bytes:
    body = bytearray()
    for piece in response.iter_bytes():
        body += piece
        if len(body) > _MOST_BYTES:
            raise NotThere  # nothing that was asked for
    return bytes(body)


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """Errors of httpx, by who can mend them."""
    import httpx

    def unusable(problem: Exception) -> NoReturn:
        raise BadSettings(
            f"{url} can't be used ({problem}): see gallery.wikidata_url and gallery.commons_url"
        ) from problem

    try:
        yield
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as problem:
        unusable(problem)
    except httpx.TooManyRedirects as problem:
        raise NotThere from problem
    except httpx.ReadTimeout as problem:
        raise _Slow("no answer in time") from problem
    except httpx.TimeoutException as problem:
        raise Again("no answer in time") from problem
    except (httpx.TransportError, httpx.DecodingError) as problem:
        raise Again(str(problem) or type(problem).__name__) from problem
