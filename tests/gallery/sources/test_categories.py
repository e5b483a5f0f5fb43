"""The table of categories, and how people add to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import BadSettings
from gallery.sources.categories import chosen, load_categories


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
