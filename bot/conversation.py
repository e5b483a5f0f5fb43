"""What the bot does with a request, the same for every platform: the interface for adapters.

``Conversation.answer`` never raises for anything a person does: every problem becomes a sentence
that says what to do. What the commands and buttons do is in ``bot.commands``.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import time
from typing import TYPE_CHECKING

from bot.commands import BUTTONS, COMMANDS, chat_commands, photo, preferences
from bot.context import NOTICE_CHARS, Refusal, Services, Turn
from bot.logs import where
from bot.text import fit
from bot.values import Action, ChatCommand, Choices, Limits, Reply, Request, Sender
from bot.wording import plain
from engine.errors import Busy, LookalikeError, SetupProblem

if TYPE_CHECKING:
    from engine.types import Photo

__all__ = ["Conversation"]

log = logging.getLogger(__name__)

UNKNOWN_CHARS = 32


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
        return self._services.identity.cookie_secret()

    def decode(self, photo: bytes) -> Photo:
        """The picture in untrusted bytes, within the bot's limits; raises PhotoProblem."""
        return self._services.engine.decode(photo)

    async def answer(self, request: Request, limits: Limits) -> Reply:
        """The reply to a request, within the limits.

        Never raises for a person's mistake, a missing model, a full queue or a fault of ours: the
        reply says what to do. Only cancellation passes through.
        """
        who = self._services.identity.who(request.sender)
        turn = Turn(request, limits, who, self.wording)
        started = time.perf_counter()
        outcome = "cancelled"
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
        if turn.request.action is not None and len(text) <= NOTICE_CHARS:
            return Reply(text=text, notice=text, private=True)
        return Reply(text=text, private=True)

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
