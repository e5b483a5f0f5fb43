"""How answers are drawn: ``/style`` and its buttons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot.actions import Action
from bot.buttons import grid
from bot.card_styles import STYLE_KEYS, style_key
from bot.chat_arguments import SIDE, STYLES, read_style
from bot.choosing import CHOSEN, NOT_CHOSEN, quoted
from bot.reply import Button, Reply
from bot.turn import Refusal, Turn

if TYPE_CHECKING:
    from bot.store import Store

__all__ = ["Styling"]


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
