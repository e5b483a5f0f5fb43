"""``/model best`` in conversation: offered where a gallery shows that it helps, else explained."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from homes import copy_home
from keras_files import write_network_file
from made_up_people import MadeUp, alike, bad, fill, independent
from numpy.typing import NDArray
from talking import Person, chatting

from bot.app import open_engine, open_gallery
from bot.cli.main import lookalike
from bot.conversation import Conversation
from bot.models import offered, why_not
from bot.settings import Settings
from bot.values import Sender
from engine.backbones import BACKBONES
from gallery.build import build, learn_scores
from gallery.scores.trial import Figures, Outcome, Trial, try_ensemble

RESNET_FILE = BACKBONES["resnet"].file_name
MODELS = {"fetch": False, "configured": ("resnet", "dlib")}


@pytest.fixture(scope="module")
def two_models_home(starter_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with dlib and a ResNet-50 of random weights, and its two people."""
    home = copy_home(starter_home, tmp_path_factory.mktemp("two") / "home")
    (home / "models").mkdir()
    write_network_file(home / "models" / RESNET_FILE, "resnet", runs=True)
    settings = Settings(home=home)
    with open_gallery(settings) as gallery:
        build(gallery, open_engine(settings), "resnet")
        assert {space.backbone for space in gallery.spaces()} == {"dlib", "resnet"}
    return home


@pytest.fixture(scope="module")
def helping_home(two_models_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with 100 made-up people, of whom both models know different things."""
    home = _copied(two_models_home, tmp_path_factory.mktemp("helping") / "home")
    assert _filled(home, independent) is Outcome.HELPS
    return home


def _copied(home: Path, to: Path) -> Path:
    copy_home(home, to)
    (to / "models").symlink_to(home / "models", target_is_directory=True)
    return to


def _filled(home: Path, make: Callable[[NDArray[np.int64]], MadeUp]) -> Outcome:
    """Adds made-up people, known to dlib as to ``make``'s resnet, to resnet as to its senet."""

    def as_long_as_the_networks(whose: NDArray[np.int64]) -> MadeUp:
        short = make(whose)
        return {"dlib": _longer(short["resnet"], 128), "resnet": _longer(short["senet"], 2048)}

    with open_gallery(Settings(home=home)) as gallery:
        spaces = {space.backbone: space for space in gallery.spaces()}
        fill(gallery, as_long_as_the_networks, people=100, portraits=3, spaces=spaces)
        with gallery.writing():
            for space in spaces.values():
                learn_scores(gallery, space)
            trial = try_ensemble(gallery)
    assert trial is not None
    return trial.outcome


def _longer(vectors: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    """The same angles in more dimensions."""
    rng = np.random.default_rng(5)
    axes, _ = np.linalg.qr(rng.standard_normal((dimensions, vectors.shape[1])))
    return np.asarray(vectors @ axes.T, np.float32)


def ann(conversation: Conversation) -> Person:
    return Person(conversation, Sender("web", "1", "c", "en"))


async def test_best_is_asked_like_any_model(helping_home: Path, hopper_jpeg: bytes) -> None:
    async with chatting(helping_home, models=MODELS) as conversation:
        person = ann(conversation)
        menu = await person.says("/model")
        assert re.search(r"best \((dlib \+ resnet|resnet \+ dlib)\): ready", menu.text)
        assert any("best" in label for label in person.labels)
        assert "best" in (await person.says("/about")).text
        assert "dlib + resnet" in menu.text or "resnet + dlib" in menu.text
        chosen = await person.says("/model Best")
        assert chosen.text == "From now on best answers you."
        assert "Model: best" in (await person.says("/settings")).text
        choices = await conversation.choices(person.sender)
        assert choices.model == "best"
        assert choices.models[-1].ready

        answer = await person.says("", hopper_jpeg)
        assert answer.answers[0].model == "best"
        assert re.search(r"Model: best \((dlib \+ resnet|resnet \+ dlib)\)", answer.text)
        assert {"Ask dlib", "Ask resnet"} <= set(person.labels)
        (match,) = answer.answers[0].matches
        assert match.name == "Grace Hopper"
        assert {part.backbone for part in match.member_scores} == {"dlib", "resnet"}
        raw = await person.presses("Raw numbers")
        assert re.search(r"Grace Hopper: score [\d.]+ \(best\). (1 in|Most|Fewer)", raw.text)
        assert re.search(r"• dlib: score [\d.]+, cosine [01]\.\d{4}", raw.text)
        assert re.search(r"• resnet: score [\d.]+, cosine [01]\.\d{4}", raw.text)
        other = await person.presses("Ask dlib")
        assert "Model: dlib" in other.text
        person.last = other
        again = await person.presses("Ask best")
        assert again.answers[0].matches[0].score == match.score
        history = (await person.says("/history")).text
        assert history.count("(best)") == 1
        assert history.count("(dlib)") == 1


async def test_two_photos_are_compared_by_all_together(
    helping_home: Path, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    async with chatting(helping_home, models=MODELS) as conversation:
        person = ann(conversation)
        await person.says("/model best")
        same = await person.says("/compare", hopper_jpeg, hopper_jpeg)
        assert "100 ▰▰▰▰▰▰▰▰▰▰ could be the very same person" in same.text
        assert "Model: best (" in same.text
        person.last = await person.says("/compare", hopper_jpeg, collins_jpeg)
        raw = await person.presses("Raw numbers")
        assert re.search(r"^Score [\d.]+ \(best\). (1 in|Most|Fewer)", raw.text)
        assert re.search(r"\n• dlib: score [\d.]+, cosine 0\.[78]\d+$", raw.text, re.MULTILINE)
        assert raw.text.count("•") == 2


async def test_best_falls_back_when_it_is_no_longer_offered(
    helping_home: Path, tmp_path: Path, hopper_jpeg: bytes
) -> None:
    home = _copied(helping_home, tmp_path / "home")
    async with chatting(home, models=MODELS) as conversation:
        await ann(conversation).says("/model best")
    (home / "models").unlink()
    async with chatting(home, models=MODELS) as conversation:
        person = ann(conversation)
        answer = await person.says("", hopper_jpeg)
        assert "Model: dlib" in answer.text
        assert "isn't ready" not in answer.text  # it can't be had: nothing is promised
        assert "Model: dlib" in (await person.says("/settings")).text
        assert "Ask best" not in person.labels
        choices = await conversation.choices(person.sender)
        assert choices.model in {model.name for model in choices.models}
        why = await person.says("/model best")
        assert why.text == "“best” is several models together, and only one is ready here."


async def test_random_networks_are_not_put_together(
    two_models_home: Path, hopper_jpeg: bytes
) -> None:
    """Two people are too few to tell, and the sentence says so."""
    async with chatting(two_models_home, models=MODELS) as conversation:
        person = ann(conversation)
        assert "best" not in (await person.says("/model")).text
        refused = await person.says("/model best")
        assert "0 people in my gallery have several portraits" in refused.text
        answer = await person.says("/lookalike best", hopper_jpeg)
        assert "Model: dlib" in answer.text or "Model: resnet" in answer.text
        assert "Ask best" not in person.labels


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (bad, r"beside dlib my other models add nothing"),
        (alike, r"and (dlib|resnet) alone is as good: \d\d\.\d % right, all together \d\d\.\d %"),
    ],
)
async def test_who_asks_for_best_is_told_what_the_trial_said(
    two_models_home: Path,
    tmp_path: Path,
    make: Callable[[NDArray[np.int64]], MadeUp],
    words: str,
) -> None:
    home = _copied(two_models_home, tmp_path / "home")
    assert _filled(home, make) is Outcome.NOT_BETTER
    async with chatting(home, models=MODELS) as conversation:
        person = ann(conversation)
        assert re.search(words, (await person.says("/model best")).text)
        assert "best" not in (await person.says("/model")).text


def test_every_reason_has_its_sentence() -> None:
    figures = {
        "dlib": Figures(0.95, 0.96),
        "senet": Figures(0.9, 0.91),
        "best": Figures(0.95, 0.95),
    }
    trial = Trial(
        outcome=Outcome.NOT_BETTER,
        date="2026-11-22",
        people=200,
        probes=600,
        rows={},
        backbones=("dlib", "senet"),
        figures=figures,
        chances={},
        ensemble=None,
    )
    both = ("dlib", "senet")
    assert why_not(trial, ("dlib",), told)[0] == "best.one_model"
    assert why_not(None, both, told)[0] == "best.untried"
    key, details = why_not(trial, both, told)
    assert key == "best.not_better"
    assert details == {"model": "dlib", "alone": "95.5", "together": "95.0"}


def told(key: str, **details: object) -> tuple[str, dict[str, object]]:
    return key, details


def test_what_is_ready_is_looked_up_at_every_question(helping_home: Path) -> None:
    settings = Settings(home=helping_home)
    engine = open_engine(settings)
    with open_gallery(settings) as gallery:
        trial = gallery.trial()
        assert offered(None, engine, ("dlib", "resnet")) is None  # nobody has looked yet
        assert offered(trial, engine, ("dlib", "resnet")) is not None
        assert offered(trial, engine, ("dlib", "senet")) is None
        key, details = why_not(trial, ("dlib", "senet"), told)
        assert (key, details["missing"]) == ("best.not_ready", "resnet")


def test_the_terminal_asks_them_together_too(
    helping_home: Path, two_models_home: Path, hopper_jpeg: bytes, tmp_path: Path
) -> None:
    photo = tmp_path / "hopper.jpg"
    photo.write_bytes(hopper_jpeg)
    run = CliRunner()

    def said(home: Path, *arguments: str) -> str:
        return run.invoke(
            lookalike, [*arguments, "--home", str(home)], catch_exceptions=False
        ).output

    record = json.loads(said(helping_home, "match", str(photo), "--model", "best", "--json"))
    assert record["model"] == "best"
    match = record["faces"][0]["matches"][0]
    assert match["person"] == "Grace Hopper"
    assert match["cosine"] is None
    assert set(match["backbones"]) == {"dlib", "resnet"}
    words = said(helping_home, "match", str(photo), "--model", "best")
    assert re.search(r"dlib \d+ \(cosine 0\.\d{3}\)|dlib 100 \(cosine 1\.000\)", words)
    assert "Model best (" in words
    listed = said(helping_home, "models", "list")
    assert "tried on 100 people of this gallery" in listed
    assert "have several portraits" in said(two_models_home, "models", "list")
    entry = json.loads(said(two_models_home, "models", "list", "--json"))[-1]
    assert (entry["name"], entry["state"]) == ("best", "not offered")
