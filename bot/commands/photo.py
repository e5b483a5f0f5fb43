"""Photos in, cards out: what the bot does with a photo and with the buttons under its answer."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot.buttons import answer_buttons
from bot.commands.words import read_wish
from bot.context import Refusal, Turn
from bot.drawing import draw_answer
from bot.looking import Looker, Subject, recalled
from bot.models import BEST
from bot.store.store import PastMatch
from bot.text import caption, match_answers, numbers
from bot.values import MOST_MATCHES, SIDE, SPLIT, Action, Attachment, FaceAnswer, MatchAnswer, Reply
from bot.wording import isolate
from engine.errors import GalleryMissing, LookalikeError
from gallery.records import MEN, WOMEN

if TYPE_CHECKING:
    from bot.background import Growing
    from bot.commands.twins import Twins
    from bot.models import Models
    from bot.recognizer import Recognizer
    from bot.store.store import Choice, Store
    from engine.engine import Engine
    from engine.types import Embedding
    from gallery.gallery import Gallery
    from gallery.records import Match
    from gallery.scores.ensemble import Ensemble

__all__ = ["MOST_FACES", "Answering", "Ask", "face_answer"]

log = logging.getLogger(__name__)

MOST_FACES = 200
MOST_ALBUM = 10
NOTICE_CHARS = 200


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked about a photo.

    Attributes:
        model: Backbone that answers.
        wanted: Backbone that was asked for; another than ``model`` where that isn't ready.
        top: How many matches.
        category: The category to search; None for all.
        genders: Only people of one of these (``gallery.records``); None for everybody.
        number: Number of the face, from 1.
        page: Which faces have a button, from 0.
        mine: Whether the asker sent the photo, so that the match goes into their history.
        replaces: Whether a pressed button's answer takes the place of the one above it.
        style: How the card is drawn.
    """

    model: str
    wanted: str
    top: int
    category: str | None
    genders: frozenset[str] | None = None
    number: int = 1
    page: int = 0
    mine: bool = True
    replaces: bool = False
    style: str = SIDE


class Answering:
    """Answers photos."""

    def __init__(
        self,
        *,
        engine: Engine,
        gallery: Gallery,
        recognizer: Recognizer,
        desk: Models,
        store: Store,
        looker: Looker,
        twins: Twins,
        growing: Growing,
    ) -> None:
        self._engine = engine
        self._gallery = gallery
        self._recognizer = recognizer
        self._desk = desk
        self._store = store
        self._looker = looker
        self._twins = twins
        self._growing = growing

    async def lookalike(self, turn: Turn) -> Reply:
        """A photo, or ``/lookalike`` with one; ``/lookalike 3 senet film`` holds for it alone."""
        if not turn.request.command or not turn.request.arguments:
            return await self.photo(turn)
        top, choice = await self.wished(turn)
        return await self.photo(turn, top=top, choice=choice)

    async def wished(self, turn: Turn) -> tuple[int | None, Choice]:
        """How many matches a command asks for, and the settings with what it says besides."""
        choice = await self._store.choice(turn.who)
        if not turn.request.arguments:
            return None, choice
        names = [standing.name for standing in self._desk.standings()]
        categories = await self._recognizer.finish(self._gallery.categories)
        wish = read_wish(turn.request.arguments, models=names, categories=categories)
        return wish.top, dataclasses.replace(
            choice,
            model=wish.model or choice.model,
            category=None if wish.everybody else wish.category or choice.category,
            style=wish.style or choice.style,
        )

    async def photo(
        self, turn: Turn, *, top: int | None = None, choice: Choice | None = None
    ) -> Reply:
        """Answers the largest face of the first photo; the others get buttons.

        Args:
            turn: With at least one photo.
            top: How many matches, for this photo only.
            choice: In place of the asker's settings.
        """
        photos = turn.request.photos
        if not photos:
            command = turn.request.command or "lookalike"
            raise Refusal(Reply(text=turn.say("error.no_photo", command=command)))
        if choice is None:
            choice = await self._store.choice(turn.who)
        model = self._desk.answering(choice.model)
        ask = Ask(
            model=model,
            wanted=choice.model or model,
            top=top or choice.top or 1,
            category=choice.category,
            style=choice.style or SIDE,
        )
        return await self._fresh(turn, photos[0], ask, rest=photos[1:MOST_ALBUM])

    async def see(self, turn: Turn, action: Action) -> Reply:
        """A button: another face, another model, more matches."""
        subject, ask, token = await self.asked_again(turn, action)
        if subject is None:
            reply = await self._fresh(turn, turn.request.photos[0], ask)
        else:
            async with self._recognizer.admitted(turn.who.user, press=True) as visit:
                await visit.begin()
                reply = await self._answer(turn, subject, ask, token)
        return dataclasses.replace(reply, replaces=ask.replaces)

    async def raw(self, turn: Turn, action: Action) -> Reply:
        """A button: the numbers behind an answer."""
        subject, ask, _ = await self.asked_again(turn, action)
        async with self._recognizer.admitted(turn.who.user, press=True) as visit:
            if subject is None:
                subject = await self._looker.look(turn, visit, turn.request.photos[0])
            await visit.begin()
            ask = self._clamped(subject, ask)
            answers = match_answers(turn, await self.search(turn, subject, ask))
        text = numbers(turn, answers, ask.model)
        return Reply(
            text=text,
            notice=text if len(text) <= NOTICE_CHARS else None,
            private=True,
            answers=(face_answer(subject, ask, answers),),
        )

    async def next_photo(self, turn: Turn, action: Action) -> Reply:
        """A button: another photo of the album."""
        recollection = self._looker.recall(action.text(0))
        number = action.number(1, least=2, most=MOST_ALBUM)
        if recollection is None or number is None or number - 2 >= len(recollection.rest):
            raise self._looker.stale(turn)
        choice = await self._store.choice(turn.who)
        model = self._desk.answering(choice.model)
        ask = Ask(
            model=model,
            wanted=choice.model or model,
            top=choice.top or 1,
            category=choice.category,
            mine=recollection.owner == turn.who.user,
            style=recollection.style,
        )
        return await self._fresh(turn, recollection.rest[number - 2], ask)

    async def _fresh(
        self, turn: Turn, attachment: Attachment, ask: Ask, rest: tuple[Attachment, ...] = ()
    ) -> Reply:
        async with self._recognizer.admitted(turn.who.user) as visit:
            subject = await self._looker.look(turn, visit, attachment)
            token = self._looker.remember(
                turn, subject, category=ask.category, rest=rest, style=ask.style
            )
            reply = await self._answer(turn, subject, ask, token, album=1 + len(rest))
            counted = await self._twins.counted(turn, subject)
        growing = None
        if self._growing.now:
            growing = await self._recognizer.finish(lambda: self._growing.line(turn))
        lines = [line for line in (reply.text, counted, growing) if line]
        return dataclasses.replace(reply, text="\n".join(lines))

    async def asked_again(self, turn: Turn, action: Action) -> tuple[Subject | None, Ask, str]:
        """What a button asks about a photo: the photo, if it is remembered, the rest, its token.

        Raises:
            Refusal: If the photo is neither remembered nor handed over again by the platform.
        """
        token = action.text(0)
        recollection = self._looker.recall(token)
        wanted = action.text(2)
        if self._desk.standing(wanted) is None:
            raise Refusal(Reply(text=turn.say("stale.button"), private=True))
        if recollection is not None:
            category, mine = recollection.category, recollection.owner == turn.who.user
            style = recollection.style
        else:  # whose it was is forgotten; in a private chat it can be nobody else's
            choice = await self._store.choice(turn.who)
            category, style = choice.category, choice.style or SIDE
            mine = not turn.request.sender.is_group
        ask = Ask(
            model=self._desk.answering(wanted),
            wanted=wanted,
            top=action.number(3, least=1, most=MOST_MATCHES) or 1,
            category=category,
            number=action.number(1, least=1, most=MOST_FACES) or 1,
            page=action.number(4, most=MOST_FACES) or 0,
            mine=mine,
            # Somebody else's press answers them and leaves the asker's answer alone.
            replaces=mine or recollection is None,
            style=style,
        )
        if recollection is None and not turn.request.photos:
            raise self._looker.stale(turn)
        subject = recalled(recollection.photos[0]) if recollection else None
        return subject, ask, token

    async def _answer(
        self, turn: Turn, subject: Subject, ask: Ask, token: str, *, album: int = 1
    ) -> Reply:
        """One face of one photo, as card, words and buttons."""
        ask = self._clamped(subject, ask)
        turn.notes |= {"model": ask.model, "top": ask.top}
        first_time = (ask.number, ask.model) not in subject.kept.answered
        matches = await self.search(turn, subject, ask)
        answers = match_answers(turn, matches)
        style = _style(subject, ask, matches[0])
        noting = None
        if ask.mine and first_time:  # while the card is drawn
            noting = asyncio.create_task(self.note_match(turn, ask.model, answers[0]))
        try:
            with turn.timed("draw"):
                picture, answer, genders = await self._recognizer.finish(
                    lambda: (
                        draw_answer(
                            turn, self._engine, subject, ask.number, matches, answers, style
                        ),
                        face_answer(subject, ask, answers),
                        self._gallery.genders(),
                    )
                )
        finally:
            if noting is not None:
                await noting
        text = caption(
            turn,
            answers,
            model=ask.model,
            wanted=ask.wanted,
            category=ask.category,
            face=subject.faces[ask.number - 1],
            number=ask.number,
            count=len(subject.faces),
        )
        answer = dataclasses.replace(answer, style=style)
        if ask.style == SPLIT != style:
            text += "\n" + turn.say("style.turned")
        if album > 1:
            text += "\n" + turn.say("answer.album", count=album - 1)
        buttons = answer_buttons(
            turn,
            token,
            number=ask.number,
            count=len(subject.faces),
            page=ask.page,
            model=ask.model,
            others=[name for name in self._desk.ready() if name != ask.model],
            top=ask.top,
            shown=len(answers),
            album=album,
            parents=not (genders.isdisjoint(WOMEN) or genders.isdisjoint(MEN)),
        )
        return Reply(text=text, picture=picture, buttons=buttons, answers=(answer,))

    async def search(self, turn: Turn, subject: Subject, ask: Ask) -> tuple[Match, ...]:
        """Who of the gallery is asked for, most alike first; at least one.

        Raises:
            Refusal: If there is nobody in the category any more.
            GalleryMissing: If there is nobody at all to be found.
        """
        ensemble = self._desk.ensemble() if ask.model == BEST else None
        models = ensemble.backbones if ensemble else (ask.model,)
        embeddings = await self._looker.embeddings(turn, subject, ask.number, models)
        with turn.timed("search"):
            matches = await self._recognizer.finish(
                lambda: self._matches(turn, ensemble, embeddings, ask)
            )
        subject.kept.answered.add((ask.number, ask.model))
        return matches

    def _matches(
        self, turn: Turn, ensemble: Ensemble | None, embeddings: Sequence[Embedding], ask: Ask
    ) -> tuple[Match, ...]:
        try:
            if ensemble is None:
                return self._gallery.top_matches(
                    embeddings[0], ask.top, category=ask.category, genders=ask.genders
                )
            return self._gallery.fused_matches(
                ensemble, embeddings, ask.top, category=ask.category, genders=ask.genders
            )
        except GalleryMissing:
            category = ask.category
            if category is None or category in self._gallery.categories():
                raise
            text = turn.say("error.nobody_in_category", category=isolate(category))
            raise Refusal(Reply(text=text)) from None

    async def note_match(self, turn: Turn, model: str, best: MatchAnswer) -> None:
        """Into the history; a database that hangs costs the entry, not the answer."""
        match = PastMatch(best.name, best.score, model, self._store.now_s())
        try:
            with turn.timed("store"):
                await self._store.remember(turn.who, match)
        except LookalikeError as problem:
            log.warning("history not written", extra={"reason": str(problem)})

    def _clamped(self, subject: Subject, ask: Ask) -> Ask:
        """A number of a face that is not there becomes the largest face's."""
        return ask if subject.face(ask.number) else dataclasses.replace(ask, number=1)


def _style(subject: Subject, ask: Ask, best: Match) -> str:
    """The style asked for, where the two faces allow it."""
    if ask.style != SPLIT:
        return SIDE
    from bot.pictures.split import suits

    both = subject.faces[ask.number - 1].landmarks, best.portrait.landmarks
    return SPLIT if suits(*both) else SIDE


def face_answer(subject: Subject, ask: Ask, answers: tuple[MatchAnswer, ...]) -> FaceAnswer:
    """The matches of the face asked about; may decode the photo, so not for the event loop."""
    return FaceAnswer(
        face=ask.number,
        faces=len(subject.faces),
        model=ask.model,
        box=subject.fraction(subject.faces[ask.number - 1]),
        matches=answers,
    )
