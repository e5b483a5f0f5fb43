"""The picture of an answer: the sender's face and the celebrity's side by side, or joined as one.

Dark, so that it sits well in light and in dark chats; drawn at 1080 px and laid out so that name
and score can still be read at the 350 px of a phone.
"""

import logging
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field

import numpy as np
from numpy.typing import NDArray

from bot.pictures.framing import FaceInPhoto, Pixels, frame_face, shared_frames, with_chin
from bot.pictures.sheet import INK, MUTED, Sheet, draw_numbered, score_colour
from bot.pictures.split import split_face, suits
from bot.pictures.text import Block, set_text
from bot.text import shorten
from bot.values import Picture
from engine.engine import Engine
from engine.errors import PhotoProblem
from engine.types import Box, Face, Photo
from gallery.records import Match
from gallery.silhouette import LANDMARKS, draw_silhouette, is_silhouette

log = logging.getLogger(__name__)
_CAMERA = "\N{CAMERA} "  # before a credit, in place of the word "photo" in some language

_WIDTH = 1080
_MOST_ENTRIES = 10  # more would make a ribbon that nobody reads and platforms refuse
_GAP = 6
_HALF = (_WIDTH - _GAP) // 2
_PAD = 44
_BADGE, _RANK = 58, 60
_BAND = 640  # the highest that a photo with numbered faces is
_PAIR_PX, _SPLIT_PX = (640, 520), (960, 760)
"""Height of the faces: alone, and where a numbered photo or further matches share the card."""

_FAMILY_PAD, _FAMILY_BADGE = 40, 54
_PARENTS, _CHILD = 560, 340
_CHILD_BELOW = 150  # of the sender's picture, below the two panels: their faces stay free
_MIDDLE = 0.1  # of the disc's width: no face stands further aside in it
_COLUMN = _HALF - _FAMILY_PAD - _FAMILY_PAD // 2


@dataclass(frozen=True, slots=True, eq=False)
class CardEntry:
    """A match as the card shows it, in the words of the person who asked."""

    portrait: Pixels = field(repr=False)  # uint8 (H, W, 3), RGB
    # float32 (5, 2), portrait pixels, in the order of ``Face.landmarks``
    portrait_landmarks: NDArray[np.float32] = field(repr=False)
    name: str  # of the celebrity, in any script; may be empty
    score: float  # 0 to 100
    word: str  # what the score means; may be empty
    credit: str  # whose photo it is and under which licence; may be empty
    portrait_box: Box | None = None  # where the face is in the portrait, if that is known
    silhouette: bool = False  # whether it is no photo, so that no face can be made of it

    @property
    def face(self) -> FaceInPhoto:
        """The portrait, and the landmarks with the chin (6, 2)."""
        return self.portrait, with_chin(self.portrait_landmarks, self.portrait_box)


def entry_of(engine: Engine, match: Match, *, name: str, word: str, credit: str) -> CardEntry:
    """A match as the card shows it; decodes its portrait."""
    portrait, jpeg = match.portrait, match.thumbnail()
    said = (name, match.score, word, credit)
    pixels, sound = None, portrait.sound
    if sound and not is_silhouette(jpeg):
        try:
            pixels = engine.decode_portrait(jpeg).pixels
        except PhotoProblem:  # of the gallery's picture, not the sender's
            sound = False
    if not sound:
        log.error("a portrait is damaged: run `lookalike gallery verify --fix`")
    if pixels is None:
        pixels = engine.decode_portrait(draw_silhouette()).pixels
        return CardEntry(pixels, LANDMARKS, *said, silhouette=True)
    # The settings may make decoding reduce even a thumbnail.
    scale = pixels.shape[1] / portrait.width_px
    landmarks = (portrait.landmarks * scale).astype(np.float32)
    box = Box(*(side * scale for side in astuple(portrait.box)))
    return CardEntry(pixels, landmarks, *said, box)


@dataclass(frozen=True, slots=True)
class Fit:
    """How a text is set: its size, the least size, the height of its box (px), and lines."""

    size: int
    least: int
    height: int
    lines: int = 2

    def set(self, text: str, width: int, *, most: int = 1000, bold: bool = False) -> Block:
        """The text in a box of that width, in at most that size (px)."""
        box = {"width_px": width, "height_px": self.height}
        sizes = {"size_px": min(self.size, most), "min_size_px": self.least}
        return set_text(text, **box, **sizes, lines=self.lines, bold=bold)


@dataclass(frozen=True, slots=True)
class Style:
    """How a match is told; lengths are px."""

    name: Fit
    word: Fit | None  # what the score means; None leaves it out, and the score stands by the name
    credit: Fit  # below the bar
    bar: tuple[int, int, int]  # height of the bar, and what stands free above and below it
    score: int  # size of the score; 0: it stands elsewhere


_DIGITS = 0.74  # of their size: the height of digits

_CAPTION = Style(Fit(72, 38, 176), Fit(40, 28, 104), Fit(30, 28, 78), (22, 14, 18), 72)
_PARENT = Style(Fit(52, 30, 120), Fit(34, 26, 84), Fit(28, 26, 72), (18, 14, 14), 0)
_FEW = Style(Fit(46, 28, 62, 1), Fit(32, 26, 46, 1), Fit(27, 26, 38, 1), (16, 6, 8), 54)
_MANY = Style(Fit(36, 25, 66), None, Fit(26, 24, 36, 1), (12, 4, 8), 44)

_FEW_ROW, _MANY_ROW = (_FEW, 196, 30, 44), (_MANY, 158, 18, 24)
"""How a row is told; its height, what is free beside the portrait and at its end."""


def _score_block(score: float, size_px: int) -> Block:
    """A score as a whole number."""
    return Fit(size_px, size_px, 2 * size_px, 1).set(f"{score:.0f}", 3 * size_px, bold=True)


def _credit_block(credit: str, fit: Fit, width: int) -> Block:
    """Whose photo it is; the author is cut where both don't fit, the licence behind it never."""
    author, comma, licence = credit.rpartition(", ")

    def cut(chars: int) -> Block:
        return fit.set(_CAMERA + shorten(author, chars) + comma + licence, width)

    chars = range(1, len(author) + 1)
    return cut(max(1, bisect_left(chars, True, key=lambda n: cut(n).lines[-1].endswith("…"))))


class Words:
    """A name; what the score means, and the score; the bar; the credit.

    Where nothing is said of the score, it stands by the name. With the entry of the next column
    these share their sizes and baselines.
    """

    def __init__(
        self, entry: CardEntry, width: int, style: Style, beside: CardEntry | None = None
    ) -> None:
        both, fit = (entry, beside or entry), style.word if entry.word else None
        digits = _score_block(entry.score, style.score) if style.score else None
        room = width - (digits.width_px + style.score // 3 if digits else 0)
        wide, above = width if fit else room, round(_DIGITS * style.score)
        size = min(style.name.set(one.name, wide, bold=True).size_px for one in both)
        title, other = (style.name.set(one.name, wide, most=size, bold=True) for one in both)
        y = max(0, other.height_px - title.height_px, 0 if fit else above - title.baseline_px)
        self._blocks, baseline = [(title, 0, y, INK)], y + title.baseline_px
        y += title.height_px
        if fit:
            words = (one.word[:1].title() + one.word[1:] for one in both)
            said, other = (fit.set(word, room, most=size) for word in words)
            y += max(0, above - said.baseline_px)
            self._blocks.append((said, 0, y, INK))
            baseline = y + said.baseline_px
            y += max(said.height_px, other.height_px)
        if digits:
            at = width - digits.width_px, baseline - digits.baseline_px
            self._blocks.append((digits, *at, score_colour(entry.score)))
        bar, free, below = style.bar
        self._bar = (entry.score, y + free, width, bar)
        y += free + bar + below
        if entry.credit:
            credit = _credit_block(entry.credit, style.credit, width)
            self._blocks.append((credit, 0, y, MUTED))
            y += credit.height_px
        self.height_px = y

    def draw(self, sheet: Sheet, x: int, y: int) -> None:
        """Puts the words with their upper left corner there."""
        for block, left, top, colour in self._blocks:
            sheet.block(block, x + left, y + top, colour)
        score, top, *size_px = self._bar
        sheet.bar(score, x, y + top, *size_px)


def draw_card(
    photo: Photo,
    faces: Sequence[Face],
    entries: Sequence[CardEntry],
    *,
    answered: int = 0,
    split: bool = False,
) -> Picture:
    """The face with its best match; further matches below, each with its rank.

    With several faces in the photo it stands above, its faces numbered from 1. Split, the left half
    of the face is joined with the right half of the best match's, instead of both side by side;
    further matches that are turned too far aside for that, or lack a photo, show their portrait.
    ``answered`` counts from 0; its ``entries`` are at least one, best first; ten at most are drawn.
    """
    best, *others = entries[:_MOST_ENTRIES]
    face = _face(photo, faces[answered])
    sheet, several = Sheet(_WIDTH), len(faces) > 1
    top = _draw_several(sheet, photo, faces, answered)
    alone, shared = _SPLIT_PX if split else _PAIR_PX
    height = shared if others or several else alone
    if split:
        sheet.photo(split_face(face, best.face, (_WIDTH, height)), 0, top)
    else:
        _draw_pair(sheet, top, (face, best.face), height)
    if several:
        sheet.badge(answered + 1, 20, top + 20, _BADGE, selected=True)
    if others:
        sheet.rank(1, _WIDTH, top, _RANK)
    end = _draw_caption(sheet, top + height, best)
    if others:
        end = _draw_rows(sheet, end, others, face if split else None)
    return sheet.picture(end, _alt_text([best, *others]), top + height)


def can_split(photo: Photo, face: Face, entry: CardEntry) -> bool:
    """Whether the face and the entry's make one (``suits``); others are drawn side by side."""
    return not entry.silhouette and suits(_face(photo, face), entry.face)


def draw_comparison(
    first: tuple[Photo, Face], second: tuple[Photo, Face], score: float, word: str
) -> Picture:
    """Two senders' faces side by side, how alike they are (0 to 100) and what that means."""
    sheet, height = Sheet(_WIDTH), _PAIR_PX[0]
    _draw_pair(sheet, 0, (_face(*first), _face(*second)), height)
    end = _draw_caption(sheet, height, CardEntry(*_face(*second), word, score, "", ""))
    return sheet.picture(end, f"{score:.0f}, {word}", height)


def draw_family_card(
    photo: Photo,
    faces: Sequence[Face],
    parents: tuple[CardEntry, CardEntry],
    *,
    answered: int = 0,
    title: str,
) -> Picture:
    """The two most alike, the face between them; with several faces the numbered photo above.

    The parents are shown on the left and on the right; see ``draw_card``.
    """
    child = _face(photo, faces[answered])
    sheet, pad = Sheet(_WIDTH), _FAMILY_PAD
    top = _draw_several(sheet, photo, faces, answered)
    heading = Fit(46, 26, 80, 1).set(title, _WIDTH - 2 * pad, bold=True)
    sheet.block(heading, pad, top + 18, INK)
    top += heading.height_px + 36
    _draw_pair(sheet, top, (parents[0].face, parents[1].face), _PARENTS)
    below = top + _PARENTS
    x, y = (_WIDTH - _CHILD) // 2, below + _CHILD_BELOW - _CHILD
    (frame,) = shared_frames([child], _CHILD, _CHILD, most_aside=_MIDDLE)
    sheet.medallion(frame_face(*child, frame), x, y)
    if len(faces) > 1:
        y = below + _CHILD_BELOW - _FAMILY_BADGE
        sheet.badge(answered + 1, x, y, _FAMILY_BADGE, selected=True)
    end = 0
    for parent, other, left in zip(
        parents, reversed(parents), (pad, _HALF + _GAP + pad // 2), strict=True
    ):
        digits = _score_block(parent.score, 92)
        x = left if left < _HALF else _WIDTH - pad - digits.width_px
        sheet.block(digits, x, below + 104 - digits.baseline_px, score_colour(parent.score))
        words = Words(parent, _COLUMN, _PARENT, other)
        words.draw(sheet, left, below + _CHILD_BELOW + 16)
        end = max(end, below + _CHILD_BELOW + 16 + words.height_px)
    return sheet.picture(end + 24, f"{title}. {_alt_text(parents)}")


def _face(photo: Photo, face: Face) -> FaceInPhoto:
    return photo.pixels, with_chin(face.landmarks, face.box)


def _draw_several(sheet: Sheet, photo: Photo, faces: Sequence[Face], answered: int) -> int:
    """Draws the photo with its faces numbered, if there are several; returns where it ends."""
    if len(faces) < 2:
        return 0
    return draw_numbered(sheet, photo, faces, highest_px=_BAND, selected=answered) + _GAP


def _alt_text(entries: Sequence[CardEntry]) -> str:
    return "; ".join(f"{entry.name}: {entry.score:.0f}, {entry.word}" for entry in entries)


def _draw_pair(
    sheet: Sheet, top: int, pair: tuple[FaceInPhoto, FaceInPhoto], height_px: int
) -> None:
    frames = shared_frames(pair, _HALF, height_px)
    for face, frame, x in zip(pair, frames, (0, _HALF + _GAP), strict=True):
        sheet.photo(frame_face(*face, frame), x, top)


def _draw_caption(sheet: Sheet, top: int, entry: CardEntry) -> int:
    """Name, word, score, bar and credit under a pair of faces; returns where they end."""
    words = Words(entry, _WIDTH - 2 * _PAD, _CAPTION)
    words.draw(sheet, _PAD, top + 20)
    return top + 20 + words.height_px + (22 if entry.credit else 24)


def _draw_rows(
    sheet: Sheet, top: int, entries: Sequence[CardEntry], child: FaceInPhoto | None
) -> int:
    """Draws the portraits, or the face ``child`` joined with each; returns where they end.

    Of more than three, two share a row; if they are odd, the first has one alone.
    """
    alone = len(entries) if len(entries) <= 3 else len(entries) % 2
    x, y = 0, top
    for at, entry in enumerate(entries):
        style, height, inset, margin = _FEW_ROW if at < alone else _MANY_ROW
        width = _WIDTH if at < alone else _HALF
        if child and not entry.silhouette and suits(child, entry.face):
            picture = split_face(child, entry.face, (height, height))
        else:
            picture = frame_face(*entry.face, *shared_frames([entry.face], height, height))
        sheet.photo(picture, x, y)
        sheet.rank(at + 2, x + height, y, round(0.24 * height))
        left = height + inset
        words = Words(entry, width - margin - left, style)
        words.draw(sheet, x + left, y + max(0, (height - words.height_px) // 2))
        x = (x + width + _GAP) % (_WIDTH + _GAP)
        y += 0 if x else height + _GAP
    return y - _GAP
