"""A backbone on OpenVINO: crops in, unit vectors out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from engine.backbones import BackboneRecord
from engine.backbones.graph import Malformed, kept_graph, writing_code
from engine.errors import WeightsCorrupt
from engine.types import Embedding, Face, Photo, Space

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.runtime import Network

BATCH = 8  # more gains nothing on a processor and delays whoever waits for the first


class NetworkBackbone:
    """A backbone whose graph runs on OpenVINO; safe to use from several threads at once.

    Attributes:
        record: What is known of it.
        space: Which vectors may be compared with its own.
    """

    def __init__(self, record: BackboneRecord, space: Space, network: Network) -> None:
        self.record = record
        self.space = space
        self._network = network

    @classmethod
    def load(
        cls,
        record: BackboneRecord,
        path: Path,
        sha256: str,
        *,
        cache_folder: Path,
        precision: Literal["auto", "f32", "bf16"] = "auto",
        threads: int | None = None,
    ) -> NetworkBackbone:
        """The backbone with the weights in ``path``, whose SHA-256 was checked just now.

        A graph kept under that hash was written from these very weights after each of them was
        checked, so a later start need not read them again.

        Raises:
            WeightsCorrupt: If the weights do not fit the network or can't be used.
            SetupProblem: If the runtime can't be loaded.
        """
        from engine.runtime import compile_network  # 'models list' needs no runtime

        write = functools.partial(_write_graph, record, path, sha256)
        key = f"{sha256[:16]}-{writing_code()}"
        with kept_graph(cache_folder, record.name, key, write) as (graph, compiled_folder):
            network = compile_network(
                graph,
                name=record.name,
                precision=precision,
                threads=threads,
                cache_folder=compiled_folder,
            )
        return cls(record, space_of(record, sha256), network)

    @property
    def precision(self) -> str:
        """What the arithmetic is done in, ``"f32"`` or ``"bf16"``."""
        return self._network.precision

    def crop(self, photo: Photo, face: Face) -> NDArray[np.uint8]:
        """The face as the network wants it: uint8 (S, S, 3) RGB, S = ``record.input_px``."""
        return crop_face(self.record, photo, face)

    def embed(self, crops: Sequence[NDArray[np.uint8]]) -> tuple[Embedding, ...]:
        """One embedding per crop, in the given order.

        Args:
            crops: uint8 (S, S, 3) RGB each.

        Raises:
            ValueError: If a crop has another shape or type.
            WeightsCorrupt: If the network gives a vector without a direction.
        """
        rows: list[NDArray[np.float32]] = []
        for start in range(0, len(crops), BATCH):
            views = _views(self.record, stacked(self.record, crops[start : start + BATCH]))
            (raw,) = self._network.run(np.concatenate(views))
            rows.append(raw.reshape(len(views), -1, self.record.dimensions).sum(axis=0))
        return as_embeddings(rows, self.space)


def _views(record: BackboneRecord, batch: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """What the recipe sums over: batches of the same size, uint8 (N, S, S, 3)."""
    views = [batch]
    if record.closer is not None:
        from engine.align import closer  # loads OpenCV

        views.append(np.stack([closer(crop, record.closer) for crop in batch]))
    if record.mirror:
        views += [view[:, :, ::-1] for view in views]
    return views


def space_of(record: BackboneRecord, sha256: str) -> Space:
    """The space of that backbone's vectors with those weights."""
    return Space(record.name, sha256, record.recipe, record.dimensions)


def crop_face(record: BackboneRecord, photo: Photo, face: Face) -> NDArray[np.uint8]:
    """The face as that backbone's recipe cuts it: uint8 (S, S, 3) RGB."""
    from engine import align  # loads OpenCV

    if record.name == "dlib":
        return align.dlib_crop(photo, face.landmarks)
    return align.vggface2_crop(photo, face.box)


def stacked(record: BackboneRecord, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Crops as one batch, uint8 (N, S, S, 3).

    Raises:
        ValueError: If a crop has another shape or type than the backbone takes.
    """
    shape = (record.input_px, record.input_px, 3)
    for crop in crops:
        if crop.shape != shape or crop.dtype != np.uint8:
            message = f"a crop for {record.name} is uint8 {shape}, not {crop.dtype} {crop.shape}"
            raise ValueError(message)
    return np.stack(crops)


def as_embeddings(rows: Sequence[NDArray[np.float32]], space: Space) -> tuple[Embedding, ...]:
    """Rows of raw network outputs, float32 (N, D) each, as unit vectors.

    Raises:
        WeightsCorrupt: If a row has no direction: zero, or not finite.
    """
    embeddings = []
    for row in (row for batch in rows for row in batch):
        length = float(np.linalg.norm(row.astype(np.float64)))
        if not (np.isfinite(length) and length > 1e-12):
            raise WeightsCorrupt(
                f"the network {space.backbone} answers without a direction; "
                f"run `lookalike models verify {space.backbone}`"
            )
        embeddings.append(Embedding((row / length).astype(np.float32), space))
    return tuple(embeddings)


def _write_graph(record: BackboneRecord, path: Path, sha256: str, folder: Path) -> Path:
    """Writes the record's network with the weights in ``path``; the graph's path."""
    from engine.backbones import weights  # it imports the records beside this module

    try:
        graph = _writer(record)(path, folder)
    except Malformed as exc:
        raise WeightsCorrupt(weights.damaged(record, str(exc))) from exc
    # The file may have been replaced between the check and the reading.
    if weights.file_sha256(path) != sha256:
        raise WeightsCorrupt(weights.damaged(record, "the file changed while it was read"))
    return graph


def _writer(record: BackboneRecord) -> Callable[[Path, Path], Path]:
    if record.name == "dlib":
        from engine.backbones import dlib  # only when a graph is written

        return lambda path, folder: dlib.write_graph(dlib.read_weights(path.read_bytes()), folder)
    from engine.backbones import vggface  # only when a graph is written

    variant = vggface.VARIANTS[record.name]
    return lambda path, folder: vggface.write_graph(path, variant, folder, name=record.name)
