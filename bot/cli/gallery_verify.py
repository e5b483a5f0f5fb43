"""`lookalike gallery verify`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from bot.cli.gallery_opening import EXIT_INTERRUPTED, as_json_option, opened
from bot.cli.gallery_words import numbered, print_json
from bot.cli.main import Context, common

if TYPE_CHECKING:
    from gallery.verify.checks import Examination, Finding

__all__ = ["verify"]

EXIT_FINDINGS = 1


@click.command()
@click.option("--fix", is_flag=True, help="Mend what is safe to mend.")
@click.option(
    "--model",
    type=click.Choice(("resnet", "senet", "dlib")),
    help="Backbone whose vectors compare faces (default: dlib if the gallery is built for it).",
)
@as_json_option
@common
@click.pass_obj
def verify(context: Context, fix: bool, model: str | None, as_json: bool) -> None:
    """Check that the gallery is whole, and that everybody is who they are said to be.

    Looks at every picture and vector: damaged files, leftovers, one picture or one person under
    two names, portraits that are not of the person, pictures with several faces. --fix mends what
    is safe to mend and never takes a person's last good portrait; the rest is for you to judge.
    Exit code 0: nothing is wrong (any more), 1: something is.
    """
    from bot.app import open_engine
    from bot.cli.gallery_progress import shown
    from gallery.verify import verify as examine

    settings = context.settings()
    engine = open_engine(settings)
    with (
        opened(settings) as gallery,
        shown(quiet=as_json) as progress,
    ):
        examination = examine(gallery, engine, backbone=model, fix=fix, progress=progress)
    if as_json:
        print_json(examination.to_json())
    else:
        for line in _lines(examination, fix=fix):
            click.echo(line)
    if examination.interrupted:
        sys.exit(EXIT_INTERRUPTED)
    if examination.findings:
        sys.exit(EXIT_FINDINGS)


def _lines(examination: Examination, *, fix: bool) -> Iterator[str]:
    """What was found, kind by kind, and what was mended."""
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
        f"{summary}: {numbered(examination.people, 'person', 'people')}, "
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
                if where is not None and where.picture is not None:
                    yield f"      {where.picture}"
            if remedies and one.mendable:
                yield f"      --fix: {one.remedy}"
