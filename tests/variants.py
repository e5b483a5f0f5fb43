"""Many photos cut from the two free portraits."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance

__all__ = ["Variant", "variants_of"]

Variant = Callable[[int], bytes]


def variants_of(*portraits: bytes) -> Variant:
    """The n-th photo, for ever the same: of each portrait in turn, no two alike."""
    originals = [Image.open(io.BytesIO(content)) for content in portraits]

    def make(number: int) -> bytes:
        rng = np.random.default_rng(number)
        image = originals[number % len(originals)].convert("RGB")
        left, top, right, bottom = (rng.random(4) * 0.06 * image.width).round().astype(int)
        image = image.crop((left, top, image.width - right, image.height - bottom))
        image = ImageEnhance.Brightness(image).enhance(0.8 + 0.4 * rng.random())
        image.thumbnail((220 + int(rng.integers(60)),) * 2)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        return buffer.getvalue()

    return make
