"""The values that travel from a photo to an embedding. They do not change once made."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

import numpy as np
from numpy.typing import NDArray

from engine.errors import SpaceMismatch


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """A decoded picture; made from a C-contiguous array it shares its memory.

    ``pixels`` are uint8 (H, W, 3), RGB, upright, C-contiguous, read-only. ``source_size_px`` is the
    width and height of the picture in the file, or of the part of it that this is, upright, before
    any reduction; at least as large.
    """

    pixels: NDArray[np.uint8] = field(repr=False)
    source_size_px: tuple[int, int]
    format: str  # of the file, such as "JPEG"
    corner_px: tuple[int, int] = (0, 0)  # of a part in the picture in the file, x and y

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3:
            message = f"a photo is uint8 (H, W, 3), not {self.pixels.dtype} {self.pixels.shape}"
            raise ValueError(message)
        if 0 in self.pixels.shape:
            raise ValueError("a photo has at least one pixel")
        pixels = np.ascontiguousarray(self.pixels).view()
        pixels.flags.writeable = False
        object.__setattr__(self, "pixels", pixels)

    @property
    def width_px(self) -> int:
        """Width of ``pixels``."""
        return int(self.pixels.shape[1])

    @property
    def height_px(self) -> int:
        """Height of ``pixels``."""
        return int(self.pixels.shape[0])


@dataclass(frozen=True, slots=True)
class Box:
    """An upright rectangle in photo pixels; it may reach beyond the photo's edges."""

    x: float  # left edge
    y: float  # upper edge
    w: float  # width, above 0
    h: float  # height, above 0

    def __post_init__(self) -> None:
        if not (self.w > 0 and self.h > 0):
            raise ValueError("a box has a positive width and height")

    @property
    def area_px(self) -> float:
        """Area in square pixels."""
        return self.w * self.h

    @property
    def centre(self) -> tuple[float, float]:
        """Centre (x, y), px."""
        return self.x + self.w / 2, self.y + self.h / 2


class Concern(StrEnum):
    """Why a face may be compared badly."""

    SMALL = "small"
    BLURRED = "blurred"
    TURNED = "turned"
    COVERED = "covered"  # by a mask or dark glasses


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """A face found in a photo.

    Landmarks are left eye, right eye, nose tip, left and right corner of the mouth; left and right
    as the viewer sees them.
    """

    box: Box
    landmarks: NDArray[np.float32]  # (5, 2), photo pixels (x, y)
    confidence: float  # in [0, 1], from the detector
    concerns: tuple[Concern, ...] = ()  # empty for a clear face

    def __post_init__(self) -> None:
        if self.landmarks.shape != (5, 2) or self.landmarks.dtype != np.float32:
            message = f"landmarks are float32 (5, 2), not {self.landmarks.dtype}"
            raise ValueError(f"{message} {self.landmarks.shape}")


@dataclass(frozen=True, slots=True)
class Space:
    """Which vectors may be compared: same backbone, same weights, same recipe."""

    backbone: str  # name in the registry, such as "dlib"
    weights_sha256: str  # of the weight file, 64 hexadecimal digits
    recipe: int  # version of crop, normalisation and averaging; raised when any of them changes
    dimensions: int  # length of a vector

    @property
    def id(self) -> str:
        """Short name, safe as a folder name: ``dlib-1a2b3c4d5e6f-r1``."""
        return f"{self.backbone}-{self.weights_sha256[:12]}-r{self.recipe}"


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """A face as a point on the unit sphere of one embedding space; repr does not show it."""

    vector: NDArray[np.float32] = field(repr=False)  # (space.dimensions,), length 1 within 1e-3
    space: Space

    def __post_init__(self) -> None:
        if self.vector.shape != (self.space.dimensions,) or self.vector.dtype != np.float32:
            message = f"an embedding of {self.space.id} is float32 ({self.space.dimensions},)"
            raise ValueError(f"{message}, not {self.vector.dtype} {self.vector.shape}")
        length = float(np.linalg.norm(self.vector))
        if not abs(length - 1.0) < 1e-3:
            raise ValueError(f"an embedding has length 1, not {length:.4f}")

    def cosine(self, other: Self) -> float:
        """Cosine with another embedding, in [-1, 1].

        Raises SpaceMismatch if the two come from different spaces.
        """
        if self.space != other.space:
            raise SpaceMismatch(
                f"vectors of {self.space.id} and {other.space.id} can't be compared; "
                "run `lookalike gallery build`"
            )
        return float(np.clip(np.dot(self.vector, other.vector), -1.0, 1.0))
