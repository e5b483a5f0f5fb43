"""What goes on behind the conversation: retention, memory, the starter gallery, the end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import ctypes
import functools
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from bot.logs import where
from engine.errors import BadSettings, LookalikeError, SetupProblem, TryLater
from gallery.progress import Progress, no_progress

if TYPE_CHECKING:
    from bot.commands import Services
    from bot.settings import Settings
    from engine.engine import Engine
    from gallery.gallery import Gallery
    from gallery.wikimedia import Servers
    from gallery.wikimedia.categories import Category
    from gallery.wikimedia.download import DownloadReport

# Name of the threads that may be left behind (in_daemon_thread).
BACKGROUND = "background"


def leave(code: int) -> NoReturn:
    """Ends the program with that exit code, whatever runs in the background.

    A download that stalls, a network being compiled or a wait for the next line of the terminal
    can't be interrupted. Nothing of the first two counts until it is whole, so leaving them behind
    harms nothing; waiting for them, or letting the interpreter take itself apart around them, does.
    """
    if any(thread.name.startswith(BACKGROUND) for thread in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


T = TypeVar("T")

log = logging.getLogger(__name__)
TIDY_S = 15.0
TEND_S = 0.25  # how often it is asked whether an engine elsewhere is due to be looked after

FALLBACK_MODEL = "dlib"  # its weights come with the program
STARTER_PEOPLE = 200
FEW_PEOPLE = 20  # below it every answer and `lookalike doctor` say how few there are
STARTER_CATEGORIES = (
    *("film", "bollywood", "music", "k-pop", "sports", "politics", "science"),
    *("television", "business", "literature"),
)


def categories_of(settings: Settings) -> dict[str, Category]:
    """The table of categories, with what the data folder's ``categories.toml`` adds.

    Raises BadSettings if that file can't be used.
    """
    from gallery.wikimedia.categories import load_categories

    return load_categories(settings.home / "categories.toml")


def noted(gallery: Gallery, name: str) -> Any:
    """What was noted beside the gallery under that name; None if nothing was."""
    from gallery.wikimedia.cache import cache_of

    with cache_of(gallery.folder) as cache:
        return cache.get("note", name)


def note(gallery: Gallery, name: str, value: object) -> None:
    """Keeps a value beside the gallery, such as that no contact is given."""
    from gallery.wikimedia.cache import cache_of

    with cache_of(gallery.folder) as cache:
        cache.put("note", name, value)


def contact_of(settings: Settings, gallery: Gallery) -> str | None:
    """Whom Wikimedia can reach about this machine: as set, else as once answered."""
    return settings.gallery.contact or noted(gallery, "contact")


def remember_contact(gallery: Gallery, contact: str) -> None:
    """Stores the contact; raises BadSettings if it is neither an e-mail nor a web address."""
    from gallery.wikimedia import user_agent

    user_agent(contact)
    note(gallery, "contact", contact.strip())


def servers_of(settings: Settings, gallery: Gallery) -> Servers:
    """Whom to ask, and as whom; raises BadSettings if no contact is known."""
    from gallery.wikimedia import Servers

    contact = contact_of(settings, gallery)
    if contact is None:
        raise BadSettings(
            "Wikimedia asks whoever fetches pictures for a contact: set gallery.contact to your "
            "e-mail address or web page (in config.toml, or as LOOKALIKE_GALLERY__CONTACT)"
        )
    return Servers(contact, settings.gallery.wikidata_url, settings.gallery.commons_url)


def add_bundled_portraits(gallery: Gallery, engine: Engine) -> None:
    """To an empty gallery, so that there is an answer on a fresh machine."""
    from gallery.add import add
    from gallery.sources.bundled import bundled_portraits

    if not gallery.stats().portraits:
        add(gallery, engine, bundled_portraits(), backbones=(FALLBACK_MODEL,))


def starter_wanted(gallery: Gallery) -> bool:
    """Whether the starter gallery has yet to be downloaded, or was begun and not finished."""
    from gallery.sources.bundled import bundled_portraits

    state = noted(gallery, "starter")
    few = gallery.stats().people <= len(bundled_portraits())
    return bool(state == "begun" or isinstance(state, dict) or (state is None and few))


def download_starter(
    gallery: Gallery,
    engine: Engine,
    settings: Settings,
    stop: threading.Event | None = None,
    progress: Progress = no_progress,
) -> DownloadReport | None:
    """Downloads the most famous people of the main categories, or whom ``Filling.begin`` noted.

    One portrait each. For a thread in the background: people can be found as soon as they are
    enrolled (after ``gallery.refresh``). It may be killed at any moment; the next call goes on.
    Setting ``stop`` ends the work; it is set afterwards. None if there was nothing to do.

    Raises:
        SourceDown: If there is no network; what was done is kept.
        Busy: If another process is changing the gallery.
        SetupProblem: If ``gallery.contact`` is missing, or no backbone can be used.
    """
    from gallery.wikimedia.categories import chosen
    from gallery.wikimedia.download import Download, Order

    if not starter_wanted(gallery):
        return None
    servers = servers_of(settings, gallery)
    backbones = [name for name in settings.models.configured if not engine.why_unavailable(name)]
    if not backbones:
        raise SetupProblem("no backbone can be used: run `lookalike models list`")
    state = noted(gallery, "starter")
    wanted = state if isinstance(state, dict) else {}
    note(gallery, "starter", wanted or "begun")
    table, people = categories_of(settings), wanted.get("people", STARTER_PEOPLE)
    order = Order(
        categories=chosen(table, wanted.get("categories") or STARTER_CATEGORIES),
        limit=people,
        min_fame=20 if people <= 1000 else 0,  # keeps the questions small
        portraits=1,
        fairly=True,
        credited=tuple(table.values()),
    )
    known = (gallery, engine, order, servers, backbones)
    with Download(*known, stop=stop, progress=progress) as running:
        done = running.run(
            warn=lambda sentence: log.warning("table of categories", extra={"reason": sentence})
        )
    if not done.interrupted:
        note(gallery, "starter", "done")
    return done


def release_memory() -> None:
    """Gives the system back what photos took and glibc keeps: 30 to 45 MB after a crowd."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.asynccontextmanager
async def keep_up(services: Services) -> AsyncIterator[None]:
    """Runs what recurs, for as long as the context is open: models, retention, memory.

    A failure is logged and tried again.
    """

    async def tidy() -> None:
        for memory in (services.recent.memory, services.twins.memory, services.memory):
            memory.tidy()
        await services.store.tidy()
        await in_daemon_thread(release_memory)

    async def again_and_again(work: Callable[[], Awaitable[object]], pause_s: float) -> None:
        while True:
            try:
                await work()
            except LookalikeError as problem:
                log.warning("background task failed", extra={"reason": str(problem)})
            except Exception as problem:  # noqa: BLE001 - it must not end the program, nor itself
                log.error("background task failed", extra={"fault": where(problem)})  # noqa: TRY400
            await asyncio.sleep(pause_s)

    recurring = [(services.models.keep_up, 60.0), (services.store.sweep, 3600.0), (tidy, TIDY_S)]
    if (service := services.engine.service) is not None:
        recurring.append((lambda: in_daemon_thread(service.tend), TEND_S))
    tasks = [asyncio.create_task(again_and_again(*one)) for one in recurring]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Filling:
    """Fills the gallery from Wikimedia in the background, one download at a time.

    The bot answers meanwhile with whom it has; what is fetched joins as it comes. What was begun
    and not stopped goes on after a restart.
    """

    def __init__(self, gallery: Gallery, engine: Engine, settings: Settings) -> None:
        self._gallery, self._engine, self._settings = gallery, engine, settings
        self._stop = threading.Event()
        self._task: asyncio.Task[None] | None = None
        self.running = False  # whether it does so now
        self.there = 0  # how many of those wanted are in the gallery
        self.wanted = 0  # how many these are; 0 as long as Wikimedia is asked who there is
        self.seconds_left: float | None = None  # None if nobody knows yet
        self.problem: LookalikeError | None = None  # why it ended before its end

    def go_on(self) -> None:
        """Downloads what was begun, or if the settings allow it for the gallery of a new machine.

        Without a contact or a network the log says in one sentence how to add people.
        """
        self._stop = threading.Event()
        run = functools.partial(self._run, self._stop)
        self._task = asyncio.create_task(in_daemon_thread(run))

    async def begin(self, contact: str | None, people: int, categories: Sequence[str]) -> None:
        """Downloads so many famous people of the categories, of the main ones if there are none.

        The contact is kept in the data folder, or the one that is known is used. Raises
        BadSettings if there is none, or if it is neither an e-mail nor a web address.
        """
        await self.close()

        def order() -> None:
            if contact is not None:
                remember_contact(self._gallery, contact)
            servers_of(self._settings, self._gallery)
            wanted = {"people": people, "categories": [*categories]}
            note(self._gallery, "starter", wanted)

        await asyncio.to_thread(order)
        await self.close()  # somebody else's, begun meanwhile
        self._start()
        self.go_on()

    async def introduce(self, page: str) -> None:
        """Takes the bot's own public page for the contact where none is set, and downloads."""
        with contextlib.suppress(LookalikeError):  # a gallery that can't be written just now
            if self._task is not None and await self.contact() is None:
                await asyncio.to_thread(remember_contact, self._gallery, page)
                await self.close()
                self.go_on()

    def categories(self) -> tuple[str, ...]:
        """Names of what ``begin`` knows."""
        return tuple(categories_of(self._settings))

    async def contact(self) -> str | None:
        """Whom Wikimedia can reach about this machine; None if nobody said yet."""
        return await asyncio.to_thread(contact_of, self._settings, self._gallery)

    async def stop(self) -> None:
        """Ends the download for good; who is there stays."""
        await self.close()
        await asyncio.to_thread(note, self._gallery, "starter", "stopped")

    async def close(self, patience_s: float | None = None) -> None:
        """Ends the download until the next start; after ``patience_s`` it is left behind."""
        while self._task is not None and not self._task.done():
            self._stop.set()  # the thread ends at the next answer; it can't be cancelled
            if not (await asyncio.wait([self._task], timeout=patience_s))[0]:
                return  # nothing counts until it is whole; see ``leave``

    def _start(self) -> None:
        self.running, self.there, self.wanted = True, 0, 0
        self.seconds_left = self.problem = None

    def _run(self, stop: threading.Event) -> None:
        began: list[tuple[float, int]] = []

        def progress(what: str, done: int, total: int | None) -> None:
            if what != "people" or not total:
                return
            began[:] = began or [(time.monotonic(), done)]
            seconds, taken = time.monotonic() - began[0][0], done - began[0][1]
            self.there, self.wanted = done, total
            self.seconds_left = seconds / taken * (total - done) if taken > 0 else None

        service = self._engine.service
        while service is not None and not service.reached and not stop.wait(1.0):
            pass  # an engine elsewhere may start after the bot
        try:
            begun = isinstance(noted(self._gallery, "starter"), dict)
            if not (begun or self._settings.gallery.starter) or not starter_wanted(self._gallery):
                return
            chats = self._settings.telegram.token or self._settings.discord.token
            if chats and contact_of(self._settings, self._gallery) is None:
                return  # until there is a page, see ``introduce``
            self._start()
            done = download_starter(self._gallery, self._engine, self._settings, stop, progress)
            if done is not None:
                log.info("starter gallery downloaded", extra={"added": done.added})
        except LookalikeError as failure:
            self.problem = None if isinstance(failure, BadSettings) else failure
            log.warning(
                "the gallery holds the bundled portraits only; add people with "
                "`lookalike gallery download` or `lookalike gallery add FOLDER`",
                extra={"reason": str(failure)},
            )
        except Exception as fault:  # noqa: BLE001 - it must not end the program
            if stop.is_set():  # the gallery may be closed
                return
            self.problem = TryLater("the download failed")
            log.error("starter gallery failed", extra={"fault": where(fault)})  # noqa: TRY400
        finally:
            self.running = False


async def in_daemon_thread(function: Callable[[], T]) -> T:
    """Runs what may take minutes in a thread that never holds up the end of the program."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    future.set_running_or_notify_cancel()  # who stops waiting does not cancel it

    def run() -> None:
        try:
            future.set_result(function())
        except Exception as problem:  # noqa: BLE001 - handed to whoever waits
            future.set_exception(problem)

    threading.Thread(target=run, name=BACKGROUND, daemon=True).start()
    return await asyncio.wrap_future(future)
