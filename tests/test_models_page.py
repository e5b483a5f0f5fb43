"""What docs/MODELS.md, docs/SCALING.md and the README say was measured is what was measured."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import scaling_page  # noqa: E402 - found through the line above
from figures import SERVICE_TIMES, record, recorded  # noqa: E402
from models_page import BEGIN, END, PAGE, SECTIONS, written  # noqa: E402

EMPTY = f"before\n{BEGIN}\nold\n{END}\nafter\n"


def entry(figures: dict[str, Any]) -> dict[str, Any]:
    machine = {"cores": 2, "processor": "Some CPU", "python": "3.11.7", "system": "Linux"}
    return {"date": "2026-11-22", "machine": machine, "figures": figures}


def test_the_page_is_what_the_figures_say() -> None:
    """If this fails: python benchmarks/models_page.py."""
    page = PAGE.read_text(encoding="utf-8")

    assert recorded()
    assert written(page, recorded()) == page


def test_the_page_on_scaling_is_what_the_figures_say() -> None:
    """If this fails: python benchmarks/scaling.py --page."""
    page = scaling_page.PAGE.read_text(encoding="utf-8")

    assert scaling_page.written(page, recorded(SERVICE_TIMES)) == page
    assert scaling_page.CHART.is_file()
    for name in scaling_page.PARTS:
        with pytest.raises(ValueError, match=name):
            scaling_page.written(page.replace(f"end of {name} ", ""), recorded(SERVICE_TIMES))


def test_the_check_by_hand_says_the_same() -> None:
    script = ROOT / "benchmarks" / "models_page.py"

    done = subprocess.run([sys.executable, str(script), "--check"], check=False)

    assert done.returncode == 0


def test_sections_without_figures_are_left_out() -> None:
    page = written(EMPTY, {"pictures": entry({"made_s": 0.8})})

    assert page.count("### ") == 1
    assert "| made | 0.8 s |" in page
    assert "Measured on 22 November 2026, 2 cores of Some CPU, Python 3.11.7." in page
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert "old" not in page
    assert written(page, {"pictures": entry({"made_s": 0.8})}) == page


def test_any_figures_become_tables() -> None:
    sections = {
        "scale": entry(
            {
                "portraits": 1_000_000,
                "query": {"median_ms": 4.25, "exact": False, "none": None},
                "runs": [{"kind": "a|b", "open_s": 0.31}, {"kind": "c", "recall": 0.9951}],
                "sizes": [128, 2048],
            }
        ),
        "something_new": entry({"share": "95%"}),
    }

    page = written(EMPTY, sections)

    for line in (
        "| portraits | 1,000,000 |",
        "| query, median | 4.25 ms |",
        "| query, exact | no |",
        "| kind | open | recall |",
        "| a\\|b | 0.31 s |  |",
        "| c |  | 0.995 |",
        "| sizes | 128, 2,048 |",
        "### Something new",
        "| share | 95 % |",
    ):
        assert line in page
    assert page.index("Large galleries") < page.index("Something new")


def test_runs_of_one_section_stand_side_by_side() -> None:
    sections = {
        "scale 10x5x128": entry({"search_ms": 0.5, "people": 10}),
        "scale 10x5x2048": entry({"search_ms": 1.5, "disk_mb": 3}),
    }

    page = written(EMPTY, sections)

    assert page.count("### Large galleries") == 1
    assert "|  | 10x5x128 | 10x5x2048 |" in page
    assert "| search | 0.5 ms | 1.5 ms |" in page
    assert "| vectors on disk |  | 3 MB |" in page


def test_records_of_the_same_fields_are_one_table() -> None:
    figures = {
        "people": 10,
        "export": {"seconds": 1.5, "peak_mb": 98},
        "import": {"seconds": 10.25, "peak_mb": 329},
    }

    page = written(EMPTY, {"pack": entry(figures)})

    assert "| people | 10 |" in page
    assert "|  | time | peak memory |" in page
    assert "| export | 1.5 s | 98 MB |" in page
    assert "| import | 10.2 s | 329 MB |" in page


def test_speed() -> None:
    timing = {
        "pipeline": "lookalike", "backbone": "resnet", "made_up_weights": True, "detect": 9.6,
        "embed": 20.0, "search": 1.21, "whole": 31.0, "decode": None, "forward": 18.0,
        "precision": "bf16",
    }  # fmt: skip

    page = written(EMPTY, {"speed": entry({"people": 10_000, "timings": [timing], "ratios": {}})})

    assert "| lookalike | `resnet` (bf16)* |  | 9.6 | 20.0 | 1.2 | 31.0 | 18.0 |" in page
    assert "made-up weights" in page


def test_a_page_without_markers() -> None:
    with pytest.raises(ValueError, match="needs the lines"):
        written("nothing", {})


def test_every_named_script_is_there() -> None:
    """For the sections that have figures; others may not be built yet."""
    for name in recorded():
        script = SECTIONS[name.partition(" ")[0]][1].split()[0]
        assert (ROOT / script).is_file(), name


def test_figures_name_no_machine_of_ours() -> None:
    text = json.dumps(recorded())

    assert not re.search(r"(?<![\w.])[/\\\\]\w|[A-Z]:\\\\|@|://", text)


# --- what prose says --------------------------------------------------------------------------


def test_prose_about_groups_is_true() -> None:
    """docs/MODELS.md, "For whom they work less well"."""
    (people,) = recorded()["fairness"]["figures"]["people"]
    gaps = {gap["measure"]: gap for gap in people["kinds"]["gender"]["gaps"]}

    assert (gaps["rank_1"]["best"], gaps["rank_1"]["worst"]) == ("female", "male")
    assert (gaps["strangers_1_in_100"]["best"], gaps["strangers_1_in_100"]["worst"]) == (
        "male",
        "female",
    )
    assert gaps["rank_1"]["exceeds_chance"]
    assert gaps["strangers_1_in_100"]["exceeds_chance"]


def test_bars_are_kept() -> None:
    """Accuracy and the meaning of scores, as recorded."""
    accuracy = recorded()["accuracy"]["figures"]
    assert accuracy["pairs"][0]["accuracy"] >= 0.992
    assert accuracy["people"][0]["rank_1"] >= 0.95
    (scores,) = recorded()["scores"]["figures"]["people"]
    assert 0.01 / 1.5 <= scores["strangers_1_in_100"]["mean"] <= 0.01 * 1.5
    assert 0.001 / 2 <= scores["strangers_1_in_1000"]["mean"] <= 0.001 * 2
    assert scores["same_person_median"]["mean"] >= 91
    assert 58 <= scores["best_stranger_median"]["mean"] <= 79


def test_the_readme_promises_no_more_than_was_measured() -> None:
    """Two cores, 1 GB, tens of milliseconds: once these are recorded."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(2 cores, 1 GB), answers in tens of milliseconds" in readme
    kinds = [entry["figures"] for name, entry in recorded().items() if name.startswith("speed ")]
    assert kinds
    for timings in (figures["timings"] for figures in kinds):
        assert max(t["whole"] for t in timings if t["pipeline"] == "lookalike") < 100
    for platform in ("telegram", "discord"):
        if platform in recorded():
            assert recorded()[platform]["figures"]["resident memory_mb"] < 1000


# --- recording --------------------------------------------------------------------------------


def test_recording_keeps_other_sections(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    record("one", {"a_ms": np.float32(1.5), "b": np.arange(2)}, file=file)
    record("two", {"c": None}, file=file)
    record("one", {"a_ms": 2}, file=file)

    sections = recorded(file)
    assert sections["one"]["figures"] == {"a_ms": 2}
    assert sections["two"]["figures"] == {"c": None}
    assert set(sections["one"]["machine"]) == {"cores", "processor", "python", "system"}
    assert list(tmp_path.iterdir()) == [file]


def test_what_is_no_figure_is_refused_and_nothing_lost(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    record("one", {"a": 1}, file=file)

    with pytest.raises(TypeError):
        record("one", {"a": object()}, file=file)
    with pytest.raises(ValueError, match="JSON"):
        record("one", {"a": float("nan")}, file=file)

    assert recorded(file)["one"]["figures"] == {"a": 1}


def test_two_that_record_at_once(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    threads = [
        threading.Thread(target=record, args=(f"section {n}", {"n": n}), kwargs={"file": file})
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(recorded(file)) == 8
