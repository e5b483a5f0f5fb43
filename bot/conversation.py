"""What the bot does with a request, the same for every platform: the interface for adapters.

``Conversation.answer`` never raises for anything a person does: every problem becomes a sentence
that says what to do. /help, menus and registration are made from the table of commands; what is
about no photo and no preference is done here.
"""

import asyncio
import dataclasses
import difflib
import functools
import json
import logging
import time
from collections.abc import Awaitable, Callable

from bot import __version__
from bot.commands import Refusal, Services, Turn, compare, notice, photo, preferences, twins
from bot.commands.words import shown
from bot.logs import where
from bot.text import Wording, fit, isolate, plain, rated
from bot.values import Action, Document, Limits, Reply, Request, Sender
from engine.backbones import BACKBONES
from engine.errors import Busy, LookalikeError, SetupProblem, TryLater

log = logging.getLogger(__name__)


async def history(services: Services, turn: Turn) -> Reply:
    """The last matches, newest first."""
    if not services.store.history_days:
        return Reply(text=turn.say("history.off"))
    matches = await services.store.history(turn.who, limit=15)
    if not matches:
        return Reply(text=turn.say("history.empty"))
    lines = [turn.say("history.title")]
    for match in matches:
        date = time.strftime("%Y-%m-%d", time.gmtime(match.at_s))
        said = {"name": isolate(match.person), "model": match.model}
        lines.append(turn.say("history.line", date=date, score=rated(match.score, 5), **said))
    return Reply(text="\n".join(lines))


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
    if ends_s := await services.twins.until_s(turn.who.user):
        until = time.strftime("%Y-%m-%d %H:%M", time.gmtime(ends_s[-1]))
        text += "\n" + turn.say("twins.mydata", count=len(ends_s), until=until)
    document = Document(content, "application/json", "lookalike-mydata.json")
    return Reply(text=text, document=document)


async def ask_to_forget(services: Services, turn: Turn) -> Reply:
    """Asks for confirmation; only the asker's press counts."""
    tag = services.store.identity.tag("forget", turn.who)
    yes = turn.button("button.forget_yes", "forget", "yes", tag)
    no = turn.button("button.forget_no", "forget", "no", tag)
    return Reply(text=turn.say("forget.ask"), buttons=((yes, no),))


async def press_forget(services: Services, turn: Turn, action: Action) -> Reply:
    """Deletes everything, or nothing."""
    if action.text(1) != services.store.identity.tag("forget", turn.who):
        raise Refusal(notice(turn, turn.say("forget.not_yours")))
    if action.text(0) != "yes":
        return Reply(text=turn.say("forget.kept"), replaces=True, private=True)
    # First what needs no database: that one may hang.
    await services.recent.forget(turn.who.user)
    await services.twins.forget(turn.who.user)
    gone = await services.store.forget(turn.who)
    if not services.memory.connected:
        raise TryLater("the shared memory is away, and may still hold photos")
    text = turn.say("forget.done" if gone else "forget.done_later")
    return Reply(text=text, replaces=True, private=True)


async def start(_services: Services, turn: Turn) -> Reply:
    """``/start``: a greeting that says what to do."""
    return Reply(text=turn.say("start.text"))


async def show_help(services: Services, turn: Turn) -> Reply:
    """``/help``: every command."""
    commands = described(services.wording, turn.request.sender.language)
    del commands["start"], commands["help"]
    lines = [f"/{name} - {what}" for name, what in commands.items()]
    parts = (turn.say("help.intro"), "\n".join(lines), turn.say("help.outro"))
    return Reply(text="\n\n".join(parts))


async def about(services: Services, turn: Turn) -> Reply:
    """``/about``: version, people, models and their licences, whose the portraits are."""
    models = []
    for status in services.models.statuses():
        name, title = status.name, status.title
        key = "about.model" if name in BACKBONES else "about.together"
        licence = BACKBONES[name].licence if name in BACKBONES else ""
        models.append(turn.say(key, name=name, title=title, models=title, licence=licence))
    stats = await asyncio.to_thread(services.gallery.stats)
    contact = await services.filling.contact()
    said = {"people": turn.say("about.people", count=stats.people), "models": "\n".join(models)}
    told = "\n" + turn.say("about.contact", contact=contact) if contact else ""
    return Reply(text=turn.say("about.text", version=__version__, **said) + told)


# The order is that of menus and of /help.
COMMANDS: dict[str, Callable[[Services, Turn], Awaitable[Reply]]] = {
    "lookalike": photo.lookalike,
    "compare": compare.compare,
    "morph": photo.morph,
    "parents": photo.parents,
    "twins": twins.twins,
    **{preference.name: preference.command for preference in preferences.PREFERENCES},
    "settings": preferences.settings,
    "history": history,
    "about": about,
    "privacy": privacy,
    "mydata": my_data,
    "forget": ask_to_forget,
    "help": show_help,
    "start": start,
}
# Their answers are nobody else's business, on every platform: ``Conversation`` marks them so, or
# refuses where it can't be whispered; adapters ask nothing but this.
PRIVATE = frozenset({"history", "mydata", "forget"})

# What follows these is of no use to them; /start may carry what a link says.
WORDLESS = PRIVATE | {"settings", "about", "privacy", "help"}

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
ABOUT_PHOTOS = frozenset({*photo.AGAIN, "next", "both", "pair", "rawpair"})


def described(wording: Wording, language: str | None = None) -> dict[str, str]:
    """Every command in the order of menus, with its description (100 characters at most)."""
    return {name: wording.text(f"command.{name}.description", language) for name in COMMANDS}


class Conversation:
    """Turns requests into replies; safe for any number of requests at once on one event loop.

    ``bot.app.open_conversation`` makes one from the settings.
    """

    def __init__(self, services: Services, ignores: Callable[..., bool]) -> None:
        self.wording = services.wording
        self._ignores = ignores
        self._services = services
        self.store = services.store
        self.choices = functools.partial(preferences.choices, services)
        # For a front end of our own, which shows what the others leave to commands.
        self.gallery, self.filling = services.gallery, services.filling
        self.fetch_model = services.models.fetch
        # For whoever watches: called after each answer with facts and milliseconds by step.
        self.models, self.recognizer = services.models, services.recognizer
        self.memory = services.memory
        self.listeners: list[Callable[[dict[str, object], dict[str, float]], None]] = []
        self.decode, self.photo_limits = services.engine.decode, services.engine.limits
        self.photo_lifetime_s = services.recent.lifetime_s
        self.cookie_secret = services.store.identity.keyed("cookie").hex()  # outlives a restart

    async def remembers(self, request: Request) -> bool:
        """Whether a button can do without the photos of the message that was answered."""
        pressed = Action.parse(request.action or "")
        if pressed is None or pressed.verb not in ABOUT_PHOTOS:
            return True
        room = self.store.identity.who(request.sender).room
        recent = await self._services.recent.find(pressed.text(0), room)
        return recent is not None and not (recent.elsewhere and pressed.verb in {"next", "both"})

    async def passes_over(self, sender: Sender) -> bool:
        """See ``Recognizer.passes_over``."""
        return await self.recognizer.passes_over(self.store.identity.who(sender).user)

    async def answer(self, request: Request, limits: Limits) -> Reply:
        """The reply to a request, within the limits.

        Never raises for a person's mistake, a missing model, a full queue or a fault of ours: the
        reply says what to do, or is silent for who is not to be answered. Only cancellation passes
        through.
        """
        sender, text = request.sender, self.wording.text
        if self._ignores(sender.platform, sender.user_id, sender.chat_id):
            return Reply()
        who = self._services.store.identity.who(sender)
        say = functools.partial(text, language=sender.language, platform=sender.platform)
        turn = Turn(request, limits, who, say)
        started, outcome = time.perf_counter(), "cancelled"
        try:
            # A task of its own: what wakes it up does not pass through whoever waits for the reply.
            reply = await asyncio.create_task(self._reply(turn))
            outcome = "answered"
        except LookalikeError as problem:
            details = dict(problem.details)
            if isinstance(problem, Busy):
                details["count"] = max(1, round(float(str(details.get("seconds", 1)))))
            reply, outcome = notice(turn, turn.say(problem.key, **details)), type(problem).__name__
            if details.get("again") and not limits.patient and request.action is None:
                return Reply()
            if isinstance(problem, SetupProblem):
                log.warning("cannot answer", extra={"reason": str(problem)})
        except Refusal as refusal:
            reply, outcome = refusal.reply, "refused"
        except Exception as problem:  # noqa: BLE001 - whatever it is, the person gets an answer
            # The message may quote a photo's bytes or an id: only type and place are logged.
            log.error("fault", extra={"fault": where(problem)})  # noqa: TRY400
            reply, outcome = Reply(text=turn.say("error.internal")), "fault"
        finally:
            turn.ms["total"] = (time.perf_counter() - started) * 1000
            facts = {"platform": sender.platform, "group": sender.is_group, "outcome": outcome}
            steps = {f"{step}_ms": round(ms, 1) for step, ms in turn.ms.items()}
            log.info("answer", extra={**facts, **turn.notes, **steps})
            for listen in self.listeners:
                listen({**facts, **turn.notes}, turn.ms)
        spoiler = any(photo.spoiler for photo in request.photos)
        return dataclasses.replace(fit(reply, limits), spoiler=spoiler)

    async def _reply(self, turn: Turn) -> Reply:
        services, name = self._services, turn.request.command
        if turn.request.action is not None:
            action = Action.parse(turn.request.action)
            press = BUTTONS.get(action.verb) if action else None
            if action is None or press is None:
                turn.notes["asked"] = "stale button"
                return Reply(text=turn.say("stale.button"), private=True)
            turn.notes["asked"] = f"button {action.verb}"
            return await press(services, turn, action)
        if name is None:
            turn.notes["asked"] = "photo" if turn.request.photos else "text"
            hint = Reply(text=turn.say("hint.send_photo"))
            return await photo.lookalike(services, turn) if turn.request.photos else hint
        if name in COMMANDS:
            turn.notes["asked"] = name
            overheard = turn.request.sender.is_group and not turn.limits.whispers
            if overheard and name in PRIVATE:
                return Reply(text=turn.say("private.ask_privately"))
            reply = await COMMANDS[name](services, turn)
            if turn.request.arguments and name in WORDLESS:
                unused = turn.say("hint.unused", given=shown(turn.request.arguments))
                reply = dataclasses.replace(reply, text=f"{reply.text}\n\n{unused}")
            return dataclasses.replace(reply, private=reply.private or name in PRIVATE)
        turn.notes["asked"] = "unknown command"
        given = plain(name)[:32]
        near = difflib.get_close_matches(given, COMMANDS, n=1, cutoff=0.6)
        key = "error.unknown_command_near" if near else "error.unknown_command"
        said = turn.say(key, given=given, near="".join(near))
        return await photo.with_remark(services, turn, said)
