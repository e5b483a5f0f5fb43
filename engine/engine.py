"""Photo -> faces -> embeddings: the one door into the engine for everybody else."""

import contextlib
import functools
import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from engine import decode as decoding
from engine.align import SMALL_PX
from engine.backbones import find_record
from engine.backbones.network import Backbone
from engine.decode import DecodeLimits, Part
from engine.errors import FaceTooSmall, NoFace, PhotoProblem, WeightsCorrupt, WeightsMissing
from engine.remote import EngineService, Look
from engine.runtime import Precision, compile_network, cores
from engine.runtime import __file__ as runtime_file
from engine.types import Concern, Embedding, Face, Photo

_FAR = 4.0  # times reduced: the first look may have missed a face that is large enough
_AROUND = 2.0  # how far a second look reaches beyond faces, in sides of the largest


Step = Callable[[str], AbstractContextManager[object]]


class FaceFinder(Protocol):
    """Finds faces; safe to call from several threads at once."""

    def detect(self, photo: Photo) -> tuple[Face, ...]:
        """Every face in the photo, largest first; empty if there is none."""


@dataclass(kw_only=True, eq=False)
class Engine:
    """Decodes, detects and embeds; safe to call from several threads at once.

    The detector and each backbone are loaded at first use, under a lock, and kept. Pictures are
    decoded in ``workers``, processes of their own; else in this one, which suits a command that
    reads one photo and ends. Where detector and backbones are those of a ``service``, it sees
    picture files, too, while they are decoded here for the card.
    """

    load_detector: Callable[[], FaceFinder]
    load_backbone: Callable[[str], Backbone]
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    workers: bool = True
    service: EngineService | None = None

    def __post_init__(self) -> None:
        self._detector: FaceFinder | None = None
        self._backbones: dict[str, Backbone] = {}
        self._detector_lock, self._backbone_lock = threading.Lock(), threading.Lock()
        # Of a gallery's portraits, of which some are found again and again: 0.3 MB each.
        self.decode_portrait = functools.lru_cache(maxsize=24)(self.decode)

    def decode(
        self, data: bytes, part: Part | None = None, finer: int = 1, *, waits: bool = True
    ) -> Photo:
        """The picture in untrusted bytes or that part, see :func:`engine.decode.decode`."""
        limits = replace(self.limits, part=part, long_side_px=finer * self.limits.long_side_px)
        if self.workers:
            return decoding.decode(data, limits, waits=waits)
        from engine.decode_worker import decode_here  # Pillow, which workers need alone

        return decode_here(data, limits)

    def load(self, backbone: str) -> None:
        """Loads the detector and a backbone, side by side, so that the first photo finds them.

        A decode worker starts meanwhile. Raises WeightsMissing or WeightsCorrupt.
        """
        if self.workers:
            decoding.start()
        with ThreadPoolExecutor(1) as beside:
            detector = beside.submit(self._loaded_detector)
            self.backbone(backbone)
            detector.result()

    def look(
        self,
        data: bytes,
        models: Sequence[str] = (),
        step: Step = nullcontext,
        *,
        waits: bool = True,
    ) -> Look:
        """The picture in untrusted bytes, its faces, and embeddings that were no further trouble.

        Where the engine is elsewhere these are those of the first face that can be compared. The
        picture is the part of it around the faces where ``detect_closer`` says so; ``step`` wraps
        the steps "decode" and "detect". Where the engine is here and does not wait, a heavy picture
        raises Heavy; see :func:`engine.decode.decode`.
        """
        if self.service is None:
            with step("decode"):
                photo = self.decode(data, waits=waits)
            with step("detect"):
                return *self.detect_closer(photo, self.detect(photo), data, waits=waits), {}
        with step("detect"):
            return self.service.look(data, models, self.decode)

    def detect(self, photo: Photo) -> tuple[Face, ...]:
        """Every face in the photo, largest first; empty if there is none."""
        return self._loaded_detector().detect(photo)

    def detect_closer(
        self, photo: Photo, faces: tuple[Face, ...], data: bytes, *, waits: bool = True
    ) -> tuple[Photo, tuple[Face, ...]]:
        """The photo and its faces, or the part of it around these with more of the file's pixels.

        A second look is taken where a large picture's faces are all too small after the reduction:
        at all of them or, where they are too far apart for that, at the largest that is sure. One
        of four times as many pixels is taken where there are none in a picture of 50 megapixels.
        """
        reduced = photo.source_size_px[0] / photo.width_px
        if reduced > _FAR and not faces:
            with contextlib.suppress(PhotoProblem):
                larger = self.decode(data, finer=2, waits=waits)
                if found := self.detect(larger):
                    return self.detect_closer(larger, found, data, waits=waits)
        if reduced <= 1 or not _all_small(faces):
            return photo, faces
        surest = max(faces, key=lambda face: (round(face.confidence, 1), face.box.area_px))
        for some in (faces, (surest,)):
            boxes = np.array([(f.box.x, f.box.y, f.box.w, f.box.h) for f in some]) * reduced
            size = boxes[:, 2:].max()
            start, end = boxes[:, :2] - _AROUND * size, boxes[:, :2] + boxes[:, 2:] + _AROUND * size
            edges = start.min(axis=0), end.max(axis=0)
            part = np.clip(edges, 0, photo.source_size_px).astype(int)
            width, height = (part[1] - part[0]).tolist()
            most_px = self.limits.long_side_px * decoding.stretch(width, height)
            if size < SMALL_PX * max(1.0, max(width, height) / most_px):
                continue
            with contextlib.suppress(PhotoProblem):  # it takes more memory or time than there is
                near = self.decode(data, tuple(part.ravel().tolist()), waits=waits)
                seen = self.detect(near)
                if seen and not _all_small(seen):
                    return near, seen
        return photo, faces

    def _loaded_detector(self) -> FaceFinder:
        if self._detector is None:
            with self._detector_lock:
                if self._detector is None:
                    self._detector = self.load_detector()
        return self._detector

    def backbone(self, name: str) -> Backbone:
        """The backbone of that name, loaded and ready; raises WeightsMissing or WeightsCorrupt."""
        if name not in self._backbones:
            with self._backbone_lock:
                if name not in self._backbones:
                    self._backbones[name] = self.load_backbone(name)
        return self._backbones[name]

    def why_unavailable(self, name: str) -> str | None:
        """Why that backbone can't be used, as a sentence; None if it is ready."""
        try:
            self.backbone(name)
        except (WeightsMissing, WeightsCorrupt) as problem:
            return str(problem)
        return None

    def embed(
        self, sightings: Sequence[tuple[Photo, Face]], backbone: str
    ) -> tuple[Embedding, ...]:
        """One embedding per face, in the given order; faces of several photos share a batch."""
        if not sightings:
            return ()
        network = self.backbone(backbone)
        return network.embed([network.crop(photo, face) for photo, face in sightings])


def _all_small(faces: Sequence[Face]) -> bool:
    return bool(faces) and all(Concern.SMALL in face.concerns for face in faces)


def comparable(faces: Sequence[Face]) -> tuple[Face, ...]:
    """The faces that are large enough to be compared, in the given order.

    Raises NoFace if there is no face at all, FaceTooSmall if every face is too small.
    """
    if not faces:
        raise NoFace("there is no face in the picture")
    large = tuple(face for face in faces if Concern.SMALL not in face.concerns)
    if not large:
        edge_px = round(max(min(face.box.w, face.box.h) for face in faces))
        raise FaceTooSmall(f"the largest face is only {edge_px} px wide", edge_px=edge_px)
    return large


def load_backbone(
    name: str,
    *,
    models_folder: Path,
    cache_folder: Path,
    runtime: Literal["openvino", "tensorflow"] = "openvino",
    precision: Precision = "auto",
    threads: int | None = None,
) -> Backbone:
    """A backbone, checked and ready to embed.

    A compiled network is kept in the cache folder under the hash of the weights, every one of which
    was checked when it was built, so a later start need not read them again. ``tensorflow`` runs
    the published package keras-vggface itself, in f32; ``dlib`` was never published for TensorFlow
    and runs on OpenVINO either way. Precision and threads: see ``runtime.compile_network``;
    ``auto`` is int8 only where ``BackboneRecord.int8`` says that this loses nothing.

    Raises:
        BadSettings: If there is no such backbone.
        WeightsMissing: If its weights are not on this machine.
        WeightsCorrupt: If they can't be used.
        SetupProblem: If the runtime is not installed.
    """
    from engine.backbones import weights  # loads hashing and the client of the mirror

    record = find_record(name)
    path = weights.installed(name, models_folder)
    sha256 = weights.checked_sha256(name, path)
    if runtime == "tensorflow" and not record.bundled:
        from engine.reference import load_reference  # needs the extra

        return load_reference(record, path, sha256)

    def build() -> Any:
        graph = weights.build_graph(record, path)
        # The file may have been replaced between the check and the reading.
        if weights.file_sha256(path) != sha256:
            raise weights.damaged(record, "the file changed while it was read")
        return graph

    key, here = hashlib.sha256(sha256.encode()), Path(weights.__file__).parent
    # A network built by older code is not used.
    for source in (*sorted(here.glob("*.py")), here.parent / "align.py", Path(runtime_file)):
        key.update(source.read_bytes())
    backbone = Backbone(record, sha256, lambda crops: network.run(crops)[0], precision)
    network = compile_network(
        build,
        name=name,
        precision=precision,
        threads=threads or (max(1, cores() // 2) if record.closer else None),  # two views
        cache_folder=cache_folder,
        key=key.hexdigest(),
        samples=backbone.samples if record.int8 or precision == "int8" else None,
    )
    return replace(backbone, precision=network.precision)
