"""A gallery in one folder, which may be moved as a whole: SQLite, files of vectors, thumbnails.

::

    gallery.db      the catalogue (gallery/tables.py)
    gallery.lock    held by whoever is changing it
    portraits/      ab/ab12...ef.jpg: thumbnails by the hash of the original
    vectors/        a folder for each space (gallery/vectors.py)
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from engine.errors import BadSettings, Busy, GalleryCorrupt
from engine.types import Space
from gallery import registrar
from gallery.catalogue import Catalogue
from gallery.database import changing, connect, migrate, translated
from gallery.disk import unwritable, write_atomically
from gallery.index import GalleryIndex
from gallery.progress import Progress, no_progress
from gallery.records import Portrait, thumbnail_path
from gallery.searching.digesting import renew_digest
from gallery.searching.owners import Owners
from gallery.spaces import SpaceState, space_states
from gallery.storage import SweptPictures
from gallery.vectors import VectorFiles, generation_files

__all__ = ["FileStorage"]

_DATABASE: Final = "gallery.db"
_ATTEMPTS: Final = 5


class FileStorage:
    """Keeps a gallery in a folder; ``FileStorage.open`` makes one.

    Args:
        folder: Absolute; exists.
        catalogue: Of the folder's database, migrated.
    """

    def __init__(self, folder: Path, catalogue: Catalogue) -> None:
        self.place = str(folder)
        self.catalogue = catalogue
        self._folder = folder
        self._owners: dict[Path, Owners] = {}

    @classmethod
    def open(cls, folder: Path) -> FileStorage:
        """The storage in a folder; an empty one is made where there is none.

        Raises:
            BadSettings: If the folder can't be made or written.
            GalleryCorrupt: If the catalogue is damaged.
            SetupProblem: If a newer program made it.
        """
        file = folder / _DATABASE
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise BadSettings(
                f"the gallery's folder {folder} can't be made ({problem.strerror}): choose another "
                "data folder with --home"
            ) from problem
        database = connect(file)
        try:
            with translated(file):
                migrate(database)
                return cls(folder, Catalogue(database, folder / "portraits"))
        except BaseException:
            database.dispose()
            raise

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See ``gallery.storage.Storage``, here and below."""
        import filelock

        lock = filelock.FileLock(self._folder / "gallery.lock", timeout=0)
        try:
            if not os.access(self._folder, os.W_OK):
                raise PermissionError(errno.EACCES, "Permission denied")
            lock.acquire()
        except filelock.Timeout as problem:
            raise Busy(
                "another `lookalike gallery` command is changing this gallery: wait until it is "
                "done, then try again"
            ) from problem
        except OSError as problem:
            raise unwritable(self._folder, problem) from problem
        try:
            with translated(self._folder / _DATABASE):
                yield
        except OSError as problem:
            raise unwritable(self._folder, problem) from problem
        finally:
            lock.release()

    def size_bytes(self) -> int:
        """Of every file in the folder."""
        return sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())

    def noticed(self) -> None:
        """Nothing is kept that could be out of date."""

    def keep_picture(self, connection: Connection, sha256: str, jpeg: bytes) -> None:
        """Writes the file at once; one that is never enrolled is swept by the next build."""
        del connection
        path = thumbnail_path(self.catalogue.portraits_folder, sha256)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A power cut may leave it empty; the next build notices.
            write_atomically(path, jpeg, durable=False)
        except OSError as problem:
            raise unwritable(path.parent, problem) from problem

    def picture(self, portrait: Portrait) -> bytes:
        """The file's content."""
        return portrait.thumbnail.read_bytes()

    def present(self, portraits: Iterable[Portrait]) -> None:
        """They are files."""

    def discard_pictures(self, hashes: Collection[str]) -> None:
        """Removes the files."""
        for sha256 in hashes:
            with contextlib.suppress(OSError):
                thumbnail_path(self.catalogue.portraits_folder, sha256).unlink()

    def sweep_pictures(self, wanted: Collection[str]) -> SweptPictures:
        """Unfinished files go, too."""
        removed, kept = 0, set()
        for path in self.catalogue.portraits_folder.glob("*/*"):
            if path.suffix == ".jpg" and path.stem in wanted and path.stat().st_size > 0:
                kept.add(path.stem)
            elif path.suffix in {".jpg", ".part"}:
                path.unlink()
                removed += 1
        return SweptPictures(removed, frozenset(wanted) - kept)

    def open_index(self, state: SpaceState) -> tuple[SpaceState, GalleryIndex]:
        """Maps the files."""
        space = state.space
        for _ in range(_ATTEMPTS):
            try:
                return state, GalleryIndex(self._files(state), state.row_count, state.dead)
            except FileNotFoundError:  # swept after a build, or lost
                latest = self._state(space)
                if latest is None or latest.same_rows(state):
                    break
                state = latest
        raise _missing(space)

    def embedded(self, space: Space) -> NDArray[np.int64]:
        """Read from the records."""
        state = self._state(space)
        if state is None:
            return np.empty(0, np.int64)
        portraits: NDArray[np.int64] = self._files(state).records(state.row_count)["portrait"]
        return np.sort(np.delete(portraits, state.dead))

    def vectors(self, space: Space, portrait_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read, not mapped."""
        state = self._state(space)
        if state is None:
            raise KeyError(f"no portrait has a vector in {space.id}")
        files = self._files(state)
        portraits = files.records(state.row_count)["portrait"]
        alive = np.delete(np.arange(state.row_count), state.dead)
        order = alive[np.argsort(portraits[alive], kind="stable")]
        places = np.searchsorted(portraits[order], portrait_ids)
        places = np.minimum(places, max(len(order) - 1, 0))
        if len(portrait_ids) and not (
            len(order) and np.array_equal(portraits[order[places]], portrait_ids)
        ):
            raise KeyError(f"a portrait has no vector in {space.id}")
        return files.reader(state.row_count).rows(order[places])

    def append(
        self,
        connection: Connection,
        space: Space,
        vectors: NDArray[np.float32],
        portraits: Sequence[int],
        persons: Sequence[int],
    ) -> None:
        """Writes vectors to a space's files and lets the transaction count them."""
        state = next((s for s in space_states(connection) if s.space == space), None)
        if state is None:
            files = VectorFiles.create(self.space_folder(space), space)
            registrar.register_space(connection, space, files.manifest.generation)
            row_count, dead = 0, np.empty(0, np.int64)
        else:
            row_count, dead = state.row_count, state.dead
            try:
                files = self._files(state)
            except FileNotFoundError as problem:
                raise _missing(space) from problem
        owners = self._owners.setdefault(files.path("records"), files.owners())
        row_count = files.append(row_count, vectors, portraits, persons, dead, owners)
        generation = files.manifest.generation
        registrar.set_rows(connection, space, generation=generation, row_count=row_count)

    def bury(self, connection: Connection, portrait_ids: Sequence[int]) -> None:
        """Marks the rows as no longer counting; compacting drops them."""
        for state in self.catalogue.space_states():
            try:
                records = self._files(state).records(state.row_count)
            except (FileNotFoundError, GalleryCorrupt):
                registrar.delete_space(connection, state.space)
                continue
            rows = np.flatnonzero(np.isin(records["portrait"], portrait_ids))
            registrar.bury_rows(connection, state.space, np.setdiff1d(rows, state.dead))

    def drop_damaged(self, space: Space) -> None:
        """Checks that the files are there and as long as they must be."""
        state = self._state(space)
        if state is None:
            return
        try:
            files = self._files(state)
            files.vectors(state.row_count)
            files.codes(state.row_count)
            files.records(state.row_count)
        except (FileNotFoundError, GalleryCorrupt):
            with changing(self.catalogue.database) as connection:
                registrar.delete_space(connection, space)
                registrar.note_change(connection)

    def compact(self, space: Space) -> None:
        """Drops dead rows from a space's files."""
        state = self._state(space)
        if state is None or len(state.dead) == 0:
            return
        fresh = self._files(state).compacted(state.row_count, state.dead).manifest
        with changing(self.catalogue.database) as connection:
            registrar.set_rows(connection, space, generation=fresh.generation, row_count=fresh.rows)
            registrar.unbury_rows(connection, space)
            registrar.note_change(connection)
        self.settle(space)

    def settle(self, space: Space, progress: Progress = no_progress) -> None:
        """Makes what a large space is searched by, if it has none or an outdated one."""
        state = self._state(space)
        if state is None or state.row_count == len(state.dead):
            return
        try:
            files = self._files(state)
        except FileNotFoundError as problem:
            raise _missing(space) from problem
        renew_digest(
            files, state.row_count, state.dead, lambda done, total: progress("search", done, total)
        )

    def sweep_vectors(self) -> int:
        """Removes files of spaces and generations that don't count."""
        removed, root = 0, self._folder / "vectors"
        generations = {s.space.id: s.generation for s in self.catalogue.space_states()}
        for folder in root.iterdir() if root.is_dir() else ():
            if not folder.is_dir():
                continue
            if folder.name not in generations:
                removed += sum(1 for _ in folder.iterdir())
                shutil.rmtree(folder)
                continue
            for path, generation in generation_files(folder).items():
                if generation != generations[folder.name]:
                    path.unlink()
                    removed += 1
        return removed

    def read_calibration(self, space: Space) -> bytes | None:
        """A file beside the vectors."""
        try:
            return self._calibration(space).read_bytes()
        except FileNotFoundError:
            return None

    def keep_calibration(self, connection: Connection, space: Space, content: bytes) -> None:
        """Writes the file at once."""
        del connection
        write_atomically(self._calibration(space), content)

    def calibration_place(self, space: Space) -> str:
        """The file's path."""
        return str(self._calibration(space))

    def space_folder(self, space: Space) -> Path:
        """Where a space's vectors and calibration are kept."""
        return self._folder / "vectors" / space.id

    def _calibration(self, space: Space) -> Path:
        return self.space_folder(space) / "calibration.json"

    def _state(self, space: Space) -> SpaceState | None:
        return next((s for s in self.catalogue.space_states() if s.space == space), None)

    def _files(self, state: SpaceState) -> VectorFiles:
        return VectorFiles.open(self.space_folder(state.space), state.space, state.generation)


def _missing(space: Space) -> GalleryCorrupt:
    return GalleryCorrupt(
        f"vectors of {space.id} are missing: run `lookalike gallery build --model {space.backbone}`"
    )
