"""Which font has a glyph for what."""

from __future__ import annotations

import subprocess
import sys

import pytest
from fontTools.ttLib import TTFont

from bot.pictures import glyphs
from bot.pictures.glyphs import (
    LATIN,
    Typeface,
    candidates,
    covers,
    han_typeface,
    opened,
    rasterised,
    shaped,
)
from bot.pictures.text import Run

CHARACTERS = {
    "Arabic": "ش",
    "Armenian": "Խ",
    "Bengali": "ক",
    "Cyrillic": "Ж",
    "Devanagari": "अ",
    "Emoji": "😀",
    "Ethiopic": "ነ",
    "Georgian": "შ",
    "Greek": "Ω",
    "Gujarati": "ક",
    "Gurmukhi": "ਦ",
    "Han": "龍",
    "Hangul": "김",
    "Hebrew": "ש",
    "Hiragana": "あ",
    "Kannada": "ಕ",
    "Khmer": "ក",
    "Lao": "ຄ",
    "Malayalam": "മ",
    "Myanmar": "က",
    "Sinhala": "ස",
    "Tamil": "ர",
    "Telugu": "అ",
    "Thai": "ล",
    "Tifinagh": "ⵣ",
    "Vietnamese": "ễ",
}


def best_for(character: str) -> Typeface:
    return next(face for face in candidates(character) if covers(face, character))


def characters_of(typeface: Typeface) -> set[int]:
    path = typeface.file(bold=False)
    assert path is not None
    with TTFont(path, fontNumber=typeface.index, lazy=True) as font:
        return set(font.getBestCmap())


@pytest.mark.parametrize("script", CHARACTERS)
def test_every_script_has_a_font(script: str) -> None:
    """The font that is chosen maps the character to a glyph of its own."""
    best = best_for(CHARACTERS[script])
    assert ord(CHARACTERS[script]) in characters_of(best)


def test_fonts_of_the_collection_cover_the_same() -> None:
    """Whatever country's shapes are chosen, no character is lost."""
    first, *others = (
        characters_of(face) for face in (glyphs._JP, glyphs._KR, glyphs._SC, glyphs._TC)
    )
    assert len(first) > 40_000
    assert all(other == first for other in others)


@pytest.mark.parametrize("script", CHARACTERS)
def test_coverage_is_what_the_file_says(script: str) -> None:
    """Characters around one of the script are covered as fontTools reads the file's map."""
    typeface = best_for(CHARACTERS[script])
    there = characters_of(typeface)
    block = ord(CHARACTERS[script]) & ~0x7F
    for code in range(block, block + 0x80):
        assert covers(typeface, chr(code)) == (code in there)


def test_uncovered_characters_have_no_font() -> None:
    """A script without an installed font is said to have none."""
    cuneiform = "\U00012000"
    assert not any(covers(face, cuneiform) for face in candidates(cuneiform))
    assert not covers(LATIN, "龍")
    assert not covers(Typeface("no_such_package", "None.ttf"), "a")


def test_missing_package_is_an_error_on_opening() -> None:
    with pytest.raises(OSError, match=r"None\.ttf"):
        opened(Typeface("no_such_package", "None.ttf"), bold=False)


@pytest.mark.parametrize(
    ("text", "country"),
    [
        ("小島秀夫さん", "JP"),
        ("김연아", "KR"),
        ("李小龙", "SC"),
        ("李小龍", "TC"),
        ("黒澤明", "JP"),
    ],
)
def test_han_is_drawn_as_its_country_writes_it(text: str, country: str) -> None:
    """Each country's shapes come from its own font of the collection."""
    path, index = han_typeface(text).file(bold=False), han_typeface(text).index
    assert path is not None
    with TTFont(path, fontNumber=index, lazy=True) as font:
        assert font["name"].getDebugName(1).endswith(country)


def test_bold_is_heavier_than_regular() -> None:
    """The variable fonts are set to their weights."""
    for character in CHARACTERS.values():
        typeface = best_for(character)
        if typeface.package == "matplotlib":
            continue
        run = Run(character, typeface, 0)
        regular, heavy = (
            int(rasterised([(shaped(run, bold=bold), 20.0, 90.0)], 60, 140, 140).sum())
            for bold in (False, True)
        )
        assert heavy > 1.05 * regular, character


def test_a_latin_name_opens_one_font() -> None:
    """A Latin name does not pay for the other scripts."""
    script = (
        "import sys; from bot.pictures.text import set_text;"
        "set_text('Zoë Grace Hopper, 57/100', width_px=900, height_px=90, size_px=60,"
        " min_size_px=20); from bot.pictures import glyphs;"
        " assert glyphs.opened.cache_info().currsize == 1;"
        "assert not {'fontTools', 'matplotlib', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
