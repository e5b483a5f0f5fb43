"""What ``/model best`` costs and brings: the trial, the fused search, and halves of a real network.

    python benchmarks/ensemble.py                      10,000 people with 5 portraits, two spaces
    python benchmarks/ensemble.py --people 2000 --portraits 3
    python benchmarks/ensemble.py --photos DIR         also on real people, a folder of photos each
    python benchmarks/ensemble.py --record             write benchmarks/figures.json

The people of the first part are made up (benchmarks/made_people.py), strangers to each other in
both spaces independently, so it tells times, not accuracy. For real people there is one network
whose weights everybody has: its 128 numbers, turned at random and cut into two halves, are two
networks of half the size that err partly alike, as real ones do.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
from figures import record
from made_people import MadePeople
from numpy.typing import NDArray
from sqlalchemy import insert

from engine.types import Embedding, Space
from gallery.build import learn_scores
from gallery.gallery import Gallery
from gallery.scores import score_at
from gallery.scores.ensemble import Ensemble, Member
from gallery.scores.fit import fit_pairs
from gallery.scores.trial import Trial, draw_probes, learn_ensemble, run_trial, try_ensemble
from gallery.tables import PEOPLE, PORTRAITS

SPACES = (Space("dlib", "0" * 64, 1, 128), Space("resnet", "0" * 64, 1, 2048))
BATCH, QUERIES = 1_000, 60


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--portraits", type=int, default=5)
    parser.add_argument("--photos", type=Path, help="a folder of photos for each real person")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures: dict[str, object] = {"cost": cost(Path(folder), options.people, options.portraits)}
        if options.photos is not None:
            figures["halves_of_dlib"] = halves_of_dlib(options.photos, Path(folder))
    for section, found in figures.items():
        print(section, found)
    if options.record:
        record("ensemble", figures)


def cost(folder: Path, people: int, portraits: int) -> dict[str, object]:
    """Seconds for the trial, milliseconds for a search by one backbone and by both."""
    crowds = [MadePeople(space.dimensions, seed=seed) for seed, space in enumerate(SPACES)]
    with Gallery.open(folder / "gallery") as gallery:
        for start in range(0, people, BATCH):
            count = min(BATCH, people - start)
            shots = [crowd.shots(count, portraits) for crowd in crowds]
            enrol(gallery, start, count, portraits, shots)
        for space in SPACES:
            with gallery.writing():
                learn_scores(gallery, space)
        with gallery.writing():
            started = time.perf_counter()
            trial = try_ensemble(gallery)
            trial_s = time.perf_counter() - started
        assert trial is not None
        ensemble = trial.offered or halfway(gallery)
        index = gallery.index(SPACES[1])
        probes = [crowd.shots(QUERIES, 1) for crowd in crowds]
        queries = [
            [Embedding(one[row], space) for one, space in zip(probes, SPACES, strict=True)]
            for row in range(QUERIES)
        ]
        order = [SPACES.index(space) for space in ensemble.spaces]
        alone, both = [], []
        for faces in queries:
            started = time.perf_counter()
            gallery.top_matches(faces[1], 3)
            between = time.perf_counter()
            gallery.fused_matches(ensemble, [faces[number] for number in order], 3)
            alone.append(between - started)
            both.append(time.perf_counter() - between)
    return {
        "people": people,
        "portraits": len(gallery.embedded(index.space)),
        "trial_s": trial_s,
        "outcome": str(trial.outcome),
        "query_2048_ms": 1e3 * statistics.median(alone),
        "query_2048_least_ms": 1e3 * min(alone),
        "query_both_ms": 1e3 * statistics.median(both),
        "query_both_least_ms": 1e3 * min(both),
    }


def halves_of_dlib(photos: Path, folder: Path) -> dict[str, object]:
    """What fusing two halves of dlib's vectors brings on real people, none of them learned from."""
    from bot.app import open_engine
    from bot.settings import Settings
    from gallery.add import add_folder

    engine = open_engine(Settings(home=folder, default_model="dlib"))
    with Gallery.open(folder / "real") as gallery:
        add_folder(gallery, engine, photos, backbones=["dlib"])
        (space,) = gallery.spaces()
        vectors, persons = gallery.index(space).training_rows(1_000_000)
    random = np.random.default_rng(0)
    turned = vectors @ np.linalg.qr(random.standard_normal((128, 128)))[0].astype(np.float32)
    halves = {
        Space("resnet", "0" * 64, 1, 64): unit(turned[:, :64]),
        Space("senet", "0" * 64, 1, 64): unit(turned[:, 64:]),
    }
    trial, held_out = run_trial(halves, persons), scores_of_others(halves, persons)
    names = {"resnet": "one half", "senet": "the other half", "best": "both, fused"}
    return {
        "people": trial.people,
        "probes": trial.probes,
        "outcome": str(trial.outcome),
        "chance_alone": max(trial.chances.values(), default=1.0),
        "compared": [shares(trial, held_out, name, names[name]) for name in trial.figures],
    }


def scores_of_others(
    vectors: Mapping[Space, NDArray[np.float32]], persons: NDArray[np.int64]
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Scores of the same person and of strangers by each way, learned from the other half."""
    probes = draw_probes(vectors, persons)
    order = np.random.default_rng(0).permutation(probes.people)
    found: dict[str, list[tuple[NDArray[np.float64], NDArray[np.float64]]]] = {}
    for known, held in permutations(
        [probes.of(np.sort(half)) for half in np.array_split(order, 2)]
    ):
        ways = {
            space.backbone: (held.cosines[space], fit_pairs(space, known.pairs(taught)))
            for space, taught in known.cosines.items()
        }
        ensemble, own = learn_ensemble(known), held.own()
        if ensemble is not None:
            fused = ensemble.fused([held.cosines[space] for space in ensemble.spaces])
            ways["best"] = fused.astype(np.float32), ensemble.calibration
        for name, (values, calibration) in ways.items():
            scores = calibration.scores(values)
            found.setdefault(name, []).append((scores[own], scores[~own]))
    return {
        name: (np.concatenate([own for own, _ in some]), np.concatenate([rest for _, rest in some]))
        for name, some in found.items()
    }


def shares(
    trial: Trial,
    held_out: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    name: str,
    shown: str,
) -> dict[str, object]:
    """Accuracy and honesty of one way of comparing."""
    own, strangers = held_out[name]
    return {
        "by": shown,
        "rank_1": trial.figures[name].rank_1,
        "tar": trial.figures[name].tar,
        "strangers_1_in_100": float(np.mean(strangers >= score_at(1e-2))),
        "strangers_1_in_1000": float(np.mean(strangers >= score_at(1e-3))),
        "same_person_median": float(np.median(own)),
    }


def halfway(gallery: Gallery) -> Ensemble:
    """The mean of both scores, where a trial offers nothing."""
    calibrations = [gallery.calibration(space) for space in SPACES]
    members = tuple(
        Member(space, 0.5, one) for space, one in zip(SPACES, calibrations, strict=True)
    )
    return Ensemble(members, calibrations[0])


def enrol(
    gallery: Gallery, start: int, people: int, portraits: int, shots: Sequence[NDArray[np.float32]]
) -> None:
    """Adds people to the catalogue and their vectors to both spaces; pictures they have none."""
    ids = range(start + 1, start + people + 1)
    rows = range(start * portraits + 1, (start + people) * portraits + 1)
    owners = np.repeat(np.array(ids), portraits).tolist()
    box = {"box_x": 1.0, "box_y": 1.0, "box_w": 90.0, "box_h": 90.0}
    size = {"width_px": 112, "height_px": 112, "landmarks": [[1.0, 1.0]] * 5}
    with gallery.writing(), gallery.transaction() as changes:
        changes.run(
            insert(PEOPLE),
            [{"id": n, "key": f"p{n}", "name": f"P {n}", "folded_name": f"p {n}"} for n in ids],
        )
        changes.run(
            insert(PORTRAITS),
            [
                {"id": row, "person_id": owner, "sha256": f"{row:064x}", **box, **size}
                for row, owner in zip(rows, owners, strict=True)
            ],
        )
        for space, vectors in zip(SPACES, shots, strict=True):
            changes.add_vectors(space, vectors, list(rows))
    gallery.refresh()


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same directions at length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


if __name__ == "__main__":
    main()
