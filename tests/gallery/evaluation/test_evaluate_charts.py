"""Plots of an evaluation are PNG files with something on them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from probe_sets import crowd, made_up, measures_of

from engine.types import Space
from gallery.evaluation.charts import draw_identification, draw_verification
from gallery.evaluation.measures import Verification
from gallery.scores import prior

CALIBRATION = prior(Space("dlib", "0" * 64, 2, 128))


def verification(same: int, different: int, missing: int) -> Verification:
    rng = np.random.default_rng(0)
    cosines = np.concatenate([rng.normal(0.96, 0.01, same), rng.normal(0.83, 0.03, different)])
    cosines = np.minimum(cosines, 1)
    cosines[rng.permutation(len(cosines))[:missing]] = np.nan
    labels = np.arange(same + different) < same
    return Verification(
        model="dlib",
        same=labels,
        cosines=cosines,
        photos=10,
        faceless={},
        calibration=CALIBRATION,
        seconds=1.0,
    )


def drawn(files: dict[str, bytes]) -> list[Image.Image]:
    pictures = [Image.open(io.BytesIO(png)).convert("RGB") for png in files.values()]
    for picture in pictures:
        assert min(picture.size) > 400
        assert len(picture.getcolors(1 << 20) or ()) > 20
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)
    return pictures


@pytest.mark.parametrize(("same", "different", "missing"), [(500, 500, 7), (2, 2, 0)])
def test_pairs(same: int, different: int, missing: int) -> None:
    files = draw_verification(verification(same, different, missing))

    assert [*files] == ["roc-dlib.png", "pair-cosines-dlib.png", "pair-scores-dlib.png"]
    assert len(drawn(files)) == 3


@pytest.mark.parametrize("people", [2, 300])
def test_people(people: int) -> None:
    files = draw_identification(measures_of(made_up(crowd(people, 5, noise=0.3))))

    assert [*files] == ["ranks-dlib.png", "person-scores-dlib.png", "calibration-dlib.png"]
    assert len(drawn(files)) == 3
