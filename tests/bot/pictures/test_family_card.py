"""The picture of /parents: both of them, the sender in their midst, everything to be read."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bot.pictures.card import CardEntry, draw_family_card
from bot.values import Picture
from engine.types import Box, Face, Photo

LANDMARKS = np.array([[140, 150], [210, 150], [175, 190], [145, 225], [205, 225]], np.float32)
WOMAN, MAN, CHILD = (200, 40, 40), (40, 60, 200), (40, 180, 60)


def plain(colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A portrait of one colour, which says where it ended up."""
    return np.full((400, 350, 3), colour, np.uint8)


def face() -> Face:
    return Face(Box(100, 100, 150, 180), LANDMARKS, 0.99, frozenset())


def entry(name: str, colour: tuple[int, int, int], **more: str) -> CardEntry:
    words = {"word": "could be family", "credit": "Jane Doe, CC BY 4.0", **more}
    return CardEntry(plain(colour), LANDMARKS, name, 42.4, **words)


def drawn(woman: CardEntry, man: CardEntry, *, faces: int = 1, title: str = "Parents") -> Picture:
    photo = Photo(plain(CHILD), (350, 400), "JPEG")
    return draw_family_card(photo, [face()] * faces, (woman, man), answered=faces - 1, title=title)


def pixels(picture: Picture) -> NDArray[np.uint8]:
    image = Image.open(io.BytesIO(picture.jpeg))
    assert image.size == (picture.width_px, picture.height_px)
    return np.asarray(image)


def near(pixel: NDArray[np.uint8], colour: tuple[int, int, int]) -> bool:
    return bool(np.all(np.abs(pixel.astype(int) - colour) < 25))


def test_the_woman_left_the_man_right_the_sender_between() -> None:
    picture = drawn(entry("Ann", WOMAN), entry("Ben", MAN))
    shown = pixels(picture)
    assert near(shown[300, 100], WOMAN)
    assert near(shown[300, 980], MAN)
    between = [y for y in range(400, 900) if near(shown[y, 540], CHILD)]
    assert len(between) > 300
    disc = [x for x in range(300, 800) if near(shown[between[len(between) // 2], x], CHILD)]
    assert len(disc) == pytest.approx(len(between), abs=8)  # round
    assert sum(disc) / len(disc) == pytest.approx(540, abs=4)


def test_it_says_in_words_what_it_shows() -> None:
    picture = drawn(entry("Ann", WOMAN), entry("Ben", MAN), title="Celebrity parents")
    assert picture.alt == ("Celebrity parents. Ann: 42, could be family; Ben: 42, could be family")


def test_with_several_faces_the_numbered_photo_stands_above() -> None:
    one = drawn(entry("Ann", WOMAN), entry("Ben", MAN))
    three = drawn(entry("Ann", WOMAN), entry("Ben", MAN), faces=3)
    assert three.height_px > one.height_px + 300
    assert near(pixels(three)[250, 20], CHILD)


def test_long_words_make_the_picture_longer_and_never_wider() -> None:
    """Nothing is written over the edge, or over the other one's column."""
    long = "Wolfeschlegelsteinhausenbergerdorff " * 9
    short = drawn(entry("Ann", WOMAN, credit=""), entry("Ben", MAN, credit=""))
    wordy = drawn(entry(long, WOMAN, word=long, credit=long), entry("Ben", MAN, credit=""))
    assert (wordy.width_px, short.width_px) == (1080, 1080)
    assert short.height_px < wordy.height_px < short.height_px + 400
    below = pixels(wordy)[short.height_px + 10 :]
    assert below[:, :530].max() > 100
    assert below[:, 545:].max() < 60


def test_both_columns_share_their_baselines() -> None:
    """Where one name takes two lines, what is said of the other stands no higher."""
    long = entry("Mary Elizabeth Winstead-McGregor of Rocky Mount", WOMAN, credit="")
    shown = pixels(drawn(long, entry("Ben", MAN, credit="")))
    light = shown[-80:].max(axis=2) > 60  # the bars
    rows = [np.flatnonzero(light[:, part].any(axis=1)) for part in (np.s_[40:360], np.s_[563:883])]
    assert rows[0].mean() == pytest.approx(rows[1].mean(), abs=1)


@pytest.mark.parametrize("name", ["", " ", "محمد", "श्रीदेवी", "👩‍👦", "\n\u202e"])
def test_any_name_can_be_drawn(name: str) -> None:
    assert len(drawn(entry(name, WOMAN), entry("Ben", MAN)).jpeg) < 250_000


def test_a_face_that_is_not_there() -> None:
    photo = Photo(plain(CHILD), (350, 400), "JPEG")
    pair = entry("Ann", WOMAN), entry("Ben", MAN)
    with pytest.raises(IndexError):
        draw_family_card(photo, [face()], pair, answered=1, title="Parents")
