"""How fast a photo is answered beside face_recognition and the published recipe, in turns.

Each photo, 300 and 1280 px large, goes through every pipeline before the next one comes; ratios are
medians of such pairs, from the file's bytes to the most similar of 10,000 people. The peers need
the extras ``tensorflow`` and ``test`` and the package face_recognition (``pip install --no-deps
face_recognition 'setuptools<81'``); what is not installed is left out.

python benchmarks/beside_peers.py --record AVX2
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from figures import record
from PIL import Image

from bot.cli.bench import (
    PEOPLE,
    Pipeline,
    made_up_people,
    our_pipeline,
    published_pipeline,
    write_made_up_weights,
)
from bot.recognizer import timed
from engine.decode import decode
from engine.engine import load_backbone
from engine.mtcnn import Detector
from engine.types import Photo
from gallery.sources.bundled import bundled_portraits

SIZES_PX = (300, 1280)
PUBLISHED_ROUNDS = 2  # seconds each
OURS = "lookalike"
Row = tuple[str, str, str]  # pipeline, backbone, precision
Reader = Callable[[bytes], Photo]
Taken = defaultdict[tuple[Row, int], list[dict[str, float]]]


def photos() -> Iterator[tuple[int, bytes]]:
    """The bundled portraits as JPEG files of each size."""
    for portrait in bundled_portraits():
        picture = Image.open(io.BytesIO(portrait.read(50_000_000))).convert("RGB")
        for size_px in SIZES_PX:
            scale, buffer = size_px / max(picture.size), io.BytesIO()
            size = (round(picture.width * scale), round(picture.height * scale))
            picture.resize(size).save(buffer, "JPEG", quality=87)
            yield size_px, buffer.getvalue()


def read(data: bytes) -> Photo:
    """A photo as both peers read it."""
    return Photo(np.array(Image.open(io.BytesIO(data)).convert("RGB")), (0, 0), "JPEG")


def face_recognition_pipeline() -> Pipeline:
    """The package face_recognition, as its documentation uses it."""
    import face_recognition

    people = made_up_people(128)
    return Pipeline(
        lambda photo: face_recognition.face_locations(photo.pixels),
        lambda photo, faces: (photo.pixels, faces[:1]),
        lambda found: face_recognition.face_encodings(*found)[0],
        lambda vector: np.argmin(face_recognition.face_distance(people, vector)),
    )


def opened(stack: ExitStack, precision: Any) -> Iterator[tuple[Row, Reader, Pipeline]]:
    """Every pipeline that is installed, with how it reads a file."""
    folder, detector = Path(stack.enter_context(tempfile.TemporaryDirectory())), Detector()
    for name in ("dlib", "resnet"):
        weights = write_made_up_weights(folder, name) if name != "dlib" else folder
        ours = load_backbone(name, models_folder=folder, cache_folder=folder, precision=precision)
        pipeline = stack.enter_context(our_pipeline(detector, ours))
        yield (OURS, name, ours.precision), decode, pipeline
        if name == "dlib" and find_spec("face_recognition"):
            yield ("face_recognition", name, "f32"), read, face_recognition_pipeline()
        if name != "dlib" and find_spec("tf_keras"):
            yield ("published", name, "f32"), read, published_pipeline(ours.record, weights)


def measure(rounds: int, precision: Any) -> Taken:
    """Milliseconds of the steps: pipeline and size -> rounds and photos in turn."""
    taken: Taken = defaultdict(list)
    with ExitStack() as stack:
        pipelines = list(opened(stack, precision))
        for number in range(-1, rounds):  # the first builds functions
            for size_px, data in photos():
                for row, reader, pipeline in pipelines:
                    if row[0] == "published" and number >= PUBLISHED_ROUNDS:
                        continue
                    ms: dict[str, float] = {}
                    with timed(ms, "decode"):
                        photo = reader(data)
                    ms |= pipeline.times_ms(photo)
                    if number >= 0:
                        taken[row, size_px].append(ms)
    return taken


def summary(taken: Taken) -> dict[str, object]:
    """Prints and returns medians, and how many times as long as ours each peer takes."""
    timings, ratios = list[dict[str, object]](), dict[str, dict[str, float]]()
    own = {(row[1], size_px): rows for (row, size_px), rows in taken.items() if row[0] == OURS}
    for ((pipeline, backbone, precision), size_px), rows in taken.items():
        median = {step: round(statistics.median(one[step] for one in rows), 2) for step in rows[0]}
        timings.append(
            {"pipeline": pipeline, "backbone": backbone, "precision": precision}
            | {"photo_px": size_px, "made_up_weights": backbone != "dlib"}
            | median
        )
        print(f"{pipeline}, {backbone} ({precision}), {size_px} px:", median)
        if pipeline != OURS:
            pairs = [
                (theirs["decode"] + theirs["whole"]) / (ours["decode"] + ours["whole"])
                for theirs, ours in zip(rows, own[backbone, size_px], strict=False)
            ]
            ratio = round(statistics.median(pairs), 1)
            ratios.setdefault(pipeline, {})[f"{size_px} px"] = ratio
            print(f"    {ratio} times as long as ours")
    return {"people": PEOPLE, "timings": timings, "ratios": ratios}


def main() -> None:
    """Measures, prints, and records if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--record", metavar="KIND", help="name of the kind of machine")
    arguments = parser.parse_args()
    load = round(os.getloadavg()[0], 1)
    found = summary(measure(arguments.rounds, arguments.precision)) | {"load_before": load}
    print(f"load of this machine before {load} on {os.cpu_count()} cores")
    if arguments.record:
        record(f"speed {arguments.record}", found)


if __name__ == "__main__":
    main()
