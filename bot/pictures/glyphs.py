"""Fonts, and runs of text as glyphs and pixels, by HarfBuzz.

The fonts are Noto (SIL Open Font License 1.1) from the packages manimgx-fonts and
manimgx-fonts-cjk, and DejaVu Sans where matplotlib, which carries it, is installed. Files are
located without importing anything; each is mapped into memory at first use.

Pillow's own text is not used: its wheels join Arabic and order Indic letters only on machines that
have the system library FriBidi, which small servers lack.
"""

import threading
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import uharfbuzz
from numpy.typing import NDArray

_EM = 4096  # units of an opened font to the size of the text

_LOCK = threading.Lock()
"""Held while HarfBuzz works: an opened font keeps caches that are filled as it is used."""


@dataclass(frozen=True, slots=True)
class Typeface:
    """One font family in a file."""

    package: str  # import package whose folder holds the file
    regular: str  # file name of the regular weight, or of the variable font
    bold: str | None = None  # file name of the bold weight; None for a variable font
    index: int = 0  # number of the font in a collection

    def file(self, *, bold: bool) -> Path | None:
        """The file of that weight; None if its package is not installed."""
        folder = _folder(self.package)
        path = folder / (self.bold if bold and self.bold else self.regular) if folder else None
        return path if path and path.is_file() else None


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
    """The typefaces to be asked for a glyph (``covers``), best first; ``han`` is the CJK one."""
    script = unicodedata.name(character, "").split(" ", 1)[0]
    cjk = han or _SC
    own = cjk if script in _CJK_SCRIPTS else _BY_SCRIPT.get(script)
    others = (LATIN, EMOJI, _SYMBOLS, _DEJAVU, cjk)
    return (*((own,) if own else ()), *(face for face in others if face is not own))


@lru_cache(maxsize=4096)
def covers(typeface: Typeface, character: str) -> bool:
    """Whether the typeface is installed and has a glyph for the character, bold as well."""
    if typeface.file(bold=False) is None:
        return False
    weights = {False, typeface.bold is not None}
    return all(opened(typeface, bold=b).get_nominal_glyph(ord(character)) for b in weights)


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
    """The typeface in that weight, opened once, with 4,096 units to its size."""
    path = typeface.file(bold=bold)
    if path is None:
        raise OSError(f"the font {typeface.regular} is not installed")
    font = uharfbuzz.Font(uharfbuzz.Face(uharfbuzz.Blob.from_file_path(path), typeface.index))
    font.scale = (_EM, _EM)
    if typeface.bold is None:
        font.set_variations({"wght": 700.0 if bold else 400.0})
    return font


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring characters in the order of reading, of one typeface and one direction."""

    text: str
    typeface: Typeface  # has a glyph for each
    level: int  # of embedding; odd: written right to left


@dataclass(frozen=True, slots=True)
class ShapedRun:
    """A run as glyphs, whatever its size; lengths are sizes of the font."""

    run: Run
    bold: bool
    # From left to right: id in the font (0 would be the empty rectangle), and x and y (upwards)
    # from the start of the baseline
    glyphs: tuple[tuple[int, float, float], ...]
    advance: float  # where the next run starts
    left: float  # leftmost ink, at most 0
    right: float  # rightmost ink, at least 0
    ascent: float  # ink above the baseline
    descent: float  # ink below it


@lru_cache(maxsize=512)
def shaped(run: Run, *, bold: bool) -> ShapedRun:
    """The run as glyphs."""
    buffer = uharfbuzz.Buffer()
    buffer.add_str(run.text)
    buffer.guess_segment_properties()  # the script; the direction is known
    buffer.direction = "rtl" if run.level % 2 else "ltr"
    glyphs, pen, left, right, ascent, descent = [], 0, 0, 0, 0, 0
    with _LOCK:
        font = opened(run.typeface, bold=bold)
        uharfbuzz.shape(font, buffer)
        for info, place in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True):
            x, y = pen + place.x_offset, place.y_offset
            glyphs.append((info.codepoint, x / _EM, y / _EM))
            pen += place.x_advance
            extents = font.get_glyph_extents(info.codepoint)
            if extents is None or not extents.width:
                continue
            x, y = x + extents.x_bearing, y + extents.y_bearing
            left, right = min(left, x), max(right, x + extents.width)
            # Heights point down: they are negative.
            ascent, descent = max(ascent, y), max(descent, -(y + extents.height))
    sizes = (length / _EM for length in (pen, left, right, ascent, descent))
    return ShapedRun(run, bold, tuple(glyphs), *sizes)


def rasterised(
    placed: Iterable[tuple[ShapedRun, float, float]], size_px: int, width_px: int, height_px: int
) -> NDArray[np.uint8]:
    """Shaped runs as coverage: uint8 (height_px, width_px), 255 where ink covers all of a pixel.

    Each run comes with the place of its pen, x and y of the baseline, px; what reaches beyond the
    picture is cut.
    """
    scale = size_px / _EM
    with _LOCK:
        raster = uharfbuzz.RasterDraw()
        for run, pen_x, pen_y in placed:
            font = opened(run.run.typeface, bold=run.bold)
            for number, x, y in run.glyphs:
                origin = (pen_x + x * size_px, height_px - pen_y + y * size_px)
                raster.transform = (scale, 0, 0, scale, *origin)  # y points up
                raster.draw_glyph(font, number)
        raster.extents = uharfbuzz.RasterExtents(0, 0, width_px, height_px, 0)
        image = raster.render()
        rows = np.frombuffer(image.buffer, np.uint8).reshape(-1, image.extents.stride)
    return np.ascontiguousarray(rows[::-1, :width_px])
