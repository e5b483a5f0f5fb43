"""Small films for tests, and what is in a film."""

from __future__ import annotations

import io
from dataclasses import dataclass

import av
import numpy as np
from numpy.typing import NDArray

from bot.pictures.morph import encode_mp4
from bot.values import Animation

__all__ = ["Seen", "seen", "small_film"]


@dataclass(frozen=True)
class Seen:
    """What a player makes of a film."""

    codec: str
    pixel_format: str
    per_second: float
    frames: tuple[NDArray[np.uint8], ...]
    has_sound: bool


def seen(content: bytes) -> Seen:
    """Decodes a whole film."""
    with av.open(io.BytesIO(content), "r") as film:
        stream = film.streams.video[0]
        rate = stream.average_rate
        assert rate is not None
        return Seen(
            codec=stream.codec_context.name,
            pixel_format=str(stream.codec_context.pix_fmt),
            per_second=float(rate),
            frames=tuple(
                np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                for frame in film.decode(stream)
            ),
            has_sound=bool(film.streams.audio),
        )


def small_film(grey: int = 90) -> Animation:
    """A square that moves to the right."""
    frames = []
    for step in range(6):
        frame = np.full((64, 96, 3), grey, np.uint8)
        frame[20:44, 8 * step : 8 * step + 24] = 220
        frames.append(frame)
    content = encode_mp4(frames, range(6), 10)
    return Animation(content, "video/mp4", "lookalike.mp4", 96, 64, 0.6, "a square that moves")
