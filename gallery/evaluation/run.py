"""Looks people up with several backbones, and with all of them together, for a report."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from engine.engine import Engine
from engine.errors import SetupProblem
from gallery.evaluation.evidence import gather
from gallery.evaluation.fused import fused
from gallery.evaluation.groups import groupings
from gallery.evaluation.lineup import Lineup, line_up, photos_by_person
from gallery.evaluation.mistakes import mistakes
from gallery.evaluation.people import Known
from gallery.evaluation.photos import Sightings, look_with
from gallery.evaluation.report import Column, EvaluationReport
from gallery.progress import Progress, no_progress
from gallery.scores import Calibration
from gallery.scores.ensemble import BEST
from gallery.scores.fit import fit_calibration

__all__ = ["evaluate_people"]

_NO_ENSEMBLE: Final = "one of the backbones alone is as good as all of them together"
_SHOWN: Final = 8  # mistakes of each kind; half as many where several backbones show theirs


def evaluate_people(
    engine: Engine,
    folder: Path,
    *,
    backbones: Sequence[str],
    unavailable: Mapping[str, str],
    gallery_photos: int,
    known: Known,
    progress: Progress = no_progress,
) -> EvaluationReport:
    """Looks people up with several backbones; every photo is seen once.

    Args:
        engine: Sees and embeds.
        folder: Arranged as for `lookalike gallery add`.
        backbones: Which to compare, at least one.
        unavailable: Why others are not among them.
        gallery_photos: How many photos of each person, the first by name, are the gallery.
        known: What is known of the people.
        progress: Told how far it is.

    Raises:
        SetupProblem: If a backbone can't be used, or there are too few people or faces.
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
    sightings = look_with(engine, backbones, files, progress=progress)
    lineups = {name: line_up(seen, enough, gallery_photos) for name, seen in sightings.items()}
    together = fused(list(lineups.values())) if len(lineups) > 1 else None

    def column(name: str, who: Lineup, calibration: Calibration, seconds: float) -> Column:
        evidence = gather(name, who, calibration, seconds=seconds, photos=len(files))
        shown = _SHOWN if len(lineups) == 1 else _SHOWN // 2
        return Column(evidence, groupings(evidence, known), mistakes(evidence, shown=shown))

    columns = []
    for done, (name, lineup) in enumerate(lineups.items()):
        progress("models", done, len(lineups) + bool(together))
        calibration = fit_calibration(lineup.space, lineup.gallery, lineup.owners)
        columns.append(column(name, lineup, calibration, sightings[name].seconds))
    if together is not None and together.ensemble is not None:
        progress("models", len(lineups), len(lineups) + 1)
        seconds = _together_s([sightings[name] for name in together.ensemble.backbones])
        columns.append(column(BEST, together, together.ensemble.calibration, seconds))
    elif len(lineups) > 1:
        unavailable = {**unavailable, BEST: _NO_ENSEMBLE}
    progress("models", len(columns), len(columns))
    any_seen, root = next(iter(sightings.values())), folder.resolve()
    return EvaluationReport(
        date=dt.datetime.now().astimezone(),
        people=len(enough),
        gallery_photos=gallery_photos,
        skipped=tuple(sorted(set(everybody) - set(enough))),
        photos=len(files),
        probes=columns[0].evidence.probes,
        faceless={
            str(file.relative_to(root)): why for file, why in sorted(any_seen.failures.items())
        },
        boxes=any_seen.boxes,
        columns=tuple(columns),
        unavailable=unavailable,
        known=known,
        seconds=time.perf_counter() - started,
    )


def _together_s(sightings: Sequence[Sightings]) -> float:
    """What several backbones take together: faces are found once."""
    finding_s = sightings[0].finding_s
    return finding_s + sum(seen.seconds - finding_s for seen in sightings)
