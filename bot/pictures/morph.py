"""A short film in which one face becomes another and itself again: MP4 (H.264), or GIF.

At every moment both faces are bent to the shape on the way from one to the other and dissolve into
each other (Wolberg, "Image morphing: a survey", The Visual Computer 14, 1998). Name, score and
credit appear with the celebrity. The film ends where it begins, so that it loops. It is encoded
in memory, as GIF where PyAV is missing.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bot.pictures import framing
from bot.pictures.card import CardEntry, Fit, Style, Words
from bot.pictures.framing import FaceInPhoto, Pixels
from bot.pictures.sheet import Sheet
from bot.pictures.split import between, is_grey, skin_tone, toned
from bot.values import Animation

_Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of film; both sides are even."""

    media_type: str
    suffix: str
    width_px: int
    height_px: int
    per_second: int


MP4 = Format("video/mp4", ".mp4", 480, 600, 25)
GIF = Format("image/gif", ".gif", 320, 400, 10)

_FIRST_S, _WAY_S, _LAST_S, _BACK_S = 0.4, 0.8, 1.1, 0.5
"""How long the first face is seen, the way lasts, the second is seen, and the way back."""
_MOST_ASIDE = 0.08  # of the frame's width: how far a head stands aside
_MOST_BEND = 0.5  # of the distance between the eyes; faces on the way are no likeness of anybody
_EQUALISED = 0.6  # how much of the other's light a face takes on where it gives way
_NEARER = 0.35  # how much of the photo's light the portrait has even at the end
_BAND = 0.3  # of the frame's height, for the words
_BAND_DARK, _DARK = 0.82, (12, 12, 12)  # how dark the band becomes, and its colour
_WORDS_FROM = 0.55  # share of the way from which the words appear

_ENCODER: Final = "libx264"
_MP4_OPTIONS = {"preset": "veryfast", "crf": "23", "profile": "high"}
# The index stands before the pictures, so that a film plays while it is loaded; FFmpeg can't move
# it there in memory, but keeps room for it (movenc's option moov_size). It takes about 1,000 bytes
# and 30 per frame.
_INDEX_BYTES = 4_000
_INDEX_BYTES_PER_FRAME = 40
_COLOURS_FROM = 6  # frames that the palette of a GIF is taken from


def make_morph(
    first: FaceInPhoto, second: CardEntry, *, alt: str, kind: Format | None = None
) -> Animation:
    """The film from the sender to the celebrity, whose words stand on the last frame.

    It takes some tenths of a second: not for the event loop. It is an MP4 where PyAV is installed.
    """
    kind = kind or (MP4 if encodes_mp4() else GIF)
    count = round(_WAY_S * kind.per_second)
    back = max(2, round(_BACK_S * kind.per_second))
    order = [0] * round(_FIRST_S * kind.per_second)
    order += range(1, count)
    order += [count] * round(_LAST_S * kind.per_second)
    order += [round(count * (1 - step / back)) for step in range(1, back)]
    morph = _Morph(first, second, kind)
    # Slow at both ends (smootherstep, Perlin, "Improving noise", SIGGRAPH 2002).
    frames = [morph.frame(x**3 * (x * (6 * x - 15) + 10)) for x in np.linspace(0, 1, count + 1)]
    encode = encode_mp4 if kind.media_type == MP4.media_type else encode_gif
    content, name = encode(frames, order, kind.per_second), f"lookalike{kind.suffix}"
    size, duration_s = (kind.width_px, kind.height_px), len(order) / kind.per_second
    return Animation(content, kind.media_type, name, *size, duration_s, alt)


class _Morph:
    """Two faces in one frame, and the way between them."""

    def __init__(self, first: FaceInPhoto, second: CardEntry, kind: Format) -> None:
        self._size = (kind.width_px, kind.height_px)
        other = framing.turned_alike(first, second.face)
        frames, self._placed = framing.shared_frames((first, other), *self._size, _MOST_ASIDE), []
        for (pixels, landmarks), frame in zip((first, other), frames, strict=True):
            matrix = framing.eyes_level(landmarks, frame)
            placed = framing.warp(pixels, matrix, self._size)
            self._placed.append((placed, framing.through(matrix, landmarks)))
        self._apart_px = frames[0].eyes_apart_px
        (left, _), (right, _) = self._placed
        mine, theirs = (skin_tone(*face) for face in self._placed)
        if not is_grey(mine) and not is_grey(theirs):
            # A portrait much darker than the photo is brought nearer.
            nearer = between(theirs, mine, _NEARER)
            right, theirs = toned(right, theirs, nearer), nearer
        self._faces = (left, right)
        # What each looks like in the light of the other, where it has nearly given way.
        self._relit = (
            toned(left, mine, between(mine, theirs, _EQUALISED)),
            toned(right, theirs, between(theirs, mine, _EQUALISED)),
        )
        self._ink, self._cover = _words_band(second, self._size)

    def frame(self, share: float) -> Pixels:
        """The frame at that share of the way: 0 is the first face, 1 the second with its words."""
        target = (1 - share) * self._placed[0][1] + share * self._placed[1][1]
        parts = []
        for at, along in ((0, share), (1, 1 - share)):
            face = self._faces[at]
            if along > 0:
                lit = cv2.addWeighted(face, 1 - along, self._relit[at], along, 0)
                points = self._placed[at][1]
                maps = framing.bend(points, target, self._size, self._apart_px, _MOST_BEND)
                bent = cv2.remap(lit, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                face = np.asarray(bent, np.uint8)
            parts.append(face)
        dissolved = share * share * (3 - 2 * share)
        picture = cv2.addWeighted(parts[0], 1 - dissolved, parts[1], dissolved, 0)
        strength = float(np.clip((share - _WORDS_FROM) / (1 - _WORDS_FROM), 0, 1))
        frame = np.array(picture, np.uint8)
        if strength > 0:
            cover = strength * self._cover
            part = frame[-len(cover) :]
            part[:] = np.round(part * (1 - cover) + self._ink * cover).astype(np.uint8)
        return frame


def _words_band(entry: CardEntry, size_px: tuple[int, int]) -> tuple[_Floats, _Floats]:
    """Name, score, bar and credit on a band that darkens towards the frame's lower edge.

    Returns colours (H, W, 3) from 0 to 255, and how much they cover (H, W, 1) from 0 to 1.
    """
    width, height = size_px
    band = height - round((1 - _BAND) * height)
    ramp = 255 * _BAND_DARK * np.clip(np.arange(band) / (0.45 * band), 0, 1)
    cover = np.repeat(ramp[:, None], width, axis=1).astype(np.uint8)
    paper = np.tile(np.array(_DARK, np.uint8), (band, width, 1))
    unit, pad = width / 480, round(width / 24)

    def px(length: int) -> int:
        return round(length * unit)

    style = Style(
        name=Fit(px(36), px(20), px(76)),
        word=None,
        credit=Fit(px(17), max(9, px(12)), px(51)),
        bar=(max(6, px(10)), px(4), px(6)),
        score=px(52),
    )
    words = Words(entry, width - 2 * pad, style)
    sheet = Sheet(width)
    words.draw(sheet, pad, band - px(10) - words.height_px)
    sheet.draw_on(paper, cover)
    return paper.astype(np.float32), np.asarray(cover[..., None] / 255, np.float32)


def encodes_mp4() -> bool:
    """Whether PyAV is installed, with the encoder; the first call imports it."""
    try:
        import av
    except ImportError:
        return False
    return _ENCODER in av.codecs_available


def encode_mp4(frames: Sequence[Pixels], order: Sequence[int], per_second: int) -> bytes:
    """An MP4 that every platform plays: H.264 with yuv420p, its index at the front, no sound.

    Frames are uint8 (H, W, 3), RGB, of one size with even sides; ``order`` says which is shown
    when.
    """
    import av

    file = io.BytesIO()
    room = _INDEX_BYTES + _INDEX_BYTES_PER_FRAME * len(order)
    with av.open(file, "w", format="mp4", options={"moov_size": str(room)}) as container:
        stream: Any = container.add_stream(_ENCODER, rate=per_second, options=_MP4_OPTIONS)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # the other cores answer photos meanwhile
        for at in order:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frames[at], format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def encode_gif(frames: Sequence[Pixels], order: Sequence[int], per_second: int) -> bytes:
    """A GIF that loops for ever; see ``encode_mp4``.

    It counts in hundredths of a second, so 10, 20 or 25 frames per second are exact.
    """
    some = np.linspace(0, len(frames) - 1, min(_COLOURS_FROM, len(frames))).round().astype(int)
    several = Image.fromarray(np.concatenate([frames[at] for at in some]))
    palette = several.quantize(255, Image.Quantize.MEDIANCUT)
    reduced = {
        at: Image.fromarray(frames[at]).quantize(palette=palette, dither=Image.Dither.NONE)
        for at in set(order)
    }
    # Hundredths of a second at which each run of the same frame begins, and the end.
    starts = [at for at in range(len(order)) if at == 0 or order[at] != order[at - 1]]
    times = [round(100 * at / per_second) for at in (*starts, len(order))]
    file = io.BytesIO()
    first, *rest = (reduced[order[at]] for at in starts)
    lasts = [10 * (end - start) for start, end in pairwise(times)]  # ms
    options = {"append_images": rest, "duration": lasts, "loop": 0, "optimize": False}
    first.save(file, "GIF", save_all=True, **options)
    return file.getvalue()
