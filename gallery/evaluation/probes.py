"""A gallery and the probes that are searched in it, as vectors: who is how alike to whom.

One cosine of a probe to each person, as a search finds it; of several backbones together the fused
value of their ensemble. They are made block by block, so that thousands of people take no more
memory than their vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.errors import SetupProblem
from engine.types import Space
from gallery.evaluation.photos import PhotoEmbeddings
from gallery.likeness import person_cosines
from gallery.scores.ensemble import Ensemble
from gallery.scores.fit import person_norms
from gallery.scores.trial import draw_probes, learn_ensemble

_BLOCK: Final = 4_000_000  # cosines held at a time
_TIE: Final = 1e-6  # as much as two sums of the same numbers in float32 may differ


@dataclass(frozen=True, slots=True, eq=False)
class SpaceVectors:
    """Gallery (N, D) by person and probes (M, D) as one backbone sees them: float32 unit vectors.

    The norms, float64 (K,), are for ``person_cosines``.
    """

    space: Space
    gallery: NDArray[np.float32] = field(repr=False)
    probes: NDArray[np.float32] = field(repr=False)
    norms: NDArray[np.float64] = field(repr=False)


@dataclass(frozen=True, eq=False)
class ProbeSet:
    """People with gallery photos, and probes of them.

    Attributes:
        names: Everybody who was to take part, by number.
        people: int64 (K,), numbers of those with a face in the gallery, rising: the columns.
        owners: int64 (N,), the column of each gallery photo, rising.
        gallery_files: (N,) where each comes from.
        right: int64 (M,), the column of each probe's own person.
        probe_files: (M,) where each comes from.
        failures: Probes without a face, or whose person has none in the gallery, by number.
        vectors: Of one backbone, or of an ensemble's, in its order.
    """

    names: tuple[str, ...]
    people: NDArray[np.int64]
    owners: NDArray[np.int64] = field(repr=False)
    gallery_files: tuple[Path, ...] = field(repr=False)
    right: NDArray[np.int64] = field(repr=False)
    probe_files: tuple[Path, ...] = field(repr=False)
    failures: tuple[tuple[int, Path], ...]
    vectors: tuple[SpaceVectors, ...]
    ensemble: Ensemble | None = None

    @property
    def first(self) -> SpaceVectors:
        """The vectors of the only backbone, or of the weightiest one, which compares photos."""
        return self.vectors[0]

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """int64 (K + 1,): column k has the gallery's rows from starts[k] to starts[k + 1]."""
        return np.searchsorted(self.owners, np.arange(len(self.people) + 1))

    @property
    def described(self) -> str:
        """What likenesses come from."""
        if self.ensemble is None:
            return f"space {self.first.space.id}"
        return "scores fused, " + ", ".join(
            f"{member.space.backbone} {100 * member.weight:.0f} %"
            for member in self.ensemble.members
        )

    @property
    def unit(self) -> str:
        """What likenesses are: cosines, or means of scores from 0 to 100 moved to [-1, 1]."""
        return "cosine" if self.ensemble is None else "mean of scores, -1 to 1"

    def name(self, column: int) -> str:
        """Who a column is."""
        return self.names[int(self.people[column])]

    def likenesses(
        self, rows: NDArray[np.intp] | None = None, columns: NDArray[np.intp] | None = None
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Some probes with some people, in blocks: rows (m,), and values float32 (m, columns).

        Args:
            rows: Which probes; None: all.
            columns: Which people, rising, at least one; None: all.
        """
        rows = np.arange(len(self.right)) if rows is None else rows
        spaces = [(one.probes, one.gallery, one.norms) for one in self.vectors]
        index = self.owners
        if columns is not None:
            mine = np.isin(self.owners, columns)
            index = np.searchsorted(columns, self.owners[mine])
            spaces = [(probes, own[mine], norms[columns]) for probes, own, norms in spaces]
        step = max(1, _BLOCK // len(index))
        for first in range(0, len(rows), step):
            block = rows[first : first + step]
            values = [
                person_cosines(probes[block] @ gallery.T, index, norms)
                for probes, gallery, norms in spaces
            ]
            fused = values[0] if self.ensemble is None else self.ensemble.fused(values)
            yield block, fused.astype(np.float32)

    def pairs(self, columns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Likeness, float64 (M,), of each probe to the one person that ``columns`` (M,) says."""
        found = np.empty(len(self.right))
        order = np.argsort(columns, kind="stable")
        wanted, firsts = np.unique(columns[order], return_index=True)
        for column, rows in zip(wanted, np.split(order, firsts[1:]), strict=True):
            for block, values in self.likenesses(rows, np.array([column])):
                found[block] = values[:, 0]
        return found

    def closest(self, row: int, column: int) -> tuple[Path, float]:
        """The person's gallery photo that is most like a probe, and its cosine."""
        start, end = (int(place) for place in self.starts[column : column + 2])
        cosines = self.first.gallery[start:end] @ self.first.probes[row]
        best = int(np.argmax(cosines))
        return self.gallery_files[start + best], float(cosines[best])


@dataclass(frozen=True, slots=True, eq=False)
class Identification:
    """What came of searching every probe: likenesses to its own person and to the best other one.

    The rank (M,) is how many others are at least as alike as its own person: one picture under two
    names identifies nobody.
    """

    own: NDArray[np.float64]
    ranks: NDArray[np.int64]
    best: NDArray[np.float64]
    best_columns: NDArray[np.int64]


def identify(
    probe_set: ProbeSet,
    on_block: Callable[[NDArray[np.intp], NDArray[np.float32]], object] = lambda *_: None,
) -> Identification:
    """Searches every probe among everybody.

    ``on_block`` is called with each block of probes and their likenesses to everybody, float32
    (m, K), minus infinity at their own person.
    """
    count = len(probe_set.right)
    own, best = np.empty(count), np.empty(count)
    ranks, columns = np.empty(count, np.int64), np.empty(count, np.int64)
    for rows, values in probe_set.likenesses():
        places = (np.arange(len(values)), probe_set.right[rows])
        own[rows] = values[places]
        values[places] = -np.inf
        ranks[rows] = (values >= own[rows, None] - _TIE).sum(axis=1)
        columns[rows] = values.argmax(axis=1)
        best[rows] = values.max(axis=1)
        on_block(rows, values)
    return Identification(own, ranks, best, columns)


def split_photos(
    seen: PhotoEmbeddings, people: Mapping[str, Sequence[Path]], gallery_photos: int
) -> ProbeSet:
    """The first photos of each person are the gallery, the rest, at least one, are probes.

    Raises:
        SetupProblem: If fewer than two people have a face in the gallery, or no probe has one.
    """
    numbered = list(enumerate(people.values()))
    gallery = [
        (who, file)
        for who, files in numbered
        for file in files[:gallery_photos]
        if file in seen.vectors
    ]
    probes = [(who, file) for who, files in numbered for file in files[gallery_photos:]]
    known, owners = np.unique([who for who, _ in gallery], return_inverse=True)
    there = set(known.tolist())
    found = [(who, file) for who, file in probes if file in seen.vectors and who in there]
    if len(known) < 2 or not found:
        raise SetupProblem("there are not enough faces in the photos to look anybody up")
    kept = set(found)
    vectors = np.stack([seen.vectors[file] for _, file in gallery])
    starts = np.searchsorted(owners, np.arange(len(known)))
    return ProbeSet(
        names=tuple(people),
        people=known.astype(np.int64),
        owners=owners.astype(np.int64),
        gallery_files=tuple(file for _, file in gallery),
        right=np.searchsorted(known, [who for who, _ in found]).astype(np.int64),
        probe_files=tuple(file for _, file in found),
        failures=tuple(probe for probe in probes if probe not in kept),
        vectors=(
            SpaceVectors(
                seen.space,
                vectors,
                np.stack([seen.vectors[file] for _, file in found]),
                person_norms(vectors, starts, seen.space.backbone),
            ),
        ),
    )


def fuse(probe_sets: Sequence[ProbeSet]) -> ProbeSet | None:
    """The ensemble of several backbones, learned from the gallery photos, never from the probes.

    None where one backbone alone is as good, or there are too few people to learn from.
    """
    by_space = {one.first.space: one.first for one in probe_sets}
    spaces = list(by_space)
    galleries = {space: one.gallery for space, one in by_space.items()}
    ensemble = learn_ensemble(spaces, draw_probes(spaces, galleries, probe_sets[0].owners))
    if ensemble is None:
        return None
    vectors = tuple(by_space[space] for space in ensemble.spaces)
    return replace(probe_sets[0], vectors=vectors, ensemble=ensemble)
