"""The one question about a photo, and the commands and buttons that ask it.

``ask`` recalls or detects the photo, searches, notes the match in the history, and has the answer
presented by ``bot.commands.answers``: as a card, a film, parents, or raw numbers.
"""

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from bot.background import FEW_PEOPLE, STARTER_PEOPLE, Filling
from bot.commands import Found, Question, Refusal, Services, Turn, answers, refusal
from bot.commands.twins import count_photo
from bot.commands.words import SETTINGS, means_best, names_setting, read_wish, unknown_sentence
from bot.memory import KeptPhoto, RecentAnswer
from bot.recognizer import DetectedPhoto, Slot, timed
from bot.store import Choice, PastMatch
from bot.text import isolate
from bot.values import ALL, MOST_MATCHES, SIDE, Action, Attachment, Reply, photo_number
from engine.errors import GalleryMissing, LookalikeError, PhotoProblem
from gallery.records import MEN, WOMEN, Match
from gallery.scores.ensemble import BEST

log = logging.getLogger(__name__)

MOST_ALBUM = 10


async def ask(services: Services, turn: Turn, question: Question) -> Reply:
    """Answers a question about one face of a photo.

    Raises Refusal if the photo is gone, or there is nobody to be found, and LookalikeError as
    ``Recognizer`` and ``Gallery.top_matches`` do.
    """
    recent, recognizer = question.recent, services.recognizer
    if recent is None and question.photo is None:
        raise refusal(turn, "stale.photo")
    # A film takes several times the work of another press, and counts as a photo does.
    pressed = question.show == "numbers" or (recent is not None and question.show != "film")
    async with recognizer.admitted(turn.who.user, turn.who.room, press=pressed) as slot:
        if recent is not None:
            await slot.begin()
            photo = DetectedPhoto.from_kept(recent.photos[0])
        else:
            photo, question = await first_with_face(services, turn, slot, question)
        lines = list(question.remarks)
        async with _remembered(services, turn, question, photo.kept) as token:
            if question.number > len(photo.faces):
                question = dataclasses.replace(question, number=1)
            turn.notes["model"] = question.model
            matches, *counts = await asyncio.create_task(search(services, turn, photo, question))
            concerns = photo.faces[question.number - 1].concerns
            said = answers.match_answers(turn.say, matches, concerns)
            # In the history once for each face and model, while the answer is drawn.
            noting, once = None, (question.number, question.model, question.parents)
            if question.mine and question.show != "numbers" and once not in photo.kept.answered:
                photo.kept.answered.add(once)
                now_s = services.store.now_s()
                told = said if question.parents else said[:1]
                past = [PastMatch(one.name, one.score, question.model, now_s) for one in told]
                noting = asyncio.create_task(services.store.remember(turn.who, *past))
            try:
                if recent is None and turn.request.sender.is_group:
                    lines.append(await count_photo(services, turn, photo))
                if question.show == "film":  # it waits long, and the decoded photo may be large
                    photo = DetectedPhoto.from_kept(photo.kept)
                found = Found(photo, question, token, matches, said, *counts)
                show = getattr(answers, f"show_{question.show}")
                reply: Reply = await show(services, turn, slot, found)
            finally:
                if noting is not None:
                    await noted(turn, noting)
    if question.show != "numbers":
        lines.insert(0, _how_few(turn, found.people, services.filling))
    text = "\n".join(line for line in (reply.text, *lines) if line)
    later = question.photo if question.first > 1 else None
    return dataclasses.replace(reply, text=text, replaces=question.replaces, about=later)


def _how_few(turn: Turn, people: int, filling: Filling) -> str:
    """What is said while the gallery grows, or as long as it is hardly one; else ""."""
    if filling.running:
        about = filling.wanted or STARTER_PEOPLE
        return turn.say("answer.growing", there=min(people, about), about=about)
    return turn.say("answer.few", count=people) if people < FEW_PEOPLE else ""


async def first_with_face(
    services: Services, turn: Turn, slot: Slot, question: Question
) -> tuple[DetectedPhoto, Question]:
    """The first photo of an album that shows a face, and the question about that one.

    Raises what is wrong with the first photo if none does.
    """
    problems, models = [], models_of(services, question.model)
    for at, attachment in enumerate(filter(None, (question.photo, *question.rest))):
        try:
            photo = await detect(turn, slot, attachment, models)
        except PhotoProblem as problem:
            problems.append(problem.with_traceback(None))  # it would hold the pixels
        else:
            rest, first, lines = question.rest[at:], question.first + at, question.remarks
            if first > 1:
                key = "answer.photo" if turn.request.action else "answer.first_face"
                lines = (*lines, turn.say(key, number=first))
            more: dict[str, Any] = {"rest": rest, "first": first, "remarks": lines}
            more["message_id"] = attachment.message_id
            return photo, dataclasses.replace(question, photo=attachment, **more)
    raise problems[0]


def models_of(services: Services, model: str) -> tuple[str, ...]:
    """The backbones behind a model's name."""
    return services.models.ensemble().backbones if model == BEST else (model,)


async def detect(
    turn: Turn, slot: Slot, attachment: Attachment, models: Sequence[str] = ()
) -> DetectedPhoto:
    """See ``Recognizer.detect``; notes how many faces there are."""
    photo = await asyncio.create_task(slot.detect(attachment.fetch, turn.ms, models))
    turn.notes["faces"] = len(photo.faces)
    return photo


@asynccontextmanager
async def _remembered(
    services: Services, turn: Turn, question: Question, photo: KeptPhoto
) -> AsyncIterator[str]:
    """The token that names the photo for the buttons; it is kept with all that is found inside."""
    more = (question.category, question.rest, question.style, question.first, question.message_id)
    again = question.recent if question.token else None
    kept = again or RecentAnswer(turn.who.user, turn.who.room, (photo,), *more)
    token = question.token or services.recent.token(kept)
    services.recognizer.pack_later(kept.photos)
    try:
        yield token
    finally:
        await services.recent.keep(token, kept, again=again is not None)


async def search(
    services: Services, turn: Turn, photo: DetectedPhoto, question: Question
) -> tuple[tuple[Match, ...], int, int]:
    """Who of the gallery is asked for, most alike first, or the woman and the man.

    Then among how many people, and how many the gallery has.

    Raises Refusal if there is nobody in the category any more, or no woman or no man.
    """
    gallery, category = services.gallery, question.category
    ensemble = services.models.ensemble() if question.model == BEST else None
    models = models_of(services, question.model)
    embeddings = await services.recognizer.embeddings(photo, question.number, models, turn.ms)

    def matches(top: int, genders: frozenset[str] | None = None) -> tuple[Match, ...]:
        if ensemble is None:
            return gallery.top_matches(embeddings[0], top, category=category, genders=genders)
        return gallery.fused_matches(ensemble, embeddings, top, category=category, genders=genders)

    def find() -> tuple[tuple[Match, ...], int, int]:
        try:
            kin, space = question.parents, embeddings[0].space
            found = matches(1, WOMEN) + matches(1, MEN) if kin else matches(question.top)
            return found, gallery.size(space, category), gallery.size(space)
        except GalleryMissing:
            key = "parents.unknown" if category is None else "parents.unknown_in_category"
            if category is not None and category not in gallery.categories():
                key = "error.nobody_in_category"
            elif not question.parents:
                raise
            else:
                matches(1)  # raises if there is nobody at all
            said = turn.say(key, category=isolate(category or ""))
            raise Refusal(Reply(text=said)) from None

    return await services.recognizer.finish(find, turn.ms, "search")


async def noted(turn: Turn, noting: asyncio.Task[None]) -> None:
    """Waits for the history; a database that hangs costs the entry, not the answer."""
    try:
        with timed(turn.ms, "store"):
            await noting
    except LookalikeError as problem:
        log.warning("history not written", extra={"reason": str(problem)})


async def lookalike(services: Services, turn: Turn) -> Reply:
    """A photo, or ``/lookalike`` with one; ``/lookalike 3 senet film`` holds for it alone."""
    choice, remarks = await wished(services, turn)
    return await answer_photo(services, turn, choice, remarks=remarks)


async def morph(services: Services, turn: Turn) -> Reply:
    """``/morph`` with a photo; ``/morph senet film`` holds for it alone."""
    choice, remarks = await wished(services, turn, "model", "category")
    return await answer_photo(services, turn, choice, **AGAIN["morph"], remarks=remarks)


async def parents(services: Services, turn: Turn) -> Reply:
    """``/parents`` with a photo, or about the asker's last one, where others don't see it.

    What follows, such as in ``/parents senet film``, holds for this answer alone.
    """
    choice, remarks = await wished(services, turn, "model", "category")
    shown = AGAIN["parents"] | {"remarks": remarks}
    unseen = not (turn.request.photos or turn.request.sender.is_group)
    if unseen and (recent := await services.recent.latest(turn.who.user)):
        return await ask(services, turn, chosen(services, choice, recent=recent, **shown))
    return await answer_photo(services, turn, choice, **shown)


async def answer_photo(services: Services, turn: Turn, choice: Choice, **changed: Any) -> Reply:
    """Answers the largest face of the first photo; the others get buttons.

    ``choice`` is the asker's settings with what holds for this photo alone, ``changed`` what else
    differs from the question that they ask. Raises Refusal if there is no photo.
    """
    photos = turn.request.photos
    if not photos:
        command = turn.request.command or "lookalike"
        said = (turn.say("error.no_photo", command=command), *changed.get("remarks", ()))
        raise Refusal(Reply(text="\n".join(said)))
    asked = chosen(services, choice, photo=photos[0], rest=photos[1:MOST_ALBUM], **changed)
    return await ask(services, turn, asked)


async def with_remark(services: Services, turn: Turn, remark: str) -> Reply:
    """What is said of a command that can't be used; a photo that came with it is answered, too."""
    if not turn.request.photos:
        return Reply(text=remark)
    choice = await services.store.choice(turn.who)
    return await answer_photo(services, turn, choice, remarks=(remark,))


def chosen(services: Services, choice: Choice, **asked: Any) -> Question:
    """The question that a person's settings ask, with what else is asked."""
    model = services.models.answering(choice.model)
    usual = {"top": choice.top or 1, "category": choice.category, "style": choice.style or SIDE}
    return Question(model, **(usual | asked))


async def wished(services: Services, turn: Turn, *heeded: str) -> tuple[Choice, tuple[str, ...]]:
    """The settings, changed by what a command says, and remarks on what it has no use for.

    Raises TooFast and Busy before the database is asked: a flood is to cost others nothing.
    """
    if turn.request.photos:
        await services.recognizer.refuse(turn.who.user, turn.who.room)
    choice = await asyncio.ensure_future(services.store.choice(turn.who))
    text = turn.request.arguments
    if not turn.request.command:  # without a command words are just talk, but for model:senet
        text = " ".join(word for word in text.split() if names_setting(word))
    return await changed_by(services, turn, choice, text, *heeded) if text else (choice, ())


async def changed_by(
    services: Services, turn: Turn, choice: Choice, text: str, *heeded: str
) -> tuple[Choice, tuple[str, ...]]:
    """Settings changed by words such as ``3 senet film``, and remarks on the other words.

    Only those that are ``heeded``, by default all, are changed.
    """
    categories = await services.recognizer.finish(services.gallery.categories)
    known = {"models": services.models.names(), "categories": categories}
    changes, unknown = read_wish(text, **known)
    heeded = heeded or SETTINGS
    usual = "category" if categories and "category" in heeded else "model"
    remarks = []
    for kind, given in unknown.items():
        if means_best(given):
            remarks.append(services.models.why_not_best(turn.say))
        else:
            remarks.append(unknown_sentence(turn, kind or usual, given, **known))
    if useless := [str(changes.pop(one) or ALL) for one in {*changes} - {*heeded}]:
        remarks.append(turn.say("hint.unused", given=" ".join(useless)))
    model = changes.get("model")
    if model and model not in services.models.ready():
        remarks.append(turn.say("answer.fallback", model=model))
        if not services.models.is_coming(model):
            del changes["model"]
    return dataclasses.replace(choice, **changes), tuple(remarks)


# Verb of a button -> what it changes in the question about the photo of the answer above it.
AGAIN: dict[str, dict[str, Any]] = {
    "see": {},  # another face, another model, more matches
    "morph": {"top": 1, "show": "film", "replaces": False},
    "parents": {"top": 1, "show": "parents", "parents": True},
    "raw": {"show": "numbers", "replaces": False},
    "rawkin": {"show": "numbers", "parents": True, "replaces": False},
}


async def next_photo(services: Services, turn: Turn, action: Action) -> Reply:
    """A button: another photo of the album, the second or a later one of those with a button."""
    recent = await services.recent.find(action.text(0), turn.who.room)
    known = recent is not None and not recent.elsewhere
    later = recent.rest if recent and known else turn.request.photos[1:]
    number = action.number(1, least=2, most=MOST_ALBUM)
    if number is None or number - 2 >= len(later):
        raise refusal(turn, "stale.photo")
    choice, mine = await services.store.choice(turn.who), not turn.request.sender.is_group
    if recent is not None:
        choice = dataclasses.replace(choice, style=recent.style)
        mine = recent.owner == turn.who.user
    first = action.number(2, least=2, most=MOST_ALBUM) or number
    question = chosen(services, choice, photo=later[number - 2], first=first, mine=mine)
    return await ask(services, turn, question)


async def ask_again(services: Services, turn: Turn, action: Action) -> Reply:
    """Answers what a button asks about a photo, changed by what the verb means.

    Raises Refusal if the model is gone, or the photo is neither remembered nor handed over again.
    """
    token, wanted = action.text(0), action.text(2)
    recent = await services.recent.find(token, turn.who.room)
    if services.models.status(wanted) is None:
        raise refusal(turn, "stale.button", toast=False)
    asked: dict[str, Any]
    if recent is not None:
        choice = Choice(wanted, category=recent.category, style=recent.style)
        mine = recent.owner == turn.who.user
        asked = {"recent": recent, "rest": recent.rest, "token": token}
        asked["message_id"] = recent.message_id
    elif turn.request.photos:
        asked = {"photo": turn.request.photos[0], "rest": turn.request.photos[1:]}
        # Whose it was is forgotten; in a private chat it can be nobody else's.
        choice = dataclasses.replace(await services.store.choice(turn.who), model=wanted)
        mine = not turn.request.sender.is_group
    else:
        raise refusal(turn, "stale.photo")
    # Somebody else's press leaves the asker's answer alone, parents an answer of another kind.
    apart = action.verb == "parents" and not action.text(4)
    asked |= {"mine": mine, "replaces": (mine or recent is None) and not apart}
    asked["first"] = photo_number(str(turn.request.action))
    asked["number"] = action.number(1, least=1, most=answers.MOST_FACES) or 1
    asked["top"] = action.number(3, least=1, most=MOST_MATCHES) or 1
    asked["page"] = action.number(4, most=answers.MOST_FACES) or 0
    return await ask(services, turn, chosen(services, choice, **asked | AGAIN[action.verb]))
