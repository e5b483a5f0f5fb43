"""The three networks of MTCNN: weights from the package mtcnn, graphs as ONNX.

Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks",
IEEE Signal Processing Letters 23 (2016). The package itself is not imported: it needs TensorFlow.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from engine.errors import WeightsCorrupt, WeightsMissing
from engine.pickles import joblib_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import NodeProto

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

_INPUT_PX: dict[Stage, int | None] = {"pnet": None, "rnet": 24, "onet": 48}
_POOLS: dict[Stage, tuple[tuple[int, int] | None, ...]] = {
    # Kernel and whether a last, incomplete window counts: Keras' padding "same" at these sizes.
    "pnet": ((2, 1), None, None),
    "rnet": ((3, 1), (3, 0), None),
    "onet": ((3, 1), (3, 0), (2, 1), None),
}
_HEADS: dict[Stage, tuple[str, ...]] = {
    "pnet": ("offsets", "logits"),
    "rnet": ("offsets", "logits"),
    "onet": ("offsets", "landmarks", "logits"),
}
_VALUES = {"offsets": 4, "landmarks": 10, "face": 1}
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
    try:
        import lz4.frame

        tensors = joblib_arrays(lz4.frame.decompress(packed))
    except Exception as exc:  # a damaged pickle raises nearly anything
        raise _corrupt(stage) from exc
    if tuple(tensor.shape for tensor in tensors) != _SHAPES[stage]:
        raise _corrupt(stage)
    if not all(np.isfinite(tensor).all() for tensor in tensors):
        raise _corrupt(stage)
    return tensors


def graph(stage: Stage) -> bytes:
    """One network as ONNX.

    Input ``pixels``: uint8 (N, H, W, 3), RGB; 24 x 24 for R-Net, 48 x 48 for O-Net, any size from
    12 x 12 for P-Net. The normalisation (x - 127.5) / 128 is folded into the first convolution.

    Outputs, float32, with (N, C, h, w) for P-Net and (N, C) for the others: ``offsets``, 4 shifts
    of the window's left, upper, right and lower edge as parts of its side; for O-Net ``landmarks``,
    5 x and then 5 y as parts of the side; ``face``, 1, the probability of a face.

    Raises:
        WeightsMissing: If the package mtcnn is not installed.
        WeightsCorrupt: If its files are not what they should be.
    """
    from onnx import TensorProto, helper

    tensors = read_weights(stage)
    edge = _INPUT_PX[stage]
    layers = _Layers("pixels")
    layers.add("Cast", to=TensorProto.FLOAT)
    layers.add("Transpose", perm=[0, 3, 1, 2])
    pools = _POOLS[stage]
    for i, pool in enumerate(pools):
        kernel, bias, slope = tensors[3 * i : 3 * i + 3]
        if i == 0:
            bias = bias - _MEAN / _RANGE * kernel.sum(axis=(0, 1, 2))
            kernel = kernel / np.float32(_RANGE)
        layers.convolution(kernel, bias)
        layers.slope(slope)
        if pool is not None:
            size, ceiling = pool
            layers.add("MaxPool", kernel_shape=[size] * 2, strides=[2, 2], ceil_mode=ceiling)
    rest = tensors[3 * len(pools) :]
    if edge is not None:
        kernel, bias, slope = rest[:3]
        rest = rest[3:]
        layers.convolution(_over_picture(kernel, channels=tensors[3 * len(pools) - 2].size), bias)
        layers.slope(slope)
    trunk = layers.top
    results = []
    for head, kernel, bias in zip(_HEADS[stage], rest[::2], rest[1::2], strict=True):
        layers.top = trunk
        if head == "logits":
            # Softmax over two classes is the logistic function of their difference.
            layers.convolution(kernel[..., 1:] - kernel[..., :1], bias[1:] - bias[:1])
            layers.add("Sigmoid")
        else:
            layers.convolution(kernel, bias)
        if edge is not None:
            layers.add("Flatten")
        results.append(layers.renamed("face" if head == "logits" else head))
    shape = ["N", edge or "H", edge or "W", 3]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape)
    cells = [] if edge is not None else ["h", "w"]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", _VALUES[name], *cells])
        for name in results
    ]
    network = helper.make_graph(layers.nodes, stage, [pixels], outputs, layers.constants)
    model = helper.make_model(network, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


class _Layers:
    """ONNX nodes one after the other; ``top`` is what the next one reads."""

    def __init__(self, top: str) -> None:
        self.top = top
        self.nodes: list[NodeProto] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *constants: NDArray[np.float32], **attributes: Any) -> None:
        from onnx import helper, numpy_helper

        output = f"{operator.lower()}_{len(self.nodes)}"
        names = [f"{output}_{i}" for i in range(len(constants))]
        for name, constant in zip(names, constants, strict=True):
            values = np.ascontiguousarray(constant, np.float32)
            self.constants.append(numpy_helper.from_array(values, name))
        self.nodes.append(helper.make_node(operator, [self.top, *names], [output], **attributes))
        self.top = output

    def convolution(self, kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        if kernel.ndim == 2:
            kernel = kernel[None, None]
        kernel = kernel.transpose(3, 2, 0, 1)
        self.add("Conv", kernel, bias, kernel_shape=kernel.shape[2:])

    def slope(self, slope: NDArray[np.float32]) -> None:
        self.add("PRelu", slope.reshape(-1, 1, 1))

    def renamed(self, name: str) -> str:
        self.nodes[-1].output[0] = name
        return name


def _over_picture(kernel: NDArray[np.float32], *, channels: int) -> NDArray[np.float32]:
    """A dense layer's kernel as a convolution over the whole 3 x 3 picture before it.

    Keras flattens (height, width, channel); the package permutes to (width, height, channel) first.
    """
    edge = round((len(kernel) / channels) ** 0.5)
    return kernel.reshape(edge, edge, channels, -1).transpose(1, 0, 2, 3)


def _corrupt(stage: Stage) -> WeightsCorrupt:
    return WeightsCorrupt(f"the file {stage}.lz4 of the package mtcnn is damaged; reinstall mtcnn")
