"""How the gallery commands say things: reports, people, tables, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gallery.progress import Report
    from gallery.records import Person, Portrait

__all__ = [
    "add_lines",
    "build_line",
    "either",
    "numbered",
    "person_json",
    "portrait_json",
    "print_json",
    "print_table",
]

_EXAMPLES = 5


def add_lines(report: Report, models: Sequence[str]) -> Iterator[str]:
    """What adding people did, line by line."""
    added = numbered(report.added, "portrait")
    if report.people_added:
        added += f", {numbered(report.people_added, 'new person', 'new people')}"
    yield f"added      {added}"
    if report.unchanged:
        yield f"unchanged  {numbered(report.unchanged, 'portrait')}"
    if report.rejected:
        yield f"not taken  {numbered(len(report.rejected), 'photo')}"
        yield from _rejection_lines(report)
    for heading, names in (
        ("in nobody's folder", report.astray),
        ("can't be read", report.closed),
        ("in people.csv, but without a photo", report.strangers),
        ("lost or damaged, add them again", sorted(set(report.dropped))),
    ):
        if names:
            yield f"{heading}: {_some(names)}"
    yield (
        f"{numbered(report.photos, 'photo')} in {report.seconds:.1f} s, "
        f"{report.photos_per_s:.0f} a second; models: {', '.join(models)}"
    )
    if report.interrupted:
        yield "Interrupted; what was done is kept. Run the same command again to go on."


def _rejection_lines(report: Report) -> Iterator[str]:
    for reason, count in report.reasons().most_common():
        yield f"  {reason}: {count:,}"
        for one in [r for r in report.rejected if r.reason.startswith(reason)][:_EXAMPLES]:
            yield f"    {one.photo}" + (f", {one.reason}" if one.reason != reason else "")
        if count > _EXAMPLES:
            yield "    ... (--json lists all)"


def build_line(name: str, report: Report) -> str:
    """What building did for one backbone."""
    made = report.embedded[name]
    parts = [f"{numbered(made, 'vector')} made" if made else "every portrait has its vector"]
    if report.swept:
        parts.append(f"{numbered(report.swept, 'file')} swept")
    if report.interrupted:
        parts.append("interrupted: run it again to go on")
    return f"{name}: {', '.join(parts)} ({report.seconds:.1f} s)"


def person_json(person: Person) -> dict[str, Any]:
    """A person, for ``--json``."""
    return {
        "id": person.id,
        "key": person.key,
        "name": person.name,
        "categories": list(person.categories),
        "wikidata_id": person.wikidata_id,
        "country": person.country,
        "gender": person.gender,
        "fame": person.fame,
    }


def portrait_json(portrait: Portrait) -> dict[str, Any]:
    """A portrait, for ``--json``."""
    box = portrait.box
    return {
        "id": portrait.id,
        "sha256": portrait.sha256,
        "thumbnail": str(portrait.thumbnail),
        "width": portrait.width_px,
        "height": portrait.height_px,
        "box": [round(side, 1) for side in (box.x, box.y, box.w, box.h)],
        "landmarks": portrait.landmarks.round(1).tolist(),
        "author": portrait.author,
        "license": portrait.licence,
        "license_url": portrait.licence_url,
        "source": portrait.source_url,
    }


def print_json(content: Any) -> None:
    """Prints JSON; names keep their letters."""
    click.echo(json.dumps(content, ensure_ascii=False, indent=2))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints columns that fit the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(table)


def numbered(count: int, one: str, several: str | None = None) -> str:
    """A number of things: ``1 portrait``, ``2,984 portraits``."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def either(names: Sequence[str]) -> str:
    """``A, B or C``."""
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _some(names: Sequence[str], count: int = _EXAMPLES) -> str:
    shown = ", ".join(names[:count])
    return shown if len(names) <= count else f"{shown} and {len(names) - count:,} more"
