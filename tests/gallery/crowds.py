"""Galleries of many made-up people, without pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, func, insert, select

from engine.types import Embedding, Space
from gallery.gallery import Gallery
from gallery.tables import CATEGORIES, MEMBERS, PEOPLE, PORTRAITS

__all__ = ["Crowd", "enrolled", "found", "unit"]

BACKBONES = {128: "dlib", 2048: "resnet"}
BATCH = 500


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Vectors of length 1."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / lengths).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Crowd:
    """People around centres: vectors (N, D) by person, and whose they are, 0 to people - 1."""

    space: Space
    vectors: NDArray[np.float32]
    owners: NDArray[np.int64]

    @classmethod
    def of(
        cls, dimensions: int, people: int, *, most_portraits: int = 3, falling: float = 0.0
    ) -> Crowd:
        """Person number n has 1 + n % most_portraits portraits.

        Args:
            dimensions: Of a vector.
            people: How many.
            most_portraits: Of one person.
            falling: 0 spreads them alike in all directions, 1 as faces are: mostly in a few.
        """
        rng = np.random.default_rng(dimensions)
        scale = np.arange(1, dimensions + 1) ** (-falling / 2)
        centres = rng.standard_normal((people, dimensions)) * scale
        owners = np.repeat(np.arange(people), 1 + np.arange(people) % most_portraits)
        noise = rng.standard_normal((len(owners), dimensions)) * scale
        space = Space(BACKBONES.get(dimensions, "senet"), "c" * 64, 1, dimensions)
        return cls(space, unit(centres[owners] + 0.6 * noise), owners)

    def queries(self, count: int) -> list[Embedding]:
        """By turns somebody's other photo, a photo that the gallery holds, and a stranger."""
        rng = np.random.default_rng(count)
        queries = []
        for number in range(count):
            photo = self.vectors[rng.integers(len(self.vectors))]
            other = self.vectors[rng.integers(len(self.vectors), size=8)]
            mixed = photo + 0.4 * other[0], photo, rng.standard_normal(8) @ other
            queries.append(Embedding(unit(mixed[number % 3]), self.space))
        return queries


def enrolled(gallery: Gallery, crowd: Crowd) -> Gallery:
    """Adds everybody, in batches; odd numbers are in the category odd, the others in even."""
    people = int(crowd.owners[-1]) + 1
    for start in range(0, people, BATCH):
        with gallery.writing(), gallery.transaction() as changes:
            numbers = range(start, min(start + BATCH, people))
            first = _people(changes.connection, numbers)
            rows = np.flatnonzero(np.isin(crowd.owners, numbers))
            owners = (crowd.owners[rows] - start + first).tolist()
            portraits = [_blank(*one) for one in zip(owners, rows.tolist(), strict=True)]
            query = insert(PORTRAITS).returning(PORTRAITS.c.id, sort_by_parameter_order=True)
            made = changes.connection.scalars(query, portraits).all()
            changes.add_vectors(crowd.space, crowd.vectors[rows], made)
    gallery.refresh()
    return gallery


def _people(connection: Connection, numbers: Sequence[int]) -> int:
    """Adds people whose ids follow each other; the first of them."""
    first = 1 + (connection.scalar(select(func.max(PEOPLE.c.id))) or 0)
    kinds = ("even", "odd")
    if connection.scalar(select(func.count()).select_from(CATEGORIES)) == 0:
        rows = [{"id": 1 + number, "name": kind} for number, kind in enumerate(kinds)]
        connection.execute(insert(CATEGORIES), rows)
    people = [
        {"id": first + place, "key": f"key {n}", "name": f"Name {n}", "folded_name": f"name {n}"}
        for place, n in enumerate(numbers)
    ]
    connection.execute(insert(PEOPLE), people)
    joined = [
        {"person_id": first + place, "category_id": 1 + n % 2} for place, n in enumerate(numbers)
    ]
    connection.execute(insert(MEMBERS), joined)
    return first


def found(
    gallery: Gallery, query: Embedding, k: int, category: str | None = None
) -> list[tuple[str, float, str]]:
    """Who is found, how alike, by which portrait."""
    matches = gallery.top_matches(query, k, category=category)
    return [(match.person.key, match.cosine, match.portrait.sha256) for match in matches]


def _blank(person_id: int, row: int) -> dict[str, object]:
    box = {"box_x": 0.0, "box_y": 0.0, "box_w": 1.0, "box_h": 1.0}
    sha256 = hashlib.sha256(str(row).encode()).hexdigest()
    size = {"width_px": 1, "height_px": 1, "landmarks": [[0.0, 0.0]] * 5}
    return {"person_id": person_id, "sha256": sha256, **box, **size}
