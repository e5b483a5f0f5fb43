"""The gallery at one revision: its indexes, its calibrations, who is in which category."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from engine.errors import GalleryMissing, SpaceMismatch
from engine.types import Space
from gallery.records import Hit, Person, Portrait
from gallery.scores import read_learned
from gallery.spaces import SpaceState
from gallery.storage import SearchIndex, Storage

if TYPE_CHECKING:
    from gallery.scores import Calibration
    from gallery.scores.trial import Trial

__all__ = ["Snapshot"]

_REMEMBERED: Final = 2_000  # portraits; more are forgotten and read again


class Snapshot:
    """What the catalogue said at one revision; what follows from it is made at first use.

    Threads share it.

    Args:
        storage: Is asked what counts.
        before: An earlier moment, whose indexes are taken over where they still hold.
    """

    def __init__(self, storage: Storage, before: Snapshot | None = None) -> None:
        self._storage = storage
        self._catalogue = storage.catalogue
        self.revision, states = storage.catalogue.moment()
        self._states = {state.space.id: state for state in states}
        self._indexes: dict[str, tuple[SpaceState, SearchIndex]] = {}
        self._calibrations: dict[str, Calibration] = {}
        self._allowed: dict[tuple[str, str | None, frozenset[str] | None], NDArray[np.bool_]] = {}
        self._people: dict[int, Person] = {}
        self._portraits: dict[int, Portrait] = {}
        self._trial: tuple[Trial | None] | None = None  # None before anybody asked
        self._lock = threading.Lock()
        for space_id, (then, index) in before.opened().items() if before else ():
            state = self._states.get(space_id)
            if state is not None and state.same_rows(then):
                self._indexes[space_id] = then, index

    def opened(self) -> dict[str, tuple[SpaceState, SearchIndex]]:
        """The indexes in use, by space id, and what they are indexes of."""
        return dict(self._indexes)

    def spaces(self) -> tuple[Space, ...]:
        """The spaces in which somebody can be found."""
        return tuple(
            state.space for state in self._states.values() if state.row_count > len(state.dead)
        )

    def index(self, space: Space) -> SearchIndex:
        """The vectors of a space.

        Raises:
            GalleryMissing: If there are none.
            SpaceMismatch: If there are none, but some of other weights or another recipe.
            GalleryCorrupt: If there should be some.
        """
        state = self._states.get(space.id)
        if state is None or state.row_count == len(state.dead):
            raise self._why_missing(space)
        with self._lock:
            if space.id not in self._indexes:
                self._indexes[space.id] = self._storage.open_index(state)
            return self._indexes[space.id][1]

    def allowed(
        self, index: SearchIndex, category: str | None, genders: frozenset[str] | None = None
    ) -> NDArray[np.bool_] | None:
        """Who of an index may be found: bool (len(index),); None if everybody may be.

        Args:
            index: Of this moment.
            category: Only people in it; None for everybody.
            genders: Only people of one of these (gallery/records.py); None for everybody.

        Raises:
            GalleryMissing: If nobody may be.
        """
        if category is None and genders is None:
            return None
        key = (index.space.id, category, genders)
        if key not in self._allowed:
            mask = np.ones(len(index), dtype=np.bool_)
            if category is not None:
                members = self._catalogue.category_person_ids(category)
                mask &= np.isin(index.person_ids, members)
            if not mask.any():
                known = ", ".join(self._catalogue.categories()) or "none"
                raise GalleryMissing(
                    f"nobody in the gallery is in the category {category}; its categories: {known}"
                )
            if genders is not None:
                members = self._catalogue.gender_person_ids(genders)
                mask &= np.isin(index.person_ids, members)
            if not mask.any():
                raise GalleryMissing(
                    "the gallery says of nobody here that they are of that gender: `lookalike "
                    "gallery download` brings people with it"
                )
            self._allowed[key] = mask
        return self._allowed[key]

    @functools.cached_property
    def genders(self) -> frozenset[str]:
        """Every gender that the catalogue says of somebody, lower case."""
        return self._catalogue.genders()

    def recall(self, hits: Sequence[Hit]) -> list[tuple[Hit, Person, Portrait]]:
        """The people and portraits found; whoever was removed since is missing."""
        if len(self._portraits) > _REMEMBERED:
            self._people, self._portraits = {}, {}
        people, portraits = self._people, self._portraits
        strangers = {hit.person_id for hit in hits} - people.keys()
        unseen = {hit.portrait_id for hit in hits} - portraits.keys()
        if strangers:
            people.update(self._catalogue.people_by_id(strangers))
        if unseen:
            portraits.update(self._catalogue.portraits_by_id(unseen))
        found = [
            (hit, people[hit.person_id], portraits[hit.portrait_id])
            for hit in hits
            if hit.person_id in people and hit.portrait_id in portraits
        ]
        self._storage.present([portrait for _, _, portrait in found])
        return found

    def calibration(self, space: Space) -> Calibration:
        """What this gallery taught about a space's cosines, else what the program comes with.

        Raises:
            GalleryCorrupt: If what was kept makes no sense.
        """
        if space.id not in self._calibrations:
            from gallery.scores import prior

            learned = read_learned(self._storage, space)
            self._calibrations[space.id] = learned.calibration if learned else prior(space)
        return self._calibrations[space.id]

    def trial(self) -> Trial | None:
        """Whether the backbones are better together, as found out last; None if nobody tried."""
        with self._lock:
            if self._trial is None:
                from gallery.scores.trial import read_trial

                self._trial = (read_trial(self._catalogue),)
            return self._trial[0]

    def _why_missing(self, space: Space) -> GalleryMissing | SpaceMismatch:
        build = f"run `lookalike gallery build --model {space.backbone}`"
        if self._catalogue.counts()[1] == 0:
            return GalleryMissing(
                "there is nobody in the gallery yet: add people with `lookalike gallery add "
                "FOLDER`, where FOLDER has a folder of photos for each person"
            )
        if any(other.backbone == space.backbone for other in self.spaces()):
            return SpaceMismatch(
                f"the gallery was built with another version of {space.backbone}: {build}"
            )
        return GalleryMissing(f"the gallery is not built for the model {space.backbone}: {build}")
