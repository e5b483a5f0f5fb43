"""The figures that the documentation quotes, each with the day and the machine it comes from.

A benchmark calls ``record`` where it is asked to; ``models_page.py`` writes docs/MODELS.md from
what is recorded. The file holds figures only: no names, no paths.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

__all__ = ["FILE", "SERVICE_TIMES", "machine", "record", "recorded"]

# Flags of /proc/cpuinfo, widest first.
_WIDEST = {"amx_bf16": "bf16", "avx512_bf16": "bf16", "avx512f": "AVX-512", "avx2": "AVX2"}

FILE = Path(__file__).with_name("figures.json")
SERVICE_TIMES = FILE.with_name("service_times.json")  # what docs/SCALING.md is written from


def record(section: str, figures: Mapping[str, object], *, file: Path = FILE) -> None:
    """Puts figures under the name of a section, in place of what was there; others stay.

    Args:
        section: Such as ``"speed"``; what `models_page.py` has a template for.
        figures: Numbers, strings, booleans, None and lists and dictionaries of these; NumPy's
            numbers count as numbers. Names carry units.
        file: Replaced in one step; two that record at once wait for each other.

    Raises:
        TypeError: If something in figures can't be written.
        ValueError: If a number is not finite.
    """
    entry = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": machine(),
        "figures": dict(figures),
    }
    json.dumps(entry, default=_plain, allow_nan=False)  # what can't be written says so unlocked
    with FileLock(Path(tempfile.gettempdir()) / "lookalike-figures.lock"):
        sections = recorded(file) | {section: entry}
        text = json.dumps(
            sections, default=_plain, allow_nan=False, ensure_ascii=False, indent=2, sort_keys=True
        )
        beside = file.with_suffix(f".{os.getpid()}.part")
        try:
            beside.write_text(f"{text}\n", encoding="utf-8")
            beside.replace(file)
        finally:
            beside.unlink(missing_ok=True)


def recorded(file: Path = FILE) -> dict[str, Any]:
    """All sections: name -> ``{"date", "machine", "figures"}``; none if nothing is recorded yet."""
    if not file.is_file():
        return {}
    sections: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return sections


def machine() -> dict[str, object]:
    """What figures depend on: cores that this process may use, processor, Python."""
    return {
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "processor": _processor(),
        "python": platform.python_version(),
        "system": platform.system(),
    }


def _processor() -> str:
    """The model as the kernel names it, and the widest arithmetic that networks can use on it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    # Only what is asked for: there are serial numbers, too.
    said = {
        key.strip(): value.strip()
        for key, _, value in (line.partition(":") for line in text.splitlines())
    }
    name = said.get("model name") or platform.processor() or platform.machine()
    flags = said.get("flags", "").split()
    widest = next((known for flag, known in _WIDEST.items() if flag in flags), "")
    return f"{name} with {widest}" if widest else name


def _plain(value: object) -> object:
    """NumPy's numbers and arrays as JSON has them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{value!r} can't be written as a figure")
