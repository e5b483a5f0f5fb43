"""What Telegram carries at most, and texts in pieces that it carries."""

from __future__ import annotations

from bot.values import Limits

__all__ = ["TELEGRAM_LIMITS", "split_text"]

# https://core.telegram.org/bots/api: sendMessage, sendPhoto, sendDocument, sendAnimation,
# InlineKeyboardButton.
# Three buttons side by side are as many as a phone shows with their words.
TELEGRAM_LIMITS = Limits(
    text_chars=4096,
    caption_chars=1024,
    picture_bytes=10_000_000,
    picture_width_plus_height_px=10_000,
    document_bytes=50_000_000,
    animation_bytes=50_000_000,
    action_bytes=64,
    buttons_per_row=3,
    button_rows=10,
    label_chars=40,
)


def split_text(
    text: str, first: int = TELEGRAM_LIMITS.text_chars, rest: int = TELEGRAM_LIMITS.text_chars
) -> list[str]:
    """A text in pieces that Telegram carries, cut at the end of a paragraph, line or word.

    Args:
        text: Any text; what is no character (a lone surrogate) becomes U+FFFD.
        first: Longest first piece, UTF-16 code units, above 1.
        rest: Longest other piece, UTF-16 code units, above 1.

    Returns:
        Pieces without white space around them, none of them empty.
    """
    units = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").strip()
    pieces: list[str] = []
    limit = first
    while units:
        head = units.encode("utf-16-le")[: 2 * limit].decode("utf-16-le", "ignore")
        if len(head) < len(units):
            head = head[: _cut(head)]
        if piece := head.strip():
            pieces.append(piece)
            limit = rest
        units = units[len(head) :].lstrip()
    return pieces


def _cut(head: str) -> int:
    """Where to cut a text that goes on: late, and at the best boundary of its second half."""
    for boundary in ("\n\n", "\n", " "):
        at = head.rfind(boundary)
        if at > len(head) // 2:
            return at
    return len(head)
