"""Text in a box: it fits, all of it is drawn, nothing is drawn outside."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import ImageFont
from test_script_runs import NAMES

from bot.pictures.glyphs import rasterised, shaped
from bot.pictures.text import Block, clusters_of, runs_of, set_text

WORDS = sorted({word for name in NAMES.values() for word in name.split()})
names = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join)


def ink(block: Block) -> int:
    return int(np.asarray(block.mask, np.int64).sum())


def free_ink(line: str, size_px: int) -> int:
    """The ink of a line on a sheet with room on every side."""
    placed, pen = [], 400.0
    for run in runs_of(clusters_of(line)):
        one = shaped(run, bold=True)
        placed.append((one, pen, 400.0))
        pen += one.advance * size_px
    return int(rasterised(placed, size_px, 4000, 800).astype(np.int64).sum())


@settings(max_examples=200)
@given(
    text=st.one_of(names, st.text(max_size=80)),
    width_px=st.integers(12, 900),
    height_px=st.integers(8, 200),
    size_px=st.integers(8, 90),
    lines=st.integers(1, 2),
    bold=st.booleans(),
)
@example(text="", width_px=100, height_px=50, size_px=20, lines=1, bold=False)
@example(text="W" * 300, width_px=40, height_px=20, size_px=20, lines=2, bold=True)
def test_text_never_leaves_its_box(
    text: str, width_px: int, height_px: int, size_px: int, lines: int, bold: bool
) -> None:
    """Mask, size and number of lines stay within what was asked for."""
    low = max(6, size_px // 2)
    block = set_text(
        text,
        width_px=width_px,
        height_px=height_px,
        size_px=max(size_px, low),
        min_size_px=low,
        lines=lines,
        bold=bold,
    )
    assert 1 <= block.height_px <= height_px
    assert low <= block.size_px <= max(size_px, low)
    assert 1 <= len(block.lines) <= lines
    assert 0 <= block.width_px <= width_px


@settings(max_examples=120)
@given(text=names, size_px=st.integers(14, 80), lines=st.integers(1, 2))
def test_no_stroke_is_cut_off(text: str, size_px: int, lines: int) -> None:
    """A line has the same ink in its box as on a sheet with room on every side."""
    box = {"width_px": 700, "height_px": 190, "size_px": size_px, "min_size_px": 12}
    block = set_text(text, lines=lines, bold=True, **box)
    assert sum(line.endswith("…") for line in block.lines) <= 1
    alone = [free_ink(line, block.size_px) for line in block.lines]
    # A line on its own may start with another direction and so join its parts elsewhere.
    assert ink(block) == pytest.approx(sum(alone), rel=0.01)


@pytest.mark.parametrize("text", ["jjj", "ƒƒ", "Grace", "محمد", "ព្រះ", "అల్లు", "စုကြည်", "Ợ̂ệ"])
def test_strokes_reaching_far_are_kept(text: str) -> None:
    """Left of the pen, high above and deep below the line: all of the ink is there."""
    block = set_text(text, width_px=600, height_px=190, size_px=70, min_size_px=70, bold=True)
    assert ink(block) == pytest.approx(free_ink(text, 70), rel=0.001)


@pytest.mark.parametrize("script", NAMES)
def test_a_name_fits_a_card_whole(script: str) -> None:
    """Names of every script are set without an ellipsis and leave ink."""
    name = NAMES[script]
    block = set_text(
        name, width_px=640, height_px=176, size_px=72, min_size_px=38, lines=2, bold=True
    )
    assert "".join(block.lines).replace(" ", "") == name.replace(" ", "")
    assert ink(block) > 100 * block.size_px
    margins = np.asarray(block.mask)[[0, -1]]
    assert not margins.any() or block.height_px < 176


@pytest.mark.parametrize("text", ["jjj", "ƒƒ", "Grace", "אבג", "李龍", "김연아", "ლალი"])
def test_a_run_has_the_ink_that_freetype_draws(text: str) -> None:
    """Pillow's rasteriser covers the same area, strokes left of the pen included."""
    block = set_text(text, width_px=600, height_px=190, size_px=70, min_size_px=70)
    (run,) = runs_of(clusters_of(text))
    path = run.typeface.file(bold=False)
    assert path is not None
    font = ImageFont.truetype(path, 70, run.typeface.index, layout_engine=ImageFont.Layout.BASIC)
    font.set_variation_by_axes([400])
    assert ink(block) == pytest.approx(sum(font.getmask(text)), rel=0.04)


def test_ink_is_no_empty_rectangle() -> None:
    """Letters of a script differ from each other, as the glyphs of a missing font do not."""
    for text in ("김연", "李小", "అల", "ലൻ", "ሩነ", "שא", "ລສ"):
        first, second = (
            set_text(letter, width_px=90, height_px=90, size_px=50, min_size_px=50)
            for letter in text
        )
        assert ink(first) != ink(second)


def test_room_is_used() -> None:
    """A short name keeps its size; a longer one takes two lines before it becomes small."""
    box = {"width_px": 600, "height_px": 176, "size_px": 72, "min_size_px": 30, "bold": True}
    short = set_text("Grace Hopper", lines=2, **box)
    assert (short.size_px, short.lines) == (72, ("Grace Hopper",))
    long = set_text("Grace Brewster Murray Hopper", lines=2, **box)
    assert long.lines == ("Grace Brewster", "Murray Hopper")
    assert long.size_px > set_text("Grace Brewster Murray Hopper", lines=1, **box).size_px


def test_what_is_too_long_ends_with_an_ellipsis() -> None:
    """As many words as fit, then three dots."""
    text = "Grace " * 40
    block = set_text(text, width_px=300, height_px=80, size_px=40, min_size_px=28, lines=2)
    assert block.size_px == 28
    assert block.lines[-1].endswith("…")
    assert text.startswith(block.lines[0])
    assert block.width_px > 200


def test_hebrew_ellipsis_stands_on_the_left() -> None:
    """What is cut from a right-to-left name is cut where it ends: on the left."""
    block = set_text("גל גדות " * 20, width_px=200, height_px=60, size_px=30, min_size_px=30)
    assert block.lines[0].endswith("…")
    columns = np.asarray(block.mask).max(axis=0) > 0
    rows = np.asarray(block.mask)[:, np.flatnonzero(columns)[0] : 20].max(axis=1) > 0
    low = np.flatnonzero(rows)
    assert low.min() > block.baseline_px - 8  # dots lie on the baseline, letters rise above it


def test_text_without_glyphs_is_blank() -> None:
    """What can't be drawn takes no ink and breaks nothing."""
    block = set_text("\u200b\x07", width_px=90, height_px=50, size_px=30, min_size_px=20)
    assert ink(block) == 0


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("ᏣᎳᎩ ᎦᏬᏂ", "Tsalagi Gawoni"),  # Cherokee
        ("ꦗꦮ", "Jawa"),  # Javanese
        ("Ada ᏣᎳᎩ", "Ada Tsalagi"),
        ("\ue000", "U+E000"),  # private, as what Unicode does not know yet
        ("\U0001d4d0\U0001d4f5\U0001d4f2\U0001d4ec\U0001d4ee", "Alice"),  # mathematical script
    ],
)
def test_a_name_without_any_font_is_spelled(name: str, spelled: str) -> None:
    """Nobody's name is empty because no installed font has its script."""
    block = set_text(name, width_px=900, height_px=50, size_px=30)
    assert block.lines == (spelled,)


def test_threads_set_the_same_text() -> None:
    """Fonts are shared; what is drawn does not depend on who draws beside."""

    def drawn(name: str) -> bytes:
        block = set_text(
            name, width_px=500, height_px=150, size_px=66, min_size_px=20, lines=2, bold=True
        )
        return block.mask.tobytes()

    jobs = list(NAMES.values()) * 4
    alone = [drawn(name) for name in jobs]
    set_text.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(drawn, jobs)) == alone
