"""``/twins`` in a group: who of those who take part look most alike today.

Opt-in by person and chat. One photo of oneself counts, the newest; what was computed from its
face and the name that the chat shows live in ``bot.memory``, in memory, for a day at most.
"""

from __future__ import annotations

import dataclasses
import logging
import unicodedata
from typing import TYPE_CHECKING

from bot.buttons import grid
from bot.context import Refusal, Turn
from bot.memory import GroupFull, Member, Pair, TwinsGroups, closest_pairs
from bot.models import FALLBACK_MODEL
from bot.text import word_key
from bot.values import Action, Button, Reply
from bot.wording import isolate, plain
from engine.backbones import BACKBONES
from engine.errors import LookalikeError

if TYPE_CHECKING:
    from bot.looking import Looker, Subject
    from bot.models import Models
    from bot.recognizer import Recognizer
    from gallery.gallery import Gallery

__all__ = ["Twins", "shown_name"]

log = logging.getLogger(__name__)

MOST_PAIRS = 3
NAME_CHARS = 40
JOIN = frozenset({"on", "yes", "join", "in", "sí", "si", "да", "вкл", "हाँ", "हां", "चालू"})
LEAVE = frozenset({"off", "no", "leave", "out", "stop", "нет", "выкл", "नहीं", "बंद"})

# Platforms make mentions, commands, tags and addresses of these even in plain text, and would
# ping somebody who merely stands in another's name; their likenesses mean nothing to them.
_HARMLESS = str.maketrans(
    {
        "@": "\N{FULLWIDTH COMMERCIAL AT}",
        "/": "\N{DIVISION SLASH}",
        "#": "\N{FULLWIDTH NUMBER SIGN}",
        ":": "\N{RATIO}",
        ".": "\N{ONE DOT LEADER}",
    }
)


class Twins:
    """Answers ``/twins`` and counts the photos of those who take part."""

    def __init__(
        self,
        *,
        circles: TwinsGroups,
        gallery: Gallery,
        recognizer: Recognizer,
        desk: Models,
        looker: Looker,
    ) -> None:
        self._circles = circles
        self._gallery = gallery
        self._recognizer = recognizer
        self._desk = desk
        self._looker = looker

    async def twins(self, turn: Turn) -> Reply:
        """``/twins`` shows who look most alike; ``on`` and ``off`` begin and end taking part."""
        self._refuse_alone(turn)
        given = turn.request.arguments.casefold().strip(" .!")
        if given in LEAVE:
            return Reply(text=self._leave(turn))
        if given in JOIN:
            lines = [self._join(turn), turn.say("twins.kept")]
            if counted := await self._look(turn):
                lines.append(counted)
            return Reply(text="\n".join(lines), buttons=_buttons(turn))
        if given:
            raise Refusal(Reply(text=turn.say("twins.usage"), buttons=_buttons(turn)))
        counted = await self._look(turn)
        reply = self._show(turn)
        return dataclasses.replace(reply, text=f"{counted}\n\n{reply.text}") if counted else reply

    async def press(self, turn: Turn, action: Action) -> Reply:
        """A button: it counts for whoever presses it."""
        self._refuse_alone(turn)
        if action.text(0) == "show":
            return dataclasses.replace(self._show(turn), replaces=True)
        text = self._join(turn) if action.text(0) == "on" else self._leave(turn)
        return Reply(text=text, notice=text, private=True)

    async def counted(self, turn: Turn, subject: Subject) -> str:
        """Lets a photo that was answered count, if its sender takes part; what to say about it.

        Nothing is computed from the photo of anybody who does not take part, nor from one that
        shows several people or that somebody else sent.
        """
        taker = self._taker(turn)
        if taker is None or not turn.request.photos[0].own:
            return ""
        if len(subject.faces) != 1:
            return turn.say("twins.several")
        # One model for all, whatever they chose: spaces never meet.
        ready = [name for name in self._desk.ready() if name in BACKBONES]
        if not ready:
            return ""
        model = FALLBACK_MODEL if FALLBACK_MODEL in ready else ready[0]
        try:
            embedding = await self._looker.embedding(turn, subject, 1, model)
        except LookalikeError as problem:  # must not cost them the answer that they have
            log.warning("not counted for twins", extra={"reason": type(problem).__name__})
            return ""
        name = shown_name(turn.request.sender.name)
        counts = self._circles.count(turn.who.room, turn.who.user, taker, embedding, name)
        return turn.say("twins.counted") if counts else ""

    async def _look(self, turn: Turn) -> str:
        """Counts a photo that came with the command itself."""
        if self._taker(turn) is None or not turn.request.photos:
            return ""
        if not turn.request.photos[0].own:
            return turn.say("twins.not_own")
        async with self._recognizer.admitted(turn.who.user) as visit:
            subject = await self._looker.look(turn, visit, turn.request.photos[0])
            return await self.counted(turn, subject)

    def _taker(self, turn: Turn) -> Member | None:
        sender, who = turn.request.sender, turn.who
        if not sender.is_group or not sender.name or turn.request.action is not None:
            return None
        return self._circles.taker(who.room, who.user)

    def _refuse_alone(self, turn: Turn) -> None:
        if not turn.request.sender.is_group:
            raise _refusal(turn, "twins.where")

    def _join(self, turn: Turn) -> str:
        name = turn.request.sender.name
        if not name:
            raise _refusal(turn, "twins.nameless")
        try:
            self._circles.join(turn.who.room, turn.who.user, shown_name(name))
        except GroupFull:
            raise _refusal(turn, "twins.full") from None
        return turn.say("twins.joined")

    def _leave(self, turn: Turn) -> str:
        left = self._circles.leave(turn.who.room, turn.who.user)
        return turn.say("twins.left" if left else "twins.was_not_in")

    def _show(self, turn: Turn) -> Reply:
        takers = self._circles.takers(turn.who.room)
        seen = {key: one.embedding for key, one in takers.items() if one.embedding is not None}
        pairs = closest_pairs(seen, MOST_PAIRS)
        turn.notes["takers"] = len(takers)
        if not pairs:
            lines = [turn.say("twins.too_few", count=len(seen))]
        else:
            lines = [turn.say("twins.title"), *self._lines(turn, pairs, takers)]
        lines.append(turn.say("twins.takers", count=len(takers)))
        return Reply(text="\n".join(lines), buttons=_buttons(turn))

    def _lines(self, turn: Turn, pairs: tuple[Pair, ...], takers: dict[bytes, Member]) -> list[str]:
        scored = sorted(
            ((self._gallery.calibration(pair.space).score(pair.cosine), pair) for pair in pairs),
            key=lambda one: -one[0],
        )[:MOST_PAIRS]
        lines = []
        for score, pair in scored:
            line = turn.say(
                "twins.pair",
                rank=1 + sum(better > score for better, _ in scored),
                first=isolate(takers[pair.first].name),
                second=isolate(takers[pair.second].name),
                score=round(score),
                word=turn.say(word_key(score)),
            )
            lines.append(line)
        return lines


def shown_name(name: str) -> str:
    """A person's name on one line, short, and nothing that a platform would make a mention of."""
    tamed = unicodedata.normalize("NFC", plain(name)).translate(_HARMLESS)
    short = tamed if len(tamed) <= NAME_CHARS else tamed[: NAME_CHARS - 1].rstrip() + "…"
    return short or "?"


def _refusal(turn: Turn, key: str) -> Refusal:
    text = turn.say(key)
    notice = text if turn.request.action is not None else None
    return Refusal(Reply(text=text, notice=notice, private=True))


def _buttons(turn: Turn) -> tuple[tuple[Button, ...], ...]:
    choices = [
        Button(turn.say(key), Action.of("twins", what).encode())
        for what, key in (
            ("on", "button.twins_on"),
            ("off", "button.twins_off"),
            ("show", "button.twins_show"),
        )
    ]
    return grid(choices, turn.limits.buttons_per_row)
