"""VGGFace2's ResNet-50 and SE-ResNet-50, straight from keras-vggface's weight files.

Layers, names, strides, paddings and epsilons are those of keras-vggface 0.6,
``keras_vggface/models.py`` (rcmalli/keras-vggface), with ``include_top=False, pooling="avg"``;
mean and channel order those of ``preprocess_input(version=2)`` in ``keras_vggface/utils.py``.

Weight files have the layout of Keras 2's ``save_weights`` (keras-team/keras 2.x,
engine/saving.py): the root attribute ``layer_names`` in model order, one group per layer with the
attribute ``weight_names``. Names contain ``/``, so that groups nest in each other: only the two
attributes say what belongs together, the tree does not.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine import runtime
from engine.backbones import Malformed

Weights = dict[str, dict[str, NDArray[np.float32]]]
Shapes = Mapping[str, tuple[int, ...]]
"""Of the weights of one layer by their names, in the order in which Keras saves them."""

INPUT_PX = 224
MEAN_BGR = (91.4953, 103.8827, 131.0912)
EPSILON = {"resnet": 1e-3, "senet": 1e-4}  # added to every variance; 1e-3 is Keras' default

# (stage, channels inside, channels outside, blocks); the first block of a stage projects.
STAGES = ((2, 64, 256, 3), (3, 128, 512, 4), (4, 256, 1024, 6), (5, 512, 2048, 3))
SQUEEZE = 16  # channels are divided by this inside a squeeze-and-excitation block

_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_KNOWN_WEIGHTS = frozenset({"kernel", "bias", *_NORM})
_MOST_CHARACTERS = 1_000  # of a name
_MOST_NAMES = 10_000  # a 50-layer network has 300; keeps a hostile file from taking the memory


def read_weights(
    path: Path, layers: Mapping[str, Shapes]
) -> tuple[Literal["name", "order"], Weights]:
    """The weights in a file, by layer and name: float32, all finite, variances never negative.

    Keras-vggface loads by order, and released files may name layers differently (a suffix such as
    ``_1``), so names decide only where all of them fit.

    No link in the file is followed, and nothing outside of it is opened.

    Returns ``"name"`` if every layer of the network has its name in the file, otherwise
    ``"order"``: the first layer with weights is the network's first, and so on; then the weights.
    Raises Malformed if it is no HDF5 file, a layer or shape differs from the network's, or a value
    can't be used.
    """
    import h5py  # only when a network is built or a file verified

    try:
        with h5py.File(path, "r") as file:
            return _read(file, layers)
    except Malformed:
        raise
    except Exception as exc:  # h5py raises almost anything for a damaged file
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise Malformed(f"it can't be read as HDF5: {reason}") from exc


def _read(file: Any, layers: Mapping[str, Shapes]) -> tuple[Literal["name", "order"], Weights]:
    whole_model = "layer_names" not in file.attrs and "model_weights" in file
    root = _descend(file, "model_weights") if whole_model else file
    stored: dict[str, list[str]] = {}
    for name in _names(root, "layer_names"):
        if name in stored:
            raise Malformed(f"it names the layer {name} twice")
        stored[name] = _names(_descend(root, name), "weight_names")
    filled = [name for name, weights in stored.items() if weights]
    if len(filled) != len(layers):
        raise Malformed(f"it has {len(filled)} layers with weights instead of {len(layers)}")
    by_name = set(layers) == set(filled)
    found = {}
    for (layer, shapes), position in zip(layers.items(), filled, strict=True):
        name = layer if by_name else position
        found[layer] = _layer_weights(layer, shapes, _descend(root, name), stored[name])
    return "name" if by_name else "order", found


def _layer_weights(
    layer: str, shapes: Shapes, group: Any, names: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """One layer's weights by name; they are saved by position, as in Keras."""
    import h5py  # only when a network is built or a file verified

    if len(names) != len(shapes):
        raise Malformed(f"{layer} has {len(names)} weights instead of {len(shapes)}")
    weights = {}
    for stored, (weight, shape) in zip(names, shapes.items(), strict=True):
        label = f"{layer}/{weight}"
        # The weight's own name: ``kernel`` for ``conv1/7x7_s2_1/kernel_1:0``.
        plain = re.sub(r"(_\d+)?(:\d+)?$", "", stored.rsplit("/", 1)[-1])
        if plain in _KNOWN_WEIGHTS - {weight}:
            raise Malformed(f"{layer} has {plain} in the place of {weight}")
        dataset = _descend(group, stored)
        if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
            raise Malformed(f"{label} is no array")
        if dataset.shape != shape:
            raise Malformed(f"{label} has shape {dataset.shape} instead of {shape}")
        if dataset.dtype.kind != "f":
            raise Malformed(f"{label} holds {dataset.dtype} instead of float32")
        weights[weight] = values = np.asarray(dataset[()], np.float32)
        if not np.isfinite(values).all():
            raise Malformed(f"{label} holds values that are not finite")
        # Single channels may be dead and have a variance of exactly 0; epsilon keeps them finite.
        if weight == "moving_variance" and (values.min() < 0 or not values.any()):
            raise Malformed(f"{label} holds no variances")
    return weights


def _descend(group: Any, name: str) -> Any:
    """What lies at that path; no link leads out of the file."""
    import h5py  # only when a network is built or a file verified

    for part in name.split("/"):
        if not isinstance(group, h5py.Group) or part not in group:
            raise Malformed(f"it lacks {name}")
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise Malformed(f"{name} is only a link")
        group = group[part]
    return group


def _names(group: Any, attribute: str) -> list[str]:
    """A list of names in an attribute; Keras splits long ones into ``name0``, ``name1``, ..."""
    parts = itertools.takewhile(
        group.attrs.__contains__, map(f"{attribute}{{}}".format, itertools.count())
    )
    chunks = [attribute] if attribute in group.attrs else list(parts)
    if not chunks:
        raise Malformed(f"it lacks the attribute {attribute}")
    names = [name for chunk in chunks for name in np.ravel(group.attrs[chunk])]
    if len(names) > _MOST_NAMES or any(len(str(name)) > _MOST_CHARACTERS for name in names):
        raise Malformed(f"its attribute {attribute} names too much")
    return [name.decode("utf-8") if isinstance(name, bytes) else str(name) for name in names]


def _blocks() -> Iterator[tuple[str, int, int, int, int, bool]]:
    """Name, channels at the input, inside and at the output, stride, whether it projects."""
    channels = 64
    for stage, inside, outside, count in STAGES:
        for number in range(1, count + 1):
            first = number == 1
            stride = 2 if first and stage > 2 else 1
            yield f"conv{stage}_{number}", channels, inside, outside, stride, first
            channels = outside


def layers(name: str) -> dict[str, Shapes]:
    """The layers of ``resnet`` or ``senet`` that have weights, as Keras lists and saves them.

    Keras sorts layers by their depth below the output, so that the projection stands where it is
    as deep as its neighbour: beside the last convolution, or after a squeeze.
    """
    found = _with_norm("conv1/7x7_s2", 7, 3, 64)
    for block, channels, inside, outside, _, projects in _blocks():
        found |= _with_norm(f"{block}_1x1_reduce", 1, channels, inside)
        found |= _with_norm(f"{block}_3x3", 3, inside, inside)
        increase = _with_norm(f"{block}_1x1_increase", 1, inside, outside)
        projection = _with_norm(f"{block}_1x1_proj", 1, channels, outside) if projects else {}
        if name == "senet":
            found |= increase
            squeezed = outside // SQUEEZE
            found[f"{block}_1x1_down"] = {"kernel": (1, 1, outside, squeezed), "bias": (squeezed,)}
            found[f"{block}_1x1_up"] = {"kernel": (1, 1, squeezed, outside), "bias": (outside,)}
            found |= projection
        else:  # both convolutions, then both norms
            both = [*increase.items(), *projection.items()]
            found |= dict(both[::2]) | dict(both[1::2])
    return found


def _with_norm(name: str, edge: int, inputs: int, outputs: int) -> dict[str, Shapes]:
    kernel = {"kernel": (edge, edge, inputs, outputs)}
    return {name: kernel, f"{name}/bn": dict.fromkeys(_NORM, (outputs,))}


def graph(path: Path, network: str) -> Any:
    """The network with the weights in a file, for :func:`engine.runtime.compile_network`.

    It takes uint8 (N, 224, 224, 3) RGB and gives float32 (N, 2048), not normalised. Raises
    Malformed if the file does not fit the network or a value can't be used.
    """
    _, weights = read_weights(path, layers(network))
    pixels, x = runtime.pictures(INPUT_PX, MEAN_BGR[::-1])
    ops = runtime.operators()

    def convolve(
        x: runtime.Node, name: str, *, stride: int = 1, pads: tuple[int, int, int, int] = (0,) * 4
    ) -> runtime.Node:
        """A convolution with the batch norm after it folded in, or with a bias."""
        layer = weights.pop(name)
        kernel: Any = layer["kernel"]
        bias: Any = layer.get("bias")
        if norm := weights.pop(f"{name}/bn", None):
            variance = norm["moving_variance"].astype(np.float64) + EPSILON[network]
            scale = norm["gamma"] / np.sqrt(variance)
            kernel = kernel * scale
            bias = norm["beta"] - norm["moving_mean"] * scale
        if name == "conv1/7x7_s2":  # its channels are BGR
            kernel = kernel[:, :, ::-1]
        # (height, width, in, out) as Keras has it -> (out, in, height, width).
        return runtime.convolution(x, kernel.transpose(3, 2, 0, 1), bias, stride=stride, pads=pads)

    x = ops.relu(convolve(x, "conv1/7x7_s2", stride=2, pads=(2, 2, 3, 3)))
    x = runtime.max_pool(x, 3)
    for name, *_, stride, projects in _blocks():
        # The stride is in the first convolution, not in the 3 x 3.
        main = ops.relu(convolve(x, f"{name}_1x1_reduce", stride=stride))
        main = ops.relu(convolve(main, f"{name}_3x3", pads=(1, 1, 1, 1)))
        main = convolve(main, f"{name}_1x1_increase")
        if network == "senet":  # channels weighed by what the whole picture holds of them
            weight = ops.relu(convolve(runtime.channel_means(main), f"{name}_1x1_down"))
            main = ops.multiply(main, ops.sigmoid(convolve(weight, f"{name}_1x1_up")))
        if projects:
            x = convolve(x, f"{name}_1x1_proj", stride=stride)
        x = ops.relu(ops.add(main, x))
    return runtime.graph(pixels, runtime.flat(runtime.channel_means(x)))
