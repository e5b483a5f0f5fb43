"""Finds faces in a photo: MTCNN from coarse to fine, and turned if nothing is upright.

Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks",
IEEE Signal Processing Letters 23 (2016): P-Net proposes, R-Net and O-Net refine. Their weights come
with the package mtcnn, which is not imported: it needs TensorFlow.

Coordinates in here are counted from the photo's upper left edge: the centre of the first pixel is
(0.5, 0.5).
"""

import functools
import math
import threading
from importlib import metadata
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine import runtime
from engine.align import concerns
from engine.errors import WeightsCorrupt, WeightsMissing
from engine.mtcnn.canvas import WINDOW_PX, Halvings, plan
from engine.pickles import joblib_arrays
from engine.runtime import Network, Precision, compile_network, cores
from engine.types import Box, Face, Photo

Findings = NDArray[np.void]  # of FINDING, surest first
Stage = Literal["pnet", "rnet", "onet"]

FIRST_LOOK = 1 / 12
"""Smallest face of the first look, as a part of the photo's longer side, see ``Halvings``.

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

# Photos, on half of the cores: each keeps 17 to 35 MB, and more at once are hardly faster.
_MOST_AT_ONCE = 8

# Each other size would be compiled anew.
_BATCHES = (1, 2, 3, *range(4, 44, 4), *range(48, 72, 8), *range(80, 144, 16))
_MIRRORED = [1, 0, 2, 4, 3]  # the left eye of a mirror image is the right one
_CLOSER = 0.95
_SURE = 0.995  # see _distinct

FINDING = np.dtype([("box", "f8", 4), ("score", "f8"), ("landmarks", "f8", (5, 2))])
"""A face: its left, upper, right and lower edge; O-Net's probability, the mean of three looks."""


class Detector:
    """Finds faces; safe to call from several threads at once.

    ``min_face_px`` is the longer side of the smallest face's box, at least 12. None: a 12th of the
    photo's longer side, and smaller ones, down to 20 px, where the first look finds nothing or
    finds faces so small that there may be smaller ones.

    Raises WeightsMissing if the package mtcnn is not installed, WeightsCorrupt if it is damaged.
    """

    def __init__(self, min_face_px: int | None = None) -> None:
        if min_face_px is not None and min_face_px < WINDOW_PX:
            raise ValueError(f"min_face_px is at least {WINDOW_PX}, not {min_face_px}")
        self._min_face_px = min_face_px
        import cv2

        cv2.setNumThreads(1)  # more spin between its short calls and make none of them faster
        # Last in, first out; one more where a thread finds none.
        self._idle, self._turn = (
            [Cascade()],
            threading.BoundedSemaphore(min(_MOST_AT_ONCE, max(1, cores() // 2))),
        )

    def detect(self, photo: Photo) -> tuple[Face, ...]:
        """Every face in the photo, largest box first.

        Where no upright face is sure, the photo may lie on its side or its head: the faces of the
        direction with the surest one count.
        """
        with self._turn:
            try:
                cascade = self._idle.pop()
            except IndexError:
                cascade = Cascade()
            try:
                found = self._upright(cascade, Halvings(photo.pixels))
                doubt = 1 - found["score"].max(initial=0.0)
                if doubt > 1 - _UPRIGHT_SURE:
                    sure = max(_TURNED_SURE, 1 - doubt / _TURNED_ODDS)
                    turned = self._turned(cascade, photo, sure)
                    found = turned if len(turned) else found
            finally:
                self._idle.append(cascade)
        x, y = found["landmarks"][..., 0], found["landmarks"][..., 1]
        inside = (x > 0) & (y > 0) & (x < photo.width_px) & (y < photo.height_px)
        faces = []
        # Not those without an eye or the nose in the photo.
        for (left, upper, right, lower), score, points in found[inside[:, :3].all(axis=1)]:
            box = Box(float(left), float(upper), float(right - left), float(lower - upper))
            landmarks = (points - 0.5).astype(np.float32)  # as pixel indices
            faces.append(Face(box, landmarks, float(score), concerns(photo, box, landmarks)))
        return tuple(sorted(faces, key=lambda face: -face.box.area_px))

    def _upright(self, cascade: "Cascade", photo: Halvings) -> Findings:
        wanted = self._min_face_px
        limit = wanted or max(SMALLEST_PX, photo.longer_px * FIRST_LOOK)
        found = cascade.find(photo, limit)
        while wanted is None and limit > SMALLEST_PX:
            sides_px = (found["box"][:, 2:] - found["box"][:, :2]).max(axis=1)
            if len(found) and sides_px.min() > _NEAR_LIMIT * limit:
                break
            finer = limit * _FINER if limit * _FINER > _NOT_WORTH * SMALLEST_PX else SMALLEST_PX
            # Where there was nothing, sizes between those of the first look may have been missed.
            largest = limit if len(found) else math.inf
            found = _distinct(found, cascade.find(photo, finer, largest))
            limit = finer
            if len(found) >= _CROWD:
                found = _distinct(found, cascade.find(photo, finer * _HALF_STEP, largest))
        return found

    def _turned(self, cascade: "Cascade", photo: Photo, threshold: float) -> Findings:
        """Faces after a half or a quarter turn, in the photo as it is.

        Those of the direction in which one is surest; none if it is not surer than a threshold.
        """
        best = np.zeros(0, FINDING)
        smallest = max(SMALLEST_PX, self._min_face_px or 0)
        for quarters in (2, 1, 3):
            turned = Halvings(np.ascontiguousarray(np.rot90(photo.pixels, quarters)))
            found = cascade.find(turned, max(smallest, turned.longer_px * _TURNED_LOOK))
            if found["score"].max(initial=0.0) > threshold:
                threshold = float(found["score"].max())
                best = found[found["score"] > _TURNED_SURE]
                _turn_back(best, quarters, turned.width_px, turned.height_px)
        return best


class Cascade:
    """P-Net, R-Net and O-Net for one thread, on one core.

    With two a photo takes hardly less time and a quarter more of the processor's: between calls
    this short the second one spins.
    """

    def __init__(self) -> None:
        def load(stage: Stage, precision: Precision) -> Network:
            build = functools.partial(network_graph, stage)
            return compile_network(build, name=stage, precision=precision, threads=1, parallel=1)

        # None is kept: they are compiled in less time than compiled ones are read.
        # bf16 makes P-Net a third and R-Net a half faster, and O-Net judges what they let pass:
        # as many faces are found. O-Net itself would lose one in ten in it; in int8 the first two
        # would lose one in twenty.
        self._pnet, self._rnet, self._onet = (
            load("pnet", "auto"),
            load("rnet", "auto"),
            load("onet", "f32"),
        )

    def find(self, photo: Halvings, smallest_px: float, largest_px: float = math.inf) -> Findings:
        """Upright faces whose size is in a range, roughly."""
        boxes = self._proposed(photo, smallest_px, largest_px)
        if len(boxes):
            boxes = self._refined(photo, boxes)
        if len(boxes):
            return _distinct(self._looked_at_again(photo, self._judged(photo, boxes)))
        return np.zeros(0, FINDING)

    def _proposed(
        self, photo: Halvings, smallest_px: float, largest_px: float
    ) -> NDArray[np.float64]:
        found = [
            canvas.boxes(photo, PNET_THRESHOLD, *self._pnet.run(canvas.drawn(photo)))
            for canvas in plan(photo.width_px, photo.height_px, smallest_px, largest_px)
        ]
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
        found = _findings(_moved(centres, sides, offsets), scores, points)[scores > ONET_THRESHOLD]
        return found[survivors(found["box"], found["score"], _SAME_FACE_OVERLAP)]

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
        centres, sides = _squared(found["box"])
        sides = sides * _CLOSER
        crops = photo.squares(centres, sides, 48)
        both = np.concatenate([crops, crops[:, :, ::-1]])
        _, landmarks, face = _in_batches(self._onet, both)
        seen, mirrored = np.split(_points(landmarks), 2)
        mirrored = mirrored[:, _MIRRORED] * (-1, 1) + (1, 0)
        scores: NDArray[np.float64] = found["score"] + np.sum(np.split(face[:, 0], 2), axis=0)
        scores = scores / 3
        points = _placed((seen + mirrored) / 2, centres, sides)
        return _findings(found["box"], scores, points)[scores > MEAN_THRESHOLD]


def _findings(
    boxes: NDArray[np.float64], scores: NDArray[np.float64], landmarks: NDArray[np.float64]
) -> Findings:
    found = np.empty(len(scores), FINDING)
    found["box"], found["score"], found["landmarks"] = boxes, scores, landmarks
    return found


def _distinct(*found: Findings) -> Findings:
    """Each face once.

    Of boxes that share more than 70 % of the smaller one the surest stays, but among those
    that are sure the largest: a pattern within a face can look more like a face than it does.
    """
    joined = np.concatenate(found)
    boxes, scores = joined["box"], joined["score"]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    kept = joined[survivors_inside(boxes, np.where(scores > _SURE, 1.0 + areas, scores), _OVERLAP)]
    return kept[np.argsort(-kept["score"], kind="stable")]


def _turn_back(found: Findings, quarters: int, width_px: int, height_px: int) -> None:
    """Moves findings in a photo that was turned to the left by quarters to where it was not."""
    corners, points = found["box"].reshape(-1, 2, 2), found["landmarks"]
    for _ in range(quarters):
        # A quarter to the right: (x, y) goes to (height - y, x).
        corners = np.stack([height_px - corners[..., 1], corners[..., 0]], axis=-1)
        points = np.stack([height_px - points[..., 1], points[..., 0]], axis=-1)
        width_px, height_px = height_px, width_px
    found["box"] = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    found["landmarks"] = points


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
    groups: NDArray[np.intp] | None = None,
) -> NDArray[np.intp]:
    """Which boxes stay when each removes the less sure ones that overlap it too much.

    A box that was removed removes nothing itself (in the package mtcnn 1.0.0 it does).

    Boxes are float64 (N, 4): left, upper, right and lower edge; one goes if it shares more than
    ``threshold`` of the union with a surer one. Scores, (N,), are above 0; the indices returned go
    by falling score. Boxes of different groups, (N,), not negative, never remove each other.
    """
    if len(boxes) == 0:
        return np.zeros(0, np.intp)
    import cv2

    corner_and_size: Any = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    sure: Any = np.ascontiguousarray(scores)
    group: Any = np.zeros(len(boxes), np.intc) if groups is None else groups
    kept = cv2.dnn.NMSBoxesBatched(corner_and_size, sure, group, 0.0, threshold)
    return np.asarray(kept, np.intp).reshape(-1)


def survivors_inside(
    boxes: NDArray[np.float64], scores: NDArray[np.float64], threshold: float
) -> NDArray[np.intp]:
    """As :func:`survivors`, but the overlap is measured against the smaller of two boxes."""
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


_Convolutions = tuple[tuple[int, int, int, bool], ...]
_NETWORKS: dict[Stage, tuple[int, _Convolutions, int, tuple[int, ...]]] = {
    "pnet": (-1, ((3, 10, 2, True), (3, 16, 0, False), (3, 32, 0, False)), 0, (4, 2)),
    "rnet": (24, ((3, 28, 3, True), (3, 48, 3, False), (2, 64, 0, False)), 128, (4, 2)),
    "onet": (
        48,
        ((3, 32, 3, True), (3, 64, 3, False), (3, 64, 2, True), (2, 128, 0, False)),
        256,
        (4, 10, 2),
    ),
}
"""Edge of the input, px; of each convolution the kernel's edge, channels, the edge of the pool
after it and whether a last, incomplete window counts (Keras' padding "same" at these sizes); width
of the dense layer; widths of the heads. All but the heads have PReLU."""

_MEAN, _RANGE = 127.5, 128.0


def read_weights(stage: Stage) -> list[NDArray[np.float32]]:
    """One network's tensors as the package mtcnn holds them, in Keras' order and layout."""
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
    shapes = [tensor.shape for tensor in tensors]
    if shapes != weight_shapes(stage) or not all(np.isfinite(tensor).all() for tensor in tensors):
        raise WeightsCorrupt(message)
    return tensors


def weight_shapes(stage: Stage) -> list[tuple[int, ...]]:
    """Of one network's tensors: kernels (height, width, in, out) or (in, out), biases, slopes."""
    _, convolutions, dense, heads = _NETWORKS[stage]
    shapes: list[tuple[int, ...]] = []
    channels = 3
    for edge, outputs, *_ in convolutions:
        shapes += [(edge, edge, channels, outputs), (outputs,), (1, 1, outputs)]
        channels = outputs
    if dense:
        shapes += [(9 * channels, dense), (dense,), (dense,)]
    for outputs in heads:
        shapes += [(dense, outputs) if dense else (1, 1, channels, outputs), (outputs,)]
    return shapes


def network_graph(stage: Stage) -> Any:
    """One network, for :func:`engine.runtime.compile_network`.

    Its input is uint8 (N, H, W, 3), RGB; 24 x 24 for R-Net, 48 x 48 for O-Net, any size from
    12 x 12 for P-Net. The normalisation (x - 127.5) / 128 is folded into the first convolution.

    Its outputs are float32, (N, C, h, w) for P-Net and (N, C) for the others: 4 shifts of the
    window's left, upper, right and lower edge as parts of its side; for O-Net the landmarks, 5 x
    and then 5 y as parts of the side; the probability of a face.
    """
    ops, tensors = runtime.operators(), iter(read_weights(stage))
    edge, convolutions, dense, _ = _NETWORKS[stage]
    pixels, x = runtime.pictures(edge)
    for i, (_, _, pool, incomplete) in enumerate(convolutions):
        kernel, bias, slope = islice(tensors, 3)
        if i == 0:
            bias = bias - _MEAN / _RANGE * kernel.sum(axis=(0, 1, 2))
            kernel = kernel / np.float32(_RANGE)
        x = ops.prelu(_convolution(x, kernel, bias), slope.ravel())
        if pool:
            x = runtime.max_pool(x, pool, ceiling=incomplete)
    if dense:
        kernel, bias, slope = islice(tensors, 3)
        # Over the whole 3 x 3 picture before it. Keras flattens (height, width, channel); the
        # package permutes to (width, height, channel) first.
        kernel = kernel.reshape(3, 3, -1, dense).transpose(1, 0, 2, 3)
        x = ops.prelu(_convolution(x, kernel, bias), slope)
    # Softmax over two classes is the logistic function of their difference.
    *heads, kernel, bias = tensors
    heads += [np.diff(kernel), np.diff(bias)]
    outputs = [_convolution(x, *head) for head in zip(heads[::2], heads[1::2], strict=True)]
    outputs[-1] = ops.sigmoid(outputs[-1])
    return runtime.graph(pixels, *(map(runtime.flat, outputs) if dense else outputs))


def _convolution(
    x: runtime.Node, kernel: NDArray[np.float32], bias: NDArray[np.float32]
) -> runtime.Node:
    """With a kernel in Keras' layout: (height, width, in, out), or (in, out) for a dense layer."""
    kernel = kernel.reshape((1, 1, *kernel.shape)[-4:])
    return runtime.convolution(x, kernel.transpose(3, 2, 0, 1), bias)
