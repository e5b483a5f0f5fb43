"""Non-maximum suppression: of boxes that show the same face, the surest stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["survivors"]


def survivors(
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
    threshold: float,
    *,
    share: Literal["union", "smaller"] = "union",
    groups: NDArray[np.intp] | None = None,
) -> NDArray[np.intp]:
    """Which boxes stay when each removes the less sure ones that overlap it too much.

    A box that was removed removes nothing itself (in the package mtcnn 1.0.0 it does).

    Args:
        boxes: float64 (N, 4): left, upper, right and lower edge.
        scores: (N,), above 0.
        threshold: A box goes if it shares more than this part of the union, or of the smaller of
            the two boxes, with a surer one that stays.
        share: What the overlap is measured against.
        groups: (N,), not negative; boxes of different groups never remove each other. None: one
            group. Only with ``share="union"``.

    Returns:
        Indices of those that stay, by falling score.
    """
    if len(boxes) == 0:
        return np.zeros(0, np.intp)
    if share == "smaller":
        return _by_smaller(boxes, scores, threshold)
    import cv2

    corner_and_size: Any = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    sure: Any = scores
    group: Any = np.zeros(len(boxes), np.intc) if groups is None else groups
    kept = cv2.dnn.NMSBoxesBatched(corner_and_size, sure, group, 0.0, threshold)
    return np.asarray(kept, np.intp).reshape(-1)


def _by_smaller(
    boxes: NDArray[np.float64], scores: NDArray[np.float64], threshold: float
) -> NDArray[np.intp]:
    order = np.argsort(-scores, kind="stable")
    left, upper, right, lower = boxes[order].T
    area = (right - left) * (lower - upper)
    stays = np.ones(len(order), bool)
    for i in range(len(order)):
        if not stays[i]:
            continue
        rest = slice(i + 1, None)
        wide = np.minimum(right[rest], right[i]) - np.maximum(left[rest], left[i])
        high = np.minimum(lower[rest], lower[i]) - np.maximum(upper[rest], upper[i])
        both = np.maximum(wide, 0) * np.maximum(high, 0)
        stays[rest] &= both <= threshold * np.minimum(area[rest], area[i])
    return order[stays]
