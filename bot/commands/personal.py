"""What is stored about people: shown, handed over, forgotten."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from bot.context import Refusal, Turn
from bot.values import Action, Button, Document, Reply
from bot.wording import isolate

if TYPE_CHECKING:
    from bot.memory import RecentPhotos, TwinsGroups
    from bot.store.keys import Identity
    from bot.store.store import Store

__all__ = ["Personal"]

HISTORY_LINES = 15


class Personal:
    """Answers ``/history``, ``/privacy``, ``/mydata`` and ``/forget``."""

    def __init__(
        self,
        *,
        identity: Identity,
        store: Store,
        recollections: RecentPhotos,
        circles: TwinsGroups,
    ) -> None:
        self._identity = identity
        self._circles = circles
        self._store = store
        self._recollections = recollections

    async def history(self, turn: Turn) -> Reply:
        """The last matches, newest first."""
        if not self._store.history_days:
            return Reply(text=turn.say("history.off"), private=True)
        matches = await self._store.history(turn.who, HISTORY_LINES)
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

    async def privacy(self, turn: Turn) -> Reply:
        """What is kept, why and how long."""
        days = self._store.history_days
        retention = turn.say("privacy.kept", count=days) if days else turn.say("privacy.not_kept")
        minutes = max(1, round(self._recollections.lifetime_s / 60))
        return Reply(text=turn.say("privacy.text", minutes=minutes, retention=retention))

    async def my_data(self, turn: Turn) -> Reply:
        """Everything stored, as a JSON file; what is in memory only is told beside it."""
        stored = await self._store.export(turn.who)
        content = json.dumps(stored, ensure_ascii=False, indent=2).encode()
        text = turn.say("mydata.text")
        if ends_s := self._circles.until_s(turn.who.user):
            until = time.strftime("%Y-%m-%d %H:%M", time.gmtime(ends_s[-1]))
            text += "\n" + turn.say("twins.mydata", count=len(ends_s), until=until)
        return Reply(
            text=text,
            document=Document(content, "lookalike-mydata.json", "application/json"),
            private=True,
        )

    async def ask_to_forget(self, turn: Turn) -> Reply:
        """Asks for confirmation; only the asker's press counts."""
        tag = self._identity.tag("forget", turn.who)
        buttons = (
            Button(turn.say("button.forget_yes"), Action.of("forget", "yes", tag).encode()),
            Button(turn.say("button.forget_no"), Action.of("forget", "no", tag).encode()),
        )
        return Reply(text=turn.say("forget.ask"), buttons=(buttons,), private=True)

    async def press_forget(self, turn: Turn, action: Action) -> Reply:
        """Deletes everything, or nothing."""
        if action.text(1) != self._identity.tag("forget", turn.who):
            text = turn.say("forget.not_yours")
            raise Refusal(Reply(text=text, notice=text, private=True))
        if action.text(0) != "yes":
            return Reply(text=turn.say("forget.kept"), replaces=True, private=True)
        # First what needs no database: that one may hang.
        self._recollections.forget(turn.who.user)
        self._circles.forget(turn.who.user)
        await self._store.forget(turn.who)
        return Reply(text=turn.say("forget.done"), replaces=True, private=True)
