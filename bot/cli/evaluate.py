"""`lookalike evaluate`: how often a backbone is right, on photos whose people are known."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bot.cli.main import (
    BACKBONES,
    PATH,
    Context,
    common,
    json_command,
    model_option,
    models_option,
    opened,
    path_option,
)
from bot.cli.output import EXAMPLES, finish, print_json, progress, say
from engine.errors import SetupProblem

if TYPE_CHECKING:
    from bot.settings import Settings
    from engine.engine import Engine
    from gallery.evaluation.report import EvaluationReport
    from gallery.gallery import Gallery

T = TypeVar("T")

_model = model_option("Backbone (default: the configured one if its weights are here, else dlib).")
_gallery_photos = click.option(
    "--gallery-photos",
    metavar="N",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="How many photos of each person, the first by name, are the gallery.",
)
_plots = path_option(
    "--plots", "DIR", "Draw curves and distributions as PNG files into this folder."
)


@click.group()
@common
def evaluate() -> None:
    """Measure accuracy on labelled photos.

    A photo in which no face is found counts as an error. In a photo with several faces the one
    that is large and near the centre is meant.
    """


@evaluate.command()
@click.argument("file", metavar="PAIRS.csv", type=PATH)
@path_option(
    "--root",
    "DIR",
    "Folder that the paths in PAIRS.csv start from (default: the folder it is in).",
)
@_model
@_plots
@json_command
def pairs(
    context: Context,
    file: Path,
    root: Path | None,
    model: str | None,
    plots: Path | None,
    as_json: bool,
) -> None:
    """Judge whether two photos show one person.

    PAIRS.csv has the columns a and b, paths of photos, and same, 1 or 0. Reported are the accuracy
    at the threshold that is best on nine tenths of the pairs, judging the last tenth (ten-fold
    cross-validation), the area under the ROC curve, and the share of pairs of one person accepted
    where one in 1,000 others is.
    """
    from gallery.evaluation.measures import verify
    from gallery.evaluation.photos import read_pairs
    from gallery.scores import prior

    settings = context.settings()
    _need_packages()
    root = root or file.parent
    labelled = read_pairs(file, root)
    engine, name = _chosen(settings, model)
    space = engine.backbone(name).space
    learned = _of_gallery(settings, lambda gallery: gallery.calibration(space)) or prior(space)
    with progress(quiet=as_json) as show:
        result = verify(engine, name, labelled, root=root, calibration=learned, progress=show)
    drawn: tuple[Path, ...] = ()
    if plots is not None:
        from gallery.evaluation.charts import draw_verification

        drawn = draw_verification(result, plots)
    record = result.to_json()
    rows = (
        ("model", result.model),
        ("pairs", f"{record['pairs']:,} ({record['same']:,} of one person)"),
        ("pairs without two faces", f"{record['failures']:,}"),
        ("accuracy", f"{result.accuracy:.2%} ± {result.accuracy_std:.2%} (ten-fold)"),
        ("best threshold", f"cosine {result.threshold:.4f}"),
        ("area under the ROC curve", f"{result.roc.area:.5f}"),
        ("TAR at FAR 0.1 %", f"{result.tar:.1%}"),
    )
    _print(record, rows, drawn, as_json=as_json)


@evaluate.command()
@click.argument("folder", metavar="DIR", type=PATH)
@_gallery_photos
@_model
@_plots
@json_command
def identify(
    context: Context,
    folder: Path,
    gallery_photos: int,
    model: str | None,
    plots: Path | None,
    as_json: bool,
) -> None:
    """Look people up among others.

    DIR is arranged as for `lookalike gallery add`: DIR/Person_Name/photo.jpg. The first photos of
    each person are the gallery; each of the rest is looked up in it. Reported are the shares whose
    person comes first and among the first five. People with too few photos are left out.
    """
    from gallery.evaluation.report import evaluate_people

    settings = context.settings()
    _need_packages()
    engine, name = _chosen(settings, model)
    with progress(quiet=as_json) as show:
        found = evaluate_people(
            engine, folder, backbones=[name], gallery_photos=gallery_photos, progress=show
        )
    drawn: tuple[Path, ...] = ()
    if plots is not None:
        from gallery.evaluation.charts import draw_identification

        drawn = draw_identification(found.columns[0].measures, plots)
    record = found.identification_json()
    rows = (
        ("model", record["model"]),
        ("people", f"{record['people']:,}, {record['gallery_photos']} gallery photos each"),
        ("people left out", f"{len(record['people_skipped']):,} with too few photos"),
        ("probes", f"{record['probes']:,}"),
        ("probes that failed", f"{record['failures']:,}"),
        ("rank-1", f"{record['rank_1']:.2%}"),
        ("rank-5", f"{record['rank_5']:.2%}"),
    )
    _print(record, rows, drawn, as_json=as_json)


def _need_packages() -> None:
    """Says before the long work that evaluating needs packages that are not installed."""
    for package in ("matplotlib", "scipy", "sklearn"):
        if importlib.util.find_spec(package) is None:
            raise SetupProblem(
                f"evaluating needs the package {package}: run `pip install 'lookalike[evaluate]'`"
            )


def _chosen(settings: Settings, model: str | None) -> tuple[Engine, str]:
    """The engine and the backbone asked for; else the configured one, or dlib and why."""
    from bot.app import open_engine

    engine = open_engine(settings)
    if model is not None:
        return engine, model
    reason = engine.why_unavailable(settings.default_model)
    if reason is None:
        return engine, settings.default_model
    say(f"lookalike: measuring dlib: {reason}", err=True)
    return engine, "dlib"


def _of_gallery(settings: Settings, read: Callable[[Gallery], T]) -> T | None:
    """What the gallery of this data folder says, if there is one."""
    from bot.app import has_gallery

    if not has_gallery(settings):
        return None
    with opened(settings) as gallery:
        return read(gallery)


def _score_rows(scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    from gallery.scores import score_at

    people = scores["learned_from_people"]
    rows = [("scores", f"learned from {people:,} people" if people else "as shipped")]
    if scores["same_person_median"] is not None:
        rows.append(
            ("score of the same person", f"{scores['same_person_median']:.0f} in the median")
        )
    rare, rarer = (f"{score_at(share):g}" for share in (1e-2, 1e-3))
    if scores[f"strangers_at_least_{rare}"] is not None:
        seen = (scores[f"strangers_at_least_{rare}"], scores[f"strangers_at_least_{rarer}"])
        name = f"strangers from {rare}, from {rarer}"
        rows.append((name, f"{seen[0]:.2%}, {seen[1]:.3%} (1 %, 0.1 %)"))
    if scores.get("best_stranger_median") is not None:
        best = f"{scores['best_stranger_median']:.0f} in the median"
        rows.append(("best match of a stranger", best))
    return rows


def _print(
    record: Mapping[str, Any],
    rows: Iterable[tuple[str, str]],
    drawn: tuple[Path, ...],
    *,
    as_json: bool,
) -> None:
    speed = f"{record['photos_per_s']:.0f} of {record['photos']:,} photos a second"
    rows = [*rows, *_score_rows(record["scores"]), ("time", f"{record['seconds']:.1f} s, {speed}")]
    width = max(len(name) for name, _ in rows)
    content = dict(record) | {"plots": [str(path) for path in drawn]}
    finish(content, [f"{name:<{width}}  {value}" for name, value in rows], as_json=as_json)
    if as_json:
        return
    faceless = record["photos_without_face"]
    for photo, why in list(faceless.items())[:EXAMPLES]:
        say(f"{photo}: {why}", err=True)
    if len(faceless) > EXAMPLES:
        say(f"and {len(faceless) - EXAMPLES} more (--json names them all)", err=True)
    for path in drawn:
        say(f"drawn: {path}", err=True)


@evaluate.command(short_help="Compare backbones on people, as a page with charts and pictures.")
@click.argument("folder", metavar="DIR", type=PATH)
@path_option("--html", "FILE", "Write the report here: one file that needs no network.")
@_gallery_photos
@models_option(
    "Only this backbone; may be repeated (default: all whose weights are here).", sorted(BACKBONES)
)
@path_option(
    "--people",
    "FILE",
    "CSV with the columns person, category, country, gender (default: DIR/people.csv).",
)
@json_command
def report(
    context: Context,
    folder: Path,
    html: Path | None,
    gallery_photos: int,
    models: tuple[str, ...],
    people: Path | None,
    as_json: bool,
) -> None:
    """Look people up with each backbone and tell how well that went, and for whom.

    DIR is arranged as for `lookalike gallery add`: DIR/Person_Name/photo.jpg, or
    DIR/category/Person_Name/photo.jpg. The first photos of each person are the gallery; each of the
    rest is looked up in it. Groups come from the folders, from what the gallery knows of people of
    these names, and from people.csv.

    The page holds pictures of the people: it is as private as the photos are.
    """
    if html is None and not as_json:
        raise click.UsageError("say where the report goes with --html FILE, or ask for --json")
    from bot.app import open_engine
    from gallery.evaluation.photos import read_labels
    from gallery.evaluation.report import check_place, evaluate_people, render, save

    settings = context.settings()
    _need_packages()
    if html is not None:
        check_place(html)
    catalogue = _of_gallery(settings, lambda gallery: gallery.people()) or ()
    labels = read_labels(folder, people, catalogue)
    engine = open_engine(settings)
    names = sorted(BACKBONES)
    reasons = {name: engine.why_unavailable(name) for name in (() if models else names)}
    unavailable = {name: reason for name, reason in reasons.items() if reason is not None}
    with progress(quiet=as_json) as show:
        found = evaluate_people(
            engine,
            folder,
            backbones=models or [name for name in names if name not in unavailable],
            unavailable=unavailable,
            gallery_photos=gallery_photos,
            labels=labels,
            progress=show,
        )
    if html is not None:
        words = ["lookalike", "evaluate", "report", str(folder), "--html", str(html)]
        words += ["--gallery-photos", str(gallery_photos)]
        words += [word for name in models for word in ("--model", name)]
        words += ["--people", str(people)] if people else []
        save(render(found, engine, command=shlex.join(words)), html)
    if as_json:
        print_json(found.to_json() | {"html": str(html) if html else None})
    else:
        _tell(found, html)


def _tell(found: EvaluationReport, html: Path | None) -> None:
    from gallery.evaluation.report import advice
    from gallery.scores import score_at

    for column in found.columns:
        measures, rare = column.measures, score_at(1e-2)
        say(
            f"{column.model}: rank-1 {measures.rank(1).value:.1%}, "
            f"rank-5 {measures.rank(5).value:.1%}, "
            f"TAR {measures.tar(1e-3).value:.1%} at FAR 0.1 %, "
            f"same person {column.same_median:.0f}, strangers from {rare:g}: "
            f"{measures.reached(rare).value:.2%} (meant: 1 %), "
            f"{column.photos_per_s:.0f} photos a second"
        )
    say(advice(found.columns))
    for name, reason in found.unavailable.items():
        say(f"{name} was not measured: {reason}", err=True)
    if html is not None:
        say(f"The report is in {html}; it holds pictures of people.", err=True)
