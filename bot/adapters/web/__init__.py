"""The local web chat: NiceGUI on uvicorn, in the process and event loop of the other adapters."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import click
import uvicorn
from fastapi import FastAPI, Response
from fastapi import Request as HttpRequest
from nicegui import app as nicegui_app
from nicegui import ui
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import ClientDisconnect

from bot.adapters import Adapter, listening_socket, or_stop
from bot.adapters.web.guard import HEAD_S, Guard, language_tag
from bot.adapters.web.page import Page
from bot.adapters.web.visits import Entry, Part, Visit, html, upright_jpeg
from bot.settings import WebSettings
from bot.values import Sender
from engine.errors import SetupProblem

log = logging.getLogger(__name__)

STOP_S = 5
TIDY_S = 30.0
BUILD_S = 60.0  # a page that is asked for stands within that, or never
COOKIE_S = 365 * 24 * 3600
MOST_PAGES, MOST_PAGES_IN_ALL = 20, 120  # open at once, of one visitor and of all
MOST_UPLOADS, MOST_PHOTO_BYTES_IN_ALL = 12, 256_000_000  # photos on their way, and kept
PHOTO_PX, THUMB_PX = 1200, 160  # longer side of a visitor's photo as it is shown


class WebAdapter(Adapter[WebSettings]):
    """Serves the web chat; where it is alone, the page says how to add a token."""

    name = "web"
    connected = True  # whoever asks is here

    async def run(self, stop: asyncio.Event) -> None:
        """Serves; raises SetupProblem, too, if the address can't be listened on."""
        if self.settings.unguarded:
            raise SetupProblem(
                f"the web chat would let everybody in at {self.settings.host}: set web.password, "
                "or web.trusted_proxy to the address of a proxy that asks who comes"
            )
        self._visits: dict[str, Visit] = {}
        self._uploads = asyncio.Semaphore(MOST_UPLOADS)
        host, port = self.settings.host, self.settings.port
        try:
            listener = listening_socket(host, port)
        except (OSError, OverflowError) as exc:
            reason = str(getattr(exc, "strerror", None) or exc).partition(" (")[0]
            raise SetupProblem(
                f"the web chat can't listen on {host}:{port} ({reason}): choose another port with "
                f"the setting web.port, such as LOOKALIKE_WEB__PORT={port + 1}"
            ) from exc
        server = _Server(
            uvicorn.Config(
                self._served(),
                log_config=None,
                access_log=False,
                proxy_headers=False,
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
        tidying = asyncio.create_task(self._tidy_again_and_again())
        try:
            await or_stop(asyncio.shield(serving), stop)
        finally:
            tidying.cancel()
            server.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await serving
            listener.close()

    def _served(self) -> FastAPI:
        web, secret = FastAPI(openapi_url=None), self.conversation.cookie_secret
        about = self.conversation, self.settings, self._full
        web.add_middleware(Guard, *about)
        web.add_middleware(
            SessionMiddleware, secret_key=secret, same_site="strict", max_age=COOKIE_S
        )
        web.add_api_route("/photos/{key}", self._receive, methods=["POST"])
        web.add_api_route("/pictures/{token}/{what}", self._picture)
        ui.run_with(
            web,
            root=self._page,
            title="Lookalike",
            favicon=Path(__file__).with_name("favicon.svg"),
            storage_secret=secret,
            show_welcome_message=False,
            binding_refresh_interval=1.0,
            message_history_length=50,
            tailwind=False,
        )
        nicegui_app.config.reconnect_timeout = 10.0
        nicegui_app.config.quasar_config["loadingBar"] = {"skipHijack": True}  # it has no name
        return web

    def _full(self, visitor: str) -> bool:
        visit = self._visits.get(visitor)
        if visit is not None and len(visit.pages) >= MOST_PAGES:
            return True
        return sum(len(one.pages) for one in self._visits.values()) >= MOST_PAGES_IN_ALL

    async def _page(self, request: HttpRequest) -> None:
        tag = language_tag(request.headers)
        visitor = str(nicegui_app.storage.browser["id"])
        sender = Sender("web", user_id=visitor, chat_id=visitor, language=tag)
        visit = self._visits.setdefault(visitor, Visit(self.conversation, sender))
        visit.sender, visit.asked_s = sender, time.monotonic()
        language = self.conversation.wording.language(tag)
        ui.add_head_html(html("head", visit.text, language))
        operated = self.settings.here_only
        await Page(self.conversation, visit, operated=operated).build(alone=self.alone)

    async def _receive(self, request: HttpRequest, key: str) -> Response:
        """A photo whose name the page has told; answered before the next one is sent."""
        visit = self._visits.get(request.session.get("id", ""))
        if visit is None or key not in visit.awaited:
            return Response(status_code=404)
        try:
            async with self._uploads:
                photo = await request.body()
        except ClientDisconnect:  # or too large or too slow, see Guard
            return Response(status_code=408)
        if entry := visit.awaited.pop(key, None):
            self._make_room(len(photo))
            await asyncio.shield(asyncio.create_task(visit.receive(entry, photo)))
        return Response(status_code=204)

    async def _picture(self, request: HttpRequest, token: str, what: str) -> Response:
        """A file of an answer, for the visitor alone who got it."""
        visit = self._visits.get(request.session.get("id", ""))
        part = visit.find(token) if visit else None
        found = await asyncio.to_thread(self._file, *part, what) if part else None
        if found is None:
            return Response(status_code=404)
        kept = {"Cache-Control": f"private, max-age={round(self.conversation.photo_lifetime_s)}"}
        return Response(found[0], media_type=found[1], headers=kept)

    def _file(self, entry: Entry, part: Part, what: str) -> tuple[bytes, str] | None:
        reply, photos = part.reply, entry.photos
        if reply is None:
            return None
        if what in {"photo", "thumb"} and photos:
            edge_px = PHOTO_PX if what == "photo" else THUMB_PX
            seen = upright_jpeg(self.conversation, photos[0], edge_px)
            return (seen, "image/jpeg") if seen else None
        if what == "card" and reply.picture:
            return reply.picture.jpeg, "image/jpeg"
        if what == "film" and reply.animation:
            return reply.animation.content, reply.animation.media_type
        matches = {str(one.rank): one for answer in reply.answers for one in answer.matches}
        read = matches[what].portrait if what in matches else None
        return (read(), "image/jpeg") if read else None

    def _make_room(self, size_bytes: int) -> None:
        """Gives up the oldest photos of all visitors where there are too many."""
        entries = [entry for visit in self._visits.values() for entry in visit.entries]
        for entry in sorted(entries, key=lambda one: -one.since_s):
            size_bytes += sum(map(len, entry.photos))
            if size_bytes > MOST_PHOTO_BYTES_IN_ALL:
                entry.photos = ()

    async def _tidy_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(TIDY_S)
            for visitor, visit in list(self._visits.items()):
                visit.tidy(self.conversation.photo_lifetime_s)
                built = visit.asked_s < time.monotonic() - BUILD_S
                if built and not visit.entries and not visit.pages:
                    del self._visits[visitor]


class _Server(uvicorn.Server):
    """Leaves signals to the program it runs in; closes connections that ask for nothing."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._since_s: dict[object, float] = {}

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: uvicorn's own limit ends with the first byte of a request."""
        now_s, before = time.monotonic(), self._since_s
        connections = [one for one in self.server_state.connections if hasattr(one, "cycle")]
        silent = [one for one in connections if one.cycle is None or one.cycle.response_complete]
        self._since_s = {one: before.get(one, now_s) for one in silent}
        for one in silent:
            if now_s - self._since_s[one] > HEAD_S:
                one.transport.close()
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
