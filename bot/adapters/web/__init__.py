"""The local web chat: NiceGUI on uvicorn, in the process and event loop of the other adapters."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI
from nicegui import app as nicegui_app
from nicegui import ui
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartParser
from starlette.responses import PlainTextResponse

from bot.adapters.web.page import Page
from engine.errors import SetupProblem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from bot.conversation import Conversation
    from bot.settings import WebSettings

__all__ = ["WebAdapter"]

log = logging.getLogger(__name__)

UPLOAD_BYTES = 25_000_000
STOP_S = 5


class WebAdapter:
    """Serves the web chat until it is told to stop.

    Args:
        conversation: Answers.
        settings: Where to listen.
        alone: Whether no platform has a token; the page then says how to add one.
        cache_folder: Not used; every adapter is given one.
    """

    name = "web"

    def __init__(
        self,
        conversation: Conversation,
        settings: WebSettings,
        *,
        alone: bool = False,
        cache_folder: Path | None = None,
    ) -> None:
        del cache_folder
        self._conversation = conversation
        self._settings = settings
        self._alone = alone
        self.url: str | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until ``stop`` is set.

        Raises:
            SetupProblem: If the address can't be listened on.
        """
        listener = _listen(self._settings.host, self._settings.port)
        self.url = _url(listener)
        # Uploads stay in memory: above this size Starlette and NiceGUI would write them to disk.
        MultiPartParser.spool_max_size = 2 * UPLOAD_BYTES
        web = FastAPI(openapi_url=None)
        page = Page(self._conversation, upload_bytes=UPLOAD_BYTES, alone=self._alone)
        ui.run_with(
            web,
            root=page.build,
            title="Lookalike",
            favicon="🎭",
            dark=None,
            storage_secret=self._conversation.cookie_secret(),
            session_middleware_kwargs={"same_site": "strict", "max_age": 365 * 24 * 3600},
            show_welcome_message=False,
            binding_refresh_interval=1.0,
            message_history_length=50,
        )
        nicegui_app.config.reconnect_timeout = 10.0
        hosts = _own_names(self._settings.host)
        server = _Server(
            uvicorn.Config(
                _OwnNames(web, hosts) if hosts else web,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=STOP_S,
                server_header=False,
            )
        )
        log.info("open the web chat in your browser", extra={"url": self.url})
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="web chat")
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            server.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await serving
            listener.close()


class _Server(uvicorn.Server):
    """Leaves signals to the program it runs in."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _OwnNames:
    """Refuses requests that reached this machine under a foreign name (DNS rebinding)."""

    def __init__(self, served: ASGIApp, names: frozenset[str]) -> None:
        self._served = served
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"}:
            headers = Headers(scope=scope)
            own = _name(headers.get("host", "")) in self._names
            origin = headers.get("origin")
            if origin is not None:
                own = own and _name(origin.partition("://")[2]) in self._names
            if not own:
                if scope["type"] == "websocket":
                    await send({"type": "websocket.close", "code": 1008})
                else:
                    sentence = "This page answers on this machine only."
                    await PlainTextResponse(sentence, 403)(scope, receive, send)
                return
        await self._served(scope, receive, send)


def _name(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0].lstrip("[").lower()
    return host.partition(":")[0].lower()


def _own_names(host: str) -> frozenset[str]:
    """Names under which a page that listens on ``host`` may be asked for; empty: any name."""
    local = frozenset({"127.0.0.1", "localhost", "::1"})
    return local if host in local else frozenset()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise SetupProblem(
            f"the web chat can't listen on {host}:{port} ({reason}); "
            "choose another address with the settings web.host and web.port"
        ) from exc


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
