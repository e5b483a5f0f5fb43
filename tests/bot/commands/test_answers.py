"""The buttons under an answer: within limits, and every face can be reached."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from bot.commands import Found, Question, Turn
from bot.commands.answers import answer_buttons, pair_buttons
from bot.store import Identity
from bot.text import Wording
from bot.values import Action, Attachment, Limits, Request, Rows, Sender

TOKEN = "abcdefghijkl"
SENDER = Sender("web", "1", "c", "en")


def a_turn(limits: Limits) -> Turn:
    who = Identity(b"s" * 32).who(SENDER)
    return Turn(Request(SENDER), limits, who, partial(Wording.load().text, language="en"))


def shown(
    turn: Turn,
    number: int,
    count: int,
    page: int,
    *,
    top: int = 1,
    answers: int = 1,
    album: int = 1,
    others: Sequence[str] = ("resnet", "senet"),
) -> Rows:
    """The buttons under an answer of dlib's about one of ``count`` faces."""
    photo = SimpleNamespace(faces=(None,) * count)
    rest = (Attachment(None),) * (album - 1)  # type: ignore[arg-type]
    question = Question("dlib", top=top, number=number, page=page, rest=rest)
    found = Found(photo, question, TOKEN, (), (None,) * answers, 9, 9)  # type: ignore[arg-type]
    return answer_buttons(turn, found, others)


def actions(rows: Rows) -> list[Action]:
    found = [Action.parse(button.action) for row in rows for button in row]
    assert all(action is not None for action in found)
    return [action for action in found if action is not None]


@given(
    count=st.integers(1, 120),
    per_row=st.integers(2, 8),
    rows=st.integers(4, 10),
    data=st.data(),
)
def test_every_face_can_be_reached(
    count: int, per_row: int, rows: int, data: st.DataObject
) -> None:
    """Turning the pages, each other face appears exactly once."""
    turn = a_turn(Limits(buttons_per_row=per_row, button_rows=rows))
    number = data.draw(st.integers(1, count))
    seen: list[int] = []
    page, pages = 0, 0
    while True:
        found = shown(turn, number, count, page)
        assert len(found) <= rows
        assert all(1 <= len(row) <= per_row for row in found)
        sees = [action for action in actions(found) if action.verb == "see"]
        same = [a for a in sees if a.arguments[2:4] == ("dlib", "1")]
        seen += [int(a.text(1)) for a in same if a.text(1) != str(number)]
        onward = [a for a in same if a.text(1) == str(number)]
        pages += 1
        assert pages <= count
        if not onward or onward[0].number(4) == 0:
            break
        page = onward[0].number(4) or 0
    assert sorted(seen) == [face for face in range(1, count + 1) if face != number]


@given(st.integers(0, 10_000))
def test_any_page_is_a_page(page: int) -> None:
    assert shown(a_turn(Limits()), 1, 40, page)


def test_more_matches_are_offered_while_there_may_be_more() -> None:
    turn = a_turn(Limits())

    def tops(top: int, found: int) -> list[int | None]:
        rows = shown(turn, 1, 1, 0, top=top, answers=found, others=[])
        return [action.number(3) for action in actions(rows) if action.verb == "see"]

    assert tops(1, 1) == [5]
    assert tops(3, 3) == [5, 1]
    assert tops(5, 5) == [10, 1]
    assert tops(5, 2) == [1]  # the gallery has no more people
    assert tops(10, 10) == [1]


def test_an_album_has_a_button_per_photo_and_two_can_be_compared() -> None:
    turn = a_turn(Limits())
    verbs = [action.verb for action in actions(shown(turn, 1, 1, 0, album=2))]
    assert verbs.count("next") == 1
    assert verbs.count("both") == 1
    verbs = [action.verb for action in actions(shown(turn, 1, 1, 0, album=4))]
    assert verbs.count("next") == 3
    assert "both" not in verbs


def test_a_comparison_offers_other_models_and_numbers() -> None:
    rows = pair_buttons(a_turn(Limits()), TOKEN, 2, model="dlib", others=["resnet"])
    assert [(a.verb, a.text(1)) for a in actions(rows)] == [("pair", "resnet"), ("rawpair", "dlib")]
