"""Who takes part in ``/twins`` in which chat, in memory only and for a day at most.

Nobody is in here who did not ask for it. What is kept of somebody is the name that the chat shows
and what was computed from one face; nothing of it is ever written anywhere or logged.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from engine.types import Embedding, Space

__all__ = ["Circles", "Full", "Pair", "Taker", "closest_pairs"]

DAY_S = 86_400.0
MOST_IN_A_ROOM = 100
_DECIMALS = 9
MOST_TAKERS = 5_000  # about 5 MB with 128 dimensions, 45 MB with 2048


class Full(Exception):  # noqa: N818 - no error of ours: the asker is told
    """As many take part in a chat as can be compared at a glance."""


@dataclass(frozen=True, slots=True, eq=False)
class Taker:
    """Somebody who takes part in one chat.

    Attributes:
        name: As the chat shows them.
        since_s: When they joined or sent the photo that counts, Unix time.
        embedding: Of the one face in that photo; None before there is one.
    """

    name: str = field(repr=False)
    since_s: float
    embedding: Embedding | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two who take part, and how alike they are.

    Attributes:
        first: The smaller one of their keys.
        second: The other key.
        space: Of both embeddings.
        cosine: In [-1, 1].
    """

    first: bytes = field(repr=False)
    second: bytes = field(repr=False)
    space: Space
    cosine: float


class Circles:
    """Those who take part, by chat and person; for one event loop.

    Args:
        lifetime_s: How long somebody takes part after joining or after their newest photo.
        most_in_a_room: How many may take part in one chat.
        most: How many may take part in all chats; then those leave whose time ends first.
        clock: Unix time, since a monotonic clock stands still while the machine sleeps.
    """

    def __init__(
        self,
        *,
        lifetime_s: float = DAY_S,
        most_in_a_room: int = MOST_IN_A_ROOM,
        most: int = MOST_TAKERS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lifetime_s = lifetime_s
        self._most_in_a_room = most_in_a_room
        self._most = most
        self._clock = clock
        self._rooms: dict[bytes, dict[bytes, Taker]] = {}

    def join(self, room: bytes, user: bytes, name: str) -> None:
        """Lets somebody take part; whoever already does keeps their photo and their time.

        Raises:
            Full: If too many take part in that chat.
        """
        self.tidy()
        takers = self._rooms.get(room, {})
        if user in takers:
            return
        if len(takers) >= self._most_in_a_room:
            raise Full
        self._put(room, user, Taker(name, self._clock()))

    def leave(self, room: bytes, user: bytes) -> bool:
        """Drops what is kept of somebody in a chat; whether there was anything."""
        self.tidy()
        return self._drop(room, user)

    def forget(self, user: bytes) -> None:
        """Drops what is kept of somebody in every chat."""
        for room in list(self._rooms):
            self._drop(room, user)

    def taker(self, room: bytes, user: bytes) -> Taker | None:
        """What is kept of somebody in a chat; None if they don't take part."""
        self.tidy()
        return self._rooms.get(room, {}).get(user)

    def count(
        self, room: bytes, user: bytes, taker: Taker, embedding: Embedding, name: str
    ) -> bool:
        """Puts a photo in the place of the older one; their day begins anew.

        Args:
            room: The chat.
            user: Who sent it.
            taker: What was kept of them when the photo came.
            embedding: Of the photo's only face.
            name: As the chat shows them now.

        Returns:
            Whether it counts: not if they left, or were replaced, while it was looked at.
        """
        if self.taker(room, user) is not taker:
            return False
        self._put(room, user, Taker(name, self._clock(), embedding))
        return True

    def takers(self, room: bytes) -> dict[bytes, Taker]:
        """Everybody who takes part in a chat, by key."""
        self.tidy()
        return dict(self._rooms.get(room, {}))

    def until_s(self, user: bytes) -> tuple[float, ...]:
        """When somebody's time ends in each chat where they take part, Unix time, rising."""
        self.tidy()
        return tuple(
            sorted(
                takers[user].since_s + self._lifetime_s
                for takers in self._rooms.values()
                if user in takers
            )
        )

    def tidy(self) -> None:
        """Drops everybody whose time is over, or was set back behind its beginning."""
        now_s = self._clock()
        for room, takers in list(self._rooms.items()):
            for user, taker in list(takers.items()):
                if not taker.since_s <= now_s < taker.since_s + self._lifetime_s:
                    self._drop(room, user)

    def _put(self, room: bytes, user: bytes, taker: Taker) -> None:
        self._rooms.setdefault(room, {})[user] = taker
        if len(self) > self._most:
            since = {
                (since_room, someone): one.since_s
                for since_room, takers in self._rooms.items()
                for someone, one in takers.items()
                if one is not taker
            }
            self._drop(*min(since, key=since.__getitem__))

    def _drop(self, room: bytes, user: bytes) -> bool:
        takers = self._rooms.get(room, {})
        dropped = takers.pop(user, None)
        if not takers:
            self._rooms.pop(room, None)
        return dropped is not None

    def __len__(self) -> int:
        """How many take part, counted once for every chat."""
        return sum(map(len, self._rooms.values()))


def closest_pairs(embeddings: Mapping[bytes, Embedding], most: int) -> tuple[Pair, ...]:
    """The pairs most alike, in every space that has two of them.

    Args:
        embeddings: By key.
        most: How many pairs of a space at most.

    Returns:
        By space in the order of their ids, then by falling cosine; equal ones by key. The order
        of ``embeddings`` does not matter.
    """
    spaces: defaultdict[Space, list[bytes]] = defaultdict(list)
    for key in sorted(embeddings):
        spaces[embeddings[key].space].append(key)
    pairs: list[Pair] = []
    for space in sorted(spaces, key=lambda one: one.id):
        keys = spaces[space]
        vectors = np.stack([embeddings[key].vector for key in keys]).astype(np.float64)
        first, second = np.triu_indices(len(keys), k=1)
        # Sums in another order may differ in the last digits: those closer than that are equal.
        cosines = np.round((vectors @ vectors.T)[first, second], _DECIMALS)
        order = np.argsort(-cosines, kind="stable")[:most]
        pairs += [
            Pair(keys[first[at]], keys[second[at]], space, float(np.clip(cosines[at], -1, 1)))
            for at in order
        ]
    return tuple(pairs)
