"""What the bot answers, within the platform's limits, in words of no platform."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bot.chat_arguments import SIDE

if TYPE_CHECKING:
    from gallery.ensemble import Part

__all__ = [
    "Animation",
    "Button",
    "Document",
    "FaceAnswer",
    "Limits",
    "MatchAnswer",
    "Picture",
    "Reply",
]


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
        parts: What each model of several that answered together says; ``cosine`` is then theirs
            fused.
        categories: The person's categories.
        credit: Author and licence of the portrait; "" if unknown.
        credit_url: Where the portrait comes from, or None.
        portrait: JPEG file of the portrait, absolute; None where two photos were compared.
    """

    rank: int
    name: str
    score: float
    word: str
    cosine: float
    one_in: float
    parts: tuple[Part, ...] = ()
    categories: tuple[str, ...] = ()
    credit: str = ""
    credit_url: str | None = None
    portrait: Path | None = None


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
        style: How the picture shows it, one of ``bot.chat_arguments.STYLES``.
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
