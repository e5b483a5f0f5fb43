"""What the catalogue holds, as values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.types import Box

__all__ = ["Person", "Portrait", "Rejected", "thumbnail_path"]


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody in the gallery.

    Attributes:
        id: Never given to anybody else, even after removal.
        key: Unique name across sources, such as ``name:grace hopper`` or ``Q11641``.
        name: As shown, Unicode NFC.
        categories: Lower case, sorted.
        wikidata_id: Such as ``Q11641``.
        country: As the source says, or None.
        gender: As the source says, or None.
        fame: Larger is more famous (number of Wikipedia articles), or None.
    """

    id: int
    key: str
    name: str
    categories: tuple[str, ...] = ()
    wikidata_id: str | None = None
    country: str | None = None
    gender: str | None = None
    fame: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Portrait:
    """One picture of one person.

    Attributes:
        id: Never given to another portrait.
        person_id: Whose.
        sha256: Of the original file's bytes, 64 hexadecimal digits.
        thumbnail: Absolute path of the JPEG kept in the gallery.
        width_px: Width of the thumbnail.
        height_px: Height of the thumbnail.
        landmarks: float32 (5, 2), thumbnail pixels, in the order of ``engine.types.Face``.
        box: The face, thumbnail pixels.
        author: Who made the picture, plain text, or None.
        licence: Short name such as ``CC BY-SA 4.0``, or None.
        licence_url: Where the licence is, or None.
        source_url: The page the picture comes from, or None.
    """

    id: int
    person_id: int
    sha256: str
    thumbnail: Path
    width_px: int
    height_px: int
    landmarks: NDArray[np.float32]
    box: Box
    author: str | None = None
    licence: str | None = None
    licence_url: str | None = None
    source_url: str | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A picture that an earlier run did not take, and why."""

    reason: str


def thumbnail_path(portraits_folder: Path, sha256: str) -> Path:
    """Where the thumbnail of the picture with that hash is kept."""
    return portraits_folder / sha256[:2] / f"{sha256}.jpg"
