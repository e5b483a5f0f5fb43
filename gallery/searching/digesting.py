"""Makes the digest of a space's vectors (gallery/searching/digest.py), where they are many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gallery.disk import RowReader
from gallery.searching.arrays import ArrayWriter, writing_arrays
from gallery.searching.candidates import CandidatesMaker
from gallery.searching.digest import (
    PEOPLE,
    SKETCHES,
    Frame,
    direction_factors,
    entries_of_people,
    entries_of_portraits,
    people_of,
    sketches_of,
)
from gallery.searching.roster import Roster
from gallery.searching.shortlist import outdated
from gallery.vectors import VectorFiles

__all__ = ["make_digest", "renew_digest"]

_FROM_BYTES: Final = 16_000_000  # below, looking at every portrait takes less than a millisecond
_SAMPLE: Final = 8_192  # vectors that the frame is learned from
_BASIS: Final = 256
_LONGEST_S: Final = 0.008  # for a search that bounds everybody
_BYTES_PER_S: Final = 25e9  # of codes; measured with one thread: 40e9, many computers have half
_ROW_S: Final = 6e-9  # measured, for whatever does not depend on the length
_CHUNK_ROWS: Final = 4_096


def renew_digest(
    files: VectorFiles,
    row_count: int,
    dead: NDArray[np.int64],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> bool:
    """Makes a digest if the space is large and has none, or one that too much has changed since.

    Args:
        files: Of the generation that counts.
        row_count: How many of its rows count.
        dead: Those among them that don't.
        progress: Told how many portraits of how many are digested.

    Returns:
        Whether it did.
    """
    codes = files.codes(row_count)
    row_bytes = files.manifest.space.dimensions * (4 if codes is None else 1)
    if (row_count - len(dead)) * row_bytes < _FROM_BYTES:
        return False
    before = files.digest(row_count)
    if before is not None and not outdated(before, row_count, dead):
        return False
    make_digest(files, row_count, dead, progress)
    return True


def make_digest(
    files: VectorFiles,
    row_count: int,
    dead: NDArray[np.int64],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    *,
    candidates: bool | None = None,
) -> None:
    """Makes a digest of a space with at least one living row; see ``renew_digest``.

    Args:
        files: See there, also for the next ones.
        row_count: See there.
        dead: See there.
        progress: See there.
        candidates: Whether to name candidates rather than to bound everybody; None for what is
            quicker.
    """
    from threadpoolctl import threadpool_limits

    # Where a bot keeps the cores busy, several threads took ten times as long as one: they wait
    # for each other at every step.
    with threadpool_limits(1, "blas"):
        _make(files, row_count, dead, progress, candidates)


def _make(
    files: VectorFiles,
    row_count: int,
    dead: NDArray[np.int64],
    progress: Callable[[int, int], None],
    candidates: bool | None,
) -> None:
    roster, reader = Roster(files.records(row_count), dead), files.reader(row_count)
    space = files.manifest.space
    frame, sample = _learned_frame(roster, reader, space.dimensions)
    if candidates is None:
        candidates = _bounding_s(roster, frame) > _LONGEST_S
    with writing_arrays(files.path("digest"), {"rows": row_count}) as writer:
        writer.add("centre", frame.centre)
        writer.add("basis", frame.basis)
        writer.add("person_ids", roster.person_ids)
        writer.add("counts", roster.counts.astype(np.int32))
        digesting = _Digesting(writer, roster, frame, space.backbone)
        if candidates:
            digesting.plan_candidates(sample)
        else:
            digesting.plan_sketches()
        first = 0
        while first < len(roster):
            last = roster.chunk(first, _CHUNK_ROWS)
            rows = roster.rows[roster.starts[first] : roster.starts[last]]
            digesting.digest(first, last, reader.rows(rows))
            first = last
            progress(int(roster.starts[first]), len(roster.rows))
        digesting.finish()


def _bounding_s(roster: Roster, frame: Frame) -> float:
    """About how long it takes to bound everybody."""
    size, dimensions = frame.basis.shape
    several = int(roster.counts[roster.counts > 1].sum())
    size_bytes = len(roster) * dimensions + several * size
    seconds: float = size_bytes / _BYTES_PER_S + (len(roster) + several) * _ROW_S
    return seconds


def _learned_frame(
    roster: Roster, reader: RowReader, dimensions: int
) -> tuple[Frame, NDArray[np.float32]]:
    """The mean and the principal components of a sample, and the sample less the mean."""
    chosen = np.linspace(0, len(roster.rows) - 1, min(_SAMPLE, len(roster.rows)))
    sample = reader.rows(np.sort(roster.rows[chosen.astype(np.int64)]))
    centre = sample.mean(axis=0)
    sample -= centre
    size = min(_BASIS, dimensions)
    components = np.linalg.eigh(sample.T @ sample)[1][:, dimensions - size :]
    # float32 components are not quite orthonormal, and the bounds rest on that they are.
    components = np.linalg.qr(components[:, ::-1].astype(np.float64))[0]
    return Frame(centre, np.ascontiguousarray(components.T, dtype=np.float32)), sample


class _Digesting:
    """Writes a digest, some people at a time."""

    def __init__(self, writer: ArrayWriter, roster: Roster, frame: Frame, backbone: str) -> None:
        self._writer = writer
        self._roster = roster
        self._frame = frame
        self._factors = direction_factors(roster.counts, backbone)
        self._sketched = 0
        self._slack = np.zeros(2, np.float32)
        self._makers: tuple[CandidatesMaker, CandidatesMaker] | None = None
        people = len(roster)
        writer.plan("people_codes", "|i1", (people, len(frame.centre)))
        for name in PEOPLE[1:]:
            writer.plan(f"people_{name}", "<f4", (people,))
        self._several = int(roster.counts[roster.counts > 1].sum())
        writer.plan("sketches_people", "<i4", (self._several,))

    def plan_sketches(self) -> None:
        """Portraits will be bounded, one by one."""
        self._writer.plan("sketches_codes", "|i1", (self._several, len(self._frame.basis)))
        for name in SKETCHES[2:-1]:
            self._writer.plan(f"sketches_{name}", "<f4", (self._several,))

    def plan_candidates(self, sample: NDArray[np.float32]) -> None:
        """People and portraits will be candidates instead."""
        seen = self._frame.seen(sample)
        likely = self._factors[np.linspace(0, len(self._factors) - 1, len(seen)).astype(int)]
        people = CandidatesMaker(entries_of_people(seen, likely))
        self._makers = people, CandidatesMaker(entries_of_portraits(seen))

    def digest(self, first: int, last: int, vectors: NDArray[np.float32]) -> None:
        """Takes in the people from ``first`` to before ``last``, with all their vectors."""
        starts = self._roster.starts[first:last] - self._roster.starts[first]
        people = people_of(self._frame, vectors, starts)
        for name in PEOPLE:
            self._writer.write(f"people_{name}", first, getattr(people, name))
        counts = self._roster.counts[first:last]
        several = np.repeat(counts > 1, counts)
        whose = np.repeat(np.arange(first, last, dtype=np.int32), counts)[several]
        self._writer.write("sketches_people", self._sketched, whose)
        if self._makers is None:
            sketches = sketches_of(self._frame, vectors[several], whose)
            for name in SKETCHES[1:-1]:
                self._writer.write(f"sketches_{name}", self._sketched, getattr(sketches, name))
            self._slack = np.maximum(self._slack, sketches.slack)
        else:
            seen = self._frame.seen(people.codes * people.scales[:, None])
            self._makers[0].add(entries_of_people(seen, self._factors[first:last]))
            seen = self._frame.seen(vectors[several] - self._frame.centre)
            self._makers[1].add(entries_of_portraits(seen))
        self._sketched += len(whose)

    def finish(self) -> None:
        """Writes what is known at the end only."""
        if self._makers is None:
            self._writer.add("sketches_slack", self._slack)
        else:
            self._writer.add("people_candidates", self._makers[0].made())
            self._writer.add("portrait_candidates", self._makers[1].made())
