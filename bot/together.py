"""``/model best``: the backbones that answer together, and why they don't where they don't."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.errors import SetupProblem, SpaceMismatch
from gallery.ensemble import BEST

if TYPE_CHECKING:
    from engine.engine import Engine
    from gallery.ensemble import Ensemble
    from gallery.ensembles.verdict import Verdict
    from gallery.gallery import Gallery

__all__ = ["BEST", "Together", "WhyNot", "find_ensemble", "spoken", "why_not"]


@dataclass(frozen=True, slots=True)
class WhyNot:
    """Why there is no ensemble to answer.

    Attributes:
        key: Of the sentence.
        details: What the sentence is filled with.
    """

    key: str
    details: dict[str, object] = field(default_factory=dict)


class Together:
    """Knows whether the gallery's backbones answer together.

    Args:
        engine: Has the backbones that are ready.
        gallery: Says whether they are better together.
    """

    def __init__(self, engine: Engine, gallery: Gallery) -> None:
        self._engine = engine
        self._gallery = gallery
        self._verdict: Verdict | None = None

    def look(self) -> None:
        """Reads what the gallery says now; not for the event loop."""
        self._verdict = self._gallery.verdict()

    def ensemble(self, ready: Collection[str]) -> Ensemble | None:
        """The ensemble, if it is offered and its backbones are ready."""
        ensemble = self._verdict.offered if self._verdict else None
        return ensemble if ensemble and self._knows(ensemble, ready) else None

    def why_not(self, ready: Collection[str]) -> WhyNot:
        """Why ``ensemble`` is None."""
        return why_not(self._verdict, ready)

    def _knows(self, ensemble: Ensemble, ready: Collection[str]) -> bool:
        return all(
            space.backbone in ready and self._engine.backbone(space.backbone).space == space
            for space in ensemble.spaces
        )


def why_not(verdict: Verdict | None, ready: Collection[str]) -> WhyNot:
    """Why an ensemble is not offered.

    Args:
        verdict: What was found out about the gallery.
        ready: Names of the backbones that can answer.
    """
    from gallery.ensembles.trial import FEWEST_PEOPLE, Outcome

    if len(ready) < 2:
        return WhyNot("best.one_model")
    if verdict is None:
        return WhyNot("best.untried")
    if verdict.outcome is Outcome.TOO_FEW:
        return WhyNot("best.too_few", {"count": verdict.people, "least": FEWEST_PEOPLE})
    if verdict.offered is None:
        return _measured(verdict)
    missing = [name for name in verdict.offered.backbones if name not in ready]
    if not missing:  # their weights are others since
        return WhyNot("best.untried")
    return WhyNot("best.not_ready", {"models": spoken(verdict.offered), "missing": missing[0]})


def _measured(verdict: Verdict) -> WhyNot:
    """What the figures say of models that are no better together."""
    rival, best = verdict.rival, verdict.figures.get(BEST)
    assert rival is not None  # there were enough people
    if best is None:
        return WhyNot("best.no_use", {"model": rival})
    details = {"alone": verdict.figures[rival].right, "together": best.right}
    shown = {name: f"{100 * share:.1f}" for name, share in details.items()}
    return WhyNot("best.not_better", {"model": rival, **shown})


def find_ensemble(engine: Engine, gallery: Gallery) -> Ensemble:
    """The backbones that answer together, loaded.

    Raises:
        SetupProblem: If they don't: why, in one sentence.
    """
    from bot.wording import Wording

    verdict = gallery.verdict()
    ensemble = verdict.offered if verdict else None
    if ensemble is None:
        why = why_not(verdict, {space.backbone for space in gallery.spaces()})
        raise SetupProblem(Wording.load().text(why.key, None, **why.details))
    for space in ensemble.spaces:
        if engine.backbone(space.backbone).space != space:
            raise SpaceMismatch(
                f"the gallery was built with another version of {space.backbone}: run "
                f"`lookalike gallery build --model {space.backbone}`"
            )
    return ensemble


def spoken(ensemble: Ensemble) -> str:
    """Its backbones, as people read it: ``senet + dlib``."""
    return " + ".join(ensemble.backbones)
