"""Whether a gallery's backbones are better together: found out when it changes, kept with it."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, insert, select

from engine.errors import GalleryCorrupt
from engine.types import Space
from gallery import registrar
from gallery.database import changing
from gallery.ensemble import BEST, Ensemble
from gallery.tables import FindingRow, PortraitRow

if TYPE_CHECKING:
    from gallery.catalogue import Catalogue
    from gallery.ensembles.trial import Figures, Outcome
    from gallery.gallery import Gallery

__all__ = ["Verdict", "judge", "read_verdict"]

log = logging.getLogger(__name__)

_AGAIN_AFTER: Final = 0.1  # part of a space's rows that must be new before it is judged again
_ENOUGH: Final = 0.9  # of the portraits must be in a space that takes part


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a trial of a gallery's backbones said.

    Attributes:
        outcome: Whether the ensemble is offered.
        judged_on: The day, as in 2026-11-22.
        people: How many people took part.
        probes: With how many portraits.
        rows: How many vectors each space had, by its id.
        backbones: Names of those that were tried.
        figures: By backbone, and of the ensemble under ``BEST``.
        chances: By backbone, how likely chance alone is to make the ensemble so much better.
        ensemble: What was learned; None where nothing was.
    """

    outcome: Outcome
    judged_on: str
    people: int
    probes: int
    rows: Mapping[str, int]
    backbones: tuple[str, ...]
    figures: Mapping[str, Figures]
    chances: Mapping[str, float]
    ensemble: Ensemble | None

    @property
    def offered(self) -> Ensemble | None:
        """The ensemble, if it beats each of its backbones."""
        from gallery.ensembles.trial import Outcome

        return self.ensemble if self.outcome is Outcome.HELPS else None

    @property
    def rival(self) -> str | None:
        """The backbone that is best alone; None where nothing was measured."""
        alone = {name: one for name, one in self.figures.items() if name != BEST}
        return max(alone, key=lambda name: alone[name].right) if alone else None

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads."""
        return {
            "format": 1,
            "outcome": str(self.outcome),
            "judged_on": self.judged_on,
            "people": self.people,
            "probes": self.probes,
            "rows": dict(self.rows),
            "backbones": list(self.backbones),
            "figures": {name: asdict(one) for name, one in self.figures.items()},
            "chances": dict(self.chances),
            "ensemble": self.ensemble.to_json() if self.ensemble else None,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Verdict:
        """The verdict that ``to_json`` described.

        Raises:
            ValueError: If it is of another format or makes no sense.
            KeyError: If something is missing.
            TypeError: If something is of another type.
        """
        from gallery.ensembles.trial import Figures, Outcome

        if record["format"] != 1:
            raise ValueError(f"verdicts of format {record['format']} are unknown")
        ensemble = record["ensemble"]
        return cls(
            outcome=Outcome(record["outcome"]),
            judged_on=str(record["judged_on"]),
            people=int(record["people"]),
            probes=int(record["probes"]),
            rows={str(name): int(count) for name, count in record["rows"].items()},
            backbones=tuple(str(name) for name in record["backbones"]),
            figures={name: Figures(**one) for name, one in record["figures"].items()},
            chances={name: float(one) for name, one in record["chances"].items()},
            ensemble=None if ensemble is None else Ensemble.from_json(ensemble),
        )


def read_verdict(catalogue: Catalogue) -> Verdict | None:
    """What was found out last; None if nothing was, or it makes no sense (any more)."""
    query = select(FindingRow.content).where(FindingRow.name == BEST)
    with catalogue.snapshot() as connection:
        record = connection.scalar(query)
    try:
        return Verdict.from_json(record) if isinstance(record, dict) else None
    except (ValueError, KeyError, TypeError):
        return None


def judge(gallery: Gallery) -> Verdict | None:
    """Finds out whether the gallery's backbones are better together, if enough has changed.

    For the process that writes (``Gallery.writing``). Seconds, however large the gallery is.

    Returns:
        What is known now; None where there is but one backbone, or vectors can't be read: those
        are mended by a build of their backbone, which is not held up by it.
    """
    gallery.refresh()
    known = read_verdict(gallery.catalogue)
    rows = _rows(gallery)
    if len(rows) < 2:
        if known is not None:
            _keep(gallery, None)
        return None
    if known is not None and _still_holds(known, rows):
        return known
    try:
        verdict = _judged(gallery, rows)
    except (GalleryCorrupt, FileNotFoundError) as problem:
        log.warning("models not tried together", extra={"reason": str(problem)})
        return None
    _keep(gallery, verdict)
    return verdict


def _rows(gallery: Gallery) -> dict[Space, int]:
    """The spaces that hold nearly all portraits, one per backbone, and how many vectors each."""
    stats = gallery.stats()
    counts = stats.vectors
    fullest: dict[str, Space] = {}
    for space in sorted(counts, key=lambda one: (counts[one], one.id)):
        if counts[space] > 0 and counts[space] >= _ENOUGH * stats.portraits:
            fullest[space.backbone] = space
    return {space: counts[space] for space in fullest.values()}


def _still_holds(verdict: Verdict, rows: Mapping[Space, int]) -> bool:
    now = {space.id: count for space, count in rows.items()}
    return verdict.rows.keys() == now.keys() and all(
        abs(count - verdict.rows[name]) <= _AGAIN_AFTER * count for name, count in now.items()
    )


def _judged(gallery: Gallery, rows: Mapping[Space, int]) -> Verdict:
    from gallery.ensembles.trial import tried

    portraits, persons = _sample(gallery, tuple(rows))
    vectors = {space: gallery.vectors(space, portraits) for space in rows}
    calibrations = {space: gallery.calibration(space) for space in rows}
    trial = tried(vectors, persons, calibrations)
    return Verdict(
        outcome=trial.outcome,
        judged_on=dt.datetime.now(dt.UTC).date().isoformat(),
        people=trial.people,
        probes=trial.probes,
        rows={space.id: count for space, count in rows.items()},
        backbones=tuple(sorted(space.backbone for space in rows)),
        figures=trial.figures,
        chances=trial.chances,
        ensemble=trial.ensemble,
    )


def _sample(
    gallery: Gallery, spaces: tuple[Space, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Portraits of drawn people with several of them in every space: their ids and whose each is.

    A few more than a trial takes, because it leaves out copies.
    """
    from gallery.ensembles.sample import MOST_PEOPLE, PORTRAITS

    everywhere = gallery.embedded(spaces[0])
    for space in spaces[1:]:
        everywhere = np.intersect1d(everywhere, gallery.embedded(space), assume_unique=True)
    query = select(PortraitRow.id, PortraitRow.person_id).order_by(PortraitRow.id)
    with gallery.catalogue.snapshot() as connection:
        owners = np.array([tuple(row) for row in connection.execute(query)], np.int64)
    owners = owners.reshape(-1, 2)
    owners = owners[np.isin(owners[:, 0], everywhere)]
    draw = np.random.default_rng(0)
    owners = owners[np.lexsort((draw.random(len(owners)), owners[:, 1]))]
    _, starts, counts = np.unique(owners[:, 1], return_index=True, return_counts=True)
    several = np.flatnonzero(counts > 1)
    chosen = np.zeros(len(counts), np.bool_)
    chosen[draw.permutation(several)[:MOST_PEOPLE]] = True
    place = np.arange(len(owners)) - np.repeat(starts, counts)
    sample = owners[np.repeat(chosen, counts) & (place <= PORTRAITS)]
    return sample[:, 0], sample[:, 1]


def _keep(gallery: Gallery, verdict: Verdict | None) -> None:
    with changing(gallery.catalogue.database) as connection:
        connection.execute(delete(FindingRow).where(FindingRow.name == BEST))
        if verdict is not None:
            values = {"name": BEST, "content": verdict.to_json()}
            connection.execute(insert(FindingRow).values(values))
        registrar.note_change(connection)
