"""The engine on Ray Serve, started as its operator does, and bots whose engine it is."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from homes import copy_home
from PIL import Image
from talking import Person, chatting, side_by_side

from bot.app import open_engine, open_gallery
from bot.cli import main as cli
from bot.cli.match import answer_photo, record
from bot.cli.serve_engine import LEAST_SHARED_BYTES, SHARED, Replica
from bot.monitor import Monitor
from bot.settings import Settings
from bot.values import Sender
from engine import decode as decoding
from engine.backbones.network import portrait_jpeg
from engine.engine import Engine, comparable
from engine.runtime import cores

pytestmark = [
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.skipif(
        SHARED.is_dir() and shutil.disk_usage(SHARED).free < LEAST_SHARED_BYTES,
        reason="too little shared memory for Ray: a container has 64 MB by default",
    ),
]

SECRET = "said-by-nobody-else"
NAMES = ("grace_hopper", "eileen_collins")


class Service:
    """`lookalike serve-engine` with two replicas of a core each, as a process of its own."""

    def __init__(self, home: Path, temporary: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.settings = {"address": self.url, "secret": SECRET}
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("LOOKALIKE_")}
        given = {"LOOKALIKE_ENGINE__SECRET": SECRET, "TMPDIR": temporary}
        wanted = ("--port", str(self.port), "--cores", "1", "--replicas", "2", "2")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bot", "serve-engine", "--home", str(home), *wanted],
            env=inherited | given,
            cwd=home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        self.said = []
        for line in self.process.stdout:
            self.said.append(line)
            if "The engine answers" in line:
                break
        else:
            self.process.communicate()
            raise AssertionError("".join(self.said))

    def processes(self, words: str = "") -> list[int]:
        """What it started, and what that did, and is called so."""
        parents, found = {}, []
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                number, _, rest = status.read_text().partition(" (")
                parents[int(number)] = int(rest.rpartition(") ")[2].split()[1])
        for one in parents:
            at = one
            while (at := parents.get(at, 0)) and at != self.process.pid:
                pass
            with contextlib.suppress(OSError):
                if at and words in Path(f"/proc/{one}/cmdline").read_text():
                    found.append(one)
        return found

    def replicas(self) -> list[int]:
        return self.processes("ray::ServeReplica")

    def stop(self) -> int:
        self.process.terminate()
        self.process.communicate(timeout=60)
        return self.process.returncode


@pytest.fixture(scope="module")
def temporary() -> Iterator[Path]:
    # Short, because a socket's path may not have more than about 100 characters.
    with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def service(
    starter_home: Path, tmp_path_factory: pytest.TempPathFactory, temporary: Path
) -> Iterator[Service]:
    home = copy_home(starter_home, tmp_path_factory.mktemp("service") / "home")
    started = Service(home, str(temporary))
    yield started
    if started.process.poll() is None:
        started.stop()


@pytest.fixture(scope="module")
def here(starter_home: Path) -> Engine:
    return open_engine(Settings(home=starter_home))


def tiny_in_large(name: str) -> bytes:
    """Somebody so far away that the reduced picture shows no face that is large enough."""
    with Image.open(io.BytesIO(portrait_jpeg(name))) as portrait:
        small = portrait.convert("RGB").resize((200, 200 * portrait.height // portrait.width))
    large, buffer = Image.new("RGB", (6000, 4000), (90, 120, 150)), io.BytesIO()
    large.paste(small, (4000, 2500))
    large.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def test_a_photo_gives_the_same_there_as_here(
    service: Service, here: Engine, starter_home: Path, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """Faces, embeddings and matches; and nothing of it is left in files."""
    settings = Settings(home=starter_home, engine=service.settings)
    there = open_engine(settings)
    assert there.service is not None
    photos = [portrait_jpeg(name) for name in NAMES]
    for data in (*photos, side_by_side(hopper_jpeg, collins_jpeg), tiny_in_large(NAMES[0])):
        photo, faces, _ = here.look(data)
        seen, found, embedded = there.look(data, ["dlib"])
        assert (seen.pixels == photo.pixels).all()
        assert (seen.corner_px, seen.source_size_px) == (photo.corner_px, photo.source_size_px)
        assert [(f.box, f.confidence, f.concerns) for f in found] == [
            (f.box, f.confidence, f.concerns) for f in faces
        ]
        assert all((f.landmarks == g.landmarks).all() for f, g in zip(faces, found, strict=True))
        large = comparable(faces)
        expected = here.embed([(photo, face) for face in large], "dlib")
        assert 1 - embedded["dlib"].cosine(expected[0]) <= 1e-6
        for one, other in zip(
            there.embed([(photo, face) for face in large], "dlib"), expected, strict=True
        ):
            assert 1 - one.cosine(other) <= 1e-6
        assert there.detect(photo)[0].box == faces[0].box
    there.service.__exit__()

    with open_gallery(Settings(home=starter_home)) as gallery:
        answer = record(answer_photo(here, gallery, hopper_jpeg, "dlib", top=2), Path("-"))
    known = {"Authorization": f"Bearer {SECRET}"}
    asked: dict[str, Any] = {"content": hopper_jpeg, "headers": known}
    told = httpx.post(f"{service.url}/matches?top=2&model=dlib", **asked).json()
    assert told["faces"] == answer["faces"]
    assert told["faces"][0]["matches"][0]["person"] == "Grace Hopper"
    refused = httpx.post(f"{service.url}/matches?top=none", **asked)
    assert refused.status_code == 400
    no_photo = httpx.post(f"{service.url}/matches", content=b"no photo", headers=known)
    assert (no_photo.status_code, no_photo.json()["error"]) == (422, "error.not_an_image")
    for headers in ({}, {"Authorization": "Bearer guess"}):
        assert httpx.post(service.url, content=b"x", headers=headers).status_code == 401
    assert httpx.post(service.url, content=b"x", headers=known).status_code == 400


def test_what_passes_through_is_not_written(
    service: Service, temporary: Path, here: Engine
) -> None:
    photo, faces, _ = here.look(portrait_jpeg(NAMES[0]))
    vector = here.embed([(photo, comparable(faces)[0])], "dlib")[0].vector.tobytes()
    pieces = [portrait_jpeg(name)[20_000:20_064] for name in NAMES] + [vector[:64]]
    (folder,) = temporary.glob("lookalike-*")
    assert folder.stat().st_mode & 0o077 == 0
    looked_at = 0
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content, looked_at = path.read_bytes(), looked_at + 1
            assert not any(piece in content for piece in pieces), path
            assert SECRET.encode() not in content, path
            assert b"Grace Hopper" not in content, path
    assert looked_at > 20
    assert not list(folder.rglob("*spilled*/*"))
    said = "".join(service.said)
    assert re.search(r"resnet: .*run `lookalike models download resnet`", said)
    assert SECRET not in said


async def test_one_of_two_killed_under_load_costs_nobody_an_answer(
    service: Service, own_home: Path, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """The chat's answers are those that a bot with its own engine gives; then the service ends."""
    ann = Sender("telegram", "1", "1")
    async with chatting(own_home) as conversation:
        expected = await Person(conversation, ann).says("", hopper_jpeg)
    (own_home / "lookalike.db").unlink()
    queue = {"photos_per_minute": 1000}
    async with chatting(own_home, engine=service.settings, queue=queue) as conversation:
        monitor = Monitor(conversation, [])
        reply = await Person(conversation, ann).says("", hopper_jpeg)
        assert reply.text == expected.text
        assert [one.label for row in reply.buttons for one in row] == [
            one.label for row in expected.buttons for one in row
        ]
        assert reply.picture == expected.picture
        assert (await monitor.parts())["engine"]

        people = [Person(conversation, Sender("telegram", str(n), str(n))) for n in range(8)]

        async def asks(person: Person) -> list[Any]:
            return [await person.says("", data) for data in (hopper_jpeg, collins_jpeg) * 2]

        asking = [asyncio.create_task(asks(person)) for person in people]
        await asyncio.wait(asking, timeout=0.5)
        killed = service.replicas()[0]
        os.kill(killed, signal.SIGKILL)
        replies = [reply for replies in await asyncio.gather(*asking) for reply in replies]
        assert len(replies) == 32
        assert all(reply.picture for reply in replies), {r.text for r in replies}

        left = service.processes()
        assert service.stop() == 0
        assert not [one for one in left if os.path.exists(f"/proc/{one}")]  # noqa: ASYNC240, PTH110
        said = [await people[0].says("", hopper_jpeg) for _ in range(2)]
        assert all("busy" in reply.text for reply in said)
        assert not (await monitor.parts())["engine"]


async def test_heavy_photos_wait_there_without_keeping_others_from_it(
    starter_home: Path, hopper_jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray only hands the questions over."""
    monkeypatch.setattr("bot.cli.serve_engine._pin", Mock())
    monkeypatch.setitem(sys.modules, "ray", Mock())
    replica = Replica(Settings(home=starter_home), 1)
    picture, stream = Image.open(io.BytesIO(hopper_jpeg)), io.BytesIO()
    monkeypatch.setattr(decoding, "_LIGHT_BYTES", 4 * picture.width * picture.height)
    picture.resize((picture.width + 8, picture.height + 8)).save(stream, "PNG", compress_level=1)

    async def look(content: bytes) -> int:
        header, _ = await replica._look({"models": []}, [np.frombuffer(content, np.uint8)])
        return int(header["size"][0])

    with decoding._heavy_turn:  # as if one were being decoded
        heavy = [asyncio.create_task(look(stream.getvalue())) for _ in range(2 * cores() + 2)]
        assert await asyncio.wait_for(look(hopper_jpeg), 30) == picture.width
        assert not any(task.done() for task in heavy)
    assert await asyncio.gather(*heavy) == [picture.width + 8] * len(heavy)


def test_a_bot_with_an_engine_elsewhere_loads_no_network(own_home: Path) -> None:
    """Nor does it fail while that is away: it answers that it is busy, and is not ready."""
    script = f"""
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from talking import Person, chatting
from bot.values import Sender
async def main():
    home = Path({str(own_home)!r})
    async with chatting(home, engine={{"address": "http://127.0.0.1:9"}}) as conversation:
        reply = await Person(conversation, Sender("telegram", "1", "1")).says("", b"a photo")
        print(reply.text, conversation.models.ready(), "openvino" in sys.modules)
asyncio.run(main())
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=own_home
    )
    assert ran.stdout.startswith("I'm busy just now.")
    assert ran.stdout.endswith("() False\n")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--host", "0.0.0.0"], "lets others in: set engine.secret"),
        (["--port", "{taken}"], "can't listen on 127.0.0.1"),
        (["--replicas", "3", "1"], "the smaller number first"),
    ],
)
def test_what_can_not_be_started_is_said_before_ray_is(
    own_home: Path, given: list[str], said: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        wanted = [one.replace("{taken}", port) for one in given]
        command = ["serve-engine", "--home", str(own_home), *wanted]
        ran = CliRunner().invoke(cli.lookalike, command)
    assert said in f"{ran.output} {ran.exception}"
    assert ran.exit_code != 0
    assert "ray" not in sys.modules
