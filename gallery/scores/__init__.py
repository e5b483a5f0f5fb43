"""Scores: the calibration that turns cosines into numbers from 0 to 100 with one meaning.

``SCORE_TABLE`` says what a score means: which share of strangers reaches it. Between its points
the score rises smoothly with the cosine and never stops rising. A calibration belongs to one
embedding space and is learned from a gallery's own pairs (``gallery.scores.fit``); as far as these
are too few, a prior takes their place. ``gallery.scores.ensemble`` fuses several backbones' scores.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from engine.errors import GalleryCorrupt
from engine.types import Space
from gallery.likeness import SAME_PERSON, Floats

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from gallery.store import Store

SCORE_TABLE: Final[tuple[tuple[float, float | None], ...]] = (
    (0.99, 1.0),
    (0.9, 4.0),
    (0.5, 10.0),
    (0.1, 30.0),
    (1e-2, 50.0),
    (1e-3, 65.0),
    (1e-4, 75.0),
    (1e-5, 82.0),
    (1e-6, None),
    (1e-7, None),
)
"""(share of stranger pairs that reach it, score); None: kept for the rarity, without a score."""

SAME_PERSON_SCORE: Final = 95.0  # of two photos of one person, in the median; 100: the same photo
# Shares of stranger pairs at which a calibration keeps the cosine that they reach or exceed.
SHARES: Final = tuple(share for share, _ in SCORE_TABLE)
# Scores that are promised something: (score, one in how many strangers reaches it).
ANCHORS: Final = tuple(
    (score, round(1 / share)) for share, score in SCORE_TABLE if score is not None and share <= 0.5
)

_SCORES: Final = tuple(score for _, score in SCORE_TABLE if score is not None)
_RAREST: Final = 10.0  # log10 of the rarity of the same photo: more than there are people
_APART: Final = 1e-4  # least distance of two points of a curve, in cosine

# Where, of the way from what the last scored share of strangers reaches to 1, the median of one
# person's photos lies at least: two points nearer to each other are not told apart. Of dlib's prior
# it is known how finely: the two populations that it is the mean of are 0.0022 away from it at 1 in
# 100, of 0.0909 to 1, and 0.0027 of 0.0725 at 1 in 1,000: 0.024 and 0.037 of the way, 0.03 on
# average. A median that was measured must stay where it is: at 0.095 of the way for LFW's people
# alone, at 0.263 for 597 film, TV and music people (a test holds both).
_ABOVE_STRANGERS: Final = 0.03


def score_at(share: float) -> float:
    """The score that this share of strangers, one of ``SCORE_TABLE`` that has a score, reaches."""
    return next(score for known, score in SCORE_TABLE if known == share and score is not None)


Curve = Callable[[ArrayLike], Floats]


def rising_curve(x: Sequence[float], y: Sequence[float]) -> Curve:
    """A piecewise cubic through 3 or more points whose x and y rise strictly; it rises as well.

    Beyond the first and last point it keeps their heights. SciPy's PchipInterpolator is the same
    curve (a test compares the two); importing it takes 0.4 s, a third of `lookalike match`. Raises
    ValueError if the points are others.

    Source: F. N. Fritsch and J. Butland, A method for constructing local monotone piecewise
    cubic interpolants, SIAM J. Sci. Stat. Comput. 5 (1984): the weighted harmonic mean inside;
    the three-point rule of C. Moler, Numerical Computing with MATLAB (2004), 3.6, at the ends.
    """
    if len(x) != len(y) or len(x) < 3:
        raise ValueError("a curve needs at least 3 points with an x and a y each")
    if not (np.isfinite([x, y]).all() and (np.diff([x, y]) > 0).all()):
        raise ValueError("the points of a rising curve are finite and rise strictly")
    places, heights, width = np.array(x), np.array(y), np.diff(x)
    steep = np.diff(y) / width
    before, after = 2 * width[1:] + width[:-1], width[1:] + 2 * width[:-1]
    inside = (before + after) / (before / steep[:-1] + after / steep[1:])
    ends = [
        max(0.0, ((2 * near + far) * steep_near - near * steep_far) / (near + far))
        for near, far, steep_near, steep_far in (
            (width[0], width[1], steep[0], steep[1]),
            (width[-1], width[-2], steep[-1], steep[-2]),
        )
    ]
    slopes = np.concatenate([ends[:1], inside, ends[1:]])

    def height(at: ArrayLike) -> Floats:
        place = np.clip(np.asarray(at, dtype=np.float64), x[0], x[-1])
        i = np.clip(np.searchsorted(places, place, side="right") - 1, 0, len(x) - 2)
        low, high = heights[i], heights[i + 1]
        t = (place - places[i]) / width[i]
        # Cubic Hermite basis; grouped so that t = 0 and t = 1 give the points exactly.
        rise = (high - low) * t * t * (3 - 2 * t)
        bend = width[i] * t * (1 - t) * (slopes[i] * (1 - t) - slopes[i + 1] * t)
        return np.asarray(np.clip(low + rise + bend, low, high))

    return height


class Stored:
    """A dataclass that is kept as JSON."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads."""
        kind: Any = type(self)
        record: dict[str, Any] = _adapter(kind).dump_python(self, mode="json")
        return record

    @classmethod
    def from_json(cls, record: object) -> Self:
        """Raises ValueError if something is missing, of another type, or makes no sense."""
        kind: Any = cls
        found: Self = _adapter(kind).validate_python(record)
        return found


@lru_cache(maxsize=8)
def _adapter(kind: type) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


@dataclass(frozen=True, slots=True)
class Calibration(Stored):
    """How cosines of one embedding space become scores.

    ``SHARES`` of strangers reach the cosines ``strangers``, strictly rising in (-1, 1).
    """

    space_id: str
    strangers: tuple[float, ...]
    same_person: float  # in the median; above the last scored share's cosine, below 1
    people: int = 0  # how many it was learned from; 0 for a prior
    people_again: int = 0  # of these, with several portraits

    def __post_init__(self) -> None:
        if len(self.strangers) != len(SHARES):
            raise ValueError(f"a calibration has {len(SHARES)} cosines of strangers")
        _curves(self.strangers, self.same_person)  # raises ValueError where they do not rise

    def score(self, cosine: float) -> float:
        """The score of a cosine in [-1, 1]: in [0, 100], higher for a higher cosine."""
        return float(self.scores(cosine))

    def scores(self, cosines: ArrayLike) -> Floats:
        """Scores of cosines in [-1, 1], of the same shape."""
        return _curves(self.strangers, self.same_person)[0](cosines)

    def one_in(self, cosine: float) -> float:
        """A cosine as high is found between 1 in this many strangers; in [1, 1e10]."""
        return float(10.0 ** _curves(self.strangers, self.same_person)[1](cosine))


@lru_cache(maxsize=32)
def _curves(strangers: tuple[float, ...], same_person: float) -> tuple[Curve, Curve]:
    """Score, and log10 of one in how many strangers, over the cosine."""
    low, rare = strangers[: len(_SCORES)], (-math.log10(share) for share in SHARES)
    score = rising_curve((-1.0, *low, same_person, 1.0), (0.0, *_SCORES, SAME_PERSON_SCORE, 100.0))
    return score, rising_curve((-1.0, *strangers, 1.0), (0.0, *rare, _RAREST))


def make_calibration(
    space_id: str, strangers: Floats, same_person: float, people: int = 0, people_again: int = 0
) -> Calibration:
    """A calibration from wished cosines, moved apart and below 1 where they would not rise."""
    rising = np.clip(strangers, -1.0, 1.0)
    count = len(rising)
    for i in range(count):
        rising[i] = max(rising[i], (rising[i - 1] if i else -1.0) + _APART)
    for i in reversed(range(count)):
        rising[i] = min(rising[i], (rising[i + 1] if i + 1 < count else 1.0) - _APART)
    top = rising[len(_SCORES) - 1]
    same_person = max(same_person, top + _ABOVE_STRANGERS * (1 - top))
    median = float(min(same_person, 1 - _APART / 2))
    return Calibration(space_id, tuple(rising.tolist()), median, people, people_again)


class Prior(NamedTuple):
    """What is believed of a backbone before a gallery has taught it; see ``Calibration``."""

    strangers: tuple[float, ...]
    same_person: float
    weight: float  # how much a gallery must bring to outweigh it; 1 for measured ones


# Measured with recipe 3 as the mean of two populations, by ``fit.stranger_quantiles``: the 1,775
# photos of LFW's development view (1.6 million pairs of strangers, 1 in 100: 0.9112, 1 in 1,000:
# 0.9302) and 2,982 portraits of 597 actors, singers and hosts (4.4 million pairs, 1 in 100: 0.9069,
# 1 in 1,000: 0.9248). LFW's strangers are more alike: mostly men of one age. Two photos of one
# person have 0.9601 and 0.9597 in the median. Of LFW's strangers then 1.2 % reach the score of
# 1 in 100, of the others 0.8 %; the same in int8.
_DLIB: Final = Prior(
    strangers=(0.7438, 0.7857, 0.8348, 0.8794, 0.9091, 0.9275, 0.9409, 0.9506, 0.9577, 0.9629),
    same_person=SAME_PERSON["dlib"],
    weight=1.0,
)

# Estimates that a gallery of a few dozen people outweighs. Published code that uses these networks
# takes two photos for one person from a cosine of 0.5 on (a cosine distance of 0.5); the authors
# report that 91 to 94 % of IJB-B's pairs of templates are told apart at one false match in 1,000
# (Cao et al., VGGFace2, FG 2018, table VIII), so that one stranger in 1,000 must lie a little above
# that threshold and the median pair of one person well above it. Features are not negative (after a
# ReLU), so strangers are not at 0.
_VGGFACE2: Final = Prior(
    strangers=(0.08, 0.15, 0.26, 0.38, 0.47, 0.53, 0.58, 0.62, 0.65, 0.67),
    same_person=SAME_PERSON["resnet"],
    weight=0.2,
)

_PRIORS: Final = MappingProxyType({"dlib": _DLIB, "resnet": _VGGFACE2, "senet": _VGGFACE2})


def prior_of(backbone: str) -> Prior:
    """The prior of a backbone; that of the VGGFace2 networks for one that nothing is known of."""
    return _PRIORS.get(backbone, _VGGFACE2)


def prior(space: Space) -> Calibration:
    """The calibration of a space before any gallery has taught it."""
    known = prior_of(space.backbone)
    return make_calibration(space.id, np.asarray(known.strangers), known.same_person)


@dataclass(frozen=True, slots=True)
class Learned(Stored):
    """A calibration as it is kept, and from how many vectors it was learned."""

    rows: float
    calibration: Calibration

    def content(self) -> str:
        """As JSON text."""
        return json.dumps(self.to_json(), indent=2)


def read_learned(gallery: Store, space: Space) -> Learned | None:
    """What was learned of a space, if anything; raises GalleryCorrupt if it makes no sense."""
    damaged = GalleryCorrupt(
        f"the calibration of {space.id} in {gallery.place} is damaged: run "
        f"`lookalike gallery build --model {space.backbone}`"
    )
    try:
        content = gallery.read_calibration(space)
        learned = None if content is None else Learned.from_json(json.loads(content))
    except (OSError, ValueError, RecursionError) as problem:
        raise damaged from problem
    if learned is not None and learned.calibration.space_id != space.id:
        raise damaged
    return learned
