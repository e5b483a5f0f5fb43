"""How an answer is presented: card, film, parents, raw numbers; their text, and the buttons."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bot.commands import Found, Services, Turn, notice
from bot.recognizer import Slot, timed
from bot.text import credit_of, grid, isolate, plain, rarity, rated, shown_model, word_key
from bot.values import MOST_MATCHES, SPLIT, Button, FaceAnswer, MatchAnswer, Reply, Rows
from engine.engine import Engine
from gallery.records import MEN, WOMEN, Match

if TYPE_CHECKING:
    from bot.pictures.card import CardEntry

MORE_MATCHES = 5
MOST_FACES = 200


async def show_card(services: Services, turn: Turn, _slot: Slot, found: Found) -> Reply:
    """The face beside its best match, or joined with it; further matches below.

    What makes no split face (``bot.pictures.card.can_split``) is drawn side by side.
    """
    question = found.question
    turn.notes["top"] = question.top

    def draw() -> tuple[Reply, bool, bool]:
        from bot.pictures.card import can_split, draw_card

        photo, faces, at = found.photo.photo(), found.photo.faces, question.number - 1
        entries = card_entries(services.engine, found.matches, found.answers)
        split = question.style == SPLIT and can_split(photo, faces[at], entries[0])
        picture = draw_card(photo, faces, entries, answered=at, split=split)
        names = [isolate(answer.name) for answer in found.answers]
        keys = ("style.alt", "style.alt_many") if split else ("answer.alt", "answer.alt_many")
        said = {"name": names[0], "names": ", ".join(names), "score": round(entries[0].score)}
        alt = turn.say(keys[len(names) > 1], **said)
        genders = services.gallery.genders()
        know_genders = not (genders.isdisjoint(WOMEN) or genders.isdisjoint(MEN))
        answers = (_face_answer(turn, found, found.answers),)
        picture = dataclasses.replace(picture, alt=alt)
        return Reply(picture=picture, answers=answers), split, know_genders

    reply, split, parents = await services.recognizer.finish(draw, turn.ms, "draw")
    text, told_lines = caption(turn, found)
    lines = [text]
    if question.style == SPLIT and not split:
        lines.append(turn.say("style.turned"))
    if question.rest:
        key = "answer.album" if question.first == 1 else "answer.album_rest"
        lines.append(turn.say(key, count=len(question.rest)))
    buttons = answer_buttons(turn, found, services.models.ready(), parents=parents)
    text = "\n".join(lines)
    return dataclasses.replace(reply, text=text, told_lines=told_lines, buttons=buttons)


async def show_parents(services: Services, turn: Turn, _slot: Slot, found: Found) -> Reply:
    """The woman and the man most alike with the face between them."""

    def draw() -> Reply:
        from bot.pictures.card import draw_family_card

        photo, faces, at = found.photo.photo(), found.photo.faces, found.question.number - 1
        first, second = card_entries(services.engine, found.matches, found.answers)
        title = turn.say("parents.card")
        picture = draw_family_card(photo, faces, (first, second), answered=at, title=title)
        alt = turn.say("parents.alt", first=isolate(first.name), second=isolate(second.name))
        picture = dataclasses.replace(picture, alt=alt)
        each = [dataclasses.replace(answer, rank=1) for answer in found.answers]
        answers = tuple(_face_answer(turn, found, (one,)) for one in each)
        return Reply(picture=picture, answers=answers)

    reply = await services.recognizer.finish(draw, turn.ms, "draw")
    buttons = answer_buttons(turn, found, services.models.ready())
    text, told_lines = caption(turn, found)
    return dataclasses.replace(reply, text=text, told_lines=told_lines, buttons=buttons)


async def show_film(services: Services, turn: Turn, slot: Slot, found: Found) -> Reply:
    """The face becomes its best match and itself again; a button leads to the card."""
    question = found.question

    def draw() -> Reply:
        from bot.pictures.framing import with_chin
        from bot.pictures.morph import make_morph

        face = found.photo.faces[question.number - 1]
        pixels_and_shape = (found.photo.photo().pixels, with_chin(face.landmarks, face.box))
        (entry,) = card_entries(services.engine, found.matches, found.answers)
        alt = turn.say("morph.alt", name=isolate(entry.name), score=round(entry.score))
        return Reply(animation=make_morph(pixels_and_shape, entry, alt=alt))

    with timed(turn.ms, "draw"):
        reply = await services.recognizer.lengthy(slot, draw)
    card = ("see", found.token, question.number, question.model, 1, 0)
    button = turn.button("button.card", *card)
    return dataclasses.replace(reply, text=caption(turn, found)[0], buttons=((button,),))


async def show_numbers(services: Services, turn: Turn, _slot: Slot, found: Found) -> Reply:
    """The raw numbers behind an answer."""
    reply = notice(turn, numbers(turn, found.answers, found.question.model))
    if found.question.parents:
        return reply
    answer = await services.recognizer.finish(lambda: _face_answer(turn, found, found.answers))
    return dataclasses.replace(reply, answers=(answer,))


def _face_answer(turn: Turn, found: Found, answers: tuple[MatchAnswer, ...]) -> FaceAnswer:
    """The matches for front ends; may decode the photo, so not for the event loop."""
    number, photo = found.question.number, found.photo.photo()
    box, width, height = found.photo.faces[number - 1].box, photo.width_px, photo.height_px
    shares = (box.x / width, box.y / height, box.w / width, box.h / height)
    faces, model = len(found.photo.faces), found.question.model
    said = turn.say("parents.title") if found.question.parents else hook(turn, found)
    return FaceAnswer(number, faces, model, shares, matches=answers, hook=said)


def card_entries(
    engine: Engine, matches: Sequence[Match], answers: Sequence[MatchAnswer]
) -> list[CardEntry]:
    """Matches as a card shows them; decodes their portraits."""
    from bot.pictures.card import entry_of

    return [
        entry_of(engine, match, name=one.name, word=one.word, credit=one.credit)
        for match, one in zip(matches, answers, strict=True)
    ]


def match_answers(
    say: Callable[..., str], matches: Sequence[Match], concerns: Sequence[str]
) -> tuple[MatchAnswer, ...]:
    """The matches of a face that there are such concerns about, in the asker's words."""
    unknown = say("answer.unknown_author")
    return tuple(
        MatchAnswer(
            rank=rank,
            name=plain(match.person.name),
            score=match.score,
            word=say(word_key(match.score, concerns)),
            cosine=match.cosine,
            one_in=match.one_in,
            rarity=how_rare(say, match.one_in, concerns),
            member_scores=match.member_scores,
            categories=match.person.categories,
            credit=credit_of(match.portrait, unknown),
            credit_url=match.portrait.source_url,
            portrait=match.thumbnail,
        )
        for rank, match in enumerate(matches, 1)
    )


def caption(turn: Turn, found: Found) -> tuple[str, int]:
    """What stands under a picture: names, scores, model, category, whose photos, doubts.

    Then how many lines of it are names and scores.
    """
    question, answers, faces = found.question, found.answers, found.photo.faces
    model, category = question.model, question.category
    lines = []
    if len(faces) > 1:
        lines.append(turn.say("answer.face", number=question.number, count=len(faces)))
    lines.append(turn.say("parents.title") if question.parents else hook(turn, found))
    if len(answers) == 1:
        lines += [f"{rated(answers[0].score)} {answers[0].word}", answers[0].rarity]
    else:
        key = "answer.best" if question.parents else "answer.ranked"
        for answer in answers:
            said = {"rank": answer.rank, "name": isolate(answer.name), "word": answer.word}
            lines.append(turn.say(key, score=rated(answer.score, 5), **said))
    lines = [*filter(None, lines)]
    told = len(lines)
    lines.append(turn.say("answer.model", model=shown_model(model, answers[0].member_scores)))
    if category is not None:
        lines.append(turn.say("answer.category", category=isolate(category)))
    credited = [(answer, isolate(answer.credit)) for answer in answers if answer.credit]
    key = "answer.credit" if len(answers) == 1 else "answer.credits"
    listed = [f"{answer.rank}. {credit}" for answer, credit in credited]
    if question.parents:
        listed = [f"{isolate(answer.name)}: {credit}" for answer, credit in credited]
    elif len(credited) == len(answers) and len({credit for _, credit in credited}) == 1:
        listed = [credited[0][1]]
    if listed:
        lines.append(turn.say(key, credit="; ".join(listed)))
    lines += [turn.say(f"answer.{concern}") for concern in faces[question.number - 1].concerns]
    return "\n".join(lines), told


def hook(turn: Turn, found: Found) -> str:
    """The sentence that says who it is, or leads to the list of them."""
    alone = len(found.photo.faces) == 1 and found.question.mine
    name = isolate(found.answers[0].name) if len(found.answers) == 1 else ""
    key = "answer.hook" if alone else "answer.hook_face"
    return turn.say(key, count=found.searched, name=name).rstrip()


def how_rare(say: Callable[..., str], one_in: float, concerns: Sequence[str] = ()) -> str:
    """How rare such a likeness is; "" where a face is covered, so that nothing strong is said."""
    key, count = rarity(one_in)
    return "" if "covered" in concerns else say(key, count=count)


def numbers(turn: Turn, answers: Sequence[MatchAnswer], model: str) -> str:
    """The raw numbers behind an answer: a line per match, and one per model of several."""
    lines = []
    for answer in answers:
        keys = ("line", "fused") if answer.name else ("compared", "fused_compared")
        key = f"numbers.{keys[bool(answer.member_scores)]}"
        name, rare = isolate(answer.name), how_rare(turn.say, answer.one_in)
        said = {"score": f"{answer.score:.1f}", "cosine": f"{answer.cosine:.4f}", "model": model}
        lines.append(turn.say(key, name=name, rarity=rare, **said))
        for part in answer.member_scores:
            score, cosine = f"{part.score:.1f}", f"{part.cosine:.4f}"
            lines.append(turn.say("numbers.part", model=part.backbone, score=score, cosine=cosine))
    return "\n".join(lines)


def answer_buttons(turn: Turn, found: Found, ready: Sequence[str], parents: bool = False) -> Rows:
    """Other faces, photos and models, more matches, raw numbers, morph, parents.

    ``ready`` are the models that can answer; ``parents``: whether the gallery knows women and men.
    """
    question, count = found.question, min(len(found.photo.faces), MOST_FACES)
    number, model, top, page = question.number, question.model, question.top, question.page
    again = "parents" if question.parents else "see"

    def button(key: str, verb: str, *arguments: str | int, **details: object) -> Button:
        return turn.button(key, verb, found.token, *arguments, **details)

    photos, last = list[Button](), list[Button]()
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
        for at, later in enumerate(question.rest):
            album_number = question.first + 1 + at
            # How many messages below this photo's its own is, for when nothing else is known of it.
            distance = (later.message_id or 0) - (question.message_id or 0)
            next_one = ("next", at + 2, album_number, max(distance, 0))
            photos.append(button("button.photo", *next_one, number=album_number))
        if len(question.rest) == 1:
            photos.append(button("button.compare", "both"))
    models = [
        button("button.other_model", again, number, name, top, page, model=name)
        for name in ready
        if name != model
    ]
    per_row = turn.limits.buttons_per_row
    below = (*grid(photos, per_row), *grid(models, per_row), *grid(last, per_row))
    if count < 2:
        return below
    # A button per face but the answered one; the last leads on where they don't all fit.
    rows = max(1, turn.limits.button_rows - len(below))
    room = min(rows, 3) * per_row
    unanswered = [face for face in range(1, count + 1) if face != number]
    per_page = room if len(unanswered) <= room else room - 1
    pages = -(-len(unanswered) // per_page)
    page %= pages
    faces = [
        button("button.face", again, face, model, top, page, number=face)
        for face in unanswered[page * per_page : (page + 1) * per_page]
    ]
    if pages > 1:
        faces.append(button("button.more_faces", again, number, model, top, (page + 1) % pages))
    return (*grid(faces, per_row), *below)


def pair_buttons(turn: Turn, token: str, photos: int, *, model: str, others: Sequence[str]) -> Rows:
    """Other models and raw numbers, under a comparison of so many photos."""
    raw = turn.button("button.numbers", "rawpair", token, model, photos)
    again = ("button.other_model", "pair", token)
    models = [turn.button(*again, one, photos, model=one) for one in others]
    return (*grid(models, turn.limits.buttons_per_row), (raw,))
