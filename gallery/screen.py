"""Which photos become portraits: those with one clear face; and what is kept of them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.engine import Engine
from engine.errors import PhotoProblem, SetupProblem, TooLarge
from engine.types import Box, Concern, Face, Photo
from gallery.gallery import Gallery
from gallery.records import REMOVED, Banned, FoundPerson, FoundPortrait, Person, category_name

_log = logging.getLogger(__name__)

SCREENING: Final = 1
"""Version of the rules; what an older version rejected is looked at again."""

_EDGE_PX: Final = 512  # longest side of a thumbnail
_FACE_PX: Final = 200  # the face in it, where the photo has that much: crops are 150 and 224 px
_JPEG_QUALITY: Final = 90

_DOMINANT_AREA: Final = 2.5
_DOMINANT_WEIGHT: Final = 4.0


class Reason(StrEnum):
    """Why a photo did not become a portrait."""

    NO_FACE = "no face"
    SEVERAL_FACES = "several faces"
    TOO_SMALL = "too small"
    TOO_LARGE = "too large"
    UNREADABLE = "unreadable"
    DUPLICATE = "duplicate of"  # followed by a name
    NOT_THEM = "somebody else's face"  # found by comparing it with the person's others
    FAILED = "an error of this program"


@dataclass(frozen=True, slots=True, eq=False)
class Thumbnail:
    """A portrait as the gallery keeps it.

    Attributes:
        jpeg: The file.
        width_px: Width.
        height_px: Height.
        landmarks: float32 (5, 2), pixels of the thumbnail.
        box: The face, pixels of the thumbnail.
    """

    jpeg: bytes
    width_px: int
    height_px: int
    landmarks: NDArray[np.float32]
    box: Box


def clear_face(photo: Photo, faces: Sequence[Face]) -> Face | Reason:
    """The one face that a photo is of, or why there is none."""
    if not faces:
        return Reason.NO_FACE
    ranked = sorted(faces, key=lambda face: _weight(photo, face), reverse=True)
    main = ranked[0]
    if any(not _dominates(photo, main, other) for other in ranked[1:]):
        return Reason.SEVERAL_FACES
    if Concern.SMALL in main.concerns:
        return Reason.TOO_SMALL
    return main


def _dominates(photo: Photo, main: Face, other: Face) -> bool:
    return main.box.area_px >= _DOMINANT_AREA * other.box.area_px or _weight(
        photo, main
    ) >= _DOMINANT_WEIGHT * _weight(photo, other)


def _weight(photo: Photo, face: Face) -> float:
    """How much a face matters in a photo: its area, less the farther it is from the centre."""
    x, y = face.box.centre
    across = (x / photo.width_px - 0.5) * 2
    down = (y / photo.height_px - 0.5) * 2
    return face.box.area_px * float(np.exp(-(across**2 + down**2)))


def thumbnail(photo: Photo, face: Face) -> Thumbnail:
    """A small copy of the photo, cut to the face's surroundings where the face would get lost."""
    edge = max(photo.width_px, photo.height_px)
    face_edge = max(face.box.w, face.box.h)
    scale = min(1.0, max(_EDGE_PX / edge, _FACE_PX / face_edge))
    window_px = min(edge, round(_EDGE_PX / scale))
    left, width = _span(face.box.centre[0], window_px, photo.width_px)
    top, height = _span(face.box.centre[1], window_px, photo.height_px)
    cut: NDArray[Any] = photo.pixels[top : top + height, left : left + width]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size != (width, height):
        cut = cv2.resize(cut, size, interpolation=cv2.INTER_AREA)
    ratio = np.array([size[0] / width, size[1] / height])
    offset = np.array([left, top])
    # Landmarks count from the centre of the first pixel, edges of a box from its corner.
    landmarks = (face.landmarks - offset + 0.5) * ratio - 0.5
    corner = (np.array([face.box.x, face.box.y]) - offset) * ratio
    return Thumbnail(
        jpeg=_jpeg(cut),
        width_px=size[0],
        height_px=size[1],
        landmarks=landmarks.astype(np.float32),
        box=Box(float(corner[0]), float(corner[1]), face.box.w * ratio[0], face.box.h * ratio[1]),
    )


def _span(centre: float, window_px: int, length_px: int) -> tuple[int, int]:
    """Start and length of the window around a centre, within a side of the photo."""
    if window_px >= length_px:
        return 0, length_px
    start = round(min(max(centre - window_px / 2, 0), length_px - window_px))
    return start, window_px


def _jpeg(pixels: NDArray[Any]) -> bytes:
    done, encoded = cv2.imencode(
        ".jpg",
        cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR),
        [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY],
    )
    assert done
    return encoded.tobytes()


@dataclass(frozen=True, slots=True)
class Refused:
    """A photo that can't be a portrait.

    Attributes:
        reason: A ``Reason``, for duplicates followed by the name.
        sha256: Of a photo that need not be looked at again, else None.
    """

    reason: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """A photo that is a portrait of the same person already.

    Attributes:
        news: Whether the source knows more about the person than the gallery.
        photo: What the gallery lacked of it so far, or None.
        portrait_id: Of that portrait.
    """

    news: bool
    photo: Fresh | None = None
    portrait_id: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Fresh:
    """A photo that can become a portrait.

    Attributes:
        sha256: Of its bytes.
        thumbnail: What is kept of it.
        crops: Per backbone, what it embeds.
    """

    sha256: str
    thumbnail: Thumbnail
    crops: Mapping[str, NDArray[np.uint8]]


Screened = Refused | Known | Fresh


class Screener:
    """Looks at photos; safe to use from several threads.

    Args:
        gallery: Knows which photos it has and which it refused.
        engine: Sees.
        backbones: For which ones to cut crops.
        again: Whether to look again at photos that were refused before.
    """

    def __init__(
        self, gallery: Gallery, engine: Engine, backbones: Sequence[str], *, again: bool
    ) -> None:
        self._gallery = gallery
        self._engine = engine
        self._backbones = tuple(backbones)
        self._again = again
        self._banned: Banned | None = None

    def __call__(self, found: FoundPortrait) -> Screened:
        """What becomes of a photo."""
        if self._banned is not None and found.person in self._banned:
            return Refused(REMOVED)
        try:
            content = found.read(self._engine.limits.max_bytes)
        except TooLarge:
            refused = Refused(Reason.TOO_LARGE)
        except OSError:
            refused = Refused(Reason.UNREADABLE)
        else:
            return self._looked_up(found, content)
        return Refused(REMOVED) if self._is_banned(found) else refused

    def _is_banned(self, found: FoundPortrait) -> bool:
        if self._banned is None:
            self._banned = self._gallery.banned()
        return found.person in self._banned

    def _looked_up(self, found: FoundPortrait, content: bytes) -> Screened:
        sha256 = hashlib.sha256(content).hexdigest()
        portrait_id: int | None = None  # of one that came without its photo
        with self._gallery.reading():
            if self._is_banned(found):
                return Refused(REMOVED)
            known = self._gallery.known(sha256, SCREENING)
            if isinstance(known, Person):
                (portrait,) = self._gallery.portraits_by_hash([sha256])
                portrait_id = None if self._gallery.photo(portrait) else portrait.id
        if isinstance(known, Person):
            now = owned(found, known)
            if isinstance(now, Known) and portrait_id is not None:
                seen = self._judged(found, content, sha256)
                if isinstance(seen, Fresh):
                    return replace(now, photo=seen, portrait_id=portrait_id)
            return now
        if known is not None and not self._again:
            return Refused(known.reason)
        return self._judged(found, content, sha256)

    def _judged(self, found: FoundPortrait, content: bytes, sha256: str) -> Refused | Fresh:
        engine = self._engine
        try:
            try:
                photo = engine.decode(content)
            except TooLarge:
                return Refused(Reason.TOO_LARGE)
            except PhotoProblem:
                return Refused(Reason.UNREADABLE, sha256)
            face = clear_face(photo, engine.detect(photo))
            if isinstance(face, Reason):
                return Refused(face, sha256)
            crops = {name: engine.backbone(name).crop(photo, face) for name in self._backbones}
            return Fresh(sha256, thumbnail(photo, face), crops)
        except SetupProblem:
            raise
        except Exception:  # noqa: BLE001 - one odd photo must not end a night's work
            _log.exception("looking at %s failed", found.origin)
            return Refused(Reason.FAILED)


def owned(found: FoundPortrait, owner: Person) -> Known | Refused:
    """What becomes of a photo that is somebody's portrait already."""
    if owner.key != found.person.key:
        return Refused(f"{Reason.DUPLICATE} {owner.name}")
    return Known(news=knows_more(found.person, owner))


def knows_more(person: FoundPerson, owner: Person) -> bool:
    """Whether a source knows something of a person that the gallery doesn't."""
    joins = {category_name(name) for name in person.categories} - set(owner.categories)
    fields = ("wikidata_id", "country", "gender", "fame")
    more = ((getattr(person, field), getattr(owner, field)) for field in fields)
    return bool(joins) or any(new not in (None, old) for new, old in more)
