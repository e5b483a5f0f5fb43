"""`lookalike evaluate`, used as a person would use it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import signal
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from bot.cli import evaluate
from bot.cli.main import EXIT_SETUP, lookalike, main
from engine.errors import SetupProblem


@pytest.fixture
def people(tmp_path: Path, hopper_jpeg: bytes, collins_jpeg: bytes) -> Path:
    """Two people with two photos each, the second one smaller, and a list of pairs."""
    root = tmp_path / "people"
    for name, content in (("Grace_Hopper", hopper_jpeg), ("Eileen_Collins", collins_jpeg)):
        (root / name).mkdir(parents=True)
        first = root / name / "1.jpg"
        first.write_bytes(content)
        with Image.open(first) as photo:
            photo.resize((300, 300 * photo.height // photo.width)).save(root / name / "2.jpg")
    lines = ["a,b,same"]
    lines += [f"{name}/1.jpg,{name}/2.jpg,1" for name in ("Grace_Hopper", "Eileen_Collins")]
    lines += [f"Grace_Hopper/{n}.jpg,Eileen_Collins/{n}.jpg,0" for n in (1, 2)]
    (root / "pairs.csv").write_text("\n".join(lines))
    return root


def run(home: Path, *arguments: str | Path) -> Result:
    words = [str(argument) for argument in arguments]
    result = CliRunner().invoke(lookalike, ["evaluate", *words, "--home", str(home)])
    assert result.exit_code == 0, result.output
    return result


def test_pairs_as_json(own_home: Path, people: Path, tmp_path: Path) -> None:
    """Nothing but JSON on stdout; the CSV file's folder is the default root."""
    arguments = ("pairs", people / "pairs.csv", "--model", "dlib", "--json")
    record = json.loads(run(own_home, *arguments, "--plots", tmp_path / "plots").stdout)

    assert (record["model"], record["pairs"], record["failures"]) == ("dlib", 4, 0)
    assert (record["accuracy"], record["roc_auc"], record["tar_at_far_1e-3"]) == (1, 1, 1)
    assert record["photos_per_s"] > 0
    assert [Path(path).is_file() for path in record["plots"]] == [True] * 3


def test_people_as_json(own_home: Path, people: Path) -> None:
    arguments = ("identify", people, "--gallery-photos", "1", "--model", "dlib", "--json")
    record = json.loads(run(own_home, *arguments).stdout)

    assert (record["people"], record["probes"]) == (2, 2)
    assert (record["rank_1"], record["rank_5"], record["plots"]) == (1, 1, [])


def test_tables_for_people(own_home: Path, people: Path, tmp_path: Path) -> None:
    """The figures on stdout, what happened meanwhile on stderr."""
    (people / "Grace_Hopper" / "3.jpg").write_bytes(b"no photo")
    pairs = run(own_home, "pairs", people / "pairs.csv", "--root", people, "--model", "dlib")
    found = run(
        own_home, "identify", people, "--gallery-photos", "1", "--model", "dlib",
        "--plots", tmp_path / "plots",
    )  # fmt: skip

    assert "100.00%" in pairs.stdout
    assert "TAR at FAR 0.1 %" in pairs.stdout
    assert "rank-1" in found.stdout
    assert "66.67%" in found.stdout
    assert "Grace_Hopper/3.jpg: " in found.stderr
    assert found.stderr.count("drawn: ") == 3


def test_a_report(own_home: Path, people: Path, tmp_path: Path) -> None:
    """Every installed backbone, groups from the gallery and from people.csv, one file."""
    (people / "people.csv").write_text("person,country\nGrace Hopper,US\nNobody,France\n")
    page = tmp_path / "new folder" / "report.html"

    result = run(own_home, "report", people, "--html", page, "--gallery-photos", "1")

    words = page.read_text(encoding="utf-8")
    assert list(page.parent.iterdir()) == [page]
    assert "Use dlib: it is the only one that was measured" in result.stdout
    assert "resnet was not measured: " in result.stderr
    assert "it holds pictures of people" in result.stderr
    assert "the file people.csv" in words
    assert "--html &#39;" in words
    assert "<bdi>US</bdi> (1)" in words
    assert "Names in the file that nobody here has: Nobody." in words


def test_a_report_as_json(own_home: Path, people: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("person;gender\nGrace Hopper;female\nEileen Collins;female\n")

    result = run(
        own_home, "report", people, "--gallery-photos", "1", "--model", "dlib", "--people", labels,
        "--json",
    )  # fmt: skip
    record = json.loads(result.stdout)

    assert (record["html"], record["people"], record["unavailable"]) == (None, 2, {})
    (model,) = record["models"]
    assert model["rank_k"]["1"]["share"] == 1
    assert model["groups"]["gender"]["too_small_to_judge"] == {"female": 2}
    assert record["labels_from"][-1] == "the file labels.csv"


def test_a_report_goes_somewhere(own_home: Path, people: Path) -> None:
    words = ["evaluate", "report", str(people), "--home", str(own_home)]
    result = CliRunner().invoke(lookalike, words)

    assert result.exit_code == 2
    assert "--html FILE" in result.output


def test_missing_packages_are_named_before_the_long_work(
    own_home: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    words = ["evaluate", "pairs", str(people / "pairs.csv"), "--home", str(own_home)]

    result = CliRunner().invoke(lookalike, words)

    assert isinstance(result.exception, SetupProblem)
    assert "pip install 'lookalike[evaluate]'" in str(result.exception)


def test_an_interrupted_report_leaves_nothing(
    own_home: Path, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped by Ctrl-C while it looks at photos, with a report of yesterday in place."""

    def impatient(_: str, done: int, __: int | None) -> None:
        if done:
            signal.raise_signal(signal.SIGINT)

    page = tmp_path / "report.html"
    page.write_text("yesterday")
    words = ["evaluate", "report", str(people), "--html", str(page), "--home", str(own_home)]
    words += ["--gallery-photos", "1", "--model", "dlib"]
    monkeypatch.setattr(sys, "argv", ["lookalike", *words])
    monkeypatch.setattr(evaluate, "progress", lambda **_: contextlib.nullcontext(impatient))

    with pytest.raises(SystemExit) as stop:
        main()

    assert stop.value.code not in {0, None}
    assert page.read_text() == "yesterday"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_without_a_model_the_configured_one_or_dlib(own_home: Path, people: Path) -> None:
    """The default is resnet, but its weights are not here."""
    result = run(own_home, "pairs", people / "pairs.csv", "--json")

    assert json.loads(result.stdout)["model"] == "dlib"
    assert "measuring dlib" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["pairs", "nowhere.csv"], "can't be read"),
        (["pairs", "{people}/pairs.csv", "--root", "{people}/Grace_Hopper"], "--root must be"),
        (["identify", "{people}/nowhere"], "there is no folder"),
        (["identify", "{people}"], "0 people with more than 3 photos"),
        (["pairs", "{people}/pairs.csv", "--model", "resnet"], "models download resnet"),
        (["report", "{people}/nowhere", "--html", "{people}/report.html"], "there is no folder"),
        (["report", "{people}", "--html", "{people}"], "is a folder"),
        (["report", "{people}", "--html", "{people}/pairs.csv/x.html"], "can't be written"),
        (["report", "{people}", "--html", "{people}/x.html"], "0 people with more than 3 photos"),
        (["report", "{people}", "--json", "--people", "nowhere.csv"], "can't be read"),
        (["report", "{people}", "--json", "--people", "{people}/pairs.csv"], "column person"),
    ],
)
def test_set_up_problems_are_one_sentence(
    tmp_path: Path,
    people: Path,
    arguments: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [argument.format(people=people) for argument in arguments]
    words += [] if "--model" in words else ["--model", "dlib"]
    monkeypatch.setattr(
        sys, "argv", ["lookalike", "evaluate", *words, "--home", str(tmp_path / "home")]
    )

    with pytest.raises(SystemExit) as stop:
        main()

    assert stop.value.code == EXIT_SETUP
    told = capsys.readouterr().err.strip()
    assert sentence in told
    assert told.startswith("lookalike: ")
    assert "\n" not in told
