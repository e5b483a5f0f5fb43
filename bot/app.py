"""Composition root: settings -> engine, gallery, conversation. Heavy parts come on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from engine.errors import SetupProblem

if TYPE_CHECKING:
    from bot.circles import Circles
    from bot.conversation import Conversation
    from bot.settings import Settings
    from engine.engine import Engine
    from gallery.gallery import Gallery

__all__ = ["has_gallery", "open_conversation", "open_engine", "open_gallery"]


def open_engine(settings: Settings) -> Engine:
    """The engine as configured; networks are loaded at first use."""
    from engine.backbones import Backbone
    from engine.decode import DecodeLimits
    from engine.engine import Engine, FaceFinder, load_backbone
    from engine.mtcnn import Detector, DetectorOptions

    def detector() -> FaceFinder:
        if settings.models.runtime == "tensorflow":
            from engine.reference import ReferenceDetector

            return ReferenceDetector.load()
        return Detector.load(
            DetectorOptions(min_face_px=settings.detector.min_face_px),
            cache_folder=settings.cache_folder,
        )

    def backbone(name: str) -> Backbone:
        return load_backbone(
            name,
            models_folder=settings.models_folder,
            cache_folder=settings.cache_folder,
            runtime=settings.models.runtime,
            precision=settings.models.precision,
        )

    limits = DecodeLimits(
        max_bytes=settings.photo.max_bytes,
        max_pixels=settings.photo.max_pixels,
        max_frames=settings.photo.max_frames,
        long_side_px=settings.photo.long_side_px,
    )
    return Engine(load_detector=detector, load_backbone=backbone, limits=limits)


def has_gallery(settings: Settings) -> bool:
    """Whether there is a gallery already; in a database there may be."""
    return settings.gallery_url is not None or (settings.gallery_folder / "gallery.db").is_file()


def open_gallery(settings: Settings) -> Gallery:
    """The gallery as configured, created and migrated if need be."""
    from gallery.gallery import Gallery

    return Gallery.open(settings.gallery_folder, settings.gallery_url)


@asynccontextmanager
async def open_conversation(
    settings: Settings, *, fills_gallery: bool = False, circles: Circles | None = None
) -> AsyncIterator[Conversation]:
    """Everything behind the adapters, ready to answer; put away in order at the end.

    While it is open it also looks after itself: missing weights are fetched, what other processes
    add to the gallery is embedded, what is too old is deleted.

    Args:
        settings: In force.
        fills_gallery: Whether a gallery that is still that of a fresh machine is filled from
            Wikimedia in the background, where the settings allow it.
        circles: Who takes part in ``/twins``; nobody yet if it is left out.

    Raises:
        SetupProblem: If the database, its key or a package is missing or can't be used.
    """
    try:
        from bot.conversation import Conversation
        from bot.database import database_url
        from bot.store import Store
    except ModuleNotFoundError as missing:
        raise SetupProblem(
            f"the package {missing.name} is missing: run `pip install 'lookalike[chat]'`"
        ) from None
    from bot.answering import Answering
    from bot.choosing import Choosing
    from bot.circles import Circles
    from bot.comparing import Comparing
    from bot.growing import Growing
    from bot.identity import Identity, secret_key
    from bot.looking import Looker
    from bot.model_desk import ModelDesk
    from bot.morphing import Morphing
    from bot.parents import Parents
    from bot.personal import Personal
    from bot.recognizer import Recognizer
    from bot.recollections import Recollections
    from bot.telling import Telling
    from bot.twins import Twins
    from bot.upkeep import fill_gallery, keep_up
    from bot.wording import Wording

    async with AsyncExitStack() as stack:
        key = settings.database.key
        identity = Identity(
            secret_key(settings.home / "secret.key", key.get_secret_value() if key else None)
        )
        store = await stack.enter_async_context(
            Store.open(
                database_url(settings.database_url, settings.home),
                identity,
                history_days=settings.database.history_days,
            )
        )
        engine = open_engine(settings)
        gallery = await asyncio.to_thread(open_gallery, settings)
        stack.callback(gallery.close)
        recognizer = Recognizer(
            engine,
            length=settings.queue.length,
            per_minute=settings.queue.photos_per_minute,
            deadline_s=settings.queue.deadline_s,
        )
        stack.push_async_callback(recognizer.close)
        recollections = Recollections(
            lifetime_s=settings.memory.minutes * 60,
            most_bytes=settings.memory.megabytes * 1_000_000,
        )
        desk = ModelDesk(
            engine,
            gallery,
            configured=settings.models.configured,
            default=settings.default_model,
            models_folder=settings.models_folder,
            base_url=settings.models.base_url,
            fetch=settings.models.fetch,
        )
        stack.push_async_callback(desk.close)
        await desk.open()
        looker = Looker(recognizer, recollections)
        stack.callback(looker.close)
        wording = Wording.load()
        circles = Circles() if circles is None else circles
        twins = Twins(
            circles=circles, gallery=gallery, recognizer=recognizer, desk=desk, looker=looker
        )
        growing = Growing(gallery)
        answering = Answering(
            engine=engine,
            gallery=gallery,
            recognizer=recognizer,
            desk=desk,
            store=store,
            looker=looker,
            twins=twins,
            growing=growing,
        )
        conversation = Conversation(
            wording=wording,
            identity=identity,
            answering=answering,
            comparing=Comparing(
                gallery=gallery, recognizer=recognizer, desk=desk, store=store, looker=looker
            ),
            morphing=Morphing(
                engine=engine,
                answering=answering,
                recognizer=recognizer,
                desk=desk,
                looker=looker,
                twins=twins,
            ),
            parents=Parents(
                engine=engine,
                answering=answering,
                recognizer=recognizer,
                desk=desk,
                looker=looker,
                twins=twins,
            ),
            twins=twins,
            choosing=Choosing(wording=wording, store=store, desk=desk, gallery=gallery),
            store=store,
            personal=Personal(
                identity=identity, store=store, recollections=recollections, circles=circles
            ),
            telling=Telling(wording=wording, desk=desk, gallery=gallery),
        )
        upkeep = keep_up(
            desk=desk,
            store=store,
            recognizer=recognizer,
            recollections=recollections,
            circles=circles,
        )
        await stack.enter_async_context(upkeep)
        if fills_gallery:
            await stack.enter_async_context(fill_gallery(gallery, engine, settings, growing))
        yield conversation
