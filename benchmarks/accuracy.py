"""How often the backbone is right, how honest its scores are, and for whom.

A folder with a file pairs.csv is judged as pairs (``lookalike evaluate pairs``); any other is a
folder of people, arranged as for ``lookalike gallery add``: they are looked up with three gallery
photos each; the scores' meaning is learned on one half of the people and judged on the other, in
ten random divisions; groups come from --people or people.csv in the folder.

    python benchmarks/accuracy.py "LFW's development view=lfw" "film people=people" --record

Photos come with nothing here: bring your own, with people who are not in any gallery.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from figures import record
from numpy.typing import NDArray

from bot.app import open_engine
from bot.settings import Settings
from engine.engine import Engine
from gallery.evaluation.groups import group_people
from gallery.evaluation.measures import Measures, verify
from gallery.evaluation.photos import (
    Identification,
    PhotoEmbeddings,
    ProbeSet,
    embed_photos,
    identify,
    photos_by_person,
    read_labels,
    read_pairs,
    split_photos,
)
from gallery.evaluation.report import grouping_json
from gallery.scores import Calibration, prior, score_at
from gallery.scores.fit import fit_calibration

GALLERY_PHOTOS = 3
DIVISIONS = 10
PROMISED = {"1_in_100": 0.01, "1_in_1000": 0.001}


def pairs(engine: Engine, model: str, folder: Path, title: str) -> dict[str, Any]:
    """Verification of labelled pairs, ten-fold."""
    labelled = read_pairs(folder / "pairs.csv", folder)
    calibration = prior(engine.backbone(model).space)
    result = verify(engine, model, labelled, root=folder, calibration=calibration)
    found = result.to_json()
    kept = ("pairs", "accuracy", "accuracy_std", "tar_at_far_1e-3", "roc_auc", "failures")
    print(
        f"{title}, {found['pairs']:,} pairs: {result.accuracy:.2%} right (bar: 99.2 %), "
        f"TAR {result.tar:.1%} at FAR 0.1 %, AUC {result.roc.area:.4f}"
    )
    return {"title": title} | {name: found[name] for name in kept}


def people(
    engine: Engine, model: str, folder: Path, title: str, labels: Path | None
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Identification, the scores of people not seen before, and groups."""
    everybody = {
        who: files for who, files in photos_by_person(folder).items() if len(files) > GALLERY_PHOTOS
    }
    files = [file for files in everybody.values() for file in files]
    seen = embed_photos(engine, [model], files)[model]
    probe_set = split_photos(seen, everybody, GALLERY_PHOTOS)
    calibration = fit_calibration(seen.space, probe_set.first.gallery, probe_set.owners)
    count = len(seen.vectors) + len(seen.failures)
    measures = Measures(model, probe_set, calibration, seconds=seen.seconds, photos=count)
    found = {
        "title": title,
        "people": len(everybody),
        "gallery_photos": GALLERY_PHOTOS,
        "probes": measures.probes,
        "rank_1": measures.rank(1).value,
        "rank_5": measures.rank(5).value,
        "accuracy": measures.accuracy.value,
        "tar_at_far_1e-3": measures.tar(1e-3).value,
        "roc_auc": measures.roc.area,
    }
    print(
        f"{title}, {len(everybody):,} people, {measures.probes:,} probes: rank-1 "
        f"{found['rank_1']:.2%} (bar: 95 %), rank-5 {found['rank_5']:.2%}, pairs "
        f"{found['accuracy']:.2%}, TAR {found['tar_at_far_1e-3']:.1%} at FAR 0.1 %"
    )
    return found, unseen(seen, everybody, probe_set, title), groups(measures, folder, labels, title)


def unseen(
    seen: PhotoEmbeddings, everybody: Mapping[str, Sequence[Path]], probe_set: ProbeSet, title: str
) -> dict[str, Any]:
    """Scores learned on half of the people and judged on the other, mean and range of divisions.

    Strangers and the same person are looked up among the other half; somebody not in the gallery,
    among everybody but themselves.
    """
    best = identify(probe_set).best
    names = sorted(everybody)
    rows: list[dict[str, float]] = []
    for division in range(DIVISIONS):
        order = np.random.default_rng(division).permutation(len(names))
        half = {names[place] for place in order[: len(names) // 2]}
        for taught in (half, set(names) - half):
            teachers = [
                (number, seen.vectors[file])
                for number, who in enumerate(sorted(taught))
                for file in everybody[who]
                if file in seen.vectors
            ]
            learned = fit_calibration(
                seen.space,
                np.stack([vector for _, vector in teachers]),
                np.array([number for number, _ in teachers], np.int64),
            )
            others = {who: files for who, files in everybody.items() if who not in taught}
            judged = split_photos(seen, others, GALLERY_PHOTOS)
            found, scores = strangers_scores(judged, learned)
            outside = [probe_set.name(int(column)) not in taught for column in probe_set.right]
            rows.append(
                {
                    f"strangers_{rarity}": float(np.mean(scores >= score_at(share)))
                    for rarity, share in PROMISED.items()
                }
                | {
                    "same_person_median": float(np.median(learned.scores(found.own))),
                    "best_stranger_median": float(np.median(learned.scores(best[outside]))),
                }
            )
    figures = {
        name: {
            "mean": float(np.mean([row[name] for row in rows])),
            "low": float(min(row[name] for row in rows)),
            "high": float(max(row[name] for row in rows)),
        }
        for name in rows[0]
    }
    for rarity, share in PROMISED.items():
        got = figures[f"strangers_{rarity}"]
        print(
            f"unseen people: {got['mean']:.3%} of strangers score {score_at(share):g} or more "
            f"({got['low']:.3%} to {got['high']:.3%}; meant: {share:.1%})"
        )
    for name, bar in (("same_person_median", "91 or more"), ("best_stranger_median", "58 to 79")):
        got = figures[name]
        print(
            f"unseen people: {name.replace('_', ' ')} {got['mean']:.0f} "
            f"({got['low']:.0f} to {got['high']:.0f}; bar: {bar})"
        )
    return {
        "title": title,
        "people": len(everybody),
        "divisions": DIVISIONS,
        "gallery_people": len(probe_set.people),
        **figures,
    }


def strangers_scores(
    probe_set: ProbeSet, learned: Calibration
) -> tuple[Identification, NDArray[np.float64]]:
    """Looks everybody up; scores of all probes with everybody else."""
    reached: list[NDArray[np.float64]] = []

    def keep(_: NDArray[np.intp], block: NDArray[np.float32]) -> None:
        reached.append(learned.scores(block[np.isfinite(block)]))

    return identify(probe_set, keep), np.concatenate(reached)


def groups(measures: Measures, folder: Path, labels: Path | None, title: str) -> dict[str, Any]:
    """Accuracy and scores per group, and the gaps between the best and the worst."""
    known = read_labels(folder, labels)
    found = {grouping.kind: grouping_json(grouping) for grouping in group_people(measures, known)}
    for kind, grouping in found.items():
        for gap in grouping["gaps"]:
            chance = "more than chance" if gap["exceeds_chance"] else "within chance"
            print(
                f"{kind}, {gap['measure']}: {gap['best']} {gap['best_value']:.2%}, "
                f"{gap['worst']} {gap['worst_value']:.2%} ({chance})"
            )
    return {"title": title, "kinds": found}


def main() -> None:
    """Measures every folder, prints, and records if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", metavar="[NAME=]DIR")
    parser.add_argument("--people", type=Path, help="CSV with person, category, country, gender")
    parser.add_argument("--labelled", default="", help="how these labels were made, for the record")
    parser.add_argument("--model", default="dlib", choices=("dlib", "resnet", "senet"))
    parser.add_argument("--home", type=Path, help="data folder with the weights")
    parser.add_argument("--record", action="store_true", help="write benchmarks/figures.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(Settings(home=arguments.home or Path(folder)))
        accuracy: dict[str, Any] = {"model": arguments.model, "pairs": [], "people": []}
        scores: dict[str, Any] = {"model": arguments.model, "people": []}
        fairness: dict[str, Any] = {"model": arguments.model, "people": []}
        fairness["labelled"] = arguments.labelled
        for word in arguments.folders:
            name, _, path = word.rpartition("=")
            place, title = Path(path), name or Path(path).name
            if (place / "pairs.csv").is_file():
                accuracy["pairs"].append(pairs(engine, arguments.model, place, title))
                continue
            found, honest, parted = people(engine, arguments.model, place, title, arguments.people)
            accuracy["people"].append(found)
            scores["people"].append(honest)
            if parted["kinds"]:
                fairness["people"].append(parted)
    if arguments.record:
        record("accuracy", accuracy)
        for section, figures in (("scores", scores), ("fairness", fairness)):
            if figures["people"]:
                record(section, figures)


if __name__ == "__main__":
    main()
