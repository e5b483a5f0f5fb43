"""The packed pyramid: nothing is lost, added or seen twice by packing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.mtcnn import network_graph
from engine.mtcnn.canvas import Halvings, plan
from engine.runtime import Network, compile_network

sizes = st.integers(1, 900)


@pytest.fixture(scope="module")
def pnet() -> Network:
    return compile_network(lambda: network_graph("pnet"), name="pnet", precision="f32")


@settings(max_examples=40)
@given(width=sizes, height=sizes, smallest=st.floats(12, 200))
@example(width=10_000, height=30, smallest=20.0)
@example(width=13, height=3_000, smallest=12.0)
@example(width=1, height=1, smallest=12.0)
def test_every_window_of_every_copy_is_seen_once(width: int, height: int, smallest: float) -> None:
    seen: dict[tuple[int, int, int], set[tuple[int, int]]] = {}
    for canvas in plan(width, height, smallest):
        for i, tile in enumerate(canvas.tiles):
            assert tile.left % 2 == tile.top % 2 == tile.x % 2 == tile.y % 2 == 0
            rows, columns = np.nonzero(canvas.owner == i)
            windows = set(
                zip(
                    (2 * columns + tile.x - tile.left).tolist(),
                    (2 * rows + tile.y - tile.top).tolist(),
                    strict=True,
                )
            )
            copy = seen.setdefault((tile.level, tile.copy_width, tile.copy_height), set())
            assert not copy & windows, "a window is seen twice"
            copy |= windows
    for (_, copy_width, copy_height), windows in seen.items():
        whole = {
            (x, y) for x in range(0, copy_width - 11, 2) for y in range(0, copy_height - 11, 2)
        }
        assert whole <= windows
        beyond = windows - whole  # only the margin of a small copy
        assert not beyond or min(copy_width, copy_height) < 36
        assert all(-4 <= x <= copy_width - 8 and -4 <= y <= copy_height - 8 for x, y in beyond)


@given(width=sizes, height=sizes)
def test_copies_reach_from_the_smallest_to_the_largest_face(width: int, height: int) -> None:
    shorter = min(width, height)
    windows_px = sorted(
        {
            12 * height / tile.copy_height
            for canvas in plan(width, height, 20)
            for tile in canvas.tiles
        }
        if height <= width
        else {12 * width / tile.copy_width for c in plan(width, height, 20) for tile in c.tiles}
    )

    if shorter < 20 / 1.4:
        assert windows_px == []
    elif max(width, height) < 4 * shorter:  # of longer photos the smallest copies do not fit
        assert windows_px[0] == pytest.approx(20, rel=0.06)
        assert windows_px[-1] > 0.9 * shorter
        ratios = np.array(windows_px[1:]) / np.array(windows_px[:-1])
        assert (ratios < 1.7).all()


def test_two_looks_meet_without_a_gap() -> None:
    def windows(smallest: float, largest: float) -> list[float]:
        tiles = {t for c in plan(1600, 1200, smallest, largest) for t in c.tiles}
        return sorted({1600 * 12 / tile.copy_width for tile in tiles})

    coarse, fine = windows(80, math.inf), windows(20, 80)

    assert fine[0] == pytest.approx(20, rel=0.02)
    assert coarse[0] == pytest.approx(80, rel=0.02)
    assert 1 < coarse[0] / fine[-1] < 1.5


@pytest.mark.parametrize(("width", "height", "smallest"), [(640, 480, 32), (300, 700, 20)])
def test_a_packed_copy_is_judged_like_a_lone_one(
    pnet: Network, width: int, height: int, smallest: float
) -> None:
    random = np.random.default_rng(0)
    photo = Halvings(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
    compared = 0
    for canvas in plan(width, height, smallest):
        _, packed = pnet.run(canvas.drawn(photo))
        for i, tile in enumerate(canvas.tiles):
            if tile.x < 0 or tile.width < tile.copy_width or tile.height < tile.copy_height:
                continue
            _, lone = pnet.run(photo.resized(tile.copy_width, tile.copy_height)[None])
            rows, columns = np.nonzero(canvas.owner == i)
            top, left = tile.top // 2, tile.left // 2
            np.testing.assert_allclose(
                packed[0, 0, rows, columns], lone[0, 0, rows - top, columns - left], atol=1e-4
            )
            compared += len(rows)
    assert compared > 1000
