"""The three networks of MTCNN with the weights of the package mtcnn.

Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks",
IEEE Signal Processing Letters 23 (2016). The package itself is not imported: it needs TensorFlow.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from engine import runtime
from engine.errors import WeightsCorrupt, WeightsMissing
from engine.pickles import joblib_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

Stage = Literal["pnet", "rnet", "onet"]

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


def graph(stage: Stage) -> Any:
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
