"""`lookalike gallery`: download, credits, permit, export, import, import-pickle and copy."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bot.cli import main as cli
from bot.cli import output
from bot.cli.output import interruptible, numbered, people_of, print_json, say, some
from engine.errors import GalleryMissing

if TYPE_CHECKING:
    from engine.engine import Engine
    from engine.types import Space
    from gallery.gallery import Gallery
    from gallery.old_pickles import PickleReport
    from gallery.transfer import ExportReport, ImportReport
    from gallery.wikimedia.download import DownloadReport

Names = Sequence[str]
_file = click.argument("file", metavar="FILE", type=cli.PATH)


@click.command(cls=cli.Command)
@click.option(
    "--category",
    "names",
    metavar="NAME",
    multiple=True,
    help="Such as film, bollywood, sports; may be given several times (default: all).",
)
@cli.count_option("--limit", "So many people, the most famous who can be had.", default=1000)
@cli.count_option("--min-fame", "Only people with articles in so many wikis.", 0, default=0)
@cli.count_option("--portraits", "At most so many of one person.", most=20, default=3)
@click.option("--list", "list_them", is_flag=True, help="List the categories and stop.")
@click.option("--refresh", is_flag=True, help="Ask again what was answered in the last 30 days.")
@cli.usable_option
def download(
    context: cli.Context, names: Names, list_them: bool, refresh: bool, models: Names, **order: Any
) -> None:
    """Add famous people from Wikidata and Wikimedia Commons.

    Only pictures under free licences are taken; author, licence and source are kept with each
    (`lookalike gallery credits`). It may be stopped at any moment: the same command goes on and
    asks for nothing twice. categories.toml in the data folder adds categories of your own.
    """
    from bot.background import categories_of, contact_of, servers_of
    from gallery.wikimedia.categories import chosen

    table = categories_of(context.settings)
    if list_them:
        with context.gallery() as gallery:
            counts = gallery.stats().categories
        rows: list[dict[str, Any]] = [
            {"category": one.name, "people": counts.get(one.name, 0)}
            | {name: getattr(one, name) for name in ("title", "occupations", "countries")}
            for one in table.values()
        ]
        shown = [(row["category"], row["title"], str(row["people"])) for row in rows]
        headings = ("category", "who", "in the gallery")
        context.finish(rows, partial(output.print_table, headings, shown))
        return
    from gallery.wikimedia.download import Download, Order

    people = Order(chosen(table, names), **order)
    stopped = interruptible("Interrupted; run the same command again to go on.")
    with stopped, context.working() as (gallery, engine, show):
        if contact_of(context.settings, gallery) is None and sys.stdin.isatty():
            cli.ask_for_contact(gallery)
        servers = servers_of(context.settings, gallery)
        used = context.usable(models)
        warn = partial(say, before="Warning: ", err=True)
        with Download(gallery, engine, people, servers, used, progress=show) as running:
            report = running.run(warn=warn, refresh=refresh)
    content, lines = {"models": used, **report.to_json()}, _download_lines(report, used)
    context.finish(content, lines, interrupted=report.interrupted)


@click.command("credits", cls=cli.Command)
@cli.path_option("--html", "FILE", "Write a web page instead.", dir_okay=False)
def credits_command(context: cli.Context, html: Path | None) -> None:
    """List every picture with its author, licence and source."""
    with context.gallery() as gallery:
        people = {one.id: one.name for one in gallery.people()}
        portraits = gallery.portraits_by_id(gallery.portrait_ids().tolist()).values()
    places = {person_id: place for place, person_id in enumerate(people)}
    keys = {"author": "author", "license": "licence", "license_url": "licence_url"}
    keys |= {"source": "source_url"}
    rows: list[dict[str, str | None]] = [
        {"person": people[one.person_id]} | {key: getattr(one, name) for key, name in keys.items()}
        for one in sorted(portraits, key=lambda one: (places[one.person_id], one.id))
    ]
    names = {"unknown": "author unknown", "no_licence": "no licence known"}
    known = [row for row in rows if row["author"] or row["license"] or row["source"]]
    others = Counter(row["person"] for row in rows if row not in known)
    pictures = numbered(others.total(), "picture")
    listed = ", ".join(f"{name} ({n})" if n > 1 else str(name) for name, n in others.items())
    nameless = f"Nothing is known of {pictures}: {listed}" if others else ""
    if html is not None:
        from jinja2 import Environment, FileSystemLoader

        # A page that needs nothing else; what sources say is shown as text, never as markup.
        loader = FileSystemLoader(Path(__file__).parent)
        pages = Environment(loader=loader, autoescape=True, trim_blocks=True)
        template = pages.get_template("credits.html")
        output.write_file(html, template.render(rows=known, nameless=nameless, **names).encode())
        say(f"{numbered(len(rows), 'picture')}: {html}", err=True)
    if context.json:
        print_json(rows)
    elif html is None:
        for row in known:
            said = (row["author"] or names["unknown"], row["license"] or names["no_licence"])
            parts = filter(None, (*said, row["license_url"], row["source"]))
            say(f"{row['person']}: {', '.join(parts)}")
        if nameless or not rows:
            say(nameless or "There is nobody in the gallery yet.")


@click.command(cls=cli.Command, json="")
@cli.person_argument
def permit(context: cli.Context, name: str) -> None:
    """Let a PERSON come back who was removed with --never-again."""
    with context.gallery() as gallery, gallery.writing(), gallery.transaction() as changes:
        if not changes.unban(name):
            raise GalleryMissing(f"nobody called {name!r} was removed with --never-again")
    say(f"{name} may come back: add or download them again.")


def _download_lines(done: DownloadReport, models: Sequence[str]) -> Iterator[str]:
    people = people_of(done.wanted)
    yield f"people     {done.there:,} of {people} are in the gallery"
    if done.left_out:
        yield f"left out   {people_of(len(done.left_out))}"
        for reason, count in done.why_left_out().most_common():
            whom = [one.person for one in done.left_out if one.reason.startswith(reason)]
            yield f"  {reason}: {count:,} ({some(whom)})"
    yield from output.add_lines(done, models)


@click.command(short_help="Write the gallery into one file.", cls=cli.Command)
@_file
@click.option("--no-photos", is_flag=True, help="Leave the pictures out.")
@click.option("--force", is_flag=True, help="Replace FILE if there is one.")
def export(context: cli.Context, file: Path, no_photos: bool, force: bool) -> None:
    """Write the whole gallery into FILE, for another machine or for safe keeping.

    FILE is an SQLite database: people, portraits with author, licence and source, pictures,
    vectors, learned scores, and who was removed with --never-again. Without pictures it is small;
    people are then found and named all the same, and cards show a silhouette.
    """
    from gallery.transfer import export_gallery

    stopped = interruptible(f"Interrupted; {file} was not written.")
    with context.working(people=True) as (gallery, _, show), stopped:
        report = export_gallery(gallery, file, photos=not no_photos, replace=force, progress=show)
    context.finish({"file": str(file), **report.to_json()}, _export_lines(file, report))


@click.command("import", short_help="Take in an exported gallery.", cls=cli.Command)
@_file
def import_command(context: cli.Context, file: Path) -> None:
    """Take in everybody from FILE, which `lookalike gallery export` wrote.

    People who are here already are merged; what is here stays as it is. The file is checked before
    anything is changed. The same command goes on after an interruption.
    """
    from gallery.transfer import import_file

    with context.working() as (gallery, engine, show):
        with interruptible("Interrupted; nothing was changed."):
            report = import_file(gallery, file, progress=show)
        _finish(context, engine, gallery, report)


@click.command(short_help="Copy a gallery to another folder or database.", cls=cli.Command)
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
def copy(context: cli.Context, source: str, target: str) -> None:
    """Copy a gallery FROM one place TO another, with pictures and vectors.

    Each is a data folder, a gallery's folder, or a database such as
    postgresql://user@host/lookalike (a password may stand in ~/.pgpass). TO may hold people
    already: they are merged. The same command goes on after an interruption.
    """
    from gallery.transfer import copy_gallery

    engine = context.engine  # wrong settings are told before the work
    with _placed(source) as original, _placed(target, new=True) as copied:
        if original.stats().people == 0:
            raise GalleryMissing(f"there is nobody in the gallery {original.place}")
        with output.progress(quiet=context.json) as show:
            report = copy_gallery(original, copied, progress=show)
        _finish(context, engine, copied, report)


def _finish(context: cli.Context, engine: Engine, gallery: Gallery, report: ImportReport) -> None:
    configured = context.settings.models.configured
    lines = [*_import_lines(report), *_searchable_lines(gallery, engine, configured)]
    context.finish(report.to_json(), lines, interrupted=report.interrupted)


@click.command("import-pickle", short_help="Take in the people of an older app.", cls=cli.Command)
@click.argument("embeddings", metavar="EMBEDDING.PKL", type=cli.PATH)
@click.argument("names", metavar="FILENAMES.PKL", type=cli.PATH)
@cli.path_option("--photos", "DIR", "Where the photos are (default: beside FILENAMES.PKL).")
@cli.usable_option
def import_pickle(context: cli.Context, embeddings: Path, names: Path, **how: Any) -> None:
    """Take in the people of an older app's EMBEDDING.PKL and FILENAMES.PKL.

    The photos are embedded anew: vectors made by another crop can't be compared with today's. Of
    people whose photos are gone the names are kept, until photos come. The files are read without
    running anything that may stand in them.
    """
    from gallery.old_pickles import import_pickles

    with context.working() as (gallery, engine, show):
        used = context.usable(how.pop("models"))
        how |= {"backbones": used, "progress": show}
        report = import_pickles(gallery, engine, embeddings, names, **how)
    content, lines = {"models": used, **report.to_json()}, _pickle_lines(report, used)
    context.finish(content, lines, interrupted=report.interrupted)


@contextmanager
def _placed(place: str, *, new: bool = False) -> Iterator[Gallery]:
    from gallery.gallery import Gallery

    if place.startswith(("postgresql://", "postgresql+")):
        # A gallery in a database keeps what it derives in the folder.
        with tempfile.TemporaryDirectory() as own, Gallery.open(Path(own), place) as gallery:
            yield gallery
        return
    folder = Path(place).expanduser()
    below = folder / "gallery"
    # The folder itself if it is a gallery's, or is called like one; else that in a data folder.
    itself = (folder / "gallery.db").is_file() or folder.name == "gallery"
    chosen = folder if itself and not (below / "gallery.db").is_file() else below
    if not new and not (chosen / "gallery.db").is_file():
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
    if report.never_again:
        yield f"stay away  {people_of(report.never_again)} (--never-again)"
    yield f"{file}: {report.size_bytes / 1e6:,.1f} MB in {report.seconds:.1f} s"


def _import_lines(report: ImportReport) -> Iterator[str]:
    yield from output.news_lines(report)
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
        yield f"  {reason}: {count:,} ({some(list(dict.fromkeys(whom)))})"
    if report.never_again:
        gone = f"{people_of(report.never_again)} who were removed for good"
        yield f"stay away  {gone}; `lookalike gallery permit PERSON` takes it back"
    yield from _vector_lines(report)
    for space, reason in report.left_out.items():
        yield f"left out   vectors of {space.id}: {reason}"
    if report.calibrations:
        names = ", ".join(space.backbone for space in report.calibrations)
        yield f"scores     as learned there: {names}"
    took = f"{report.seconds:.1f} s, {report.photos_per_s:,.0f} a second"
    yield f"{numbered(report.photos, 'portrait')} in {took}"
    if report.interrupted:
        yield output.KEPT


def _vector_lines(report: ExportReport | ImportReport) -> Iterator[str]:
    if report.vectors:
        listed = ", ".join(f"{space.backbone} {n:,}" for space, n in report.vectors.items())
        yield f"vectors    {listed}"


def _searchable_lines(gallery: Gallery, engine: Engine, configured: Sequence[str]) -> Iterator[str]:
    """Who can be found by which model now; those without weights and vectors are left out."""
    stats = gallery.stats()
    spaces: dict[str, dict[Space, int]] = {name: {} for name in configured}
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
        known = f"{name}: {found:,} of {numbered(stats.portraits, 'portrait')} searchable"
        yield known + lacking * (found < stats.portraits)
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
        yield from output.add_lines(report, models)
    if report.odd_paths:
        yield f"no person  {numbered(report.odd_paths, 'path')} without a person's folder"
    if report.photos_missing:
        yield f"no photo   {numbered(report.photos_missing, 'entry', 'entries')}"
    if report.names_only:
        names = people_of(len(report.names_only))
        yield f"name only  {names} ({some(report.names_only)})"
        yield (
            "Nobody is found by a name only. With the photos: the same command with --photos DIR, "
            "or `lookalike gallery add DIR`. Without: `lookalike gallery download` fetches famous "
            "people with free pictures."
        )


COMMANDS = (download, credits_command, permit, export, import_command, import_pickle, copy)
