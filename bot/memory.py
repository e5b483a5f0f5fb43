"""What is kept in memory only: photos answered lately, and who takes part in ``/twins``.

Bounded by age and by size. Nothing here is ever written anywhere or logged. It lives in a
``Memory``: that of this process, or one that the processes of a bot share (``bot.valkey``).
"""

import asyncio
import secrets
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from itertools import groupby
from typing import Any, NoReturn, Self

import cv2
import numpy as np

from bot.process_memory import SAME, Memory, Name
from bot.settings import MemorySettings
from bot.values import SIDE, Attachment
from engine.decode import stretch
from engine.errors import PhotoGone
from engine.types import Box, Concern, Embedding, Face, Photo, Space

DAY_S = 86_400.0

# Telegram sends photos with at most this long side; faces in larger ones are still large enough
# for the card and for another model after the reduction.
LONG_SIDE_PX = 1280
PACKED_SHARE = 12  # how much smaller packing makes a photo, about
EMBEDDING_BYTES = 8_500  # 2048 float32 and the objects around them

MOST_TWINS = 5_000  # about 5 MB with 128 dimensions, 60 MB with 2048

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

    def dumped(self) -> dict[str, Any]:
        """All of it for JSON, once it is packed."""
        assert isinstance(self._held, bytes)
        return {
            "file": (b64encode(self._held).decode(), self._decode is not None),
            "source": (self._source_size_px, self._format),
            "faces": [
                (astuple(one.box), one.landmarks.tolist(), one.confidence, one.concerns)
                for one in self.faces
            ],
            "known": [(*key, _embedding_dumped(one)) for key, one in self.embeddings.items()],
            "answered": [*self.answered],
        }

    @classmethod
    def loaded(cls, said: dict[str, Any], decode: Decode) -> Self:
        """What ``dumped`` was said of."""
        kept, (file, is_as_sent), (size_px, form) = cls.__new__(cls), said["file"], said["source"]
        vars(kept).update(
            _held=b64decode(file),
            _decode=decode if is_as_sent else None,
            _source_size_px=tuple(size_px),
            _format=form,
            faces=tuple(
                Face(Box(*box), np.array(points, np.float32), sure, tuple(map(Concern, concerns)))
                for box, points, sure, concerns in said["faces"]
            ),
            embeddings={(at, model): _embedding(one) for at, model, one in said["known"]},
            answered={(at, model, kin) for at, model, kin in said["answered"]},
        )
        return kept


def _embedding_dumped(embedding: Embedding) -> tuple[Any, ...]:
    return (*astuple(embedding.space), b64encode(embedding.vector.tobytes()).decode())


def _embedding(said: Sequence[Any]) -> Embedding:
    return Embedding(np.frombuffer(b64decode(said[-1]), np.float32), Space(*said[:-1]))


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
    elsewhere: bool = False  # whether it was kept by another process, so that rest is out of reach

    def dumped(self) -> dict[str, Any]:
        """All of it for JSON; compresses the photos, so not for the event loop."""
        for photo in self.photos:
            photo.pack()
        rest = [(one.own, one.spoiler, one.message_id) for one in self.rest]
        photos = [photo.dumped() for photo in self.photos]
        plain = (self.style, self.first, self.message_id)
        return {"said": (self.owner.hex(), self.room.hex(), photos, self.category, rest, *plain)}

    @classmethod
    def loaded(cls, said: dict[str, Any], decode: Decode) -> Self:
        """What ``dumped`` was said of; who fetches its ``rest`` is told that it is gone."""
        owner, room, photos, category, rest, style, first, message_id = said["said"]
        kept = tuple(KeptPhoto.loaded(one, decode) for one in photos)
        later = tuple(Attachment(_out_of_reach, *one) for one in rest)
        owner, room = bytes.fromhex(owner), bytes.fromhex(room)
        return cls(owner, room, kept, category, later, style, first, message_id, elsewhere=True)


async def _out_of_reach() -> NoReturn:
    raise PhotoGone("another process knows where the photo is")


def size_bytes(value: object) -> int:
    """Memory held by photos that are remembered, roughly; 0 for other values."""
    photos = value.photos if isinstance(value, RecentAnswer) else ()
    return sum(photo.size_bytes for photo in photos)


@dataclass(eq=False, repr=False)
class RecentPhotos:
    """Photos answered lately, by token. One is kept for ``lifetime_s`` at most."""

    memory: Memory = field(default_factory=Memory)
    lifetime_s: float = 3600.0
    decode: Decode = None  # of photos that are kept as they were sent

    @staticmethod
    def token(answer: RecentAnswer) -> str:
        """What is to name an answer; it begins with the number of a later photo."""
        # 9 bytes are 12 characters that can't be guessed.
        return f"{answer.first}." * (answer.first > 1) + secrets.token_urlsafe(9)

    async def keep(self, token: str, answer: RecentAnswer, *, again: bool = False) -> None:
        """Remembers it; the token finds it again. It is its owner's latest.

        What is kept ``again`` is kept as it is now, and no longer than it was.
        """
        value: Any = await asyncio.to_thread(answer.dumped) if self.memory.shared else answer
        name, lives_s = ("photo", answer.room.hex(), token), None if again else self.lifetime_s
        if await self.memory.put(name, value, lives_s):
            mine = ("photos of", answer.owner.hex())
            await self.memory.relist(mine, self.lifetime_s, "/".join(name))

    async def find(self, token: str, room: bytes) -> RecentAnswer | None:
        """What the token names in that chat, or None if it is forgotten."""
        return await self._find(("photo", room.hex(), token))

    async def _find(self, name: Name) -> RecentAnswer | None:
        known = await self.memory.get(name)
        return RecentAnswer.loaded(known, self.decode) if isinstance(known, dict) else known

    async def latest(self, owner: bytes) -> RecentAnswer | None:
        """The one photo of a person that was answered or asked about last; None if forgotten."""
        for name in reversed(await self.memory.get(("photos of", owner.hex())) or ()):
            kept = await self._find(tuple(name.split("/")))
            if kept is not None and len(kept.photos) == 1:
                return kept
        return None

    async def forget(self, owner: bytes) -> None:
        """Drops everything of one person."""
        for name in await self.memory.take(("photos of", owner.hex())) or ():
            await self.memory.take(tuple(name.split("/")))


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

    def dumped(self) -> tuple[Any, ...]:
        """All of it for JSON."""
        seen = None if self.embedding is None else _embedding_dumped(self.embedding)
        return (self.name, self.since_s, seen)

    @classmethod
    def loaded(cls, said: Sequence[Any]) -> Self:
        """What ``dumped`` was said of."""
        name, since_s, seen = said
        return cls(name, since_s, None if seen is None else _embedding(seen))


@dataclass(frozen=True, slots=True)
class Pair:
    """The keys of two who take part, the smaller one first; the cosine is in [-1, 1]."""

    first: bytes = field(repr=False)
    second: bytes = field(repr=False)
    space: Space
    cosine: float


@dataclass(eq=False, repr=False)
class TwinsGroups:
    """Members of ``/twins`` by chat and person.

    A person takes part for a day after joining or after their newest photo. The clock is Unix
    time, since a monotonic one stands still while the machine sleeps.
    """

    memory: Memory = field(default_factory=lambda: Memory(MOST_TWINS, is_twin, time.time))
    most_in_a_chat: int = 100
    clock: Callable[[], float] = time.time

    async def join(self, room: bytes, user: bytes, name: str) -> bool:
        """Lets a person take part; a member keeps their photo and time. False if it is full."""
        members = await self.members(room)
        if user not in members:
            if len(members) >= self.most_in_a_chat:
                return False
            await self._list(room, user)
            member = Member(name, self.clock())
            await self.memory.put(_twin(room, user), member.dumped(), DAY_S)
        return True

    async def leave(self, room: bytes, user: bytes) -> bool:
        """Removes a person from a chat; whether they took part."""
        await self.memory.relist(("twins", room.hex()), None, "", user.hex())
        return await self.memory.take(_twin(room, user)) is not None

    async def forget(self, user: bytes) -> None:
        """Removes a person from every chat."""
        for room in await self.memory.take(("twins of", user.hex())) or ():
            await self.leave(bytes.fromhex(room), user)

    async def member(self, room: bytes, user: bytes) -> Member | None:
        """A person's membership in a chat; None if they don't take part."""
        said = await self.memory.get(_twin(room, user))
        member = None if said is None else Member.loaded(said)
        return member if member and 0 <= self.clock() - member.since_s < DAY_S else None

    async def count(
        self, room: bytes, user: bytes, member: Member, embedding: Embedding, name: str
    ) -> bool:
        """Puts a photo in the place of the older one; their day begins anew.

        ``member`` is what was kept of them when the photo came. Whether it counts: not if they
        left, or were replaced, while it was looked at.
        """
        new = Member(name, self.clock(), embedding).dumped()

        def replaced(known: Any) -> Any:
            return new if known and known[1] == member.since_s else SAME

        await self._list(room, user)
        return await self.memory.change(_twin(room, user), DAY_S, replaced) is new

    async def members(self, room: bytes) -> dict[bytes, Member]:
        """Everybody who takes part in a chat, by key."""
        known = await self.memory.get(("twins", room.hex())) or ()
        users = [bytes.fromhex(user) for user in known]
        found = await asyncio.gather(*(self.member(room, user) for user in users))
        members = dict(zip(users, found, strict=True))
        if gone := {user.hex() for user, member in members.items() if member is None}:
            await self.memory.relist(("twins", room.hex()), None, "", *gone)
        return {user: member for user, member in members.items() if member is not None}

    async def until_s(self, user: bytes) -> tuple[float, ...]:
        """When a person's membership ends in each chat, Unix time, rising."""
        rooms = await self.memory.get(("twins of", user.hex())) or ()
        found = [await self.member(bytes.fromhex(room), user) for room in rooms]
        return tuple(sorted(member.since_s + DAY_S for member in found if member is not None))

    async def _list(self, room: bytes, user: bytes) -> None:
        """Lets a person be found by the chat, and the chat by the person."""
        await self.memory.relist(("twins", room.hex()), DAY_S, user.hex())
        await self.memory.relist(("twins of", user.hex()), DAY_S, room.hex())


def is_twin(value: object) -> bool:
    """Whether that is a person who takes part in a chat, and no list of people or chats."""
    return isinstance(value, tuple)


def _twin(room: bytes, user: bytes) -> Name:
    return ("twin", room.hex(), user.hex())


def memories(
    shared: Memory | None, bounds: MemorySettings, decode: Decode
) -> tuple[RecentPhotos, TwinsGroups]:
    """What remembers photos and ``/twins``, in a memory that processes share or in this one's."""
    own = Memory(bounds.megabytes * 10**6, size_bytes)
    photos = shared if shared and bounds.megabytes else own
    twins = TwinsGroups(shared) if shared else TwinsGroups()
    return RecentPhotos(photos, bounds.minutes * 60, decode), twins


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
