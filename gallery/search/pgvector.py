"""Search in PostgreSQL with pgvector: keeps vectors there, and finds the people most like a face.

Three steps, one look at the database each, all at one moment. With p a person's vector (the
direction of the sum of their portraits, of the length that makes ``q . p`` their likeness), x_i
their portraits, and s the largest angle between p and an x_i:

1. The server compares the face q with everybody's p; or, where there are so many that they are
   indexed, with the hundred that HNSW proposes. That is the likeness but for somebody of whom the
   gallery holds nearly the same picture, and bounds that: the angle between q and any x_i is at
   least that between q and p, less s.
2. If many are left whose bound reaches the k-th likeness, the server compares q with their x_i.
3. The few that still may be among the first k are fetched and compared here, in float64.

So without the index the answer is that of comparing everything in float64, number by number. With
it somebody may be passed over; who is found has the same likeness. A choice of people (a category)
is always compared whole.

Numbers come back packed by the server's own send functions, thousands in one value: a row for each
would cost more than the search. Vectors go there by COPY with pgvector's adapter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, func, select, text

from engine.types import Embedding, Space
from gallery.database import masked, told
from gallery.likeness import SAME_PHOTO_STRETCH, SHORTEST_SUM, evened_norms, person_cosines
from gallery.records import Hit
from gallery.search import check_query, compared, rank
from gallery.tables import SpaceRow, VectorRow

INDEXED_DIMENSIONS: Final = 2_000
"""The most that pgvector's HNSW takes. Of longer vectors it sees the first 2,000 numbers, which for
2,048 is 98 % of them: it only proposes people, who are then compared in full."""

INDEX_FROM_NUMBERS: Final = 6_000_000
"""How many numbers the server compares without an index: dimensions and ``_ROW_NUMBERS`` for each
person. That takes 10 ms at either size (22,000 people with 128 dimensions, 2,700 with 2,048), and
with several portraits of 2,048 each up to 50 more, for many people may then have nearly the same
picture. An index finds them in 4 and 15 ms and passes hardly anybody over, at 2,048 in 10,000
people none of 600 among the first three; benchmarks/postgres_search.py."""

_ROW_NUMBERS: Final = 144  # a row costs as much as so many numbers in it
_KEEP_INDEX_FROM: Final = 0.5  # part of that; so that it is not made and dropped time and again
_DENSITY: Final = "m = 24, ef_construction = 128"
"""Denser than pgvector's own 16 and 64: half of those passed over at 2,048 dimensions are found."""

_INDEX_MEMORY_KB: Final = 1_000_000  # for building it; what exceeds that is built slowly, on disk
_BYTES_AT_ONCE: Final = 16_000_000
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

_OWNED = (
    "FROM portrait_vector AS v JOIN portrait ON portrait.id = v.portrait_id "
    "WHERE v.space_id = :space AND "
)
_PACKED = (
    "SELECT string_agg(int4send(portrait.id) || int4send(portrait.person_id) || "
    f"vector_send(v.value), ''::bytea ORDER BY portrait.person_id, portrait.id) {_OWNED}"
)
_OF_PEOPLE = text(_PACKED + "portrait.person_id = ANY(CAST(:ids AS integer[]))")
_OF_PORTRAITS = text(_PACKED + "portrait.id = ANY(CAST(:ids AS integer[]))")
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
    "SELECT string_agg(int4send(portrait.person_id) || "
    "float8send(-(v.value <#> CAST(:query AS vector))), "
    f"''::bytea ORDER BY portrait.person_id, portrait.id) {_OWNED}"
    "portrait.person_id = ANY(CAST(:ids AS integer[]))"
)
_PORTRAIT_IDS = text(
    "SELECT string_agg(int4send(portrait.id), ''::bytea ORDER BY portrait.person_id, portrait.id) "
    f"{_OWNED}portrait.person_id = ANY(CAST(:ids AS integer[]))"
)
# The planner takes comparing with everybody for cheap, not knowing how long vectors are; whatever
# follows may sort as it likes.
_SEARCHING = text(
    "SELECT set_config('hnsw.ef_search', :beam, true), set_config('enable_sort', 'off', true)"
)
_SEARCHED = text("SELECT set_config('enable_sort', 'on', true)")


_FORGET_PEOPLE = text(
    "DELETE FROM person_vector WHERE space_id = :space AND person_id = ANY(CAST(:ids AS integer[]))"
)


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
    """One space's people; see ``gallery.search.SearchIndex``. Threads share it.

    Who is in it stays as it was at the beginning; what is found is as of now.

    Args:
        database: From ``gallery.database.connect_server``.
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
    def generation(self) -> int | None:
        """Of the space, at the beginning."""
        return self._first.generation

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
        """See ``gallery.search.SearchIndex``, here and below."""
        every = max(1, -(-int(self._first.portraits.sum()) // limit))
        chosen = self.person_ids[::every]
        vectors, whose = [np.empty((0, self.space.dimensions), np.float32)], [chosen[:0]]
        with self._database.connect() as connection:
            for some in _blocks(chosen):
                records = _read(connection, self.space, some.tolist())
                vectors.append(records["vector"].astype(np.float32))
                whose.append(records["person"].astype(np.int64))
        return np.concatenate(vectors), np.concatenate(whose)

    def top(
        self, query: Embedding, k: int, *, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[Hit, ...]:
        """By the three steps above."""
        check_query(query, self.space, k)
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
        """Fetched and compared here."""
        check_query(query, self.space)
        with self._database.connect() as connection:
            now = select(SpaceRow.generation).where(SpaceRow.id == self.space.id)
            people = self._now(connection, connection.scalar(now))
            places = np.flatnonzero(np.isin(people.ids, person_ids))
            hits = self._compared(connection, people, places, query.vector)
        cosines = {hit.person_id: hit.cosine for hit in hits}
        return np.array([cosines.get(one, np.nan) for one in person_ids.tolist()], np.float64)

    def _now(self, connection: Connection, generation: int | None) -> _People:
        """Who is here at a generation of the space, as this connection sees it."""
        if generation != self._latest.generation:
            self._latest = _People.read(connection, self.space)
        return self._latest

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
        query = text(_COMPARED.format(people=people))
        row = connection.execute(query, values | {"space": self.space.id}).one()
        here = self._now(connection, row.generation)
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
            records = _read(connection, self.space, people.ids[some].tolist())
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


def unpacked(content: bytes | None, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Packed records: (N,) of that type, in the server's byte order."""
    return np.frombuffer(content or b"", dtype=dtype)


def _read(
    connection: Connection, space: Space, ids: Sequence[int], query: Any = _OF_PEOPLE
) -> NDArray[Any]:
    """The portraits of people, as the server packs them: records, by person, then portrait."""
    record = np.dtype(
        [
            ("portrait", ">i4"),
            ("person", ">i4"),
            ("dimensions", ">i2"),
            ("unused", ">i2"),
            ("vector", ">f4", (space.dimensions,)),
        ]
    )
    content = connection.scalar(query, {"space": space.id, "ids": list(ids)})
    return unpacked(content, record)


def vectors_of_portraits(
    connection: Connection, space: Space, portrait_ids: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The vectors of portraits, in that order: float32 (n, D).

    Raises:
        KeyError: If a portrait has none.
    """
    found = np.empty((len(portrait_ids), space.dimensions), np.float32)
    step = max(1, _BYTES_AT_ONCE // (4 * space.dimensions))
    for start in range(0, len(portrait_ids), step):
        wanted = portrait_ids[start : start + step]
        records = _read(connection, space, np.unique(wanted).tolist(), _OF_PORTRAITS)
        order = np.argsort(records["portrait"])
        places = np.searchsorted(records["portrait"][order], wanted)
        places = np.minimum(places, max(len(order) - 1, 0))
        if len(order) == 0 or not np.array_equal(records["portrait"][order[places]], wanted):
            raise KeyError(f"a portrait has no vector in {space.id}")
        found[start : start + step] = records["vector"][order[places]]
    return found


def add_vectors(
    connection: Connection,
    space: Space,
    vectors: NDArray[np.float32],
    portrait_ids: Sequence[int],
    person_ids: Sequence[int],
) -> None:
    """Adds portraits' vectors, and lets their people be found by them.

    Args:
        connection: Inside a transaction that writes; the space is there.
        space: Whose vectors.
        vectors: float32 (n, D).
        portrait_ids: n of them.
        person_ids: Whose these are.

    Raises:
        TryLater: If the server does not answer any more.
    """
    rows = zip([space.id] * len(vectors), portrait_ids, vectors, strict=True)
    _copy(connection, "portrait_vector (space_id, portrait_id, value)", "varchar int4 vector", rows)
    sum_up(connection, space, person_ids)


def has_index(connection: Connection, space: Space) -> bool:
    """Whether people can be found by HNSW."""
    query = text(
        "SELECT EXISTS (SELECT FROM pg_index WHERE indisvalid AND indexrelid = to_regclass(:name))"
    )
    return bool(connection.scalar(query, {"name": f'"{_index_name(space)}"'}))


def indexed_vector(space: Space) -> str:
    """What the index of a space holds of a person's vector, as SQL."""
    if space.dimensions <= INDEXED_DIMENSIONS:
        return f"(vector::vector({space.dimensions}))"
    return f"((vector::real[])[1:{INDEXED_DIMENSIONS}]::vector({INDEXED_DIMENSIONS}))"


def settle_index(connection: Connection, space: Space) -> bool:
    """Makes or drops the index as the number of people demands; whether anything changed."""
    query = text("SELECT count(*) FROM person_vector WHERE space_id = :space")
    people = connection.scalar(query, {"space": space.id}) or 0
    numbers = people * (space.dimensions + _ROW_NUMBERS)
    there = has_index(connection, space)
    if there and numbers < _KEEP_INDEX_FROM * INDEX_FROM_NUMBERS:
        connection.execute(text(f'DROP INDEX "{_index_name(space)}"'))
    elif not there and numbers >= INDEX_FROM_NUMBERS:
        make_index(connection, space)
    else:
        return False
    return True


def make_index(connection: Connection, space: Space) -> None:
    """Lets HNSW find the people of a space; ``settle_index`` does so where it pays."""
    # Parallel workers share memory through /dev/shm, of which containers have 64 MB.
    for setting in (
        f"maintenance_work_mem = {_INDEX_MEMORY_KB}",
        "max_parallel_maintenance_workers = 0",
    ):
        connection.execute(text(f"SET LOCAL {setting}"))
    connection.exec_driver_sql(
        f'CREATE INDEX "{_index_name(space)}" ON person_vector USING hnsw '
        f"({indexed_vector(space)} vector_ip_ops) WITH ({_DENSITY}) WHERE space_id = '{space.id}'"
    )


def _index_name(space: Space) -> str:
    return f"hnsw-{space.id}"


def counted(connection: Connection, space: Space) -> set[int]:
    """How many vectors there are, as three look-ups say; one number if nobody else changed any."""
    people = text("SELECT coalesce(sum(portraits), 0) FROM person_vector WHERE space_id = :space")
    vectors = select(func.count()).where(VectorRow.space_id == space.id)
    told_of = select(SpaceRow.row_count).where(SpaceRow.id == space.id)
    asked = people.bindparams(space=space.id), vectors, told_of
    return {int(connection.scalar(query) or 0) for query in asked}


def sum_up(connection: Connection, space: Space, person_ids: Sequence[int]) -> None:
    """Makes the rows of ``person_vector`` anew; who has no vector is not found any more.

    Each has the columns ``portraits`` (how many there are), ``sum_norm`` (length of the sum of
    their vectors), ``vector`` (of the sum's direction and such a length that an inner product with
    it is the likeness), ``length`` (its) and ``nearness`` (its least cosine with a portrait).
    """
    everybody = sorted({int(person) for person in person_ids})
    for some in _blocks(np.asarray(everybody, np.int64)):
        values = {"space": space.id, "ids": some.tolist()}
        connection.execute(_FORGET_PEOPLE, values)
        records = _read(connection, space, some.tolist())
        if len(records):
            columns = "person_id, space_id, portraits, sum_norm, length, nearness, vector"
            kinds = "int4 varchar int4 float8 float8 float8 vector"
            _copy(connection, f"person_vector ({columns})", kinds, _people(space, records))


def _copy(connection: Connection, into: str, kinds: str, rows: Iterable[Sequence[Any]]) -> None:
    """Adds rows in the server's binary form: a tenth of the time of text."""
    import psycopg
    from pgvector.psycopg import register_vector

    driver: Any = connection.connection.driver_connection
    try:
        register_vector(driver)
        with driver.cursor().copy(f"COPY {into} FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(kinds.split())
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as problem:  # SQLAlchemy does not see it
        raise told(problem, masked(connection.engine.url)) or problem from problem


def _people(space: Space, records: NDArray[Any]) -> Iterator[tuple[Any, ...]]:
    """Rows of ``person_vector`` from every portrait of some people, by person."""
    vectors = records["vector"].astype(np.float64)
    persons, starts, index, counts = np.unique(
        records["person"], return_index=True, return_inverse=True, return_counts=True
    )
    sums = np.add.reduceat(vectors, starts)
    sum_norms = np.linalg.norm(sums, axis=1)
    evened = evened_norms(sum_norms, counts, space.backbone)
    pointing = evened >= SHORTEST_SUM  # else the portraits point nowhere together
    directions = sums / np.maximum(sum_norms, SHORTEST_SUM)[:, None] * pointing[:, None]
    lengths = sum_norms / np.maximum(evened, SHORTEST_SUM) * pointing
    cosines = np.einsum("nd,nd->n", vectors, directions[index]) / np.linalg.norm(vectors, axis=1)
    nearness = np.minimum.reduceat(cosines, starts)
    numbers = zip(persons, counts, sum_norms, lengths, nearness, strict=True)
    scaled = (directions * lengths[:, None]).astype(np.float32)
    for (person, portraits, norm, length, near), vector in zip(numbers, scaled, strict=True):
        yield int(person), space.id, int(portraits), float(norm), float(length), float(near), vector
