"""Charts of an evaluation, drawn once: as SVG to stand within a page, or as PNG files.

In a page they take colours and letters from it: every colour is a CSS variable, so that they follow
light, dark and print. Drawn without a display and without matplotlib's global state.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import escape

import numpy as np

from gallery.evaluation.measures import Heights, Measures, Roc, Verification, quantile
from gallery.likeness import Floats
from gallery.scores import ANCHORS, SAME_PERSON_SCORE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours of PNG files: those that the page's variables of these names have by day.
_LIGHT: Final = {
    "ink": "#1b2126",
    "quiet": "#5f6b76",
    "grid": "#e6e9ec",
    "same": "#1f6f9f",
    "strangers": "#c2542d",
    "model-0": "#1f6f9f",
    "model-1": "#c2542d",
    "model-2": "#3d8b40",
    "model-3": "#7b4fa3",
}
# Stand-ins that nothing else in matplotlib has, each for a variable of the page's style.
_VARIABLES: Final = {name: f"#0102{3 + place:02x}" for place, name in enumerate(_LIGHT)}
_DASHES: Final = ("-", "--", "-.", ":")
_LETTERS_PT: Final = 9
_BINS: Final = 60

Colours = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart that is drawn when it is asked for; ``described`` is for who can't see it.

    Drawing takes matplotlib, which is no part of the base installation.
    """

    name: str
    title: str
    described: str
    draw: Callable[[Axes, Colours], None]

    def svg(self) -> str:
        """An SVG element: letters as text, colours as variables, ids of its own."""
        text = self.drawn("svg", _VARIABLES).decode("utf-8")
        text = text[text.index("<svg") :]
        for noise in (r"<metadata>.*?</metadata>", r"<style\b.*?</style>", r"<!--.*?-->"):
            text = re.sub(noise, "", text, flags=re.DOTALL)
        text = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{self.name}-", text)
        for variable, colour in _VARIABLES.items():
            text = text.replace(colour, f"var(--{variable})")
        head, _, body = text.partition(">")
        head = re.sub(r'\s(width|height)="[^"]*"', "", head)
        title, told = f"{self.name}-title", f"{self.name}-told"
        return (
            f'{head} role="img" aria-labelledby="{title}" aria-describedby="{told}">'
            f'<title id="{title}">{escape(self.title)}</title>'
            f'<desc id="{told}">{escape(self.described)}</desc>{body}'
        )

    def drawn(self, kind: str, colours: Colours) -> bytes:
        """The chart as a file of that kind, png or svg."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        ink = ("axes.titlecolor", "text.color", "axes.labelcolor", "xtick.color", "ytick.color")
        style: Any = {
            "svg.fonttype": "none",
            "svg.hashsalt": self.name,
            "font.size": _LETTERS_PT,
            "axes.titlesize": _LETTERS_PT,
            "axes.edgecolor": colours["quiet"],
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": colours["grid"],
            "legend.frameon": False,
            **dict.fromkeys(ink, colours["ink"]),
        }
        buffer = io.BytesIO()
        with mpl.rc_context(style):
            figure = Figure(figsize=(4.6, 3.0), dpi=200, layout="constrained")
            axes = figure.add_subplot()
            self.draw(axes, colours)
            if kind == "png":
                axes.set_title(self.title)
                figure.savefig(buffer, format="png")
            else:
                figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        return buffer.getvalue()


def roc(curves: Mapping[str, Roc], strangers: int) -> Chart:
    """Pairs of one person accepted over at least so many pairs of strangers; curves by model."""
    least = max(1e-5, 1 / strangers)  # left end of the axis

    def draw(axes: Axes, colours: Colours) -> None:
        from matplotlib.ticker import FuncFormatter

        for number, (model, curve) in enumerate(curves.items()):
            far = np.maximum(curve.far, least)
            axes.step(far, curve.tar, where="post", **_line(number, model, colours))
        lowest = min(curve.tar_at(least) for curve in curves.values())
        axes.set_xscale("log")
        axes.set(xlabel="strangers accepted, 1 in", ylabel="same person accepted")
        axes.set(xlim=(least, 1), ylim=(max(0.0, lowest - 0.05), 1.01))
        _as_percent(axes)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda far, _: f"{round(1 / far):,}"))
        axes.legend(loc="best")

    described = "; ".join(
        f"{model}: {curve.tar_at(1e-3):.1%} of one person's photos accepted where 1 in 1,000 "
        "strangers is"
        for model, curve in curves.items()
    )
    return Chart("roc", "Accepted: the same person against strangers (ROC)", described, draw)


def ranks(columns: Sequence[Measures]) -> Chart:
    """How often the right person is among the k most alike, for each backbone."""
    most = min(20, *(len(column.probe_set.people) for column in columns))

    def draw(axes: Axes, colours: Colours) -> None:
        ks = np.arange(1, most + 1)
        for number, column in enumerate(columns):
            shares = [column.rank(int(k)).value for k in ks]
            axes.plot(ks, shares, marker="o", markersize=3, **_line(number, column.model, colours))
        low = min(column.rank(1).value for column in columns)
        axes.set(xlabel="among the k most alike", ylabel="right person found")
        axes.set(ylim=(max(0.0, low - 0.3 * (1 - low) - 0.005), 1.005))
        axes.set_xticks([1, *range(5, most + 1, 5)] if most > 5 else ks)
        _as_percent(axes)
        axes.legend(loc="best")

    described = "; ".join(
        f"{column.model}: first in {column.rank(1).value:.1%}, among five in "
        f"{column.rank(5).value:.1%}"
        for column in columns
    )
    return Chart("ranks", "Right person among the k most alike", described, draw)


def promises(columns: Sequence[Measures]) -> Chart:
    """How many strangers reach a score, beside how many are said to."""

    def draw(axes: Axes, colours: Colours) -> None:
        at, said = [score for score, _ in ANCHORS], [1 / rarity for _, rarity in ANCHORS]
        axes.plot(at, said, color=colours["quiet"], linewidth=5, alpha=0.35, label="stated")
        for number, column in enumerate(columns):
            seen = [column.reached(score) for score in at]
            parts = [(one.value, one.low, one.high) if one.count else [np.nan] * 3 for one in seen]
            values, low, high = np.array(parts).T
            bars, places = [values - low, high - values], np.array(at) + 0.6 * number
            style = _line(number, column.model, colours) | {"marker": "o", "markersize": 4}
            axes.errorbar(places, values, yerr=bars, elinewidth=1.5, capsize=3, **style)
        axes.set_yscale("log")
        axes.set(xlabel="score", ylabel="strangers with it or more")
        axes.set(xticks=at, xlim=(at[0] - 5, at[-1] + 5))
        axes.set_yticks(said, [f"1 in {rarity:,}" for _, rarity in ANCHORS], minor=False)
        axes.set_yticks([], minor=True)
        axes.legend(loc="upper right")

    score, rarity = next(anchor for anchor in ANCHORS if anchor[1] == 100)
    described = "; ".join(
        f"{column.model}: {column.reached(score).value:.2%} of strangers score {score:g} or more, "
        f"stated is {100 / rarity:g} %"
        for column in columns
    )
    title = "How often strangers reach a score: stated and observed"
    return Chart("promises", title, described, draw)


def distributions(
    model: str, strangers: Heights, own: Floats, unit: str = "score", threshold: float | None = None
) -> Chart:
    """Histograms of strangers and of the same person, as shares of pairs.

    Of scores with what they mean; with a threshold, of likenesses before calibration.
    """
    if threshold is None:
        name, title, dashes = f"scores-{model}", f"{model}: after calibration", ":"
        bins = np.linspace(0, 100, _BINS // 2 + 1)
        marks = [*(score for score, _ in ANCHORS[2:]), SAME_PERSON_SCORE]
    else:
        name, title, dashes = f"cosines-{model}", f"{model}: before calibration", "--"
        bins = np.linspace(min(quantile(strangers, 0.001), float(own.min())), 1.0, _BINS + 1)
        marks = [threshold]

    def draw(axes: Axes, colours: Colours) -> None:
        both = {"strangers": strangers, "same person": (own, np.ones(len(own)))}
        for label, (values, counts) in both.items():
            weights, colour = counts / max(counts.sum(), 1), colours[label.split()[0]]
            style: Any = {"color": colour, "alpha": 0.7, "histtype": "stepfilled", "label": label}
            axes.hist(values, bins.tolist(), weights=weights, **style)
        for mark in marks:
            axes.axvline(mark, ymax=0.85, color=colours["quiet"], linestyle=dashes, linewidth=1)
        axes.set(xlabel=unit, xlim=(bins[0], bins[-1]), ylabel="share of pairs")
        if threshold is None:
            axes.set_xticks(range(0, 101, 10))
        _as_percent(axes)
        axes.set_ylim(0, axes.get_ylim()[1] * 1.18)
        axes.legend(loc="upper center", ncols=2)

    medians = (quantile(strangers, 0.5), float(np.median(own)))
    shown = [f"{one:.0f}" if threshold is None else f"{one:.3f}" for one in medians]
    described = f"The medians: {shown[0]} for strangers, {shown[1]} for photos of the same person"
    return Chart(name, title, described, draw)


def before_and_after(measures: Measures) -> tuple[Chart, Chart]:
    """Likenesses of strangers and the same person before calibration, and scores after it."""
    model, found, threshold = measures.model, measures.found.own, measures.threshold
    heights, counts = measures.strangers.heights()
    after = (measures.calibration.scores(heights), counts)
    return (
        distributions(model, (heights, counts), found, measures.probe_set.unit, threshold),
        distributions(model, after, measures.same_scores),
    )


def draw_verification(result: Verification) -> dict[str, bytes]:
    """ROC curve, cosines and scores of pairs: PNG files by name."""
    model, found = result.model, ~np.isnan(result.cosines)
    own, others = result.cosines[found & result.same], result.cosines[found & ~result.same]
    once, score = np.ones(len(others)), result.calibration.scores
    drawn = {
        "roc": roc({model: result.roc}, int((~result.same).sum())),
        "pair-cosines": distributions(model, (others, once), own, "cosine", result.threshold),
        "pair-scores": distributions(model, (score(others), once), score(own)),
    }
    return _files(drawn, model)


def draw_identification(measures: Measures) -> dict[str, bytes]:
    """Rank-k curve, scores, and stated against observed rarity: PNG files by name."""
    drawn = {
        "ranks": ranks([measures]),
        "person-scores": before_and_after(measures)[1],
        "calibration": promises([measures]),
    }
    return _files(drawn, measures.model)


def _files(charts: Mapping[str, Chart], model: str) -> dict[str, bytes]:
    return {f"{name}-{model}.png": chart.drawn("png", _LIGHT) for name, chart in charts.items()}


def _line(number: int, model: str, colours: Colours) -> dict[str, Any]:
    number %= len(_DASHES)
    return {"color": colours[f"model-{number}"], "linestyle": _DASHES[number], "label": model}


def _as_percent(axes: Axes) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
