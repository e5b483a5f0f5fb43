"""`lookalike evaluate report`: every backbone on the same people, as a page with charts."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bot.cli.main import Context, common

if TYPE_CHECKING:
    from bot.settings import Settings
    from engine.engine import Engine
    from gallery.evaluation.report import EvaluationReport
    from gallery.records import Person

__all__ = ["report"]

_BACKBONES: Final = ("dlib", "resnet", "senet")


@click.command(short_help="Compare backbones on people, as a page with charts and pictures.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--html",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write the report here: one file that needs no network.",
)
@click.option(
    "--gallery-photos",
    metavar="N",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="How many photos of each person, the first by name, are the gallery.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    type=click.Choice(_BACKBONES),
    help="Only this backbone; may be repeated (default: all whose weights are here).",
)
@click.option(
    "--people",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="CSV with the columns person, category, country, gender (default: DIR/people.csv).",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common
@click.pass_obj
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
    from bot.cli.gallery_progress import shown
    from gallery.evaluation.page import check_place, render, save
    from gallery.evaluation.people import known_of
    from gallery.evaluation.run import evaluate_people

    settings = context.settings()
    if html is not None:
        check_place(html)
    known = known_of(folder, people, _catalogue(settings))
    engine = open_engine(settings)
    unavailable = _unavailable(engine, models)
    with shown(quiet=as_json) as progress:
        found = evaluate_people(
            engine,
            folder,
            backbones=models or [name for name in _BACKBONES if name not in unavailable],
            unavailable=unavailable,
            gallery_photos=gallery_photos,
            known=known,
            progress=progress,
        )
    if html is not None:
        repeat = _command(folder, html, gallery_photos, models, people)
        save(render(found, engine, command=repeat), html)
    if as_json:
        record = found.to_json() | {"html": str(html) if html else None}
        click.echo(json.dumps(record, indent=2, ensure_ascii=False))
    else:
        _tell(found, html)


def _unavailable(engine: Engine, models: tuple[str, ...]) -> dict[str, str]:
    """Backbones that can't be used here, and why; none if some were asked for."""
    if models:
        return {}
    reasons = ((name, engine.why_unavailable(name)) for name in _BACKBONES)
    return {name: reason for name, reason in reasons if reason is not None}


def _catalogue(settings: Settings) -> tuple[Person, ...]:
    """Everybody in the gallery of this data folder, if there is one."""
    from bot.app import has_gallery, open_gallery

    if not has_gallery(settings):
        return ()
    with open_gallery(settings) as gallery:
        return gallery.people()


def _command(
    folder: Path, html: Path, gallery_photos: int, models: tuple[str, ...], people: Path | None
) -> str:
    words = ["lookalike", "evaluate", "report", str(folder), "--html", str(html)]
    words += ["--gallery-photos", str(gallery_photos)]
    words += [word for name in models for word in ("--model", name)]
    words += ["--people", str(people)] if people else []
    return shlex.join(words)


def _tell(found: EvaluationReport, html: Path | None) -> None:
    from gallery.evaluation.report import advice

    for column in found.columns:
        evidence = column.evidence
        click.echo(
            f"{column.model}: rank-1 {evidence.rank(1).value:.1%}, "
            f"rank-5 {evidence.rank(5).value:.1%}, "
            f"TAR {evidence.tar(1e-3).value:.1%} at FAR 0.1 %, "
            f"same person {column.same_median:.0f}, strangers from 30: "
            f"{evidence.reached(30.0).value:.2%} (meant: 1 %), "
            f"{column.photos_per_s:.0f} photos a second"
        )
    click.echo(advice(found.columns))
    for name, reason in found.unavailable.items():
        click.echo(f"{name} was not measured: {reason}", err=True)
    if html is not None:
        click.echo(f"The report is in {html}; it holds pictures of people.", err=True)
