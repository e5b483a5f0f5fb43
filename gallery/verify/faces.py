"""Whether portraits are of whom they are said to be, by how alike the faces are.

The thresholds are scores (see the calibration), so that they hold for every backbone. They were
chosen by eye on every second person of 597 with five photos each (dlib), a collection known to
hold wrong names, and judged on the others: see docs/OPERATIONS.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.decode import decode
from engine.errors import GalleryCorrupt, GalleryMissing, LookalikeError
from engine.types import Embedding, Space
from gallery.gallery import Gallery
from gallery.likeness import evened_norms, person_cosines
from gallery.progress import Progress
from gallery.records import Portrait, folded
from gallery.scores import Calibration, prior
from gallery.verify.checks import Finding, Kind, Owners, Remedy, Subject

# Scores, 0 to 100.
_UNLIKE: Final = 50.0  # one in 100 strangers is more like the person than such a portrait is
_AGREE: Final = 65.0  # so alike is one stranger in 1,000; some of a person's portraits must be
_ANOTHER: Final = 87.0  # so alike is hardly anybody but the person
_CANDIDATES: Final = 79.0  # pairs of people worth comparing portrait by portrait
_ONE_PERSON: Final = 79.0  # the median likeness of either one's portraits to the other
_ONE_PORTRAIT_EACH: Final = 95.0  # where that is a single likeness
_SURELY_ONE: Final = 82.0  # then two of one name are merged
_FITS: Final = 79.0  # with the person's other portraits
_COPY: Final = 91.0  # copies are at least so alike, and
_COPY_BITS: Final = 8  # differ in at most so many of the 64 bits of a perceptual hash,
_SURE_COPY: Final = 99.0  # or are so alike, and
_SURE_COPY_BITS: Final = 16  # differ in at most so many: cut a little differently

_HASH_EDGE_PX: Final = 32
_HASH_EDGE: Final = 8  # lowest frequencies kept in either direction


@dataclass(frozen=True, slots=True, eq=False)
class _Likenesses:
    """How alike every portrait is to the others of its person, and to somebody else.

    Attributes:
        owners: Whose portraits, as in all arrays.
        own: float64 (N,), score with the person's others; NaN without others.
        best: float64 (N,), score with the most similar other person; NaN without one.
        whose: int64 (N,), that person's id.
        nearest: int64 (N,), the portrait of theirs that is most like it.
    """

    owners: Owners
    own: NDArray[np.float64]
    best: NDArray[np.float64]
    whose: NDArray[np.int64]
    nearest: NDArray[np.int64]

    def fit(self, portrait_id: int) -> float:
        """How well a portrait fits the others of its person; in between where there are none."""
        own = self.own[self.owners.portrait_ids == portrait_id]
        return float(own[0]) if len(own) and not np.isnan(own[0]) else (_AGREE + _FITS) / 2

    def lookalike(self, place: int) -> Subject:
        """The other person who is most like a portrait."""
        person_id = int(self.whose[place])
        return Subject(person_id, self.owners.names.get(person_id, "somebody"))


def face_findings(
    gallery: Gallery, space: Space, owners: Owners, turned: Collection[int], progress: Progress
) -> list[Finding]:
    """Copies, people with two names, portraits of somebody else.

    Args:
        gallery: Whose.
        space: Compares; its vectors are sound.
        owners: Who is compared.
        turned: Ids of portraits whose face is turned away: unlike the others they may well be.
        progress: Told about portraits.
    """
    try:
        calibration = gallery.calibration(space)
    except GalleryCorrupt:
        calibration = prior(space)
    try:
        alike = _likenesses(gallery, space, owners, calibration, progress)
    except GalleryMissing:  # nobody can be found
        return []
    two_names = list(_two_names(gallery, space, alike, calibration))
    pairs = {
        frozenset((one.subject.person_id, one.other.person_id))
        for one in two_names
        if one.subject and one.other
    }
    copies = list(_copies(gallery, alike, pairs))
    copied = {one.subject.portrait_id for one in copies if one.subject}
    outliers = _outliers(gallery, alike, turned)
    return [
        *copies,
        *two_names,
        *(one for one in outliers if not one.subject or one.subject.portrait_id not in copied),
    ]


def _likenesses(
    gallery: Gallery,
    space: Space,
    everybody: Owners,
    calibration: Calibration,
    progress: Progress,
) -> _Likenesses:
    owners = everybody.having(gallery.embedded(space))
    count = len(owners.portrait_ids)
    own, best = np.full(count, np.nan), np.full(count, np.nan)
    whose, nearest = np.zeros(count, np.int64), np.zeros(count, np.int64)
    index = gallery.index(space)
    for part in owners.chunks():
        vectors = gallery.vectors(space, owners.portrait_ids[part])
        _, starts = np.unique(owners.person_ids[part], return_index=True)
        own[part] = np.concatenate(
            [_to_the_others(one, space.backbone) for one in np.split(vectors, starts[1:])]
        )
        for place, vector in enumerate(vectors, part.start):
            for hit in index.top(Embedding(vector, space), 2):
                if hit.person_id != owners.person_ids[place]:
                    best[place] = hit.cosine
                    whose[place], nearest[place] = hit.person_id, hit.portrait_id
                    break
        progress("faces", part.stop, count)
    for cosines in (own, best):
        known = np.isfinite(cosines)
        cosines[known] = calibration.scores(cosines[known])
    return _Likenesses(owners, own, best, whose, nearest)


def _to_the_others(vectors: NDArray[np.float32], backbone: str) -> NDArray[np.float64]:
    """Likeness of each of a person's portraits to the others: float64 (n,), NaN for one alone."""
    count = len(vectors)
    if count < 2:
        return np.full(count, np.nan)
    return np.concatenate(
        [_to_person(vectors[[i]], np.delete(vectors, i, axis=0), backbone) for i in range(count)]
    )


def _to_person(
    portraits: NDArray[np.float32], person: NDArray[np.float32], backbone: str
) -> NDArray[np.float64]:
    """Likenesses of portraits (n, D) to somebody with portraits (m, D): float64 (n,)."""
    length = np.linalg.norm(person.sum(axis=0, dtype=np.float64)[None], axis=1)
    norms = evened_norms(length, np.asarray([len(person)]), backbone)
    cosines = portraits.astype(np.float64) @ person.T.astype(np.float64)
    likenesses = person_cosines(cosines, np.zeros(len(person), np.intp), norms)
    return likenesses[:, 0].astype(np.float64)


def _copies(
    gallery: Gallery, alike: _Likenesses, two_names: set[frozenset[int]]
) -> Iterator[Finding]:
    """One picture under two names: found by likeness, told by a hash of the face."""
    owners = alike.owners
    seen: set[frozenset[int]] = set()
    told: set[int] = set()
    for place in np.flatnonzero(alike.best >= _COPY).tolist():
        pair = frozenset((int(owners.portrait_ids[place]), int(alike.nearest[place])))
        persons = frozenset((int(owners.person_ids[place]), int(alike.whose[place])))
        portraits = gallery.portraits_by_id(pair)
        if pair in seen or persons in two_names or len(portraits) < 2:
            continue
        seen.add(pair)
        score, bits = float(alike.best[place]), _different_bits(gallery, *portraits.values())
        if bits > (_SURE_COPY_BITS if score >= _SURE_COPY else _COPY_BITS):
            continue
        worse, better = sorted(portraits.values(), key=lambda one: alike.fit(one.id))
        if worse.id not in told:  # copied from one of two copies
            told.add(worse.id)
            yield _copy(alike, worse, better, score, bits)


def _copy(
    alike: _Likenesses, worse: Portrait, better: Portrait, score: float, bits: float
) -> Finding:
    fits = alike.fit(worse.id), alike.fit(better.id)
    clear = fits[0] < _AGREE and fits[1] >= _FITS
    one, other = alike.owners.subject(worse), alike.owners.subject(better)
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


def _different_bits(gallery: Gallery, one: Portrait, other: Portrait) -> float:
    """In how many of 64 bits the perceptual hashes of two faces differ; inf without a photo."""
    try:
        return float(np.sum(_perceptual_hash(gallery, one) != _perceptual_hash(gallery, other)))
    except (OSError, LookalikeError, ValueError):
        return np.inf


def _perceptual_hash(gallery: Gallery, portrait: Portrait) -> NDArray[np.bool_]:
    """Bool (8, 8): which of the lowest frequencies of a face are above their median.

    The face is cut out by its landmarks: thumbnails of one photo in two sizes show more or less of
    what is around it. Method: http://www.hackerfactor.com/blog/index.php?/archives/432.

    Raises:
        LookalikeError: If the picture can't be decoded.
        ValueError: If there is none.
    """
    import cv2
    from PIL import Image

    from engine.align import dlib_crop

    jpeg = gallery.photo(portrait)
    if jpeg is None:
        raise ValueError("no photo")
    crop = Image.fromarray(dlib_crop(decode(jpeg), portrait.landmarks)).convert("L")
    small = crop.resize((_HASH_EDGE_PX, _HASH_EDGE_PX), Image.Resampling.LANCZOS)
    lowest = cv2.dct(np.asarray(small, np.float64))[:_HASH_EDGE, :_HASH_EDGE]
    lowest[0] *= np.sqrt(2)  # the method's transform is not orthonormal
    lowest[:, 0] *= np.sqrt(2)
    above: NDArray[np.bool_] = lowest > np.median(lowest)
    return above


def _two_names(
    gallery: Gallery, space: Space, alike: _Likenesses, calibration: Calibration
) -> Iterator[Finding]:
    """Pairs of people whose portraits are as alike as one person's."""
    owners = alike.owners
    near = np.flatnonzero(alike.best >= _CANDIDATES)
    pairs = {
        (min(pair), max(pair))
        for pair in zip(owners.person_ids[near].tolist(), alike.whose[near].tolist(), strict=True)
    }
    known = gallery.people_by_id({one for pair in pairs for one in pair})
    for pair in sorted(pairs):
        if not known.keys() >= set(pair):
            continue
        one, other = (known[person_id] for person_id in pair)
        first, second = (
            gallery.vectors(space, owners.portrait_ids[owners.person_ids == person_id])
            for person_id in pair
        )
        sides = (
            _to_person(first, second, space.backbone),
            _to_person(second, first, space.backbone),
        )
        middle = min(float(np.median(calibration.scores(side))) for side in sides)
        several = len(first) + len(second) > 2
        if middle < (_ONE_PERSON if several else _ONE_PORTRAIT_EACH):
            continue
        same_name = folded(one.name) == folded(other.name)
        mergeable = same_name and None in (one.wikidata_id, other.wikidata_id)
        yield Finding(
            Kind.TWO_NAMES,
            f"{one.name} ({one.key}) and {other.name} ({other.key}) score {middle:.0f} with each "
            "other, as photos of one person do",
            middle,
            Remedy.MERGE if mergeable and middle >= _SURELY_ONE else Remedy.NONE,
            Subject(one.id, one.name),
            Subject(other.id, other.name),
        )


def _outliers(gallery: Gallery, alike: _Likenesses, turned: Collection[int]) -> Iterator[Finding]:
    """Portraits that are not like the person's others."""
    owners = alike.owners
    suspect = alike.own < _UNLIKE
    suspect &= ~np.isin(owners.portrait_ids, list(turned)) | (alike.best >= _ANOTHER)
    for person_id in np.unique(owners.person_ids[suspect]).tolist():
        places = np.flatnonzero(owners.person_ids == person_id)
        if len(places) > 2 and np.nanmax(alike.own[places]) >= _AGREE:
            for place in places[suspect[places]].tolist():
                yield _outlier(gallery, alike, place, len(places))
        else:
            yield _disagreement(gallery, alike, person_id, places)


def _outlier(gallery: Gallery, alike: _Likenesses, place: int, count: int) -> Finding:
    own, best = float(alike.own[place]), float(alike.best[place])
    whose = _subject(gallery, alike, place)
    why = f"it scores {own:.0f} with the person's {count - 1} others"
    if not best >= _ANOTHER:
        return Finding(Kind.OUTLIER, why, own, Remedy.NONE, whose)
    other = alike.lookalike(place)
    why += f" and {best:.0f} with {other.person}"
    return Finding(Kind.OUTLIER, why, own, Remedy.REMOVE, whose, other)


def _disagreement(
    gallery: Gallery, alike: _Likenesses, person_id: int, places: NDArray[np.intp]
) -> Finding:
    """One finding about portraits of which nobody can say which are right."""
    best = float(np.nanmax(alike.own[places]))
    if len(places) == 2:
        why = f"one of the two is of somebody else: they score {best:.0f} with each other"
    else:
        why = f"none of the {len(places)} scores more than {best:.0f} with the others"
    far = int(places[int(np.argmax(np.nan_to_num(alike.best[places])))])
    whom, other = Subject(person_id, alike.owners.names.get(person_id, "somebody")), None
    if alike.best[far] >= _ANOTHER:
        whom, other = _subject(gallery, alike, far), alike.lookalike(far)
        why += f", and one {alike.best[far]:.0f} with {other.person}"
    kind = Kind.OUTLIER if len(places) == 2 else Kind.MIXED
    return Finding(kind, why, best, Remedy.NONE, whom, other)


def _subject(gallery: Gallery, alike: _Likenesses, place: int) -> Subject:
    portrait_id = int(alike.owners.portrait_ids[place])
    return alike.owners.subject(gallery.portraits_by_id([portrait_id])[portrait_id])
