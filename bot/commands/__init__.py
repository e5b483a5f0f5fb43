"""The commands and buttons of the chat, the same on every platform, and what each of them gets.

A command is a function of the services and the turn that returns a reply; a button's function also
gets the button's action (``bot.values.Action``). Their tables are in ``bot.conversation``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from bot.text import NOTICE_CHARS, Wording
from bot.values import SIDE, Action, Attachment, Button, Limits, MatchAnswer, Reply, Request

if TYPE_CHECKING:
    from bot.background import Filling
    from bot.memory import RecentAnswer, RecentPhotos, TwinsGroups
    from bot.models import Models
    from bot.process_memory import Memory
    from bot.recognizer import DetectedPhoto, Recognizer
    from bot.store import Store, Who
    from engine.engine import Engine
    from gallery.gallery import Gallery
    from gallery.records import Match


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that a command may use; ``bot.app.open_conversation`` makes it.

    ``engine`` decodes portraits (photos go through the recognizer).
    """

    wording: Wording
    store: Store
    engine: Engine
    gallery: Gallery
    recognizer: Recognizer
    models: Models
    recent: RecentPhotos
    twins: TwinsGroups
    memory: Memory
    filling: Filling


@dataclass(slots=True)
class Turn:
    """A request, who asks, and what is noted for the log on the way to the answer."""

    request: Request
    limits: Limits
    who: Who  # the asker's keys; never an id
    say: Callable[..., str]  # A sentence in the asker's language, by key and details
    # Facts for the log line: no photo, no id, no name of a person
    notes: dict[str, object] = field(default_factory=dict)
    ms: dict[str, float] = field(default_factory=dict)  # milliseconds by step

    def button(self, key: str, verb: str, *arguments: str | int, **details: object) -> Button:
        """A button that is called as that sentence and carries an action."""
        return Button(self.say(key, **details), Action.encode(verb, *arguments))


class Refusal(Exception):  # noqa: N818 - not an error of ours: the asker is told what to do
    """Ends a turn with a reply that says what to do instead."""

    def __init__(self, reply: Reply) -> None:
        super().__init__("refused")
        self.reply = reply


def refusal(turn: Turn, key: str, *, toast: bool = True, **details: object) -> Refusal:
    """To be raised with a sentence for the asker alone, for a pressed button as a toast."""
    return Refusal(notice(turn, turn.say(key, **details), toast=toast))


def notice(turn: Turn, text: str, *, toast: bool = True) -> Reply:
    """A text for the asker alone, for a pressed button as a toast where it is short enough."""
    toasted = toast and turn.request.action is not None and len(text) <= NOTICE_CHARS
    return Reply(text=text, notice=text if toasted else None, private=True)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about a photo."""

    model: str  # backbone that answers
    # The photo as the platform holds it; None where ``recent`` holds it
    photo: Attachment | None = None
    recent: RecentAnswer | None = None  # the photo, if it was answered a short while ago
    token: str = ""  # names ``recent``
    rest: tuple[Attachment, ...] = ()  # the later photos of the album
    first: int = 1  # the photo's number in the album
    message_id: int | None = None  # of the message that holds the photo
    top: int = 1  # how many matches, at least 1
    category: str | None = None  # the category to search; None for all
    parents: bool = False  # whether a woman and a man are wanted, in place of ``top`` matches
    # How the answer is presented: ``"card"``, ``"film"``, ``"parents"`` or ``"numbers"``
    show: Literal["card", "film", "parents", "numbers"] = "card"
    number: int = 1  # number of the face, from 1
    page: int = 0  # which faces have a button, from 0
    mine: bool = True  # whether the asker sent the photo, so that the match goes into their history
    replaces: bool = False  # whether a pressed button's answer takes the place of the one above it
    style: str = SIDE  # how the card is drawn
    # Lines for the end of the answer, such as what was not understood
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What was found for one face of a photo, which is there."""

    photo: DetectedPhoto
    question: Question
    token: str  # names the photo in buttons
    matches: tuple[Match, ...]  # best first, at least one; for ``parents`` the woman, then the man
    answers: tuple[MatchAnswer, ...]  # the same in the asker's words
    searched: int  # among how many people, those of the category
    people: int  # how many the gallery has
