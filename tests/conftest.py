"""Photos that every test may use, and the folders that only some machines have."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from homes import copy_home
from postgres_server import PostgresServer

# A machine may be busy with other work.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

SHARED_FACES = Path(__file__).resolve().parents[1] / ".." / "shared" / "faces"


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

    Its gallery is built for dlib; its cache holds the compiled network.
    """
    from bot.app import open_engine, open_gallery
    from bot.settings import Settings
    from gallery.add import add
    from gallery.sources.bundled import bundled_portraits

    home = tmp_path_factory.mktemp("starter") / "home"
    settings = Settings(home=home)
    with open_gallery(settings) as gallery:
        add(gallery, open_engine(settings), bundled_portraits(), backbones=("dlib",))
        assert gallery.stats().portraits == 2
    return home


@pytest.fixture
def own_home(starter_home: Path, tmp_path: Path) -> Path:
    """A data folder of the test's own with the two people that everybody has."""
    return copy_home(starter_home, tmp_path / "home")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Lets SIGINT end the processes that a test starts.

    Where this one ignores it, as a background job does, they would inherit that.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server with pgvector; one for the whole session, or each of its workers."""
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
