"""PostgreSQL finds the people that a folder's gallery finds, in the same order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from crowds import Crowd, enrolled, found, unit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres_server import PostgresServer, name_of

from engine.errors import SpaceMismatch, TryLater
from engine.types import Embedding
from gallery.build import remove
from gallery.gallery import Gallery
from gallery.search import pgvector
from gallery.search.pgvector import has_index

PEOPLE = 600


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """A database of the test's own with an empty gallery."""
    return postgres.gallery()


@pytest.fixture
def shared(postgres_url: str, tmp_path: Path) -> Iterator[Gallery]:
    with Gallery.open(tmp_path / "shared", postgres_url) as gallery:
        yield gallery


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Gallery]:
    with Gallery.open(tmp_path / "own") as gallery:
        yield gallery


@pytest.mark.parametrize("dimensions", [128, 2048])
def test_the_same_people_are_found_as_in_a_folder(
    shared: Gallery, own: Gallery, dimensions: int
) -> None:
    crowd = Crowd.of(dimensions, PEOPLE)
    enrolled(shared, crowd)
    enrolled(own, crowd)
    for number, query in enumerate(crowd.queries(15)):
        category = (None, "odd")[number % 2]
        k = (10, 1, 3)[number % 3]
        assert found(shared, query, k, category) == found(own, query, k, category)
    indexes = shared.index(crowd.space), own.index(crowd.space)
    everybody = np.append(indexes[0].person_ids[::-7], 10**6)
    theirs, ours = (index.likenesses(query, everybody) for index in indexes)
    np.testing.assert_array_equal(theirs, ours)
    assert np.isnan(theirs[-1])
    assert not np.isnan(theirs[:-1]).any()
    for limit in (10**6, 900):
        (some, whose), (others, owners) = (index.training_rows(limit) for index in indexes)
        np.testing.assert_array_equal(some, others)
        np.testing.assert_array_equal(whose, owners)


@st.composite
def crowds(draw: st.DrawFn) -> tuple[Crowd, list[Embedding]]:
    """A few people in few dimensions: many are equal, some cancel themselves out."""
    dimensions = draw(st.sampled_from([2, 3, 5]))
    whole = st.lists(st.integers(-2, 2), min_size=dimensions, max_size=dimensions).filter(any)
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    owners = np.repeat(np.arange(len(sizes)), sizes)
    vectors = unit(np.array([draw(whole) for _ in owners], np.float64))
    crowd = replace(Crowd.of(dimensions, 1), vectors=vectors, owners=owners)
    queries = [unit(np.array(draw(whole), np.float64)) for _ in range(4)]
    return crowd, [Embedding(query, crowd.space) for query in queries]


@given(drawn=crowds(), k=st.integers(1, 7))
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_equal_opposite_and_few_vectors_are_found_in_the_same_order(
    postgres: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
    drawn: tuple[Crowd, list[Embedding]],
    k: int,
) -> None:
    crowd, queries = drawn
    folder = tmp_path_factory.mktemp("law")
    with (
        Gallery.open(folder / "shared", postgres.gallery()) as shared,
        Gallery.open(folder / "own") as own,
    ):
        enrolled(shared, crowd)
        enrolled(own, crowd)
        for query in queries:
            assert found(shared, query, k) == found(own, query, k)


@pytest.mark.parametrize(("dimensions", "people"), [(128, PEOPLE), (2048, 300)])
def test_an_index_finds_nearly_everybody_that_comparing_all_finds(
    shared: Gallery, monkeypatch: pytest.MonkeyPatch, dimensions: int, people: int
) -> None:
    crowd = Crowd.of(dimensions, people, falling=1.0)
    enrolled(shared, crowd)
    queries = crowd.queries(50)
    exact = [found(shared, query, 3) for query in queries]
    shared.refresh()
    shared.settle(crowd.space)
    assert not _is_indexed(shared, crowd)  # they are too few

    monkeypatch.setattr(pgvector, "INDEX_FROM_NUMBERS", people * dimensions)
    shared.refresh()
    shared.settle(crowd.space)
    assert _is_indexed(shared, crowd)
    proposed = [found(shared, query, 3) for query in queries]
    hits = sum(len(set(one) & set(other)) for one, other in zip(exact, proposed, strict=True))
    assert hits >= 0.99 * 3 * len(queries)
    assert _scans(shared, crowd, least=len(queries)) >= len(queries)
    # Those of a category are all compared, and the index is not asked.
    by_category = [found(shared, query, 3, "odd") for query in queries[:9]]
    assert _scans(shared, crowd) == len(queries)

    # What comes and goes afterwards is in the index, too.
    newcomer = unit(np.random.default_rng(9).standard_normal(dimensions))
    first = shared.people()[0]
    remove(shared, first)
    one = replace(crowd, vectors=newcomer[None], owners=np.zeros(1, np.int64))
    enrolled(shared, one)
    assert found(shared, Embedding(newcomer, crowd.space), 1)[0][:2] == ("key 0", 1.0)

    monkeypatch.undo()
    shared.refresh()
    shared.settle(crowd.space)
    assert not _is_indexed(shared, crowd)
    assert [found(shared, query, 3, "odd") for query in queries[:9]] == by_category


def _is_indexed(gallery: Gallery, crowd: Crowd) -> bool:
    with gallery.reading() as connection:
        return has_index(connection, crowd.space)


def _scans(gallery: Gallery, crowd: Crowd, least: int = 0) -> int:
    """How often the index was asked; each connection counts with a delay."""
    statement = "SELECT pg_stat_force_next_flush(), idx_scan FROM pg_stat_user_indexes "
    before = -1
    for _ in range(400):
        time.sleep(0.05)
        with gallery.reading() as connection:
            row = connection.exec_driver_sql(
                f"{statement} WHERE indexrelname = 'hnsw-{crowd.space.id}'"
            ).one()
        if row.idx_scan == before >= least:
            break
        before = row.idx_scan
    return int(before)


def test_an_index_held_by_somebody_sees_what_others_change(
    shared: Gallery, postgres_url: str, tmp_path: Path
) -> None:
    crowd = Crowd.of(128, 20)
    enrolled(shared, crowd)
    held = shared.index(crowd.space)
    query = Embedding(crowd.vectors[0], crowd.space)
    before = held.top(query, 3)
    with Gallery.open(tmp_path / "elsewhere", postgres_url) as other:
        remove(other, other.people_by_id([before[0].person_id])[before[0].person_id])
    allowed = np.ones(len(held), dtype=np.bool_)
    assert len(held) == len(held.person_ids) == 20
    assert [hit.person_id for hit in held.top(query, 2)] == [hit.person_id for hit in before[1:]]
    assert held.top(query, 2, allowed=allowed) == held.top(query, 2)
    assert np.isnan(held.likenesses(query, np.array([before[0].person_id])))


def test_a_face_of_another_model_is_refused(shared: Gallery) -> None:
    crowd = Crowd.of(128, 3)
    enrolled(shared, crowd)
    other = replace(crowd.space, recipe=2)
    query = Embedding(crowd.vectors[0], other)
    index = shared.index(crowd.space)
    for ask in (lambda: index.top(query, 1), lambda: index.likenesses(query, index.person_ids)):
        with pytest.raises(SpaceMismatch, match="gallery build --model dlib"):
            ask()
    with pytest.raises(SpaceMismatch, match="another version"):
        shared.top_matches(query, 1)


def test_a_connection_lost_in_a_search_means_try_later(
    shared: Gallery, postgres: PostgresServer, postgres_url: str
) -> None:
    crowd = Crowd.of(128, 20)
    enrolled(shared, crowd)
    query = Embedding(crowd.vectors[0], crowd.space)
    name = name_of(postgres_url)
    assert postgres.cut(name) > 0
    assert len(found(shared, query, 3)) == 3  # those that waited in the pool are made anew

    problems = []

    def search() -> None:
        try:
            shared.top_matches(query, 3)
        except TryLater as problem:
            problems.append(problem)

    with shared.database.connect() as blocking:
        blocking.exec_driver_sql("LOCK TABLE person_vector")
        thread = threading.Thread(target=search)
        thread.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while postgres.run(f"{waiting} AND datname = '{name}'") == [(0,)]:
            time.sleep(0.01)
        postgres.cut(name)
        thread.join()
        blocking.invalidate()
    assert [str(problem) for problem in problems] == [
        f"the database {shared.place} does not answer (AdminShutdown)"
    ]
    assert len(found(shared, query, 3)) == 3
