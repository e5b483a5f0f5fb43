"""/parents: the woman and the man of the gallery most like a face."""

from __future__ import annotations

import io
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from homes import copy_home
from PIL import Image, ImageFilter, ImageOps
from talking import Person, chatting, side_by_side

from bot.app import open_engine, open_gallery
from bot.conversation import Conversation
from bot.settings import Settings
from bot.text import LANGUAGES, Wording
from bot.values import Limits, Sender
from gallery.add import add
from gallery.records import MEN, WOMEN, FoundPerson, FoundPortrait

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAY = Wording.load().text
ids = map(str, itertools.count(5000))


def varied(jpeg: bytes, *, mirrored: bool = False, blur: float = 0) -> bytes:
    """Another picture of the same face."""
    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    image = ImageOps.mirror(image) if mirrored else image
    buffer = io.BytesIO()
    image.filter(ImageFilter.GaussianBlur(blur)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def portrait(
    name: str, gender: str | None, jpeg: bytes, *categories: str, author: str | None = None
) -> FoundPortrait:
    """A made-up person of the gallery."""
    person = FoundPerson(f"name:{name.lower()}", name, categories=categories, gender=gender)
    licence = "CC BY 4.0" if author else None
    return FoundPortrait(person, name, lambda _: jpeg, author=author, licence=licence)


@pytest.fixture(scope="module")
def home(
    starter_home: Path,
    tmp_path_factory: pytest.TempPathFactory,
    hopper_jpeg: bytes,
    collins_jpeg: bytes,
) -> Path:
    """A gallery of five whose catalogue says "female", "Trans Woman", "MALE", "non-binary", "".

    The faces are two people's, so that it is known who is most like whom.
    """
    home = tmp_path_factory.mktemp("parents")
    (home / "cache").symlink_to(starter_home / "cache", target_is_directory=True)
    settings = Settings(home=home)
    found = (
        portrait("Mother One", "female", varied(hopper_jpeg, blur=1), "film", author="Jane Doe"),
        portrait("Mother Two", "Trans Woman", varied(collins_jpeg, blur=1), "music", "odd"),
        portrait("Father One", "MALE", varied(hopper_jpeg, mirrored=True), "film", author="Jim"),
        portrait("Someone Else", "non-binary", varied(hopper_jpeg), "music"),
        portrait("Unsaid", None, varied(collins_jpeg), "music"),
    )
    gallery = open_gallery(settings)
    report = add(gallery, open_engine(settings), found, backbones=["dlib"])
    gallery.close()
    assert report.added == 5, report.rejected
    return home


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def conversation(home: Path) -> AsyncIterator[Conversation]:
    async with chatting(home, queue={"photos_per_minute": 1000}) as opened:
        yield opened


@pytest.fixture
def ann(conversation: Conversation) -> Person:
    return Person(conversation, Sender("telegram", next(ids), "private", "en"))


def names(text: str) -> list[str]:
    """Who is named with a score, in that order."""
    return [line.partition(":")[0] for line in text.splitlines() if " ▰" in line]


async def test_the_woman_and_the_man_most_alike_in_one_picture(
    ann: Person, hopper_jpeg: bytes
) -> None:
    """With names, scores, words and credits; whoever is neither is not asked for here."""
    reply = await ann.says("/parents", hopper_jpeg)
    assert names(reply.text) == ["Mother One", "Father One"]
    assert reply.text.startswith(SAY("parents.title"))
    assert "Model: dlib" in reply.text
    assert "Photos: Mother One: Jane Doe, CC BY 4.0; Father One: Jim, CC BY 4.0" in reply.text
    assert reply.picture
    image = Image.open(io.BytesIO(reply.picture.jpeg))
    assert image.size == (reply.picture.width_px, reply.picture.height_px)
    assert "Mother One" in reply.picture.alt
    assert "Father One" in reply.picture.alt
    assert [answer.matches[0].name for answer in reply.answers] == ["Mother One", "Father One"]
    assert ann.labels == ["Raw numbers"]


async def test_everybody_else_is_found_by_every_other_question(
    ann: Person, hopper_jpeg: bytes
) -> None:
    reply = await ann.says("/top 5", hopper_jpeg)
    assert {"1. Someone Else", "Mother One", "Unsaid"} <= {
        name if name.startswith("1. ") else name.partition(" ")[2] for name in names(reply.text)
    }


async def test_scores_are_those_of_the_search(ann: Person, hopper_jpeg: bytes) -> None:
    parents = await ann.says("/parents", hopper_jpeg)
    everybody = await ann.says("/top 5", hopper_jpeg)
    scores = {match.name: match.score for answer in everybody.answers for match in answer.matches}
    for answer in parents.answers:
        assert answer.matches[0].score == scores[answer.matches[0].name]


async def test_the_chosen_category_and_words_for_one_photo_alone(
    ann: Person, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """Where a category has no such two, a sentence says what to do, and nothing is changed."""
    reply = await ann.says("/parents film", collins_jpeg)
    assert names(reply.text) == ["Mother One", "Father One"]
    assert "Searched: film" in reply.text
    await ann.says("/category music")
    reply = await ann.says("/parents", hopper_jpeg)
    assert reply.text == SAY("parents.unknown_in_category", category="music")
    assert names((await ann.says("/parents all", collins_jpeg)).text) == [
        "Mother Two",
        "Father One",
    ]


async def test_from_the_answer_of_a_photo(ann: Person, hopper_jpeg: bytes) -> None:
    """A message of its own, without another upload; the history knows all three."""
    await ann.says("", hopper_jpeg)
    reply = await ann.presses("Celebrity parents")
    assert names(reply.text) == ["Mother One", "Father One"]
    assert not reply.replaces
    numbers = await ann.presses("Raw numbers")
    assert numbers.private
    assert numbers.text.count("cosine") == 2
    history = await ann.says("/history")
    for name in ("Someone Else", "Mother One", "Father One"):
        assert name in history.text


async def test_several_faces_have_a_button_each(
    ann: Person, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    photo = side_by_side(collins_jpeg, hopper_jpeg, height_px=700)
    first = await ann.says("/parents", photo)
    assert first.text.startswith("Face 1 of 2")
    assert first.picture
    second = await ann.presses("Face 2")
    assert second.replaces
    assert second.text.startswith("Face 2 of 2")
    mothers = {names(reply.text)[0] for reply in (first, second)}
    assert mothers == {"Mother One", "Mother Two"}


async def test_a_button_after_the_photo_is_forgotten(
    ann: Person, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """The platform hands the photo over again, or the person is asked to."""
    for verb in ("parents", "rawkin"):
        stale = await ann.acts(f"{verb}:AAAAAAAAAAAA:1:dlib")
        assert stale.text == SAY("stale.photo")
    again = await ann.acts("parents:AAAAAAAAAAAA:1:dlib", collins_jpeg)
    assert names(again.text) == ["Mother Two", "Father One"]
    again = await ann.acts("parents:AAAAAAAAAAAA:7:dlib:1:3", hopper_jpeg)
    assert names(again.text) == ["Mother One", "Father One"]
    assert "cosine" in (await ann.acts("rawkin:AAAAAAAAAAAA:1:dlib", hopper_jpeg)).text
    assert (await ann.acts("parents:x:1:nonsense", hopper_jpeg)).text == SAY("stale.button")


async def test_somebody_elses_press_leaves_the_askers_answer_alone(
    conversation: Conversation, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    chat = next(ids)
    ann, ben = (
        Person(conversation, Sender("telegram", next(ids), chat, "en", is_group=True), Limits())
        for _ in range(2)
    )
    ben.last = await ann.says("/parents", side_by_side(hopper_jpeg, collins_jpeg))
    assert not (await ben.presses("Face 2")).replaces
    alone = Person(conversation, Sender("telegram", ben.sender.user_id, "private", "en"))
    assert "Mother" not in (await alone.says("/history")).text


async def test_without_a_photo_the_last_one_is_meant(ann: Person, collins_jpeg: bytes) -> None:
    """In a private chat alone: elsewhere others would see it. Without any it asks for one."""
    please = SAY("error.no_photo", command="parents")
    assert (await ann.says("/parents")).text == please
    await ann.says("", collins_jpeg)
    reply = await ann.says("/parents film")
    assert names(reply.text) == ["Mother One", "Father One"]
    assert (await ann.presses("Raw numbers")).text.startswith("Mother One: ")
    group = Sender("telegram", ann.sender.user_id, "group", "en", is_group=True)
    assert (await Person(ann.conversation, group).says("/parents")).text == please
    await ann.says("/forget")
    await ann.presses("Yes")
    assert (await ann.says("/parents")).text == please


async def test_in_every_language(conversation: Conversation, hopper_jpeg: bytes) -> None:
    for language in LANGUAGES:
        ann = Person(conversation, Sender("telegram", next(ids), "c", language))
        reply = await ann.says("/parents", hopper_jpeg)
        assert reply.text.startswith(SAY("parents.title", language))


async def test_a_gallery_that_says_of_nobody_what_they_are(
    starter_home: Path, tmp_path: Path, hopper_jpeg: bytes
) -> None:
    """One sentence tells what to do, and answers don't offer what can't be."""
    async with chatting(copy_home(starter_home, tmp_path / "home")) as opened:
        ann = Person(opened, Sender("telegram", "1", "c", "en"))
        assert (await ann.says("/parents", hopper_jpeg)).text == SAY("parents.unknown")
        await ann.says("", hopper_jpeg)
        assert "Celebrity parents" not in ann.labels


async def test_no_gender_is_both() -> None:
    assert not WOMEN & MEN
    assert all(word == word.casefold().strip() for word in WOMEN | MEN)
