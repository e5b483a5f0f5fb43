"""What visitors asked lately and were answered, in memory for as long as photos are.

A visit outlives its pages: what is awaited while one is loaded again arrives on the new one.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import cv2
import jinja2
from nicegui import ui

from bot.values import Action, Attachment, Button, Limits, Reply, Request, Sender
from engine.errors import PhotoProblem

if TYPE_CHECKING:
    from bot.adapters.web.page import Page
    from bot.conversation import Conversation

T = TypeVar("T", bound=ui.element)
_chosen = attrgetter("model", "top", "category", "style")
LIMITS = Limits(buttons_per_row=8, button_rows=8, label_chars=60, whispers=True)
MOST_ENTRIES = 40
MOST_PHOTO_BYTES = 64_000_000  # of one visitor; older photos are given up before their answers
NAME_CHARS = 60
# Commands about a photo -> how many of the last ones they are about.
COMPARE = "compare"
ABOUT_PHOTOS = {"lookalike": 1, "morph": 1, "parents": 1, COMPARE: 2}


_PAGES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)


def html(macro: str, *args: object) -> str:
    """A part of page.html; what it is given is shown as text, never as markup."""
    return str(getattr(_PAGES.get_template("page.html").module, macro)(*args)).strip()


@dataclasses.dataclass(slots=True, eq=False)
class Part:
    """A reply, or the wait for it, and where it stands on pages; the token names its files."""

    reply: Reply | None = None
    token: str = ""
    bodies: list[ui.html] = dataclasses.field(default_factory=list)

    def mark(self, *, busy: bool) -> None:
        """Says whether what stands there is out of date."""
        for body in there(self.bodies):
            body.props["aria-busy"] = "true" if busy else "false"


@dataclasses.dataclass(slots=True, eq=False)
class Entry:
    """A photo or a command, the answer to it, and after each part what its buttons answered."""

    visit: Visit
    said: str = ""
    name: str = ""  # of the photo's file
    preview: str = ""  # the browser's own address of the photo, while it is looked at
    photos: tuple[bytes, ...] = ()
    mate: Entry | None = None  # the first photo, of the second of two that came together
    since_s: float = dataclasses.field(default_factory=time.monotonic)
    parts: list[Part] = dataclasses.field(default_factory=lambda: [Part()])
    _articles: list[ui.element] = dataclasses.field(default_factory=list)

    def place(self) -> ui.element:
        """Stands on one more page from now on, in the element that is open there."""
        with ui.element("article") as article:
            article.props["aria-label"] = self.said or self.name or "…"
            if self.said:
                ui.label(self.said).classes("yours")
            for part in self.parts:
                self._place(part)
        self._articles.append(article)
        return article

    def _place(self, part: Part) -> ui.html:
        part.bodies.append(ui.html(self._html(part), sanitize=False).classes("part"))
        part.mark(busy=part.reply is None)
        return part.bodies[-1]

    def _html(self, part: Part) -> str:
        return html("answer", self.visit.text, self, part)

    def show(self, reply: Reply, part: Part | None = None) -> None:
        """Puts a reply in the place of a part, or of the first one."""
        part = part or self.parts[0]
        newest = part.reply is None and self in [*self.visit.entries][:1]
        part.reply, part.token = reply, secrets.token_urlsafe(9)
        for body in there(part.bodies):
            body.content = self._html(part)
            if newest and part is self.parts[0]:
                body.client.run_javascript(f"lookalike.reveal({body.id})")
        part.mark(busy=False)

    async def ask_photo(self) -> None:
        """Shows what the photo is answered; the second of two can be compared with the first."""
        self.parts[0].mark(busy=True)
        request = Request(self.visit.sender, photos=attachments(self.photos))
        reply = await self.visit.answer(request)
        if reply.answers and self.mate is not None and self.mate.photos:
            both = Button(self.visit.text("button.compare"), COMPARE)
            reply = dataclasses.replace(reply, buttons=((both,), *reply.buttons))
        self.show(reply)

    async def press(self, part: Part, action: str) -> None:
        """Answers a button: in the place of its part, or after it."""
        visit, waiting = self.visit, Part()
        self.parts.insert(self.parts.index(part) + 1, waiting)
        for article, body in zip(there(self._articles), there(part.bodies), strict=True):
            with article:
                place = article.default_slot.children.index(body) + 1
                self._place(waiting).move(target_index=place)
        request = Request(visit.sender, photos=attachments(self.photos), action=action)
        if action == COMPARE and self.mate is not None:
            photos = attachments(self.mate.photos + self.photos)
            request = Request(visit.sender, COMPARE, photos=photos)
        reply = await visit.answer(request)
        asked = Action.parse(action)
        if asked is not None and asked.verb == "forget" and asked.text(0) == "yes":
            visit.forget(but=self)
        if reply.replaces:
            self.parts.remove(waiting)
            for body in there(waiting.bodies):
                body.delete()
        self.show(reply, part if reply.replaces else waiting)
        shown = there((part if reply.replaces else waiting).bodies)
        for body, answer in zip(there(part.bodies), shown, strict=False):
            body.client.run_javascript(f"lookalike.settle({body.id}, {answer.id})")

    def forget(self) -> None:
        """Gives up photo and answers, on pages, too."""
        self.photos, self.mate, self.parts = (), None, [Part()]
        for article in there(self._articles):
            article.delete()


class Visit:
    """One visitor's entries, newest first, and where they are listed."""

    def __init__(self, conversation: Conversation, sender: Sender) -> None:
        self.sender = sender  # as the page that was loaded last says
        self.asked_s = time.monotonic()  # when that was asked for
        self.entries: deque[Entry] = deque()
        self.pages: list[Page] = []
        self.awaited: dict[str, Entry] = {}  # photos that are on their way, by key
        self._conversation = conversation
        self._again: set[asyncio.Task[None]] = set()

    def text(self, key: str, **details: object) -> str:
        """A sentence in the visitor's language."""
        said = {"platform": self.sender.platform, **details}
        return self._conversation.wording.text(key, self.sender.language, **said)

    def add(self, entry: Entry) -> None:
        """Shows a new entry; the oldest goes after some."""
        self.entries.appendleft(entry)
        for page in self.pages:
            with page.listed:
                article = entry.place()
            article.move(target_index=0)
            article.client.run_javascript(f"lookalike.reveal({article.id})")
        while len(self.entries) > MOST_ENTRIES:
            self.entries.pop().forget()

    def refuse(self, text: str) -> None:
        """Shows a sentence about what was not taken."""
        entry = Entry(self)
        entry.parts[0].reply = Reply(text=text)
        self.add(entry)

    async def receive(self, entry: Entry, photo: bytes) -> None:
        """Answers a photo that has arrived."""
        entry.photos = (photo,)
        room = MOST_PHOTO_BYTES
        for one in self.entries:
            room -= sum(map(len, one.photos))
            if room < 0 and one is not entry:
                one.photos = ()
        await entry.ask_photo()

    async def say(self, text: str) -> None:
        """Answers a typed command; where it is about photos it means the last ones."""
        name, _, arguments = text.removeprefix("/").partition(" ")
        entry = Entry(self, said=text)
        known = [one.photos[0] for one in self._with_photo()]
        entry.photos = tuple(reversed(known[: ABOUT_PHOTOS.get(name.lower(), 0)]))
        self.add(entry)
        photos = attachments(entry.photos)
        request = Request(self.sender, name.lower(), arguments.strip(), photos)
        entry.show(await self.answer(request))

    async def answer(self, request: Request) -> Reply:
        """The reply to a request; a setting that it changes answers the photo at hand again."""
        if request.command is None and request.action is None:
            return await self._conversation.answer(request, LIMITS)
        before = await self._conversation.choices(self.sender)
        reply = await self._conversation.answer(request, LIMITS)
        after = await self._conversation.choices(self.sender)
        for page in self.pages:
            page.show(after)
        if _chosen(before) != _chosen(after):
            for entry in self._with_photo()[:1]:
                task = asyncio.create_task(entry.ask_photo())
                self._again.add(task)
                task.add_done_callback(self._again.discard)
        return reply

    def forget(self, but: Entry) -> None:
        """Gives up every other entry."""
        for entry in self.entries:
            if entry is not but:
                entry.forget()
        self.entries = deque([but])

    def find(self, token: str) -> tuple[Entry, Part] | None:
        """The reply whose files have that name; None if it is gone."""
        parts = ((entry, part) for entry in self.entries for part in entry.parts)
        return next((one for one in parts if one[1].token == token), None)

    def tidy(self, lifetime_s: float) -> None:
        """Gives up what is older."""
        while self.entries and self.entries[-1].since_s <= time.monotonic() - lifetime_s:
            self.entries.pop().forget()

    def _with_photo(self) -> list[Entry]:
        return [one for one in self.entries if one.photos and not one.said]


def there(elements: list[T]) -> list[T]:
    """Those whose page is open; the others are dropped."""
    elements[:] = [one for one in elements if not one.is_deleted]
    return elements


def upright_jpeg(conversation: Conversation, photo: bytes, edge_px: int) -> bytes | None:
    """The photo as a JPEG that every browser shows, with that longer side; None if it is none."""
    try:
        pixels = conversation.decode(photo).pixels
    except PhotoProblem:
        return None
    scale = min(1.0, edge_px / max(pixels.shape))
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1].tobytes()


def attachments(photos: Sequence[bytes]) -> tuple[Attachment, ...]:
    """Photos as they go into a request."""

    async def fetch(photo: bytes) -> bytes:
        return photo

    return tuple(Attachment(partial(fetch, one)) for one in photos)
