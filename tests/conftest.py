"""Photos that every test may use, and the folders that only some machines have."""

from __future__ import annotations

import gc
import hashlib
import io
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from filelock import FileLock
from homes import copy_home, make_starter_home

if TYPE_CHECKING:
    from postgres_server import PostgresServer
    from valkey_server import ValkeyServer

    from engine.backbones import BackboneRecord

# Several tests, and the processes they start, run at once: threads that wait for each other gain
# nothing there.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

# A background job ignores Ctrl-C, and so would the processes that tests start in order to send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A machine may be busy with other work.
hypothesis.settings.register_profile("unhurried", deadline=None, max_examples=60)
hypothesis.settings.load_profile("unhurried")

SHARED_FACES = Path(__file__).resolve().parents[1] / ".." / "shared" / "faces"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs TensorFlow leads: one process has all of it and imports that, not each of them."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


def pytest_collection_finish() -> None:
    """Looking for garbage among all that was imported and collected took a 16th of the time."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="session")
def hopper_jpeg() -> bytes:
    """Grace Hopper, 512 x 600, public domain (US Navy), as it comes with matplotlib."""
    from matplotlib import cbook

    return Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)).read_bytes()


@pytest.fixture(scope="session")
def collins_jpeg() -> bytes:
    """Eileen Collins, 512 x 512, public domain (NASA), as it comes with scikit-image."""
    from PIL import Image
    from skimage import data

    buffer = io.BytesIO()
    Image.fromarray(data.astronaut()).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def hard_faces() -> Path:
    """Hard pictures by kind; not part of the repository."""
    folder = SHARED_FACES / "hard"
    if not folder.is_dir():
        pytest.skip("the hard pictures are not on this machine")
    return folder


@pytest.fixture(scope="session")
def people_photos() -> Path:
    """Folders of people; not part of the repository."""
    folder = SHARED_FACES / "people"
    if not folder.is_dir():
        pytest.skip("the people's photos are not on this machine")
    return folder


@pytest.fixture(scope="session")
def starter_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the two people that everybody has; read it, or copy it, never write it.

    Its gallery is built for dlib; its cache holds the compiled network. The first process of a run
    makes it, the others copy it.
    """
    home, folder = tmp_path_factory.mktemp("starter") / "home", tmp_path_factory.getbasetemp()
    made = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "starter_home"
    with FileLock(f"{made}.lock"):
        if not made.exists():
            make_starter_home(made.with_name("starter_in_work"))
            made.with_name("starter_in_work").rename(made)
    shutil.copytree(made, home)
    return home


@pytest.fixture
def own_home(starter_home: Path, tmp_path: Path) -> Path:
    """A data folder of the test's own with the two people that everybody has."""
    return copy_home(starter_home, tmp_path / "home")


@pytest.fixture(scope="session", autouse=True)
def _random_weights_will_do() -> Iterator[None]:
    """Tests make weights up, which tell nobody apart; ``test_proving.py`` puts the proof back.

    That they make a network is looked into once for each content.
    """
    from engine.backbones import weights

    sound: set[tuple[str, bytes]] = set()

    def read(record: BackboneRecord, path: Path) -> tuple[float, float]:
        content = record.name, hashlib.blake2b(path.read_bytes()).digest()
        if content not in sound:
            weights._graph(record, path)
            sound.add(content)
        return 1.0, 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "prove", read)
        yield


@pytest.fixture(autouse=True)
def _looks_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of the engine's own tests, and those of speed and memory."""
    from looking_once import look_once

    measured = {"test_recognizer", "test_bench"}
    if "engine" not in request.path.parts[-3:] and request.module.__name__ not in measured:
        look_once(monkeypatch)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server with pgvector; one for the whole session, or each of its workers."""
    from postgres_server import PostgresServer

    try:
        server = PostgresServer()
    except Exception as problem:  # noqa: BLE001 - some users may not start servers
        pytest.skip(f"PostgreSQL does not start here: {problem}")
    yield server
    server.stop()


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """An empty database of the test's own."""
    return postgres.fresh()


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """A server of Valkey or Redis; one for the whole session, or each of its workers."""
    from valkey_server import ValkeyServer

    try:
        server = ValkeyServer()
    except FileNotFoundError as problem:
        pytest.skip(str(problem))
    yield server
    server.stop()
