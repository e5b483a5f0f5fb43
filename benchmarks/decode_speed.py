"""Time to decode a JPEG in a worker process, and in this process.

``python benchmarks/decode_speed.py [PHOTO] [--rounds 60]``: medians in turns, and the memory of an
idle worker (Linux).
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from engine.decode import DecodeLimits, decode, idle_workers
from engine.decode_worker import read


def jpeg_of_1280_px() -> bytes:
    """A made-up photo of 1280 x 960 with the detail of a real one, about 300 kB."""
    noise = np.random.default_rng(1).normal(0, 40, (240, 320, 3))
    rows, columns = np.mgrid[0:240, 0:320]
    smooth = np.stack([rows / 2 + 60, columns / 2 + 40, 200 - rows / 3], axis=2)
    pixels = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels).resize((1280, 960), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=88)
    return stream.getvalue()


def seconds(call: Callable[[bytes], object], data: bytes) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    call(data)
    return time.perf_counter() - began


def main() -> None:
    """Prints medians in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    data = options.photo.read_bytes() if options.photo else jpeg_of_1280_px()
    first = seconds(decode, data)

    def here_only(data: bytes) -> object:
        return np.array(read(data, DecodeLimits())[0])

    here_only(data)
    rounds = [(seconds(here_only, data), seconds(decode, data)) for _ in range(options.rounds)]
    here, worker = (1000 * statistics.median(times) for times in zip(*rounds, strict=True))
    print(f"{len(data):,} bytes; in this process {here:.1f} ms, in a worker {worker:.1f} ms")
    print(f"first photo, with the start of the worker: {1000 * first:.0f} ms")
    (pid,) = idle_workers()
    status = Path(f"/proc/{pid}/status")
    if status.is_file():
        (resident,) = (line for line in status.read_text().splitlines() if "VmRSS" in line)
        print(f"idle worker: {int(resident.split()[1]) / 1024:.0f} MiB resident")


if __name__ == "__main__":
    main()
