"""What of a gallery is stored and fits together: files, catalogue, vectors, scores."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from engine.errors import GalleryCorrupt
from engine.types import Space
from gallery.file_storage import FileStorage
from gallery.gallery import Gallery
from gallery.progress import Progress
from gallery.spaces import SpaceState
from gallery.tables import CategoryRow, PersonCategoryRow, PortraitRow
from gallery.vectors import VectorFiles, generation_files
from gallery.verifying.findings import Finding, Kind, Remedy, Subject

__all__ = ["Roster", "catalogue_findings", "roster", "space_findings", "stray_findings"]

_SETTLED_S: Final = 600.0  # younger files may belong to somebody who is adding people
_CHUNK: Final = 4096
_LENGTH: Final = 1e-3  # what a unit vector's length may be off, as in engine.types.Embedding


@dataclass(frozen=True, slots=True, eq=False)
class Roster:
    """Who has which portraits.

    Attributes:
        portrait_ids: int64 (N,), by person.
        person_ids: int64 (N,), rising: whose each is.
        names: Of everybody, by person id.
    """

    portrait_ids: NDArray[np.int64]
    person_ids: NDArray[np.int64]
    names: dict[int, str]

    def chunks(self) -> Iterator[slice]:
        """Slices of the portraits that never part a person's."""
        start = 0
        while start < len(self.person_ids):
            end = start + _CHUNK
            if end < len(self.person_ids):
                last = self.person_ids[end]
                while end < len(self.person_ids) and self.person_ids[end] == last:
                    end += 1
            yield slice(start, end)
            start = end

    def having(self, portrait_ids: NDArray[np.int64]) -> Roster:
        """The same without other portraits."""
        kept = np.isin(self.portrait_ids, portrait_ids)
        return Roster(self.portrait_ids[kept], self.person_ids[kept], self.names)


def roster(gallery: Gallery) -> Roster:
    """Who has which portraits now."""
    query = select(PortraitRow.id, PortraitRow.person_id)
    with gallery.catalogue.snapshot() as connection:
        rows = connection.execute(query.order_by(PortraitRow.person_id, PortraitRow.id)).all()
    table = np.asarray([tuple(row) for row in rows], np.int64).reshape(-1, 2)
    names = {person.id: person.name for person in gallery.people()}
    return Roster(table[:, 0].copy(), table[:, 1].copy(), names)


def catalogue_findings(gallery: Gallery) -> list[Finding]:
    """People without portraits, categories without people."""
    counts = gallery.portrait_counts()
    found = [
        Finding(
            Kind.NOBODY,
            f"{person.name} has no portrait and can't be found",
            0,
            Remedy.DELETE,
            Subject(person.id, person.name),
        )
        for person in gallery.people()
        if person.id not in counts
    ]
    used = select(PersonCategoryRow.category_id)
    with gallery.catalogue.snapshot() as connection:
        empty = connection.scalars(select(CategoryRow.name).where(CategoryRow.id.not_in(used)))
        found += [
            Finding(Kind.EMPTY, f"nobody is in the category {name}", 0, Remedy.SWEEP)
            for name in sorted(empty)
        ]
    return found


def stray_findings(gallery: Gallery, *, alone: bool) -> list[Finding]:
    """Files that no portrait and no space needs.

    Args:
        gallery: Whose; a database keeps such out by itself.
        alone: Whether nobody else can be writing (``Gallery.writing``).
    """
    if not isinstance(gallery.storage, FileStorage):
        return []
    before = math.inf if alone else time.time() - _SETTLED_S
    found = []
    for what, paths in (
        ("pictures of no portrait, or unfinished", _stray_pictures(gallery)),
        ("files of vectors that don't count", _stray_vectors(gallery)),
    ):
        stray = [path for path in paths if _written_before(path, before)]
        if stray:
            why = f"{len(stray):,} {what}: {', '.join(path.name for path in stray[:3])}" + (
                ", ..." if len(stray) > 3 else ""
            )
            found.append(Finding(Kind.STRAY, why, len(stray), Remedy.SWEEP))
    return found


def _stray_pictures(gallery: Gallery) -> Iterator[Path]:
    wanted = set(gallery.catalogue.hashes())
    for path in sorted(gallery.catalogue.portraits_folder.glob("*/*")):
        if path.suffix == ".part" or (path.suffix == ".jpg" and path.stem not in wanted):
            yield path


def _stray_vectors(gallery: Gallery) -> Iterator[Path]:
    generations = {s.space.id: s.generation for s in gallery.catalogue.space_states()}
    for folder in sorted((gallery.folder / "vectors").glob("*/")):
        if folder.name not in generations:
            yield from sorted(folder.iterdir())
        else:
            for path, generation in generation_files(folder).items():
                if generation != generations[folder.name]:
                    yield path


def _written_before(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime < moment
    except OSError:
        return False


def space_findings(
    gallery: Gallery, everybody: Roster, progress: Progress
) -> tuple[list[Finding], list[Space]]:
    """What is wrong with the vectors and scores of every space, and which can be relied on."""
    found: list[Finding] = []
    sound: list[Space] = []
    for state in gallery.catalogue.space_states():
        space = state.space
        try:
            problem = _vector_problem(gallery, state, everybody, progress)
            lacking = len(np.setdiff1d(everybody.portrait_ids, gallery.embedded(space)))
        except (GalleryCorrupt, OSError, KeyError, ValueError) as trouble:
            problem = str(trouble)
        if problem is not None:
            why = f"vectors of {space.backbone}: {problem}"
            found.append(Finding(Kind.VECTORS, why, 0, Remedy.REBUILD, space_id=space.id))
            continue
        sound.append(space)
        if lacking:
            why = f"{lacking:,} portraits can't be found with {space.backbone}"
            found.append(Finding(Kind.UNSEARCHABLE, why, lacking, Remedy.EMBED, space_id=space.id))
        try:
            gallery.refresh()
            gallery.calibration(space)
        except GalleryCorrupt as trouble:
            why = str(trouble).partition(":")[0]
            found.append(Finding(Kind.CALIBRATION, why, 0, Remedy.LEARN, space_id=space.id))
    return found, sound


def _vector_problem(
    gallery: Gallery, state: SpaceState, everybody: Roster, progress: Progress
) -> str | None:
    """Why a space's vectors can't be relied on; None if they can."""
    space = state.space
    stored = gallery.embedded(space)
    if len(np.unique(stored)) != len(stored):
        return f"{len(stored) - len(np.unique(stored)):,} portraits have two"
    orphans = len(np.setdiff1d(stored, everybody.portrait_ids))
    if orphans:
        return f"{orphans:,} belong to no portrait"
    files = _files(gallery, state)
    if files is not None and (problem := _record_problem(files, state, everybody)) is not None:
        return problem
    bad = done = 0
    people = everybody.having(stored)
    for part in people.chunks():
        vectors = gallery.vectors(space, people.portrait_ids[part])
        with np.errstate(invalid="ignore", over="ignore"):
            lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
            bad += int(np.sum(~(np.abs(lengths - 1.0) < _LENGTH)))
        done += len(vectors)
        progress("vectors", done, len(people.portrait_ids))
    return f"{bad:,} of {len(stored):,} are no unit vectors" if bad else None


def _files(gallery: Gallery, state: SpaceState) -> VectorFiles | None:
    if not isinstance(gallery.storage, FileStorage):
        return None
    return VectorFiles.open(gallery.space_folder(state.space), state.space, state.generation)


def _record_problem(files: VectorFiles, state: SpaceState, everybody: Roster) -> str | None:
    """Whether what is noted beside the vectors agrees with them and with the catalogue."""
    alive = np.delete(np.arange(state.row_count), state.dead)
    records = files.records(state.row_count)
    order = np.argsort(everybody.portrait_ids)
    places = order[np.searchsorted(everybody.portrait_ids[order], records["portrait"][alive])]
    wrong = int(np.sum(everybody.person_ids[places] != records["person"][alive]))
    if wrong:
        return f"{wrong:,} are noted as somebody else's"
    codes = files.codes(state.row_count)
    reader = files.reader(state.row_count)
    for start in range(0, state.row_count, _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, state.row_count))
        if not _codes_agree(reader.rows(rows), codes, records, rows):
            return "what is noted beside them does not agree with them"
    return None


def _codes_agree(
    vectors: NDArray[np.float32],
    codes: NDArray[np.int8] | None,
    records: NDArray[np.void],
    rows: NDArray[np.int64],
) -> bool:
    notes: Sequence[str] = ("growth", "scale", "error")
    if not all(np.isfinite(records[name][rows]).all() for name in notes):
        return False
    if codes is None:
        return True
    meant = codes[rows] * records["scale"][rows][:, None]
    apart = np.linalg.norm(vectors - meant, axis=1)
    return bool(np.all(apart <= records["error"][rows] + 1e-6))
