"""How alike are these two? ``/compare`` and its buttons."""

import dataclasses
from collections.abc import Sequence

from bot.commands import Refusal, Services, Turn, notice, refusal
from bot.commands.answers import how_rare, numbers, pair_buttons
from bot.commands.photo import detect, wished
from bot.memory import RecentAnswer
from bot.recognizer import DetectedPhoto, Slot
from bot.text import rated, shown_model, word_key
from bot.values import Action, Attachment, FaceAnswer, MatchAnswer, Picture, Reply
from engine.types import Concern
from gallery.scores.ensemble import BEST

# Photo and number of two faces: the largest of two photos, or the two largest of one.
Two = tuple[tuple[DetectedPhoto, int], tuple[DetectedPhoto, int]]


async def compare(services: Services, turn: Turn) -> Reply:
    """``/compare`` with two photos, or with one that shows two people."""
    photos = turn.request.photos[:2]
    if not photos:
        raise _need_two(turn)
    choice, remarks = await wished(services, turn, "model")
    who, count = turn.who, len(photos)
    async with services.recognizer.admitted(who.user, who.room, photos=count) as slot:
        reply = await _answer(services, turn, await _detect(turn, slot, photos), choice.model)
    return dataclasses.replace(reply, text="\n".join((reply.text, *remarks)))


async def both(services: Services, turn: Turn, action: Action) -> Reply:
    """A button under an album of two photos."""
    recent = await services.recent.find(action.text(0), turn.who.room)
    if recent is not None and recent.elsewhere:
        recent = None
    again = turn.request.photos if recent is None else ()
    if len(again) != 2 and (recent is None or not recent.rest):
        raise refusal(turn, "stale.photo")
    wanted = (await services.store.choice(turn.who)).model
    async with services.recognizer.admitted(turn.who.user, turn.who.room) as slot:
        if recent is None:
            return await _answer(services, turn, await _detect(turn, slot, again), wanted)
        first = DetectedPhoto.from_kept(recent.photos[0])
        two = (first, 1), (await detect(turn, slot, recent.rest[0]), 1)
        return await _answer(services, turn, two, wanted)


async def pair(services: Services, turn: Turn, action: Action) -> Reply:
    """A button under a comparison: another model."""
    token, wanted = action.text(0), action.text(1)
    if services.models.status(wanted) is None:
        raise refusal(turn, "stale.button", toast=False)
    async with services.recognizer.admitted(turn.who.user, turn.who.room, press=True) as slot:
        two, mine = await _recalled(services, turn, slot, action)
        reply = await _answer(services, turn, two, wanted, "" if mine is None else token)
    return dataclasses.replace(reply, replaces=mine is not False)


async def raw_pair(services: Services, turn: Turn, action: Action) -> Reply:
    """A button under a comparison: the numbers behind it."""
    model = services.models.answering(action.text(1))
    async with services.recognizer.admitted(turn.who.user, turn.who.room, press=True) as slot:
        two, _ = await _recalled(services, turn, slot, action)
        answer = await _measure(services, turn, two, model)
    return notice(turn, numbers(turn, [answer], model))


async def _recalled(
    services: Services, turn: Turn, slot: Slot, action: Action
) -> tuple[Two, bool | None]:
    """The two faces, and whether the photos are the asker's; None where they came again."""
    recent = await services.recent.find(action.text(0), turn.who.room)
    count = action.number(2, least=1, most=2) or 2
    if recent is None and len(turn.request.photos) >= count:
        return await _detect(turn, slot, turn.request.photos[:count]), None
    gone = refusal(turn, "stale.photo")
    if recent is None:
        raise gone
    await slot.begin()
    two = _two_of([DetectedPhoto.from_kept(kept) for kept in recent.photos], gone)
    return two, recent.owner == turn.who.user


async def _detect(turn: Turn, slot: Slot, photos: tuple[Attachment, ...]) -> Two:
    return _two_of([await detect(turn, slot, photo) for photo in photos], _need_two(turn))


def _need_two(turn: Turn) -> Refusal:
    hears_all = turn.request.sender.hears_all
    return Refusal(Reply(text=turn.say("compare.need_two" if hears_all else "compare.reply_here")))


def _two_of(photos: Sequence[DetectedPhoto], too_few: Refusal) -> Two:
    """The largest face of each, or the two largest of one; raises if that has a single face."""
    if len(photos) > 1:
        return (photos[0], 1), (photos[1], 1)
    if len(photos[0].faces) < 2:
        raise too_few
    return (photos[0], 1), (photos[0], 2)


async def _answer(
    services: Services, turn: Turn, two: Two, wanted: str | None, token: str = ""
) -> Reply:
    model = services.models.answering(wanted)
    turn.notes["model"] = model
    answer = await _measure(services, turn, two, model)

    def draw() -> Picture:
        from bot.pictures.card import draw_comparison

        faces = [(photo.photo(), photo.faces[number - 1]) for photo, number in two]
        heading = answer.word[:1].upper() + answer.word[1:]
        picture = draw_comparison(faces[0], faces[1], answer.score, heading)
        alt = turn.say("compare.alt", score=round(answer.score))
        return dataclasses.replace(picture, alt=alt)

    picture = await services.recognizer.finish(draw, turn.ms, "draw")
    if not token:
        kept = tuple(dict.fromkeys(photo.kept for photo, _ in two))
        recent = RecentAnswer(turn.who.user, turn.who.room, kept)
        token = services.recent.token(recent)
        services.recognizer.pack_later(kept)
        await services.recent.keep(token, recent)
    photos = 1 + (two[1][1] == 1)
    lines = [
        turn.say("compare.result", score=rated(answer.score), word=answer.word),
        *filter(None, [answer.rarity]),
        turn.say("answer.model", model=shown_model(model, answer.member_scores)),
    ]
    if Concern.COVERED in _concerns(two):
        lines.append(turn.say("answer.covered"))
    if photos > 1 and max(len(photo.faces) for photo, _ in two) > 1:
        lines.append(turn.say("compare.largest"))
    others = [name for name in services.models.ready() if name != model]
    return Reply(
        text="\n".join(lines),
        picture=picture,
        buttons=pair_buttons(turn, token, photos, model=model, others=others),
        answers=(FaceAnswer(face=1, faces=1, model=model, box=None, matches=(answer,)),),
        told_lines=1 + bool(answer.rarity),
    )


def _concerns(two: Two) -> list[Concern]:
    return [concern for photo, number in two for concern in photo.faces[number - 1].concerns]


async def _measure(services: Services, turn: Turn, two: Two, model: str) -> MatchAnswer:
    ensemble = services.models.ensemble() if model == BEST else None
    models = ensemble.backbones if ensemble else (model,)
    embeddings = services.recognizer.embeddings
    ones, others = [await embeddings(*face, models, turn.ms) for face in two]
    cosines = [one.cosine(other) for one, other in zip(ones, others, strict=True)]
    if ensemble is None:
        cosine, calibration = cosines[0], services.gallery.calibration(ones[0].space)
    else:
        cosine, calibration = float(ensemble.fused(cosines)), ensemble.calibration
    score = calibration.score(cosine)
    concerns, one_in = _concerns(two), calibration.one_in(cosine)
    said = how_rare(turn.say, one_in, concerns)
    members = ensemble.member_scores(cosines) if ensemble else ()
    word = turn.say(word_key(score, concerns))
    return MatchAnswer(1, "", score, word, cosine, one_in, said, members)
