"""Vectors in PostgreSQL: adds them, takes them away, reads them, and indexes people by them.

Numbers come back packed by the server's own send functions, thousands in one value: a row for each
would cost more than the search.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, delete, func, select, text

from engine.types import Space
from gallery import registrar
from gallery.likeness import SHORTEST_SUM, evened_norms
from gallery.postgres.copy import copy_in
from gallery.postgres.tables import PersonVectorRow
from gallery.spaces import SpaceState, space_states

__all__ = [
    "INDEXED_DIMENSIONS",
    "add_vectors",
    "has_index",
    "indexed_vector",
    "make_index",
    "settle_index",
    "take_away",
    "unpacked",
    "vector_record",
    "vectors_of_people",
    "vectors_of_portraits",
]

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
_PEOPLE_AT_ONCE: Final = 256
_BYTES_AT_ONCE: Final = 16_000_000

_PACKED = (
    "SELECT string_agg(int4send(portrait_id) || int4send(person_id) || vector_send(vector), "
    "''::bytea ORDER BY person_id, portrait_id) FROM portrait_vector WHERE space_id = :space AND "
)
_OF_PEOPLE = text(_PACKED + "person_id = ANY(CAST(:ids AS integer[]))")
_OF_PORTRAITS = text(_PACKED + "portrait_id = ANY(CAST(:ids AS integer[]))")

_TAKE_AWAY = text(
    "DELETE FROM portrait_vector WHERE space_id = :space "
    "AND portrait_id = ANY(CAST(:ids AS integer[])) RETURNING person_id"
)


def vector_record(dimensions: int) -> np.dtype[Any]:
    """A portrait as the server packs it."""
    fields: list[tuple[Any, ...]] = [
        ("portrait", ">i4"),
        ("person", ">i4"),
        ("dimensions", ">i2"),
        ("unused", ">i2"),
        ("vector", ">f4", (dimensions,)),
    ]
    return np.dtype(fields)


def unpacked(content: bytes | None, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Packed records: (N,) of that type, in the server's byte order."""
    return np.frombuffer(content or b"", dtype=dtype)


def vectors_of_people(
    connection: Connection, space: Space, person_ids: Sequence[int]
) -> NDArray[Any]:
    """The portraits of people: records, by person, then portrait."""
    return _read(connection, space, _OF_PEOPLE, person_ids)


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
        records = _read(connection, space, _OF_PORTRAITS, np.unique(wanted).tolist())
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
    portraits: Sequence[int],
    persons: Sequence[int],
) -> None:
    """Adds portraits' vectors, and lets their people be found by them."""
    state = next((s for s in space_states(connection) if s.space == space), None)
    if state is None:
        registrar.register_space(connection, space, 0)
        state = SpaceState(space, 0, 0, np.empty(0, np.int64))
    columns = {"portrait_id": portraits, "person_id": persons}
    copy_in(connection, "portrait_vector", space, columns, vectors)
    _sum_up(connection, space, persons)
    _count(connection, state, len(vectors))


def take_away(connection: Connection, portrait_ids: Sequence[int]) -> None:
    """Removes portraits' vectors from every space."""
    for state in space_states(connection):
        values = {"space": state.space.id, "ids": list(portrait_ids)}
        if persons := connection.scalars(_TAKE_AWAY, values).all():
            _sum_up(connection, state.space, persons)
            _count(connection, state, -len(persons))


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
    state = next((s for s in space_states(connection) if s.space == space), None)
    if state is None:
        return False
    query = select(func.count()).where(PersonVectorRow.space_id == space.id)
    numbers = (connection.scalar(query) or 0) * (space.dimensions + _ROW_NUMBERS)
    there = has_index(connection, space)
    if there and numbers < _KEEP_INDEX_FROM * INDEX_FROM_NUMBERS:
        connection.execute(text(f'DROP INDEX "{_index_name(space)}"'))
    elif not there and numbers >= INDEX_FROM_NUMBERS:
        make_index(connection, space)
    else:
        return False
    _count(connection, state, 0)
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


def _read(connection: Connection, space: Space, query: Any, ids: Sequence[int]) -> NDArray[Any]:
    content = connection.scalar(query, {"space": space.id, "ids": list(ids)})
    return unpacked(content, vector_record(space.dimensions))


def _count(connection: Connection, state: SpaceState, more: int) -> None:
    """Whoever has the space's people in memory sees by the generation that they changed."""
    registrar.set_rows(
        connection,
        state.space,
        generation=state.generation + 1,
        row_count=state.row_count + more,
    )


def _sum_up(connection: Connection, space: Space, persons: Sequence[int]) -> None:
    """Makes the rows of people anew from their portraits; who has none is not found any more."""
    everybody = sorted({int(person) for person in persons})
    for start in range(0, len(everybody), _PEOPLE_AT_ONCE):
        some = everybody[start : start + _PEOPLE_AT_ONCE]
        connection.execute(
            delete(PersonVectorRow).where(
                PersonVectorRow.space_id == space.id, PersonVectorRow.person_id.in_(some)
            )
        )
        records = vectors_of_people(connection, space, some)
        if len(records):
            columns, vectors = _people(space, records)
            copy_in(connection, "person_vector", space, columns, vectors)


def _people(
    space: Space, records: NDArray[Any]
) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32]]:
    """Columns and vectors of ``PersonVectorRow`` from every portrait of some people, by person."""
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
    columns = {
        "person_id": persons.astype(np.int32),
        "portraits": counts.astype(np.int32),
        "sum_norm": sum_norms,
        "length": lengths,
        "nearness": np.minimum.reduceat(cosines, starts),
    }
    return columns, (directions * lengths[:, None]).astype(np.float32)
