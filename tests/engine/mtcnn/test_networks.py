"""Weights of the package mtcnn, read without unpickling anything but arrays."""

from __future__ import annotations

import io
import os
import pickle
from importlib import metadata
from typing import Any

import joblib
import lz4.frame
import numpy as np
import pytest

from engine import mtcnn
from engine.errors import WeightsCorrupt, WeightsMissing
from engine.mtcnn import Stage, read_weights

STAGES: tuple[Stage, ...] = ("pnet", "rnet", "onet")


class Distribution:
    """Stands where the package is installed, with other files."""

    def __init__(self, folder: Any) -> None:
        self.folder = folder

    def locate_file(self, path: str) -> Any:
        return self.folder / path.rsplit("/", 1)[1]


@pytest.mark.parametrize("stage", STAGES)
def test_the_tensors_are_those_that_joblib_reads(stage: Stage) -> None:
    path = metadata.distribution("mtcnn").locate_file(f"mtcnn/assets/weights/{stage}.lz4")
    theirs = joblib.load(str(path))

    ours = read_weights(stage)

    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, other)


def _packed(thing: object) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(thing, buffer)
    return bytes(lz4.frame.compress(buffer.getvalue()))


class _Command:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("exit 1",)


_GOOD = _packed([np.zeros(shape, np.float32) for shape in mtcnn.weight_shapes("pnet")])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no LZ4",
        _GOOD[: len(_GOOD) // 2],
        _packed([]),
        _packed([np.zeros(3, np.float32)]),
        _packed([np.zeros(shape) for shape in mtcnn.weight_shapes("pnet")]),
        _packed([np.full(s, np.nan, np.float32) for s in mtcnn.weight_shapes("pnet")]),
        _packed(_Command()),
        bytes(lz4.frame.compress(pickle.dumps([_Command()]))),
        _packed({"a": 1}),
    ],
    ids=["empty", "garbage", "cut", "none", "few", "f64", "nan", "command", "pickle", "dict"],
)
def test_a_damaged_file_is_refused(
    content: bytes, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pnet.lz4").write_bytes(content)
    monkeypatch.setattr(metadata, "distribution", lambda _: Distribution(tmp_path))

    with pytest.raises(WeightsCorrupt, match=r"pnet\.lz4 .* reinstall mtcnn"):
        read_weights("pnet")


def test_a_whole_file_is_read(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counterpart of the test above: it is the damage that is refused."""
    (tmp_path / "pnet.lz4").write_bytes(_GOOD)
    monkeypatch.setattr(metadata, "distribution", lambda _: Distribution(tmp_path))

    assert all((tensor == 0).all() for tensor in read_weights("pnet"))


def test_a_missing_file_is_named(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "distribution", lambda _: Distribution(tmp_path))

    with pytest.raises(WeightsMissing, match="mtcnn"):
        read_weights("pnet")
