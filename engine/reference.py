"""The published packages keras-vggface and mtcnn themselves, on TensorFlow.

``runtime = "tensorflow"`` uses them in place of the networks built here, and the tests prove these
equal to them. The only place that knows TensorFlow; needs the extra ``tensorflow``.
"""

import importlib.util
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backbones import BackboneRecord, Malformed
from engine.backbones.network import Backbone
from engine.errors import SetupProblem
from engine.types import Box, Face, Photo

_ARCHITECTURES = {"resnet": "resnet50", "senet": "senet50"}
_SMALLEST_SIDE_PX = 12  # the input of P-Net: the package fails on a smaller picture

_importing = threading.RLock()


def load_reference(record: BackboneRecord, path: Path, sha256: str) -> Backbone:
    """keras-vggface with the weights in ``path``, whose SHA-256 was checked just now.

    Its space is the same as with OpenVINO: the vectors agree to a cosine distance of 1e-5 in f32.
    """
    model, preprocess = published_network(record, path), published_preprocess()
    import tensorflow as tf

    signature = [tf.TensorSpec((None, record.input_px, record.input_px, 3), tf.float32)]
    function = tf.function(lambda pictures: model(pictures, training=False), signature)

    def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        prepared = preprocess(batch.astype(np.float32), data_format="channels_last", version=2)
        return np.asarray(function(tf.constant(prepared)))

    return Backbone(record, sha256, run, precision="f32")


class ReferenceDetector:
    """The package mtcnn, its ``network`` made by :func:`published_detector`, but for its answer.

    That is every face it finds, with sub-pixel points. It is slow (0.2 to 3 s a photo) and was
    never made for several threads: calls take turns.
    """

    def __init__(self, network: Any) -> None:
        self._network = network
        self._turn = threading.Lock()

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


def published_detector() -> Any:
    """An ``MTCNN`` of the package mtcnn; raises SetupProblem if the extra is not installed."""
    with _quiet_tensorflow():
        import mtcnn

        return mtcnn.MTCNN()


def published_preprocess() -> Any:
    """keras-vggface's own ``preprocess_input``."""
    return _keras_vggface().utils.preprocess_input


def published_network(record: BackboneRecord, path: Path | None) -> Any:
    """keras-vggface's own network as a tf-keras model, without its classifier.

    Of ``resnet`` or ``senet``. The weight file is matched by name where all names fit, else by
    order; None leaves random weights, which is of use in tests only. Raises SetupProblem if the
    extra is not installed, and WeightsCorrupt if the weights do not fit the network.
    """
    from engine.backbones import vggface, weights

    published = _keras_vggface()
    with _quiet_tensorflow():
        model = published.vggface.VGGFace(
            model=_ARCHITECTURES[record.name],
            include_top=False,
            weights=None,  # it would download on its own
            input_shape=(record.input_px, record.input_px, 3),
            pooling="avg",
        )
        if path is None:
            return model
        try:
            matched_by, _ = vggface.read_weights(path, vggface.layers(record.name))
            model.load_weights(str(path), by_name=matched_by == "name")
        except (Malformed, ValueError, OSError) as exc:
            raise weights.damaged(record, str(exc)) from exc
    return model


@cache
def _keras_vggface() -> ModuleType:
    """The package keras_vggface with its modules ``vggface`` and ``utils``, imported once.

    keras-vggface 0.6 was written for Keras 2 under its old names. It runs unchanged on tf-keras
    when those names lead there while it is imported; afterwards they are what they were.
    """
    with _quiet_tensorflow(), _old_names():
        import keras_vggface
        import keras_vggface.utils
        import keras_vggface.vggface
    package: ModuleType = keras_vggface
    return package


@contextmanager
def _old_names() -> Iterator[None]:
    """While the block runs, the modules that keras-vggface 0.6 imports have their names of Keras 2.

    Nothing else of that package is there meanwhile.
    """
    import tf_keras
    from tf_keras.src.applications import imagenet_utils

    empty = (
        *("keras.utils", "keras.utils.layer_utils", "keras.utils.data_utils"),
        *("keras.engine", "keras.engine.topology"),
        *("keras_applications", "keras_applications.imagenet_utils"),
    )
    modules: dict[str, Any] = {"keras": tf_keras} | {name: ModuleType(name) for name in empty}
    for name in ("layers", "models", "backend"):
        modules[f"keras.{name}"] = getattr(tf_keras, name)
    modules["keras.utils.data_utils"].get_file = _never_download
    modules["keras.engine.topology"].get_source_inputs = tf_keras.utils.get_source_inputs
    shape = imagenet_utils.obtain_input_shape
    modules["keras_applications.imagenet_utils"]._obtain_input_shape = shape  # noqa: SLF001

    def taken() -> list[str]:
        return [name for name in sys.modules if name.split(".")[0] in modules]

    hidden = {name: sys.modules.pop(name) for name in taken()}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in taken():
            del sys.modules[name]
        sys.modules.update(hidden)


def _never_download(*_: Any, **__: Any) -> str:
    raise SetupProblem("keras-vggface wanted to download on its own; weights come from models/")


@contextmanager
def _quiet_tensorflow() -> Iterator[None]:
    """One thread at a time imports from the extra, or builds; SetupProblem if that can't be done.

    TensorFlow's start-up notes are kept from standard error; its C++ part heeds no Python setting.
    Lines written there by other threads meanwhile are lost as well.
    """
    extra = ("tensorflow", "tf_keras", "keras_vggface", "mtcnn")
    # Before TensorFlow takes seconds to start.
    if missing := [package for package in extra if importlib.util.find_spec(package) is None]:
        raise SetupProblem(
            f'runtime = "tensorflow" needs {", ".join(missing)}: '
            'run `pip install "lookalike[tensorflow]"`'
        )
    with _importing, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level = os.environ.get("TF_CPP_MIN_LOG_LEVEL")
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = level or "3"
        sys.stderr.flush()
        kept = os.dup(2)
        try:
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a path of the system
                os.dup2(nowhere.fileno(), 2)
            import tensorflow as tf

            tf.get_logger().setLevel(logging.ERROR)
            yield
        except ImportError as exc:
            raise SetupProblem(
                f"TensorFlow's packages can't be imported ({exc}): "
                'run `pip install --force-reinstall "lookalike[tensorflow]"`'
            ) from exc
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            if level is None:
                os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)
