"""What the styles of cards are called."""

from __future__ import annotations

from bot.chat_arguments import SIDE, SPLIT

__all__ = ["STYLE_KEYS", "style_key"]

# Key of what a style is called, and of what is said when it is chosen.
STYLE_KEYS = {
    SIDE: ("style.side", "style.chosen_side"),
    SPLIT: ("style.split", "style.chosen_split"),
}


def style_key(style: str | None) -> str:
    """Key of what a style is called; none, or one of a newer program, counts as the default."""
    return STYLE_KEYS.get(style or SIDE, STYLE_KEYS[SIDE])[0]
