"""Who the gallery holds, and how it gets famous faces from Wikimedia."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nicegui import ui

from bot.adapters.web.visits import Visit, html, upright_jpeg
from bot.background import STARTER_PEOPLE
from engine.errors import BadSettings

if TYPE_CHECKING:
    from bot.conversation import Conversation

MOST_FACES, FACE_PX = 9, 160
FEW_PEOPLE = 50
MORE = (200, 1_000, 5_000, 10_000)


class Invitation:
    """The top of the page; follows a download, whoever began it.

    ``operated`` says whether whoever sees it may begin and stop one.
    """

    def __init__(self, conversation: Conversation, visit: Visit, *, operated: bool) -> None:
        self._conversation, self._visit, self._operated = conversation, visit, operated
        self._filling = conversation.filling
        self._state = self._filling.state
        self._people = 0
        self._wants_more = False

    async def build(self) -> None:
        """Puts it into the element that is open."""
        with ui.element("section").classes("invitation") as section:
            section.props["aria-label"] = self._visit.text("web.gallery")
            self._faces = ui.html("", sanitize=False)
            ui.html(html("greeting", self._visit.text), sanitize=False).classes("greeting")
            with ui.element("div") as self._frame:
                self._progress = ui.html("", sanitize=False)
                self._offer = ui.html("", sanitize=False)
        await self._show_faces()
        await self.draw()
        ui.timer(1.0, self._follow)

    async def _show_faces(self) -> None:
        gallery, newest = self._conversation.gallery, self._filling.state.running

        def read() -> tuple[int, dict[str, str]]:
            people = gallery.leading_people(MOST_FACES, newest=newest)
            faces = {name: self._face_url(jpeg) for name, jpeg in people.items()}
            return gallery.counts()[0], {name: face for name, face in faces.items() if face}

        self._people, faces = await asyncio.to_thread(read)
        self._faces.content = html("faces", self._visit.text, faces, self._people)

    def _face_url(self, portrait: bytes) -> str:
        small = upright_jpeg(self._conversation, portrait, FACE_PX)
        return "data:image/jpeg;base64," + base64.b64encode(small).decode() if small else ""

    async def _follow(self) -> None:
        before, self._state = self._state, self._filling.state
        if self._state.there != before.there or self._state.running != before.running:
            await self._show_faces()
        if self._state.running != before.running or self._state.problem != before.problem:
            await self.draw()
        elif self._state != before:
            self._show_progress()

    def _show_progress(self) -> None:
        shown = html("progress", self._visit.text, self._state)
        self._progress.content = shown if self._state.running else ""

    async def draw(self, *, problem: str = "", more: bool = False) -> None:
        """What can be done now: begin, watch and stop, get more."""
        kind, state, text = "", self._state, self._visit.text
        if self._operated:
            few = "few" if self._people < FEW_PEOPLE else "enough"
            kind = "filling" if state.running else "more" if more else few
        if state.problem is not None and not problem:
            problem = text("web.fill_failed")
            kind = kind.replace("enough", "more")
        asks = await self._filling.contact() is None
        categories = self._filling.categories() if kind == "more" else ()
        shown = (kind, self._people, problem, asks, MORE, categories)
        self._offer.content = html("offer", text, *shown)
        self._show_progress()
        self._frame.classes(replace="" if kind in {"", "enough"} and not state.running else "offer")
        self._offer.client.run_javascript(f"lookalike.settle({self._offer.id})")

    async def fill(self, contact: str | None, people: int, categories: Sequence[str]) -> None:
        """Begins a download, or says what is wrong with the contact."""
        try:
            await self._filling.begin(contact, people, categories)
        except BadSettings:
            more = bool(categories) or people != STARTER_PEOPLE
            await self.draw(problem=self._visit.text("web.contact_wrong"), more=more)
        await self._follow()
