"""What the engine saw in a photo, and what it made of a face, kept for the next test.

Most tests are about something else and look at the same two people. The engine itself is tested in
tests/engine, with nothing kept.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.backbones.network import Backbone
from engine.mtcnn import Detector
from engine.types import Embedding, Face, Photo

__all__ = ["look_once"]

_loaded: dict[object, dict[str, Any]] = {}
_seen: dict[object, tuple[Face, ...]] = {}
_embedded: dict[object, Embedding] = {}


def look_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every detector shares its networks; pixels that were looked at before are not again."""
    load, detect, embed = Detector.__init__, Detector.detect, Backbone.embed

    def loaded(self: Detector, *limit: Any, **threads: Any) -> None:
        key = limit, tuple(threads.items())
        if key not in _loaded:
            load(self, *limit, **threads)
            _loaded[key] = vars(self)
        vars(self).update(_loaded[key])

    def seen(self: Detector, photo: Photo) -> tuple[Face, ...]:
        key = self._min_face_px, _digest(photo.pixels)
        if key not in _seen:
            _seen[key] = detect(self, photo)
        return _seen[key]

    def embedded(self: Backbone, crops: list[NDArray[np.uint8]]) -> tuple[Embedding, ...]:
        keys = [(self.space, self.precision, _digest(crop)) for crop in crops]
        fresh = {key: crop for key, crop in zip(keys, crops, strict=True) if key not in _embedded}
        _embedded.update(zip(fresh, embed(self, list(fresh.values())), strict=True))
        return tuple(_embedded[key] for key in keys)

    monkeypatch.setattr(Detector, "__init__", loaded)
    monkeypatch.setattr(Detector, "detect", seen)
    monkeypatch.setattr(Backbone, "embed", embedded)


def _digest(pixels: NDArray[np.uint8]) -> tuple[object, ...]:
    whole = np.ascontiguousarray(pixels)
    return whole.shape, str(whole.dtype), hashlib.blake2b(whole, digest_size=16).digest()
