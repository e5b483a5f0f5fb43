"""Search finds what comparing everything in float64 finds, in the same order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_indexes import NONE, filled, index_of, space, unit
from numpy.typing import NDArray

from engine.errors import SpaceMismatch
from engine.types import Embedding, Space
from gallery.likeness import evened_norms, person_cosines
from gallery.search.index import GalleryIndex


def build(
    folder: Path,
    vectors: NDArray[np.float32],
    persons: NDArray[np.int64],
    dead: NDArray[np.int64] = NONE,
) -> GalleryIndex:
    return index_of(filled(folder, vectors), persons, dead)


def brute_force(
    query: NDArray[np.float32],
    vectors: NDArray[np.float32],
    persons: NDArray[np.int64],
    allowed: set[int] | None = None,
) -> list[tuple[int, float, float, int]]:
    """(person, likeness, best cosine, portrait row) for everybody, best first."""
    found = []
    for person in np.unique(persons):
        if allowed is not None and int(person) not in allowed:
            continue
        rows = np.flatnonzero(persons == person)
        own = vectors[rows].astype(np.float64)
        cosines = np.clip(own @ query.astype(np.float64), -1, 1)
        norm = evened_norms(
            np.array([np.linalg.norm(own.sum(axis=0))]), np.array([len(rows)]), "resnet"
        )
        likeness = person_cosines(cosines, np.zeros(len(rows), np.int64), norm)[0]
        found.append(
            (int(person), float(likeness), cosines.max(), int(rows[cosines.round(7).argmax()]))
        )
    return sorted(found, key=lambda one: (-round(one[1], 7), one[0]))


def assert_same(
    index: GalleryIndex,
    query: NDArray[np.float32],
    k: int,
    vectors: NDArray[np.float32],
    persons: NDArray[np.int64],
    allowed: set[int] | None = None,
) -> None:
    mask = None
    if allowed is not None:
        mask = np.isin(index.person_ids, list(allowed))
    hits = index.top(Embedding(query, index.space), k, allowed=mask)
    expected = brute_force(query, vectors, persons, allowed)[:k]
    assert [hit.person_id for hit in hits] == [one[0] for one in expected]
    for hit, (_, likeness, best, _) in zip(hits, expected, strict=True):
        assert hit.cosine == pytest.approx(likeness, abs=1e-6)
        shown = vectors[hit.portrait_id - 1000].astype(np.float64) @ query.astype(np.float64)
        assert shown == pytest.approx(best, abs=1e-6)


@settings(max_examples=80)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 300),
    people=st.integers(1, 150),
    dimensions=st.sampled_from([2, 5, 128, 512, 600]),
    k=st.integers(1, 12),
    spread=st.floats(0.01, 3),
)
def test_top_is_the_head_of_the_sorted_brute_force(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    rows: int,
    people: int,
    dimensions: int,
    k: int,
    spread: float,
) -> None:
    """Rows in any order and number, some dead, some people not allowed."""
    rng = np.random.default_rng(seed)
    persons = rng.integers(1, people + 1, rows)
    faces = rng.standard_normal((people + 1, dimensions))
    vectors = unit(faces[persons] + spread * rng.standard_normal((rows, dimensions)))
    dead = np.flatnonzero(rng.random(rows) < rng.choice([0, 0.3]))
    alive = np.setdiff1d(np.arange(rows), dead)
    allowed = set(rng.integers(1, people + 1, 20).tolist()) if rng.random() < 0.4 else None
    query = unit(rng.standard_normal(dimensions))
    index = build(tmp_path_factory.mktemp("space"), vectors, persons, dead)
    masked = vectors.copy()
    living = persons.copy()
    living[dead] = -1
    expected = brute_force(query, masked[alive], living[alive], allowed)
    mask = None if allowed is None else np.isin(index.person_ids, list(allowed))
    hits = index.top(Embedding(query, index.space), k, allowed=mask)
    assert [hit.person_id for hit in hits] == [one[0] for one in expected[:k]]
    np.testing.assert_allclose(
        [hit.cosine for hit in hits], [one[1] for one in expected[:k]], atol=1e-6
    )


def test_two_thousand_people_equal_brute_force(tmp_path: Path) -> None:
    """Enough people for bounds to matter, lookalikes among them."""
    rng = np.random.default_rng(11)
    people, dimensions = 2000, 512
    faces = rng.standard_normal((people, dimensions)) + 1.0
    faces[1000:] = faces[:1000] + 0.5 * rng.standard_normal((1000, dimensions))
    persons = np.repeat(np.arange(1, people + 1), 3)
    noise = 0.4 * rng.standard_normal((len(persons), dimensions))
    vectors = unit(faces[persons - 1] + noise)
    index = build(tmp_path, vectors, persons)
    for _ in range(5):
        probe = faces[rng.integers(people)] + 0.6 * rng.standard_normal(dimensions)
        assert_same(index, unit(probe), 10, vectors, persons)


def test_equal_people_come_in_the_order_of_their_ids(tmp_path: Path) -> None:
    rng = np.random.default_rng(12)
    one = unit(rng.standard_normal(512))
    persons = np.array([9, 3, 27, 1, 14])
    vectors = np.stack([one] * 5)
    vectors[3] = unit(rng.standard_normal(512))
    hits = build(tmp_path, vectors, persons).top(Embedding(one, space(512)), 4)
    assert [hit.person_id for hit in hits] == [3, 9, 14, 27]
    assert len({hit.cosine for hit in hits}) == 1


def test_the_very_photo_has_likeness_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(13)
    face = rng.standard_normal(128)
    vectors = unit(face + rng.standard_normal((6, 128)))
    index = build(tmp_path, vectors, np.array([1, 1, 1, 1, 1, 2]))
    (hit,) = index.top(Embedding(vectors[2], space(128)), 1)
    assert (hit.person_id, hit.portrait_id) == (1, 1002)
    assert hit.cosine == pytest.approx(1.0, abs=1e-6)


def test_an_empty_index_finds_nobody(tmp_path: Path) -> None:
    index = build(tmp_path, np.empty((0, 16), np.float32), NONE)
    query = unit(np.ones(16))
    assert index.top(Embedding(query, space(16)), 3) == ()
    assert len(index) == 0


def test_vectors_of_two_spaces_never_meet(tmp_path: Path) -> None:
    vectors = unit(np.eye(16))
    index = build(tmp_path, vectors, np.arange(16))
    other = Space("resnet", "c" * 64, 1, 16)
    with pytest.raises(SpaceMismatch, match="gallery build --model resnet"):
        index.top(Embedding(vectors[0], other), 1)


def test_asking_for_nobody_is_a_mistake(tmp_path: Path) -> None:
    index = build(tmp_path, unit(np.eye(4)), np.arange(4))
    with pytest.raises(ValueError, match="at least one"):
        index.top(Embedding(unit(np.ones(4)), space(4)), 0)


def test_nobody_allowed_is_nobody_found(tmp_path: Path) -> None:
    index = build(tmp_path, unit(np.eye(4)), np.arange(4))
    query = Embedding(unit(np.ones(4)), space(4))
    assert index.top(query, 2, allowed=np.zeros(4, bool)) == ()


def test_training_rows_are_whole_people(tmp_path: Path) -> None:
    rng = np.random.default_rng(14)
    persons = np.repeat(np.arange(100), 4)
    vectors = unit(rng.standard_normal((400, 8)))
    index = build(tmp_path, vectors, persons)
    every, whose = index.training_rows(1000)
    np.testing.assert_array_equal(every, vectors)
    np.testing.assert_array_equal(whose, persons)
    some, whose = index.training_rows(100)
    assert 80 <= len(some) <= 120
    assert (np.unique(whose, return_counts=True)[1] == 4).all()


def test_certain_people_have_the_likeness_that_a_search_finds(tmp_path: Path) -> None:
    """Also asked for twice, in any order, more than are compared at a time, or not there."""
    rng = np.random.default_rng(15)
    for dimensions in (128, 512):
        persons = np.repeat(np.arange(1, 601), 2)
        vectors = unit(rng.standard_normal((1200, dimensions)))
        dead = np.array([0, 1, 7])  # person 1 is gone, person 4 has one portrait left
        index = build(tmp_path / str(dimensions), vectors, persons, dead)
        query = Embedding(unit(rng.standard_normal(dimensions)), space(dimensions))
        asked = np.append(rng.permutation(np.arange(1, 601)), [4, 9999, 4])
        found = index.likenesses(query, asked)
        expected = {hit.person_id: hit.cosine for hit in index.top(query, 600)}
        assert np.isnan(found[np.isin(asked, [1, 9999])]).all()
        there = ~np.isin(asked, [1, 9999])
        assert found[there].tolist() == [expected[person] for person in asked[there].tolist()]
    assert index.likenesses(query, np.empty(0, np.int64)).shape == (0,)
    with pytest.raises(SpaceMismatch):
        index.likenesses(Embedding(unit(np.ones(16)), space(16)), np.array([1]))
