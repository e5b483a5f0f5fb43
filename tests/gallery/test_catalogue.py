"""People and portraits: found by any spelling, in any number."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.types import Box, Space
from gallery import registrar
from gallery.catalogue import Catalogue
from gallery.database import changing, connect, migrate
from gallery.records import (
    FoundPerson,
    FoundPortrait,
    Rejected,
    category_name,
    folded,
    thumbnail_path,
)

_numbers = itertools.count(1)


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    database = connect(tmp_path / "gallery.db")
    migrate(database)
    yield Catalogue(database, tmp_path / "portraits")
    database.dispose()


def enrol(catalogue: Catalogue, *people: FoundPerson) -> list[int]:
    with changing(catalogue.database) as connection:
        registrar.note_change(connection)
        return [registrar.enrol_person(connection, person) for person in people]


def named(name: str, **more: object) -> FoundPerson:
    return FoundPerson(key=f"name:{name.casefold()}", name=name, **more)  # type: ignore[arg-type]


def portrait(catalogue: Catalogue, person_id: int, person: FoundPerson, **credit: str) -> int:
    with changing(catalogue.database) as connection:
        return registrar.enrol_portrait(
            connection,
            person_id,
            FoundPortrait(person=person, origin="x", read=lambda _: b"", **credit),
            sha256=f"{next(_numbers):064x}",
            size_px=(300, 400),
            landmarks=[[1.5, 2.25], [3, 4], [5, 6], [7, 8], [9, 10]],
            box=Box(1.0, 2.0, 3.5, 4.25),
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
def test_a_person_is_found_by_any_spelling(
    catalogue: Catalogue, asked: str, expected: str | None
) -> None:
    enrol(
        catalogue,
        named("Beyoncé"),
        named("Grace Hopper", wikidata_id="Q11641"),
        named("शाहरुख़ ख़ान"),
        named("Ёлка"),
        named("宮崎 駿"),
    )
    found = catalogue.find_person(asked)
    assert (found and found.name) == expected


def test_of_two_people_with_one_name_the_more_famous_is_meant(catalogue: Catalogue) -> None:
    enrol(
        catalogue,
        FoundPerson("Q1", "Michael Jackson", wikidata_id="Q1", fame=12),
        FoundPerson("Q2", "Michael Jackson", wikidata_id="Q2", fame=220),
        FoundPerson("Q3", "michael jackson", wikidata_id="Q3"),
    )
    found = catalogue.find_person("Michael Jackson")
    assert found is not None
    assert found.key == "Q2"
    lower = catalogue.find_person("michael jackson")
    assert lower is not None
    assert lower.key == "Q3"


@pytest.mark.parametrize(
    ("asked", "first"),
    [("Grace Hoper", "Grace Hopper"), ("hopper", "Grace Hopper"), ("tom hanx", "Tom Hanks")],
)
def test_close_names_are_suggested(catalogue: Catalogue, asked: str, first: str) -> None:
    enrol(catalogue, named("Grace Hopper"), named("Tom Hanks"), named("Zoe Saldana"))
    assert catalogue.close_names(asked)[0] == first
    assert catalogue.close_names("qqqqqqqq") == ()


def test_a_person_known_already_is_completed_not_doubled(catalogue: Catalogue) -> None:
    (first,) = enrol(catalogue, named("Serena Williams", categories=("Sports",)))
    (again,) = enrol(
        catalogue,
        named("Serena Williams", categories=("Tennis", "SPORTS"), country="US", fame=3, gender="f"),
    )
    (third,) = enrol(catalogue, named("Serena Williams"))
    assert first == again == third
    person = catalogue.find_person("serena williams")
    assert person is not None
    assert person.categories == ("sports", "tennis")
    assert (person.country, person.fame, person.gender) == ("US", 3, "f")


def test_people_are_listed_by_name_and_category(catalogue: Catalogue) -> None:
    enrol(
        catalogue,
        named("Zoë", categories=("film",)),
        named("émile", categories=("music", "film")),
        named("Adam"),
    )
    assert [p.name for p in catalogue.people()] == ["Adam", "émile", "Zoë"]
    assert [p.name for p in catalogue.people("FILM")] == ["émile", "Zoë"]
    assert catalogue.people("nothing") == ()
    assert catalogue.categories() == {"film": 2, "music": 1}
    assert len(catalogue.category_person_ids("film")) == 2


def test_a_portrait_is_read_as_it_was_written(catalogue: Catalogue) -> None:
    person = named("Grace Hopper")
    (person_id,) = enrol(catalogue, person)
    portrait_id = portrait(
        catalogue,
        person_id,
        person,
        author="US Navy",
        licence="Public domain",
        licence_url="https://example.org/pd",
        source_url="https://example.org/hopper",
    )
    (read,) = catalogue.portraits(person_id)
    assert read.id == portrait_id
    assert read.thumbnail == thumbnail_path(catalogue.portraits_folder, read.sha256)
    assert (read.width_px, read.height_px) == (300, 400)
    assert read.landmarks.dtype == np.float32
    assert read.landmarks.tolist()[0] == [1.5, 2.25]
    assert read.box == Box(1.0, 2.0, 3.5, 4.25)
    assert (read.author, read.licence) == ("US Navy", "Public domain")
    assert read.licence_url == "https://example.org/pd"
    assert read.source_url == "https://example.org/hopper"
    assert catalogue.portraits_by_id([portrait_id, 999]).keys() == {portrait_id}


def test_many_ids_are_looked_up_at_once(catalogue: Catalogue) -> None:
    people = [named(f"Person {number}") for number in range(1200)]
    ids = enrol(catalogue, *people)
    found = catalogue.people_by_id([*ids, 10**9])
    assert [found[one].name for one in ids] == [person.name for person in people]
    assert len(catalogue.people()) == 1200


def test_whoever_is_removed_leaves_nothing_and_their_id_is_not_given_again(
    catalogue: Catalogue,
) -> None:
    person = named("Tom Hanks", categories=("film", "only his"))
    (person_id, _) = enrol(catalogue, person, named("Adam", categories=("film",)))
    portrait(catalogue, person_id, person)
    with changing(catalogue.database) as connection:
        assert len(registrar.delete_person(connection, person_id)) == 1
    assert catalogue.counts() == (1, 0)
    assert catalogue.categories() == {"film": 1}
    assert catalogue.portraits(person_id) == ()
    assert enrol(catalogue, person)[0] > person_id


def test_a_rejection_is_remembered_for_the_rules_that_made_it(catalogue: Catalogue) -> None:
    sha256 = "c" * 64
    with changing(catalogue.database) as connection:
        registrar.remember_rejection(connection, sha256, "no face", 1)
        registrar.remember_rejection(connection, sha256, "several faces", 2)
    assert catalogue.known(sha256, 1) is None
    assert catalogue.known(sha256, 2) == Rejected("several faces")
    assert catalogue.rejections() == {"several faces": 1}


def test_the_revision_rises_with_every_change(catalogue: Catalogue) -> None:
    before = catalogue.revision()
    enrol(catalogue, named("Adam"))
    assert catalogue.revision() == before + 1


def test_what_failed_half_way_does_not_count(catalogue: Catalogue) -> None:
    def fail() -> None:
        with changing(catalogue.database) as connection:
            registrar.enrol_person(connection, named("Adam"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert catalogue.counts() == (0, 0)


def test_spaces_know_their_rows_and_their_dead(catalogue: Catalogue) -> None:
    space = Space("dlib", "d" * 64, 1, 128)
    with changing(catalogue.database) as connection:
        registrar.register_space(connection, space, 4)
        registrar.set_rows(connection, space, generation=4, row_count=9)
        registrar.bury_rows(connection, space, [7, 2])
    (state,) = catalogue.space_states()
    assert (state.space, state.generation, state.row_count) == (space, 4, 9)
    assert state.dead.tolist() == [2, 7]
    with changing(catalogue.database) as connection:
        registrar.delete_space(connection, space)
    assert catalogue.space_states() == ()


@given(name=st.text(max_size=40))
def test_folding_twice_is_folding_once(name: str) -> None:
    assert folded(folded(name)) == folded(name)
    assert category_name(category_name(name)) == category_name(name)
