"""Rows of Wikidata become people, each once."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gallery.sources.categories import Category
from gallery.sources.celebrities import merged, most_famous
from gallery.sources.wikidata import Row, file_title

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
    (ann,) = merged({"indian": [replace(row, country=None, occupation=None)]}, [INDIAN])
    assert ann.categories == ("indian",)


def test_titles_of_addresses() -> None:
    base = "http://commons.wikimedia.org/wiki/Special:FilePath/"
    assert file_title(f"{base}Name%20X%3F.jpg") == "Name X?.jpg"
    assert file_title(f"{base}%E5%AE%AE_%E5%B4%8E.png") == "宮 崎.png"
    assert file_title("X_Y.jpg") == "X Y.jpg"
