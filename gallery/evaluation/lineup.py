"""A gallery and the photos that are looked up in it, as vectors: who is how alike to whom.

What takes part is arranged as a search finds it: one likeness of a probe to each person. They are
made block by block, so that thousands of people take no more memory than their vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.errors import SetupProblem
from engine.types import Space
from gallery.evaluation.photos import Sightings
from gallery.likeness import evened_norms, person_cosines
from gallery.sources.folder import scan

__all__ = ["Lineup", "LookUp", "line_up", "look_up", "photos_by_person"]

_BLOCK: Final = 4_000_000  # cosines held at a time
_TIE: Final = 1e-6  # as much as two sums of the same numbers in float32 may differ


@dataclass(frozen=True, eq=False)
class Lineup:
    """People with gallery photos, and probes of them.

    Attributes:
        space: Of the vectors.
        names: Everybody who was to take part, by number.
        people: int64 (K,), numbers of those with a face in the gallery, rising: the columns.
        gallery: float32 (N, D), unit vectors, by person.
        owners: int64 (N,), the column of each.
        gallery_files: (N,) where each comes from.
        probes: float32 (M, D), unit vectors.
        right: int64 (M,), the column of each probe's own person.
        probe_files: (M,) where each comes from.
        failures: Probes without a face, or whose person has none in the gallery, by number.
    """

    space: Space
    names: tuple[str, ...]
    people: NDArray[np.int64]
    gallery: NDArray[np.float32] = field(repr=False)
    owners: NDArray[np.int64] = field(repr=False)
    gallery_files: tuple[Path, ...] = field(repr=False)
    probes: NDArray[np.float32] = field(repr=False)
    right: NDArray[np.int64] = field(repr=False)
    probe_files: tuple[Path, ...] = field(repr=False)
    failures: tuple[tuple[int, Path], ...] = ()

    @cached_property
    def norms(self) -> NDArray[np.float64]:
        """float64 (K,), for ``person_cosines``."""
        starts = self.starts
        sums = np.add.reduceat(self.gallery, starts[:-1], axis=0, dtype=np.float64)
        lengths = np.linalg.norm(sums, axis=1)
        return evened_norms(lengths, np.diff(starts), self.space.backbone)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """int64 (K + 1,): column k has the gallery's rows from starts[k] to starts[k + 1]."""
        return np.searchsorted(self.owners, np.arange(len(self.people) + 1))

    @property
    def described(self) -> str:
        """What likenesses come from."""
        return f"space {self.space.id}"

    @property
    def unit(self) -> str:
        """What likenesses are."""
        return "cosine"

    def name(self, column: int) -> str:
        """Who a column is."""
        return self.names[int(self.people[column])]

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Every probe with everybody: slices of the probes, and likenesses float32 (m, K)."""
        step = max(1, _BLOCK // len(self.gallery))
        for first in range(0, len(self.probes), step):
            rows = slice(first, min(first + step, len(self.probes)))
            cosines = self.probes[rows] @ self.gallery.T
            yield rows, person_cosines(cosines, self.owners, self.norms).astype(np.float32)

    def among(
        self, rows: NDArray[np.intp], columns: NDArray[np.intp]
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Some probes with some people, in blocks: rows (m,), and likenesses float32 (m, columns).

        Args:
            rows: Which probes.
            columns: Which people, rising, at least one.
        """
        mine = np.isin(self.owners, columns)
        vectors = self.gallery[mine]
        index = np.searchsorted(columns, self.owners[mine])
        for block in np.array_split(rows, 1 + len(rows) * len(vectors) // _BLOCK):
            if len(block):
                cosines = self.probes[block] @ vectors.T
                yield block, person_cosines(cosines, index, self.norms[columns]).astype(np.float32)

    def pairs(self, columns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Likeness of each probe to one person: float64 (M,).

        Args:
            columns: int64 (M,), whom each probe is compared with.
        """
        found = np.empty(len(self.probes))
        order = np.argsort(columns, kind="stable")
        wanted, firsts = np.unique(columns[order], return_index=True)
        for column, rows in zip(wanted, np.split(order, firsts[1:]), strict=True):
            for block, likeness in self.among(rows, np.array([column])):
                found[block] = likeness[:, 0]
        return found

    def closest(self, row: int, column: int) -> Path:
        """The person's gallery photo that is most like a probe."""
        cosines = self._to_photos(row, column)
        return self.gallery_files[int(self.starts[column]) + int(np.argmax(cosines))]

    def likeness_of_photos(self, row: int, column: int) -> float:
        """Cosine of a probe with that photo."""
        return float(self._to_photos(row, column).max())

    def _to_photos(self, row: int, column: int) -> NDArray[np.float32]:
        start, end = (int(place) for place in self.starts[column : column + 2])
        cosines: NDArray[np.float32] = self.gallery[start:end] @ self.probes[row]
        return cosines


@dataclass(frozen=True, slots=True, eq=False)
class LookUp:
    """What came of looking every probe up.

    Attributes:
        own: float64 (M,), likeness of each probe to its own person.
        ranks: int64 (M,), how many others are at least as alike: one picture under two names
            identifies nobody.
        best: float64 (M,), highest likeness of each to anybody else.
        best_columns: int64 (M,), whose that is.
    """

    own: NDArray[np.float64]
    ranks: NDArray[np.int64]
    best: NDArray[np.float64]
    best_columns: NDArray[np.int64]


def look_up(
    lineup: Lineup, strangers: Callable[[slice, NDArray[np.float32]], object] = lambda *_: None
) -> LookUp:
    """Looks every probe up among everybody.

    Args:
        lineup: Who takes part.
        strangers: Called with each block of probes and their likenesses to everybody, float32
            (m, K), minus infinity at their own person.
    """
    count = len(lineup.probes)
    own, best = np.empty(count), np.empty(count)
    ranks, columns = np.empty(count, np.int64), np.empty(count, np.int64)
    for rows, likeness in lineup.blocks():
        places = (np.arange(len(likeness)), lineup.right[rows])
        own[rows] = likeness[places]
        likeness[places] = -np.inf
        ranks[rows] = (likeness >= own[rows, None] - _TIE).sum(axis=1)
        columns[rows] = likeness.argmax(axis=1)
        best[rows] = likeness.max(axis=1)
        strangers(rows, likeness)
    return LookUp(own, ranks, best, columns)


def line_up(seen: Sightings, people: Mapping[str, Sequence[Path]], gallery_photos: int) -> Lineup:
    """The first photos of each person are the gallery, the rest are probes.

    Args:
        seen: What is in the photos.
        people: Photos of everybody by name; more than ``gallery_photos`` of each.
        gallery_photos: At least 1.

    Raises:
        SetupProblem: If fewer than two people have a face in the gallery, or no probe has one.
    """
    gallery = [
        (number, file)
        for number, files in enumerate(people.values())
        for file in files[:gallery_photos]
        if file in seen.vectors
    ]
    probes = [
        (number, file)
        for number, files in enumerate(people.values())
        for file in files[gallery_photos:]
    ]
    known, owners = np.unique([number for number, _ in gallery], return_inverse=True)
    there = set(known.tolist())
    found = [(who, file) for who, file in probes if file in seen.vectors and who in there]
    if len(known) < 2 or not found:
        raise SetupProblem("there are not enough faces in the photos to look anybody up")
    kept = set(found)
    return Lineup(
        space=seen.space,
        names=tuple(people),
        people=known.astype(np.int64),
        gallery=np.stack([seen.vectors[file] for _, file in gallery]),
        owners=owners.astype(np.int64),
        gallery_files=tuple(file for _, file in gallery),
        probes=np.stack([seen.vectors[file] for _, file in found]),
        right=np.searchsorted(known, [who for who, _ in found]).astype(np.int64),
        probe_files=tuple(file for _, file in found),
        failures=tuple(probe for probe in probes if probe not in kept),
    )


def photos_by_person(folder: Path) -> dict[str, list[Path]]:
    """The photos of everybody in a folder arranged as for `lookalike gallery add`, by file name.

    Raises:
        SetupProblem: If there is no such folder, or no photo of anybody in it.
    """
    root = folder.resolve()
    people: dict[str, list[Path]] = {}
    for portrait in scan(folder).portraits:
        people.setdefault(portrait.person.name, []).append(root / portrait.origin)
    return {who: sorted(files, key=lambda file: file.name) for who, files in people.items()}
