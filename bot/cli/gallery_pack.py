"""`lookalike gallery export`, `import`, `import-pickle` and `copy`."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bot.cli.gallery_opening import (
    EXIT_INTERRUPTED,
    as_json_option,
    models_option,
    opened,
    usable,
)
from bot.cli.gallery_pack_words import (
    export_lines,
    import_lines,
    pickle_lines,
    standing_lines,
)
from bot.cli.gallery_words import print_json
from bot.cli.main import Context, common
from engine.errors import GalleryMissing

if TYPE_CHECKING:
    from gallery.gallery import Gallery
    from gallery.packing.report import ImportReport

__all__ = ["copy", "export", "import_command", "import_pickle"]

_URLS = ("postgresql://", "postgresql+")


@click.command(short_help="Write the gallery into one file.")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--no-photos", is_flag=True, help="Leave the pictures out.")
@click.option("--force", is_flag=True, help="Replace FILE if there is one.")
@as_json_option
@common
@click.pass_obj
def export(context: Context, file: Path, no_photos: bool, force: bool, as_json: bool) -> None:
    """Write the whole gallery into FILE, for another machine or for safe keeping.

    FILE is a ZIP archive of plain files: people, portraits with author, licence and source,
    pictures, vectors, learned scores, and who was removed with --never-again. Without pictures it
    is small; people are then found and named all the same, and cards show a silhouette.
    """
    from bot.cli.gallery_progress import shown
    from gallery.pack import export_gallery

    with opened(context.settings()) as gallery, shown(quiet=as_json) as progress:
        if gallery.stats().people == 0:
            raise GalleryMissing(
                "there is nobody in the gallery yet: add people with `lookalike gallery add DIR`"
            )
        try:
            report = export_gallery(
                gallery, file, photos=not no_photos, replace=force, progress=progress
            )
        except KeyboardInterrupt:
            click.echo(f"Interrupted; {file} was not written.", err=True)
            sys.exit(EXIT_INTERRUPTED)
    if as_json:
        print_json({"file": str(file), **report.to_json()})
    else:
        for line in export_lines(file, report):
            click.echo(line)


@click.command("import", short_help="Take in an exported gallery.")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@as_json_option
@common
@click.pass_obj
def import_command(context: Context, file: Path, as_json: bool) -> None:
    """Take in everybody from FILE, which `lookalike gallery export` wrote.

    People who are here already are merged; what is here stays as it is. The file is checked before
    anything is changed. The same command goes on after an interruption.
    """
    from bot.app import open_engine
    from bot.cli.gallery_progress import shown
    from gallery.pack import import_file

    settings = context.settings()
    with opened(settings) as gallery, shown(quiet=as_json) as progress:
        try:
            report = import_file(gallery, file, progress=progress)
        except KeyboardInterrupt:
            click.echo("Interrupted; nothing was changed.", err=True)
            sys.exit(EXIT_INTERRUPTED)
        engine, names = open_engine(settings), settings.models.configured
        words = [*import_lines(report), *standing_lines(gallery, engine, names)]
    _finish(report, words, as_json=as_json)


@click.command(short_help="Copy a gallery to another folder or database.")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@as_json_option
@common
@click.pass_obj
def copy(context: Context, source: str, target: str, as_json: bool) -> None:
    """Copy a gallery FROM one place TO another, with pictures and vectors.

    Each is a data folder, a gallery's folder, or a database such as
    postgresql://user@host/lookalike (a password may stand in ~/.pgpass). TO may hold people
    already: they are merged. The same command goes on after an interruption.
    """
    from bot.app import open_engine
    from bot.cli.gallery_progress import shown
    from gallery.pack import copy_gallery

    settings = context.settings()
    with (
        _placed(source, must_exist=True) as original,
        _placed(target, must_exist=False) as copied,
        shown(quiet=as_json) as progress,
    ):
        if original.stats().people == 0:
            raise GalleryMissing(f"there is nobody in the gallery {original.place}")
        report = copy_gallery(original, copied, progress=progress)
        engine, names = open_engine(settings), settings.models.configured
        words = [*import_lines(report), *standing_lines(copied, engine, names)]
    _finish(report, words, as_json=as_json)


@click.command("import-pickle", short_help="Take in the people of an older app.")
@click.argument("embeddings", metavar="EMBEDDING.PKL", type=click.Path(path_type=Path))
@click.argument("names", metavar="FILENAMES.PKL", type=click.Path(path_type=Path))
@click.option(
    "--photos",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where the photos are (default: beside FILENAMES.PKL).",
)
@models_option
@as_json_option
@common
@click.pass_obj
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
    from bot.app import open_engine
    from bot.cli.gallery_progress import shown
    from gallery.packing.pickled import import_pickles

    settings = context.settings()
    engine = open_engine(settings)
    with opened(settings) as gallery, shown(quiet=as_json) as progress:
        used = usable(engine, settings, models)
        report = import_pickles(
            gallery, engine, embeddings, names, photos=photos, backbones=used, progress=progress
        )
    if as_json:
        print_json({"models": used, **report.to_json()})
    else:
        for line in pickle_lines(report, used):
            click.echo(line)
    if report.photos.interrupted:
        sys.exit(EXIT_INTERRUPTED)


@contextmanager
def _placed(place: str, *, must_exist: bool) -> Iterator[Gallery]:
    """The gallery at a place that was named on the command line."""
    from gallery.gallery import Gallery

    with contextlib.ExitStack() as stack:
        if place.startswith(_URLS):
            # A gallery in a database keeps copies of the pictures it shows in the folder.
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            yield stack.enter_context(Gallery.open(folder, place))
            return
        folder = _gallery_folder(Path(place).expanduser())
        if must_exist and not (folder / "gallery.db").is_file():
            raise GalleryMissing(
                f"there is no gallery in {place}: name a data folder, a gallery's folder or a "
                "database (postgresql://...)"
            )
        yield stack.enter_context(Gallery.open(folder))


def _gallery_folder(folder: Path) -> Path:
    """The folder itself if it is a gallery's, or is called like one; else that in a data folder."""
    below = folder / "gallery"
    itself = (folder / "gallery.db").is_file() or folder.name == "gallery"
    return folder if itself and not (below / "gallery.db").is_file() else below


def _finish(report: ImportReport, words: Sequence[str], *, as_json: bool) -> None:
    content: dict[str, Any] = report.to_json()
    if as_json:
        print_json(content)
    else:
        for line in words:
            click.echo(line)
    if report.interrupted:
        sys.exit(EXIT_INTERRUPTED)
