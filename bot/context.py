"""What a command gets: the services of the program, one request, and what was found for a photo."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from bot.values import SIDE, FaceAnswer, Limits, MatchAnswer, Reply, Request

if TYPE_CHECKING:
    from bot.background import StarterDownload
    from bot.memory import RecentAnswer, RecentPhotos, TwinsGroups
    from bot.models import Models
    from bot.recognizer import DetectedPhoto, Recognizer
    from bot.store.keys import Identity, Who
    from bot.store.store import Store
    from bot.values import Attachment
    from bot.wording import Wording
    from engine.engine import Engine
    from gallery.gallery import Gallery
    from gallery.records import Match

__all__ = ["NOTICE_CHARS", "Found", "Question", "Refusal", "Services", "Turn", "notice"]

NOTICE_CHARS = 200


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that a command may use; ``bot.app.open_conversation`` makes it.

    Attributes:
        wording: Every sentence.
        identity: From user ids to keys.
        store: Choices and history.
        engine: Decodes the portraits.
        gallery: Whom photos are compared with.
        recognizer: Admits, detects, embeds; the border to the engine's threads.
        models: Which backbones can answer.
        recent: Photos answered lately, for the buttons.
        twins: Who takes part in ``/twins``.
        starter: Whether the starter gallery downloads.
    """

    wording: Wording
    identity: Identity
    store: Store
    engine: Engine
    gallery: Gallery
    recognizer: Recognizer
    models: Models
    recent: RecentPhotos
    twins: TwinsGroups
    starter: StarterDownload


@dataclass(slots=True)
class Turn:
    """A request, who asks, and what is noted for the log on the way to the answer.

    Attributes:
        request: What was asked.
        limits: What the platform can carry.
        who: The asker's keys; never an id.
        wording: Every sentence.
        notes: Facts for the log line: no photo, no id, no name of a person.
        ms: Milliseconds by step.
        say: A sentence in the asker's language, by key and details.
    """

    request: Request
    limits: Limits
    who: Who
    wording: Wording
    notes: dict[str, object] = field(default_factory=dict)
    ms: dict[str, float] = field(default_factory=dict)
    say: Callable[..., str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.say = functools.partial(self.wording.text, language=self.request.sender.language)

    def number(self, value: int) -> str:
        """A whole number as the asker's language writes it."""
        return self.wording.number(value, self.request.sender.language)

    @property
    def public(self) -> bool:
        """Whether others would read the reply."""
        return self.request.sender.is_group and not self.limits.whispers

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Adds the time spent inside to that step."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.ms[step] = self.ms.get(step, 0.0) + (time.perf_counter() - started) * 1000


class Refusal(Exception):  # noqa: N818 - not an error of ours: the asker is told what to do
    """Ends a turn with a reply that says what to do instead."""

    def __init__(self, reply: Reply) -> None:
        super().__init__("refused")
        self.reply = reply


def notice(text: str) -> Reply:
    """The answer to a pressed button that needs no message, as a toast where it is short enough."""
    return Reply(text=text, notice=text if len(text) <= NOTICE_CHARS else None, private=True)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about a photo.

    Attributes:
        model: Backbone that answers.
        wanted: Backbone that was asked for; another than ``model`` where that isn't ready.
        photo: The photo as the platform holds it; None where ``recent`` holds it.
        recent: The photo, if it was answered a short while ago.
        token: Names ``recent``.
        rest: The other photos of the album.
        top: How many matches, at least 1.
        category: The category to search; None for all.
        parents: Whether a woman and a man are wanted, in place of ``top`` matches.
        show: How the answer is presented: ``"card"``, ``"film"``, ``"parents"`` or ``"numbers"``.
        number: Number of the face, from 1.
        page: Which faces have a button, from 0.
        mine: Whether the asker sent the photo, so that the match goes into their history.
        replaces: Whether a pressed button's answer takes the place of the one above it.
        style: How the card is drawn.
        remarks: Lines for the end of the answer, such as what was not understood.
    """

    model: str
    wanted: str
    photo: Attachment | None = None
    recent: RecentAnswer | None = None
    token: str = ""
    rest: tuple[Attachment, ...] = ()
    top: int = 1
    category: str | None = None
    parents: bool = False
    show: Literal["card", "film", "parents", "numbers"] = "card"
    number: int = 1
    page: int = 0
    mine: bool = True
    replaces: bool = False
    style: str = SIDE
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What was found for one face of a photo.

    Attributes:
        photo: The photo.
        question: What was asked; ``number`` is that of a face that is there.
        token: Names the photo in buttons.
        matches: Best first, at least one; for ``parents`` the woman, then the man.
        answers: The same in the asker's words.
    """

    photo: DetectedPhoto
    question: Question
    token: str
    matches: tuple[Match, ...]
    answers: tuple[MatchAnswer, ...]

    def face_answer(self, answers: tuple[MatchAnswer, ...], style: str = SIDE) -> FaceAnswer:
        """The matches for front ends; may decode the photo, so not for the event loop."""
        number = self.question.number
        return FaceAnswer(
            face=number,
            faces=len(self.photo.faces),
            model=self.question.model,
            box=self.photo.box_fractions(number),
            matches=answers,
            style=style,
        )
