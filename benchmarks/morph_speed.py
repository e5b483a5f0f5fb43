"""How long the pictures of an answer take: side by side, split, and the film of `/morph`.

Drawn from the two public-domain portraits that come with the packages, in one thread as the bot
draws them; the best and the median of several runs, and how large the files are.

    python benchmarks/morph_speed.py --record
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
from figures import record

from bot.app import open_engine
from bot.pictures.card import CardEntry, draw_card
from bot.pictures.morph import GIF, MP4, Format, encodes_mp4, make_morph
from bot.settings import Settings
from engine.types import Face, Photo
from gallery.sources.bundled import bundled_portraits

MOST_BYTES = 10_000_000
Seen = tuple[str, Photo, Face]


def look() -> tuple[Seen, Seen]:
    """The two people, as the detector sees them."""
    engine = open_engine(Settings())
    seen = []
    for found in bundled_portraits():
        photo = engine.decode(found.read(MOST_BYTES))
        seen.append((found.person.name, photo, engine.detect(photo)[0]))
    first, second = seen
    return first, second


def entry_of(seen: Seen) -> CardEntry:
    """The person as a match."""
    name, photo, face = seen
    return CardEntry(
        portrait=photo.pixels,
        portrait_landmarks=face.landmarks,
        name=name,
        score=51.0,
        word="a strong likeness",
        credit="NASA, public domain",
    )


def measured(draw: Callable[[], bytes], runs: int) -> dict[str, object]:
    """Milliseconds of so many runs after a first one, and the size of what was made."""
    size = len(draw())
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        draw()
        times.append((time.perf_counter() - started) * 1000)
    return {
        "best_ms": round(min(times), 1),
        "median_ms": round(statistics.median(times), 1),
        "kilobytes": round(size / 1000),
    }


def film(first: Seen, second: Seen, kind: Format) -> bytes:
    """The content of a film."""
    _, photo, face = first
    sight = (np.asarray(photo.pixels), face.landmarks)
    return make_morph(sight, entry_of(second), alt="", kind=kind).content


def main() -> None:
    """Measures and prints; records where that is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=15, help="How often each is drawn.")
    parser.add_argument("--record", action="store_true", help="Write it to figures.json.")
    options = parser.parse_args()
    hopper, collins = look()
    _, photo, face = collins
    several = [entry_of(hopper), entry_of(collins), entry_of(hopper)]
    drawings: dict[str, Callable[[], bytes]] = {
        "side": lambda: draw_card(photo, [face], several[:1]).jpeg,
        "split": lambda: draw_card(photo, [face], several[:1], split=True).jpeg,
        "split_of_three": lambda: draw_card(photo, [face], several, split=True).jpeg,
        "morph_gif": lambda: film(collins, hopper, GIF),
    }
    if encodes_mp4():
        drawings["morph_mp4"] = lambda: film(collins, hopper, MP4)
    figures: dict[str, object] = {"load_before": round(os.getloadavg()[0], 1)}
    for name, draw in drawings.items():
        found = measured(draw, options.runs)
        figures[name] = found
        print(f"{name:15} " + "  ".join(f"{key} {value}" for key, value in found.items()))
    if options.record:
        record("pictures", figures)


if __name__ == "__main__":
    main()
