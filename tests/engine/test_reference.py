"""Our networks against the published packages keras-vggface and mtcnn, on TensorFlow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from engine.backbones import BACKBONES, vggface, weights
from engine.backbones.network import CONDITIONS, free_portraits, separation
from engine.engine import load_backbone
from engine.errors import SetupProblem
from engine.runtime import compile_network
from engine.types import Photo

pytestmark = pytest.mark.xdist_group("tensorflow")

MOST_DISTANCE = 1e-5
Crops = list[NDArray[np.uint8]]


@dataclass(frozen=True)
class Published:
    """A network of keras-vggface with weights as plausible as trained ones.

    Attributes:
        name: Of the backbone.
        model: The tf-keras model.
        folder: A models folder with what the model's own ``save_weights`` wrote, in another order.
        answer: Its raw outputs for the crops, after its own preprocessing, (N, 2048).
    """

    name: str
    model: Any
    folder: Path
    answer: NDArray[np.float32]

    @property
    def path(self) -> Path:
        return self.folder / BACKBONES[self.name].file_name


@pytest.fixture(scope="module")
def crops() -> Crops:
    """Real faces in several conditions, noise, and the extremes."""
    from engine.align import vggface2_crop

    real = []
    for photo, face in free_portraits():
        warm, _ = CONDITIONS["warm"](photo, face)
        real += [vggface2_crop(photo, face.box), vggface2_crop(warm, face.box)]
    noise = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    flat = [np.full((224, 224, 3), value, np.uint8) for value in (0, 255)]
    assert len(real) == 4
    return [*real, *noise, *flat]


@pytest.fixture(scope="module", params=["resnet", "senet"])
def published(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, crops: Crops
) -> Published:
    from engine.reference import published_network

    model = published_network(BACKBONES[request.param], None)
    _make_plausible(model, crops[::2])
    from keras_vggface.utils import preprocess_input

    pictures = preprocess_input(np.stack(crops).astype(np.float32), version=2)
    answer = np.asarray(model(pictures, training=False))
    made = Published(request.param, model, tmp_path_factory.mktemp(request.param), answer)
    model.save_weights(made.path)
    with h5py.File(made.path, "r+") as file:
        file.attrs["layer_names"] = file.attrs["layer_names"][::-1]
    weights.vouch(made.path, weights.file_sha256(made.path))  # also for other processes
    return made


def _make_plausible(model: Any, crops: Sequence[NDArray[np.uint8]]) -> None:
    """Random weights with which every detail of the network shows in its output.

    Filters of very different strength; means and variances as they are met in real pictures, many
    of them small, so that epsilon matters; factors and summands that are neither 1 nor 0.
    """
    random = np.random.default_rng(7)
    for layer in model.layers:
        values = layer.get_weights()
        if len(values) == 4:
            channels = values[0].shape
            values[0] = random.normal(1, 0.25, channels)
            values[1] = random.normal(0, 0.25, channels)
            layer.momentum = 0.0
        elif values:
            shape = values[0].shape
            strength = np.exp(random.normal(-1.2, 0.5, shape[-1]))
            values[0] = random.standard_normal(shape, np.float32) * strength
            values[0] *= np.sqrt(2 / np.prod(shape[:3]))
            values[1:] = [random.normal(0, 0.3, bias.shape) for bias in values[1:]]
        layer.set_weights(values)
    mean = np.array(vggface.MEAN_BGR, np.float32)
    model(np.stack(crops)[..., ::-1].astype(np.float32) - mean, training=True)


def distances(one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    """Cosine distance of each row, in float64."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return 1 - np.einsum("ij,ij->i", one, other) / lengths


def raw_outputs(path: Path, name: str, crops: Crops) -> NDArray[np.float32]:
    """What our network with the weights of that file makes of the crops in f32."""
    build = partial(vggface.graph, path, name)
    (raw,) = compile_network(build, name="test", precision="f32").run(np.stack(crops))
    return raw


def test_our_list_of_layers_is_the_networks_own(published: Published) -> None:
    """Names, order, weights and shapes: what matching by order relies on."""
    ours = [
        (layer, list(shapes.items())) for layer, shapes in vggface.layers(published.name).items()
    ]
    theirs = [
        (
            layer.name,
            [(w.name.rsplit("/", 1)[-1].split(":")[0], tuple(w.shape)) for w in layer.weights],
        )
        for layer in published.model.layers
        if layer.weights
    ]

    assert ours == theirs


def test_our_graph_equals_the_published_network(published: Published, crops: Crops) -> None:
    """From its own file, matched by name whatever their order, raw outputs and directions."""
    layers = vggface.layers(published.name)
    assert vggface.read_weights(published.path, layers)[0] == "name"

    raw = raw_outputs(published.path, published.name, crops)

    expected = published.answer
    assert distances(raw, expected).max() <= MOST_DISTANCE
    assert np.abs(raw - expected).max() <= 1e-3 * np.abs(expected).max()
    assert distances(expected[1:], expected[:-1]).min() > 100 * MOST_DISTANCE  # not all alike


@pytest.mark.parametrize("published", ["resnet"], indirect=True)
def test_names_with_suffixes_are_matched_by_order(
    published: Published, crops: Crops, tmp_path: Path
) -> None:
    """The same network saved under other names, as released files may have them."""
    names = [layer.name for layer in published.model.layers]
    try:
        for layer in published.model.layers:
            layer._name = f"{layer.name}_1"
        path = tmp_path / "suffixes.h5"
        published.model.save_weights(path)
    finally:
        for layer, name in zip(published.model.layers, names, strict=True):
            layer._name = name
    assert vggface.read_weights(path, vggface.layers(published.name))[0] == "order"

    raw = raw_outputs(path, published.name, crops)

    assert distances(raw, published.answer).max() <= MOST_DISTANCE


def test_a_wrong_detail_would_show(
    published: Published, crops: Crops, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are such that the usual mistakes move the output beyond the limit."""
    expected = published.answer
    other_epsilon = 1e-4 if published.name == "resnet" else 1e-3
    mistakes: dict[str, dict[str, object]] = {
        "epsilon": {"EPSILON": {published.name: other_epsilon}}
    }
    if published.name == "resnet":  # the same for both
        mistakes["version 1 mean"] = {"MEAN_BGR": (93.5940, 104.7624, 129.1863)}
        mistakes["mean in RGB order"] = {"MEAN_BGR": vggface.MEAN_BGR[::-1]}
    for name, constants in mistakes.items():
        with monkeypatch.context() as patch:
            for constant, value in constants.items():
                patch.setattr(vggface, constant, value)
            raw = raw_outputs(published.path, published.name, crops[:2])
        assert distances(raw, expected[:2]).max() > 10 * MOST_DISTANCE, name


EMBED = """
import sys
from pathlib import Path
import numpy as np
from engine.backbones.network import free_portraits
from engine.engine import load_backbone
folder, name, out = Path(sys.argv[1]), *sys.argv[2:]
backbone = load_backbone(name, models_folder=folder, cache_folder=folder, runtime="tensorflow")
about = repr((backbone.space, backbone.record))
vectors = [one.vector for one in backbone.embed(list(np.load(f"{out}.npy")))]
np.savez(out, vectors=vectors, crop=backbone.crop(*free_portraits()[0]), about=about)
"""


@pytest.fixture(scope="module")
def many(crops: Crops) -> Crops:
    """One more than a batch holds."""
    return [*crops, crops[0][:, ::-1]]


@pytest.fixture(scope="module")
def embedded(
    published: Published, many: Crops, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Any]:
    """What a process of its own wrote, and its embeddings on TensorFlow; warnings are errors."""
    path = tmp_path_factory.mktemp("embedded") / "out"
    np.save(path, many)
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", EMBED, published.folder, published.name, path],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return run.stdout, np.load(path.with_suffix(".npz"))


@pytest.mark.parametrize("published", ["resnet"], indirect=True)
def test_both_runtimes_give_the_same_embeddings(
    published: Published, many: Crops, embedded: tuple[str, Any], tmp_path: Path
) -> None:
    """Unit vectors of one space, from more crops than a batch holds.

    However plausible they look layer by layer, random weights do not separate people.
    """
    ours = load_backbone(
        published.name,
        models_folder=published.folder,
        cache_folder=tmp_path,
        runtime="openvino",
        precision="f32",
    )
    photo, face = free_portraits()[0]
    reference = embedded[1]

    assert repr((ours.space, ours.record)) == reference["about"]
    np.testing.assert_array_equal(ours.crop(photo, face), reference["crop"])
    np.testing.assert_allclose(np.linalg.norm(reference["vectors"], axis=1), 1, atol=1e-6)
    vectors = np.stack([one.vector for one in ours.embed(many)])
    assert distances(vectors, reference["vectors"]).max() <= MOST_DISTANCE
    same, strangers = separation(ours, free_portraits())
    assert same < strangers


@pytest.mark.parametrize("published", ["resnet"], indirect=True)
def test_tensorflow_is_quiet(embedded: tuple[str, Any]) -> None:
    """Its start-up notes are no message to the operator."""
    assert embedded[0] == ""


@pytest.mark.parametrize("published", ["resnet"], indirect=True)
def test_the_old_module_names_are_gone(published: Published) -> None:
    """They stand only while keras-vggface is imported; Keras itself is what it was."""
    import keras
    import keras_vggface

    assert published.model is not None
    assert keras_vggface.__name__ == "keras_vggface"
    assert keras.__version__.startswith("3.")
    assert not {"keras_applications", "keras.engine", "keras.utils.data_utils"} & set(sys.modules)


@pytest.mark.parametrize("published", ["resnet"], indirect=True)
def test_keras_vggface_can_not_download_on_its_own(published: Published) -> None:
    """Weights come from the models folder only."""
    from keras_vggface import models, utils

    assert published.path.exists()
    for module in (models, utils):
        with pytest.raises(SetupProblem, match="download on its own"):
            module.get_file("weights.h5", "http://127.0.0.1/weights.h5")


def test_the_published_detector_finds_the_portraits() -> None:
    """One face each, near where it was found once, with points inside the box."""
    from engine.reference import ReferenceDetector, published_detector

    detector = ReferenceDetector(published_detector())
    for photo, expected in free_portraits():
        (face,) = detector.detect(photo)

        assert face.confidence > 0.95
        np.testing.assert_allclose(face.landmarks, expected.landmarks, atol=1.0)
        np.testing.assert_allclose(
            [face.box.x, face.box.y, face.box.w, face.box.h],
            [expected.box.x, expected.box.y, expected.box.w, expected.box.h],
            atol=1.0,
        )
    for shape in ((11, 11, 3), (12, 12, 3), (1, 400, 3), (100, 100, 3)):
        photo = Photo(np.full(shape, 127, np.uint8), (shape[1], shape[0]), "PNG")
        assert detector.detect(photo) == ()


@pytest.mark.parametrize("package", ["tensorflow", "tf_keras", "keras_vggface"])
@pytest.mark.parametrize("published", ["resnet"], indirect=True)
def test_a_missing_extra_is_named(
    published: Published, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence is the command that mends it."""
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(SetupProblem, match=r'pip install "lookalike\[tensorflow\]"'):
        load_backbone(
            published.name,
            models_folder=published.folder,
            cache_folder=tmp_path,
            runtime="tensorflow",
        )
