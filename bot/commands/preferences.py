"""What people choose: model, number of matches, category; by command or by button."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bot.buttons import Rows, grid
from bot.commands.words import (
    means_best,
    means_everybody,
    read_category,
    read_model,
    read_style,
    read_top,
)
from bot.context import Refusal, Turn
from bot.models import State
from bot.text import STYLE_KEYS, style_key
from bot.values import (
    ALL,
    MOST_MATCHES,
    SIDE,
    STYLES,
    Action,
    Button,
    Choices,
    ModelChoice,
    Reply,
    category_tag,
)
from bot.wording import Wording, isolate

if TYPE_CHECKING:
    from bot.models import Models, ModelStatus
    from bot.store.keys import Who
    from bot.store.store import Store
    from gallery.gallery import Gallery

__all__ = ["CHOSEN", "NOT_CHOSEN", "Choosing", "Styling", "quoted"]

TOPS = (1, 3, 5, 10)
SHOWN_GIVEN_CHARS = 40
CHOSEN, NOT_CHOSEN = "●", "○"


class Choosing:
    """Shows and changes what people have chosen."""

    def __init__(self, *, wording: Wording, store: Store, desk: Models, gallery: Gallery) -> None:
        self._wording = wording
        self._store = store
        self._desk = desk
        self._gallery = gallery

    async def choices(self, who: Who, language: str | None) -> Choices:
        """What somebody has chosen and could choose."""
        choice = await self._store.choice(who)
        return Choices(
            models=tuple(
                ModelChoice(
                    name=standing.name,
                    title=standing.title,
                    ready=standing.state is State.READY,
                    state=self._state(standing, language),
                )
                for standing in self._desk.standings()
            ),
            categories=await self._categories(),
            model=self._listed(choice.model),
            top=choice.top or 1,
            category=choice.category,
            style=choice.style if choice.style in STYLES else SIDE,
        )

    async def settings(self, turn: Turn) -> Reply:
        """``/settings``."""
        choice = await self._store.choice(turn.who)
        return Reply(
            text=turn.say(
                "settings.text",
                model=choice.model or self._desk.default,
                count=choice.top or 1,
                category=self._shown_category(turn, choice.category),
                style=turn.say(style_key(choice.style)),
            )
        )

    async def model(self, turn: Turn) -> Reply:
        """``/model`` shows the choice, ``/model senet`` makes it."""
        if turn.request.arguments:
            return Reply(text=await self.choose_model(turn, turn.request.arguments))
        chosen = (await self._store.choice(turn.who)).model or self._desk.default
        return self._model_menu(turn, chosen)

    async def choose_model(self, turn: Turn, given: str) -> str:
        """Stores the model meant; what to say about it.

        Raises:
            Refusal: If there is no such model.
        """
        names = [standing.name for standing in self._desk.standings()]
        name = read_model(given, names)
        if name is None and means_best(given):
            why = self._desk.why_not_best()
            raise Refusal(Reply(text=turn.say(why.key, **why.details)))
        if name is None:
            text = turn.say("model.unknown", given=quoted(given), models=", ".join(names))
            raise Refusal(Reply(text=text))
        await self._store.choose_model(turn.who, name)
        turn.notes["model"] = name
        if name in self._desk.ready() or not self._desk.ready():
            return turn.say("model.chosen", model=name)
        standin = self._desk.answering(name)
        return turn.say("model.chosen_not_ready", model=name, standin=standin)

    async def press_model(self, turn: Turn, action: Action) -> Reply:
        """A button of the model menu; in a group it counts for whoever presses it."""
        text = await self.choose_model(turn, action.text(0))
        if turn.request.sender.is_group:
            return Reply(text=text, notice=text, private=True)
        name = read_model(action.text(0), [one.name for one in self._desk.standings()])
        menu = self._model_menu(turn, name or self._desk.default)
        return Reply(text=menu.text, buttons=menu.buttons, replaces=True, notice=text)

    def parse_top(self, turn: Turn, given: str) -> int:
        """The number of matches meant.

        Raises:
            Refusal: If it is none from 1 to 10.
        """
        top = read_top(given)
        if top is None:
            raise Refusal(Reply(text=turn.say("top.out_of_range", most=MOST_MATCHES)))
        return top

    async def top(self, turn: Turn) -> Reply:
        """``/top`` shows how many matches are shown in this chat, ``/top 3`` changes it."""
        if turn.request.arguments:
            top = self.parse_top(turn, turn.request.arguments)
            await self._store.choose_top(turn.who, top)
            return Reply(text=turn.say("top.chosen", count=top))
        return self._top_menu(turn, (await self._store.choice(turn.who)).top or 1)

    async def press_top(self, turn: Turn, action: Action) -> Reply:
        """A button of the menu of numbers."""
        top = self.parse_top(turn, action.text(0))
        await self._store.choose_top(turn.who, top)
        text = turn.say("top.chosen", count=top)
        if turn.request.sender.is_group:
            return Reply(text=text, notice=text, private=True)
        menu = self._top_menu(turn, top)
        return Reply(text=menu.text, buttons=menu.buttons, replaces=True, notice=text)

    async def category(self, turn: Turn) -> Reply:
        """``/category`` shows the choice, ``/category film`` makes it, ``all`` clears it."""
        if turn.request.arguments:
            return Reply(text=await self.choose_category(turn, turn.request.arguments))
        return await self._category_menu(turn, (await self._store.choice(turn.who)).category)

    async def choose_category(self, turn: Turn, given: str) -> str:
        """Stores the category meant; what to say about it.

        Raises:
            Refusal: If there is no such category.
        """
        names = await self._categories()
        name = read_category(given, names)
        if name is None and not means_everybody(given):
            if not names:
                raise Refusal(Reply(text=turn.say("category.none")))
            listed = ", ".join(isolate(name) for name in (*names, ALL))
            text = turn.say("category.unknown", given=quoted(given), categories=listed)
            raise Refusal(Reply(text=text))
        await self._store.choose_category(turn.who, name)
        return turn.say("category.chosen", category=self._shown_category(turn, name))

    async def press_category(self, turn: Turn, action: Action) -> Reply:
        """A button of the category menu."""
        tag = action.text(0)
        names = {category_tag(name): name for name in await self._categories()}
        if tag != ALL and tag not in names:
            raise Refusal(Reply(text=turn.say("stale.button"), private=True))
        category = names.get(tag)
        await self._store.choose_category(turn.who, category)
        text = turn.say("category.chosen", category=self._shown_category(turn, category))
        if turn.request.sender.is_group:
            return Reply(text=text, notice=text, private=True)
        menu = await self._category_menu(turn, category)
        return Reply(text=menu.text, buttons=menu.buttons, replaces=True, notice=text)

    def _listed(self, model: str | None) -> str:
        """The model chosen, if menus show it; one that is gone leaves the default."""
        return model if model and self._desk.standing(model) else self._desk.default

    def _model_menu(self, turn: Turn, chosen: str) -> Reply:
        language = turn.request.sender.language
        lines = [turn.say("model.choose", model=chosen)]
        buttons = []
        for standing in self._desk.standings():
            mark = CHOSEN if standing.name == chosen else NOT_CHOSEN
            lines.append(
                turn.say(
                    "model.line",
                    mark=mark,
                    model=standing.name,
                    title=standing.title,
                    state=self._state(standing, language),
                )
            )
            action = Action.of("model", standing.name).encode()
            buttons.append(Button(f"{mark} {standing.name}", action))
        return Reply(text="\n".join(lines), buttons=grid(buttons, turn.limits.buttons_per_row))

    def _top_menu(self, turn: Turn, chosen: int) -> Reply:
        buttons = [
            Button(
                f"{CHOSEN if top == chosen else NOT_CHOSEN} {top}", Action.of("top", top).encode()
            )
            for top in TOPS
        ]
        return Reply(
            text=turn.say("top.now", count=chosen),
            buttons=grid(buttons, turn.limits.buttons_per_row),
        )

    async def _category_menu(self, turn: Turn, chosen: str | None) -> Reply:
        names = await self._categories()
        if not names:
            return Reply(text=turn.say("category.none"))
        text = turn.say("category.choose", category=self._shown_category(turn, chosen))
        most = turn.limits.button_rows * turn.limits.buttons_per_row
        if len(names) >= most:
            listed = ", ".join(isolate(name) for name in (*names, ALL))
            text += f"\n\n{listed}"
        return Reply(text=text, buttons=self._category_buttons(turn, names[: most - 1], chosen))

    def _category_buttons(self, turn: Turn, names: tuple[str, ...], chosen: str | None) -> Rows:
        everybody = Button(
            f"{CHOSEN if chosen is None else NOT_CHOSEN} {turn.say('category.all')}",
            Action.of("category", ALL).encode(),
        )
        each = [
            Button(
                f"{CHOSEN if name == chosen else NOT_CHOSEN} {name}",
                Action.of("category", category_tag(name)).encode(),
            )
            for name in names
        ]
        # Names are long: three side by side can be read on a phone, if all then have room.
        per_row = min(3, turn.limits.buttons_per_row)
        if len(each) + 1 > per_row * turn.limits.button_rows:
            per_row = turn.limits.buttons_per_row
        return grid([everybody, *each], per_row)

    async def _categories(self) -> tuple[str, ...]:
        return await asyncio.to_thread(self._gallery.categories)

    def _shown_category(self, turn: Turn, category: str | None) -> str:
        return turn.say("category.all") if category is None else isolate(category)

    def _state(self, standing: ModelStatus, language: str | None) -> str:
        if standing.state is State.FETCHING and standing.percent is not None:
            return self._wording.text("model.fetching_percent", language, percent=standing.percent)
        return self._wording.text(standing.state.value, language)


def quoted(given: str) -> str:
    """What somebody wrote, short enough to be said back."""
    short = " ".join(given.split())
    return isolate(short if len(short) <= SHOWN_GIVEN_CHARS else short[:SHOWN_GIVEN_CHARS] + "…")


class Styling:
    """Shows and changes how somebody's answers are drawn."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def style(self, turn: Turn) -> Reply:
        """``/style`` shows the choice, ``/style split`` makes it."""
        if turn.request.arguments:
            return Reply(text=await self.choose(turn, turn.request.arguments))
        return self._menu(turn, (await self._store.choice(turn.who)).style)

    async def choose(self, turn: Turn, given: str) -> str:
        """Stores the style meant; what to say about it.

        Raises:
            Refusal: If there is no such style.
        """
        style = read_style(given)
        if style is None:
            listed = ", ".join(STYLES)
            text = turn.say("style.unknown", given=quoted(given), styles=listed)
            raise Refusal(Reply(text=text))
        await self._store.choose_style(turn.who, style)
        return turn.say(STYLE_KEYS[style][1])

    async def press(self, turn: Turn, action: Action) -> Reply:
        """A button of the menu of styles; in a group it counts for whoever presses it."""
        text = await self.choose(turn, action.text(0))
        if turn.request.sender.is_group:
            return Reply(text=text, notice=text, private=True)
        menu = self._menu(turn, read_style(action.text(0)))
        return Reply(text=menu.text, buttons=menu.buttons, replaces=True, notice=text)

    def _menu(self, turn: Turn, chosen: str | None) -> Reply:
        chosen = chosen if chosen in STYLES else SIDE
        buttons = [
            Button(
                f"{CHOSEN if style == chosen else NOT_CHOSEN} {turn.say(style_key(style))}",
                Action.of("style", style).encode(),
            )
            for style in STYLES
        ]
        return Reply(
            text=turn.say("style.choose", style=turn.say(style_key(chosen))),
            buttons=grid(buttons, turn.limits.buttons_per_row),
        )
