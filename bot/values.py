"""What a person asked and what the bot answers, in words of no platform.

The interface between adapters and the conversation: a ``Request`` goes in, a ``Reply`` within the
platform's ``Limits`` comes out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gallery.scores.ensemble import MemberScore

__all__ = [
    "ALL",
    "MOST_MATCHES",
    "SIDE",
    "SPLIT",
    "STYLES",
    "Action",
    "Animation",
    "Attachment",
    "Button",
    "ChatCommand",
    "Choices",
    "Document",
    "FaceAnswer",
    "Limits",
    "MatchAnswer",
    "ModelChoice",
    "Picture",
    "Reply",
    "Request",
    "Sender",
    "category_tag",
]

MOST_MATCHES = 10

SIDE, SPLIT = "side", "split"
STYLES = (SIDE, SPLIT)
"""How a card shows two people: side by side, or as one face of two halves."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Who asks and where. Lives in memory only; repr shows no id.

    Attributes:
        platform: ``"telegram"``, ``"discord"``, ``"web"`` or ``"terminal"``.
        user_id: The platform's id of the person.
        chat_id: The platform's id of the chat (a private chat, group, channel or web session).
        language: BCP 47 tag that the platform says the person uses, such as ``"pt-BR"``.
        is_group: Whether others read along.
        name: As the platform shows the person to this chat; "" where it does not say who writes
            (an anonymous administrator, a channel), or where the bot is but a guest.
    """

    platform: str
    user_id: str = field(repr=False)
    chat_id: str = field(repr=False)
    language: str | None = None
    is_group: bool = False
    name: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A picture that the platform holds for us; fetched only when it is needed.

    Attributes:
        fetch: Downloads the bytes; raises TooLarge, or TryLater when the platform is down.
        size_bytes: As the platform says, or None.
        media_type: As the platform says, such as ``"image/jpeg"``, or None.
        own: Whether the asker sent it, and did not forward it from somebody else; False where
            that is not known.
        spoiler: Whether the platform hides it until somebody asks to see it.
    """

    fetch: Callable[[], Awaitable[bytes]] = field(repr=False)
    size_bytes: int | None = None
    media_type: str | None = None
    own: bool = False
    spoiler: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One thing asked.

    Attributes:
        sender: Who asks.
        command: Name of the command without slash, lower case, such as ``"model"``; None for a
            bare photo or bare text.
        arguments: What stood after the command, stripped.
        photos: The photos meant, in the order of sending: attached, of the album, of the message
            replied to, or both for ``compare``.
        action: For a pressed button, its ``Button.action``; else None. ``photos`` then holds the
            photo of the message that was answered, if the platform still knows it.
    """

    sender: Sender
    command: str | None = None
    arguments: str = ""
    photos: tuple[Attachment, ...] = ()
    action: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What one platform can carry.

    Attributes:
        text_chars: Longest message without a picture, UTF-16 code units.
        caption_chars: Longest text under a picture, UTF-16 code units.
        picture_bytes: Largest picture.
        picture_width_plus_height_px: Largest sum of the sides.
        document_bytes: Largest file.
        animation_bytes: Largest animation.
        action_bytes: Longest ``Button.action``, UTF-8 bytes.
        buttons_per_row: Most buttons side by side.
        button_rows: Most rows.
        label_chars: Longest button label.
        whispers: Whether a reply in a group can be shown to the asker alone.
    """

    text_chars: int = 4096
    caption_chars: int = 1024
    picture_bytes: int = 10_000_000
    picture_width_plus_height_px: int = 10_000
    document_bytes: int = 50_000_000
    animation_bytes: int = 50_000_000
    action_bytes: int = 64
    buttons_per_row: int = 5
    button_rows: int = 5
    label_chars: int = 40
    whispers: bool = False


@dataclass(frozen=True, slots=True)
class Button:
    """Something to press under a reply.

    Attributes:
        label: What is written on it.
        action: What comes back as ``Request.action``; at most 64 bytes of ``[A-Za-z0-9_:.-]``,
            so that every platform can carry it. Holds no user id.
    """

    label: str
    action: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture ready to be sent.

    Attributes:
        jpeg: The bytes of a JPEG file; never shown by repr.
        width_px: Width.
        height_px: Height.
        alt: What is on it, for those who can't see it.
    """

    jpeg: bytes = field(repr=False)
    width_px: int
    height_px: int
    alt: str


@dataclass(frozen=True, slots=True)
class Animation:
    """A short film without sound that loops.

    Attributes:
        content: The bytes of the file; never shown by repr.
        media_type: ``"video/mp4"`` or ``"image/gif"``.
        filename: Plain file name.
        width_px: Width.
        height_px: Height.
        duration_s: How long it lasts once.
        alt: What is seen, for those who can't see it.
    """

    content: bytes = field(repr=False)
    media_type: str
    filename: str
    width_px: int
    height_px: int
    duration_s: float
    alt: str


@dataclass(frozen=True, slots=True)
class Document:
    """A file to be handed over.

    Attributes:
        content: The bytes; never shown by repr.
        filename: Plain file name.
        media_type: Such as ``"application/json"``.
    """

    content: bytes = field(repr=False)
    filename: str
    media_type: str


@dataclass(frozen=True, slots=True)
class MatchAnswer:
    """One match, for front ends that draw the answer themselves.

    Attributes:
        rank: From 1.
        name: The person, or "" where two photos were compared.
        score: 0 to 100.
        word: What that score is called, in the asker's language.
        cosine: In [-1, 1].
        one_in: A likeness this high is found between 1 in so many strangers.
        member_scores: What each model of several that answered together says; ``cosine`` is then
            theirs fused.
        categories: The person's categories.
        credit: Author and licence of the portrait; "" if unknown.
        credit_url: Where the portrait comes from, or None.
        portrait: Reads the portrait's JPEG; None where two photos were compared.
    """

    rank: int
    name: str
    score: float
    word: str
    cosine: float
    one_in: float
    member_scores: tuple[MemberScore, ...] = ()
    categories: tuple[str, ...] = ()
    credit: str = ""
    credit_url: str | None = None
    portrait: Callable[[], bytes] | None = None


@dataclass(frozen=True, slots=True)
class FaceAnswer:
    """The matches of one face, for front ends that draw the answer themselves.

    Attributes:
        face: Number of the face in the photo, from 1, largest first.
        faces: How many faces the photo has.
        model: Backbone that answered.
        box: Where the face is, (x, y, w, h) as fractions of the photo's width and height; None
            where two photos were compared.
        matches: Best first.
        style: How the picture shows it, one of ``STYLES``.
    """

    face: int
    faces: int
    model: str
    box: tuple[float, float, float, float] | None
    matches: tuple[MatchAnswer, ...]
    style: str = SIDE


@dataclass(frozen=True, slots=True)
class Reply:
    """One message.

    Attributes:
        text: Plain text, no markup; the caption where there is a picture.
        picture: At most one.
        buttons: Rows of buttons.
        document: At most one; never together with a picture.
        replaces: For the answer to a button: whether it takes the place of the message that
            carried the button (True) or is a message of its own (False).
        notice: Short text (200 characters at most) for a pressed button that needs no message:
            shown as a toast where the platform has one, else as ``text``.
        private: Meant for the asker alone, where the platform can do that.
        answers: What the picture shows, as values; empty where it shows no answer.
        animation: At most one; never together with a picture or document.
        spoiler: Whether picture or animation are hidden until somebody asks to see them, where the
            platform can do that: the photo that they answer was.
    """

    text: str = ""
    picture: Picture | None = None
    buttons: tuple[tuple[Button, ...], ...] = ()
    document: Document | None = None
    replaces: bool = False
    notice: str | None = None
    private: bool = False
    answers: tuple[FaceAnswer, ...] = ()
    animation: Animation | None = None
    spoiler: bool = False


ALL = "all"
_ALLOWED = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


@dataclass(frozen=True, slots=True)
class Action:
    """A verb and its arguments; none of them holds a user id."""

    verb: str
    arguments: tuple[str, ...] = ()

    @classmethod
    def of(cls, verb: str, *arguments: str | int) -> Action:
        """An action from its parts."""
        return cls(verb, tuple(str(argument) for argument in arguments))

    @classmethod
    def parse(cls, text: str) -> Action | None:
        """The action in what a platform hands back; None if it is none of ours."""
        if not _ALLOWED.fullmatch(text):
            return None
        verb, *arguments = text.split(":")
        return cls(verb, tuple(arguments))

    def encode(self) -> str:
        """At most 64 bytes of ``[A-Za-z0-9_.:-]``.

        Raises:
            ValueError: If the parts don't fit.
        """
        text = ":".join((self.verb, *self.arguments))
        if not _ALLOWED.fullmatch(text):
            raise ValueError(f"a button can't carry the action {self.verb}")
        return text

    def text(self, position: int) -> str:
        """The argument there, or "" where there is none."""
        return self.arguments[position] if position < len(self.arguments) else ""

    def number(self, position: int, *, least: int = 0, most: int = 10_000) -> int | None:
        """The argument there as a whole number in [least, most]; None if it is none."""
        text = self.text(position)
        if not (text.isascii() and text.isdecimal() and len(text) <= 5):
            return None
        number = int(text)
        return number if least <= number <= most else None


def category_tag(category: str) -> str:
    """A short name for a category that may be long or written in any script."""
    return hashlib.sha256(category.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model as a menu shows it.

    Attributes:
        name: What ``/model`` takes, such as ``"senet"``.
        title: Its full name.
        ready: Whether it can answer now.
        state: Why not, or "ready", in the asker's language.
    """

    name: str
    title: str
    ready: bool
    state: str


@dataclass(frozen=True, slots=True)
class Choices:
    """A person's choices and what there is to choose, for front ends with menus.

    Attributes:
        models: Every configured model.
        categories: Every category of the gallery.
        model: The chosen model.
        top: How many matches are shown in this chat.
        category: The category searched in this chat; None for all.
        style: How cards are drawn.
    """

    models: tuple[ModelChoice, ...]
    categories: tuple[str, ...]
    model: str
    top: int
    category: str | None
    style: str = SIDE


@dataclass(frozen=True, slots=True)
class ChatCommand:
    """A command as a platform's menu shows it.

    Attributes:
        name: Without slash, such as ``"top"``; equals ``Request.command``.
        description: What it does, in the asker's language; 256 characters at most, on Discord
            100.
        argument: What may follow it, in the asker's language, such as ``"number"``; None where
            nothing does.
        photos: How many photos it can take, 0 to 2.
        private: Whether the answer is meant for the asker alone.
    """

    name: str
    description: str
    argument: str | None = None
    photos: Literal[0, 1, 2] = 0
    private: bool = False

    @property
    def takes_photo(self) -> bool:
        """Whether it can take a photo."""
        return self.photos > 0
