"""The face becomes its best match and itself again: ``/morph`` and its button."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from bot.commands.photo import Answering, Ask
from bot.context import Refusal, Turn
from bot.drawing import draw_morph
from bot.looking import Looker, Subject, recalled
from bot.text import caption, match_answers
from bot.values import SIDE, Action, Button, Reply

if TYPE_CHECKING:
    from bot.commands.twins import Twins
    from bot.models import Models
    from bot.recognizer import Recognizer, Slot
    from engine.engine import Engine
    from gallery.records import Match

__all__ = ["Morphing"]


class Morphing:
    """Makes morphs."""

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

    async def morph(self, turn: Turn) -> Reply:
        """``/morph`` with a photo; ``/morph senet film`` holds for it alone."""
        if not turn.request.photos:
            raise Refusal(Reply(text=turn.say("error.no_photo", command="morph")))
        _, choice = await self._answering.wished(turn)
        model = self._desk.answering(choice.model)
        ask = Ask(
            model=model,
            wanted=choice.model or model,
            top=1,
            category=choice.category,
            style=choice.style or SIDE,
        )
        return await self._fresh(turn, ask)

    async def press(self, turn: Turn, action: Action) -> Reply:
        """A button under an answer, which stays."""
        subject, ask, token = await self._answering.asked_again(turn, action)
        ask = dataclasses.replace(ask, top=1)
        if subject is None:
            return await self._fresh(turn, ask)
        # It takes several times the work of another press, and counts as a photo does.
        async with self._recognizer.admitted(turn.who.user) as visit:
            await visit.begin()
            match, ask = await self._found(turn, subject, ask)
            return await self._shown(turn, visit, subject, match, ask, token)

    async def _fresh(self, turn: Turn, ask: Ask) -> Reply:
        async with self._recognizer.admitted(turn.who.user) as visit:
            subject = await self._looker.look(turn, visit, turn.request.photos[0])
            token = self._looker.remember(turn, subject, category=ask.category, style=ask.style)
            match, ask = await self._found(turn, subject, ask)
            counted = await self._twins.counted(turn, subject)
            subject = recalled(subject.kept)  # the photo itself may be large, and films wait long
            reply = await self._shown(turn, visit, subject, match, ask, token)
        return dataclasses.replace(reply, text=f"{reply.text}\n{counted}") if counted else reply

    async def _found(self, turn: Turn, subject: Subject, ask: Ask) -> tuple[Match, Ask]:
        """The best match, which goes into the history, and of which face it is."""
        if subject.face(ask.number) is None:
            ask = dataclasses.replace(ask, number=1)
        turn.notes |= {"model": ask.model}
        first_time = (ask.number, ask.model) not in subject.kept.answered
        (match,) = await self._answering.search(turn, subject, ask)
        if ask.mine and first_time:
            (answer,) = match_answers(turn, (match,))
            await self._answering.note_match(turn, ask.model, answer)
        return match, ask

    async def _shown(
        self, turn: Turn, visit: Slot, subject: Subject, match: Match, ask: Ask, token: str
    ) -> Reply:
        """The film, in the words of an answer."""
        answers = match_answers(turn, (match,))
        with turn.timed("draw"):
            animation = await self._recognizer.lengthy(
                visit,
                lambda: draw_morph(turn, self._engine, subject, ask.number, match, answers[0]),
            )
        return Reply(
            text=caption(
                turn,
                answers,
                model=ask.model,
                wanted=ask.wanted,
                category=ask.category,
                face=subject.faces[ask.number - 1],
                number=ask.number,
                count=len(subject.faces),
            ),
            animation=animation,
            buttons=((_card_button(turn, token, ask),),),
        )


def _card_button(turn: Turn, token: str, ask: Ask) -> Button:
    """Leads to the answer as a picture, and to all of its buttons."""
    action = Action.of("see", token, ask.number, ask.model, 1, 0)
    return Button(turn.say("button.card"), action.encode())
