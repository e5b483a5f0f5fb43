"""The buttons under an answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from bot.values import MOST_MATCHES, Action, Button

if TYPE_CHECKING:
    from bot.context import Turn

__all__ = ["Rows", "answer_buttons", "family_buttons", "grid", "pair_buttons"]

Rows = tuple[tuple[Button, ...], ...]

MORE_MATCHES = 5


def grid(buttons: Iterable[Button], per_row: int) -> Rows:
    """Buttons in rows."""
    row = list(buttons)
    return tuple(tuple(row[at : at + per_row]) for at in range(0, len(row), per_row))


def answer_buttons(
    turn: Turn,
    token: str,
    *,
    number: int,
    count: int,
    page: int,
    model: str,
    others: Sequence[str],
    top: int,
    shown: int,
    album: int,
    parents: bool = False,
) -> Rows:
    """Other faces, other photos, other models, more matches, raw numbers, morph, parents.

    Args:
        turn: Who asks, and what the platform can carry.
        token: Names the recollection.
        number: The face answered, from 1.
        count: How many faces there are.
        page: Which of them have a button, from 0.
        model: Backbone that answered.
        others: Backbones that could, too.
        top: How many matches were asked for.
        shown: How many there were.
        album: How many photos came together.
        parents: Whether the gallery says who is a woman and who is a man.
    """

    def see(label: str, face: int, name: str, matches: int, of_page: int = page) -> Button:
        action = Action.of("see", token, face, name, matches, of_page)
        return Button(label, action.encode())

    last: list[Button] = []
    if top < MORE_MATCHES and shown == top:
        last.append(see(turn.say("button.more"), number, model, MORE_MATCHES))
    elif top < MOST_MATCHES and shown == top:
        last.append(see(turn.say("button.more"), number, model, MOST_MATCHES))
    if top > 1:
        last.append(see(turn.say("button.best"), number, model, 1))
    last.append(
        Button(turn.say("button.numbers"), Action.of("raw", token, number, model, top).encode())
    )
    last.append(Button(turn.say("button.morph"), Action.of("morph", token, number, model).encode()))
    if parents:
        action = Action.of("parents", token, number, model)
        last.append(Button(turn.say("button.parents"), action.encode()))
    models = [see(turn.say("button.other_model", model=name), number, name, top) for name in others]
    below = [*grid(models, turn.limits.buttons_per_row), *grid(last, turn.limits.buttons_per_row)]
    if album > 1:
        below = [*_album(turn, token, album), *below]
    if count > 1:
        rows = max(1, turn.limits.button_rows - len(below))
        most = min(rows, 3) * turn.limits.buttons_per_row
        faces = _faces(
            turn, token, number=number, count=count, page=page, model=model, top=top, most=most
        )
        return (*faces, *below)
    return tuple(below)


def _faces(
    turn: Turn,
    token: str,
    *,
    verb: str = "see",
    number: int,
    count: int,
    page: int,
    model: str,
    top: int,
    most: int,
) -> Rows:
    """A button per face but the answered one; the last leads on where they don't all fit."""
    numbers = [face for face in range(1, count + 1) if face != number]
    per_page = most if len(numbers) <= most else most - 1
    pages = -(-len(numbers) // per_page)
    page %= pages
    buttons = [
        Button(
            turn.say("button.face", number=face),
            Action.of(verb, token, face, model, top, page).encode(),
        )
        for face in numbers[page * per_page : (page + 1) * per_page]
    ]
    if pages > 1:
        action = Action.of(verb, token, number, model, top, (page + 1) % pages)
        buttons.append(Button(turn.say("button.more_faces"), action.encode()))
    return grid(buttons, turn.limits.buttons_per_row)


def _album(turn: Turn, token: str, album: int) -> Rows:
    buttons = [
        Button(turn.say("button.photo", number=number), Action.of("next", token, number).encode())
        for number in range(2, min(album, turn.limits.buttons_per_row + 1) + 1)
    ]
    if album == 2:
        buttons.append(Button(turn.say("button.compare"), Action.of("both", token).encode()))
    return grid(buttons, turn.limits.buttons_per_row)


def family_buttons(
    turn: Turn,
    token: str,
    *,
    number: int,
    count: int,
    page: int,
    model: str,
    others: Sequence[str],
) -> Rows:
    """Other faces, other models and raw numbers, under a picture of parents.

    Args:
        turn: Who asks, and what the platform can carry.
        token: Names the recollection.
        number: The face answered, from 1.
        count: How many faces there are.
        page: Which of them have a button, from 0.
        model: Backbone that answered.
        others: Backbones that could, too.
    """
    models = [
        Button(
            turn.say("button.other_model", model=name),
            Action.of("parents", token, number, name, 1, page).encode(),
        )
        for name in others
    ]
    raw = Action.of("rawkin", token, number, model).encode()
    per_row = turn.limits.buttons_per_row
    below = (*grid(models, per_row), (Button(turn.say("button.numbers"), raw),))
    if count < 2:
        return below
    most = min(max(1, turn.limits.button_rows - len(below)), 3) * per_row
    faces = _faces(
        turn,
        token,
        verb="parents",
        number=number,
        count=count,
        page=page,
        model=model,
        top=1,
        most=most,
    )
    return (*faces, *below)


def pair_buttons(turn: Turn, token: str, *, model: str, others: Sequence[str]) -> Rows:
    """Other models and raw numbers, under a comparison."""
    models = [
        Button(turn.say("button.other_model", model=name), Action.of("pair", token, name).encode())
        for name in others
    ]
    raw = Button(turn.say("button.numbers"), Action.of("rawpair", token, model).encode())
    return (*grid(models, turn.limits.buttons_per_row), (raw,))
