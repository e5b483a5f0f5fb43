"""Pictures of an evaluation: ROC, scores of strangers and of the same person, rank-k.

Drawn without a display and without matplotlib's global state.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.errors import SetupProblem
from gallery.evaluation.results import FAR, Identification, Verification

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_identification", "draw_verification"]

_STRANGERS: Final = "#c8553d"
_SAME: Final = "#2a6f97"
_QUIET: Final = "#8d99ae"
_MEANING: Final = ((30, "1 in 100"), (40, "1 in 1,000"), (50, "1 in 10,000"), (90, "same person"))
_SIZE_INCHES: Final = (7.0, 4.2)
_DPI: Final = 130


def draw_verification(result: Verification, folder: Path) -> tuple[Path, ...]:
    """Draws ROC curve, cosines and scores as PNG files into a folder, made if need be.

    Returns:
        The files.

    Raises:
        SetupProblem: If they can't be written.
    """
    found = ~np.isnan(result.cosines)
    same = result.cosines[found & result.same]
    strangers = result.cosines[found & ~result.same]
    scores = result.calibration.scores
    return (
        _saved(folder / f"roc-{result.model}.png", lambda axes: _roc(axes, result)),
        _saved(
            folder / f"pair-cosines-{result.model}.png",
            lambda axes: _cosines(axes, strangers, same, result.threshold, result.model),
        ),
        _saved(
            folder / f"pair-scores-{result.model}.png",
            lambda axes: _scores(axes, scores(strangers), scores(same), result.model),
        ),
    )


def draw_identification(result: Identification, folder: Path) -> tuple[Path, ...]:
    """Draws the rank-k curve, scores, and promised against seen rarity, as ``draw_verification``.

    Raises:
        SetupProblem: If they can't be written.
    """
    scores = result.calibration.scores
    strangers, own = scores(result.strangers), scores(result.own)
    return (
        _saved(folder / f"ranks-{result.model}.png", lambda axes: _ranks(axes, result)),
        _saved(
            folder / f"person-scores-{result.model}.png",
            lambda axes: _scores(axes, strangers, own, result.model),
        ),
        _saved(
            folder / f"calibration-{result.model}.png",
            lambda axes: _promises(axes, result),
        ),
    )


def _saved(path: Path, draw: Any) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(visible=True, color="#e9ecef", linewidth=0.8)
    axes.set_axisbelow(True)
    draw(axes)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as problem:
        raise SetupProblem(f"the plot {path} can't be written: {problem.strerror}") from None
    return path


def _roc(axes: Axes, result: Verification) -> None:
    from sklearn.metrics import roc_curve

    heights = np.where(np.isnan(result.cosines), -2.0, result.cosines)
    far, tar, _ = roc_curve(result.same, heights, drop_intermediate=False)
    least = min(FAR, 1 / int((~result.same).sum())) / 2
    axes.step(np.maximum(far, least), tar, where="post", color=_SAME)
    axes.axvline(FAR, color=_QUIET, linestyle="--", linewidth=1)
    axes.annotate(
        f"TAR {result.tar:.1%} at FAR 0.1 %",
        (FAR, result.tar),
        xytext=(8, -14),
        textcoords="offset points",
    )
    axes.set_xscale("log")
    axes.set(
        xlim=(least, 1),
        ylim=(min(0.9, float(np.min(tar[far > 0], initial=1.0)) - 0.02), 1.003),
        xlabel="different people accepted (FAR)",
        ylabel="one person accepted (TAR)",
        title=f"{result.model}: {result.accuracy:.2%} of {len(result.same):,} pairs right, "
        f"area {result.roc_auc:.4f}",
    )


def _cosines(
    axes: Axes,
    strangers: NDArray[np.float64],
    same: NDArray[np.float64],
    threshold: float,
    model: str,
) -> None:
    low = float(min(np.quantile(strangers, 0.001), same.min()))
    bins = np.linspace(low, 1.0, 61)
    _two(axes, strangers, same, bins)
    axes.axvline(threshold, color=_QUIET, linestyle="--", linewidth=1, label="best threshold")
    axes.set(xlabel="cosine", title=f"{model}: cosines of pairs")
    axes.legend(frameon=False)


def _scores(
    axes: Axes, strangers: NDArray[np.float64], same: NDArray[np.float64], model: str
) -> None:
    _two(axes, strangers, same, np.linspace(0, 100, 51))
    for score, meaning in _MEANING:
        axes.axvline(score, color=_QUIET, linestyle=":", linewidth=1)
        axes.text(
            score,
            0.98,
            f" {meaning}",
            rotation=90,
            va="top",
            color=_QUIET,
            fontsize=8,
            transform=axes.get_xaxis_transform(),
        )
    axes.set(xlabel="score", xlim=(0, 100), title=f"{model}: scores, and what they mean")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.7, 1))


def _two(
    axes: Axes, strangers: NDArray[np.float64], same: NDArray[np.float64], bins: NDArray[np.float64]
) -> None:
    for values, colour, name in ((strangers, _STRANGERS, "strangers"), (same, _SAME, "one person")):
        weights = np.full(len(values), 100 / max(len(values), 1))
        axes.hist(values, bins.tolist(), weights=weights, color=colour, alpha=0.65, label=name)
    axes.set_ylabel("share of pairs, %")


def _ranks(axes: Axes, result: Identification) -> None:
    ranks = np.arange(1, min(20, result.people) + 1)
    shares = [100 * result.rank(int(k)) for k in ranks]
    axes.plot(ranks, shares, "o-", color=_SAME, markersize=4)
    for k in (1, 5):
        if k <= len(shares):
            axes.annotate(
                f"{shares[k - 1]:.1f} %",
                (k, shares[k - 1]),
                xytext=(6, -14),
                textcoords="offset points",
            )
    axes.set(
        xlabel="among the k most alike",
        ylabel="probes whose person is, %",
        ylim=(min(shares) - 0.3 * (100 - min(shares)) - 0.1, 100.1),
        xticks=ranks[:: 1 if len(ranks) < 12 else 2],
        title=f"{result.model}: {len(result.ranks):,} probes, {result.people:,} people with "
        f"{result.gallery_photos} photos each",
    )


def _promises(axes: Axes, result: Identification) -> None:
    """How often strangers reach a score, beside what the score says."""
    from gallery.scores import SHARES

    reached = np.sort(result.calibration.scores(result.strangers))[::-1]
    shares = np.arange(1, len(reached) + 1) / len(reached)
    keep = np.unique(np.geomspace(1, len(reached), 400).astype(int)) - 1
    axes.plot(reached[keep], shares[keep], color=_STRANGERS, label="seen")
    promised = result.calibration.scores(result.calibration.strangers)[2:7]
    axes.plot(promised, SHARES[2:7], "o", color=_SAME, label="what the score says")
    axes.set_yscale("log")
    axes.set(
        xlabel="score",
        ylabel="strangers who reach it",
        xlim=(0, 100),
        title=f"{result.model}: {len(reached):,} pairs of strangers",
    )
    axes.legend(frameon=False)
