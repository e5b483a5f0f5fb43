"""Looking people up in blocks gives what looking up one by one gives."""

from __future__ import annotations

import numpy as np
import pytest
from lineups import SPACE, crowd, made_up
from numpy.typing import NDArray

from engine.errors import SetupProblem
from gallery.evaluation import lineup as evaluation_lineup
from gallery.evaluation.lineup import Lineup, look_up
from gallery.likeness import evened_norms, person_cosines


def one_by_one(lineup: Lineup) -> NDArray[np.float64]:
    """Likeness of each probe to each person, float64 (M, K), without any block."""
    columns = []
    for column in range(len(lineup.people)):
        rows = lineup.gallery[lineup.owners == column].astype(np.float64)
        length = np.linalg.norm(rows.sum(axis=0, keepdims=True), axis=1)
        norms = evened_norms(length, np.array([len(rows)]), SPACE.backbone)
        cosines = lineup.probes.astype(np.float64) @ rows.T
        columns.append(person_cosines(cosines, np.zeros(len(rows), np.intp), norms)[:, 0])
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("block", [1, 37, 10_000_000])
def test_blocks_of_any_size_say_the_same(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_lineup, "_BLOCK", block)
    lineup = made_up(crowd(9, 5))
    expected = one_by_one(lineup)

    found = np.concatenate([likeness for _, likeness in lineup.blocks()])
    rows, columns = np.array([1, 4, 5]), np.array([0, 3, 8])
    among = np.concatenate([likeness for _, likeness in lineup.among(rows, columns)])

    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(among, expected[np.ix_(rows, columns)], atol=1e-6)
    np.testing.assert_allclose(
        lineup.pairs(lineup.right), expected[np.arange(len(expected)), lineup.right], atol=1e-6
    )


def test_ranks_and_best_strangers() -> None:
    lineup = made_up(crowd(12, 5, noise=0.35))
    likeness = one_by_one(lineup)
    own = likeness[np.arange(len(likeness)), lineup.right]
    likeness[np.arange(len(likeness)), lineup.right] = -np.inf

    found = look_up(lineup)

    np.testing.assert_array_equal(found.ranks, (likeness >= own[:, None]).sum(axis=1))
    np.testing.assert_array_equal(found.best_columns, likeness.argmax(axis=1))
    np.testing.assert_allclose(found.best, likeness.max(axis=1), atol=1e-6)
    assert 0 < np.count_nonzero(found.ranks) < len(found.ranks)


def test_strangers_are_handed_over_without_their_own_person() -> None:
    lineup = made_up(crowd(5, 4))
    seen = 0

    def count(rows: slice, likeness: NDArray[np.float32]) -> None:
        nonlocal seen
        assert likeness.shape == (rows.stop - rows.start, 5)
        seen += np.isfinite(likeness).sum()

    look_up(lineup, count)

    assert seen == 5 * 4


def test_whose_photo_is_where() -> None:
    """A person without a gallery face has no column; their probes fail."""
    faceless = [f"Person 1/{number}.jpg" for number in range(3)] + ["Person 2/4.jpg"]
    lineup = made_up(crowd(4, 5), faceless=faceless)

    assert [lineup.name(column) for column in range(3)] == ["Person 0", "Person 2", "Person 3"]
    assert {"/".join(file.parts[-2:]) for _, file in lineup.failures} == {
        "Person 1/3.jpg", "Person 1/4.jpg", "Person 2/4.jpg",
    }  # fmt: skip
    for row, file in enumerate(lineup.probe_files):
        column = int(lineup.right[row])
        assert file.parent.name == lineup.name(column)
        closest = lineup.closest(row, column)
        assert closest.parent == file.parent
        place = lineup.gallery_files.index(closest)
        cosine = float(lineup.gallery[place] @ lineup.probes[row])
        assert lineup.likeness_of_photos(row, column) == pytest.approx(cosine)


def test_one_picture_under_two_names_is_nobodys() -> None:
    people = crowd(3, 5)
    people["Twin"] = people["Person 0"]

    found = look_up(made_up(people))

    assert sorted(found.ranks.tolist()) == [0, 0, 0, 0, 1, 1, 1, 1]


def test_nobody_to_look_up() -> None:
    with pytest.raises(SetupProblem, match="not enough faces"):
        made_up(crowd(2, 3), faceless=[f"Person 0/{number}.jpg" for number in range(3)])
