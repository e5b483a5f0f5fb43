"""Line-ups of made-up people: unit vectors around a direction of their own, no photos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.types import Space
from gallery.evaluation.measures import Measures
from gallery.evaluation.photos import PhotoEmbeddings, ProbeSet, split_photos
from gallery.scores.fit import fit_calibration

SPACE = Space("dlib", "0" * 64, 2, 16)


def embeddings(
    vectors: dict[str, NDArray[np.float32]], *, faceless: Sequence[str] = ()
) -> tuple[PhotoEmbeddings, dict[str, list[Path]]]:
    """Vectors (n, D) of people as if seen in files; those named faceless have none."""
    people = {
        name: [Path(f"/photos/{name}/{number}.jpg") for number in range(len(rows))]
        for name, rows in vectors.items()
    }
    seen = {
        file: rows[number]
        for name, rows in vectors.items()
        for number, file in enumerate(people[name])
    }
    failures = {file: "no face" for file in seen if "/".join(file.parts[-2:]) in faceless}
    found = {file: vector for file, vector in seen.items() if file not in failures}
    return PhotoEmbeddings(SPACE, found, failures, {}, 1.0), people


def around(
    random: np.random.Generator, centre: NDArray[np.floating], photos: int, noise: float
) -> NDArray[np.float32]:
    """Unit vectors around a direction: float32 (photos, D)."""
    spread = random.standard_normal((photos, centre.shape[-1])) * noise
    rows = centre / np.linalg.norm(centre) + spread
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def crowd(
    people: int,
    photos: int = 5,
    *,
    noise: float = 0.05,
    seed: int = 0,
    prefix: str = "Person",
    leaning: float = 0.0,
) -> dict[str, NDArray[np.float32]]:
    """People and their vectors; ``leaning`` makes them alike."""
    random = np.random.default_rng(seed)
    common = random.standard_normal(SPACE.dimensions) * leaning
    return {
        f"{prefix} {number}": around(
            random, random.standard_normal(SPACE.dimensions) + common, photos, noise
        )
        for number in range(people)
    }


def made_up(
    vectors: dict[str, NDArray[np.float32]],
    *,
    gallery_photos: int = 3,
    faceless: Sequence[str] = (),
) -> ProbeSet:
    seen, people = embeddings(vectors, faceless=faceless)
    return split_photos(seen, people, gallery_photos)


def measures_of(probe_set: ProbeSet) -> Measures:
    calibration = fit_calibration(probe_set.first.space, probe_set.first.gallery, probe_set.owners)
    return Measures("dlib", probe_set, calibration, seconds=2.0, photos=10)
