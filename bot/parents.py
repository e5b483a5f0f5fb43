"""``/parents``: the woman and the man of the gallery most like a face, in one picture.

Who is a woman or a man is what the catalogue says (``gallery.records``); everybody else is found by
every other question, and by this one not.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from bot.buttons import family_buttons
from bot.commands.photo import MOST_FACES, Ask, face_answer
from bot.context import Refusal, Turn
from bot.drawing import draw_family
from bot.text import footnotes, match_answers, numbers
from bot.values import Action, MatchAnswer, Reply
from bot.wording import isolate
from engine.errors import GalleryMissing
from gallery.records import MEN, WOMEN

if TYPE_CHECKING:
    from bot.commands.photo import Answering
    from bot.commands.twins import Twins
    from bot.looking import Looker, Subject
    from bot.models import Models
    from bot.recognizer import Recognizer
    from engine.engine import Engine
    from gallery.records import Match

__all__ = ["Parents"]

NOTICE_CHARS = 200


class Parents:
    """Answers ``/parents`` and its buttons."""

    def __init__(
        self,
        *,
        engine: Engine,
        answering: Answering,
        recognizer: Recognizer,
        desk: Models,
        looker: Looker,
        twins: Twins,
    ) -> None:
        self._engine = engine
        self._answering = answering
        self._recognizer = recognizer
        self._desk = desk
        self._looker = looker
        self._twins = twins

    async def parents(self, turn: Turn) -> Reply:
        """``/parents`` with a photo, or about the asker's last one.

        What follows, such as in ``/parents senet film``, holds for this answer alone.
        """
        last = None if turn.request.photos else self._looker.latest(turn)
        if not turn.request.photos and last is None:
            raise Refusal(Reply(text=turn.say("error.no_photo", command="parents")))
        _, choice = await self._answering.wished(turn)
        model = self._desk.answering(choice.model)
        ask = Ask(model=model, wanted=choice.model or model, top=1, category=choice.category)
        if last is None:
            return await self._fresh(turn, ask)
        async with self._recognizer.admitted(turn.who.user, press=True) as visit:
            await visit.begin()
            token = self._looker.remember(turn, last, category=ask.category)
            return await self._answer(turn, last, ask, token)

    async def press(self, turn: Turn, action: Action) -> Reply:
        """A button: of a photo that was answered, of another face, or with another model."""
        subject, ask, token = await self._answering.asked_again(turn, action)
        again = bool(action.text(4))  # else below an answer of another kind, which stays
        if subject is None:
            reply = await self._fresh(turn, ask)
        else:
            async with self._recognizer.admitted(turn.who.user, press=True) as visit:
                await visit.begin()
                reply = await self._answer(turn, subject, ask, token, again=again)
        return dataclasses.replace(reply, replaces=ask.replaces and again)

    async def raw(self, turn: Turn, action: Action) -> Reply:
        """A button: the numbers behind the two likenesses."""
        subject, ask, _ = await self._answering.asked_again(turn, action)
        async with self._recognizer.admitted(turn.who.user, press=True) as visit:
            if subject is None:
                subject = await self._looker.look(turn, visit, turn.request.photos[0])
            await visit.begin()
            ask = _clamped(subject, ask)
            matches = await self._matches(turn, subject, ask)
        text = numbers(turn, match_answers(turn, matches), ask.model)
        return Reply(text=text, notice=text if len(text) <= NOTICE_CHARS else None, private=True)

    async def _fresh(self, turn: Turn, ask: Ask) -> Reply:
        async with self._recognizer.admitted(turn.who.user) as visit:
            subject = await self._looker.look(turn, visit, turn.request.photos[0])
            token = self._looker.remember(turn, subject, category=ask.category)
            reply = await self._answer(turn, subject, ask, token)
            counted = await self._twins.counted(turn, subject)
        return dataclasses.replace(reply, text=f"{reply.text}\n{counted}") if counted else reply

    async def _answer(
        self, turn: Turn, subject: Subject, ask: Ask, token: str, *, again: bool = False
    ) -> Reply:
        """One face as card, words and buttons; ``again`` says that its parents were shown."""
        ask = _clamped(subject, ask)
        turn.notes |= {"model": ask.model}
        seen = again and (ask.number, ask.model) in subject.kept.answered
        matches = await self._matches(turn, subject, ask)
        answers = match_answers(turn, matches)
        if ask.mine and not seen:
            for answer in answers:
                await self._answering.note_match(turn, ask.model, answer)
        with turn.timed("draw"):
            picture, shown = await self._recognizer.finish(
                lambda: (
                    draw_family(turn, self._engine, subject, ask.number, matches, answers),
                    tuple(
                        face_answer(subject, ask, (dataclasses.replace(answer, rank=1),))
                        for answer in answers
                    ),
                )
            )
        others = [name for name in self._desk.ready() if name != ask.model]
        return Reply(
            text=_text(turn, subject, ask, answers),
            picture=picture,
            buttons=family_buttons(
                turn,
                token,
                number=ask.number,
                count=min(len(subject.faces), MOST_FACES),
                page=ask.page,
                model=ask.model,
                others=others,
            ),
            answers=shown,
        )

    async def _matches(self, turn: Turn, subject: Subject, ask: Ask) -> tuple[Match, ...]:
        """The woman and the man, in that order.

        Raises:
            Refusal: If the gallery, or the category, has no such two.
        """
        try:
            return tuple(
                [
                    (await self._answering.search(turn, subject, one))[0]
                    for genders in (WOMEN, MEN)
                    for one in [dataclasses.replace(ask, top=1, genders=genders)]
                ]
            )
        except GalleryMissing:
            # Whoever asks for everybody learns it if there is nobody at all.
            await self._answering.search(turn, subject, ask)
            if ask.category is None:
                text = turn.say("parents.unknown")
            else:
                category = isolate(ask.category)
                text = turn.say("parents.unknown_in_category", category=category)
            raise Refusal(Reply(text=text)) from None


def _clamped(subject: Subject, ask: Ask) -> Ask:
    """A number of a face that is not there becomes the largest face's."""
    return ask if subject.face(ask.number) else dataclasses.replace(ask, number=1)


def _text(turn: Turn, subject: Subject, ask: Ask, answers: tuple[MatchAnswer, ...]) -> str:
    lines = [turn.say("parents.title")]
    if len(subject.faces) > 1:
        lines.insert(0, turn.say("answer.face", number=ask.number, count=len(subject.faces)))
    lines += [
        turn.say(
            "answer.best",
            name=isolate(answer.name),
            score=round(answer.score),
            word=answer.word,
        )
        for answer in answers
    ]
    sources = [
        f"{isolate(answer.name)}: {isolate(answer.credit)}" for answer in answers if answer.credit
    ]
    lines += footnotes(
        turn,
        [turn.say("answer.credits", credit="; ".join(sources))] if sources else [],
        model=ask.model,
        member_scores=answers[0].member_scores,
        wanted=ask.wanted,
        category=ask.category,
        face=subject.faces[ask.number - 1],
    )
    return "\n".join(lines)
