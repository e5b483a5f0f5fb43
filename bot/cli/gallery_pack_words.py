"""How `gallery export`, `import`, `import-pickle` and `copy` say what they did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bot.cli.gallery_words import add_lines, numbered

if TYPE_CHECKING:
    from engine.engine import Engine
    from engine.types import Space
    from gallery.gallery import Gallery
    from gallery.packing.pickled import PickleReport
    from gallery.packing.report import ExportReport, ImportReport

__all__ = ["export_lines", "import_lines", "pickle_lines", "standing_lines"]

_EXAMPLES: Final = 5


def export_lines(file: Path, report: ExportReport) -> Iterator[str]:
    """What exporting did, line by line."""
    people = numbered(report.people, "person", "people")
    yield f"people     {people}, {numbered(report.portraits, 'portrait')}"
    if report.photos:
        yield f"pictures   {report.photos:,}"
    if report.photos < report.portraits:
        yield f"no picture {numbered(report.portraits - report.photos, 'portrait')}"
    if report.vectors:
        listed = ", ".join(f"{space.backbone} {n:,}" for space, n in report.vectors.items())
        yield f"vectors    {listed}"
    if report.stay_away:
        yield f"stay away  {numbered(report.stay_away, 'person', 'people')} (--never-again)"
    yield f"{file}: {report.size_bytes / 1e6:,.1f} MB in {report.seconds:.1f} s"


def import_lines(report: ImportReport) -> Iterator[str]:
    """What importing or copying did, line by line."""
    added = numbered(report.added, "portrait")
    if report.people_added:
        added += f", {numbered(report.people_added, 'new person', 'new people')}"
    yield f"added      {added}"
    if report.unchanged:
        yield f"unchanged  {numbered(report.unchanged, 'portrait')}"
    if report.photos_brought:
        yield f"pictures   {report.photos_brought:,} for portraits that had none"
    if report.without_photo:
        yield (
            f"no picture {numbered(report.without_photo, 'portrait')}: people are found and named, "
            "cards show a silhouette until the pictures are imported, added or downloaded"
        )
    if report.rejected:
        yield from _rejection_lines(report)
    if report.stay_away:
        yield (
            f"stay away  {numbered(report.stay_away, 'person', 'people')} who were removed for "
            "good; `lookalike gallery permit PERSON` takes it back"
        )
    yield from _space_lines(report)
    speed = report.portraits / report.seconds if report.seconds else 0.0
    yield (
        f"{numbered(report.portraits, 'portrait')} in {report.seconds:.1f} s, {speed:,.0f} a second"
    )
    if report.interrupted:
        yield "Interrupted; what was done is kept. Run the same command again to go on."


def _space_lines(report: ImportReport) -> Iterator[str]:
    if report.vectors:
        listed = ", ".join(f"{space.backbone} {n:,}" for space, n in report.vectors.items())
        yield f"vectors    {listed}"
    for space, reason in report.left_out.items():
        yield f"left out   vectors of {space.id}: {reason}"
    if report.taken_scores:
        names = ", ".join(space.backbone for space in report.taken_scores)
        yield f"scores     as learned there: {names}"


def standing_lines(gallery: Gallery, engine: Engine, configured: Sequence[str]) -> Iterator[str]:
    """Who can be found by which model now, and what to do about the others.

    Args:
        gallery: As it is now.
        engine: Knows which weights are here.
        configured: Models that the settings name; those without weights and vectors are not told.
    """
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


def pickle_lines(report: PickleReport, models: Sequence[str]) -> Iterator[str]:
    """What importing an older app's files did, line by line."""
    yield (
        f"read       {numbered(report.entries, 'entry', 'entries')} of "
        f"{numbered(report.people, 'person', 'people')}, vectors of {report.dimensions:,} numbers"
    )
    yield (
        "vectors    not taken: another crop made them, with weights nobody can check, and compared "
        "with today's they would be wrong"
    )
    if report.found:
        yield f"photos     {report.found:,} found, embedded anew:"
        yield from add_lines(report.photos, models)
    if report.odd_paths:
        yield f"no person  {numbered(report.odd_paths, 'path')} without a person's folder"
    if report.missing:
        yield f"no photo   {numbered(report.missing, 'entry', 'entries')}"
    if report.names_only:
        whom = ", ".join(report.names_only[:_EXAMPLES])
        more = ", ..." if len(report.names_only) > _EXAMPLES else ""
        names = numbered(len(report.names_only), "person", "people")
        yield f"name only  {names} ({whom}{more})"
        yield (
            "Nobody is found by a name only. With the photos: the same command with --photos DIR, "
            "or `lookalike gallery add DIR`. Without: `lookalike gallery download` fetches famous "
            "people with free pictures."
        )


def _rejection_lines(report: ImportReport) -> Iterator[str]:
    yield f"not taken  {numbered(len(report.rejected), 'portrait')}"
    reasons = Counter(one.reason.split(" of ")[0] for one in report.rejected)
    for reason, count in reasons.most_common():
        whom = [one.person for one in report.rejected if one.reason.startswith(reason)]
        shown = ", ".join(list(dict.fromkeys(whom))[:_EXAMPLES])
        yield f"  {reason}: {count:,} ({shown}{', ...' if len(set(whom)) > _EXAMPLES else ''})"
