"""What the bot does with a request, the same for every platform: the door for adapters.

``Conversation.answer`` never raises for anything a person does: every problem becomes a sentence
that says what to do. The parts lie beside this module: ``answering``, ``comparing`` and ``parents``
(photos), ``twins`` (groups), ``choosing`` (settings), ``personal`` (what is stored), ``telling``
(help and the like).
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import time
from collections.abc import Awaitable, Callable

from bot.commands import CHAT_COMMANDS, PRIVATE, chat_commands
from bot.commands.compare import Comparing
from bot.commands.personal import Personal
from bot.commands.photo import Answering
from bot.commands.preferences import Choosing, Styling
from bot.commands.twins import Twins
from bot.context import Refusal, Turn
from bot.logs import where
from bot.morphing import Morphing
from bot.parents import Parents
from bot.store.keys import Identity
from bot.store.store import Store
from bot.telling import Telling
from bot.text import fit
from bot.values import Action, ChatCommand, Choices, Limits, ModelChoice, Reply, Request, Sender
from bot.wording import Wording, plain
from engine.errors import Busy, LookalikeError, SetupProblem

__all__ = ["Choices", "Conversation", "ModelChoice"]

log = logging.getLogger(__name__)

NOTICE_CHARS = 200
UNKNOWN_CHARS = 32
Answer = Callable[[Turn], Awaitable[Reply]]


class Conversation:
    """Turns requests into replies; safe for any number of requests at once on one event loop.

    ``bot.app.open_conversation`` makes one from the settings.
    """

    def __init__(
        self,
        *,
        wording: Wording,
        identity: Identity,
        answering: Answering,
        comparing: Comparing,
        morphing: Morphing,
        parents: Parents,
        twins: Twins,
        choosing: Choosing,
        store: Store,
        personal: Personal,
        telling: Telling,
    ) -> None:
        self.wording = wording
        self._identity = identity
        self._answering = answering
        self._choosing = choosing
        self._styling = Styling(store)
        self._commands: dict[str, Answer] = {
            "lookalike": answering.lookalike,
            "compare": comparing.compare,
            "morph": morphing.morph,
            "parents": parents.parents,
            "twins": twins.twins,
            "top": self._top,
            "model": self._model,
            "category": self._category,
            "style": self._style,
            "settings": choosing.settings,
            "history": personal.history,
            "about": telling.about,
            "privacy": personal.privacy,
            "mydata": personal.my_data,
            "forget": personal.ask_to_forget,
            "help": telling.help,
            "start": telling.start,
        }
        self._actions: dict[str, Callable[[Turn, Action], Awaitable[Reply]]] = {
            "see": answering.see,
            "raw": answering.raw,
            "next": answering.next_photo,
            "morph": morphing.press,
            "parents": parents.press,
            "rawkin": parents.raw,
            "twins": twins.press,
            "both": comparing.both,
            "pair": comparing.pair,
            "rawpair": comparing.raw_pair,
            "model": choosing.press_model,
            "top": choosing.press_top,
            "category": choosing.press_category,
            "style": self._styling.press,
            "forget": personal.press_forget,
        }

    def chat_commands(self, language: str | None = None) -> tuple[ChatCommand, ...]:
        """Every command in the order of menus, described in that language, for registration."""
        return chat_commands(self.wording, language)

    async def choices(self, sender: Sender) -> Choices:
        """What the sender has chosen and could choose."""
        return await self._choosing.choices(self._identity.who(sender), sender.language)

    def cookie_secret(self) -> str:
        """What a front end of our own signs its cookies with, the same after a restart."""
        return self._identity.cookie_secret()

    async def answer(self, request: Request, limits: Limits) -> Reply:
        """The reply to a request, within the limits.

        Never raises for a person's mistake, a missing model, a full queue or a fault of ours: the
        reply says what to do. Only cancellation passes through.
        """
        turn = Turn(request, limits, self._identity.who(request.sender), self.wording)
        started = time.perf_counter()
        try:
            reply = await self._reply(turn)
            outcome = "answered"
        except LookalikeError as problem:
            reply = self._apology(turn, problem)
            outcome = type(problem).__name__
            if isinstance(problem, SetupProblem):
                log.warning("cannot answer", extra={"reason": str(problem)})
        except Refusal as refusal:
            reply = refusal.reply
            outcome = "refused"
        except asyncio.CancelledError:
            self._note(turn, "cancelled", started)
            raise
        except Exception as problem:  # noqa: BLE001 - whatever it is, the person gets an answer
            # The message may quote a photo's bytes or an id: only type and place are logged.
            log.error("fault", extra={"fault": where(problem)})  # noqa: TRY400
            reply = Reply(text=turn.say("error.internal"))
            outcome = "fault"
        self._note(turn, outcome, started)
        return fit(reply, limits)

    async def _reply(self, turn: Turn) -> Reply:
        if turn.request.action is not None:
            return await self._pressed(turn, turn.request.action)
        if turn.request.command is not None:
            return await self._commanded(turn, turn.request.command)
        turn.notes["asked"] = "photo" if turn.request.photos else "text"
        if turn.request.photos:
            return await self._answering.lookalike(turn)
        return Reply(text=turn.say("hint.send_photo"))

    async def _pressed(self, turn: Turn, text: str) -> Reply:
        action = Action.parse(text)
        press = self._actions.get(action.verb) if action else None
        if action is None or press is None:
            turn.notes["asked"] = "stale button"
            return Reply(text=turn.say("stale.button"), private=True)
        turn.notes["asked"] = f"button {action.verb}"
        return await press(turn, action)

    async def _commanded(self, turn: Turn, command: str) -> Reply:
        answer = self._commands.get(command)
        if answer is None:
            turn.notes["asked"] = "unknown command"
            return self._unknown(turn, command)
        turn.notes["asked"] = command
        if turn.public and command in PRIVATE - {"forget"}:
            return Reply(text=turn.say("private.ask_privately"))
        return await answer(turn)

    async def _model(self, turn: Turn) -> Reply:
        """``/model senet`` chooses; with a photo it answers that photo, too."""
        if turn.request.photos and turn.request.arguments:
            await self._choosing.choose_model(turn, turn.request.arguments)
            return await self._answering.photo(turn)
        return await self._choosing.model(turn)

    async def _category(self, turn: Turn) -> Reply:
        """``/category film`` chooses; with a photo it answers that photo, too."""
        if turn.request.photos and turn.request.arguments:
            await self._choosing.choose_category(turn, turn.request.arguments)
            return await self._answering.photo(turn)
        return await self._choosing.category(turn)

    async def _style(self, turn: Turn) -> Reply:
        """``/style split`` chooses; with a photo it answers that photo, too."""
        if turn.request.photos and turn.request.arguments:
            await self._styling.choose(turn, turn.request.arguments)
            return await self._answering.photo(turn)
        return await self._styling.style(turn)

    async def _top(self, turn: Turn) -> Reply:
        """``/top 3`` sets the default; with a photo it answers that photo and sets nothing."""
        if turn.request.photos:
            top = self._choosing.parse_top(turn, turn.request.arguments)
            return await self._answering.photo(turn, top=top)
        return await self._choosing.top(turn)

    def _unknown(self, turn: Turn, given: str) -> Reply:
        given = plain(given)[:UNKNOWN_CHARS]
        near = difflib.get_close_matches(given, CHAT_COMMANDS, n=1, cutoff=0.6)
        if near:
            return Reply(text=turn.say("error.unknown_command_near", given=given, near=near[0]))
        return Reply(text=turn.say("error.unknown_command", given=given))

    def _apology(self, turn: Turn, problem: LookalikeError) -> Reply:
        details = dict(problem.details)
        if isinstance(problem, Busy):
            details["count"] = max(1, round(float(str(details.get("seconds", 1)))))
        text = turn.say(problem.key, **details)
        if turn.request.action is not None and len(text) <= NOTICE_CHARS:
            return Reply(text=text, notice=text, private=True)
        return Reply(text=text)

    def _note(self, turn: Turn, outcome: str, started: float) -> None:
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
