"""VGGFace2's ResNet-50 and SE-ResNet-50 as ONNX, straight from keras-vggface's weight files.

Layers, names, strides, paddings and epsilons are those of keras-vggface 0.6,
``keras_vggface/models.py`` (rcmalli/keras-vggface), with ``include_top=False, pooling="avg"``;
mean and channel order those of ``preprocess_input(version=2)`` in ``keras_vggface/utils.py``.

Weight files have the layout of Keras 2's ``save_weights`` (keras-team/keras 2.x,
engine/saving.py): the root attribute ``layer_names`` in model order, one group per layer with the
attribute ``weight_names``. Names contain ``/``, so that groups nest in each other: only the two
attributes say what belongs together, the tree does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from engine.backbones.graph import GraphWriter, Malformed

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KNOWN_WEIGHTS = frozenset({"kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance"})
_MOST_NAMES = 10_000  # a 50-layer network has 300; keeps a hostile file from taking the memory


@dataclass(frozen=True, slots=True)
class KerasLayer:
    """A layer that has weights.

    Attributes:
        name: As in the network's source.
        shapes: Shape of each weight by its name, in the order in which Keras saves them.
    """

    name: str
    shapes: Mapping[str, tuple[int, ...]]


class KerasWeights:
    """An open weight file whose structure fits a network; made by :func:`open_keras_weights`.

    Attributes:
        matched_by: ``"name"`` if every layer of the network has its name in the file; otherwise
            ``"order"``: the first layer with weights is the network's first, and so on.
    """

    def __init__(
        self,
        matched_by: Literal["name", "order"],
        datasets: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.matched_by = matched_by
        self._datasets = datasets

    def layer(self, name: str) -> dict[str, NDArray[np.float32]]:
        """A layer's weights by name, float32, all finite; variances are never negative.

        Raises:
            Malformed: If a value is not finite, or variances are no variances.
        """
        weights = {}
        with _foreign_errors():
            for weight, dataset in self._datasets[name].items():
                weights[weight] = np.asarray(dataset[()], np.float32)
        for weight, values in weights.items():
            if not np.isfinite(values).all():
                raise Malformed(f"{name}/{weight} holds values that are not finite")
        variance = weights.get("moving_variance")
        # Single channels may be dead and have a variance of exactly 0; epsilon keeps them finite.
        if variance is not None and (variance.min() < 0 or not variance.any()):
            raise Malformed(f"{name}/moving_variance holds no variances")
        return weights


@contextmanager
def open_keras_weights(path: Path, layers: Sequence[KerasLayer]) -> Iterator[KerasWeights]:
    """Opens a weight file; inside the ``with`` block its weights can be read.

    Keras-vggface loads by order, and released files may name layers differently (a suffix such as
    ``_1``), so names decide only where all of them fit.

    Args:
        path: The file.
        layers: The network's layers that have weights, in model order.

    Raises:
        Malformed: If it is no HDF5 file, or a layer or shape differs from the network's.
    """
    import h5py  # only when a graph is written or a file verified

    with _foreign_errors():
        file = h5py.File(path, "r")
    with file:
        with _foreign_errors():
            matched_by, datasets = _match(file, layers)
        yield KerasWeights(matched_by, datasets)


def _match(
    file: Any, layers: Sequence[KerasLayer]
) -> tuple[Literal["name", "order"], dict[str, dict[str, Any]]]:
    root = file
    if not _has_names(file, "layer_names") and "model_weights" in file:
        root = _descend(file, "model_weights")  # a whole saved model
    stored: dict[str, list[str]] = {}
    for name in _names(root, "layer_names"):
        if name in stored:
            raise Malformed(f"it names the layer {name} twice")
        stored[name] = _names(_descend(root, name), "weight_names")
    filled = [name for name, weights in stored.items() if weights]
    if len(filled) != len(layers):
        raise Malformed(f"it has {len(filled)} layers with weights instead of {len(layers)}")
    by_name = {layer.name for layer in layers} == set(filled)
    datasets = {}
    for layer, position in zip(layers, filled, strict=True):
        name = layer.name if by_name else position
        datasets[layer.name] = _layer_datasets(_descend(root, name), stored[name], layer)
    return "name" if by_name else "order", datasets


def _layer_datasets(group: Any, names: Sequence[str], layer: KerasLayer) -> dict[str, Any]:
    """The datasets of one layer by weight name: by position, as in Keras."""
    import h5py  # only when a graph is written or a file verified

    if len(names) != len(layer.shapes):
        raise Malformed(f"{layer.name} has {len(names)} weights instead of {len(layer.shapes)}")
    datasets = {}
    for stored, (weight, shape) in zip(names, layer.shapes.items(), strict=True):
        if _plain(stored) in _KNOWN_WEIGHTS - {weight}:
            raise Malformed(f"{layer.name} has {_plain(stored)} in the place of {weight}")
        dataset = _descend(group, stored)
        if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
            raise Malformed(f"{layer.name}/{weight} is no array")
        if dataset.shape != shape:
            raise Malformed(f"{layer.name}/{weight} has shape {dataset.shape} instead of {shape}")
        if dataset.dtype.kind != "f":
            raise Malformed(f"{layer.name}/{weight} holds {dataset.dtype} instead of float32")
        datasets[weight] = dataset
    return datasets


def _plain(name: str) -> str:
    """The weight's own name: ``kernel`` for ``conv1/7x7_s2_1/kernel_1:0``."""
    return re.sub(r"(_\d+)?(:\d+)?$", "", name.rsplit("/", 1)[-1])


def _descend(group: Any, name: str) -> Any:
    """What lies at that path; no link leads out of the file."""
    import h5py  # only when a graph is written or a file verified

    for part in name.split("/"):
        if not isinstance(group, h5py.Group) or part not in group:
            raise Malformed(f"it lacks {name}")
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise Malformed(f"{name} is only a link")
        group = group[part]
    return group


def _has_names(group: Any, attribute: str) -> bool:
    return attribute in group.attrs or f"{attribute}0" in group.attrs


def _names(group: Any, attribute: str) -> list[str]:
    """A list of names in an attribute; Keras splits long ones into ``name0``, ``name1``, ..."""
    if not _has_names(group, attribute):
        raise Malformed(f"it lacks the attribute {attribute}")
    chunks = [attribute] if attribute in group.attrs else []
    while f"{attribute}{len(chunks)}" in group.attrs and attribute not in chunks:
        chunks.append(f"{attribute}{len(chunks)}")
    names = [name for chunk in chunks for name in np.ravel(group.attrs[chunk])]
    if len(names) > _MOST_NAMES:
        raise Malformed(f"its attribute {attribute} names too much")
    return [name.decode("utf-8") if isinstance(name, bytes) else str(name) for name in names]


@contextmanager
def _foreign_errors() -> Iterator[None]:
    """h5py raises almost anything for a damaged file."""
    try:
        yield
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError) as exc:
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise Malformed(f"it can't be read as HDF5: {reason}") from exc


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
