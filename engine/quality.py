"""Says why a face may be compared badly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.types import Concern

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from engine.types import Box, Photo

__all__ = ["concerns"]

SMALL_PX = 32


def concerns(photo: Photo, box: Box, landmarks: NDArray[np.float32]) -> tuple[Concern, ...]:
    """What is wrong with a face; empty for a clear one."""
    del photo, landmarks
    return (Concern.SMALL,) if min(box.w, box.h) < SMALL_PX else ()
