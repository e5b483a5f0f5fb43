"""Makes the digest of a space's vectors (gallery/digest.py), where they are many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gallery.arrays import ArrayWriter, Layout, writing_arrays
from gallery.digest import PEOPLE, SKETCHES, Frame, people_of, sketches_of
from gallery.disk import RowReader
from gallery.roster import Roster
from gallery.shortlist import outdated
from gallery.vectors import VectorFiles

__all__ = ["make_digest", "renew_digest"]

_FROM_BYTES: Final = 16_000_000  # below, looking at every portrait takes less than a millisecond
_SAMPLE: Final = 8_192  # vectors that the frame is learned from
_BASIS: Final = 256
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
) -> None:
    """Makes a digest of a space with at least one living row; see ``renew_digest``."""
    roster, reader = Roster(files.records(row_count), dead), files.reader(row_count)
    frame = _learned_frame(roster, reader, files.manifest.space.dimensions)
    about = {"rows": row_count}
    with writing_arrays(files.path("digest"), about, _layout(roster, frame)) as writer:
        _write(writer, roster, reader, frame, progress)


def _learned_frame(roster: Roster, reader: RowReader, dimensions: int) -> Frame:
    """The mean and the principal components of a sample."""
    import scipy.linalg

    chosen = np.linspace(0, len(roster.rows) - 1, min(_SAMPLE, len(roster.rows)))
    sample = reader.rows(np.sort(roster.rows[chosen.astype(np.int64)]))
    centre = sample.mean(axis=0)
    sample -= centre
    size = min(_BASIS, dimensions // 2)
    last = [dimensions - size, dimensions - 1]
    components = scipy.linalg.eigh(sample.T @ sample, subset_by_index=last)[1]
    # float32 components are not quite orthonormal, and the bounds rest on that they are.
    components = np.linalg.qr(components.astype(np.float64))[0]
    return Frame(centre, np.ascontiguousarray(components.T, dtype=np.float32))


def _layout(roster: Roster, frame: Frame) -> Layout:
    size, dimensions = frame.basis.shape
    people = len(roster)
    several = int(roster.counts[roster.counts > 1].sum())
    return {
        "centre": ("<f4", (dimensions,)),
        "basis": ("<f4", (size, dimensions)),
        "person_ids": ("<i8", (people,)),
        "counts": ("<i4", (people,)),
        "people_codes": ("|i1", (people, dimensions)),
        **{f"people_{name}": ("<f4", (people,)) for name in PEOPLE[1:]},
        "sketches_people": ("<i4", (several,)),
        "sketches_codes": ("|i1", (several, size)),
        **{f"sketches_{name}": ("<f4", (several,)) for name in SKETCHES[2:-1]},
        "sketches_slack": ("<f4", (2,)),
    }


def _write(
    writer: ArrayWriter,
    roster: Roster,
    reader: RowReader,
    frame: Frame,
    progress: Callable[[int, int], None],
) -> None:
    writer.write("centre", 0, frame.centre)
    writer.write("basis", 0, frame.basis)
    writer.write("person_ids", 0, roster.person_ids)
    writer.write("counts", 0, roster.counts)
    slack = np.zeros(2, np.float32)
    first = sketched = 0
    while first < len(roster):
        start = roster.starts[first]
        last = int(np.searchsorted(roster.starts, start + _CHUNK_ROWS, side="right")) - 1
        last = min(max(last, first + 1), len(roster))
        vectors = reader.rows(roster.rows[start : roster.starts[last]])
        people = people_of(frame, vectors, roster.starts[first:last] - start)
        for name in PEOPLE:
            writer.write(f"people_{name}", first, getattr(people, name))
        counts = roster.counts[first:last]
        several = np.repeat(counts > 1, counts)
        whose = np.repeat(np.arange(first, last, dtype=np.int32), counts)[several]
        sketches = sketches_of(frame, vectors[several], whose)
        for name in SKETCHES[:-1]:
            writer.write(f"sketches_{name}", sketched, getattr(sketches, name))
        slack = np.maximum(slack, sketches.slack)
        first, sketched = last, sketched + len(whose)
        progress(int(roster.starts[first]), len(roster.rows))
    writer.write("sketches_slack", 0, slack)
