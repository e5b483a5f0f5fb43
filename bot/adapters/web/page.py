"""One tab's page: invitation, the place for photos, settings behind a button, answers."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Any

from nicegui import events, ui

from bot.adapters import is_picture
from bot.adapters.web.visits import NAME_CHARS, Entry, Visit, html, upright_jpeg
from bot.background import STARTER_PEOPLE
from bot.conversation import Conversation
from bot.text import plain, shorten
from bot.values import Choices, Reply, Request
from engine.backbones import BACKBONES
from engine.errors import BadSettings

MOST_AT_ONCE = 10
MOST_FACES, FACE_PX = 9, 160
FEW_PEOPLE = 50
MORE = (200, 1_000, 5_000, 10_000)
_face = lru_cache(maxsize=200)(upright_jpeg)  # of portraits, which every page shows


class Page:
    """Photos and choices go in, answers are listed below, newest first.

    ``operated`` says whether whoever sees it runs the program: then it offers what downloads.
    """

    def __init__(self, conversation: Conversation, visit: Visit, *, operated: bool) -> None:
        self._conversation, self._visit, self._operated = conversation, visit, operated
        self._say = visit.text
        self._filling = conversation.filling
        self._seen: tuple[object, ...] = ()  # of the filling, as the page shows it
        self._people = 0
        self._fetched = ""  # the model that is being fetched
        self._said = ""  # about the last choice
        self._sent: set[str] = set()  # names of the photos that come from this page
        # What page.js tells -> what is done.
        self._heard: dict[str, Callable[..., Awaitable[None]]] = {
            "add": self._add,
            "lost": self._lose,
            "press": self._press,
            "choose": self._choose,
            "say": lambda given, _: visit.say(str(given["text"]).strip() or "/help"),
            "no_camera": self._refuse_camera,
        }
        if operated:
            self._heard |= {
                "fetch": self._fetch,
                "fill": self._fill,
                "more": lambda *_: self._offer_faces(more=True),
                "stop": lambda *_: conversation.filling.stop(),
            }

    async def build(self, *, alone: bool) -> None:
        """Everything on the page; from now on it shows what the visit brings."""
        _part("header", self._say, tag="header")
        with ui.element("div").classes("flow"):
            with ui.element("section").classes("invitation"):
                self._faces = _part()
                _part("greeting", self._say).classes("greeting")
                with ui.element("div") as self._frame:
                    self._progress, self._offer = _part(), _part()
            _part("booth", self._say, tag="section").classes("booth")
            with ui.element("section").classes("settings"):
                toolbar = _part().classes("row")
                self._panel = _part().classes("panel").props("hidden")
                toolbar.content = html("toolbar", self._say, f"c{self._panel.id}")
            self.listed = ui.element("section").classes("log").props('role="log"')
            self.listed.props["aria-label"] = self._say("web.log")
            with self.listed:
                for entry in self._visit.entries:
                    entry.place()
        if alone:
            _part("footer", self._say, tag="footer")
        _part("dialogs", self._say)
        await self._follow()
        self.show(await self._conversation.choices(self._visit.sender))
        self._visit.pages.append(self)
        ui.context.client.on_delete(self._leave)
        ui.on("lookalike", self._hear)
        ui.timer(1.0, self._follow)

    async def _hear(self, event: events.GenericEventArguments) -> None:
        verb, *args = event.args if isinstance(event.args, list) else [event.args]
        if verb in self._heard:
            await self._heard[verb](*args)

    async def _follow(self) -> None:
        """Downloads, whoever began them."""
        before, filling = self._seen, self._filling
        self._seen = filling.running, filling.problem, filling.there
        if self._seen != before:
            await self._show_faces()
        if self._seen[:2] != before[:2]:
            await self._offer_faces()
        self._show_progress()
        if self._fetched:
            self.show(await self._conversation.choices(self._visit.sender))

    # Who is here

    async def _show_faces(self) -> None:
        gallery, newest = self._conversation.gallery, self._filling.running

        def read() -> tuple[int, dict[str, bytes | None]]:
            people = gallery.leading_people(MOST_FACES, newest=newest)
            small = (_face(self._conversation, one, FACE_PX) for one in people.values())
            return gallery.counts()[0], dict(zip(people, small, strict=True))

        self._people, faces = await asyncio.to_thread(read)
        encoded = {name: base64.b64encode(one).decode() for name, one in faces.items() if one}
        self._faces.content = html("faces", self._say, encoded, self._people)

    def _show_progress(self) -> None:
        shown = html("progress", self._say, self._filling)
        self._progress.content = shown if self._filling.running else ""

    async def _offer_faces(self, *, problem: str = "", more: bool = False) -> None:
        """What can be done now: begin, watch and stop, get more."""
        kind, running = "", self._filling.running
        if self._operated:
            few = "few" if self._people < FEW_PEOPLE else "enough"
            kind = "filling" if running else "more" if more else few
        if self._filling.problem is not None and not problem:
            problem = self._say("web.fill_failed")
            kind = kind.replace("enough", "more")
        categories = self._filling.categories() if kind == "more" else ()
        asks = await self._filling.contact() is None
        shown = (kind, self._people, problem, asks, MORE, categories)
        self._offer.content = html("offer", self._say, *shown)
        self._show_progress()
        self._frame.classes(replace="" if kind in {"", "enough"} and not running else "offer")
        self._offer.client.run_javascript(f"lookalike.settle({self._offer.id})")

    async def _fill(self, given: dict[str, str], categories: Sequence[str]) -> None:
        people = int(given.get("people", STARTER_PEOPLE))
        if people not in MORE:
            return
        try:
            await self._filling.begin(given.get("contact"), people, categories)
        except BadSettings:
            more, problem = "people" in given, self._say("web.contact_wrong")
            await self._offer_faces(problem=problem, more=more)
        await self._follow()

    # Settings

    def show(self, choices: Choices) -> None:
        """What is chosen now, what could be, and which models are not here."""
        records = BACKBONES if self._operated else {}
        self._panel.content = html("settings", self._say, choices, self._said, records)
        self._panel.client.run_javascript(f"lookalike.settle({self._panel.id})")

    async def _choose(self, command: str, value: str) -> None:
        request = Request(self._visit.sender, command, value or "all")
        reply = await self._visit.answer(request)
        self._said = reply.notice or reply.text
        self.show(await self._conversation.choices(self._visit.sender))

    async def _fetch(self, name: str, _: str) -> None:
        self._fetched, self._said = name, ""
        await self._conversation.fetch_model(name)
        self._fetched, choices = "", await self._conversation.choices(self._visit.sender)
        if name not in {one.name for one in choices.models if one.ready}:
            self._said = self._say("web.fetch_failed", title=BACKBONES[name].title)
        self.show(choices)

    # Photos

    async def _press(self, token: str, action: str) -> None:
        if found := self._visit.find(token):
            await found[0].press(found[1], action)
        else:
            self._visit.refuse(self._say("stale.photo"))

    async def _add(self, files: list[dict[str, Any]]) -> None:
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
                entry = Entry(visit, name=name, preview=str(file["preview"]))
                entries[str(file["key"])] = entry
        if left_out:
            names = ", ".join(left_out)
            refused.append(self._say("web.too_many", most=MOST_AT_ONCE, names=names))
        if refused:
            visit.refuse("\n".join(refused))
        if len(entries) == 2:
            first, second = entries.values()
            second.mate = first
        visit.awaited |= entries
        self._sent.update(entries)
        for entry in reversed(entries.values()):  # so that the first one is at the top
            visit.add(entry)
        self.listed.client.run_javascript(f"lookalike.send({json.dumps([*entries])})")

    async def _leave(self) -> None:
        self._visit.pages.remove(self)
        for key in self._sent:  # those that did not arrive can't any more
            await self._lose(key)

    async def _lose(self, key: str) -> None:
        if entry := self._visit.awaited.pop(key, None):
            entry.show(Reply(text=self._say("web.lost", name=entry.name)))

    async def _refuse_camera(self, *_: object) -> None:
        self._visit.refuse(self._say("web.no_camera"))


def _part(macro: str = "", *args: object, tag: str = "div") -> ui.html:
    """A part of page.html, or room for one."""
    return ui.html(html(macro, *args) if macro else "", sanitize=False, tag=tag)
