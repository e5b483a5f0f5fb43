"""Weight files in the layout of Keras 2, made by hand for tests that need no trained network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from engine.backbones import vggface
from engine.backbones.vggface import Shapes

Change = Callable[[str, str, NDArray[np.float32]], NDArray[np.generic]]


def write_keras_file(
    path: Path,
    layers: Mapping[str, Shapes],
    *,
    seed: int = 0,
    change: Change | None = None,
    stored_name: Callable[[str], str] = lambda name: name,
    root: str = "",
    large_kernels: bool = True,
) -> Path:
    """Writes random weights that a network can run with.

    Args:
        path: The file.
        layers: What it holds, in this order.
        seed: Files of two seeds differ.
        change: Replaces the values of (layer, weight).
        stored_name: The layer's name in the file.
        root: Group that holds everything; the file itself if empty.
        large_kernels: False: kernels of over 10,000 values are all one value, which takes no
            room in the file and no time to read; ``change`` does not see them.
    """
    random = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        group = file.create_group(root) if root else file
        group.attrs["layer_names"] = np.array([stored_name(layer).encode() for layer in layers])
        group.attrs["backend"] = b"tensorflow"
        group.attrs["keras_version"] = b"2.1.3"
        for layer, shapes in layers.items():
            name = stored_name(layer)
            folder = group.require_group(name)
            weights = [f"{name}/{weight}:0".encode() for weight in shapes]
            folder.attrs["weight_names"] = np.array(weights)
            for stored, (weight, shape) in zip(weights, shapes.items(), strict=True):
                if np.prod(shape) > 10_000 and not large_kernels:
                    value = random.uniform(1e-4, 1e-3)
                    folder.create_dataset(stored.decode(), shape, np.float32, fillvalue=value)
                    continue
                values: NDArray[np.generic] = _values(random, weight, shape)
                if change is not None:
                    values = change(layer, weight, values.astype(np.float32))
                folder.create_dataset(stored.decode(), data=values)
    return path


def write_network_file(
    path: Path, name: str, *, seed: int = 0, change: Change | None = None, runs: bool = False
) -> Path:
    """A weight file of ``resnet`` or ``senet``; its vectors differ from each other if ``runs``."""
    layers = vggface.layers(name)
    return write_keras_file(path, layers, seed=seed, change=change, large_kernels=runs)


def _values(
    random: np.random.Generator, weight: str, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Few different values, made quickly; of a size that keeps activations finite."""
    if weight == "kernel":
        spread = np.sqrt(2 / np.prod(shape[:-1]))
        pattern = random.standard_normal(np.prod(shape[-2:])) * spread
        return np.broadcast_to(pattern.reshape(shape[-2:]), shape).astype(np.float32)
    if weight in ("gamma", "moving_variance"):
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    return random.normal(0, 0.2, shape).astype(np.float32)
