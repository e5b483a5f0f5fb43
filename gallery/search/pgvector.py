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
would cost more than the search. Vectors go there by COPY, as pgvector receives them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, TextClause, func, select, text

from engine.types import Embedding, Space
from gallery.database import masked, told
from gallery.likeness import SAME_PHOTO_STRETCH, SHORTEST_SUM, evened_norms, person_cosines
from gallery.records import Hit
from gallery.search import Floats, Ids, Mask, SearchIndex, Vectors, compared, rank
from gallery.tables import SPACES, VECTORS

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
    [("person", ">i4"), ("portraits", ">i4"), ("sum_norm", ">f8"), ("nearness", ">f8")]
)
_PRODUCT: Final = np.dtype([("person", ">i4"), ("product", ">f8")])
_OWNER: Final = np.dtype([("portrait", ">i4"), ("person", ">i4")])

_PEOPLE = text(
    "SELECT string_agg(int4send(person_id) || int4send(portraits) || float8send(sum_norm) || "
    "float8send(nearness), ''::bytea) FROM person_vector WHERE space_id = :space"
)
_EVERYBODY = "SELECT person_id, vector FROM person_vector WHERE space_id = :space"
_AMONG = "= ANY(CAST(:ids AS integer[]))"
# The planner takes comparing with everybody for cheap, not knowing how long vectors are; whatever
# follows may sort as it likes.
_SEARCHING = text(
    "SELECT set_config('hnsw.ef_search', :beam, true), set_config('enable_sort', 'off', true)"
)
_SEARCHED = text("SELECT set_config('enable_sort', 'on', true)")
_FORGET_PEOPLE = text(f"DELETE FROM person_vector WHERE space_id = :space AND person_id {_AMONG}")


def _of_portraits(column: str, content: str) -> TextClause:
    """SQL for something of each portrait of some, in one value."""
    return text(
        f"SELECT string_agg({content}, ''::bytea) FROM portrait_vector "
        f"WHERE space_id = :space AND {column} {_AMONG}"
    )


_OWNERS = text(
    "SELECT string_agg(int4send(id) || int4send(person_id), ''::bytea) "
    f"FROM portrait WHERE id {_AMONG}"
)
_RECORD = "int4send(portrait_id) || int4send(person_id) || vector_send(value)"
_OF_PEOPLE = _of_portraits("person_id", _RECORD)
_OF_THESE = _of_portraits("portrait_id", _RECORD)
_PRODUCTS = _of_portraits(
    "person_id", "int4send(person_id) || float8send(-(value <#> CAST(:query AS vector)))"
)


@dataclass(frozen=True, slots=True, eq=False)
class _People:
    """Who is in a space at one generation of it, by rising id; every array is (P,)."""

    generation: int | None
    ids: Ids
    portraits: Ids  # how many each has
    norms: Floats  # from ``evened_norms``
    lengths: Floats  # of their vectors; 0 if their portraits point nowhere together
    angles: Floats  # the largest between somebody's vector and portraits, radians
    indexed: bool  # whether HNSW can find them

    @classmethod
    def read(cls, connection: Connection, space: Space) -> Self:
        rows = _packed(connection.scalar(_PEOPLE, {"space": space.id}), _PERSON, "person")
        portraits, sum_norms = rows["portraits"].astype(np.int64), rows["sum_norm"].astype(float)
        norms = evened_norms(sum_norms, portraits, space.backbone)
        return cls(
            _generation(connection, space),
            rows["person"].astype(np.int64),
            portraits,
            norms,
            _lengths(sum_norms, norms),
            np.arccos(np.clip(rows["nearness"] - _NEARNESS_ROUNDING, -1.0, 1.0)),
            has_index(connection, space),
        )

    def bounds(
        self, places: NDArray[np.intp], products: Floats, rounding: float
    ) -> tuple[Floats, Floats]:
        """The least and the highest that the likeness to some people can be.

        ``products`` are the face's with their vectors, which may be off by ``rounding``.
        """
        lengths = self.lengths[places]
        pointing = lengths > 0
        cosines = products / np.where(pointing, lengths, 1.0)
        angles = np.arccos(np.clip(cosines + rounding, -1.0, 1.0)) - self.angles[places]
        best = _LONGEST * np.cos(np.maximum(angles, 0.0))
        most = np.maximum(products, 1.0 - SAME_PHOTO_STRETCH * (1.0 - best)) + rounding
        return np.where(pointing, products - rounding, -1.0), np.where(pointing, most, 1.0)


_Seen = tuple[_People, NDArray[np.intp], Floats]


class PostgresIndex(SearchIndex):
    """One space's people. Who is in it stays as at first; what is found is as of now."""

    def __init__(self, database: Engine, space: Space) -> None:
        self.space = space
        self._database = database
        # Inner products of float32, added up one after the other at worst; twice, because the
        # people's vectors are divided by lengths of more than a half.
        self._rounding = 2 * (space.dimensions + 8) * 2.0**-24
        with self._database.connect() as connection:
            self._latest = _People.read(connection, space)
        self.generation, self.person_ids = self._latest.generation, self._latest.ids
        self._portraits = int(self._latest.portraits.sum())

    def training_rows(self, limit: int) -> tuple[Vectors, Ids]:
        """See ``gallery.search.SearchIndex``, here and below."""
        chosen = self.person_ids[:: max(1, -(-self._portraits // limit))]
        with self._database.connect() as connection:
            parts = [_read(connection, self.space, some) for some in _blocks(chosen)]
        records = np.concatenate(parts)
        return records["vector"].astype(np.float32), records["person"].astype(np.int64)

    def top(self, query: Embedding, k: int, *, allowed: Mask | None = None) -> tuple[Hit, ...]:
        """By the three steps above."""
        self._check(query, k)
        chosen = None if allowed is None else self.person_ids[allowed]
        with self._database.connect() as connection:
            people, places, products = self._seen(connection, query.vector, k, chosen)
            places = places[_possible(*people.bounds(places, products, self._rounding), k)]
            size_bytes = 4 * self.space.dimensions * int(people.portraits[places].sum())
            if size_bytes > _FETCH_BYTES and len(places) > k:
                ids = people.ids[places]
                values = {"space": self.space.id, "query": _written(query.vector)}
                content = connection.scalar(_PRODUCTS, values | {"ids": _listed(ids)})
                found = _packed(content, _PRODUCT, "person")
                index = np.searchsorted(ids, found["person"])
                cosines = found["product"].astype(float)
                likely = person_cosines(cosines, index, people.norms[places])
                rounding = SAME_PHOTO_STRETCH * self._rounding
                places = places[_possible(likely - rounding, likely + rounding, k)]
            hits = self._compared(connection, people, places, query.vector)
        return tuple(sorted(hits, key=rank)[:k])

    def _compared_by_id(self, vector: Vectors, person_ids: Ids) -> list[Hit]:
        with self._database.connect() as connection:
            people = self._now(connection, _generation(connection, self.space))
            places = np.flatnonzero(np.isin(people.ids, person_ids))
            return self._compared(connection, people, places, vector)

    def _now(self, connection: Connection, generation: int | None) -> _People:
        """Who is here at a generation of the space, as this connection sees it."""
        if generation != self._latest.generation:
            self._latest = _People.read(connection, self.space)
        return self._latest

    def _seen(self, connection: Connection, vector: Vectors, k: int, chosen: Ids | None) -> _Seen:
        """Those who may be found, rising, and the face's inner products with their vectors."""
        values: dict[str, object] = {"space": self.space.id, "query": _written(vector)}
        candidates = max(_CANDIDATES, _CANDIDATES_PER_HIT * k)
        if chosen is not None:
            values["ids"] = _listed(chosen)
            return self._asked(connection, f"{_EVERYBODY} AND person_id {_AMONG}", values)
        if self._latest.indexed and candidates <= _WIDEST_BEAM:
            connection.execute(_SEARCHING, {"beam": str(max(_BEAM, candidates))})
            # The space stands in it literally, else the planner can't tell that its index will do.
            nearest = (
                f"SELECT person_id, vector FROM person_vector WHERE space_id = '{self.space.id}' "
                f"ORDER BY {_indexed(self.space)} <#> CAST(:near AS vector) LIMIT :candidates"
            )
            near = {"near": _written(vector[:INDEXED_DIMENSIONS]), "candidates": candidates}
            people, places, products = self._asked(connection, nearest, values | near)
            connection.execute(_SEARCHED)
            if len(places) >= min(candidates, len(people.ids)):
                return people, places, products
            # Else the index is full of people who were removed, until the server cleans it up.
        return self._asked(connection, _EVERYBODY, values)

    def _asked(self, connection: Connection, people: str, values: dict[str, object]) -> _Seen:
        """What ``_seen`` returns, of the people that some SQL finds."""
        query = (
            "SELECT (SELECT generation FROM space WHERE id = :space), "
            "string_agg(int4send(person_id) || float8send(-(vector <#> CAST(:query AS vector))), "
            f"''::bytea) FROM ({people}) AS people"
        )
        generation, content = connection.execute(text(query), values).one()
        here, found = self._now(connection, generation), _packed(content, _PRODUCT, "person")
        places = np.searchsorted(here.ids, found["person"])
        return here, places, found["product"].astype(np.float64)

    def _compared(
        self, connection: Connection, people: _People, places: NDArray[np.intp], vector: Vectors
    ) -> list[Hit]:
        """Likenesses in float64."""
        hits: list[Hit] = []
        for some in _blocks(places):
            found = _read(connection, self.space, people.ids[some])
            columns = found["vector"], found["person"], found["portrait"]
            hits += compared(vector, *columns, people.norms[some])
        return hits


def _possible(least: NDArray[np.floating], most: NDArray[np.floating], k: int) -> NDArray[np.intp]:
    """Who may be among the k highest, if everybody is between their bounds."""
    if len(least) <= k:
        return np.arange(len(least))
    return np.flatnonzero(most >= np.partition(least, -k)[-k])


def _blocks(people: NDArray[Any]) -> list[NDArray[Any]]:
    return np.split(people, range(_PEOPLE_AT_ONCE, len(people), _PEOPLE_AT_ONCE))


def _written(vector: Vectors) -> str:
    """A vector as pgvector reads it; bound as a value, so that no server log quotes it."""
    return str(vector.tolist())


def _listed(ids: NDArray[np.integer]) -> str:
    """Ids as the server reads an array; the driver takes a millisecond for a thousand."""
    return f"{{{str(ids.tolist())[1:-1]}}}"


def _packed(content: bytes | None, dtype: np.dtype[Any], *keys: str) -> NDArray[Any]:
    """Packed records: (N,) of that type, in the server's byte order; by the last key first.

    They are sorted here, for the server would move whole vectors.
    """
    records = np.frombuffer(content or b"", dtype=dtype)
    return records[np.lexsort([records[key].astype(np.int32) for key in keys])]


def _generation(connection: Connection, space: Space) -> int | None:
    return connection.scalar(select(SPACES.c.generation).where(SPACES.c.id == space.id))


def _lengths(sum_norms: Floats, norms: Floats) -> Floats:
    """Of people's vectors; 0 if the portraits point nowhere together."""
    return np.where(norms < SHORTEST_SUM, 0.0, sum_norms / np.maximum(norms, SHORTEST_SUM))


def _read(
    connection: Connection, space: Space, ids: NDArray[np.integer], query: TextClause = _OF_PEOPLE
) -> NDArray[Any]:
    """The portraits of people, as the server packs them: records, by person, then portrait."""
    head = [("portrait", ">i4"), ("person", ">i4"), ("dimensions", ">i2"), ("unused", ">i2")]
    record = np.dtype([*head, ("vector", ">f4", (space.dimensions,))])
    content = connection.scalar(query, {"space": space.id, "ids": _listed(ids)})
    return _packed(content, record, "portrait", "person")


def vectors_of_portraits(connection: Connection, space: Space, portrait_ids: Ids) -> Vectors:
    """The vectors of portraits, in that order: float32 (n, D); KeyError if a portrait has none."""
    found = np.empty((len(portrait_ids), space.dimensions), np.float32)
    step = max(1, _BYTES_AT_ONCE // (4 * space.dimensions))
    for start in range(0, len(portrait_ids), step):
        ids, places = np.unique(portrait_ids[start : start + step], return_inverse=True)
        records = _read(connection, space, ids, _OF_THESE)
        if len(records) < len(ids):
            raise KeyError(f"a portrait has no vector in {space.id}")
        order = np.argsort(records["portrait"])
        found[start : start + step] = records["vector"][order[places]]
    return found


def add_vectors(
    connection: Connection, space: Space, vectors: Vectors, portrait_ids: Sequence[int]
) -> None:
    """Adds portraits' vectors to a space that is there, and lets their people be found by them."""
    wanted = np.array(portrait_ids, np.int64)
    owners = _packed(connection.scalar(_OWNERS, {"ids": _listed(wanted)}), _OWNER, "portrait")
    people = owners["person"][np.searchsorted(owners["portrait"], wanted)].tolist()
    spaces = [space.id] * len(vectors)
    rows = zip(spaces, portrait_ids, people, _received(vectors), strict=True)
    columns = "space_id, portrait_id, person_id, value"
    _copy(connection, f"portrait_vector ({columns})", "varchar int4 int4 bytea", rows)
    sum_up(connection, space, people)


def has_index(connection: Connection, space: Space) -> bool:
    """Whether people can be found by HNSW."""
    query = text(
        "SELECT EXISTS (SELECT FROM pg_index WHERE indisvalid AND indexrelid = to_regclass(:name))"
    )
    return bool(connection.scalar(query, {"name": f'"hnsw-{space.id}"'}))


def _indexed(space: Space) -> str:
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
        connection.exec_driver_sql(f'DROP INDEX "hnsw-{space.id}"')
    elif not there and numbers >= INDEX_FROM_NUMBERS:
        connection.exec_driver_sql(f"SET LOCAL maintenance_work_mem = {_INDEX_MEMORY_KB}")
        # Parallel workers share memory through /dev/shm, of which containers have 64 MB.
        connection.exec_driver_sql("SET LOCAL max_parallel_maintenance_workers = 0")
        connection.exec_driver_sql(
            f'CREATE INDEX "hnsw-{space.id}" ON person_vector USING hnsw '
            f"({_indexed(space)} vector_ip_ops) WITH ({_DENSITY}) WHERE space_id = '{space.id}'"
        )
    else:
        return False
    return True


def counted(connection: Connection, space: Space) -> set[int]:
    """How many vectors there are, as three look-ups say; one number if nobody else changed any."""
    people = text("SELECT coalesce(sum(portraits), 0) FROM person_vector WHERE space_id = :space")
    vectors = select(func.count()).where(VECTORS.c.space_id == space.id)
    told_of = select(SPACES.c.row_count).where(SPACES.c.id == space.id)
    asked = people.bindparams(space=space.id), vectors, told_of
    return {int(connection.scalar(query) or 0) for query in asked}


def sum_up(connection: Connection, space: Space, person_ids: Iterable[int]) -> None:
    """Makes the rows of ``person_vector`` anew; who has no vector is not found any more.

    Each has the columns ``portraits`` (how many there are), ``sum_norm`` (length of the sum of
    their vectors), ``vector`` (of the sum's direction and such a length that an inner product with
    it is the likeness) and ``nearness`` (its least cosine with a portrait).
    """
    for some in _blocks(np.unique(np.fromiter(person_ids, np.int64))):
        connection.execute(_FORGET_PEOPLE, {"space": space.id, "ids": _listed(some)})
        records = _read(connection, space, some)
        if len(records):
            columns = "person_id, space_id, portraits, sum_norm, nearness, vector"
            kinds = "int4 varchar int4 float8 float8 bytea"
            _copy(connection, f"person_vector ({columns})", kinds, _people(space, records))


def _copy(connection: Connection, into: str, kinds: str, rows: Iterable[Sequence[Any]]) -> None:
    """Adds rows in the server's binary form: a tenth of the time of text."""
    import psycopg

    driver: Any = connection.connection.driver_connection
    try:
        with driver.cursor().copy(f"COPY {into} FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(kinds.split())
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as problem:  # SQLAlchemy does not see it
        raise told(problem, masked(connection.engine.url)) or problem from problem


def _received(vectors: NDArray[np.floating]) -> list[bytes]:
    """Vectors in pgvector's binary form: 16 bits for D, 16 that are 0, then the numbers."""
    head = np.array([vectors.shape[1], 0], ">i2").tobytes()
    return [head + vector.tobytes() for vector in vectors.astype(">f4")]


def _people(space: Space, records: NDArray[Any]) -> Iterator[tuple[Any, ...]]:
    """Rows of ``person_vector`` from every portrait of some people, by person."""
    vectors = records["vector"].astype(np.float64)
    persons, starts, index, counts = np.unique(
        records["person"], return_index=True, return_inverse=True, return_counts=True
    )
    sums = np.add.reduceat(vectors, starts)
    sum_norms = np.linalg.norm(sums, axis=1)
    lengths = _lengths(sum_norms, evened_norms(sum_norms, counts, space.backbone))
    directions = sums / np.maximum(sum_norms, SHORTEST_SUM)[:, None] * (lengths > 0)[:, None]
    cosines = np.einsum("nd,nd->n", vectors, directions[index]) / np.linalg.norm(vectors, axis=1)
    nearness = np.minimum.reduceat(cosines, starts).tolist()
    scaled = _received(directions * lengths[:, None])
    spaces = [space.id] * len(persons)
    columns = persons.tolist(), spaces, counts.tolist(), sum_norms.tolist(), nearness, scaled
    return zip(*columns, strict=True)
