"""Photos that were answered a short while ago, in memory only, so that buttons need no re-upload.

Bounded by age and by bytes. Nothing here is ever written anywhere.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np

from bot.chat_arguments import SIDE
from bot.request import Attachment
from engine.types import Box, Embedding, Face, Photo

__all__ = ["KeptPhoto", "Recollection", "Recollections"]

# Telegram sends photos with at most this long side; faces in larger ones are still large enough
# for the card and for another model after the reduction.
LONG_SIDE_PX = 1280
JPEG_QUALITY = 92
PACKED_SHARE = 12  # how much smaller packing makes a photo, about
TOKEN_BYTES = 9  # 12 characters that nobody guesses
EMBEDDING_BYTES = 8_500  # 2048 float32 and the objects around them


class KeptPhoto:
    """A photo reduced to what the buttons need, its faces, and their embeddings so far.

    Args:
        photo: As decoded.
        faces: In its pixels, largest first.
    """

    def __init__(self, photo: Photo, faces: tuple[Face, ...]) -> None:
        self._photo: Photo | None
        self._photo, self.faces = _reduced(photo, faces)
        self._source_size_px, self._format = photo.source_size_px, photo.format
        self._jpeg: bytes | None = None
        self._lock = threading.Lock()
        self.embeddings: dict[tuple[int, str], Embedding] = {}
        # Faces, by number, and who answered them, such as (1, "best").
        self.answered: set[tuple[int, str]] = set()

    def photo(self) -> Photo:
        """The reduced photo; a few milliseconds once it is packed, so not for the event loop."""
        with self._lock:
            photo, jpeg = self._photo, self._jpeg
        if photo is not None:
            return photo
        pixels = cv2.imdecode(np.frombuffer(jpeg or b"", np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None  # it is our own encoding
        rgb = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
        return Photo(rgb, self._source_size_px, self._format)

    def pack(self) -> None:
        """Compresses the photo to a tenth of its size; not for the event loop."""
        with self._lock:
            photo = self._photo
        if photo is None:
            return
        done, jpeg = cv2.imencode(
            ".jpg",
            cv2.cvtColor(photo.pixels, cv2.COLOR_RGB2BGR),
            [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY],
        )
        assert done
        with self._lock:
            self._jpeg, self._photo = jpeg.tobytes(), None

    @property
    def size_bytes(self) -> int:
        """Memory held once it is packed, roughly."""
        with self._lock:
            photo, jpeg = self._photo, self._jpeg
        held = len(jpeg or b"") if photo is None else photo.pixels.nbytes // PACKED_SHARE
        return held + len(self.embeddings) * EMBEDDING_BYTES


@dataclass(slots=True)
class Recollection:
    """What the buttons under one reply are about.

    Attributes:
        owner: The asker's key; never an id.
        photos: One, or two that were compared.
        category: The category searched; None for all.
        rest: Other photos of the same album, not fetched yet.
        style: How cards are drawn, one of ``bot.chat_arguments.STYLES``.
    """

    owner: bytes = field(repr=False)
    photos: tuple[KeptPhoto, ...]
    category: str | None = None
    rest: tuple[Attachment, ...] = ()
    style: str = SIDE


class Recollections:
    """Recollections by token.

    Args:
        lifetime_s: How long one is kept at most.
        most_bytes: How much memory all of them may hold.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        lifetime_s: float = 3600.0,
        most_bytes: int = 24_000_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lifetime_s = lifetime_s
        self._most_bytes = most_bytes
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, Recollection]] = OrderedDict()

    @property
    def lifetime_s(self) -> float:
        """How long one is kept at most."""
        return self._lifetime_s

    def keep(self, recollection: Recollection) -> str:
        """Remembers it; the token finds it again."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        self._kept[token] = (self._clock(), recollection)
        self.tidy()
        return token

    def find(self, token: str) -> Recollection | None:
        """The recollection, or None if it is forgotten."""
        self.tidy()
        found = self._kept.get(token)
        if found is None:
            return None
        self._kept.move_to_end(token)  # what is used is kept longest where memory is short
        return found[1]

    def latest(self, owner: bytes) -> Recollection | None:
        """The one photo of a person that was answered or asked about last; None if forgotten."""
        self.tidy()
        mine = (kept for _, kept in reversed(self._kept.values()) if kept.owner == owner)
        return next((kept for kept in mine if len(kept.photos) == 1), None)

    def forget(self, owner: bytes) -> None:
        """Drops everything of one person."""
        for token in [token for token, (_, kept) in self._kept.items() if kept.owner == owner]:
            del self._kept[token]

    def tidy(self) -> None:
        """Drops what is too old, and the least used while there is too much."""
        oldest = self._clock() - self._lifetime_s
        for token in [token for token, (since, _) in self._kept.items() if since <= oldest]:
            del self._kept[token]
        sizes = {
            token: sum(photo.size_bytes for photo in kept.photos)
            for token, (_, kept) in self._kept.items()
        }
        total = sum(sizes.values())
        for token in list(self._kept):
            if total <= self._most_bytes:
                break
            total -= sizes[token]
            del self._kept[token]

    def __len__(self) -> int:
        return len(self._kept)


def _reduced(photo: Photo, faces: tuple[Face, ...]) -> tuple[Photo, tuple[Face, ...]]:
    factor = LONG_SIDE_PX / max(photo.width_px, photo.height_px)
    if factor >= 1:
        return photo, faces
    size = (max(1, round(photo.width_px * factor)), max(1, round(photo.height_px * factor)))
    across, down = size[0] / photo.width_px, size[1] / photo.height_px
    pixels = cv2.resize(photo.pixels, size, interpolation=cv2.INTER_AREA)
    smaller = tuple(
        Face(
            Box(face.box.x * across, face.box.y * down, face.box.w * across, face.box.h * down),
            (face.landmarks * np.array([across, down])).astype(np.float32),
            face.confidence,
            face.concerns,
        )
        for face in faces
    )
    return Photo(np.asarray(pixels, np.uint8), photo.source_size_px, photo.format), smaller
