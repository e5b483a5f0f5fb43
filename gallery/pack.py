"""A gallery in one portable file, or carried straight from one place to another.

No pickle: gallery/packing/layout.py says what the file looks like. Both ways are the same: contents
(gallery/packing/contents.py), read batch by batch, are taken in batch by batch.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from engine.errors import BadSettings
from engine.types import Space
from gallery.build import learn_scores
from gallery.gallery import Gallery
from gallery.packing.contents import Contents, PackedSpace
from gallery.packing.intake import BatchIntake
from gallery.packing.reader import PackFile
from gallery.packing.report import ExportReport, ImportReport
from gallery.packing.source import GalleryContents
from gallery.packing.writer import PackWriter, said_of, written_whole
from gallery.progress import Progress, no_progress
from gallery.scores import Learned, read_learned
from gallery.scores.trial import try_ensemble

__all__ = ["copy_gallery", "export_gallery", "import_file"]


def export_gallery(
    gallery: Gallery,
    file: Path,
    *,
    photos: bool = True,
    replace: bool = False,
    progress: Progress = no_progress,
) -> ExportReport:
    """Writes a gallery into one file, whole or not at all.

    Args:
        gallery: Is not changed, and not changed by others meanwhile.
        file: Its folder exists.
        photos: Whether the thumbnails come along. Without them the importing gallery finds and
            names people, and shows a silhouette.
        replace: Whether a file of that name may go.
        progress: Told about portraits and vectors.

    Raises:
        Busy: If another process is changing the gallery.
        BadSettings: If the file can't be written, or exists.
    """
    started = time.perf_counter()
    with written_whole(file, replace=replace) as target, _unchanged(gallery):
        contents = GalleryContents(gallery)
        with said_of(file):  # or it would be said of the gallery
            writer = PackWriter(target, contents, photos=photos, progress=progress)
            writer.write()
    return ExportReport(
        people=contents.people,
        portraits=contents.portraits,
        photos=writer.photos,
        vectors={packed.space: packed.rows for packed in contents.spaces},
        stay_away=len(contents.never_again()),
        size_bytes=file.stat().st_size,
        seconds=time.perf_counter() - started,
    )


def import_file(gallery: Gallery, file: Path, *, progress: Progress = no_progress) -> ImportReport:
    """Takes in everybody of an exported gallery; the file may have been made by anybody.

    The whole file but its photos is checked before anything is changed; a photo that is none costs
    its portrait. People are merged by key, their categories united; known portraits stay as they
    are.

    Raises:
        Busy: If another process is changing the gallery.
        GalleryCorrupt: If the file is damaged.
        SetupProblem: If there is none, or it was made by a newer program.
    """
    started = time.perf_counter()
    with PackFile(file) as pack:
        pack.check(progress)
        return _take_in(gallery, pack, started, progress)


def copy_gallery(
    source: Gallery, target: Gallery, *, progress: Progress = no_progress
) -> ImportReport:
    """Takes everybody of one gallery into another, wherever each keeps its things.

    Raises:
        Busy: If another process is changing one of them.
        BadSettings: If the two are one.
    """
    started = time.perf_counter()
    if source.place == target.place:
        raise BadSettings(f"{source.place} can't be copied onto itself: name two galleries")
    with _unchanged(source):
        return _take_in(target, GalleryContents(source), started, progress)


def _take_in(
    gallery: Gallery, contents: Contents, started: float, progress: Progress
) -> ImportReport:
    report = ImportReport()
    with gallery.writing():
        try:
            spaces = _wanted(gallery, contents, report)
            _remember_who_stays_away(gallery, contents, report)
            intake = BatchIntake(gallery, [one.space for one in spaces], gallery.banned(), report)
            for batch in contents.batches():
                intake(batch)
                progress("portraits", report.portraits, contents.portraits)
            _learn(gallery, spaces, report, progress)
        except KeyboardInterrupt:
            report.interrupted = True
        gallery.refresh()
    report.seconds = time.perf_counter() - started
    return report


def _wanted(gallery: Gallery, contents: Contents, report: ImportReport) -> list[PackedSpace]:
    """The spaces that can be kept beside those that are there."""
    there: dict[str, Space] = {state.space.id: state.space for state in gallery.space_states()}
    wanted = []
    for packed in contents.spaces:
        if there.get(packed.space.id, packed.space) == packed.space:
            wanted.append(packed)
        else:
            report.left_out[packed.space] = "another space has that name here"
    return wanted


def _remember_who_stays_away(gallery: Gallery, contents: Contents, report: ImportReport) -> None:
    known = gallery.banned().keys
    fresh = [one for one in contents.never_again() if one.key not in known]
    if fresh:
        with gallery.transaction() as changes:
            for one in fresh:
                changes.ban(one.key, one.name, one.wikidata_id)
    report.stay_away = len(fresh)


def _learn(
    gallery: Gallery, spaces: list[PackedSpace], report: ImportReport, progress: Progress
) -> None:
    """Takes calibrations over where there are none, and learns anew what has changed much."""
    for packed in spaces:
        space = packed.space
        if packed.calibration is not None and read_learned(gallery, space) is None:
            learned = Learned(packed.rows, packed.calibration)
            with gallery.transaction() as changes:
                changes.keep_calibration(space, learned.content())
            report.taken_scores.append(space)
        gallery.settle(space, progress)
        learn_scores(gallery, space)
    try_ensemble(gallery)


@contextlib.contextmanager
def _unchanged(gallery: Gallery) -> Iterator[None]:
    """Keeps other processes from changing a gallery; one that can't be written nobody changes."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(BadSettings):
            stack.enter_context(gallery.writing())
        yield
