"""Films in memory: what a player makes of them."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from films import seen
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from bot.pictures.morph import encode_gif, encode_mp4, encodes_mp4


def greys(levels: Sequence[int], width: int = 48, height: int = 32) -> list[NDArray[np.uint8]]:
    return [np.full((height, width, 3), level, np.uint8) for level in levels]


@settings(max_examples=15)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=40),
    st.integers(8, 60).map(lambda half: 2 * half),
    st.integers(8, 60).map(lambda half: 2 * half),
    st.sampled_from([10, 20, 25]),
)
def test_an_mp4_shows_each_frame_in_order(
    order: list[int], width: int, height: int, per_second: int
) -> None:
    """H.264 that every platform plays, silent, with its index before the pictures."""
    levels = (20, 90, 160, 230)
    content = encode_mp4(greys(levels, width, height), order, per_second)
    film = seen(content)
    assert (film.codec, film.pixel_format, film.has_sound) == ("h264", "yuv420p", False)
    assert film.per_second == per_second
    assert len(film.frames) == len(order)
    for at, frame in zip(order, film.frames, strict=True):
        assert frame.shape == (height, width, 3)
        assert frame.mean() == pytest.approx(levels[at], abs=8)
    assert 0 < content.find(b"moov") < content.find(b"mdat")


def test_a_long_film_still_begins_with_its_index() -> None:
    """The room that is kept for it is enough, or encoding would fail."""
    order = [at % 2 for at in range(200)]
    content = encode_mp4(greys((10, 240)), order, 25)
    assert 0 < content.find(b"moov") < content.find(b"mdat")
    assert len(seen(content).frames) == 200


@settings(max_examples=15)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.sampled_from([7, 10, 20]))
def test_a_gif_loops_and_lasts_as_long(order: list[int], per_second: int) -> None:
    """Frames that stay are stored once and shown longer."""
    content = encode_gif(greys((20, 90, 160, 230)), order, per_second)
    with Image.open(io.BytesIO(content)) as film:
        lasts = [frame.info.get("duration", 0) for frame in ImageSequence.Iterator(film)]
        changes = 1 + sum(a != b for a, b in pairwise(order))
        assert len(lasts) == changes
        if changes > 1:
            assert film.info["loop"] == 0
            assert sum(lasts) == pytest.approx(1000 * len(order) / per_second, abs=11)


def test_it_is_known_whether_there_is_an_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests need PyAV; without it people get GIFs."""
    assert encodes_mp4()
    monkeypatch.setitem(sys.modules, "av", None)
    assert not encodes_mp4()
