"""Several processes share a gallery on PostgreSQL: killed while adding, read while another adds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.engine import Engine
from engine.errors import Busy
from gallery import add
from gallery.add import add_folder
from gallery.gallery import Gallery

Variant = Callable[[int], bytes]

PHOTOS, BATCH = 50, 16
PATIENCE_S = 120

READER = """
import sys
import time
from pathlib import Path
import numpy as np
from engine.types import Embedding
from gallery.gallery import Gallery

seen = set()
with Gallery.open(Path(sys.argv[1]), sys.argv[2]) as gallery:
    while len(seen) < 3 or gallery.stats().portraits < int(sys.argv[3]):
        gallery.refresh()
        for space in gallery.spaces():
            query = Embedding(np.full(space.dimensions, space.dimensions**-0.5, np.float32), space)
            matches = gallery.top_matches(query, 10)
            assert len({match.person.id for match in matches}) == len(matches) > 0
            assert all(len(match.thumbnail()) > 0 for match in matches)
            seen.add(gallery.revision())
        time.sleep(0.05)
print(len(seen), len(matches))
"""


@pytest.fixture
def crowd(tmp_path: Path, variant: Variant) -> Path:
    """People of two photos each."""
    root = tmp_path / "people"
    for number in range(PHOTOS):
        path = root / f"Person_{number // 4}_{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(variant(number))
    return root


def adding(crowd: Path, home: Path, url: str, precision: str) -> subprocess.Popen[str]:
    """`lookalike gallery add` in a process of its own."""
    smaller = f"from gallery import add; add._BATCH_FRESH = {BATCH}"
    code = f"{smaller}; from bot.cli.main import main; main()"
    command = [sys.executable, "-c", code, "gallery", "add", str(crowd), "--home", str(home)]
    return subprocess.Popen(
        [*command, "--model", "dlib"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            "LOOKALIKE_GALLERY__URL": url,
            "LOOKALIKE_MODELS__PRECISION": precision,
        },
    )


def wait_for_the_lock(gallery: Gallery) -> None:
    """The server notices within moments that a process is gone."""
    for _ in range(100):
        try:
            with gallery.writing():
                return
        except Busy:
            time.sleep(0.02)


def test_readers_see_whole_people_while_another_process_adds_and_is_killed(
    tmp_path: Path,
    postgres_url: str,
    starter_home: Path,
    crowd: Path,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(add, "_BATCH_FRESH", BATCH)
    homes = [tmp_path / name for name in ("first", "second", "third")]
    for home in homes:
        home.mkdir()
        (home / "cache").symlink_to(starter_home / "cache", target_is_directory=True)
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, str(home / "gallery"), postgres_url, str(PHOTOS)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for home in homes[:2]
    ]
    try:
        with Gallery.open(tmp_path / "watching", postgres_url) as gallery:
            killed = adding(crowd, homes[2], postgres_url, engine.backbone("dlib").precision)
            deadline = time.monotonic() + PATIENCE_S
            while gallery.stats().portraits == 0 and time.monotonic() < deadline:
                assert killed.poll() is None, killed.communicate()[0]
                time.sleep(0.05)
            with pytest.raises(Busy), gallery.writing():
                pass
            killed.send_signal(signal.SIGKILL)
            killed.communicate()
            before = gallery.stats().portraits
            assert 0 < before < PHOTOS

            # Its lock went with it, what it finished stays, and the rest is added now.
            wait_for_the_lock(gallery)
            report = add_folder(gallery, engine, crowd, backbones=["dlib"])
            assert (report.unchanged, report.added) == (before, PHOTOS - before)
            (space,) = gallery.spaces()
            vectors, _ = gallery.index(space).training_rows(10**6)
            assert len(vectors) == len(gallery.embedded(space)) == PHOTOS
            assert gallery.embedded(space).tolist() == gallery.portrait_ids().tolist()
        for reader in readers:
            out, err = reader.communicate(timeout=PATIENCE_S)
            assert (reader.returncode, err) == (0, "")
            revisions, matches = map(int, out.split())
            assert revisions >= 3
            assert matches == 10
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()
