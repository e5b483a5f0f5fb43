"""A service with an engine, as a test wants it: good, bad, or gone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from engine.backbones.network import INT8_RECIPE
from engine.remote import EngineService, faces_content, pack, unpack
from engine.types import Box, Concern, Face, Photo

__all__ = ["FACE", "FACTS", "JPEG", "SHA", "UNIT", "Door", "decode", "looked", "opened"]

SHA = "ab" * 32
FACTS: dict[str, Any] = {
    "same": {"photo.long_side_px": 2000},
    "models": {"dlib": [SHA, 3 + INT8_RECIPE, 128, "int8"], "resnet": "its weights are not here"},
}
FACE = Face(
    Box(10.25, 20.5, 40, 50), np.arange(10, dtype="f4").reshape(5, 2), 0.75, (Concern.TURNED,)
)
UNIT = np.eye(1, 128, dtype=np.float32)
JPEG = b"a picture file"


def looked(**changed: Any) -> bytes:
    """What a service says of a photo of 100 x 80 pixels with one face."""
    header, arrays = faces_content([FACE])
    header |= {"size": [100, 80], "part": None, "finer": 1, "models": [FACTS["models"]["dlib"]]}
    names = dict(zip(("boxes", "landmarks", "confidences"), arrays, strict=True))
    names["vectors"] = UNIT
    names |= {name: changed.pop(name) for name in tuple(changed) if name in names}
    return pack(header | changed, [*names.values()])


def decode(*_: Any) -> Photo:
    return Photo(np.zeros((80, 100, 3), np.uint8), (100, 80), "JPEG")


@dataclass
class Door:
    """A service as a test wants it: what it answers to the next questions, then to all others."""

    script: list[bytes | int] = field(default_factory=list)
    facts: bytes | int = field(default_factory=lambda: pack(FACTS))
    usual: bytes | int = field(default_factory=looked)
    asked: list[str] = field(default_factory=list)
    port: int = 0
    clients: ExitStack = field(default_factory=ExitStack)

    def client(self, **options: Any) -> EngineService:
        url = f"http://127.0.0.1:{self.port}"
        options.setdefault("again_s", (0.0,))
        return self.clients.enter_context(EngineService(url, **options))


@contextmanager
def opened(door: Door) -> Iterator[None]:
    """Only while the block runs somebody answers there."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            header, _ = unpack(self.rfile.read(length))
            door.asked.append(header["ask"])
            answer = door.facts if header["ask"] == "facts" else door.usual
            if header["ask"] != "facts" and door.script:
                answer = door.script.pop(0)
            self.send_response(answer if isinstance(answer, int) else 200)
            if answer == 302:
                self.send_header("Location", "http://127.0.0.1:9/")
            self.end_headers()
            self.wfile.write(b"" if isinstance(answer, int) else answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", door.port), Handler)
    door.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
