"""Photos remembered for the buttons: bounded by age and size, and still answerable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.memory import LONG_SIDE_PX, KeptPhoto, RecentAnswer, RecentPhotos, size_bytes
from bot.process_memory import Memory
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


async def remembered(memory: RecentPhotos, answer: RecentAnswer) -> str:
    token = memory.token(answer)
    await memory.keep(token, answer)
    return token


async def test_a_token_finds_what_was_kept_until_it_is_too_old() -> None:
    clock = Clock()
    known = Memory(clock=clock)
    memory = RecentPhotos(known, lifetime_s=60)
    recollection = RecentAnswer(b"owner", b"room", (kept(),))
    token = await remembered(memory, recollection)
    assert len(token) == 12
    clock.now = 59
    assert await memory.find(token, b"room") is recollection
    await memory.keep(token, recollection, again=True)
    clock.now = 60  # to be used does not make it live longer: the privacy notice says so
    assert await memory.find(token, b"room") is None
    assert await memory.find("nonsense", b"room") is None
    await memory.keep(token, recollection, again=True)
    assert await memory.find(token, b"room") is None
    clock.now = 120
    known.tidy()
    assert not known._kept


async def test_the_least_used_go_when_there_is_too_much() -> None:
    memory = RecentPhotos(Memory(3 * kept().size_bytes, size_bytes))
    tokens = [
        await remembered(memory, RecentAnswer(b"owner", b"room", (kept(),))) for _ in range(3)
    ]
    assert await memory.find(tokens[0], b"room") is not None  # now the last used
    tokens.append(await remembered(memory, RecentAnswer(b"owner", b"room", (kept(),))))
    found = [await memory.find(token, b"room") is not None for token in tokens]
    assert found == [True, False, True, True]


async def test_no_memory_at_all_is_allowed() -> None:
    memory = RecentPhotos(Memory(0, size_bytes))
    token = await remembered(memory, RecentAnswer(b"owner", b"room", (kept(),)))
    assert await memory.find(token, b"room") is None


async def test_forgetting_somebody_leaves_others() -> None:
    memory = RecentPhotos()
    mine = [await remembered(memory, RecentAnswer(b"me", b"room", (kept(),))) for _ in range(2)]
    yours = await remembered(memory, RecentAnswer(b"you", b"room", (kept(),)))
    await memory.forget(b"me")
    assert [await memory.find(token, b"room") for token in mine] == [None, None]
    assert await memory.latest(b"me") is None
    assert await memory.find(yours, b"room") is await memory.latest(b"you") is not None


def test_an_owner_is_not_shown() -> None:
    assert "owner" not in repr(RecentAnswer(b"a-secret-key", b"room", (), rest=()))
