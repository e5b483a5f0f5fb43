"""Two processes read a gallery while a third one adds to it, removes, and makes it anew."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PATIENCE_S = 120.0

COMMON = """
import hashlib, sys, time
from pathlib import Path
import numpy as np
from engine.types import Box, Embedding, Space
from gallery.gallery import Gallery
from gallery.records import FoundPerson, FoundPortrait, Thumbnail
from gallery.search import cache as search_cache

home = Path(sys.argv[1])
space = Space("resnet", "c" * 64, 1, 512)
rng = np.random.default_rng(1)
common = rng.standard_normal(512)

def shots(seed, count):
    rng = np.random.default_rng(seed)
    vectors = common + rng.standard_normal(512) + 0.5 * rng.standard_normal((count, 512))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
"""

WRITER = """
def enrol(gallery, numbers):
    portraits = []
    with gallery.transaction() as changes:
        for number in numbers:
            person = FoundPerson(f"p{number}", f"Person {number}", ("film",))
            row = changes.add_person(person)
            for shot in range(3):
                found = FoundPortrait(person, "made up", lambda _: b"")
                sha256 = hashlib.sha256(f"{number}/{shot}".encode()).hexdigest()
                picture = Thumbnail(None, 300, 300, np.ones((5, 2)), Box(1, 1, 9, 9))
                portraits.append(changes.add_portrait(row, found, sha256, picture))
        vectors = np.concatenate([shots(number, 3) for number in numbers])
        changes.add_vectors(space, vectors, portraits)

def cache(gallery, with_finder):
    gallery.refresh()
    index = gallery.index(space)
    search_cache.SCANNED_BYTES = 0 if with_finder else 2**60
    search_cache.write_cache(index.file, index.rows, index.revision)

with Gallery.open(home) as gallery, gallery.writing():
    enrol(gallery, range(40))
    (home / "begun").touch()
    while not all((home / name).exists() for name in ("reading0", "reading1")):
        time.sleep(0.01)
    for step in range(1, 13):
        enrol(gallery, range(20 * step + 20, 20 * step + 40))
        if step % 3 == 0:
            cache(gallery, step > 8)
        if step % 5 == 0:
            gone = gallery.find_person(f"Person {20 * step + 27}")
            with gallery.transaction() as changes:
                changes.remove_person(gone.id)
        if step % 8 == 0:
            gallery.compact(space)
            gallery.sweep_vectors()
    (home / "done").touch()
"""

READER = """
with Gallery.open(home) as gallery:
    searches, last, cached = 0, 0, False
    while True:
        finished = (home / "done").exists()
        for number in (3, 11, 39):
            (first, *others) = gallery.top_matches(Embedding(shots(number, 3)[0], space), 3)
            assert first.person.name == f"Person {number}", (number, first.person.name)
            assert first.cosine > 0.999999, first.cosine
            assert len({one.person.id for one in others}) == 2
            searches += 1
        people = len(gallery.index(space))
        assert people >= last - 1, (people, last)  # one is removed at a time
        last = people
        cached = cached or gallery.index(space).scan.cache is not None
        (home / f"reading{sys.argv[2]}").touch()
        if finished:
            break
        time.sleep(0.005)  # the writer needs a core, too
    newest = gallery.top_matches(Embedding(shots(279, 3)[0], space), 1)[0]
    assert newest.person.name == "Person 279", newest.person.name
    assert gallery.find_person("Person 127") is None
    print(searches, people, cached)
"""


@pytest.mark.parametrize("readers", [2])
def test_readers_find_the_right_people_at_every_moment(tmp_path: Path, readers: int) -> None:
    writer = _start(COMMON + WRITER, str(tmp_path))
    watching: list[subprocess.Popen[str]] = []
    try:
        while not (tmp_path / "begun").exists():
            assert writer.poll() is None, writer.communicate()
        watching = [_start(COMMON + READER, str(tmp_path), str(n)) for n in range(readers)]
        for process in (*watching, writer):
            printed, errors = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0, errors
            if process is not writer:
                searches, people, cached = printed.split()
                assert int(searches) >= 6
                assert int(people) == 14 * 20 - 2
                assert cached == "True"
    finally:
        for process in (writer, *watching):
            process.kill()
            process.communicate()


def _start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Three processes whose threads wait for each other take minutes on two busy cores.
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
