"""People and portraits as lines of JSON, written for anybody and read from nobody trusted.

Whatever a line holds beyond what a gallery could have written is an error; what would only be
ugly (control characters, a link that is none) is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from engine.backbones import BACKBONES
from engine.types import Box, Space
from gallery.packing.contents import PackedPortrait, PackedSpace, StaysAway
from gallery.packing.fields import (
    MOST_CATEGORIES,
    MOST_FAME,
    coordinate,
    link,
    maybe,
    name_of,
    numbers,
    sha256_of,
    text,
    whole_number,
    wikidata_id,
)
from gallery.records import FoundPerson
from gallery.scores import Calibration

__all__ = [
    "MOST_LINE_BYTES",
    "MOST_PHOTO_BYTES",
    "line_of",
    "parsed",
    "person_of",
    "person_record",
    "portrait_of",
    "portrait_record",
    "space_of",
    "space_record",
    "stays_away_of",
    "stays_away_record",
]

MOST_LINE_BYTES: Final = 64_000
MOST_PHOTO_BYTES: Final = 4_000_000  # of a thumbnail, which is 512 px wide and 100 kB at most

_MOST_EDGE_PX: Final = 2_000  # larger ones would be reduced when they are decoded


def line_of(record: Mapping[str, Any]) -> bytes:
    """One line of JSON, without what is not known."""
    known = {name: value for name, value in record.items() if value is not None}
    return json.dumps(known, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def parsed(text: bytes) -> dict[str, Any]:
    """The object that JSON describes.

    Raises:
        ValueError: If it describes none, numbers that are none, or is nested beyond reason.
    """
    try:
        content = json.loads(text.decode("utf-8"), parse_constant=_no_number)
    except RecursionError as problem:
        raise ValueError("nested beyond reason") from problem
    if not isinstance(content, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - every fault of a file is a ValueError
    return content


def person_record(person: FoundPerson) -> dict[str, Any]:
    """A person, for ``line_of``."""
    return {
        "key": person.key,
        "name": person.name,
        "categories": list(person.categories) or None,
        "wikidata_id": person.wikidata_id,
        "country": person.country,
        "gender": person.gender,
        "fame": person.fame,
    }


def person_of(record: Mapping[str, Any]) -> FoundPerson:
    """The person of a record.

    Raises:
        ValueError: If something is missing, too long or of another type.
    """
    categories = record.get("categories", [])
    if not isinstance(categories, list) or len(categories) > MOST_CATEGORIES:
        raise ValueError("categories are no short list")
    fame = record.get("fame")
    return FoundPerson(
        key=text(record, "key"),
        name=name_of(record),
        categories=tuple(text({"category": one}, "category") for one in categories),
        wikidata_id=wikidata_id(record),
        country=maybe(record, "country"),
        gender=maybe(record, "gender"),
        fame=None if fame is None else whole_number(fame, MOST_FAME),
    )


def portrait_record(
    portrait: PackedPortrait, person_key: str, photo: tuple[int, str] | None
) -> dict[str, Any]:
    """A portrait, for ``line_of``.

    Args:
        portrait: What is known of it.
        person_key: Whose.
        photo: Bytes and SHA-256 of the thumbnail, if it comes along.
    """
    box = portrait.box
    return {
        "sha256": portrait.sha256,
        "person": person_key,
        "size_px": [portrait.width_px, portrait.height_px],
        "landmarks": np.asarray(portrait.landmarks, np.float64).tolist(),
        "box": [float(side) for side in (box.x, box.y, box.w, box.h)],
        "author": portrait.author,
        "license": portrait.licence,
        "license_url": portrait.licence_url,
        "source_url": portrait.source_url,
        "photo": None if photo is None else {"bytes": photo[0], "sha256": photo[1]},
    }


def portrait_of(
    record: Mapping[str, Any], photo_reader: Callable[[str, int, str], Callable[[], bytes | None]]
) -> tuple[PackedPortrait, str]:
    """The portrait of a record, and the key of whose it is.

    Args:
        record: As parsed.
        photo_reader: Given the portrait's hash, and bytes and SHA-256 of its photo, makes what
            reads the photo; raises ValueError if there is none.

    Raises:
        ValueError: If something is missing, too long or of another type.
    """
    sha256 = sha256_of(record.get("sha256"))
    width, height = (whole_number(one, _MOST_EDGE_PX, 1) for one in numbers(record, "size_px", 2))
    landmarks = record.get("landmarks")
    if not isinstance(landmarks, list) or len(landmarks) != 5:
        raise ValueError("there are no five landmarks")
    points = [[coordinate(x) for x in numbers({"p": point}, "p", 2)] for point in landmarks]
    photo = record.get("photo")
    reader = None
    if photo is not None:
        if not isinstance(photo, dict):
            raise ValueError("a photo without size and hash")
        size = whole_number(photo.get("bytes"), MOST_PHOTO_BYTES, 1)
        reader = photo_reader(sha256, size, sha256_of(photo.get("sha256")))
    portrait = PackedPortrait(
        sha256=sha256,
        width_px=width,
        height_px=height,
        landmarks=np.asarray(points, np.float32),
        box=Box(*(coordinate(one) for one in numbers(record, "box", 4))),
        author=maybe(record, "author"),
        licence=maybe(record, "license"),
        licence_url=link(record, "license_url"),
        source_url=link(record, "source_url"),
        photo=reader,
    )
    return portrait, text({"key": record.get("person")}, "key")


def stays_away_record(one: StaysAway) -> dict[str, Any]:
    """Somebody who was removed for good, for ``line_of``."""
    return {"key": one.key, "name": one.name, "wikidata_id": one.wikidata_id}


def stays_away_of(record: Mapping[str, Any]) -> StaysAway:
    """Somebody who was removed for good.

    Raises:
        ValueError: If something is missing, too long or of another type.
    """
    return StaysAway(text(record, "key"), name_of(record), wikidata_id(record))


def space_record(packed: PackedSpace) -> dict[str, Any]:
    """A space, for the manifest."""
    space, calibration = packed.space, packed.calibration
    return {
        "backbone": space.backbone,
        "weights_sha256": space.weights_sha256,
        "recipe": space.recipe,
        "dimensions": space.dimensions,
        "rows": packed.rows,
        "calibration": None if calibration is None else calibration.to_json(),
    }


def space_of(record: Any) -> PackedSpace:
    """A space as the manifest describes it.

    Raises:
        ValueError: If this program knows no such backbone, or something makes no sense.
    """
    if not isinstance(record, dict):
        raise ValueError("a space without description")  # noqa: TRY004 - as above
    known = BACKBONES.get(str(record.get("backbone")))
    if known is None:
        raise ValueError(f"unknown backbone {str(record.get('backbone'))[:40]!r}")
    space = Space(
        known.name,
        sha256_of(record.get("weights_sha256")),
        whole_number(record.get("recipe"), 1_000_000),
        whole_number(record.get("dimensions"), 65_536, 1),
    )
    if space.dimensions != known.dimensions:
        raise ValueError(f"vectors of {known.name} have {known.dimensions} dimensions")
    learned = record.get("calibration")
    try:
        calibration = None if learned is None else Calibration.from_json(learned)
    except (KeyError, TypeError, OverflowError, AttributeError) as problem:
        raise ValueError("a calibration that makes no sense") from problem
    if calibration is not None and calibration.space_id != space.id:
        raise ValueError("a calibration of another space")
    return PackedSpace(space, whole_number(record.get("rows"), 2**40), calibration)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")
