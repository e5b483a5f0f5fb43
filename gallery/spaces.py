"""What counts of each embedding space's vectors (gallery/vectors.py)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from engine.types import Space
from gallery.tables import DeadRow, SpaceRow

__all__ = ["SpaceState", "space_states"]


@dataclass(frozen=True, slots=True, eq=False)
class SpaceState:
    """What counts of one space's vectors.

    Attributes:
        space: Which space.
        generation: Number of the manifest that names its files.
        row_count: How many rows of those files count; what follows them is unfinished.
        dead: int64 (N,), rising: rows below ``row_count`` that no longer count.
    """

    space: Space
    generation: int
    row_count: int
    dead: NDArray[np.int64]

    def same_rows(self, other: SpaceState) -> bool:
        """Whether an index of one is an index of the other."""
        return (
            self.generation == other.generation
            and self.row_count == other.row_count
            and np.array_equal(self.dead, other.dead)
        )


def space_states(connection: Connection) -> tuple[SpaceState, ...]:
    """Every embedding space as this connection sees it, by id."""
    dead: dict[str, list[int]] = {}
    for space_id, row_number in connection.execute(select(DeadRow.space_id, DeadRow.row_number)):
        dead.setdefault(space_id, []).append(row_number)
    return tuple(
        SpaceState(
            space=Space(row.backbone, row.weights_sha256, row.recipe, row.dimensions),
            generation=row.generation,
            row_count=row.row_count,
            dead=np.sort(np.asarray(dead.get(row.id, []), dtype=np.int64)),
        )
        for row in connection.execute(select(SpaceRow).order_by(SpaceRow.id))
    )
