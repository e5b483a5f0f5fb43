"""Reads the weights of named layers from a Keras 2 HDF5 file, checking all of them.

The layout is that of Keras 2's ``save_weights`` (keras-team/keras 2.x, engine/saving.py): the root
attribute ``layer_names`` in model order, one group per layer with the attribute ``weight_names``.
Names contain ``/``, so that groups nest in each other: only the two attributes say what belongs
together, the tree does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from engine.backbones.graph import Malformed

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["KerasLayer", "KerasWeights", "open_keras_weights"]

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
