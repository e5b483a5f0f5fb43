"""Writes the measured part of docs/MODELS.md from benchmarks/figures.json.

    python benchmarks/models_page.py            # rewrites the page
    python benchmarks/models_page.py --check    # says whether the page is what the figures say

Only what stands between the two markers is written; a section without figures is left out.
"""

from __future__ import annotations

import argparse
import datetime as dt
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from figures import recorded
from page_ensemble import together
from page_tables import anything, side_by_side, table

from gallery.scores import SAME_PERSON_SCORE, score_at

__all__ = ["BEGIN", "END", "PAGE", "written"]

PAGE = Path(__file__).parents[1] / "docs" / "MODELS.md"
BEGIN = "<!-- measured: written by benchmarks/models_page.py, do not edit -->"
END = "<!-- end of measured -->"

Figures = Mapping[str, Any]

RARE, RARER = score_at(1e-2), score_at(1e-3)

# Section -> heading and the command that measures it, in the order of the page.
SECTIONS = {
    "accuracy": ("Accuracy", "benchmarks/accuracy.py DIR..."),
    "scores": ("What a score is worth for people not seen before", "benchmarks/accuracy.py DIR..."),
    "fairness": ("For whom it works how well", "benchmarks/accuracy.py DIR... --people people.csv"),
    "ensemble": ("Backbones together", "benchmarks/ensemble.py --photos DIR"),
    "speed": ("Speed", "benchmarks/beside_peers.py"),
    "start_and_memory": ("Start and memory", "benchmarks/start_and_memory.py"),
    "telegram": ("What somebody on Telegram waits", "benchmarks/telegram_latency.py"),
    "processes": ("Two processes, one bot", "benchmarks/two_processes.py"),
    "discord": ("What somebody on Discord waits", "benchmarks/discord_latency.py"),
    "scale": ("Large galleries", "benchmarks/gallery_scale.py"),
    "postgres_search": ("A gallery on PostgreSQL", "benchmarks/postgres_search.py"),
    "pack": ("A gallery in one file", "benchmarks/pack_speed.py"),
    "gallery_verify": ("Finding wrong portraits", "benchmarks/gallery_verify.py DIR"),
    "pictures": ("Split cards and morphs", "benchmarks/morph_speed.py"),
}
MEASURES = {
    "accuracy": "pairs judged rightly",
    "rank_1": "right person first",
    "strangers_1_in_100": f"strangers who score {RARE:g} or more",
}


def written(page: str, sections: Mapping[str, Figures]) -> str:
    """The page with its measured part as the figures say.

    Raises:
        ValueError: If the page has no markers.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines {BEGIN} and {END}")
    runs: dict[str, dict[str, Figures]] = {}
    for run in sorted(sections):  # "scale 10000x5x128" is a run of "scale"
        runs.setdefault(run.partition(" ")[0], {})[run] = sections[run]
    order = [name for name in SECTIONS if name in runs]
    order += [name for name in runs if name not in SECTIONS]
    parts = [_section(name, runs[name]) for name in order]
    return f"{head}{BEGIN}\n\n" + "".join(f"{part}\n\n" for part in parts) + f"{END}{tail}"


def _section(name: str, runs: Mapping[str, Figures]) -> str:
    heading, script = SECTIONS.get(name, (name.replace("_", " ").capitalize(), ""))
    render = RENDERERS.get(name, anything)
    if name in RENDERERS and list(runs) != [name]:  # on several kinds of machine
        kinds = [(run.removeprefix(name).strip(), runs[run]) for run in sorted(runs)]
        body = "\n\n".join(
            f"On a machine with {kind}, {entry['date']}: {render(entry['figures'])}"
            for kind, entry in kinds
        )
    elif list(runs) == [name]:
        body = render(runs[name]["figures"])
    else:
        found = {
            run.removeprefix(name).strip() or "one": entry["figures"]
            for run, entry in sorted(runs.items())
        }
        body = side_by_side(found)
    latest = max(runs.values(), key=lambda entry: str(entry["date"]))
    source = f" `python {script}`" if script else ""
    text = f"### {heading}\n\n{body}\n\n{_measured(latest)}{source}"
    return re.sub(r"(\d)%", r"\1 %", text)


def _measured(entry: Figures) -> str:
    machine, day = entry["machine"], dt.date.fromisoformat(entry["date"])
    cores = f"{machine['cores']} core{'s' if machine['cores'] != 1 else ''}"
    return (
        f"Measured on {day.day} {day:%B %Y}, {cores} of {machine['processor']}, "
        f"Python {machine['python']}."
    )


def _accuracy(figures: Figures) -> str:
    rows = [
        (
            f"{found['pairs']:,} pairs of {found['title']}, ten-fold",
            f"{found['accuracy']:.2%} right; {_curve(found)}",
        )
        for found in figures["pairs"]
    ]
    for found in figures["people"]:
        who = f"{found['people']:,} {found['title']}, {found['gallery_photos']} gallery photos each"
        rows += [
            (
                f"{who}: {found['probes']:,} photos looked up",
                f"rank-1 {found['rank_1']:.1%}, rank-5 {found['rank_5']:.1%}",
            ),
            (
                "these photos with their own person and with everybody else",
                _curve(found),
            ),
        ]
    return f"With `{figures['model']}`, on photos that are no part of this repository.\n\n" + table(
        ("measured on", "found"), rows
    )


def _curve(found: Figures) -> str:
    return f"TAR {found['tar_at_far_1e-3']:.1%} at FAR 0.1 %; AUC {found['roc_auc']:.4f}"


def _scores(figures: Figures) -> str:
    parts = []
    for found in figures["people"]:
        share = f"{{mean:.{2}%}} ({{low:.{2}%}} to {{high:.{2}%}})"
        median = "{mean:.0f} ({low:.0f} to {high:.0f})"
        parts.append(
            f"With `{figures['model']}`: learned on one half of {found['people']:,} "
            f"{found['title']} and judged on the other, {found['divisions']} random divisions, "
            "both ways; mean, lowest and highest.\n\n"
            + table(
                ("", "meant", "found"),
                [
                    (
                        f"strangers who score {RARE:g} or more",
                        "1 %",
                        share.format(**found["strangers_1_in_100"]),
                    ),
                    (
                        f"strangers who score {RARER:g} or more",
                        "0.1 %",
                        share.replace(".2%", ".3%").format(**found["strangers_1_in_1000"]),
                    ),
                    (
                        "another photo of the same person, median score",
                        f"{SAME_PERSON_SCORE:g}",
                        median.format(**found["same_person_median"]),
                    ),
                    (
                        f"best match of who is not among {found['gallery_people']:,}, median",
                        "58 to 79",
                        median.format(**found["best_stranger_median"]),
                    ),
                ],
            )
        )
    return "\n\n".join(parts)


def _fairness(figures: Figures) -> str:
    parts = []
    for people in figures["people"]:
        parts.append(
            f"With `{figures['model']}`, {people['title']}. Everybody is judged at the same "
            "thresholds; strangers are others of the same group. In brackets, between what the "
            "truth lies with 95 % confidence."
            + (f" Labels: {figures['labelled']}." if figures.get("labelled") else "")
            + (f" {figures['converted']}" if figures.get("converted") else "")
        )
        for kind, grouping in people["kinds"].items():
            parts += _grouping(kind, grouping)
    return "\n\n".join(parts)


def _grouping(kind: str, grouping: Figures) -> list[str]:
    head = (
        kind,
        "people",
        "right person first",
        "pairs judged rightly",
        "TAR at FAR 0.1 %",
        f"strangers from {RARE:g} (meant 1 %)",
        f"from {RARER:g} (0.1 %)",
        "median score, same person and strangers",
    )
    rows = [
        (
            group["name"],
            f"{group['people']:,}",
            *(_between(group[name]) for name in ("rank_1", "accuracy", "tar")),
            _between(group["strangers_1_in_100"], 2),
            _between(group["strangers_1_in_1000"], 2),
            f"{group['same_person_median']:.0f}, {group['strangers_median']:.0f}",
        )
        for group in grouping["groups"]
    ]
    small = grouping["too_small_to_judge"]
    said = [_gap(gap) for gap in grouping["gaps"]]
    if small:
        said.append(
            "Too small to judge (fewer than 20 people): "
            + ", ".join(f"{name} ({people})" for name, people in small.items())
            + "."
        )
    if grouping["people_without_label"]:
        said.append(f"Without a label: {grouping['people_without_label']:,} people.")
    return [table(head, rows), "\n".join(f"- {sentence}" for sentence in said)]


def _gap(gap: Figures) -> str:
    if gap["best_value"] == gap["worst_value"]:
        return f"{MEASURES[gap['measure']].capitalize()}: {gap['best_value']:.1%} in every group."
    found = (
        f"{MEASURES[gap['measure']].capitalize()}: {gap['best_value']:.1%} for {gap['best']}, "
        f"{gap['worst_value']:.1%} for {gap['worst']}"
    )
    tries = f"{gap['share_of_random_divisions']:.1%} of random divisions of the same people"
    if gap["exceeds_chance"]:
        return f"{found}: more than chance, only {tries} have a gap this wide."
    return f"{found}: not more than chance, {tries} have a gap this wide."


def _between(share: Figures, digits: int = 1) -> str:
    return f"{share['share']:.{digits}%} ({share['low']:.{digits}%} to {share['high']:.{digits}%})"


def _speed(figures: Figures) -> str:
    rows = []
    for timing in figures["timings"]:
        name = f"`{timing['backbone']}` ({timing['precision']})"
        steps = ("decode", "detect", "embed", "search", "whole", "forward")
        cells = ("" if timing[step] is None else f"{timing[step]:,.1f}" for step in steps)
        size = f", {timing['photo_px']:,} px" if "photo_px" in timing else ""
        name += "*" if timing["made_up_weights"] else ""
        rows.append((timing["pipeline"] + size, name, *cells))
    timings = table(
        ("", "backbone", "decode", "detect", "embed", "search", "whole", "network alone"), rows
    )
    notes = [f"Milliseconds per photo with one face, {figures['people']:,} people, medians."]
    if (load := figures.get("load_before", 0)) > 1:
        notes.append(f"Others worked there, too (load {load}): ratios say more than times.")
    if any(timing["made_up_weights"] for timing in figures["timings"]):
        notes.append("\\* with made-up weights: they decide nothing about speed.")
    if any(timing["pipeline"] == "published" for timing in figures["timings"]):
        notes.append(
            "“published” is the recipe of most tutorials (package mtcnn, `predict`, a loop of "
            "cosine_similarity) on the same photos in the same run."
        )
    for peer, found in figures.get("ratios", {}).items():
        if any(timing["pipeline"] == peer for timing in figures["timings"]):
            sizes = [f"{ratio:g} times as long at {size}" for size, ratio in found.items()]
            notes.append(f"With decoding, {peer} takes {' and '.join(sizes)} (medians of pairs).")
    return f"{' '.join(notes)}\n\n{timings}"


RENDERERS: Mapping[str, Callable[[Figures], str]] = {
    "accuracy": _accuracy,
    "scores": _scores,
    "fairness": _fairness,
    "ensemble": together,
    "speed": _speed,
}


def main() -> None:
    """Rewrites the page, or compares it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    page = PAGE.read_text(encoding="utf-8")
    new = written(page, recorded())
    if parser.parse_args().check:
        if new != page:
            sys.exit(
                "docs/MODELS.md is not what the figures say: run python benchmarks/models_page.py"
            )
    elif new != page:
        PAGE.write_text(new, encoding="utf-8")
        print(f"{PAGE} rewritten")


if __name__ == "__main__":
    main()
