"""Photos with their faces in hand: fresh ones, and those remembered for the buttons."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot.context import Refusal, Turn
from bot.memory import LONG_SIDE_PX, KeptPhoto, RecentAnswer, RecentPhotos
from bot.values import SIDE, Attachment, Reply
from engine.engine import comparable

if TYPE_CHECKING:
    from bot.recognizer import Recognizer, Slot
    from engine.types import Embedding, Face, Photo

__all__ = ["Looker", "Subject", "recalled"]

# By then the answer is on its way, and the cores are free.
PACK_AFTER_S = 0.2


@dataclass(frozen=True, slots=True)
class Subject:
    """One photo that is being answered.

    Attributes:
        photo: Its pixels; for a remembered photo that means decoding, so not on the event loop.
        faces: Large enough to be compared, largest first, in the pixels of ``photo``.
        kept: What is remembered of it.
        fresh: Whether it is decoded already.
    """

    photo: Callable[[], Photo]
    faces: tuple[Face, ...]
    kept: KeptPhoto
    fresh: bool = False

    def face(self, number: int) -> Face | None:
        """The face of that number, from 1; None if there is none."""
        return self.faces[number - 1] if 1 <= number <= len(self.faces) else None

    def fraction(self, face: Face) -> tuple[float, float, float, float]:
        """Where the face is, as fractions of the photo's width and height; may decode it."""
        photo, box = self.photo(), face.box
        return (
            box.x / photo.width_px,
            box.y / photo.height_px,
            box.w / photo.width_px,
            box.h / photo.height_px,
        )


class Looker:
    """Looks at photos and remembers them."""

    def __init__(self, recognizer: Recognizer, recollections: RecentPhotos) -> None:
        self._recognizer = recognizer
        self._recollections = recollections
        self._packing: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Compresses nothing any more."""
        for task in self._packing:
            task.cancel()

    async def look(self, turn: Turn, visit: Slot, attachment: Attachment) -> Subject:
        """Fetches a photo and finds its faces.

        Raises:
            PhotoProblem: If it is none, or shows no face that is large enough.
            TryLater: If the platform does not hand it over.
        """
        sight = await visit.sight(attachment.fetch)
        for step, ms in sight.ms.items():
            turn.ms[step] = turn.ms.get(step, 0.0) + ms
        turn.notes["faces"] = len(sight.faces)
        photo, faces = sight.photo, comparable(sight.faces)
        if max(photo.width_px, photo.height_px) <= LONG_SIDE_PX:
            kept = KeptPhoto(photo, faces)
        else:
            kept = await self._recognizer.finish(lambda: KeptPhoto(photo, faces))
        return Subject(lambda: photo, faces, kept, fresh=True)

    def remember(
        self,
        turn: Turn,
        *subjects: Subject,
        category: str | None = None,
        rest: tuple[Attachment, ...] = (),
        style: str = SIDE,
    ) -> str:
        """Remembers photos for the buttons; their token. They are compressed a little later."""
        photos = tuple(subject.kept for subject in subjects)
        task = asyncio.create_task(self._pack(photos))
        self._packing.add(task)
        task.add_done_callback(self._packing.discard)
        return self._recollections.keep(RecentAnswer(turn.who.user, photos, category, rest, style))

    async def _pack(self, photos: tuple[KeptPhoto, ...]) -> None:
        await asyncio.sleep(PACK_AFTER_S)
        for kept in photos:
            await self._recognizer.finish(kept.pack)

    def recall(self, token: str) -> RecentAnswer | None:
        """What is remembered under that token."""
        return self._recollections.find(token)

    def latest(self, turn: Turn) -> Subject | None:
        """The asker's last photo; None if it is forgotten, or where others would see it."""
        if turn.request.sender.is_group:
            return None
        recollection = self._recollections.latest(turn.who.user)
        return recalled(recollection.photos[0]) if recollection else None

    def stale(self, turn: Turn) -> Refusal:
        """To be raised when a photo is neither remembered nor handed over again."""
        text = turn.say("stale.photo")
        return Refusal(Reply(text=text, notice=text, private=True))

    async def embeddings(
        self, turn: Turn, subject: Subject, number: int, models: Iterable[str]
    ) -> tuple[Embedding, ...]:
        """The embeddings of one face by several models, one after the other."""
        return tuple([await self.embedding(turn, subject, number, model) for model in models])

    async def embedding(self, turn: Turn, subject: Subject, number: int, model: str) -> Embedding:
        """The embedding of the face of that number, from 1; computed once per model."""
        known = subject.kept.embeddings.get((number, model))
        if known is not None:
            return known
        with turn.timed("embed"):
            fresh = subject.fresh
            photo = subject.photo() if fresh else await self._recognizer.finish(subject.photo)
            pair = (photo, subject.faces[number - 1])
            (embedding,) = await self._recognizer.embed([pair], model)
        subject.kept.embeddings[number, model] = embedding
        return embedding


def recalled(kept: KeptPhoto) -> Subject:
    """A remembered photo as a subject; it is decoded once."""
    return Subject(functools.cache(kept.photo), kept.faces, kept)
