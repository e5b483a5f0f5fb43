"""Composition root: settings -> engine, gallery, conversation, adapters.

Heavy parts are imported on demand.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import gc
import importlib
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

from bot.adapters import Adapter
from bot.logs import where
from engine.errors import LookalikeError, SetupProblem

if TYPE_CHECKING:
    from bot.conversation import Conversation
    from bot.memory import TwinsGroups
    from bot.settings import Settings
    from bot.store import Store
    from engine.engine import Engine
    from gallery.gallery import Gallery


def open_engine(settings: Settings) -> Engine:
    """The engine as configured, here or elsewhere; networks are loaded at first use."""
    from engine.decode import DecodeLimits
    from engine.engine import Engine, FaceFinder, load_backbone
    from engine.mtcnn import Detector
    from engine.remote import EngineService

    def detector() -> FaceFinder:
        if settings.models.runtime == "tensorflow":
            from engine.reference import ReferenceDetector, published_detector

            return ReferenceDetector(published_detector())
        return Detector(settings.detector.min_face_px)

    photo = settings.photo.model_dump()
    seconds, megabytes = photo.pop("decode_seconds"), photo.pop("decode_megabytes")
    limits = DecodeLimits(seconds=seconds, worker_bytes=megabytes * 1_000_000, **photo)
    precision = settings.models.precision
    if settings.engine.address is not None:
        secret, same = settings.engine.secret, same_at_both_ends(settings)
        service = EngineService(
            settings.engine.address,
            secret.get_secret_value() if secret else None,
            same,
            precision,
            settings.queue.deadline_s,
        )
        there: dict[str, Any] = {"load_detector": lambda: service, "service": service}
        return Engine(load_backbone=service.backbone, limits=limits, **there)
    if precision == "auto" and settings.gallery_url is not None:
        precision = "float"  # one space for all machines that share the gallery
    backbone = functools.partial(
        load_backbone,
        models_folder=settings.models_folder,
        cache_folder=settings.cache_folder,
        runtime=settings.models.runtime,
        precision=precision,
    )
    return Engine(load_detector=detector, load_backbone=backbone, limits=limits)


def same_at_both_ends(settings: Settings) -> dict[str, object]:
    """What decides on faces and their pixels, and so must be the same in bot and engine."""
    runtime, min_face_px = settings.models.runtime, settings.detector.min_face_px
    names = "photo.long_side_px", "detector.min_face_px", "models.runtime"
    return dict(zip(names, (settings.photo.long_side_px, min_face_px, runtime), strict=True))


def has_gallery(settings: Settings) -> bool:
    """Whether there is a gallery already; in a database there may be."""
    return settings.gallery_url is not None or (settings.gallery_folder / "gallery.db").is_file()


def open_gallery(settings: Settings) -> Gallery:
    """The gallery as configured, created and migrated if need be."""
    from gallery.gallery import Gallery

    return Gallery.open(settings.gallery_folder, settings.gallery_url)


def open_store(settings: Settings) -> contextlib.AbstractAsyncContextManager[Store]:
    """The database of choices and history as configured, see ``Store.open``."""
    from bot.store import Identity, Store, database_url, secret_key

    given = settings.database.key
    key = secret_key(settings.home / "secret.key", given.get_secret_value() if given else None)
    url = database_url(settings.database_url, settings.home)
    return Store.open(url, Identity(key), history_days=settings.database.history_days)


def shared_memory(settings: Settings, store: Store) -> contextlib.AbstractAsyncContextManager[Any]:
    """What processes of one bot remember together, see ``bot.valkey``; None if they don't."""
    if settings.memory_url is None:
        return contextlib.nullcontext()
    kind, unchecked = _imported("bot.valkey", "cluster").Valkey, settings.memory.unchecked
    found: contextlib.AbstractAsyncContextManager[Any]
    found = kind(settings.memory_url, store.identity, unchecked=unchecked)
    return found


@contextlib.asynccontextmanager
async def open_conversation(
    settings: Settings, *, fills_gallery: bool = False, twins: TwinsGroups | None = None
) -> AsyncIterator[Conversation]:
    """Everything behind the adapters, ready to answer; put away in order at the end.

    While it is open it also looks after itself: missing weights are fetched, what other processes
    add to the gallery is embedded, what is too old is deleted. With ``fills_gallery`` a gallery
    that is still that of a fresh machine is filled from Wikimedia, where the settings allow it.
    Raises SetupProblem if the database, its key or a package is missing or can't be used.
    """
    try:
        import cryptography  # noqa: F401 - what is stored is sealed with it
    except ModuleNotFoundError as missing:
        raise SetupProblem(
            f"the package {missing.name} is missing: run `pip install 'lookalike[chat]'`"
        ) from None
    from bot.background import Filling, keep_up
    from bot.commands import Services
    from bot.conversation import Conversation
    from bot.memory import memories
    from bot.models import Models
    from bot.process_memory import Memory
    from bot.recognizer import MOST_ELSEWHERE, Recognizer
    from bot.text import Wording
    from bot.values import Sender
    from engine import decode
    from engine.runtime import cores

    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(settings))
        engine = open_engine(settings)
        loop = asyncio.get_running_loop()

        def note(sha256: str) -> None:
            asyncio.run_coroutine_threadsafe(store.keep("decode", sha256, None), loop)

        with contextlib.suppress(LookalikeError):
            decode.refuse(await store.kept("decode"))
        decode.listeners.append(note)
        stack.callback(decode.listeners.remove, note)
        gallery = await asyncio.to_thread(open_gallery, settings)
        stack.callback(gallery.close)
        shared = await stack.enter_async_context(shared_memory(settings, store))
        ids = [one.partition(":")[::2] for one in settings.access.admins]
        admins = frozenset(store.identity.who(Sender(*one, "")).user for one in ids)
        queue = settings.queue.model_dump()
        queue |= {"memory": shared, "clock": time.time} if shared else {"memory": Memory()}
        if engine.service is not None:
            stack.enter_context(engine.service)
            queue |= {"workers": MOST_ELSEWHERE, "finishers": cores()}
        recognizer = Recognizer(engine, admins=admins, **queue)
        stack.push_async_callback(recognizer.close)
        models = Models(engine, gallery, settings)
        stack.push_async_callback(models.close)
        await models.open()
        recent, groups = memories(shared, settings.memory, engine.decode)
        filling = Filling(gallery, engine, settings)
        stack.push_async_callback(filling.close, STOP_S)
        parts = (engine, gallery, recognizer, models, recent, twins or groups)
        services = Services(Wording.load(), store, *parts, recognizer.memory, filling)
        await stack.enter_async_context(keep_up(services))
        if fills_gallery:
            filling.go_on()
        yield Conversation(services, settings.access.ignores)


log = logging.getLogger(__name__)

# With what comes after it the whole end stays below the 10 s that supervisors grant.
PATIENCE_S = 7.0
STOP_S = 1.0  # for a download


class Crash(Exception):  # noqa: N818 - it is what it says
    """An adapter failed for an unexpected reason; the log says where."""


async def serve(settings: Settings) -> None:
    """Runs every adapter that the settings ask for until SIGINT or SIGTERM.

    Raises SetupProblem if a token, a setting or a package is wrong or missing, and Crash if an
    adapter failed for another reason.
    """
    # Of glibc's heaps, one a thread, each keeps what was freed: 25 MB less with two (M_ARENA_MAX).
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(-8, 2)
    wanted, stop = adapters_wanted(settings), asyncio.Event()
    makers = {name: _adapter_class(name) for name in wanted}
    async with (
        _stopped_by_signals(stop),
        open_conversation(settings, fills_gallery=True) as conversation,
    ):
        adapters = []
        for name, make in makers.items():
            section, alone = getattr(settings, name), len(wanted) == 1
            adapters.append(make(conversation, section, settings.cache_folder, alone=alone))
        # What is there now stays, and is never looked through again.
        gc.freeze()
        gc.enable()
        log.info("serving", extra={"adapters": ",".join(wanted)})
        monitored: contextlib.AbstractAsyncContextManager[None] = contextlib.nullcontext()
        if settings.monitor.port is not None:
            monitor = _imported("bot.monitor").Monitor(conversation, adapters)
            monitored = monitor.served(settings.monitor)
        async with monitored:
            await run_adapters(adapters, stop)
        log.info("stopping")


def adapters_wanted(settings: Settings) -> tuple[str, ...]:
    """Names of the adapters to run: those with a token, and the web chat if told or if alone."""
    wanted = [name for name in ("telegram", "discord") if getattr(settings, name).token is not None]
    if settings.web.enabled or (settings.web.enabled is None and not wanted):
        wanted.append("web")
    if not wanted:
        raise SetupProblem(
            "there is nothing to run: set a token for Telegram or Discord, or web.enabled = true"
        )
    return tuple(wanted)


async def run_adapters(adapters: Sequence[Adapter[Any]], stop: asyncio.Event) -> None:
    """Runs them side by side until ``stop``; if one ends or fails, all end.

    But where a platform that was reached refuses the token, or asks the operator for something
    else, that is logged and the others go on.

    Raises:
        LookalikeError: What one of them raised.
        Crash: If one of them failed for another reason.
    """
    left = list(adapters)

    async def run(one: Adapter[Any]) -> None:
        try:
            await one.run(stop)
        except SetupProblem as problem:
            left.remove(one)
            if not (left and one.served):
                raise
            log.error("%s stopped, the others go on: %s", one.name, problem)  # noqa: TRY400
            await stop.wait()

    tasks = [asyncio.create_task(run(one), name=one.name) for one in adapters]
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        _, late = await asyncio.wait(tasks, timeout=PATIENCE_S)
        for task in late:
            log.warning("cut short", extra={"adapter": task.get_name()})
    finally:
        stopping.cancel()
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    failures: list[Exception] = []
    for task, outcome in zip(tasks, outcomes, strict=True):
        if isinstance(outcome, LookalikeError):
            failures.append(outcome)
        elif isinstance(outcome, Exception):  # its message may hold what must not be shown
            name = task.get_name()
            log.error("crashed", extra={"adapter": name, "fault": where(outcome)})
            failures.append(Crash(f"{name} failed unexpectedly; the log says where"))
    if failures:
        raise next((one for one in failures if isinstance(one, SetupProblem)), failures[0])


def _adapter_class(name: str) -> Callable[..., Adapter[Any]]:
    # httpx imports its command line where it can, and rich and Pygments with it;
    # python-telegram-bot tornado, for a webhook that nobody uses here.
    for unused in ("httpx._main", "tornado"):
        sys.modules.setdefault(unused, None)  # type: ignore[arg-type] # import fails
    found: Callable[..., Adapter[Any]]
    found = getattr(_imported(f"bot.adapters.{name}"), f"{name.title()}Adapter")
    return found


def _imported(name: str, extra: str = "") -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] == "bot":
            raise
        extra = extra or name.rpartition(".")[2]
        raise SetupProblem(
            f"the package {missing.name} is missing: run `pip install 'lookalike[{extra}]'`"
        ) from None


@contextlib.asynccontextmanager
async def _stopped_by_signals(stop: asyncio.Event) -> AsyncIterator[None]:
    """The first SIGINT or SIGTERM sets ``stop``; a second SIGINT interrupts as usual."""
    loop, installed = asyncio.get_running_loop(), []

    def asked() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, asked)
            installed.append(number)
    try:
        yield
    finally:
        for number in installed:
            loop.remove_signal_handler(number)
