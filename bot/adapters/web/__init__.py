"""The local web chat: NiceGUI on uvicorn, in the process and event loop of the other adapters."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import click
import uvicorn
from fastapi import FastAPI, Response
from fastapi import Request as HttpRequest
from nicegui import app as nicegui_app
from nicegui import ui
from starlette.datastructures import Headers
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from bot.adapters import Adapter, listening_socket, or_stop
from bot.adapters.web.page import Page
from bot.adapters.web.visits import Entry, Part, Visit, html, upright_jpeg
from bot.settings import WebSettings
from bot.values import Sender
from engine.errors import SetupProblem

log = logging.getLogger(__name__)

STOP_S = 5
TIDY_S = 30.0
COOKIE_S = 365 * 24 * 3600
PHOTO_PX, THUMB_PX = 1200, 160  # longer side of a visitor's photo as it is shown


class WebAdapter(Adapter[WebSettings]):
    """Serves the web chat; where it is alone, the page says how to add a token."""

    name = "web"

    async def run(self, stop: asyncio.Event) -> None:
        """Serves; raises SetupProblem, too, if the address can't be listened on."""
        self._visits: dict[str, Visit] = {}
        listener = _listen(self.settings.host, self.settings.port)
        server = _Server(
            uvicorn.Config(
                self._served(),
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
        tidying = asyncio.create_task(self._tidy_again_and_again())
        try:
            await or_stop(asyncio.shield(serving), stop)
        finally:
            tidying.cancel()
            server.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await serving
            listener.close()

    def _served(self) -> ASGIApp:
        web, secret = FastAPI(openapi_url=None), self.conversation.cookie_secret
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
        return _OwnNames(web) if self.settings.host in LOCAL_NAMES else web

    async def _page(self, request: HttpRequest) -> None:
        tag = request.headers.get("accept-language", "").split(",")[0].split(";")[0].strip()
        visitor = str(nicegui_app.storage.browser["id"])
        sender = Sender("web", user_id=visitor, chat_id=visitor, language=tag or None)
        visit = self._visits.setdefault(visitor, Visit(self.conversation, sender))
        visit.sender = sender
        language = self.conversation.wording.language(tag)
        beside = resources.files("bot.adapters.web")
        ours = (beside.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
        ui.add_head_html(html("head", visit.text, language, *ours))
        operated = self.settings.host in LOCAL_NAMES
        await Page(self.conversation, visit, operated=operated).build(alone=self.alone)

    async def _receive(self, request: HttpRequest, key: str) -> Response:
        """A photo whose name the page has told; answered before the next one is sent."""
        visit = self._visits.get(request.session.get("id", ""))
        if visit is None or key not in visit.awaited:
            return Response(status_code=404)
        photo = bytearray()
        async for chunk in request.stream():
            photo += chunk
            if len(photo) > self.conversation.photo_limits.max_bytes:
                break  # answered as too large
        if entry := visit.awaited.pop(key, None):
            await asyncio.shield(asyncio.create_task(visit.receive(entry, bytes(photo))))
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

    async def _tidy_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(TIDY_S)
            for visitor, visit in list(self._visits.items()):
                visit.tidy(self.conversation.photo_lifetime_s)
                if not visit.entries and not visit.pages:
                    del self._visits[visitor]


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
        reason = str(getattr(exc, "strerror", None) or exc).partition(" (")[0]
        raise SetupProblem(
            f"the web chat can't listen on {host}:{port} ({reason}): choose another port with the "
            f"setting web.port, such as LOOKALIKE_WEB__PORT={port + 1}"
        ) from exc
