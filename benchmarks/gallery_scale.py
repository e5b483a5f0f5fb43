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
from sqlalchemy import insert

from bot.app import open_engine
from bot.settings import Settings
from engine.types import Box, Embedding, Space
from gallery.add import add
from gallery.build import learn_scores
from gallery.changes import Transaction
from gallery.gallery import Gallery
from gallery.records import FoundPerson, FoundPortrait, Thumbnail
from gallery.search.cache import newest_cache
from gallery.search.index import GalleryIndex
from gallery.tables import PEOPLE, PORTRAITS

PROBES, EXACT_PROBES = 200, 60
SINGLE = 9  # times that what takes a few milliseconds is done
BATCH = 2_000

# Opens a gallery and searches it: a process of its own, so that its memory is its own.
READER = """
import json, sys, time
import numpy as np
from pathlib import Path
from engine.types import Embedding
from gallery.gallery import Gallery
import gallery.search.index

def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))

folder = Path(sys.argv[1])
probes = np.load(folder / "probes.npy")
opened = Gallery.open(folder)
(space,) = opened.spaces()
before, mapped = status("RssAnon"), status("RssFile")
started = time.perf_counter()
index = opened.index(space)
open_s = time.perf_counter() - started
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
    "open_ms": 1e3 * open_s, "first_ms": 1e3 * first, "query_ms": 1e3 * float(np.median(times)),
    "query_least_ms": 1e3 * min(times), "category_ms": 1e3 * float(np.median(some)),
    "own_memory_mb": status("RssAnon") - before,
    "mapped_memory_mb": status("RssFile") - mapped,
    "found": [[hit.person_id for hit in hits] for hits in found]}))
"""


def space_of(dimensions: int) -> Space:
    """A space that no real network has."""
    return Space("dlib" if dimensions < 512 else "resnet", "0" * 64, 1, dimensions)


def fill(gallery: Gallery, crowd: MadePeople, people: int, each: int) -> float:
    """Adds people without pictures; how many seconds the writing of vectors took."""
    seconds = 0.0
    for first in range(0, people, BATCH // each):
        count = min(BATCH // each, people - first)
        vectors = crowd.shots(count, each)
        with gallery.transaction() as changes:
            made = rows_of_people(changes, first, count, each)
            started = time.perf_counter()
            changes.add_vectors(space_of(crowd.dimensions), vectors, made)
            seconds += time.perf_counter() - started
    return seconds


def rows_of_people(changes: Transaction, first: int, people: int, each: int) -> list[int]:
    """Rows of people and their portraits; the ids of these, by person."""
    ids = range(first + 1, first + people + 1)
    named = [{"id": n, "key": f"p{n}", "name": f"P {n}", "folded_name": f"p {n}"} for n in ids]
    changes.run(insert(PEOPLE), named)
    box = {"box_x": 1.0, "box_y": 1.0, "box_w": 9.0, "box_h": 9.0}
    size = {"width_px": 300, "height_px": 300, "landmarks": [[1.0, 1.0]] * 5}
    rows = range(first * each + 1, (first + people) * each + 1)
    portraits = [
        {"id": row, "person_id": 1 + (row - 1) // each, "sha256": f"{row:064x}", **box, **size}
        for row in rows
    ]
    changes.run(insert(PORTRAITS), portraits)
    return list(rows)


def read(folder: Path, probes: NDArray[np.float32]) -> dict[str, object]:
    """What a process that opens and searches says."""
    np.save(folder / "probes.npy", probes)
    done = subprocess.run(
        [sys.executable, "-c", READER, str(folder)], capture_output=True, text=True, check=True
    )
    told: dict[str, object] = json.loads(done.stdout)
    return told


def by_looking_at_all(
    index: GalleryIndex, probes: NDArray[np.float32]
) -> tuple[list[list[int]], float]:
    """Who is found without the cache, and how many milliseconds that takes."""
    (path,) = index.file.folder.glob("cache-*")
    aside = path.rename(path.with_name("aside"))
    plain = GalleryIndex(index.file, index.rows, index.revision)
    found, times = [], []
    for probe in probes:
        started = time.perf_counter()
        hits = plain.top(Embedding(probe, index.space), 3)
        times.append(time.perf_counter() - started)
        found.append([hit.person_id for hit in hits])
    aside.rename(path)
    return found, 1e3 * statistics.median(times)


def measured(crowd: MadePeople, folder: Path, people: int, each: int) -> dict[str, object]:
    """Everything about an index of so many people."""
    dimensions, space = crowd.dimensions, space_of(crowd.dimensions)
    print(f"{people:,} people x {each} portraits, {dimensions} dimensions")
    with Gallery.open(folder) as gallery:
        append_s = fill(gallery, crowd, people, each)
        gallery.refresh()
        started = time.perf_counter()
        gallery.settle(space)
        cache_s = time.perf_counter() - started
        probes = crowd.shots(PROBES, 1)
        told = read(folder, probes)
        found = told.pop("found")
        figures = {
            "people": people,
            "portraits": people * each,
            "dimensions": dimensions,
            "disk_mb": size_mb(gallery.space_folder(space)),
            "append_per_s": people * each / append_s,
            "prepare_s": cache_s,
            **told,
        }
        index = gallery.index(space)
        assert isinstance(index, GalleryIndex)
        if cache := newest_cache(index.file, index.rows.row_count, index.revision):
            figures["approximate"] = cache.people is not None
            (path,) = index.file.folder.glob("cache-*")
            figures["cache_mb"] = path.stat().st_size / 1e6
            expected, plain_ms = by_looking_at_all(index, probes[:EXACT_PROBES])
            kept = [len(set(a) & set(b)) / 3 for a, b in zip(found, expected, strict=False)]
            figures["recall_at_3"] = statistics.fmean(kept)
            figures["looking_at_all_ms"] = plain_ms
    return {name: _rounded(value) for name, value in figures.items()}


def size_mb(folder: Path) -> float:
    """Of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def with_catalogue(crowd: MadePeople, folder: Path, people: int, each: int) -> dict[str, object]:
    """A whole gallery: opening it, matches with names, adding one person."""
    space = space_of(crowd.dimensions)
    with Gallery.open(folder) as gallery:
        with gallery.writing():
            for first in range(0, people, 200):
                enrol(gallery, crowd, first, min(200, people - first), each)
            gallery.refresh()
            gallery.settle(space)
            learn_scores(gallery, space)
        adding = []
        for one in range(people, people + SINGLE):
            started = time.perf_counter()
            with gallery.writing():
                enrol(gallery, crowd, one, 1, each)
                gallery.refresh()
                gallery.settle(space)
            adding.append(1e3 * (time.perf_counter() - started))
    probes = [Embedding(probe, space) for probe in crowd.shots(PROBES, 1)]
    opening = []
    for probe in probes[:SINGLE]:
        started = time.perf_counter()
        with Gallery.open(folder) as gallery:
            gallery.top_matches(probe, 3)
        opening.append(1e3 * (time.perf_counter() - started))
    with Gallery.open(folder) as gallery:
        times = []
        for probe in probes:
            started = time.perf_counter()
            gallery.top_matches(probe, 3)
            times.append(1e3 * (time.perf_counter() - started))
    return {
        "add_one_person_ms": _rounded(statistics.median(adding)),
        "open_and_first_match_ms": _rounded(statistics.median(opening)),
        "top_matches_ms": _rounded(statistics.median(times)),
        "top_matches_least_ms": _rounded(min(times)),
    }


def enrol(gallery: Gallery, crowd: MadePeople, first: int, people: int, each: int) -> None:
    """Puts people into the gallery and their vectors into the space."""
    portraits = []
    with gallery.transaction() as changes:
        for number in range(first, first + people):
            person = FoundPerson(f"made{number}", f"Person {number}", ("film",))
            row = changes.add_person(person)
            for shot in range(each):
                found = FoundPortrait(person, "made up", lambda _: b"")
                sha256 = hashlib.sha256(f"{number}/{shot}".encode()).hexdigest()
                portraits.append(
                    changes.add_portrait(
                        row,
                        found,
                        sha256,
                        Thumbnail(None, 300, 300, np.ones((5, 2), np.float32), Box(1, 1, 9, 9)),
                    )
                )
        changes.add_vectors(space_of(crowd.dimensions), crowd.shots(people, each), portraits)


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
