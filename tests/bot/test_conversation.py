"""What people ask and what the bot answers, with the real engine, gallery and database."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import logging
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from homes import copy_home
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from talking import Person, blank, chatting, side_by_side

import bot.conversation
from bot.conversation import COMMANDS, PRIVATE, Conversation
from bot.logs import OURS, set_up_logs
from bot.text import LANGUAGES, Wording, utf16_length
from bot.values import Limits, Reply, Request, Sender
from engine import decode as decoding

pytestmark = pytest.mark.asyncio(loop_scope="module")

NARROW = Limits(text_chars=300, caption_chars=120, buttons_per_row=3, button_rows=2, label_chars=12)
ids = map(str, itertools.count(1000))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def conversation(
    starter_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Conversation]:
    home = copy_home(starter_home, tmp_path_factory.mktemp("talk") / "home")
    async with chatting(home, queue={"photos_per_minute": 1000}) as opened:
        yield opened


@pytest.fixture
def ann(conversation: Conversation) -> Person:
    """Somebody new, in a private chat."""
    return Person(conversation, Sender("telegram", next(ids), "private", "en-GB"))


@pytest.fixture
def group(conversation: Conversation) -> tuple[Person, Person]:
    """Two people in one group, on a platform that can't whisper."""
    chat = next(ids)
    one, two = (Sender("telegram", next(ids), chat, "en", is_group=True) for _ in range(2))
    return Person(conversation, one, Limits()), Person(conversation, two, Limits())


@pytest.fixture(scope="module")
def both_jpeg(hopper_jpeg: bytes, collins_jpeg: bytes) -> bytes:
    """One photo of two people."""
    return side_by_side(hopper_jpeg, collins_jpeg)


def is_card(reply: Reply) -> bool:
    """Whether the reply carries a readable picture that says what is on it."""
    if reply.picture is None:
        return False
    image = Image.open(io.BytesIO(reply.picture.jpeg))
    image.load()
    assert image.size == (reply.picture.width_px, reply.picture.height_px)
    assert reply.picture.alt
    return True


async def test_a_photo_that_ended_a_worker_is_not_tried_by_the_next_process(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ends one is simulated; decoding would take seconds."""
    deadly = b"GIF89a" + b"\x0a\0\x0a\0" + bytes(3) + (b"!\xfe\0" + bytes(950_000)) * 20
    take = decoding._Worker.take

    def taken(worker: decoding._Worker, *what: Any) -> bool:
        done = take(worker, *what)
        worker._process.kill()
        return done

    monkeypatch.setattr(decoding._Worker, "take", taken)
    monkeypatch.setattr(decoding, "_refused", {})
    sender = Sender("telegram", next(ids), "private", "en")
    async with chatting(own_home) as opened:
        kept, keep = asyncio.Event(), opened.store.keep

        async def keeping(*what: Any) -> bool:
            done = await keep(*what)
            kept.set()
            return done

        monkeypatch.setattr(opened.store, "keep", keeping)
        told = await Person(opened, sender).says("", deadly)
        await kept.wait()
    monkeypatch.setattr(decoding, "_refused", {})
    async with chatting(own_home) as opened:
        monkeypatch.setattr(decoding, "_worker_with", None)
        again = await Person(opened, sender).says("", deadly)
    assert told.text == again.text == opened.wording.text("error.damaged", "en")


async def test_some_are_not_answered_and_a_flooder_is_told_once(
    own_home: Path, hopper_jpeg: bytes
) -> None:
    access = {"blocked": ["telegram:13", "discord:-7"], "admins": ["telegram:1"]}
    sections = {"queue": {"photos_per_minute": 2}, "access": access}
    async with chatting(own_home, **sections) as opened:

        def person(platform: str, who: str, chat: str = "private") -> Person:
            return Person(opened, Sender(platform, who, chat, "en"), Limits(patient=False))

        for blocked in (person("telegram", "13"), person("discord", "5", "-7")):
            assert (await blocked.says("", hopper_jpeg)).silent
            assert (await blocked.says("/help")).silent
        flooder, admin = person("discord", "13"), person("telegram", "1")
        replies = [await flooder.says("", hopper_jpeg) for _ in range(5)]
        assert [bool(reply.answers) for reply in replies] == [True, True, False, False, False]
        assert "a lot of photos" in replies[2].text
        assert replies[3].silent
        assert replies[4].silent
        admins = [await admin.says("", hopper_jpeg) for _ in range(5)]
        assert all(reply.answers for reply in admins)
    async with chatting(own_home, access={"allowed": ["telegram:13"]}) as opened:
        assert (await person("telegram", "13").says("/help")).text
        assert (await person("telegram", "14", "13").says("/help")).text
        assert (await person("telegram", "14").says("/help")).silent
        assert (await person("web", "15").says("/help")).text


async def test_a_damaged_portrait_is_the_operators_matter(
    own_home: Path, hopper_jpeg: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The sender's own photo is not blamed: there is an answer without that picture."""
    with contextlib.closing(sqlite3.connect(own_home / "gallery" / "gallery.db")) as database:
        database.execute("UPDATE thumbnail SET jpeg = x'0102'")
        database.commit()
    async with chatting(own_home) as opened:
        reply = await Person(opened, Sender("telegram", "1", "1", "en")).says("", hopper_jpeg)
    assert reply.answers[0].matches[0].name == "Grace Hopper"
    assert is_card(reply)
    assert "`lookalike gallery verify --fix`" in caplog.text


async def test_a_photo_is_answered_with_name_score_word_model_and_credit(
    ann: Person, hopper_jpeg: bytes
) -> None:
    reply = await ann.says("", hopper_jpeg)
    assert is_card(reply)
    hook, score, rare, *_ = reply.text.splitlines()
    assert hook == reply.answers[0].hook == "Your closest of 2: Grace Hopper"
    assert re.fullmatch(r"\d+ ▰+▱* could be the very same person", score)
    assert rare == reply.answers[0].matches[0].rarity
    assert rare == "Fewer than 1 in 1,000,000 people look this alike"
    assert "Only 2 people are here so far" in reply.text
    assert "Model: dlib" in reply.text
    assert "Photo: James S. Davis, U.S. Navy, public domain" in reply.text
    assert ann.labels == ["More matches", "Raw numbers", "Morph"]
    (answer,) = reply.answers
    assert (answer.face, answer.faces, answer.model) == (1, 1, "dlib")
    assert answer.matches[0].name == "Grace Hopper"
    assert answer.matches[0].score > 80
    assert answer.matches[0].portrait is not None
    assert answer.matches[0].portrait().startswith(b"\xff\xd8")
    assert answer.box is not None
    assert all(0 < value < 1 for value in answer.box)


async def test_more_matches_come_in_one_picture_and_go_again(
    ann: Person, collins_jpeg: bytes
) -> None:
    first = await ann.says("", collins_jpeg)
    more = await ann.presses("More matches")
    assert is_card(more)
    assert more.replaces
    assert re.search(r"2:\n1\. Eileen Collins: \d+ ▰.*\n2\. Grace Hopper: \d+ ▰", more.text)
    assert [match.name for match in more.answers[0].matches] == ["Eileen Collins", "Grace Hopper"]
    best = await ann.presses("Best match only")
    assert best.text == first.text


async def test_raw_numbers_are_a_notice(ann: Person, hopper_jpeg: bytes) -> None:
    await ann.says("", hopper_jpeg)
    reply = await ann.presses("Raw numbers")
    assert reply.notice is not None
    assert len(reply.notice) <= 200
    assert re.search(r"cosine (0\.9|1\.0)\d+ \(dlib\)\. Fewer than 1 in 1,000,000", reply.notice)
    assert reply.picture is None
    assert not reply.replaces


async def test_raw_numbers_are_no_more_exact_than_they_can_be(
    ann: Person, hopper_jpeg: bytes
) -> None:
    await ann.says("/lookalike 2", hopper_jpeg)
    text = (await ann.presses("Raw numbers")).text
    strangers = re.search(r"Eileen Collins: .*1 in ([\d,]+) people look this alike", text)
    assert strangers
    assert re.fullmatch(r"\d\d?0*", strangers[1].replace(",", ""))


async def test_every_face_has_a_button_and_the_largest_is_answered_first(
    ann: Person, both_jpeg: bytes
) -> None:
    reply = await ann.says("", both_jpeg)
    assert is_card(reply)
    assert "Face 1 of 2" in reply.text
    first = reply.answers[0].matches[0].name
    assert "Face 2" in ann.labels
    other = await ann.presses("Face 2")
    assert other.replaces
    assert "Face 2 of 2" in other.text
    assert {first, other.answers[0].matches[0].name} == {"Grace Hopper", "Eileen Collins"}
    assert (await ann.presses("Face 1")).text == reply.text


async def test_buttons_work_after_a_restart_if_the_platform_still_has_the_photo(
    starter_home: Path, tmp_path: Path, both_jpeg: bytes
) -> None:
    """The memory is gone; the photo comes with the press, or is asked for again."""
    home = copy_home(starter_home, tmp_path / "home")
    sender = Sender("discord", "1", "c", "en")
    async with chatting(home) as first:
        ann = Person(first, sender)
        await ann.says("", both_jpeg)
    async with chatting(home) as second:
        ann.conversation = second
        gone = await ann.presses("Face 2")
        assert "Send it again" in gone.text
        assert gone.notice == gone.text
        reply = await ann.presses("Face 2", both_jpeg)
        assert "Face 2 of 2" in reply.text
        assert is_card(reply)
        assert (await ann.presses("Face 1")).answers[0].face == 1


async def test_top_with_a_photo_answers_it_and_changes_nothing(
    ann: Person, hopper_jpeg: bytes
) -> None:
    reply = await ann.says("/top 2", hopper_jpeg)
    assert len(reply.answers[0].matches) == 2
    assert len((await ann.says("", hopper_jpeg)).answers[0].matches) == 1


async def test_top_alone_is_the_default_in_this_chat(ann: Person, hopper_jpeg: bytes) -> None:
    assert "2 best matches" in (await ann.says("/top 2")).text
    assert len((await ann.says("", hopper_jpeg)).answers[0].matches) == 2
    elsewhere = Person(ann.conversation, Sender("telegram", ann.sender.user_id, "elsewhere"))
    assert len((await elsewhere.says("", hopper_jpeg)).answers[0].matches) == 1
    assert "the 2 best matches" in (await ann.says("/top")).text
    assert "● 3" in str((await ann.presses("3")).buttons)


@pytest.mark.parametrize("given", ["0", "11", "many", "-1", "3.5"])
async def test_a_number_out_of_range_is_explained(ann: Person, given: str) -> None:
    assert (await ann.says(f"/top {given}")).text == "I can show 1 to 10 matches. Try /top 3"


async def test_a_model_is_chosen_by_name_or_button_in_any_spelling(ann: Person) -> None:
    menu = await ann.says("/model")
    assert "● dlib (dlib face ResNet): ready" in menu.text
    assert "not here yet" in menu.text
    assert "lookalike models download resnet senet (200 MB" in menu.text
    assert ann.labels == ["○ resnet", "○ senet", "● dlib"]  # resnet can't be had
    assert "dlib answers you" in (await ann.says("/model DLIB")).text
    missing = await ann.says("/model SE-Net50")
    assert re.fullmatch(r"○ senet \(.+\): not here yet\n.+ download senet .+", missing.text)
    await ann.says("/model")
    pressed = await ann.presses("dlib")
    assert pressed.replaces
    assert "● dlib" in pressed.text
    assert "Model: dlib" in (await ann.says("/settings")).text


async def test_an_unknown_model_is_answered_with_those_there_are(ann: Person) -> None:
    text = (await ann.says("/model inception")).text
    assert "“inception”" in text
    assert "resnet, senet, dlib" in text


async def test_settings_menu_and_caption_name_the_same_model(
    ann: Person, hopper_jpeg: bytes
) -> None:
    """The default can't be had: it is named nowhere, and nothing is promised."""
    caption = (await ann.says("", hopper_jpeg)).text
    assert "Model: dlib" in caption
    assert "isn't ready" not in caption
    assert "Model: dlib" in (await ann.says("/settings")).text
    assert "Now: dlib" in (await ann.says("/model")).text
    assert (await ann.conversation.choices(ann.sender)).model == "dlib"


async def test_a_category_filters_until_it_is_cleared(ann: Person, hopper_jpeg: bytes) -> None:
    assert "search space" in (await ann.says("/category SPACE")).text
    reply = await ann.says("", hopper_jpeg)
    assert reply.answers[0].matches[0].name == "Eileen Collins"
    assert "Searched: space" in reply.text
    everybody = await ann.says("/lookalike all", hopper_jpeg)
    assert everybody.answers[0].matches[0].name == "Grace Hopper"
    assert "everybody" in (await ann.says("/category все")).text
    again = await ann.says("", hopper_jpeg)
    assert again.answers[0].matches[0].name == "Grace Hopper"


async def test_categories_have_buttons(ann: Person) -> None:
    await ann.says("/category")
    assert ann.labels == ["● everybody", "○ science", "○ space"]
    reply = await ann.presses("space")
    assert reply.replaces
    assert "● space" in str(reply.buttons)
    unknown = await ann.says("/category cooking")
    assert "“cooking”" in unknown.text
    assert "science, space, all" in unknown.text


async def test_lookalike_takes_wishes_for_one_photo(ann: Person, hopper_jpeg: bytes) -> None:
    reply = await ann.says("/lookalike 2 dlib please", hopper_jpeg)
    assert len(reply.answers[0].matches) == 2
    reply = await ann.says("/lookalike space", hopper_jpeg)
    assert reply.answers[0].matches[0].name == "Eileen Collins"


async def test_two_photos_are_compared(
    ann: Person, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    reply = await ann.says("/compare", hopper_jpeg, collins_jpeg)
    assert is_card(reply)
    assert re.match(r"How alike\? \d+ ▰.*\n.* look this alike\n", reply.text)
    assert reply.answers[0].matches[0].score < 60
    same = await ann.says("/compare", hopper_jpeg, hopper_jpeg)
    assert same.answers[0].matches[0].score == pytest.approx(100, abs=0.5)
    assert "cosine 1.0000" in str((await ann.presses("Raw numbers")).notice)


async def test_a_covered_face_has_a_caveat_and_no_strong_word(
    ann: Person, hopper_jpeg: bytes
) -> None:
    """Its sunglasses may hide what would tell the two apart."""
    photo = Image.open(io.BytesIO(hopper_jpeg))
    for x, y in ((224, 184), (304, 184)):
        ImageDraw.Draw(photo).ellipse((x - 34, y - 22, x + 34, y + 30), (15, 15, 18))
    covered = io.BytesIO()
    photo.save(covered, "JPEG", quality=95)
    for said, photos in (("", [covered]), ("/compare", [covered, covered])):
        reply = await ann.says(said, *(one.getvalue() for one in photos))
        (match,) = reply.answers[0].matches
        assert (match.score > 55, match.word) == (True, "some likeness")
        assert "A mask or dark glasses seem to hide part of the face" in reply.text


async def test_two_people_in_one_photo_are_compared(
    ann: Person, both_jpeg: bytes, hopper_jpeg: bytes
) -> None:
    reply = await ann.says("/compare", both_jpeg)
    assert is_card(reply)
    assert reply.answers[0].matches[0].score < 60
    assert "two photos" in (await ann.says("/compare", hopper_jpeg)).text
    assert "two photos" in (await ann.says("/compare")).text


async def test_an_album_is_answered_one_photo_after_the_other(
    ann: Person, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    first = await ann.says("", hopper_jpeg, collins_jpeg)
    assert first.answers[0].matches[0].name == "Grace Hopper"
    assert "the other one" in first.text
    assert {"Photo 2", "Compare these two"} <= set(ann.labels)
    buttons = {button.label: button.action for button in ann.buttons}
    second = await ann.acts(buttons["Photo 2"])
    assert second.answers[0].matches[0].name == "Eileen Collins"
    assert not second.replaces
    compared = await ann.acts(buttons["Compare these two"])
    assert "How alike?" in compared.text


async def test_everybody_in_a_group_has_settings_of_their_own(
    group: tuple[Person, Person], hopper_jpeg: bytes
) -> None:
    ann, ben = group
    await ann.says("/top 2")
    assert len((await ann.says("", hopper_jpeg)).answers[0].matches) == 2
    assert len((await ben.says("", hopper_jpeg)).answers[0].matches) == 1


async def test_somebody_elses_button_answers_and_harms_nothing(
    group: tuple[Person, Person], both_jpeg: bytes
) -> None:
    """The presser gets an answer of their own, and no history; the asker's stays."""
    ann, ben = group
    await ann.says("", both_jpeg)
    ben.last = ann.last
    reply = await ben.presses("Face 2")
    assert is_card(reply)
    assert not reply.replaces
    alone = Person(ben.conversation, Sender("telegram", ben.sender.user_id, "private", "en"))
    assert "No matches yet" in (await alone.says("/history")).text
    await ann.says("/style")
    ben.last = ann.last
    chosen = await ben.presses("split")
    assert chosen.notice
    assert not chosen.replaces
    assert "Card style: one split face" in (await ben.says("/settings")).text
    assert "Card style: side by side" in (await ann.says("/settings")).text


async def test_a_forgotten_photo_in_a_group_goes_into_nobodys_history(
    group: tuple[Person, Person], hopper_jpeg: bytes
) -> None:
    """After a restart nobody knows whose it was: the platform hands it over again."""
    ann, _ = group
    reply = await ann.acts("see:forgotten123:1:dlib:1:0", hopper_jpeg)
    assert is_card(reply)
    assert reply.replaces
    alone = Person(ann.conversation, Sender("telegram", ann.sender.user_id, "private", "en"))
    assert "No matches yet" in (await alone.says("/history")).text


async def test_what_is_private_is_not_said_in_a_group(group: tuple[Person, Person]) -> None:
    ann, _ = group
    for command in ("/history", "/mydata", "/forget"):
        reply = await ann.says(command)
        assert "private chat" in reply.text
        assert reply.document is None
    whispering = Person(ann.conversation, ann.sender)
    assert (await whispering.says("/mydata")).private


async def test_history_data_and_forgetting(ann: Person, hopper_jpeg: bytes) -> None:
    await ann.says("", hopper_jpeg)
    await ann.presses("More matches")  # the same face by the same model is no second entry
    await ann.says("/model dlib")
    history = await ann.says("/history")
    assert len(re.findall(r"\d{4}-\d\d-\d\d  Grace Hopper: \d+ ▰+▱* \(dlib\)", history.text)) == 1
    handed = await ann.says("/mydata")
    assert handed.document is not None
    stored = json.loads(handed.document.content)
    assert stored["choices"] == {"model": "dlib"}
    assert [match["person"] for match in stored["matches"]] == ["Grace Hopper"]
    assert ann.sender.user_id not in handed.document.content.decode()
    await ann.says("", hopper_jpeg)
    answered = ann.last
    await ann.says("/forget")
    assert ann.labels == ["Yes, delete everything", "No, keep it"]
    assert "Nothing was deleted" in (await ann.presses("No")).text
    done = await ann.presses("Yes")
    assert "deleted" in done.text
    assert done.replaces
    assert "No matches yet" in (await ann.says("/history")).text
    ann.last = answered
    assert "Send it again" in (await ann.presses("More matches")).text


async def test_only_the_asker_can_confirm_to_forget(
    group: tuple[Person, Person], hopper_jpeg: bytes
) -> None:
    ann, ben = group
    ann.limits = Limits(whispers=True)
    await ben.says("", hopper_jpeg)
    await ann.says("/forget")
    ben.last = ann.last
    assert "Only the person who asked" in str((await ben.presses("Yes")).notice)
    alone = Person(ben.conversation, Sender("telegram", ben.sender.user_id, "private", "en"))
    assert "Grace Hopper" in (await alone.says("/history")).text


@pytest.mark.parametrize("platform", ["telegram", "discord", "web"])
async def test_what_is_behind_an_answer_is_told_where_the_answer_stands(
    conversation: Conversation, hopper_jpeg: bytes, collins_jpeg: bytes, platform: str
) -> None:
    """What a button carries is of no use in another chat, not to the asker either."""
    ids_of = [next(ids) for _ in range(2)]
    here, there = next(ids), [next(ids) for _ in range(2)]
    ann, ben = (Person(conversation, Sender(platform, one, here, "en", True)) for one in ids_of)
    elsewhere = [
        Person(conversation, Sender(platform, one, chat, "en"))
        for one, chat in zip(ids_of, there, strict=True)
    ]
    actions = []
    for command in ("", "/parents", "/compare"):
        await ann.says(command, hopper_jpeg, collins_jpeg)
        actions += [button.action for button in ann.buttons]
    assert {action.partition(":")[0] for action in actions} >= {"see", "next", "raw", "rawpair"}
    gone = Wording.load().text("stale.photo", platform=platform)
    for action in actions:
        for person in elsewhere:
            reply = await person.acts(action)
            assert (reply.picture, reply.text) == (None, gone)
    for action in actions:
        assert (await ben.acts(action)).text != gone


async def test_the_bot_introduces_itself(ann: Person) -> None:
    assert "photo" in (await ann.says("/start")).text
    helped = (await ann.says("/help")).text
    assert all(f"/{name} - " in helped for name in COMMANDS if name not in {"start", "help"})
    about = (await ann.says("/about")).text
    assert "2 people" in about
    assert about.count("Licence:") == 3
    privacy = (await ann.says("/privacy")).text
    assert "30 days" in privacy
    assert "60 minutes" in privacy
    assert "Send me a photo" in (await ann.says("hello?")).text


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("/lookalike", "/lookalike as its caption"),
        ("/modle senet", "Did you mean /model?"),
        ("/xyzzy", "I don't know /xyzzy"),
        ("/xyzzy\u202e" + "x" * 5000, "I don't know /xyzzy"),
    ],
)
async def test_mistakes_are_answered_with_what_to_do(ann: Person, said: str, words: str) -> None:
    assert words in (await ann.says(said)).text


async def test_photos_that_cannot_be_used_are_explained(ann: Person, hopper_jpeg: bytes) -> None:
    assert "can't find a face" in (await ann.says("", blank())).text
    assert "isn't a photo" in (await ann.says("", b"not a picture")).text
    assert "can't open" in (await ann.says("", hopper_jpeg[:500])).text
    assert "up to 20 MB" in (await ann.says("", hopper_jpeg + bytes(20_000_000))).text
    tiny = Image.open(io.BytesIO(hopper_jpeg)).resize((64, 75))
    canvas = Image.new("RGB", (1600, 1200), (90, 110, 130))
    canvas.paste(tiny, (700, 500))
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=95)
    text = (await ann.says("", buffer.getvalue())).text
    assert "too small" in text or "can't find a face" in text


async def test_the_asker_is_spoken_to_in_their_language(
    conversation: Conversation, hopper_jpeg: bytes
) -> None:
    for language, word in (
        ("ru", "Модель"),
        ("hi-IN", "मॉडल"),
        ("es-419", "Modelo"),
        ("pt", "Model"),
    ):
        ann = Person(conversation, Sender("telegram", next(ids), "c", language))
        assert f"{word}: dlib" in (await ann.says("", hopper_jpeg)).text


async def test_menus_know_what_can_be_chosen(ann: Person) -> None:
    await ann.says("/model dlib")
    await ann.says("/top 4")
    choices = await ann.conversation.choices(ann.sender)
    assert [model.name for model in choices.models] == ["resnet", "senet", "dlib"]
    assert [model.ready for model in choices.models] == [False, False, True]
    assert choices.categories == ("science", "space")
    assert (choices.model, choices.top, choices.category) == ("dlib", 4, None)


async def test_answers_stay_within_narrow_limits(
    conversation: Conversation, both_jpeg: bytes
) -> None:
    ann = Person(conversation, Sender("discord", next(ids), "c", "ru"), NARROW)
    for said, photos in (
        ("/top 10", [both_jpeg]),
        ("", [both_jpeg, both_jpeg]),
        ("/help", []),
        ("/about", []),
        ("/model", []),
        ("/category", []),
    ):
        reply = await ann.says(said, *photos)
        most = NARROW.caption_chars if reply.picture else NARROW.text_chars
        assert 0 < utf16_length(reply.text) <= most
        assert len(reply.buttons) <= 2
        assert all(len(row) <= 3 for row in reply.buttons)
        assert all(len(button.label) <= 12 for button in ann.buttons)


async def test_the_log_says_how_long_it_took_and_not_who_asked(
    conversation: Conversation, hopper_jpeg: bytes
) -> None:
    """One line per answer, at DEBUG, with nothing that leads to a person."""
    root, stream = logging.getLogger(), io.StringIO()
    before = root.handlers, root.level
    set_up_logs("DEBUG", stream=stream)
    user_id, chat_id = "918273645546372819", "-100918273645546"
    ann = Person(conversation, Sender("telegram", user_id, chat_id, "en", is_group=True))
    try:
        for said in ("", "/top 3", "/compare", f"/{user_id}", f"/category {user_id}"):
            await ann.says(said, hopper_jpeg)
        await ann.says("", b"no picture")
        await ann.acts(f"see:{user_id}:1:dlib:1:0")
    finally:
        root.handlers, root.level = before
        for name in OURS:
            logging.getLogger(name).setLevel(logging.NOTSET)
        logging.captureWarnings(capture=False)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 7
    assert all("event=answer" in line and " total_ms=" in line for line in lines)
    assert "outcome=answered asked=photo faces=1 model=dlib" in lines[0]
    for step in ("fetch", "decode", "detect", "embed", "search", "draw"):
        assert f" {step}_ms=" in lines[0]
    assert "outcome=NotAnImage" in lines[5]
    for secret in (
        user_id,
        chat_id,
        "Hopper",
        conversation._services.store.identity.who(ann.sender).user.hex(),
    ):
        assert secret not in stream.getvalue()


@given(
    command=st.none() | st.sampled_from(sorted(COMMANDS)) | st.text(max_size=20),
    arguments=st.text(max_size=50),
    action=st.none()
    | st.text(max_size=80)
    | st.builds(
        lambda verb, rest: ":".join((verb, *rest)),
        st.sampled_from(
            [
                *("see", "raw", "next", "both", "pair", "rawpair", "parents", "rawkin", "twins"),
                *("model", "top", "category", "forget"),
            ]
        ),
        st.lists(st.sampled_from(["", "0", "1", "99", "dlib", "senet", "all", "yes", "abc", "on"])),
    ),
    group=st.booleans(),
)
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_whatever_is_asked_there_is_an_answer(
    conversation: Conversation,
    command: str | None,
    arguments: str,
    action: str | None,
    group: bool,
) -> None:
    """Never an exception, never an internal error, never an empty reply."""
    sender = Sender("web", "anybody", "anywhere", "en", is_group=group)
    request = Request(sender, command, arguments, (), action)
    reply = await conversation.answer(request, Limits())
    assert reply.text
    assert "something went wrong" not in reply.text
    assert utf16_length(reply.text) <= 4096


@pytest.mark.parametrize(
    ("platform", "commands"),
    [
        ("terminal", ("start", "help", "morph", "compare", "twins")),
        ("web", ("start", "help", "morph", "compare", "twins")),
        ("discord", ("start", "help", "morph", "compare", "twins")),
    ],
)
async def test_what_to_do_is_said_as_the_platform_has_it(
    conversation: Conversation, platform: str, commands: tuple[str, ...]
) -> None:
    """Captions, and replies with a command, are Telegram's."""
    for language in LANGUAGES:
        person = Person(conversation, Sender(platform, next(ids), "chat", language))
        for command in commands:
            told = (await person.says(f"/{command}")).text
            keys = {"start": "start.text", "help": "help.intro", "compare": "compare.need_two"}
            key = (keys | {"twins": "twins.where"}).get(command, "error.no_photo")
            say = conversation.wording.text
            assert told.startswith(say(f"{platform}.{key}", language, command=command))


@pytest.mark.parametrize("command", sorted(PRIVATE | {"settings"}))
async def test_one_place_says_what_is_private(
    group: tuple[Person, Person], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Also of a command that is marked later, whatever its function says."""
    monkeypatch.setattr(bot.conversation, "PRIVATE", PRIVATE | {command})
    ann, ben = group
    assert (await ann.says(f"/{command}")).text.startswith("That's between")
    ben.limits = Limits(whispers=True)
    assert (await ben.says(f"/{command}")).private


async def test_a_wish_that_is_not_understood_is_told_and_the_photo_answered(
    ann: Person, hopper_jpeg: bytes
) -> None:
    for said, told in (
        ("/lookalike Tom Cruise", "I have no category “Tom Cruise”"),
        ("/lookalike 99", "I can show 1 to 10 matches"),
        ("/lookalike category:nonsense", "I have no category “nonsense”"),
        ("/lookalike model:nonsense", "I don't know a model called “nonsense”"),
        ("/lookalike style:nonsense", "I don't know a style called “nonsense”"),
        ("/morph Tom Cruise", "I have no category “Tom Cruise”"),
        ("/morph 5", "I have no use for “5” here."),
        ("/lookalike senet", "senet isn't ready here"),
        ("/lookalike best", "“best” is several models together"),
        ("/modle senet", "Did you mean /model?"),
        ("/model", "After /model you can write: resnet, senet, dlib"),
        ("/category", "After /category you can write: science, space, all"),
        ("/style", "After /style you can write: side, split"),
        ("/top", "I can show 1 to 10 matches"),
    ):
        reply = await ann.says(said, hopper_jpeg)
        assert reply.picture or reply.animation, said
        assert told in reply.text, said
    assert "no category" not in (await ann.says("/lookalike 2 dlib", hopper_jpeg)).text
    for command in ("/lookalike", "/morph"):
        said = (await ann.says(f"{command} Tom Cruise")).text
        assert "I have no category “Tom Cruise”" in said


async def test_several_wishes_at_once(ann: Person, hopper_jpeg: bytes) -> None:
    reply = await ann.says("/top 2 space", hopper_jpeg)
    assert "Searched: space" in reply.text
    assert "From now on" not in reply.text
    text = (await ann.says("/top 2 space nonsense")).text
    assert "2 best matches" in text
    assert "search space" in text
    assert "“nonsense”" in text
    reply = await ann.says("", hopper_jpeg)
    assert "Searched: space" in reply.text
    reply = await ann.says("/category science 2", hopper_jpeg)
    assert "From now on I search science" in reply.text
    said = (await ann.says("/model dlib split 3")).text
    assert ("dlib answers you" in said, "one face" in said, "3 best" in said) == (True, True, True)
    said = (await ann.says("/category space senet")).text  # which can't be had
    assert "senet isn't ready here" in said
    assert "Noted" not in said
    assert "“please”" in (await ann.says("/settings please")).text


async def test_a_choice_in_a_caption_says_that_it_is_kept(ann: Person, hopper_jpeg: bytes) -> None:
    reply = await ann.says("/category space", hopper_jpeg)
    assert reply.answers[0].matches[0].name == "Eileen Collins"
    assert "From now on I search space in this chat." in reply.text
    assert "From now on dlib answers you." in (await ann.says("/model dlib", hopper_jpeg)).text
