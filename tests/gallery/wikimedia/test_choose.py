"""Whose pictures are taken where Wikidata's own can't be, and who is who."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from wikimedia_server import Fact, Picture, Wiki, playing

from engine.engine import Engine
from engine.http import Patience
from gallery.add import add
from gallery.gallery import Gallery
from gallery.records import FoundPerson, FoundPortrait
from gallery.sources.bundled import bundled_portraits
from gallery.wikimedia import Servers
from gallery.wikimedia.categories import chosen, load_categories
from gallery.wikimedia.download import Download, DownloadReport, Order

Variant = Callable[[int], bytes]

ACTOR = "Q33999"
HURRIED = Patience(first_pause_s=0.01, longest_pause_s=0.1, lag_pause_s=0.2, tries_to_connect=3)
FAIR_USE = {"LicenseShortName": {"value": "Fair use"}}


@pytest.fixture
def wiki() -> Iterator[Wiki]:
    with playing(Wiki()) as served:
        yield served


def fetch(
    gallery: Gallery, engine: Engine, wiki: Wiki, *, limit: int = 50, portraits: int = 1
) -> DownloadReport:
    order = Order(chosen(load_categories(), ["film", "space"]), limit, portraits=portraits)
    servers = Servers("tests@example.org", wiki.url, wiki.url)
    with Download(gallery, engine, order, servers, ["dlib"], patience=HURRIED) as running:
        return running.run()


def pages(gallery: Gallery, q_id: str) -> set[str]:
    person = gallery.find_person(q_id)
    if person is None:
        return set()
    urls = [portrait.source_url or "" for portrait in gallery.portraits(person.id)]
    return {url.rpartition("File:")[2] for url in urls}


@pytest.mark.parametrize("portraits", [1, 3])
@pytest.mark.parametrize("trouble", ["no face", "not free", "deleted", "gone"])
def test_the_category_is_tried_where_wikidatas_own_picture_is_of_no_use(
    gallery: Gallery,
    engine: Engine,
    wiki: Wiki,
    variant: Variant,
    blank_jpeg: bytes,
    trouble: str,
    portraits: int,
) -> None:
    wiki.facts = [Fact("Q1", "Sam Doe", 90, ["Own.jpg"], [ACTOR], commons="Sam Doe")]
    wiki.pictures = {
        "Stranger.jpg": Picture(variant(1)),
        "Sam.jpg": Picture(variant(2)),
        "More.jpg": Picture(variant(4)),
        **{
            "no face": {"Own.jpg": Picture(blank_jpeg)},
            "not free": {"Own.jpg": Picture(variant(0), FAIR_USE)},
            "deleted": {},
            "gone": {"Own.jpg": Picture(variant(0), {"gone": {"value": "1"}})},
        }[trouble],
    }
    wiki.members = {"Sam Doe": ["Stranger.jpg", "Sam.jpg", "More.jpg"]}
    harvest = fetch(gallery, engine, wiki, portraits=portraits)
    assert (harvest.there, harvest.left_out) == (1, [])
    assert pages(gallery, "Q1") == {"Sam.jpg", "More.jpg"}
    asked = [question for _, question, _ in wiki.requests]
    fetch(gallery, engine, wiki, portraits=portraits)
    assert [question for _, question, _ in wiki.requests] == asked


def test_a_single_picture_counts_if_it_is_called_like_the_person_alone(
    gallery: Gallery, engine: Engine, wiki: Wiki, variant: Variant
) -> None:
    wiki.facts = [
        Fact("Q1", "Sam Doe", 90, ["Lost.jpg"], [ACTOR], commons="Sam"),
        Fact("Q2", "Kim Roe", 80, ["Lost.jpg"], [ACTOR], commons="Kim"),
        Fact("Q3", "Lee Poe", 70, ["Lost.jpg"], [ACTOR], commons="Lee"),
    ]
    wiki.pictures = {
        "Sam Doe 2001.jpg": Picture(variant(0)),
        "Kim Roe and friend.jpg": Picture(variant(1)),
        "Backstage.jpg": Picture(variant(2)),
    }
    wiki.members = {
        "Sam": ["Sam Doe 2001.jpg"],
        "Kim": ["Kim Roe and friend.jpg"],
        "Lee": ["Backstage.jpg"],
    }
    harvest = fetch(gallery, engine, wiki)
    assert [person.name for person in gallery.people()] == ["Sam Doe"]
    assert {one.wikidata_id: one.reason for one in harvest.left_out} == {
        "Q2": "the picture was deleted",
        "Q3": "the picture was deleted",
    }


def test_a_person_from_elsewhere_with_the_same_name_and_face_is_the_same(
    gallery: Gallery, engine: Engine, wiki: Wiki, variant: Variant, collins_jpeg: bytes
) -> None:
    add(gallery, engine, bundled_portraits(), backbones=["dlib"])
    faces = {"SAM DÓE": variant(1), "Kim Roe": variant(3)}
    add(
        gallery,
        engine,
        [
            FoundPortrait(FoundPerson(f"name:{n.casefold()}", n), n, lambda _, c=content: c)
            for n, content in faces.items()
        ],
        backbones=["dlib"],
    )
    wiki.facts = [
        Fact("Q9", "Eileen Collins", 70, ["Collins.jpg"], ["Q11631"]),
        Fact("Q1", "Sam Doe", 90, ["Hopper.jpg"], [ACTOR]),  # another face: somebody else
        Fact("Q11641", "Grace Hopper", 60, ["Hopper 2.jpg"], ["Q11631"]),
        Fact("Q5", "Kim Roe", 50, ["Kim.jpg"], [ACTOR]),
        Fact("Q6", "Kim Roe", 40, ["Kim 2.jpg"], [ACTOR]),  # the face of a name already taken
    ]
    wiki.pictures = {
        "Collins.jpg": Picture(variant(5)),
        "Hopper.jpg": Picture(variant(0)),
        "Hopper 2.jpg": Picture(variant(2)),
        "Kim.jpg": Picture(variant(7)),
        "Kim 2.jpg": Picture(variant(9)),
    }
    fetch(gallery, engine, wiki)
    fetch(gallery, engine, wiki)
    names = sorted(person.name for person in gallery.people())
    assert names == ["Eileen Collins", "Grace Hopper", "Kim Roe", "Kim Roe", "SAM DÓE", "Sam Doe"]
    eileen = gallery.find_person("Eileen Collins")
    assert eileen is not None
    assert (eileen.wikidata_id, eileen.key, eileen.fame) == ("Q9", "name:eileen collins", 70)
    assert eileen.categories == ("science", "space")
    assert len(gallery.portraits(eileen.id)) == 2
    kims = sorted(p.wikidata_id or "" for p in gallery.people() if p.name == "Kim Roe")
    assert kims == ["Q5", "Q6"]
    del collins_jpeg


def test_who_can_not_be_had_gives_way_to_the_next_in_fame(
    gallery: Gallery, engine: Engine, wiki: Wiki, variant: Variant
) -> None:
    wiki.facts = [Fact(f"Q{n}", f"P{n}", 200 - n, [f"{n}.jpg"], [ACTOR]) for n in range(1, 13)]
    wiki.pictures = {f"{n}.jpg": Picture(variant(n)) for n in (2, 5, 6, 9, 10, 11)}
    harvest = fetch(gallery, engine, wiki, limit=4)
    assert (harvest.wanted, harvest.there) == (4, 4)
    there = {person.wikidata_id for person in gallery.people()}
    assert there == {"Q2", "Q5", "Q6", "Q9"}
    assert {one.wikidata_id for one in harvest.left_out} == {"Q1", "Q3", "Q4", "Q7", "Q8"}
    assert harvest.added == 4
    wiki.requests.clear()
    again = fetch(gallery, engine, wiki, limit=4)
    assert (again.there, again.added, wiki.requests) == (4, 0, [])


def test_nobody_is_looked_at_without_end(gallery: Gallery, engine: Engine, wiki: Wiki) -> None:
    wiki.facts = [Fact(f"Q{n}", f"P{n}", 900 - n, [f"{n}.jpg"], [ACTOR]) for n in range(1, 200)]
    harvest = fetch(gallery, engine, wiki, limit=40)
    assert harvest.there == 0
    assert 40 < len(harvest.left_out) <= 40 * 1.25 + 20


def test_a_wrong_id_in_the_table_is_noticed(gallery: Gallery, engine: Engine, wiki: Wiki) -> None:
    wiki.labels = {ACTOR: ["actor", "thespian"], "Q10800557": ["table"], "Q11631": ["spaceman"]}
    wiki.labels["Q11631"] += ["astronaut"]
    harvest = fetch(gallery, engine, wiki)
    (warning,) = harvest.warnings
    assert "Q10800557" in warning
    assert "table" in warning
    assert "film actor" in warning
    wiki.requests.clear()
    assert fetch(gallery, engine, wiki).warnings == harvest.warnings
    assert wiki.requests == []


def test_a_server_that_knows_no_labels_is_no_trouble(
    gallery: Gallery, engine: Engine, wiki: Wiki
) -> None:
    wiki.labels = None
    assert fetch(gallery, engine, wiki).warnings == ()
    wiki.requests.clear()
    fetch(gallery, engine, wiki)
    assert wiki.requests == []
