"""Photos remembered for the buttons: bounded by age and size, and still answerable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.memory import LONG_SIDE_PX, KeptPhoto, RecentAnswer, RecentPhotos
from engine.types import Box, Face, Photo


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def a_photo(width: int = 64, height: int = 48) -> Photo:
    x = np.linspace(0, 255, width, dtype=np.float32)
    pixels = np.broadcast_to(x[None, :, None], (height, width, 3)).astype(np.uint8)
    return Photo(pixels, (width, height), "JPEG")


def a_face(x: float, y: float, size: float) -> Face:
    points = np.array(
        [
            [x + size * u, y + size * v]
            for u, v in [(0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.4, 0.8), (0.6, 0.8)]
        ]
    )
    return Face(Box(x, y, size, size), points.astype(np.float32), 0.99)


def kept(width: int = 64, height: int = 48) -> KeptPhoto:
    return KeptPhoto(a_photo(width, height), (a_face(10, 10, 20),))


def test_packing_keeps_the_picture_and_makes_it_small() -> None:
    photo = kept(1280, 960)
    before = photo.photo().pixels
    photo.pack()
    photo.pack()
    after = photo.photo().pixels
    assert photo.size_bytes < before.nbytes / 10
    assert after.shape == before.shape
    assert np.abs(after.astype(int) - before).mean() < 2


@settings(max_examples=30)
@given(st.integers(1, 4000), st.integers(1, 4000))
def test_large_photos_are_reduced_and_faces_stay_where_they_were(width: int, height: int) -> None:
    face = a_face(width * 0.25, height * 0.25, max(1.0, width * 0.5))
    small = KeptPhoto(
        Photo(np.zeros((height, width, 3), np.uint8), (width, height), "PNG"), (face,)
    )
    photo = small.photo()
    assert photo.pixels.size <= 3 * (LONG_SIDE_PX + 1) ** 2
    assert max(photo.width_px, photo.height_px) <= LONG_SIDE_PX or max(width, height) > 2 * min(
        width, height
    )
    if max(width, height) <= LONG_SIDE_PX:
        assert (photo.width_px, photo.height_px) == (width, height)
    assert small.faces[0].box.x / photo.width_px == pytest.approx(face.box.x / width)
    assert small.faces[0].landmarks[:, 1] / photo.height_px == pytest.approx(
        face.landmarks[:, 1] / height, rel=1e-4
    )


def test_a_token_finds_what_was_kept_until_it_is_too_old() -> None:
    clock = Clock()
    memory = RecentPhotos(lifetime_s=60, clock=clock)
    recollection = RecentAnswer(b"owner", b"room", (kept(),))
    token = memory.keep(recollection)
    assert len(token) == 12
    clock.now = 59
    assert memory.find(token, b"room") is recollection
    clock.now = 60  # to be used does not make it live longer: the privacy notice says so
    assert memory.find(token, b"room") is None
    assert memory.find("nonsense", b"room") is None
    assert len(memory) == 0


def test_the_least_used_go_when_there_is_too_much() -> None:
    size = kept().size_bytes
    memory = RecentPhotos(most_bytes=3 * size)
    tokens = [memory.keep(RecentAnswer(b"owner", b"room", (kept(),))) for _ in range(3)]
    assert memory.find(tokens[0], b"room") is not None  # now the last used
    tokens.append(memory.keep(RecentAnswer(b"owner", b"room", (kept(),))))
    assert [memory.find(token, b"room") is not None for token in tokens] == [
        True,
        False,
        True,
        True,
    ]


def test_no_memory_at_all_is_allowed() -> None:
    memory = RecentPhotos(most_bytes=0)
    assert memory.find(memory.keep(RecentAnswer(b"owner", b"room", (kept(),))), b"room") is None


def test_forgetting_somebody_leaves_others() -> None:
    memory = RecentPhotos()
    mine = [memory.keep(RecentAnswer(b"me", b"room", (kept(),))) for _ in range(2)]
    yours = memory.keep(RecentAnswer(b"you", b"room", (kept(),)))
    memory.forget(b"me")
    assert [memory.find(token, b"room") for token in mine] == [None, None]
    assert memory.find(yours, b"room") is not None


def test_an_owner_is_not_shown() -> None:
    assert "owner" not in repr(RecentAnswer(b"a-secret-key", b"room", (), rest=()))
