"""The published packages keras-vggface and mtcnn themselves, on TensorFlow.

``runtime = "tensorflow"`` uses them in place of the graphs written here, and the tests prove these
equal to them. The only place that knows TensorFlow; needs the extra ``tensorflow``.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.backbones.network import BATCH, as_embeddings, crop_face, space_of, stacked
from engine.errors import SetupProblem, WeightsCorrupt
from engine.types import Box, Embedding, Face, Photo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.backbones import BackboneRecord
    from engine.types import Space

_ARCHITECTURES: Mapping[str, str] = MappingProxyType({"resnet": "resnet50", "senet": "senet50"})
_SMALLEST_SIDE_PX = 12  # the input of P-Net: the package fails on a smaller picture

_importing = threading.RLock()


class ReferenceBackbone:
    """keras-vggface with the weights of this machine; safe to use from several threads at once.

    Attributes:
        record: What is known of it.
        space: The same as with OpenVINO: the vectors agree to a cosine distance of 1e-5 in f32.
    """

    precision = "f32"

    def __init__(self, record: BackboneRecord, space: Space, model: Any) -> None:
        self.record = record
        self.space = space
        self._answer = _compiled(model, record.input_px)

    @classmethod
    def load(cls, record: BackboneRecord, path: Path, sha256: str) -> ReferenceBackbone:
        """The backbone with the weights in ``path``, whose SHA-256 was checked just now.

        Raises:
            SetupProblem: If the extra is not installed.
            WeightsCorrupt: If the weights do not fit the network.
        """
        return cls(record, space_of(record, sha256), published_network(record, path))

    def crop(self, photo: Photo, face: Face) -> NDArray[np.uint8]:
        """The face as the network wants it: uint8 (224, 224, 3) RGB."""
        return crop_face(self.record, photo, face)

    def embed(self, crops: Sequence[NDArray[np.uint8]]) -> tuple[Embedding, ...]:
        """One embedding per crop, in the given order.

        Args:
            crops: uint8 (224, 224, 3) RGB each.

        Raises:
            ValueError: If a crop has another shape or type.
            WeightsCorrupt: If the network gives a vector without a direction.
        """
        rows = []
        for start in range(0, len(crops), BATCH):
            batch = stacked(self.record, crops[start : start + BATCH]).astype(np.float32)
            prepared = _keras_vggface().utils.preprocess_input(
                batch, data_format="channels_last", version=2
            )
            rows.append(self._answer(prepared))
        return as_embeddings(rows, self.space)


class ReferenceDetector:
    """The package mtcnn as it is, but for its answer: every face it finds, with sub-pixel points.

    It is slow (0.2 to 3 s a photo) and was never made for several threads: calls take turns.
    """

    def __init__(self, network: Any) -> None:
        self._network = network
        self._turn = threading.Lock()

    @classmethod
    def load(cls) -> ReferenceDetector:
        """The detector, ready.

        Raises:
            SetupProblem: If the extra is not installed.
        """
        return cls(published_detector())

    def detect(self, photo: Photo) -> tuple[Face, ...]:
        """Every face in the photo, largest first; empty if there is none."""
        from engine.align import concerns

        if min(photo.pixels.shape[:2]) < _SMALLEST_SIDE_PX:
            return ()
        with self._turn, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of NumPy and Keras inside the package
            found = self._network.detect_faces(
                photo.pixels, output_type="numpy", box_format="xyxy", fit_to_image=False
            )
        faces = []
        for row in np.asarray(found, np.float64).reshape(-1, 16):
            left, top, right, bottom = row[1:5]
            if right <= left or bottom <= top:
                continue
            box = Box(left, top, right - left, bottom - top)
            landmarks = np.stack([row[6:11], row[11:16]], axis=1).astype(np.float32)
            concern = concerns(photo, box, landmarks)
            faces.append(Face(box, landmarks, min(1.0, float(row[5])), concern))
        return tuple(sorted(faces, key=lambda face: -face.box.area_px))


def _compiled(model: Any, input_px: int) -> Callable[[Any], NDArray[np.float32]]:
    """The model as one TensorFlow function for batches of any size."""
    import tensorflow as tf

    signature = [tf.TensorSpec((None, input_px, input_px, 3), tf.float32)]
    function = tf.function(lambda pictures: model(pictures, training=False), signature)
    return lambda pictures: np.asarray(function(tf.constant(pictures)))


def published_detector() -> Any:
    """An ``MTCNN`` of the package mtcnn.

    Raises:
        SetupProblem: If the extra is not installed.
    """
    with _importing, _quiet():
        _tensorflow()
        import mtcnn

        return mtcnn.MTCNN()


def published_preprocess() -> Any:
    """keras-vggface's own ``preprocess_input``.

    Raises:
        SetupProblem: If the extra is not installed.
    """
    return _keras_vggface().utils.preprocess_input


def published_network(record: BackboneRecord, path: Path | None) -> Any:
    """keras-vggface's own network as a tf-keras model, without its classifier.

    Args:
        record: ``resnet`` or ``senet``.
        path: A weight file, matched by name where all names fit, else by order; None leaves the
            network with random weights, which is of use in tests only.

    Raises:
        SetupProblem: If the extra is not installed.
        WeightsCorrupt: If the weights do not fit the network.
    """
    from engine.backbones import vggface, weights
    from engine.backbones.graph import Malformed
    from engine.backbones.vggface import open_keras_weights

    published = _keras_vggface()
    with _quiet():
        model = published.vggface.VGGFace(
            model=_ARCHITECTURES[record.name],
            include_top=False,
            weights=None,  # it would download on its own
            input_shape=(vggface.INPUT_PX, vggface.INPUT_PX, 3),
            pooling="avg",
        )
        if path is None:
            return model
        try:
            with open_keras_weights(path, vggface.layers(vggface.VARIANTS[record.name])) as opened:
                by_name = opened.matched_by == "name"
            model.load_weights(str(path), by_name=by_name)
        except (Malformed, ValueError, OSError) as exc:
            raise WeightsCorrupt(weights.damaged(record, str(exc))) from exc
    return model


@cache
def _keras_vggface() -> ModuleType:
    """The package keras_vggface with its modules ``vggface`` and ``utils``, imported once.

    keras-vggface 0.6 was written for Keras 2 under its old names. It runs unchanged on tf-keras
    when those names lead there while it is imported; afterwards they are what they were.
    """
    _require("tensorflow", "tf_keras", "keras_vggface")
    with _importing, _quiet():
        _tensorflow()
        with _broken_extra():
            import tf_keras
            from tf_keras.src.applications import imagenet_utils

            names = _old_names(tf_keras, imagenet_utils.obtain_input_shape)
            with _standing_in(names):
                import keras_vggface
                import keras_vggface.utils
                import keras_vggface.vggface
    package: ModuleType = keras_vggface
    return package


def _tensorflow() -> None:
    with _importing, _broken_extra():
        import tensorflow as tf
    tf.get_logger().setLevel(logging.ERROR)


def _old_names(tf_keras: Any, obtain_input_shape: Any) -> dict[str, ModuleType]:
    """The modules that keras-vggface 0.6 imports, by their names in Keras 2.2."""
    layer_utils = _module("keras.utils.layer_utils")
    data_utils = _module("keras.utils.data_utils", get_file=_never_download)
    topology = _module("keras.engine.topology", get_source_inputs=tf_keras.utils.get_source_inputs)
    imagenet_utils = _module(
        "keras_applications.imagenet_utils", _obtain_input_shape=obtain_input_shape
    )
    return {
        "keras": tf_keras,
        "keras.layers": tf_keras.layers,
        "keras.models": tf_keras.models,
        "keras.backend": tf_keras.backend,
        "keras.utils": _module("keras.utils", layer_utils=layer_utils, data_utils=data_utils),
        "keras.utils.layer_utils": layer_utils,
        "keras.utils.data_utils": data_utils,
        "keras.engine": _module("keras.engine", topology=topology),
        "keras.engine.topology": topology,
        "keras_applications": _module("keras_applications", imagenet_utils=imagenet_utils),
        "keras_applications.imagenet_utils": imagenet_utils,
    }


def _module(name: str, **contents: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(contents)
    return module


def _never_download(*_: Any, **__: Any) -> str:
    raise SetupProblem("keras-vggface wanted to download on its own; weights come from models/")


@contextmanager
def _standing_in(modules: Mapping[str, ModuleType]) -> Iterator[None]:
    """These modules stand under these names while the block runs; nothing else of that package."""
    roots = {name.split(".")[0] for name in modules}
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if _root(name) in roots}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if _root(name) in roots]:
            del sys.modules[name]
        sys.modules.update(hidden)


def _root(name: str) -> str:
    return name.split(".", maxsplit=1)[0]


def _require(*packages: str) -> None:
    """Says what is missing before TensorFlow takes seconds to start."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise SetupProblem(
            f'runtime = "tensorflow" needs {", ".join(missing)}: '
            'run `pip install "lookalike[tensorflow]"`'
        )


@contextmanager
def _broken_extra() -> Iterator[None]:
    try:
        yield
    except ImportError as exc:
        raise SetupProblem(
            f"TensorFlow's packages can't be imported ({exc}): "
            'run `pip install --force-reinstall "lookalike[tensorflow]"`'
        ) from exc


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TensorFlow's start-up notes from standard error; its C++ part heeds no Python setting.

    Lines written there by other threads meanwhile are lost as well; that is why it lasts no longer
    than importing and building.
    """
    level = os.environ.get("TF_CPP_MIN_LOG_LEVEL")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = level or "3"
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a path of the system
            os.dup2(nowhere.fileno(), 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        if level is None:
            os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)
