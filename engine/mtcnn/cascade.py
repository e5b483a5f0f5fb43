"""P-Net proposes, R-Net and O-Net refine: MTCNN on one photo, upright as it is.

Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks",
IEEE Signal Processing Letters 23 (2016).

Coordinates in here are counted from the photo's upper left edge: the centre of the first pixel is
(0.5, 0.5).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from engine.mtcnn.canvas import Halvings, plan
from engine.mtcnn.networks import Stage, graph
from engine.runtime import Network, Precision, compile_network

if TYPE_CHECKING:
    from numpy.typing import NDArray

PNET_THRESHOLD = 0.7
"""0.6 in the package mtcnn 1.0.0: a quarter fewer proposals, and 3 of 1,329 faces are lost."""
RNET_THRESHOLD = 0.7
ONET_THRESHOLD = 0.6
MEAN_THRESHOLD = 0.8
"""The package judges once, by 0.8; here a look that passes 0.6 is followed by two more."""

_SAME_SIZE_OVERLAP = 0.5  # P-Net, windows of one copy
_OVERLAP = 0.7
_SAME_FACE_OVERLAP = 0.6  # O-Net, before it looks again

# A photo of a crowd of 350 has 18,000 windows, 4,200 proposals and 640 candidates. A mosaic of
# tiny faces has many more, and suppression takes their square.
_MOST_WINDOWS = 20_000
_MOST_PROPOSALS = 5_000
_MOST_FACES = 1_000

_BATCHES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128)  # each other size would be compiled anew
_MIRRORED = [1, 0, 2, 4, 3]  # the left eye of a mirror image is the right one
_CLOSER = 0.95
_SURE = 0.995  # see Findings.distinct


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """Faces found, surest first.

    Attributes:
        boxes: float64 (N, 4): left, upper, right and lower edge.
        scores: float64 (N,), O-Net's probability of a face, the mean of three looks.
        landmarks: float64 (N, 5, 2).
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    landmarks: NDArray[np.float64]

    @classmethod
    def none(cls) -> Findings:
        """No faces."""
        return cls(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2)))

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, which: NDArray[np.intp] | NDArray[np.bool_]) -> Findings:
        return Findings(self.boxes[which], self.scores[which], self.landmarks[which])

    @property
    def sides_px(self) -> NDArray[np.float64]:
        """Longer side of each box, (N,)."""
        return np.asarray((self.boxes[:, 2:] - self.boxes[:, :2]).max(axis=1))

    def distinct(self) -> Findings:
        """Each face once.

        Of boxes that share more than 70 % of the smaller one the surest stays, but among those
        that are sure the largest: a pattern within a face can look more like a face than it does.
        """
        areas = (self.boxes[:, 2:] - self.boxes[:, :2]).prod(axis=1)
        ranks = np.where(self.scores > _SURE, 1.0 + areas, self.scores)
        kept = self[survivors(self.boxes, ranks, _OVERLAP, share="smaller")]
        return kept[np.argsort(-kept.scores, kind="stable")]

    def joined(self, others: Findings) -> Findings:
        """Both, each face once."""
        return Findings(
            np.concatenate([self.boxes, others.boxes]),
            np.concatenate([self.scores, others.scores]),
            np.concatenate([self.landmarks, others.landmarks]),
        ).distinct()


class Cascade:
    """The three networks; safe to call from several threads at once.

    Args:
        threads: See :func:`engine.runtime.compile_network`.

    Raises:
        WeightsMissing: If the package mtcnn is not installed.
        WeightsCorrupt: If its files are damaged.
    """

    def __init__(self, *, threads: int | None = None) -> None:
        def load(stage: Stage, precision: Precision) -> Network:
            build = functools.partial(graph, stage)
            return compile_network(build, name=stage, precision=precision, threads=threads)

        # bf16 makes P-Net a third and R-Net a half faster, and O-Net judges what they let pass:
        # as many faces are found. O-Net itself would lose one in ten in it.
        self._pnet, self._rnet = load("pnet", "auto"), load("rnet", "auto")
        self._onet = load("onet", "f32")

    def find(self, photo: Halvings, smallest_px: float, largest_px: float = math.inf) -> Findings:
        """Faces whose size is in a range, roughly."""
        boxes = self._proposed(photo, smallest_px, largest_px)
        if len(boxes):
            boxes = self._refined(photo, boxes)
        if len(boxes):
            return self._looked_at_again(photo, self._judged(photo, boxes)).distinct()
        return Findings.none()

    def _proposed(
        self, photo: Halvings, smallest_px: float, largest_px: float
    ) -> NDArray[np.float64]:
        found = []
        for canvas in plan(photo.width_px, photo.height_px, smallest_px, largest_px):
            offsets, face = self._pnet.run(canvas.drawn(photo))
            found.append(canvas.boxes(face, offsets, PNET_THRESHOLD, photo))
        if not found:
            return np.zeros((0, 4))
        boxes, scores, levels = (np.concatenate(part) for part in zip(*found, strict=True))
        if len(scores) > _MOST_WINDOWS:
            surest = np.argpartition(scores, -_MOST_WINDOWS)[-_MOST_WINDOWS:]
            boxes, scores, levels = boxes[surest], scores[surest], levels[surest]
        first = survivors(boxes, scores, _SAME_SIZE_OVERLAP, groups=levels)
        boxes, scores = boxes[first], scores[first]
        return boxes[survivors(boxes, scores, _OVERLAP)[:_MOST_PROPOSALS]]

    def _refined(self, photo: Halvings, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        centres, sides = _squared(boxes)
        offsets, face = _in_batches(self._rnet, photo.squares(centres, sides, 24))
        sure = face[:, 0] > RNET_THRESHOLD
        boxes, scores = _moved(centres[sure], sides[sure], offsets[sure]), face[sure, 0]
        return boxes[survivors(boxes, scores.astype(np.float64), _OVERLAP)[:_MOST_FACES]]

    def _judged(self, photo: Halvings, boxes: NDArray[np.float64]) -> Findings:
        centres, sides = _squared(boxes)
        offsets, landmarks, face = _in_batches(self._onet, photo.squares(centres, sides, 48))
        scores = face[:, 0].astype(np.float64)
        points = _placed(_points(landmarks), centres, sides)
        found = Findings(_moved(centres, sides, offsets), scores, points)[scores > ONET_THRESHOLD]
        return found[survivors(found.boxes, found.scores, _SAME_FACE_OVERLAP)]

    def _looked_at_again(self, photo: Halvings, found: Findings) -> Findings:
        """The same faces with steadier landmarks and scores, without those that lose by it.

        O-Net sees each face twice more where it said the face is, a little closer, as it is and in
        the mirror. The landmarks are the mean of these two, the score is the mean of all three.
        On 2,984 portraits the landmarks raise the share of pairs of one person that dlib's network
        tells from strangers, at one error in 10,000, from 88.5 to 88.9 %; of 571 photos the score
        removes 16 of 97 boxes that the package mtcnn does not find, and 1 of 1,326 that it finds.
        """
        if len(found) == 0:
            return found
        centres, sides = _squared(found.boxes)
        sides = sides * _CLOSER
        crops = photo.squares(centres, sides, 48)
        both = np.concatenate([crops, crops[:, :, ::-1]])
        _, landmarks, face = _in_batches(self._onet, both)
        seen, mirrored = np.split(_points(landmarks), 2)
        mirrored = mirrored[:, _MIRRORED] * (-1, 1) + (1, 0)
        scores = (found.scores + np.sum(np.split(face[:, 0], 2), axis=0)) / 3
        points = _placed((seen + mirrored) / 2, centres, sides)
        return Findings(found.boxes, scores, points)[scores > MEAN_THRESHOLD]


def _squared(boxes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (N, 2) and sides (N,) of the smallest squares around the boxes."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    return boxes[:, :2] + sizes / 2, np.maximum(sizes.max(axis=1), 1.0)


def _moved(
    centres: NDArray[np.float64], sides: NDArray[np.float64], offsets: NDArray[np.float32]
) -> NDArray[np.float64]:
    half = sides[:, None] / 2
    boxes = np.hstack([centres - half, centres + half]) + sides[:, None] * offsets
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1.0)
    return boxes


def _placed(
    points: NDArray[np.float64], centres: NDArray[np.float64], sides: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Points given as parts of squares, (N, 5, 2), in the photo."""
    return (centres - sides[:, None] / 2)[:, None] + sides[:, None, None] * points


def _points(landmarks: NDArray[np.float32]) -> NDArray[np.float64]:
    """O-Net's 5 x and then 5 y as points (N, 5, 2)."""
    return landmarks.reshape(-1, 2, 5).transpose(0, 2, 1).astype(np.float64)


def _in_batches(network: Network, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
    """The network's outputs for any number of crops, in batches of few different sizes."""
    results = []
    for start in range(0, len(crops), _BATCHES[-1]):
        batch = crops[start : start + _BATCHES[-1]]
        count = len(batch)
        size = next(size for size in _BATCHES if size >= count)
        padded = np.concatenate([batch, np.zeros((size - count, *batch.shape[1:]), np.uint8)])
        results.append([output[:count] for output in network.run(padded)])
    return tuple(np.concatenate(parts) for parts in zip(*results, strict=True))


def survivors(
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
    threshold: float,
    *,
    share: Literal["union", "smaller"] = "union",
    groups: NDArray[np.intp] | None = None,
) -> NDArray[np.intp]:
    """Which boxes stay when each removes the less sure ones that overlap it too much.

    A box that was removed removes nothing itself (in the package mtcnn 1.0.0 it does).

    Args:
        boxes: float64 (N, 4): left, upper, right and lower edge.
        scores: (N,), above 0.
        threshold: A box goes if it shares more than this part of the union, or of the smaller of
            the two boxes, with a surer one that stays.
        share: What the overlap is measured against.
        groups: (N,), not negative; boxes of different groups never remove each other. None: one
            group. Only with ``share="union"``.

    Returns:
        Indices of those that stay, by falling score.
    """
    if len(boxes) == 0:
        return np.zeros(0, np.intp)
    if share == "smaller":
        return _by_smaller(boxes, scores, threshold)
    import cv2

    corner_and_size: Any = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    sure: Any = scores
    group: Any = np.zeros(len(boxes), np.intc) if groups is None else groups
    kept = cv2.dnn.NMSBoxesBatched(corner_and_size, sure, group, 0.0, threshold)
    return np.asarray(kept, np.intp).reshape(-1)


def _by_smaller(
    boxes: NDArray[np.float64], scores: NDArray[np.float64], threshold: float
) -> NDArray[np.intp]:
    order = np.argsort(-scores, kind="stable")
    left, upper, right, lower = boxes[order].T
    area = (right - left) * (lower - upper)
    stays = np.ones(len(order), bool)
    for i in range(len(order)):
        if not stays[i]:
            continue
        rest = slice(i + 1, None)
        wide = np.minimum(right[rest], right[i]) - np.maximum(left[rest], left[i])
        high = np.minimum(lower[rest], lower[i]) - np.maximum(upper[rest], upper[i])
        both = np.maximum(wide, 0) * np.maximum(high, 0)
        stays[rest] &= both <= threshold * np.minimum(area[rest], area[i])
    return order[stays]
