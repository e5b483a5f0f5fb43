"""The people of an older app's two pickles: vectors in one, the paths of their photos in the other.

The folder of a photo names a person. The vectors can't be used: they come from another crop (a
detector's box, squashed to a square), perhaps from another preprocessing, and nothing says from
which weights. So photos that are there are embedded anew, and of people without photos the names
are kept.
"""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from engine.engine import Engine
from engine.errors import SetupProblem
from engine.pickles import pickled_strings, pickled_vectors
from gallery.add import add
from gallery.gallery import Gallery
from gallery.pack import plain_text
from gallery.progress import Progress, Report, no_progress
from gallery.records import FoundPerson, FoundPortrait
from gallery.sources.folder import person_name, read_photo

_MOST_NAME: Final = 300  # characters, and its key a little more
_MOST_CATEGORY: Final = 200  # as wide as the column


@dataclass(slots=True)
class PickleReport(Report):
    """What was done with an older app's files, and what became of the photos."""

    entries: int = 0  # pairs of a vector and a path
    dimensions: int = 0  # of the vectors
    people: int = 0  # whom the paths name
    photos_found: int = 0
    photos_missing: int = 0
    odd_paths: int = 0  # that name nobody
    names_only: list[str] = field(default_factory=list)  # of whom the gallery has but the name

    def to_json(self) -> dict[str, Any]:
        """As printed with ``--json``."""
        return Report.to_json(self) | {"vectors_taken": 0}


def import_pickles(
    gallery: Gallery,
    engine: Engine,
    vectors_file: Path,
    paths_file: Path,
    *,
    photos: Path | None = None,
    backbones: Sequence[str],
    progress: Progress = no_progress,
) -> PickleReport:
    """Takes in the people of an older app's lists of vectors and of paths.

    Paths are ``.../Person_Name/photo.jpg``, slashes either way. They are looked for below
    ``photos`` (None: beside ``paths_file``) with fewer and fewer of their first folders; nothing
    outside is ever opened. Raises Busy if another process is changing the gallery, and SetupProblem
    if a file is something else, the two don't belong together, or a backbone can't be used.
    """
    vectors, paths = pickled_vectors(vectors_file), pickled_strings(paths_file)
    if len(vectors) != len(paths):
        raise SetupProblem(
            f"{vectors_file} holds {len(vectors):,} vectors and {paths_file} {len(paths):,} paths: "
            "the two don't belong together"
        )
    folder = (photos or paths_file.parent).resolve()
    if not folder.is_dir():
        raise SetupProblem(f"there is no folder {folder}")
    report = PickleReport(entries=len(paths), dimensions=len(vectors[0]))
    del vectors
    people = _people(paths, report)
    found = []
    for person, parts in people:
        if (path := _photo(folder, parts)) is not None:
            read = partial(read_photo, path)
            found.append(FoundPortrait(person=person, origin="/".join(parts), read=read))
    report.photos_found, report.photos_missing = len(found), len(people) - len(found)
    if found:
        how: dict[str, Any] = {"backbones": backbones, "progress": progress}
        add(gallery, engine, found, total=len(found), report=report, **how)
    if not report.interrupted:
        shown, banned = {one.person.key for one in found}, gallery.banned()
        wanted = {one.key: one for one, _ in people if one.key not in shown and one not in banned}
        with gallery.writing(), gallery.transaction() as changes:
            ids = {changes.add_person(one): one for one in wanted.values()}
        counts = gallery.portrait_counts()
        report.names_only = [one.name for number, one in ids.items() if not counts.get(number)]
        gallery.refresh()
    return report


def _people(paths: Sequence[str], report: PickleReport) -> list[tuple[FoundPerson, list[str]]]:
    """Whom every path names, and its parts; paths that name nobody are counted."""
    split = [[part for part in path.replace("\\", "/").split("/") if part] for path in paths]
    named = [parts for parts in split if len(parts) > 1 and not {".", ".."} & set(parts[1:])]
    # What the folders of all paths begin with says nothing about anybody.
    root = len(os.path.commonprefix([parts[:-2] for parts in named]))  # noqa: RUF071 - of lists
    found = []
    for parts in named:
        name = person_name(plain_text(parts[-2]))
        folders = [plain_text(part) for part in parts[root:-2]]
        categories = tuple(one for one in folders if 0 < len(one) <= _MOST_CATEGORY)
        if 0 < len(name) <= _MOST_NAME:
            found.append((FoundPerson(f"name:{name.casefold()}", name, categories), parts))
    report.odd_paths = len(paths) - len(found)
    report.people = len({person.key for person, _ in found})
    return found


def _photo(folder: Path, parts: Sequence[str]) -> Path | None:
    """The photo below the folder, with as many of its folders as are there."""
    for first in range(len(parts) - 1):
        with contextlib.suppress(OSError, ValueError):  # names that no file can have
            path = folder.joinpath(*parts[first:])
            if path.is_file() and path.resolve().is_relative_to(folder):
                return path
    return None
