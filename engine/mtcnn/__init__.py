"""Finds faces in a photo: MTCNN from coarse to fine, and turned if nothing is upright."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.align import concerns
from engine.mtcnn.canvas import WINDOW_PX, Halvings
from engine.mtcnn.cascade import Cascade, Findings
from engine.types import Box, Face

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.types import Photo

FIRST_LOOK = 1 / 12
"""Smallest face of the first look, as a part of the photo's longer side.

With a 20th it takes twice as long, and of 1,379 faces in 571 photos finds 12 more, all of them in
the background of larger ones.
"""

SMALLEST_PX = 20
"""Smallest face of the last look: below, MTCNN finds patterns rather than people."""

_NEAR_LIMIT = 1.3  # where a face is as near to the limit of a look, there may be smaller ones
_FINER = 0.709**2.5  # half a step between the copies of the look before

_NOT_WORTH = 1.5  # another look for less than half a step

_CROWD = 20
_HALF_STEP = 0.709**-0.5
"""In a crowd sizes between those of a look are looked for as well.

In a photo where the package mtcnn finds 340 faces of 15 px, 341 are found with it, 338 without.
"""

_SURE = 0.99
"""Where no upright face is as sure, the photo may lie on its side or its head.

MTCNN takes a third of the faces in turned photos for upright ones, with wrong landmarks, but none
of 600 surer than this; of 373 upright portraits 16 % are looked at three more ways for it.
"""
_TURNED_LOOK = 1 / 8
_TURNED_SURE = 0.97
_TURNED_ODDS = 5
"""A turned face counts if it is large, sure and so many times less doubtful than an upright one.

Of 600 turned portraits 92 % come out right, of 373 upright ones none is turned. The dog and the
rock that a look at smaller or less sure faces takes for people do not count.
"""


@dataclass(frozen=True, slots=True)
class DetectorOptions:
    """What is looked for.

    Attributes:
        min_face_px: Smallest face, px of the longer side of its box, at least 12. None: a 12th
            of the photo's longer side, and smaller ones, down to 20 px, where the first look
            finds nothing or finds faces so small that there may be smaller ones.
    """

    min_face_px: int | None = None

    def __post_init__(self) -> None:
        if self.min_face_px is not None and self.min_face_px < WINDOW_PX:
            raise ValueError(f"min_face_px is at least {WINDOW_PX}, not {self.min_face_px}")


class Detector:
    """Finds faces; safe to call from several threads at once.

    Made by :meth:`load`.
    """

    def __init__(self, cascade: Cascade, options: DetectorOptions) -> None:
        self._cascade = cascade
        self._options = options

    @classmethod
    def load(
        cls,
        options: DetectorOptions | None = None,
        *,
        cache_folder: Path | None = None,  # noqa: ARG003 - see below
        threads: int | None = None,
    ) -> Detector:
        """A detector ready to work.

        Args:
            options: What is looked for.
            cache_folder: Not used: the three networks are compiled in less time than compiled
                ones are read.
            threads: Cores that work on one photo, see :func:`engine.runtime.compile_network`.

        Raises:
            WeightsMissing: If the package mtcnn is not installed.
            WeightsCorrupt: If its files are damaged.
        """
        return cls(Cascade(threads=threads), options or DetectorOptions())

    def detect(self, photo: Photo) -> tuple[Face, ...]:
        """Every face in the photo, largest box first; empty if there is none.

        Boxes may reach beyond the photo's edges. Where no upright face is sure, the photo may
        lie on its side or its head: the faces of the direction with the surest one count.
        """
        found = self._upright(Halvings(photo.pixels))
        doubt = 1 - found.scores.max(initial=0.0)
        if doubt > 1 - _SURE:
            turned = self._turned(photo, max(_TURNED_SURE, 1 - doubt / _TURNED_ODDS))
            found = turned if len(turned) else found
        found = found[_seen(photo, found)]
        faces = [_face(photo, found, i) for i in range(len(found))]
        return tuple(sorted(faces, key=lambda face: -face.box.area_px))

    def _upright(self, photo: Halvings) -> Findings:
        longer = max(photo.width_px, photo.height_px)
        wanted = self._options.min_face_px
        limit = float(wanted) if wanted is not None else max(SMALLEST_PX, longer * FIRST_LOOK)
        found = self._cascade.find(photo, limit)
        while wanted is None and limit > SMALLEST_PX:
            if len(found) and found.sides_px.min() > _NEAR_LIMIT * limit:
                break
            finer = limit * _FINER if limit * _FINER > _NOT_WORTH * SMALLEST_PX else SMALLEST_PX
            # Where there was nothing, sizes between those of the first look may have been missed.
            largest = limit if len(found) else math.inf
            found = found.joined(self._cascade.find(photo, finer, largest))
            limit = finer
            if len(found) >= _CROWD:
                between = self._cascade.find(photo, finer * _HALF_STEP, largest)
                found = found.joined(between)
        return found

    def _turned(self, photo: Photo, threshold: float) -> Findings:
        """Faces after a half or a quarter turn, in the photo as it is.

        Those of the direction in which one is surest; none if it is not surer than a threshold.
        """
        best = Findings.none()
        smallest = max(SMALLEST_PX, self._options.min_face_px or 0)
        for quarters in (2, 1, 3):
            turned = Halvings(np.ascontiguousarray(np.rot90(photo.pixels, quarters)))
            longer = max(turned.width_px, turned.height_px)
            found = self._cascade.find(turned, max(smallest, longer * _TURNED_LOOK))
            if found.scores.max(initial=0.0) > threshold:
                threshold = float(found.scores.max())
                found = found[found.scores > _TURNED_SURE]
                best = _turned_back(found, quarters, turned.width_px, turned.height_px)
        return best


def _turned_back(found: Findings, quarters: int, width_px: int, height_px: int) -> Findings:
    """Findings in a photo that was turned to the left by quarters, in the photo as it was."""
    corners, points = found.boxes.reshape(-1, 2, 2), found.landmarks
    for _ in range(quarters):
        # A quarter to the right: (x, y) goes to (height - y, x).
        corners = np.stack([height_px - corners[..., 1], corners[..., 0]], axis=-1)
        points = np.stack([height_px - points[..., 1], points[..., 0]], axis=-1)
        width_px, height_px = height_px, width_px
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    return Findings(boxes, found.scores, points)


def _seen(photo: Photo, found: Findings) -> NDArray[np.bool_]:
    """Which faces are in the photo: not those without an eye or the nose in it."""
    x, y = found.landmarks[..., 0], found.landmarks[..., 1]
    inside = (x > 0) & (y > 0) & (x < photo.width_px) & (y < photo.height_px)
    return np.asarray(inside[:, :3].all(axis=1))


def _face(photo: Photo, found: Findings, i: int) -> Face:
    left, upper, right, lower = found.boxes[i].tolist()
    box = Box(left, upper, right - left, lower - upper)
    landmarks = _indices(found.landmarks[i])
    return Face(box, landmarks, float(found.scores[i]), concerns(photo, box, landmarks))


def _indices(points: NDArray[np.float64]) -> NDArray[np.float32]:
    """Points counted from the photo's edge as pixel indices, whose first centre is (0, 0)."""
    return (points - 0.5).astype(np.float32)
