"""Whether what is stored of a gallery is whole: rows, vectors, scores and pictures.

What the database guarantees (no vector without its portrait, no portrait without its person) is
not looked for.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from engine.decode import decode
from engine.engine import Engine
from engine.errors import GalleryCorrupt, PhotoProblem
from engine.types import Box, Concern, Face, Space
from gallery.gallery import Gallery
from gallery.likeness import Ints
from gallery.progress import Progress, in_batches
from gallery.records import Portrait
from gallery.tables import CATEGORIES, MEMBERS

_SETTLED_S: Final = 600.0  # younger files may belong to somebody who is adding people
_BATCH: Final = 64
_CHUNK: Final = 4096
_LENGTH: Final = 1e-3  # what a unit vector's length may be off, as in engine.types.Embedding
_SAMPLE: Final = 256  # pictures whose vectors are made again, to compare
_SAME_FACE: Final = 0.3  # boxes that share this part of what they cover are one face
_COMPARABLE: Final = 0.4  # another face with so much of the area; gallery.screen asks the same
_SAME_VECTOR: Final = 0.95
"""A vector made again from the thumbnail has at least this cosine with the stored one, which was
made from the original: 0.9985 at worst among 150 photos with dlib."""
_MOST_OTHERS: Final = 0.05  # if more of the sample differ, it is the vectors, not the pictures
NOBODYS: Final = CATEGORIES.c.id.not_in(select(MEMBERS.c.category_id))  # categories


class Kind(StrEnum):
    """What is wrong."""

    PICTURE = "unreadable picture"
    FACE = "no face where it should be"
    OTHER_VECTOR = "vector of another picture"
    VECTORS = "damaged vectors"
    CALIBRATION = "damaged scores"
    UNSEARCHABLE = "not searchable"
    STRAY = "files of nobody"
    LINKS = "records of nobody"
    NOBODY = "person without a portrait"
    EMPTY = "category without people"
    FACES = "several faces"
    OUTLIER = "unlike the person's others"
    MIXED = "different people under one name"
    COPY = "one picture, two names"
    TWO_NAMES = "one person, two names"


class Remedy(StrEnum):
    """What mending does, in the order of it."""

    SWEEP = "delete it"
    FORGET = "forget the portrait, so that its source can bring it again"
    REMOVE = "remove the portrait and not take it again"
    MERGE = "make them one person"
    REBUILD = "make the vectors anew from the pictures"
    EMBED = "make the missing vectors"
    LEARN = "learn the scores anew"
    DELETE = "remove the person"


@dataclass(frozen=True, slots=True)
class Subject:
    """A person or one of their portraits."""

    person_id: int
    person: str  # their name
    portrait_id: int | None = None  # None for the person
    picture: str | None = None  # the page that it comes from


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong, or likely so."""

    kind: Kind
    why: str  # a sentence with the number that a person can judge it by
    number: float  # a score from 0 to 100 for likenesses, else a count or a ratio
    remedy: Remedy | None = None  # None: people judge it
    subject: Subject | None = None  # None for the gallery
    other: Subject | None = None  # somebody else involved
    space_id: str | None = None  # whose vectors it concerns

    def to_json(self) -> dict[str, Any]:
        """As printed with ``--json``."""
        return {
            "kind": self.kind,
            **(asdict(self.subject) if self.subject else {"person": None}),
            "why": self.why,
            "number": round(self.number, 3),
            "other": asdict(self.other) if self.other else None,
            "space": self.space_id,
            "fix": self.remedy,
        }


@dataclass(slots=True)
class Examination:
    """What was looked at, found and mended."""

    backbone: str | None = None  # whose vectors compared faces
    people: int = 0
    portraits: int = 0
    unchecked: list[str] = field(default_factory=list)  # what could not be checked, as sentences
    findings: list[Finding] = field(default_factory=list)  # what was not mended
    mended: list[Finding] = field(default_factory=list)  # in order
    seconds: float = 0.0
    interrupted: bool = False  # before the end; what was mended is kept

    def to_json(self) -> dict[str, Any]:
        """As printed with ``--json``."""
        kinds = Counter(str(finding.kind) for finding in self.findings)
        return {
            "model": self.backbone,
            "people": self.people,
            "portraits": self.portraits,
            "findings": [finding.to_json() for finding in self.findings],
            "findings_by_kind": dict(kinds.most_common()),
            "fixed": [finding.to_json() for finding in self.mended],
            "unchecked": self.unchecked,
            "seconds": round(self.seconds, 2),
            "interrupted": self.interrupted,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Owners:
    """Who has which portraits."""

    portrait_ids: Ints  # (N,), by person
    person_ids: Ints  # (N,), rising: whose each is
    names: dict[int, str]  # of everybody, by person id

    def chunks(self) -> Iterator[slice]:
        """Slices of about 4,096 portraits that never part a person's."""
        start = 0
        while start < len(self.person_ids):
            last = self.person_ids[min(start + _CHUNK, len(self.person_ids)) - 1]
            end = int(np.searchsorted(self.person_ids, last, side="right"))
            yield slice(start, end)
            start = end

    def having(self, portrait_ids: Ints) -> "Owners":
        """The same without other portraits."""
        kept = np.isin(self.portrait_ids, portrait_ids)
        return Owners(self.portrait_ids[kept], self.person_ids[kept], self.names)

    def person(self, person_id: int) -> Subject:
        """Who somebody is."""
        return Subject(person_id, self.names.get(person_id, "somebody"))

    def subject(self, portrait: Portrait) -> Subject:
        """Whose portrait it is, and where its picture comes from."""
        whose = self.person(portrait.person_id)
        return replace(whose, portrait_id=portrait.id, picture=portrait.source_url)


def owners_of(gallery: Gallery) -> Owners:
    """Who has which portraits now."""
    portrait_ids, person_ids = gallery.portrait_owners().T
    order = np.lexsort((portrait_ids, person_ids))
    names = {person.id: person.name for person in gallery.people()}
    return Owners(portrait_ids[order], person_ids[order], names)


def catalogue_findings(gallery: Gallery) -> list[Finding]:
    """People without portraits, categories without people."""
    counts, name = gallery.portrait_counts(), CATEGORIES.c.name
    with gallery.reading() as connection:
        empty = connection.scalars(select(name).where(NOBODYS).order_by(name)).all()
        people = [person for person in gallery.people() if person.id not in counts]
    found = [
        Finding(Kind.EMPTY, f"nobody is in the category {one}", 0, Remedy.SWEEP) for one in empty
    ]
    for one in people:
        why = f"{one.name} has no portrait and can't be found"
        found.append(Finding(Kind.NOBODY, why, 0, Remedy.DELETE, Subject(one.id, one.name)))
    return found


def broken_links(gallery: Gallery) -> list[tuple[str, int]]:
    """Table and row id of records that belong to something that is not there (SQLite)."""
    with gallery.reading() as connection:
        if gallery.shared:
            return []
        found = connection.exec_driver_sql("PRAGMA foreign_key_check")
        return [(row[0], row[1]) for row in found]


def stray_findings(gallery: Gallery, *, alone: bool) -> list[Finding]:
    """Files that no space needs, and records that belong to nothing.

    Young files only if nobody else can be writing (``alone``).
    """
    before = math.inf if alone else time.time() - _SETTLED_S
    stray = [path for path in gallery.stray_files() if path.stat().st_mtime < before]
    found = []
    if links := len(broken_links(gallery)):
        why = f"{links:,} records belong to something that is not there"
        found.append(Finding(Kind.LINKS, why, links, Remedy.SWEEP))
    if stray:
        names = ", ".join(path.name for path in stray[:3]) + (", ..." if len(stray) > 3 else "")
        why = f"{len(stray):,} files of vectors that don't count: {names}"
        found.append(Finding(Kind.STRAY, why, len(stray), Remedy.SWEEP))
    return found


def space_findings(
    gallery: Gallery, owners: Owners, progress: Progress
) -> tuple[list[Finding], list[Space]]:
    """What is wrong with the vectors and scores of every space, and which can be relied on."""
    found: list[Finding] = []
    sound: list[Space] = []
    for state in gallery.space_states():
        space = state.space
        try:
            gallery.check_vectors(state)
            stored = gallery.embedded(space)
            mine = owners.having(stored)
            bad, count = _bad_vectors(gallery, space, mine, progress), len(mine.portrait_ids)
            problem = f"{bad:,} of {count:,} are no unit vectors" if bad else ""
        except (GalleryCorrupt, OSError, KeyError, ValueError) as trouble:
            problem = str(trouble)
        if problem:
            why = f"vectors of {space.backbone}: {problem}"
            found.append(Finding(Kind.VECTORS, why, 0, Remedy.REBUILD, space_id=space.id))
            continue
        sound.append(space)
        if lacking := len(np.setdiff1d(owners.portrait_ids, stored)):
            why = f"{lacking:,} portraits can't be found with {space.backbone}"
            found.append(Finding(Kind.UNSEARCHABLE, why, lacking, Remedy.EMBED, space_id=space.id))
        try:
            gallery.refresh()
            gallery.calibration(space)
        except GalleryCorrupt as trouble:
            why = str(trouble).partition(":")[0]
            found.append(Finding(Kind.CALIBRATION, why, 0, Remedy.LEARN, space_id=space.id))
    return found, sound


def _bad_vectors(gallery: Gallery, space: Space, owners: Owners, progress: Progress) -> int:
    """How many vectors are not of unit length."""
    count, bad = len(owners.portrait_ids), 0
    for part in owners.chunks():
        vectors = gallery.vectors(space, owners.portrait_ids[part])
        with np.errstate(invalid="ignore", over="ignore"):
            lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
            bad += int(np.sum(~(np.abs(lengths - 1.0) < _LENGTH)))
        progress("vectors", part.stop, count)
    return bad


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What was seen in a picture; crops by backbone."""

    portrait: Portrait
    finding: Finding | None
    turned: bool = False
    crops: dict[str, NDArray[np.uint8]] = field(default_factory=dict)


def picture_findings(
    gallery: Gallery, engine: Engine, owners: Owners, spaces: Sequence[Space], progress: Progress
) -> tuple[list[Finding], frozenset[int]]:
    """Unreadable pictures, faces that are not there, several faces, vectors of other pictures.

    Portraits without a photo are passed over. Vectors of a sample are made again in the spaces.
    Returns also the ids of portraits whose face is turned away, so that it is hard to compare.
    """
    found: list[Finding] = []
    turned: set[int] = set()
    compared: list[_Seen] = []
    ids = np.sort(owners.portrait_ids)
    sample = set(ids[:: max(1, -(-len(ids) // _SAMPLE))].tolist())

    def look(portrait: Portrait) -> _Seen | None:
        wanted = spaces if portrait.id in sample else ()
        return _seen(gallery, engine, portrait, wanted, owners.subject(portrait))

    with ThreadPoolExecutor(thread_name_prefix="verify") as pool:
        for batch in in_batches(ids.tolist(), _BATCH, "pictures", progress):
            portraits = gallery.portraits_by_id(batch).values()
            seen = [one for one in pool.map(look, portraits) if one is not None]
            found += [one.finding for one in seen if one.finding is not None]
            turned.update(one.portrait.id for one in seen if one.turned)
            compared += [one for one in seen if one.crops]
    for space in spaces if compared else ():
        others = _differing(gallery, engine, space, compared, owners)
        if len(others) > max(1.0, _MOST_OTHERS * len(compared)):
            why = f"vectors of {space.backbone}: {len(others):,} of {len(compared):,} tried are "
            why += "not those of their pictures"
            found.append(Finding(Kind.VECTORS, why, len(others), Remedy.REBUILD, space_id=space.id))
        else:
            found += others
    return found, frozenset(turned)


def _seen(
    gallery: Gallery, engine: Engine, portrait: Portrait, spaces: Sequence[Space], whose: Subject
) -> _Seen | None:
    """What is in a portrait's picture; None if it has none."""
    wanted, problem = (portrait.width_px, portrait.height_px), ""
    jpeg = gallery.photo(portrait)
    if jpeg is None and portrait.sound:
        return None
    try:
        photo = decode(jpeg or b"")  # the settings limit what others send
        size = photo.width_px, photo.height_px
        if photo.format != "JPEG" or size != wanted:
            problem = f"it is a {photo.format} of {size[0]} x {size[1]} px, not a JPEG of "
            problem += f"{wanted[0]} x {wanted[1]}"
    except PhotoProblem as trouble:
        problem = f"it can't be read ({trouble})"
    if not portrait.sound:
        problem = "its record makes no sense"
    if problem:
        return _Seen(portrait, Finding(Kind.PICTURE, problem, 0, Remedy.FORGET, whose))
    faces = engine.detect(photo)
    same = [face for face in faces if _overlap(face.box, portrait.box) >= _SAME_FACE]
    others = [
        face.box.area_px / portrait.box.area_px
        for face in faces
        if face not in same
        and Concern.SMALL not in face.concerns
        and face.box.area_px >= _COMPARABLE * portrait.box.area_px
    ]
    finding = None
    if not same:
        why = "no face is found where the catalogue says there is one"
        finding = Finding(Kind.FACE, why, 0, subject=whose)
    elif others:
        more = f"{len(others)} more faces" if len(others) > 1 else "another face"
        why = f"{more} in it, {max(others):.0%} as large as the portrait's"
        finding = Finding(Kind.FACES, why, max(others), subject=whose)
    face = Face(portrait.box, portrait.landmarks, confidence=1.0)
    crops = {space.backbone: engine.backbone(space.backbone).crop(photo, face) for space in spaces}
    return _Seen(portrait, finding, any(Concern.TURNED in one.concerns for one in same), crops)


def _differing(
    gallery: Gallery, engine: Engine, space: Space, seen: Sequence[_Seen], owners: Owners
) -> list[Finding]:
    """Portraits whose stored vector is not that of their picture."""
    stored = set(gallery.embedded(space).tolist())
    seen = [one for one in seen if one.portrait.id in stored]
    if not seen:
        return []
    made = engine.backbone(space.backbone).embed([one.crops[space.backbone] for one in seen])
    ids = np.asarray([one.portrait.id for one in seen], np.int64)
    cosines = np.sum(np.stack([e.vector for e in made]) * gallery.vectors(space, ids), axis=1)
    found = []
    for one, cosine in zip(seen, cosines.tolist(), strict=True):
        why = f"its vector of {space.backbone} is not that of its picture (cosine {cosine:.2f}, "
        why += "usually 0.99 and more)"
        whose = owners.subject(one.portrait)
        if not cosine >= _SAME_VECTOR:
            found.append(
                Finding(Kind.OTHER_VECTOR, why, cosine, Remedy.FORGET, whose, None, space.id)
            )
    return found


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union, in [0, 1]."""
    across = min(one.x + one.w, other.x + other.w) - max(one.x, other.x)
    down = min(one.y + one.h, other.y + other.h) - max(one.y, other.y)
    both = max(0.0, across) * max(0.0, down)
    return both / (one.area_px + other.area_px - both)
