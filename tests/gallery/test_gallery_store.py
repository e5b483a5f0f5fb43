"""People and portraits: found by any spelling, in any number."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.types import Box, Space
from gallery.gallery import Gallery as Store
from gallery.gallery import Snapshot
from gallery.records import (
    FoundPerson,
    FoundPortrait,
    Hit,
    Thumbnail,
    category_name,
    folded,
)

_numbers = itertools.count(1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    yield opened
    opened.close()


def enrol(store: Store, *people: FoundPerson) -> list[int]:
    with store.transaction() as changes:
        return [changes.add_person(person) for person in people]


def named(name: str, **more: object) -> FoundPerson:
    return FoundPerson(key=f"name:{name.casefold()}", name=name, **more)  # type: ignore[arg-type]


SMALL = Thumbnail(
    b"jpeg",
    300,
    400,
    np.array([[1.5, 2.25], [3, 4], [5, 6], [7, 8], [9, 10]], np.float32),
    Box(1.0, 2.0, 3.5, 4.25),
)


def portrait(
    store: Store, person_id: int, person: FoundPerson, kept: Thumbnail = SMALL, **credit: str
) -> int:
    with store.transaction() as changes:
        return changes.add_portrait(
            person_id,
            FoundPortrait(person=person, origin="x", read=lambda _: b"", **credit),
            f"{next(_numbers):064x}",
            kept,
        )


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("Beyoncé", "Beyoncé"),
        ("beyonce", "Beyoncé"),
        ("  BEYONCÉ ", "Beyoncé"),
        ("Grace_Hopper", "Grace Hopper"),
        ("grace   hopper", "Grace Hopper"),
        ("name:grace hopper", "Grace Hopper"),
        ("q11641", "Grace Hopper"),
        ("शाहरुख़ ख़ान", "शाहरुख़ ख़ान"),
        ("ЁЛКА", "Ёлка"),
        ("елка", "Ёлка"),
        ("宮崎 駿", "宮崎 駿"),
        ("Nobody", None),
        ("", None),
        ("%", None),
    ],
)
def test_a_person_is_found_by_any_spelling(store: Store, asked: str, expected: str | None) -> None:
    enrol(
        store,
        named("Beyoncé"),
        named("Grace Hopper", wikidata_id="Q11641"),
        named("शाहरुख़ ख़ान"),
        named("Ёлка"),
        named("宮崎 駿"),
    )
    found = store.find_person(asked)
    assert (found and found.name) == expected


def test_of_two_people_with_one_name_the_more_famous_is_meant(store: Store) -> None:
    enrol(
        store,
        FoundPerson("Q1", "Michael Jackson", wikidata_id="Q1", fame=12),
        FoundPerson("Q2", "Michael Jackson", wikidata_id="Q2", fame=220),
        FoundPerson("Q3", "michael jackson", wikidata_id="Q3"),
    )
    found = store.find_person("Michael Jackson")
    assert found is not None
    assert found.key == "Q2"
    lower = store.find_person("michael jackson")
    assert lower is not None
    assert lower.key == "Q3"


@pytest.mark.parametrize(
    ("asked", "first"),
    [("Grace Hoper", "Grace Hopper"), ("hopper", "Grace Hopper"), ("tom hanx", "Tom Hanks")],
)
def test_close_names_are_suggested(store: Store, asked: str, first: str) -> None:
    enrol(store, named("Grace Hopper"), named("Tom Hanks"), named("Zoe Saldana"))
    assert store.close_names(asked)[0] == first
    assert store.close_names("qqqqqqqq") == ()


def test_a_person_known_already_is_completed_not_doubled(store: Store) -> None:
    (first,) = enrol(store, named("Serena Williams", categories=("Sports",)))
    (again,) = enrol(
        store,
        named("Serena Williams", categories=("Tennis", "SPORTS"), country="US", fame=3, gender="f"),
    )
    (third,) = enrol(store, named("Serena Williams"))
    assert first == again == third
    person = store.find_person("serena williams")
    assert person is not None
    assert person.categories == ("sports", "tennis")
    assert (person.country, person.fame, person.gender) == ("US", 3, "f")


def test_people_are_listed_by_name_and_category(store: Store) -> None:
    enrol(
        store,
        named("Zoë", categories=("film",)),
        named("émile", categories=("music", "film")),
        named("Adam"),
    )
    assert [p.name for p in store.people()] == ["Adam", "émile", "Zoë"]
    assert [p.name for p in store.people("FILM")] == ["émile", "Zoë"]
    assert store.people("nothing") == ()
    assert store.category_sizes() == {"film": 2, "music": 1}
    assert len(store.category_person_ids("film")) == 2


def test_a_portrait_is_read_as_it_was_written(store: Store) -> None:
    person = named("Grace Hopper")
    (person_id,) = enrol(store, person)
    portrait_id = portrait(
        store,
        person_id,
        person,
        author="US Navy",
        licence="Public domain",
        licence_url="https://example.org/pd",
        source_url="https://example.org/hopper",
    )
    (read,) = store.portraits(person_id)
    assert read.id == portrait_id
    assert store.photo(read) == b"jpeg"
    assert (read.width_px, read.height_px) == (300, 400)
    assert read.landmarks.dtype == np.float32
    assert read.landmarks.tolist()[0] == [1.5, 2.25]
    assert read.box == Box(1.0, 2.0, 3.5, 4.25)
    assert (read.author, read.licence) == ("US Navy", "Public domain")
    assert read.licence_url == "https://example.org/pd"
    assert read.source_url == "https://example.org/hopper"
    assert store.portraits_by_id([portrait_id, 999]).keys() == {portrait_id}


def picture(*, bytes_px: float = 0.25, face_px: int = 150, aside_px: int = 0) -> Thumbnail:
    """A portrait of 400 x 500 px as it looks from so far aside."""
    points = [(165, 200), (235, 200), (200 + aside_px, 240), (170, 275), (230, 275)]
    jpeg = b"x" * round(bytes_px * 400 * 500)
    box = Box(200 - face_px / 2, 160, face_px, 1.2 * face_px)
    return Thumbnail(jpeg, 400, 500, np.array(points, np.float32), box)


@pytest.mark.parametrize(
    ("nearest", "other", "shown"),
    [
        (picture(), picture(), 0),
        (picture(bytes_px=0.2), picture(), 0),  # as good
        (picture(bytes_px=0.05), picture(), 1),  # blurred or dark
        (picture(face_px=60), picture(), 1),
        (picture(aside_px=40), picture(), 1),
        (picture(), picture(aside_px=40), 0),
        (replace(picture(), jpeg=None), picture(face_px=40), 1),  # a silhouette
    ],
)
def test_the_best_looking_portrait_is_shown(
    store: Store, nearest: Thumbnail, other: Thumbnail, shown: int
) -> None:
    """Unless that most like the face looks about as good."""
    person = named("Grace Hopper")
    (person_id,) = enrol(store, person)
    ids = [portrait(store, person_id, person, kept) for kept in (nearest, other)]
    found = Snapshot(store).recall([Hit(person_id, ids[0], 0.5)])
    assert [(one.id, it.id) for _, one, it in found] == [(person_id, ids[shown])]
    assert Snapshot(store).recall([Hit(person_id, 999, 0.5), Hit(999, ids[0], 0.5)]) == []


def test_many_ids_are_looked_up_at_once(store: Store) -> None:
    people = [named(f"Person {number}") for number in range(1200)]
    ids = enrol(store, *people)
    found = store.people_by_id([*ids, 10**9])
    assert [found[one].name for one in ids] == [person.name for person in people]
    assert len(store.people()) == 1200


def test_whoever_is_removed_leaves_nothing_and_their_id_is_not_given_again(
    store: Store,
) -> None:
    person = named("Tom Hanks", categories=("film", "only his"))
    (person_id, _) = enrol(store, person, named("Adam", categories=("film",)))
    portrait(store, person_id, person)
    with store.transaction() as changes:
        assert changes.remove_person(person_id) == 1
    assert store.counts() == (1, 0)
    assert store.category_sizes() == {"film": 1}
    assert store.portraits(person_id) == ()
    assert enrol(store, person)[0] > person_id


def test_a_rejection_is_remembered_for_the_rules_that_made_it(store: Store) -> None:
    sha256 = "c" * 64
    with store.transaction() as changes:
        changes.reject(sha256, "no face", 1)
        changes.reject(sha256, "several faces", 2)
    assert store.known(sha256, 1) is None
    assert store.known(sha256, 2) == "several faces"
    assert store.stats().rejections == {"several faces": 1}


def test_the_revision_rises_with_every_change(store: Store) -> None:
    before = store.revision()
    enrol(store, named("Adam"))
    assert store.revision() == before + 1


def test_what_failed_half_way_does_not_count(store: Store) -> None:
    def fail() -> None:
        with store.transaction() as changes:
            changes.add_person(named("Adam"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert store.counts() == (0, 0)


def test_a_space_knows_its_rows_and_forgets_the_dead(store: Store) -> None:
    space = Space("dlib", "d" * 64, 1, 128)
    person = named("Adam")
    (person_id,) = enrol(store, person)
    ids = [portrait(store, person_id, person) for _ in range(9)]
    vectors = np.eye(9, 128, dtype=np.float32)
    with store.transaction() as changes:
        changes.add_vectors(space, vectors, ids)
    with store.transaction() as changes:
        changes.remove_portraits([ids[7], ids[2]])
    left = np.delete(np.array(ids), [2, 7])
    (state,) = store.space_states()
    assert (state.space, state.generation, state.row_count) == (space, 1, 9)
    assert store.embedded(space).tolist() == left.tolist()
    assert store.compact(space)
    assert not store.compact(space)
    (state,) = store.space_states()
    assert (state.generation, state.row_count) == (2, 7)
    assert store.sweep_vectors() == 1
    np.testing.assert_array_equal(store.vectors(space, left), np.delete(vectors, [2, 7], axis=0))
    assert store.vector_file(state).path.stat().st_size == 7 * 4 * 128
    with store.transaction() as changes:
        changes.remove_space(space)
    assert store.space_states() == ()


def test_two_people_become_one(store: Store) -> None:
    space = Space("dlib", "d" * 64, 1, 8)
    people = named("Grace", fame=3), named("Grace Hopper", categories=("navy",), country="US")
    ids = enrol(store, *people)
    pictures = [portrait(store, *one) for one in zip(ids, people, strict=True)]
    vectors = np.eye(2, 8, dtype=np.float32)
    with store.transaction() as changes:
        changes.add_vectors(space, vectors, pictures)
    kept, other = (store.people_by_id(ids)[one] for one in ids)
    with store.transaction() as changes:
        changes.merge_people(kept, other)
    (person,) = store.people()
    assert (person.id, person.categories, person.country) == (kept.id, ("navy",), "US")
    assert [one.id for one in store.portraits(kept.id)] == pictures
    np.testing.assert_array_equal(store.vectors(space, np.array(pictures)), vectors)


def test_what_is_read_within_a_block_is_of_one_moment(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path)
    with store.reading():
        assert store.people() == ()
        enrol(other, named("Adam"))
        assert store.people() == ()
    assert len(store.people()) == 1
    with store.transaction() as changes:
        changes.add_person(named("Eve"))
        assert len(store.people()) == 2
        assert len(other.people()) == 1
    other.close()


@given(name=st.text(max_size=40))
def test_folding_twice_is_folding_once(name: str) -> None:
    assert folded(folded(name)) == folded(name)
    assert category_name(category_name(name)) == category_name(name)
