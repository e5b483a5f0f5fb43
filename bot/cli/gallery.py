"""`lookalike gallery`: adds, builds, checks, lists, shows and removes people."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bot.cli import gallery_transfer as transfer
from bot.cli import main as cli
from bot.cli import output
from bot.cli.output import either, numbered, people_of, print_json, print_table, say
from engine.errors import GalleryMissing

if TYPE_CHECKING:
    from gallery.gallery import Gallery
    from gallery.records import Person
    from gallery.verify.checks import Examination, Finding


@click.group(cls=cli.Group)
def gallery() -> None:
    """Add, build, list and remove people."""


for _command in transfer.COMMANDS:
    gallery.add_command(_command)


@gallery.command()
@click.argument("folder", metavar="DIR", type=cli.PATH)
@click.option("--category", metavar="NAME", help="Category of everybody in DIR.")
@cli.usable_option
@click.option("--again", is_flag=True, help="Look again at photos that were not taken before.")
def add(context: cli.Context, folder: Path, models: Sequence[str], **how: Any) -> None:
    """Add the people in DIR, a folder of photos for each.

    DIR is arranged as DIR/Person_Name/photo.jpg or DIR/Category/Person_Name/photo.jpg. Photos that
    are in the gallery already cost little: add the same DIR again after putting photos into it, or
    after an interruption.
    """
    from gallery.add import add_folder

    with context.working() as (gallery, engine, show):
        names = context.usable(models)
        report = add_folder(gallery, engine, folder, backbones=names, progress=show, **how)
    content, lines = {"models": names, **report.to_json()}, output.add_lines(report, names)
    context.finish(content, lines, interrupted=report.interrupted)


@gallery.command()
@cli.usable_option
def build(context: cli.Context, models: Sequence[str]) -> None:
    """Make the gallery whole: embed what lacks vectors, learn scores, clean up.

    After a backbone was downloaded this lets it be used; after people were removed it drops their
    vectors for good.
    """
    from gallery.build import build as build_space

    content: dict[str, Any] = {}
    lines: list[str] = []
    stopped = False
    with context.working(people=True) as (gallery, engine, show):
        for name in context.usable(models):
            report = build_space(gallery, engine, name, progress=show)
            content[name], made = report.to_json(), report.embedded[name]
            did = f"{numbered(made, 'vector')} made" if made else "every portrait has its vector"
            if report.swept:
                did += f", {numbered(report.swept, 'file')} swept"
            if stopped := report.interrupted:
                did += ", interrupted: run it again to go on"
            lines.append(f"{name}: {did} ({report.seconds:.1f} s)")
            lost = "  a picture of {} is lost or damaged: add it again"
            lines += map(lost.format, sorted(set(report.dropped)))
            if stopped:
                break
    context.finish(content, lines, interrupted=stopped)


@gallery.command("list")
@click.option("--category", metavar="NAME", help="Only the people in this category.")
def list_people(context: cli.Context, category: str | None) -> None:
    """List the people in the gallery."""
    with context.gallery() as gallery:
        people = gallery.people(category)
        counts = gallery.portrait_counts()
        if category is not None and not people:
            known = ", ".join(gallery.categories()) or "none yet"
            raise GalleryMissing(f"nobody is in the category {category!r}; there are: {known}")
    if context.json:
        print_json([{**asdict(one), "portraits": counts.get(one.id, 0)} for one in people])
    elif people:
        rows = [(one.name, ", ".join(one.categories), str(counts.get(one.id, 0))) for one in people]
        print_table(("person", "categories", "portraits"), rows)
        say(people_of(len(people)))
    else:
        say("There is nobody in the gallery yet: `lookalike gallery add DIR` adds people.")


@gallery.command()
@cli.person_argument
def show(context: cli.Context, name: str) -> None:
    """Show what the gallery holds of a PERSON (a name, or a Wikidata id)."""
    with context.gallery() as gallery:
        person = _found(gallery, name)
        portraits = gallery.portraits(person.id)
    known = {"categories": ", ".join(person.categories), "Wikidata": person.wikidata_id}
    known |= {name: getattr(person, name) for name in ("country", "gender", "fame")}
    told = [f"  {name}: {value}" for name, value in known.items() if value not in {None, ""}]
    lines = [person.name, *told]
    listed = []
    for one in portraits:
        credit = ", ".join(filter(None, (one.author, one.licence, one.source_url)))
        lines.append(f"  {one.width_px} x {one.height_px} px  {credit}".rstrip())
        listed.append(
            {
                "id": one.id,
                "sha256": one.sha256,
                "width": one.width_px,
                "height": one.height_px,
                "box": [round(side, 1) for side in astuple(one.box)],
                "landmarks": one.landmarks.round(1).tolist(),
                "author": one.author,
                "license": one.licence,
                "license_url": one.licence_url,
                "source": one.source_url,
            }
        )
    context.finish({**asdict(person), "portraits": listed}, lines)


@gallery.command()
@cli.person_argument
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--never-again", is_flag=True, help="No source brings the person back.")
def remove(context: cli.Context, name: str, yes: bool, never_again: bool) -> None:
    """Remove a PERSON and all their portraits."""
    from gallery.build import remove as remove_person

    with context.gallery() as gallery:
        person = _found(gallery, name)
        if not yes and sys.stdin.isatty():
            count = numbered(len(gallery.portraits(person.id)), "portrait")
            click.confirm(f"Remove {person.name} ({count})?", abort=True, err=True)
        portraits = remove_person(gallery, person, never_again=never_again)
    lines = [f"Removed {person.name} and {numbered(portraits, 'portrait')}."]
    lines += ["No source will bring them back."] * never_again
    context.finish({**asdict(person), "portraits": portraits}, lines)


@gallery.command()
def stats(context: cli.Context) -> None:
    """Count people, portraits, categories and vectors."""
    with context.gallery() as gallery:
        found = gallery.stats()
        size_bytes = gallery.size_bytes()
    content = {
        "place": gallery.place,
        "folder": str(gallery.folder),
        "bytes": size_bytes,
        **{name: getattr(found, name) for name in ("people", "portraits", "categories")},
        "vectors": {
            space.id: {"model": space.backbone, "portraits": rows}
            for space, rows in found.vectors.items()
        },
        "rejected": found.rejections,
    }
    lines = [
        f"{gallery.place}, {size_bytes / 1e6:,.1f} MB",
        f"{people_of(found.people)}, {numbered(found.portraits, 'portrait')}",
        *(f"  {name}: {people_of(members)}" for name, members in found.categories.items()),
    ]
    for space, rows in found.vectors.items():
        lacking = f" of {found.portraits:,}: run `lookalike gallery build`"
        known = numbered(rows, "portrait") + lacking * (rows < found.portraits)
        lines.append(f"searchable with {space.backbone}: {known}")
    for reason, photos in sorted(found.rejections.items(), key=lambda item: -item[1]):
        lines.append(f"not taken, {reason}: {numbered(photos, 'photo')}")
    context.finish(content, lines)


def _found(gallery: Gallery, name: str) -> Person:
    person = gallery.find_person(name)
    if person is not None:
        return person
    close = gallery.close_names(name)
    hint = f"; did you mean {either(close)}?" if close else ""
    raise GalleryMissing(f"nobody called {name!r} is in the gallery{hint}")


@gallery.command()
@click.option("--fix", is_flag=True, help="Mend what is safe to mend.")
@cli.path_option(
    "--pictures", "DIR", "Write the pictures of what is left to judge into DIR.", file_okay=False
)
@cli.model_option(
    "Backbone whose vectors compare faces (default: dlib if the gallery is built for it)."
)
def verify(context: cli.Context, fix: bool, pictures: Path | None, model: str | None) -> None:
    """Check that the gallery is whole, and that everybody is who they are said to be.

    Looks at every picture and vector: damaged files, leftovers, one picture or one person under
    two names, portraits that are not of the person, pictures with several faces. --fix mends what
    is safe to mend and never takes a person's last good portrait; the rest is for you to judge.
    Exit code 0: nothing is wrong (any more), 1: something is.
    """
    from gallery import verify as checking

    with context.working() as (gallery, engine, show):
        found = checking.verify(gallery, engine, backbone=model, fix=fix, progress=show)
        jpegs = checking.pictures(gallery, found.findings) if pictures else {}
    for portrait_id, jpeg in jpegs.items():
        output.write_file(Path(str(pictures), f"{portrait_id}.jpg"), jpeg)
    context.finish(found.to_json(), _verify_lines(found, fix=fix), interrupted=found.interrupted)
    sys.exit(1 if found.findings else 0)


def _verify_lines(examination: Examination, *, fix: bool) -> Iterator[str]:
    if examination.mended:
        yield f"Mended ({len(examination.mended):,}):"
        yield from _by_kind(examination.mended, remedies=True)
    if examination.findings:
        yield "For you to judge:" if fix else "Found:"
        yield from _by_kind(examination.findings, remedies=not fix)
    for sentence in examination.unchecked:
        yield f"Not checked: {sentence}"
    found = len(examination.findings)
    summary = f"{numbered(found, 'finding')}" if found else "Nothing is wrong"
    yield (
        f"{summary}: {people_of(examination.people)}, "
        f"{numbered(examination.portraits, 'portrait')}, {examination.seconds:.1f} s"
    )
    mendable = sum(one.remedy is not None for one in examination.findings)
    if mendable and not fix:
        yield f"`lookalike gallery verify --fix` mends {mendable:,} of these."
    if examination.interrupted:
        yield "Interrupted before the end; what was mended is kept."


def _by_kind(findings: list[Finding], *, remedies: bool) -> Iterator[str]:
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(str(finding.kind), []).append(finding)
    for kind, ones in kinds.items():
        yield f"  {kind}: {len(ones):,}"
        for one in ones:
            whom = f"{one.subject.person}: " if one.subject else ""
            yield f"    {whom}{one.why}"
            for where in (one.subject, one.other):
                if where is not None and where.portrait_id is not None:
                    yield f"      portrait {where.portrait_id}, {where.picture or 'no source'}"
            if remedies and one.remedy:
                yield f"      --fix: {one.remedy}"
