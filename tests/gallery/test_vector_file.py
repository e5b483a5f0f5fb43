"""The file of vectors: only rows that count are there, and what is missing is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_indexes import filled, space, unit

from engine.errors import GalleryCorrupt
from gallery.vector_file import VectorFile


def some(count: int, dimensions: int = 128) -> np.ndarray:  # type: ignore[type-arg]
    return unit(np.random.default_rng(count).standard_normal((count, dimensions)))


def test_what_was_appended_is_read_again(tmp_path: Path) -> None:
    vectors = some(30)
    file = filled(tmp_path, vectors[:20])
    file.append(20, vectors[20:])
    again = VectorFile(tmp_path, space(128), file.generation)
    again.check(30)
    np.testing.assert_array_equal(again.mapped(30), vectors)
    numbers = np.array([3, 4, 5, 29, 0, 1])
    np.testing.assert_array_equal(again.rows(numbers), vectors[numbers])
    assert again.rows(numbers[:0]).shape == (0, 128)


def test_rows_that_were_never_counted_are_overwritten(tmp_path: Path) -> None:
    file = filled(tmp_path, some(30))
    file.append(10, some(5))
    np.testing.assert_array_equal(file.rows(np.arange(10, 15)), some(5))


def test_a_reader_keeps_what_it_opened(tmp_path: Path) -> None:
    file = filled(tmp_path, some(10))
    mapped = file.mapped(10)
    file.check(10)
    file.path.unlink()
    np.testing.assert_array_equal(mapped, some(10))
    np.testing.assert_array_equal(file.rows(np.arange(10)), some(10))


def test_a_file_that_is_too_short_is_refused(tmp_path: Path) -> None:
    file = filled(tmp_path, some(10))
    reader = VectorFile(tmp_path, space(128), 1)
    reader.check(10)
    file.path.write_bytes(file.path.read_bytes()[:-1])
    for ask in (
        lambda: reader.check(10),
        lambda: reader.rows(np.array([9])),
        lambda: reader.mapped(10),
        lambda: reader.append(10, some(1)),
    ):
        with pytest.raises(GalleryCorrupt, match="gallery build"):
            ask()


def test_a_missing_file_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"in the place of a folder")
    for folder in (tmp_path, tmp_path / "file", tmp_path / "file" / "space"):
        gone = VectorFile(folder, space(128), 7)
        with pytest.raises(FileNotFoundError):
            gone.check(1)
    with pytest.raises(FileNotFoundError):
        VectorFile(tmp_path, space(128), 7).append(0, some(1))
    VectorFile.create(tmp_path / "file" / "space", space(128)).append(0, some(1))


@pytest.mark.parametrize(
    "name", ["vectors-000041.f32", "cache-000041-9.arrays", "cache-000041-9.arrays.part"]
)
def test_generations_never_reuse_a_number_that_any_file_carries(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / "vectors-99.f32").touch()  # not one of ours
    assert VectorFile.create(tmp_path, space(8)).generation == 42
