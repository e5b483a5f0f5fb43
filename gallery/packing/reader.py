"""Reads an exported gallery (gallery/packing/layout.py) that may have been made by anybody.

Names in the archive are only ever looked up, never used as paths; nothing in it is compressed, so
that nothing is larger than the file; sizes, hashes, order and every number are checked.
"""

from __future__ import annotations

import hashlib
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from engine.errors import GalleryCorrupt, SetupProblem
from gallery.packing.archive import MOST_MEMBERS, opened_archive
from gallery.packing.contents import (
    Batch,
    PackedPortrait,
    PackedSpace,
    StaysAway,
    in_batches,
)
from gallery.packing.fields import sha256_of, whole_number
from gallery.packing.layout import (
    FORMAT,
    MANIFEST,
    NEVER_AGAIN,
    PEOPLE,
    PHOTO,
    PORTRAITS,
    VERSION,
    photo_member,
    space_members,
)
from gallery.packing.records import (
    MOST_LINE_BYTES,
    parsed,
    person_of,
    portrait_of,
    space_of,
    stays_away_of,
)
from gallery.packing.rows import RowStream
from gallery.progress import Progress, no_progress
from gallery.records import FoundPerson

__all__ = ["PackFile"]

_MOST_MANIFEST_BYTES: Final = 1_000_000
_MOST_STAY_AWAY: Final = 100_000
_CHUNK_BYTES: Final = 1_000_000


_FAULTS: Final = (
    ValueError,
    KeyError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
)
"""What reading bytes made to confuse raises; UnicodeDecodeError is a ValueError."""


class PackFile:
    """An exported gallery; a context manager.

    Args:
        path: The file.

    Attributes:
        people: How many the file speaks of.
        portraits: How many.
        spaces: Of which there are vectors.

    Raises:
        SetupProblem: If there is no such file, or a newer program made it.
        GalleryCorrupt: If it is no exported gallery, or a damaged one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("rb")
        except OSError as problem:
            raise SetupProblem(f"{path} can't be read ({problem.strerror})") from problem
        try:
            with self._translated():
                self._open()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def check(self, progress: Progress = no_progress) -> None:
        """Reads everything once but the photos, so that nothing is taken in of a damaged file.

        Raises:
            GalleryCorrupt: If anything is not as it should be.
        """
        with self._translated():
            for name, (size, sha256) in self._promised.items():
                if self._entries[name].file_size != size:
                    raise ValueError(f"{name} is not of the size it should have")
                if self._hash_of(name) != sha256:
                    raise ValueError(f"{name} was changed")
        self.never_again()
        people: set[str] = set()
        portraits: set[bytes] = set()
        last, seen = None, 0
        for batch in self.batches():
            for one in batch.people:
                if one.person.key in people and one.person.key != last:
                    raise self._damaged(f"{one.person.key!r} twice in {PEOPLE}")
                last = one.person.key
                people.add(last)
                portraits.update(bytes.fromhex(portrait.sha256) for portrait in one.portraits)
                seen += len(one.portraits)
            progress("check", seen, self.portraits)
        if (len(people), len(portraits), seen) != (self.people, self.portraits, self.portraits):
            raise self._damaged("people or portraits are missing, or there twice")

    def never_again(self) -> tuple[StaysAway, ...]:
        """Who was removed for good.

        Raises:
            GalleryCorrupt: If the list makes no sense.
        """
        with self._translated():
            found = []
            for line in self._lines(NEVER_AGAIN):
                found.append(stays_away_of(parsed(line)))
                if len(found) > _MOST_STAY_AWAY:
                    raise ValueError(f"{NEVER_AGAIN} is too long")
            return tuple(found)

    def batches(self) -> Iterator[Batch]:
        """Everybody, in the order of the file.

        Raises:
            GalleryCorrupt: If something makes no sense; earlier batches are sound.
        """
        with self._translated():
            streams = [self._stream(packed) for packed in self.spaces]
            for people in in_batches(self._everybody()):
                hashes = [one.sha256 for person in people for one in person.portraits]
                rows = {stream.space: stream.take(hashes) for stream in streams}
                yield Batch(people, {space: found for space, found in rows.items() if found})
            for stream in streams:
                stream.finish()

    def _open(self) -> None:
        self._archive, self._entries = opened_archive(self._file)
        self._read_manifest()

    def _read_manifest(self) -> None:
        entry = self._entries.get(MANIFEST)
        if entry is None or entry.file_size > _MOST_MANIFEST_BYTES:
            raise ValueError(f"no {MANIFEST}")
        manifest = parsed(self._archive.read(entry))
        if manifest.get("format") != FORMAT:
            raise ValueError("the manifest of something else")
        if manifest.get("version") != VERSION:
            raise SetupProblem(
                f"{self._path} is of version {str(manifest.get('version'))[:20]} of the format, "
                f"and this program reads version {VERSION}: update lookalike"
            )
        self.people = whole_number(manifest.get("people"), 2**40)
        self.portraits = whole_number(manifest.get("portraits"), MOST_MEMBERS)
        spaces = manifest.get("spaces")
        if not isinstance(spaces, list):
            raise ValueError("no list of spaces")  # noqa: TRY004 - every fault is a ValueError
        self.spaces: tuple[PackedSpace, ...] = tuple(space_of(one) for one in spaces)
        self._promised = self._expected(manifest.get("members"))

    def _expected(self, members: Any) -> dict[str, tuple[int, str]]:
        """Size and hash of every file but the photos, as the manifest has them."""
        expected = {PEOPLE, PORTRAITS, NEVER_AGAIN}
        for packed in self.spaces:
            expected.update(space_members(packed.space))
        if len(expected) != 3 + 2 * len(self.spaces):
            raise ValueError("two spaces of one name")
        if not isinstance(members, dict) or members.keys() != expected:
            raise ValueError("another list of files than there should be")
        for name in self._entries.keys() - expected - {MANIFEST}:
            if not PHOTO.fullmatch(name):
                raise ValueError("a file that does not belong there")
        if missing := expected - self._entries.keys():
            raise ValueError(f"no {min(missing)}")
        return {name: _promise(one) for name, one in members.items()}

    def _everybody(self) -> Iterator[tuple[FoundPerson, PackedPortrait | None]]:
        """Every portrait with its person, and once everybody who has none."""
        portraits = self._portraits()
        following = next(portraits, None)
        for line in self._lines(PEOPLE):
            person = person_of(parsed(line))
            if following is None or following[1] != person.key:
                yield person, None
            while following is not None and following[1] == person.key:
                yield person, following[0]
                following = next(portraits, None)
        if following is not None:
            raise ValueError("portraits of nobody, or not in the order of the people")

    def _portraits(self) -> Iterator[tuple[PackedPortrait, str]]:
        for line in self._lines(PORTRAITS):
            yield portrait_of(parsed(line), self._photo_reader)

    def _photo_reader(self, portrait: str, size: int, sha256: str) -> Callable[[], bytes]:
        entry = self._entries.get(photo_member(portrait))
        if entry is None or entry.file_size != size:
            raise ValueError("a photo that is missing or of another size")
        return partial(self._photo, entry, sha256)

    def _photo(self, entry: zipfile.ZipInfo, sha256: str) -> bytes:
        try:
            jpeg = self._archive.read(entry)
        except _FAULTS as problem:
            raise OSError("the photo can't be read") from problem
        if hashlib.sha256(jpeg).hexdigest() != sha256:
            raise OSError("the photo was changed")
        return jpeg

    def _stream(self, packed: PackedSpace) -> RowStream:
        array, portraits = (self._entries[name] for name in space_members(packed.space))
        return RowStream(
            packed,
            self._archive.open(array),
            self._archive.open(portraits),
            array_bytes=array.file_size,
            portraits_bytes=portraits.file_size,
        )

    def _lines(self, name: str) -> Iterator[bytes]:
        """The lines of a file; only that the last ends like the others is not required."""
        rest = b""
        with self._archive.open(self._entries[name]) as file:
            while chunk := file.read(_CHUNK_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from map(_short, lines)
                _short(rest)
        if rest:
            yield rest

    def _hash_of(self, name: str) -> str:
        sha256 = hashlib.sha256()
        with self._archive.open(self._entries[name]) as file:
            while chunk := file.read(_CHUNK_BYTES):
                sha256.update(chunk)
        return sha256.hexdigest()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            raise SetupProblem(f"{self._path} can't be read ({problem.strerror})") from problem
        except _FAULTS as problem:
            raise self._damaged(str(problem)) from problem

    def _damaged(self, reason: str) -> GalleryCorrupt:
        return GalleryCorrupt(
            f"{self._path} is no exported gallery, or a damaged one ({reason}): export it again"
        )


def _promise(record: Any) -> tuple[int, str]:
    if not isinstance(record, dict):
        raise ValueError("a file without size and hash")  # noqa: TRY004 - as above
    return whole_number(record.get("bytes"), 2**50), sha256_of(record.get("sha256"))


def _short(line: bytes) -> bytes:
    if len(line) > MOST_LINE_BYTES:
        raise ValueError("a line that is too long")
    return line
