"""`lookalike evaluate`: how often a backbone is right, on photos whose people are known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from bot.cli.evaluate_report import report
from bot.cli.main import Context, common

if TYPE_CHECKING:
    from bot.settings import Settings
    from engine.engine import Engine
    from engine.types import Space
    from gallery.evaluation.results import Identification, Verification
    from gallery.scores import Calibration

__all__ = ["command"]

_NAMED: Final = 5  # photos without a face that are listed by name

_model = click.option(
    "--model",
    type=click.Choice(("resnet", "senet", "dlib")),
    help="Backbone (default: the configured one if its weights are here, else dlib).",
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_plots = click.option(
    "--plots",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Draw curves and distributions as PNG files into this folder.",
)


@click.group()
@common
def command() -> None:
    """Measure accuracy on labelled photos.

    A photo in which no face is found counts as an error. In a photo with several faces the one
    that is large and near the centre is meant.
    """


command.add_command(report)


@command.command()
@click.argument("file", metavar="PAIRS.csv", type=click.Path(path_type=Path))
@click.option(
    "--root",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder that the paths in PAIRS.csv start from (default: the folder it is in).",
)
@_model
@_plots
@_as_json
@common
@click.pass_obj
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
    from bot.app import open_engine
    from bot.cli.gallery_progress import shown
    from gallery.evaluate import read_pairs, verify

    settings = context.settings()
    root = root or file.parent
    labelled = read_pairs(file, root)
    engine = open_engine(settings)
    name = _chosen(engine, settings, model)
    calibration = _calibration(settings, engine.backbone(name).space)
    with shown(quiet=as_json) as progress:
        result = verify(
            engine, name, labelled, root=root, calibration=calibration, progress=progress
        )
    drawn: tuple[Path, ...] = ()
    if plots is not None:
        from gallery.evaluation.plots import draw_verification

        drawn = draw_verification(result, plots)
    if as_json:
        _print_json(result, drawn)
    else:
        _print_table(_verification_rows(result))
        _print_notes(result.faceless, drawn)


@command.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--gallery-photos",
    metavar="N",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="How many photos of each person, the first by name, are the gallery.",
)
@_model
@_plots
@_as_json
@common
@click.pass_obj
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
    from bot.app import open_engine
    from bot.cli.gallery_progress import shown
    from gallery.evaluate import identify as look_up

    settings = context.settings()
    engine = open_engine(settings)
    name = _chosen(engine, settings, model)
    with shown(quiet=as_json) as progress:
        result = look_up(engine, name, folder, gallery_photos=gallery_photos, progress=progress)
    drawn: tuple[Path, ...] = ()
    if plots is not None:
        from gallery.evaluation.plots import draw_identification

        drawn = draw_identification(result, plots)
    if as_json:
        _print_json(result, drawn)
    else:
        _print_table(_identification_rows(result))
        _print_notes(result.faceless, drawn)


def _chosen(engine: Engine, settings: Settings, model: str | None) -> str:
    """The backbone asked for; else the configured one, or dlib and a word about why."""
    if model is not None:
        return model
    reason = engine.why_unavailable(settings.default_model)
    if reason is None:
        return settings.default_model
    click.echo(f"lookalike: measuring dlib: {reason}", err=True)
    return "dlib"


def _calibration(settings: Settings, space: Space) -> Calibration:
    """What the gallery of this data folder has learned, if there is one; else what is shipped."""
    from bot.app import has_gallery, open_gallery
    from gallery.scores import prior

    if not has_gallery(settings):
        return prior(space)
    with open_gallery(settings) as gallery:
        return gallery.calibration(space)


def _verification_rows(result: Verification) -> list[tuple[str, str]]:
    record = result.to_json()
    rows = [
        ("model", result.model),
        ("pairs", f"{record['pairs']:,} ({record['same']:,} of one person)"),
        ("pairs without two faces", f"{record['failures']:,}"),
        ("accuracy", f"{result.accuracy:.2%} ± {result.accuracy_std:.2%} (ten-fold)"),
        ("best threshold", f"cosine {result.threshold:.4f}"),
        ("area under the ROC curve", f"{result.roc_auc:.5f}"),
        ("TAR at FAR 0.1 %", f"{result.tar:.1%}"),
    ]
    return [*rows, *_score_rows(record["scores"]), _time_row(record)]


def _identification_rows(result: Identification) -> list[tuple[str, str]]:
    record = result.to_json()
    rows = [
        ("model", result.model),
        ("people", f"{result.people:,}, {result.gallery_photos} gallery photos each"),
        ("people left out", f"{len(result.skipped):,} with too few photos"),
        ("probes", f"{len(result.ranks):,}"),
        ("probes that failed", f"{result.failures:,}"),
        ("rank-1", f"{result.rank(1):.2%}"),
        ("rank-5", f"{result.rank(5):.2%}"),
    ]
    return [*rows, *_score_rows(record["scores"]), _time_row(record)]


def _score_rows(scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    people = scores["learned_from_people"]
    rows = [("scores", f"learned from {people:,} people" if people else "as shipped")]
    if scores["same_person_median"] is not None:
        rows.append(
            ("score of the same person", f"{scores['same_person_median']:.0f} in the median")
        )
    if scores["strangers_at_least_30"] is not None:
        seen = (scores["strangers_at_least_30"], scores["strangers_at_least_40"])
        rows.append(("strangers from 30, from 40", f"{seen[0]:.2%}, {seen[1]:.3%} (1 %, 0.1 %)"))
    if scores.get("best_stranger_median") is not None:
        best = f"{scores['best_stranger_median']:.0f} in the median"
        rows.append(("best match of a stranger", best))
    return rows


def _time_row(record: Mapping[str, Any]) -> tuple[str, str]:
    speed = f"{record['photos_per_s']:.0f} of {record['photos']:,} photos a second"
    return "time", f"{record['seconds']:.1f} s, {speed}"


def _print_table(rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {value}")


def _print_notes(faceless: Mapping[str, str], drawn: tuple[Path, ...]) -> None:
    for photo, why in list(faceless.items())[:_NAMED]:
        click.echo(f"{photo}: {why}", err=True)
    if len(faceless) > _NAMED:
        click.echo(f"and {len(faceless) - _NAMED} more (--json names them all)", err=True)
    for path in drawn:
        click.echo(f"drawn: {path}", err=True)


def _print_json(result: Verification | Identification, drawn: tuple[Path, ...]) -> None:
    record = result.to_json() | {"plots": [str(path) for path in drawn]}
    click.echo(json.dumps(record, indent=2, ensure_ascii=False))
