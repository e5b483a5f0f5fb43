"""What a person asked, in words of no platform."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

__all__ = ["Attachment", "Request", "Sender"]


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
    """

    fetch: Callable[[], Awaitable[bytes]] = field(repr=False)
    size_bytes: int | None = None
    media_type: str | None = None
    own: bool = False


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
