"""Search in PostgreSQL: the people most like a face, as gallery/index.py finds them.

Three steps, one look at the database each, all at one moment. With p a person's vector (the
direction of the sum of their portraits, of the length that makes ``q . p`` their likeness), x_i
their portraits, and s the largest angle between p and an x_i:

1. The server compares the face q with everybody's p; or, where there are so many that they are
   indexed (gallery/postgres/vectors.py), with the hundred that HNSW proposes. That is the
   likeness but for somebody of whom the gallery holds nearly the same picture, and bounds that:
   the angle between q and any x_i is at least that between q and p, less s.
2. If many are left whose bound reaches the k-th likeness, the server compares q with their x_i.
3. The few that still may be among the first k are fetched and compared here, in float64.

So without the index the answer is that of comparing everything in float64, number by number. With
it somebody may be passed over; who is found has the same likeness. A choice of people (a category)
is always compared whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, select, text

from engine.types import Embedding, Space
from gallery.likeness import SAME_PHOTO_STRETCH, SHORTEST_SUM, evened_norms, person_cosines
from gallery.postgres.vectors import (
    INDEXED_DIMENSIONS,
    has_index,
    indexed_vector,
    unpacked,
    vectors_of_people,
)
from gallery.records import Hit
from gallery.searching.comparison import check_space, compared, rank
from gallery.tables import SpaceRow

__all__ = ["PostgresIndex"]

_CANDIDATES: Final = 100  # whom HNSW proposes, at least
_CANDIDATES_PER_HIT: Final = 10
_BEAM: Final = 400  # hnsw.ef_search: among so many it looks; benchmarks/postgres_search.py
_WIDEST_BEAM: Final = 1_000  # that pgvector knows
_LONGEST: Final = 1.001  # of a unit vector (engine.types.Embedding)
_FETCH_BYTES: Final = 500_000  # fewer are fetched at once rather than compared by the server first
_PEOPLE_AT_ONCE: Final = 256
_NEARNESS_ROUNDING: Final = 1e-6

_PERSON: Final = np.dtype(
    [
        ("person", ">i4"),
        ("portraits", ">i4"),
        ("sum_norm", ">f8"),
        ("length", ">f8"),
        ("nearness", ">f8"),
    ]
)
_PRODUCT: Final = np.dtype([("person", ">i4"), ("product", ">f8")])

_PEOPLE = text(
    "SELECT string_agg(int4send(person_id) || int4send(portraits) || float8send(sum_norm) || "
    "float8send(length) || float8send(nearness), ''::bytea ORDER BY person_id) "
    "FROM person_vector WHERE space_id = :space"
)
_EVERYBODY = "SELECT person_id, vector FROM person_vector WHERE space_id = :space"
_CHOSEN = f"{_EVERYBODY} AND person_id = ANY(CAST(:ids AS integer[]))"
_COMPARED = (
    "SELECT (SELECT generation FROM space WHERE id = :space) AS generation, "
    "string_agg(int4send(person_id) || float8send(-(vector <#> CAST(:query AS vector))), "
    "''::bytea ORDER BY person_id) AS cosines FROM ({people}) AS people"
)
_PORTRAITS = text(
    "SELECT string_agg(int4send(person_id) || float8send(-(vector <#> CAST(:query AS vector))), "
    "''::bytea ORDER BY person_id, portrait_id) FROM portrait_vector WHERE space_id = :space "
    "AND person_id = ANY(CAST(:ids AS integer[]))"
)
_PORTRAIT_IDS = text(
    "SELECT string_agg(int4send(portrait_id), ''::bytea ORDER BY person_id, portrait_id) "
    "FROM portrait_vector WHERE space_id = :space AND person_id = ANY(CAST(:ids AS integer[]))"
)
# The planner takes comparing with everybody for cheap, not knowing how long vectors are; whatever
# follows may sort as it likes.
_SEARCHING = text(
    "SELECT set_config('hnsw.ef_search', :beam, true), set_config('enable_sort', 'off', true)"
)
_SEARCHED = text("SELECT set_config('enable_sort', 'on', true)")


@dataclass(frozen=True, slots=True, eq=False)
class _People:
    """Who is in a space at one moment, by rising id; every array is (P,).

    Attributes:
        generation: Of the space; another one means others.
        ids: int64.
        portraits: int64, how many each has.
        norms: From ``evened_norms``.
        gains: What ``evened_norms`` makes of a cosine with their sum; 0 if that has no direction.
        lengths: Of their vectors.
        angles: The largest between somebody's vector and portraits, radians.
        indexed: Whether HNSW can find them.
    """

    generation: int | None
    ids: NDArray[np.int64]
    portraits: NDArray[np.int64]
    norms: NDArray[np.float64]
    gains: NDArray[np.float64]
    lengths: NDArray[np.float64]
    angles: NDArray[np.float64]
    indexed: bool

    @classmethod
    def read(cls, connection: Connection, space: Space) -> _People:
        rows = unpacked(connection.scalar(_PEOPLE, {"space": space.id}), _PERSON)
        query = select(SpaceRow.generation).where(SpaceRow.id == space.id)
        portraits = rows["portraits"].astype(np.int64)
        sum_norms = rows["sum_norm"].astype(np.float64)
        lengths = rows["length"].astype(np.float64)
        norms = evened_norms(sum_norms, portraits, space.backbone)
        return cls(
            generation=connection.scalar(query),
            ids=rows["person"].astype(np.int64),
            portraits=portraits,
            norms=norms,
            gains=np.where(lengths > 0, sum_norms / np.maximum(norms, SHORTEST_SUM), 0.0),
            lengths=lengths,
            angles=np.arccos(np.clip(rows["nearness"] - _NEARNESS_ROUNDING, -1.0, 1.0)),
            indexed=has_index(connection, space),
        )

    def bounds(
        self, places: NDArray[np.intp], products: NDArray[np.float64], rounding: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The least and the highest that the likeness to some people can be.

        Args:
            places: (n,), who.
            products: (n,), the face's with their vectors.
            rounding: What these may be off.
        """
        lengths = self.lengths[places]
        pointing = lengths > 0
        cosines = products / np.where(pointing, lengths, 1.0)
        angles = np.arccos(np.clip(cosines + rounding, -1.0, 1.0)) - self.angles[places]
        best = _LONGEST * np.cos(np.maximum(angles, 0.0))
        mean = cosines * self.gains[places]
        most = np.maximum(mean, 1.0 - SAME_PHOTO_STRETCH * (1.0 - best)) + rounding
        return np.where(pointing, mean - rounding, -1.0), np.where(pointing, most, 1.0)


class PostgresIndex:
    """One space's people; see ``gallery.storage.SearchIndex``. Threads share it.

    Who is in it stays as it was at the beginning; what is found is as of now.

    Args:
        database: From ``gallery.postgres.server.connect``.
        space: Whose vectors.
    """

    def __init__(self, database: Engine, space: Space) -> None:
        self.space = space
        self._database = database
        # Inner products of float32, added up one after the other at worst; twice, because the
        # people's vectors are divided by lengths of more than a half.
        self._rounding = 2 * (space.dimensions + 8) * 2.0**-24
        with self._database.connect() as connection:
            self._first = self._latest = _People.read(connection, space)

    @property
    def person_ids(self) -> NDArray[np.int64]:
        """Who was here at the beginning: int64, rising."""
        return self._first.ids

    @property
    def portrait_ids(self) -> NDArray[np.int64]:
        """Their portraits as of now: int64, by person, then rising."""
        with self._database.connect() as connection:
            values = {"space": self.space.id, "ids": self.person_ids.tolist()}
            ids = unpacked(connection.scalar(_PORTRAIT_IDS, values), np.dtype(">i4"))
        return ids.astype(np.int64)

    def __len__(self) -> int:
        """How many people could be found at the beginning."""
        return len(self._first.ids)

    def training_rows(self, limit: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See ``gallery.index.GalleryIndex.training_rows``."""
        every = max(1, -(-int(self._first.portraits.sum()) // limit))
        chosen = self.person_ids[::every]
        vectors, whose = [np.empty((0, self.space.dimensions), np.float32)], [chosen[:0]]
        with self._database.connect() as connection:
            for some in _blocks(chosen):
                records = vectors_of_people(connection, self.space, some.tolist())
                vectors.append(records["vector"].astype(np.float32))
                whose.append(records["person"].astype(np.int64))
        return np.concatenate(vectors), np.concatenate(whose)

    def top(
        self, query: Embedding, k: int, *, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[Hit, ...]:
        """See ``gallery.index.GalleryIndex.top``."""
        check_space(query, self.space)
        if k < 1:
            raise ValueError("at least one person must be asked for")
        chosen = None if allowed is None else self.person_ids[allowed]
        with self._database.connect() as connection:
            people, places, products = self._seen(connection, query.vector, k, chosen)
            least, most = people.bounds(places, products, self._rounding)
            places = places[_possible(least, most, k)]
            size_bytes = 4 * self.space.dimensions * int(people.portraits[places].sum())
            if size_bytes > _FETCH_BYTES and len(places) > k:
                places = self._sifted(connection, people, places, query.vector, k)
            hits = self._compared(connection, people, places, query.vector)
        return tuple(hits[:k])

    def likenesses(self, query: Embedding, person_ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """See ``gallery.index.GalleryIndex.likenesses``."""
        check_space(query, self.space)
        with self._database.connect() as connection:
            people = self._now(connection)
            places = np.flatnonzero(np.isin(people.ids, person_ids))
            hits = self._compared(connection, people, places, query.vector)
        cosines = {hit.person_id: hit.cosine for hit in hits}
        return np.array([cosines.get(one, np.nan) for one in person_ids.tolist()], np.float64)

    def _now(self, connection: Connection) -> _People:
        """Who is here as this connection sees it."""
        query = select(SpaceRow.generation).where(SpaceRow.id == self.space.id)
        here = self._latest
        if connection.scalar(query) != here.generation:
            here = self._latest = _People.read(connection, self.space)
        return here

    def _seen(
        self,
        connection: Connection,
        vector: NDArray[np.float32],
        k: int,
        chosen: NDArray[np.int64] | None,
    ) -> tuple[_People, NDArray[np.intp], NDArray[np.float64]]:
        """Those who may be found, rising, and the face's inner products with their vectors."""
        values: dict[str, object] = {"query": _written(vector)}
        candidates = max(_CANDIDATES, _CANDIDATES_PER_HIT * k)
        if chosen is not None:
            return self._asked(connection, _CHOSEN, values | {"ids": chosen.tolist()})
        if self._latest.indexed and candidates <= _WIDEST_BEAM:
            connection.execute(_SEARCHING, {"beam": str(max(_BEAM, candidates))})
            near = {"near": _written(vector[:INDEXED_DIMENSIONS]), "candidates": candidates}
            people, places, products = self._asked(connection, self._nearest(), values | near)
            connection.execute(_SEARCHED)
            if len(places) >= min(candidates, len(people.ids)):
                return people, places, products
            # Else the index is full of people who were removed, until the server cleans it up.
        return self._asked(connection, _EVERYBODY, values)

    def _asked(
        self, connection: Connection, people: str, values: dict[str, object]
    ) -> tuple[_People, NDArray[np.intp], NDArray[np.float64]]:
        """What ``_seen`` returns, of the people that some SQL finds."""
        here = self._latest
        query = text(_COMPARED.format(people=people))
        row = connection.execute(query, values | {"space": self.space.id}).one()
        if row.generation != here.generation:
            here = self._latest = _People.read(connection, self.space)
        found = unpacked(row.cosines, _PRODUCT)
        places = np.searchsorted(here.ids, found["person"])
        return here, places, found["product"].astype(np.float64)

    def _nearest(self) -> str:
        # The space stands in it literally, else the planner can't tell that its index will do.
        return (
            f"SELECT person_id, vector FROM person_vector WHERE space_id = '{self.space.id}' "  # noqa: S608 - the id is ours
            f"ORDER BY {indexed_vector(self.space)} <#> CAST(:near AS vector) LIMIT :candidates"
        )

    def _sifted(
        self,
        connection: Connection,
        people: _People,
        places: NDArray[np.intp],
        vector: NDArray[np.float32],
        k: int,
    ) -> NDArray[np.intp]:
        """Those among some people who may be the first k, by the server's cosines."""
        ids = people.ids[places].tolist()
        values = {"space": self.space.id, "query": _written(vector), "ids": ids}
        found = unpacked(connection.scalar(_PORTRAITS, values), _PRODUCT)
        cosines = found["product"].astype(np.float64)
        index = np.searchsorted(people.ids[places], found["person"])
        likenesses = person_cosines(cosines, index, people.norms[places])
        rounding = SAME_PHOTO_STRETCH * self._rounding
        return places[_possible(likenesses - rounding, likenesses + rounding, k)]

    def _compared(
        self,
        connection: Connection,
        people: _People,
        places: NDArray[np.intp],
        vector: NDArray[np.float32],
    ) -> list[Hit]:
        """Likenesses in float64, best first."""
        hits: list[Hit] = []
        for some in _blocks(places):
            records = vectors_of_people(connection, self.space, people.ids[some].tolist())
            hits += compared(
                vector,
                records["vector"],
                records["person"],
                records["portrait"],
                people.norms[some],
            )
        return sorted(hits, key=rank)


def _possible(least: NDArray[np.floating], most: NDArray[np.floating], k: int) -> NDArray[np.intp]:
    """Who may be among the k highest, if everybody is between their bounds."""
    if len(least) <= k:
        return np.arange(len(least))
    return np.flatnonzero(most >= np.partition(least, -k)[-k])


def _blocks(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for start in range(0, len(values), _PEOPLE_AT_ONCE):
        yield values[start : start + _PEOPLE_AT_ONCE]


def _written(vector: NDArray[np.float32]) -> str:
    """A vector as pgvector reads it; bound as a value, so that no server log quotes it."""
    return str(vector.tolist())
