"""Files of labelled photos -> one unit vector each, for evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.errors import NotAnImage, PhotoProblem, TooLarge
from engine.pipeline import Engine
from engine.types import Face, Photo, Space
from gallery.report import Progress, no_progress

__all__ = ["Sightings", "central_face", "look_at"]

_CHUNK: Final = 16  # photos that share a batch


@dataclass(frozen=True, slots=True, eq=False)
class Sightings:
    """What was seen in files of photos; kept in memory only.

    Attributes:
        space: Of the vectors.
        vectors: float32 (D,) of the face in each file where one was found.
        failures: Why there is none in the others: ``"no face"`` or a sentence about the file.
    """

    space: Space
    vectors: Mapping[Path, NDArray[np.float32]]
    failures: Mapping[Path, str]


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
    from engine.runtime import cores

    distinct = sorted(set(files))
    space = engine.backbone(backbone).space
    vectors: dict[Path, NDArray[np.float32]] = {}
    failures: dict[Path, str] = {}
    chunks = [distinct[first : first + _CHUNK] for first in range(0, len(distinct), _CHUNK)]
    progress("photos", 0, len(distinct))
    pool = ThreadPoolExecutor(cores())
    try:
        for done in as_completed([pool.submit(_look, engine, backbone, one) for one in chunks]):
            seen, missed = done.result()
            vectors |= seen
            failures |= missed
            progress("photos", len(vectors) + len(failures), len(distinct))
    finally:
        pool.shutdown(cancel_futures=True)
    return Sightings(space, MappingProxyType(vectors), MappingProxyType(failures))


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


def _look(
    engine: Engine, backbone: str, files: Sequence[Path]
) -> tuple[dict[Path, NDArray[np.float32]], dict[Path, str]]:
    network = engine.backbone(backbone)
    crops: dict[Path, NDArray[np.uint8]] = {}
    failures: dict[Path, str] = {}
    for file in files:
        try:
            photo = engine.decode(_read(file, engine.limits.max_bytes))
        except PhotoProblem as problem:
            failures[file] = str(problem)
            continue
        faces = engine.detect(photo)
        if faces:
            crops[file] = network.crop(photo, central_face(photo, faces))
        else:
            failures[file] = "no face"
    embeddings = network.embed(list(crops.values()))
    return {
        file: embedding.vector for file, embedding in zip(crops, embeddings, strict=True)
    }, failures


def _read(file: Path, max_bytes: int) -> bytes:
    try:
        if file.stat().st_size > max_bytes:
            raise TooLarge(f"the file has more than {max_bytes} bytes")
        return file.read_bytes()
    except OSError as problem:
        raise NotAnImage(f"the file can't be read: {problem.strerror}") from None
