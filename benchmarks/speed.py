"""How fast a photo is answered, beside the published packages: ``lookalike bench``, recorded.

python benchmarks/speed.py --record
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

from figures import record

from bot.cli.bench import PEOPLE, measure, ratios, sample_photos
from bot.cli.main import BACKBONES
from bot.settings import Settings


def main() -> None:
    """Measures, prints, and records if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, help="data folder with weights (default: none)")
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--alone", action="store_true", help="leave the published packages out")
    parser.add_argument("--record", action="store_true", help="write benchmarks/figures.json")
    arguments = parser.parse_args()
    there = all(find_spec(name) is not None for name in ("tensorflow", "tf_keras", "mtcnn"))
    with tempfile.TemporaryDirectory() as folder:
        timings = measure(
            Settings(home=arguments.home or Path(folder)),
            BACKBONES,
            sample_photos(None),
            published=there and not arguments.alone,
            repetitions=arguments.repetitions,
        )
    for timing in timings:
        print(f"{timing.pipeline}, {timing.backbone}: {timing.whole:.1f} ms a photo")
    print(f"load of this machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if arguments.record:
        rows = [
            {
                name: round(value, 2) if isinstance(value, float) else value
                for name, value in dataclasses.asdict(timing).items()
            }
            for timing in timings
        ]
        record("speed", {"people": PEOPLE, "timings": rows, "ratios": ratios(timings)})


if __name__ == "__main__":
    main()
