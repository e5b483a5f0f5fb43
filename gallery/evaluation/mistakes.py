"""The photos that a backbone was most wrong about, and which of them are likely labelled wrong."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gallery.evaluation.evidence import Evidence

__all__ = ["Mistake", "Mistakes", "Shown", "mistakes"]

_COPY: Final = 0.99  # two photos this alike are one picture (gallery/scores/fit.py)
_SAME_PERSON: Final = 80.0  # a score that two people hardly ever have, and one person mostly has
_STRANGER: Final = 30.0  # a score that 1 in 100 strangers have
_DOUBTFUL: Final = 50.0  # a score that few photos of one person are below


@dataclass(frozen=True, slots=True)
class Shown:
    """A photo and whom it is said to show.

    Attributes:
        file: Where it is.
        role: What part it plays, such as ``"looked up"``.
        name: Whose photo it is by its label.
    """

    file: Path
    role: str
    name: str


@dataclass(frozen=True, slots=True)
class Mistake:
    """Photos that a backbone took for something else than their labels say.

    Attributes:
        photos: Two or three.
        score: Of the first with the second.
        own_score: Of the first with the person it is said to show; None if that is the second.
        suspicion: Why the label is likely wrong, as a sentence; None if it is not.
    """

    photos: tuple[Shown, ...]
    score: float
    own_score: float | None
    suspicion: str | None


@dataclass(frozen=True, slots=True)
class Mistakes:
    """The worst of each kind, worst first.

    Attributes:
        accepts: Two people who look most alike.
        rejects: Two photos of one person that look least alike.
        confusions: Photos whose person did not come first.
        confused: How many of the last there are altogether.
    """

    accepts: tuple[Mistake, ...]
    rejects: tuple[Mistake, ...]
    confusions: tuple[Mistake, ...]
    confused: int


def mistakes(evidence: Evidence, *, shown: int) -> Mistakes:
    """Picks the worst of each kind.

    Args:
        evidence: What was found.
        shown: How many of each kind at most.
    """
    found, right = evidence.found, evidence.lineup.right
    couples = [
        frozenset(pair) for pair in zip(right.tolist(), found.best_columns.tolist(), strict=True)
    ]
    wrong = np.flatnonzero(found.ranks > 0)
    confused = _first(-found.best[wrong], right[wrong].tolist(), shown)
    return Mistakes(
        accepts=tuple(_accept(evidence, row) for row in _first(-found.best, couples, shown)),
        rejects=tuple(_reject(evidence, row) for row in _first(found.own, right.tolist(), shown)),
        confusions=tuple(_confusion(evidence, int(wrong[place])) for place in confused),
        confused=len(wrong),
    )


def _first(values: NDArray[np.float64], keys: Iterable[Hashable], count: int) -> list[int]:
    """Places of the lowest values, each key once."""
    listed = list(keys)
    chosen: dict[Hashable, int] = {}
    for place in np.argsort(values, kind="stable").tolist():
        if len(chosen) == count:
            break
        chosen.setdefault(listed[place], place)
    return list(chosen.values())


def _accept(evidence: Evidence, row: int) -> Mistake:
    other = int(evidence.found.best_columns[row])
    score = evidence.calibration.score(float(evidence.found.best[row]))
    suspicion = None
    if evidence.lineup.likeness_of_photos(row, other) >= _COPY:
        suspicion = "Likely one picture under two names."
    elif score >= _SAME_PERSON:
        suspicion = _whose(evidence, row) or "Likely one person under two names, or a wrong label."
    return Mistake(
        (_probe(evidence, row, "looked up"), _portrait(evidence, row, other, "taken for")),
        score,
        None,
        suspicion,
    )


def _reject(evidence: Evidence, row: int) -> Mistake:
    own = int(evidence.lineup.right[row])
    score = evidence.calibration.score(float(evidence.found.own[row]))
    suspicion = None
    if score < _STRANGER:
        suspicion = _whose(evidence, row) or "Likely a photo of somebody else."
    return Mistake(
        (_probe(evidence, row, "looked up"), _portrait(evidence, row, own, "in the gallery")),
        score,
        None,
        suspicion,
    )


def _confusion(evidence: Evidence, row: int) -> Mistake:
    own, other = int(evidence.lineup.right[row]), int(evidence.found.best_columns[row])
    own_score = evidence.calibration.score(float(evidence.found.own[row]))
    suspicion = _whose(evidence, row)
    if suspicion is None and own_score < _STRANGER:
        suspicion = "Likely a photo of somebody else, who is not in the gallery."
    return Mistake(
        (
            _probe(evidence, row, "looked up"),
            _portrait(evidence, row, other, "found"),
            _portrait(evidence, row, own, "should be"),
        ),
        evidence.calibration.score(float(evidence.found.best[row])),
        own_score,
        suspicion,
    )


def _whose(evidence: Evidence, row: int) -> str | None:
    """Whom a photo shows that is hardly like its own person, and like another in person."""
    own, best = evidence.calibration.scores([evidence.found.own[row], evidence.found.best[row]])
    if own < _DOUBTFUL and best >= _SAME_PERSON:
        name = evidence.lineup.name(int(evidence.found.best_columns[row]))
        return f"Likely labelled wrong: it seems to show {name}."
    return None


def _probe(evidence: Evidence, row: int, role: str) -> Shown:
    lineup = evidence.lineup
    return Shown(lineup.probe_files[row], role, lineup.name(int(lineup.right[row])))


def _portrait(evidence: Evidence, row: int, column: int, role: str) -> Shown:
    lineup = evidence.lineup
    return Shown(lineup.closest(row, column), role, lineup.name(column))
