"""The table of categories, how people add to it, and who belongs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BadSettings
from gallery.wikimedia.categories import (
    Category,
    chosen,
    load_categories,
    merged,
    most_famous,
)
from gallery.wikimedia.wikidata import Row, file_title

FILM = Category("film", "Film", ("Q1", "Q2"))
INDIAN = Category("indian", "Indian", ("Q1",), ("Q668",))
MUSIC = Category("music", "Music", ("Q3",))

rows = st.lists(
    st.builds(
        Row,
        q_id=st.sampled_from(["Q10", "Q11", "Q12", "Q9"]),
        name=st.sampled_from([None, "Ann", "Bo"]),
        image=st.sampled_from(["A.jpg", "B.jpg", "C.jpg"]),
        fame=st.integers(0, 3),
        occupation=st.sampled_from([None, "Q1", "Q2", "Q3", "Q4"]),
        country=st.sampled_from([None, "Q668", "Q30"]),
    ),
    max_size=12,
)


def test_the_shipped_table_has_what_is_promised() -> None:
    table = load_categories()
    promised = "film hollywood bollywood music k-pop sports football tennis cricket basketball"
    assert set(f"{promised} politics science".split()) <= table.keys()
    assert table["hollywood"].countries == ("Q145", "Q30")
    assert set(table["tennis"].occupations) < set(table["sports"].occupations)
    assert all(one.title for one in table.values())


def test_people_belong_by_occupation_and_country() -> None:
    bollywood = load_categories()["bollywood"]
    assert bollywood.holds({"Q33999"}, {"Q668", "Q30"})
    assert not bollywood.holds({"Q33999"}, {"Q30"})
    assert not bollywood.holds({"Q82955"}, {"Q668"})


def test_a_file_adds_and_replaces(tmp_path: Path) -> None:
    extra = tmp_path / "categories.toml"
    assert load_categories(extra) == load_categories()
    extra.write_text(
        '[Chess_Players]\noccupations = { x = "Q10873124" }\n'
        '[tennis]\noccupations = { y = "Q5" }\n[all]\nincludes = ["tennis", "Chess_Players"]\n'
    )
    table = load_categories(extra)
    assert table["chess players"].occupations == ("Q10873124",)
    assert table["tennis"].occupations == ("Q5",)
    assert table["all"].occupations == ("Q10873124", "Q5")
    assert "Q5" in table["sports"].occupations


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "can't be read"),
        ("x = 1", r"\[x\] may have"),
        ("[x]\noccupation = {}", r"\[x\] may have"),
        ("[x]\ntitle = 'X'", "has no occupations"),
        ("[x]\noccupations = { a = 'actor' }", "'actor' is no Wikidata id"),
        ("[x]\noccupations = ['Q1']", "names and Wikidata ids"),
        ("[x]\nincludes = ['bollywood']", "has countries"),
        ("[x]\nincludes = ['nobody']", "has no occupations"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: str) -> None:
    extra = tmp_path / "categories.toml"
    extra.write_text(text)
    with pytest.raises(BadSettings, match=words):
        load_categories(extra)


def test_choosing() -> None:
    table = load_categories()
    assert [one.name for one in chosen(table, ["Music", "film", "music"])] == ["music", "film"]
    assert len(chosen(table, [])) == len(table)
    with pytest.raises(BadSettings, match="there are: film"):
        chosen(table, ["curling"])


@given(rows, rows)
def test_everybody_is_there_once_with_all_their_pictures(film: list[Row], music: list[Row]) -> None:
    people = merged({"film": film, "music": music}, [FILM, MUSIC, INDIAN])
    assert len({one.q_id for one in people}) == len(people)
    assert [-one.fame for one in people] == sorted(-one.fame for one in people)
    for one in people:
        mine = [row for row in (*film, *music) if row.q_id == one.q_id]
        assert set(one.images) == {row.image for row in mine}
        assert one.fame == max(row.fame for row in mine)
        assert one.categories
        if "indian" in one.categories:  # nobody was asked for: only what rows say counts
            assert {"Q1"} <= {row.occupation for row in mine}
            assert {"Q668"} <= {row.country for row in mine}


@given(rows, st.integers(0, 5))
def test_a_fair_choice_is_as_large_as_any(film: list[Row], limit: int) -> None:
    people = merged({"film": film}, [FILM, INDIAN])
    assert most_famous(people, limit) == people[:limit]
    fair = most_famous(people, limit, fairly=True)
    assert len(fair) == min(limit, len(people))
    assert [one for one in people if one in fair] == list(fair)


def test_a_row_of_another_country_or_occupation_is_not_believed() -> None:
    row = Row("Q1", "Ann", "A.jpg", 1, occupation="Q1", country="Q30")
    assert merged({"indian": [row]}, [INDIAN]) == ()
    assert merged({"music": [row]}, [MUSIC]) == ()
    (ann,) = merged({"indian": [row._replace(country=None, occupation=None)]}, [INDIAN])
    assert ann.categories == ("indian",)


def test_titles_of_addresses() -> None:
    base = "http://commons.wikimedia.org/wiki/Special:FilePath/"
    assert file_title(f"{base}Name%20X%3F.jpg") == "Name X?.jpg"
    assert file_title(f"{base}%E5%AE%AE_%E5%B4%8E.png") == "宮 崎.png"
    assert file_title("X_Y.jpg") == "X Y.jpg"
