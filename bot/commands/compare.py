"""How alike are these two? ``/compare`` and its buttons."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from bot.commands import Refusal, Services, Turn, notice, refusal
from bot.commands.answers import numbers, pair_buttons
from bot.commands.photo import detect, remember
from bot.memory import RecentAnswer
from bot.recognizer import DetectedPhoto
from bot.text import shown_model, word_key
from bot.values import Action, Attachment, FaceAnswer, MatchAnswer, Picture, Reply
from gallery.scores.ensemble import BEST

if TYPE_CHECKING:
    from bot.recognizer import Slot


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """Two faces: the largest of two photos, or the two largest of one."""

    first: DetectedPhoto
    second: DetectedPhoto

    @property
    def numbers(self) -> tuple[int, int]:
        """Number of the face in each photo."""
        return (1, 2) if self.first.kept is self.second.kept else (1, 1)


async def compare(services: Services, turn: Turn) -> Reply:
    """``/compare`` with two photos, or with one that shows two people."""
    photos = turn.request.photos[:2]
    if not photos:
        raise Refusal(Reply(text=turn.say("compare.need_two")))
    wanted = (await services.store.choice(turn.who)).model
    async with services.recognizer.admitted(turn.who.user, photos=len(photos)) as slot:
        return await _answer(services, turn, await _detect(turn, slot, photos), wanted)


async def both(services: Services, turn: Turn, action: Action) -> Reply:
    """A button under an album of two photos."""
    recent = services.recent.find(action.text(0))
    if recent is None or not recent.rest:
        raise refusal(turn, "stale.photo")
    wanted = (await services.store.choice(turn.who)).model
    async with services.recognizer.admitted(turn.who.user) as slot:
        second = await detect(turn, slot, recent.rest[0])
        both_photos = Pair(DetectedPhoto.from_kept(recent.photos[0]), second)
        return await _answer(services, turn, both_photos, wanted)


async def pair(services: Services, turn: Turn, action: Action) -> Reply:
    """A button under a comparison: another model."""
    token, wanted = action.text(0), action.text(1)
    if services.models.status(wanted) is None:
        raise refusal(turn, "stale.button", toast=False)
    async with services.recognizer.admitted(turn.who.user, press=True) as slot:
        two, mine = await _recalled(services, turn, slot, token)
        reply = await _answer(services, turn, two, wanted, "" if mine is None else token)
    return dataclasses.replace(reply, replaces=mine is not False)


async def raw_pair(services: Services, turn: Turn, action: Action) -> Reply:
    """A button under a comparison: the numbers behind it."""
    model = services.models.answering(action.text(1))
    async with services.recognizer.admitted(turn.who.user, press=True) as slot:
        two, _ = await _recalled(services, turn, slot, action.text(0))
        answer = await _measure(services, turn, two, model)
    return notice(numbers(turn, [answer], model))


async def _recalled(
    services: Services, turn: Turn, slot: Slot, token: str
) -> tuple[Pair, bool | None]:
    """The two photos, and whether they are the asker's; None where they came again."""
    recent = services.recent.find(token)
    if recent is None:
        if not turn.request.photos:
            raise refusal(turn, "stale.photo")
        return await _detect(turn, slot, turn.request.photos), None
    await slot.begin()
    photos = [DetectedPhoto.from_kept(kept) for kept in recent.photos]
    if len(photos) == 1 and len(photos[0].faces) < 2:
        raise refusal(turn, "stale.photo")
    return Pair(photos[0], photos[-1]), recent.owner == turn.who.user


async def _detect(turn: Turn, slot: Slot, photos: tuple[Attachment, ...]) -> Pair:
    first = await detect(turn, slot, photos[0])
    if len(photos) > 1:
        return Pair(first, await detect(turn, slot, photos[1]))
    if len(first.faces) < 2:
        raise Refusal(Reply(text=turn.say("compare.need_two")))
    return Pair(first, first)


async def _answer(
    services: Services, turn: Turn, two: Pair, wanted: str | None, token: str = ""
) -> Reply:
    model = services.models.answering(wanted)
    turn.notes["model"] = model
    answer = await _measure(services, turn, two, model)
    alt = turn.say("compare.alt", score=round(answer.score))
    picture = await services.recognizer.finish(lambda: _draw(two, answer), turn.ms, "draw")
    if not token:
        kept = tuple(dict.fromkeys((two.first.kept, two.second.kept)))
        token = remember(services, RecentAnswer(turn.who.user, kept))
    lines = [
        turn.say("compare.result", score=round(answer.score), word=answer.word),
        turn.say("answer.model", model=shown_model(model, answer.member_scores)),
    ]
    if wanted and wanted != model and services.models.is_coming(wanted):
        lines.append(turn.say("answer.fallback", wanted=wanted, model=model))
    if two.numbers == (1, 1) and max(len(two.first.faces), len(two.second.faces)) > 1:
        lines.append(turn.say("compare.largest"))
    others = [name for name in services.models.ready() if name != model]
    return Reply(
        text="\n".join(lines),
        picture=dataclasses.replace(picture, alt=alt),
        buttons=pair_buttons(turn, token, model=model, others=others),
        answers=(FaceAnswer(face=1, faces=1, model=model, box=None, matches=(answer,)),),
    )


async def _measure(services: Services, turn: Turn, two: Pair, model: str) -> MatchAnswer:
    first, second = two.numbers
    ensemble = services.models.ensemble() if model == BEST else None
    models = ensemble.backbones if ensemble else (model,)
    embeddings = services.recognizer.embeddings
    ones = await embeddings(two.first, first, models, turn.ms)
    others = await embeddings(two.second, second, models, turn.ms)
    cosines = [one.cosine(other) for one, other in zip(ones, others, strict=True)]
    if ensemble is None:
        cosine, calibration = cosines[0], services.gallery.calibration(ones[0].space)
    else:
        cosine, calibration = float(ensemble.fused(cosines)), ensemble.calibration
    score = calibration.score(cosine)
    return MatchAnswer(
        rank=1,
        name="",
        score=score,
        word=turn.say(word_key(score)),
        cosine=cosine,
        one_in=calibration.one_in(cosine),
        member_scores=ensemble.member_scores(cosines) if ensemble else (),
    )


def _draw(two: Pair, answer: MatchAnswer) -> Picture:
    from bot.pictures.card import draw_comparison

    first, second = two.numbers
    return draw_comparison(
        two.first.photo(),
        two.first.faces[first - 1],
        two.second.photo(),
        two.second.faces[second - 1],
        answer.score,
        answer.word,
    )
