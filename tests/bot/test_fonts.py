"""Which font has a glyph for what."""

from __future__ import annotations

import subprocess
import sys

import pytest
from fontTools.ttLib import TTFont

from bot import fonts
from bot.fonts import LATIN, Typeface, candidates, covers, han_typeface, opened

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


def test_ranges_taken_for_granted_have_no_hole() -> None:
    """What is said to be covered without looking is in the font's character map."""
    assert fonts._KNOWN
    for typeface, ranges in fonts._KNOWN.items():
        present = characters_of(typeface)
        missing = {code for low, high in ranges for code in range(low, high + 1)} - present
        assert not missing, typeface


def test_fonts_of_the_collection_cover_the_same() -> None:
    """The character map of the first stands for all."""
    first, *others = (characters_of(face) for face in (fonts._JP, fonts._KR, fonts._SC, fonts._TC))
    assert len(first) > 40_000
    assert all(other == first for other in others)


def test_uncovered_characters_have_no_font() -> None:
    """A script without an installed font is said to have none."""
    cuneiform = "\U00012000"
    assert not any(covers(face, cuneiform) for face in candidates(cuneiform))
    assert not covers(LATIN, "龍")
    assert not covers(Typeface("no_such_package", "None.ttf"), "a")


def test_missing_package_is_an_error_on_opening() -> None:
    with pytest.raises(OSError, match=r"None\.ttf"):
        opened(Typeface("no_such_package", "None.ttf"), 20, bold=False)


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
    with fonts.FONT_LOCK:
        family, _ = opened(han_typeface(text), 20, bold=False).getname()
    assert family is not None
    assert family.endswith(country)


def test_bold_is_heavier_than_regular() -> None:
    """The variable fonts are set to their weights."""
    for character in CHARACTERS.values():
        typeface = best_for(character)
        if typeface.package == "matplotlib":
            continue
        with fonts.FONT_LOCK:
            ink = [
                sum(opened(typeface, 60, bold=bold).getmask(character)) for bold in (False, True)
            ]
        assert ink[1] > 1.05 * ink[0], character


def test_latin_name_reads_no_character_map() -> None:
    """A Latin name does not pay for the other scripts."""
    script = (
        "import sys; from bot.typesetting import set_text;"
        "set_text('Zoë Grace Hopper, 57/100', width_px=900, height_px=90, size_px=60,"
        " min_size_px=20); assert 'fontTools' not in sys.modules;"
        "assert 'matplotlib' not in sys.modules and 'cv2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
