"""Photos with their faces in hand: fresh ones, and those remembered for the buttons."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot.recollections import KeptPhoto, Recollection, Recollections
from bot.reply import Reply
from bot.request import Attachment
from bot.turn import Refusal, Turn
from engine.pipeline import comparable

if TYPE_CHECKING:
    from bot.recognizer import Recognizer
    from engine.types import Embedding, Face, Photo

__all__ = ["Looker", "Subject", "recalled"]


@dataclass(frozen=True, slots=True)
class Subject:
    """One photo that is being answered.

    Attributes:
        photo: Its pixels; for a remembered photo that means decoding, so not on the event loop.
        faces: Large enough to be compared, largest first, in the pixels of ``photo``.
        kept: What is remembered of it.
    """

    photo: Callable[[], Photo]
    faces: tuple[Face, ...]
    kept: KeptPhoto

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

    def __init__(self, recognizer: Recognizer, recollections: Recollections) -> None:
        self._recognizer = recognizer
        self._recollections = recollections
        self._packing: set[asyncio.Task[None]] = set()

    async def look(self, turn: Turn, attachment: Attachment) -> Subject:
        """Fetches a photo and finds its faces.

        Raises:
            PhotoProblem: If it is none, or shows no face that is large enough.
            TryLater: If the platform does not hand it over.
        """
        sight = await self._recognizer.sight(turn.who.user, attachment.fetch)
        for step, ms in sight.ms.items():
            turn.ms[step] = turn.ms.get(step, 0.0) + ms
        turn.notes["faces"] = len(sight.faces)
        photo, faces = sight.photo, comparable(sight.faces)
        kept = await self._recognizer.finish(lambda: KeptPhoto(photo, faces))
        return Subject(lambda: photo, faces, kept)

    def remember(
        self,
        turn: Turn,
        *subjects: Subject,
        category: str | None = None,
        rest: tuple[Attachment, ...] = (),
    ) -> str:
        """Remembers photos for the buttons; their token.

        They are compressed behind the answer's back.
        """
        photos = tuple(subject.kept for subject in subjects)
        for kept in photos:
            task = asyncio.create_task(self._recognizer.finish(kept.pack))
            self._packing.add(task)
            task.add_done_callback(self._packing.discard)
        return self._recollections.keep(Recollection(turn.who.user, photos, category, rest))

    def recall(self, token: str) -> Recollection | None:
        """What is remembered under that token."""
        return self._recollections.find(token)

    def stale(self, turn: Turn) -> Refusal:
        """To be raised when a photo is neither remembered nor handed over again."""
        text = turn.say("stale.photo")
        return Refusal(Reply(text=text, notice=text, private=True))

    async def embedding(self, turn: Turn, subject: Subject, number: int, model: str) -> Embedding:
        """The embedding of the face of that number, from 1; computed once per model."""
        known = subject.kept.embeddings.get((number, model))
        if known is not None:
            return known
        with turn.timed("embed"):
            photo = await self._recognizer.finish(subject.photo)
            pair = (photo, subject.faces[number - 1])
            (embedding,) = await self._recognizer.embed([pair], model)
        subject.kept.embeddings[number, model] = embedding
        return embedding


def recalled(kept: KeptPhoto) -> Subject:
    """A remembered photo as a subject; it is decoded once."""
    return Subject(functools.cache(kept.photo), kept.faces, kept)
