"""`lookalike gallery export`, `import`, `import-pickle` and `copy`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bot.cli.main import (
    PATH,
    Context,
    at_work,
    check_inhabited,
    json_command,
    opened,
    path_option,
    usable_option,
)
from bot.cli.output import (
    KEPT,
    add_lines,
    finish,
    interruptible,
    news_lines,
    numbered,
    people_of,
    progress,
    some,
)
from engine.errors import GalleryMissing

if TYPE_CHECKING:
    from bot.settings import Settings
    from engine.engine import Engine
    from engine.types import Space
    from gallery.gallery import Gallery
    from gallery.old_pickles import PickleReport
    from gallery.transfer import ExportReport, ImportReport

_URLS = ("postgresql://", "postgresql+")


@click.command(short_help="Write the gallery into one file.")
@click.argument("file", metavar="FILE", type=PATH)
@click.option("--no-photos", is_flag=True, help="Leave the pictures out.")
@click.option("--force", is_flag=True, help="Replace FILE if there is one.")
@json_command
def export(context: Context, file: Path, no_photos: bool, force: bool, as_json: bool) -> None:
    """Write the whole gallery into FILE, for another machine or for safe keeping.

    FILE is an SQLite database: people, portraits with author, licence and source, pictures,
    vectors, learned scores, and who was removed with --never-again. Without pictures it is small;
    people are then found and named all the same, and cards show a silhouette.
    """
    from gallery.transfer import export_gallery

    stopped = interruptible(f"Interrupted; {file} was not written.")
    with opened(context.settings()) as gallery, progress(quiet=as_json) as show, stopped:
        check_inhabited(gallery)
        report = export_gallery(gallery, file, photos=not no_photos, replace=force, progress=show)
    content = {"file": str(file), **report.to_json()}
    finish(content, _export_lines(file, report), as_json=as_json)


@click.command("import", short_help="Take in an exported gallery.")
@click.argument("file", metavar="FILE", type=PATH)
@json_command
def import_command(context: Context, file: Path, as_json: bool) -> None:
    """Take in everybody from FILE, which `lookalike gallery export` wrote.

    People who are here already are merged; what is here stays as it is. The file is checked before
    anything is changed. The same command goes on after an interruption.
    """
    from gallery.transfer import import_file

    with at_work(context, quiet=as_json) as (settings, engine, gallery, show, _):
        with interruptible("Interrupted; nothing was changed."):
            report = import_file(gallery, file, progress=show)
        words = [*_import_lines(report), *_searchable_lines(gallery, engine, settings)]
    finish(report.to_json(), words, as_json=as_json, interrupted=report.interrupted)


@click.command(short_help="Copy a gallery to another folder or database.")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@json_command
def copy(context: Context, source: str, target: str, as_json: bool) -> None:
    """Copy a gallery FROM one place TO another, with pictures and vectors.

    Each is a data folder, a gallery's folder, or a database such as
    postgresql://user@host/lookalike (a password may stand in ~/.pgpass). TO may hold people
    already: they are merged. The same command goes on after an interruption.
    """
    from bot.app import open_engine
    from gallery.transfer import copy_gallery

    settings = context.settings()
    with (
        _placed(source, must_exist=True) as original,
        _placed(target, must_exist=False) as copied,
        progress(quiet=as_json) as show,
    ):
        if original.stats().people == 0:
            raise GalleryMissing(f"there is nobody in the gallery {original.place}")
        report = copy_gallery(original, copied, progress=show)
        words = [
            *_import_lines(report),
            *_searchable_lines(copied, open_engine(settings), settings),
        ]
    finish(report.to_json(), words, as_json=as_json, interrupted=report.interrupted)


@click.command("import-pickle", short_help="Take in the people of an older app.")
@click.argument("embeddings", metavar="EMBEDDING.PKL", type=PATH)
@click.argument("names", metavar="FILENAMES.PKL", type=PATH)
@path_option("--photos", "DIR", "Where the photos are (default: beside FILENAMES.PKL).")
@usable_option
@json_command
def import_pickle(
    context: Context,
    embeddings: Path,
    names: Path,
    photos: Path | None,
    models: Sequence[str],
    as_json: bool,
) -> None:
    """Take in the people of an older app's EMBEDDING.PKL and FILENAMES.PKL.

    The photos are embedded anew: vectors made by another crop can't be compared with today's. Of
    people whose photos are gone the names are kept, until photos come. The files are read without
    running anything that may stand in them.
    """
    from gallery.old_pickles import import_pickles

    with at_work(context, quiet=as_json, wanted=models) as (_, engine, gallery, show, used):
        report = import_pickles(
            gallery, engine, embeddings, names, photos=photos, backbones=used, progress=show
        )
    content, lines = {"models": used, **report.to_json()}, _pickle_lines(report, used)
    finish(content, lines, as_json=as_json, interrupted=report.photos.interrupted)


@contextmanager
def _placed(place: str, *, must_exist: bool) -> Iterator[Gallery]:
    """The gallery at a place that was named on the command line."""
    from gallery.gallery import Gallery

    if place.startswith(_URLS):
        # A gallery in a database keeps what it derives in the folder.
        with tempfile.TemporaryDirectory() as own, Gallery.open(Path(own), place) as gallery:
            yield gallery
        return
    folder = Path(place).expanduser()
    below = folder / "gallery"
    # The folder itself if it is a gallery's, or is called like one; else that in a data folder.
    itself = (folder / "gallery.db").is_file() or folder.name == "gallery"
    chosen = folder if itself and not (below / "gallery.db").is_file() else below
    if must_exist and not (chosen / "gallery.db").is_file():
        raise GalleryMissing(
            f"there is no gallery in {place}: name a data folder, a gallery's folder or a "
            "database (postgresql://...)"
        )
    with Gallery.open(chosen) as gallery:
        yield gallery


def _export_lines(file: Path, report: ExportReport) -> Iterator[str]:
    people = people_of(report.people)
    yield f"people     {people}, {numbered(report.portraits, 'portrait')}"
    if report.photos:
        yield f"pictures   {report.photos:,}"
    if report.photos < report.portraits:
        yield f"no picture {numbered(report.portraits - report.photos, 'portrait')}"
    yield from _vector_lines(report)
    if report.banned:
        yield f"stay away  {people_of(report.banned)} (--never-again)"
    yield f"{file}: {report.size_bytes / 1e6:,.1f} MB in {report.seconds:.1f} s"


def _import_lines(report: ImportReport) -> Iterator[str]:
    yield from news_lines(report)
    if report.photos_brought:
        yield f"pictures   {report.photos_brought:,} for portraits that had none"
    if report.without_photo:
        yield (
            f"no picture {numbered(report.without_photo, 'portrait')}: people are found and named, "
            "cards show a silhouette until the pictures are imported, added or downloaded"
        )
    if report.rejected:
        yield f"not taken  {numbered(len(report.rejected), 'portrait')}"
    for reason, count in report.reasons().most_common():
        whom = [one.person for one in report.rejected if one.reason.startswith(reason)]
        yield f"  {reason}: {count:,} ({some(list(dict.fromkeys(whom)), counted=False)})"
    if report.banned:
        yield (
            f"stay away  {people_of(report.banned)} who were removed for "
            "good; `lookalike gallery permit PERSON` takes it back"
        )
    yield from _vector_lines(report)
    for space, reason in report.left_out.items():
        yield f"left out   vectors of {space.id}: {reason}"
    if report.calibrated:
        names = ", ".join(space.backbone for space in report.calibrated)
        yield f"scores     as learned there: {names}"
    speed = report.photos / report.seconds if report.seconds else 0.0
    yield (
        f"{numbered(report.photos, 'portrait')} in {report.seconds:.1f} s, {speed:,.0f} a second"
    )
    if report.interrupted:
        yield KEPT


def _vector_lines(report: ExportReport | ImportReport) -> Iterator[str]:
    if report.vectors:
        listed = ", ".join(f"{space.backbone} {n:,}" for space, n in report.vectors.items())
        yield f"vectors    {listed}"


def _searchable_lines(gallery: Gallery, engine: Engine, settings: Settings) -> Iterator[str]:
    """Who can be found by which model now, and what to do about the others.

    Configured models without weights and vectors are not told.
    """
    stats = gallery.stats()
    spaces: dict[str, dict[Space, int]] = {name: {} for name in settings.models.configured}
    for space, rows in stats.vectors.items():
        if rows:
            spaces.setdefault(space.backbone, {})[space] = rows
    for name, others in spaces.items():
        if engine.why_unavailable(name) is not None:
            if others:
                vectors = numbered(sum(others.values()), "vector")
                yield f"{name}: {vectors}, no weights: `lookalike models download {name}`"
            continue
        found = others.pop(engine.backbone(name).space, 0)
        lacking = f"; `lookalike gallery build --model {name}` embeds those that have a picture"
        yield (
            f"{name}: {found:,} of {numbered(stats.portraits, 'portrait')} searchable"
            f"{lacking if found < stats.portraits else ''}"
        )
        if others:
            yield (
                f"{name}: {numbered(sum(others.values()), 'vector')} of other weights or of "
                "another version than this machine's, compared with nobody; `lookalike gallery "
                f"build --model {name}` drops them and makes them anew from the pictures"
            )


def _pickle_lines(report: PickleReport, models: Sequence[str]) -> Iterator[str]:
    yield (
        f"read       {numbered(report.entries, 'entry', 'entries')} of "
        f"{people_of(report.people)}, vectors of {report.dimensions:,} numbers"
    )
    yield (
        "vectors    not taken: another crop made them, with weights nobody can check, and compared "
        "with today's they would be wrong"
    )
    if report.photos_found:
        yield f"photos     {report.photos_found:,} found, embedded anew:"
        yield from add_lines(report.photos, models)
    if report.odd_paths:
        yield f"no person  {numbered(report.odd_paths, 'path')} without a person's folder"
    if report.photos_missing:
        yield f"no photo   {numbered(report.photos_missing, 'entry', 'entries')}"
    if report.names_only:
        names = people_of(len(report.names_only))
        yield f"name only  {names} ({some(report.names_only, counted=False)})"
        yield (
            "Nobody is found by a name only. With the photos: the same command with --photos DIR, "
            "or `lookalike gallery add DIR`. Without: `lookalike gallery download` fetches famous "
            "people with free pictures."
        )
