"""Whether portraits are of whom they are said to be, by how alike the faces are.

The thresholds are scores (gallery/calibration.py), so that they hold for every backbone. They were
chosen by eye on every second person of 597 with five photos each (dlib), a collection known to
hold wrong names, and judged on the others: see docs/OPERATIONS.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from engine.errors import GalleryCorrupt, GalleryMissing
from engine.types import Embedding, Space
from gallery.calibration import prior
from gallery.gallery import Gallery
from gallery.likeness import evened_norms, person_cosines
from gallery.progress import Progress
from gallery.records import Portrait, folded
from gallery.verifying.copies import UNLIKE, Likenesses, copies
from gallery.verifying.findings import Finding, Kind, Remedy, Subject
from gallery.verifying.pictures import subject
from gallery.verifying.storage import Roster

if TYPE_CHECKING:
    from gallery.calibration import Calibration

__all__ = ["likeness_findings"]

_AGREE: Final = 40.0  # so alike is one stranger in 1,000; some of a person's portraits must be
_ANOTHER: Final = 80.0  # so alike is hardly anybody but the person
_CANDIDATES: Final = 60.0
_SURELY_ONE: Final = 70.0  # then two of one name are merged
_ONE_PERSON: Final = 60.0  # the median likeness of either one's portraits to the other
_ONE_PORTRAIT_EACH: Final = 90.0  # where that is a single likeness


def likeness_findings(
    gallery: Gallery,
    space: Space,
    everybody: Roster,
    turned: Collection[int],
    progress: Progress,
) -> list[Finding]:
    """Copies, people with two names, portraits of somebody else.

    Args:
        gallery: Whose.
        space: Compares; its vectors are sound.
        everybody: Who is compared.
        turned: Ids of portraits whose face is turned away: unlike the others they may well be.
        progress: Told about portraits.
    """
    try:
        calibration = gallery.calibration(space)
    except GalleryCorrupt:
        calibration = prior(space)
    try:
        alike = _likenesses(gallery, space, everybody, calibration, progress)
    except GalleryMissing:  # nobody can be found
        return []
    two_names = list(_two_names(gallery, space, alike, calibration))
    together = {
        frozenset((one.subject.person_id, one.other.person_id))
        for one in two_names
        if one.subject and one.other
    }
    found_copies = list(copies(gallery, alike, together))
    copied = {one.subject.portrait_id for one in found_copies if one.subject}
    outliers = _outliers(gallery, alike, turned)
    return [
        *found_copies,
        *two_names,
        *(one for one in outliers if not one.subject or one.subject.portrait_id not in copied),
    ]


def _likenesses(
    gallery: Gallery,
    space: Space,
    everybody: Roster,
    calibration: Calibration,
    progress: Progress,
) -> Likenesses:
    people = everybody.having(gallery.embedded(space))
    count = len(people.portrait_ids)
    own, best = np.full(count, np.nan), np.full(count, np.nan)
    whose, nearest = np.zeros(count, np.int64), np.zeros(count, np.int64)
    index = gallery.index(space)
    for part in people.chunks():
        vectors = gallery.vectors(space, people.portrait_ids[part])
        persons = people.person_ids[part]
        _, starts = np.unique(persons, return_index=True)
        own[part] = np.concatenate(
            [_with_the_others(one, space.backbone) for one in np.split(vectors, starts[1:])]
        )
        for place, vector in enumerate(vectors, part.start):
            for hit in index.top(Embedding(vector, space), 2):
                if hit.person_id != people.person_ids[place]:
                    best[place] = hit.cosine
                    whose[place], nearest[place] = hit.person_id, hit.portrait_id
                    break
        progress("faces", min(part.stop, count), count)
    own, best = _scores(calibration, own), _scores(calibration, best)
    return Likenesses(people, own, best, whose, nearest)


def _scores(calibration: Calibration, cosines: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.isfinite(cosines)
    scores = np.full(len(cosines), np.nan)
    scores[known] = calibration.scores(cosines[known])
    return scores


def _with_the_others(vectors: NDArray[np.float32], backbone: str) -> NDArray[np.float64]:
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


def _two_names(
    gallery: Gallery, space: Space, alike: Likenesses, calibration: Calibration
) -> Iterator[Finding]:
    """Pairs of people whose portraits are as alike as one person's."""
    near = np.flatnonzero(alike.best >= _CANDIDATES)
    pairs = {
        (min(pair), max(pair))
        for pair in zip(
            alike.people.person_ids[near].tolist(), alike.whose[near].tolist(), strict=True
        )
    }
    known = gallery.catalogue.people_by_id({one for pair in pairs for one in pair})
    for pair in sorted(pairs):
        if not known.keys() >= set(pair):
            continue
        one, other = (known[person_id] for person_id in pair)
        sides = _between(gallery, space, alike.people, pair, calibration)
        middle = min(float(np.median(side)) for side in sides)
        if middle < (_ONE_PERSON if sum(map(len, sides)) > 2 else _ONE_PORTRAIT_EACH):
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


def _between(
    gallery: Gallery,
    space: Space,
    people: Roster,
    pair: tuple[int, int],
    calibration: Calibration,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of each one's portraits with the other of the two."""
    first, second = (
        gallery.vectors(space, people.portrait_ids[people.person_ids == one]) for one in pair
    )
    return (
        calibration.scores(_to_person(first, second, space.backbone)),
        calibration.scores(_to_person(second, first, space.backbone)),
    )


def _outliers(gallery: Gallery, alike: Likenesses, turned: Collection[int]) -> Iterator[Finding]:
    """Portraits that are not like the person's others."""
    people = alike.people
    suspect = alike.own < UNLIKE
    suspect &= ~np.isin(people.portrait_ids, list(turned)) | (alike.best >= _ANOTHER)
    low = np.unique(people.person_ids[np.flatnonzero(suspect)])
    for person_id in low.tolist():
        places = np.flatnonzero(people.person_ids == person_id)
        own = alike.own[places]
        if len(places) > 2 and np.nanmax(own) >= _AGREE:
            for place in places[suspect[places]].tolist():
                yield _outlier(gallery, alike, place, len(places))
        else:
            yield _disagreement(gallery, alike, person_id, places)


def _outlier(gallery: Gallery, alike: Likenesses, place: int, count: int) -> Finding:
    portrait = _portrait(gallery, int(alike.people.portrait_ids[place]))
    names = alike.people.names
    own, best = float(alike.own[place]), float(alike.best[place])
    why = f"it scores {own:.0f} with the person's {count - 1} others"
    if best >= _ANOTHER:
        other = Subject(int(alike.whose[place]), names.get(int(alike.whose[place]), "somebody"))
        why += f" and {best:.0f} with {other.person}"
        return Finding(
            Kind.OUTLIER, why, own, Remedy.REMOVE, subject(gallery, portrait, names), other
        )
    return Finding(Kind.OUTLIER, why, own, Remedy.NONE, subject(gallery, portrait, names))


def _disagreement(
    gallery: Gallery, alike: Likenesses, person_id: int, places: NDArray[np.intp]
) -> Finding:
    """One finding about portraits of which nobody can say which are right."""
    names = alike.people.names
    best = float(np.nanmax(alike.own[places]))
    if len(places) == 2:
        why = f"one of the two is of somebody else: they score {best:.0f} with each other"
    else:
        why = f"none of the {len(places)} scores more than {best:.0f} with the others"
    far = places[int(np.argmax(np.nan_to_num(alike.best[places])))]
    other = None
    whom = Subject(person_id, names.get(person_id, "somebody"))
    if alike.best[far] >= _ANOTHER:
        portrait = _portrait(gallery, int(alike.people.portrait_ids[far]))
        whom = subject(gallery, portrait, names)
        other = Subject(int(alike.whose[far]), names.get(int(alike.whose[far]), "somebody"))
        why += f", and one {alike.best[far]:.0f} with {other.person}"
    kind = Kind.OUTLIER if len(places) == 2 else Kind.MIXED
    return Finding(kind, why, best, Remedy.NONE, whom, other)


def _portrait(gallery: Gallery, portrait_id: int) -> Portrait:
    return gallery.catalogue.portraits_by_id([portrait_id])[portrait_id]
