"""People from folders: ``DIR/Person_Name/photo.jpg`` or ``DIR/Category/Person_Name/photo.jpg``.

The folder that holds the photos names the person; every folder between it and DIR is a category.
Both kinds may stand side by side. A folder with photos of its own that also holds such folders is
a category, and its own photos belong to nobody. A file people.csv in DIR says more of the people
(gallery/sources/people_list.py).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.errors import SetupProblem, TooLarge
from gallery.people_file import PEOPLE_FILE
from gallery.sources import FoundPerson, FoundPortrait
from gallery.sources.people_list import described, person_name

__all__ = ["PHOTO_ENDINGS", "FolderContents", "PhotoReader", "person_name", "scan"]

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
