"""Text of mixed scripts as runs, each with a font that has its glyphs."""

from __future__ import annotations

import unicodedata

import pytest
from fontTools.ttLib import TTFont
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bot.pictures.glyphs import LATIN, Typeface
from bot.pictures.text import cleaned, clusters_of, line_breaks, runs_of

NAMES = {
    "Arabic": "محمد صلاح حامد محروس غالي",
    "Armenian": "Արամ Խաչատրյան",
    "Bengali": "শাহরুখ খান",
    "Chinese": "李小龍",
    "Chinese, simplified": "周杰伦",
    "Cyrillic": "Владимир Высоцкий",
    "Devanagari": "अमिताभ बच्चन",
    "Emoji": "Lady Gaga 👩\u200d🎤❤️🇮🇹👍🏽",
    "Ethiopic": "ጥሩነሽ ዲባባ",
    "Georgian": "შოთა რუსთაველი",
    "Greek": "Στέφανος Τσιτσιπάς",
    "Gujarati": "મહાત્મા ગાંધી",
    "Gurmukhi": "ਦਿਲਜੀਤ ਦੋਸਾਂਝ",
    "Hebrew": "גל גדות",
    "Japanese": "小島秀夫・きゃりーぱみゅぱみゅ",
    "Kannada": "ಪುನೀತ್ ರಾಜ್\u200cಕುಮಾರ್",
    "Khmer": "ប៊ុន រ៉ានី ហ៊ុនសែន",
    "Korean": "김연아",
    "Lao": "ຄຳສີ",
    "Latin": "Zoë Saldaña-Perego",
    "Malayalam": "മോഹൻലാൽ",
    "Mixed": "李小龙 Bruce Lee (بروس لي)",
    "Myanmar": "အောင်ဆန်းစုကြည်",
    "Sinhala": "කුමාර් සංගක්කාර",
    "Tamil": "ரஜினிகாந்த்",
    "Telugu": "అల్లు అర్జున్",
    "Thai": "ลลิษา มโนบาล",
    "Vietnamese": "Nguyễn Phú Trọng",
}

_MAPS: dict[Typeface, frozenset[int]] = {}


def has_glyph(typeface: Typeface, character: str) -> bool:
    """Whether the font file itself maps the character, read without our own code."""
    if typeface not in _MAPS:
        path = typeface.file(bold=False)
        assert path is not None
        with TTFont(path, fontNumber=typeface.index, lazy=True) as font:
            _MAPS[typeface] = frozenset(font.getBestCmap())
    code = ord(character)
    drawn_as_nothing = code in {0x200C, 0x200D} or 0xFE00 <= code <= 0xFE0F
    return drawn_as_nothing or 0xE0020 <= code <= 0xE007F or code in _MAPS[typeface]


@pytest.mark.parametrize("script", NAMES)
def test_names_keep_every_character_and_have_glyphs(script: str) -> None:
    """Nothing of a name is left out, and no run has a character that its font lacks."""
    name = unicodedata.normalize("NFC", NAMES[script])
    runs = runs_of(clusters_of(cleaned(name)))
    assert sorted("".join(run.text for run in runs)) == sorted(name)
    assert all(has_glyph(run.typeface, char) for run in runs for char in run.text)


@settings(max_examples=300)
@given(st.text(max_size=40))
@example("e\u0301\u0301\u0301\u0301\u0301\u0301\u0301")
@example("\ud800\x00\u202eabc\u2066")
@example("\u0e33\u0301\U0001f1e6")
def test_no_run_has_a_character_its_font_lacks(text: str) -> None:
    """Whatever is sent, no empty rectangle is drawn."""
    for run in runs_of(clusters_of(cleaned(text))):
        assert run.text
        assert all(has_glyph(run.typeface, char) for char in run.text)


@settings(max_examples=300)
@given(st.text(max_size=60))
@example("e" + "\u0301" * 7)
def test_cleaned_text_is_one_line_and_stays_so(text: str) -> None:
    """No controls, no line ends, no piles of marks; cleaning twice changes nothing more."""
    clean = cleaned(text)
    assert clean == " ".join(clean.split())
    categories = [unicodedata.category(char) for char in clean]
    assert not {"Cc", "Cs", "Co", "Cn"} & set(categories)
    assert "Mn" * 5 not in "".join(categories)
    assert cleaned(clean) == clean


def test_directional_controls_are_dropped() -> None:
    """A name can't be made to look like another one."""
    assert cleaned("\u202eHopper\u202c\u2066 \u200eGrace\u2069") == "Hopper Grace"


def test_line_ends_become_spaces() -> None:
    assert cleaned(" Grace\r\nHopper\t\u2028Navy ") == "Grace Hopper Navy"


def test_a_latin_name_is_one_run() -> None:
    """Spaces, digits and signs do not split a run."""
    (run,) = runs_of(clusters_of("Grace M. Hopper, 57/100"))
    assert run.typeface is LATIN
    assert run.level == 0


def test_signs_stay_with_the_script_before_them() -> None:
    """The spaces of an Arabic name do not part it."""
    (run,) = runs_of(clusters_of("محمد صلاح"))
    assert run.level == 1


def test_joined_emoji_are_not_parted() -> None:
    """A profession, a flag and a skin tone are one cluster each."""
    clusters = [cluster for cluster, _ in clusters_of("👩\u200d🎤🇮🇹👍🏽")]
    assert clusters == ["👩\u200d🎤", "🇮🇹", "👍🏽"]


def test_conjuncts_are_not_parted_and_words_are() -> None:
    """A virama joins the next letter, not the next word."""
    clusters = [cluster for cluster, _ in clusters_of("बच्चन ರಾಜ್ ಕ")]
    assert "च्च" in clusters
    assert clusters.count(" ") == 2


def test_a_mark_without_a_glyph_is_left_out_alone() -> None:
    """The letter stays when only its decoration can't be drawn."""
    cuneiform_mark = "\U00011c92"  # Marchen, a combining mark no installed font has
    drawn = "".join(cluster for cluster, _ in clusters_of(f"a{cuneiform_mark}b"))
    assert drawn == "ab"


@pytest.mark.parametrize(
    ("text", "places"),
    [("Grace Hopper", [6]), ("Jean-Luc", [5]), ("李小龍", [1, 2]), ("Hopper", []), ("김연아", [])],
)
def test_lines_break_where_a_reader_expects(text: str, places: list[int]) -> None:
    assert list(line_breaks(clusters_of(text))) == places
