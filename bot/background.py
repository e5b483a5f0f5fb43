"""What goes on behind the conversation: retention, memory, the starter gallery, the end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from bot.logs import where
from engine.errors import BadSettings, LookalikeError, SetupProblem

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
    if any(thread.name == BACKGROUND for thread in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


T = TypeVar("T")

log = logging.getLogger(__name__)

SWEEP_S = 3600.0
TIDY_S = 60.0

FALLBACK_MODEL = "dlib"  # its weights come with the program
STARTER_PEOPLE = 200
FEW_PEOPLE = 20  # below it every answer and `lookalike doctor` say how few there are
STARTER_CATEGORIES = (
    *("film", "bollywood", "music", "k-pop", "sports", "politics", "science"),
    *("television", "business", "literature"),
)
STARTER_MIN_FAME = 20  # keeps the questions small


def categories_of(settings: Settings) -> dict[str, Category]:
    """The table of categories, with what the data folder's ``categories.toml`` adds.

    Raises BadSettings if that file can't be used.
    """
    from gallery.wikimedia.categories import load_categories

    return load_categories(settings.home / "categories.toml")


def noted(gallery: Gallery, name: str) -> Any:
    """What was noted beside the gallery under that name; None if nothing was."""
    from gallery.wikimedia.cache import cache_of

    with cache_of(gallery) as cache:
        return cache.get("note", name)


def note(gallery: Gallery, name: str, value: object) -> None:
    """Keeps a value beside the gallery, such as that no contact is given."""
    from gallery.wikimedia.cache import cache_of

    with cache_of(gallery) as cache:
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
    return bool(state == "begun" or (state is None and few))


def download_starter(
    gallery: Gallery, engine: Engine, settings: Settings, stop: threading.Event | None = None
) -> DownloadReport | None:
    """Downloads the most famous people of the main categories, one portrait each.

    For a thread in the background: people can be found as soon as they are enrolled (after
    ``gallery.refresh``). It may be killed at any moment; the next call goes on. Setting ``stop``
    ends the work; it is set afterwards. None if there was nothing to do.

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
    note(gallery, "starter", "begun")
    table = categories_of(settings)
    order = Order(
        categories=chosen(table, STARTER_CATEGORIES),
        limit=STARTER_PEOPLE,
        min_fame=STARTER_MIN_FAME,
        portraits=1,
        fairly=True,
        credited=tuple(table.values()),
    )
    with Download(gallery, engine, order, servers, backbones, stop=stop) as running:
        done = running.run(
            warn=lambda sentence: log.warning("table of categories", extra={"reason": sentence})
        )
    if not done.report.interrupted:
        note(gallery, "starter", "done")
    return done


@contextlib.asynccontextmanager
async def keep_up(services: Services) -> AsyncIterator[None]:
    """Runs what recurs, for as long as the context is open: models, retention, memory.

    A failure is logged and tried again.
    """

    async def tidy() -> None:
        for tidy_one in (services.recent.tidy, services.twins.tidy, services.recognizer.tidy):
            tidy_one()

    async def again_and_again(work: Callable[[], Awaitable[object]], pause_s: float) -> None:
        while True:
            try:
                await work()
            except LookalikeError as problem:
                log.warning("background task failed", extra={"reason": str(problem)})
            except Exception as problem:  # noqa: BLE001 - it must not end the program, nor itself
                log.error("background task failed", extra={"fault": where(problem)})  # noqa: TRY400
            await asyncio.sleep(pause_s)

    recurring = ((services.models.keep_up, 60.0), (services.store.sweep, SWEEP_S), (tidy, TIDY_S))
    tasks = [asyncio.create_task(again_and_again(*one)) for one in recurring]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def downloading_starter(
    gallery: Gallery, engine: Engine, settings: Settings, downloading: threading.Event
) -> AsyncIterator[None]:
    """Downloads in the background, if the gallery is that of a fresh machine.

    The bot answers meanwhile with whom it has; what is fetched joins as it comes. Without a contact
    or a network the log says in one sentence how to add people. ``downloading`` is set meanwhile.
    """
    stop = threading.Event()

    def run() -> None:
        try:
            if not settings.gallery.starter or not starter_wanted(gallery):
                return
            downloading.set()
            done = download_starter(gallery, engine, settings, stop=stop)
            if done is not None:
                log.info("starter gallery downloaded", extra={"added": done.report.added})
        except LookalikeError as problem:
            log.warning(
                "the gallery holds the bundled portraits only; add people with "
                "`lookalike gallery download` or `lookalike gallery add FOLDER`",
                extra={"reason": str(problem)},
            )
        except Exception as problem:  # noqa: BLE001 - it must not end the program
            log.error("starter gallery failed", extra={"fault": where(problem)})  # noqa: TRY400
        finally:
            downloading.clear()

    task = asyncio.create_task(asyncio.to_thread(run))
    try:
        yield
    finally:
        stop.set()  # the thread ends at the next picture; it can't be cancelled
        await task


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
