"""What stands between the web chat and whoever reaches its port."""

import asyncio
import hashlib
import hmac
import ipaddress
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bot.adapters.web.visits import html
from bot.conversation import Conversation
from bot.settings import LOOPBACK, WebSettings

# A request: its head arrives within 10 s (`_Server`), its body begins within 10 s and is no slower.
HEAD_S = BODY_S = 10.0
SLOWEST_BYTES_PER_S = 8_000
MOST_OTHER_BYTES = 1_000_000  # of a request that brings no photo
MOST_TRIES, MOST_TRIES_IN_ALL, TRIES_WINDOW_S = 5, 60, 60.0  # wrong passwords of one address, all
MOST_BUILDING = 4  # pages at once: the toolkit gives up on one that takes longer than 3 s
HEADERS = {
    # The toolkit compiles its templates in the page, and so needs eval.
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'"
    "; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:"
    "; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """ASGI middleware inside of the session's: asks for the password, bounds what a request costs.

    A page of another origin is refused, and where the chat is for this machine only a foreign name
    for it, too (DNS rebinding). ``full`` says whether one more page is too many for this session.
    """

    def __init__(
        self,
        served: ASGIApp,
        conversation: Conversation,
        settings: WebSettings,
        full: Callable[[str], bool],
    ) -> None:
        self._served, self._wording, self._full = served, conversation.wording, full
        self._most_bytes = conversation.photo_limits.max_bytes
        self._proxy, self._here_only = settings.trusted_proxy, settings.here_only
        password = settings.password.get_secret_value() if settings.password else ""
        self._key = conversation.cookie_secret.encode()
        self._pass = self._digest(password) if password else None
        self._tries: Counter[str] = Counter()
        self._window_s = 0.0
        self._building = asyncio.Semaphore(MOST_BUILDING)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses, or lets pass with limits."""
        if scope["type"] not in {"http", "websocket"}:
            return await self._served(scope, receive, send)
        headers = Headers(scope=scope)
        most = self._most_bytes if scope["path"].startswith("/photos/") else MOST_OTHER_BYTES
        bounded = receive if scope["type"] == "websocket" else _bounded(receive, most)
        refusal = self._foreign(scope, headers)
        if refusal is None and int(headers.get("content-length", 0)) > most:
            refusal = PlainTextResponse("That is too large.", 413)
        if refusal is None and self._pass is not None:
            refusal = await self._ask(scope, headers, bounded)
        if refusal is not None and scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if refusal is not None or scope["path"] != "/":
            return await (refusal or self._served)(scope, bounded, answer)
        async with self._building:
            full = self._full(scope["session"].get("id", ""))
            page = self._page("web.full", headers, 503) if full else self._served
            return await page(scope, bounded, answer)

    def _foreign(self, scope: Scope, headers: Headers) -> Response | None:
        peer, hosts = scope["client"], [headers.get("host", "").lower()]
        if self._proxy is not None:
            if peer is None or ipaddress.ip_address(peer[0]) not in self._proxy:
                return PlainTextResponse("This page answers its proxy only.", 403)
            hosts.append(headers.get("x-forwarded-host", "").lower())
        origins = {(one.partition("://")[2] or one).lower() for one in headers.getlist("origin")}
        if self._here_only and _name(hosts[0]) not in LOOPBACK:
            return PlainTextResponse("This page answers on this machine only.", 403)
        if not origins <= {*hosts}:
            return PlainTextResponse("This page answers its own requests only.", 403)
        return None

    async def _ask(self, scope: Scope, headers: Headers, receive: Receive) -> Response | None:
        """The page that asks for the password; None for whoever has told it."""
        session: dict[str, Any] = scope["session"]
        if hmac.compare_digest(str(session.get("pass", "")), self._pass or ""):
            return None
        if scope["type"] == "websocket" or scope["path"] != "/login":
            return self._page("web.password", headers, 401)
        if time.monotonic() > self._window_s:
            self._tries.clear()
            self._window_s = time.monotonic() + TRIES_WINDOW_S
        address = scope["client"][0] if scope["client"] else ""
        if self._proxy is not None:  # the last one, which the proxy itself has added
            address = headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
        if self._tries[address] >= MOST_TRIES or self._tries.total() >= MOST_TRIES_IN_ALL:
            return self._page("web.too_many_tries", headers, 429)
        self._tries[address] += 1  # before the body is waited for
        body, more = b"", scope["method"] == "POST"
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        told = parse_qs(body.decode("utf-8", "replace"), max_num_fields=5).get("password", [""])
        if not hmac.compare_digest(self._digest(told[0].strip()), self._pass or ""):
            return self._page("web.wrong_password", headers, 401)
        self._tries[address] -= 1
        session["pass"] = self._pass
        return RedirectResponse("/", 303)

    def _digest(self, password: str) -> str:
        return hmac.new(self._key, password.encode(), hashlib.sha256).hexdigest()

    def _page(self, key: str, headers: Headers, status: int) -> Response:
        tag = language_tag(headers)

        def say(key: str) -> str:
            return self._wording.text(key, tag)

        return HTMLResponse(html("door", say, self._wording.language(tag), key), status)


def language_tag(headers: Headers) -> str | None:
    """The BCP 47 tag of the language that a browser asks for first."""
    return headers.get("accept-language", "").split(",")[0].split(";")[0].strip() or None


def _bounded(receive: Receive, most_bytes: int) -> Receive:
    """A request's body; one that is too large or too slow ends as if the line had broken."""
    began_s, size_bytes, done = 0.0, 0, False

    async def bounded() -> Message:
        nonlocal began_s, size_bytes, done
        if done:
            return await receive()
        began_s = began_s or time.monotonic()  # not while the upload waits for its turn
        left_s = BODY_S + size_bytes / SLOWEST_BYTES_PER_S - (time.monotonic() - began_s)
        try:
            message = await asyncio.wait_for(receive(), max(0.0, left_s))
        except TimeoutError:
            return {"type": "http.disconnect"}
        size_bytes += len(message.get("body", b""))
        done = not message.get("more_body", False)
        return message if size_bytes <= most_bytes else {"type": "http.disconnect"}

    return bounded


def _name(host: str) -> str:
    """The name in ``name:port`` or ``[address]:port``."""
    return host.partition("]")[0].lstrip("[") if host[:1] == "[" else host.partition(":")[0]
