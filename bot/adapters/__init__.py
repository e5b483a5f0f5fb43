"""Front ends, one per platform, and what they share.

A front end turns updates into requests and replies into messages. Each imports its platform's SDK
at the top and is imported only when it is used; this module imports none.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import itertools
import logging
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from bot.logs import where
from bot.process_memory import Memory
from bot.values import Attachment
from engine.errors import NotAnImage, SourceDown, TooLarge

if TYPE_CHECKING:
    from bot.conversation import Conversation

log = logging.getLogger(__name__)
S = TypeVar("S")
T = TypeVar("T")
W = TypeVar("W")

# https://core.telegram.org/bots/api#getfile: "bots can download files of up to 20MB in size".
DOWNLOAD_LIMIT_BYTES = 20_000_000
# Before a download that failed is tried again: 10 s in all, then the asker is told.
FETCH_PAUSES_S = (0.2, 0.8, 2.0, 3.0, 4.0)
# A sign that something is in work, such as that of typing, is shown where the answer takes longer.
SIGN_AFTER_S = 0.3
# How long a process that is killed keeps others from what it had in work, and one that answered.
CLAIM_S, DONE_S, LOOK_S = 15.0, 900.0, 0.1
IN_WORK, DONE = "in work", "done"
SEND_S = 1.5  # how much longer a stop waits for an answer that is on its way
# What a process may have died of: how long it is in work alone at the next start, and how many
# times it is begun there before it is given up.
ALONE_S, MOST_TRIES = 5.0, 3

_PICTURE_SUFFIX = re.compile(
    r"\.(avif|bmp|gif|hei[cf]|hif|ico|jfif|jp2|jpe|jpe?g\w*|jxl|mpo|png|tiff?|webp)\Z|\A[^.]*\Z",
    re.IGNORECASE,
)


@dataclass
class Adapter(abc.ABC, Generic[S]):
    """A front end; its name, such as ``"telegram"``, is used in the log."""

    conversation: Conversation
    settings: S  # the platform's section
    cache_folder: Path | None = None
    alone: bool = False  # whether no other adapter runs
    grace_s: float = 4.5  # how long a stop waits for unanswered requests
    name: ClassVar[str]
    served: bool = field(default=False, init=False)  # whether the platform was ever reached

    @property
    @abc.abstractmethod
    def connected(self) -> bool:
        """Whether the platform is reached now."""

    @abc.abstractmethod
    async def run(self, stop: asyncio.Event) -> None:
        """Serves until ``stop`` is set, finishes or tells what is in flight, then returns.

        A network failure is retried for ever with growing pauses, at the very first connection too.
        Returning before ``stop`` is set ends the program. Raises BadToken if the platform refuses
        the token, and SetupProblem if something else is wrong that only the operator can mend.
        """


class InFlight(Generic[W]):
    """The requests being answered; a stop finishes them, or tells who waits a wording key.

    Or leaves them, without ``excuses``, where the platform sends them again at the next start.
    """

    def __init__(self, tell: Callable[[W, str], Awaitable[None]], *, excuses: bool = True) -> None:
        self._tell, self._excuses = tell, excuses
        self._sending: set[asyncio.Task[Any] | None] = set()
        self._requests: dict[asyncio.Task[Any], W] = {}
        self._background: set[asyncio.Future[Any]] = set()
        self.closing = False

    @contextlib.asynccontextmanager
    async def answering(self, request: W) -> AsyncIterator[None]:
        """Tracks a request while the block runs; an exception in it is logged and told.

        Only cancellation passes through.
        """
        task = asyncio.current_task()
        assert task is not None
        self._requests[task] = request
        try:
            yield
        except Exception as problem:  # noqa: BLE001 - one request must not end the others
            # The message may quote what was sent: only type and place are logged.
            log.error("fault", extra={"fault": where(problem)})  # noqa: TRY400
            with contextlib.suppress(Exception):
                await self._tell(request, "error.internal")
        finally:
            del self._requests[task]
            self._sending.discard(task)

    def send(self, delivery: Awaitable[T]) -> Awaitable[T]:
        """To be awaited for the answer to a request: a stop waits longer for what is on its way."""
        self._sending.add(asyncio.current_task())
        return delivery

    def keep(self, work: Awaitable[Any]) -> None:
        """Runs something in the background; ``finish`` cancels it."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    @contextlib.asynccontextmanager
    async def repeating(
        self, call: Callable[[], Awaitable[object]], every_s: float
    ) -> AsyncIterator[None]:
        """Calls every so often while the block runs, if it takes longer than a moment.

        For a typing sign. A call's failure is ignored. The last call is not cancelled with the
        block, which would cost its connection.
        """

        async def repeat() -> None:
            await asyncio.sleep(SIGN_AFTER_S)
            while True:
                self.keep(asyncio.gather(call(), return_exceptions=True))
                await asyncio.sleep(every_s)

        repeated = asyncio.create_task(repeat())
        try:
            yield
        finally:
            repeated.cancel()

    async def finish(self, grace_s: float) -> None:
        """Waits; who has no answer after ``grace_s`` is told so, or left. Sets ``closing``."""
        if self._requests:
            await asyncio.wait(set(self._requests), timeout=grace_s)
        self.closing = True
        pending, late = dict(self._requests), set(self._background)
        cut_short = {task: asked for task, asked in pending.items() if task not in self._sending}
        for task in cut_short:  # discord.py makes them end as if they were not cancelled
            task.cancel()
        if pending:
            late |= (await asyncio.wait(pending, timeout=SEND_S))[1]
        cut_short |= self._requests  # whose answers do not get through
        for one in late:
            one.cancel()
        await asyncio.gather(*pending, *late, return_exceptions=True)
        told = cut_short.values() if self._excuses else ()
        excuses = [self._tell(request, "error.try_later") for request in told]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*excuses, return_exceptions=True), timeout=1.5)


class Recovery(Generic[W]):
    """Hands over what processes before this one left unanswered, one after another.

    ``begin`` gets the number of an update, what it asks and how often it was begun before. The
    least tried come first; the next waits until what was begun has ``ended``, but for items of the
    same ``album``. So what a process dies of is known, and harms nothing beside it.
    """

    def __init__(self, begin: Callable[[int, W, int], Awaitable[None]]) -> None:
        self._begin = begin
        self._waiting = asyncio.PriorityQueue[tuple[int, int, str | None, W]]()
        self._begun, self._nothing_begun = set[int](), asyncio.Event()

    def add(self, number: int, asked: W, tries: int = 0, album: str | None = None) -> None:
        """Puts an update in line."""
        self._waiting.put_nowait((tries, number, album, asked))

    def ended(self, number: int) -> None:
        """Notes that an update is answered."""
        self._begun.discard(number)
        if not self._begun:
            self._nothing_begun.set()

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        before: str | None = None
        while True:
            tries, number, album, asked = await self._waiting.get()
            if self._begun and (album is None or album != before):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._nothing_begun.wait(), ALONE_S)
            before = album
            self._begun.add(number)
            self._nothing_begun.clear()
            await self._begin(number, asked, tries)


async def was_done(memory: Memory, *name: str) -> bool:
    """Waits while something is claimed; whether it was done, and its process not killed."""
    while (state := await memory.get(name)) == IN_WORK:  # noqa: ASYNC110 - by another process
        await asyncio.sleep(LOOK_S)
    return bool(state == DONE)


@contextlib.asynccontextmanager
async def claimed(memory: Memory, *name: str, waits: bool = False) -> AsyncIterator[bool]:
    """Whether something is to be answered here, and not by a process that was sent it, too.

    It stays claimed while the block runs, and for ``DONE_S`` once that is done. A process that is
    killed loses its claims soon, which is what ``waits`` waits for.
    """
    while not await memory.put(name, IN_WORK, CLAIM_S, absent=True):
        if not waits or await was_done(memory, *name):
            yield False
            return

    async def renew() -> None:
        while True:
            await asyncio.sleep(CLAIM_S / 3)
            await memory.put(name, IN_WORK, CLAIM_S)

    renewing, ended = asyncio.create_task(renew()), True
    try:
        yield True
    except asyncio.CancelledError:
        ended = False
        raise
    finally:
        renewing.cancel()
        await (memory.put(name, DONE, DONE_S) if ended else memory.take(name))


async def retry(
    call: Callable[[], Awaitable[T]], pause_s: Callable[[Exception, int], float | None]
) -> T:
    """The result of a call, which is repeated after failures.

    ``pause_s`` gives the seconds to wait after a failure, given it and how many there are by now;
    None raises it.
    """
    for failures in itertools.count(1):
        try:
            # A task of its own: what it waits for wakes it alone, not all that wait for it.
            return await asyncio.ensure_future(call())
        except Exception as problem:
            wait_s = pause_s(problem, failures)
            if wait_s is None:
                raise
        await asyncio.sleep(wait_s)
    raise AssertionError("unreachable")


def backoff_s(failures: int, first_s: float, longest_s: float) -> float:
    """The pause after so many failures: doubled each time, up to the longest."""
    return min(longest_s, first_s * 2.0 ** min(failures - 1, 16))


async def fetch(
    download: Callable[[], Coroutine[Any, Any, bytes]],
    size_bytes: int | None,
    failing: tuple[type[Exception], ...],
    lasting: tuple[type[Exception], ...],
) -> bytes:
    """The bytes of a file that a platform holds; a failed download is repeated for 10 s.

    ``download`` makes the request anew each time; ``failing`` is what it raises where platform or
    network fail, ``lasting`` those of them after which it is of no use to try again. Raises
    TooLarge if the file is above the limit, before anything is asked where that is known, and
    SourceDown if the platform does not hand it over.
    """

    def pause_s(problem: Exception, failures: int) -> float | None:
        passing = isinstance(problem, failing) and not isinstance(problem, lasting)
        return FETCH_PAUSES_S[failures - 1] if passing and failures <= 5 else None

    refuse_too_large(size_bytes)
    # SourceDown is raised outside of the handler: Telegram's error as its cause would carry the
    # file's address, and so the token.
    with contextlib.suppress(*failing):
        content = await retry(download, pause_s)
        refuse_too_large(len(content))
        return content
    raise SourceDown("the platform does not hand over a file")


async def or_stop(call: Awaitable[T], stop: asyncio.Event) -> T | None:
    """The result of a call; None, and the call is cancelled, once ``stop`` is set."""
    work = asyncio.ensure_future(call)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        for task in (work, stopped):
            task.cancel()
        await asyncio.gather(work, stopped, return_exceptions=True)


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens there, over IPv4 or IPv6; raises OSError where that can't be done."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def is_picture(media_type: str | None, filename: str | None) -> bool:
    """Whether a file may be a picture: by its media type, or by its name's ending, if any."""
    kind = (media_type or "").partition(";")[0].strip().lower()
    vague = kind in {"", "application/octet-stream", "binary/octet-stream"}
    return kind.startswith("image/") or bool(vague and _PICTURE_SUFFIX.search(filename or ""))


async def _refuse() -> bytes:
    raise NotAnImage("the file is not a picture")


NO_PICTURE = Attachment(_refuse)  # in the place of a file that is none


def only_pictures(attached: Sequence[Attachment]) -> tuple[Attachment, ...]:
    """The pictures among what was sent as one; the first of all, to be refused, if none is."""
    return tuple(one for one in attached if one is not NO_PICTURE) or tuple(attached[:1])


def refuse_too_large(size_bytes: int | None) -> None:
    """Raises TooLarge if a file of that size, where it is known, is above the download limit."""
    if size_bytes is not None and size_bytes > DOWNLOAD_LIMIT_BYTES:
        limit = f"{DOWNLOAD_LIMIT_BYTES // 1_000_000} MB"
        raise TooLarge(f"files of at most {limit} are fetched", limit=limit)
