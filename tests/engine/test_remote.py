"""An engine elsewhere: what travels, and what a bot makes of a service that is bad or gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from engine_door import FACE, FACTS, JPEG, SHA, UNIT, Door, decode, looked, opened
from hypothesis import given
from hypothesis import strategies as st

from engine.backbones.network import INT8_RECIPE
from engine.errors import BadSettings, Busy, NotAnImage, SpaceMismatch, TooLarge, WeightsMissing
from engine.remote import (
    LONGEST_PAUSE_S,
    MAGIC,
    MOST_REPLY_BYTES,
    Malformed,
    pack,
    problem_header,
    unpack,
)
from engine.types import Photo


@pytest.fixture
def door() -> Iterator[Door]:
    one = Door()
    with opened(one), one.clients:
        yield one


ARRAYS = st.sampled_from(["u1", "<f4", "<f8"]).flatmap(
    lambda kind: st.lists(st.integers(0, 4), max_size=4).map(lambda shape: np.ones(shape, kind))
)


@given(st.dictionaries(st.text(max_size=5), st.integers()), st.lists(ARRAYS, max_size=4))
def test_a_message_arrives_as_it_was_sent(header: dict[str, Any], arrays: list[Any]) -> None:
    header.pop("arrays", None)
    got, found = unpack(pack(header, arrays))
    assert got == header
    assert [(one.dtype, one.shape) for one in found] == [(one.dtype, one.shape) for one in arrays]


@given(st.binary(max_size=40), st.integers(0, 400), st.booleans())
def test_bytes_that_are_no_message_are_called_so(junk: bytes, at: int, cut: bool) -> None:
    message = looked()
    spoilt = message[:at] if cut else message[:at] + junk + message[at + len(junk) :]
    if spoilt != message:
        with suppress(Malformed):  # a number in the header or a vector may be another one now
            unpack(spoilt)


@pytest.mark.parametrize(
    "header",
    [
        {"arrays": [["|u1", [10**30]]]},
        {"arrays": [["|u1", [-1, -1]]]},
        {"arrays": [["<f4", [1, 1, 1, 1, 1]]]},
        {"arrays": [["O", [1]]]},
        {"arrays": [["<f8", 1e400]]},
        {"arrays": "none"},
        [],
    ],
)
def test_arrays_that_can_not_be_are_refused(header: Any) -> None:
    head = json.dumps(header).encode()
    with pytest.raises(Malformed):
        unpack(MAGIC + len(head).to_bytes(4, "little") + head + bytes(8))


def test_what_the_service_saw_is_what_the_bot_gets(door: Door) -> None:
    photo, (face,), embedded = door.client().look(JPEG, ["dlib"], decode)
    assert (photo.width_px, face.box, face.confidence) == (100, FACE.box, FACE.confidence)
    assert (face.landmarks == FACE.landmarks).all()
    assert face.concerns == FACE.concerns
    assert embedded["dlib"].space.id == f"dlib-{SHA[:12]}-r103"
    assert (embedded["dlib"].vector == UNIT[0]).all()


def test_a_closer_look_is_decoded_here_as_it_was_there(door: Door) -> None:
    wanted: list[tuple[Any, ...]] = []

    def noting(*asked: Any) -> Photo:
        wanted.append(asked[1:])
        return decode()

    door.usual = looked(part=[5, 6, 105, 86])
    door.client().look(JPEG, [], noting)
    door.usual = looked(finer=2)
    door.client().look(JPEG, [], noting)
    assert wanted == [(), ((5, 6, 105, 86), 1), (), (None, 2)]
    door.usual = looked(size=[50, 40], boxes=np.ones((1, 4)))
    with pytest.raises(Exception, match="decodes otherwise: install the same version"):
        door.client().look(JPEG, [], decode)


NAN = np.full((1, 128), np.nan, np.float32)
HOSTILE: dict[str, bytes | int] = {
    "no message": b"<html>welcome</html>",
    "nothing": b"",
    "an error": 500,
    "not there": 404,
    "elsewhere": 302,
    "without end": bytes(MOST_REPLY_BYTES + 1),
    "not a number": looked(vectors=NAN),
    "not a unit": looked(vectors=UNIT * 2),
    "too short": looked(vectors=UNIT[:, :64]),
    "a face far away": looked(boxes=np.array([[1e300, 0, 1, 1]])),
    "a face without a width": looked(boxes=np.zeros((1, 4))),
    "half a face": looked(landmarks=np.zeros((1, 4, 2), np.float32)),
    "landmarks nowhere": looked(landmarks=np.full((1, 5, 2), np.inf, np.float32)),
    "surer than sure": looked(confidences=np.array([1.5])),
    "an unknown concern": looked(concerns=[["ugly"]]),
    "a size that is none": looked(size=["wide", {}]),
    "a part that is none": looked(part=[5, -1, 1e30, 2]),
    "an unknown error": pack({"problem": "SystemExit", "message": "", "details": {}}),
    "an error of Python": pack({"problem": "ClassVar", "message": "", "details": {}}),
    "an error that clashes": pack({"problem": "Busy", "message": "", "details": {"message": "x"}}),
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE)
def test_an_answer_that_can_not_be_used_is_asked_for_once_more(
    door: Door, answer: bytes | int
) -> None:
    client, takes_its_time = door.client(), answer == HOSTILE["without end"]
    if not takes_its_time:
        door.script = [answer]
        assert client.look(JPEG, ["dlib"], decode)[1]
        assert client.retried == 1
    door.script, door.asked = [answer] * (1 if takes_its_time else 2), []
    with pytest.raises(Busy):
        client.look(JPEG, ["dlib"], decode)
    assert door.asked[-1] == "facts"  # it was looked whether anybody is there, and somebody is
    assert client.look(JPEG, ["dlib"], decode)[1]
    assert client.reached


@pytest.mark.parametrize(
    "problem",
    [NotAnImage("the file is no picture"), TooLarge("too many pixels", what="pixels", limit="9")],
)
def test_problems_travel(door: Door, problem: NotAnImage | TooLarge) -> None:
    door.usual = pack(problem_header(problem))
    with pytest.raises(type(problem), match=str(problem)) as caught:
        door.client().look(JPEG, [], decode)
    assert caught.value.details == problem.details
    assert door.asked == ["look"]


def test_too_much_to_do_is_busy_and_not_away(door: Door) -> None:
    client = door.client()
    door.script = [503]
    with pytest.raises(Busy, match="too much to do"):
        client.look(JPEG, ["dlib"], decode)
    assert client.look(JPEG, ["dlib"], decode)[1]


def test_crops_go_in_questions_of_eight(door: Door) -> None:
    network = door.client().backbone("dlib")
    answer = {"model": FACTS["models"]["dlib"]}
    door.script = [pack(answer, [np.repeat(UNIT, n, 0)]) for n in (8, 8, 4)]
    crops = [np.zeros((150, 150, 3), np.uint8)] * 20
    assert len(network.embed(crops)) == 20
    assert door.asked == ["facts", "embed", "embed", "embed"]
    with pytest.raises(ValueError, match="150"):
        network.embed([crops[0][:10]])


def test_a_model_without_weights_there_is_missing_and_looked_for_again(door: Door) -> None:
    client = door.client()
    with pytest.raises(WeightsMissing, match="its weights are not here"):
        client.backbone("resnet")
    assert "resnet" in client.offers()
    found = [SHA, 1, 2048, "f32"]
    door.facts = pack(FACTS | {"models": {**FACTS["models"], "resnet": found}})
    assert client.backbone("resnet").space.dimensions == 2048


def changed(**models: Any) -> dict[str, Any]:
    return FACTS | {"models": models}


@pytest.mark.parametrize(
    ("facts", "options", "sentence"),
    [
        (FACTS, {"same": {"photo.long_side_px": 1500}}, "photo.long_side_px = 2000"),
        (FACTS, {"precision": "f32"}, "in int8, here models.precision is f32"),
        (changed(dlib=[SHA, 7, 128, "f32"]), {}, "another recipe"),
        (changed(dlib=[SHA, 3, 64, "f32"]), {}, "another recipe"),
        (changed(dlib=["../../../tmp/elsewhere", 3, 128, "f32"]), {}, "another recipe"),
    ],
)
def test_another_engine_than_wanted_is_refused_with_a_sentence(
    door: Door, facts: dict[str, Any], options: dict[str, Any], sentence: str
) -> None:
    door.facts = pack(facts)
    client = door.client(**options)
    with pytest.raises((BadSettings, SpaceMismatch), match=sentence):
        client.connect()
    assert not client.reached
    with pytest.raises(Busy, match=sentence):
        client.look(JPEG, [], decode)


def test_a_model_that_changes_is_never_mixed_with_the_one_before(door: Door) -> None:
    client, other = door.client(), ["cd" * 32, 3 + INT8_RECIPE, 128, "int8"]
    client.look(JPEG, ["dlib"], decode)
    door.usual = looked(models=[other])
    with pytest.raises(SpaceMismatch, match="start this program again"):
        client.look(JPEG, ["dlib"], decode)
    door.facts = pack(changed(dlib=other))
    with pytest.raises(SpaceMismatch, match="otherwise than before"):
        client.connect()


def test_the_secret_is_sent_and_never_told(door: Door) -> None:
    door.facts = 401
    client = door.client(secret="hush-hush")
    with pytest.raises(BadSettings, match=r"another engine\.secret") as caught:
        client.connect()
    assert "hush" not in repr((client, caught.value, str(client)))


def test_who_is_away_is_asked_again_in_growing_pauses_and_found_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now, door = [0.0], Door()
    with opened(door):
        client = door.client(clock=lambda: now[0])
        client.look(JPEG, ["dlib"], decode)
    with pytest.raises(Busy, match="can't be reached"):
        client.look(JPEG, ["dlib"], decode)

    pauses = []
    for _ in range(12):
        tried = client._tried
        while client._tried == tried:  # every question is refused at once, whoever asks
            with pytest.raises(Busy) as caught:
                client.refuse_if_away()
            now[0] += 0.1
            client.tend()
        pauses.append(client._tried - tried)
        assert float(str(caught.value.details["seconds"])) >= 1
    assert pauses[0] < 1.0
    assert LONGEST_PAUSE_S / 2 < pauses[-1] < LONGEST_PAUSE_S * 1.6
    assert [one.message for one in caplog.records] == ["engine away"]

    with opened(door):
        now[0] += 2 * LONGEST_PAUSE_S
        client.tend()
        assert client.reached
        assert client.look(JPEG, ["dlib"], decode)[1]
    door.clients.close()
