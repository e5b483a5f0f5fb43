"""Finds faces in a photo: MTCNN from coarse to fine, and turned if nothing is upright.

Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks",
IEEE Signal Processing Letters 23 (2016): P-Net proposes, R-Net and O-Net refine. Their weights come
with the package mtcnn, which is not imported: it needs TensorFlow.

Coordinates in here are counted from the photo's upper left edge: the centre of the first pixel is
(0.5, 0.5).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from engine import runtime
from engine.align import concerns
from engine.errors import WeightsCorrupt, WeightsMissing
from engine.mtcnn.canvas import WINDOW_PX, Halvings, plan
from engine.pickles import joblib_arrays
from engine.runtime import Network, Precision, compile_network
from engine.types import Box, Face

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.types import Photo

Stage = Literal["pnet", "rnet", "onet"]

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

_UPRIGHT_SURE = 0.99
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


class Detector:
    """Finds faces; safe to call from several threads at once.

    Args:
        min_face_px: Smallest face, px of the longer side of its box, at least 12. None: a 12th
            of the photo's longer side, and smaller ones, down to 20 px, where the first look
            finds nothing or finds faces so small that there may be smaller ones.
        threads: Cores that work on one photo, see :func:`engine.runtime.compile_network`.

    Raises:
        ValueError: If ``min_face_px`` is below 12.
        WeightsMissing: If the package mtcnn is not installed.
        WeightsCorrupt: If its files are damaged.
    """

    def __init__(self, min_face_px: int | None = None, *, threads: int | None = None) -> None:
        if min_face_px is not None and min_face_px < WINDOW_PX:
            raise ValueError(f"min_face_px is at least {WINDOW_PX}, not {min_face_px}")
        self._min_face_px = min_face_px

        def load(stage: Stage, precision: Precision) -> Network:
            build = functools.partial(network_graph, stage)
            return compile_network(build, name=stage, precision=precision, threads=threads)

        # None is kept: they are compiled in less time than compiled ones are read.
        # bf16 makes P-Net a third and R-Net a half faster, and O-Net judges what they let pass:
        # as many faces are found. O-Net itself would lose one in ten in it.
        self._pnet, self._rnet = load("pnet", "auto"), load("rnet", "auto")
        self._onet = load("onet", "f32")

    def detect(self, photo: Photo) -> tuple[Face, ...]:
        """Every face in the photo, largest box first; empty if there is none.

        Boxes may reach beyond the photo's edges. Where no upright face is sure, the photo may
        lie on its side or its head: the faces of the direction with the surest one count.
        """
        found = self._upright(Halvings(photo.pixels))
        doubt = 1 - found.scores.max(initial=0.0)
        if doubt > 1 - _UPRIGHT_SURE:
            turned = self._turned(photo, max(_TURNED_SURE, 1 - doubt / _TURNED_ODDS))
            found = turned if len(turned) else found
        found = found[_seen(photo, found)]
        faces = []
        for (left, upper, right, lower), points, score in zip(
            found.boxes.tolist(), found.landmarks, found.scores.tolist(), strict=True
        ):
            box = Box(left, upper, right - left, lower - upper)
            landmarks = (points - 0.5).astype(np.float32)  # as pixel indices
            faces.append(Face(box, landmarks, score, concerns(photo, box, landmarks)))
        return tuple(sorted(faces, key=lambda face: -face.box.area_px))

    def _upright(self, photo: Halvings) -> Findings:
        longer = max(photo.width_px, photo.height_px)
        wanted = self._min_face_px
        limit = float(wanted) if wanted is not None else max(SMALLEST_PX, longer * FIRST_LOOK)
        found = self._find(photo, limit)
        while wanted is None and limit > SMALLEST_PX:
            if len(found) and found.sides_px.min() > _NEAR_LIMIT * limit:
                break
            finer = limit * _FINER if limit * _FINER > _NOT_WORTH * SMALLEST_PX else SMALLEST_PX
            # Where there was nothing, sizes between those of the first look may have been missed.
            largest = limit if len(found) else math.inf
            found = found.joined(self._find(photo, finer, largest))
            limit = finer
            if len(found) >= _CROWD:
                between = self._find(photo, finer * _HALF_STEP, largest)
                found = found.joined(between)
        return found

    def _turned(self, photo: Photo, threshold: float) -> Findings:
        """Faces after a half or a quarter turn, in the photo as it is.

        Those of the direction in which one is surest; none if it is not surer than a threshold.
        """
        best = Findings.none()
        smallest = max(SMALLEST_PX, self._min_face_px or 0)
        for quarters in (2, 1, 3):
            turned = Halvings(np.ascontiguousarray(np.rot90(photo.pixels, quarters)))
            longer = max(turned.width_px, turned.height_px)
            found = self._find(turned, max(smallest, longer * _TURNED_LOOK))
            if found.scores.max(initial=0.0) > threshold:
                threshold = float(found.scores.max())
                found = found[found.scores > _TURNED_SURE]
                best = _turned_back(found, quarters, turned.width_px, turned.height_px)
        return best

    def _find(self, photo: Halvings, smallest_px: float, largest_px: float = math.inf) -> Findings:
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


_SHAPES: dict[Stage, tuple[tuple[int, ...], ...]] = {
    "pnet": (
        *((3, 3, 3, 10), (10,), (1, 1, 10)),
        *((3, 3, 10, 16), (16,), (1, 1, 16)),
        *((3, 3, 16, 32), (32,), (1, 1, 32)),
        *((1, 1, 32, 4), (4,), (1, 1, 32, 2), (2,)),
    ),
    "rnet": (
        *((3, 3, 3, 28), (28,), (1, 1, 28)),
        *((3, 3, 28, 48), (48,), (1, 1, 48)),
        *((2, 2, 48, 64), (64,), (1, 1, 64)),
        *((576, 128), (128,), (128,)),
        *((128, 4), (4,), (128, 2), (2,)),
    ),
    "onet": (
        *((3, 3, 3, 32), (32,), (1, 1, 32)),
        *((3, 3, 32, 64), (64,), (1, 1, 64)),
        *((3, 3, 64, 64), (64,), (1, 1, 64)),
        *((2, 2, 64, 128), (128,), (1, 1, 128)),
        *((1152, 256), (256,), (256,)),
        *((256, 4), (4,), (256, 10), (10,), (256, 2), (2,)),
    ),
}
"""Kernel (height, width, in, out) or (in, out), bias, PReLU slope; the heads without slope."""

_INPUT_PX: dict[Stage, int] = {"pnet": -1, "rnet": 24, "onet": 48}
_POOLS: dict[Stage, tuple[tuple[int, bool] | None, ...]] = {
    # Kernel and whether a last, incomplete window counts: Keras' padding "same" at these sizes.
    "pnet": ((2, True), None, None),
    "rnet": ((3, True), (3, False), None),
    "onet": ((3, True), (3, False), (2, True), None),
}
_MEAN, _RANGE = 127.5, 128.0


def read_weights(stage: Stage) -> list[NDArray[np.float32]]:
    """One network's tensors as the package mtcnn holds them, in Keras' order and layout.

    Raises:
        WeightsMissing: If the package is not installed.
        WeightsCorrupt: If the file is not what it should be.
    """
    try:
        path = metadata.distribution("mtcnn").locate_file(f"mtcnn/assets/weights/{stage}.lz4")
        with open(str(path), "rb") as file:  # noqa: PTH123 - locate_file promises no Path
            packed = file.read()
    except (metadata.PackageNotFoundError, OSError) as exc:
        raise WeightsMissing("the package mtcnn is not installed; reinstall lookalike") from exc
    message = f"the file {stage}.lz4 of the package mtcnn is damaged; reinstall mtcnn"
    try:
        import lz4.frame

        tensors = joblib_arrays(lz4.frame.decompress(packed))
    except Exception as exc:  # a damaged pickle raises nearly anything
        raise WeightsCorrupt(message) from exc
    shapes = tuple(tensor.shape for tensor in tensors)
    if shapes != _SHAPES[stage] or not all(np.isfinite(tensor).all() for tensor in tensors):
        raise WeightsCorrupt(message)
    return tensors


def network_graph(stage: Stage) -> Any:
    """One network, for :func:`engine.runtime.compile_network`.

    Its input is uint8 (N, H, W, 3), RGB; 24 x 24 for R-Net, 48 x 48 for O-Net, any size from
    12 x 12 for P-Net. The normalisation (x - 127.5) / 128 is folded into the first convolution.

    Its outputs are float32, (N, C, h, w) for P-Net and (N, C) for the others: 4 shifts of the
    window's left, upper, right and lower edge as parts of its side; for O-Net the landmarks, 5 x
    and then 5 y as parts of the side; the probability of a face.

    Raises:
        WeightsMissing: If the package mtcnn is not installed.
        WeightsCorrupt: If its files are not what they should be.
    """
    ops, tensors = runtime.operators(), read_weights(stage)
    edge, pools = _INPUT_PX[stage], _POOLS[stage]
    pixels, x = runtime.pictures(edge, edge)
    for i, pool in enumerate(pools):
        kernel, bias, slope = tensors[3 * i : 3 * i + 3]
        if i == 0:
            bias = bias - _MEAN / _RANGE * kernel.sum(axis=(0, 1, 2))
            kernel = kernel / np.float32(_RANGE)
        x = ops.prelu(_convolution(x, kernel, bias), slope.ravel())
        if pool is not None:
            x = runtime.max_pool(x, pool[0], ceiling=pool[1])
    rest = tensors[3 * len(pools) :]
    if stage != "pnet":
        kernel, bias, slope = rest[:3]
        rest = rest[3:]
        # A dense layer over the whole picture before it. Keras flattens (height, width, channel);
        # the package permutes to (width, height, channel) first.
        channels = tensors[3 * len(pools) - 2].size
        side = round((len(kernel) / channels) ** 0.5)
        kernel = kernel.reshape(side, side, channels, -1).transpose(1, 0, 2, 3)
        x = ops.prelu(_convolution(x, kernel, bias), slope)
    # Softmax over two classes is the logistic function of their difference.
    heads = [*rest[:-2], np.diff(rest[-2]), np.diff(rest[-1])]
    outputs = [
        _convolution(x, kernel, bias) for kernel, bias in zip(heads[::2], heads[1::2], strict=True)
    ]
    outputs[-1] = ops.sigmoid(outputs[-1])
    if stage != "pnet":
        outputs = [runtime.flat(output) for output in outputs]
    return runtime.graph(pixels, *outputs)


def _convolution(
    x: runtime.Node, kernel: NDArray[np.float32], bias: NDArray[np.float32]
) -> runtime.Node:
    """With a kernel in Keras' layout: (height, width, in, out), or (in, out) for a dense layer."""
    kernel = kernel.reshape((1, 1, *kernel.shape)[-4:])
    return runtime.convolution(x, kernel.transpose(3, 2, 0, 1), bias)
