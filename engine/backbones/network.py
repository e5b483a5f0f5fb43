"""A backbone: crops in, unit vectors out; and whether a network tells people apart.

The latter is a check on weights that no checksum vouches for. The same conditions (light,
sharpness, pose, compression) are put on portraits of two people. A network that has learned faces
finds one person in two conditions more alike than two people in one condition. With random weights
it is the other way round: the condition decides.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from engine.backbones import BackboneRecord
from engine.errors import WeightsCorrupt
from engine.types import Box, Embedding, Face, Photo, Space

Colour = tuple[float, float, float]
Change = Callable[[Photo, Face], tuple[Photo, Face]]

INT8_RECIPE = 100
"""Added to the recipe where a network multiplies bytes: its vectors are a space of their own."""
_BATCH = 8  # more gains nothing on a processor and delays whoever waits for the first


@dataclass(eq=False)
class Backbone:
    """Turns crops of faces into unit vectors; safe to use from several threads at once."""

    record: BackboneRecord
    sha256: str  # of its weight file
    run: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    """The network: (N, S, S, 3) RGB, S = ``record.input_px``, to (N, D)."""
    precision: str  # what its arithmetic is done in: "f32", "bf16" or "int8"

    def __post_init__(self) -> None:
        record = self.record
        recipe = record.recipe + INT8_RECIPE * (self.precision == "int8")
        self.space = Space(record.name, self.sha256, recipe, record.dimensions)

    def crop(self, photo: Photo, face: Face) -> NDArray[np.uint8]:
        """The face as the network wants it: uint8 (S, S, 3) RGB, S = ``record.input_px``."""
        from engine import align  # loads OpenCV

        if self.record.name == "dlib":
            return align.dlib_crop(photo, face.landmarks)
        return align.vggface2_crop(photo, face.box)

    def embed(self, crops: Sequence[NDArray[np.uint8]]) -> tuple[Embedding, ...]:
        """One embedding per crop, uint8 (S, S, 3) RGB, in the given order.

        Raises ValueError if a crop has another shape or type, and WeightsCorrupt if the network
        gives a vector without a direction.
        """
        self.check(crops)
        embeddings: list[Embedding] = []
        for start in range(0, len(crops), _BATCH):
            views = self._views(np.stack(crops[start : start + _BATCH]))
            raw = self.run(np.concatenate(views))
            rows = raw.reshape(len(views), -1, self.record.dimensions).sum(axis=0)
            embeddings += map(self._embedding, rows)
        return tuple(embeddings)

    def check(self, crops: Sequence[NDArray[np.uint8]]) -> None:
        """Raises ValueError if a crop has another shape or type than this network takes."""
        name, shape = self.record.name, (self.record.input_px, self.record.input_px, 3)
        for crop in crops:
            if crop.shape != shape or crop.dtype != np.uint8:
                message = f"a crop for {name} is uint8 {shape}, not {crop.dtype} {crop.shape}"
                raise ValueError(message)

    def samples(self) -> NDArray[np.uint8]:
        """What the network sees of the two free portraits in all conditions, (N, S, S, 3)."""
        portraits, changes = free_portraits(), CONDITIONS.values()
        crops = [self.crop(*change(*one)) for one in portraits for change in changes]
        return np.concatenate(self._views(np.stack(crops)))

    def _views(self, batch: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """What the recipe sums over: batches of the same size, uint8 (N, S, S, 3)."""
        if self.record.closer is None:
            return [batch]
        from engine.align import closer  # loads OpenCV

        near = np.stack([closer(crop, self.record.closer) for crop in batch])
        return [batch, near[:, :, ::-1]]

    def _embedding(self, row: NDArray[np.float32]) -> Embedding:
        length = float(np.linalg.norm(row.astype(np.float64)))
        if not (np.isfinite(length) and length > 1e-12):
            raise WeightsCorrupt(
                f"the network {self.record.name} answers without a direction; "
                f"run `lookalike models verify {self.record.name}`"
            )
        return Embedding((row / length).astype(np.float32), self.space)


def separation(backbone: Backbone, portraits: Sequence[tuple[Photo, Face]]) -> tuple[float, float]:
    """How far the backbone holds people apart, of each of whom there is one clear face.

    The lowest cosine between two conditions of one person, and the highest between two people in
    one condition; a network that has learned faces has the first above the second.
    """
    people = []
    for photo, face in portraits:
        crops = [backbone.crop(*change(photo, face)) for change in CONDITIONS.values()]
        people.append(np.array([embedding.vector for embedding in backbone.embed(crops)]))
    same = min(float(a @ b) for person in people for a, b in combinations(person, 2))
    strangers = max(
        float(np.einsum("ij,ij->i", one, other).max()) for one, other in combinations(people, 2)
    )
    return same, strangers


def portrait_jpeg(name: str) -> bytes:
    """The portrait in the public domain of ``grace_hopper`` or ``eileen_collins``."""
    return resources.files("engine.backbones").joinpath("portraits", f"{name}.jpg").read_bytes()


_FOUND = {  # boxes (x, y, w, h) and landmarks, found once by the package mtcnn 1.0.0
    "grace_hopper": (
        (178.4, 109.9, 173.0, 219.9),
        ((220.4, 190.2), (308.2, 186.0), (268.3, 237.4), (231.7, 277.0), (303.6, 272.9)),
    ),
    "eileen_collins": (
        (181.6, 63.7, 83.0, 107.4),
        ((203.5, 100.1), (245.4, 102.2), (224.2, 126.4), (201.8, 138.6), (244.4, 140.4)),
    ),
}


def free_portraits() -> tuple[tuple[Photo, Face], ...]:
    """The two public-domain portraits that come with the program."""
    from PIL import Image

    portraits = []
    for name, (box, points) in _FOUND.items():
        with Image.open(io.BytesIO(portrait_jpeg(name))) as picture:
            photo = Photo(np.asarray(picture.convert("RGB")), picture.size, "JPEG")
        portraits.append((photo, Face(Box(*box), np.array(points, np.float32), 1.0)))
    return tuple(portraits)


def _mirrored(photo: Photo, face: Face) -> tuple[Photo, Face]:
    landmarks = face.landmarks[[1, 0, 2, 4, 3]].copy()
    landmarks[:, 0] = photo.width_px - 1 - landmarks[:, 0]
    box = replace(face.box, x=photo.width_px - face.box.x - face.box.w)
    return replace(photo, pixels=photo.pixels[:, ::-1]), replace(face, box=box, landmarks=landmarks)


def _tinted(photo: Photo, face: Face, *, gain: Colour, offset: Colour) -> tuple[Photo, Face]:
    tinted = np.clip(photo.pixels * np.array(gain) + np.array(offset), 0, 255)
    return replace(photo, pixels=tinted.astype(np.uint8)), face


def _grey(photo: Photo, face: Face) -> tuple[Photo, Face]:
    grey = photo.pixels @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    return replace(photo, pixels=np.stack([grey] * 3, axis=2).astype(np.uint8)), face


def _recompressed(photo: Photo, face: Face) -> tuple[Photo, Face]:
    from PIL import Image

    picture = Image.fromarray(photo.pixels)
    small = min(1.0, 60 / min(face.box.w, face.box.h))  # px: as small as in a group photo
    reduced = (max(1, round(picture.width * small)), max(1, round(picture.height * small)))
    buffer = io.BytesIO()
    picture.resize(reduced, Image.Resampling.BOX).save(buffer, "JPEG", quality=40)
    with Image.open(buffer) as reopened:
        large = reopened.convert("RGB").resize(picture.size, Image.Resampling.BICUBIC)
    return replace(photo, pixels=np.asarray(large)), face


CONDITIONS: dict[str, Change] = {
    "as it is": lambda photo, face: (photo, face),
    "mirrored": _mirrored,
    "dark": partial(_tinted, gain=(0.5, 0.5, 0.5), offset=(0, 0, 0)),
    "grey": _grey,
    "warm": partial(_tinted, gain=(1.15, 0.95, 0.7), offset=(15, 0, 0)),
    "recompressed": _recompressed,
}
