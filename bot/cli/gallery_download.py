"""`lookalike gallery download`, `credits` and `permit`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bot.cli.contact import ask_for_contact
from bot.cli.gallery_opening import (
    EXIT_INTERRUPTED,
    as_json_option,
    models_option,
    opened,
    usable,
)
from bot.cli.gallery_words import add_lines, numbered, print_json, print_table
from bot.cli.main import Context, common
from engine.errors import BadSettings, GalleryMissing

if TYPE_CHECKING:
    from bot.settings import Settings
    from gallery.gallery import Gallery
    from gallery.wikimedia.download import DownloadReport

__all__ = ["credits_command", "download", "permit"]

_EXAMPLES = 5


@click.command()
@click.option(
    "--category",
    "names",
    metavar="NAME",
    multiple=True,
    help="Such as film, bollywood, sports; may be given several times (default: all).",
)
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="So many people, the most famous who can be had.",
)
@click.option(
    "--min-fame",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    help="Only people with articles in so many wikis.",
)
@click.option(
    "--portraits",
    metavar="N",
    type=click.IntRange(1, 20),
    default=3,
    show_default=True,
    help="At most so many of one person.",
)
@click.option("--list", "list_them", is_flag=True, help="List the categories and stop.")
@click.option("--refresh", is_flag=True, help="Ask again what was answered in the last 30 days.")
@models_option
@as_json_option
@common
@click.pass_obj
def download(
    context: Context,
    names: Sequence[str],
    limit: int,
    min_fame: int,
    portraits: int,
    list_them: bool,
    refresh: bool,
    models: Sequence[str],
    as_json: bool,
) -> None:
    """Add famous people from Wikidata and Wikimedia Commons.

    Only pictures under free licences are taken; author, licence and source are kept with each
    (`lookalike gallery credits`). It may be stopped at any moment: the same command goes on and
    asks for nothing twice. categories.toml in the data folder adds categories of your own.
    """
    from bot.background import categories_of
    from gallery.wikimedia.categories import chosen

    settings = context.settings()
    table = categories_of(settings)
    if list_them:
        _list(settings, table, as_json=as_json)
        return
    from gallery.wikimedia.download import Order

    wanted = chosen(table, names)
    order = Order(wanted, limit=limit, min_fame=min_fame, portraits=portraits)
    logging.getLogger("stamina").setLevel(logging.ERROR)  # it announces every pause
    with opened(settings) as gallery:
        ask_for_contact(settings, gallery)
        try:
            harvest, used = _fetched(settings, gallery, order, models, refresh, quiet=as_json)
        except KeyboardInterrupt:
            click.echo("Interrupted; run the same command again to go on.", err=True)
            sys.exit(EXIT_INTERRUPTED)
    if as_json:
        print_json({"models": used, **harvest.to_json()})
    else:
        for line in _lines(harvest, used):
            click.echo(line)
    if harvest.report.interrupted:
        sys.exit(EXIT_INTERRUPTED)


@click.command("credits")
@click.option(
    "--html",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a web page instead.",
)
@as_json_option
@common
@click.pass_obj
def credits_command(context: Context, html: Path | None, as_json: bool) -> None:
    """List every picture with its author, licence and source."""
    from bot.cli.picture_credits import credits_of, web_page

    with opened(context.settings()) as gallery:
        rows = credits_of(gallery)
    if html is not None:
        try:
            html.write_text(web_page(rows), encoding="utf-8")
        except OSError as problem:
            raise BadSettings(f"{html} can't be written ({problem.strerror})") from problem
        click.echo(f"{numbered(len(rows), 'picture')}: {html}", err=True)
    if as_json:
        print_json([row.to_json() for row in rows])
    elif html is None:
        for row in rows:
            click.echo(row.line())
        if not rows:
            click.echo("There is nobody in the gallery yet.")


@click.command()
@click.argument("name", metavar="PERSON", nargs=-1, required=True)
@common
@click.pass_obj
def permit(context: Context, name: Sequence[str]) -> None:
    """Let a PERSON come back who was removed with --never-again."""
    from gallery.never_again import permit as permit_person

    whom = " ".join(name)
    with opened(context.settings()) as gallery:
        if not permit_person(gallery, [whom]):
            raise GalleryMissing(f"nobody called {whom!r} was removed with --never-again")
    click.echo(f"{whom} may come back: add or download them again.")


def _fetched(
    settings: Settings,
    gallery: Gallery,
    order: Any,
    models: Sequence[str],
    refresh: bool,
    *,
    quiet: bool,
) -> tuple[DownloadReport, list[str]]:
    from bot.app import open_engine
    from bot.background import servers_of
    from bot.cli.gallery_progress import shown
    from gallery.wikimedia.download import download as download_people

    servers = servers_of(settings, gallery)
    engine = open_engine(settings)
    used = usable(engine, settings, models)
    with shown(quiet=quiet) as progress:
        harvest = download_people(
            gallery,
            engine,
            order,
            servers,
            backbones=used,
            progress=progress,
            warn=lambda sentence: click.echo(f"Warning: {sentence}", err=True),
            refresh=refresh,
        )
    return harvest, used


def _list(settings: Settings, table: Any, *, as_json: bool) -> None:
    with opened(settings) as gallery:
        counts = gallery.stats().categories
    if as_json:
        print_json(
            [
                {
                    "category": one.name,
                    "title": one.title,
                    "occupations": list(one.occupations),
                    "countries": list(one.countries),
                    "people": counts.get(one.name, 0),
                }
                for one in table.values()
            ]
        )
        return
    print_table(
        ("category", "who", "in the gallery"),
        [(one.name, one.title, str(counts.get(one.name, 0))) for one in table.values()],
    )


def _lines(harvest: DownloadReport, models: Sequence[str]) -> Iterator[str]:
    """What was done, line by line."""
    people = numbered(harvest.wanted, "person", "people")
    yield f"people     {harvest.there:,} of {people} are in the gallery"
    if harvest.left_out:
        yield f"left out   {numbered(len(harvest.left_out), 'person', 'people')}"
        for reason, count in harvest.reasons().most_common():
            whom = [one.name for one in harvest.left_out if one.reason.startswith(reason)]
            more = ", ..." if count > _EXAMPLES else ""
            yield f"  {reason}: {count:,} ({', '.join(whom[:_EXAMPLES])}{more})"
    yield from add_lines(harvest.report, models)
