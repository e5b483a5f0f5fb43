"""`lookalike gallery download`, `credits` and `permit`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bot.cli.main import (
    Context,
    ask_for_contact,
    at_work,
    command_options,
    json_command,
    opened,
    path_option,
    usable,
    usable_option,
)
from bot.cli.output import (
    add_lines,
    finish,
    interruptible,
    numbered,
    people_of,
    print_json,
    print_table,
    say,
    some,
)
from engine.errors import BadSettings, GalleryMissing

if TYPE_CHECKING:
    from bot.settings import Settings
    from gallery.gallery import Gallery
    from gallery.records import Portrait
    from gallery.wikimedia.categories import Category
    from gallery.wikimedia.download import DownloadReport

_UNKNOWN = "author unknown"
_NO_LICENCE = "no licence known"


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
@usable_option
@json_command
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
    from bot.background import categories_of, servers_of
    from gallery.wikimedia.categories import chosen

    settings = context.settings()
    table = categories_of(settings)
    if list_them:
        _list(settings, table, as_json=as_json)
        return
    from gallery.wikimedia.download import Download, Order

    wanted = chosen(table, names)
    order = Order(wanted, limit=limit, min_fame=min_fame, portraits=portraits)
    stopped = interruptible("Interrupted; run the same command again to go on.")
    with stopped, at_work(context, quiet=as_json) as (_, engine, gallery, show, _names):
        ask_for_contact(settings, gallery)
        servers = servers_of(settings, gallery)
        used = usable(engine, settings, models)
        with Download(gallery, engine, order, servers, used, progress=show) as running:
            report = running.run(
                warn=lambda sentence: say(f"Warning: {sentence}", err=True), refresh=refresh
            )
    content, interrupted = {"models": used, **report.to_json()}, report.report.interrupted
    finish(content, _lines(report, used), as_json=as_json, interrupted=interrupted)


@click.command("credits")
@path_option("--html", "FILE", "Write a web page instead.", dir_okay=False)
@json_command
def credits_command(context: Context, html: Path | None, as_json: bool) -> None:
    """List every picture with its author, licence and source."""
    with opened(context.settings()) as gallery:
        rows = _credits(gallery)
    if html is not None:
        try:
            html.write_text(_web_page(rows), encoding="utf-8")
        except OSError as problem:
            raise BadSettings(f"{html} can't be written ({problem.strerror})") from problem
        say(f"{numbered(len(rows), 'picture')}: {html}", err=True)
    if as_json:
        print_json(rows)
    elif html is None:
        for row in rows:
            known = (row["author"] or _UNKNOWN, row["license"] or _NO_LICENCE)
            parts = filter(None, (*known, row["license_url"], row["source"]))
            say(f"{row['person']}: {', '.join(parts)}")
        if not rows:
            say("There is nobody in the gallery yet.")


@click.command()
@click.argument("name", metavar="PERSON", nargs=-1, required=True)
@command_options
def permit(context: Context, name: Sequence[str]) -> None:
    """Let a PERSON come back who was removed with --never-again."""
    whom = " ".join(name)
    with (
        opened(context.settings()) as gallery,
        gallery.writing(),
        gallery.transaction() as changes,
    ):
        if not changes.unban(whom):
            raise GalleryMissing(f"nobody called {whom!r} was removed with --never-again")
    say(f"{whom} may come back: add or download them again.")


def _list(settings: Settings, table: Mapping[str, Category], *, as_json: bool) -> None:
    with opened(settings) as gallery:
        counts = gallery.stats().categories
    rows = [
        {
            "category": one.name,
            "title": one.title,
            "occupations": one.occupations,
            "countries": one.countries,
            "people": counts.get(one.name, 0),
        }
        for one in table.values()
    ]
    if as_json:
        print_json(rows)
        return
    shown = [[str(row[column]) for column in ("category", "title", "people")] for row in rows]
    print_table(("category", "who", "in the gallery"), shown)


def _lines(done: DownloadReport, models: Sequence[str]) -> Iterator[str]:
    people = people_of(done.wanted)
    yield f"people     {done.there:,} of {people} are in the gallery"
    if done.left_out:
        yield f"left out   {people_of(len(done.left_out))}"
        for reason, count in done.reasons().most_common():
            whom = [one.person for one in done.left_out if one.reason.startswith(reason)]
            yield f"  {reason}: {count:,} ({some(whom, counted=False)})"
    yield from add_lines(done.report, models)


def _credits(gallery: Gallery) -> list[dict[str, str | None]]:
    """Every picture, by person; None: not known."""
    portraits = gallery.portraits_by_id(gallery.portrait_ids().tolist())
    whose: dict[int, list[Portrait]] = {}
    for _, portrait in sorted(portraits.items()):
        whose.setdefault(portrait.person_id, []).append(portrait)
    return [
        {
            "person": person.name,
            "author": one.author,
            "license": one.licence,
            "license_url": one.licence_url,
            "source": one.source_url,
        }
        for person in gallery.people()
        for one in whose.get(person.id, ())
    ]


def _web_page(rows: Sequence[Mapping[str, str | None]]) -> str:
    """A page that needs nothing else; what sources say is shown as text, never as markup."""
    from jinja2 import Environment, FileSystemLoader

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True)
    page = environment.get_template("credits.html")
    return page.render(rows=rows, unknown=_UNKNOWN, no_licence=_NO_LICENCE)
