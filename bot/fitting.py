"""Makes a reply fit the platform: lengths in UTF-16 code units, cut between graphemes."""

from __future__ import annotations

import dataclasses

from bot.reply import Button, Limits, Reply

__all__ = ["fit", "shorten", "utf16_length"]

ELLIPSIS = "…"
_FIRST_STRONG_ISOLATE = "\N{FIRST STRONG ISOLATE}"
_POP_ISOLATE = "\N{POP DIRECTIONAL ISOLATE}"
NOTICE_CHARS = 200


def utf16_length(text: str) -> int:
    """Length as Telegram and Discord count it: UTF-16 code units."""
    return len(text) + sum(character > "\uffff" for character in text)


def shorten(text: str, most: int) -> str:
    """The text, or its beginning and an ellipsis, in at most that many UTF-16 code units.

    What a reader sees as one character is never cut, nor is a directional isolate left open.
    """
    if utf16_length(text) <= most:
        return text
    import regex

    room = most - utf16_length(ELLIPSIS)
    kept: list[str] = []
    open_isolates = 0
    for grapheme in regex.findall(r"\X", text):
        opened = open_isolates + grapheme.count(_FIRST_STRONG_ISOLATE)
        opened = max(0, opened - grapheme.count(_POP_ISOLATE))
        # Each isolate that is still open needs one more unit to be closed.
        if utf16_length(grapheme) + opened - open_isolates > room:
            break
        room -= utf16_length(grapheme) + opened - open_isolates
        open_isolates = opened
        kept.append(grapheme)
    if most < 1:
        return ""
    return "".join(kept).rstrip() + ELLIPSIS + _POP_ISOLATE * open_isolates


def fit(reply: Reply, limits: Limits) -> Reply:
    """The same reply within the limits: longest lines shortened, least important buttons left out.

    A picture, animation or document that is too large is left out, and the text stays.
    """
    picture, document, animation = reply.picture, reply.document, reply.animation
    if picture is not None and (
        len(picture.jpeg) > limits.picture_bytes
        or picture.width_px + picture.height_px > limits.picture_width_plus_height_px
    ):
        picture = None
    if document is not None and len(document.content) > limits.document_bytes:
        document = None
    if animation is not None and len(animation.content) > limits.animation_bytes:
        animation = None
    carried = picture or document or animation
    most = limits.caption_chars if carried else limits.text_chars
    return dataclasses.replace(
        reply,
        text=_fit_lines(reply.text, most),
        picture=picture,
        document=document,
        animation=animation,
        buttons=_fit_buttons(reply.buttons, limits),
        notice=None if reply.notice is None else shorten(reply.notice, NOTICE_CHARS),
    )


def _fit_lines(text: str, most: int) -> str:
    """Shortens the longest lines alike until the text fits; then cuts its end."""
    if utf16_length(text) <= most:
        return text
    lines = text.split("\n")
    # The largest line length at which the whole fits, found by halving.
    short, long = 24, max(map(utf16_length, lines))
    while short < long:
        middle = (short + long + 1) // 2
        if utf16_length("\n".join(shorten(line, middle) for line in lines)) <= most:
            short = middle
        else:
            long = middle - 1
    return shorten("\n".join(shorten(line, short) for line in lines), most)


def _fit_buttons(
    rows: tuple[tuple[Button, ...], ...], limits: Limits
) -> tuple[tuple[Button, ...], ...]:
    fitting: list[tuple[Button, ...]] = []
    for row in rows:
        usable = [
            dataclasses.replace(button, label=shorten(button.label, limits.label_chars))
            for button in row
            if len(button.action.encode()) <= limits.action_bytes
        ]
        fitting += [
            tuple(usable[start : start + limits.buttons_per_row])
            for start in range(0, len(usable), limits.buttons_per_row)
        ]
    return tuple(fitting[: limits.button_rows])
