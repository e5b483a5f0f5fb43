"""`lookalike models` as an operator sees it: words, exit codes, files."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from http_source import Behaviour, Source, serving
from keras_files import write_network_file

from bot.cli.main import EXIT_SETUP, EXIT_TRY_LATER, main
from engine.backbones import BACKBONES, Malformed, weights

RESNET = BACKBONES["resnet"]


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def resnet_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("resnet")
    return write_network_file(folder / RESNET.file_name, "resnet", runs=True).read_bytes()


@pytest.fixture
def source(resnet_bytes: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    with serving(resnet_bytes) as running:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("LOOKALIKE_MODELS__BASE_URL", running.url)
        yield running


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, answer: str | None = None) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["lookalike", "models", *arguments])
        stdin = io.StringIO(answer or "")
        monkeypatch.setattr(stdin, "isatty", lambda: answer is not None)
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(SystemExit) as caught:
            main()
        said = capsys.readouterr()
        return Outcome(int(caught.value.code or 0), said.out, said.err)

    return call


def test_list_says_what_can_be_used(run: Run) -> None:
    """Every backbone with its licence; what is missing with the command that gets it."""
    outcome = run("list")

    assert outcome.code == 0
    for record in BACKBONES.values():
        assert record.title in outcome.out
        assert record.licence.split(";")[0] in outcome.out
    assert outcome.out.count("missing") == 2
    assert outcome.out.count("ready") == 1
    assert "lookalike models download senet`\n" in outcome.out


def test_list_as_json(run: Run, tmp_path: Path, resnet_bytes: bytes) -> None:
    """For scripts: state and reason of each."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / RESNET.file_name).write_bytes(resnet_bytes[:1000])

    entries = {entry["name"]: entry for entry in json.loads(run("list", "--json").out)}

    assert [entries[name]["state"] for name in ("resnet", "senet", "dlib")] == [
        "damaged",
        "missing",
        "ready",
    ]
    assert "--again" in entries["resnet"]["reason"]
    assert entries["dlib"]["reason"] is None
    assert entries["dlib"]["sha256"] == BACKBONES["dlib"].sha256
    for name, record in BACKBONES.items():
        assert entries[name]["dimensions"] == record.dimensions
        assert entries[name]["training_data"] == record.training_data


def test_download_shows_the_terms_and_fetches(run: Run, source: Source, tmp_path: Path) -> None:
    """Licence and training data come first, then a bar, then where the file is."""
    outcome = run("download", "resnet", "--yes")

    path = tmp_path / "models" / RESNET.file_name
    said = " ".join(outcome.out.split())
    assert outcome.code == 0
    assert said.index(RESNET.licence) < said.index("resnet is ready")
    assert RESNET.training_data in said
    assert source.url in said
    assert str(path) in outcome.out
    assert weights.file_sha256(path) in outcome.out
    assert "100" in outcome.err or "MB" in outcome.err  # the bar
    assert "there already" in run("download", "resnet").out
    assert len(source.requests) == 1


def test_download_asks_before_it_fetches(run: Run, source: Source, tmp_path: Path) -> None:
    """No is an answer, and so is yes."""
    refused = run("download", "resnet", answer="n\n")
    assert refused.code == 1
    assert source.requests == []

    assert run("download", "resnet", answer="y\n").code == 0
    assert (tmp_path / "models" / RESNET.file_name).exists()


def test_download_without_a_person_needs_yes(run: Run, source: Source) -> None:
    """Terms are not accepted by a script that did not say so."""
    outcome = run("download", "resnet")

    assert outcome.code == EXIT_SETUP
    assert "--yes" in outcome.err
    assert source.requests == []


def test_bundled_weights_need_no_download(run: Run, source: Source) -> None:
    """They come with the installation."""
    outcome = run("download", "dlib")

    assert outcome.code == 0
    assert "nothing to download" in outcome.out
    assert source.requests == []


@pytest.mark.parametrize("arguments", [(), ("vgg16",)])
def test_download_of_nothing_known_is_a_usage_error(run: Run, arguments: tuple[str, ...]) -> None:
    """The names are listed."""
    outcome = run("download", *arguments)

    assert outcome.code == 2
    assert "download" in outcome.err


def test_a_mirror_without_the_file_is_a_setup_problem(run: Run, source: Source) -> None:
    """The operator chose the URL and can choose another."""
    source.usual = Behaviour(status=404)

    outcome = run("download", "resnet", "--yes")

    assert outcome.code == EXIT_SETUP
    assert "answers 404" in outcome.err
    assert "models.base_url" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_server_that_is_down_is_for_later(
    run: Run, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another exit code, so that a script can try again."""
    monkeypatch.setattr("engine.http.random.random", lambda: -0.5)  # no pauses
    source.usual = Behaviour(status=503)
    outcome = run("download", "resnet", "--yes")

    assert outcome.code == EXIT_TRY_LATER
    assert "try again later" in outcome.err


def test_verify_tells_a_trained_network(run: Run) -> None:
    """The bundled backbone is sound and separates people; what is missing is no error."""
    outcome = run("verify")

    assert outcome.code == 0
    assert "resnet: not downloaded" in outcome.out
    assert f"dlib: sound, SHA-256 {BACKBONES['dlib'].sha256}" in outcome.out
    assert "tells people apart" in outcome.out
    assert outcome.err == ""


def test_verify_refuses_a_network_that_has_learned_nothing(
    run: Run, tmp_path: Path, resnet_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything fits, but the weights are random (``test_proving`` looks at such a file)."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / RESNET.file_name).write_bytes(resnet_bytes)

    def unproven(*_: object) -> tuple[float, float]:
        raise Malformed("the network does not tell people apart")

    monkeypatch.setattr(weights, "prove", unproven)
    outcome = run("verify", "resnet")

    assert outcome.code == EXIT_SETUP
    assert "does not tell people apart" in outcome.out + outcome.err


def test_verify_refuses_damage(run: Run, tmp_path: Path, resnet_bytes: bytes) -> None:
    """Damage is an error, and what is sound is still verified."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / RESNET.file_name).write_bytes(resnet_bytes[:-1000])

    outcome = run("verify")

    assert outcome.code == EXIT_SETUP
    assert "resnet: can't be used" in outcome.out
    assert "dlib: sound" in outcome.out
    assert "lookalike models download resnet --again" in outcome.err


def test_verify_of_what_is_missing_is_an_error_if_named(run: Run) -> None:
    """Who names it expects it."""
    outcome = run("verify", "senet")

    assert outcome.code == EXIT_SETUP
    assert "lookalike models download senet" in outcome.err
