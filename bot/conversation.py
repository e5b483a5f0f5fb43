"""What the bot does with a request, the same for every platform: the interface for adapters.

``Conversation.answer`` never raises for anything a person does: every problem becomes a sentence
that says what to do. /help, menus and registration are made from the table of commands; what is
about no photo and no preference is done here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import difflib
import functools
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bot import __version__
from bot.commands import (
    Refusal,
    Services,
    Turn,
    compare,
    notice,
    photo,
    preferences,
    refusal,
    twins,
)
from bot.logs import where
from bot.text import Wording, fit, isolate, plain
from bot.values import (
    Action,
    Button,
    ChatCommand,
    Choices,
    Document,
    Limits,
    Reply,
    Request,
    Sender,
)
from engine.backbones import BACKBONES
from engine.errors import Busy, LookalikeError, SetupProblem

if TYPE_CHECKING:
    from engine.types import Photo

log = logging.getLogger(__name__)

UNKNOWN_CHARS = 32
HISTORY_LINES = 15


async def history(services: Services, turn: Turn) -> Reply:
    """The last matches, newest first."""
    if not services.store.history_days:
        return Reply(text=turn.say("history.off"), private=True)
    matches = await services.store.history(turn.who, HISTORY_LINES)
    if not matches:
        return Reply(text=turn.say("history.empty"), private=True)
    lines = [
        turn.say(
            "history.line",
            date=time.strftime("%Y-%m-%d", time.gmtime(match.at_s)),
            name=isolate(match.person),
            score=round(match.score),
            model=match.model,
        )
        for match in matches
    ]
    return Reply(text="\n".join((turn.say("history.title"), *lines)), private=True)


async def privacy(services: Services, turn: Turn) -> Reply:
    """What is kept, why and how long."""
    days = services.store.history_days
    retention = turn.say("privacy.kept", count=days) if days else turn.say("privacy.not_kept")
    minutes = max(1, round(services.recent.lifetime_s / 60))
    return Reply(text=turn.say("privacy.text", minutes=minutes, retention=retention))


async def my_data(services: Services, turn: Turn) -> Reply:
    """Everything stored, as a JSON file; what is in memory only is told beside it."""
    stored = await services.store.export(turn.who)
    content = json.dumps(stored, ensure_ascii=False, indent=2).encode()
    text = turn.say("mydata.text")
    if ends_s := services.twins.until_s(turn.who.user):
        until = time.strftime("%Y-%m-%d %H:%M", time.gmtime(ends_s[-1]))
        text += "\n" + turn.say("twins.mydata", count=len(ends_s), until=until)
    document = Document(content, "lookalike-mydata.json", "application/json")
    return Reply(text=text, document=document, private=True)


async def ask_to_forget(services: Services, turn: Turn) -> Reply:
    """Asks for confirmation; only the asker's press counts."""
    tag = services.store.identity.tag("forget", turn.who)
    buttons = (
        Button(turn.say("button.forget_yes"), Action.of("forget", "yes", tag).encode()),
        Button(turn.say("button.forget_no"), Action.of("forget", "no", tag).encode()),
    )
    return Reply(text=turn.say("forget.ask"), buttons=(buttons,), private=True)


async def press_forget(services: Services, turn: Turn, action: Action) -> Reply:
    """Deletes everything, or nothing."""
    if action.text(1) != services.store.identity.tag("forget", turn.who):
        raise refusal(turn, "forget.not_yours")
    if action.text(0) != "yes":
        return Reply(text=turn.say("forget.kept"), replaces=True, private=True)
    # First what needs no database: that one may hang.
    services.recent.forget(turn.who.user)
    services.twins.forget(turn.who.user)
    await services.store.forget(turn.who)
    return Reply(text=turn.say("forget.done"), replaces=True, private=True)


async def start(_services: Services, turn: Turn) -> Reply:
    """``/start``: a greeting that says what to do."""
    return Reply(text=turn.say("start.text"))


async def show_help(_services: Services, turn: Turn) -> Reply:
    """``/help``: every command."""
    lines = [
        f"/{command.name} - {command.description}"
        for command in chat_commands(turn.wording, turn.request.sender.language)
        if command.name not in {"start", "help"}
    ]
    parts = (turn.say("help.intro"), "\n".join(lines), turn.say("help.outro"))
    return Reply(text="\n\n".join(parts))


async def about(services: Services, turn: Turn) -> Reply:
    """``/about``: version, people, models and their licences, whose the portraits are."""
    models = [
        turn.say(
            "about.model",
            name=status.name,
            title=status.title,
            licence=BACKBONES[status.name].licence,
        )
        if status.name in BACKBONES
        else turn.say("about.together", name=status.name, models=status.title)
        for status in services.models.statuses()
    ]
    stats = await asyncio.to_thread(services.gallery.stats)
    people = turn.say("about.people", count=stats.people)
    text = turn.say("about.text", version=__version__, people=people, models="\n".join(models))
    return Reply(text=text)


@dataclass(frozen=True, slots=True)
class Command:
    """A row of the table of commands."""

    answer: Callable[[Services, Turn], Awaitable[Reply]]  # what it does
    photos: Literal[0, 1, 2] = 0  # how many photos it can take
    hint: bool = False  # whether something may follow it (wording key ``command.NAME.hint``)
    private: bool = False  # whether the answer is nobody else's business


# The order is that of menus and of /help.
COMMANDS: dict[str, Command] = {
    "lookalike": Command(photo.lookalike, photos=1),
    "compare": Command(compare.compare, photos=2),
    "morph": Command(photo.morph, photos=1, hint=True),
    "parents": Command(photo.parents, photos=1, hint=True),
    "twins": Command(twins.twins, photos=1, hint=True),
    **{
        preference.name: Command(preference.command, photos=1, hint=True)
        for preference in preferences.PREFERENCES
    },
    "settings": Command(preferences.settings),
    "history": Command(history, private=True),
    "about": Command(about),
    "privacy": Command(privacy),
    "mydata": Command(my_data, private=True),
    "forget": Command(ask_to_forget, private=True),
    "help": Command(show_help),
    "start": Command(start),
}
CHAT_COMMANDS = {name: command.photos for name, command in COMMANDS.items()}
PRIVATE = frozenset(name for name, command in COMMANDS.items() if command.private)

# By the verb of their action.
BUTTONS: dict[str, Callable[[Services, Turn, Action], Awaitable[Reply]]] = {
    **dict.fromkeys(photo.AGAIN, photo.ask_again),
    "next": photo.next_photo,
    "twins": twins.press_twins,
    "both": compare.both,
    "pair": compare.pair,
    "rawpair": compare.raw_pair,
    **{preference.name: preference.press for preference in preferences.PREFERENCES},
    "forget": press_forget,
}


def chat_commands(wording: Wording, language: str | None = None) -> tuple[ChatCommand, ...]:
    """Every command, in the order of menus, described in that language."""
    return tuple(
        ChatCommand(
            name=name,
            description=wording.text(f"command.{name}.description", language),
            argument=wording.text(f"command.{name}.hint", language) if command.hint else None,
            photos=command.photos,
            private=command.private,
        )
        for name, command in COMMANDS.items()
    )


class Conversation:
    """Turns requests into replies; safe for any number of requests at once on one event loop.

    ``bot.app.open_conversation`` makes one from the settings.
    """

    def __init__(self, services: Services) -> None:
        self.wording = services.wording
        self._services = services

    def chat_commands(self, language: str | None = None) -> tuple[ChatCommand, ...]:
        """Every command in the order of menus, described in that language, for registration."""
        return chat_commands(self.wording, language)

    async def choices(self, sender: Sender) -> Choices:
        """What the sender has chosen and could choose."""
        return await preferences.choices(self._services, sender)

    def cookie_secret(self) -> str:
        """What a front end of our own signs its cookies with, the same after a restart."""
        return self._services.store.identity.keyed("cookie").hex()

    def decode(self, photo: bytes) -> Photo:
        """The picture in untrusted bytes, within the bot's limits; raises PhotoProblem."""
        return self._services.engine.decode(photo)

    async def answer(self, request: Request, limits: Limits) -> Reply:
        """The reply to a request, within the limits.

        Never raises for a person's mistake, a missing model, a full queue or a fault of ours: the
        reply says what to do. Only cancellation passes through.
        """
        who = self._services.store.identity.who(request.sender)
        say = functools.partial(self.wording.text, language=request.sender.language)
        turn = Turn(request, limits, who, self.wording, say)
        started = time.perf_counter()
        outcome = "cancelled"
        try:
            # A task of its own: what wakes it up does not pass through whoever waits for the reply.
            reply = await asyncio.create_task(self._reply(turn))
            outcome = "answered"
        except LookalikeError as problem:
            reply = self._apology(turn, problem)
            outcome = type(problem).__name__
            if isinstance(problem, SetupProblem):
                log.warning("cannot answer", extra={"reason": str(problem)})
        except Refusal as refusal:
            reply = refusal.reply
            outcome = "refused"
        except Exception as problem:  # noqa: BLE001 - whatever it is, the person gets an answer
            # The message may quote a photo's bytes or an id: only type and place are logged.
            log.error("fault", extra={"fault": where(problem)})  # noqa: TRY400
            reply = Reply(text=turn.say("error.internal"))
            outcome = "fault"
        finally:
            self._log(turn, outcome, started)
        spoiler = any(photo.spoiler for photo in request.photos)
        return dataclasses.replace(fit(reply, limits), spoiler=spoiler)

    async def _reply(self, turn: Turn) -> Reply:
        if turn.request.action is not None:
            return await self._pressed(turn, turn.request.action)
        if turn.request.command is not None:
            return await self._commanded(turn, turn.request.command)
        turn.notes["asked"] = "photo" if turn.request.photos else "text"
        if turn.request.photos:
            return await photo.lookalike(self._services, turn)
        return Reply(text=turn.say("hint.send_photo"))

    async def _pressed(self, turn: Turn, text: str) -> Reply:
        action = Action.parse(text)
        press = BUTTONS.get(action.verb) if action else None
        if action is None or press is None:
            turn.notes["asked"] = "stale button"
            return Reply(text=turn.say("stale.button"), private=True)
        turn.notes["asked"] = f"button {action.verb}"
        return await press(self._services, turn, action)

    async def _commanded(self, turn: Turn, name: str) -> Reply:
        command = COMMANDS.get(name)
        if command is None:
            turn.notes["asked"] = "unknown command"
            return self._unknown(turn, name)
        turn.notes["asked"] = name
        # /forget shows nothing of what is stored: it may be asked for anywhere.
        if turn.public and command.private and name != "forget":
            return Reply(text=turn.say("private.ask_privately"))
        return await command.answer(self._services, turn)

    def _unknown(self, turn: Turn, given: str) -> Reply:
        given = plain(given)[:UNKNOWN_CHARS]
        near = difflib.get_close_matches(given, COMMANDS, n=1, cutoff=0.6)
        if near:
            return Reply(text=turn.say("error.unknown_command_near", given=given, near=near[0]))
        return Reply(text=turn.say("error.unknown_command", given=given))

    def _apology(self, turn: Turn, problem: LookalikeError) -> Reply:
        details = dict(problem.details)
        if isinstance(problem, Busy):
            details["count"] = max(1, round(float(str(details.get("seconds", 1)))))
        text = turn.say(problem.key, **details)
        return Reply(text=text, private=True) if turn.request.action is None else notice(text)

    def _log(self, turn: Turn, outcome: str, started: float) -> None:
        sender = turn.request.sender
        log.info(
            "answer",
            extra={
                "platform": sender.platform,
                "group": sender.is_group,
                "outcome": outcome,
                **turn.notes,
                **{f"{step}_ms": round(ms, 1) for step, ms in turn.ms.items()},
                "total_ms": round((time.perf_counter() - started) * 1000, 1),
            },
        )
