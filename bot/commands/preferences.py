"""What people choose, by command, button or menu: model, matches, category, style.

Each preference is a row of ``PREFERENCES``. In a private chat a pressed button changes its menu; in
a group it counts for whoever presses it.
"""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bot import values
from bot.commands import Refusal, Services, Turn, notice, refusal, words
from bot.commands.photo import answer_photo, changed_by, with_remark
from bot.models import ModelStatus, State
from bot.store import Choice, Who
from bot.text import grid, isolate
from bot.values import ALL, SIDE, STYLES, Action, Button, Choices, ModelChoice, Reply, Sender
from engine.backbones import BACKBONES

TOPS = ("1", "3", "5", "10")
CHOSEN, NOT_CHOSEN = "●", "○"


@dataclass(frozen=True, slots=True)
class Preference:
    """One thing that people choose."""

    name: str  # of the command, the button's verb and the field of ``Choice``
    # The value meant by what was written or by a button's argument; raises Refusal
    parse: Callable[[Services, Turn, str], Awaitable[Any]]
    sentence: Callable[[Services, Turn, Any], str]  # what is said when a value was chosen
    # The choice in force, and a button for each other one
    menu: Callable[[Services, Turn, Any], Awaitable[Reply]]
    # Whether it is stored when a photo came along, too; else it holds for that photo alone
    sticks_with_photo: bool = True

    async def command(self, services: Services, turn: Turn) -> Reply:
        """``/top`` shows the choice, ``/top 3`` makes it; with a photo it answers that, too."""
        request, who = turn.request, turn.who
        if not (request.arguments or request.photos):
            current = await _in_force(services, who)
            return await self.menu(services, turn, getattr(current, self.name))
        given, others = await self._apart(services, request.arguments)
        try:
            value = await self.parse(services, turn, given)
        except Refusal as refused:
            return await with_remark(services, turn, refused.reply.text)
        lines: Sequence[str] = ()
        if self.sticks_with_photo or not request.photos:
            await services.store.choose(who, **{self.name: value})
            lines = (self.sentence(services, turn, value),)
        if not request.photos:
            if others:
                lines = (*lines, *await _choose_others(services, turn, others))
            return Reply(text="\n".join(lines))
        choice = dataclasses.replace(await services.store.choice(who), **{self.name: value})
        if others:
            choice, remarks = await changed_by(services, turn, choice, others)
            lines = (*lines, *remarks)
        return await answer_photo(services, turn, choice, remarks=lines)

    async def _apart(self, services: Services, text: str) -> tuple[str, str]:
        """The words about this preference, and those about others, as in ``/top 3 film``."""
        known = {"models": services.models.names(), "categories": await _categories(services)}
        meant = words.read_category(text, known["categories"]) if self.name == "category" else None
        whole = (meant or "").casefold().split()

        def is_mine(word: str) -> bool:
            found = words.read_wish(word, **known)[0]
            others = found or self.name == "top"
            return self.name in found or word.casefold() in whole or not others

        spoken = text.split()
        mine = [word for word in spoken if is_mine(word)] or spoken
        return " ".join(mine), " ".join(word for word in spoken if word not in mine)

    async def press(self, services: Services, turn: Turn, action: Action) -> Reply:
        """A button of the menu."""
        value = await self.parse(services, turn, action.text(0))
        await services.store.choose(turn.who, **{self.name: value})
        text = self.sentence(services, turn, value)
        if turn.request.sender.is_group:
            return notice(turn, text)
        menu = await self.menu(services, turn, value)
        return dataclasses.replace(menu, replaces=True, notice=text)


async def settings(services: Services, turn: Turn) -> Reply:
    """``/settings``."""
    choice = await _in_force(services, turn.who)
    category, style = _category_name(turn, choice.category), turn.say(f"style.{choice.style}")
    said = {"model": choice.model, "count": choice.top}
    return Reply(text=turn.say("settings.text", category=category, style=style, **said))


async def _in_force(services: Services, who: Who) -> Choice:
    """A person's choices, with the defaults in the place of those not made or no longer known."""
    choice = await services.store.choice(who)
    style = choice.style if choice.style in STYLES else SIDE
    model = services.models.named(choice.model)
    return dataclasses.replace(choice, model=model, top=choice.top or 1, style=style)


async def choices(services: Services, sender: Sender) -> Choices:
    """A person's choices and what there is to choose, for front ends with menus."""
    choice = await _in_force(services, services.store.identity.who(sender))
    models = []
    for one in services.models.statuses():
        said = _state(one, partial(services.wording.text, language=sender.language))
        ready, missing = one.state is State.READY, one.state is State.MISSING
        models.append(ModelChoice(one.name, one.title, ready, said, missing))
    return Choices(tuple(models), await _categories(services), **dataclasses.asdict(choice))


async def _choose_others(services: Services, turn: Turn, others: str) -> list[str]:
    """Stores what else was wished, such as the category in ``/top 3 film``; what to say."""
    before = await services.store.choice(turn.who)
    after, remarks = await changed_by(services, turn, before, others)
    old, new = dataclasses.asdict(before), dataclasses.asdict(after)
    changed = {name: value for name, value in new.items() if value != old[name]}
    await services.store.choose(turn.who, **changed)
    told = [one for one in PREFERENCES if one.name in changed]
    return [*(one.sentence(services, turn, changed[one.name]) for one in told), *remarks]


async def _parse_model(services: Services, turn: Turn, given: str) -> str:
    names = services.models.names()
    name = words.read_model(given, names)
    if name is None and words.means_best(given):
        raise Refusal(Reply(text=services.models.why_not_best(turn.say)))
    if name is None:
        raise Refusal(Reply(text=words.unknown_sentence(turn, "model", given, models=names)))
    turn.notes["model"] = name
    status = services.models.status(name)
    if status and services.models.ready() and not services.models.is_coming(name):
        line = _model_line(turn, status, NOT_CHOSEN) + _how_to_get(services, turn, [status])
        raise Refusal(Reply(text=line) if turn.request.action is None else notice(turn, line))
    return name


def _model_sentence(services: Services, turn: Turn, model: str) -> str:
    if model in services.models.ready() or not services.models.ready():
        return turn.say("model.chosen", model=model)
    standin = services.models.answering(model)
    return turn.say("model.chosen_not_ready", model=model, standin=standin)


async def _model_menu(services: Services, turn: Turn, chosen: str) -> Reply:
    lines, statuses = [turn.say("model.choose", model=chosen)], services.models.statuses()
    for status in statuses:
        mark = CHOSEN if status.name == chosen else NOT_CHOSEN
        lines.append(_model_line(turn, status, mark))
    text = "\n".join(lines) + _how_to_get(services, turn, statuses)
    options = {status.name: status.name for status in statuses}
    return _menu(turn, "model", text, options, chosen)


def _how_to_get(services: Services, turn: Turn, statuses: Sequence[ModelStatus]) -> str:
    """A line on those of the models that are not here and won't come by themselves; else ""."""
    known = [one.name for one in statuses if one.state is State.MISSING]
    lacking = [name for name in known if not services.models.is_coming(name)]
    megabytes = sum(BACKBONES[name].size_bytes or 0 for name in lacking) // 1_000_000
    said = turn.say("model.get", models=" ".join(lacking), megabytes=megabytes)
    return f"\n{said}" if lacking else ""


def _model_line(turn: Turn, status: ModelStatus, mark: str) -> str:
    said = {"model": status.name, "title": status.title, "state": _state(status, turn.say)}
    return turn.say("model.line", mark=mark, **said)


def _state(status: ModelStatus, say: Callable[..., str]) -> str:
    known = status.state is State.FETCHING and status.percent is not None
    return say("model.fetching_percent" if known else status.state, percent=status.percent)


async def _parse(of: str, read: Callable[[str], Any], _: Services, turn: Turn, given: str) -> Any:
    value = read(given)
    if value is None:
        raise Refusal(Reply(text=words.unknown_sentence(turn, of, given)))
    return value


async def _top_menu(_services: Services, turn: Turn, chosen: int) -> Reply:
    options = dict(zip(TOPS, TOPS, strict=True))
    return _menu(turn, "top", turn.say("top.now", count=chosen), options, str(chosen))


async def _style_menu(_services: Services, turn: Turn, chosen: str) -> Reply:
    options = {style: turn.say(f"style.{style}") for style in STYLES}
    text = turn.say("style.choose", style=options[chosen])
    return _menu(turn, "style", text, options, chosen)


async def _parse_category(services: Services, turn: Turn, given: str) -> str | None:
    names = await _categories(services)
    if turn.request.action is not None:  # a button carries a tag
        tags = {values.category_tag(name): name for name in names}
        if given != ALL and given not in tags:
            raise refusal(turn, "stale.button", toast=False)
        return tags.get(given)
    name = words.read_category(given, names)
    if name is None and not words.means_everybody(given):
        raise Refusal(Reply(text=words.unknown_sentence(turn, "category", given, (), names)))
    return name


async def _category_menu(services: Services, turn: Turn, chosen: str | None) -> Reply:
    names = await _categories(services)
    if not names:
        return Reply(text=turn.say("category.none"))
    text = turn.say("category.choose", category=_category_name(turn, chosen))
    columns, rows = turn.limits.buttons_per_row, turn.limits.button_rows
    if len(names) >= rows * columns:
        text += "\n\n" + ", ".join(isolate(name) for name in (*names, ALL))
    options = {ALL: turn.say("category.all")}
    options |= {values.category_tag(name): name for name in names[: rows * columns - 1]}
    # Names are long: three side by side can be read on a phone, if all then have room.
    few = min(3, columns)
    per_row = few if len(options) <= few * rows else columns
    tag = ALL if chosen is None else values.category_tag(chosen)
    return _menu(turn, "category", text, options, tag, per_row)


async def _categories(services: Services) -> tuple[str, ...]:
    return await asyncio.to_thread(services.gallery.categories)


def _category_name(turn: Turn, category: str | None) -> str:
    return turn.say("category.all") if category is None else isolate(category)


def _menu(
    turn: Turn, verb: str, text: str, options: dict[str, str], chosen: str, per_row: int = 0
) -> Reply:
    """A text with a button per option, by its argument; the chosen one is marked."""
    buttons = []
    for argument, label in options.items():
        mark = CHOSEN if argument == chosen else NOT_CHOSEN
        buttons.append(Button(f"{mark} {label}", Action.encode(verb, argument)))
    return Reply(text=text, buttons=grid(buttons, per_row or turn.limits.buttons_per_row))


PREFERENCES = (
    Preference(
        name="top",
        parse=partial(_parse, "top", words.read_top),
        sentence=lambda _, turn, top: turn.say("top.chosen", count=top),
        menu=_top_menu,
        sticks_with_photo=False,
    ),
    Preference("model", _parse_model, _model_sentence, _model_menu),
    Preference(
        name="category",
        parse=_parse_category,
        sentence=lambda _, turn, name: turn.say(
            "category.chosen", category=_category_name(turn, name)
        ),
        menu=_category_menu,
    ),
    Preference(
        name="style",
        parse=partial(_parse, "style", words.read_style),
        sentence=lambda _, turn, style: turn.say(f"style.chosen_{style}"),
        menu=_style_menu,
    ),
)
