"""`lookalike gallery`: adds, builds, checks, lists, shows and removes people."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bot.cli.gallery_download import credits_command, download, permit
from bot.cli.gallery_transfer import copy, export, import_command, import_pickle
from bot.cli.main import (
    PATH,
    Context,
    at_work,
    check_inhabited,
    common,
    json_command,
    model_option,
    opened,
    path_option,
    usable,
    usable_option,
)
from bot.cli.output import (
    add_lines,
    either,
    finish,
    numbered,
    people_of,
    print_json,
    print_table,
    say,
)
from engine.errors import GalleryMissing

if TYPE_CHECKING:
    from gallery.gallery import Gallery
    from gallery.progress import Report
    from gallery.records import Person, Portrait
    from gallery.verify.checks import Examination, Finding

EXIT_FINDINGS = 1


@click.group()
@common
def gallery() -> None:
    """Add, build, list and remove people."""


for _command in (download, credits_command, permit, export, import_command, import_pickle, copy):
    gallery.add_command(_command)


@gallery.command()
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("--category", metavar="NAME", help="Category of everybody in DIR.")
@usable_option
@click.option("--again", is_flag=True, help="Look again at photos that were not taken before.")
@json_command
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
    from gallery.add import add_folder

    with at_work(context, quiet=as_json, wanted=models) as (_, engine, gallery, show, names):
        report = add_folder(
            gallery,
            engine,
            folder,
            category=category,
            backbones=names,
            progress=show,
            again=again,
        )
    content = {"models": names, **report.to_json()}
    finish(content, add_lines(report, names), as_json=as_json, interrupted=report.interrupted)


@gallery.command()
@usable_option
@json_command
def build(context: Context, models: Sequence[str], as_json: bool) -> None:
    """Make the gallery whole: embed what lacks vectors, learn scores, clean up.

    After a backbone was downloaded this lets it be used; after people were removed it drops their
    vectors for good.
    """
    from gallery.build import build as build_space

    reports: dict[str, Report] = {}
    with at_work(context, quiet=as_json) as (settings, engine, gallery, show, _):
        check_inhabited(gallery)
        for name in usable(engine, settings, models):
            reports[name] = build_space(gallery, engine, name, progress=show)
            if reports[name].interrupted:
                break
    lines = [line for name, report in reports.items() for line in _build_lines(name, report)]
    content = {name: report.to_json() for name, report in reports.items()}
    interrupted = any(report.interrupted for report in reports.values())
    finish(content, lines, as_json=as_json, interrupted=interrupted)


@gallery.command("list")
@click.option("--category", metavar="NAME", help="Only the people in this category.")
@json_command
def list_people(context: Context, category: str | None, as_json: bool) -> None:
    """List the people in the gallery."""
    with opened(context.settings()) as gallery:
        people = gallery.people(category)
        counts = gallery.portrait_counts()
        if category is not None and not people:
            known = ", ".join(gallery.categories()) or "none yet"
            raise GalleryMissing(f"nobody is in the category {category!r}; there are: {known}")
    if as_json:
        print_json([{**asdict(one), "portraits": counts.get(one.id, 0)} for one in people])
        return
    if not people:
        say("There is nobody in the gallery yet: `lookalike gallery add DIR` adds people.")
        return
    print_table(
        ("person", "categories", "portraits"),
        [(one.name, ", ".join(one.categories), str(counts.get(one.id, 0))) for one in people],
    )
    say(people_of(len(people)))


@gallery.command()
@click.argument("name", metavar="PERSON", nargs=-1, required=True)
@json_command
def show(context: Context, name: Sequence[str], as_json: bool) -> None:
    """Show what the gallery holds of a PERSON (a name, or a Wikidata id)."""
    with opened(context.settings()) as gallery:
        person = _found(gallery, name)
        portraits = gallery.portraits(person.id)
    lines = [person.name]
    for heading, value in (
        ("categories", ", ".join(person.categories)),
        ("Wikidata", person.wikidata_id),
        ("country", person.country),
        ("gender", person.gender),
        ("fame", person.fame),
    ):
        lines += [f"  {heading}: {value}"] * (value not in {None, ""})
    for one in portraits:
        credit = ", ".join(filter(None, (one.author, one.licence, one.source_url)))
        lines.append(f"  {one.width_px} x {one.height_px} px  {credit}".rstrip())
    content = {**asdict(person), "portraits": [_portrait_json(one) for one in portraits]}
    finish(content, lines, as_json=as_json)


@gallery.command()
@click.argument("name", metavar="PERSON", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--never-again", is_flag=True, help="No source brings the person back.")
@json_command
def remove(
    context: Context, name: Sequence[str], yes: bool, never_again: bool, as_json: bool
) -> None:
    """Remove a PERSON and all their portraits."""
    from gallery.build import remove as remove_person

    with opened(context.settings()) as gallery:
        person = _found(gallery, name)
        if not yes and sys.stdin.isatty():
            count = numbered(len(gallery.portraits(person.id)), "portrait")
            click.confirm(f"Remove {person.name} ({count})?", abort=True, err=True)
        portraits = remove_person(gallery, person, never_again=never_again)
    lines = [f"Removed {person.name} and {numbered(portraits, 'portrait')}."]
    lines += ["No source will bring them back."] * never_again
    finish({**asdict(person), "portraits": portraits}, lines, as_json=as_json)


@gallery.command()
@json_command
def stats(context: Context, as_json: bool) -> None:
    """Count people, portraits, categories and vectors."""
    with opened(context.settings()) as gallery:
        found = gallery.stats()
        size_bytes = gallery.size_bytes()
    content = {
        "place": gallery.place,
        "folder": str(gallery.folder),
        "bytes": size_bytes,
        "people": found.people,
        "portraits": found.portraits,
        "categories": found.categories,
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
    finish(content, lines, as_json=as_json)


def _found(gallery: Gallery, words: Sequence[str]) -> Person:
    """The person of that name; the words of a name need no quotes."""
    name = " ".join(words)
    person = gallery.find_person(name)
    if person is not None:
        return person
    close = gallery.close_names(name)
    hint = f"; did you mean {either(close)}?" if close else ""
    raise GalleryMissing(f"nobody called {name!r} is in the gallery{hint}")


@gallery.command()
@click.option("--fix", is_flag=True, help="Mend what is safe to mend.")
@path_option(
    "--pictures", "DIR", "Write the pictures of what is left to judge into DIR.", file_okay=False
)
@model_option(
    "Backbone whose vectors compare faces (default: dlib if the gallery is built for it)."
)
@json_command
def verify(
    context: Context, fix: bool, pictures: Path | None, model: str | None, as_json: bool
) -> None:
    """Check that the gallery is whole, and that everybody is who they are said to be.

    Looks at every picture and vector: damaged files, leftovers, one picture or one person under
    two names, portraits that are not of the person, pictures with several faces. --fix mends what
    is safe to mend and never takes a person's last good portrait; the rest is for you to judge.
    Exit code 0: nothing is wrong (any more), 1: something is.
    """
    from gallery.verify import save_pictures
    from gallery.verify import verify as examine

    with at_work(context, quiet=as_json) as (_, engine, gallery, show, _names):
        examination = examine(gallery, engine, backbone=model, fix=fix, progress=show)
        if pictures is not None:
            save_pictures(gallery, examination.findings, pictures)
    lines, stopped = _verify_lines(examination, fix=fix), examination.interrupted
    finish(examination.to_json(), lines, as_json=as_json, interrupted=stopped)
    if examination.findings:
        sys.exit(EXIT_FINDINGS)


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
    mendable = sum(one.mendable for one in examination.findings)
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
            if remedies and one.mendable:
                yield f"      --fix: {one.remedy}"


def _build_lines(name: str, report: Report) -> Iterator[str]:
    made = report.embedded[name]
    parts = [f"{numbered(made, 'vector')} made" if made else "every portrait has its vector"]
    if report.swept:
        parts.append(f"{numbered(report.swept, 'file')} swept")
    if report.interrupted:
        parts.append("interrupted: run it again to go on")
    yield f"{name}: {', '.join(parts)} ({report.seconds:.1f} s)"
    for person in sorted(set(report.dropped)):
        yield f"  a picture of {person} is lost or damaged: add it again"


def _portrait_json(portrait: Portrait) -> dict[str, Any]:
    return {
        "id": portrait.id,
        "sha256": portrait.sha256,
        "width": portrait.width_px,
        "height": portrait.height_px,
        "box": [round(side, 1) for side in astuple(portrait.box)],
        "landmarks": portrait.landmarks.round(1).tolist(),
        "author": portrait.author,
        "license": portrait.licence,
        "license_url": portrait.licence_url,
        "source": portrait.source_url,
    }
