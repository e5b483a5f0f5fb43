"""Files of labelled photos -> one unit vector each, for evaluation."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.engine import Engine
from engine.errors import NotAnImage, PhotoProblem, TooLarge
from engine.types import Box, Face, Photo, Space
from gallery.progress import Progress, no_progress

__all__ = ["Sightings", "central_face", "look_at", "look_with"]

_CHUNK: Final = 16  # photos that share a batch


@dataclass(frozen=True, slots=True, eq=False)
class Sightings:
    """What was seen in files of photos; kept in memory only.

    Attributes:
        space: Of the vectors.
        vectors: float32 (D,) of the face in each file where one was found.
        failures: Why there is none in the others: ``"no face"`` or a sentence about the file.
        boxes: Where that face is, in pixels of the decoded photo.
        seconds: What decoding, detecting and embedding for this space alone would have taken.
        finding_s: Decoding and detecting alone.
    """

    space: Space
    vectors: Mapping[Path, NDArray[np.float32]]
    failures: Mapping[Path, str]
    boxes: Mapping[Path, Box] = field(default_factory=dict)
    seconds: float = 0.0
    finding_s: float = 0.0


def look_at(
    engine: Engine, backbone: str, files: Iterable[Path], *, progress: Progress = no_progress
) -> Sightings:
    """Finds and embeds the face in every file, each once, on all cores.

    Args:
        engine: Sees and embeds.
        backbone: Into whose space.
        files: May repeat.
        progress: Told how many photos are done.

    Raises:
        SetupProblem: If the backbone can't be used.
    """
    return look_with(engine, [backbone], files, progress=progress)[backbone]


def look_with(
    engine: Engine,
    backbones: Sequence[str],
    files: Iterable[Path],
    *,
    progress: Progress = no_progress,
) -> dict[str, Sightings]:
    """As ``look_at`` with several backbones: every file is decoded and searched for faces once.

    Raises:
        SetupProblem: If one of the backbones can't be used.
    """
    from engine.runtime import cores

    distinct = sorted(set(files))
    spaces = {name: engine.backbone(name).space for name in backbones}
    seen = _Seen({name: {} for name in backbones}, {}, {}, dict.fromkeys(backbones, 0.0))
    chunks = [distinct[first : first + _CHUNK] for first in range(0, len(distinct), _CHUNK)]
    progress("photos", 0, len(distinct))
    started = time.perf_counter()
    pool = ThreadPoolExecutor(cores())
    try:
        for done in as_completed([pool.submit(_look, engine, backbones, one) for one in chunks]):
            seen.take(done.result())
            progress("photos", len(seen.boxes) + len(seen.failures), len(distinct))
    finally:
        pool.shutdown(cancel_futures=True)
    # Threads wait for each other, so the time by the clock is divided as their own times are.
    pace = (time.perf_counter() - started) / max(
        seen.finding_s + sum(seen.embedding_s.values()), 1e-9
    )
    return {
        name: Sightings(
            space,
            MappingProxyType(seen.vectors[name]),
            MappingProxyType(seen.failures),
            MappingProxyType(seen.boxes),
            pace * (seen.finding_s + seen.embedding_s[name]),
            pace * seen.finding_s,
        )
        for name, space in spaces.items()
    }


def central_face(photo: Photo, faces: Sequence[Face]) -> Face:
    """The face that a labelled photo is of: large and near the centre.

    The weight of a face is the edge of its box, less the farther its middle lies from the photo's:
    halved an eighth of the diagonal away. Labelled photos are cut around their subject; bystanders
    may be a little larger, but are at the edge.
    """

    def weight(face: Face) -> float:
        x, y = face.box.centre
        off = np.hypot(x - photo.width_px / 2, y - photo.height_px / 2)
        return float(face.box.area_px**0.5 / (1 + 8 * off / np.hypot(*photo.pixels.shape[:2])))

    return max(faces, key=weight)


@dataclass(slots=True)
class _Seen:
    """What was seen in some files: vectors by backbone; seconds as the threads counted them."""

    vectors: dict[str, dict[Path, NDArray[np.float32]]]
    failures: dict[Path, str]
    boxes: dict[Path, Box]
    embedding_s: dict[str, float]
    finding_s: float = 0.0

    def take(self, more: _Seen) -> None:
        for name, vectors in more.vectors.items():
            self.vectors[name] |= vectors
            self.embedding_s[name] += more.embedding_s[name]
        self.failures |= more.failures
        self.boxes |= more.boxes
        self.finding_s += more.finding_s


def _look(engine: Engine, backbones: Sequence[str], files: Sequence[Path]) -> _Seen:
    networks = {name: engine.backbone(name) for name in backbones}
    crops: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in backbones}
    seen = _Seen({}, {}, {}, {})
    started = time.perf_counter()
    for file in files:
        try:
            photo = engine.decode(_read(file, engine.limits.max_bytes))
        except PhotoProblem as problem:
            seen.failures[file] = str(problem)
            continue
        faces = engine.detect(photo)
        if not faces:
            seen.failures[file] = "no face"
            continue
        face = central_face(photo, faces)
        seen.boxes[file] = face.box
        for name, network in networks.items():
            crops[name].append(network.crop(photo, face))
    seen.finding_s = time.perf_counter() - started
    for name, network in networks.items():
        started = time.perf_counter()
        found = network.embed(crops[name])
        seen.vectors[name] = dict(zip(seen.boxes, (one.vector for one in found), strict=True))
        seen.embedding_s[name] = time.perf_counter() - started
    return seen


def _read(file: Path, max_bytes: int) -> bytes:
    try:
        if file.stat().st_size > max_bytes:
            raise TooLarge(f"the file has more than {max_bytes} bytes")
        return file.read_bytes()
    except OSError as problem:
        raise NotAnImage(f"the file can't be read: {problem.strerror}") from None
