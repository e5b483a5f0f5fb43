"""Which backbones can answer now; fetches and prepares the others in the background."""

import asyncio
import contextlib
import itertools
import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

from bot.background import FALLBACK_MODEL, add_bundled_portraits, in_daemon_thread
from bot.logs import where
from bot.settings import Settings
from engine.backbones import BACKBONES
from engine.engine import Engine
from engine.errors import (
    Busy,
    GalleryMissing,
    LookalikeError,
    SetupProblem,
    SpaceMismatch,
    WeightsMissing,
)
from engine.http import Stopped
from engine.types import Space
from gallery.gallery import Gallery
from gallery.scores.ensemble import BEST, Ensemble
from gallery.scores.trial import Trial

log = logging.getLogger(__name__)
T = TypeVar("T")

# Pauses between attempts to fetch weights: a mirror that is down is not hammered.
PAUSES_S = (30.0, 120.0, 600.0, 1800.0)
# A build that was cut short must not answer with the few it got to.
ENOUGH = 0.9


class State(StrEnum):
    """What a backbone is doing; the value is the key of its sentence."""

    READY = "model.ready"
    FETCHING = "model.fetching"
    BUILDING = "model.building"
    MISSING = "model.missing"
    BROKEN = "model.broken"


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """Status of one backbone; ``percent`` is of its download, ``reason`` is for the operator."""

    name: str
    title: str
    state: State
    percent: int | None = None
    reason: str | None = None


class Models:
    """Knows which backbones are ready; every ``refresh_s`` it looks at what others added."""

    def __init__(
        self, engine: Engine, gallery: Gallery, settings: Settings, refresh_s: float = 15.0
    ) -> None:
        self._engine, self._gallery, self._settings = engine, gallery, settings
        self._refresh_s = refresh_s
        self._trial: Trial | None = None
        self._stopping = threading.Event()
        self._working = threading.Lock()  # held by the one thread that downloads or builds
        self._unfinished: set[str] = set()  # ready, and perhaps without some portraits
        self._failed: set[str] = set()  # could not be fetched when it was last tried
        self._opening: asyncio.Task[None] | None = None
        names = (*settings.models.configured, FALLBACK_MODEL)
        self._statuses = {
            name: ModelStatus(name, BACKBONES[name].title, State.MISSING) for name in names
        }

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Every configured backbone, and ``best`` where they answer together."""
        backbones, ensemble = tuple(self._statuses.values()), self._offered()
        if ensemble is None:
            return backbones
        return (*backbones, ModelStatus(BEST, display_name(ensemble), State.READY))

    def names(self) -> tuple[str, ...]:
        """Names of ``statuses``."""
        return tuple(status.name for status in self.statuses())

    def status(self, name: str) -> ModelStatus | None:
        """One of ``statuses``; None if it is not among them."""
        return next((one for one in self.statuses() if one.name == name), None)

    def ready(self) -> tuple[str, ...]:
        """Names of those that can answer now."""
        return tuple(one.name for one in self.statuses() if one.state is State.READY)

    def ensemble(self) -> Ensemble:
        """The backbones behind ``best``; raises WeightsMissing if they don't answer together."""
        if (ensemble := self._offered()) is None:
            raise WeightsMissing("the backbones do not answer together")
        return ensemble

    def why_not_best(self, say: Callable[..., str]) -> str:
        """Why ``best`` is not among ``statuses``, see ``why_not``."""
        return why_not(self._trial, self._backbones_ready(), say)

    def _offered(self) -> Ensemble | None:
        return offered(self._trial, self._engine, self._backbones_ready())

    def _backbones_ready(self) -> tuple[str, ...]:
        return tuple(one.name for one in self._statuses.values() if one.state is State.READY)

    def answering(self, wanted: str | None = None) -> str:
        """The model that answers a person who wants this one: it, the default, or another.

        Raises WeightsMissing if none is ready, and Busy if the engine is elsewhere and away.
        """
        ready = self.ready()
        if not ready and self._engine.service is not None:
            self._engine.service.refuse_if_away()
        for name in (wanted, self._settings.default_model, FALLBACK_MODEL, *ready):
            if name in ready:
                return name
        raise WeightsMissing("no backbone is ready yet")

    def is_coming(self, name: str) -> bool:
        """Whether a model answers now, or is being fetched or built."""
        status = self.status(name)
        if status is not None and status.state is State.MISSING:
            here = self._engine.service is None
            return here and self._settings.models.fetch and name not in self._failed
        return status is not None and status.state is not State.BROKEN

    def named(self, chosen: str | None = None) -> str:
        """The model that menus name: the chosen one if it is coming, else the one that answers."""
        if chosen is not None and self.is_coming(chosen):
            return chosen
        return self.answering() if self.ready() else self._settings.default_model

    async def open(self, patience_s: float = 15.0) -> None:
        """Prepares the backbones on this machine; after ``patience_s`` in the background."""

        async def prepare() -> None:
            for name in (FALLBACK_MODEL, *self._in_order()):
                if self._statuses[name].state is State.MISSING:
                    await self._prepare(name, fetch=False)

        self._opening = asyncio.create_task(prepare())
        await asyncio.wait({self._opening}, timeout=patience_s)

    async def fetch(self, name: str) -> None:
        """Fetches a model that is not here, whatever the settings say, and prepares it."""
        if self._statuses[name].state is State.MISSING:
            self._note(name, State.FETCHING)
            await self._prepare(name, fetch=True)

    async def close(self) -> None:
        """Stops downloads and builds at their next step, and waits a little for it."""
        self._stopping.set()
        if self._opening is not None:
            self._opening.cancel()
        await in_daemon_thread(lambda: self._working.acquire(timeout=2.0))

    async def keep_up(self) -> None:
        """Prepares what is missing and follows what other processes add, until cancelled."""

        def refresh() -> None:
            self._gallery.refresh()
            self._trial = self._gallery.trial()

        async with asyncio.TaskGroup() as group:
            group.create_task(self._complete())
            while True:  # also during a long download
                await asyncio.sleep(self._refresh_s)
                await in_daemon_thread(refresh)

    async def _complete(self) -> None:
        """Fetches, prepares and builds, one thing after the other."""
        if self._opening is not None:
            await asyncio.wait({self._opening})
        loop = asyncio.get_running_loop()
        due = dict.fromkeys(self._in_order(), loop.time())
        pauses = {name: itertools.chain(PAUSES_S, itertools.repeat(PAUSES_S[-1])) for name in due}
        seen = await in_daemon_thread(self._gallery.revision)
        while True:
            while self._unfinished:
                await in_daemon_thread(partial(self._build_again, self._unfinished.pop()))
            for name in due:
                waiting = self._statuses[name].state in (State.MISSING, State.BROKEN)
                if waiting and due[name] <= loop.time():
                    await self._prepare(name, fetch=self._settings.models.fetch)
                    elsewhere = self._engine.service is not None  # nothing is downloaded
                    due[name] = loop.time() + (0 if elsewhere else next(pauses[name]))
            await asyncio.sleep(self._refresh_s)
            revision = await in_daemon_thread(self._gallery.revision)
            if revision != seen:
                self._unfinished.update(self._backbones_ready())
                seen = revision

    def _in_order(self) -> list[str]:
        """Names in the order of preparing: the default first."""
        return sorted(self._statuses, key=lambda name: name != self._settings.default_model)

    async def _prepare(self, name: str, *, fetch: bool) -> None:
        """Weights, then the network, then the gallery's vectors; whatever fails is noted."""
        if fetch:
            self._failed.discard(name)
        try:
            await in_daemon_thread(lambda: self._get_ready(name, fetch=fetch))
        except Stopped:
            return
        except WeightsMissing as problem:
            self._note(name, State.MISSING, reason=str(problem))
        except LookalikeError as problem:
            known = self._statuses[name].reason
            state = State.BROKEN if isinstance(problem, SetupProblem) else State.MISSING
            self._note(name, state, reason=str(problem))
            self._failed.add(name)
            if known != str(problem):
                log.warning("model unavailable", extra={"model": name, "reason": str(problem)})
        except Exception as problem:  # noqa: BLE001 - the other models go on answering
            self._note(name, State.BROKEN, reason=where(problem))
            log.error("model unavailable", extra={"model": name, "fault": where(problem)})  # noqa: TRY400

    def _get_ready(self, name: str, *, fetch: bool) -> None:
        """In a thread of its own."""
        from engine.backbones import weights

        with self._working:
            self._check()
            elsewhere = self._engine.service is not None
            try:
                if elsewhere:
                    self._refuse_mixing(self._engine.backbone(name).space)
                else:
                    weights.installed(name, self._settings.models_folder)
            except WeightsMissing:
                if elsewhere or not fetch:
                    raise
                self._download(name)
            self._note(name, State.BUILDING)
            if name == FALLBACK_MODEL:
                self._seed()
            space, stats = self._engine.backbone(name).space, self._gallery.stats()
            if stats.vectors.get(space, 0) >= ENOUGH * stats.portraits:
                self._unfinished.add(name)  # nobody waits for the last few
            else:
                self._build(name)
            self._trial = self._gallery.trial()
            self._note(name, State.READY)
        log.info("model ready", extra={"model": name})

    def _refuse_mixing(self, space: Space) -> None:
        """Raises SpaceMismatch if the gallery was built with another version of that backbone."""
        vectors, name = self._gallery.stats().vectors, space.backbone
        built = [one for one, count in vectors.items() if one.backbone == name and count]
        if built and space not in built:
            raise SpaceMismatch(
                f"the engine's {name} is {space.id} and the gallery's {built[0].id}: give both the "
                f"same weights and precision, or run `lookalike gallery build --model {name}`"
            )

    def _seed(self) -> None:
        """The two people that everybody has, for an empty gallery."""
        try:
            add_bundled_portraits(self._gallery, self._engine)
        except LookalikeError as problem:
            log.warning("no starter gallery", extra={"reason": str(problem)})

    def _download(self, name: str) -> None:
        from engine.backbones import weights

        licence = BACKBONES[name].licence
        log.info("fetching weights", extra={"model": name, "licence": licence})
        self._note(name, State.FETCHING)

        def progress(done: int, total: int | None) -> None:
            self._check()
            percent = min(100, done * 100 // total) if total else None
            self._note(name, State.FETCHING, percent=percent)

        folder, base_url = self._settings.models_folder, self._settings.models.base_url
        weights.download(name, folder, base_url=base_url, progress=progress)

    def _build(self, name: str) -> None:
        """The vectors that the gallery lacks; an empty gallery lacks none."""
        from gallery.build import build

        with contextlib.suppress(GalleryMissing):
            how: dict[str, Any] = {"progress": lambda *_: self._check(), "mend": False}
            build(self._gallery, self._engine, name, **how)
        self._gallery.refresh()

    def _build_again(self, name: str) -> None:
        with self._working, contextlib.suppress(Stopped, Busy):
            self._check()
            self._build(name)
            self._trial = self._gallery.trial()

    def _note(self, name: str, state: State, **details: Any) -> None:
        self._statuses[name] = ModelStatus(name, BACKBONES[name].title, state, **details)

    def _check(self) -> None:
        """Leaves a download or a build, at the next report of progress, if the program ends."""
        if self._stopping.is_set():
            raise Stopped


def offered(trial: Trial | None, engine: Engine, ready: Collection[str]) -> Ensemble | None:
    """The ensemble that the trial offers, if its backbones are ready in the same version."""
    ensemble = trial.offered if trial else None
    for space in ensemble.spaces if ensemble else ():
        if space.backbone not in ready or engine.backbone(space.backbone).space != space:
            return None
    return ensemble


def why_not(trial: Trial | None, ready: Collection[str], say: Callable[..., T]) -> T:
    """Why a trial's ensemble isn't offered while these backbones can answer, in ``say``'s words."""
    from gallery.scores.trial import FEWEST_PEOPLE, Outcome

    if len(ready) < 2:
        return say("best.one_model")
    ensemble = trial.offered if trial else None
    missing = [name for name in ensemble.backbones if name not in ready] if ensemble else []
    if trial is None or (ensemble and not missing):  # then their weights are others since
        return say("best.untried")
    if trial.outcome is Outcome.TOO_FEW:
        return say("best.too_few", count=trial.people, least=FEWEST_PEOPLE)
    if ensemble:
        return say("best.not_ready", models=display_name(ensemble), missing=missing[0])
    rival, best = trial.best_alone, trial.figures.get(BEST)
    assert rival is not None  # there were enough people
    if best is None:
        return say("best.no_use", model=rival)
    alone, together = (f"{100 * one.right:.1f}" for one in (trial.figures[rival], best))
    return say("best.not_better", model=rival, alone=alone, together=together)


def find_ensemble(engine: Engine, gallery: Gallery) -> Ensemble:
    """The backbones that answer together, loaded; raises SetupProblem that says why they don't."""
    from bot.text import Wording

    trial = gallery.trial()
    ensemble = trial.offered if trial else None
    if ensemble is None:
        built = {space.backbone for space in gallery.spaces()}
        raise SetupProblem(why_not(trial, built, Wording.load().text))
    for space in ensemble.spaces:
        if engine.backbone(space.backbone).space != space:
            raise SpaceMismatch(
                f"the gallery was built with another version of {space.backbone}: run "
                f"`lookalike gallery build --model {space.backbone}`"
            )
    return ensemble


def display_name(ensemble: Ensemble) -> str:
    """Its backbones, as people read it: ``senet + dlib``."""
    return " + ".join(ensemble.backbones)
