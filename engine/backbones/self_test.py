"""Whether a loaded network tells people apart: a check on weights that no checksum vouches for.

The same conditions (light, sharpness, pose, compression) are put on portraits of two people. A
network that has learned faces finds one person in two conditions more alike than two people in one
condition. With random weights it is the other way round: the condition decides.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import combinations
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from engine.types import Box, Face, Photo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.backbones import Backbone


@dataclass(frozen=True, slots=True)
class Separation:
    """How far a network holds people apart.

    Attributes:
        same: Lowest cosine between two conditions of one person.
        strangers: Highest cosine between two people in one condition.
    """

    same: float
    strangers: float

    @property
    def separates(self) -> bool:
        """Whether every pair of the same person is more alike than every pair of strangers."""
        return self.same > self.strangers


def separation(backbone: Backbone, portraits: Sequence[tuple[Photo, Face]]) -> Separation:
    """How far the backbone holds the people of these portraits apart.

    Args:
        backbone: The loaded network.
        portraits: One clear face of each of at least two people.
    """
    people = []
    for photo, face in portraits:
        changed = [change(photo, face) for change in CONDITIONS.values()]
        crops = [backbone.crop(*sighting) for sighting in changed]
        people.append(np.array([embedding.vector for embedding in backbone.embed(crops)]))
    same = min(
        float(one[first] @ one[second])
        for one in people
        for first, second in combinations(range(len(CONDITIONS)), 2)
    )
    strangers = max(
        float(np.einsum("ij,ij->i", one, other).max()) for one, other in combinations(people, 2)
    )
    return Separation(same, strangers)


def portrait_jpeg(name: str) -> bytes:
    """A public-domain portrait that comes with the program.

    Args:
        name: ``"grace_hopper"`` (512 x 600 px) or ``"eileen_collins"`` (512 x 512 px).
    """
    return resources.files("engine.backbones").joinpath("portraits", f"{name}.jpg").read_bytes()


def free_portraits() -> tuple[tuple[Photo, Face], ...]:
    """The two public-domain portraits that come with the program.

    Boxes and landmarks were found once by the package mtcnn 1.0.0.
    """
    from PIL import Image

    portraits = []
    for name, box, points in (
        (
            "grace_hopper",
            Box(178.4, 109.9, 173.0, 219.9),
            ((220.4, 190.2), (308.2, 186.0), (268.3, 237.4), (231.7, 277.0), (303.6, 272.9)),
        ),
        (
            "eileen_collins",
            Box(181.6, 63.7, 83.0, 107.4),
            ((203.5, 100.1), (245.4, 102.2), (224.2, 126.4), (201.8, 138.6), (244.4, 140.4)),
        ),
    ):
        with Image.open(io.BytesIO(portrait_jpeg(name))) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        photo = Photo(pixels, (pixels.shape[1], pixels.shape[0]), "JPEG")
        portraits.append((photo, Face(box, np.array(points, np.float32), 1.0)))
    return tuple(portraits)


def _as_it_is(photo: Photo, face: Face) -> tuple[Photo, Face]:
    return photo, face


def _mirrored(photo: Photo, face: Face) -> tuple[Photo, Face]:
    landmarks = face.landmarks[[1, 0, 2, 4, 3]].copy()
    landmarks[:, 0] = photo.width_px - 1 - landmarks[:, 0]
    box = Box(photo.width_px - face.box.x - face.box.w, face.box.y, face.box.w, face.box.h)
    return _with_pixels(photo, photo.pixels[:, ::-1]), Face(box, landmarks, face.confidence)


def _dark(photo: Photo, face: Face) -> tuple[Photo, Face]:
    return _with_pixels(photo, (photo.pixels * 0.5).astype(np.uint8)), face


def _grey(photo: Photo, face: Face) -> tuple[Photo, Face]:
    grey = photo.pixels @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    return _with_pixels(photo, np.repeat(grey[..., np.newaxis], 3, axis=2).astype(np.uint8)), face


def _warm(photo: Photo, face: Face) -> tuple[Photo, Face]:
    tinted = photo.pixels * np.array([1.15, 0.95, 0.7]) + np.array([15, 0, 0])
    return _with_pixels(photo, np.clip(tinted, 0, 255).astype(np.uint8)), face


def _recompressed(photo: Photo, face: Face) -> tuple[Photo, Face]:
    from PIL import Image

    width, height = photo.width_px, photo.height_px
    edge_px = 60  # of the face: as small as in a group photo
    small = min(1.0, edge_px / min(face.box.w, face.box.h))
    picture = Image.fromarray(photo.pixels).resize(
        (max(1, round(width * small)), max(1, round(height * small))), Image.Resampling.BOX
    )
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=40)
    with Image.open(buffer) as reopened:
        large = reopened.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    return _with_pixels(photo, np.asarray(large)), face


def _with_pixels(photo: Photo, pixels: NDArray[np.uint8]) -> Photo:
    return Photo(np.ascontiguousarray(pixels), photo.source_size_px, photo.format)


CONDITIONS: Mapping[str, Callable[[Photo, Face], tuple[Photo, Face]]] = MappingProxyType(
    {
        "as it is": _as_it_is,
        "mirrored": _mirrored,
        "dark": _dark,
        "grey": _grey,
        "warm": _warm,
        "recompressed": _recompressed,
    }
)
