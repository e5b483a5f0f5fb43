"""People who exist as vectors only, written straight into a gallery's spaces."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import delete, insert

from engine.types import Box, Space
from gallery.gallery import Gallery
from gallery.records import FoundPerson, FoundPortrait, Portrait, Thumbnail
from gallery.tables import THUMBNAILS

__all__ = ["MadeUp", "alike", "bad", "fill", "independent", "person_ids", "put_photo", "unit"]

MadeUp = dict[str, NDArray[np.float32]]
"""Vectors by backbone, row by row of the same portraits."""

DIMENSIONS = 64
NOISE = 1.2
SHA256 = "c" * 64


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / length, np.float32)


def person_ids(people: int, portraits: int) -> NDArray[np.int64]:
    return np.repeat(np.arange(people), portraits)


def _faces(whose: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
    """A direction for each person, one for everybody, and what each picture adds."""
    rng = np.random.default_rng([seed, len(whose)])
    people = rng.standard_normal((int(whose.max()) + 1, DIMENSIONS))
    return unit(people[whose] + NOISE * rng.standard_normal((len(whose), DIMENSIONS)) + 0.5)


def independent(whose: NDArray[np.int64]) -> MadeUp:
    """Two networks that err on different pictures."""
    return {"resnet": _faces(whose, 1), "senet": _faces(whose, 2)}


def alike(whose: NDArray[np.int64]) -> MadeUp:
    """Two networks that are the same."""
    return {"resnet": _faces(whose, 1), "senet": _faces(whose, 1)}


def bad(whose: NDArray[np.int64]) -> MadeUp:
    """One that knows people and one that sees noise."""
    noise = np.random.default_rng([3, len(whose)]).standard_normal((len(whose), DIMENSIONS))
    return {"resnet": _faces(whose, 1), "senet": unit(noise)}


def fill(
    gallery: Gallery,
    make: Callable[[NDArray[np.int64]], MadeUp],
    *,
    people: int,
    portraits: int,
    spaces: Mapping[str, Space] | None = None,
) -> None:
    """Adds people with those vectors and a picture of nothing each.

    Args:
        gallery: Where.
        make: Gives the vectors, by backbone.
        people: How many more.
        portraits: Of each.
        spaces: By backbone; made-up ones in place of None.
    """
    known = gallery.stats().people
    whose = person_ids(people, portraits)
    buffer = io.BytesIO()
    Image.new("RGB", (112, 112), "teal").save(buffer, "JPEG")
    landmarks = np.array([[40, 45], [70, 45], [55, 65], [43, 85], [67, 85]], np.float32)
    with gallery.writing(), gallery.transaction() as changes:
        persons, rows = [], []
        for number in range(people):
            name = f"Person {known + number}"
            person = FoundPerson(key=name, name=name)
            persons.append(changes.add_person(person))
        for row, owner in enumerate(whose.tolist()):
            portrait_sha256 = f"{known * 100 + row:064x}"
            name = f"Person {known + owner}"
            found = FoundPortrait(
                person=FoundPerson(key=name, name=name),
                origin="",
                read=lambda _: buffer.getvalue(),
            )
            rows.append(
                changes.add_portrait(
                    persons[owner],
                    found,
                    portrait_sha256,
                    Thumbnail(buffer.getvalue(), 112, 112, landmarks, Box(30, 20, 50, 75)),
                )
            )
        for backbone, vectors in make(whose).items():
            made_up = Space(backbone, SHA256, 1, vectors.shape[1])
            space = spaces[backbone] if spaces else made_up
            changes.add_vectors(space, vectors, rows)
    gallery.refresh()


def put_photo(gallery: Gallery, portrait: Portrait, content: bytes | None) -> None:
    """Puts bytes, sound or not, in the place of a portrait's photo; None takes it away."""
    with gallery.transaction() as changes:
        changes.run(delete(THUMBNAILS).where(THUMBNAILS.c.portrait_id == portrait.id))
        if content is not None:
            row = {"portrait_id": portrait.id, "jpeg": content}
            changes.run(insert(THUMBNAILS).values(row))
