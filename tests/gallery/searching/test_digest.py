"""A digest makes search quicker and changes nothing about what is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.types import Embedding, Space
from gallery.index import GalleryIndex
from gallery.records import Hit
from gallery.searching.digest import Frame, View, people_of, sketches_of
from gallery.searching.digesting import make_digest, renew_digest
from gallery.vectors import VectorFiles

NONE = np.empty(0, np.int64)
BACKBONE = "resnet"


def space(dimensions: int) -> Space:
    return Space(BACKBONE, "b" * 64, 1, dimensions)


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / length).astype(np.float32)


def append(
    files: VectorFiles,
    rows: int,
    vectors: NDArray[np.float32],
    persons: NDArray[np.int64],
    dead: NDArray[np.int64] = NONE,
) -> int:
    """Portrait ids are 1000 + the row."""
    ids = range(1000 + rows, 1000 + rows + len(vectors))
    return files.append(rows, vectors, ids, persons, dead) if len(vectors) else rows


def plainly(
    files: VectorFiles, rows: int, query: Embedding, k: int, dead: NDArray[np.int64] = NONE
) -> tuple[Hit, ...]:
    """What looking at every portrait finds."""
    aside = files.path("digest").rename(files.folder / "aside")
    found = GalleryIndex(files, rows, dead).top(query, k)
    aside.rename(files.path("digest"))
    return found


@settings(deadline=None, max_examples=60)
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
def test_a_digest_finds_what_looking_at_every_portrait_finds(
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
    files = VectorFiles.create(tmp_path_factory.mktemp("space"), space(dimensions))
    append(files, 0, vectors[:rows], persons[:rows])
    make_digest(files, rows, dead_then)
    total = append(files, rows, vectors[rows:], persons[rows:], dead_then)
    killed = np.flatnonzero(rng.random(total) < rng.choice([0, 0.1]))
    dead = np.union1d(dead_then, killed)
    digested, plain = (GalleryIndex(files, total, dead) for _ in range(2))
    if rng.random() < 0.5:
        query = unit(rng.standard_normal(dimensions) + apart)
    else:
        near = vectors[rng.integers(len(vectors))]
        query = unit(near + rng.choice([0, 0.02, 0.5]) * unit(rng.standard_normal(dimensions)))
    share = rng.choice([0.05, 0.5, 1])
    allowed = rng.random(len(plain)) < share if share < 1 else None
    embedding = Embedding(query, digested.space)
    found = digested.top(embedding, k, allowed=allowed)
    assert (digested._shortlist is None) == (len(plain) == 0)
    aside = files.path("digest").rename(files.folder / "aside")
    assert found == plain.top(embedding, k, allowed=allowed)
    assert plain._shortlist is None
    aside.rename(files.path("digest"))


def test_equal_people_come_in_the_order_of_their_ids(tmp_path: Path) -> None:
    """However many are equal: ties are what bounds could cut off."""
    rng = np.random.default_rng(1)
    one = unit(rng.standard_normal(512))
    persons = rng.permutation(300)
    vectors = np.concatenate([np.stack([one] * 300), unit(rng.standard_normal((300, 512)))])
    files = VectorFiles.create(tmp_path, space(512))
    rows = append(files, 0, vectors, np.concatenate([persons, persons + 300]))
    make_digest(files, rows, NONE)
    digested = GalleryIndex(files, rows, NONE)
    hits = digested.top(Embedding(one, space(512)), 200)
    assert [hit.person_id for hit in hits] == list(range(200))


def test_more_people_asked_for_than_there_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    files = VectorFiles.create(tmp_path, space(64))
    rows = append(files, 0, unit(rng.standard_normal((90, 64))), np.repeat(np.arange(30), 3))
    make_digest(files, rows, NONE)
    digested = GalleryIndex(files, rows, NONE)
    query = Embedding(unit(rng.standard_normal(64)), space(64))
    assert len(digested.top(query, 500)) == 30
    assert digested.top(query, 500) == plainly(files, rows, query, 500)


def test_portraits_that_cancel_each_other_out(tmp_path: Path) -> None:
    """A person without a direction is found by the best portrait."""
    rng = np.random.default_rng(3)
    others = unit(rng.standard_normal((40, 64)))
    files = VectorFiles.create(tmp_path, space(64))
    vectors = np.concatenate([others, others[:1], -others[:1]])
    rows = append(files, 0, vectors, np.concatenate([np.arange(40), [77, 77]]))
    make_digest(files, rows, NONE)
    digested = GalleryIndex(files, rows, NONE)
    query = Embedding(-others[0], space(64))
    assert digested.top(query, 3) == plainly(files, rows, query, 3)
    assert digested.top(query, 3)[0].person_id == 77


def test_a_wrong_photo_is_found_in_spite_of_the_others(tmp_path: Path) -> None:
    """Somebody whose fifth portrait shows somebody else is found by that photo."""
    rng = np.random.default_rng(4)
    faces = rng.standard_normal((2000, 128))
    persons = np.repeat(np.arange(2000), 5)
    vectors = unit(faces[persons] + 0.3 * rng.standard_normal((10_000, 128)))
    vectors[5 * 700 + 4] = unit(rng.standard_normal(128))
    files = VectorFiles.create(tmp_path, space(128))
    rows = append(files, 0, vectors, persons)
    make_digest(files, rows, NONE)
    (hit,) = GalleryIndex(files, rows, NONE).top(Embedding(vectors[3504], space(128)), 1)
    assert (hit.person_id, hit.portrait_id) == (700, 1000 + 3504)
    assert hit.cosine == pytest.approx(1.0, abs=1e-6)


@settings(deadline=None)  # the first call imports
@given(
    seed=st.integers(0, 2**32 - 1),
    dimensions=st.sampled_from([2, 8, 48]),
    apart=st.floats(0, 3),
    seen=st.floats(0.1, 1),
)
def test_bounds_are_bounds(seed: int, dimensions: int, apart: float, seen: float) -> None:
    """Whatever the frame: it decides how close they are, never whether they hold."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((dimensions, dimensions)))[0]
    basis = basis[: max(1, int(seen * dimensions))].astype(np.float32)
    frame = Frame((rng.standard_normal(dimensions) / dimensions**0.5).astype(np.float32), basis)
    counts = rng.integers(1, 5, 20)
    vectors = unit(rng.standard_normal((counts.sum(), dimensions)) + apart)
    starts = np.cumsum(counts) - counts
    query = unit(rng.standard_normal(dimensions) + apart)
    view = View(frame, query)
    sums = np.add.reduceat(vectors.astype(np.float64), starts, axis=0)
    true = unit(sums).astype(np.float64) @ query.astype(np.float64)
    people = people_of(frame, vectors, starts)
    assert (people.bounds(view) >= true).all()
    some = np.array([3, 17, 0])
    np.testing.assert_array_equal(people.bounds(view, some), people.bounds(view)[some])
    whose = np.repeat(np.arange(20, dtype=np.int32), counts)
    cosines = vectors.astype(np.float64) @ query.astype(np.float64)
    for level in (-0.5, 0.0, 0.3, 0.9):
        above = sketches_of(frame, vectors, whose).people_above(view, level)
        assert set(whose[cosines >= level].tolist()) <= set(above.tolist())


def test_bounds_are_close_enough_to_be_of_use(tmp_path: Path) -> None:
    """A search in a large gallery compares a few dozen people in full, not thousands."""
    rng = np.random.default_rng(5)
    people, dimensions = 3000, 600
    common = 0.8 * rng.standard_normal(dimensions)
    faces = common + rng.standard_normal((people, 60)) @ rng.standard_normal((60, dimensions)) / 8
    persons = np.repeat(np.arange(people), 3)
    vectors = unit(faces[persons] + 0.5 * rng.standard_normal((len(persons), dimensions)))
    files = VectorFiles.create(tmp_path, space(dimensions))
    rows = append(files, 0, vectors, persons)
    make_digest(files, rows, NONE)
    compared: list[int] = []

    class Counting(GalleryIndex):
        def compared(self, vector: NDArray[np.float32], people: NDArray[np.integer]) -> list[Hit]:
            compared.append(len(people))
            return super().compared(vector, people)

    index = Counting(files, rows, NONE)
    for _ in range(5):
        index.top(Embedding(unit(faces[0] + rng.standard_normal(dimensions)), index.space), 3)
    assert sum(compared) < 5 * 100


def test_a_small_space_needs_no_digest(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    files = VectorFiles.create(tmp_path, space(512))
    rows = append(files, 0, unit(rng.standard_normal((500, 512))), np.arange(500))
    assert not renew_digest(files, rows, NONE)
    assert files.digest(rows) is None


def test_a_digest_is_made_anew_when_enough_has_changed(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    files = VectorFiles.create(tmp_path, space(1024))
    vectors = unit(rng.standard_normal((20_000, 1024)))
    rows = append(files, 0, vectors[:18_000], np.arange(18_000) // 4)
    assert renew_digest(files, rows, NONE)
    assert not renew_digest(files, rows, NONE)
    assert not renew_digest(files, rows, np.arange(900))
    assert renew_digest(files, rows, np.arange(1_100))
    assert not renew_digest(files, rows, np.arange(1_100))
    rows = append(files, rows, vectors[rows:], np.arange(2_000), np.arange(1_100))
    assert renew_digest(files, rows, np.arange(1_100))
    digest = files.digest(rows)
    assert digest is not None
    assert digest.rows == rows


def test_a_digest_of_rows_that_do_not_count_is_not_used(tmp_path: Path) -> None:
    """An older copy of the catalogue was put back: the files know rows that it doesn't."""
    rng = np.random.default_rng(8)
    files = VectorFiles.create(tmp_path, space(16))
    append(files, 0, unit(rng.standard_normal((30, 16))), np.arange(30))
    make_digest(files, 30, NONE)
    assert files.digest(20) is None
    append(files, 20, unit(rng.standard_normal((40, 16))), np.arange(40))
    assert files.digest(60) is None


@pytest.mark.parametrize("damage", ["empty", "short", "garbage", "header", "other"])
def test_a_damaged_digest_counts_as_none(tmp_path: Path, damage: str) -> None:
    rng = np.random.default_rng(9)
    files = VectorFiles.create(tmp_path, space(16))
    rows = append(files, 0, unit(rng.standard_normal((30, 16))), np.arange(30))
    make_digest(files, rows, NONE)
    path = files.path("digest")
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    path.write_bytes(
        {
            "empty": b"",
            "short": content[:-10],
            "garbage": rng.bytes(len(content)),
            "header": content[:8] + b"x" * length + content[8 + length :],
            "other": content.replace(b'"rows"', b'"raws"'),
        }[damage]
    )
    assert files.digest(rows) is None
    query = Embedding(unit(rng.standard_normal(16)), space(16))
    assert len(GalleryIndex(files, rows, NONE).top(query, 3)) == 3


def test_who_has_mapped_a_digest_keeps_it(tmp_path: Path) -> None:
    """Making a new one does not disturb a search that uses the old one."""
    rng = np.random.default_rng(10)
    files = VectorFiles.create(tmp_path, space(64))
    vectors = unit(rng.standard_normal((300, 64)))
    rows = append(files, 0, vectors[:200], np.arange(200) // 2)
    make_digest(files, rows, NONE)
    digested = GalleryIndex(files, rows, NONE)
    query = Embedding(unit(rng.standard_normal(64)), space(64))
    expected = plainly(files, rows, query, 5)
    more = append(files, rows, vectors[200:], np.arange(100))
    make_digest(files, more, NONE)
    assert digested.top(query, 5) == expected
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_a_digest_made_meanwhile_is_used(tmp_path: Path) -> None:
    """A bot that opened the gallery before a long `gallery add` made it profits from it."""
    rng = np.random.default_rng(11)
    files = VectorFiles.create(tmp_path, space(64))
    rows = append(files, 0, unit(rng.standard_normal((200, 64))), np.arange(200) // 2)
    index = GalleryIndex(files, rows, NONE)
    query = Embedding(unit(rng.standard_normal(64)), space(64))
    before = index.top(query, 5)
    assert index._shortlist is None
    make_digest(files, rows, NONE)
    assert index.top(query, 5) == before
    assert index._shortlist is not None
    shortlist = index._shortlist
    for path in tmp_path.iterdir():
        path.unlink()  # swept by a build; what is mapped stays
    assert index.top(query, 5) == before
    assert index._shortlist is shortlist


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> tuple[VectorFiles, int, NDArray[np.float32]]:
    """30,000 people with 1 to 3 portraits, in a digest of candidates; and 60 faces of strangers."""
    rng = np.random.default_rng(12)
    common = rng.standard_normal(96)
    people = np.repeat(np.arange(30_000), rng.integers(1, 4, 30_000))
    spread = rng.standard_normal((40, 96)) / 4
    faces = 0.6 * common + rng.standard_normal((30_060, 40)) @ spread
    shots = faces[np.append(people, np.arange(30_000, 30_060))]
    vectors = unit(shots + 0.7 * rng.standard_normal(shots.shape))
    files = VectorFiles.create(tmp_path_factory.mktemp("crowd"), space(96))
    rows = append(files, 0, vectors[: len(people)], people)
    make_digest(files, rows, NONE, candidates=True)
    return files, rows, vectors[len(people) :]


def recall(found: list[tuple[Hit, ...]], expected: list[tuple[Hit, ...]]) -> float:
    """Share of those who should be found that are."""
    pairs = zip(found, expected, strict=True)
    hits = [len(set(some) & set(all_)) / len(all_) for some, all_ in pairs]
    return float(np.mean(hits))


@pytest.mark.parametrize("share", [1.0, 0.5, 0.35, 0.01])
def test_candidates_miss_hardly_anybody(
    crowd: tuple[VectorFiles, int, NDArray[np.float32]], share: float
) -> None:
    """What is found has the exact likeness, whoever may be found."""
    files, rows, probes = crowd
    index = GalleryIndex(files, rows, NONE)
    allowed = None if share == 1 else np.random.default_rng(13).random(len(index)) < share
    queries = [Embedding(probe, index.space) for probe in probes]
    found = [index.top(query, 3, allowed=allowed) for query in queries]
    assert index._shortlist is not None
    assert not index._shortlist.complete
    index._shortlist = None
    expected = [index.top(query, 3, allowed=allowed) for query in queries]
    assert recall(found, expected) >= 0.99


def test_candidates_where_those_who_may_be_found_are_unlike_the_face(
    crowd: tuple[VectorFiles, int, NDArray[np.float32]],
) -> None:
    """A category far from the face: none of its people is among the nearest of all."""
    files, rows, probes = crowd
    index = GalleryIndex(files, rows, NONE)
    query = Embedding(probes[0], index.space)
    everybody = index.likenesses(query, index.person_ids)
    allowed = everybody < np.quantile(everybody, 0.4)
    found = index.top(query, 3, allowed=allowed)
    best = np.flatnonzero(allowed)[np.argsort(-everybody[allowed], kind="stable")[:3]]
    assert [hit.person_id for hit in found] == index.person_ids[best].tolist()


def test_candidates_know_the_very_picture_and_who_came_later(
    crowd: tuple[VectorFiles, int, NDArray[np.float32]],
) -> None:
    """Somebody's odd photo, a new person, a person with a new photo, a removed one."""
    files, rows, probes = crowd
    records = files.records(rows)
    dead = np.flatnonzero(records["person"] == 29_999)
    more = append(files, rows, probes[:2], np.array([40_000, 7]), dead)
    index = GalleryIndex(files, more, dead)
    for probe, person in ((probes[0], 40_000), (probes[1], 7)):
        (hit,) = index.top(Embedding(probe, index.space), 1)
        assert hit.person_id == person
        assert hit.cosine == pytest.approx(1, abs=1e-6)
    vectors = files.reader(rows).rows(np.arange(0, rows, rows // 50))
    for row, vector in zip(range(0, rows, rows // 50), vectors, strict=False):
        (hit,) = index.top(Embedding(vector, index.space), 1)
        assert hit.person_id == records["person"][row]
    gone = files.reader(rows).rows(dead[:1])[0]
    assert index.top(Embedding(gone, index.space), 1)[0].person_id != 29_999


def test_more_people_than_candidates_can_be_asked_for(
    crowd: tuple[VectorFiles, int, NDArray[np.float32]],
) -> None:
    files, rows, probes = crowd
    index = GalleryIndex(files, rows, NONE)
    hits = index.top(Embedding(probes[5], index.space), 400)
    assert len({hit.person_id for hit in hits}) == 400
    assert [hit.cosine for hit in hits] == sorted((hit.cosine for hit in hits), reverse=True)
