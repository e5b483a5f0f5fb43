"""Keeps a gallery whole: vectors for every portrait, nothing dead, nothing lost, scores learned.

Everything here is for one process at a time (``Gallery.writing``).
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from engine.decode import decode
from engine.errors import GalleryCorrupt, LookalikeError, SetupProblem
from engine.pipeline import Engine
from engine.types import Face, Space
from gallery import registrar
from gallery.catalogue import Portrait
from gallery.collection import Gallery
from gallery.database import changing
from gallery.disk import write_atomically
from gallery.intake import append_rows
from gallery.report import Progress, Report
from gallery.spaces import SpaceState
from gallery.vectors import VectorFiles, generation_files

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
    """Forgets a space whose files are gone or too short, so that it is made anew."""
    state = _state(gallery, space)
    if state is None:
        return
    try:
        files = VectorFiles.open(gallery.space_folder(space), space, state.generation)
        files.vectors(state.row_count)
        files.codes(state.row_count)
        files.records(state.row_count)
    except (FileNotFoundError, GalleryCorrupt):
        with changing(gallery.catalogue.database) as connection:
            registrar.delete_space(connection, space)
            registrar.note_change(connection)


def embed_missing(
    gallery: Gallery, engine: Engine, backbone: str, report: Report, progress: Progress
) -> None:
    """Makes the vectors that portraits lack in a backbone's space, from their thumbnails.

    A portrait whose thumbnail can't be read is removed and reported.
    """
    space = engine.backbone(backbone).space
    missing = np.setdiff1d(gallery.catalogue.portrait_ids(), gallery.embedded(space))
    done = 0
    with ThreadPoolExecutor() as pool:
        while done < len(missing):
            progress(backbone, done, len(missing))
            batch = missing[done : done + _BATCH].tolist()
            portraits = list(gallery.catalogue.portraits_by_id(batch).values())
            crops = list(pool.map(lambda portrait: _crop(engine, backbone, portrait), portraits))
            _append(gallery, engine, backbone, portraits, crops, report)
            done += len(batch)
    if len(missing):
        progress(backbone, done, len(missing))


def _crop(engine: Engine, backbone: str, portrait: Portrait) -> NDArray[np.uint8] | None:
    try:
        photo = decode(portrait.thumbnail.read_bytes())  # the settings limit what others send
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
    """Drops dead rows from a space's files."""
    state = _state(gallery, space)
    if state is None or len(state.dead) == 0:
        return
    files = VectorFiles.open(gallery.space_folder(space), space, state.generation)
    fresh = files.compacted(state.row_count, state.dead).manifest
    with changing(gallery.catalogue.database) as connection:
        registrar.set_rows(connection, space, generation=fresh.generation, row_count=fresh.rows)
        registrar.unbury_rows(connection, space)
        registrar.note_change(connection)


def drop_other_versions(gallery: Gallery, space: Space) -> None:
    """Forgets spaces of the same backbone with other weights or another recipe."""
    for state in gallery.catalogue.space_states():
        if state.space.backbone == space.backbone and state.space != space:
            with changing(gallery.catalogue.database) as connection:
                registrar.delete_space(connection, state.space)
                registrar.note_change(connection)


def learn_scores(gallery: Gallery, space: Space) -> None:
    """Fits a space's calibration, if enough has changed since it was fitted last."""
    from gallery.calibration import fit

    gallery.refresh()
    state = _state(gallery, space)
    if state is None or state.row_count == len(state.dead):
        return
    rows = state.row_count - len(state.dead)
    path = gallery.space_folder(space) / "calibration.json"
    if abs(rows - _learned_from(gallery, space)) <= _LEARN_AFTER * rows:
        return
    limit = min(_LEARN_ROWS, _LEARN_BYTES // (4 * space.dimensions))
    vectors, persons = gallery.index(space).training_rows(limit)
    learned = {"rows": rows, "calibration": fit(space, vectors, persons).to_json()}
    write_atomically(path, json.dumps(learned, indent=2).encode())
    with changing(gallery.catalogue.database) as connection:
        registrar.note_change(connection)


def _learned_from(gallery: Gallery, space: Space) -> float:
    """How many rows a calibration was fitted on; far from any number if there is none."""
    try:
        gallery.calibration(space)
        path = gallery.space_folder(space) / "calibration.json"
        return float(json.loads(path.read_bytes())["rows"])
    except (GalleryCorrupt, FileNotFoundError, ValueError, KeyError, TypeError):
        return float("-inf")


def sweep_portraits(gallery: Gallery, report: Report) -> None:
    """Removes thumbnails that no portrait has, and portraits whose thumbnail is gone."""
    wanted = set(gallery.catalogue.hashes())
    kept = set()
    for path, size_bytes in _files_below(gallery.catalogue.portraits_folder):
        if path.suffix == ".jpg" and path.stem in wanted and size_bytes > 0:
            kept.add(path.stem)
        elif path.suffix in {".jpg", ".part"}:
            path.unlink()
            report.swept += 1
    if lost := wanted - kept:
        with changing(gallery.catalogue.database) as connection:
            portraits = gallery.catalogue.portraits_by_hash(lost)
            _drop_portraits(gallery, connection, portraits, report)
            registrar.note_change(connection)


def sweep_vectors(gallery: Gallery, report: Report) -> None:
    """Removes vectors of spaces and generations that don't count."""
    root = gallery.folder / "vectors"
    generations = {s.space.id: s.generation for s in gallery.catalogue.space_states()}
    for folder in root.iterdir() if root.is_dir() else ():
        if not folder.is_dir():
            continue
        if folder.name not in generations:
            report.swept += sum(1 for _ in folder.iterdir())
            shutil.rmtree(folder)
            continue
        for path, generation in generation_files(folder).items():
            if generation != generations[folder.name]:
                path.unlink()
                report.swept += 1


def _files_below(folder: Path) -> Iterator[tuple[Path, int]]:
    with contextlib.suppress(FileNotFoundError):
        for path in folder.glob("*/*"):
            yield path, path.stat().st_size


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
    """Marks the rows of portraits, in every space, as no longer counting."""
    for state in gallery.catalogue.space_states():
        folder = gallery.space_folder(state.space)
        try:
            files = VectorFiles.open(folder, state.space, state.generation)
            records = files.records(state.row_count)
        except (FileNotFoundError, GalleryCorrupt):
            registrar.delete_space(connection, state.space)
            continue
        rows = np.flatnonzero(np.isin(records["portrait"], portrait_ids))
        registrar.bury_rows(connection, state.space, np.setdiff1d(rows, state.dead))


def _state(gallery: Gallery, space: Space) -> SpaceState | None:
    return next((s for s in gallery.catalogue.space_states() if s.space == space), None)
