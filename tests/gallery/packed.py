"""Made-up galleries to carry about, and all that is in one."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.types import Box, Space
from gallery.gallery import Gallery
from gallery.records import FoundPerson, FoundPortrait, Thumbnail

__all__ = ["DLIB", "RESNET", "everything", "fill", "jpeg", "units"]

RESNET = Space("resnet", "ab" * 32, 1, 2048)
DLIB = Space("dlib", "cd" * 32, 2, 128)


def jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    colour = (number * 37 % 256, number * 91 % 256, number % 256)
    Image.new("RGB", (48, 60), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def units(rng: np.random.Generator, count: int, dimensions: int) -> NDArray[np.float32]:
    vectors = rng.standard_normal((count, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def fill(gallery: Gallery, people: int, portraits: int, *spaces: Space, seed: int = 0) -> None:
    """Made-up people; every fifth portrait lacks a vector in the last of several spaces."""
    rng = np.random.default_rng(seed)
    with gallery.writing(), gallery.transaction() as changes:
        ids = []
        for number in range(people):
            person = FoundPerson(
                key=f"Q{number + 1}",
                name=f"Persón {number}",
                categories=("film",) if number % 2 else ("film", "sports"),
                wikidata_id=f"Q{number + 1}",
                country="Elbonia",
                gender="female",
                fame=number,
            )
            owner = changes.add_person(person)
            for one in range(portraits):
                digest = f"{seed * 10**9 + number * 1000 + one:064x}"
                found = FoundPortrait(
                    person,
                    "",
                    lambda _: b"",
                    author="A. Uthor",
                    licence="CC BY 4.0",
                    licence_url="https://creativecommons.org/licenses/by/4.0",
                    source_url=f"https://example.org/{number}/{one}",
                )
                ids.append(
                    changes.add_portrait(
                        owner,
                        found,
                        digest,
                        Thumbnail(
                            jpeg(number * portraits + one),
                            *(48, 60),
                            (20 + 10 * rng.random((5, 2))).astype(np.float32),
                            Box(10.5, 12.25, 20.0, 30.0),
                        ),
                    )
                )
        for space in spaces:
            keep = np.array([n % 5 != 4 or space is spaces[0] for n in range(len(ids))])
            changes.add_vectors(
                space,
                units(rng, int(keep.sum()), space.dimensions),
                np.asarray(ids)[keep].tolist(),
            )
    gallery.refresh()


def everything(gallery: Gallery, *, pictures: bool = True) -> object:
    """All there is, without ids, in an order that does not depend on them."""
    people = {person.id: person for person in gallery.people()}
    portraits = gallery.portraits_by_id(gallery.portrait_ids().tolist())
    vectors: dict[str, dict[str, list[float]]] = {}
    for space in gallery.spaces():
        ids = gallery.embedded(space)
        rows = gallery.vectors(space, ids)
        vectors[space.id] = {
            portraits[one].sha256: row.tolist() for one, row in zip(ids.tolist(), rows, strict=True)
        }
    return (
        sorted(
            (p.key, p.name, p.categories, p.wikidata_id, p.country, p.gender, p.fame or 0)
            for p in people.values()
        ),
        sorted(
            (
                p.sha256,
                people[p.person_id].key,
                (p.width_px, p.height_px),
                p.landmarks.tolist(),
                (p.box.x, p.box.y, p.box.w, p.box.h),
                (p.author, p.licence, p.licence_url, p.source_url),
                gallery.photo(p) if pictures else b"",
            )
            for p in portraits.values()
        ),
        vectors,
        gallery.banned(),
    )
