"""Several backbones as one in an evaluation: their ensemble, learned from the gallery half."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from gallery.evaluation.lineup import Lineup
from gallery.scores.ensemble import Ensemble

__all__ = ["FusedLineup", "fused"]


@dataclass(frozen=True, eq=False)
class FusedLineup(Lineup):
    """A line-up whose likenesses are an ensemble's fused values.

    Photos are compared (``closest``) as the weightiest backbone sees them.

    Attributes:
        members: The same line-up as each of the ensemble's backbones sees it, in their order.
        ensemble: How they are fused.
    """

    members: tuple[Lineup, ...] = field(default=(), repr=False)
    ensemble: Ensemble | None = None

    @property
    def described(self) -> str:
        """What likenesses come from."""
        assert self.ensemble is not None  # made by ``fused`` only
        return "scores fused, " + ", ".join(
            f"{member.space.backbone} {member.weight:.0%}".replace("%", " %")
            for member in self.ensemble.members
        )

    @property
    def unit(self) -> str:
        """What likenesses are: the mean of scores from 0 to 100, moved to [-1, 1]."""
        return "mean of scores, -1 to 1"

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Every probe with everybody."""
        for found in zip(*(member.blocks() for member in self.members), strict=True):
            yield found[0][0], self._fuse([likeness for _, likeness in found])

    def among(
        self, rows: NDArray[np.intp], columns: NDArray[np.intp]
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Some probes with some people."""
        each = (member.among(rows, columns) for member in self.members)
        for found in zip(*each, strict=True):
            yield found[0][0], self._fuse([likeness for _, likeness in found])

    def _fuse(self, likenesses: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        assert self.ensemble is not None  # made by ``fused`` only
        return self.ensemble.fused(likenesses).astype(np.float32)


def fused(lineups: Sequence[Lineup]) -> FusedLineup | None:
    """The ensemble of several backbones, learned from the gallery photos, never from the probes.

    Args:
        lineups: The same photos as each backbone sees them, at least two.

    Returns:
        None where one backbone alone is as good, or there are too few people to learn from.
    """
    from gallery.scores.trial import draw_probes, learn_ensemble

    spaces = [lineup.space for lineup in lineups]
    vectors = {lineup.space: lineup.gallery for lineup in lineups}
    ensemble = learn_ensemble(spaces, draw_probes(spaces, vectors, lineups[0].owners))
    if ensemble is None:
        return None
    by_space = {lineup.space: lineup for lineup in lineups}
    members = tuple(by_space[space] for space in ensemble.spaces)
    shared = {one.name: getattr(members[0], one.name) for one in fields(Lineup)}
    return FusedLineup(**shared, members=members, ensemble=ensemble)
