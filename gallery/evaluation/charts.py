"""Charts of an evaluation report, as SVG to stand within a page.

They take colours and letters from the page: every colour is a CSS variable, so that they follow
light, dark and print. Drawn without a display and without matplotlib's global state.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from gallery.evaluation.evidence import Tally
from gallery.evaluation.report import FARS, PROMISES, Column

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["cosines", "promises", "ranks", "roc", "scores"]

# Colours that nothing else in matplotlib has, each for a variable of the page's style.
_INK, _QUIET, _GRID = "#010203", "#010204", "#010205"
_SAME, _STRANGERS = "#010206", "#010207"
_MODELS: Final = ("#010208", "#010209", "#01020a", "#01020b")
_VARIABLES: Final = {
    _INK: "--ink",
    _QUIET: "--quiet",
    _GRID: "--grid",
    _SAME: "--same",
    _STRANGERS: "--strangers",
} | {colour: f"--model-{number}" for number, colour in enumerate(_MODELS)}
_DASHES: Final = ("-", "--", "-.", ":")
_SIZE_INCHES: Final = (4.6, 3.0)
_LETTERS_PT: Final = 9
_FEWEST_FAR: Final = 1e-5  # left end of the ROC's axis, unless there are too few pairs for it
_RANKS: Final = 20
_BINS: Final = 60


def roc(columns: Sequence[Column]) -> str:
    """Pairs of one person accepted over pairs of strangers accepted, for each backbone."""
    pairs = min(column.evidence.strangers.total for column in columns)
    least = max(_FEWEST_FAR, 1 / pairs)

    def draw(axes: Axes) -> None:
        lowest = 1.0
        for number, column in enumerate(columns):
            far, tar = column.evidence.roc
            axes.step(np.maximum(far, least), tar, where="post", **_line(number, column))
            lowest = min(lowest, float(tar[far <= least].max(initial=0.0)))
        axes.set_xscale("log")
        axes.set(
            xlim=(least, 1),
            ylim=(max(0.0, lowest - 0.05), 1.01),
            xlabel="strangers accepted, 1 in",
            ylabel="same person accepted",
        )
        _as_percent(axes.yaxis)
        _as_odds(axes)
        axes.legend(frameon=False, loc="best")

    told = "; ".join(
        f"{column.model}: {column.evidence.tar(FARS[2]).value:.1%} of one person's photos accepted "
        "where 1 in 1,000 strangers is"
        for column in columns
    )
    return _svg("roc", "Accepted: the same person against strangers (ROC)", told, draw)


def ranks(columns: Sequence[Column]) -> str:
    """How often the right person is among the k most alike, for each backbone."""
    most = min(_RANKS, *(len(column.evidence.lineup.people) for column in columns))

    def draw(axes: Axes) -> None:
        steps = np.arange(1, most + 1)
        for number, column in enumerate(columns):
            shares = [column.evidence.rank(int(k)).value for k in steps]
            axes.plot(steps, shares, marker="o", markersize=3, **_line(number, column))
        low = min(column.evidence.rank(1).value for column in columns)
        axes.set(
            xlabel="among the k most alike",
            ylabel="right person found",
            ylim=(max(0.0, low - 0.3 * (1 - low) - 0.005), 1.005),
            xticks=[1, *range(5, most + 1, 5)] if most > 5 else steps,
        )
        _as_percent(axes.yaxis)
        axes.legend(frameon=False, loc="best")

    told = "; ".join(
        f"{column.model}: first in {column.evidence.rank(1).value:.1%}, among five in "
        f"{column.evidence.rank(5).value:.1%}"
        for column in columns
    )
    return _svg("ranks", "Right person among the k most alike", told, draw)


def promises(columns: Sequence[Column]) -> str:
    """How many strangers reach a score, beside how many are said to."""

    def draw(axes: Axes) -> None:
        said = [1 / rarity for _, rarity in PROMISES]
        at = [score for score, _ in PROMISES]
        axes.plot(at, said, color=_QUIET, linewidth=5, alpha=0.35, label="stated")
        for number, column in enumerate(columns):
            shares = [column.evidence.reached(score) for score in at]
            seen = [(score, share) for score, share in zip(at, shares, strict=True) if share.count]
            style = _line(number, column)
            axes.errorbar(
                [score + 0.6 * number for score, _ in seen],
                [share.value for _, share in seen],
                yerr=np.array(
                    [[share.value - share.low, share.high - share.value] for _, share in seen]
                ).T
                if seen
                else None,
                marker="o",
                markersize=4,
                elinewidth=1.5,
                capsize=3,
                **style,
            )
        axes.set_yscale("log")
        axes.set(xlabel="score", ylabel="strangers with it or more", xticks=at, xlim=(5, 55))
        odds = [1 / rarity for _, rarity in PROMISES]
        axes.set_yticks(odds, [f"1 in {rarity:,}" for _, rarity in PROMISES], minor=False)
        axes.set_yticks([], minor=True)
        axes.legend(frameon=False, loc="upper right")

    told = "; ".join(
        f"{column.model}: {column.evidence.reached(30.0).value:.2%} of strangers score 30 or more, "
        "stated is 1 %"
        for column in columns
    )
    return _svg("promises", "How often strangers reach a score: stated and observed", told, draw)


def cosines(column: Column) -> str:
    """Likenesses before calibration: strangers and the same person."""
    heights, counts = column.evidence.strangers.heights()
    own = column.evidence.found.own
    low = min(_low(column.evidence.strangers), float(own.min()))

    def draw(axes: Axes) -> None:
        _two(axes, (heights, counts), own, np.linspace(low, 1.0, _BINS + 1))
        axes.axvline(
            column.evidence.threshold, ymax=0.85, color=_QUIET, linestyle="--", linewidth=1
        )
        axes.set(xlabel=column.evidence.lineup.unit, xlim=(low, 1))

    told = (
        f"Strangers have {column.evidence.strangers.quantile(0.5):.3f} in the median, photos of "
        f"the same person {float(np.median(own)):.3f}"
    )
    return _svg(f"cosines-{column.model}", f"{column.model}: before calibration", told, draw)


def scores(column: Column) -> str:
    """Scores: strangers and the same person."""
    heights, counts = column.evidence.strangers.heights()
    strangers = column.evidence.calibration.scores(heights)

    def draw(axes: Axes) -> None:
        own = column.evidence.same_scores()
        _two(axes, (strangers, counts), own, np.linspace(0, 100, _BINS // 2 + 1))
        axes.set(xlabel="score", xlim=(0, 100), xticks=range(0, 101, 10))

    median = column.evidence.calibration.score(column.evidence.strangers.quantile(0.5))
    told = (
        f"Strangers score {median:.0f} in the median, photos of the same person "
        f"{column.same_median:.0f}"
    )
    return _svg(f"scores-{column.model}", f"{column.model}: after calibration", told, draw)


def _low(strangers: Tally) -> float:
    return strangers.quantile(0.001)


def _line(number: int, column: Column) -> dict[str, Any]:
    return {
        "color": _MODELS[number % len(_MODELS)],
        "linestyle": _DASHES[number % len(_DASHES)],
        "label": column.model,
    }


def _two(
    axes: Axes,
    strangers: tuple[NDArray[np.float64], NDArray[np.int64]],
    same: NDArray[np.float64],
    bins: NDArray[np.float64],
) -> None:
    heights, counts = strangers
    for values, weights, colour, name in (
        (heights, counts / counts.sum(), _STRANGERS, "strangers"),
        (same, np.full(len(same), 1 / max(len(same), 1)), _SAME, "same person"),
    ):
        axes.hist(
            values,
            bins.tolist(),
            weights=weights,
            color=colour,
            alpha=0.7,
            histtype="stepfilled",
            label=name,
        )
    axes.set_ylabel("share of pairs")
    _as_percent(axes.yaxis)
    top = axes.get_ylim()[1]
    axes.set_ylim(0, top * 1.18)
    axes.legend(frameon=False, loc="upper center", ncols=2)


def _as_percent(axis: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))


def _as_odds(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter

    axes.xaxis.set_major_formatter(FuncFormatter(lambda far, _: f"{round(1 / far):,}"))


def _svg(name: str, title: str, told: str, draw: Callable[[Axes], None]) -> str:
    """A figure as an SVG element: letters as text, colours as variables, ids of its own."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": _LETTERS_PT,
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "axes.edgecolor": _QUIET,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "xtick.minor.visible": False,
    }
    buffer = io.StringIO()
    with mpl.rc_context(style):
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        figure.patch.set_alpha(0)
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.grid(visible=True, color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        draw(axes)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _for_a_page(buffer.getvalue(), name, title, told)


def _for_a_page(svg: str, name: str, title: str, told: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style\b.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    described = (
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-told">{escape(told)}</desc>'
    )
    head, _, body = svg.partition(">")
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    labels = f' role="img" aria-labelledby="{name}-title" aria-describedby="{name}-told"'
    return f"{head}{labels}>{described}{body}"
