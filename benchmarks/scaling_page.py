"""The tables and the chart of docs/SCALING.md, from benchmarks/service_times.json.

Only what stands between a part's two markers is written.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from page_tables import table

from gallery.evaluation.charts import Chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["CHART", "PAGE", "chart", "written"]

PAGE: Final = Path(__file__).parents[1] / "docs" / "SCALING.md"
CHART: Final = PAGE.with_name("scaling.png")
COLOURS: Final = {
    "ink": "#1b2126",
    "quiet": "#5f6b76",
    "grid": "#e6e9ec",
    "same": "#1f6f9f",
    "strangers": "#c2542d",
}
STAGES: Final = {
    "talk": "the platform's SDK, HTTP, the event loop, choices and history",
    "decode": "JPEG of 1280 px to pixels, in a process of its own",
    "detect": "MTCNN: every face and its landmarks",
    "embed": "one face by dlib's network",
    "search": "the nearest of 10,000 people, in a folder",
    "draw": "the card, as JPEG",
}
DAY_S, MONTH_DAYS = 86_400, 30
DISCORD_PER_S: Final = 50 * 0.8  # requests of one bot, interactions apart, with room for a rush

Sections = Mapping[str, Mapping[str, Any]]
Rows = Sequence[Sequence[str]]


def written(page: str, sections: Sections) -> str:
    """The page with its parts as the figures say.

    Raises:
        ValueError: If a marker is missing.
    """
    for name, part in PARTS.items():
        begin = f"<!-- {name}: written by benchmarks/scaling.py, do not edit -->"
        head, found, rest = page.partition(begin)
        _, end, tail = rest.partition(f"<!-- end of {name} -->")
        if not found or not end:
            raise ValueError(f"the page needs the line {begin}, and the one that ends it")
        page = f"{head}{begin}\n{part(sections)}\n{end}{tail}"
    return page


def _ms(value: float) -> str:
    return f"{value:,.0f} ms" if value < 10_000 else f"{value / 1000:,.0f} s"


def _mb(value: float) -> str:
    return f"{value:,.0f} MB" if value < 1000 else f"{value / 1000:,.0f} GB"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _measured(section: Mapping[str, Any]) -> str:
    machine = section["machine"]
    return (
        f"Measured on {section['date']}, {machine['cores']} cores of {machine['processor']}, "
        f"Python {machine['python']}."
    )


def _costs(sections: Sections) -> str:
    """What a photo takes of a core, by stage."""
    figures = sections["photo"]["figures"]
    rows, ms = [], figures["ms"]
    for stage, what in STAGES.items():
        mean, most = statistics.mean(ms[stage]), np.quantile(ms[stage], 0.95)
        rows.append((stage, what, f"{mean:.1f} ms", f"{most:.1f} ms"))
    whole = sum(statistics.mean(ms[stage]) for stage in STAGES)
    rows.append(("all", "", f"{whole:.0f} ms", ""))
    more_ms, asked = (
        sections["simulation"]["figures"]["more_ms"],
        figures["postgres"]["transactions"],
    )
    for name, what in {
        "serve": "in `serve-engine`, beside decode, detect and embed, which it has then",
        "ask": "in the bot, to ask it; the bot decodes, too",
        "share": "in a bot that shares PostgreSQL and Valkey, beside all of these",
        "database": f"in PostgreSQL: {asked:.0f} transactions, and a search among 10,000",
    }.items():
        rows.append((name, what, f"{more_ms[name]:.1f} ms", ""))
    head = ("stage", "what", "mean", "95 % within")
    return f"{table(head, rows)}\n\n{_measured(sections['photo'])}"


def _crowds(sections: Sections) -> str:
    """What was measured beside what was simulated."""
    figures = sections["simulation"]["figures"]
    digits = {"answers_per_s": 1, "median_ms": 0, "within_95_ms": 0}
    rows = []
    for run in (*figures["crowds"], *figures["engines"]):
        replicas = run.get("replicas")
        who = f"{run['people']} at once" if replicas is None else f"{run['clients']} clients"
        engine = "in the bot" if replicas is None else f"{replicas} replica{'s' * (replicas > 1)}"
        pairs = ((kind, of) for kind in digits for of in ("measured", "simulated"))
        cells = (f"{run[f'{kind} {of}']:,.{digits[kind]}f}" for kind, of in pairs)
        rows.append((engine, who, *cells))
    head = ["engine", "who"]
    for measured in ("answers/s", "median ms", "95 % ms"):
        head += [measured, "simulated"]
    measured = sections["photo"]["figures"]
    loads = [run["load"] for run in (*measured["runs"], *measured["engines"])]
    told = (
        f"The machine's load, of other work too, was {min(loads):.1f} to {max(loads):.1f} before."
    )
    return f"{table(head, rows)}\n\n{told} {_measured(sections['photo'])}"


def _needs(sections: Sections) -> str:
    """What so many photos a minute need."""
    measured, plans = sections["photo"]["figures"], sections["simulation"]["figures"]["plans"]
    services = sections["cluster"]["figures"]["services"]
    remembered_kb = sections["cluster"]["figures"]["remembered_kb"]
    whole_mb = max(run["resident_mb"] for run in measured["runs"])
    replica_mb = measured["engines"][0]["resident_mb"]
    bot_mb = services["bot-2"]["resident_mb"]
    postgres = measured["postgres"]
    rows: dict[str, list[str]] = {}

    def add(name: str, value: str) -> None:
        rows.setdefault(name, []).append(value)

    for plan in plans:
        per_s, together = plan["photos_per_minute"] / 60, plan["replicas"] == 0
        each, rows_kept = plan["bot_cores"], per_s * DAY_S * MONTH_DAYS
        memory_mb = whole_mb if together else plan["bots"] * bot_mb + plan["replicas"] * replica_mb
        history_mb = 2 * rows_kept * postgres["row_bytes"] / 1e6  # with its indexes
        inward, outward = (per_s * measured[f"{kind}_kb"] * 8 / 1000 for kind in ("photo", "card"))
        most = f"{_ms(plan['within_95_ms'])}, {_ms(plan['within_99_ms'])}"
        add("photos a second", f"{per_s:,.1f}")
        add("Telegram bots (tokens)", f"{plan['tokens']:,}")
        add("Discord bots (mentions)", f"{math.ceil(per_s / DISCORD_PER_S):,}")
        add("bot processes", f"{plan['bots']:,} of {each} core{'s' * (each > 1)}")
        add("engine replicas of 1 core", "in the bot" if together else f"{plan['replicas']:,}")
        add("PostgreSQL, cores", "SQLite" if together else f"{plan['database_cores']:,}")
        add("cores in all", f"{plan['cores']:,}")
        add("memory of bots and engine", _mb(memory_mb))
        add("transactions a second", f"{per_s * postgres['transactions']:,.0f}")
        add("history of 30 days", f"{rows_kept / 1e6:,.1f} million rows, {_mb(history_mb)}")
        remembered_mb = per_s * 3600 * remembered_kb / 1000
        add("photos remembered for an hour", "the last 24 MB" if together else _mb(remembered_mb))
        add("to and from the platform", f"{inward:,.1f} and {outward:,.1f} Mbit/s")
        within = per_s * (measured["photo_kb"] + remembered_kb) * 8 / 1000
        add("to engine and Valkey", "" if together else f"{within:,.1f} Mbit/s")
        add("simulated: median", _ms(plan["median_ms"]))
        add("simulated: 95 and 99 % within", most)
        add("simulated: without an answer", _percent(plan["unanswered"]))
    head = ("photos a minute", *(f"{plan['photos_per_minute']:,}" for plan in plans))
    return table(head, [(name, *cells) for name, cells in rows.items()])


def _services(sections: Sections) -> str:
    """What each container of compose.cluster.yaml uses."""
    services = sections["cluster"]["figures"]["services"]
    rows = [
        (
            name,
            f"{of['processor_ms']:.1f} ms",
            _percent(of["idle_cores"]),
            _mb(of["resident_mb"]),
        )
        for name, of in services.items()
    ]
    head = ("container", "processor time for a photo", "of a core when idle", "memory")
    return f"{table(head, rows)}\n\n{_measured(sections['cluster'])}"


def _limits(sections: Sections) -> str:
    """What happens where half of something is missing."""
    rows = [
        (of["plan"], _ms(of["median_ms"]), _ms(of["within_99_ms"]), _percent(of["unanswered"]))
        for of in sections["simulation"]["figures"]["limits"]
    ]
    return table(("100,000 photos a minute", "median", "99 % within", "no answer"), rows)


PARTS: Final[dict[str, Callable[[Sections], str]]] = {
    "costs": _costs,
    "crowds": _crowds,
    "needs": _needs,
    "services": _services,
    "limits": _limits,
}


def chart(figures: Mapping[str, Any]) -> bytes:
    """What people wait for one process, by how many photos come; PNG."""
    steps = figures["one_process"]
    rates = [step["photos_per_minute"] for step in steps]

    def draw(axes: Axes, colours: Mapping[str, str]) -> None:
        lines = {"median": ("median_ms", "same"), "95 % within": ("within_95_ms", "strangers")}
        for label, (name, colour) in lines.items():
            waited_s = [step[name] / 1000 for step in steps]
            axes.plot(rates, waited_s, color=colours[colour], label=label, marker="o", markersize=3)
        told = [100 * step["unanswered"] for step in steps]
        first = next((rate for rate, share in zip(rates, told, strict=True) if share > 0), math.inf)
        if first < math.inf:
            axes.axvspan(
                first, rates[-1], color=colours["grid"], label="some are told to come back"
            )
        axes.set_yscale("log")
        axes.set_ylim(0.05, 10)
        axes.set_yticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"])
        axes.set_xlabel("photos a minute")
        axes.set_ylabel("seconds")
        axes.legend(loc="upper left")

    title = "One process with two cores"
    described = "Waiting grows slowly to a bend and steeply from there on."
    return Chart("scaling", title, described, draw).drawn("png", COLOURS)
