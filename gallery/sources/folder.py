"""People from folders: ``DIR/Person_Name/photo.jpg`` or ``DIR/Category/Person_Name/photo.jpg``.

The topmost folder with photos of its own names the person, and what is in folders below it is the
person's, too; every folder between it and DIR is a category. A folder with photos of its own is a
category all the same if most of the folders in it are called like people; its own photos belong to
nobody then. A folder of nothing but ``old photos``, ``2019`` and the like is a person. Numbers
belong to names (``person_1``, ``Blink_182``, ``Grace Hopper (2)``), but where names differ by their
numbers only and the faces agree.

A file people.csv in DIR says more of the people: it has a line for each person and the columns
``person`` (the name, or the folder's name) and any of ``category``, ``country``, ``gender`` and
``wikidata_id``. Several categories are parted by semicolons or stand in several lines.
"""

import codecs
import contextlib
import csv
import io
import os
import re
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from engine.errors import SetupProblem, TooLarge
from gallery.records import FoundPerson, FoundPortrait, folded

PEOPLE_FILE: Final = "people.csv"
MOST_LINES, MOST_TABLE_BYTES = 1_000_000, 200_000_000  # of a CSV file
MOST_STRANGERS = 1_000  # of the names in it that are nobody's, so many are told
MOST_DEPTH = 30  # folders in folders

# As long as the columns of gallery/tables.py.
_LONGEST: Final = {"country": 100, "gender": 50, "category": 200}
_NUMBER_AT_END = re.compile(r"(?:[\s._-]+\d+|\s*\(\d+\))$")
_MOST_NUMBERED = 20  # beyond it numbers are the names, as in person_1 to person_9999
_COMPARED = 3  # photos of each, since the first may show nobody
# What spreadsheets save besides Unicode: Windows' encodings, and those of East Asia.
_SAVED_AS: Final = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258"),
    *("cp932", "gb18030", "big5", "cp949", "cp874", "mac_roman"),
)
_DOUBTFUL: Final = ("cp1250", "cp1254", "cp1257", "latin_1", "cp1006", "mac_cyrillic")
_WIKIDATA_ID = re.compile(r"Q[1-9]\d{0,15}")

PHOTO_ENDINGS: Final = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib"),
        *(".tif", ".tiff", ".heic", ".heif", ".hif", ".avif"),
    )
)

_PHOTO_START = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|BM....\0\0\0\0"
    rb"|....ftyp(?:hei[cxms]|hev[cx]|mif1|msf1|avi[fs])|(?:II[*+]\0|MM\0[*+])",
    re.DOTALL,
)
"""First bytes of photos whose names don't say so; cameras' raw files begin like TIFF, but do."""

# What network storage, Windows, macOS, Linux and photo programs put beside people's own folders.
_SYSTEMS: Final = re.compile(
    r"@(?:eadir|tmp|syno\w+|share(?:bin|snap)|appstore|database|autoupdate|download|maildir|s2s"
    r"|transcode|img_bkp_cache|recycle|recently-snapshot|snapshots?|__thumb)|#(?:recycle|snapshot)"
    r"|\$(?:recycle\.bin|extend|sysreset|winreagent|windows\.~\w+)|recycle[rd]|recycled? bin"
    r"|system volume information|found\.\d{3}|msdownld\.tmp|wpsettings|lost\.dir|lost\+found"
    r"|network trash folder|temporary items|the(?:volumesettings|findbycontent)folder|__macosx"
    r"|resource\.frk|ipod photo cache|config\.msi|captureone|_vti_\w+|dfsrprivate|~snapshot"
    r"|windowsimagebackup|_gsdata_|_*thumb(?:nail)?s?_*|picasa\d*temp|icon\r|desktop\.ini"
    r"|.+\.(?:lrdata|photoslibrary|photolibrary|migratedphotolibrary|aplibrary)|picasa\.ini"
    r"|(?:eh|photo)?thumbs?(?:_vista)?\.db|zbthumbnail\.info",
    re.IGNORECASE,
)

# Words in names of folders that are not called like a person.
_ORDINARY: Final = re.compile(
    r"albums?|backup|camera|collection|cop(?:y|ies)|edit(?:ed|s)|extra|folder|gallery|images?|misc"
    r"|more|new|old|originals?|other|party|pics|pictures?|photos?|photographs|portraits?|private"
    r"|raw|roll|scans|selfies|trip|unsorted|various|videos?|wedding|(?:19|20)\d\d",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _Branch:
    """One folder of the tree: its own photos, and the folders in it that hold photos."""

    path: Path
    photos: list[Path] = field(default_factory=list)
    branches: list["_Branch"] = field(default_factory=list)

    def all_photos(self) -> list[Path]:
        return [*self.photos, *(path for branch in self.branches for path in branch.all_photos())]

    def is_category(self) -> bool:
        """Whether the folders in it are those of people."""
        if not self.photos:
            words = (person_name(one.path.name).split() for one in self.branches if one.photos)
            ordinary = [all(map(_ORDINARY.fullmatch, name)) for name in words]
            return ordinary.count(True) < len(self.branches)
        names = [person_name(branch.path.name) for branch in self.branches]
        names = [name for name in names if _looks_like_a_name(name)]
        many = len(names) > 1 or any(len(name.split()) > 1 for name in names)
        return many and 2 * len(names) >= len(self.branches)


Agree = Callable[[FoundPortrait, FoundPortrait], bool]
"""Whether two photos show one person."""


def scan(
    folder: Path, *, category: str | None = None, agree: Agree = lambda _one, _other: False
) -> "FolderContents":
    """The photos in a folder of people; files without a known ending are opened to see their kind.

    Hidden files and folders are passed over, and so are links that lead out of the folder. A
    people.csv that makes no sense is passed over with a note. ``category`` is everybody's, besides
    those that folders name; ``agree`` is asked where only a number tells two people apart. Raises
    SetupProblem if there is no such folder, or no photo of anybody in it.
    """
    if not folder.is_dir():
        raise SetupProblem(f"there is no folder {folder}")
    contents = FolderContents(folder.resolve())
    tree = contents.walk(contents.root)
    contents.astray += map(contents.below, tree.photos)
    for branch in tree.branches:
        contents.collect(branch, () if category is None else (category,))
    contents.join_numbered(agree)
    if not contents.portraits:
        why = f"there are no photos in {folder}: it should be"
        if contents.astray:
            why = f"{folder} is no folder of people: give the one above, if it is"
        ways = "FOLDER/Person_Name/photo.jpg or FOLDER/Category/Person_Name/photo.jpg"
        raise SetupProblem(f"{why} arranged as {ways}")
    listed = contents.root / PEOPLE_FILE
    if listed.is_file():
        try:
            contents.portraits, contents.strangers = described(
                contents.portraits, listed, contents.notes
            )
        except SetupProblem as problem:
            contents.notes.append(f"{problem}; people were added without it")
    contents.notes = list(dict.fromkeys(contents.notes))
    return contents


def read_photo(path: Path, max_bytes: int) -> bytes:
    """The bytes of a file; raises TooLarge if there are more, and OSError if it can't be read."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise TooLarge(f"the file has {size} bytes, more than {max_bytes}")
        return file.read(max_bytes + 1)


@dataclass(slots=True)
class FolderContents:
    """What was found in a folder, the portraits by person and file name; paths are below ``root``.

    The other lists are as in ``gallery.progress.Report``.
    """

    root: Path
    portraits: list[FoundPortrait] = field(default_factory=list)
    astray: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def below(self, path: Path) -> str:
        """The path below the root, in Unicode."""
        return os.fsencode(path.relative_to(self.root)).decode("utf-8", "replace")

    def walk(self, folder: Path) -> _Branch:
        """The tree of a folder's photos."""
        branch = _Branch(folder)
        try:
            with os.scandir(folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError:
            self.closed.append(self.below(folder))
            return branch
        for entry in entries:
            path = Path(entry.path)
            reason = _why_not(entry, self.root)
            if reason is not None:
                if path != self.root / PEOPLE_FILE:
                    self.ignored.append(f"{self.below(path)} ({reason})")
            elif not entry.is_dir(follow_symlinks=False):
                branch.photos.append(path)
            elif len(path.parts) - len(self.root.parts) > MOST_DEPTH:
                self.ignored.append(f"{self.below(path)} (too deep)")
            elif (inner := self.walk(path)).all_photos():
                branch.branches.append(inner)
        return branch

    def collect(self, branch: _Branch, categories: tuple[str, ...]) -> None:
        """Adds the photos of a category, or of a person."""
        if branch.is_category():
            self.astray += map(self.below, branch.photos)
            for inner in branch.branches:
                self.collect(inner, (*categories, branch.path.name))
            return
        name = person_name(branch.path.name)
        person = FoundPerson(key=f"name:{name.casefold()}", name=name, categories=categories)
        self.notes += [
            f"the photos in {self.below(inner.path)} were taken as photos of {name}"
            for inner in branch.branches
        ]
        self.portraits += [
            FoundPortrait(person=person, origin=self.below(path), read=partial(read_photo, path))
            for path in branch.all_photos()
        ]

    def join_numbered(self, agree: Agree) -> None:
        """Joins people such as ``Ann 1`` and ``Ann 2`` or ``Ann (2)`` where their faces agree."""
        photos: defaultdict[str, list[FoundPortrait]] = defaultdict(list)
        for one in self.portraits:
            photos[one.person.key].append(one)
        groups: defaultdict[str, list[list[FoundPortrait]]] = defaultdict(list)
        for key in sorted(photos):
            groups[_NUMBER_AT_END.sub("", key)].append(photos[key][:_COMPARED])
        joined: dict[str, str] = {}
        for head, *others in groups.values():
            if len(others) < _MOST_NUMBERED:
                same = [ones for ones in others if any(agree(a, b) for a in head for b in ones)]
                name = _NUMBER_AT_END.sub("", head[0].person.name)
                people = [ones[0].person for ones in (head, *same) if same]
                joined |= {one.key: name for one in people if one.name != name}
        for place, portrait in enumerate(self.portraits):
            if name := joined.get(portrait.person.key, ""):
                self.notes.append(f"{portrait.person.name} was taken for {name}")
                person = replace(portrait.person, key=f"name:{name.casefold()}", name=name)
                self.portraits[place] = replace(portrait, person=person)


def _why_not(entry: os.DirEntry[str], root: Path) -> str | None:
    """Why a file or folder is not taken: all but photos and folders of this tree."""
    path = Path(entry.path)
    if entry.name.startswith("."):
        return "hidden"
    is_folder = entry.is_dir(follow_symlinks=False)
    # A folder that is called like a photo holds small copies of it.
    if _SYSTEMS.fullmatch(entry.name) or (is_folder and path.suffix.lower() in PHOTO_ENDINGS):
        return f"a {'folder' if is_folder else 'file'} of the system"
    if is_folder:
        return None
    reason = None
    try:
        if entry.is_symlink() and not path.resolve(strict=True).is_relative_to(root):
            reason = "a link out of the folder"
        elif entry.is_symlink() and path.is_dir():
            reason = "a link to a folder"
        elif not stat.S_ISREG(entry.stat().st_mode):
            reason = "no regular file"
        elif path.suffix.lower() not in PHOTO_ENDINGS:
            with path.open("rb") as file:
                known = _PHOTO_START.match(file.read(16))
            if not known or (path.suffix and known[0][:2] in {b"II", b"MM"}):
                reason = "not a kind of photo that is read"
    except (OSError, RuntimeError):  # a link in a circle, for instance
        reason = "a link to nothing" if entry.is_symlink() else "it can't be read"
    return reason


def _looks_like_a_name(folder_name: str) -> bool:
    """Whether words start with capitals, where the script has them, and are no "old photos 2"."""
    return not any(
        word[0].islower() or _ORDINARY.fullmatch(word) or any(map(str.isdigit, word))
        for word in person_name(folder_name).split()
    )


def person_name(folder_name: str) -> str:
    """The name that a person's folder stands for: ``Grace_Hopper`` for Grace Hopper."""
    readable = os.fsencode(folder_name).decode("utf-8", "replace")
    return " ".join(unicodedata.normalize("NFC", readable).replace("_", " ").split()) or readable


def described(
    portraits: Sequence[FoundPortrait], file: Path, notes: list[str] | None = None
) -> tuple[list[FoundPortrait], list[str]]:
    """The portraits, their people completed by what a CSV file says; its names that are nobody's.

    Case, accents and underscores of names don't matter. The file's categories are added to those of
    the folders. ``notes`` gets a sentence where the encoding had to be guessed. Raises SetupProblem
    if it can't be read, has none of the columns, or a Wikidata id in it is none.
    """
    known = {folded(portrait.person.name) for portrait in portraits}
    said: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
    strangers: dict[str, str] = {}
    for row in read_table(file, known=known, notes=notes):
        if not (called := row.get("person", "")):
            continue
        name, short = folded(called), folded(_NUMBER_AT_END.sub("", person_name(called)))
        if name in known or short in known:
            said[name if name in known else short].append(row)
        elif len(strangers) < MOST_STRANGERS:
            strangers.setdefault(name, called)
    if not (said or strangers):
        raise SetupProblem(
            f"{file} needs the column person and any of category, country, gender and "
            "wikidata_id, named in its first line"
        )
    completed = []
    for portrait in portraits:
        person = portrait.person
        for row in said.get(folded(person.name), ()):
            person = _completed(person, row, file)
        completed.append(replace(portrait, person=person))
    return completed, list(strangers.values())


def _completed(person: FoundPerson, row: dict[str, str], file: Path) -> FoundPerson:
    wikidata_id = row.get("wikidata_id", "").upper() or person.wikidata_id
    if wikidata_id is not None and not _WIKIDATA_ID.fullmatch(wikidata_id):
        raise SetupProblem(
            f"{file}: the wikidata_id of {person.name} should be like Q42, not {wikidata_id}"
        )
    parts = row.get("category", "").split(";")
    categories = [" ".join(part.split())[: _LONGEST["category"]] for part in parts]
    return replace(
        person,
        categories=tuple(dict.fromkeys([*person.categories, *filter(None, categories)])),
        country=row.get("country", "")[: _LONGEST["country"]] or person.country,
        gender=row.get("gender", "")[: _LONGEST["gender"]] or person.gender,
        wikidata_id=wikidata_id,
    )


def read_table(
    file: Path, *, known: Collection[str] = (), notes: list[str] | None = None
) -> Iterator[dict[str, str]]:
    """The lines of a CSV file by column name in lower case; empty cells are left out.

    Semicolons and tabs serve as well as commas, and every encoding that spreadsheets save: the one
    that shows most of the folded names ``known`` is right. ``notes`` gets a sentence if that had to
    be guessed. Raises SetupProblem if it can't be read or has more than ``MOST_LINES``.
    """
    try:
        large = file.stat().st_size > MOST_TABLE_BYTES
        content = b"" if large else file.read_bytes()
        if large or max(content.count(b"\n"), content.count(b"\r")) > MOST_LINES:
            raise SetupProblem(
                f"{file} has more than {MOST_LINES:,} lines: leave those of the folder's people"
            )
        text, guessed = _decoded(content, known)
        # Empty lines first, or one where spreadsheets note the delimiter.
        text = re.sub(r"\A(?:(?:(?i:sep)=.|[,;\t ]*)[\r\n]+)+", "", text.replace("\0", ""))
        delimiter = max(",;\t", key=text.partition("\n")[0].count)  # a comma unless there is none
        lines = io.StringIO(text, newline="")
        for row in csv.DictReader(lines, delimiter=delimiter, skipinitialspace=True):
            yield {
                (name or "").strip().lower(): cell.strip()
                for name, cell in row.items()
                if isinstance(cell, str) and cell.strip()
            }
    except OSError as problem:
        raise SetupProblem(f"the file {file} can't be read: {problem.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as problem:
        raise SetupProblem(f"{file} is no CSV text ({problem}): save it as CSV UTF-8") from None
    if guessed is not None and notes is not None:
        notes.append(f"{file.name} was read as {guessed}; save it as CSV UTF-8 if letters are odd")


def _decoded(content: bytes, known: Collection[str]) -> tuple[str, str | None]:
    """The text, and its encoding if that had to be guessed.

    Raises UnicodeDecodeError if it is text in no known encoding.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        wide = content.startswith(codecs.BOM_UTF32_LE)
        return content.decode("utf-32" if wide else "utf-16"), None
    with contextlib.suppress(UnicodeDecodeError):
        if "\0" not in (text := content.decode("utf-8-sig")):
            return text, None
    import charset_normalizer  # only for what is no UTF-8

    guesses = [match.encoding for match in charset_normalizer.from_bytes(content)]
    if b"\0" in content:
        guesses += ["utf-16-le", "utf-16-be"]
    else:
        # Short texts in Western European are taken for Central European by their bytes alone, and
        # so is Cyrillic: only there whole words have no letter of ASCII.
        usual = "cp1251" if re.search(rb"[\xc0-\xff]{4}", content) else "cp1252"
        doubtful = not guesses or guesses[0] in _DOUBTFUL
        guesses = [*([usual] if doubtful else []), *guesses, *_SAVED_AS]
    readings: dict[str, str] = {}
    for encoding in guesses:
        with contextlib.suppress(UnicodeDecodeError):
            readings.setdefault(encoding, content.decode(encoding))
    if not readings:
        raise UnicodeDecodeError("utf-8", content, 0, 1, "in no known encoding")

    def found(encoding: str) -> int:
        cells = {folded(cell) for cell in re.split(r"[,;\t\r\n\"]+", readings[encoding])}
        return len(cells.intersection(known))

    best = max(readings, key=found)
    return readings[best], best
