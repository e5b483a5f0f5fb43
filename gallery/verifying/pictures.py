"""Whether every portrait's picture is what the catalogue says, and shows one face."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.decode import decode
from engine.engine import Engine
from engine.errors import LookalikeError, SetupProblem
from engine.types import Box, Concern, Face, Photo, Space
from gallery.gallery import Gallery
from gallery.progress import Progress
from gallery.records import Portrait
from gallery.silhouette import lacks_photo
from gallery.verifying.findings import Finding, Kind, Remedy, Subject
from gallery.verifying.storage import Roster

__all__ = ["picture_findings", "subject"]

_BATCH: Final = 64
_SAMPLE: Final = 256  # pictures whose vectors are made again, to compare
_SAME_FACE: Final = 0.3  # boxes that share this part of what they cover are one face
_COMPARABLE: Final = 0.4  # another face with so much of the area; gallery.screen asks the same
_SAME_VECTOR: Final = 0.95
"""A vector made again from the thumbnail has at least this cosine with the stored one, which was
made from the original: 0.9985 at worst among 150 photos with dlib."""
_MOST_OTHERS: Final = 0.05  # if more of the sample differ, it is the vectors, not the pictures


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """What was seen in a picture."""

    portrait: Portrait
    problem: str | None = None
    face_there: bool = True
    turned: bool = False
    others: tuple[float, ...] = ()  # areas of further faces, relative to the portrait's
    crops: dict[str, NDArray[np.uint8]] = field(default_factory=dict)


def subject(gallery: Gallery, portrait: Portrait, names: dict[int, str]) -> Subject:
    """Whose portrait it is, and where people can see its picture."""
    gallery.storage.present([portrait])
    name = names.get(portrait.person_id, "somebody")
    return Subject(portrait.person_id, name, portrait.id, str(portrait.thumbnail))


def picture_findings(
    gallery: Gallery,
    engine: Engine,
    everybody: Roster,
    spaces: Sequence[Space],
    progress: Progress,
) -> tuple[list[Finding], frozenset[int]]:
    """Unreadable pictures, faces that are not there, several faces, vectors of other pictures.

    Portraits that came without their photo are passed over.

    Args:
        gallery: Whose.
        engine: Sees, and embeds a sample.
        everybody: Whose pictures.
        spaces: Those whose vectors are compared with vectors made again; usable ones.
        progress: Told about every batch.

    Returns:
        What is wrong, and the ids of portraits whose face is turned away, so that it is hard to
        compare.
    """
    found: list[Finding] = []
    turned: set[int] = set()
    differing: dict[Space, list[Finding]] = {space: [] for space in spaces}
    compared = dict.fromkeys(spaces, 0)
    ids = np.sort(everybody.portrait_ids)
    sample = set(ids[:: max(1, -(-len(ids) // _SAMPLE))].tolist()) if spaces else set()

    def look(portrait: Portrait) -> _Look:
        return _looked(gallery, engine, portrait, spaces if portrait.id in sample else ())

    with ThreadPoolExecutor(thread_name_prefix="verify") as pool:
        for start in range(0, len(ids), _BATCH):
            batch = gallery.catalogue.portraits_by_id(ids[start : start + _BATCH].tolist())
            shown = [one for one in batch.values() if not lacks_photo(gallery, one)]
            looks = list(pool.map(look, shown))
            for one in looks:
                found += _seen(gallery, one, everybody.names)
                if one.turned:
                    turned.add(one.portrait.id)
            for space in spaces:
                picked = [one for one in looks if space.backbone in one.crops]
                compared[space] += len(picked)
                differing[space] += _differing(gallery, engine, space, picked, everybody.names)
            progress("pictures", min(start + _BATCH, len(ids)), len(ids))
    for space, others in differing.items():
        if len(others) > max(1.0, _MOST_OTHERS * compared[space]):
            why = f"vectors of {space.backbone}: {len(others):,} of {compared[space]:,} tried are "
            why += "not those of their pictures"
            found.append(Finding(Kind.VECTORS, why, len(others), Remedy.REBUILD, space_id=space.id))
        else:
            found += others
    return found, frozenset(turned)


def _looked(gallery: Gallery, engine: Engine, portrait: Portrait, spaces: Sequence[Space]) -> _Look:
    try:
        photo = decode(gallery.picture(portrait))  # the settings limit what others send
    except SetupProblem:
        raise
    except (OSError, LookalikeError) as problem:
        return _Look(portrait, f"it can't be read ({problem})")
    size, wanted = (photo.width_px, photo.height_px), (portrait.width_px, portrait.height_px)
    if photo.format != "JPEG" or size != wanted:
        is_now = f"{photo.format} of {size[0]} x {size[1]} px"
        return _Look(portrait, f"it is a {is_now}, not a JPEG of {wanted[0]} x {wanted[1]}")
    faces = engine.detect(photo)
    there = [_shared(face.box, portrait.box) >= _SAME_FACE for face in faces]
    others = tuple(
        face.box.area_px / portrait.box.area_px
        for face, same in zip(faces, there, strict=True)
        if not same
        and Concern.SMALL not in face.concerns
        and face.box.area_px >= _COMPARABLE * portrait.box.area_px
    )
    turned = any(
        same and Concern.TURNED in face.concerns for face, same in zip(faces, there, strict=True)
    )
    crops = _crops(engine, photo, portrait, spaces)
    return _Look(portrait, None, any(there), turned, others, crops)


def _crops(
    engine: Engine, photo: Photo, portrait: Portrait, spaces: Sequence[Space]
) -> dict[str, NDArray[np.uint8]]:
    face = Face(portrait.box, portrait.landmarks, confidence=1.0)
    return {space.backbone: engine.backbone(space.backbone).crop(photo, face) for space in spaces}


def _seen(gallery: Gallery, one: _Look, names: dict[int, str]) -> list[Finding]:
    whose = subject(gallery, one.portrait, names)
    if one.problem is not None:
        return [Finding(Kind.PICTURE, one.problem, 0, Remedy.FORGET, whose)]
    if not one.face_there:
        why = "no face is found where the catalogue says there is one"
        return [Finding(Kind.FACE, why, 0, Remedy.NONE, whose)]
    if one.others:
        largest = max(one.others)
        more = f"{len(one.others)} more faces" if len(one.others) > 1 else "another face"
        why = f"{more} in it, {largest:.0%} as large as the portrait's"
        return [Finding(Kind.FACES, why, largest, Remedy.NONE, whose)]
    return []


def _differing(
    gallery: Gallery, engine: Engine, space: Space, looks: Sequence[_Look], names: dict[int, str]
) -> list[Finding]:
    """Portraits whose stored vector is not that of their picture."""
    stored = set(gallery.embedded(space).tolist()) if looks else set()
    looks = [one for one in looks if one.portrait.id in stored]
    if not looks:
        return []
    made = engine.backbone(space.backbone).embed([one.crops[space.backbone] for one in looks])
    ids = np.asarray([one.portrait.id for one in looks], np.int64)
    cosines = np.sum(np.stack([e.vector for e in made]) * gallery.vectors(space, ids), axis=1)
    return [
        Finding(
            Kind.OTHER_VECTOR,
            f"its vector of {space.backbone} is not that of its picture (cosine {cosine:.2f}, "
            "usually 0.99 and more)",
            float(cosine),
            Remedy.FORGET,
            subject(gallery, one.portrait, names),
            space_id=space.id,
        )
        for one, cosine in zip(looks, cosines.tolist(), strict=True)
        if not cosine >= _SAME_VECTOR
    ]


def _shared(one: Box, other: Box) -> float:
    """Intersection over union, in [0, 1]."""
    across = min(one.x + one.w, other.x + other.w) - max(one.x, other.x)
    down = min(one.y + one.h, other.y + other.h) - max(one.y, other.y)
    both = max(0.0, across) * max(0.0, down)
    return both / (one.area_px + other.area_px - both)
