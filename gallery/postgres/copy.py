"""Writes rows with vectors to PostgreSQL in its binary form: a tenth of the time of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from engine.types import Space
from gallery.postgres.server import masked, told

__all__ = ["copy_in"]

# https://www.postgresql.org/docs/16/sql-copy.html, "Binary Format"
_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END: Final = b"\xff\xff"


def copy_in(
    connection: Connection,
    table: str,
    space: Space,
    columns: Mapping[str, Sequence[int] | NDArray[Any]],
    vectors: NDArray[np.float32],
) -> None:
    """Adds rows to a table that has the columns ``space_id`` and ``vector``, too.

    Args:
        connection: Inside a transaction that writes.
        table: Its name.
        space: Of every row.
        columns: By name: n whole numbers of 32 bits, or n floats of 64.
        vectors: float32 (n, D).

    Raises:
        TryLater: If the server does not answer any more.
    """
    import psycopg

    names = ", ".join([*columns, "space_id", "vector"])
    content = _rows({name: np.asarray(values) for name, values in columns.items()}, space, vectors)
    driver: Any = connection.connection.driver_connection
    try:
        with driver.cursor().copy(f"COPY {table} ({names}) FROM STDIN (FORMAT BINARY)") as copy:
            for part in (_HEADER, content, _END):
                copy.write(part)
    except psycopg.Error as problem:  # SQLAlchemy does not see it
        raise told(problem, masked(connection.engine.url)) or problem from problem


def _rows(columns: Mapping[str, NDArray[Any]], space: Space, vectors: NDArray[np.float32]) -> bytes:
    """Each row: how many fields; then each field's length in bytes, and its content."""
    dimensions = vectors.shape[1]
    vector = np.dtype([("dimensions", ">i2"), ("unused", ">i2"), ("x", ">f4", (dimensions,))])
    kinds = {
        **{
            name: np.dtype(">f8" if array.dtype.kind == "f" else ">i4")
            for name, array in columns.items()
        },
        "space_id": np.dtype(f"S{len(space.id)}"),
        "vector": vector,
    }
    record: list[tuple[str, Any]] = [("fields", ">i2")]
    for name, kind in kinds.items():
        record += [(f"{name} bytes", ">i4"), (name, kind)]
    rows = np.zeros(len(vectors), np.dtype(record))
    rows["fields"] = len(kinds)
    for name, kind in kinds.items():
        rows[f"{name} bytes"] = kind.itemsize
    for name, array in columns.items():
        rows[name] = array
    rows["space_id"] = space.id.encode()
    rows["vector"]["dimensions"] = dimensions
    rows["vector"]["x"] = vectors
    return rows.tobytes()
