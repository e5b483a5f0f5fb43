"""A web server on loopback that serves one file, well or as badly as a test asks."""

from __future__ import annotations

import hashlib
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """How one request is answered.

    Attributes:
        status: Answer with this status and no file.
        headers: Sent as well.
        bytes_sent: Close after so many bytes of the body.
        stall_s: Wait so long after those bytes, before closing.
        delay_s: Wait so long before answering.
        ranges: Whether a range is honoured.
        checks_validator: Whether If-Range is heeded.
        etag: Send an ETag.
        length: Send the length; else the body is chunked.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    bytes_sent: int | None = None
    stall_s: float = 0.0
    delay_s: float = 0.0
    ranges: bool = True
    checks_validator: bool = True
    etag: bool = True
    length: bool = True


@dataclass
class Source:
    """The server as a test sees it.

    Attributes:
        content: The file.
        script: Behaviour of the next requests, first to last; afterwards ``usual``.
        usual: Behaviour when the script is empty.
        requests: (path, Range header or None) of every request so far.
    """

    content: bytes
    script: list[Behaviour] = field(default_factory=list)
    usual: Behaviour = field(default_factory=Behaviour)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def ranges(self) -> list[str | None]:
        """Range headers of the requests so far."""
        return [value for _, value in self.requests]


@contextmanager
def serving(content: bytes, tls: ssl.SSLContext | None = None) -> Iterator[Source]:
    """Serves while the block runs, over https if there is a context for it."""
    source = Source(content)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            source.requests.append((self.path, self.headers.get("Range")))
            behaviour = source.script.pop(0) if source.script else source.usual
            with suppress(BrokenPipeError, ConnectionResetError):
                _answer(self, source, behaviour)

        def end_headers(self) -> None:
            self.send_header("Connection", "close")
            super().end_headers()

        def log_message(self, *_: object) -> None:
            """Keeps standard error clean."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that goes away is part of the tests."""

    with Server(("127.0.0.1", 0), Handler) as server:
        source.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}/"
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield source
        finally:
            source.stop.set()
            server.shutdown()
            thread.join()


def _answer(request: BaseHTTPRequestHandler, source: Source, behaviour: Behaviour) -> None:
    source.stop.wait(behaviour.delay_s)
    if behaviour.status not in (200, 206):
        request.send_response(behaviour.status)
        for name, value in {"Content-Length": "0", **behaviour.headers}.items():
            request.send_header(name, value)
        request.end_headers()
        return
    etag = f'"{hashlib.sha256(source.content).hexdigest()[:16]}"'
    content, start = source.content, 0
    wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
    same = request.headers.get("If-Range") == etag or not behaviour.checks_validator
    if wanted and behaviour.ranges and same:
        start = int(wanted[1])
        if start >= len(content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    else:
        request.send_response(200)
    if behaviour.etag:
        request.send_header("ETag", etag)
    for name, value in behaviour.headers.items():
        request.send_header(name, value)
    body = content[start:]
    if behaviour.length:
        request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    sent = body[: behaviour.bytes_sent]
    for position in range(0, len(sent), 1 << 16):
        request.wfile.write(sent[position : position + (1 << 16)])
    request.wfile.flush()
    source.stop.wait(behaviour.stall_s)
