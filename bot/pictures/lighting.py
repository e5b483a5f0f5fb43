"""Two faces lit alike: colours, contrast and sharpness of one skin brought to those of another.

The transfer of means and deviations is that of Reinhard et al., "Color transfer between images",
IEEE CG&A 21 (2001), in CIE L*a*b*, measured on skin and held within limits, so that a face keeps
its own light.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Tone", "between", "is_grey", "skin_tone", "softened", "toned"]

Pixels = NDArray[np.uint8]

_REDUCED = 4  # px of the frame to one of the measurement
_GREY_CHROMA = 3.5  # of 128; a grey photo's skin has none, a pale face some 10
_STRETCH = (0.75, 1.35)  # of contrast; more shows grain and blocks
_COLOUR_STRETCH = (0.6, 1.6)
_SHARPER = 2.0
_BLUR_PER_PX = 0.35  # standard deviation of what enlarging by 1 more pixel looks like
_MOST_BLUR_PX = 3.0


@dataclass(frozen=True, slots=True)
class Tone:
    """What a skin looks like in a photo.

    Attributes:
        mean: Of L*, a*, b*, each on OpenCV's scale of 0 to 255.
        deviation: Of each.
    """

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


def skin_tone(frame: Pixels, shape: NDArray[np.float64], *, side: int = 0) -> Tone:
    """The tone of the cheeks, nose, upper lip and lower forehead.

    Args:
        frame: uint8 (H, W, 3), RGB.
        shape: The landmarks in it, (5, 2) or with the chin.
        side: -1 for the left half of the face alone, 1 for the right half, 0 for all of it.
    """
    small = cv2.resize(frame, None, fx=1 / _REDUCED, fy=1 / _REDUCED, interpolation=cv2.INTER_AREA)
    points = (shape + 0.5) / _REDUCED - 0.5
    mask = _skin(points, small.shape[:2], side)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)[mask > 0].astype(np.float64)
    if len(lab) < 8:  # the face lies outside the frame
        lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float64)
    # The quartiles' means: glasses, beards and highlights lie outside.
    low, high = np.percentile(lab[:, 0], (15, 90))
    kept = lab[(lab[:, 0] >= low) & (lab[:, 0] <= high)]
    mean, deviation = kept.mean(axis=0), kept.std(axis=0)
    return Tone(_three(mean), _three(deviation))


def _three(values: NDArray[np.float64]) -> tuple[float, float, float]:
    first, second, third = values
    return float(first), float(second), float(third)


def _skin(points: NDArray[np.float64], size: tuple[int, ...], side: int) -> Pixels:
    mask = np.zeros(size[:2], np.uint8)
    left, right, nose, *mouth = points[:5]
    eyes, lips = (left + right) / 2, (mouth[0] + mouth[1]) / 2
    apart = max(float(np.linalg.norm(right - left)), 1.0)
    middle = (eyes + lips) / 2
    axes = (round(0.78 * apart), round(0.95 * apart))
    cv2.ellipse(mask, _whole(middle), axes, 0, 0, 360, 255, -1)
    for eye in (left, right):
        cv2.ellipse(mask, _whole(eye), (round(0.33 * apart), round(0.24 * apart)), 0, 0, 360, 0, -1)
    lip = (round(0.42 * apart), round(0.17 * apart))
    cv2.ellipse(mask, _whole(lips), lip, 0, 0, 360, 0, -1)
    if side < 0:
        mask[:, max(0, round(nose[0])) :] = 0
    elif side > 0:
        mask[:, : max(0, round(nose[0]))] = 0
    return mask


def _whole(point: NDArray[np.float64]) -> tuple[int, int]:
    x, y = np.clip(np.round(point), -10_000, 10_000)
    return int(x), int(y)


def is_grey(tone: Tone) -> bool:
    """Whether a photo has no colours: black and white, or nearly."""
    return (
        float(np.hypot(tone.mean[1] - 128, tone.mean[2] - 128)) < _GREY_CHROMA
        and max(tone.deviation[1:]) < _GREY_CHROMA
    )


def between(one: Tone, other: Tone, share: float) -> Tone:
    """The tone on the way from one to the other; 0 is the first.

    Where one of them has no colour, nor has what lies between.
    """
    mean = [(1 - share) * a + share * b for a, b in zip(one.mean, other.mean, strict=True)]
    spread = [
        (1 - share) * a + share * b for a, b in zip(one.deviation, other.deviation, strict=True)
    ]
    if is_grey(one) or is_grey(other):
        mean[1:], spread[1:] = [128.0, 128.0], [0.0, 0.0]
    return Tone((mean[0], mean[1], mean[2]), (spread[0], spread[1], spread[2]))


def toned(frame: Pixels, tone: Tone, wanted: Tone) -> Pixels:
    """The picture with a skin of that tone brought to the wanted one.

    Args:
        frame: uint8 (H, W, 3), RGB.
        tone: Of its skin.
        wanted: What it becomes, as far as contrast can be stretched without harm.
    """
    levels = np.arange(256, dtype=np.float64)
    table = np.empty((1, 256, 3), np.uint8)
    for channel in range(3):
        limits = _COLOUR_STRETCH if channel else _STRETCH
        stretch = wanted.deviation[channel] / max(tone.deviation[channel], 1.0)
        stretch = 0.0 if channel and is_grey(wanted) else float(np.clip(stretch, *limits))
        if channel:
            mapped = wanted.mean[channel] + stretch * (levels - tone.mean[channel])
        else:
            mapped = _light_curve(levels, tone.mean[0], wanted.mean[0], stretch)
        table[0, :, channel] = np.clip(np.round(mapped), 0, 255)
    lab = cv2.LUT(cv2.cvtColor(frame, cv2.COLOR_RGB2LAB), table)
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.uint8)


def _light_curve(
    levels: NDArray[np.float64], mean: float, wanted: float, stretch: float
) -> NDArray[np.float64]:
    """Straight around the skin's light; bent towards black and white, which stay what they are."""
    mean, wanted = float(np.clip(mean, 30, 225)), float(np.clip(wanted, 30, 225))
    # A cubic Hermite through (0, 0), (mean, wanted) and (255, 255) with the slope in the middle.
    result = np.empty_like(levels)
    for start, end, low, high in ((0.0, mean, 0.0, wanted), (mean, 255.0, wanted, 255.0)):
        part = (levels >= start) & (levels <= end)
        run, rise = end - start, high - low
        secant = rise / run
        slope = min(stretch * min(1.0, wanted / mean if low == 0 else 1.0), 2.9 * secant)
        first, last = (secant, slope) if start == 0 else (slope, secant)
        t = (levels[part] - start) / run
        result[part] = (
            low * (2 * t**3 - 3 * t**2 + 1)
            + run * first * (t**3 - 2 * t**2 + t)
            + high * (-2 * t**3 + 3 * t**2)
            + run * last * (t**3 - t**2)
        )
    return result


def softened(frame: Pixels, scale: float, coarser: float) -> Pixels:
    """The picture no more than twice as sharp as the one beside it.

    Args:
        frame: uint8 (H, W, 3).
        scale: Pixels of the frame to one of its photo.
        coarser: How much larger the scale of the photo beside it is.
    """
    excess = scale * coarser / _SHARPER - max(scale, 1.0)
    if excess <= 0:
        return frame
    sigma = _BLUR_PER_PX * excess
    return np.asarray(cv2.GaussianBlur(frame, (0, 0), min(sigma, _MOST_BLUR_PX)), np.uint8)
