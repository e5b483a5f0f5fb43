"""What a gallery has learned about a space's scores, as it is kept."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import GalleryCorrupt
from engine.types import Space

if TYPE_CHECKING:
    from gallery.calibration import Calibration
    from gallery.storage import Storage

__all__ = ["Learned", "read_learned"]


@dataclass(frozen=True, slots=True)
class Learned:
    """A calibration and what it was learned from.

    Attributes:
        rows: How many vectors there were.
        calibration: Of their space.
    """

    rows: float
    calibration: Calibration

    def to_json(self) -> bytes:
        """As it is kept."""
        content = {"rows": self.rows, "calibration": self.calibration.to_json()}
        return json.dumps(content, indent=2).encode()


def read_learned(storage: Storage, space: Space) -> Learned | None:
    """What was learned of a space; None if nothing was yet.

    Raises:
        GalleryCorrupt: If it makes no sense.
    """
    from gallery.calibration import Calibration

    try:
        content = storage.read_calibration(space)
        if content is None:
            return None
        kept = json.loads(content)
        learned = Learned(float(kept["rows"]), Calibration.from_json(kept["calibration"]))
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise _damaged(storage, space) from problem
    if learned.calibration.space_id != space.id:
        raise _damaged(storage, space)
    return learned


def _damaged(storage: Storage, space: Space) -> GalleryCorrupt:
    return GalleryCorrupt(
        f"{storage.calibration_place(space)} is damaged: run `lookalike gallery build --model "
        f"{space.backbone}`"
    )
