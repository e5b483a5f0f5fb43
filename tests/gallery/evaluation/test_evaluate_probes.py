"""Looking people up in blocks gives what looking up one by one gives."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from probe_sets import SPACE, crowd, made_up

from engine.errors import SetupProblem
from gallery.evaluation.photos import ProbeSet, identify
from gallery.likeness import evened_norms, person_cosines
from gallery.scores import fit


def one_by_one(probe_set: ProbeSet) -> NDArray[np.float64]:
    """Likeness of each probe to each person, float64 (M, K), without any block."""
    columns = []
    for column in range(len(probe_set.people)):
        rows = probe_set.first.gallery[probe_set.owners == column].astype(np.float64)
        length = np.linalg.norm(rows.sum(axis=0, keepdims=True), axis=1)
        norms = evened_norms(length, np.array([len(rows)]), SPACE.backbone)
        cosines = probe_set.first.probes.astype(np.float64) @ rows.T
        columns.append(person_cosines(cosines, np.zeros(len(rows), np.intp), norms)[:, 0])
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("block", [1, 37, 10_000_000])
def test_blocks_of_any_size_say_the_same(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "_BLOCK", block)
    probe_set = made_up(crowd(9, 5))
    expected = one_by_one(probe_set)

    found = np.concatenate([likeness for _, likeness in probe_set.likenesses()])
    rows, columns = np.array([1, 4, 5]), np.array([0, 3, 8])
    among = np.concatenate([likeness for _, likeness in probe_set.likenesses(rows, columns)])

    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(among, expected[np.ix_(rows, columns)], atol=1e-6)
    np.testing.assert_allclose(
        probe_set.pairs(probe_set.right),
        expected[np.arange(len(expected)), probe_set.right],
        atol=1e-6,
    )


def test_ranks_and_best_strangers() -> None:
    probe_set = made_up(crowd(12, 5, noise=0.35))
    likeness = one_by_one(probe_set)
    own = likeness[np.arange(len(likeness)), probe_set.right]
    likeness[np.arange(len(likeness)), probe_set.right] = -np.inf

    found = identify(probe_set)

    np.testing.assert_array_equal(found.ranks, (likeness >= own[:, None]).sum(axis=1))
    np.testing.assert_array_equal(found.best_columns, likeness.argmax(axis=1))
    np.testing.assert_allclose(found.best, likeness.max(axis=1), atol=1e-6)
    assert 0 < np.count_nonzero(found.ranks) < len(found.ranks)


def test_strangers_are_handed_over_without_their_own_person() -> None:
    probe_set = made_up(crowd(5, 4))
    seen = 0

    def count(rows: NDArray[np.intp], likeness: NDArray[np.float32]) -> None:
        nonlocal seen
        assert likeness.shape == (len(rows), 5)
        seen += np.isfinite(likeness).sum()

    identify(probe_set, count)

    assert seen == 5 * 4


def test_whose_photo_is_where() -> None:
    """A person without a gallery face has no column; their probes fail."""
    faceless = [f"Person 1/{number}.jpg" for number in range(3)] + ["Person 2/4.jpg"]
    probe_set = made_up(crowd(4, 5), faceless=faceless)

    assert [probe_set.name(column) for column in range(3)] == ["Person 0", "Person 2", "Person 3"]
    assert {"/".join(file.parts[-2:]) for _, file in probe_set.failures} == {
        "Person 1/3.jpg", "Person 1/4.jpg", "Person 2/4.jpg",
    }  # fmt: skip
    for row, file in enumerate(probe_set.probe_files):
        column = int(probe_set.right[row])
        assert file.parent.name == probe_set.name(column)
        closest, cosine = probe_set.closest(row, column)
        assert closest.parent == file.parent
        place = probe_set.gallery_files.index(closest)
        photo, probe = probe_set.first.gallery[place], probe_set.first.probes[row]
        assert cosine == pytest.approx(float(photo @ probe))


def test_one_picture_under_two_names_is_nobodys() -> None:
    people = crowd(3, 5)
    people["Twin"] = people["Person 0"]

    found = identify(made_up(people))

    assert sorted(found.ranks.tolist()) == [0, 0, 0, 0, 1, 1, 1, 1]


def test_nobody_to_identify() -> None:
    with pytest.raises(SetupProblem, match="not enough faces"):
        made_up(crowd(2, 3), faceless=[f"Person 0/{number}.jpg" for number in range(3)])
