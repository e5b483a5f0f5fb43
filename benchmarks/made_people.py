"""Made-up people for benchmarks of search: unit vectors as a face network might give them.

A person's face is what all faces have in common, something of a real face where there are some,
and noise of their own; a portrait adds more noise, half in the directions in which faces differ
and half in any. How alike portraits then are (cosines, in the median):

    dimensions   of one person   of strangers
    below 512    0.96            0.83           as dlib's, measured (gallery/scores/__init__.py)
    512 or more  0.70            0.25           as VGGFace2's networks, estimated there

Faces differ in 1,000 directions (half of the dimensions where these are fewer), the k-th with the
variance 1 / (1 + k / 16): more directions than real networks use, so the nearest strangers are
many and nearly equally near. That is the hard case for an approximate search.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Likeness", "MadePeople", "real_faces"]

_DIRECTIONS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Likeness:
    """Cosines of two portraits, in the median.

    Attributes:
        same: Of one person.
        strangers: Of two people.
    """

    same: float
    strangers: float


class MadePeople:
    """An endless crowd.

    Args:
        dimensions: Of the vectors.
        real: float32 (R, any), unit vectors of real people to start from; None for none.
        seed: Of the crowd; another one is another crowd.
    """

    def __init__(
        self, dimensions: int, real: NDArray[np.float32] | None = None, *, seed: int = 1
    ) -> None:
        self.dimensions = dimensions
        self.likeness = Likeness(0.96, 0.83) if dimensions < 512 else Likeness(0.70, 0.25)
        self._random = np.random.default_rng(seed)
        count = min(_DIRECTIONS, dimensions // 2)
        directions = self._random.standard_normal((count, dimensions)) / dimensions**0.5
        weights = 1 / np.sqrt(1 + np.arange(count) / 16)
        weights /= np.linalg.norm(weights)
        self._directions = (weights[:, None] * directions).astype(np.float32)
        common = self._random.standard_normal(dimensions)
        self._common = (common / np.linalg.norm(common)).astype(np.float32)
        self._real = None if real is None else self._lifted(real)

    def shots(self, people: int, each: int) -> NDArray[np.float32]:
        """Portraits of people nobody has seen yet: float32 (people * each, D), by person."""
        same, strangers = self.likeness.same, self.likeness.strangers
        faces = self._noise(people) * np.float32((same - strangers) ** 0.5)
        if self._real is None:
            faces += np.float32(strangers**0.5) * self._common
        else:
            faces += self._real[self._random.integers(len(self._real), size=people)]
        shots = np.repeat(faces, each, axis=0)
        shots += self._noise(len(shots)) * np.float32(((1 - same) / 2) ** 0.5)
        spread = np.float32(((1 - same) / 2 / self.dimensions) ** 0.5)
        shots += spread * self._random.standard_normal(shots.shape, np.float32)
        shots /= np.linalg.norm(shots, axis=1, keepdims=True)
        return shots

    def _noise(self, count: int) -> NDArray[np.float32]:
        shape = (count, len(self._directions))
        return self._random.standard_normal(shape, np.float32) @ self._directions

    def _lifted(self, real: NDArray[np.float32]) -> NDArray[np.float32]:
        """Real people, as long as strangers have in common, turned into more dimensions."""
        longer = np.linalg.qr(self._random.standard_normal((self.dimensions, real.shape[1])))[0]
        turned = real if real.shape[1] == self.dimensions else real @ longer.T
        cosine = float(np.median(turned[: len(turned) // 2] @ turned[-1]))
        return (turned * (self.likeness.strangers / cosine) ** 0.5).astype(np.float32)


def real_faces(photos: Path, folder: Path) -> NDArray[np.float32]:
    """What dlib's network says of the people in a folder of photos: float32 (P, 128), unit length.

    Args:
        photos: A folder for each person.
        folder: For a gallery that is made on the way.
    """
    from bot.app import open_engine
    from bot.settings import Settings
    from gallery.add import add_folder
    from gallery.gallery import Gallery

    engine = open_engine(Settings(home=folder, default_model="dlib"))
    with Gallery.open(folder / "real") as gallery:
        add_folder(gallery, engine, photos, backbones=["dlib"])
        (space,) = gallery.spaces()
        vectors, persons = gallery.index(space).training_rows(1_000_000)
    starts = np.flatnonzero(np.diff(persons, prepend=-1))
    people = np.add.reduceat(vectors, starts, axis=0)
    return (people / np.linalg.norm(people, axis=1, keepdims=True)).astype(np.float32)
