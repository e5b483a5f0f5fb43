"""Indexes of vectors that no catalogue knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.types import Space
from gallery.search.cache import PersonRows
from gallery.search.index import GalleryIndex
from gallery.vector_file import VectorFile

__all__ = ["NONE", "filled", "index_of", "space", "unit"]

NONE = np.empty(0, np.int64)


def space(dimensions: int) -> Space:
    return Space("resnet", "b" * 64, 1, dimensions)


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / length).astype(np.float32)


def filled(folder: Path, vectors: NDArray[np.float32]) -> VectorFile:
    """A file of these rows."""
    file = VectorFile.create(folder, space(vectors.shape[1]))
    if len(vectors):
        file.append(0, vectors)
    return file


def index_of(
    file: VectorFile,
    persons: NDArray[np.int64],
    dead: NDArray[np.int64] = NONE,
    *,
    revision: int = 1,
    before: PersonRows | None = None,
) -> GalleryIndex:
    """An index of rows, whose portrait ids are 1000 + the row.

    Args:
        file: Of the vectors.
        persons: Whose each row is.
        dead: Rows that don't count.
        revision: Of the gallery.
        before: See ``PersonRows.of``.
    """
    rows = np.setdiff1d(np.arange(len(persons)), dead)
    found = np.stack([persons[rows], rows + 1000, rows], axis=1)
    made = PersonRows.of(file, len(persons), found, before)
    return GalleryIndex(file, made, revision)
