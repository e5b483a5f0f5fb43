"""Whether further pictures show the person of the first one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from engine.errors import PhotoProblem, TooLarge
from engine.types import Embedding, Face, Photo
from gallery.records import Portrait
from gallery.scores import prior
from gallery.screen import Reason, clear_face

if TYPE_CHECKING:
    from engine.engine import Engine

__all__ = ["ANOTHER_FACE", "FaceCheck", "Seen"]

ANOTHER_FACE: Final = "another face"
"""Why a picture of a person's category is not taken."""

_ONE_IN: Final = 1_000.0
"""A likeness that one stranger in so many has counts as the same face. With dlib that is a cosine
of 0.929; two photos of one person have 0.957 in the median (gallery/scores)."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The one face of a picture."""

    embedding: Embedding


class FaceCheck:
    """Compares faces; safe to use from several threads.

    Args:
        engine: Sees and embeds.
        backbone: Its name.
    """

    def __init__(self, engine: Engine, backbone: str) -> None:
        self._engine = engine
        self._backbone = backbone
        # The prior, not what the gallery has learned: the outcome must not change as it grows.
        self._strangers = prior(engine.backbone(backbone).space)

    def see(self, content: bytes) -> Seen | Reason:
        """The one clear face in a picture, or why there is none."""
        try:
            photo = self._engine.decode(content)
        except TooLarge:
            return Reason.TOO_LARGE
        except PhotoProblem:
            return Reason.UNREADABLE
        face = clear_face(photo, self._engine.detect(photo))
        return face if isinstance(face, Reason) else self._seen(photo, face)

    def recall(self, portrait: Portrait) -> Seen | Reason:
        """The face of a portrait in the gallery, from its thumbnail."""
        try:
            photo = self._engine.decode(portrait.thumbnail.read_bytes())
        except (OSError, PhotoProblem):
            return Reason.UNREADABLE
        return self._seen(photo, Face(portrait.box, portrait.landmarks, confidence=1.0))

    def same(self, one: Seen, other: Seen) -> bool:
        """Whether two faces are one person's, as far as can be told."""
        return self._strangers.one_in(one.embedding.cosine(other.embedding)) >= _ONE_IN

    def _seen(self, photo: Photo, face: Face) -> Seen:
        return Seen(self._engine.embed([(photo, face)], self._backbone)[0])
