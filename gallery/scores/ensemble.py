"""Several backbones as one: their calibrated scores fused, and the people most alike by that.

The scores of all backbones mean the same, the rarity of a likeness among strangers, so they can be
averaged. The mean is no score yet: two independent networks that each call a likeness 1 in 1,000
say together something much rarer. So an ensemble has a calibration of its own, learned from the
same gallery's pairs (``gallery.scores.trial``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from engine.errors import GalleryMissing
from engine.types import Embedding, Space
from gallery.likeness import Flags, Floats, Ints
from gallery.records import Hit, MemberScore
from gallery.scores import Calibration, Stored
from gallery.search import SearchIndex

BEST: Final = "best"  # what people call the ensemble where they choose a backbone
_DECIMALS: Final = 9  # fused values closer than that are equal, and ids decide
_FIRST: Final = 64  # people that each backbone names at first, besides those asked for
_WIDER: Final = 4  # times as many in the next round


@dataclass(frozen=True, slots=True)
class Member:
    """One backbone of an ensemble: its part of the mean, in (0, 1], and its scores.

    The calibration is kept as it was when the ensemble was learned.
    """

    space: Space
    weight: float
    calibration: Calibration


@dataclass(frozen=True, slots=True)
class Ensemble(Stored):
    """How several backbones' cosines become one score."""

    members: tuple[Member, ...]  # at least two backbones, the weightiest first; weights sum to 1
    calibration: Calibration  # of fused values

    def __post_init__(self) -> None:
        if len(self.members) < 2 or len(set(self.backbones)) < len(self.members):
            raise ValueError("an ensemble has at least two backbones, each once")
        weights = [member.weight for member in self.members]
        if min(weights) <= 0 or abs(sum(weights) - 1) > 1e-6:
            raise ValueError("the weights of an ensemble are above 0 and sum to 1")

    @property
    def backbones(self) -> tuple[str, ...]:
        """Their names, the weightiest first."""
        return tuple(member.space.backbone for member in self.members)

    @property
    def spaces(self) -> tuple[Space, ...]:
        """Their spaces, in the same order."""
        return tuple(member.space for member in self.members)

    def fused(self, cosines: Sequence[ArrayLike]) -> Floats:
        """The fused values of likenesses, for ``calibration``.

        Of one array per member, in their order, all of one shape, in [-1, 1]: -1 where every score
        is 0, 1 where every one is 100, NaN where a cosine is; they never fall when one rises.
        """
        weighted = [
            member.weight * member.calibration.scores(one)
            for member, one in zip(self.members, cosines, strict=True)
        ]
        value = np.sum(weighted, axis=0) / 50.0 - 1.0
        # Rounded, so that the order of values does not hang on the last bit of a sum.
        return np.asarray(np.round(np.clip(value, -1.0, 1.0), _DECIMALS))

    def member_scores(self, cosines: Sequence[float]) -> tuple[MemberScore, ...]:
        """What each member alone says of likenesses given in the members' order."""
        return tuple(
            MemberScore(member.space.backbone, cosine, member.calibration.score(cosine))
            for member, cosine in zip(self.members, cosines, strict=True)
        )


def fused_top(
    ensemble: Ensemble,
    indexes: Sequence[SearchIndex],
    queries: Sequence[Embedding],
    k: int,
    *,
    allowed: Sequence[Flags | None] | None = None,
) -> dict[Hit, list[float]]:
    """The k people (at least 1) whose fused value is highest, without comparing everybody.

    Each backbone names its best; whoever none of them names has at most the last named one's
    cosine in each space, and so at most the fused value of these: more are asked for until the
    k-th found exceeds that (R. Fagin, A. Lotem, M. Naor, Optimal aggregation algorithms for
    middleware, PODS 2001: the threshold algorithm). Only people with a vector in every space can
    be found: what is fused of fewer is not comparable, and a build gives everybody all of them.

    Indexes, queries (the same face) and who may be found (``GalleryIndex.top``) are in the members'
    order. Fewer are returned if fewer can be found, by falling value, equal ones by person id: hits
    with the fused value in place of a cosine, and each member's cosines. Raises GalleryMissing if
    nobody has vectors in all spaces, SpaceMismatch if a query is of another, ValueError if k < 1.
    """
    masks = allowed or [None] * len(indexes)
    named = k + _FIRST
    while True:
        tops = [
            index.top(query, named, allowed=mask)
            for index, query, mask in zip(indexes, queries, masks, strict=True)
        ]
        candidates = np.unique([hit.person_id for hits in tops for hit in hits]).astype(np.int64)
        cosines = np.stack(
            [
                _likenesses(index, query, candidates, hits)
                for index, query, hits in zip(indexes, queries, tops, strict=True)
            ]
        )
        values = ensemble.fused(list(cosines))
        known = np.flatnonzero(np.isfinite(values))
        order = known[np.lexsort((candidates[known], -values[known]))][:k]
        if any(len(hits) < named for hits in tops):
            break  # that space has named everybody it has, so nobody is left who is in all
        ceiling = float(ensemble.fused([np.float64(hits[-1].cosine) for hits in tops]))
        if len(order) == k and values[order[-1]] > ceiling:
            break
        named *= _WIDER
    if len(order) == 0:
        raise GalleryMissing(
            f"nobody in the gallery can be found by {' and '.join(ensemble.backbones)} together: "
            "run `lookalike gallery build` for each"
        )
    # The portrait most like the face, as the weightiest backbone that named the person sees it.
    portraits = {hit.person_id: hit.portrait_id for hits in reversed(tops) for hit in hits}
    return {
        Hit(person, portraits[person], float(values[at])): cosines[:, at].tolist()
        for at, person in zip(order, candidates[order].tolist(), strict=True)
    }


def _likenesses(index: SearchIndex, query: Embedding, people: Ints, hits: Sequence[Hit]) -> Floats:
    """Likenesses to these people; those found already are not compared again."""
    known = {hit.person_id: hit.cosine for hit in hits}
    found = np.array([known.get(person, np.nan) for person in people.tolist()])
    rest = np.flatnonzero(np.isnan(found))
    found[rest] = index.likenesses(query, people[rest])
    return found
