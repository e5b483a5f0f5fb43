"""Opens an archive that may have been made to harm, and refuses it before it costs anything.

Nothing in it may be compressed, so that nothing in it is larger than itself. Faults are those of
``zipfile``, or a ValueError.
"""

from __future__ import annotations

import io
import struct
import zipfile
from typing import IO, Final

__all__ = ["MOST_MEMBERS", "opened_archive"]

MOST_MEMBERS: Final = 1_200_000
_MOST_DIRECTORY_BYTES: Final = 250_000_000  # of the archive; Python keeps five times as much
_END: Final = struct.Struct("<4s4H2LH")  # APPNOTE.TXT 6.3.10, 4.3.16
_END_64: Final = struct.Struct("<4sQ2H2L4Q")  # 4.3.14
_LOCATOR: Final = struct.Struct("<4sLQL")  # 4.3.15
_ENCRYPTED: Final = 0x1


def opened_archive(file: IO[bytes]) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    """The archive, and what is in it by name.

    Raises:
        ValueError: If it is none, or two files have one name, overlap, are compressed or encrypted,
            or are too many; so does what ``zipfile`` raises.
    """
    size = _refuse_giants(file)
    archive = zipfile.ZipFile(file)
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        if entry.filename in entries:
            raise ValueError("two files of one name")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED:
            raise ValueError("its files are compressed or encrypted")
        if entry.file_size != entry.compress_size:
            raise ValueError("a file of two sizes")
        entries[entry.filename] = entry
    if sum(entry.file_size for entry in entries.values()) > size:
        raise ValueError("its files overlap")
    return archive, entries


def _refuse_giants(file: IO[bytes]) -> int:
    """The size of an archive whose directory is not too large to be read."""
    size = file.seek(0, io.SEEK_END)
    if size < _END.size:
        raise ValueError("too short")
    file.seek(-min(size, _END.size + _LOCATOR.size + _END_64.size), io.SEEK_END)
    tail = file.read()
    mark, _, _, _, members, directory_bytes, _, comment = _END.unpack(tail[-_END.size :])
    if mark != b"PK\x05\x06" or comment:
        raise ValueError("no archive, or one that was cut off")
    tail = tail[: -_END.size]
    if tail[-_LOCATOR.size :].startswith(b"PK\x06\x07") and len(tail) == (
        _LOCATOR.size + _END_64.size
    ):
        *_, members, directory_bytes, _ = _END_64.unpack(tail[: _END_64.size])
    if members > MOST_MEMBERS or directory_bytes > _MOST_DIRECTORY_BYTES:
        raise ValueError("too many files")
    return size
