"""What a person asked and what the bot answers, in words of no platform.

The interface between adapters and the conversation: a ``Request`` goes in, a ``Reply`` within the
platform's ``Limits`` comes out.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Self

from gallery.records import MemberScore

MOST_MATCHES = 10

# How a card shows two people: side by side, or as one face of two halves.
SIDE, SPLIT = STYLES = ("side", "split")


@dataclass(frozen=True, slots=True)
class Sender:
    """Who asks and where. Lives in memory only; repr shows no id."""

    platform: str  # ``"telegram"``, ``"discord"``, ``"web"`` or ``"terminal"``
    user_id: str = field(repr=False)
    chat_id: str = field(repr=False)  # of the private chat, group, channel or web session
    # BCP 47 tag that the platform says the person uses, such as ``"pt-BR"``
    language: str | None = None
    is_group: bool = False  # whether others read along
    # As the platform shows the person to this chat; "" where it does not say who writes (an
    # anonymous administrator, a channel), or where the bot is but a guest
    name: str = field(default="", repr=False)
    hears_all: bool = True  # whether the bot sees messages in the chat that don't address it


@dataclass(frozen=True, slots=True)
class Attachment:
    """A picture that the platform holds for us; fetched only when it is needed."""

    # Downloads the bytes; raises TooLarge, or TryLater when the platform is down
    fetch: Callable[[], Awaitable[bytes]] = field(repr=False)
    own: bool = False  # whether the asker is known to have sent it, not forwarded it from another
    spoiler: bool = False  # whether the platform hides it until somebody asks to see it
    # Of the message that holds it, where answers can reply to one of several
    message_id: int | None = field(default=None, repr=False)
    # What the platform calls it, and its bytes, where that is for long
    file: tuple[str, int | None] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """One thing asked."""

    sender: Sender  # who asks
    command: str | None = None  # without slash, lower case; None for a bare photo or bare text
    arguments: str = ""  # what stood after the command, stripped
    # The photos meant, in the order of sending: attached, of the album, of the message replied to,
    # or both for ``compare``; for a button, if still known, the one that the answer above it is
    # about, and those that were sent with it and after it
    photos: tuple[Attachment, ...] = ()
    action: str | None = None  # of a pressed ``Button``


@dataclass(frozen=True, slots=True)
class Limits:
    """What one platform can carry."""

    text_chars: int = 4096  # longest message without a picture, UTF-16 code units
    caption_chars: int = 1024  # longest text under a picture, UTF-16 code units
    picture_bytes: int = 10_000_000  # largest picture
    picture_width_plus_height_px: int = 10_000  # largest sum of the sides
    document_bytes: int = 50_000_000  # largest file
    animation_bytes: int = 50_000_000  # largest animation
    action_bytes: int = 64  # longest ``Button.action``, UTF-8 bytes
    buttons_per_row: int = 5  # most buttons side by side
    button_rows: int = 5  # most rows
    label_chars: int = 40  # longest button label
    whispers: bool = False  # whether a reply in a group can be shown to the asker alone
    # Whether somebody who asks too fast is told so each time; else once, and is then passed over
    patient: bool = True


@dataclass(frozen=True, slots=True)
class Button:
    """Something to press under a reply; ``action`` is an encoded ``Action``."""

    label: str
    action: str


Rows = tuple[tuple[Button, ...], ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """A JPEG file ready to be sent; ``alt`` is what is on it, for those who can't see it."""

    jpeg: bytes = field(repr=False)
    width_px: int
    height_px: int
    alt: str
    words_from_px: int | None = None  # below it there is nothing but what ``answers`` say


@dataclass(frozen=True, slots=True)
class Document:
    """A file to be handed over."""

    content: bytes = field(repr=False)
    media_type: str
    filename: str


@dataclass(frozen=True, slots=True)
class Animation(Document):
    """A short film without sound that loops, ``"video/mp4"`` or ``"image/gif"``.

    ``duration_s`` is that of one round, ``alt`` what is seen, for those who can't see it.
    """

    width_px: int
    height_px: int
    duration_s: float
    alt: str


@dataclass(frozen=True, slots=True)
class MatchAnswer:
    """One match, for front ends that draw the answer themselves."""

    rank: int  # from 1
    name: str  # the person, or "" where two photos were compared
    score: float  # 0 to 100
    word: str  # what that score is called, in the asker's language
    cosine: float  # in [-1, 1]
    one_in: float  # A likeness this high is found between 1 in so many strangers
    rarity: str = ""  # the same as a sentence; "" where nothing strong is to be said
    # What each model of several that answered together says; ``cosine`` is then theirs fused
    member_scores: tuple[MemberScore, ...] = ()
    categories: tuple[str, ...] = ()
    credit: str = ""  # author and licence of the portrait; "" if unknown
    credit_url: str | None = None  # where the portrait comes from, or None
    # Reads the portrait's JPEG; None where two photos were compared
    portrait: Callable[[], bytes] | None = None


@dataclass(frozen=True, slots=True)
class FaceAnswer:
    """The matches of one face, for front ends that draw the answer themselves."""

    face: int  # number of the face in the photo, from 1, largest first
    faces: int  # how many faces the photo has
    model: str
    # x, y, w, h as fractions of the photo's width and height; None where two were compared
    box: tuple[float, float, float, float] | None
    matches: tuple[MatchAnswer, ...]  # best first
    hook: str = ""  # the sentence that says who it is: ``Your closest of 1,204: Grace Hopper``


@dataclass(frozen=True, slots=True)
class Reply:
    """One message."""

    text: str = ""  # plain text, no markup; the caption where there is a picture
    # Never together with a document or an animation, nor these two together
    picture: Picture | None = None
    buttons: Rows = ()
    document: Document | None = None
    replaces: bool = False  # whether it takes the place of the message that carried the button
    # Short text (200 characters at most) for a pressed button that needs no message: shown as a
    # toast where the platform has one, else as ``text``
    notice: str | None = None
    private: bool = False  # meant for the asker alone, where the platform can do that
    # What the picture shows, as values; empty where it shows no answer
    answers: tuple[FaceAnswer, ...] = ()
    told_lines: int = 0  # the first lines of the text that say what ``answers`` say
    animation: Animation | None = None
    spoiler: bool = False  # whether picture or animation are hidden, as the photo was
    about: Attachment | None = None  # the photo of several that it answers; None for the first

    @property
    def silent(self) -> bool:
        """Whether there is nothing to send: of those who are blocked, or ask again too fast."""
        return self == Reply()


ALL = "all"
_ALLOWED = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


@dataclass(frozen=True, slots=True)
class Action:
    """A verb and its arguments; none of them holds a user id."""

    verb: str
    arguments: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The action in what a platform hands back; None if it is none of ours."""
        if not _ALLOWED.fullmatch(text):
            return None
        verb, *arguments = text.split(":")
        return cls(verb, tuple(arguments))

    @staticmethod
    def encode(verb: str, *arguments: str | int) -> str:
        """At most 64 bytes of ``[A-Za-z0-9_.:-]``; raises ValueError if the parts don't fit."""
        text = ":".join((verb, *map(str, arguments)))
        if not _ALLOWED.fullmatch(text):
            raise ValueError(f"a button can't carry the action {verb}")
        return text

    def text(self, position: int) -> str:
        """The argument there, or "" where there is none."""
        return self.arguments[position] if position < len(self.arguments) else ""

    def number(self, position: int, *, least: int = 0, most: int = 10_000) -> int | None:
        """The argument there as a whole number in [least, most]; None if it is none."""
        text = self.text(position)
        number = int(text) if re.fullmatch("[0-9]{1,5}", text) else -1
        return number if least <= number <= most else None


def photo_number(action: str) -> int:
    """Which of the photos sent together the answer above a button is about, from 1."""
    told = re.match(r"\w+:(\d{1,2})\.", action)
    return int(told[1]) if told else 1


def category_tag(category: str) -> str:
    """A short name for a category that may be long or written in any script."""
    return hashlib.sha256(category.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model as a menu shows it; ``state`` says in the asker's language why it is not ready."""

    name: str
    title: str
    ready: bool
    state: str
    missing: bool = False  # whether it could be fetched, and nobody does


@dataclass(frozen=True, slots=True)
class Choices:
    """Every model and category, and what a person chose; ``category`` is None for all."""

    models: tuple[ModelChoice, ...]
    categories: tuple[str, ...]
    model: str
    top: int
    category: str | None
    style: str = SIDE
