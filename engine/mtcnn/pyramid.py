"""A photo at a half, a quarter, an eighth ... of its size, and what is cut from it.

Halving by averaging four pixels is ten times faster than averaging by any other factor, and after
it any size is near: only the last step, by less than a half, has to be interpolated.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["GREY", "Halvings"]

GREY = 127
"""Stands for what is beyond a photo's edges; near 0 after MTCNN's normalisation."""

_SMALLEST_COPY_PX = 12


class Halvings:
    """A photo and its copies at a half, a quarter, an eighth ... of its size.

    Args:
        pixels: uint8 (H, W, 3).

    Attributes:
        width_px: Of the photo.
        height_px: Of the photo.
    """

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        import cv2

        self.height_px, self.width_px = pixels.shape[:2]
        self._resized: dict[tuple[int, int], NDArray[np.uint8]] = {}
        self._copies = [pixels]
        while min(self._copies[-1].shape[:2]) >= 2 * _SMALLEST_COPY_PX:
            last = self._copies[-1]
            height, width = last.shape[0] // 2, last.shape[1] // 2
            even = last[: 2 * height, : 2 * width]  # by exactly 2 the average is ten times faster
            half = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)
            self._copies.append(np.asarray(half, np.uint8))

    def resized(self, width_px: int, height_px: int) -> NDArray[np.uint8]:
        """The whole photo at a smaller size, averaged; kept, as several tiles show it."""
        import cv2

        size = (width_px, height_px)
        if size in self._resized:
            return self._resized[size]
        fitting = [
            copy
            for copy in self._copies
            if copy.shape[1] >= width_px and copy.shape[0] >= height_px
        ]
        source = fitting[-1] if fitting else self._copies[0]
        small = cv2.resize(source, size, interpolation=cv2.INTER_AREA)
        self._resized[size] = np.asarray(small, np.uint8)
        return self._resized[size]

    def squares(
        self, centres: NDArray[np.float64], sides: NDArray[np.float64], edge_px: int
    ) -> NDArray[np.uint8]:
        """Squares of the photo at one size; grey beyond the photo's edges.

        Each is sampled between pixels, from the smallest copy that is no smaller than wanted: so
        a square need not be rounded to pixels, which matters for faces of 15 px.

        Args:
            centres: (N, 2), photo pixels counted from the photo's upper left edge.
            sides: (N,), photo pixels, above 0.
            edge_px: Size of the result.

        Returns:
            uint8 (N, edge_px, edge_px, 3).
        """
        import cv2

        crops = np.empty((len(sides), edge_px, edge_px, 3), np.uint8)
        size = (edge_px, edge_px)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        for i, ((x, y), side) in enumerate(zip(centres.tolist(), sides.tolist(), strict=True)):
            halved = min(max(0, math.floor(math.log2(side / edge_px))), len(self._copies) - 1)
            unit = 2**halved
            step = side / unit / edge_px
            back = np.array(
                [
                    [step, 0.0, (x - side / 2) / unit + step / 2 - 0.5],
                    [0.0, step, (y - side / 2) / unit + step / 2 - 0.5],
                ]
            )
            cv2.warpAffine(
                self._copies[halved],
                back,
                size,
                dst=crops[i],
                flags=flags,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=(GREY, GREY, GREY),
            )
        return crops
