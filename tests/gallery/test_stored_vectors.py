"""What a gallery says of the vectors it keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gallery import build
from gallery.gallery import Gallery


def test_vectors_come_in_the_order_asked_for_and_leave_with_their_person(own_home: Path) -> None:
    with Gallery.open(own_home / "gallery") as gallery:
        (space,) = gallery.spaces()
        ids = gallery.embedded(space)
        assert ids.tolist() == sorted(gallery.portrait_ids().tolist())
        both = gallery.vectors(space, ids)
        assert np.allclose(np.linalg.norm(both, axis=1), 1, atol=1e-6)
        assert np.array_equal(gallery.vectors(space, ids[::-1].copy()), both[::-1])
        first, second = (gallery.portraits_by_id([int(one)])[int(one)] for one in ids)
        assert gallery.thumbnail(first).startswith(b"\xff\xd8")
        build.remove(gallery, gallery.people_by_id([first.person_id])[first.person_id])
        assert gallery.embedded(space).tolist() == [second.id]
        assert np.array_equal(gallery.vectors(space, np.array([second.id])), both[1:])
        with pytest.raises(KeyError):
            gallery.vectors(space, np.array([first.id]))
