"""One tab's page: invitation, the place for photos, settings behind a button, answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from nicegui import events, ui

from bot.adapters import is_picture
from bot.adapters.web.invitation import MORE, Invitation
from bot.adapters.web.visits import NAME_CHARS, Entry, Visit, html
from bot.background import STARTER_PEOPLE
from bot.text import plain, shorten
from bot.values import Choices, Reply, Request
from engine.backbones import BACKBONES

if TYPE_CHECKING:
    from bot.conversation import Conversation

MOST_AT_ONCE = 10


class Page:
    """Photos and choices go in, answers are listed below, newest first.

    ``operated`` says whether whoever sees it runs the program: then it offers what downloads.
    """

    def __init__(self, conversation: Conversation, visit: Visit, *, operated: bool) -> None:
        self._conversation, self._visit, self._operated = conversation, visit, operated
        self._say = visit.text
        self._invitation = Invitation(conversation, visit, operated=operated)
        self._said = ""  # about the last choice
        # What page.js tells -> what is done.
        self._heard: dict[str, Callable[..., Awaitable[None]]] = {
            "add": self._added,
            "lost": self._lost,
            "press": self._pressed,
            "choose": self._chosen,
            "say": lambda given, _: visit.say(str(given["text"]).strip() or "/help"),
            "no_camera": self._no_camera,
        }
        if operated:
            self._heard |= {
                "fetch": self._fetch,
                "fill": self._fill,
                "more": lambda *_: self._invitation.draw(more=True),
                "stop": lambda *_: conversation.filling.stop(),
            }

    async def build(self, *, alone: bool) -> None:
        """Everything on the page; from now on it shows what the visit brings."""
        choices = await self._conversation.choices(self._visit.sender)
        text = self._say
        ui.html(html("header", text), sanitize=False, tag="header")
        with ui.element("div").classes("flow"):
            await self._invitation.build()
            booth = ui.html(html("booth", text), sanitize=False, tag="section").classes("booth")
            booth.props["aria-label"] = text("web.photo")
            with ui.element("section").classes("settings") as section:
                section.props["aria-label"] = text("web.settings")
                toolbar = ui.html("", sanitize=False).classes("row")
                self._panel = ui.html("", sanitize=False).classes("panel").props("hidden")
                toolbar.content = html("toolbar", text, f"c{self._panel.id}")
            listed = ui.element("section").classes("log").props('role="log"')
            listed.props["aria-label"] = text("web.log")
            with listed:
                for entry in self._visit.entries:
                    entry.place()
        if alone:
            ui.html(html("footer", text), sanitize=False, tag="footer")
        ui.html(html("dialogs", text), sanitize=False)
        self._show(choices)
        self._visit.lists.append(listed)
        self._visit.followers.append(self._show)
        ui.context.client.on_delete(lambda: self._visit.lists.remove(listed))
        ui.context.client.on_delete(lambda: self._visit.followers.remove(self._show))
        ui.on("lookalike", self._hear)

    async def _hear(self, event: events.GenericEventArguments) -> None:
        verb, *args = event.args if isinstance(event.args, list) else [event.args]
        if verb in self._heard:
            await self._heard[verb](*args)

    def _show(self, choices: Choices) -> None:
        """What is chosen now, what could be, and which models are not here."""
        records = BACKBONES if self._operated else {}
        self._panel.content = html("settings", self._say, choices, self._said, records)
        self._panel.client.run_javascript(f"lookalike.settle({self._panel.id})")

    async def _chosen(self, command: str, value: str) -> None:
        request = Request(self._visit.sender, command, value or "all")
        reply = await self._visit.answer(request)
        self._said = reply.notice or reply.text
        self._show(await self._conversation.choices(self._visit.sender))

    async def _pressed(self, token: str, action: str) -> None:
        found = self._visit.find(token)
        if found is None:
            self._visit.refuse(self._say("stale.photo"))
        else:
            await found[0].press(found[1], action)

    async def _fetch(self, name: str, _: str) -> None:
        """Fetches a model, and says how far it is."""
        fetching = asyncio.ensure_future(self._conversation.fetch_model(name))
        done: set[Any] = set()
        while not done and not self._panel.is_deleted:
            done, _waiting = await asyncio.wait({fetching}, timeout=1.0)
            choices = await self._conversation.choices(self._visit.sender)
            ready = [one.name for one in choices.models if one.ready]
            failed = done and name not in ready
            said = self._say("web.fetch_failed", title=BACKBONES[name].title)
            self._said = said if failed else ""
            self._show(choices)

    async def _fill(self, given: dict[str, str], categories: list[str]) -> None:
        people = int(given.get("people", STARTER_PEOPLE))
        if people in MORE:
            await self._invitation.fill(given.get("contact"), people, categories)

    async def _added(self, files: list[dict[str, Any]]) -> None:
        """Files were dropped, pasted, chosen or taken: refuses by name, or has them sent."""
        visit, limit = self._visit, self._conversation.photo_limits.max_bytes
        entries: dict[str, Entry] = {}
        refused: list[str] = []
        left_out: list[str] = []
        for file in files:
            name, size = shorten(plain(str(file["name"])), NAME_CHARS), int(file["size"])
            if not is_picture(str(file["type"]), name):
                refused.append(self._say("web.no_picture", name=name))
            elif size > limit:
                said = {"name": name, "megabytes": limit // 1_000_000}
                refused.append(self._say("web.too_large", size=f"{size / 1e6:.1f}", **said))
            elif len(entries) == MOST_AT_ONCE:
                left_out.append(name)
            else:
                preview = str(file["preview"])  # of its "blob:", which means nothing elsewhere
                entries[str(file["key"])] = Entry(visit, name=name, preview=preview)
        if left_out:
            names = ", ".join(left_out)
            refused.append(self._say("web.too_many", most=MOST_AT_ONCE, names=names))
        if refused:
            visit.refuse("\n".join(refused))
        if len(entries) == 2:
            first, second = entries.values()
            second.mate = first
        visit.awaited |= entries
        for entry in reversed(entries.values()):  # so that the first one is at the top
            visit.add(entry)
        self._panel.client.run_javascript(f"lookalike.send({json.dumps([*entries])})")

    async def _lost(self, key: str) -> None:
        entry = self._visit.awaited.pop(key, None)
        if entry is not None:
            entry.show(Reply(text=self._say("web.lost", name=entry.name)))

    async def _no_camera(self, *_: object) -> None:
        self._visit.refuse(self._say("web.no_camera"))
