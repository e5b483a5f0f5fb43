"""Whether the starter gallery is still arriving, so that answers can say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bot.turn import Turn
    from gallery.gallery import Gallery

__all__ = ["Growing"]


class Growing:
    """Set by who fills the gallery, read by who answers.

    Args:
        gallery: Which.
    """

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._about: int | None = None

    def begin(self, people: int) -> None:
        """People begin to arrive, about so many."""
        self._about = people

    def end(self) -> None:
        """Nobody arrives any more."""
        self._about = None

    @property
    def now(self) -> bool:
        """Whether people are arriving."""
        return self._about is not None

    def line(self, turn: Turn) -> str | None:
        """How far it is, for the end of an answer; None when nobody is arriving.

        It reads the gallery: not for the event loop.
        """
        about = self._about
        if about is None:
            return None
        people = min(self._gallery.catalogue.counts()[0], about)
        return turn.say("answer.growing", there=turn.number(people), about=turn.number(about))
