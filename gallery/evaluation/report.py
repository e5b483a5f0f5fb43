"""The evaluation report: several backbones on the same photos, as JSON and as one HTML file."""

import base64
import datetime as dt
import io
import math
import time
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.engine import Engine
from engine.errors import PhotoProblem, SetupProblem
from engine.types import Box, Photo
from gallery.evaluation import charts, photos
from gallery.evaluation.groups import FEWEST, Grouping, Mistakes, find_mistakes, group_people
from gallery.evaluation.measures import Measures, Share, quantile
from gallery.evaluation.photos import PeopleLabels
from gallery.progress import Progress, no_progress
from gallery.scores import ANCHORS, SAME_PERSON_SCORE, score_at
from gallery.scores.ensemble import BEST
from gallery.scores.fit import fit_calibration

FARS: Final = (1e-1, 1e-2, 1e-3, 1e-4)
RANKS: Final = (1, 2, 3, 5, 10, 20)
_SHOWN: Final = 8  # mistakes of each kind; half as many where several backbones show theirs
_QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
_DASH: Final = "\N{EN DASH}"


class ModelReport(NamedTuple):
    """One backbone's part of a report."""

    model: str
    measures: Measures
    groupings: tuple[Grouping, ...]
    mistakes: Mistakes

    def quantiles(self) -> list[tuple[str, list[float], list[float]]]:
        """Who, likenesses that shares of 5, 25, 50, 75 and 95 % do not exceed, and their scores."""
        found, strangers = self.measures.found, self.measures.strangers.heights()
        rows = {
            "strangers": [quantile(strangers, share) for share in _QUANTILES],
            "same person": np.quantile(found.own, _QUANTILES).tolist(),
            "best stranger": np.quantile(found.best, _QUANTILES).tolist(),
        }
        scores = self.measures.calibration.scores
        return [(who, cosines, scores(cosines).tolist()) for who, cosines in rows.items()]

    def scores_json(self) -> dict[str, Any]:
        """What scores were learned from, and what they are in the median."""
        return {
            "learned_from_people": self.measures.calibration.people,
            "same_person_median": _rounded(self.measures.same_median),
            "best_stranger_median": _rounded(self.measures.best_stranger_median),
        }

    def to_json(self) -> dict[str, Any]:
        """As printed with ``--json``; shares from 0 to 1."""
        measures = self.measures
        reached = {f"{score:g}": _share_json(measures.reached(score)) for score, _ in ANCHORS}
        wrong_labels = [
            {"photo": "/".join(photo.file.parts[-2:]), "labelled": photo.name, "suspicion": why}
            for photo, why in self.mistakes.suspicious()
        ]
        return {
            "model": self.model,
            "likenesses": measures.probe_set.described,
            "accuracy": _share_json(measures.accuracy),
            "roc_auc": measures.roc.area,
            "threshold": measures.threshold,
            "tar_at_far": {f"{far:g}": _share_json(measures.tar(far)) for far in FARS},
            "rank_k": {str(k): _share_json(measures.rank(k)) for k in RANKS},
            "scores": {**self.scores_json(), "strangers_at_least": reached},
            "groups": {grouping.kind: grouping_json(grouping) for grouping in self.groupings},
            "mistakes": {
                "identification": self.mistakes.confused,
                "likely_wrong_labels": wrong_labels,
            },
            "photos_per_s": round(measures.photos_per_s, 1),
        }


class EvaluationReport(NamedTuple):
    """What came of looking so many people and photos up with each backbone."""

    date: dt.datetime
    people: int
    gallery_photos: int  # the first so many of each person by name were the gallery
    skipped: tuple[str, ...]  # names of people with too few photos
    photos: int
    probes: int  # of the photos, that were looked up
    faceless: Mapping[str, str]  # photos without a face, and why, by path below the folder
    boxes: Mapping[Path, Box]  # where the face is in each of the others
    columns: tuple[ModelReport, ...]
    unavailable: Mapping[str, str]  # backbones that can't be used here, and why
    labels: PeopleLabels
    seconds: float

    def _photos_json(self) -> dict[str, Any]:
        return {
            "people": self.people,
            "people_skipped": list(self.skipped),
            "gallery_photos": self.gallery_photos,
            "photos": self.photos,
            "probes": self.probes,
            "photos_without_face": dict(self.faceless),
            "seconds": round(self.seconds, 3),
        }

    def to_json(self) -> dict[str, Any]:
        """As printed with ``--json``."""
        return {
            "date": self.date.isoformat(timespec="seconds"),
            **self._photos_json(),
            "labels_from": list(self.labels.sources),
            "labels_of_nobody": list(self.labels.unmatched),
            "models": [column.to_json() for column in self.columns],
            "unavailable": dict(self.unavailable),
            "advice": advice(self.columns),
        }

    def identification_json(self) -> dict[str, Any]:
        """The figures of the only backbone, as `lookalike evaluate identify --json` prints them."""
        (column,) = self.columns
        measures = column.measures
        strangers = measures.calibration.score(quantile(measures.strangers.heights(), 0.5))
        rare = {f"strangers_at_least_{at:g}": measures.reached(at).value for at, _ in ANCHORS[2:]}
        ranks = range(1, min(20, self.people) + 1)
        return {
            "model": column.model,
            **self._photos_json(),
            "failures": len(measures.probe_set.failures),
            "rank_1": measures.rank(1).value,
            "rank_5": measures.rank(5).value,
            "rank_k": {str(k): measures.rank(k).value for k in ranks},
            "scores": {**column.scores_json(), "strangers_median": _rounded(strangers), **rare},
            "photos_per_s": round(self.photos / self.seconds, 1),
        }


def evaluate_people(
    engine: Engine,
    folder: Path,
    *,
    backbones: Sequence[str],
    gallery_photos: int,
    labels: PeopleLabels | None = None,
    unavailable: Mapping[str, str] | None = None,
    progress: Progress = no_progress,
) -> EvaluationReport:
    """Looks people up with several backbones, and with an ensemble of them; one pass over photos.

    The folder is arranged as for `lookalike gallery add`; of each person so many photos, the first
    by name, are the gallery. ``unavailable`` says why other backbones are not among them. Raises
    SetupProblem if a backbone can't be used, or there are too few people or faces.
    """
    started = time.perf_counter()
    everybody = photos.photos_by_person(folder)
    enough = {who: files for who, files in everybody.items() if len(files) > gallery_photos}
    if len(enough) < 2:
        raise SetupProblem(
            f"{folder} has {len(enough)} people with more than {gallery_photos} photos, and two "
            "are needed; choose fewer with --gallery-photos"
        )
    files = list(chain(*enough.values()))
    seen = photos.embed_photos(engine, backbones, files, progress=progress)
    split = photos.split_photos
    probe_sets = {name: split(one, enough, gallery_photos) for name, one in seen.items()}
    fused = photos.fuse(list(probe_sets.values())) if len(probe_sets) > 1 else None
    known = labels or PeopleLabels({})
    any_seen = next(iter(seen.values()))
    judged = []
    for name, one in probe_sets.items():
        calibration = fit_calibration(one.first.space, one.first.gallery, one.owners)
        judged.append((name, one, calibration, seen[name].seconds))
    if fused is not None and fused.ensemble is not None:
        members = [seen[name] for name in fused.ensemble.backbones]
        embedding_s = sum(one.seconds - one.detection_s for one in members)  # faces are found once
        seconds = any_seen.detection_s + embedding_s
        judged.append((BEST, fused, fused.ensemble.calibration, seconds))
    elif len(probe_sets) > 1:
        why = "one of the backbones alone is as good as all of them together"
        unavailable = {**(unavailable or {}), BEST: why}
    columns: list[ModelReport] = []
    for name, one, calibration, seconds in judged:
        progress("models", len(columns), len(judged))
        measures = Measures(name, one, calibration, seconds=seconds, photos=len(files))
        mistakes = find_mistakes(measures, shown=_SHOWN if len(probe_sets) == 1 else _SHOWN // 2)
        columns.append(ModelReport(name, measures, group_people(measures, known), mistakes))
    progress("models", len(columns), len(columns))
    return EvaluationReport(
        date=dt.datetime.now().astimezone(),
        people=len(enough),
        gallery_photos=gallery_photos,
        skipped=tuple(sorted(set(everybody) - set(enough))),
        photos=len(files),
        probes=columns[0].measures.probes,
        faceless=any_seen.failures_below(folder.resolve()),
        boxes=any_seen.boxes,
        columns=tuple(columns),
        unavailable=unavailable or {},
        labels=known,
        seconds=time.perf_counter() - started,
    )


def advice(columns: Sequence[ModelReport]) -> str:
    """Which backbone to use, and why, in a sentence or two."""
    from scipy.stats import binomtest

    order = sorted(columns, key=lambda column: -column.measures.rank(1).value)
    shares = [f"{100 * column.measures.rank(1).value:.1f} %" for column in order]
    best = order[0]
    found = f"finds the right person first in {shares[0]} of photos"
    if len(order) == 1:
        return f"Use {best.model}: it is the only one that was measured, and it {found}."
    other = order[1]
    # Of the same probes, are more found by one alone than chance would have it (McNemar 1947)?
    first, second = (column.measures.found.ranks < 1 for column in (best, other))
    alone, against = int((first & ~second).sum()), int((second & ~first).sum())
    if alone + against and binomtest(alone, alone + against).pvalue < 0.05:
        more = f"{other.model} in {shares[1]}; that is more than chance"
        return f"Use {best.model}: it {found}, {more}."
    quick = min((best, other), key=lambda column: column.measures.seconds)
    slow = other if quick is best else best
    times = slow.measures.seconds / max(quick.measures.seconds, 1e-9)
    return (
        f"Use {quick.model}: {best.model} and {other.model} find the right person equally often, "
        f"as far as these photos can tell ({shares[0]} and {shares[1]}), and {quick.model} takes "
        f"{times:.1f} times less time."
    )


def grouping_json(grouping: Grouping) -> dict[str, Any]:
    """A grouping as printed with ``--json``."""

    def plain(record: Mapping[str, Any]) -> dict[str, Any]:
        floats = {name: value for name, value in record.items() if isinstance(value, float)}
        return {**record, **{name: _rounded(value, 4) for name, value in floats.items()}}

    groups = [one._asdict() for one in grouping.judged]
    shares = [{k: _share_json(v) for k, v in one.pop("measures").items()} for one in groups]
    gaps = [one._asdict() | {"exceeds_chance": one.exceeds_chance} for one in grouping.gaps]
    return {
        "groups": [plain(one) | own for one, own in zip(groups, shares, strict=True)],
        "too_small_to_judge": {group.name: group.people for group in grouping.small},
        "people_without_label": grouping.unlabelled,
        "gaps": [plain(gap) for gap in gaps],
    }


def _share_json(share: Share) -> dict[str, Any]:
    """A share with its interval of 95 %."""
    record = {"share": share.value, "low": share.low, "high": share.high}
    return {name: _rounded(value, 6) for name, value in record.items()} | {"of": round(share.of)}


def _rounded(value: float, digits: int = 2) -> float | None:
    return round(value, digits) if math.isfinite(value) else None


def render(report: EvaluationReport, engine: Engine, *, command: str) -> str:
    """The report as HTML that needs no network and no other file; the command repeats it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    loader = FileSystemLoader(Path(__file__).parent)
    blocks: Any = {"trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
    environment = Environment(loader=loader, autoescape=True, **blocks)
    environment.filters |= {
        "percent": _percent,
        "number": _number,
        "listed": lambda words: " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:]))),
        # Our own drawing, words within are escaped.
        "svg": lambda chart: Markup(chart.svg()),  # noqa: S704
    }
    shown: dict[Path, str | None] = {}

    def source(file: Path) -> str | None:
        if file not in shown:
            shown[file] = picture(engine, file, report.boxes.get(file))
        return shown[file]

    measures = [column.measures for column in report.columns]
    fewest_strangers = min(one.strangers.total for one in measures)
    return environment.get_template("report.html").render(
        report=report,
        advice=advice(report.columns),
        fars=FARS,
        ranks=[k for k in RANKS if k <= max(len(one.probe_set.people) for one in measures)],
        promises=ANCHORS,
        same_person_score=SAME_PERSON_SCORE,
        score_at=score_at,
        fewest=FEWEST,
        roc=charts.roc({one.model: one.roc for one in measures}, fewest_strangers),
        rank_curve=charts.ranks(measures),
        promise_chart=charts.promises(measures),
        before_and_after=charts.before_and_after,
        quantiles=_QUANTILES,
        source=source,
        command=command,
        count_shown=lambda: sum(value is not None for value in shown.values()),
    )


def picture(engine: Engine, file: Path, box: Box | None) -> str | None:
    """The face in a photo with what is around it, as a data URI; None if it is gone.

    The box is in pixels of the decoded photo; None shows the middle.
    """
    try:
        photo = engine.decode(file.read_bytes())
    except (OSError, PhotoProblem):
        return None
    small = Image.fromarray(cut_around(photo, box))
    small.thumbnail((160, 160))
    jpeg = io.BytesIO()
    small.save(jpeg, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode('ascii')}"


def cut_around(photo: Photo, box: Box | None) -> NDArray[np.uint8]:
    """A square around the face, twice as large, moved and reduced to lie within the photo."""
    least = min(photo.width_px, photo.height_px)
    x, y = box.centre if box else (photo.width_px / 2, photo.height_px / 2)
    edge = min(least, max(1, round(2 * max(box.w, box.h))) if box else least)
    left = round(min(max(x - edge / 2, 0), photo.width_px - edge))
    top = round(min(max(y - edge / 2, 0), photo.height_px - edge))
    return photo.pixels[top : top + edge, left : left + edge]


def _percent(value: float, sign: str = "\N{NO-BREAK SPACE}%") -> str:
    if not math.isfinite(value):
        return _DASH
    digits = 1 if value >= 0.1 or value == 0 else 2 if value >= 0.005 else 3
    return f"{100 * value:.{digits}f}{sign}"


def _number(value: float, digits: int = 0) -> str:
    return f"{value:,.{digits}f}" if math.isfinite(value) else _DASH
