"""VGGFace2's ResNet-50 and SE-ResNet-50 as ONNX, straight from keras-vggface's weight files.

Layers, names, strides, paddings and epsilons are those of keras-vggface 0.6,
``keras_vggface/models.py`` (rcmalli/keras-vggface), with ``include_top=False, pooling="avg"``;
mean and channel order those of ``preprocess_input(version=2)`` in ``keras_vggface/utils.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from engine.backbones.graph import GraphWriter
from engine.backbones.hdf5_weights import KerasLayer, KerasWeights, open_keras_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["VARIANTS", "Variant", "check_weights", "layers", "write_graph"]

INPUT_PX = 224
DIMENSIONS = 2048
MEAN_BGR = (91.4953, 103.8827, 131.0912)

# (stage, channels inside, channels outside, blocks); the first block of a stage projects.
STAGES = ((2, 64, 256, 3), (3, 128, 512, 4), (4, 256, 1024, 6), (5, 512, 2048, 3))
SQUEEZE = 16  # channels are divided by this inside a squeeze-and-excitation block


@dataclass(frozen=True, slots=True)
class Variant:
    """In what the two networks differ.

    Attributes:
        squeezes: Whether blocks weigh their channels (squeeze and excitation, Hu et al. 2018).
        epsilon: Added to every variance: the default of Keras in ResNet-50, a tenth in SENet-50.
    """

    squeezes: bool
    epsilon: float


VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {"resnet": Variant(squeezes=False, epsilon=1e-3), "senet": Variant(squeezes=True, epsilon=1e-4)}
)


def layers(variant: Variant) -> tuple[KerasLayer, ...]:
    """The layers that have weights, in the order in which Keras lists and saves them.

    Keras sorts layers by their depth below the output, so that the projection stands where it is
    as deep as its neighbour: beside the last convolution, or after a squeeze.
    """
    return (
        *_with_norm("conv1/7x7_s2", 7, 3, 64),
        *(layer for block in _blocks() for layer in _block_layers(block, variant)),
    )


def check_weights(path: Path, variant: Variant) -> None:
    """Reads every weight of a file.

    Raises:
        Malformed: If the file does not fit the network or a value can't be used.
    """
    expected = layers(variant)
    with open_keras_weights(path, expected) as weights:
        for layer in expected:
            weights.layer(layer.name)


def write_graph(path: Path, variant: Variant, folder: Path, *, name: str) -> Path:
    """Writes the network with the weights in ``path`` as ONNX into ``folder``.

    Args:
        path: A Keras 2 HDF5 file.
        variant: Which of the two networks.
        folder: An empty folder.
        name: The graph's name.

    Returns:
        The graph file's path. It takes uint8 (N, 224, 224, 3) RGB and gives float32 (N, 2048), not
        normalised.

    Raises:
        Malformed: If the file does not fit the network or a value can't be used.
    """
    with (
        open_keras_weights(path, layers(variant)) as weights,
        GraphWriter(folder, name=name, input_px=INPUT_PX, dimensions=DIMENSIONS) as graph,
    ):
        network = _Network(graph, weights, variant)
        mean_blue, mean_green, mean_red = MEAN_BGR
        x = graph.pictures(mean=(mean_red, mean_green, mean_blue))
        x = network.convolve(x, "conv1/7x7_s2", stride=2, pads=(2, 2, 3, 3), flip=True)
        x = graph.node("MaxPool", graph.node("Relu", x), kernel_shape=[3, 3], strides=[2, 2])
        for block in _blocks():
            x = network.block(x, block)
        return graph.finish(graph.node("GlobalAveragePool", x))


@dataclass(frozen=True, slots=True)
class _Block:
    """A residual block: channels at its input, inside, at its output."""

    name: str
    channels: int
    inside: int
    outside: int
    stride: int
    projects: bool


def _blocks() -> Iterator[_Block]:
    channels = 64
    for stage, inside, outside, count in STAGES:
        for number in range(1, count + 1):
            first = number == 1
            stride = 2 if first and stage > 2 else 1
            name = f"conv{stage}_{number}"
            yield _Block(name, channels, inside, outside, stride=stride, projects=first)
            channels = outside


def _block_layers(block: _Block, variant: Variant) -> Iterator[KerasLayer]:
    yield from _with_norm(f"{block.name}_1x1_reduce", 1, block.channels, block.inside)
    yield from _with_norm(f"{block.name}_3x3", 3, block.inside, block.inside)
    increase, increase_norm = _with_norm(
        f"{block.name}_1x1_increase", 1, block.inside, block.outside
    )
    projection, projection_norm = _with_norm(
        f"{block.name}_1x1_proj", 1, block.channels, block.outside
    )
    if variant.squeezes:
        squeezed = block.outside // SQUEEZE
        yield from (increase, increase_norm)
        yield _convolution(f"{block.name}_1x1_down", 1, block.outside, squeezed, bias=True)
        yield _convolution(f"{block.name}_1x1_up", 1, squeezed, block.outside, bias=True)
        if block.projects:
            yield from (projection, projection_norm)
    elif block.projects:
        yield from (increase, projection, increase_norm, projection_norm)
    else:
        yield from (increase, increase_norm)


def _convolution(name: str, edge: int, inputs: int, outputs: int, *, bias: bool) -> KerasLayer:
    shapes: dict[str, tuple[int, ...]] = {"kernel": (edge, edge, inputs, outputs)}
    if bias:
        shapes["bias"] = (outputs,)
    return KerasLayer(name, shapes)


def _with_norm(name: str, edge: int, inputs: int, outputs: int) -> tuple[KerasLayer, KerasLayer]:
    weights = ("gamma", "beta", "moving_mean", "moving_variance")
    return (
        _convolution(name, edge, inputs, outputs, bias=False),
        KerasLayer(f"{name}/bn", dict.fromkeys(weights, (outputs,))),
    )


class _Network:
    """Writes the network's parts, reading the weights as it goes."""

    def __init__(self, graph: GraphWriter, weights: KerasWeights, variant: Variant) -> None:
        self._graph = graph
        self._weights = weights
        self._variant = variant

    def convolve(
        self,
        x: str,
        name: str,
        *,
        stride: int = 1,
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        flip: bool = False,
    ) -> str:
        """A convolution with the batch norm after it folded in; ``flip`` turns BGR into RGB."""
        kernel = self._weights.layer(name)["kernel"]
        norm = self._weights.layer(f"{name}/bn")
        deviation = np.sqrt(norm["moving_variance"].astype(np.float64) + self._variant.epsilon)
        scale = norm["gamma"] / deviation
        if flip:
            kernel = kernel[:, :, ::-1, :]
        return self._graph.convolution(
            x,
            _planes_first(kernel * scale),
            norm["beta"] - norm["moving_mean"] * scale,
            stride=stride,
            pads=pads,
        )

    def block(self, x: str, block: _Block) -> str:
        """A residual block; the stride is in its first convolution, not in the 3 x 3."""
        graph, name = self._graph, block.name
        main = self.convolve(x, f"{name}_1x1_reduce", stride=block.stride)
        main = self.convolve(graph.node("Relu", main), f"{name}_3x3", pads=(1, 1, 1, 1))
        main = self.convolve(graph.node("Relu", main), f"{name}_1x1_increase")
        if self._variant.squeezes:
            main = self._excite(main, name)
        if block.projects:
            x = self.convolve(x, f"{name}_1x1_proj", stride=block.stride)
        return graph.node("Relu", graph.node("Add", main, x))

    def _excite(self, x: str, name: str) -> str:
        """Channels weighed by what the whole picture holds of them."""
        graph = self._graph
        weight = graph.node("Relu", self._biased(graph.node("GlobalAveragePool", x), name, "down"))
        weight = graph.node("Sigmoid", self._biased(weight, name, "up"))
        return graph.node("Mul", x, weight)

    def _biased(self, x: str, name: str, part: str) -> str:
        weights = self._weights.layer(f"{name}_1x1_{part}")
        return self._graph.convolution(x, _planes_first(weights["kernel"]), weights["bias"])


def _planes_first(kernel: NDArray[np.floating]) -> NDArray[np.floating]:
    """(height, width, in, out) as Keras has it -> (out, in, height, width)."""
    return kernel.transpose(3, 2, 0, 1)
