"""Frames into a short film without sound, in memory: MP4 (H.264), or GIF where PyAV is missing."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from av.video.stream import VideoStream

__all__ = ["MOST_EDGE_PX", "MOST_FRAMES", "encode_gif", "encode_mp4", "encodes_mp4"]

Pixels = NDArray[np.uint8]

MOST_FRAMES = 200
MOST_EDGE_PX = 1280
_ENCODER: Final = "libx264"
_MP4_OPTIONS = {"preset": "veryfast", "crf": "23", "profile": "high"}
# The index stands before the pictures, so that a film plays while it is loaded; FFmpeg can't move
# it there in memory, but keeps room for it (movenc's option moov_size). It takes about 1,000 bytes
# and 30 per frame.
_INDEX_BYTES = 4_000
_INDEX_BYTES_PER_FRAME = 40
_COLOURS_FROM = 6  # frames that the palette of a GIF is taken from


def encodes_mp4() -> bool:
    """Whether PyAV is installed, with the encoder; the first call imports it."""
    try:
        import av
    except ImportError:
        return False
    return _ENCODER in av.codecs_available


def encode_mp4(frames: Sequence[Pixels], order: Sequence[int], per_second: int) -> bytes:
    """An MP4 that every platform plays: H.264 with yuv420p, its index at the front, no sound.

    Args:
        frames: uint8 (H, W, 3), RGB, all of one size with even sides.
        order: Which frame is shown when; one may be shown several times.
        per_second: Frames.

    Returns:
        The file.

    Raises:
        ValueError: If sizes are odd or differ, or there are too many frames.
    """
    import av

    height, width = _checked(frames, order)
    if height % 2 or width % 2:
        raise ValueError("H.264 with yuv420p needs even sides")
    file = io.BytesIO()
    room = _INDEX_BYTES + _INDEX_BYTES_PER_FRAME * len(order)
    with av.open(file, "w", format="mp4", options={"moov_size": str(room)}) as container:
        stream: VideoStream = container.add_stream(_ENCODER, rate=per_second, options=_MP4_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.thread_count = 1  # the other cores answer photos meanwhile
        for at in order:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frames[at], format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def encode_gif(frames: Sequence[Pixels], order: Sequence[int], per_second: int) -> bytes:
    """A GIF that loops for ever.

    Args:
        frames: uint8 (H, W, 3), RGB, all of one size.
        order: Which frame is shown when; one may be shown several times.
        per_second: Frames; shown in hundredths of a second, so 20, 25 or 10 are exact.

    Returns:
        The file.

    Raises:
        ValueError: If sizes differ, or there are too many frames.
    """
    _checked(frames, order)
    some = np.linspace(0, len(frames) - 1, min(_COLOURS_FROM, len(frames))).round().astype(int)
    palette = Image.fromarray(np.concatenate([frames[at] for at in some])).quantize(
        255, Image.Quantize.MEDIANCUT
    )
    reduced = {
        at: Image.fromarray(frames[at]).quantize(palette=palette, dither=Image.Dither.NONE)
        for at in set(order)
    }
    shown: list[tuple[int, int]] = []  # frame, hundredths of a second
    for position, at in enumerate(order):
        lasts = round(100 * (position + 1) / per_second) - round(100 * position / per_second)
        if shown and shown[-1][0] == at:
            shown[-1] = (at, shown[-1][1] + lasts)
        else:
            shown.append((at, lasts))
    file = io.BytesIO()
    first, *rest = (reduced[at] for at, _ in shown)
    first.save(
        file,
        "GIF",
        save_all=True,
        append_images=rest,
        duration=[10 * lasts for _, lasts in shown],
        loop=0,
        optimize=False,
    )
    return file.getvalue()


def _checked(frames: Sequence[Pixels], order: Sequence[int]) -> tuple[int, int]:
    """Height and width of all frames."""
    sizes = {frame.shape for frame in frames}
    if len(sizes) != 1:
        raise ValueError("the frames of a film are of one size")
    ((height, width, _),) = sizes
    if max(height, width) > MOST_EDGE_PX or len(order) > MOST_FRAMES or not order:
        raise ValueError(f"a film of {len(order)} frames of {width} x {height} px is not made")
    return height, width
