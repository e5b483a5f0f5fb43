"""`lookalike bench`: that it measures what it says; never how fast."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bot.cli.bench import Timing, ratios
from bot.cli.main import lookalike


def bench(home: Path, *arguments: str) -> str:
    words = ["--home", str(home), "bench", "--alone", "--repetitions", "1", *arguments]
    result = CliRunner().invoke(lookalike, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_step_is_timed(own_home: Path) -> None:
    found = json.loads(bench(own_home, "--model", "dlib", "--json"))
    assert found["photos"] == 4
    (timing,) = found["timings"]
    assert (timing["pipeline"], timing["backbone"]) == ("lookalike", "dlib")
    assert not timing["made_up_weights"]
    steps = [timing[step] for step in ("detect", "embed", "search")]
    assert min(*steps, timing["decode"], timing["forward"]) > 0
    assert max(steps) < timing["whole"] < 4 * sum(steps)
    over = found["ratios"]["dlib"]["whole_over_forward"]
    assert over == pytest.approx(timing["whole"] / timing["forward"])


def test_made_up_weights_are_marked_and_stay_nowhere(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They decide nothing about speed, and must never answer anybody."""
    monkeypatch.setattr("bot.cli.bench.PEOPLE", 500)
    printed = bench(own_home, "--model", "resnet")
    assert "resnet" in printed
    assert "made-up weights" in printed
    assert not list(own_home.rglob("*.h5"))
    assert not list((own_home / "cache").glob("*resnet*"))


def test_ratios_compare_the_same_backbone() -> None:
    ours = Timing("lookalike", "resnet", False, 10, 10, 1, 21, forward=10)
    theirs = Timing("published", "resnet", False, 300, 100, 3000, 3400)
    other = Timing("published", "senet", False, 1, 1, 1, 3)
    row = ratios([ours, other, theirs])["resnet"]
    assert row["detect_times_faster"] == 30
    assert row["embed_times_faster"] == 10
    assert row["whole_times_faster"] == pytest.approx(3400 / 21)
    assert row["whole_over_forward"] == pytest.approx(2.1)
