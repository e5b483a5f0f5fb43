"""A bot whose engine is elsewhere, with a service that a test makes up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from engine_door import FACTS, SHA, Door, opened
from talking import Person, chatting

from bot.app import open_engine
from bot.cli import main as cli
from bot.models import Models, State
from bot.monitor import Monitor
from bot.settings import Settings
from bot.values import Sender
from engine.engine import comparable
from engine.remote import faces_content, pack, space_facts

SAME = {"photo.long_side_px": 2000, "detector.min_face_px": None, "models.runtime": "openvino"}
ANN = Sender("telegram", "1", "1")


def as_here(home: Path, jpeg: bytes) -> Door:
    """A service that sees in every photo what this machine sees in that one."""
    engine = open_engine(Settings(home=home))
    photo, faces, _ = engine.look(jpeg)
    (embedding,) = engine.embed([(photo, comparable(faces)[0])], "dlib")
    facts = space_facts(engine.backbone("dlib"))
    header, arrays = faces_content(faces)
    header |= {"size": [photo.width_px, photo.height_px], "part": None, "finer": 1}
    return Door(
        facts=pack({"same": SAME, "models": {"dlib": facts}}),
        usual=pack(header | {"models": [facts]}, [*arrays, embedding.vector[None]]),
    )


def sections(door: Door) -> dict[str, Any]:
    return {"engine": {"address": f"http://127.0.0.1:{door.port}"}, "default_model": "dlib"}


async def test_a_service_that_goes_and_comes_again_is_noticed(
    own_home: Path, hopper_jpeg: bytes
) -> None:
    door = as_here(own_home, hopper_jpeg)
    with opened(door):
        conversation = await (chat := chatting(own_home, **sections(door))).__aenter__()
        person, monitor = Person(conversation, ANN), Monitor(conversation, [])
        service = conversation.recognizer.engine.service
        assert service is not None
        assert "Grace Hopper" in (await person.says("", hopper_jpeg)).text
        assert (await monitor.parts())["engine"]
        assert door.asked.count("look") == 1  # embedded in the same question
    try:
        for _ in range(2):
            said = await person.says("", hopper_jpeg)
            assert said.text.startswith("I'm busy just now.")
        assert not (await monitor.parts())["engine"]
        with opened(door):
            while not service.reached:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.02)
            assert "Grace Hopper" in (await person.says("", hopper_jpeg)).text
            assert (await monitor.parts())["engine"]
    finally:
        await chat.__aexit__(None, None, None)


async def test_an_engine_other_than_the_gallerys_answers_nobody(
    own_home: Path, hopper_jpeg: bytes
) -> None:
    """Vectors are never mixed: the model is not offered, and the reason says what to do."""
    door = as_here(own_home, hopper_jpeg)
    others = [SHA, *space_facts(open_engine(Settings(home=own_home)).backbone("dlib"))[1:]]
    door.facts = pack({"same": {}, "models": {"dlib": others}})
    with opened(door):
        async with chatting(own_home, **sections(door)) as conversation:
            service = conversation.recognizer.engine.service
            assert service is not None
            reply = await Person(conversation, ANN).says("", hopper_jpeg)
            assert reply.picture is None
            assert not conversation.models.ready()
            assert "photo.long_side_px" in str(conversation.models.status("dlib"))
        door.facts = pack({"same": SAME, "models": {"dlib": others}})
        async with chatting(own_home, **sections(door)) as conversation:
            reply = await Person(conversation, ANN).says("", hopper_jpeg)
            assert reply.picture is None
            while (status := conversation.models.status("dlib")).state is State.BUILDING:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.02)
            assert status.state is State.BROKEN
            assert "lookalike gallery build --model dlib" in str(status.reason)
            assert "look" not in door.asked


@pytest.mark.parametrize("away", [False, True])
def test_doctor_asks_the_service(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    door = Door()
    door.facts = 500 if away else pack(FACTS | {"same": SAME})
    with opened(door):
        monkeypatch.setenv("LOOKALIKE_ENGINE__ADDRESS", f"http://127.0.0.1:{door.port}")
        ran = CliRunner().invoke(cli.lookalike, ["doctor", "--home", str(own_home)])
    if away:
        assert "can't be reached (it answers 500)" in ran.output
    else:
        assert f"dlib       of the engine at 127.0.0.1:{door.port}: int8" in ran.output
        assert "its weights are not here" in ran.output


async def test_a_bot_may_start_before_its_engine(
    own_home: Path, hopper_jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Models.__init__, "__defaults__", (0.02,))  # looks again sooner
    door = as_here(own_home, hopper_jpeg)
    with opened(door):
        pass
    async with chatting(own_home, **sections(door)) as conversation:
        person = Person(conversation, ANN)
        assert (await person.says("", hopper_jpeg)).text.startswith("I'm busy just now.")
        with opened(door):
            while not conversation.models.ready():  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.02)
            assert "Grace Hopper" in (await person.says("", hopper_jpeg)).text
