"""A cache makes search quicker and changes nothing about what is found."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from crowds import Crowd, enrolled
from hypothesis import given, settings
from hypothesis import strategies as st
from made_indexes import NONE, filled, index_of, space, unit
from numpy.typing import NDArray

from engine.types import Embedding
from gallery.gallery import Gallery
from gallery.records import Hit
from gallery.search import cache
from gallery.search import index as search_index
from gallery.search.cache import Codes, newest_cache, quantized, remove_caches, write_cache
from gallery.search.index import GalleryIndex
from gallery.vector_file import VectorFile


def cached(
    file: VectorFile,
    persons: NDArray[np.int64],
    dead: NDArray[np.int64] = NONE,
    *,
    with_finder: bool = False,
) -> GalleryIndex:
    """An index that has just made its cache."""
    index = index_of(file, persons, dead)
    with patch.object(cache, "SCANNED_BYTES", 0 if with_finder else 2**60):
        write_cache(file, index.rows, 1)
    return index


def plainly(index: GalleryIndex, query: Embedding, k: int, **how: object) -> tuple[Hit, ...]:
    """What looking at every portrait finds."""
    (path,) = index.file.folder.glob("cache-*")
    aside = path.rename(path.with_name("aside"))
    found = GalleryIndex(index.file, index.rows, 1).top(query, k, **how)  # type: ignore[arg-type]
    aside.rename(path)
    return found


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    people=st.integers(1, 120),
    rows=st.integers(1, 400),
    late=st.integers(0, 60),
    dimensions=st.sampled_from([2, 16, 128, 512]),
    k=st.integers(1, 12),
    spread=st.floats(0.01, 3),
    apart=st.floats(0, 4),
)
def test_a_cache_finds_what_looking_at_every_portrait_finds(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    people: int,
    rows: int,
    late: int,
    dimensions: int,
    k: int,
    spread: float,
    apart: float,
) -> None:
    """People near and far, some rows dead before it was made, some after, some rows new."""
    rng = np.random.default_rng(seed)
    persons = rng.integers(1, people + 1, rows + late)
    faces = rng.standard_normal((people + 1, dimensions)) + apart
    vectors = unit(faces[persons] + spread * rng.standard_normal((len(persons), dimensions)))
    strangers = rng.random(len(persons)) < 0.05  # a wrong photo in somebody's folder
    vectors[strangers] = unit(rng.standard_normal((int(strangers.sum()), dimensions)) + apart)
    dead_then = np.flatnonzero(rng.random(rows) < rng.choice([0, 0.2]))
    if len(dead_then) == rows:
        dead_then = NONE
    file = filled(tmp_path_factory.mktemp("space"), vectors[:rows])
    before = cached(file, persons[:rows], dead_then)
    if late:
        file.append(rows, vectors[rows:])
    killed = np.flatnonzero(rng.random(len(persons)) < rng.choice([0, 0.1]))
    dead = np.union1d(dead_then, killed)
    index = index_of(file, persons, dead, revision=2, before=before.rows)
    if rng.random() < 0.5:
        query = unit(rng.standard_normal(dimensions) + apart)
    else:
        near = vectors[rng.integers(len(vectors))]
        query = unit(near + rng.choice([0, 0.02, 0.5]) * unit(rng.standard_normal(dimensions)))
    share = rng.choice([0.05, 0.5, 1])
    allowed = rng.random(len(index)) < share if share < 1 else None
    embedding = Embedding(query, index.space)
    assert index.scan.cache
    fresh = index_of(file, persons, dead)
    np.testing.assert_allclose(index.rows.sum_norms, fresh.rows.sum_norms, rtol=1e-6)
    found = index.top(embedding, k, allowed=allowed)
    assert found == plainly(index, embedding, k, allowed=allowed)


def test_equal_people_come_in_the_order_of_their_ids(tmp_path: Path) -> None:
    """However many are equal: ties are what an approximation could cut off."""
    rng = np.random.default_rng(1)
    one = unit(rng.standard_normal(512))
    persons = rng.permutation(300)
    vectors = np.concatenate([np.stack([one] * 300), unit(rng.standard_normal((300, 512)))])
    index = cached(filled(tmp_path, vectors), np.concatenate([persons, persons + 300]))
    hits = index.top(Embedding(one, space(512)), 200)
    assert [hit.person_id for hit in hits] == list(range(200))


def test_more_people_asked_for_than_there_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    vectors = unit(rng.standard_normal((90, 64)))
    index = cached(filled(tmp_path, vectors), np.repeat(np.arange(30), 3))
    query = Embedding(unit(rng.standard_normal(64)), space(64))
    assert len(index.top(query, 500)) == 30
    assert index.top(query, 500) == plainly(index, query, 500)


def test_portraits_that_cancel_each_other_out(tmp_path: Path) -> None:
    """A person without a direction is found by the best portrait."""
    rng = np.random.default_rng(3)
    others = unit(rng.standard_normal((40, 64)))
    vectors = np.concatenate([others, others[:1], -others[:1]])
    index = cached(filled(tmp_path, vectors), np.concatenate([np.arange(40), [77, 77]]))
    query = Embedding(-others[0], space(64))
    assert index.top(query, 3) == plainly(index, query, 3)
    assert index.top(query, 3)[0].person_id == 77


def test_a_wrong_photo_is_found_in_spite_of_the_others(tmp_path: Path) -> None:
    """Somebody whose fifth portrait shows somebody else is found by that photo."""
    rng = np.random.default_rng(4)
    faces = rng.standard_normal((2000, 128))
    persons = np.repeat(np.arange(2000), 5)
    vectors = unit(faces[persons] + 0.3 * rng.standard_normal((10_000, 128)))
    vectors[5 * 700 + 4] = unit(rng.standard_normal(128))
    index = cached(filled(tmp_path, vectors), persons)
    (hit,) = index.top(Embedding(vectors[3504], space(128)), 1)
    assert (hit.person_id, hit.portrait_id) == (700, 1000 + 3504)
    assert hit.cosine == pytest.approx(1.0, abs=1e-6)


@settings(deadline=None)  # the first call imports
@given(seed=st.integers(0, 2**32 - 1), dimensions=st.integers(16, 600), apart=st.floats(0, 2))
def test_products_of_codes_are_as_near_as_they_say(
    seed: int, dimensions: int, apart: float
) -> None:
    rng = np.random.default_rng(seed)
    vectors = unit(rng.standard_normal((60, dimensions)) + apart)
    query = unit(rng.standard_normal(dimensions) + apart)
    centre = vectors.mean(axis=0)
    codes, scales, error = quantized(vectors - centre)
    made = Codes(centre, codes, scales, vectors @ centre, error)
    np.testing.assert_allclose(made.products(query), vectors @ query, atol=3 * error + 1e-6)
    some = np.array([7, 3])
    np.testing.assert_allclose(made.products(query, some), made.products(query)[some], atol=1e-6)


def test_a_small_space_needs_no_cache(tmp_path: Path) -> None:
    vectors = unit(np.random.default_rng(6).standard_normal((4_000, 512)))
    assert not index_of(filled(tmp_path / "few", vectors[:500]), np.arange(500)).settle()
    assert index_of(filled(tmp_path / "many", vectors), np.arange(4_000)).settle()


def test_a_cache_is_made_anew_when_enough_has_changed(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    vectors = unit(rng.standard_normal((20_000, 64)))
    file = filled(tmp_path, vectors[:18_000])
    people = np.arange(18_000) // 4
    first = index_of(file, people)
    assert first.settle()
    assert not first.settle()
    assert not index_of(file, people, np.arange(900), revision=2).settle()
    fewer = index_of(file, people, np.arange(1_100), revision=3)
    assert fewer.settle()
    assert not fewer.settle()
    file.append(18_000, vectors[18_000:])
    more = np.append(people, np.arange(2_000))
    assert index_of(file, more, np.arange(1_100), revision=4).settle()
    newest = newest_cache(file, 20_000, 4)
    assert newest is not None
    assert (newest.revision, newest.rows.row_count) == (4, 20_000)
    assert len(list(tmp_path.glob("cache-*"))) == 1


def test_a_gallery_is_settled_anew_when_enough_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen from how many vectors there are, or else person by person."""
    monkeypatch.setattr(search_index, "_CACHED_FROM_BYTES", 0)
    monkeypatch.setattr(search_index, "_FEW_CHANGES", 6)
    crowd = Crowd.of(128, 30)
    with enrolled(Gallery.open(tmp_path), crowd) as gallery:
        folder = gallery.space_folder(crowd.space)

        def settled() -> list[str]:
            gallery.refresh()
            with gallery.writing():
                gallery.settle(crowd.space)
            return [path.name for path in folder.glob("cache-*")]

        def remove(count: int) -> None:
            with gallery.transaction() as changes:
                changes.remove_portraits(gallery.portrait_ids()[:count].tolist())

        first = settled()
        remove(5)
        assert settled() == first != []
        remove(5)
        second = settled()
        assert second != first
        assert settled() == second


def test_a_cache_of_rows_that_do_not_count_is_not_used(tmp_path: Path) -> None:
    """An older copy of the database was put back: the files know rows that it doesn't."""
    rng = np.random.default_rng(8)
    file = filled(tmp_path, unit(rng.standard_normal((30, 16))))
    cached(file, np.arange(30))
    assert newest_cache(file, 30, 1) is not None
    assert newest_cache(file, 30, 0) is None
    assert newest_cache(file, 20, 1) is None
    remove_caches(tmp_path, beyond=30)
    assert newest_cache(file, 30, 1) is not None
    remove_caches(tmp_path, beyond=20)
    assert newest_cache(file, 60, 1) is None


@pytest.mark.parametrize(
    "damage", ["empty", "short", "longer", "garbage", "garbled end", "other types", "of others"]
)
def test_a_damaged_cache_counts_as_none(tmp_path: Path, damage: str) -> None:
    rng = np.random.default_rng(9)
    file = filled(tmp_path, unit(rng.standard_normal((300, 16))))
    people = np.arange(300)
    cached(file, people, with_finder=True)
    (path,) = tmp_path.glob("cache-*")
    content = path.read_bytes()
    damaged = {
        "empty": b"",
        "short": content[:-10],
        "longer": content + bytes(8),
        "garbage": rng.bytes(len(content)),
        "garbled end": content[:-100] + rng.bytes(92) + content[-8:],
        "other types": content.replace(b'"|i1"', b'"<O8"'),
        "of others": content.replace(b"[300, 16]", b"[150, 32]"),
    }
    assert damaged[damage] != content
    path.write_bytes(damaged[damage])
    query = Embedding(unit(rng.standard_normal(16)), space(16))
    assert newest_cache(file, 300, 1) is None
    assert len(index_of(file, people).top(query, 3)) == 3


def test_who_has_mapped_a_cache_keeps_it(tmp_path: Path) -> None:
    """Making a new one does not disturb a search that uses the old one."""
    rng = np.random.default_rng(10)
    vectors = unit(rng.standard_normal((300, 64)))
    file = filled(tmp_path, vectors[:200])
    people = np.arange(200) // 2
    index = cached(file, people)
    query = Embedding(unit(rng.standard_normal(64)), space(64))
    expected = plainly(index, query, 5)
    file.append(200, vectors[200:])
    later = index_of(file, np.append(people, np.arange(100)), revision=2)
    write_cache(file, later.rows, 2)
    assert index.top(query, 5) == expected
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_a_cache_made_meanwhile_is_used(tmp_path: Path) -> None:
    """A bot that opened the gallery before a long `gallery add` made it profits from it."""
    rng = np.random.default_rng(11)
    file = filled(tmp_path, unit(rng.standard_normal((200, 64))))
    index = index_of(file, np.arange(200) // 2)
    query = Embedding(unit(rng.standard_normal(64)), space(64))
    before = index.top(query, 5)
    assert not index.scan.cache
    write_cache(file, index.rows, 1)
    assert index.top(query, 5) == before
    assert index.scan.cache
    for path in tmp_path.iterdir():  # swept by a build; what is open stays
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert index.top(query, 5) == before


MadeCrowd = tuple[GalleryIndex, NDArray[np.int64], NDArray[np.float32]]


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> MadeCrowd:
    """30,000 people with 1 to 3 portraits, found by faiss; and 60 faces of strangers."""
    rng = np.random.default_rng(12)
    common = rng.standard_normal(96)
    people = np.repeat(np.arange(30_000), rng.integers(1, 4, 30_000))
    spread = rng.standard_normal((40, 96)) / 4
    faces = 0.6 * common + rng.standard_normal((30_060, 40)) @ spread
    shots = faces[np.append(people, np.arange(30_000, 30_060))]
    vectors = unit(shots + 0.7 * rng.standard_normal(shots.shape))
    file = filled(tmp_path_factory.mktemp("crowd"), vectors[: len(people)])
    return cached(file, people, with_finder=True), people, vectors[len(people) :]


def recall(found: list[tuple[Hit, ...]], expected: list[tuple[Hit, ...]]) -> float:
    """Share of those who should be found that are."""
    pairs = zip(found, expected, strict=True)
    hits = [len(set(some) & set(all_)) / len(all_) for some, all_ in pairs]
    return float(np.mean(hits))


@pytest.mark.parametrize("share", [1.0, 0.5, 0.35, 0.01])
def test_candidates_miss_hardly_anybody(crowd: MadeCrowd, share: float) -> None:
    """What is found has the exact likeness, whoever may be found."""
    index, _, probes = crowd
    allowed = None if share == 1 else np.random.default_rng(13).random(len(index)) < share
    queries = [Embedding(probe, index.space) for probe in probes]
    found = [index.top(query, 3, allowed=allowed) for query in queries]
    assert index.scan.cache is not None
    assert index.scan.cache.people is not None
    expected = [plainly(index, query, 3, allowed=allowed) for query in queries]
    assert recall(found, expected) >= 0.99


def test_candidates_where_those_who_may_be_found_are_unlike_the_face(
    crowd: MadeCrowd,
) -> None:
    """A category far from the face: none of its people is among the nearest of all."""
    index, _, probes = crowd
    query = Embedding(probes[0], index.space)
    everybody = index.likenesses(query, index.person_ids)
    allowed = everybody < np.quantile(everybody, 0.4)
    found = index.top(query, 3, allowed=allowed)
    best = np.flatnonzero(allowed)[np.argsort(-everybody[allowed], kind="stable")[:3]]
    assert [hit.person_id for hit in found] == index.person_ids[best].tolist()


def test_candidates_know_the_very_picture_and_who_came_later(
    crowd: MadeCrowd,
) -> None:
    """Somebody's odd photo, a new person, a person with a new photo, a removed one."""
    before, people, probes = crowd
    file, rows = before.file, len(people)
    dead = np.flatnonzero(people == 29_999)
    file.append(rows, probes[:2])
    persons = np.append(people, [40_000, 7])
    index = index_of(file, persons, dead, revision=2, before=before.rows)
    for probe, person in ((probes[0], 40_000), (probes[1], 7)):
        (hit,) = index.top(Embedding(probe, index.space), 1)
        assert hit.person_id == person
        assert hit.cosine == pytest.approx(1, abs=1e-6)
    some = np.arange(0, rows, rows // 50)
    for row, vector in zip(some.tolist(), file.rows(some), strict=True):
        (hit,) = index.top(Embedding(vector, index.space), 1)
        assert hit.person_id == people[row]
    gone = file.rows(dead[:1])[0]
    assert index.top(Embedding(gone, index.space), 1)[0].person_id != 29_999


def test_more_people_than_candidates_can_be_asked_for(
    crowd: MadeCrowd,
) -> None:
    index, _, probes = crowd
    hits = index.top(Embedding(probes[5], index.space), 400)
    assert len({hit.person_id for hit in hits}) == 400
    assert [hit.cosine for hit in hits] == sorted((hit.cosine for hit in hits), reverse=True)
