"""One face of two: the left half of one photo, the right half of another, as if it were one.

Both are bent to the shape between them (``framing``), lit alike and joined along the middle of the
face by a blend of pyramids (Burt & Adelson, "A multiresolution spline with application to image
mosaics", ACM TOG 2, 1983): light passes over softly, lines within a few pixels.

Colours, contrast and sharpness of one skin are brought to those of another by the transfer of
means and deviations of Reinhard et al., "Color transfer between images", IEEE CG&A 21 (2001), in
CIE L*a*b*, measured on skin and held within limits, so that a face keeps its own light.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from bot.pictures import framing
from bot.pictures.framing import FaceInPhoto, Pixels, Points
from engine.align import yaw_degrees

_MOST_TURNED = 38.0
_MOST_APART = 22.0
"""Degrees: further turned than that, and differing by more, no halves make one face: an ear shows
where the other half has none."""

_VIEWS = tuple(zip(np.linspace(0.18, 0.34, 9), np.linspace(0.43, 0.365, 9), strict=True))
"""Distance between the eyes and their height, of the geometric mean of the frame's sides and of
its height."""
_USUAL_PX = (1080, 960)
_FULL = 0.995
_FULL_ENOUGH = 0.97
"""Share of their halves that the photos fill in a view that is taken, and that they must fill in
the nearest."""

_MEETING = 0.35
"""How far the first face's tone comes towards the second's: the sender stays who they are, and the
portrait, which nobody here minds, comes the rest of the way."""

_FINE_ENOUGH, _LEAST_FINE, _NEARLY = 1.25, 0.5, 0.85
"""Pixels drawn for one of the finer photo; how much smaller than asked for that may be; and from
where on it saves nothing."""

_LEVELS = 5
_REACH = 1.12  # of 100 px of a frame 900 px high: how far light passes over the seam
_SEAM = 6  # px within which lines pass over

_REDUCED = 4  # px of the frame to one of the measurement
_GREY_CHROMA = 3.5  # of 128; a grey photo's skin has none, a pale face some 10
_STRETCHES = ((0.75, 1.35), (0.6, 1.6), (0.6, 1.6))  # of L*, a*, b*; more shows grain and blocks
_SHARPER = 2.0
_BLUR_PER_PX = 0.35  # standard deviation of what enlarging by 1 more pixel looks like
_MOST_BLUR_PX = 3.0

Tone = NDArray[np.float64]
"""What a skin looks like (2, 3): mean and deviation of L*, a*, b* on OpenCV's scale to 255."""


def suits(first: FaceInPhoto, second: FaceInPhoto) -> bool:
    """Whether two faces make one.

    Neither is turned far aside, both are about alike, and the photos reach far enough around them.
    """
    one, other = abs(yaw_degrees(first[1][:5])), abs(yaw_degrees(second[1][:5]))
    if max(one, other) > _MOST_TURNED or abs(one - other) > _MOST_APART:
        return False
    return _view(first, framing.turned_alike(first, second), _USUAL_PX)[2] >= _FULL_ENOUGH


def split_face(first: FaceInPhoto, second: FaceInPhoto, size_px: tuple[int, int]) -> Pixels:
    """The left half of the first face (the sender) and the right half of the second.

    Where they are turned to opposite sides, the second is shown as in a mirror. The result is uint8
    (height, width, 3).
    """
    second = framing.turned_alike(first, second)
    target, apart_px, _ = _view(first, second, size_px)
    finest = min(_scale(face, target) for face in (first, second))
    factor = float(np.clip(_FINE_ENOUGH / finest, _LEAST_FINE, 1))
    if factor > _NEARLY:
        return _drawn(first, second, target, apart_px, size_px)
    # Neither photo has so many pixels: drawn smaller it looks the same and takes half the time.
    width, height = (max(1, round(side * factor)) for side in size_px)
    scales = np.array([width / size_px[0], height / size_px[1]])
    target = (target + 0.5) * scales - 0.5
    small = _drawn(first, second, target, apart_px * scales[1], (width, height))
    return np.asarray(cv2.resize(small, size_px, interpolation=cv2.INTER_CUBIC), np.uint8)


def _drawn(
    first: FaceInPhoto,
    second: FaceInPhoto,
    target: Points,
    apart_px: float,
    size_px: tuple[int, int],
) -> Pixels:
    """The two halves with the common face at ``target``."""
    width, height = size_px
    seam = _seam(target, height)
    reach = max(_SEAM, round(_REACH * height / 9))
    start = int(np.clip(seam.min() - reach, 0, width - 1))
    end = int(np.clip(seam.max() + reach, start + 1, width))
    halves, tones, scales = [], [], []
    for face, at, part_px in ((first, 0, end), (second, start, width - start)):
        place = target - (at, 0)
        halves.append(framing.bent_face(*face, place, (part_px, height), apart_px))
        tones.append(skin_tone(halves[-1], place))
        scales.append(_scale(face, place))
    wanted = between(tones[0], tones[1], _MEETING)
    coarser = (scales[1] / scales[0], scales[0] / scales[1])
    toned_halves = (toned(half, tone, wanted) for half, tone in zip(halves, tones, strict=True))
    left, right = map(softened, toned_halves, scales, coarser)
    joined = np.empty((height, width, 3), np.uint8)
    joined[:, :start], joined[:, end:] = left[:, :start], right[:, end - start :]
    joined[:, start:end] = _joined(left[:, start:], right[:, : end - start], seam - start)
    return joined


def _scale(face: FaceInPhoto, target: Points) -> float:
    """Pixels of the frame to one of the photo."""
    return float(np.hypot(*framing.placing(face[1], target)[:, 0]))


def _view(
    first: FaceInPhoto, second: FaceInPhoto, size_px: tuple[int, int]
) -> tuple[Points, float, float]:
    """The common face (6, 2) and the distance of its eyes in the widest view that is filled.

    The third is the share of its half that the photo fills which fills less of it.
    """
    width, height = size_px
    shape = framing.upright((framing.shape_of(first[1]) + framing.shape_of(second[1])) / 2)
    half = (width // 2, height)
    for apart, down in _VIEWS:
        apart_px = apart * (width * height) ** 0.5
        target = shape * apart_px + (width / 2, down * height)
        halves = (first, target), (second, target - (width - half[0], 0))
        covered = min(
            framing.covered_share(face[0], framing.placing(face[1], place), half)
            for face, place in halves
        )
        if covered >= _FULL:
            break
    return target, apart_px, covered


def _seam(target: Points, height_px: int) -> Points:
    """The middle of the face, row by row: through the nose and between the eyes and lips."""
    eyes, nose, mouth = target[:2].mean(axis=0), target[2], target[3:5].mean(axis=0)
    if not eyes[1] < nose[1] < mouth[1]:
        nose = (eyes + mouth) / 2
    xs, ys = np.transpose([eyes, nose, mouth])
    rows = np.interp(np.arange(height_px), ys, xs)
    around = max(1, height_px // 40)
    window = np.hanning(2 * around + 3)[1:-1]
    return np.convolve(np.pad(rows, around, mode="edge"), window / window.sum(), "valid")


def _joined(left: Pixels, right: Pixels, seam: Points) -> Pixels:
    """One picture of two of the same size, left of the seam the first."""
    share = np.clip((seam[:, None] - np.arange(left.shape[1])) / _SEAM + 0.5, 0, 1)
    weight: cv2.typing.MatLike = share.astype(np.float32)
    one: cv2.typing.MatLike = left.astype(np.float32)
    other: cv2.typing.MatLike = right.astype(np.float32)
    details: list[cv2.typing.MatLike] = []
    while len(details) < _LEVELS and min(one.shape[:2]) >= 4:
        size, small, small_other = one.shape[1::-1], cv2.pyrDown(one), cv2.pyrDown(other)
        one = one - cv2.pyrUp(small, dstsize=size)
        other = other - cv2.pyrUp(small_other, dstsize=size)
        details.append(cv2.blendLinear(one, other, weight, 1 - weight))
        one, other, weight = small, small_other, cv2.pyrDown(weight)
    joined = cv2.blendLinear(one, other, weight, 1 - weight)
    for detail in reversed(details):
        joined = cv2.pyrUp(joined, dstsize=(detail.shape[1], detail.shape[0])) + detail
    return np.clip(np.round(joined), 0, 255).astype(np.uint8)


def skin_tone(frame: Pixels, shape: Points) -> Tone:
    """The tone of the cheeks, nose, upper lip and lower forehead in RGB pixels with landmarks."""
    small = cv2.resize(frame, None, fx=1 / _REDUCED, fy=1 / _REDUCED, interpolation=cv2.INTER_AREA)
    points = (shape + 0.5) / _REDUCED - 0.5
    mask = _skin(points, small.shape[:2])
    picture = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float64)
    lab = picture[mask > 0]
    if len(lab) < 8:  # the face lies outside the frame
        lab = picture.reshape(-1, 3)
    # Between the 15th and 90th percentile of lightness: glasses, beards and highlights lie outside.
    low, high = np.percentile(lab[:, 0], (15, 90))
    kept = lab[(lab[:, 0] >= low) & (lab[:, 0] <= high)]
    return np.stack([kept.mean(axis=0), kept.std(axis=0)])


def _skin(points: Points, size: tuple[int, ...]) -> Pixels:
    mask = np.zeros(size[:2], np.uint8)
    left, right, _, *mouth = points[:5]
    eyes, lips = (left + right) / 2, (mouth[0] + mouth[1]) / 2
    apart = max(float(np.linalg.norm(right - left)), 1.0)
    for point, across, down, value in (
        ((eyes + lips) / 2, 0.78, 0.95, 255),
        (left, 0.33, 0.24, 0),
        (right, 0.33, 0.24, 0),
        (lips, 0.42, 0.17, 0),
    ):
        x, y = (int(side) for side in np.clip(np.round(point), -10_000, 10_000))
        axes = (round(across * apart), round(down * apart))
        cv2.ellipse(mask, (x, y), axes, 0, 0, 360, value, -1)
    return mask


def is_grey(tone: Tone) -> bool:
    """Whether a photo has no colours: black and white, or nearly."""
    return bool(max(np.hypot(*(tone[0, 1:] - 128)), *tone[1, 1:]) < _GREY_CHROMA)


def between(one: Tone, other: Tone, share: float) -> Tone:
    """The tone on the way from one to the other; 0 is the first.

    Where one of them has no colour, nor has what lies between.
    """
    tone = (1 - share) * one + share * other
    if is_grey(one) or is_grey(other):
        tone[:, 1:] = [[128.0], [0.0]]
    return tone


def toned(frame: Pixels, tone: Tone, wanted: Tone) -> Pixels:
    """The RGB picture with a skin of that tone brought to the wanted one.

    As far as contrast can be stretched without harm.
    """
    levels = np.arange(256, dtype=np.float64)
    table = np.empty((1, 256, 3), np.uint8)
    stretch = np.clip(wanted[1] / np.maximum(tone[1], 1.0), *np.transpose(_STRETCHES))
    if is_grey(wanted):
        stretch[1:] = 0.0
    mapped = wanted[0] + stretch * (levels[:, None] - tone[0])
    mapped[:, 0] = _light_curve(levels, tone[0, 0], wanted[0, 0], stretch[0])
    table[0] = np.clip(np.round(mapped), 0, 255)
    lab = cv2.LUT(cv2.cvtColor(frame, cv2.COLOR_RGB2LAB), table)
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.uint8)


def _light_curve(levels: Points, mean: float, wanted: float, stretch: float) -> Points:
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

    ``scale`` is pixels of the frame to one of its photo; that of the other is ``coarser`` times it.
    """
    excess = scale * coarser / _SHARPER - max(scale, 1.0)
    if excess <= 0:
        return frame
    sigma = _BLUR_PER_PX * excess
    return np.asarray(cv2.GaussianBlur(frame, (0, 0), min(sigma, _MOST_BLUR_PX)), np.uint8)
