"""People from folders: ``DIR/Person_Name/photo.jpg`` or ``DIR/Category/Person_Name/photo.jpg``.

The folder that holds the photos names the person; every folder between it and DIR is a category.
Both kinds may stand side by side. A folder with photos of its own that also holds such folders is
a category, and its own photos belong to nobody. A file people.csv in DIR says more of the people:
it has a line for each person and the columns ``person`` (the name, or the folder's name) and any of
``category``, ``country``, ``gender`` and ``wikidata_id``. Several categories are parted by
semicolons or stand in several lines.
"""

from __future__ import annotations

import csv
import io
import os
import re
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from pathlib import Path
from typing import Final

from engine.errors import SetupProblem, TooLarge
from gallery.records import FoundPerson, FoundPortrait, folded

__all__ = [
    "PEOPLE_FILE",
    "PHOTO_ENDINGS",
    "FolderContents",
    "PhotoReader",
    "described",
    "person_name",
    "read_table",
    "scan",
]

PEOPLE_FILE: Final = "people.csv"

# As long as the columns of gallery/tables.py.
_LONGEST: Final = {"country": 100, "gender": 50, "category": 200}
_NUMBER_AT_END = re.compile(r"(?:[\s._-]+\d+|\s*\(\d+\))$")
_WIKIDATA_ID = re.compile(r"Q[1-9]\d{0,15}")

PHOTO_ENDINGS: Final = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".heic",
        ".heif",
        ".avif",
    ]
)


@dataclass(frozen=True, slots=True)
class FolderContents:
    """What was found in a folder.

    Attributes:
        portraits: Photos of people, by person and file name.
        astray: Photos that are in nobody's folder, as paths below the folder.
        closed: Folders and files that can't be read, as paths below the folder.
        ignored: How many files are no photos by their ending.
        strangers: Names in people.csv that are nobody's here.
    """

    portraits: tuple[FoundPortrait, ...]
    astray: tuple[str, ...]
    closed: tuple[str, ...]
    ignored: int
    strangers: tuple[str, ...] = ()


@dataclass(slots=True)
class _Branch:
    """One folder of the tree."""

    path: Path
    photos: list[Path]
    branches: list[_Branch]

    def holds_photos(self) -> bool:
        return bool(self.photos) or any(branch.holds_photos() for branch in self.branches)


def scan(folder: Path, *, category: str | None = None) -> FolderContents:
    """The photos in a folder of people; nothing is opened yet.

    Hidden files and folders are passed over, and so are links that lead out of the folder.

    Args:
        folder: The folder above the people's folders.
        category: Of everybody in it, besides the categories that folders name.

    Raises:
        SetupProblem: If there is no such folder, or no photo of anybody in it, or its people.csv
            can't be used.
    """
    if not folder.is_dir():
        raise SetupProblem(f"there is no folder {folder}")
    root = folder.resolve()
    scanner = _Scanner(root)
    tree = scanner.walk(root)
    given = () if category is None else (category,)
    portraits: list[FoundPortrait] = []
    astray = [_below(root, path) for path in tree.photos]
    for branch in tree.branches:
        _collect(branch, root, given, portraits, astray)
    if not portraits:
        raise SetupProblem(_why_nobody(folder, astray))
    listed = root / PEOPLE_FILE
    strangers: tuple[str, ...] = ()
    if listed.is_file():
        scanner.ignored -= 1
        portraits, strangers = described(portraits, listed)
    return FolderContents(
        portraits=tuple(portraits),
        astray=tuple(astray),
        closed=tuple(scanner.closed),
        ignored=scanner.ignored,
        strangers=strangers,
    )


def _collect(
    branch: _Branch,
    root: Path,
    categories: tuple[str, ...],
    portraits: list[FoundPortrait],
    astray: list[str],
) -> None:
    inhabited = [below for below in branch.branches if below.holds_photos()]
    if inhabited:
        astray += [_below(root, path) for path in branch.photos]
        for below in inhabited:
            _collect(below, root, (*categories, branch.path.name), portraits, astray)
        return
    name = person_name(branch.path.name)
    person = FoundPerson(key=f"name:{name.casefold()}", name=name, categories=categories)
    portraits += [
        FoundPortrait(person=person, origin=_below(root, path), read=PhotoReader(path))
        for path in branch.photos
    ]


@dataclass(frozen=True, slots=True)
class PhotoReader:
    """Reads one file, if it is not too large."""

    path: Path

    def __call__(self, max_bytes: int) -> bytes:
        """The bytes; raises TooLarge if there are more, and OSError if it can't be read."""
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise TooLarge(f"the file has {size} bytes, more than {max_bytes}")
            return file.read(max_bytes + 1)


class _Scanner:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.closed: list[str] = []
        self.ignored = 0

    def walk(self, folder: Path) -> _Branch:
        branch = _Branch(folder, [], [])
        for entry in self._entries(folder):
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                branch.branches.append(self.walk(path))
            elif path.suffix.lower() not in PHOTO_ENDINGS:
                self.ignored += not entry.is_symlink() or path.is_file()
            elif self._is_photo(entry, path):
                branch.photos.append(path)
        return branch

    def _entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            self.closed.append(_below(self.root, folder))
            return
        yield from (entry for entry in listed if not entry.name.startswith("."))

    def _is_photo(self, entry: os.DirEntry[str], path: Path) -> bool:
        """Whether it is a file of this tree, not a pipe, a device or a link out of it."""
        try:
            if entry.is_symlink() and not path.resolve().is_relative_to(self.root):
                return False
            return stat.S_ISREG(entry.stat().st_mode)
        except (OSError, RuntimeError):  # a link to nothing, or in a circle
            return False


def _below(root: Path, path: Path) -> str:
    return os.fsencode(path.relative_to(root)).decode("utf-8", "replace")


def _why_nobody(folder: Path, astray: list[str]) -> str:
    layout = "FOLDER/Person_Name/photo.jpg or FOLDER/Category/Person_Name/photo.jpg"
    if astray:
        return (
            f"the photos in {folder} are in nobody's folder: give the folder above the people's, "
            f"arranged as {layout}"
        )
    return f"there are no photos in {folder}: it should be arranged as {layout}"


def person_name(folder_name: str) -> str:
    """The name that a person's folder stands for.

    ``Grace_Hopper`` and ``Grace Hopper 02`` both stand for Grace Hopper.
    """
    readable = os.fsencode(folder_name).decode("utf-8", "replace")
    name = " ".join(unicodedata.normalize("NFC", readable).replace("_", " ").split())
    return _NUMBER_AT_END.sub("", name) or name


def described(
    portraits: Sequence[FoundPortrait], file: Path
) -> tuple[list[FoundPortrait], tuple[str, ...]]:
    """The portraits, their people completed by what the file says; and whom nobody knows.

    Case, accents and underscores of names don't matter. The file's categories are added to those
    of the folders.

    Args:
        portraits: Of a folder.
        file: CSV; semicolons and tabs serve as well as commas.

    Returns:
        The portraits in the same order; the file's names that are nobody's.

    Raises:
        SetupProblem: If it can't be read, has none of the columns, or a Wikidata id in it is none.
    """
    rows = read_table(file)
    if not any("person" in row for row in rows):
        raise SetupProblem(
            f"{file} needs the column person and any of category, country, gender and "
            "wikidata_id, named in its first line"
        )
    said: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        if "person" in row:
            said.setdefault(folded(person_name(row["person"])), []).append(row)
    completed = [
        replace(
            portrait,
            person=reduce(
                partial(_completed, file=file),
                said.get(folded(portrait.person.name), []),
                portrait.person,
            ),
        )
        for portrait in portraits
    ]
    known = {folded(portrait.person.name) for portrait in portraits}
    return completed, tuple(said[name][0]["person"] for name in said if name not in known)


def _completed(person: FoundPerson, row: dict[str, str], file: Path) -> FoundPerson:
    wikidata_id = row.get("wikidata_id", "").upper() or person.wikidata_id
    if wikidata_id is not None and not _WIKIDATA_ID.fullmatch(wikidata_id):
        raise SetupProblem(
            f"{file}: the wikidata_id of {person.name} should be like Q42, not {wikidata_id}"
        )
    categories = [
        " ".join(part.split())[: _LONGEST["category"]]
        for part in row.get("category", "").split(";")
    ]
    return replace(
        person,
        categories=tuple(dict.fromkeys([*person.categories, *filter(None, categories)])),
        country=row.get("country", "")[: _LONGEST["country"]] or person.country,
        gender=row.get("gender", "")[: _LONGEST["gender"]] or person.gender,
        wikidata_id=wikidata_id,
    )


def read_table(file: Path) -> list[dict[str, str]]:
    """The lines of a CSV file by column name in lower case; empty cells are left out.

    Semicolons and tabs serve as well as commas.

    Raises:
        SetupProblem: If it can't be read.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        delimiter = max(",;\t", key=text.partition("\n")[0].count)  # a comma unless there is none
        lines = io.StringIO(text, newline="")
        rows = list(csv.DictReader(lines, delimiter=delimiter, skipinitialspace=True))
    except OSError as problem:
        raise SetupProblem(f"the file {file} can't be read: {problem.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as problem:
        raise SetupProblem(f"the file {file} is no CSV text: {problem}") from None
    return [
        {
            (name or "").strip().lower(): cell.strip()
            for name, cell in row.items()
            if isinstance(cell, str) and cell.strip()
        }
        for row in rows
    ]
