"""Which installed font has a glyph for a character, and the font opened at a size.

The fonts are Noto (SIL Open Font License 1.1) from the packages manimgx-fonts and
manimgx-fonts-cjk, and DejaVu Sans, which matplotlib carries, as the last resort. Files are located
without importing anything; each is opened at first use. A Latin name opens one file.
"""

from __future__ import annotations

import threading
import unicodedata
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont, features

__all__ = [
    "EMOJI",
    "FONT_LOCK",
    "LATIN",
    "Typeface",
    "candidates",
    "covers",
    "han_typeface",
    "opened",
    "shapes_text",
]

FONT_LOCK = threading.RLock()
"""Held while an opened font is used: FreeType's faces are not safe in several threads."""


@dataclass(frozen=True, slots=True)
class Typeface:
    """One font family in a file.

    Attributes:
        package: Import package whose folder holds the file.
        regular: File name of the regular weight, or of the variable font.
        bold: File name of the bold weight; None for a variable font.
        index: Number of the font in a collection.
    """

    package: str
    regular: str
    bold: str | None = None
    index: int = 0

    def file(self, *, bold: bool) -> Path | None:
        """The file of that weight; None if its package is not installed."""
        folder = _folder(self.package)
        if folder is None:
            return None
        path = folder / (self.bold if bold and self.bold else self.regular)
        return path if path.is_file() else None


def _noto(script: str) -> Typeface:
    return Typeface("manimgx_fonts", f"Noto{script}[wght].ttf")


LATIN = _noto("Sans")
EMOJI = _noto("Emoji")
_SYMBOLS = _noto("SansSymbols")
_DEJAVU = Typeface("matplotlib", "DejaVuSans.ttf", "DejaVuSans-Bold.ttf")
_JP, _KR, _SC, _TC = (
    Typeface("manimgx_fonts_cjk", "NotoSansCJK-VF.otf.ttc", index=index) for index in range(4)
)
"""The same glyphs for all of Unicode's Han, each preferring the shapes of one country."""

# First word of a character's Unicode name -> its font.
_BY_SCRIPT = {
    name.upper(): _noto(f"Sans{name}")
    for name in (
        *("Arabic", "Armenian", "Bengali", "Devanagari", "Ethiopic", "Georgian", "Gujarati"),
        *("Gurmukhi", "Hebrew", "Kannada", "Khmer", "Lao", "Malayalam", "Myanmar", "Oriya"),
        *("Sinhala", "Tamil", "Telugu", "Thai"),
    )
}
_CJK_SCRIPTS = {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL", "BOPOMOFO"}
_CJK_SCRIPTS |= {"IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH"}

# Ranges without a hole, so that common names need no character map (a test reads the maps).
_CJK_RANGES = (
    *((0x20, 0x7E), (0x3041, 0x3096), (0x30A1, 0x30FE)),
    *((0x4E00, 0x9FEF), (0xAC00, 0xD7A3)),
)
_KNOWN: dict[Typeface, tuple[tuple[int, int], ...]] = {
    LATIN: ((0x20, 0x7E), (0xA0, 0x17F), (0x410, 0x44F), (0x2010, 0x2027)),
    **dict.fromkeys((_JP, _KR, _SC, _TC), _CJK_RANGES),
}


@cache
def _folder(package: str) -> Path | None:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)))
    return folder / "mpl-data" / "fonts" / "ttf" if package == "matplotlib" else folder


@cache
def shapes_text() -> bool:
    """Whether Pillow has Raqm, which joins Arabic and orders Indic letters; its wheels do."""
    return features.check_feature("raqm") is True


@cache
def _characters(path: Path) -> frozenset[int]:
    from fontTools.ttLib import TTFont

    # The fonts of the collection share one character map's extent: number 0 stands for all.
    with TTFont(path, fontNumber=0, lazy=True) as font:
        return frozenset(font.getBestCmap())


def covers(typeface: Typeface, character: str) -> bool:
    """Whether the typeface is installed and has a glyph for the character."""
    path = typeface.file(bold=False)
    if path is None:
        return False
    code = ord(character)
    if any(first <= code <= last for first, last in _KNOWN.get(typeface, ())):
        return True
    return code in _characters(path)


@lru_cache(maxsize=4096)
def candidates(character: str, han: Typeface | None = None) -> tuple[Typeface, ...]:
    """The typefaces to be asked for a glyph of the character (``covers``), best first.

    Args:
        character: One character.
        han: Which of the CJK typefaces to ask; see ``han_typeface``.
    """
    script = unicodedata.name(character, "").split(" ", 1)[0]
    cjk = han or _SC
    own = cjk if script in _CJK_SCRIPTS else _BY_SCRIPT.get(script)
    others = (LATIN, EMOJI, _SYMBOLS, _DEJAVU, cjk)
    return (*((own,) if own else ()), *(face for face in others if face is not own))


def han_typeface(text: str) -> Typeface:
    """The CJK typeface whose country writes like this text.

    Kana mean Japan, hangul Korea; otherwise the oldest national character set that holds all of
    the text decides: GB 2312 for mainland China, Big5 for Taiwan and Hong Kong, JIS for Japan.
    """
    if any("\u3041" <= char <= "\u30ff" for char in text):
        return _JP
    if any("\uac00" <= char <= "\ud7a3" for char in text):
        return _KR
    han = "".join(char for char in text if "\u3400" <= char <= "\U0003ffff")
    for encoding, typeface in (("gb2312", _SC), ("big5", _TC), ("shift_jis", _JP)):
        try:
            han.encode(encoding)
        except UnicodeEncodeError:
            continue
        return typeface
    return _SC


@lru_cache(maxsize=256)
def opened(typeface: Typeface, size_px: int, *, bold: bool) -> ImageFont.FreeTypeFont:
    """The typeface at a size, opened once; use it only while holding ``FONT_LOCK``.

    Raises:
        OSError: If the typeface is not installed.
    """
    path = typeface.file(bold=bold)
    if path is None:
        raise OSError(f"the font {typeface.regular} is not installed")
    engine = ImageFont.Layout.RAQM if shapes_text() else ImageFont.Layout.BASIC
    font = ImageFont.truetype(path, size_px, index=typeface.index, layout_engine=engine)
    if typeface.bold is None:
        font.set_variation_by_axes([700 if bold else 400])
    return font
