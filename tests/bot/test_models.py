"""Which model answers: fallback, fetching in the background, joining without a restart."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from homes import copy_home
from http_source import Behaviour, Source, serving
from keras_files import write_network_file
from talking import Person, chatting

from bot.app import open_conversation, open_engine, open_gallery
from bot.background import in_daemon_thread
from bot.models import Models, State
from bot.settings import ModelsSettings, Settings
from bot.values import Sender
from engine.errors import Busy, WeightsMissing
from gallery.add import add
from gallery.build import remove
from gallery.sources.bundled import bundled_portraits

SENET_FILE = "rcmalli_vggface_tf_notop_senet50.h5"


@pytest.fixture(scope="module")
def senet_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Random weights of SENet-50 in the layout of the released file."""
    path = tmp_path_factory.mktemp("weights") / SENET_FILE
    return write_network_file(path, "senet", runs=True).read_bytes()


@pytest.fixture
def mirror(senet_bytes: bytes) -> Iterator[Source]:
    with serving(senet_bytes) as source:
        yield source


@contextlib.asynccontextmanager
async def models_at(
    home: Path, url: str = "http://127.0.0.1:1/", *, fetch: bool = True
) -> AsyncIterator[Models]:
    """Models for senet and dlib on a data folder, with its upkeep running."""
    section = ModelsSettings(configured=("senet", "dlib"), base_url=url, fetch=fetch)
    settings = Settings(home=home, default_model="senet", models=section)
    with open_gallery(settings) as gallery:
        models = Models(open_engine(settings), gallery, settings, refresh_s=0.05)
        await models.open()
        upkeep = asyncio.create_task(models.keep_up())
        try:
            yield models
        finally:
            upkeep.cancel()
            await models.close()


async def until(true: Callable[[], bool | Awaitable[bool]], within_s: float = 20.0) -> None:
    """Waits until it is true."""
    async with asyncio.timeout(within_s):
        while True:
            answer = true()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.02)


def state_of(models: Models, name: str) -> State:
    status = models.status(name)
    assert status is not None
    return status.state


async def test_dlib_answers_where_nothing_else_can(own_home: Path) -> None:
    async with models_at(own_home, fetch=False) as models:
        assert models.ready() == ("dlib",)
        assert [models.answering(name) for name in (None, "senet", "dlib")] == ["dlib"] * 3
        assert state_of(models, "senet") is State.MISSING
        assert "models download senet" in str(models.statuses()[0].reason)
        assert models.status("resnet") is None


async def test_a_fresh_home_begins_with_two_people(starter_home: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "cache").symlink_to(starter_home / "cache", target_is_directory=True)
    async with models_at(home, fetch=False) as models:
        assert models.ready() == ("dlib",)
    with open_gallery(Settings(home=home)) as gallery:
        assert gallery.stats().people == 2


async def test_missing_weights_are_fetched_and_the_model_joins(
    starter_home: Path,
    tmp_path: Path,
    mirror: Source,
    hopper_jpeg: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without a restart, and the person who chose it is answered by it from then on."""
    home = copy_home(starter_home, tmp_path / "home")
    models = ModelsSettings(configured=("senet", "dlib"), base_url=mirror.url)
    mirror.usual = Behaviour(delay_s=0.3)
    settings = Settings(home=home, default_model="senet", models=models)
    with caplog.at_level(logging.INFO, "bot"):
        async with open_conversation(settings) as conversation:
            ann = Person(conversation, Sender("web", "1", "c", "en"))
            first = await ann.says("", hopper_jpeg)
            assert "Model: dlib" in first.text
            assert "isn't ready" not in first.text  # ann has chosen nothing

            async def ready() -> bool:
                choices = await conversation.choices(ann.sender)
                return all(model.ready for model in choices.models)

            await until(ready)
            second = await ann.says("", hopper_jpeg)
            assert "Model: senet" in second.text
            assert second.answers[0].model == "senet"
            assert "Model: dlib" in (await ann.presses("Ask dlib")).text
            compared = await ann.says("/compare", hopper_jpeg, hopper_jpeg)
            assert "Model: senet" in compared.text
            assert "Model: dlib" in (await ann.presses("Ask dlib")).text
    lines = [record for record in caplog.records if record.message == "fetching weights"]
    assert "CC BY-SA" in vars(lines[0])["licence"]
    assert (home / "models" / SENET_FILE).is_file()
    async with chatting(home, models={"fetch": False}) as conversation:
        choices = await conversation.choices(Sender("web", "2", "c"))
        assert [model.name for model in choices.models if model.ready] == ["senet", "dlib"]


async def test_a_chosen_model_is_promised_only_while_it_can_be_had(
    starter_home: Path, tmp_path: Path, mirror: Source, hopper_jpeg: bytes
) -> None:
    mirror.usual = Behaviour(bytes_sent=len(mirror.content) // 2, stall_s=60.0)
    home = copy_home(starter_home, tmp_path / "home")
    models = ModelsSettings(configured=("senet", "dlib"), base_url=mirror.url)
    settings = Settings(home=home, default_model="dlib", models=models)
    async with open_conversation(settings) as conversation:
        ann = Person(conversation, Sender("web", "1", "c", "en"))

        async def fetching() -> bool:
            return "being downloaded" in (await ann.says("/model")).text

        await until(fetching)
        promised = await ann.says("/model senet")
        assert "senet will answer you once it is ready. Until then it's dlib." in promised.text
        answer = await ann.says("", hopper_jpeg)
        assert "Model: dlib" in answer.text
        assert "isn't ready" not in answer.text  # that was said when it was chosen
        wished = await ann.says("/lookalike senet", hopper_jpeg)
        assert "senet isn't ready here" in wished.text
        assert "Model: senet" in (await ann.says("/settings")).text
    async with chatting(home, models={"fetch": False}) as conversation:
        ann = Person(conversation, Sender("web", "1", "c", "en"))
        assert "isn't ready" not in (await ann.says("", hopper_jpeg)).text
        assert "Model: dlib" in (await ann.says("/settings")).text


async def test_progress_is_told_in_percent(own_home: Path, mirror: Source) -> None:
    mirror.usual = Behaviour(bytes_sent=len(mirror.content) // 2, stall_s=1.0)
    async with models_at(own_home, mirror.url) as models:

        def half() -> bool:
            status = models.status("senet")
            assert status is not None
            return status.state is State.FETCHING and (status.percent or 0) >= 40

        await until(half)
        assert models.answering("senet") == "dlib"


async def test_weights_put_there_by_hand_are_found(
    own_home: Path, senet_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.models.PAUSES_S", (0.1,))
    async with models_at(own_home, fetch=False) as models:
        assert models.ready() == ("dlib",)
        (own_home / "models").mkdir()
        part = own_home / "models" / "part"
        await asyncio.to_thread(part.write_bytes, senet_bytes)
        part.rename(own_home / "models" / SENET_FILE)
        await until(lambda: models.ready() == ("senet", "dlib"))
        assert models.answering() == "senet"


async def test_damaged_weights_are_marked_and_everything_else_works(
    own_home: Path, senet_bytes: bytes
) -> None:
    (own_home / "models").mkdir()
    (own_home / "models" / SENET_FILE).write_bytes(senet_bytes[: len(senet_bytes) // 2])
    async with models_at(own_home, fetch=False) as models:
        assert state_of(models, "senet") is State.BROKEN
        assert models.answering("senet") == "dlib"


async def test_people_added_by_another_process_are_found(
    own_home: Path, hopper_jpeg: bytes
) -> None:
    settings = Settings(home=own_home)
    engine = open_engine(settings)
    photo = engine.decode(hopper_jpeg)
    (probe,) = engine.embed([(photo, engine.detect(photo)[0])], "dlib")
    async with models_at(own_home, fetch=False) as models:
        assert models.ready() == ("dlib",)

        def found() -> set[str]:
            return {match.person.name for match in models._gallery.top_matches(probe, 5)}

        with open_gallery(settings) as theirs:
            person = theirs.find_person("Eileen Collins")
            assert person is not None
            remove(theirs, person)
            await until(lambda: found() == {"Grace Hopper"})

            def added() -> bool:
                with contextlib.suppress(Busy):  # the bot itself may be building just then
                    add(theirs, engine, bundled_portraits(), backbones=("dlib",))
                    return True
                return False

            await until(added)
        await until(lambda: found() == {"Grace Hopper", "Eileen Collins"})


async def test_no_model_at_all_is_an_error_that_says_so(own_home: Path) -> None:
    section = ModelsSettings(configured=("dlib",), fetch=False)
    settings = Settings(home=own_home, default_model="dlib", models=section)
    with open_gallery(settings) as gallery:
        models = Models(open_engine(settings), gallery, settings)
        with pytest.raises(WeightsMissing):
            models.answering()  # nothing was opened


async def test_the_end_does_not_wait_for_a_download_that_stalls(
    own_home: Path, mirror: Source
) -> None:
    mirror.usual = Behaviour(bytes_sent=1000, stall_s=30.0)
    async with models_at(own_home, mirror.url) as models:
        await until(lambda: state_of(models, "senet") is State.FETCHING)
        await until(lambda: bool(mirror.requests))
        started = time.perf_counter()
    assert time.perf_counter() - started < 4


async def test_what_a_background_thread_raises_reaches_who_waits() -> None:
    def fail() -> int:
        raise ValueError("odd")

    assert await in_daemon_thread(lambda: 7) == 7
    with pytest.raises(ValueError, match="odd"):
        await in_daemon_thread(fail)
