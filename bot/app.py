"""Composition root: settings -> engine, gallery. Everything heavy is imported on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bot.settings import Settings
    from engine.pipeline import Engine
    from gallery.collection import Gallery

__all__ = ["open_engine", "open_gallery"]


def open_engine(settings: Settings) -> Engine:
    """The engine as configured; networks are loaded at first use."""
    from engine.backbones import Backbone, load_backbone
    from engine.decode import DecodeLimits
    from engine.detector import Detector, DetectorOptions
    from engine.pipeline import Engine

    def detector() -> Detector:
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


def open_gallery(settings: Settings) -> Gallery:
    """The gallery as configured, created and migrated if need be."""
    from gallery.collection import Gallery

    return Gallery.open(settings.gallery_folder)
