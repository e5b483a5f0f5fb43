"""Keras 2 weight files: matched by name or by order, and refused for every kind of damage."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_files import write_keras_file

from engine.backbones import Malformed
from engine.backbones.vggface import Shapes, read_weights

BN = ("gamma", "beta", "moving_mean", "moving_variance")
# A name inside another's folder, as in the released files.
LAYERS: dict[str, Shapes] = {
    "conv1/7x7_s2": {"kernel": (7, 7, 3, 4)},
    "conv1/7x7_s2/bn": dict.fromkeys(BN, (4,)),
    "down": {"kernel": (1, 1, 4, 4), "bias": (4,)},
    "up": {"kernel": (1, 1, 4, 4), "bias": (4,)},
}


def read_all(path: Path) -> dict[str, dict[str, np.ndarray]]:
    return read_weights(path, LAYERS)[1]


def matched_by(path: Path) -> str:
    return read_weights(path, LAYERS)[0]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_keras_file(tmp_path / "weights.h5", LAYERS)


def test_values_and_types_survive(tmp_path: Path) -> None:
    """Every weight comes back under its plain name, float32, as it was written."""
    written: dict[tuple[str, str], np.ndarray] = {}

    def remember(layer: str, weight: str, values: np.ndarray) -> np.ndarray:
        written[layer, weight] = values
        return values

    read = read_all(write_keras_file(tmp_path / "w.h5", LAYERS, change=remember))

    assert {(layer, weight) for layer in read for weight in read[layer]} == set(written)
    for (layer, weight), values in written.items():
        assert read[layer][weight].dtype == np.float32
        np.testing.assert_array_equal(read[layer][weight], values)


def test_names_decide_where_all_fit(tmp_path: Path) -> None:
    """A file with the layers in another order is matched by name."""
    path = write_keras_file(tmp_path / "w.h5", dict(reversed(LAYERS.items())))

    assert matched_by(path) == "name"
    with h5py.File(path) as file:
        np.testing.assert_array_equal(read_all(path)["up"]["kernel"], file["up"]["up/kernel:0"][()])


def test_order_decides_where_a_name_differs(tmp_path: Path) -> None:
    """One suffix is enough: Keras then goes by order, even past names that would fit."""
    swapped = {"down": "up", "up": "down_1"}
    path = write_keras_file(
        tmp_path / "w.h5", LAYERS, stored_name=lambda name: swapped.get(name, name)
    )

    assert matched_by(path) == "order"
    with h5py.File(path) as file:
        np.testing.assert_array_equal(
            read_all(path)["down"]["kernel"], file["up"]["up/kernel:0"][()]
        )


def test_layers_without_weights_do_not_count(file: Path) -> None:
    """Inputs and activations are named in the file as well."""
    with h5py.File(file, "r+") as opened:
        opened.attrs["layer_names"] = [b"input_1", *opened.attrs["layer_names"]]
        opened.create_group("input_1").attrs["weight_names"] = np.array([], "S1")

    assert set(read_all(file)) == set(LAYERS)


def test_a_saved_model_is_read(tmp_path: Path) -> None:
    """`model.save` puts the same layout into the group model_weights."""
    path = write_keras_file(tmp_path / "w.h5", LAYERS, root="model_weights")

    assert matched_by(path) == "name"


def test_split_attributes_are_read(file: Path) -> None:
    """Keras splits lists of names that are too long for one attribute."""
    with h5py.File(file, "r+") as opened:
        names = opened.attrs["layer_names"]
        del opened.attrs["layer_names"]
        opened.attrs["layer_names0"], opened.attrs["layer_names1"] = names[:1], names[1:]

    assert set(read_all(file)) == set(LAYERS)


def _drop_layer(file: h5py.File) -> None:
    file.attrs["layer_names"] = file.attrs["layer_names"][:-1]


def _add_layer(file: h5py.File) -> None:
    file.copy("up", "classifier")
    file.attrs["layer_names"] = [*file.attrs["layer_names"], b"classifier"]


def _drop_weight(file: h5py.File) -> None:
    file["up"].attrs["weight_names"] = file["up"].attrs["weight_names"][:1]


def _missing_array(file: h5py.File) -> None:
    del file["up"]["up/kernel:0"]


def _missing_group(file: h5py.File) -> None:
    del file["up"]


def _no_names(file: h5py.File) -> None:
    del file.attrs["layer_names"]


def _named_twice(file: h5py.File) -> None:
    file.attrs["layer_names"] = [*file.attrs["layer_names"][:-1], b"down"]


def _exchanged_weights(file: h5py.File) -> None:
    group = file["conv1/7x7_s2/bn"]
    group.attrs["weight_names"] = group.attrs["weight_names"][[1, 0, 2, 3]]


def _integers(file: h5py.File) -> None:
    del file["up"]["up/bias:0"]
    file["up"]["up/bias:0"] = np.zeros(4, np.int32)


def _other_shape(file: h5py.File) -> None:
    del file["up"]["up/bias:0"]
    file["up"]["up/bias:0"] = np.zeros(5, np.float32)


def _group_for_array(file: h5py.File) -> None:
    del file["up"]["up/bias:0"]
    file["up"].create_group("up/bias:0")


def _soft_link(file: h5py.File) -> None:
    del file["up"]["up/bias:0"]
    file["up"]["up/bias:0"] = h5py.SoftLink("/down/down/bias:0")


def _link_out(file: h5py.File) -> None:
    del file["up"]["up/bias:0"]
    file["up"]["up/bias:0"] = h5py.ExternalLink("other.h5", "/down/down/bias:0")


def _values_elsewhere(file: h5py.File) -> None:
    del file["up"]["up/bias:0"]
    file["up"].create_dataset("up/bias:0", (4,), np.float32, external=[("other.raw", 0, 16)])


def _virtual(file: h5py.File) -> None:
    del file["up"]["up/bias:0"]
    layout = h5py.VirtualLayout((4,), np.float32)
    layout[:] = h5py.VirtualSource(".", "down/down/bias:0", (4,))
    file["up"].create_virtual_dataset("up/bias:0", layout)


DAMAGES = {
    _drop_layer: "3 layers with weights instead of 4",
    _add_layer: "5 layers with weights instead of 4",
    _drop_weight: "up has 1 weights instead of 2",
    _missing_array: "lacks up/kernel:0",
    _missing_group: "lacks up",
    _no_names: "lacks the attribute layer_names",
    _named_twice: "names the layer down twice",
    _exchanged_weights: "beta in the place of gamma",
    _integers: "up/bias holds int32",
    _other_shape: r"up/bias has shape \(5,\) instead of \(4,\)",
    _group_for_array: "up/bias is no array",
    _soft_link: "only a link",
    _link_out: "only a link",
    _values_elsewhere: "up/bias is no array",
    _virtual: "up/bias is no array",
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGES.items())
def test_a_wrong_structure_is_refused(file: Path, damage: object, reason: str) -> None:
    """The reason says what is wrong, and nothing outside the file is ever opened."""
    with h5py.File(file, "r+") as opened:
        damage(opened)  # type: ignore[operator] # one of the functions above

    with pytest.raises(Malformed, match=reason):
        read_all(file)


@pytest.mark.parametrize(
    ("weight", "value", "reason"),
    [
        ("kernel", np.nan, "not finite"),
        ("gamma", np.inf, "not finite"),
        ("moving_variance", -1e-3, "no variances"),
    ],
)
def test_one_value_is_enough_to_refuse(
    tmp_path: Path, weight: str, value: float, reason: str
) -> None:
    """A single value that can't be right spoils the file."""

    def change(_: str, changed: str, values: np.ndarray) -> np.ndarray:
        if changed == weight:
            values.flat[-1] = value
        return values

    path = write_keras_file(tmp_path / "w.h5", LAYERS, change=change)

    with pytest.raises(Malformed, match=reason):
        read_all(path)


def test_variances_are_not_all_zero(tmp_path: Path) -> None:
    """One dead channel is possible, a whole layer of them is no trained layer."""

    def dead(channels: int) -> object:
        def change(_: str, weight: str, values: np.ndarray) -> np.ndarray:
            if weight == "moving_variance":
                values[:channels] = 0
            return values

        return change

    one = write_keras_file(tmp_path / "one.h5", LAYERS, change=dead(1))  # type: ignore[arg-type]
    every = write_keras_file(tmp_path / "all.h5", LAYERS, change=dead(4))  # type: ignore[arg-type]

    read_all(one)
    with pytest.raises(Malformed, match="no variances"):
        read_all(every)


@pytest.mark.parametrize("filter_id", [1, 32_015, 65_535])
def test_filters_that_fail_or_are_unknown_are_a_sentence(file: Path, filter_id: int) -> None:
    """Deflate over what is no such stream; one that HDF5 has registered; one that nobody has."""
    with h5py.File(file, "r+") as opened:
        del opened["up"]["up/kernel:0"]
        packed = opened["up"].create_dataset(
            "up/kernel:0", (1, 1, 4, 4), "f4", chunks=(1, 1, 4, 4), compression="gzip"
        )
        packed.id.write_direct_chunk((0, 0, 0, 0), b"nothing that was ever packed")
    content = bytearray(file.read_bytes())
    number = content.index(b"deflate") - 8  # where the filter's number stands before its name
    assert content[number : number + 2] == b"\x01\0"
    content[number : number + 2] = filter_id.to_bytes(2, "little")
    file.write_bytes(content)

    with pytest.raises(Malformed, match="can't be read as HDF5"):
        read_all(file)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x89HDF\r\n\x1a\n"])
def test_what_is_no_hdf5_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """Web pages and empty files come from mirrors as well."""
    path = tmp_path / "w.h5"
    path.write_bytes(content)

    with pytest.raises(Malformed):
        read_all(path)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("sound")
    return write_keras_file(folder / "w.h5", LAYERS).read_bytes()


@settings(max_examples=150)
@given(data=st.data())
def test_any_damage_is_harmless(
    sound: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Cut anywhere or changed in any byte, a file is read or refused, and nothing else happens."""
    cut = data.draw(st.integers(0, len(sound)))
    damaged = bytearray(sound[:cut] if data.draw(st.booleans()) else sound)
    if damaged:
        for position in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=8)):
            damaged[position] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / "w.h5"
    path.write_bytes(damaged)
    try:
        for weights in read_all(path).values():
            assert all(np.isfinite(values).all() for values in weights.values())
    except Malformed as problem:
        assert str(problem)  # noqa: PT017 - either outcome is right
    finally:
        shutil.rmtree(folder)


def test_half_precision_is_widened(tmp_path: Path) -> None:
    """A file in float16 or float64 gives float32."""
    path = write_keras_file(
        tmp_path / "w.h5", LAYERS, change=lambda _l, _w, values: values.astype(np.float16)
    )

    assert all(
        values.dtype == np.float32
        for weights in read_all(path).values()
        for values in weights.values()
    )


def test_a_file_is_closed_afterwards(file: Path) -> None:
    """Nothing keeps the file open: it can be replaced on any system."""
    read_all(file)

    with h5py.File(io.BytesIO(file.read_bytes()), "r") as copy:
        assert len(copy.attrs["layer_names"]) == len(LAYERS)
    with h5py.File(file, "r+"):  # HDF5 locks files that are open elsewhere
        pass
