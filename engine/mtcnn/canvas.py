"""A photo at many sizes in one picture, so that P-Net sees all of them in one run.

P-Net looks at windows of 12 px; faces of other sizes are found in reduced copies of the photo,
each 0.709 times the one before (half the area). Running the network once per copy costs a start
each and a compilation for each new shape, so the copies are packed into canvases of few shapes.

Halving by averaging four pixels is ten times faster than averaging by any other factor, and after
it any size is near: only the last step, by less than a half, has to be interpolated.
"""

import itertools
import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from engine.decode import stretch

GREY = 127
"""Stands for what is beyond a photo's edges; near 0 after MTCNN's normalisation."""

_SMALLEST_COPY_PX = 12


class Halvings:
    """A photo, uint8 (H, W, 3), and its copies at a half, a quarter, an eighth ... of its size."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        import cv2

        self.height_px, self.width_px = pixels.shape[:2]
        # Of very wide or long photos that of a square with as many pixels.
        self.longer_px: float = max(pixels.shape[:2]) / stretch(*pixels.shape[:2])
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
        if size not in self._resized:
            large = (c for c in self._copies if c.shape[1] >= width_px and c.shape[0] >= height_px)
            *_, source = (self._copies[0], *large)
            small = cv2.resize(source, size, interpolation=cv2.INTER_AREA)
            self._resized[size] = np.asarray(small, np.uint8)
        return self._resized[size]

    def squares(
        self, centres: NDArray[np.float64], sides: NDArray[np.float64], edge_px: int
    ) -> NDArray[np.uint8]:
        """Squares of the photo at one size; grey beyond the photo's edges.

        Each is sampled between pixels, from the smallest copy that is no smaller than wanted: so
        a square need not be rounded to pixels, which matters for faces of 15 px. Centres (N, 2) are
        photo pixels counted from the photo's upper left edge; the result is uint8 (N, edge_px,
        edge_px, 3).
        """
        import cv2

        crops = np.empty((len(sides), edge_px, edge_px, 3), np.uint8)
        flags, grey = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, (GREY, GREY, GREY)
        size, copies = (edge_px, edge_px), self._copies
        for i, ((x, y), side) in enumerate(zip(centres.tolist(), sides.tolist(), strict=True)):
            halved = min(max(0, math.floor(math.log2(side / edge_px))), len(copies) - 1)
            unit = 2**halved
            step = side / unit / edge_px
            left = (x - side / 2) / unit + step / 2 - 0.5
            upper = (y - side / 2) / unit + step / 2 - 0.5
            back = np.array([[step, 0.0, left], [0.0, step, upper]])
            cv2.warpAffine(copies[halved], back, size, crops[i], flags, borderValue=grey)
        return crops


WINDOW_PX = 12
STRIDE_PX = 2

_FACTOR = 0.709
_SHIFT_PX = 0.5
"""How far right of and below its window P-Net's box lies.

The published code counts pixels from 1, and the package mtcnn keeps the 1 although it counts from
0: half a pixel from centre to edge remains. Of 1,379 faces that the package finds in 571 photos,
1,295 are found with no shift, 1,323 with a quarter, 1,332 with a half; more harms large faces.
"""

_CANVAS_WIDTHS_PX = (160, 256, 416)  # the one that wastes least is taken
_CANVAS_HEIGHT_PX = 672
_ROUNDING_PX = 8  # few different heights, so that few shapes are compiled
_MARGIN_PX = 4
_MARGIN_BELOW_PX = 3 * WINDOW_PX
_GAP = 0.95  # a copy that close to the other look's first would show the same again
_REACH = 1.4  # faces of up to so many times the photo's shorter side


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of one reduced copy and its place in the canvas; all px, all edges even."""

    level: int  # index of the copy
    copy_width: int
    copy_height: int
    x: int  # left edge in the copy; negative where the tile begins with a grey margin
    y: int  # upper edge in the copy, likewise
    width: int  # of the tile, with margins
    height: int
    left: int = 0  # edge in the canvas
    top: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Canvas:
    """What P-Net sees at once.

    ``owner``, int8 (rows, columns), is the index of the tile that the window in that cell of
    P-Net's output lies in, -1 where it lies in none or in two.
    """

    width_px: int
    height_px: int
    tiles: tuple[Tile, ...]  # they do not overlap
    owner: NDArray[np.int8]

    def drawn(self, photo: Halvings) -> NDArray[np.uint8]:
        """The canvas as P-Net's input, uint8 (1, height_px, width_px, 3)."""
        canvas = np.full((1, self.height_px, self.width_px, 3), GREY, np.uint8)
        for tile in self.tiles:
            copy = photo.resized(tile.copy_width, tile.copy_height)
            x, y = max(tile.x, 0), max(tile.y, 0)
            part = copy[y : tile.y + tile.height, x : tile.x + tile.width]
            top, left = tile.top + y - tile.y, tile.left + x - tile.x
            canvas[0, top : top + part.shape[0], left : left + part.shape[1]] = part
        return canvas

    def boxes(
        self,
        photo: Halvings,
        threshold: float,
        offsets: NDArray[np.float32],
        face: NDArray[np.float32],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
        """P-Net's findings above a threshold: boxes (N, 4), photo pixels; scores and levels (N,).

        ``offsets`` are (1, 4, rows, columns), the probability of a face (1, 1, rows, columns).
        """
        rows, columns = self.owner.shape
        found = (face[0, 0, :rows, :columns] > threshold) & (self.owner >= 0)
        y, x = np.nonzero(found)
        owners = self.owner[y, x]
        shifts = np.array([(t.x - t.left, t.y - t.top) for t in self.tiles])
        copies = np.array([(t.copy_width, t.copy_height) for t in self.tiles])
        levels = np.array([t.level for t in self.tiles], np.intp)
        corner = STRIDE_PX * np.stack([x, y], axis=1) + shifts[owners] + _SHIFT_PX
        edges = np.hstack([corner, corner + WINDOW_PX]) + WINDOW_PX * offsets[0][:, y, x].T
        boxes = edges * np.tile(((photo.width_px, photo.height_px) / copies)[owners], 2)
        return boxes, face[0, 0, y, x].astype(np.float64), levels[owners]


@lru_cache(maxsize=64)
def plan(
    width_px: int, height_px: int, smallest_px: float, largest_px: float = math.inf
) -> tuple[Canvas, ...]:
    """Canvases that show faces of all sizes in a range; none if the photo is smaller than these.

    ``largest_px`` is given where another look for faces from there on was taken.
    """
    copies = []
    window_px = smallest_px
    reach = _REACH if math.isinf(largest_px) else 1.0
    while window_px <= reach * min(width_px, height_px) and window_px < _GAP * largest_px:
        scale = WINDOW_PX / window_px
        copies.append((max(1, round(width_px * scale)), max(1, round(height_px * scale))))
        window_px /= _FACTOR
    packings = []
    for width in _CANVAS_WIDTHS_PX:
        tiles = [tile for level, copy in enumerate(copies) for tile in _tiles(level, *copy, width)]
        packings.append(tuple(_canvas(width, packed) for packed in _packed(tiles, width)))
    return min(packings, key=lambda canvases: sum(c.width_px * c.height_px for c in canvases))


def _tiles(level: int, width: int, height: int, canvas_width: int) -> list[Tile]:
    """A copy cut into parts that fit a canvas and share the pixels that windows need.

    Small copies, in which only faces are found that fill a good part of the photo, get a margin,
    so that a face is found that touches the photo's edges or is cut off by them.
    """
    whole = (width + 2 * _MARGIN_PX, height + 2 * _MARGIN_PX)
    if min(width, height) < _MARGIN_BELOW_PX and max(whole) <= _CANVAS_WIDTHS_PX[0]:
        return [Tile(level, width, height, -_MARGIN_PX, -_MARGIN_PX, *whole)]
    if min(width, height) < WINDOW_PX:
        return []
    shared = WINDOW_PX - STRIDE_PX
    across = max(1, math.ceil((width - shared) / (canvas_width - shared)))
    down = max(1, math.ceil((height - shared) / (_CANVAS_HEIGHT_PX - shared)))
    step_x, step_y = _even((width - shared) / across), _even((height - shared) / down)
    corners = itertools.product(range(0, step_x * across, step_x), range(0, step_y * down, step_y))
    wide, high = step_x + shared, step_y + shared
    return [
        Tile(level, width, height, x, y, min(wide, width - x), min(high, height - y))
        for x, y in corners
    ]


def _packed(tiles: list[Tile], canvas_width: int) -> list[list[Tile]]:
    """Tiles by canvas: largest first, each in the highest free place that takes it.

    What is left of a place stays free: the rest to the tile's right is as high as the tile, the
    rest below it as wide as the place.
    """
    canvases: list[list[Tile]] = []
    free: list[tuple[int, int, int, int]] = []  # top, left, height, width
    for tile in sorted(tiles, key=lambda tile: (-tile.height, tile.level, tile.y, tile.x)):
        wide, high = _even(tile.width), _even(tile.height)
        fitting = [place for place in free if high <= place[2] and wide <= place[3]]
        if not fitting:
            canvases.append([])
            free = fitting = [(0, 0, _CANVAS_HEIGHT_PX, canvas_width)]
        place = top, left, height, width = min(fitting)
        canvases[-1].append(replace(tile, left=left, top=top))
        right = (top, left + wide, high, width - wide)
        below = (top + high, left, height - high, width)
        free.remove(place)
        free += [rest for rest in (right, below) if min(rest[2:]) >= WINDOW_PX]
    return canvases


def _canvas(width: int, tiles: list[Tile]) -> Canvas:
    used = max(tile.top + tile.height for tile in tiles)
    height = math.ceil(used / _ROUNDING_PX) * _ROUNDING_PX
    cells = [(side - WINDOW_PX) // STRIDE_PX + 1 for side in (height, width)]
    owner = np.full(cells, -1, np.int8)
    for i, tile in enumerate(tiles):
        row, column = tile.top // STRIDE_PX, tile.left // STRIDE_PX
        rows = (tile.height - WINDOW_PX) // STRIDE_PX + 1
        columns = (tile.width - WINDOW_PX) // STRIDE_PX + 1
        owner[row : row + rows, column : column + columns] = i
    owner.flags.writeable = False
    return Canvas(width, height, tuple(tiles), owner)


def _even(side: float) -> int:
    return 2 * math.ceil(side / 2)
