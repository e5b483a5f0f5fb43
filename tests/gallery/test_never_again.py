"""Who asked to be removed stays away, whatever the source."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.engine import Engine
from gallery.add import add
from gallery.build import remove
from gallery.gallery import Gallery
from gallery.records import REMOVED, FoundPerson, FoundPortrait

Variant = Callable[[int], bytes]


def found(content: bytes, key: str, name: str, q_id: str | None = None) -> FoundPortrait:
    person = FoundPerson(key=key, name=name, wikidata_id=q_id)
    return FoundPortrait(person, f"{key} {len(content)}", lambda _most: content)


def test_a_removed_person_is_refused_from_every_source_until_permitted(
    gallery: Gallery, engine: Engine, variant: Variant
) -> None:
    add(
        gallery, engine, [found(variant(0), "Q11641", "Grace Hopper", "Q11641")], backbones=["dlib"]
    )
    person = gallery.find_person("Grace Hopper")
    assert person is not None
    remove(gallery, person, never_again=True)
    sources = [
        found(variant(0), "Q11641", "Grace Hopper", "Q11641"),
        found(variant(2), "name:grace hopper", "Grace Hopper"),
        found(variant(4), "Q11641", "Grace Brewster Hopper", "Q11641"),
    ]
    report = add(gallery, engine, sources, backbones=["dlib"])
    assert [rejection.reason for rejection in report.rejected] == [REMOVED] * 3
    assert gallery.people() == ()
    with gallery.writing(), gallery.transaction() as changes:
        assert changes.unban("grace hopper") == 1
    assert add(gallery, engine, sources[:1], backbones=["dlib"]).added == 1


@pytest.mark.parametrize(
    ("key", "name", "q_id", "stays_away"),
    [
        ("Q1", "Ann Lee", "Q1", True),
        ("Q2", "Ann Lee", "Q2", False),  # somebody else of that name, by Wikidata's word
        ("name:ann lee", "Ann Lee", None, True),
        ("name:ànn lee", "Ànn  LEE", None, True),
        ("Q3", "Bo Katan", "Q3", True),  # removed when only the name was known
        ("name:bo", "Bo", None, False),
    ],
)
def test_who_is_meant(
    gallery: Gallery,
    engine: Engine,
    variant: Variant,
    key: str,
    name: str,
    q_id: str | None,
    stays_away: bool,
) -> None:
    people = [
        found(variant(0), "Q1", "Ann Lee", "Q1"),
        found(variant(1), "name:bo katan", "Bo Katan"),
    ]
    add(gallery, engine, people, backbones=["dlib"])
    with gallery.writing(), gallery.transaction() as changes:
        for person in gallery.people() * 2:  # twice is once
            changes.ban(person.key, person.name, person.wikidata_id)
    assert (FoundPerson(key=key, name=name, wikidata_id=q_id) in gallery.banned()) is stays_away
