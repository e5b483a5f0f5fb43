"""Writes a gallery into one file (``layout``) in flat memory, whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadSettings
from gallery.packing.contents import BATCH_PORTRAITS, PackedPortrait, PackedSpace
from gallery.packing.layout import (
    FORMAT,
    MANIFEST,
    NEVER_AGAIN,
    PEOPLE,
    PORTRAITS,
    VERSION,
    array_header,
    photo_member,
    space_members,
)
from gallery.packing.records import (
    MOST_PHOTO_BYTES,
    line_of,
    person_record,
    portrait_record,
    space_record,
    stays_away_record,
)
from gallery.packing.source import GalleryContents
from gallery.progress import Progress

__all__ = ["PackWriter", "said_of", "written_whole"]

_THE_SAME_DATE: Final = (1980, 1, 1, 0, 0, 0)  # the first that the format knows
_CHUNK_BYTES: Final = 4_000_000


@contextlib.contextmanager
def written_whole(target: Path, *, replace: bool) -> Iterator[IO[bytes]]:
    """A file to write that takes its name when all of it is on the disk.

    Args:
        target: Its name; the folder exists.
        replace: Whether another file of that name may go.

    Raises:
        BadSettings: If there is one that may not go, or the folder can't be written.
    """
    part = target.with_name(f".{target.name}.part")
    taken = BadSettings(f"{target} exists already: choose another name, or replace it with --force")
    if target.is_dir():
        raise BadSettings(f"{target} is a folder: name a file in it")
    if target.exists() and not replace:
        raise taken
    try:
        with said_of(target), part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists() and not replace:
            raise taken
        with said_of(target):
            part.replace(target)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def said_of(target: Path) -> Iterator[None]:
    """Says of what goes wrong that it went wrong with this file.

    Raises:
        BadSettings: For any OSError.
    """
    try:
        yield
    except OSError as problem:
        raise BadSettings(
            f"{target} can't be written ({problem.strerror}): check the folder's rights and free "
            "space"
        ) from problem


class PackWriter:
    """Writes one gallery.

    Args:
        file: Empty, seekable; lists wait beside it, in files without a name.
        contents: What to write; it must not change meanwhile.
        photos: Whether to take the photos along.
        progress: Told about every batch.

    Attributes:
        photos: How many photos came along so far.
    """

    def __init__(
        self, file: IO[bytes], contents: GalleryContents, *, photos: bool, progress: Progress
    ) -> None:
        self._archive = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)
        self._folder = Path(file.name).parent
        self._contents = contents
        self._with_photos = photos
        self._progress = progress
        self._members: dict[str, dict[str, Any]] = {}
        self._digests: NDArray[np.uint8] = np.empty((contents.portraits, 32), np.uint8)
        self.photos = 0

    def write(self) -> None:
        """Writes everything."""
        with self._archive:
            self._write_catalogue()
            lines = [line_of(stays_away_record(one)) for one in self._contents.never_again()]
            with self._member(NEVER_AGAIN) as member:
                for line in lines:
                    member.write(line)
            for packed in self._contents.spaces:
                self._write_vectors(packed)
            manifest = {
                "format": FORMAT,
                "version": VERSION,
                "program": f"lookalike {version('lookalike')}",
                "people": self._contents.people,
                "portraits": self._contents.portraits,
                "photos": self.photos,
                "never_again": len(lines),
                "spaces": [space_record(packed) for packed in self._contents.spaces],
                "members": self._members,
            }
            text = json.dumps(manifest, ensure_ascii=False, indent=2).encode() + b"\n"
            self._archive.writestr(_entry(MANIFEST), text)

    def _write_catalogue(self) -> None:
        """Photos as they come; the lines, which need to know them, wait in temporary files."""
        with self._spool() as people, self._spool() as portraits:
            last = None
            total = self._contents.portraits
            for start in range(0, total, BATCH_PORTRAITS):
                ids = self._contents.portrait_ids[start : start + BATCH_PORTRAITS]
                at = start
                for one in self._contents.packed_people(ids):
                    if one.person.key != last:
                        people.write(line_of(person_record(one.person)))
                        last = one.person.key
                    for portrait in one.portraits:
                        photo = self._write_photo(portrait)
                        record = portrait_record(portrait, one.person.key, photo)
                        portraits.write(line_of(record))
                        self._digests[at] = np.frombuffer(bytes.fromhex(portrait.sha256), np.uint8)
                        at += 1
                self._progress("portraits", at, total)
            for one in self._contents.bare_people():
                people.write(line_of(person_record(one.person)))
            for name, spooled in ((PEOPLE, people), (PORTRAITS, portraits)):
                spooled.seek(0)
                with self._member(name) as member:
                    while chunk := spooled.read(_CHUNK_BYTES):
                        member.write(chunk)

    def _spool(self) -> IO[bytes]:
        return tempfile.TemporaryFile(dir=self._folder)

    def _write_photo(self, portrait: PackedPortrait) -> tuple[int, str] | None:
        if not self._with_photos or portrait.photo is None:
            return None
        jpeg = portrait.photo()
        if jpeg is None or len(jpeg) > MOST_PHOTO_BYTES:
            return None
        self._archive.writestr(_entry(photo_member(portrait.sha256)), jpeg)
        self.photos += 1
        return len(jpeg), hashlib.sha256(jpeg).hexdigest()

    def _write_vectors(self, packed: PackedSpace) -> None:
        space = packed.space
        array_name, portraits_name = space_members(space)
        places = self._contents.places(space, self._contents.portrait_ids)
        step = max(1, _CHUNK_BYTES // (4 * space.dimensions))
        with self._member(array_name) as member:
            member.write(array_header(len(places), space.dimensions))
            for start in range(0, len(places), step):
                ids = self._contents.portrait_ids[places[start : start + step]]
                vectors = self._contents.vectors(space, ids)
                member.write(vectors.astype("<f4", copy=False).tobytes())
                self._progress("written vectors", min(start + step, len(places)), len(places))
        with self._member(portraits_name) as member:
            for start in range(0, len(places), step):
                digests = self._digests[places[start : start + step]]
                member.write(b"".join(one.tobytes().hex().encode() + b"\n" for one in digests))

    @contextlib.contextmanager
    def _member(self, name: str) -> Iterator[_Counted]:
        with self._archive.open(_entry(name), "w", force_zip64=True) as file:
            counted = _Counted(file)
            yield counted
        self._members[name] = {"bytes": counted.size, "sha256": counted.hash.hexdigest()}


class _Counted:
    """Counts and hashes what is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = 0
        self.hash = hashlib.sha256()

    def write(self, content: bytes) -> None:
        self._file.write(content)
        self.hash.update(content)
        self.size += len(content)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _THE_SAME_DATE)
    entry.external_attr = 0o644 << 16
    return entry
