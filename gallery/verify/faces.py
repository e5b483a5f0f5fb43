"""Whether portraits are of whom they are said to be, by how alike the faces are.

The thresholds are scores (see the calibration), so that they hold for every backbone. They were
chosen by eye on every second person of 597 with five photos each (dlib), a collection known to
hold wrong names, and judged on the others: see docs/OPERATIONS.md.
"""

from collections.abc import Collection, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.decode import decode
from engine.errors import GalleryCorrupt, GalleryMissing, LookalikeError
from engine.types import Embedding, Space
from gallery.gallery import Gallery
from gallery.likeness import Flags, Floats32, person_cosines
from gallery.progress import Progress
from gallery.records import Portrait, folded
from gallery.scores import prior
from gallery.scores.fit import person_norms, to_the_rest
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


def face_findings(
    gallery: Gallery, space: Space, owners: Owners, turned: Collection[int], progress: Progress
) -> list[Finding]:
    """Copies, people with two names, portraits of somebody else; the space's vectors are sound.

    Portraits whose face is ``turned`` away, by id, may well be unlike the others.
    """
    try:
        compared = _Comparison(gallery, space, owners, progress)
    except GalleryMissing:  # nobody can be found
        return []
    two_names = list(compared.two_names())
    both = [(one.subject, one.other) for one in two_names]
    pairs = {frozenset(one.person_id for one in pair if one) for pair in both}
    copies = list(compared.copies(pairs))
    copied = [one.subject for one in copies]
    outliers = [one for one in compared.outliers(turned) if one.subject not in copied]
    return [*copies, *two_names, *outliers]


class _Comparison:
    """How alike every portrait (N) is to the others of its person, and to somebody else.

    ``own`` is the score with the person's others, ``best`` that with the most similar other person
    (``whose`` id), NaN without any; ``nearest`` is the portrait of theirs that is most like it.
    """

    def __init__(self, gallery: Gallery, space: Space, known: Owners, progress: Progress) -> None:
        self.gallery, self.space = gallery, space
        try:
            self.calibration = gallery.calibration(space)
        except GalleryCorrupt:
            self.calibration = prior(space)
        self.owners = owners = known.having(gallery.embedded(space))
        count = len(owners.portrait_ids)
        self.own, self.best = np.full(count, np.nan), np.full(count, np.nan)
        self.whose, self.nearest = np.zeros(count, np.int64), np.zeros(count, np.int64)
        index = gallery.index(space)
        for part in owners.chunks():
            vectors = gallery.vectors(space, owners.portrait_ids[part])
            _, starts = np.unique(owners.person_ids[part], return_index=True)
            for own in np.split(np.arange(len(vectors)), starts[1:]):
                if len(own) > 1:
                    cosines = to_the_rest(vectors[own], np.arange(len(own)), space.backbone)
                    self.own[part.start + own] = cosines
            for place, vector in enumerate(vectors, part.start):
                for hit in index.top(Embedding(vector, space), 2):
                    if hit.person_id != owners.person_ids[place]:
                        self.best[place] = hit.cosine
                        self.whose[place], self.nearest[place] = hit.person_id, hit.portrait_id
                        break
            progress("faces", part.stop, count)
        for cosines in (self.own, self.best):
            there = np.isfinite(cosines)
            cosines[there] = self.calibration.scores(cosines[there])

    def copies(self, two_names: set[frozenset[int]]) -> Iterator[Finding]:
        """One picture under two names: found by likeness, told by a hash of the face."""
        owners = self.owners
        seen: set[frozenset[int]] = set()
        told: set[int] = set()
        for place in np.flatnonzero(self.best >= _COPY).tolist():
            pair = frozenset((int(owners.portrait_ids[place]), int(self.nearest[place])))
            persons = frozenset((int(owners.person_ids[place]), int(self.whose[place])))
            portraits = self.gallery.portraits_by_id(pair)
            if pair in seen or persons in two_names or len(portraits) < 2:
                continue
            seen.add(pair)
            score = float(self.best[place])
            bits = _different_bits(self.gallery, *portraits.values())
            if bits > (_SURE_COPY_BITS if score >= _SURE_COPY else _COPY_BITS):
                continue
            worse, better = sorted(portraits.values(), key=self._fit)
            if worse.id not in told:  # copied from one of two copies
                told.add(worse.id)
                yield self._copy(worse, better, score, bits)

    def _copy(self, worse: Portrait, better: Portrait, score: float, bits: float) -> Finding:
        bad, good = self._fit(worse), self._fit(better)
        one, other = self.owners.subject(worse), self.owners.subject(better)
        whose, told = other.person, f"score {score:.0f}, {bits:.0f} of 64 bits differ"
        why, remedy = f"the same picture as one of {whose} ({told})", None
        if bad < _AGREE and good >= _FITS:
            remedy = Remedy.REMOVE
            why += f"; it scores {good:.0f} with the others of {whose} and {bad:.0f} with those "
            why += f"of {one.person}"
        return Finding(Kind.COPY, why, score, remedy, one, other)

    def _fit(self, portrait: Portrait) -> float:
        """How well a portrait fits the others of its person; in between where there are none."""
        own = self.own[self.owners.portrait_ids == portrait.id]
        return float(own[0]) if len(own) and not np.isnan(own[0]) else (_AGREE + _FITS) / 2

    def two_names(self) -> Iterator[Finding]:
        """Pairs of people whose portraits are as alike as one person's."""
        owners = self.owners
        near = np.flatnonzero(self.best >= _CANDIDATES)
        pairs = np.sort(np.stack([owners.person_ids[near], self.whose[near]], axis=1), axis=1)
        known = self.gallery.people_by_id(set(pairs.ravel().tolist()))
        for pair in np.unique(pairs, axis=0).tolist():
            if not known.keys() >= set(pair):
                continue
            one, other = (known[person_id] for person_id in pair)
            mine = [owners.portrait_ids[owners.person_ids == person_id] for person_id in pair]
            first, second = (self.gallery.vectors(self.space, ids) for ids in mine)
            middle = min(self._median(first, second), self._median(second, first))
            several = len(first) + len(second) > 2
            if middle < (_ONE_PERSON if several else _ONE_PORTRAIT_EACH):
                continue
            same_name = folded(one.name) == folded(other.name)
            mergeable = same_name and None in (one.wikidata_id, other.wikidata_id)
            yield Finding(
                Kind.TWO_NAMES,
                f"{one.name} ({one.key}) and {other.name} ({other.key}) score {middle:.0f} with "
                "each other, as photos of one person do",
                middle,
                Remedy.MERGE if mergeable and middle >= _SURELY_ONE else None,
                Subject(one.id, one.name),
                Subject(other.id, other.name),
            )

    def _median(self, portraits: Floats32, person: Floats32) -> float:
        """Median score of portraits (n, D) with somebody who has the portraits (m, D)."""
        nobody_else = np.zeros(len(person), np.intp)
        norms = person_norms(person, nobody_else[:1], self.space.backbone)
        cosines = person_cosines(portraits @ person.T, nobody_else, norms)
        return float(np.median(self.calibration.scores(cosines)))

    def outliers(self, turned: Collection[int]) -> Iterator[Finding]:
        """Portraits that are not like the person's others."""
        owners = self.owners
        suspect = self.own < _UNLIKE
        suspect &= ~np.isin(owners.portrait_ids, list(turned)) | (self.best >= _ANOTHER)
        for person_id in np.unique(owners.person_ids[suspect]).tolist():
            places = np.flatnonzero(owners.person_ids == person_id)
            if len(places) > 2 and np.nanmax(self.own[places]) >= _AGREE:
                for place in places[suspect[places]].tolist():
                    own = float(self.own[place])
                    why = f"it scores {own:.0f} with the person's {len(places) - 1} others"
                    other = self._lookalike(place)
                    if other is not None:
                        why += f" and {self.best[place]:.0f} with {other.person}"
                    remedy = Remedy.REMOVE if other else None
                    yield Finding(Kind.OUTLIER, why, own, remedy, self._subject(place), other)
            else:
                yield self._disagreement(person_id, places)

    def _disagreement(self, person_id: int, places: NDArray[np.intp]) -> Finding:
        """One finding about portraits of which nobody can say which are right."""
        best = float(np.nanmax(self.own[places]))
        kind, others = Kind.MIXED, len(places)
        why = f"none of the {others} scores more than {best:.0f} with the others"
        if len(places) == 2:
            kind = Kind.OUTLIER
            why = f"one of the two is of somebody else: they score {best:.0f} with each other"
        far = int(places[int(np.argmax(np.nan_to_num(self.best[places])))])
        other = self._lookalike(far)
        whom = self.owners.person(person_id) if other is None else self._subject(far)
        if other is not None:
            why += f", and one {self.best[far]:.0f} with {other.person}"
        return Finding(kind, why, best, None, whom, other)

    def _lookalike(self, place: int) -> Subject | None:
        """The other person whom a portrait seems to show."""
        similar = self.best[place] >= _ANOTHER
        return self.owners.person(int(self.whose[place])) if similar else None

    def _subject(self, place: int) -> Subject:
        portrait_id = int(self.owners.portrait_ids[place])
        return self.owners.subject(self.gallery.portraits_by_id([portrait_id])[portrait_id])


def _different_bits(gallery: Gallery, one: Portrait, other: Portrait) -> float:
    """In how many of 64 bits the perceptual hashes of two faces differ; inf without a photo."""
    try:
        return float(np.sum(_perceptual_hash(gallery, one) != _perceptual_hash(gallery, other)))
    except (OSError, LookalikeError, ValueError):
        return np.inf


def _perceptual_hash(gallery: Gallery, portrait: Portrait) -> Flags:
    """Bool (8, 8): which of the lowest frequencies of a face are above their median.

    The face is cut out by its landmarks: thumbnails of one photo in two sizes show more or less of
    what is around it. Method: http://www.hackerfactor.com/blog/index.php?/archives/432.
    """
    import cv2
    from PIL import Image

    from engine.align import dlib_crop

    jpeg = gallery.photo(portrait)
    if jpeg is None:
        raise ValueError("no photo")
    crop = Image.fromarray(dlib_crop(decode(jpeg), portrait.landmarks)).convert("L")
    small = crop.resize((32, 32), Image.Resampling.LANCZOS)
    lowest = cv2.dct(np.asarray(small, np.float64))[:8, :8]
    lowest[0] *= np.sqrt(2)  # the method's transform is not orthonormal
    lowest[:, 0] *= np.sqrt(2)
    above: Flags = lowest > np.median(lowest)
    return above
