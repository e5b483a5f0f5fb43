"""Vectors on disk: what counts is what was counted, whatever a kill left behind."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.errors import GalleryCorrupt
from engine.types import Space
from gallery.searching.codes import quantized
from gallery.vectors import VectorFiles, newest_generation, write_atomically

NONE = np.empty(0, np.int64)


def space(dimensions: int = 8) -> Space:
    return Space("dlib", "a" * 64, 1, dimensions)


def unit(rng: np.random.Generator, rows: int, dimensions: int = 8) -> NDArray[np.float32]:
    vectors = rng.standard_normal((rows, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def sum_lengths(files: VectorFiles, rows: int, alive: NDArray[np.int64]) -> dict[int, float]:
    """Squared length of each person's sum, from the records."""
    records = files.records(rows)[alive]
    return {
        int(person): float(records["growth"][records["person"] == person].sum())
        for person in np.unique(records["person"])
    }


def test_what_was_appended_is_read_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    files = VectorFiles.create(tmp_path, space())
    first, second = unit(rng, 3), unit(rng, 2)
    assert files.append(0, first, [1, 2, 3], [7, 7, 8], NONE) == 3
    assert files.append(3, second, [4, 5], [8, 9], NONE) == 5
    again = VectorFiles.open(tmp_path, space(), files.manifest.generation)
    np.testing.assert_array_equal(again.vectors(5), np.concatenate([first, second]))
    assert again.records(5)["portrait"].tolist() == [1, 2, 3, 4, 5]
    assert again.records(5)["person"].tolist() == [7, 7, 8, 8, 9]


def test_rows_that_were_never_counted_are_overwritten(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    files = VectorFiles.create(tmp_path, space())
    files.append(0, unit(rng, 2), [1, 2], [1, 1], NONE)
    files.append(2, unit(rng, 50), range(90, 140), [9] * 50, NONE)  # killed before the commit
    with files.path("vectors").open("ab") as torn:
        torn.write(b"half a row")
    counted = unit(rng, 1)
    files.append(2, counted, [3], [2], NONE)
    np.testing.assert_array_equal(files.vectors(3)[2:], counted)
    assert files.records(3)["portrait"].tolist() == [1, 2, 3]


def test_a_reader_keeps_what_it_mapped(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    files = VectorFiles.create(tmp_path, space())
    vectors = unit(rng, 4)
    files.append(0, vectors, [1, 2, 3, 4], [1, 1, 2, 2], NONE)
    mapped = files.vectors(4)
    files.append(4, unit(rng, 100), range(100), range(100), NONE)
    for path in tmp_path.iterdir():
        path.unlink()
    np.testing.assert_array_equal(mapped, vectors)


@given(
    remembered=st.booleans(),
    batches=st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=5), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
)
def test_growth_adds_up_to_the_length_of_each_persons_sum(
    tmp_path_factory: pytest.TempPathFactory,
    remembered: bool,
    batches: list[list[int]],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    files = VectorFiles.create(tmp_path_factory.mktemp("space"), space())
    owners = files.owners() if remembered else None
    rows = 0
    for persons in batches:
        if rng.random() < 0.3:  # a transaction that was taken back
            others = rng.integers(1, 5, 7).tolist()
            files.append(rows, unit(rng, 7), [0] * 7, others, NONE, owners)
        rows = files.append(
            rows, unit(rng, len(persons)), [0] * len(persons), persons, NONE, owners
        )
    vectors, records = files.vectors(rows).astype(np.float64), files.records(rows)
    for person, length in sum_lengths(files, rows, np.arange(rows)).items():
        total = vectors[records["person"] == person].sum(axis=0)
        assert length == pytest.approx(total @ total, abs=1e-9)


def test_compacting_drops_the_dead_and_sorts_by_person(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    files = VectorFiles.create(tmp_path, space(512))
    vectors = unit(rng, 5, 512)
    files.append(0, vectors, [1, 2, 3, 4, 5], [2, 1, 2, 3, 1], NONE)
    fresh = files.compacted(5, np.array([0, 3]))
    assert fresh.manifest.rows == 3
    assert fresh.manifest.generation == files.manifest.generation + 1
    assert fresh.records(3)["portrait"].tolist() == [2, 5, 3]
    np.testing.assert_array_equal(fresh.vectors(3), vectors[[1, 4, 2]])
    codes = fresh.codes(3)
    assert codes is not None
    np.testing.assert_array_equal(codes, quantized(vectors[[1, 4, 2]])[0])
    both = vectors[[1, 4]].astype(np.float64).sum(axis=0)
    assert sum_lengths(fresh, 3, np.arange(3))[1] == pytest.approx(both @ both)


def test_compacting_everything_away_leaves_no_rows(tmp_path: Path) -> None:
    files = VectorFiles.create(tmp_path, space())
    files.append(0, unit(np.random.default_rng(5), 1), [1], [1], NONE)
    fresh = files.compacted(1, np.array([0]))
    assert fresh.manifest.rows == 0
    assert fresh.vectors(0).shape == (0, 8)


def test_growth_does_not_count_the_dead(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    files = VectorFiles.create(tmp_path, space())
    vectors = unit(rng, 3)
    files.append(0, vectors[:2], [1, 2], [1, 1], NONE)
    files.append(2, vectors[2:], [3], [1], np.array([0]))
    expected = 1 + 2 * float(vectors[2].astype(np.float64) @ vectors[1])
    assert files.records(3)["growth"][2] == pytest.approx(expected, abs=1e-6)


@given(seed=st.integers(0, 2**32 - 1), tail=st.floats(0.5, 6))
def test_codes_are_as_near_to_the_vector_as_they_say(seed: int, tail: float) -> None:
    rng = np.random.default_rng(seed)
    raw = np.sign(rng.standard_normal((4, 64))) * rng.random((4, 64)) ** tail
    vectors = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
    codes, scales, errors = quantized(vectors)
    off = vectors.astype(np.float64) - codes.astype(np.float64) * scales[:, None].astype(np.float64)
    assert codes.dtype == np.int8
    assert (np.linalg.norm(off, axis=1) <= errors).all()
    assert (errors < 0.1).all()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"format": 2}',
        b'{"format": 1, "dtype": "<f4", "space": {}}',
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(tmp_path: Path, content: bytes) -> None:
    files = VectorFiles.create(tmp_path, space())
    files.path("manifest").write_bytes(content)
    with pytest.raises(GalleryCorrupt, match="gallery build"):
        VectorFiles.open(tmp_path, space(), 1)


def test_a_manifest_of_another_space_is_refused(tmp_path: Path) -> None:
    files = VectorFiles.create(tmp_path, space())
    manifest = json.loads(files.path("manifest").read_bytes())
    manifest["space"]["recipe"] = 2
    files.path("manifest").write_text(json.dumps(manifest))
    with pytest.raises(GalleryCorrupt):
        VectorFiles.open(tmp_path, space(), 1)


@pytest.mark.parametrize("kind", ["vectors", "records", "codes"])
def test_a_file_that_is_too_short_is_refused(tmp_path: Path, kind: str) -> None:
    files = VectorFiles.create(tmp_path, space(512))
    files.append(0, unit(np.random.default_rng(7), 2, 512), [1, 2], [1, 2], NONE)
    content = files.path(kind).read_bytes()
    files.path(kind).write_bytes(content[:-1])
    with pytest.raises(GalleryCorrupt):
        {"vectors": files.vectors, "records": files.records, "codes": files.codes}[kind](2)


def test_a_file_that_becomes_too_short_is_noticed(tmp_path: Path) -> None:
    files = VectorFiles.create(tmp_path, space(512))
    vectors = unit(np.random.default_rng(8), 4, 512)
    files.append(0, vectors, [1, 2, 3, 4], [1, 2, 3, 4], NONE)
    reader = files.reader(4)
    np.testing.assert_array_equal(reader.rows(np.array([3, 0, 1])), vectors[[3, 0, 1]])
    assert reader.rows(np.empty(0, np.int64)).shape == (0, 512)
    with files.path("vectors").open("r+b") as file:
        file.truncate(3 * 512 * 4)
    with pytest.raises(GalleryCorrupt):
        reader.rows(np.array([0, 3]))


def test_a_missing_generation_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        VectorFiles.open(tmp_path, space(), 1)


def test_generations_never_reuse_a_number_that_any_file_carries(tmp_path: Path) -> None:
    assert newest_generation(tmp_path / "nowhere") == 0
    VectorFiles.create(tmp_path, space())
    (tmp_path / "vectors-000041.f32").write_bytes(b"")  # left behind by a killed build
    assert VectorFiles.create(tmp_path, space()).manifest.generation == 42


def test_replacing_a_file_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_threads_may_replace_one_file_at_once(tmp_path: Path) -> None:
    contents = [bytes([number]) * 50_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            list(
                pool.map(
                    lambda content: write_atomically(tmp_path / "a", content, durable=False),
                    contents,
                )
            )
    assert (tmp_path / "a").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_that_cannot_be_replaced_leaves_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(OSError, match=r"a\.json"):
        write_atomically(tmp_path / "a.json", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_appending_to_many_rows_reads_few_of_their_records(tmp_path: Path) -> None:
    """Else the time to add a million portraits would grow with the square of their number."""
    rng = np.random.default_rng(9)
    files = VectorFiles.create(tmp_path, space())
    owners = files.owners()
    rows = files.append(0, unit(rng, 50_000), range(50_000), np.arange(50_000) // 2, NONE, owners)
    rows = files.append(rows, unit(rng, 1), [50_000], [77], NONE, owners)
    with files.path("records").open("r+b") as file:
        file.write(b"\xff" * 32 * 40_000)  # not looked at again
    late = unit(rng, 1)
    files.append(rows, late, [50_001], [78], NONE, owners)
    expected = 1 + 2 * (late[0].astype(np.float64) @ files.vectors(rows)[[156, 157]].sum(axis=0))
    assert files.records(rows + 1)["growth"][rows] == pytest.approx(expected, abs=1e-5)
