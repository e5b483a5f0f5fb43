"""What a search in a large gallery reads first: one code a person, and a sketch of each portrait.

A person's likeness is that to the direction of the sum of their vectors, except where one portrait
is nearly the same picture (gallery/likeness.py). So a digest holds, for all that was there when it
was made,

- each person's direction u in one byte a dimension, without what all people have in common (the
  centre c): with y = q - c, z = u - c and their codes y', z', ``q . u = y . z + c . q + c . u -
  c . c`` and ``y . z <= y' . z' + |y - y'| |z| + |y| |z - z'|`` (Cauchy-Schwarz);
- each portrait, where a person has several, in the few directions B in which the gallery differs
  most (its principal components): what is left of a portrait and a face outside of them can add no
  more than the product of the two lengths.

Both give upper bounds, so that a search compares in full only whom it must, and misses nobody.
It reads a third of the portraits' codes, or less.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from gallery.likeness import evened_norms
from gallery.searching.candidates import Candidates
from gallery.searching.codes import ROUNDING, code_products, quantized

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "PEOPLE",
    "SKETCHES",
    "Digest",
    "Finder",
    "Frame",
    "People",
    "Sketches",
    "View",
    "direction_factors",
    "entries_of_people",
    "entries_of_portraits",
    "people_of",
    "sketches_of",
]

_SHORTEST_SUM: Final = (
    1e-2  # of vectors that cancel each other out; such people are always looked at
)
_ALWAYS: Final = 9.0
_NEAREST_PORTRAITS: Final = 16
_PORTRAIT_BASIS: Final = 128  # of the components; nearly the same picture is told by fewer


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """From where, and along what, a space's vectors are described.

    Attributes:
        centre: float32 (D,), about the mean of the vectors.
        basis: float32 (M, D), orthonormal rows: in these directions they differ most, in the
            first of them most of all.
    """

    centre: NDArray[np.float32]
    basis: NDArray[np.float32]

    def seen(self, less: NDArray[Any]) -> NDArray[np.float32]:
        """Vectors less the centre, along the basis: float32 (n, M)."""
        return np.asarray(less @ self.basis.T, dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """The directions of people, in codes.

    Attributes:
        codes: int8 (P, D), of the direction less the centre.
        scales: float32 (P,); times the codes it is that, but for a difference of length ``errors``.
        errors: float32 (P,).
        lengths: float32 (P,), of the direction less the centre.
        offsets: float32 (P,), centre times direction, less the square of the centre.
    """

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    errors: NDArray[np.float32]
    lengths: NDArray[np.float32]
    offsets: NDArray[np.float32]

    def bounds(self, view: View, places: NDArray[np.intp] | None = None) -> NDArray[np.float32]:
        """Upper bounds of the cosines with a face: float32 (P,), or of those at ``places`` only."""
        at: Any = slice(None) if places is None else places
        bounds = code_products(view.codes, self.codes[at])
        bounds *= self.scales[at]
        bounds *= view.scale
        bounds += self.offsets[at]
        bounds += self.lengths[at] * view.error
        bounds += self.errors[at] * view.length
        bounds += view.offset + ROUNDING
        return bounds


@dataclass(frozen=True, slots=True, eq=False)
class Sketches:
    """Portraits of people who have several, seen along a basis only.

    Attributes:
        people: int32 (S,), rising: whose, as a place among the people of the digest.
        codes: int8 (S, M).
        scales: float32 (S,).
        offsets: float32 (S,), centre times vector, less the square of the centre.
        rests: float32 (S,), length of what the basis does not see.
        slack: float32 (2,), the greatest ``|z - z'|`` and the greatest ``|z|`` of any.
    """

    people: NDArray[np.int32]
    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    offsets: NDArray[np.float32]
    rests: NDArray[np.float32]
    slack: NDArray[np.float32]

    def people_above(self, view: View, cosine: float) -> NDArray[np.int32]:
        """Who may have a portrait with at least that cosine: places, int32, rising, each once."""
        if len(self.people) == 0:
            return np.empty(0, np.int32)
        bounds = code_products(view.sketch_codes, self.codes)
        bounds *= self.scales
        bounds *= view.sketch_scale
        bounds += self.offsets
        bounds += self.rests * np.float32(view.rest)
        error, length = self.slack.tolist()
        slack = view.sketch_error * length + view.sketch_length * error + float(ROUNDING)
        above = bounds >= cosine - slack - view.offset
        return np.unique(self.people[above])


class View:
    """A face as a frame sees it.

    Args:
        frame: Of the digest.
        vector: float32 (D,), unit length.
    """

    def __init__(self, frame: Frame, vector: NDArray[np.float32]) -> None:
        less = vector - frame.centre
        codes, scales, errors = quantized(less[None])
        self.codes, self.scale, self.error = codes, scales[0], errors[0]
        self.length = np.float32(np.linalg.norm(less) * 1.0001)
        self.offset = np.float32(frame.centre @ vector)
        # einsum, for a product this small on several threads waits longer for them than it takes
        self.seen = seen = np.einsum("md,d->m", frame.basis, less)
        codes, scales, errors = quantized(seen[None])
        self.sketch_codes, self.sketch_scale = codes, scales[0]
        self.sketch_error = float(errors[0])
        self.sketch_length = float(np.linalg.norm(seen)) * 1.0001
        self.rest = _rest(self.length**2, self.sketch_length**2)
        whole = np.einsum("md,d->m", frame.basis, vector)
        self.entry = np.append(whole, [self.offset, 0]).astype(np.float32)


class Finder:
    """Candidates among everybody, instead of bounds for everybody.

    Args:
        people: For ``Candidates``, of ``entries_of_people``.
        portraits: For ``Candidates``, of ``entries_of_portraits``, for people who have several.
        owners: int32 (S,), whose portraits, as places among the people of the digest.
    """

    def __init__(
        self,
        people: NDArray[np.uint8],
        portraits: NDArray[np.uint8],
        owners: NDArray[np.int32],
    ) -> None:
        self._made = people, portraits
        self._owners = owners

    def people(self, view: View, count: int) -> NDArray[np.int64]:
        """Places of about the most alike."""
        return self._people.nearest(view.entry, count)

    def owners(self, view: View) -> NDArray[np.int32]:
        """Places of who may have nearly the same picture, each once."""
        entry = entries_of_portraits(view.seen[None])[0]
        return np.unique(self._owners[self._portraits.nearest(entry, _NEAREST_PORTRAITS)])

    @cached_property
    def _people(self) -> Candidates:
        return Candidates(self._made[0])

    @cached_property
    def _portraits(self) -> Candidates:
        return Candidates(self._made[1])


class Digest:
    """People and their portraits at one moment.

    Args:
        frame: How they are described.
        person_ids: int64 (P,), rising.
        counts: int32 (P,), of how many portraits.
        rows: Of how many rows of the space's files the digest was made.
        people: Of P people.
        portraits: Bounds for their portraits, or, in a very large gallery, candidates.
    """

    def __init__(
        self,
        frame: Frame,
        person_ids: NDArray[np.int64],
        counts: NDArray[np.int32],
        rows: int,
        people: People,
        portraits: Sketches | Finder,
    ) -> None:
        self.frame = frame
        self.person_ids = person_ids
        self.counts = counts
        self.rows = rows
        self.people = people
        self.portraits = portraits

    def __len__(self) -> int:
        return len(self.person_ids)

    @classmethod
    def from_arrays(cls, about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Digest:
        """As read from a file.

        Raises:
            KeyError: If something is missing.
            TypeError: If something is of the wrong type.
        """
        portraits: Sketches | Finder
        if "people_candidates" in arrays:
            portraits = Finder(
                arrays["people_candidates"],
                arrays["portrait_candidates"],
                arrays["sketches_people"],
            )
        else:
            portraits = Sketches(**{name: arrays[f"sketches_{name}"] for name in SKETCHES})
        return cls(
            Frame(np.array(arrays["centre"]), np.array(arrays["basis"])),
            arrays["person_ids"],
            arrays["counts"],
            int(about["rows"]),
            People(**{name: arrays[f"people_{name}"] for name in PEOPLE}),
            portraits,
        )


PEOPLE: Final = ("codes", "scales", "errors", "lengths", "offsets")
SKETCHES: Final = ("people", "codes", "scales", "offsets", "rests", "slack")


def direction_factors(counts: NDArray[np.integer], backbone: str) -> NDArray[np.float32]:
    """What turns a cosine with a person's direction into the likeness: float32 (P,).

    Args:
        counts: (P,), of how many portraits.
        backbone: Whose vectors they are.
    """
    factors = 1 / evened_norms(np.ones(len(counts)), counts, backbone)
    return factors.astype(np.float32)


def entries_of_people(
    seen: NDArray[np.float32], factors: NDArray[np.float32]
) -> NDArray[np.float32]:
    """What ``View.entry`` is multiplied with to tell likenesses approximately: float32 (n, M + 2).

    Args:
        seen: float32 (n, M), directions less the centre, along the basis.
        factors: float32 (n,), from ``direction_factors``.
    """
    one = np.broadcast_to(np.array([1, 0], np.float32), (len(seen), 2))
    return np.hstack([seen, one]) * factors[:, None]


def entries_of_portraits(seen: NDArray[np.float32]) -> NDArray[np.float32]:
    """What portraits are told apart by, approximately: float32 (n, at most M).

    Args:
        seen: float32 (n, M), vectors less the centre, along the basis.
    """
    return seen[:, :_PORTRAIT_BASIS]


def people_of(frame: Frame, vectors: NDArray[np.float32], starts: NDArray[np.intp]) -> People:
    """Describes people.

    Args:
        frame: How.
        vectors: float32 (N, D), unit length, by person.
        starts: (P,), where each person's begin; at least one each.
    """
    if len(starts) == 0:
        none = np.empty(0, np.float32)
        return People(np.empty((0, len(frame.centre)), np.int8), none, none, none, none)
    sums = np.add.reduceat(vectors.astype(np.float64), starts, axis=0)
    norms = np.linalg.norm(sums, axis=1)
    less = (sums / np.maximum(norms, _SHORTEST_SUM)[:, None] - frame.centre).astype(np.float32)
    codes, scales, errors = quantized(less)
    centre = frame.centre.astype(np.float64)
    # c . u - c . c = c . z
    offsets = (less @ centre).astype(np.float32)
    offsets[norms < _SHORTEST_SUM] = _ALWAYS
    lengths = (np.linalg.norm(less, axis=1) * 1.0001).astype(np.float32)
    return People(codes, scales, errors, lengths, offsets)


def sketches_of(frame: Frame, vectors: NDArray[np.float32], people: NDArray[np.int32]) -> Sketches:
    """Describes portraits.

    Args:
        frame: How.
        vectors: float32 (S, D), unit length.
        people: int32 (S,), whose.
    """
    if len(vectors) == 0:
        none = np.empty(0, np.float32)
        codes = np.empty((0, len(frame.basis)), np.int8)
        return Sketches(people, codes, none, none, none, np.zeros(2, np.float32))
    less: NDArray[np.float32] = vectors - frame.centre
    seen = frame.seen(less)
    codes, scales, errors = quantized(seen)
    lengths = np.linalg.norm(seen, axis=1)
    rests = _rest(np.einsum("nd,nd->n", less, less), lengths**2)
    offsets: NDArray[np.float32] = less @ frame.centre
    slack = np.array([errors.max(), lengths.max() * 1.0001], np.float32)
    return Sketches(people, codes, scales, offsets, rests.astype(np.float32), slack)


def _rest(whole: Any, seen: Any) -> Any:
    """Length of what is left, from squares; a little more, for rounding."""
    return np.sqrt(np.maximum(whole - seen, 0.0) + 1e-5) * 1.0001
