"""A real engine, and folders of made-up people cut from the two free portraits."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from variants import Variant, variants_of

from engine.pipeline import Engine
from gallery.collection import Gallery


def make_engine(cache_folder: Path) -> Engine:
    """An engine as the bot has it, with dlib's network only."""
    from engine.backbones import load_backbone
    from engine.detector import Detector

    return Engine(
        load_detector=lambda: Detector.load(cache_folder=cache_folder),
        load_backbone=lambda name: load_backbone(
            name, models_folder=cache_folder / "models", cache_folder=cache_folder
        ),
    )


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return make_engine(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    with Gallery.open(tmp_path / "home" / "gallery") as opened:
        yield opened


@pytest.fixture(scope="session")
def variant(hopper_jpeg: bytes, collins_jpeg: bytes) -> Variant:
    """The n-th photo: even ones of Grace Hopper, odd ones of Eileen Collins, no two alike."""
    return variants_of(hopper_jpeg, collins_jpeg)


@pytest.fixture
def blank_jpeg() -> bytes:
    """A photo of nothing."""
    buffer = io.BytesIO()
    Image.new("RGB", (200, 200), "teal").save(buffer, "JPEG")
    return buffer.getvalue()
