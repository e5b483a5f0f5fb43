"""People from a made-up Wikidata and Commons, through the real engine into a real gallery."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from wikimedia_server import MAXLAG, Fact, Odd, Picture, Wiki, kept_pictures, playing

from engine.engine import Engine
from engine.errors import BadSettings, Busy, SourceDown
from engine.http import Patience
from gallery.build import remove
from gallery.gallery import Gallery
from gallery.progress import Progress, no_progress
from gallery.records import REMOVED
from gallery.wikimedia import Servers, user_agent
from gallery.wikimedia.categories import chosen, load_categories
from gallery.wikimedia.download import Download, DownloadReport, Order

Variant = Callable[[int], bytes]

ACTOR, SINGER, PHYSICIST = "Q33999", "Q177220", "Q169470"
USA, INDIA = "Q30", "Q668"
FILM = Order(chosen(load_categories(), ["film"]), 1)
HURRIED = Patience(first_pause_s=0.01, longest_pause_s=0.1, lag_pause_s=0.2, tries_to_connect=3)


@pytest.fixture
def wiki() -> Iterator[Wiki]:
    with playing(Wiki()) as served:
        yield served


@pytest.fixture
def famous(wiki: Wiki, variant: Variant, blank_jpeg: bytes) -> Wiki:
    """Two people with one name, one in two categories, and some who can't be taken."""
    wiki.facts = [
        Fact("Q10", "Sam Doe", 120, ["Sam A.jpg"], [ACTOR, SINGER], [USA], "Q6581072", "Sam Doe"),
        Fact("Q9", "Sam Doe", 110, ["Sam B.jpg"], [ACTOR], [INDIA], "Q6581097"),
        Fact("Q11", "No Face", 100, ["Blank.jpg"], [ACTOR]),
        Fact("Q12", "Not Free", 90, ["Fair use.jpg"], [ACTOR]),
        Fact("Q13", "Deleted", 80, ["Deleted.jpg"], [ACTOR]),
        Fact("Q14", None, 70, ["Nameless.jpg"], [ACTOR]),
        Fact("Q15", "Gone At Last", 60, ["Gone.jpg"], [ACTOR]),
    ]
    fair_use = {"LicenseShortName": {"value": "Fair use"}}
    wiki.pictures = {
        "Sam A.jpg": Picture(variant(0)),
        "Sam B.jpg": Picture(variant(1)),
        "Blank.jpg": Picture(blank_jpeg),
        "Fair use.jpg": Picture(variant(2), fair_use),
        "Gone.jpg": Picture(variant(3), {"gone": {"value": "1"}}),
        "Nameless.jpg": Picture(variant(3)),
        "Sam Doe 2001.jpg": Picture(variant(4)),
        "Sam Doe and others.jpg": Picture(variant(5)),  # it shows Q9
        "Sam Doe signature.png": Picture(variant(6)),
        "Backstage.jpg": Picture(variant(8)),
    }
    wiki.members = {
        "Sam Doe": [
            "Backstage.jpg",
            "Sam Doe signature.png",
            "Sam A.jpg",
            "Sam Doe and others.jpg",
            "Sam Doe 2001.jpg",
        ]
    }
    return wiki


def fetch(
    gallery: Gallery,
    engine: Engine,
    wiki: Wiki,
    *names: str,
    limit: int = 50,
    portraits: int = 1,
    fairly: bool = False,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> DownloadReport:
    order = Order(
        chosen(load_categories(), names or ("film",)), limit, portraits=portraits, fairly=fairly
    )
    servers = Servers("tests@example.org", wiki.url, wiki.url)
    with Download(
        gallery,
        engine,
        order,
        servers,
        ["dlib"],
        patience=HURRIED,
        progress=progress,
        stop=stop,
    ) as running:
        return running.run()


def test_people_come_with_all_that_is_known_and_reasons_for_the_rest(
    gallery: Gallery, engine: Engine, famous: Wiki
) -> None:
    harvest = fetch(gallery, engine, famous, "film", "music", "bollywood")
    first, second = sorted(gallery.people(), key=lambda one: -(one.fame or 0))
    assert (first.key, first.name, first.fame) == ("Q10", "Sam Doe", 120)
    assert (first.categories, first.country, first.gender) == (
        ("film", "music"),
        "Land Q30",
        "female",
    )
    assert (second.key, second.name, second.categories) == ("Q9", "Sam Doe", ("bollywood", "film"))
    assert second.wikidata_id == "Q9"
    assert (harvest.wanted, harvest.there) == (7, 2)
    assert {one.wikidata_id: one.reason for one in harvest.left_out} == {
        "Q11": "no face",
        "Q12": "no free picture (Fair use)",
        "Q13": "the picture was deleted",
        "Q14": "no name",
        "Q15": "the picture was deleted",
    }
    assert len(famous.agents) == 1


def test_further_pictures_of_a_person_are_taken_if_they_show_the_same_face(
    gallery: Gallery, engine: Engine, famous: Wiki
) -> None:
    fetch(gallery, engine, famous, portraits=3)
    sam = gallery.find_person("Q10")
    assert sam is not None
    pages = [portrait.source_url for portrait in gallery.portraits(sam.id)]
    base = "https://commons.wikimedia.org/wiki/File:"
    assert pages == [f"{base}Sam_A.jpg", f"{base}Sam_Doe_2001.jpg", f"{base}Backstage.jpg"]
    pictures = famous.asked("picture")
    assert any("and others" in path for path in pictures)
    assert not any("signature" in path for path in pictures)
    fetch(gallery, engine, famous, portraits=3)
    assert famous.asked("picture") == pictures  # nor is the stranger's asked for again


def test_a_second_run_asks_for_nothing(gallery: Gallery, engine: Engine, famous: Wiki) -> None:
    first = fetch(gallery, engine, famous, portraits=3)
    asked = [question for _, question, _ in famous.requests]
    again = fetch(gallery, engine, famous, portraits=3)
    assert [question for _, question, _ in famous.requests] == asked
    assert len(set(asked)) == len(asked)
    assert again.left_out == first.left_out
    assert (again.there, again.added) == (first.there, 0)
    assert not kept_pictures(gallery)


def test_somebody_found_again_in_another_category_joins_it(
    gallery: Gallery, engine: Engine, famous: Wiki
) -> None:
    fetch(gallery, engine, famous, "film")
    pictures = famous.asked("picture")
    famous.facts[0].fame = 130
    fetch(gallery, engine, famous, "music")
    sam = gallery.find_person("Q10")
    assert sam is not None
    assert (sam.categories, sam.fame) == (("film", "music"), 130)
    assert famous.asked("picture") == pictures


@pytest.mark.parametrize("questions", range(1, 11, 2))
def test_a_network_lost_at_any_moment_costs_nothing(
    gallery: Gallery, engine: Engine, famous: Wiki, questions: int
) -> None:
    famous.down_after = questions
    with pytest.raises(SourceDown, match="go on"):
        fetch(gallery, engine, famous, portraits=3)
    before = [(kind, question) for kind, question, _ in famous.requests][:questions]
    famous.down_after = None
    famous.requests.clear()
    harvest = fetch(gallery, engine, famous, portraits=3)
    after = [(kind, question) for kind, question, _ in famous.requests]
    assert harvest.there == 2
    assert not set(before) & set(after)


def test_lag_and_throttling_are_waited_for(gallery: Gallery, engine: Engine, famous: Wiki) -> None:
    famous.odd = {
        "sparql": [Odd(429, {"Retry-After": "1"})],
        "api": [MAXLAG, MAXLAG, Odd(503)],
        "picture": [Odd(429), Odd(429), Odd(429, {"Retry-After": "1"}), Odd(hang_up=True)],
    }
    assert fetch(gallery, engine, famous).there == 2
    for kind in ("sparql", "api", "picture"):
        times = [when for what, _, when in famous.requests if what == kind]
        # Of a second: a busy server notes a request late.
        assert max(b - a for a, b in itertools.pairwise(times)) >= 0.5


def test_connections_stay_below_the_limits(
    gallery: Gallery, engine: Engine, famous: Wiki, variant: Variant
) -> None:
    famous.delay_s = 0.05
    for number in range(20, 32):
        famous.facts.append(
            Fact(f"Q{number}", f"P {number}", 50, [f"P {number}.jpg"], [ACTOR], [], None, "Sam Doe")
        )
        famous.facts[-1].commons = f"P {number}"
        famous.members[f"P {number}"] = []
        famous.pictures[f"P {number}.jpg"] = Picture(variant(number))
    fetch(gallery, engine, famous, portraits=2)
    assert famous.most["api"] <= 3
    assert famous.most["picture"] == 2
    assert famous.most["sparql"] == 1


def test_author_and_licence_are_kept_as_text(
    gallery: Gallery, engine: Engine, famous: Wiki
) -> None:
    famous.pictures["Sam A.jpg"].metadata = {
        "Artist": {
            "value": '<a href="//commons.wikimedia.org/wiki/User:X" title="x">Jos&eacute;&#32;X</a>'
            '<span style="display: none;">José X</span>'
        },
        "LicenseShortName": {"value": "CC BY 2.0"},
        "LicenseUrl": {"value": "//creativecommons.org/licenses/by/2.0"},
    }
    famous.pictures["Sam B.jpg"].metadata = {
        "Artist": {"value": 1887},
        "LicenseShortName": {"value": "Public domain"},
        "LicenseUrl": None,
    }
    fetch(gallery, engine, famous)
    kept = {}
    for q_id in ("Q10", "Q9"):
        person = gallery.find_person(q_id)
        assert person is not None
        (one,) = gallery.portraits(person.id)
        kept[q_id] = (one.author, one.licence, one.licence_url)
    assert kept == {
        "Q10": ("José X", "CC BY 2.0", "https://creativecommons.org/licenses/by/2.0"),
        "Q9": ("1887", "Public domain", None),
    }


def test_renamed_files_are_found_in_answers_of_several_parts(
    gallery: Gallery, engine: Engine, famous: Wiki
) -> None:
    famous.facts[0].images = ["sam_old.jpg"]
    famous.renamed = {"Sam old.jpg": "Sam A.jpg"}
    famous.parts = 2
    fetch(gallery, engine, famous)
    sam = gallery.find_person("Q10")
    assert sam is not None
    (portrait,) = gallery.portraits(sam.id)
    assert portrait.source_url == "https://commons.wikimedia.org/wiki/File:Sam_A.jpg"


def test_moved_pictures_are_followed(
    gallery: Gallery, engine: Engine, famous: Wiki, variant: Variant
) -> None:
    famous.facts = [Fact("Q1", "Moved", 50, ["Moved.jpg"], [ACTOR])]
    famous.pictures = {"Moved.jpg": Picture(variant(0))}
    assert fetch(gallery, engine, famous).there == 1


def test_a_server_that_knows_only_generators_gives_further_pictures(
    gallery: Gallery, engine: Engine, famous: Wiki
) -> None:
    famous.knows_list = False
    assert fetch(gallery, engine, famous, portraits=3).added == 4


def test_a_query_out_of_time_is_cut_into_smaller_ones(
    gallery: Gallery, engine: Engine, famous: Wiki
) -> None:
    famous.seconds_for = dict.fromkeys(load_categories()["film"].occupations, 25.0)
    assert fetch(gallery, engine, famous).there == 2
    people = [question for question in famous.asked("sparql") if "?label" not in question]
    assert len(people) == 9  # all, and two halves, for three degrees of fame
    famous.seconds_for = {PHYSICIST: 99.0}
    with pytest.raises(SourceDown, match="min-fame"):
        fetch(gallery, engine, famous, "science")


def test_long_lists_come_page_by_page(gallery: Gallery, engine: Engine, wiki: Wiki) -> None:
    wiki.facts = [
        Fact(f"Q{n}", f"P{n}", 2000 - n, ["A.jpg"], [ACTOR, "Q10800557"], [USA, INDIA])
        for n in range(1, 1201)
    ]
    servers = Servers("a@b.org", wiki.url, wiki.url)
    with Download(gallery, engine, FILM, servers, ["dlib"], patience=HURRIED) as source:
        everybody = source.survey(people=5000)
        assert [one.q_id for one in everybody] == [f"Q{n}" for n in range(1, 1201)]
        assert len(wiki.asked("sparql")) == 9
        assert len(source.survey(people=700)) == 1000
        assert len(wiki.asked("sparql")) == 9


def test_a_mirror_that_counts_rows_or_nothing_loses_nobody(
    gallery: Gallery, engine: Engine, wiki: Wiki
) -> None:
    wiki.facts = [
        Fact(f"Q{n}", f"P{n}", 2000 - n, ["A.jpg", "B.jpg"], [ACTOR], [USA, INDIA])
        for n in range(1, 301)
    ]
    film = replace(FILM, min_fame=70)
    for counts in ("rows", "nothing"):
        wiki.counts = counts
        (gallery.folder / "wikimedia" / "cache.db").unlink(missing_ok=True)
        servers = Servers("a@b.org", wiki.url, wiki.url)
        with Download(gallery, engine, film, servers, ["dlib"], patience=HURRIED) as source:
            everybody = source.survey(people=999)
        assert [one.q_id for one in everybody] == [f"Q{n}" for n in range(1, 301)]
        assert {one.images for one in everybody} == {("A.jpg", "B.jpg")}


def test_the_limit_takes_the_most_famous_or_some_of_every_category(
    gallery: Gallery, engine: Engine, wiki: Wiki, variant: Variant
) -> None:
    wiki.facts = [Fact(f"Q{n}", f"P{n}", 200 - n, [f"{n}.jpg"], [ACTOR]) for n in range(1, 9)]
    wiki.facts += [Fact(f"Q{n}", f"P{n}", 100 - n, [f"{n}.jpg"], [SINGER]) for n in range(11, 19)]
    wiki.pictures = {f"{n}.jpg": Picture(variant(n)) for n in range(1, 19)}
    fetch(gallery, engine, wiki, "film", "music", limit=4)
    there = {person.wikidata_id for person in gallery.people()}
    assert there == {"Q1", "Q2", "Q3", "Q4"}
    fetch(gallery, engine, wiki, "film", "music", limit=4, fairly=True)
    more = {person.wikidata_id for person in gallery.people()} - there
    assert more == {"Q11", "Q12"}


def test_who_asked_to_be_removed_is_not_even_asked_about(
    gallery: Gallery, engine: Engine, famous: Wiki
) -> None:
    fetch(gallery, engine, famous, limit=2)
    sam = gallery.find_person("Q10")
    assert sam is not None
    remove(gallery, sam, never_again=True)
    famous.requests.clear()
    harvest = fetch(gallery, engine, famous, limit=2)
    assert ("Q10", REMOVED) in {(one.wikidata_id, one.reason) for one in harvest.left_out}
    assert gallery.find_person("Q10") is None
    assert not any("Sam_A" in path or "Sam A" in path for path in famous.asked("picture"))


def test_ctrl_c_keeps_what_was_done_and_the_next_run_goes_on(
    gallery: Gallery, engine: Engine, famous: Wiki
) -> None:
    def impatient(what: str, done: int, total: int | None) -> None:  # noqa: ARG001
        if what == "people":
            raise KeyboardInterrupt

    harvest = fetch(gallery, engine, famous, progress=impatient)
    assert harvest.interrupted
    pictures = famous.asked("picture")
    assert fetch(gallery, engine, famous).there == 2
    assert not set(famous.asked("picture")[len(pictures) :]) & set(pictures)


def test_work_in_the_background_ends_when_it_should(
    gallery: Gallery, engine: Engine, famous: Wiki
) -> None:
    stop = threading.Event()
    famous.odd = {"picture": [Odd(429, {"Retry-After": "600"})] * 4}
    threading.Timer(0.3, stop.set).start()
    began = time.monotonic()
    assert fetch(gallery, engine, famous, stop=stop).interrupted
    assert time.monotonic() - began < 20
    famous.odd = {}
    assert fetch(gallery, engine, famous).there == 2


def test_a_server_that_stays_ill_is_left_alone(
    gallery: Gallery, engine: Engine, famous: Wiki
) -> None:
    famous.odd = {"picture": [Odd(429)] * 30}
    with pytest.raises(SourceDown, match="429"):
        fetch(gallery, engine, famous)
    famous.odd = {"sparql": [Odd(429, {"Retry-After": "7200"})]}
    famous.requests.clear()
    with pytest.raises(SourceDown, match="120 minutes"):
        fetch(gallery, engine, famous, "music")
    assert len(famous.requests) == 1


def test_one_picture_that_a_server_can_not_make_is_passed_over(
    gallery: Gallery, engine: Engine, famous: Wiki
) -> None:
    famous.facts = famous.facts[:1]
    famous.facts[0].commons = None
    famous.odd = {"picture": [Odd(500)] * HURRIED.tries}
    harvest = fetch(gallery, engine, famous)
    assert "500" in harvest.left_out[0].reason
    assert fetch(gallery, engine, famous).there == 1


@pytest.mark.parametrize("status", [400, 403, 422, 429, 451, 204])
def test_one_picture_that_is_refused_for_ever_costs_that_picture(
    gallery: Gallery, engine: Engine, famous: Wiki, status: int
) -> None:
    """Everybody else arrives, the reason is told, and nobody asks for it again."""
    famous.bad = {"Blank.jpg": Odd(status)}
    report = fetch(gallery, engine, famous)
    assert report.there == 2
    reasons = {one.wikidata_id: one.reason for one in report.left_out}
    assert re.fullmatch(rf"the picture can't be fetched \(.*{status}.*\)", reasons["Q11"])
    assert report.why_left_out()["the picture can't be fetched"] == 1
    famous.requests.clear()
    again = fetch(gallery, engine, famous)
    assert famous.requests == []
    assert again.left_out == report.left_out


@pytest.mark.parametrize(
    "answer", [Odd(500), Odd(body=b"x", cut=True), Odd(headers={"Content-Encoding": "gzip"})]
)
def test_one_picture_that_never_comes_whole_costs_that_picture(
    gallery: Gallery, engine: Engine, famous: Wiki, answer: Odd
) -> None:
    famous.bad = {"Blank.jpg": replace(answer, body=b"no gzip")}
    report = fetch(gallery, engine, famous)
    assert report.there == 2
    reasons = {one.wikidata_id: one.reason for one in report.left_out}
    assert reasons["Q11"].startswith("the picture can't be fetched (")


def test_whose_picture_is_refused_is_taken_from_their_category(
    gallery: Gallery, engine: Engine, famous: Wiki
) -> None:
    famous.bad = {"Sam A.jpg": Odd(403)}
    assert fetch(gallery, engine, famous).there == 2
    sam = gallery.find_person("Q10")
    assert sam is not None
    urls = {portrait.source_url for portrait in gallery.portraits(sam.id)}
    assert urls
    assert not any("Sam_A" in str(url) for url in urls)


def test_several_bad_pictures_of_the_most_famous_stop_nobody(
    gallery: Gallery, engine: Engine, wiki: Wiki, variant: Variant
) -> None:
    wiki.facts = [Fact(f"Q{n}", f"P{n}", 200 - n, [f"{n}.jpg"], [ACTOR]) for n in range(1, 9)]
    wiki.pictures = {f"{n}.jpg": Picture(variant(n)) for n in range(1, 9)}
    statuses = (400, 403, 422, 429)
    wiki.bad = {f"{n}.jpg": Odd(status) for n, status in enumerate(statuses, 1)}
    assert fetch(gallery, engine, wiki, limit=4).there == 4
    assert {person.key for person in gallery.people()} == {"Q5", "Q6", "Q7", "Q8"}


@pytest.mark.parametrize("status", [400, 403, 422, 429])
def test_a_server_that_refuses_every_picture_is_told_from_a_bad_picture(
    gallery: Gallery, engine: Engine, wiki: Wiki, variant: Variant, status: int
) -> None:
    """After five pictures in a row, of which none is held to be bad."""
    wiki.facts = [Fact(f"Q{n}", f"P{n}", 200 - n, [f"{n}.jpg"], [ACTOR]) for n in range(1, 13)]
    wiki.pictures = {f"{n}.jpg": Picture(variant(n)) for n in range(1, 13)}
    wiki.refusing = {"picture": Odd(status)}
    for _ in range(2):
        wiki.requests.clear()
        with pytest.raises(SourceDown, match=rf"{status}.*gallery\.contact"):
            fetch(gallery, engine, wiki, limit=10)
        assert 5 <= len(set(wiki.asked("picture"))) <= 8
    wiki.refusing = {}
    assert fetch(gallery, engine, wiki, limit=10).there == 10


def test_a_server_that_refuses_later_is_told_from_bad_pictures(
    gallery: Gallery, engine: Engine, wiki: Wiki, variant: Variant
) -> None:
    wiki.facts = [Fact(f"Q{n}", f"P{n}", 200 - n, [f"{n}.jpg"], [ACTOR]) for n in range(1, 41)]
    wiki.pictures = {f"{n}.jpg": Picture(variant(n)) for n in range(1, 41)}
    wiki.bad = {f"{n}.jpg": Odd(403) for n in range(5, 41)}
    with pytest.raises(SourceDown, match=r"gallery\.contact"):
        fetch(gallery, engine, wiki, limit=40)
    kept = kept_pictures(gallery)  # but for those that were portraits by then
    assert kept <= {"1.jpg", "2.jpg", "3.jpg", "4.jpg"}
    assert len(kept) + gallery.stats().portraits == 4
    wiki.bad = {}
    # Those refused while others were still arriving are held to be bad.
    assert fetch(gallery, engine, wiki, limit=40).there >= 20


@pytest.mark.parametrize("what", ["sparql", "api"])
def test_a_refusal_names_the_contact(
    gallery: Gallery, engine: Engine, famous: Wiki, what: str
) -> None:
    famous.refusing = {what: Odd(403)}
    with pytest.raises(SourceDown, match=r"gallery\.contact"):
        fetch(gallery, engine, famous)
    assert len(famous.asked(what)) == 1


def test_a_category_of_an_impossible_name_costs_its_pictures(
    gallery: Gallery, engine: Engine, famous: Wiki
) -> None:
    famous.facts[2].commons = "Of no such|name"
    assert fetch(gallery, engine, famous).there == 2


def test_two_downloads_at_once_are_refused(gallery: Gallery, engine: Engine, famous: Wiki) -> None:
    servers = Servers("a@b.org", famous.url, famous.url)
    with Download(gallery, engine, FILM, servers, ["dlib"]), pytest.raises(Busy):
        Download(gallery, engine, FILM, servers, ["dlib"])


@pytest.mark.parametrize(
    ("contact", "url"),
    [("nobody", "http://h"), ("a@b\nX: y", "http://h"), ("a@b.org", "ftp://h"), ("a@b.org", "")],
)
def test_contact_and_addresses_are_checked(
    gallery: Gallery, engine: Engine, contact: str, url: str
) -> None:
    with pytest.raises(BadSettings, match="gallery"):
        Download(gallery, engine, FILM, Servers(contact, url, url), ["dlib"])
    assert threading.active_count() < 20


def test_a_damaged_cache_is_begun_anew(
    gallery: Gallery,
    engine: Engine,
    famous: Wiki,
    tmp_path: Path,  # noqa: ARG001
) -> None:
    fetch(gallery, engine, famous)
    for path in (gallery.folder / "wikimedia").glob("cache.db*"):
        path.write_bytes(b"not a database " * 100)
    assert fetch(gallery, engine, famous).there == 2


def test_the_agent_carries_version_and_contact() -> None:
    assert user_agent(" https://example.org/bot (me) ").startswith("Lookalike/")
    assert "(https://example.org/bot me) httpx/" in user_agent("https://example.org/bot (me)")
    for wrong in ("", "me", "a@b\r\nX: y", "é@b.org"):
        with pytest.raises(BadSettings, match=r"gallery\.contact"):
            user_agent(wrong)
