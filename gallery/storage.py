"""What a gallery needs of whatever keeps its vectors, pictures and calibrations.

Two do: files in a folder (gallery/file_storage.py) and a PostgreSQL server with pgvector
(gallery/postgres/storage.py). Who is in the gallery stands in the same tables either way
(gallery/tables.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from engine.types import Embedding, Space
from gallery.catalogue import Catalogue
from gallery.progress import Progress, no_progress
from gallery.records import Portrait
from gallery.spaces import SpaceState

if TYPE_CHECKING:
    from gallery.records import Hit

__all__ = ["SearchIndex", "Storage", "SweptPictures"]


class SearchIndex(Protocol):
    """One space's people at one moment; see ``gallery.index.GalleryIndex``, which is one.

    Attributes:
        space: Whose vectors.
        person_ids: int64 (len(self),), rising.
        portrait_ids: int64 (N,), by person, then rising.
    """

    space: Space

    @property
    def person_ids(self) -> NDArray[np.int64]: ...  # noqa: D102 - said above

    @property
    def portrait_ids(self) -> NDArray[np.int64]: ...  # noqa: D102 - said above

    def __len__(self) -> int: ...

    def top(
        self, query: Embedding, k: int, *, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[Hit, ...]:
        """The k people most like the query, most alike first; equal ones by person id."""
        ...

    def likenesses(self, query: Embedding, person_ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """The likeness to certain people, float64 (n,); NaN for those who are not here."""
        ...

    def training_rows(self, limit: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """All vectors, or all those of evenly chosen people, and whose they are."""
        ...


class SweptPictures(NamedTuple):
    """What sweeping found.

    Attributes:
        removed: How many pictures nobody needs any more were removed.
        lost: Hashes of portraits whose picture is gone.
    """

    removed: int
    lost: frozenset[str]


class Storage(Protocol):
    """Keeps a gallery; safe to use from several threads.

    What takes a connection belongs to the caller's transaction (gallery/database.py,
    ``changing``) and counts when that is committed. Writing is for one process at a time.

    Attributes:
        place: How the operator calls it; no password.
        catalogue: Reads who is in it.
    """

    place: str
    catalogue: Catalogue

    def writing(self) -> AbstractContextManager[None]:
        """Makes this process the only one that changes the gallery; see ``Gallery.writing``."""
        ...

    def size_bytes(self) -> int:
        """What the gallery takes on disk."""
        ...

    def noticed(self) -> None:
        """Is told when somebody has changed the gallery."""
        ...

    def keep_picture(self, connection: Connection, sha256: str, jpeg: bytes) -> None:
        """Keeps the thumbnail of the portrait with that hash, in place of an earlier one."""
        ...

    def picture(self, portrait: Portrait) -> bytes:
        """The JPEG that is kept of a portrait.

        Raises:
            OSError: If it is gone or can't be read.
        """
        ...

    def present(self, portraits: Iterable[Portrait]) -> None:
        """Sees to it that ``portrait.thumbnail`` is a file, as far as there is a picture."""
        ...

    def discard_pictures(self, hashes: Collection[str]) -> None:
        """Removes pictures of portraits that were removed; a sweep gets what is left."""
        ...

    def sweep_pictures(self, wanted: Collection[str]) -> SweptPictures:
        """Removes every picture but those with these hashes."""
        ...

    def open_index(self, state: SpaceState) -> tuple[SpaceState, SearchIndex]:
        """The index of a space in that state, or of a newer one, and what it is an index of.

        Raises:
            GalleryCorrupt: If vectors are missing or damaged.
        """
        ...

    def embedded(self, space: Space) -> NDArray[np.int64]:
        """Ids of the portraits that have a vector in a space, rising."""
        ...

    def vectors(self, space: Space, portrait_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of portraits, in that order; see ``Gallery.vectors``."""
        ...

    def append(
        self,
        connection: Connection,
        space: Space,
        vectors: NDArray[np.float32],
        portraits: Sequence[int],
        persons: Sequence[int],
    ) -> None:
        """Adds vectors of portraits that have none in that space yet.

        Raises:
            GalleryCorrupt: If those that should be there are gone or damaged.
        """
        ...

    def bury(self, connection: Connection, portrait_ids: Sequence[int]) -> None:
        """Takes the vectors of portraits away, in every space."""
        ...

    def drop_damaged(self, space: Space) -> None:
        """Forgets a space whose vectors are gone or incomplete, so that it is made anew."""
        ...

    def compact(self, space: Space) -> None:
        """Makes a space take no more room, and search no longer, than it must."""
        ...

    def settle(self, space: Space, progress: Progress = no_progress) -> None:
        """Prepares the search of a space for as many people as it has now."""
        ...

    def sweep_vectors(self) -> int:
        """Removes vectors that don't count; returns how many files or rows there were."""
        ...

    def read_calibration(self, space: Space) -> bytes | None:
        """What ``keep_calibration`` kept; None without.

        Raises:
            OSError: If it can't be read.
        """
        ...

    def keep_calibration(self, connection: Connection, space: Space, content: bytes) -> None:
        """Keeps what was learned of a space's scores."""
        ...

    def calibration_place(self, space: Space) -> str:
        """How the operator calls what ``read_calibration`` reads."""
        ...
