"""Search in PostgreSQL: how long, and what HNSW passes over, against comparing with everybody.

    python benchmarks/postgres_search.py [--people 10000] [--portraits 5] [--model NAME] [--record]

Without ``--url`` the package pgserver starts a server of its own for the time being. The people
are made up (made_people.py). Half of the queries are another photo of somebody in the gallery, half
of strangers.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from figures import record
from made_people import MadePeople
from numpy.typing import NDArray
from sqlalchemy import insert, text

from engine.types import Embedding, Space
from gallery.gallery import Gallery
from gallery.search import SearchIndex, pgvector
from gallery.tables import PEOPLE, PORTRAITS

K = 3
QUERIES = 200
PEOPLE_PER_BATCH = 200
MODELS = {"dlib": 128, "resnet": 2048}


def main() -> None:
    """Measures both models and prints a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--portraits", type=int, default=5)
    parser.add_argument("--model", choices=[*MODELS], help="only this one (default: all)")
    parser.add_argument("--url", help="an empty PostgreSQL database; one without it is started")
    parser.add_argument("--record", action="store_true", help="keep the figures for the docs")
    arguments = parser.parse_args()
    with server(arguments.url) as url, tempfile.TemporaryDirectory() as folder:
        for model in [arguments.model] if arguments.model else MODELS:
            dimensions = MODELS[model]
            with Gallery.open(Path(folder), url) as gallery:
                space = Space(model, "0" * 64, 1, dimensions)
                measured = measure(gallery, space, arguments.people, arguments.portraits)
            run = f"{arguments.people}x{arguments.portraits}x{dimensions}"
            for name, value in measured.items():
                print(f"{run} {name} {value:,.4g}")
            if arguments.record:
                record(f"postgres_search {run}", measured)


@contextmanager
def server(url: str | None) -> Iterator[str]:
    """The URL given, or that of a server in a temporary folder."""
    if url is not None:
        yield url
        return
    import pgserver

    with tempfile.TemporaryDirectory() as folder:
        started = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield started.get_uri()
        finally:
            started.cleanup()


def measure(gallery: Gallery, space: Space, people: int, portraits: int) -> dict[str, float]:
    """Adds everybody, searches exactly, then by HNSW."""
    crowd, half = MadePeople(space.dimensions), QUERIES // 2
    started = time.perf_counter()
    known = fill(gallery, space, crowd, people, portraits)
    analyse(gallery)
    seconds = time.perf_counter() - started
    figures = {"adding_1000_portraits_s": 1000 * seconds / (people * portraits)}
    looked = np.concatenate([known[:half], crowd.shots(half, 1)])
    queries = [Embedding(vector, space) for vector in looked]
    exact, figures["exact_ms"] = searched(gallery.index(space), queries)
    started = time.perf_counter()
    pgvector.INDEX_FROM_NUMBERS = 1
    gallery.settle(space)
    figures["hnsw_build_s"] = time.perf_counter() - started
    gallery.refresh()
    found, figures["hnsw_ms"] = searched(gallery.index(space), queries)
    pairs = list(zip(exact, found, strict=True))
    figures["hnsw_recall_at_3"] = float(np.mean([len(set(a) & set(b)) / K for a, b in pairs]))
    figures["hnsw_recall_at_1"] = float(np.mean([a[0] == b[0] for a, b in pairs]))
    return figures


def fill(
    gallery: Gallery, space: Space, crowd: MadePeople, people: int, portraits: int
) -> NDArray[np.float32]:
    """Adds made-up people without pictures; returns another photo of each."""
    others = []
    with gallery.writing():
        for start in range(0, people, PEOPLE_PER_BATCH):
            count = min(PEOPLE_PER_BATCH, people - start)
            shots = crowd.shots(count, portraits + 1).reshape(count, portraits + 1, -1)
            others.append(shots[:, -1])
            with gallery.transaction() as changes:
                names = [f"{space.backbone} {start + number}" for number in range(count)]
                rows = [{"key": name, "name": name, "folded_name": name} for name in names]
                query = insert(PEOPLE).returning(PEOPLE.c.id)
                ids = changes.connection.scalars(query, rows).all()
                owners = np.repeat(np.asarray(ids), portraits)
                pictures = [blank(int(owner), f"{owner} {n}") for n, owner in enumerate(owners)]
                query = insert(PORTRAITS).returning(PORTRAITS.c.id)
                made = changes.connection.scalars(query, pictures)
                vectors = shots[:, :-1].reshape(count * portraits, -1)
                changes.add_vectors(space, vectors, made.all())
    gallery.refresh()
    return np.concatenate(others)


def analyse(gallery: Gallery) -> None:
    """Lets the server know how much it holds, as its own housekeeping does in time."""
    with gallery.database.connect() as connection:
        connection.execute(text("ANALYZE person_vector, portrait_vector"))
        connection.commit()


def blank(person_id: int, name: str) -> dict[str, object]:
    """A portrait's row."""
    box = {"box_x": 0.0, "box_y": 0.0, "box_w": 1.0, "box_h": 1.0}
    size = {"width_px": 1, "height_px": 1, "landmarks": [[0.0, 0.0]] * 5}
    return {"person_id": person_id, "sha256": name.zfill(64), **box, **size}


def searched(index: SearchIndex, queries: list[Embedding]) -> tuple[list[tuple[int, ...]], float]:
    """Who is found for each query, and the median of milliseconds."""
    for query in queries[:5]:
        index.top(query, K)
    found, times_ms = [], []
    for query in queries:
        started = time.perf_counter()
        hits = index.top(query, K)
        times_ms.append((time.perf_counter() - started) * 1000)
        found.append(tuple(hit.person_id for hit in hits))
    return found, float(np.median(times_ms))


if __name__ == "__main__":
    main()
