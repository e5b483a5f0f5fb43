"""Figures as Markdown tables, whatever they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["anything", "side_by_side", "table"]

UNITS = {
    "ms": "ms", "s": "s", "mb": "MB", "gb": "GB", "kb": "kB", "bytes": "bytes", "px": "px",
    "seconds": "s", "kilobytes": "kB",
}  # fmt: skip
PHRASES = {
    "add_one_person_ms": "adding one person",
    "append_per_s": "vectors appended a second",
    "approximate": "candidates named by faiss",
    "category_ms": "search in a category",
    "digest_mb": "of which the digest",
    "disk_mb": "vectors on disk",
    "first_ms": "first search",
    "kilobytes": "size",
    "looking_at_all_ms": "search without a digest",
    "mapped_memory_mb": "mapped memory in use",
    "open_and_first_match_ms": "opening the gallery and first match",
    "open_ms": "opening the index",
    "own_memory_mb": "memory of its own",
    "peak_mb": "peak memory",
    "prepare_s": "preparing the digest",
    "query_least_ms": "search, quickest",
    "query_ms": "search, median",
    "processor_seconds": "processor time",
    "seconds": "time",
    "top_matches_least_ms": "search with names and portraits, quickest",
    "top_matches_ms": "search with names and portraits, median",
}


def anything(figures: Mapping[str, Any]) -> str:
    """Tables of figures whatever they are: lists of records as tables, the rest by name."""
    rows: list[tuple[str, str]] = []
    tables: list[str] = []
    _flatten("", figures, rows, tables)
    return "\n\n".join(([table(("", "found"), rows)] if rows else []) + tables)


def side_by_side(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """Runs with the same figures as one table, a column each."""
    rows: dict[str, dict[str, str]] = {}
    for run, figures in runs.items():
        flat: list[tuple[str, str]] = []
        _flatten("", figures, flat, [])
        for name, value in flat:
            rows.setdefault(name, {})[run] = value
    return table(
        ("", *runs), [(name, *(row.get(run, "") for run in runs)) for name, row in rows.items()]
    )


def _flatten(name: str, value: object, rows: list[tuple[str, str]], tables: list[str]) -> None:
    if isinstance(value, Mapping):
        alike = _alike(value)
        if alike:
            cells = [[_name(key), *map(_figure, one, one.values())] for key, one in alike.items()]
            tables.append(table(["", *map(_name, next(iter(alike.values())))], cells))
            value = {key: one for key, one in value.items() if key not in alike}
        for key, below in value.items():
            _flatten(f"{name}, {key}" if name else str(key), below, rows, tables)
    elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        keys = list(dict.fromkeys(key for one in value for key in one))
        cells = [[_figure(key, one.get(key)) for key in keys] for one in value]
        head = [_name(key) for key in keys]
        tables.append((f"{_name(name)}:\n\n" if name else "") + table(head, cells))
    else:
        rows.append((_name(name), _figure(name, value)))


def _alike(value: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Those of some figures that are records of the same fields, if there are several."""
    records = {key: one for key, one in value.items() if isinstance(one, Mapping)}
    same = len({tuple(one) for one in records.values()}) == 1 and len(records) > 1
    plain = not any(isinstance(x, Mapping | list) for one in records.values() for x in one.values())
    return records if same and plain else {}


def _name(name: str) -> str:
    if name in PHRASES:
        return PHRASES[name]
    words = name.rsplit("_", 1)
    bare = words[0] if len(words) > 1 and words[1] in UNITS else name
    return bare.replace("_", " ")


def _figure(name: str, value: object) -> str:
    unit = UNITS.get(name.rsplit("_", 1)[-1], "") if "_" in name or name in PHRASES else ""
    if name.endswith("_per_s"):
        unit = ""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 3
        text = f"{value:,.{digits}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    elif isinstance(value, int):
        text = f"{value:,}"
    elif isinstance(value, list):
        text = ", ".join(_figure("", one) for one in value)
    else:
        text = str(value)
    return f"{text} {unit}".strip()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, a line each."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )
