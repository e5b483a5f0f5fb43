"""How large a gallery may be: search, opening, adding, memory and disk, in made-up galleries.

    python benchmarks/gallery_scale.py                       10,000 people with 5 portraits, 2,048
    python benchmarks/gallery_scale.py --people 20000 --portraits 5 --dimensions 128
    python benchmarks/gallery_scale.py --million             1,000,000 portraits, both dimensions
    python benchmarks/gallery_scale.py --flat                memory of `gallery add` while it grows

`--photos DIR` starts from real people (a folder of photos each); benchmarks/made_people.py says how
alike the made-up ones are. The million needs 20 GB on the disk of `--folder` for a while.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from figures import record
from made_people import MadePeople, real_faces
from matplotlib import cbook
from numpy.typing import NDArray
from PIL import Image

from bot.app import open_engine
from bot.settings import Settings
from engine.types import Box, Embedding, Space
from gallery import registrar
from gallery.add import add
from gallery.database import changing
from gallery.gallery import Gallery
from gallery.index import GalleryIndex
from gallery.records import FoundPerson, FoundPortrait
from gallery.registrar import append_rows
from gallery.searching.digest import Finder
from gallery.searching.digesting import renew_digest
from gallery.upkeep import learn_scores
from gallery.vectors import VectorFiles

PROBES, EXACT_PROBES = 200, 60
BATCH = 2_000
NONE = np.empty(0, np.int64)

# Opens a gallery and searches it: a process of its own, so that its memory is its own.
READER = """
import json, sys, time
import numpy as np
from pathlib import Path
from engine.types import Embedding, Space
from gallery.index import GalleryIndex
from gallery.vectors import VectorFiles

def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))

folder, rows, backbone, dimensions = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
space = Space(backbone, "0" * 64, 1, dimensions)
probes = np.load(Path(folder) / "probes.npy")
before = status("RssAnon")
opened = time.perf_counter()
index = GalleryIndex(VectorFiles.open(Path(folder), space, 1), rows, np.empty(0, np.int64))
opened = time.perf_counter() - opened
queries = [Embedding(probe, space) for probe in probes]
first = time.perf_counter()
index.top(queries[0], 3)
first = time.perf_counter() - first
found, times = [], []
for query in queries:
    started = time.perf_counter()
    found.append(index.top(query, 3))
    times.append(time.perf_counter() - started)
few = np.random.default_rng(0).random(len(index)) < 0.1
some = []
for query in queries[:50]:
    started = time.perf_counter()
    index.top(query, 3, allowed=few)
    some.append(time.perf_counter() - started)
print(json.dumps({
    "open_ms": 1e3 * opened, "first_ms": 1e3 * first, "query_ms": 1e3 * float(np.median(times)),
    "query_least_ms": 1e3 * min(times), "category_ms": 1e3 * float(np.median(some)),
    "own_memory_mb": status("RssAnon") - before, "mapped_memory_mb": status("RssFile"),
    "found": [[hit.person_id for hit in hits] for hits in found]}))
"""


def space_of(dimensions: int) -> Space:
    """A space that no real network has."""
    return Space("dlib" if dimensions < 512 else "resnet", "0" * 64, 1, dimensions)


def fill(folder: Path, crowd: MadePeople, people: int, each: int) -> tuple[VectorFiles, float]:
    """Writes a gallery's vectors; returns them and how many seconds the writing took."""
    files = VectorFiles.create(folder, space_of(crowd.dimensions))
    owners, rows, seconds = files.owners(), 0, 0.0
    for first in range(0, people, BATCH // each):
        count = min(BATCH // each, people - first)
        vectors = crowd.shots(count, each)
        started = time.perf_counter()
        ids = np.arange(rows, rows + len(vectors))
        rows = files.append(rows, vectors, ids, first + np.arange(count).repeat(each), NONE, owners)
        seconds += time.perf_counter() - started
    return files, seconds


def read(files: VectorFiles, rows: int, probes: NDArray[np.float32]) -> dict[str, object]:
    """What a process that opens and searches says."""
    np.save(files.folder / "probes.npy", probes)
    space = files.manifest.space
    arguments = [str(files.folder), str(rows), space.backbone, str(space.dimensions)]
    done = subprocess.run(
        [sys.executable, "-c", READER, *arguments], capture_output=True, text=True, check=True
    )
    told: dict[str, object] = json.loads(done.stdout)
    return told


def by_looking_at_all(
    files: VectorFiles, rows: int, probes: NDArray[np.float32]
) -> tuple[list[list[int]], float]:
    """Who is found without a digest, and how many milliseconds that takes."""
    aside = files.path("digest").rename(files.folder / "aside")
    index = GalleryIndex(files, rows, NONE)
    found, times = [], []
    for probe in probes:
        started = time.perf_counter()
        hits = index.top(Embedding(probe, index.space), 3)
        times.append(time.perf_counter() - started)
        found.append([hit.person_id for hit in hits])
    aside.rename(files.path("digest"))
    return found, 1e3 * statistics.median(times)


def measured(crowd: MadePeople, folder: Path, people: int, each: int) -> dict[str, object]:
    """Everything about an index of so many people."""
    dimensions = crowd.dimensions
    print(f"{people:,} people x {each} portraits, {dimensions} dimensions")
    files, append_s = fill(folder, crowd, people, each)
    rows = people * each
    started = time.perf_counter()
    renewed = renew_digest(files, rows, NONE)
    digest_s = time.perf_counter() - started
    probes = crowd.shots(PROBES, 1)
    told = read(files, rows, probes)
    found = told.pop("found")
    figures = {
        "people": people,
        "portraits": rows,
        "dimensions": dimensions,
        "disk_mb": sum(path.stat().st_size for path in folder.iterdir()) / 1e6,
        "append_per_s": rows / append_s,
        "prepare_s": digest_s,
        **told,
    }
    if renewed:
        digest = files.digest(rows)
        assert digest is not None
        figures["approximate"] = isinstance(digest.portraits, Finder)
        figures["digest_mb"] = files.path("digest").stat().st_size / 1e6
        expected, plain_ms = by_looking_at_all(files, rows, probes[:EXACT_PROBES])
        kept = [len(set(a) & set(b)) / 3 for a, b in zip(found, expected, strict=False)]
        figures["recall_at_3"] = statistics.fmean(kept)
        figures["looking_at_all_ms"] = plain_ms
    return {name: _rounded(value) for name, value in figures.items()}


def with_catalogue(crowd: MadePeople, folder: Path, people: int, each: int) -> dict[str, object]:
    """A whole gallery: opening it, matches with names, adding one person."""
    space = space_of(crowd.dimensions)
    with Gallery.open(folder) as gallery:
        with gallery.writing():
            for first in range(0, people, 200):
                enrol(gallery, crowd, first, min(200, people - first), each)
            gallery.storage.settle(space)
            learn_scores(gallery, space)
        started = time.perf_counter()
        with gallery.writing():
            enrol(gallery, crowd, people, 1, each)
            gallery.storage.settle(space)
        add_ms = 1e3 * (time.perf_counter() - started)
    probes = [Embedding(probe, space) for probe in crowd.shots(PROBES, 1)]
    started = time.perf_counter()
    with Gallery.open(folder) as gallery:
        gallery.top_matches(probes[0], 3)
        first_ms = 1e3 * (time.perf_counter() - started)
        times = []
        for probe in probes:
            started = time.perf_counter()
            gallery.top_matches(probe, 3)
            times.append(1e3 * (time.perf_counter() - started))
    return {
        "add_one_person_ms": _rounded(add_ms),
        "open_and_first_match_ms": _rounded(first_ms),
        "top_matches_ms": _rounded(statistics.median(times)),
        "top_matches_least_ms": _rounded(min(times)),
    }


def enrol(gallery: Gallery, crowd: MadePeople, first: int, people: int, each: int) -> None:
    """Puts people into the catalogue and their vectors into the space."""
    portraits, owners = [], []
    with changing(gallery.catalogue.database) as connection:
        for number in range(first, first + people):
            person = FoundPerson(f"made{number}", f"Person {number}", ("film",))
            row = registrar.enrol_person(connection, person)
            for shot in range(each):
                found = FoundPortrait(person, "made up", lambda _: b"")
                portraits.append(
                    registrar.enrol_portrait(
                        connection,
                        row,
                        found,
                        sha256=hashlib.sha256(f"{number}/{shot}".encode()).hexdigest(),
                        size_px=(300, 300),
                        landmarks=[[1, 1]] * 5,
                        box=Box(1, 1, 9, 9),
                    )
                )
                owners.append(row)
        vectors = crowd.shots(people, each)
        append_rows(connection, gallery, space_of(crowd.dimensions), vectors, portraits, owners)
        registrar.note_change(connection)


def flat(folder: Path, photos: int) -> dict[str, object]:
    """Memory and speed of `gallery add` with dlib: one photo again and again, each a new file."""
    content = Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)).read_bytes()
    small = io.BytesIO()
    Image.open(io.BytesIO(content)).resize((256, 300)).save(small, "JPEG")

    def found(number: int) -> FoundPortrait:
        person = FoundPerson(f"made{number // 4}", f"Person {number // 4}", ())
        # Bytes behind the end of a JPEG make another file of the same picture.
        return FoundPortrait(person, "made up", lambda _: small.getvalue() + b"%d" % number)

    marks: list[tuple[int, float]] = []

    def progress(what: str, done: int, _total: int | None) -> None:
        if what == "photos" and done % (photos // 10) == 0:
            marks.append((done, resident_mb()))
            print(f"  {done:,} photos: {marks[-1][1]:.0f} MB")

    engine = open_engine(Settings(home=folder, default_model="dlib"))
    with Gallery.open(folder / "gallery") as gallery:
        source = (found(number) for number in range(photos))
        report = add(gallery, engine, source, backbones=["dlib"], total=photos, progress=progress)
    return {
        "photos": report.added,
        "portraits_per_s": _rounded(report.added / report.seconds),
        "at_a_tenth_mb": _rounded(marks[0][1]),
        "at_the_end_mb": _rounded(marks[-1][1]),
    }


def resident_mb() -> float:
    """Memory of this process that is its own."""
    with Path("/proc/self/status").open() as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def main() -> None:
    """Measures what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--portraits", type=int, default=5, help="of each person")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[2048])
    parser.add_argument("--million", action="store_true", help="1,000,000 portraits")
    parser.add_argument("--flat", action="store_true", help="memory of gallery add")
    parser.add_argument("--photos", type=Path, help="a folder of photos for each real person")
    parser.add_argument("--folder", type=Path, help="where to work; deleted afterwards")
    parser.add_argument("--record", action="store_true", help="for the documentation")
    chosen = parser.parse_args()
    each = chosen.portraits
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        folder = Path(name)
        real = real_faces(chosen.photos, folder) if chosen.photos else None
        if chosen.flat:
            said = flat(folder, chosen.people)
            _finish(f"scale flat {said['photos']}", said, recorded=chosen.record)
            return
        sizes = [1_000_000 // each] if chosen.million else [chosen.people]
        dimensions = [128, 2048] if chosen.million else chosen.dimensions
        for people, length in itertools.product(sizes, dimensions):
            crowd = MadePeople(length, real)
            with tempfile.TemporaryDirectory(dir=folder) as inner:
                figures = measured(crowd, Path(inner), people, each)
            if not chosen.million:
                with tempfile.TemporaryDirectory(dir=folder) as inner:
                    figures |= with_catalogue(crowd, Path(inner), people, each)
            _finish(f"scale {people}x{each}x{length}", figures, recorded=chosen.record)


def _finish(section: str, figures: dict[str, object], *, recorded: bool) -> None:
    for name, value in figures.items():
        print(f"  {name}: {value}")
    if recorded:
        record(section, figures)


def _rounded(value: object) -> object:
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
