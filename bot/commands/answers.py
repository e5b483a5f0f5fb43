"""How an answer is presented: card, film, parents, raw numbers, and the buttons under them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from bot.context import Found, Services, Turn, notice
from bot.text import caption, numbers
from bot.values import MOST_MATCHES, SIDE, SPLIT, Action, Button, Reply
from bot.wording import isolate
from gallery.records import MEN, WOMEN

if TYPE_CHECKING:
    from bot.pictures import CardEntry
    from bot.recognizer import Slot
    from bot.values import MatchAnswer, Picture
    from gallery.records import Match

__all__ = [
    "MOST_FACES",
    "Rows",
    "answer_buttons",
    "grid",
    "pair_buttons",
    "show_card",
    "show_film",
    "show_numbers",
    "show_parents",
]

Rows = tuple[tuple[Button, ...], ...]

MORE_MATCHES = 5
MOST_FACES = 200
MOST_ROWS_OF_FACES = 3
# Key of what one match is called for those who can't see it, and several.
ALT_KEYS = {SIDE: ("answer.alt", "answer.alt_many"), SPLIT: ("style.alt", "style.alt_many")}


async def show_card(services: Services, turn: Turn, _slot: Slot, found: Found) -> Reply:
    """The face beside its best match, or joined with it; further matches below."""
    question, answers = found.question, found.answers
    turn.notes["top"] = question.top

    def draw() -> tuple[Reply, str, frozenset[str]]:
        style = question.style if question.style == SPLIT and _can_split(found) else SIDE
        picture = _draw_card(services, turn, found, style)
        reply = Reply(picture=picture, answers=(found.face_answer(answers, style),))
        return reply, style, services.gallery.genders()

    reply, style, genders = await services.recognizer.finish(draw, turn.ms, "draw")
    text = caption(turn, found)
    if question.style == SPLIT != style:
        text += "\n" + turn.say("style.turned")
    if question.rest:
        text += "\n" + turn.say("answer.album", count=len(question.rest))
    others = [name for name in services.models.ready() if name != question.model]
    know_genders = not (genders.isdisjoint(WOMEN) or genders.isdisjoint(MEN))
    buttons = answer_buttons(turn, found, others, parents=know_genders)
    return dataclasses.replace(reply, text=text, buttons=buttons)


async def show_parents(services: Services, turn: Turn, _slot: Slot, found: Found) -> Reply:
    """The woman and the man most alike with the face between them."""
    question, answers = found.question, found.answers

    def draw() -> Reply:
        first, second = _card_entries(services, found)
        from bot.pictures import draw_family_card

        picture = draw_family_card(
            found.photo.photo(),
            found.photo.faces,
            (first, second),
            answered=question.number - 1,
            title=turn.say("parents.card"),
        )
        names = {"first": isolate(answers[0].name), "second": isolate(answers[1].name)}
        picture = dataclasses.replace(picture, alt=turn.say("parents.alt", **names))
        shown = (found.face_answer((dataclasses.replace(one, rank=1),)) for one in answers)
        return Reply(picture=picture, answers=tuple(shown))

    reply = await services.recognizer.finish(draw, turn.ms, "draw")
    others = [name for name in services.models.ready() if name != question.model]
    buttons = answer_buttons(turn, found, others)
    return dataclasses.replace(reply, text=caption(turn, found), buttons=buttons)


async def show_film(services: Services, turn: Turn, slot: Slot, found: Found) -> Reply:
    """The face becomes its best match and itself again; a button leads to the card."""
    question, (match,), (answer,) = found.question, found.matches, found.answers

    def draw() -> Reply:
        from bot.pictures.framing import with_chin
        from bot.pictures.morph import make_morph

        face = found.photo.faces[question.number - 1]
        pixels_and_shape = (found.photo.photo().pixels, with_chin(face.landmarks, face.box))
        alt = turn.say("morph.alt", name=isolate(answer.name), score=round(answer.score))
        entry = _card_entry(services, match, answer)
        return Reply(animation=make_morph(pixels_and_shape, entry, alt=alt))

    with turn.timed("draw"):
        reply = await services.recognizer.lengthy(slot, draw)
    card = Action.of("see", found.token, question.number, question.model, 1, 0).encode()
    button = Button(turn.say("button.card"), card)
    return dataclasses.replace(reply, text=caption(turn, found), buttons=((button,),))


async def show_numbers(services: Services, turn: Turn, _slot: Slot, found: Found) -> Reply:
    """The raw numbers behind an answer."""
    reply = notice(numbers(turn, found.answers, found.question.model))
    if found.question.parents:
        return reply
    answer = await services.recognizer.finish(lambda: found.face_answer(found.answers))
    return dataclasses.replace(reply, answers=(answer,))


def _can_split(found: Found) -> bool:
    """Whether both faces look far enough into the camera to be joined."""
    from bot.pictures.split import suits

    face = found.photo.faces[found.question.number - 1]
    return suits(face.landmarks, found.matches[0].portrait.landmarks)


def _draw_card(services: Services, turn: Turn, found: Found, style: str) -> Picture:
    """The card; with several faces the numbered photo above it. Not for the event loop.

    A portrait that lacks a photo is not joined with a face: both are drawn side by side.
    """
    from bot.pictures import draw_card

    entries = _card_entries(services, found)
    if entries[0].silhouette:
        style = SIDE
    picture = draw_card(
        found.photo.photo(),
        found.photo.faces,
        entries,
        answered=found.question.number - 1,
        split=style == SPLIT,
    )
    one, many = ALT_KEYS[style]
    best, *others = found.answers
    if others:
        alt = turn.say(many, names=", ".join(isolate(answer.name) for answer in found.answers))
    else:
        alt = turn.say(one, name=isolate(best.name), score=round(best.score))
    return dataclasses.replace(picture, alt=alt)


def _card_entries(services: Services, found: Found) -> list[CardEntry]:
    pairs = zip(found.matches, found.answers, strict=True)
    return [_card_entry(services, match, answer) for match, answer in pairs]


def _card_entry(services: Services, match: Match, answer: MatchAnswer) -> CardEntry:
    from bot.pictures import entry_of

    said = {"name": answer.name, "word": answer.word, "credit": answer.credit}
    return entry_of(services.engine, match, **said)


def grid(buttons: Iterable[Button], per_row: int) -> Rows:
    """Buttons in rows."""
    row = list(buttons)
    return tuple(tuple(row[at : at + per_row]) for at in range(0, len(row), per_row))


def answer_buttons(
    turn: Turn, found: Found, others: Sequence[str], *, parents: bool = False
) -> Rows:
    """Other faces, photos and models, more matches, raw numbers, morph, parents.

    Args:
        turn: Who asks, and what the platform can carry.
        found: What is shown.
        others: Backbones that could answer, too.
        parents: Whether the gallery says who is a woman and who is a man.
    """
    question, count = found.question, min(len(found.photo.faces), MOST_FACES)
    number, model, top, page = question.number, question.model, question.top, question.page
    again = "parents" if question.parents else "see"

    def button(key: str, verb: str, *arguments: str | int, **details: object) -> Button:
        return Button(turn.say(key, **details), Action.of(verb, found.token, *arguments).encode())

    photos: list[Button] = []
    last: list[Button] = []
    if question.parents:
        last.append(button("button.numbers", "rawkin", number, model))
    else:
        if top < MOST_MATCHES and len(found.answers) == top:
            more = MORE_MATCHES if top < MORE_MATCHES else MOST_MATCHES
            last.append(button("button.more", "see", number, model, more, page))
        if top > 1:
            last.append(button("button.best", "see", number, model, 1, page))
        last.append(button("button.numbers", "raw", number, model, top))
        last.append(button("button.morph", "morph", number, model))
        if parents:
            last.append(button("button.parents", "parents", number, model))
        most = min(len(question.rest), turn.limits.buttons_per_row) + 2
        photos = [button("button.photo", "next", other, number=other) for other in range(2, most)]
        if len(question.rest) == 1:
            photos.append(button("button.compare", "both"))
    models = [
        button("button.other_model", again, number, name, top, page, model=name) for name in others
    ]
    per_row = turn.limits.buttons_per_row
    below = (*grid(photos, per_row), *grid(models, per_row), *grid(last, per_row))
    if count < 2:
        return below
    # A button per face but the answered one; the last leads on where they don't all fit.
    rows = max(1, turn.limits.button_rows - len(below))
    room = min(rows, MOST_ROWS_OF_FACES) * per_row
    numbers = [face for face in range(1, count + 1) if face != number]
    per_page = room if len(numbers) <= room else room - 1
    pages = -(-len(numbers) // per_page)
    page %= pages
    faces = [
        button("button.face", again, face, model, top, page, number=face)
        for face in numbers[page * per_page : (page + 1) * per_page]
    ]
    if pages > 1:
        faces.append(button("button.more_faces", again, number, model, top, (page + 1) % pages))
    return (*grid(faces, per_row), *below)


def pair_buttons(turn: Turn, token: str, *, model: str, others: Sequence[str]) -> Rows:
    """Other models and raw numbers, under a comparison."""
    models = [
        Button(turn.say("button.other_model", model=name), Action.of("pair", token, name).encode())
        for name in others
    ]
    raw = Button(turn.say("button.numbers"), Action.of("rawpair", token, model).encode())
    return (*grid(models, turn.limits.buttons_per_row), (raw,))
