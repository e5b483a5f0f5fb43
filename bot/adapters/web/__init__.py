"""The local web chat: NiceGUI on uvicorn, in the process and event loop of the other adapters."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import resources
from typing import Any

import click
import uvicorn
from fastapi import FastAPI
from fastapi import Request as HttpRequest
from nicegui import app as nicegui_app
from nicegui import events, ui
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartParser
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from bot.adapters import Adapter, listening_socket, or_stop
from bot.adapters.web.answers import Entry
from bot.conversation import Conversation
from bot.settings import WebSettings
from bot.text import style_key
from bot.values import STYLES, Attachment, Choices, Limits, Reply, Request, Sender, photo_number
from engine.errors import SetupProblem

log = logging.getLogger(__name__)

LIMITS = Limits(buttons_per_row=8, button_rows=8, label_chars=60, whispers=True)
UPLOAD_BYTES = 25_000_000
STOP_S = 5
EVERYBODY = ""  # the value of the category menu for all categories
MOST_ENTRIES = 30
COOKIE_S = 365 * 24 * 3600
TOKENS = """\
[telegram]
token = "..."   # @BotFather

[discord]
token = "..."    # discord.com/developers"""


class WebAdapter(Adapter[WebSettings]):
    """Serves the web chat; where it is alone, the page says how to add a token."""

    name = "web"

    async def run(self, stop: asyncio.Event) -> None:
        """Serves; raises SetupProblem, too, if the address can't be listened on."""
        listener = _listen(self.settings.host, self.settings.port)
        # Uploads stay in memory: above this size Starlette and NiceGUI would write them to disk.
        MultiPartParser.spool_max_size = 2 * UPLOAD_BYTES
        web = FastAPI(openapi_url=None)
        ui.run_with(
            web,
            root=self._page,
            title="Lookalike",
            favicon="🎭",
            dark=None,
            storage_secret=self.conversation.cookie_secret(),
            session_middleware_kwargs={"same_site": "strict", "max_age": COOKIE_S},
            show_welcome_message=False,
            binding_refresh_interval=1.0,
            message_history_length=50,
        )
        nicegui_app.config.reconnect_timeout = 10.0
        server = _Server(
            uvicorn.Config(
                _OwnNames(web) if self.settings.host in LOCAL_NAMES else web,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=STOP_S,
                server_header=False,
            )
        )
        host, port = listener.getsockname()[:2]
        if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
            host = "127.0.0.1"
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        click.echo(f"Open {url} in your browser. Ctrl+C ends it.")
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="web chat")
        try:
            await or_stop(asyncio.shield(serving), stop)
        finally:
            server.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await serving
            listener.close()

    async def _page(self, request: HttpRequest) -> None:
        tag = request.headers.get("accept-language", "").split(",")[0].split(";")[0].strip()
        visitor = str(nicegui_app.storage.browser["id"])
        sender = Sender("web", user_id=visitor, chat_id=visitor, language=tag or None)
        beside = resources.files("bot.adapters.web")
        ui.add_css(beside.joinpath("page.css").read_text(encoding="utf-8"))
        script = beside.joinpath("page.js").read_text(encoding="utf-8")
        ui.add_head_html(f"<script>{script}</script>")
        language = self.conversation.wording.language(tag)
        ui.run_javascript(f"document.documentElement.lang = {language!r}")
        await Page(self.conversation, sender).build(alone=self.alone)


class Page:
    """One browser's page: photos and choices go in, answers are listed newest first."""

    def __init__(self, conversation: Conversation, sender: Sender) -> None:
        self._conversation = conversation
        self._sender = sender
        self.decode = conversation.decode
        self._refreshing = False
        self._menus: dict[str, ui.select] = {}
        self._entries: deque[Entry] = deque()

    def say(self, key: str, **details: object) -> str:
        """A sentence in the visitor's language."""
        return self._conversation.wording.text(key, self._sender.language, **details)

    def toast(self, text: str) -> None:
        """Shows a text for some seconds."""
        with contextlib.suppress(RuntimeError):  # the page was closed meanwhile
            ui.notify(text, multi_line=True, timeout=6000, position="top")

    def begin(self, *, uploads: Sequence[bytes] = (), said: str = "") -> Entry:
        """A new entry at the top that waits for its answer; the oldest goes after 30."""
        with self._list:
            entry = Entry(self, uploads, said)
        self._entries.appendleft(entry)
        if len(self._entries) > MOST_ENTRIES:
            self._entries.pop().card.delete()
        return entry

    async def press(self, action: str, photos: Sequence[bytes]) -> Reply:
        """The reply to a pressed button; gets the photos of the entry as well."""
        photos = photos[photo_number(action) - 1 :]
        request = Request(self._sender, photos=_attachments(photos), action=action)
        reply = await self._conversation.answer(request, LIMITS)
        await self._refresh()
        return reply

    async def build(self, *, alone: bool) -> None:
        """Header, the place for photos, menus, the list of answers."""
        self._header()
        choices = await self._conversation.choices(self._sender)
        with (
            ui.element("div").classes("page"),
            ui.row().classes("w-full no-wrap max-md:flex-wrap items-start gap-6 p-2"),
        ):
            with ui.column().classes("w-full md:w-80 md:shrink-0 gap-3"):
                self._photos()
                for command, (labels, value) in self._options(choices).items():
                    menu = ui.select(labels, value=value, label=self.say(f"web.{command}"))
                    menu.props("outlined dense").classes("w-full")
                    menu.on_value_change(partial(self._chosen, command))
                    self._menus[command] = menu
                self._command()
                if alone:
                    with ui.expansion(self.say("web.tokens_title"), icon="hub").classes("w-full"):
                        ui.label(self.say("web.no_token")).classes("said")
                        ui.code(TOKENS, language="toml").classes("w-full")
            with ui.column().classes("w-full grow min-w-0 gap-4"):
                self._list = ui.column().classes("w-full gap-4")
                self._list.props('role="log" aria-live="polite"')
                with self._list, ui.card().classes("w-full"):
                    ui.label(self.say("web.greeting")).classes("said")

    def _header(self) -> None:
        dark = ui.dark_mode(value=None)
        with ui.element("header").classes("page"), ui.row().classes("items-center w-full p-2"):
            ui.icon("theater_comedy", size="2.2rem").style("color: var(--accent)")
            with ui.element("h1").classes("title"):
                ui.label("Lookalike")
            ui.space()
            for icon, value in (("light_mode", False), ("dark_mode", True)):
                label = self.say(f"web.{icon}")
                button = ui.button(icon=icon, on_click=lambda value=value: dark.set_value(value))
                button.props["aria-label"] = label
                button.props("flat round").tooltip(label)

    def _photos(self) -> None:
        megabytes = UPLOAD_BYTES // 1_000_000
        uploader = self._uploader = ui.upload(
            multiple=True,
            auto_upload=True,
            max_file_size=UPLOAD_BYTES,
            max_files=10,
            on_multi_upload=self._uploaded,
            on_rejected=lambda: self.toast(self.say("web.rejected", megabytes=megabytes)),
        )
        uploader.classes("away").props('accept="image/*,.heic,.heif,.avif" tabindex="-1"')
        uploader.props["aria-hidden"] = "true"
        with ui.element("button").classes("drop").props('type="button"') as drop:
            ui.icon("add_a_photo", size="2.6rem")
            ui.label(self.say("web.drop")).classes("text-lg font-medium")
            ui.label(self.say("web.drop_more")).classes("credit")
        camera = ui.button(self.say("web.camera"), icon="photo_camera", on_click=self._camera)
        camera.props("outline no-caps").classes("w-full")
        ui.on("lookalike_no_picture", lambda: self.toast(self.say("error.not_an_image")))
        ui.run_javascript(f"lookalike.start({uploader.id}, {drop.id})")

    def _options(self, choices: Choices) -> dict[str, tuple[dict[Any, str], Any]]:
        """Command -> the labels of its values, and which one is chosen."""
        models = {model.name: f"{model.title} ({model.state})" for model in choices.models}
        categories = {EVERYBODY: self.say("category.all")}
        categories |= {category: category for category in choices.categories}
        return {
            "model": (models, choices.model),
            "category": (categories, choices.category or EVERYBODY),
            "top": ({number: str(number) for number in range(1, 11)}, choices.top),
            "style": ({style: self.say(style_key(style)) for style in STYLES}, choices.style),
        }

    def _command(self) -> None:
        box = ui.input(label=self.say("web.command"), placeholder="/help")
        box.props("outlined dense clearable").classes("w-full")

        async def send() -> None:
            if text := (box.value or "").strip():
                box.value = ""
                name, _, arguments = text.removeprefix("/").partition(" ")
                request = Request(self._sender, name.lower(), arguments.strip())
                await self._ask(request, self.begin(said=text))

        box.on("keydown.enter", send)

    async def _uploaded(self, event: events.MultiUploadEventArguments) -> None:
        photos = [await file.read() for file in event.files]
        self._uploader.reset()
        request = Request(self._sender, photos=_attachments(photos))
        await self._ask(request, self.begin(uploads=photos))

    async def _camera(self) -> None:
        with ui.dialog() as dialog, ui.card().classes("items-center"):
            video = ui.element("video").props("autoplay playsinline muted")
            video.style("max-width:100%;max-height:60vh;border-radius:.75rem;transform:scaleX(-1)")
            with ui.row():
                ui.button(self.say("web.shoot"), icon="photo_camera", on_click=dialog.close).on(
                    "click", js_handler=f"() => lookalike.shoot({video.id})"
                )
                ui.button(self.say("web.cancel"), on_click=dialog.close).props("flat")
        dialog.on("hide", js_handler="() => setTimeout(() => lookalike.closeCamera(), 1000)")
        dialog.open()
        opened = await ui.run_javascript(f"return lookalike.openCamera({video.id})", timeout=60)
        if not opened:
            dialog.close()
            self.toast(self.say("web.no_camera"))

    async def _chosen(self, command: str, event: events.ValueChangeEventArguments[Any]) -> None:
        if not self._refreshing:
            request = Request(self._sender, command, str(event.value) or "all")
            reply = await self._conversation.answer(request, LIMITS)
            self.toast(reply.notice or reply.text)

    async def _ask(self, request: Request, entry: Entry) -> None:
        await entry.show(await self._conversation.answer(request, LIMITS))
        await self._refresh()

    async def _refresh(self) -> None:
        """Menus follow what was chosen by a command or button, and models that became ready."""
        choices = await self._conversation.choices(self._sender)
        self._refreshing = True
        try:
            for command, (labels, value) in self._options(choices).items():
                self._menus[command].set_options(labels, value=value)
            await asyncio.sleep(0)
        finally:
            self._refreshing = False


def _attachments(photos: Sequence[bytes]) -> tuple[Attachment, ...]:
    async def fetch(data: bytes) -> bytes:
        return data

    return tuple(Attachment(partial(fetch, data)) for data in photos)


# The server

# Names under which a page that listens on this machine only may be asked for.
LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


class _Server(uvicorn.Server):
    """Leaves signals to the program it runs in."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _OwnNames:
    """Refuses requests that reached this machine under a foreign name (DNS rebinding)."""

    def __init__(self, served: ASGIApp) -> None:
        self._served = served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hosts: list[str] = []
        if scope["type"] in {"http", "websocket"}:
            headers = Headers(scope=scope)
            origins = [origin.partition("://")[2] for origin in headers.getlist("origin")]
            hosts = [headers.get("host", ""), *origins]
        if all(_name(host) in LOCAL_NAMES for host in hosts):
            await self._served(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            refusal = PlainTextResponse("This page answers on this machine only.", 403)
            await refusal(scope, receive, send)


def _name(host: str) -> str:
    """The name in ``name:port`` or ``[address]:port``, lower case."""
    if host.startswith("["):
        return host.partition("]")[0].lstrip("[").lower()
    return host.partition(":")[0].lower()


def _listen(host: str, port: int) -> socket.socket:
    try:
        return listening_socket(host, port)
    except (OSError, OverflowError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise SetupProblem(
            f"the web chat can't listen on {host}:{port} ({reason}): choose another port with the "
            f"setting web.port, such as LOOKALIKE_WEB__PORT={port + 1}"
        ) from exc
