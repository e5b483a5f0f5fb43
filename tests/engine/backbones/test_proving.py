"""Weight files that nothing vouches for: looked through elsewhere, and refused in a sentence."""

from __future__ import annotations

import resource
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
from keras_files import write_network_file

from engine.backbones import BACKBONES, Malformed, weights

# As it is before ``conftest`` replaces it for tests that make weights up.
prove = weights.prove
RESNET = BACKBONES["resnet"]


def children_mib() -> float:
    """The most memory that one of the processes had that have ended."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def test_a_trained_network_passes(tmp_path: Path) -> None:
    same, strangers = prove(BACKBONES["dlib"], weights.installed("dlib", tmp_path))

    assert same > 0.97
    assert strangers < 0.92


def test_a_network_that_has_learned_nothing_is_refused(tmp_path: Path) -> None:
    """Everything fits, but the weights are made up."""
    path = write_network_file(tmp_path / RESNET.file_name, "resnet")

    with pytest.raises(Malformed, match=r"does not tell people apart, same person >="):
        prove(RESNET, path)


def test_a_small_file_with_gigabytes_of_names_costs_little(tmp_path: Path) -> None:
    """Three thousand names, all of which are the same 1.3 MB of the file: 3.9 GB if read."""
    long, count = 1_300_000, 3_000
    with h5py.File(tmp_path / "w.h5", "w") as file:
        names = np.array([b"x" * long, *[b"y"] * (count - 1)], object)
        file.attrs.create("layer_names", names, dtype=h5py.string_dtype("ascii"))
    content = bytearray((tmp_path / "w.h5").read_bytes())
    first = content.index(struct.pack("<I", long))
    while content[first + 16 : first + 20] != struct.pack("<I", 1):
        first = content.index(struct.pack("<I", long), first + 1)
    content[first : first + 16 * count] = content[first : first + 16] * count
    (tmp_path / "w.h5").write_bytes(content)
    assert len(content) < 1_500_000
    before = children_mib()

    with pytest.raises(Malformed, match="memory"):
        prove(RESNET, tmp_path / "w.h5")

    assert children_mib() <= max(before, 1_600)
