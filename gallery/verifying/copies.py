"""One picture under two names: found by likeness, told by a hash of the face."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.decode import decode
from engine.errors import LookalikeError
from gallery.gallery import Gallery
from gallery.records import Portrait
from gallery.silhouette import lacks_photo
from gallery.verifying.findings import Finding, Kind, Remedy
from gallery.verifying.pictures import subject
from gallery.verifying.storage import Roster

__all__ = ["UNLIKE", "Likenesses", "copies"]

UNLIKE: Final = 30.0
"""A score: one in 100 strangers is more like the person than such a portrait is."""

_COPY: Final = 85.0  # copies are at least so alike, and
_COPY_BITS: Final = 8  # differ in at most so many of the 64 bits of a perceptual hash,
_SURE_COPY: Final = 98.0  # or are so alike, and
_SURE_COPY_BITS: Final = 16  # differ in at most so many: cut a little differently
_FITS: Final = 60.0  # a score with the person's other portraits


@dataclass(frozen=True, slots=True, eq=False)
class Likenesses:
    """How alike every portrait is to the others of its person, and to somebody else.

    Attributes:
        people: Whose portraits, as in all arrays.
        own: float64 (N,), score with the person's others; NaN without others.
        best: float64 (N,), score with the most similar other person; NaN without one.
        whose: int64 (N,), that person's id.
        nearest: int64 (N,), the portrait of theirs that is most like it.
    """

    people: Roster
    own: NDArray[np.float64]
    best: NDArray[np.float64]
    whose: NDArray[np.int64]
    nearest: NDArray[np.int64]


def copies(gallery: Gallery, alike: Likenesses, together: set[frozenset[int]]) -> Iterator[Finding]:
    """One picture under two names."""
    people = alike.people
    place_of = {portrait: place for place, portrait in enumerate(people.portrait_ids.tolist())}
    seen: set[frozenset[int]] = set()
    told: set[int] = set()
    for place in np.flatnonzero(alike.best >= _COPY).tolist():
        pair = frozenset((int(people.portrait_ids[place]), int(alike.nearest[place])))
        persons = frozenset((int(people.person_ids[place]), int(alike.whose[place])))
        if pair in seen or persons in together:
            continue
        seen.add(pair)
        portraits = gallery.catalogue.portraits_by_id(pair)
        if len(portraits) == 2:
            bits = _different_bits(gallery, portraits.values())
            score = float(alike.best[place])
            if bits <= _COPY_BITS or (score >= _SURE_COPY and bits <= _SURE_COPY_BITS):
                one, other = sorted(pair, key=lambda one: _fit(alike, place_of, one))
                if one not in told:  # copied from one of two copies
                    told.add(one)
                    yield _copy(
                        gallery, alike, portraits[one], portraits[other], place_of, (score, bits)
                    )


def _fit(alike: Likenesses, place_of: dict[int, int], portrait_id: int) -> float:
    """How well a portrait fits the others of its person; in between where there are none."""
    place = place_of.get(portrait_id)
    own = np.nan if place is None else float(alike.own[place])
    return (UNLIKE + _FITS) / 2 if np.isnan(own) else own


def _copy(
    gallery: Gallery,
    alike: Likenesses,
    worse: Portrait,
    better: Portrait,
    place_of: dict[int, int],
    measured: tuple[float, float],
) -> Finding:
    fits = [_fit(alike, place_of, one.id) for one in (worse, better)]
    clear = fits[0] < UNLIKE + 10 and fits[1] >= _FITS
    names = alike.people.names
    one, other = subject(gallery, worse, names), subject(gallery, better, names)
    score, bits = measured
    why = (
        f"the same picture as one of {other.person} (score {score:.0f}, {bits:.0f} of 64 bits "
        "differ)"
    )
    if clear:
        why += (
            f"; it scores {fits[1]:.0f} with the others of {other.person} and {fits[0]:.0f} with "
            f"those of {one.person}"
        )
    return Finding(Kind.COPY, why, score, Remedy.REMOVE if clear else Remedy.NONE, one, other)


def _different_bits(gallery: Gallery, portraits: Iterable[Portrait]) -> float:
    """In how many of 64 bits the perceptual hashes of two faces differ.

    The hash is that of the face cut out by its landmarks: thumbnails of one photo in two sizes
    show more or less of what is around the face. Silhouettes tell nothing.
    """
    import imagehash
    from PIL import Image

    from engine.align import dlib_crop

    portraits = tuple(portraits)
    if any(lacks_photo(gallery, portrait) for portrait in portraits):
        return np.inf
    try:
        one, other = (
            imagehash.phash(
                Image.fromarray(dlib_crop(decode(gallery.picture(portrait)), portrait.landmarks))
            )
            for portrait in portraits
        )
    except (OSError, LookalikeError, ValueError):
        return np.inf
    return float(one - other)
