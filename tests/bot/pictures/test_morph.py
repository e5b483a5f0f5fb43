"""A face becomes another and itself again: what is seen when, and within which limits."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from films import seen
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageSequence
from test_card import COLLINS, HOPPER
from test_framing import placed

from bot.pictures.card import CardEntry
from bot.pictures.framing import FaceInPhoto
from bot.pictures.morph import GIF, MP4, make_morph
from bot.values import Animation

Pixels = NDArray[np.uint8]


def opened(jpeg: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


@pytest.fixture(scope="module")
def hopper(hopper_jpeg: bytes) -> FaceInPhoto:
    return opened(hopper_jpeg), HOPPER


@pytest.fixture(scope="module")
def collins(collins_jpeg: bytes) -> FaceInPhoto:
    return opened(collins_jpeg), COLLINS


def entry(sight: FaceInPhoto, name: str = "Grace Hopper", credit: str = "U.S. Navy") -> CardEntry:
    return CardEntry(*sight, name=name, score=57.0, word="a strong likeness", credit=credit)


def correlated(one: Pixels, other: Pixels) -> float:
    """Of the upper part, where no words stand."""
    rows = round(0.65 * len(one))
    return float(np.corrcoef(one[:rows].ravel(), other[:rows].ravel())[0, 1])


@pytest.fixture(scope="module")
def morph(hopper: FaceInPhoto, collins: FaceInPhoto) -> Animation:
    return make_morph(collins, entry(hopper), alt="becomes", kind=MP4)


def test_it_is_what_platforms_play(morph: Animation) -> None:
    """Two to three seconds, of even size, silent, small enough for every platform."""
    film = seen(morph.content)
    assert (film.codec, film.pixel_format, film.has_sound) == ("h264", "yuv420p", False)
    assert film.frames[0].shape == (morph.height_px, morph.width_px, 3)
    assert len(film.frames) == round(morph.duration_s * film.per_second)
    assert 2 <= morph.duration_s <= 3.2
    assert len(morph.content) < 1_000_000
    assert (morph.media_type, morph.filename) == ("video/mp4", "lookalike.mp4")
    assert morph.alt == "becomes"


def test_it_goes_there_and_back(
    hopper: FaceInPhoto, collins: FaceInPhoto, morph: Animation
) -> None:
    """It begins with the sender, shows the celebrity at length, and ends where it begins."""
    frames = seen(morph.content).frames
    alone = seen(make_morph(hopper, entry(collins), alt="", kind=MP4).content).frames
    middle = frames[round(0.6 * len(frames))]
    assert correlated(frames[0], frames[-1]) > 0.97
    assert correlated(middle, alone[0]) > 0.9  # the other, seen alone at the start of that film
    assert correlated(frames[0], middle) < 0.8
    steps = [
        float(np.abs(a.astype(int) - b).mean())
        for a, b in zip(frames, (*frames[1:], frames[0]), strict=True)
    ]
    whole = float(np.abs(frames[0].astype(int) - middle).mean())
    assert max(steps) < 0.3 * whole  # no jump, nor where it begins again


def test_the_words_come_with_the_celebrity(hopper: FaceInPhoto, collins: FaceInPhoto) -> None:
    """Name and credit stand on the frames that show the portrait, and on no first frame."""
    films = [
        seen(make_morph(collins, entry(hopper, name, credit), alt="", kind=MP4).content).frames
        for name, credit in (("Grace Hopper", "U.S. Navy"), ("G", ""))
    ]
    last = [frames[round(0.6 * len(frames))].astype(int) for frames in films]
    band = np.s_[-130:, :]
    assert np.abs(films[0][0][band].astype(int) - films[1][0][band]).mean() < 2
    assert np.abs(last[0][band] - last[1][band]).mean() > 8
    assert (last[0][band].min(axis=2) > 200).mean() > 0.01  # white letters


def test_a_gif_says_the_same(hopper: FaceInPhoto, collins: FaceInPhoto) -> None:
    """Where PyAV is missing; it loops for ever."""
    film = make_morph(collins, entry(hopper), alt="", kind=GIF)
    assert (film.media_type, film.filename) == ("image/gif", "lookalike.gif")
    assert len(film.content) < 4_000_000
    with Image.open(io.BytesIO(film.content)) as opened_film:
        assert opened_film.size == (film.width_px, film.height_px)
        assert opened_film.info["loop"] == 0
        lasts = sum(frame.info["duration"] for frame in ImageSequence.Iterator(opened_film))
    assert lasts / 1000 == pytest.approx(film.duration_s, abs=0.05)


def test_without_an_encoder_it_is_a_gif(
    hopper: FaceInPhoto, collins: FaceInPhoto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package is an extra."""
    monkeypatch.setitem(sys.modules, "av", None)
    assert make_morph(collins, entry(hopper), alt="").media_type == "image/gif"


sights = st.builds(
    lambda size, degrees, x, y, width, height, grey: (
        np.full((height, width, 3), grey, np.uint8),
        placed(size, degrees, x, y),
    ),
    st.floats(0, 300),
    st.floats(-90, 90),
    st.floats(-100, 700),
    st.floats(-100, 700),
    st.integers(1, 600),
    st.integers(1, 600),
    st.integers(60, 200),
)


@settings(max_examples=6)
@given(sights, sights, st.text(max_size=80))
def test_any_two_photos_make_a_film_without_black(
    one: FaceInPhoto, other: FaceInPhoto, name: str
) -> None:
    """Whatever their size and wherever their faces; names in any script."""
    film = make_morph(one, entry(other, name or "?"), alt="", kind=GIF)
    with Image.open(io.BytesIO(film.content)) as opened_film:
        for frame in ImageSequence.Iterator(opened_film):
            upper = np.asarray(frame.convert("RGB"))[: film.height_px // 2]
            assert upper.min() > 40
