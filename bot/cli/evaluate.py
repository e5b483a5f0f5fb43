"""`lookalike evaluate`: how often a backbone is right, on photos whose people are known."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bot.cli import main as cli
from bot.cli.output import EXAMPLES, progress, say, write_file
from engine.errors import SetupProblem

if TYPE_CHECKING:
    from engine.engine import Engine
    from gallery.evaluation.report import EvaluationReport
    from gallery.gallery import Gallery

Rows = Sequence[tuple[str, str]]
Drawn = Mapping[str, bytes]  # PNG files by name

_model = cli.model_option(
    "Backbone (default: the configured one if its weights are here, else dlib)."
)
_gallery_photos = cli.count_option(
    "--gallery-photos",
    "How many photos of each person, the first by name, are the gallery.",
    default=3,
)
_plots = cli.path_option(
    "--plots", "DIR", "Draw curves and distributions as PNG files into this folder."
)


@click.group(cls=cli.Group)
def evaluate() -> None:
    """Measure accuracy on labelled photos.

    A photo in which no face is found counts as an error. In a photo with several faces the one
    that is large and near the centre is meant.
    """


@evaluate.command()
@click.argument("file", metavar="PAIRS.csv", type=cli.PATH)
@cli.path_option(
    "--root", "DIR", "Folder that the paths in PAIRS.csv start from (default: the folder it is in)."
)
@_model
@_plots
def pairs(
    context: cli.Context, file: Path, root: Path | None, model: str | None, plots: Path | None
) -> None:
    """Judge whether two photos show one person.

    PAIRS.csv has the columns a and b, paths of photos, and same, 1 or 0. Reported are the accuracy
    at the threshold that is best on nine tenths of the pairs, judging the last tenth (ten-fold
    cross-validation), the area under the ROC curve, and the share of pairs of one person accepted
    where one in 1,000 others is.
    """
    from gallery.evaluation.charts import draw_verification
    from gallery.evaluation.measures import verify
    from gallery.evaluation.photos import read_pairs
    from gallery.scores import prior

    root = root or file.parent
    labelled = read_pairs(file, root)
    engine, name = _chosen(context, model)
    space = engine.backbone(name).space
    with _gallery(context) as gallery:
        learned = (gallery.calibration(space) if gallery else None) or prior(space)
    with progress(quiet=context.json) as show:
        result = verify(engine, name, labelled, root=root, calibration=learned, progress=show)
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
    _print(context, record, rows, plots, draw_verification(result) if plots else {})


@evaluate.command()
@click.argument("folder", metavar="DIR", type=cli.PATH)
@_gallery_photos
@_model
@_plots
def identify(
    context: cli.Context, folder: Path, model: str | None, plots: Path | None, **how: Any
) -> None:
    """Look people up among others.

    DIR is arranged as for `lookalike gallery add`: DIR/Person_Name/photo.jpg. The first photos of
    each person are the gallery; each of the rest is looked up in it. Reported are the shares whose
    person comes first and among the first five. People with too few photos are left out.
    """
    engine, name = _chosen(context, model)
    from gallery.evaluation.charts import draw_identification
    from gallery.evaluation.report import evaluate_people

    with progress(quiet=context.json) as show:
        found = evaluate_people(engine, folder, backbones=[name], progress=show, **how)
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
    drawn = draw_identification(found.columns[0].measures) if plots else {}
    _print(context, record, rows, plots, drawn)


def _check_packages() -> None:
    """Raises SetupProblem, before the long work, where packages it needs are not installed."""
    for package in ("matplotlib", "scipy", "sklearn"):
        if importlib.util.find_spec(package) is None:
            mend = "run `pip install 'lookalike[evaluate]'`"
            raise SetupProblem(f"evaluating needs the package {package}: {mend}")


def _chosen(context: cli.Context, model: str | None) -> tuple[Engine, str]:
    """The engine and the backbone asked for; else the configured one, or dlib and why."""
    default, engine = context.settings.default_model, context.engine
    _check_packages()
    if model is None and (reason := engine.why_unavailable(default)) is not None:
        say(f"lookalike: measuring dlib: {reason}", err=True)
        return engine, "dlib"
    return engine, model or default


def _gallery(context: cli.Context) -> AbstractContextManager[Gallery | None]:
    from bot.app import has_gallery

    return context.gallery() if has_gallery(context.settings) else nullcontext()


def _print(
    context: cli.Context, record: dict[str, Any], rows: Rows, plots: Path | None, drawn: Drawn
) -> None:
    from gallery.scores import score_at

    scores, rows = record["scores"], list(rows)
    people = scores["learned_from_people"]
    rows += [("scores", f"learned from {people:,} people" if people else "as shipped")]
    if (median := scores["same_person_median"]) is not None:
        rows += [("score of the same person", f"{median:.0f} in the median")]
    rare, rarer = (f"{score_at(share):g}" for share in (1e-2, 1e-3))
    if (seen := scores[f"strangers_at_least_{rare}"]) is not None:
        told = f"{seen:.2%}, {scores[f'strangers_at_least_{rarer}']:.3%} (1 %, 0.1 %)"
        rows += [(f"strangers from {rare}, from {rarer}", told)]
    if (best := scores.get("best_stranger_median")) is not None:
        rows += [("best match of a stranger", f"{best:.0f} in the median")]
    speed = f"{record['photos_per_s']:.0f} of {record['photos']:,} photos a second"
    rows += [("time", f"{record['seconds']:.1f} s, {speed}")]
    width = max(len(name) for name, _ in rows)
    files = {plots / name: png for name, png in drawn.items()} if plots else {}
    for path, png in files.items():
        write_file(path, png)
    context.finish(
        record | {"plots": [str(path) for path in files]},
        [f"{name:<{width}}  {value}" for name, value in rows],
    )
    if context.json:
        return
    faceless = record["photos_without_face"]
    for photo, why in list(faceless.items())[:EXAMPLES]:
        say(f"{photo}: {why}", err=True)
    if len(faceless) > EXAMPLES:
        say(f"and {len(faceless) - EXAMPLES} more (--json names them all)", err=True)
    for path in files:
        say(f"drawn: {path}", err=True)


@evaluate.command(short_help="Compare backbones on people, as a page with charts and pictures.")
@click.argument("folder", metavar="DIR", type=cli.PATH)
@cli.path_option("--html", "FILE", "Write the report here: one file that needs no network.")
@_gallery_photos
@cli.model_option(
    "Only this backbone; may be repeated (default: all whose weights are here).",
    sorted(cli.BACKBONES),
    several=True,
)
@cli.path_option(
    "--people",
    "FILE",
    "CSV with the columns person, category, country, gender (default: DIR/people.csv).",
)
def report(
    context: cli.Context,
    folder: Path,
    html: Path | None,
    gallery_photos: int,
    models: Sequence[str],
    people: Path | None,
) -> None:
    """Look people up with each backbone and tell how well that went, and for whom.

    DIR is arranged as for `lookalike gallery add`: DIR/Person_Name/photo.jpg, or
    DIR/category/Person_Name/photo.jpg. The first photos of each person are the gallery; each of the
    rest is looked up in it. Groups come from the folders, from what the gallery knows of people of
    these names, and from people.csv.

    The page holds pictures of the people: it is as private as the photos are.
    """
    if html is None and not context.json:
        raise click.UsageError("say where the report goes with --html FILE, or ask for --json")
    engine = context.engine
    _check_packages()
    from gallery.evaluation.photos import read_labels
    from gallery.evaluation.report import evaluate_people, render

    if html is not None:
        write_file(html, None)
    with _gallery(context) as gallery:
        labels = read_labels(folder, people, gallery.people() if gallery else ())
    names = sorted(cli.BACKBONES)
    reasons = {name: engine.why_unavailable(name) for name in (() if models else names)}
    unavailable = {name: reason for name, reason in reasons.items() if reason is not None}
    with progress(quiet=context.json) as show:
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
        page = render(found, engine, command=shlex.join(words))
        write_file(html, page.encode("utf-8", "replace"))
    content = found.to_json() | {"html": str(html) if html else None}
    context.finish(content, _report_lines(found))
    if not context.json:
        for name, reason in found.unavailable.items():
            say(f"{name} was not measured: {reason}", err=True)
        if html is not None:
            say(f"The report is in {html}; it holds pictures of people.", err=True)


def _report_lines(found: EvaluationReport) -> Iterator[str]:
    from gallery.evaluation.report import advice
    from gallery.scores import score_at

    for column in found.columns:
        measures, rare = column.measures, score_at(1e-2)
        yield (
            f"{column.model}: rank-1 {measures.rank(1).value:.1%}, "
            f"rank-5 {measures.rank(5).value:.1%}, "
            f"TAR {measures.tar(1e-3).value:.1%} at FAR 0.1 %, "
            f"same person {measures.same_median:.0f}, strangers from {rare:g}: "
            f"{measures.reached(rare).value:.2%} (meant: 1 %), "
            f"{measures.photos_per_s:.0f} photos a second"
        )
    yield advice(found.columns)
