"""How often a backbone is right, on photos whose people are known.

Verification asks of two photos whether they show one person; identification asks of a photo who it
shows. A photo without a face that is found is an error, not an exception.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.engine import Engine
from engine.errors import SetupProblem
from gallery.evaluation.lineup import line_up, look_up, photos_by_person
from gallery.evaluation.people import read_table
from gallery.evaluation.photos import Sightings, look_at
from gallery.evaluation.results import FAR, Identification, Verification
from gallery.progress import Progress, no_progress
from gallery.scores import Calibration
from gallery.scores.fit import fit_calibration

__all__ = ["LabelledPair", "identify", "read_pairs", "verify"]

_FOLDS: Final = 10
_YES_NO: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """Two photos and whether they show one person."""

    a: Path
    b: Path
    same: bool


def read_pairs(file: Path, root: Path) -> tuple[LabelledPair, ...]:
    """The pairs of a CSV file with the columns a, b (paths below root) and same (1 or 0).

    Semicolons and tabs serve as well as commas.

    Raises:
        SetupProblem: If the file or a photo in it is missing, or a line can't be understood.
    """
    pairs = tuple(
        _pair(file, number, row, root) for number, row in enumerate(read_table(file), start=2)
    )
    if len({pair.same for pair in pairs}) < 2:
        raise SetupProblem(f"{file} needs pairs of one person and pairs of two: at least one each")
    missing = sorted({path for pair in pairs for path in (pair.a, pair.b) if not path.is_file()})
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise SetupProblem(
            f"there is no photo {missing[0]}{more}: --root must be the folder that the paths in "
            f"{file} start from"
        )
    return pairs


def verify(
    engine: Engine,
    backbone: str,
    pairs: Sequence[LabelledPair],
    *,
    root: Path,
    calibration: Calibration,
    progress: Progress = no_progress,
) -> Verification:
    """Judges pairs of photos.

    Args:
        engine: Sees and embeds.
        backbone: Name.
        pairs: At least one of either kind.
        root: Paths are reported from here.
        calibration: Of the backbone's space.
        progress: Told how many photos are done.

    Raises:
        SetupProblem: If the backbone can't be used, or no pair of either kind has two faces.
    """
    from gallery.evaluation.verdicts import cross_validated, judged  # scikit-learn takes 0.7 s

    started = time.perf_counter()
    files = [file for pair in pairs for file in (pair.a, pair.b)]
    seen = look_at(engine, backbone, files, progress=progress)
    same = np.array([pair.same for pair in pairs])
    cosines = np.array([_cosine(seen, pair) for pair in pairs])
    accuracy, accuracy_std = cross_validated(cosines, same, folds=_FOLDS)
    judgement = judged(cosines, same, far=FAR)
    return Verification(
        model=backbone,
        same=same,
        cosines=cosines,
        accuracy=accuracy,
        accuracy_std=accuracy_std,
        threshold=judgement.threshold,
        roc_auc=judgement.roc_auc,
        tar=judgement.tar,
        photos=len(set(files)),
        faceless=_below(seen, root),
        calibration=calibration,
        seconds=time.perf_counter() - started,
    )


def identify(
    engine: Engine,
    backbone: str,
    folder: Path,
    *,
    gallery_photos: int,
    progress: Progress = no_progress,
) -> Identification:
    """Looks people up: the first photos of each, by file name, are the gallery, the rest probes.

    Args:
        engine: Sees and embeds.
        backbone: Name.
        folder: Arranged as for `lookalike gallery add`.
        gallery_photos: At least 1.
        progress: Told how many photos are done.

    Raises:
        SetupProblem: If the folder has no two people with that many photos and one more, or no
            faces.
    """
    started = time.perf_counter()
    everybody = photos_by_person(folder)
    enough = {who: files for who, files in everybody.items() if len(files) > gallery_photos}
    if len(enough) < 2:
        raise SetupProblem(
            f"{folder} has {len(enough)} people with more than {gallery_photos} photos, and two "
            "are needed; choose fewer with --gallery-photos"
        )
    files = [file for photos in enough.values() for file in photos]
    seen = look_at(engine, backbone, files, progress=progress)
    lineup = line_up(seen, enough, gallery_photos)
    strangers: list[NDArray[np.float32]] = []
    found = look_up(lineup, lambda _, others: strangers.append(others[np.isfinite(others)]))
    return Identification(
        model=backbone,
        gallery_photos=gallery_photos,
        people=len(enough),
        skipped=tuple(sorted(set(everybody) - set(enough))),
        ranks=np.append(found.ranks, np.full(len(lineup.failures), len(enough), np.int64)),
        failures=len(lineup.failures),
        own=found.own,
        strangers=np.concatenate(strangers).astype(np.float64),
        best_strangers=found.best,
        photos=len(files),
        faceless=_below(seen, folder.resolve()),
        calibration=fit_calibration(seen.space, lineup.gallery, lineup.owners),
        seconds=time.perf_counter() - started,
    )


def _pair(file: Path, number: int, cells: Mapping[str, str], root: Path) -> LabelledPair:
    missing = [name for name in ("a", "b", "same") if not cells.get(name)]
    if missing:
        raise SetupProblem(
            f"line {number} of {file} has no {missing[0]}: it needs the columns a, b and same, "
            "named in its first line"
        )
    same = _YES_NO.get(cells["same"].lower())
    if same is None:
        raise SetupProblem(f"line {number} of {file}: same is 1 or 0, not {cells['same']}")
    return LabelledPair(root / cells["a"], root / cells["b"], same)


def _cosine(seen: Sightings, pair: LabelledPair) -> float:
    one, other = seen.vectors.get(pair.a), seen.vectors.get(pair.b)
    return float("nan") if one is None or other is None else float(one @ other)


def _below(seen: Sightings, root: Path) -> dict[str, str]:
    return {
        str(file.relative_to(root) if file.is_relative_to(root) else file): why
        for file, why in sorted(seen.failures.items())
    }
