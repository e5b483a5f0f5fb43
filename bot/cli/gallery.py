"""`lookalike gallery`: adds, builds, lists, shows and removes people."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bot.cli.gallery_download import credits_command, download, permit
from bot.cli.gallery_opening import (
    EXIT_INTERRUPTED,
    as_json_option,
    models_option,
    opened,
    usable,
)
from bot.cli.gallery_pack import copy, export, import_command, import_pickle
from bot.cli.gallery_verify import verify
from bot.cli.gallery_words import (
    add_lines,
    build_line,
    either,
    numbered,
    person_json,
    portrait_json,
    print_json,
    print_table,
)
from bot.cli.main import Context, common
from engine.errors import GalleryMissing

if TYPE_CHECKING:
    from gallery.gallery import Gallery
    from gallery.progress import Report
    from gallery.records import Person

__all__ = ["command"]


@click.group()
@common
def command() -> None:
    """Add, build, list and remove people."""


command.add_command(download)
command.add_command(credits_command)
command.add_command(permit)
command.add_command(export)
command.add_command(import_command)
command.add_command(import_pickle)
command.add_command(copy)
command.add_command(verify)


@command.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--category", metavar="NAME", help="Category of everybody in DIR.")
@models_option
@click.option("--again", is_flag=True, help="Look again at photos that were not taken before.")
@as_json_option
@common
@click.pass_obj
def add(
    context: Context,
    folder: Path,
    category: str | None,
    models: Sequence[str],
    again: bool,
    as_json: bool,
) -> None:
    """Add the people in DIR, a folder of photos for each.

    DIR is arranged as DIR/Person_Name/photo.jpg or DIR/Category/Person_Name/photo.jpg. Photos that
    are in the gallery already cost little: add the same DIR again after putting photos into it, or
    after an interruption.
    """
    from bot.app import open_engine
    from bot.cli.gallery_progress import shown
    from gallery.add import add_folder

    settings = context.settings()
    engine = open_engine(settings)
    with opened(settings) as gallery, shown(quiet=as_json) as progress:
        names = usable(engine, settings, models)
        report = add_folder(
            gallery,
            engine,
            folder,
            category=category,
            backbones=names,
            progress=progress,
            again=again,
        )
    _finish(report, names, as_json=as_json)


@command.command()
@models_option
@as_json_option
@common
@click.pass_obj
def build(context: Context, models: Sequence[str], as_json: bool) -> None:
    """Make the gallery whole: embed what lacks vectors, learn scores, clean up.

    After a backbone was downloaded this lets it be used; after people were removed it drops their
    vectors for good.
    """
    from bot.app import open_engine
    from bot.cli.gallery_progress import shown
    from gallery.build import build as build_space

    settings = context.settings()
    engine = open_engine(settings)
    reports: dict[str, Report] = {}
    with opened(settings) as gallery, shown(quiet=as_json) as progress:
        _refuse_empty(gallery)
        for name in usable(engine, settings, models):
            reports[name] = build_space(gallery, engine, name, progress=progress)
            if reports[name].interrupted:
                break
    if as_json:
        print_json({name: report.to_json() for name, report in reports.items()})
    else:
        for name, report in reports.items():
            click.echo(build_line(name, report))
            for person in sorted(set(report.dropped)):
                click.echo(f"  a picture of {person} is lost or damaged: add it again")
    if any(report.interrupted for report in reports.values()):
        sys.exit(EXIT_INTERRUPTED)


@command.command("list")
@click.option("--category", metavar="NAME", help="Only the people in this category.")
@as_json_option
@common
@click.pass_obj
def list_people(context: Context, category: str | None, as_json: bool) -> None:
    """List the people in the gallery."""
    with opened(context.settings()) as gallery:
        people = gallery.people(category)
        counts = gallery.portrait_counts()
        if category is not None and not people:
            known = ", ".join(gallery.categories()) or "none yet"
            raise GalleryMissing(f"nobody is in the category {category!r}; there are: {known}")
    if as_json:
        print_json([{**person_json(one), "portraits": counts.get(one.id, 0)} for one in people])
        return
    if not people:
        click.echo("There is nobody in the gallery yet: `lookalike gallery add DIR` adds people.")
        return
    print_table(
        ("person", "categories", "portraits"),
        [(one.name, ", ".join(one.categories), str(counts.get(one.id, 0))) for one in people],
    )
    click.echo(f"{numbered(len(people), 'person', 'people')}")


@command.command()
@click.argument("name", metavar="PERSON", nargs=-1, required=True)
@as_json_option
@common
@click.pass_obj
def show(context: Context, name: Sequence[str], as_json: bool) -> None:
    """Show what the gallery holds of a PERSON (a name, or a Wikidata id)."""
    with opened(context.settings()) as gallery:
        person = _found(gallery, name)
        portraits = gallery.portraits(person.id)
    if as_json:
        print_json({**person_json(person), "portraits": [portrait_json(one) for one in portraits]})
        return
    click.echo(person.name)
    for heading, value in (
        ("categories", ", ".join(person.categories)),
        ("Wikidata", person.wikidata_id),
        ("country", person.country),
        ("gender", person.gender),
        ("fame", person.fame),
    ):
        if value not in (None, ""):
            click.echo(f"  {heading}: {value}")
    for one in portraits:
        credit = ", ".join(filter(None, (one.author, one.licence, one.source_url)))
        click.echo(f"  {one.thumbnail}  {one.width_px} x {one.height_px}  {credit}".rstrip())


@command.command()
@click.argument("name", metavar="PERSON", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--never-again", is_flag=True, help="No source brings the person back.")
@as_json_option
@common
@click.pass_obj
def remove(
    context: Context, name: Sequence[str], yes: bool, never_again: bool, as_json: bool
) -> None:
    """Remove a PERSON and all their portraits."""
    from gallery.build import remove as remove_person
    from gallery.never_again import bar

    with opened(context.settings()) as gallery:
        person = _found(gallery, name)
        if not yes and sys.stdin.isatty():
            count = numbered(len(gallery.portraits(person.id)), "portrait")
            click.confirm(f"Remove {person.name} ({count})?", abort=True, err=True)
        if never_again:
            bar(gallery, person)
        portraits = remove_person(gallery, person)
    if as_json:
        print_json({**person_json(person), "portraits": portraits})
    else:
        click.echo(f"Removed {person.name} and {numbered(portraits, 'portrait')}.")
        if never_again:
            click.echo("No source will bring them back.")


@command.command()
@as_json_option
@common
@click.pass_obj
def stats(context: Context, as_json: bool) -> None:
    """Count people, portraits, categories and vectors."""
    with opened(context.settings()) as gallery:
        counted = gallery.stats()
        size_bytes = gallery.size_bytes()
    if as_json:
        print_json(
            {
                "place": gallery.place,
                "folder": str(gallery.folder),
                "bytes": size_bytes,
                "people": counted.people,
                "portraits": counted.portraits,
                "categories": counted.categories,
                "vectors": {
                    space.id: {"model": space.backbone, "portraits": rows}
                    for space, rows in counted.vectors.items()
                },
                "rejected": counted.rejections,
            }
        )
        return
    click.echo(f"{gallery.place}, {size_bytes / 1e6:,.1f} MB")
    people, portraits = counted.people, counted.portraits
    click.echo(f"{numbered(people, 'person', 'people')}, {numbered(portraits, 'portrait')}")
    for name, members in counted.categories.items():
        click.echo(f"  {name}: {numbered(members, 'person', 'people')}")
    for space, rows in counted.vectors.items():
        lacking = f" of {portraits:,}: run `lookalike gallery build`" if rows < portraits else ""
        click.echo(f"searchable with {space.backbone}: {numbered(rows, 'portrait')}{lacking}")
    for reason, photos in sorted(counted.rejections.items(), key=lambda item: -item[1]):
        click.echo(f"not taken, {reason}: {numbered(photos, 'photo')}")


def _refuse_empty(gallery: Gallery) -> None:
    if gallery.stats().portraits == 0:
        raise GalleryMissing(
            "there is nobody in the gallery yet: add people with `lookalike gallery add DIR`"
        )


def _found(gallery: Gallery, words: Sequence[str]) -> Person:
    """The person of that name; the words of a name need no quotes."""
    name = " ".join(words)
    person = gallery.find_person(name)
    if person is not None:
        return person
    close = gallery.close_names(name)
    hint = f"; did you mean {either(close)}?" if close else ""
    raise GalleryMissing(f"nobody called {name!r} is in the gallery{hint}")


def _finish(report: Report, models: Sequence[str], *, as_json: bool) -> None:
    """Prints what `add` did; ends the program if it was interrupted."""
    if as_json:
        print_json({"models": list(models), **report.to_json()})
    else:
        for line in add_lines(report, models):
            click.echo(line)
    if report.interrupted:
        sys.exit(EXIT_INTERRUPTED)
