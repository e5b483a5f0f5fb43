"""Changes of a gallery that count together; ``Gallery.transaction`` makes and commits them.

A vector is appended to its space's file before the transaction that names its row is committed.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from engine.types import Space
from gallery.records import Credit, FoundPerson, Person, Thumbnail, category_name, folded
from gallery.search.cache import remove_caches
from gallery.search.pgvector import add_vectors, sum_up
from gallery.store import CHUNK, SpaceState, Store, missing, named
from gallery.tables import (
    BANNED,
    CALIBRATIONS,
    CATEGORIES,
    FINDINGS,
    MEMBERS,
    PEOPLE,
    PORTRAITS,
    REJECTIONS,
    SPACES,
    THUMBNAILS,
    VECTORS,
)
from gallery.vector_file import VectorFile

# Given values as parameters, so that each is put together once.
_NEW_PORTRAIT: Final = insert(PORTRAITS).returning(PORTRAITS.c.id)
_NEW_PERSON: Final = insert(PEOPLE).returning(PEOPLE.c.id)
_KNOWN_PERSON: Final = select(PEOPLE).where(PEOPLE.c.key == bindparam("known"))
_TAKEN: Final = delete(REJECTIONS).where(REJECTIONS.c.sha256 == bindparam("taken"))
_COUNTED: Final = update(SPACES).where(SPACES.c.id == bindparam("counted"))
_CATEGORY_IDS: Final = select(CATEGORIES.c.name, CATEGORIES.c.id).where(
    CATEGORIES.c.name.in_(bindparam("names", expanding=True))
)


class Transaction:
    """Writes; whether anything has ``changed``, so that readers look again; new people are counted.

    ``connection`` is for statements of the caller's own.
    """

    def __init__(self, store: Store, connection: Connection) -> None:
        self._store = store
        self.connection = connection
        self.changed = False
        self.people_added = 0

    def run(self, statement: Any, values: Any = None) -> Any:
        """Executes a statement that changes something."""
        self.changed = True
        return self.connection.execute(statement, values)

    def _replace(self, table: Any, **values: Any) -> None:
        """Keeps a row in place of the one with the same first value."""
        key, value = next(iter(values.items()))
        self.run(delete(table).where(table.c[key] == value))
        self.run(insert(table), values)

    def _delete(self, table: Any, column: Any, values: Sequence[int], *where: Any) -> list[int]:
        """Deletes the rows where a column has one of the values; these, of each row."""
        gone: list[int] = []
        for start in range(0, len(values), CHUNK):
            few = column.in_(values[start : start + CHUNK])
            gone += self.run(delete(table).where(few, *where).returning(column)).scalars()
        return gone

    def add_person(self, person: FoundPerson) -> int:
        """The person's id; they are added if they are new, and completed if more is known now."""
        row = self.connection.execute(_KNOWN_PERSON, {"known": person.key}).one_or_none()
        known = {name: getattr(person, name) for name in FoundPerson.LEARNED}
        if row is None:
            name = unicodedata.normalize("NFC", person.name)
            new = {"key": person.key, "name": name, "folded_name": folded(name), **known}
            person_id: int = self.run(_NEW_PERSON, new).scalar_one()
            self.people_added += 1
        else:
            person_id = row.id
            news = {k: v for k, v in known.items() if v not in (None, getattr(row, k))}
            if news:
                self.run(update(PEOPLE).where(PEOPLE.c.id == person_id).values(**news))
        self._join_categories(person_id, person.categories, joined=row is not None)
        return person_id

    def _join_categories(self, person_id: int, names: Sequence[str], *, joined: bool) -> None:
        """Puts a person into categories; they may be in some only if ``joined``."""
        wanted = {category_name(name) for name in names} - {""}
        if wanted and joined:
            theirs = select(CATEGORIES.c.name).join(MEMBERS).where(MEMBERS.c.person_id == person_id)
            wanted.difference_update(self.connection.scalars(theirs))
        if not wanted:
            return
        ids = dict(map(tuple, self.connection.execute(_CATEGORY_IDS, {"names": list(wanted)})))
        for name in sorted(wanted - ids.keys()):
            made = insert(CATEGORIES).returning(CATEGORIES.c.id)
            ids[name] = self.run(made, {"name": name}).scalar_one()
        joins = [{"person_id": person_id, "category_id": one} for one in sorted(ids.values())]
        self.run(insert(MEMBERS), joins)

    def add_portrait(
        self, person_id: int, credit: Credit, sha256: str, thumbnail: Thumbnail
    ) -> int:
        """Adds a portrait of a person, with its photo if there is one, and returns its id.

        ``sha256`` is of the original bytes, which are not in the gallery yet.
        """
        self.run(_TAKEN, {"taken": sha256})
        content = {
            "person_id": person_id,
            "sha256": sha256,
            **{name: getattr(credit, name) for name in Credit.__slots__},
            **_geometry(thumbnail),
        }
        portrait_id: int = self.run(_NEW_PORTRAIT, content).scalar_one()
        if thumbnail.jpeg is not None:
            content = {"portrait_id": portrait_id, "jpeg": thumbnail.jpeg}
            self.run(insert(THUMBNAILS), content)
        return portrait_id

    def set_photo(self, portrait_id: int, thumbnail: Thumbnail) -> None:
        """Gives a portrait its photo, in place of an earlier one."""
        mine = PORTRAITS.c.id == portrait_id
        self.run(update(PORTRAITS).where(mine).values(**_geometry(thumbnail)))
        self._replace(THUMBNAILS, portrait_id=portrait_id, jpeg=thumbnail.jpeg)

    def reject(self, sha256: str, reason: str, screening: int) -> None:
        """Remembers why a picture was not taken, in place of what was remembered before."""
        self._replace(REJECTIONS, sha256=sha256, reason=reason, screening=screening)

    def add_vectors(
        self, space: Space, vectors: NDArray[np.float32], portrait_ids: Sequence[int]
    ) -> None:
        """Adds vectors, float32 (n, D) of unit length, of portraits that have none in the space.

        The space is made if there is none of it yet. Raises GalleryCorrupt if the vectors that
        should be there are gone or damaged.
        """
        state = self._store.space_state(space) or self._add_space(space)
        if self._store.shared:
            add_vectors(self.connection, space, vectors, portrait_ids)
            self.note_vectors(space, len(vectors))
            return
        file = self._store.vector_file(state)
        # A cache of rows that are about to be overwritten: the database is an older copy.
        remove_caches(file.folder, beyond=state.row_count)
        try:
            file.append(state.row_count, vectors)
        except FileNotFoundError as problem:
            raise missing(space) from problem
        self._name_rows(space, portrait_ids, state.generation, state.row_count)

    def remove_person(self, person_id: int) -> int:
        """Removes a person with all their portraits; how many these were."""
        query = select(PORTRAITS.c.id).where(PORTRAITS.c.person_id == person_id)
        portrait_ids = self.connection.scalars(query).all()
        self.remove_portraits(portrait_ids)
        self.run(delete(PEOPLE).where(PEOPLE.c.id == person_id))
        used = select(MEMBERS.c.category_id)
        self.run(delete(CATEGORIES).where(CATEGORIES.c.id.not_in(used)))
        return len(portrait_ids)

    def remove_portraits(self, portrait_ids: Sequence[int]) -> None:
        """Removes portraits, their thumbnails and vectors."""
        self.remove_vectors(portrait_ids)
        self._delete(PORTRAITS, PORTRAITS.c.id, portrait_ids)

    def remove_vectors(self, portrait_ids: Sequence[int]) -> None:
        """Removes the vectors of portraits, in every space."""
        people = self._store.person_ids(portrait_ids) if self._store.shared else {}
        for state in self._store.space_states() if portrait_ids else ():
            within = VECTORS.c.space_id == state.space.id
            gone = self._delete(VECTORS, VECTORS.c.portrait_id, portrait_ids, within)
            if gone and self._store.shared:
                sum_up(self.connection, state.space, [people[one] for one in gone])
                self.note_vectors(state.space, -len(gone))

    def merge_people(self, kept: Person, other: Person) -> None:
        """Gives a person the portraits, categories and what else is known of another, who goes."""
        theirs = PORTRAITS.c.person_id == other.id
        moved = self.connection.scalars(select(PORTRAITS.c.id).where(theirs)).all()
        held = []
        for state in self._store.space_states():
            ids = np.intersect1d(self._store.embedded(state.space), np.array(moved, np.int64))
            held.append((state.space, ids, self._store.vectors(state.space, ids)))
        # New rows, so that whoever has the old ones in memory sees that they are other people's.
        self.remove_vectors(moved)
        self.run(update(PORTRAITS).where(theirs).values(person_id=kept.id))
        for space, ids, vectors in held:
            if len(ids):
                self.add_vectors(space, vectors, ids.tolist())
        self.run(delete(PEOPLE).where(PEOPLE.c.id == other.id))
        fame = [one.fame for one in (kept, other) if one.fame is not None]
        known = {name: getattr(kept, name) or getattr(other, name) for name in Person.LEARNED}
        known |= {"fame": max(fame, default=None), "categories": other.categories}
        self.add_person(replace(kept, **known))

    def remove_space(self, space: Space) -> None:
        """Forgets a space; its file is swept by the next build."""
        self.run(delete(SPACES).where(SPACES.c.id == space.id))

    def renumber(self, space: Space, generation: int, portrait_ids: Sequence[int]) -> None:
        """Switches a space to a new file, whose rows are those of these portraits."""
        self.run(delete(VECTORS).where(VECTORS.c.space_id == space.id))
        self._name_rows(space, portrait_ids, generation, 0)

    def keep_calibration(self, space: Space, content: str) -> None:
        """Keeps what was learned of a space's scores; the space must be there."""
        self._replace(CALIBRATIONS, space_id=space.id, content=content)

    def keep_finding(self, name: str, content: dict[str, Any] | None) -> None:
        """Keeps what was found out about the gallery, in place of what was; None forgets it."""
        if content is None:
            self.run(delete(FINDINGS).where(FINDINGS.c.name == name))
        else:
            self._replace(FINDINGS, name=name, content=content)

    def ban(self, key: str, name: str, wikidata_id: str | None) -> None:
        """Remembers that no source brings somebody back; it does not remove them."""
        values = {"name": name, "folded_name": folded(name), "wikidata_id": wikidata_id}
        self._replace(BANNED, key=key, **values)

    def unban(self, name: str) -> int:
        """Forgets bans of those of a name, key or Wikidata id; how many there were."""
        count: int = self.run(delete(BANNED).where(named(BANNED, name))).rowcount
        return count

    def _add_space(self, space: Space) -> SpaceState:
        generation = 0
        if not self._store.shared:
            generation = VectorFile.create(self._store.space_folder(space), space).generation
        state = {"generation": generation, "row_count": 0}
        self._replace(SPACES, id=space.id, **asdict(space), **state)
        return SpaceState(space, generation, 0, filled=False)

    def _name_rows(
        self, space: Space, portrait_ids: Sequence[int], generation: int, first: int
    ) -> None:
        """Lets rows of a space's file count, from the first on; they are the file's last."""
        rows = enumerate(portrait_ids, first)
        values = [{"space_id": space.id, "portrait_id": one, "row": row} for row, one in rows]
        if values:
            self.run(insert(VECTORS), values)
        count = {"generation": generation, "row_count": first + len(values)}
        self.run(_COUNTED, {"counted": space.id, **count})

    def note_vectors(self, space: Space, more: int = 0) -> None:
        """Counts vectors of a space on PostgreSQL.

        Whoever has the space's people in memory sees by the generation that they changed.
        """
        generation, row_count = SPACES.c.generation + 1, SPACES.c.row_count + more
        counts = {"generation": generation, "row_count": row_count}
        self.run(_COUNTED.values(counts), {"counted": space.id})


def _geometry(thumbnail: Thumbnail) -> dict[str, Any]:
    landmarks = np.asarray(thumbnail.landmarks, np.float64).tolist()
    box = {f"box_{side}": getattr(thumbnail.box, side) for side in "xywh"}
    size = {"width_px": thumbnail.width_px, "height_px": thumbnail.height_px}
    return {**size, "landmarks": landmarks, **box}
