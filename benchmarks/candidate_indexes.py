"""Which index to name candidates by: recall, time, size and build of faiss's kinds and of usearch.

Searched are the directions of made-up people (benchmarks/made_people.py) along their principal
components; the probes are strangers, whose nearest people are all about equally near. Recall is
that of the three nearest in full, among so many candidates.

    python benchmarks/candidate_indexes.py [--people 200000] [--dimensions 2048]

usearch is measured where it is installed; the program does not need it.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable, Iterator

import faiss
import numpy as np
import scipy.linalg
from made_people import MadePeople
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

PROBES, CHUNK = 200, 5_000
RECIPES = ("PQ{half}x4fs", "HNSW32,SQ8", "IVF{lists},SQ8", "SQ8", "SQ4")
Search = Callable[[NDArray[np.float32], int], NDArray[np.int64]]


def directions(crowd: MadePeople, people: int, each: int) -> NDArray[np.float32]:
    """Of people with so many portraits: float32 (people, D)."""
    found = np.empty((people, crowd.dimensions), np.float32)
    for first in range(0, people, CHUNK):
        last = min(people, first + CHUNK)
        sums = crowd.shots(last - first, each).reshape(last - first, each, -1).sum(axis=1)
        found[first:last] = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return found


def report(
    name: str, built_s: float, size: int, search: Search, seen: NDArray[np.float32], truth: object
) -> None:
    """Prints a line for each number of candidates."""
    for count in (256, 1024, 2048):
        found, times = [], []
        for probe in seen:
            started = time.perf_counter()
            found.append(search(probe, count))
            times.append(time.perf_counter() - started)
        pairs = zip(found, np.asarray(truth), strict=True)
        recall = np.mean(
            [len(set(some.tolist()) & set(three.tolist())) / 3 for some, three in pairs]
        )
        print(
            f"| {name} | {built_s:.0f} s | {size / 1e6:.0f} MB | {count} | "
            f"{1e3 * np.median(times):.2f} ms | {1e3 * min(times):.2f} ms | {recall:.3f} |"
        )


def with_faiss(
    recipe: str, people: NDArray[np.float32]
) -> tuple[float, int, Iterator[tuple[str, Search]]]:
    """Builds one kind; returns seconds, bytes and ways to search it."""
    index = faiss.index_factory(people.shape[1], recipe, faiss.METRIC_INNER_PRODUCT)
    started = time.perf_counter()
    index.train(people[:: max(1, len(people) // 50_000)].copy())
    index.add(people)
    built_s = time.perf_counter() - started

    def search(probe: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        found: NDArray[np.int64] = index.search(probe[None], count)[1][0]
        return found

    def ways() -> Iterator[tuple[str, Search]]:
        if recipe.startswith("HNSW"):
            for effort in (512, 2048):
                index.hnsw.efSearch = effort
                yield f"{recipe} ef {effort}", search
        elif recipe.startswith("IVF"):
            for probes in (64, 256):
                index.nprobe = probes
                yield f"{recipe} nprobe {probes}", search
        else:
            yield recipe, search

    return built_s, len(faiss.serialize_index(index)), ways()


def with_usearch(people: NDArray[np.float32], probes: NDArray[np.float32], truth: object) -> None:
    """Builds its graph on one byte a dimension, and prints."""
    from usearch.index import Index

    scale = 127 / (5 * people[:5_000].std())
    codes = np.clip(np.rint(people * scale), -127, 127).astype(np.int8)
    index = Index(ndim=people.shape[1], metric="ip", dtype="i8", connectivity=32)
    started = time.perf_counter()
    index.add(np.arange(len(codes)), codes, threads=2)
    built_s = time.perf_counter() - started
    seen = np.clip(np.rint(probes * 127 / (5 * probes.std())), -127, 127).astype(np.int8)
    for effort in (512, 2048):
        index.expansion_search = effort
        report(
            f"usearch i8 ef {effort}",
            built_s,
            index.serialized_length,
            lambda probe, count: index.search(probe, count).keys.astype(np.int64),
            seen,
            truth,
        )


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=200_000)
    parser.add_argument("--portraits", type=int, default=5)
    parser.add_argument("--dimensions", type=int, default=2048)
    parser.add_argument("--components", type=int, default=256)
    chosen = parser.parse_args()
    crowd = MadePeople(chosen.dimensions)
    people = directions(crowd, chosen.people, chosen.portraits)
    probes = crowd.shots(PROBES, 1)
    centre = people[:: max(1, chosen.people // 8_192)].mean(axis=0)
    sample = people[:: max(1, chosen.people // 8_192)] - centre
    last = [chosen.dimensions - chosen.components, chosen.dimensions - 1]
    with threadpool_limits(1, "blas"):
        basis = scipy.linalg.eigh(sample.T @ sample, subset_by_index=last)[1].astype(np.float32)
        seen = (people - centre) @ basis
        truth = np.argpartition(-(probes @ people.T), 3, axis=1)[:, :3]
    queries = probes @ basis
    del people
    faiss.omp_set_num_threads(1)
    print("| index | build | size | candidates | median | least | recall |\n|" + "---|" * 7)
    for recipe in RECIPES:
        named = recipe.format(half=chosen.components // 2, lists=int(2 * chosen.people**0.5))
        built_s, size, ways = with_faiss(named, seen)
        for name, search in ways:
            report(name, built_s, size, search, queries, truth)
    if importlib.util.find_spec("usearch"):
        with_usearch(seen, queries, truth)


if __name__ == "__main__":
    main()
