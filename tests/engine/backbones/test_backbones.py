"""Backbones on OpenVINO: dlib's equals dlib; networks are kept, checked and never stale."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import dlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_files import write_network_file
from numpy.typing import NDArray

from engine.align import closer
from engine.backbones import BACKBONES, Malformed, weights
from engine.backbones import dlib as dlib_file
from engine.backbones.network import CONDITIONS, Backbone, free_portraits
from engine.engine import load_backbone
from engine.errors import BadSettings, WeightsCorrupt, WeightsMissing
from engine.runtime import Precision, compile_network
from engine.types import Space

DLIB = BACKBONES["dlib"]
Crops = list[NDArray[np.uint8]]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def ours(cache: Path) -> Backbone:
    """The backbone dlib in f32, as the equality is stated."""
    return load_backbone("dlib", models_folder=cache, cache_folder=cache, precision="f32")


@pytest.fixture(scope="module")
def dlib_bytes() -> bytes:
    return weights.installed("dlib", Path()).read_bytes()


@pytest.fixture(scope="module")
def crops(ours: Backbone) -> Crops:
    """Real faces in several conditions, then noise, then the extremes."""
    real = [
        ours.crop(*change(photo, face))
        for photo, face in free_portraits()
        for change in CONDITIONS.values()
    ]
    noise = np.random.default_rng(0).integers(0, 256, (4, 150, 150, 3), dtype=np.uint8)
    flat = [np.full((150, 150, 3), value, np.uint8) for value in (0, 255)]
    assert len(real) == 2 * len(CONDITIONS)
    return [*real, *noise, *flat]


@pytest.fixture(scope="module")
def published(crops: Crops) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """By dlib itself: descriptors of the crops, and their sums over the recipe's two views."""
    model = dlib.face_recognition_model_v1(str(weights.installed("dlib", Path())))

    def describe(crop: NDArray[np.uint8]) -> NDArray[np.float64]:
        return np.array(model.compute_face_descriptor(np.ascontiguousarray(crop)))

    assert DLIB.closer is not None
    views = [crops, [closer(crop, DLIB.closer)[:, ::-1] for crop in crops]]
    described = np.array([[describe(crop) for crop in view] for view in views])
    return described[0], described.sum(axis=0)


def distances(one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    """Cosine distance of each row, in float64."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return 1 - np.einsum("ij,ij->i", one, other) / lengths


def test_the_graph_equals_dlib_itself(
    crops: Crops,
    published: tuple[NDArray[np.float64], NDArray[np.float64]],
    dlib_bytes: bytes,
) -> None:
    """Raw outputs to 1e-4 of their size, directions to 1e-5."""
    network = compile_network(lambda: dlib_file.graph(dlib_bytes), name="dlib", precision="f32")

    (raw,) = network.run(np.stack(crops))

    expected, _ = published
    assert raw.shape == (len(crops), 128)
    assert np.abs(raw - expected).max() <= 1e-4 * np.abs(expected).max()
    assert distances(raw, expected).max() <= 1e-5


def test_an_embedding_is_of_the_face_and_its_mirror_image_closer(
    ours: Backbone,
    crops: Crops,
    published: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    """The recipe, in dlib's own numbers."""
    vectors = np.array([embedding.vector for embedding in ours.embed(crops)])

    _, expected = published
    assert distances(vectors, expected).max() <= 1e-5
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_a_face_and_its_mirror_image_are_one(ours: Backbone, crops: Crops) -> None:
    """A selfie is often mirrored; the embedding cares as little as about compression."""
    for crop in crops[: 2 * len(CONDITIONS)]:
        one, other = ours.embed([crop, crop[:, ::-1]])
        assert one.cosine(other) > 0.997


def test_batches_change_nothing(ours: Backbone, crops: Crops) -> None:
    """More crops than fit a batch, in their order; one by one they give the same."""
    together = ours.embed(crops)
    alone = [ours.embed([crop])[0] for crop in crops]

    assert len(crops) > 16
    for one, other in zip(together, alone, strict=True):
        assert one.cosine(other) == pytest.approx(1, abs=1e-6)
    assert ours.embed([]) == ()


def test_threads_do_not_disturb_each_other(ours: Backbone, crops: Crops) -> None:
    """Eight threads at once, each with its own crops."""
    expected = [ours.embed([crop])[0].vector for crop in crops]

    def embed(index: int) -> bool:
        (embedding,) = ours.embed([crops[index]])
        return bool(np.allclose(embedding.vector, expected[index], atol=1e-5))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(embed, list(range(len(crops))) * 2))


@pytest.mark.parametrize(("precision", "far"), [("bf16", 3e-4), ("int8", 1e-3)])
def test_what_is_faster_stays_near_f32(
    ours: Backbone, crops: Crops, cache: Path, precision: Precision, far: float
) -> None:
    """What most servers compute in; strangers are 0.1 apart."""
    load = partial(load_backbone, "dlib", models_folder=cache, cache_folder=cache)
    fast = load(precision=precision)
    faces = crops[: 2 * len(CONDITIONS)]

    for one, other in zip(ours.embed(faces), fast.embed(faces), strict=True):
        assert one.vector @ other.vector > 1 - far
    assert (fast.space == ours.space) == (precision != "int8")
    assert load(precision=precision).space == fast.space  # kept as it was compiled


@pytest.mark.parametrize(
    "crop",
    [
        np.zeros((224, 224, 3), np.uint8),
        np.zeros((150, 150), np.uint8),
        np.zeros((150, 150, 3), np.float32),
    ],
)
def test_a_crop_of_another_kind_is_refused(ours: Backbone, crop: NDArray[np.uint8]) -> None:
    """Never stretched or cast in silence."""
    with pytest.raises(ValueError, match="a crop for dlib"):
        ours.embed([crop])


def test_the_space_names_weights_and_recipe(ours: Backbone) -> None:
    """Vectors of other weights can't be mistaken for these."""
    assert ours.space == Space("dlib", str(DLIB.sha256), DLIB.recipe, 128)


@pytest.mark.parametrize("row", [np.zeros(128), np.full(128, np.nan), np.full(128, np.inf)])
def test_a_vector_without_direction_is_an_error(row: NDArray[np.float64]) -> None:
    """Zero or not finite: no embedding, and no warning of NumPy either."""
    raw = np.tile(row.astype(np.float32), (2, 1))  # the two views of one crop
    backbone = Backbone(DLIB, "0" * 64, lambda _: raw, precision="f32")
    with pytest.raises(WeightsCorrupt, match="lookalike models verify dlib"):
        backbone.embed([np.zeros((150, 150, 3), np.uint8)])


def test_an_unknown_backbone_is_refused(cache: Path) -> None:
    """A wrong setting, not a traceback."""
    with pytest.raises(BadSettings, match="there is no backbone 'facenet'"):
        load_backbone("facenet", models_folder=cache, cache_folder=cache)


@pytest.mark.parametrize("name", ["resnet", "senet"])
@pytest.mark.parametrize("runtime", ["openvino", "tensorflow"])
def test_without_weights_there_is_no_backbone(name: str, runtime: str, cache: Path) -> None:
    """Never random weights, in either runtime."""
    with pytest.raises(WeightsMissing, match=f"lookalike models download {name}"):
        load_backbone(name, models_folder=cache, cache_folder=cache, runtime=runtime)  # type: ignore[arg-type]


# --- the file of dlib -------------------------------------------------------------------------


@settings(max_examples=60)
@given(cut=st.integers(0, 22_466_065))
def test_a_truncated_dlib_file_is_refused(dlib_bytes: bytes, cut: int) -> None:
    """Wherever it ends."""
    with pytest.raises(Malformed):
        dlib_file.read_weights(dlib_bytes[:cut])


def test_a_dlib_file_with_something_left_over_is_refused(dlib_bytes: bytes) -> None:
    """Every byte has its place."""
    with pytest.raises(Malformed):
        dlib_file.read_weights(dlib_bytes + b"\0")


def test_a_dlib_file_of_another_network_is_refused(dlib_bytes: bytes) -> None:
    """Every byte before the first weight is known, but for the loss's two constants."""
    loss_constants = range(17, 29)
    changed = bytearray(dlib_bytes)
    for position in set(range(348)) - set(loss_constants):
        changed[position] ^= 0x04
        with pytest.raises(Malformed):
            dlib_file.read_weights(changed)
        changed[position] ^= 0x04
    dlib_file.read_weights(changed)


def test_a_weight_that_is_not_finite_is_refused(dlib_bytes: bytes) -> None:
    """NaN in the last row of the last layer."""
    changed = bytearray(dlib_bytes)
    changed[-600:-592] = b"\xff" * 8

    with pytest.raises(Malformed, match="not finite"):
        dlib_file.read_weights(bytes(changed))


# --- kept networks ----------------------------------------------------------------------------

START = """
import sys
from pathlib import Path
import numpy as np
from engine.engine import load_backbone
folder = Path(sys.argv[1])
backbone = load_backbone("dlib", models_folder=folder, cache_folder=folder, precision="f32")
(embedding,) = backbone.embed([np.full((150, 150, 3), 99, np.uint8)])
print(sorted({"engine.backbones.dlib", "h5py", "httpx", "cv2", "tensorflow"} & set(sys.modules)))
"""


def test_a_later_start_builds_nothing_and_imports_less(tmp_path: Path) -> None:
    """The first start builds the network, the next one only reads what was kept."""
    command = [sys.executable, "-W", "error", "-c", START, str(tmp_path)]
    first, second = (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    )

    assert first == "['cv2', 'engine.backbones.dlib']"
    assert second == "['cv2']"


def load(folder: Path) -> Backbone:
    return load_backbone("dlib", models_folder=folder, cache_folder=folder, precision="f32")


def kept(cache_folder: Path) -> Path:
    (path,) = cache_folder.iterdir()
    return path


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x40]) + content[middle + 1 :]


def _halved(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize("damage", [_flipped, _halved, lambda _: b"", lambda _: b"half a network"])
def test_damage_to_what_was_kept_is_noticed(
    ours: Backbone, crops: Crops, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    """A bit in the compiled network, a file cut short, or something else: written anew."""
    expected = ours.embed(crops[:1])[0]
    load(tmp_path)
    path = kept(tmp_path)
    content = path.read_bytes()
    path.write_bytes(damage(content))

    embedding = load(tmp_path).embed(crops[:1])[0]

    assert embedding.cosine(expected) == pytest.approx(1, abs=1e-6)
    assert kept(tmp_path) == path
    assert path.stat().st_size == pytest.approx(len(content), abs=10_000)


def test_a_network_of_another_version_is_built_anew(tmp_path: Path, crops: Crops) -> None:
    """Its checksum is right, but OpenVINO can't use it."""
    load(tmp_path)
    path = kept(tmp_path)
    foreign = b"no network of this version" * 100
    path.write_bytes(foreign + zlib.crc32(foreign).to_bytes(4, "little"))

    assert len(load(tmp_path).embed(crops[:1])) == 1
    assert path.stat().st_size > len(foreign) + 4


def test_a_cache_that_can_not_be_written_is_no_error(
    tmp_path: Path, crops: Crops, caplog: pytest.LogCaptureFixture
) -> None:
    """The network is then built at every start, and the log says why."""
    (tmp_path / "file").write_bytes(b"")

    backbone = load_backbone("dlib", models_folder=tmp_path, cache_folder=tmp_path / "file" / "x")

    assert len(backbone.embed(crops[:1])) == 1
    assert "can't be written" in caplog.text


def test_a_new_network_replaces_what_was_kept(tmp_path: Path) -> None:
    """One file per backbone and precision stays, and nothing that a killed process left."""
    for name in (
        "dlib-f32-0123456789abcdef.network",
        "dlib-f32-x1y2z3.tmp",
        "resnet-f32-0.network",
    ):
        (tmp_path / name).write_bytes(b"")

    load(tmp_path)

    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) == 2
    assert "resnet-f32-0.network" in names


def test_two_processes_start_at_once(tmp_path: Path) -> None:
    """All are ready, and one whole file is kept."""
    command = [sys.executable, "-W", "error", "-c", START, str(tmp_path)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    outcomes = [(process.communicate(timeout=120)[1], process.returncode) for process in processes]

    assert outcomes == [(b"", 0)] * 3
    assert kept(tmp_path).suffix == ".network"


# --- the networks of VGGFace2 -----------------------------------------------------------------


@pytest.fixture(scope="module")
def random_resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with random weights for ResNet-50."""
    folder = tmp_path_factory.mktemp("models")
    write_network_file(folder / BACKBONES["resnet"].file_name, "resnet", runs=True)
    return folder


def test_a_vggface2_backbone_embeds_faces(random_resnet: Path, cache: Path) -> None:
    """From a photo to a vector of 2048, in the space of that very file."""
    backbone = load_backbone("resnet", models_folder=random_resnet, cache_folder=cache)
    (photo, face), _ = free_portraits()

    crop = backbone.crop(photo, face)
    (embedding,) = backbone.embed([crop])

    assert crop.shape == (224, 224, 3)
    assert embedding.vector.shape == (2048,)
    sha256 = weights.file_sha256(random_resnet / BACKBONES["resnet"].file_name)
    assert embedding.space == Space("resnet", sha256, 1, 2048)


def test_weights_that_change_after_the_first_load_are_refused(
    random_resnet: Path, cache: Path, tmp_path: Path
) -> None:
    """Also when a network built from the old ones is still kept."""
    name = BACKBONES["resnet"].file_name
    path = tmp_path / name
    path.write_bytes((random_resnet / name).read_bytes())
    load_backbone("resnet", models_folder=tmp_path, cache_folder=cache)
    path.write_bytes(_flipped(path.read_bytes()))

    for runtime in ("openvino", "tensorflow"):
        with pytest.raises(WeightsCorrupt, match="lookalike models download resnet --again"):
            load_backbone("resnet", models_folder=tmp_path, cache_folder=cache, runtime=runtime)  # type: ignore[arg-type]
