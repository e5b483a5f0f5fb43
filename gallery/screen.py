"""Which photos become portraits: those with one clear face; and what is kept of them."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.engine import Engine
from engine.errors import PhotoProblem, SetupProblem, TooLarge
from engine.types import Box, Concern, Face, Photo
from gallery.gallery import Gallery
from gallery.records import REMOVED, Banned, FoundPortrait, Person, Thumbnail, knows_more

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


def clear_face(photo: Photo, faces: Sequence[Face]) -> Face | Reason:
    """The one face that a photo is of, or why there is none."""
    if not faces:
        return Reason.NO_FACE
    weights = [_weight(photo, face) for face in faces]
    place = int(np.argmax(weights))
    main = faces[place]
    for other, weight in zip(faces, weights, strict=True):
        larger = main.box.area_px >= _DOMINANT_AREA * other.box.area_px
        if other is not main and not larger and weights[place] < _DOMINANT_WEIGHT * weight:
            return Reason.SEVERAL_FACES
    return Reason.TOO_SMALL if Concern.SMALL in main.concerns else main


def _weight(photo: Photo, face: Face) -> float:
    """How much a face matters in a photo: its area, less the farther it is from the centre."""
    x, y = face.box.centre
    across, down = 2 * x / photo.width_px - 1, 2 * y / photo.height_px - 1
    return face.box.area_px * float(np.exp(-(across**2 + down**2)))


def thumbnail(photo: Photo, face: Face) -> Thumbnail:
    """A small copy of the photo, cut to the face's surroundings where the face would get lost."""
    edge = max(photo.width_px, photo.height_px)
    scale = min(1.0, max(_EDGE_PX / edge, _FACE_PX / max(face.box.w, face.box.h)))
    window_px = min(edge, round(_EDGE_PX / scale))
    left, width = _span(face.box.centre[0], window_px, photo.width_px)
    top, height = _span(face.box.centre[1], window_px, photo.height_px)
    cut: NDArray[Any] = photo.pixels[top : top + height, left : left + width]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size != (width, height):
        cut = cv2.resize(cut, size, interpolation=cv2.INTER_AREA)
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(cut, cv2.COLOR_RGB2BGR), quality)
    assert done
    across, down = size[0] / width, size[1] / height
    # Landmarks count from the centre of the first pixel, edges of a box from its corner.
    landmarks = (face.landmarks - [left, top] + 0.5) * [across, down] - 0.5
    corner = (face.box.x - left) * across, (face.box.y - top) * down
    box = Box(*corner, face.box.w * across, face.box.h * down)
    return Thumbnail(encoded.tobytes(), *size, landmarks.astype(np.float32), box)


def _span(centre: float, window_px: int, length_px: int) -> tuple[int, int]:
    """Start and length of the window around a centre, within a side of the photo."""
    if window_px >= length_px:
        return 0, length_px
    return round(min(max(centre - window_px / 2, 0), length_px - window_px)), window_px


@dataclass(frozen=True, slots=True, eq=False)
class Screened:
    """What becomes of a photo."""

    reason: str | None = None  # why it can't be a portrait: a ``Reason``, for duplicates and whose
    sha256: str | None = None  # of a photo that can, or need not be looked at again
    thumbnail: Thumbnail | None = None  # what is to be kept of it
    crops: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)  # by backbone
    portrait_id: int | None = None  # of the portrait that it is already, of the same person
    news: bool = False  # whether the source knows more about the person than the gallery

    @property
    def fresh(self) -> bool:
        """Whether it becomes a portrait."""
        return self.thumbnail is not None and self.portrait_id is None


@dataclass(slots=True)
class Screener:
    """Looks at photos that a gallery does not know; safe to use from several threads.

    With ``again`` it looks again at those that were refused before.
    """

    gallery: Gallery
    engine: Engine
    backbones: Sequence[str]
    again: bool
    banned: Banned | None = None  # read with what is known of the first photo

    def __call__(self, found: FoundPortrait) -> Screened:
        """What becomes of a photo."""
        if self.banned is not None and found.person in self.banned:
            return Screened(REMOVED)
        reason, content = "", b""
        try:
            content = found.read(self.engine.limits.max_bytes)
        except (TooLarge, OSError) as problem:
            reason = Reason.TOO_LARGE if isinstance(problem, TooLarge) else Reason.UNREADABLE
        sha256 = hashlib.sha256(content).hexdigest()
        with self.gallery.reading():
            self.banned = self.banned or self.gallery.banned()
            if reason or found.person in self.banned:
                return Screened(REMOVED if found.person in self.banned else reason)
            known = self.gallery.known(sha256, SCREENING)
            mine = self.gallery.portraits_by_hash([sha256]) if isinstance(known, Person) else ()
            photo = mine and self.gallery.photo(mine[0])
        now = owned(found, known) if isinstance(known, Person) else Screened()
        if isinstance(known, str) and not self.again:
            now = Screened(known)
        if photo or now.reason is not None:
            return now
        seen = self._judged(found, content, sha256)
        if mine:  # it came without its photo
            return now if seen.reason else replace(seen, portrait_id=mine[0].id, news=now.news)
        return seen

    def _judged(self, found: FoundPortrait, content: bytes, sha256: str) -> Screened:
        engine = self.engine
        try:
            photo = engine.decode(content)
            face = clear_face(photo, engine.detect(photo))
            if isinstance(face, Reason):
                return Screened(face, sha256)
            crops = {name: engine.backbone(name).crop(photo, face) for name in self.backbones}
            return Screened(None, sha256, thumbnail(photo, face), crops)
        except TooLarge:
            return Screened(Reason.TOO_LARGE)
        except PhotoProblem:
            return Screened(Reason.UNREADABLE, sha256)
        except SetupProblem:
            raise
        except Exception:  # noqa: BLE001 - one odd photo must not end a night's work
            _log.exception("looking at %s failed", found.origin)
            return Screened(Reason.FAILED)


def owned(found: FoundPortrait, owner: Person) -> Screened:
    """What becomes of a photo that is somebody's portrait already."""
    if owner.key != found.person.key:
        return Screened(f"{Reason.DUPLICATE} {owner.name}")
    return Screened(news=knows_more(found.person, owner))
