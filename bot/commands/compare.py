"""How alike are these two? ``/compare`` and its buttons."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from bot.buttons import pair_buttons
from bot.context import Refusal, Turn
from bot.looking import Looker, Subject, recalled
from bot.models import BEST
from bot.text import numbers, shown_model, word_key
from bot.values import Action, FaceAnswer, MatchAnswer, Picture, Reply

if TYPE_CHECKING:
    from bot.models import Models
    from bot.recognizer import Recognizer, Slot
    from bot.store.store import Store
    from gallery.gallery import Gallery

__all__ = ["Comparing"]

NOTICE_CHARS = 200


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """Two faces: the largest of two photos, or the two largest of one."""

    first: Subject
    second: Subject

    @property
    def numbers(self) -> tuple[int, int]:
        """Number of the face in each photo."""
        return (1, 2) if self.first.kept is self.second.kept else (1, 1)


class Comparing:
    """Compares two faces with each other."""

    def __init__(
        self,
        *,
        gallery: Gallery,
        recognizer: Recognizer,
        desk: Models,
        store: Store,
        looker: Looker,
    ) -> None:
        self._gallery = gallery
        self._recognizer = recognizer
        self._desk = desk
        self._store = store
        self._looker = looker

    async def compare(self, turn: Turn) -> Reply:
        """``/compare`` with two photos, or with one that shows two people."""
        if not turn.request.photos:
            raise Refusal(Reply(text=turn.say("compare.need_two")))
        wanted = (await self._store.choice(turn.who)).model
        async with self._recognizer.admitted(
            turn.who.user, photos=min(2, len(turn.request.photos))
        ) as visit:
            pair = await self._look(turn, visit)
            return await self._answer(turn, pair, wanted)

    async def both(self, turn: Turn, action: Action) -> Reply:
        """A button under an album of two photos."""
        recollection = self._looker.recall(action.text(0))
        if recollection is None or not recollection.rest:
            raise self._looker.stale(turn)
        wanted = (await self._store.choice(turn.who)).model
        async with self._recognizer.admitted(turn.who.user) as visit:
            first = recalled(recollection.photos[0])
            pair = Pair(first, await self._looker.look(turn, visit, recollection.rest[0]))
            return await self._answer(turn, pair, wanted)

    async def pair(self, turn: Turn, action: Action) -> Reply:
        """A button under a comparison: another model."""
        wanted, token = action.text(1), action.text(0)
        if self._desk.standing(wanted) is None:
            raise Refusal(Reply(text=turn.say("stale.button"), private=True))
        async with self._recognizer.admitted(turn.who.user, press=True) as visit:
            pair, mine = await self._recalled(turn, visit, token)
            reply = await self._answer(turn, pair, wanted, token if mine is not None else None)
        return dataclasses.replace(reply, replaces=mine is not False)

    async def raw_pair(self, turn: Turn, action: Action) -> Reply:
        """A button under a comparison: the numbers behind it."""
        model = self._desk.answering(action.text(1))
        async with self._recognizer.admitted(turn.who.user, press=True) as visit:
            pair, _ = await self._recalled(turn, visit, action.text(0))
            answer = await self._measure(turn, pair, model)
        text = numbers(turn, [answer], model)
        return Reply(text=text, notice=text if len(text) <= NOTICE_CHARS else None, private=True)

    async def _recalled(self, turn: Turn, visit: Slot, token: str) -> tuple[Pair, bool | None]:
        """The two photos, and whether they are the asker's; None where they came again."""
        recollection = self._looker.recall(token)
        if recollection is None:
            if not turn.request.photos:
                raise self._looker.stale(turn)
            return await self._look(turn, visit), None
        await visit.begin()
        subjects = [recalled(kept) for kept in recollection.photos]
        if len(subjects) == 1 and len(subjects[0].faces) < 2:
            raise self._looker.stale(turn)
        return Pair(subjects[0], subjects[-1]), recollection.owner == turn.who.user

    async def _look(self, turn: Turn, visit: Slot) -> Pair:
        photos = turn.request.photos
        first = await self._looker.look(turn, visit, photos[0])
        if len(photos) > 1:
            return Pair(first, await self._looker.look(turn, visit, photos[1]))
        if len(first.faces) < 2:
            raise Refusal(Reply(text=turn.say("compare.need_two")))
        return Pair(first, first)

    async def _answer(
        self, turn: Turn, pair: Pair, wanted: str | None, token: str | None = None
    ) -> Reply:
        model = self._desk.answering(wanted)
        turn.notes["model"] = model
        answer = await self._measure(turn, pair, model)
        alt = turn.say("compare.alt", score=round(answer.score))
        with turn.timed("draw"):
            picture = await self._recognizer.finish(lambda: _draw(pair, answer))
        if token is None:
            subjects = {id(subject.kept): subject for subject in (pair.first, pair.second)}
            token = self._looker.remember(turn, *subjects.values())
        lines = [
            turn.say("compare.result", score=round(answer.score), word=answer.word),
            turn.say("answer.model", model=shown_model(model, answer.member_scores)),
        ]
        if wanted and wanted != model:
            lines.append(turn.say("answer.fallback", wanted=wanted, model=model))
        if pair.numbers == (1, 1) and max(len(pair.first.faces), len(pair.second.faces)) > 1:
            lines.append(turn.say("compare.largest"))
        others = [name for name in self._desk.ready() if name != model]
        return Reply(
            text="\n".join(lines),
            picture=dataclasses.replace(picture, alt=alt),
            buttons=pair_buttons(turn, token, model=model, others=others),
            answers=(FaceAnswer(face=1, faces=1, model=model, box=None, matches=(answer,)),),
        )

    async def _measure(self, turn: Turn, pair: Pair, model: str) -> MatchAnswer:
        first, second = pair.numbers
        ensemble = self._desk.ensemble() if model == BEST else None
        models = ensemble.backbones if ensemble else (model,)
        ones = await self._looker.embeddings(turn, pair.first, first, models)
        others = await self._looker.embeddings(turn, pair.second, second, models)
        cosines = [one.cosine(other) for one, other in zip(ones, others, strict=True)]
        if ensemble is None:
            cosine, calibration = cosines[0], self._gallery.calibration(ones[0].space)
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


def _draw(pair: Pair, answer: MatchAnswer) -> Picture:
    from bot.pictures.card import draw_comparison

    first, second = pair.numbers
    return draw_comparison(
        pair.first.photo(),
        pair.first.faces[first - 1],
        pair.second.photo(),
        pair.second.faces[second - 1],
        answer.score,
        answer.word,
    )
