"""What stands before the web chat: names, sizes, speeds and the password."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from bot.settings import WebSettings
from bot.text import Wording

MOST_BYTES = 50_000
Serve = Callable[..., Any]


@pytest.fixture
def web_chat() -> Any:
    """The adapter, whose toolkit takes a second to import."""
    pytest.importorskip("nicegui")
    return importlib.import_module("bot.adapters.web")


@pytest.fixture
async def serve(web_chat: Any) -> AsyncIterator[Serve]:
    """A small site behind the guard, on a real server; gives its port."""
    ends = []

    async def served(*, full: bool = False, **settings: Any) -> int:
        conversation: Any = SimpleNamespace(
            wording=Wording.load(),
            photo_limits=SimpleNamespace(max_bytes=MOST_BYTES),
            cookie_secret="secret" * 6,
        )

        async def size(request: Request) -> Response:
            try:
                return Response(str(len(await request.body())))
            except ClientDisconnect:
                return Response(status_code=408)

        async def chat(socket: WebSocket) -> None:
            await socket.accept()

        paths = ("/", "/photos/{key}")
        site = Starlette(
            routes=[
                *(Route(path, size, methods=["GET", "POST"]) for path in paths),
                WebSocketRoute("/socket", chat),
            ]
        )
        about = conversation, WebSettings(**settings), lambda _: full
        site.add_middleware(web_chat.guard.Guard, *about)
        site.add_middleware(SessionMiddleware, secret_key=conversation.cookie_secret)
        door = web_chat.listening_socket("127.0.0.1", 0)
        config = web_chat.uvicorn.Config(site, log_config=None, proxy_headers=False)
        server = web_chat._Server(config)
        ends.append((server, asyncio.create_task(server.serve(sockets=[door]))))
        return int(door.getsockname()[1])

    yield served
    for server, serving in ends:
        server.should_exit = True
        await serving


def site(port: int, **headers: str) -> httpx.AsyncClient:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=named)


async def test_only_whoever_tells_the_password_comes_in(serve: Serve) -> None:
    port = await serve(host="0.0.0.0", password="hush, please")
    async with site(port, accept_language="es-MX,es;q=0.9") as client:
        asked = await client.get("/")
        assert asked.status_code == 401
        assert "Contraseña" in asked.text
        assert (await client.post("/photos/1", content=b"photo")).status_code == 401
        wrong = await client.post("/login", data={"password": "hush"})
        assert (wrong.status_code, wrong.headers.get("set-cookie")) == (401, None)
        right = await client.post("/login", data={"password": "hush, please"})
        assert (right.status_code, right.headers["location"]) == (303, "/")
        assert "hush" not in right.headers["set-cookie"]
        assert (await client.get("/")).text == "0"
        forged = f"session={client.cookies['session'].swapcase()}"
    async with site(port, cookie=forged) as client:
        assert (await client.get("/")).status_code == 401


async def test_passwords_are_not_guessed(serve: Serve, web_chat: Any) -> None:
    async with site(await serve(host="0.0.0.0", password="right")) as client:
        for status in [401] * web_chat.guard.MOST_TRIES + [429]:
            tried = await client.post("/login", data={"password": "wrong"})
            assert tried.status_code == status
        tried = await client.post("/login", data={"password": "right"})
        assert tried.status_code == 429


async def test_a_trusted_proxy_says_who_asks(serve: Serve, web_chat: Any) -> None:
    port = await serve(trusted_proxy="127.0.0.0/8", password="right")
    address = "x-forwarded-for"
    async with site(port, host="chat.example", origin="https://chat.example") as client:
        for status in [401] * web_chat.guard.MOST_TRIES + [429]:
            spoofed = {address: f"10.9.9.{status}, 10.0.0.1"}
            tried = await client.post("/login", data={"password": "wrong"}, headers=spoofed)
            assert tried.status_code == status
        other = {address: "10.0.0.2"}
        tried = await client.post("/login", data={"password": "right"}, headers=other)
        assert tried.status_code == 303
    async with site(port, origin="null") as client:
        assert (await client.get("/login")).status_code == 403
    async with site(await serve(trusted_proxy="10.0.0.1")) as client:
        assert (await client.get("/")).status_code == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "localhost:81", "origin": "http://localhost:81"}, 200),
        ({"host": "localhost:81", "origin": "http://localhost:82"}, 403),
        ({"host": "localhost:81", "origin": "http://evil.example"}, 403),
        ({"host": "localhost:81", "origin": "null"}, 403),
    ],
)
async def test_requests_of_other_pages_are_refused(
    serve: Serve, headers: dict[str, str], status: int
) -> None:
    async with site(await serve(), **headers) as client:
        answer = await client.get("/")
        assert answer.status_code == status
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "no-referrer"


async def test_a_websocket_of_another_page_is_refused(serve: Serve) -> None:
    port = await serve()
    for origin, outcome in (("evil.example", b" 403 "), (f"localhost:{port}", b" 101 ")):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        ours = f"Host: localhost:{port}\r\nOrigin: http://{origin}\r\n"
        writer.write(f"GET /socket HTTP/1.1\r\n{ours}{upgrade}{key}\r\n".encode())
        assert outcome in await reader.readline()
        writer.close()


async def test_what_is_too_large_is_refused_before_it_is_read(serve: Serve) -> None:
    port = await serve()

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(1_000)

    async with site(port) as client:
        assert (await client.post("/photos/1", content=bytes(MOST_BYTES))).text == str(MOST_BYTES)
        assert (await client.post("/photos/1", content=endless())).status_code == 408
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /photos/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {MOST_BYTES + 1}\r\n\r\n"
    writer.write(head.encode())
    assert b" 413 " in await reader.readline()
    writer.close()


async def test_slow_connections_are_closed(
    serve: Serve, web_chat: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_chat, "HEAD_S", 0.2)
    monkeypatch.setattr(web_chat.guard, "BODY_S", 0.2)
    port = await serve()
    said = (b"", b"GET / HTTP/1.1\r\nHost: local")
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in said]
    for (reader, writer), beginning in zip(connections, said, strict=True):
        writer.write(beginning)
        assert await reader.read() == b""
        writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = b"POST /photos/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40000\r\n\r\n"
    writer.write(head + bytes(100))
    assert b" 408 " in await reader.readline()
    writer.close()


async def test_a_full_house_says_so(serve: Serve) -> None:
    async with site(await serve(full=True)) as client:
        answer = await client.get("/")
        assert (answer.status_code, "come back in a minute" in answer.text) == (503, True)


async def test_whose_page_is_being_built_is_not_forgotten(
    web_chat: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their photos would be refused: the page would speak for a visit that nobody knows."""
    monkeypatch.setattr(web_chat, "TIDY_S", 0.0)
    adapter = web_chat.WebAdapter(SimpleNamespace(photo_lifetime_s=60.0), WebSettings())
    visits = {name: web_chat.Visit(None, None) for name in ("left", "comes")}
    visits["left"].asked_s -= 2 * web_chat.BUILD_S
    adapter._visits = visits
    async with asyncio.timeout(10):
        tidying = asyncio.create_task(adapter._tidy_again_and_again())
        while "left" in visits:  # noqa: ASYNC110 - nothing tells it
            await asyncio.sleep(0)
        tidying.cancel()
    assert [*visits] == ["comes"]
