"""Which installed font has a glyph for a character, and the opened font.

The fonts are Noto (SIL Open Font License 1.1) from the packages manimgx-fonts and
manimgx-fonts-cjk, and DejaVu Sans, which matplotlib carries, as the last resort. Files are located
without importing anything; each is mapped into memory at first use.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

import uharfbuzz

__all__ = ["EM", "EMOJI", "LATIN", "Typeface", "candidates", "covers", "han_typeface", "opened"]

EM = 4096
"""Units of an opened font to the size of the text: positions and extents are in these."""


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
"""The same characters in each; the shapes of Han are those of one country."""

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


@cache
def _folder(package: str) -> Path | None:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)))
    return folder / "mpl-data" / "fonts" / "ttf" if package == "matplotlib" else folder


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


@lru_cache(maxsize=4096)
def covers(typeface: Typeface, character: str) -> bool:
    """Whether the typeface is installed and has a glyph for the character."""
    if typeface.file(bold=False) is None:
        return False
    return bool(opened(typeface, bold=False).get_nominal_glyph(ord(character)))


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


@cache
def opened(typeface: Typeface, *, bold: bool) -> uharfbuzz.Font:
    """The typeface in that weight, opened once, with ``EM`` units to its size.

    Raises:
        OSError: If the typeface is not installed.
    """
    path = typeface.file(bold=bold)
    if path is None:
        raise OSError(f"the font {typeface.regular} is not installed")
    font = uharfbuzz.Font(uharfbuzz.Face(uharfbuzz.Blob.from_file_path(path), typeface.index))
    font.scale = (EM, EM)
    if typeface.bold is None:
        font.set_variations({"wght": 700.0 if bold else 400.0})
    return font
