"""How long a gallery takes to be exported, imported and copied, and how much memory.

    python benchmarks/pack_speed.py --people 10000 --portraits 5 --record

Made-up people with vectors of 2048 numbers and a photo each; every step runs in a process of its
own, whose peak of resident memory is read at the end.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from figures import record
from PIL import Image

from engine.types import Box, Space
from gallery.gallery import Gallery
from gallery.records import Credit, FoundPerson, Thumbnail
from gallery.scores import Learned, prior
from gallery.transfer import copy_gallery, export_gallery, import_file

SPACE = Space("resnet", "ab" * 32, 1, 2048)
SIZE_PX = 320, 400
PEOPLE_AT_ONCE = 200

STEPS = ("start", "export", "export without photos", "import", "import again", "copy")


def main() -> None:
    """Measures, prints and perhaps records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--portraits", type=int, default=5, help="of each")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary one)")
    parser.add_argument("--record", action="store_true", help="write benchmarks/figures.json")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(step(options.step, options.folder)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        figures = measured(Path(folder), options.people, options.portraits)
    print(json.dumps(figures, indent=2))
    if options.record:
        record("pack", figures)


def measured(folder: Path, people: int, portraits: int) -> dict[str, Any]:
    """Seconds and memory of every step."""
    photo_bytes = fill(folder / "own", people, portraits)
    figures: dict[str, Any] = {
        "people": people,
        "portraits": people * portraits,
        "dimensions": SPACE.dimensions,
        "vectors_mb": round(people * portraits * SPACE.dimensions * 4 / 1e6),
        "photo_kb": round(photo_bytes / 1e3, 1),
    }
    for name in STEPS:
        command = [sys.executable, __file__, "--step", name, "--folder", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        figures[name.replace(" ", "_")] = json.loads(done.stdout)
        print(f"{name}: {done.stdout.strip()}", file=sys.stderr)
    figures["file_mb"] = round((folder / "all.lookalike").stat().st_size / 1e6)
    return figures


def step(name: str, folder: Path) -> dict[str, float]:
    """One step, in this process."""
    started = time.perf_counter()
    if name.startswith("export"):
        photos = name == "export"
        with Gallery.open(folder / "own") as own:
            export_gallery(
                own, folder / ("all.lookalike" if photos else "few.lookalike"), photos=photos
            )
    elif name.startswith("import"):
        with Gallery.open(folder / "imported") as other:
            import_file(other, folder / "all.lookalike")
    elif name == "copy":
        with Gallery.open(folder / "own") as own, Gallery.open(folder / "copied") as other:
            copy_gallery(own, other)
    return {
        "seconds": round(time.perf_counter() - started, 2),
        "processor_seconds": round(time.process_time(), 2),
        "peak_mb": round(peak_kb() / 1024),
    }


def peak_kb() -> int:
    """The most memory this program has held; not what the one held that started it (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def fill(folder: Path, people: int, portraits: int) -> int:
    """A gallery of made-up people; returns how large a photo is, in bytes."""
    rng = np.random.default_rng(0)
    jpeg = photo(rng)
    with Gallery.open(folder) as gallery, gallery.writing():
        for first in range(0, people, PEOPLE_AT_ONCE):
            numbers = range(first, min(first + PEOPLE_AT_ONCE, people))
            with gallery.transaction() as changes:
                ids: list[int] = []
                for number in numbers:
                    person = FoundPerson(f"Q{number + 1}", f"Person {number}", ("film",))
                    owner = changes.add_person(person)
                    for one in range(portraits):
                        sha256 = f"{number * 1000 + one:064x}"
                        ids.append(
                            changes.add_portrait(
                                owner,
                                Credit(
                                    author="Somebody Somewhere",
                                    licence="CC BY-SA 4.0",
                                    licence_url="https://creativecommons.org/licenses/by-sa/4.0",
                                    source_url=f"https://commons.wikimedia.org/wiki/File:{number}",
                                ),
                                sha256,
                                Thumbnail(
                                    jpeg,
                                    *SIZE_PX,
                                    100 + 60 * rng.random((5, 2), np.float32),
                                    Box(90.0, 80.0, 140.0, 180.0),
                                ),
                            )
                        )
                vectors = np.abs(rng.standard_normal((len(ids), SPACE.dimensions)))
                vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
                changes.add_vectors(SPACE, vectors.astype(np.float32), ids)
        learned = Learned(people * portraits, prior(SPACE))
        with gallery.transaction() as changes:
            changes.keep_calibration(SPACE, learned.content())
    return len(jpeg)


def photo(rng: np.random.Generator) -> bytes:
    """A picture as detailed as a portrait is."""
    coarse = (rng.random((50, 40, 3)) * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(SIZE_PX, Image.Resampling.BICUBIC).save(
        buffer, "JPEG", quality=90
    )
    return buffer.getvalue()


if __name__ == "__main__":
    main()
