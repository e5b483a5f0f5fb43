"""Keeps a gallery whole: vectors for every portrait, nothing dead, nothing lost, scores learned.

Everything here is for one process at a time (``Gallery.writing``).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from engine.decode import decode
from engine.engine import Engine
from engine.errors import GalleryCorrupt, LookalikeError, SetupProblem
from engine.types import Face, Space
from gallery import registrar
from gallery.database import changing
from gallery.gallery import Gallery
from gallery.progress import Progress, Report
from gallery.records import Portrait
from gallery.registrar import append_rows
from gallery.scores import Learned, read_learned
from gallery.silhouette import lacks_photo
from gallery.spaces import SpaceState

__all__ = [
    "bury_portraits",
    "compact",
    "drop_damaged_space",
    "drop_other_versions",
    "embed_missing",
    "learn_scores",
    "sweep_portraits",
    "sweep_vectors",
]

_BATCH: Final = 64
_LEARN_AFTER: Final = 0.1  # part of the rows that must be new before scores are learned again
_LEARN_BYTES: Final = 80_000_000
_LEARN_ROWS: Final = 20_000


def drop_damaged_space(gallery: Gallery, space: Space) -> None:
    """Forgets a space whose vectors are gone or incomplete, so that it is made anew."""
    gallery.storage.drop_damaged(space)


def embed_missing(
    gallery: Gallery, engine: Engine, backbone: str, report: Report, progress: Progress
) -> None:
    """Makes the vectors that portraits lack in a backbone's space, from their thumbnails.

    A portrait whose thumbnail can't be read is removed and reported; one whose photo never came
    along (gallery/silhouette.py) is left as it is.
    """
    space = engine.backbone(backbone).space
    missing = np.setdiff1d(gallery.catalogue.portrait_ids(), gallery.embedded(space))
    done = 0
    with ThreadPoolExecutor() as pool:
        while done < len(missing):
            progress(backbone, done, len(missing))
            batch = missing[done : done + _BATCH].tolist()
            portraits = list(gallery.catalogue.portraits_by_id(batch).values())
            gallery.storage.present(portraits)
            portraits = [one for one in portraits if not lacks_photo(gallery, one)]
            crops = list(pool.map(lambda one: _crop(gallery, engine, backbone, one), portraits))
            if portraits:
                _append(gallery, engine, backbone, portraits, crops, report)
            done += len(batch)
    if len(missing):
        progress(backbone, done, len(missing))


def _crop(
    gallery: Gallery, engine: Engine, backbone: str, portrait: Portrait
) -> NDArray[np.uint8] | None:
    try:
        photo = decode(gallery.picture(portrait))  # the settings limit what others send
        if (photo.width_px, photo.height_px) != (portrait.width_px, portrait.height_px):
            return None
        face = Face(portrait.box, portrait.landmarks, confidence=1.0)
        return engine.backbone(backbone).crop(photo, face)
    except SetupProblem:
        raise
    except (OSError, LookalikeError):
        return None


def _append(
    gallery: Gallery,
    engine: Engine,
    backbone: str,
    portraits: Sequence[Portrait],
    crops: Sequence[NDArray[np.uint8] | None],
    report: Report,
) -> None:
    network = engine.backbone(backbone)
    pairs = list(zip(portraits, crops, strict=True))
    whole = [(portrait, crop) for portrait, crop in pairs if crop is not None]
    vectors = [e.vector for e in network.embed([crop for _, crop in whole])] if whole else []
    with changing(gallery.catalogue.database) as connection:
        if whole:
            append_rows(
                connection,
                gallery,
                network.space,
                np.stack(vectors),
                [portrait.id for portrait, _ in whole],
                [portrait.person_id for portrait, _ in whole],
            )
        lost = [portrait for portrait, crop in pairs if crop is None]
        _drop_portraits(gallery, connection, lost, report)
        registrar.note_change(connection)
    report.embedded[backbone] += len(whole)


def compact(gallery: Gallery, space: Space) -> None:
    """Makes a space take no more room, and search no longer, than it must."""
    gallery.storage.compact(space)


def drop_other_versions(gallery: Gallery, space: Space) -> None:
    """Forgets spaces of the same backbone with other weights or another recipe."""
    for state in gallery.catalogue.space_states():
        if state.space.backbone == space.backbone and state.space != space:
            with changing(gallery.catalogue.database) as connection:
                registrar.delete_space(connection, state.space)
                registrar.note_change(connection)


def learn_scores(gallery: Gallery, space: Space) -> None:
    """Fits a space's calibration, if enough has changed since it was fitted last."""
    from gallery.scores.fit import fit_calibration

    gallery.refresh()
    state = _state(gallery, space)
    if state is None or state.row_count == len(state.dead):
        return
    rows = state.row_count - len(state.dead)
    if abs(rows - _learned_from(gallery, space)) <= _LEARN_AFTER * rows:
        return
    limit = min(_LEARN_ROWS, _LEARN_BYTES // (4 * space.dimensions))
    vectors, persons = gallery.index(space).training_rows(limit)
    content = Learned(rows, fit_calibration(space, vectors, persons)).content()
    with changing(gallery.catalogue.database) as connection:
        gallery.storage.keep_calibration(connection, space, content)
        registrar.note_change(connection)


def _learned_from(gallery: Gallery, space: Space) -> float:
    """How many rows a calibration was fitted on; far from any number if there is none."""
    try:
        learned = read_learned(gallery.storage, space)
    except GalleryCorrupt:
        learned = None
    return learned.rows if learned else float("-inf")


def sweep_portraits(gallery: Gallery, report: Report) -> None:
    """Removes thumbnails that no portrait has, and portraits whose thumbnail is gone."""
    swept = gallery.storage.sweep_pictures(set(gallery.catalogue.hashes()))
    report.swept += swept.removed
    if swept.lost:
        with changing(gallery.catalogue.database) as connection:
            portraits = gallery.catalogue.portraits_by_hash(swept.lost)
            _drop_portraits(gallery, connection, portraits, report)
            registrar.note_change(connection)


def sweep_vectors(gallery: Gallery, report: Report) -> None:
    """Removes vectors of spaces and generations that don't count."""
    report.swept += gallery.storage.sweep_vectors()


def _drop_portraits(
    gallery: Gallery, connection: Connection, portraits: Sequence[Portrait], report: Report
) -> None:
    if not portraits:
        return
    ids = [portrait.id for portrait in portraits]
    owners = gallery.catalogue.people_by_id({portrait.person_id for portrait in portraits})
    bury_portraits(gallery, connection, ids)
    registrar.delete_portraits(connection, ids)
    report.dropped += [owners[portrait.person_id].name for portrait in portraits]


def bury_portraits(gallery: Gallery, connection: Connection, portrait_ids: Sequence[int]) -> None:
    """Takes the vectors of portraits away, in every space."""
    gallery.storage.bury(connection, portrait_ids)


def _state(gallery: Gallery, space: Space) -> SpaceState | None:
    return next((s for s in gallery.catalogue.space_states() if s.space == space), None)
