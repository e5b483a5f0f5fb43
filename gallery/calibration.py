"""Cosine -> score from 0 to 100 that means the same for every backbone.

=====  ==============================================
score  such a likeness is found between
=====  ==============================================
   10  1 in 2 strangers
   20  1 in 10
   30  1 in 100
   40  1 in 1,000
   50  1 in 10,000
   90  two photos of the same person, in the median
  100  the same photo
=====  ==============================================

Between these points it rises smoothly and never stops rising. A calibration belongs to one
embedding space and is learned from a gallery's own pairs; as far as these are too few to tell, a
prior takes their place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.types import Space
from gallery.scoring.curve import RisingCurve
from gallery.scoring.priors import Prior, prior_of
from gallery.scoring.tail import SHARES, stranger_quantiles

if TYPE_CHECKING:
    from gallery.scoring.own_pairs import OwnPairs

__all__ = ["Calibration", "fit", "fit_alone", "fit_pairs", "prior"]

_SCORES: Final = (1.0, 4.0, 10.0, 20.0, 30.0, 40.0, 50.0)  # at the first shares in SHARES
_SAME_PERSON_SCORE: Final = 90.0
_RAREST: Final = 10.0  # log10 of what is said of the same photo: more than there are people
_APART: Final = 1e-4  # least distance of two points of a curve, in cosine
_ABOVE_STRANGERS: Final = 0.15  # least part of the way from score 50 to 1 where 90 lies

_PEOPLE: Final = 20.0  # so many people weigh as much as a prior of weight 1 does
_PAIRS: Final = 50.0  # so many pairs beyond a quantile do
_LAW_PAIRS: Final = 5.0  # so many pairs beyond it do where a law stands behind them
_PEOPLE_AGAIN: Final = 20.0  # so many people with several portraits do


@dataclass(frozen=True, slots=True)
class Calibration:
    """How likenesses of one embedding space become scores.

    Attributes:
        space_id: ``Space.id`` of the space.
        strangers: Cosines that the shares ``scoring.tail.SHARES`` of strangers reach, strictly
            rising, in (-1, 1).
        same_person: Cosine of two photos of one person, in the median; in (strangers[6], 1).
        people: How many people it was learned from; 0 for a prior.
        people_again: How many of these had several portraits.
    """

    space_id: str
    strangers: tuple[float, ...]
    same_person: float
    people: int = 0
    people_again: int = 0

    def __post_init__(self) -> None:
        if len(self.strangers) != len(SHARES):
            raise ValueError(f"a calibration has {len(SHARES)} cosines of strangers")
        _curves(self.strangers, self.same_person)  # raises ValueError where they do not rise

    def score(self, cosine: float) -> float:
        """The score of a likeness in [-1, 1]: in [0, 100], higher for a higher cosine."""
        return float(self.scores(cosine))

    def scores(self, cosines: ArrayLike) -> NDArray[np.float64]:
        """Scores of likenesses in [-1, 1], of the same shape."""
        return _curves(self.strangers, self.same_person)[0](cosines)

    def one_in(self, cosine: float) -> float:
        """So high a likeness is found between 1 in this many strangers; in [1, 1e10]."""
        return float(10.0 ** _curves(self.strangers, self.same_person)[1](cosine))

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads."""
        return {
            "format": 1,
            "space": self.space_id,
            "strangers": {
                f"{share:g}": cosine for share, cosine in zip(SHARES, self.strangers, strict=True)
            },
            "same_person": self.same_person,
            "people": self.people,
            "people_with_several_portraits": self.people_again,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Calibration:
        """The calibration that ``to_json`` described.

        Raises:
            ValueError: If it is of another format, or its cosines do not rise.
            KeyError: If something is missing.
            TypeError: If something is of another type.
        """
        if record["format"] != 1:
            raise ValueError(f"calibrations of format {record['format']} are unknown")
        strangers = record["strangers"]
        return cls(
            space_id=str(record["space"]),
            strangers=tuple(float(strangers[f"{share:g}"]) for share in SHARES),
            same_person=float(record["same_person"]),
            people=int(record["people"]),
            people_again=int(record["people_with_several_portraits"]),
        )


def prior(space: Space) -> Calibration:
    """What is believed of a space before any gallery has taught it."""
    known = prior_of(space.backbone)
    return _calibration(space.id, np.asarray(known.strangers), known.same_person)


def fit(space: Space, vectors: NDArray[np.float32], person_ids: NDArray[np.int64]) -> Calibration:
    """A calibration learned from a gallery's own pairs.

    Args:
        space: Of the vectors.
        vectors: float32 (N, D), unit vectors, any number.
        person_ids: int64 (N,), whose each is. A few wrong ones do little harm.

    Returns:
        The same for the same vectors in the same order.
    """
    from gallery.scoring.own_pairs import own_pairs

    return fit_pairs(space, own_pairs(vectors, person_ids, space.backbone))


def fit_pairs(space: Space, pairs: OwnPairs) -> Calibration:
    """A calibration learned from likenesses that were drawn already; see ``fit``."""
    known = prior_of(space.backbone)
    if pairs.people < 2:
        return prior(space)
    strangers = _blended(stranger_quantiles(pairs.strangers), pairs.people, known)
    same_person = known.same_person
    if pairs.people_again:
        weight = pairs.people_again / (pairs.people_again + _PEOPLE_AGAIN * known.weight)
        same_person += weight * (_same_median(pairs.same, pairs.strangers) - same_person)
    return _calibration(space.id, strangers, same_person, pairs.people, pairs.people_again)


def fit_alone(name: str, pairs: OwnPairs) -> Calibration | None:
    """A calibration of values that nothing was known of before, such as those of an ensemble.

    Args:
        name: Stands in the calibration for ``Space.id``.
        pairs: Values in [-1, 1], 1 for the same photo, in place of cosines.

    Returns:
        None where there are too few pairs to tell.
    """
    if pairs.people < 2 or not pairs.people_again:
        return None
    strangers = stranger_quantiles(pairs.strangers)
    if not np.isfinite(strangers).all():
        return None
    same_person = _same_median(pairs.same, pairs.strangers)
    return _calibration(name, strangers, same_person, pairs.people, pairs.people_again)


def _blended(found: NDArray[np.float64], people: int, known: Prior) -> NDArray[np.float64]:
    """Quantiles found and believed, weighted by how many pairs stand behind those found.

    The median and the steps away from it are blended one by one: each step is positive on both
    sides, so the outcome rises whatever the weights.
    """
    shares, believed = np.asarray(SHARES), np.asarray(known.strangers)
    pairs_beyond = people * (people - 1) / 2 * np.minimum(shares, 1 - shares)
    enough = np.where(shares < 1e-2, _LAW_PAIRS, _PAIRS) * known.weight
    weights = np.minimum(
        people / (people + _PEOPLE * known.weight), pairs_beyond / (pairs_beyond + enough)
    )
    middle = SHARES.index(0.5)
    steps_found, steps_believed = np.diff(found), np.diff(believed)
    # The weight of a step is that of its end farther from the median.
    weight = np.concatenate([weights[:middle], weights[middle + 1 :]])
    steps = np.where(
        np.isfinite(steps_found),
        steps_believed + weight * (np.nan_to_num(steps_found) - steps_believed),
        steps_believed,
    )
    level = believed[middle]
    if np.isfinite(found[middle]):
        level += weights[middle] * (found[middle] - level)
    away = np.concatenate([[0.0], np.cumsum(steps)])
    return np.asarray(level + away - away[middle])


def _same_median(same: NDArray[np.float32], strangers: NDArray[np.float32]) -> float:
    """The median likeness of one person's photos, in spite of wrong names.

    Two photos of one person are hardly ever less alike than half of all strangers are; so twice
    the share below that is the share of wrong names, all of which lie below the true median.
    """
    wrong = min(0.5, 2 * float(np.mean(same < np.median(strangers))))
    return float(np.quantile(same.astype(np.float64), 0.5 + wrong / 2))


def _calibration(
    space_id: str,
    strangers: NDArray[np.float64],
    same_person: float,
    people: int = 0,
    people_again: int = 0,
) -> Calibration:
    """A calibration from wishes, moved apart and below 1 where they would not rise."""
    rising = np.clip(strangers, -1.0, 1.0)
    count = len(rising)
    for i in range(count):
        rising[i] = max(rising[i], (rising[i - 1] if i else -1.0) + _APART)
    for i in reversed(range(count)):
        rising[i] = min(rising[i], (rising[i + 1] if i + 1 < count else 1.0) - _APART)
    top = rising[len(_SCORES) - 1]
    same_person = max(same_person, top + _ABOVE_STRANGERS * (1 - top))
    return Calibration(
        space_id,
        tuple(float(cosine) for cosine in rising),
        float(min(same_person, 1 - _APART / 2)),
        people,
        people_again,
    )


@lru_cache(maxsize=32)
def _curves(strangers: tuple[float, ...], same_person: float) -> tuple[RisingCurve, RisingCurve]:
    """Score, and log10 of one in how many strangers, over the cosine."""
    scored = strangers[: len(_SCORES)]
    score = RisingCurve(
        (-1.0, *scored, same_person, 1.0), (0.0, *_SCORES, _SAME_PERSON_SCORE, 100.0)
    )
    rarity = RisingCurve(
        (-1.0, *strangers, 1.0), (0.0, *(-math.log10(share) for share in SHARES), _RAREST)
    )
    return score, rarity
