"""What benchmarks/ensemble.py found, in words and a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from page_tables import table

from gallery.scores import score_at

__all__ = ["together"]

HEAD = (
    "",
    "right person first",
    "TAR at FAR 0.1 %",
    f"strangers from {score_at(1e-2):g} (meant 1 %)",
    f"from {score_at(1e-3):g} (0.1 %)",
    "median score, same person",
)


def together(figures: Mapping[str, Any]) -> str:
    """What backbones together cost and bring."""
    halves = figures.get("halves_of_dlib")
    return "\n\n".join([_cost(figures["cost"]), *([] if halves is None else _brings(halves))])


def _cost(found: Mapping[str, Any]) -> str:
    alone, both = found["query_2048_least_ms"], found["query_both_least_ms"]
    return (
        f"Made-up people, {found['people']:,} with {found['portraits']:,} portraits, in two spaces "
        f"of 128 and 2,048 dimensions: a build finds out in {found['trial_s']:.0f} s whether they "
        f"are better together; a search by both takes {both:.0f} ms where the longer vectors alone "
        f"take {alone:.0f} ms (the quickest of many)."
    )


def _brings(found: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            one["by"],
            f"{one['rank_1']:.1%}",
            f"{one['tar']:.1%}",
            f"{one['strangers_1_in_100']:.2%}",
            f"{one['strangers_1_in_1000']:.2%}",
            f"{one['same_person_median']:.0f}",
        )
        for one in found["compared"]
    ]
    better = "better" if found["outcome"] == "helps" else "not better"
    return [
        (
            f"Real people, {found['people']:,} with {found['probes']:,} photos: dlib's vectors, "
            "turned at random and cut in two, serve as two backbones of half the size. Each half "
            "of the people is judged with what the other half taught."
        ),
        table(HEAD, rows),
        (
            f"Together they are {better} than each alone; chance does as well with a probability "
            f"of {found['chance_alone']:.0e}. Scores of each alone lean on a prior that was made "
            "for other networks; those of both together are learned from nothing but these people."
        ),
    ]
