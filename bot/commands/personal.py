"""What is stored about people: ``/history``, ``/privacy``, ``/mydata`` and ``/forget``."""

from __future__ import annotations

import json
import time

from bot.context import Refusal, Services, Turn
from bot.values import Action, Button, Document, Reply
from bot.wording import isolate

__all__ = ["ask_to_forget", "history", "my_data", "press_forget", "privacy"]

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
    tag = services.identity.tag("forget", turn.who)
    buttons = (
        Button(turn.say("button.forget_yes"), Action.of("forget", "yes", tag).encode()),
        Button(turn.say("button.forget_no"), Action.of("forget", "no", tag).encode()),
    )
    return Reply(text=turn.say("forget.ask"), buttons=(buttons,), private=True)


async def press_forget(services: Services, turn: Turn, action: Action) -> Reply:
    """Deletes everything, or nothing."""
    if action.text(1) != services.identity.tag("forget", turn.who):
        text = turn.say("forget.not_yours")
        raise Refusal(Reply(text=text, notice=text, private=True))
    if action.text(0) != "yes":
        return Reply(text=turn.say("forget.kept"), replaces=True, private=True)
    # First what needs no database: that one may hang.
    services.recent.forget(turn.who.user)
    services.twins.forget(turn.who.user)
    await services.store.forget(turn.who)
    return Reply(text=turn.say("forget.done"), replaces=True, private=True)
