"""``/twins`` in a group: who of those who take part look most alike today.

Opt-in by person and chat. One photo of oneself counts, the newest; what was computed from its
face and the name that the chat shows live in ``bot.memory``, in memory, for a day at most.
"""

import dataclasses
import logging
import unicodedata

from bot.background import FALLBACK_MODEL
from bot.commands import Refusal, Services, Turn, notice, refusal
from bot.memory import Member, closest_pairs
from bot.recognizer import DetectedPhoto
from bot.text import grid, isolate, plain, rated, word_key
from bot.values import Action, Button, Reply
from engine.backbones import BACKBONES
from engine.errors import LookalikeError

log = logging.getLogger(__name__)

MOST_PAIRS = 3
NAME_CHARS = 40
JOIN = frozenset({"on", "yes", "join", "in", "sí", "si", "да", "вкл", "हाँ", "हां", "चालू"})
LEAVE = frozenset({"off", "no", "leave", "out", "stop", "нет", "выкл", "नहीं", "बंद"})

# Platforms make mentions, commands, tags and addresses of these even in plain text, and would
# ping somebody who merely stands in another's name; their likenesses mean nothing to them.
_HARMLESS = str.maketrans(
    "@/#:.",
    "\N{FULLWIDTH COMMERCIAL AT}\N{DIVISION SLASH}\N{FULLWIDTH NUMBER SIGN}\N{RATIO}"
    "\N{ONE DOT LEADER}",
)


async def twins(services: Services, turn: Turn) -> Reply:
    """``/twins`` shows who look most alike; ``on`` and ``off`` begin and end taking part."""
    if not turn.request.sender.is_group:
        raise refusal(turn, "twins.where")
    given = turn.request.arguments.casefold().strip(" .!")
    if given in LEAVE:
        return Reply(text=await _leave(services, turn))
    if given in JOIN:
        lines = (
            await _join(services, turn),
            turn.say("twins.kept"),
            await _count_sent(services, turn),
        )
        return Reply(text="\n".join(filter(None, lines)), buttons=_buttons(turn))
    if given:
        raise Refusal(Reply(text=turn.say("twins.usage"), buttons=_buttons(turn)))
    counted = await _count_sent(services, turn)
    reply = await _show(services, turn)
    return dataclasses.replace(reply, text=f"{counted}\n\n{reply.text}") if counted else reply


async def press_twins(services: Services, turn: Turn, action: Action) -> Reply:
    """A button: it counts for whoever presses it."""
    if not turn.request.sender.is_group:
        raise refusal(turn, "twins.where")
    if action.text(0) == "show":
        return dataclasses.replace(await _show(services, turn), replaces=True)
    change = _join if action.text(0) == "on" else _leave
    return notice(turn, await change(services, turn))


async def count_photo(services: Services, turn: Turn, photo: DetectedPhoto) -> str:
    """Lets a photo that is answered count, if its sender takes part; what to say about it.

    Nothing is computed from the photo of anybody who does not take part, nor from one that
    shows several people or that somebody else sent.
    """
    member = await _member(services, turn)
    if member is None or not turn.request.photos[0].own:
        return ""
    if len(photo.faces) != 1:
        return turn.say("twins.several")
    # One model for all, whatever they chose: spaces never meet.
    ready = [name for name in services.models.ready() if name in BACKBONES]
    if not ready:
        return ""
    model = FALLBACK_MODEL if FALLBACK_MODEL in ready else ready[0]
    try:
        (embedding,) = await services.recognizer.embeddings(photo, 1, (model,), turn.ms)
    except LookalikeError as problem:  # must not cost them the answer that they have
        log.warning("not counted for twins", extra={"reason": type(problem).__name__})
        return ""
    name = shown_name(turn.request.sender.name)
    counts = await services.twins.count(turn.who.room, turn.who.user, member, embedding, name)
    return turn.say("twins.counted") if counts else ""


async def _count_sent(services: Services, turn: Turn) -> str:
    """Counts a photo that came with the command itself."""
    if not turn.request.photos or await _member(services, turn) is None:
        return ""
    if not turn.request.photos[0].own:
        return turn.say("twins.not_own")
    async with services.recognizer.admitted(turn.who.user, turn.who.room) as slot:
        photo = await slot.detect(turn.request.photos[0].fetch, turn.ms)
        return await count_photo(services, turn, photo)


async def _member(services: Services, turn: Turn) -> Member | None:
    sender, who = turn.request.sender, turn.who
    if not sender.is_group or not sender.name or turn.request.action is not None:
        return None
    return await services.twins.member(who.room, who.user)


async def _join(services: Services, turn: Turn) -> str:
    name = turn.request.sender.name
    if not name:
        raise refusal(turn, "twins.nameless")
    if not await services.twins.join(turn.who.room, turn.who.user, shown_name(name)):
        raise refusal(turn, "twins.full")
    return turn.say("twins.joined")


async def _leave(services: Services, turn: Turn) -> str:
    left = await services.twins.leave(turn.who.room, turn.who.user)
    return turn.say("twins.left" if left else "twins.was_not_in")


async def _show(services: Services, turn: Turn) -> Reply:
    members = await services.twins.members(turn.who.room)
    seen = {key: one.embedding for key, one in members.items() if one.embedding is not None}
    pairs = closest_pairs(seen, MOST_PAIRS)
    turn.notes["members"] = len(members)
    calibration = services.gallery.calibration
    scored = [(calibration(pair.space).score(pair.cosine), pair) for pair in pairs]
    scored = sorted(scored, key=lambda one: -one[0])[:MOST_PAIRS]
    key = "twins.title" if scored else "twins.too_few"
    lines = [turn.say(key, count=len(seen))]
    for score, pair in scored:
        first, second = (isolate(members[one].name) for one in (pair.first, pair.second))
        rank, word = 1 + sum(better > score for better, _ in scored), turn.say(word_key(score))
        said = {"first": first, "second": second, "score": rated(score, 5), "word": word}
        lines.append(turn.say("twins.pair", rank=rank, **said))
    lines.append(turn.say("twins.takers", count=len(members)))
    return Reply(text="\n".join(lines), buttons=_buttons(turn))


def shown_name(name: str) -> str:
    """A person's name on one line, short, and nothing that a platform would make a mention of."""
    tamed = unicodedata.normalize("NFC", plain(name)).translate(_HARMLESS)
    short = tamed if len(tamed) <= NAME_CHARS else tamed[: NAME_CHARS - 1].rstrip() + "…"
    return short or "?"


def _buttons(turn: Turn) -> tuple[tuple[Button, ...], ...]:
    keys = {"on": "button.twins_on", "off": "button.twins_off", "show": "button.twins_show"}
    choices = [turn.button(key, "twins", what) for what, key in keys.items()]
    return grid(choices, turn.limits.buttons_per_row)
