"""From a cold start to the printed answer, and the memory it takes, with 10,000 people.

Each command is a process of its own, as a person would start it. The gallery is made up: vectors
around random directions, five for each person, and portraits that exist in the catalogue only.
Where `resnet` has no weights, made-up ones take their place in a folder that is deleted afterwards;
they decide nothing about time or memory.

    python benchmarks/start_and_memory.py --record
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from figures import record
from matplotlib import cbook

from bot.app import open_engine, open_gallery
from bot.cli.bench import write_made_up_weights
from bot.settings import Settings
from engine.types import Box, Space
from gallery.build import learn_scores
from gallery.gallery import Gallery
from gallery.records import FoundPerson, FoundPortrait, Thumbnail

PEOPLE, PORTRAITS = 10_000, 5
CHUNK = 100


def fill(gallery: Gallery, space: Space) -> None:
    """Enrols made-up people with vectors in one space."""
    random = np.random.default_rng(3)
    with gallery.writing():
        for start in range(0, PEOPLE, CHUNK):
            centres = random.standard_normal((CHUNK, 1, space.dimensions), np.float32)
            shots = random.standard_normal((CHUNK, PORTRAITS, space.dimensions), np.float32)
            vectors = (3 * centres + shots).reshape(-1, space.dimensions)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            portraits: list[int] = []
            with gallery.transaction() as changes:
                for number in range(start, start + CHUNK):
                    person = FoundPerson(f"{space.backbone}{number}", f"Person {number}", ("film",))
                    row = changes.add_person(person)
                    for shot in range(PORTRAITS):
                        key = f"{space.id}/{number}/{shot}".encode()
                        found = FoundPortrait(person, "made up", lambda _: b"")
                        portraits.append(
                            changes.add_portrait(
                                row,
                                found,
                                hashlib.sha256(key).hexdigest(),
                                Thumbnail(None, 300, 300, np.ones((5, 2)), Box(1, 1, 9, 9)),
                            )
                        )
                changes.add_vectors(space, vectors, portraits)
        learn_scores(gallery, space)
        gallery.settle(space)


# The peak that wait4 reports begins with the parent's own memory; the kernel's does not.
PROGRAM = """
import sys
from bot.cli.main import main
try:
    main()
except SystemExit as ended:
    if ended.code:
        raise
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")), file=sys.stderr)
"""


def timed(*command: str) -> tuple[float, float]:
    """Seconds and peak resident megabytes of one run of the program."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command], capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stderr)
    return seconds, int(done.stderr.split()[-1]) / 1024


def main(repetitions: int) -> dict[str, object]:
    """Makes the galleries, measures, deletes them; the figures."""
    matches: list[dict[str, object]] = []
    photo = str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    help_s = statistics.median(timed("--help")[0] for _ in range(repetitions))
    print(f"lookalike --help: {help_s:.2f} s (bar: 0.3 s)")
    for model, bar_mb in (("dlib", 350), ("resnet", 600)):
        with tempfile.TemporaryDirectory() as folder:
            settings = Settings(home=Path(folder), default_model="dlib")
            if model == "resnet":
                settings.models_folder.mkdir()
                write_made_up_weights(settings.models_folder, model)
            engine = open_engine(settings)
            with open_gallery(settings) as gallery:
                fill(gallery, engine.backbone(model).space)
            command = ("--home", folder, "match", photo, "--model", model, "--top", "3")
            first_s, _ = timed(*command)
            runs = [timed(*command) for _ in range(repetitions)]
            seconds = statistics.median(run[0] for run in runs)
            print(
                f"lookalike match, {model}, {PEOPLE:,} people: {seconds:.2f} s to the answer "
                f"(the very first time {first_s:.2f} s; bar with dlib: 1.5 s), "
                f"peak memory {max(run[1] for run in runs):.0f} MB (bar: {bar_mb} MB)"
            )
            matches.append(
                {
                    "lookalike match with": model,
                    "people": PEOPLE,
                    "answer_s": round(seconds, 2),
                    "first_answer_s": round(first_s, 2),
                    "peak_memory_mb": round(max(run[1] for run in runs)),
                }
            )
    return {"lookalike --help_s": round(help_s, 2), "match": matches}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--record", action="store_true", help="write benchmarks/figures.json")
    arguments = parser.parse_args()
    measured = main(arguments.repetitions)
    if arguments.record:
        record("start_and_memory", measured)
