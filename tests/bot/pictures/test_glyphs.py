"""Runs as glyphs: every one real, joined and ordered as the script asks, in its place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont, features
from test_script_runs import NAMES

from bot.pictures.glyphs import LATIN, rasterised, shaped
from bot.pictures.text import Run, cleaned, clusters_of, runs_of


def glyphs_of(text: str) -> list[int]:
    runs = runs_of(clusters_of(cleaned(text)))
    return [glyph[0] for run in runs for glyph in shaped(run, bold=True).glyphs]


@pytest.mark.parametrize("script", NAMES)
def test_names_have_no_empty_rectangle(script: str) -> None:
    """No glyph of a name is number 0, which fonts draw for what they lack."""
    numbers = glyphs_of(NAMES[script])
    assert numbers
    assert all(numbers)


@settings(max_examples=300)
@example("\N{ARABIC MATHEMATICAL ALEF}")  # which one typeface has, and not in bold
@given(st.text(max_size=40))
def test_no_text_has_an_empty_rectangle(text: str) -> None:
    """Nor of anything else that is sent."""
    assert all(glyphs_of(text))


def test_arabic_letters_are_joined() -> None:
    """A letter has another glyph within a word than alone."""
    alone = [glyphs_of(letter)[0] for letter in "محمد"]
    assert glyphs_of("محمد") != alone[::-1]


def test_devanagari_vowel_stands_before_its_consonant() -> None:
    """The short i is written after its consonant and drawn before it."""
    (run,) = runs_of(clusters_of("कि"))
    first, second = shaped(run, bold=False).glyphs
    (ka,) = glyphs_of("क")
    assert second[0] == ka
    assert first[1] < second[1]


def test_brackets_are_mirrored_from_right_to_left() -> None:
    """An opening bracket that is read from the right opens towards the left."""
    (closing,) = shaped(Run(")", LATIN, 0), bold=False).glyphs
    (opening,) = shaped(Run("(", LATIN, 1), bold=False).glyphs
    assert opening[0] == closing[0]


@pytest.mark.skipif(not features.check_feature("raqm"), reason="Pillow finds no FriBidi here")
@pytest.mark.parametrize(
    "script", sorted(set(NAMES) - {"Mixed", "Emoji", "Japanese", "Chinese", "Korean"})
)
def test_lines_equal_those_of_another_shaper(script: str) -> None:
    """Raqm, which orders and shapes by itself, draws the same picture."""
    name = cleaned(NAMES[script])
    runs = runs_of(clusters_of(name))
    if len({run.typeface for run in runs}) > 1:
        pytest.skip("Raqm draws with one font")
    size, width, height = 80, 1600, 240
    placed, pen = [], 100.0
    for run in runs:
        one = shaped(run, bold=False)
        placed.append((one, pen, 140.0))
        pen += one.advance * size
    ours = rasterised(placed, size, width, height).astype(int)
    path = runs[0].typeface.file(bold=False)
    assert path is not None
    font = ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.RAQM)
    font.set_variation_by_axes([400])
    image = Image.new("L", (width, height))
    ImageDraw.Draw(image).text((100, 140), name, fill=255, font=font, anchor="ls")
    theirs = np.asarray(image, int)
    # Theirs is hinted, which moves letters by fractions of a pixel: compare the words' shadows.
    shadows = [np.cumsum(picture.sum(axis=0)) / picture.sum() for picture in (ours, theirs)]
    assert np.abs(shadows[0] - shadows[1]).max() < 0.02


def test_pixels_lie_where_the_pen_stands() -> None:
    """A full stop sits on the baseline, right of the pen."""
    dot = shaped(Run(".", LATIN, 0), bold=True)
    rows, columns = np.nonzero(rasterised([(dot, 30.0, 60.0)], 80, 100, 100))
    assert rows.max() in {59, 60, 61}
    assert columns.min() > 30
    assert rows.min() > 40
    assert columns.max() < 60


def test_what_reaches_beyond_the_picture_is_cut() -> None:
    """A picture has the size that was asked for, whatever is drawn."""
    word = shaped(Run("Wide", LATIN, 0), bold=True)
    picture = rasterised([(word, -40.0, 10.0)], 200, 33, 21)
    assert picture.shape == (21, 33)
    assert picture.any()
