"""What is kept in memory only: photos answered lately, and who takes part in ``/twins``.

Bounded by age and by size. Nothing here is ever written anywhere or logged.
"""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby

import cv2
import numpy as np

from bot.values import SIDE, Attachment
from engine.decode import stretch
from engine.types import Box, Embedding, Face, Photo, Space

DAY_S = 86_400.0

# Telegram sends photos with at most this long side; faces in larger ones are still large enough
# for the card and for another model after the reduction.
LONG_SIDE_PX = 1280
PACKED_SHARE = 12  # how much smaller packing makes a photo, about
EMBEDDING_BYTES = 8_500  # 2048 float32 and the objects around them

Decode = Callable[[bytes], Photo] | None


class KeptPhoto:
    """A photo reduced to what the buttons need, its faces, and their embeddings so far.

    ``file`` is what it was decoded from by ``decode``: kept in its place where it is the smaller.
    """

    def __init__(
        self, photo: Photo, faces: tuple[Face, ...], file: bytes = b"", decode: Decode = None
    ) -> None:
        # A file once it is packed: one reference, so that threads need no lock.
        self._held: Photo | bytes
        self._held, self.faces = _reduced(photo, faces)
        self._source_size_px, self._format = photo.source_size_px, photo.format
        self._decode = None
        whole = (photo.width_px, photo.height_px) == photo.source_size_px and self._held is photo
        if decode and whole and len(file) <= photo.pixels.nbytes // PACKED_SHARE:
            self._held, self._decode = file, decode
        self.embeddings: dict[tuple[int, str], Embedding] = {}
        # In the history already: face, model, and whether for /parents, such as (1, "best", False).
        self.answered: set[tuple[int, str, bool]] = set()

    def photo(self) -> Photo:
        """The reduced photo; a few milliseconds once it is packed, so not for the event loop."""
        held = self._held
        if isinstance(held, Photo):
            return held
        if self._decode is not None:
            return self._decode(held)
        pixels = cv2.imdecode(np.frombuffer(held, np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None  # it is our own encoding
        rgb = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
        return Photo(rgb, self._source_size_px, self._format)

    @property
    def packed(self) -> bool:
        """Whether it is held compressed."""
        return isinstance(self._held, bytes)

    def pack(self) -> None:
        """Compresses the photo to a tenth of its size; not for the event loop."""
        held = self._held
        if isinstance(held, Photo):
            bgr = cv2.cvtColor(held.pixels, cv2.COLOR_RGB2BGR)
            done, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])
            assert done
            self._held = jpeg.tobytes()

    @property
    def size_bytes(self) -> int:
        """Memory held once it is packed, roughly."""
        held = self._held
        size = held.pixels.nbytes // PACKED_SHARE if isinstance(held, Photo) else len(held)
        return size + len(self.embeddings) * EMBEDDING_BYTES


@dataclass(slots=True)
class RecentAnswer:
    """What the buttons under one reply are about."""

    owner: bytes = field(repr=False)  # the asker's key; never an id
    room: bytes = field(repr=False)  # the key of the chat where the reply stands
    photos: tuple[KeptPhoto, ...]  # one, or two that were compared
    category: str | None = None  # the category searched; None for all
    rest: tuple[Attachment, ...] = ()  # later photos of the same album, not fetched yet
    style: str = SIDE  # how cards are drawn, one of ``bot.values.STYLES``
    first: int = 1  # the photo's number in the album
    message_id: int | None = None  # of the message that holds it


@dataclass(eq=False, repr=False)
class RecentPhotos:
    """Photos answered lately, by token, for one event loop.

    One is kept for ``lifetime_s`` at most, and all of them may hold ``most_bytes`` of memory.
    """

    lifetime_s: float = 3600.0
    most_bytes: int = 24_000_000
    clock: Callable[[], float] = time.monotonic
    _kept: OrderedDict[str, tuple[float, RecentAnswer]] = field(default_factory=OrderedDict)

    def keep(self, answer: RecentAnswer) -> str:
        """Remembers it; the token finds it again, and begins with the number of a later photo."""
        # 9 bytes are 12 characters that can't be guessed.
        token = f"{answer.first}." * (answer.first > 1) + secrets.token_urlsafe(9)
        self._kept[token] = (self.clock(), answer)
        self.tidy()
        return token

    def find(self, token: str, room: bytes) -> RecentAnswer | None:
        """What the token names in that chat, or None if it is forgotten."""
        self.tidy()
        if token not in self._kept or self._kept[token][1].room != room:
            return None
        self._kept.move_to_end(token)  # what is used is kept longest where memory is short
        return self._kept[token][1]

    def latest(self, owner: bytes) -> RecentAnswer | None:
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
        oldest = self.clock() - self.lifetime_s
        for token in [token for token, (since, _) in self._kept.items() if since <= oldest]:
            del self._kept[token]
        kept = (photo for _, answer in self._kept.values() for photo in answer.photos)
        total = sum(photo.size_bytes for photo in kept)
        while self._kept and total > self.most_bytes:
            _, (_, answer) = self._kept.popitem(last=False)
            total -= sum(photo.size_bytes for photo in answer.photos)

    def __len__(self) -> int:
        return len(self._kept)


def _reduced(photo: Photo, faces: tuple[Face, ...]) -> tuple[Photo, tuple[Face, ...]]:
    size = photo.width_px, photo.height_px
    factor = LONG_SIDE_PX * stretch(*size) / max(size)
    if factor >= 1:
        return photo, faces
    size = (max(1, round(photo.width_px * factor)), max(1, round(photo.height_px * factor)))
    across, down = size[0] / photo.width_px, size[1] / photo.height_px
    pixels = cv2.resize(photo.pixels, size, interpolation=cv2.INTER_AREA)
    smaller = tuple(
        replace(
            face,
            box=Box(face.box.x * across, face.box.y * down, face.box.w * across, face.box.h * down),
            landmarks=(face.landmarks * np.array([across, down])).astype(np.float32),
        )
        for face in faces
    )
    return Photo(np.asarray(pixels, np.uint8), photo.source_size_px, photo.format), smaller


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A person who takes part in ``/twins`` in one chat.

    ``since_s`` is when they joined or sent the photo that counts (Unix time), whose one face has
    that embedding.
    """

    name: str = field(repr=False)
    since_s: float
    embedding: Embedding | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Pair:
    """The keys of two who take part, the smaller one first; the cosine is in [-1, 1]."""

    first: bytes = field(repr=False)
    second: bytes = field(repr=False)
    space: Space
    cosine: float


@dataclass(eq=False, repr=False)
class TwinsGroups:
    """Members of ``/twins`` by chat and person, for one event loop.

    A person takes part for a day after joining or after their newest photo. At ``most`` in all
    chats those leave whose time ends first. The clock is Unix time, since a monotonic one stands
    still while the machine sleeps.
    """

    most_in_a_chat: int = 100
    most: int = 5_000  # about 5 MB with 128 dimensions, 45 MB with 2048
    clock: Callable[[], float] = time.time
    # By room and user, oldest first
    _members: dict[tuple[bytes, bytes], Member] = field(default_factory=dict)

    def join(self, room: bytes, user: bytes, name: str) -> bool:
        """Lets a person take part; a member keeps their photo and time. False if it is full."""
        members = self.members(room)
        if user not in members and len(members) < self.most_in_a_chat:
            self._put(room, user, Member(name, self.clock()))
        return (room, user) in self._members

    def leave(self, room: bytes, user: bytes) -> bool:
        """Removes a person from a chat; whether they took part."""
        self.tidy()
        return self._members.pop((room, user), None) is not None

    def forget(self, user: bytes) -> None:
        """Removes a person from every chat."""
        self._members = {key: one for key, one in self._members.items() if key[1] != user}

    def member(self, room: bytes, user: bytes) -> Member | None:
        """A person's membership in a chat; None if they don't take part."""
        self.tidy()
        return self._members.get((room, user))

    def count(
        self, room: bytes, user: bytes, member: Member, embedding: Embedding, name: str
    ) -> bool:
        """Puts a photo in the place of the older one; their day begins anew.

        ``member`` is what was kept of them when the photo came. Whether it counts: not if they
        left, or were replaced, while it was looked at.
        """
        if self.member(room, user) is not member:
            return False
        self._put(room, user, Member(name, self.clock(), embedding))
        return True

    def members(self, room: bytes) -> dict[bytes, Member]:
        """Everybody who takes part in a chat, by key."""
        self.tidy()
        return {user: one for (where, user), one in self._members.items() if where == room}

    def until_s(self, user: bytes) -> tuple[float, ...]:
        """When a person's membership ends in each chat, Unix time, rising."""
        self.tidy()
        mine = (member for (_, who), member in self._members.items() if who == user)
        return tuple(sorted(member.since_s + DAY_S for member in mine))

    def tidy(self) -> None:
        """Drops everybody whose time is over, or was set back behind its beginning."""
        now_s = self.clock()
        for key, member in list(self._members.items()):
            if not member.since_s <= now_s < member.since_s + DAY_S:
                del self._members[key]

    def _put(self, room: bytes, user: bytes, member: Member) -> None:
        self._members.pop((room, user), None)
        self._members[room, user] = member
        if len(self) > self.most:
            del self._members[next(iter(self._members))]

    def __len__(self) -> int:
        """How many take part, counted once for every chat."""
        return len(self._members)


def closest_pairs(embeddings: Mapping[bytes, Embedding], most: int) -> tuple[Pair, ...]:
    """The pairs most alike, at most ``most`` of every space that has two of them.

    They come by space in the order of their ids, then by falling cosine; equal ones by key. The
    order of ``embeddings`` does not matter.
    """
    pairs: list[Pair] = []
    in_order = sorted(embeddings, key=lambda key: (embeddings[key].space.id, key))
    for space, group in groupby(in_order, key=lambda key: embeddings[key].space):
        keys = list(group)
        vectors = np.stack([embeddings[key].vector for key in keys]).astype(np.float64)
        first, second = np.triu_indices(len(keys), k=1)
        # Sums in another order may differ in the last digits: those closer than that are equal.
        cosines = np.round((vectors @ vectors.T)[first, second], decimals=9)
        order = np.argsort(-cosines, kind="stable")[:most]
        pairs += [
            Pair(keys[first[at]], keys[second[at]], space, float(np.clip(cosines[at], -1, 1)))
            for at in order
        ]
    return tuple(pairs)
