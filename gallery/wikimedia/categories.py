"""Categories: a table that anybody may extend, who belongs to them, and the most famous of each."""

import re
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, Final

from engine.errors import BadSettings
from gallery.records import category_name, folded
from gallery.wikimedia.wikidata import Row

_KEYS: Final = frozenset({"title", "occupations", "countries", "includes"})
_Q_ID: Final = re.compile(r"Q[1-9]\d*")


@dataclass(frozen=True, slots=True)
class Category:
    """A kind of people; all tuples are sorted."""

    name: str  # lower case
    title: str  # what it is, for people
    occupations: tuple[str, ...]  # Wikidata ids, at least one
    countries: tuple[str, ...] = ()  # Wikidata ids; empty for people of any country
    names: tuple[tuple[str, str], ...] = ()  # ids, and what the table calls them

    def holds(self, occupations: Collection[str], countries: Collection[str]) -> bool:
        """Whether somebody with these occupations and countries belongs to it."""
        return not set(self.occupations).isdisjoint(occupations) and (
            not self.countries or not set(self.countries).isdisjoint(countries)
        )


@dataclass(frozen=True, slots=True)
class Celebrity:
    """Somebody whom Wikidata knows."""

    q_id: str  # such as Q42
    name: str | None  # in a known language
    fame: int  # in how many wikis there is an article
    categories: tuple[str, ...]  # names of those that the person belongs to
    images: tuple[str, ...]  # titles of pictures on Commons, the best ones according to Wikidata
    country: str | None = None  # of several the first
    gender: str | None = None
    commons: str | None = None  # title of the person's category on Commons


def load_categories(extra: Path | None = None) -> dict[str, Category]:
    """The table that comes with the program and what a TOML file of the same form adds to it.

    The file need not exist; what is called alike is replaced. BadSettings if it can't be used.
    """
    shipped = resources.files(__package__).joinpath("categories.toml").read_text(encoding="utf-8")
    table = tomllib.loads(shipped)
    if extra is not None and extra.is_file():
        try:
            table |= tomllib.loads(extra.read_text(encoding="utf-8"))
        except (OSError, ValueError) as problem:
            raise BadSettings(f"{extra} can't be read: {problem}") from problem
    where = "the table of categories" if extra is None else str(extra)
    return {(one := _category(name, table, where)).name: one for name in table}


def chosen(table: Mapping[str, Category], names: Collection[str]) -> tuple[Category, ...]:
    """The categories of these names, each once; all of the table if there are no names."""
    wanted = dict.fromkeys(category_name(name) for name in names)
    for name in wanted:
        if name not in table:
            raise BadSettings(f"there is no category {name!r}; there are: {', '.join(table)}")
    return tuple(table[name] for name in wanted or table)


def misfits(
    categories: Iterable[Category], labels: Mapping[str, Collection[str]]
) -> tuple[str, ...]:
    """Sentences on ids that the table calls by a name which none of Wikidata's ``labels`` is."""
    names = dict.fromkeys(pair for category in categories for pair in category.names)
    return tuple(
        f"{q_id} stands for {name!r} in the table of categories, but Wikidata calls it "
        f"{next(iter(labels[q_id]))!r}: see https://www.wikidata.org/wiki/{q_id}"
        for q_id, name in names
        if labels.get(q_id) and folded(name) not in {folded(label) for label in labels[q_id]}
    )


def merged(
    rows: Mapping[str, Iterable[Row]], categories: Sequence[Category]
) -> tuple[Celebrity, ...]:
    """Everybody that rows, by the category asked for, are about: each once, most famous first.

    Who belongs to none of the categories is left out.
    """
    people: dict[str, dict[str, list[Row]]] = {}
    for name, answers in rows.items():
        for row in answers:
            people.setdefault(row.q_id, {}).setdefault(name, []).append(row)
    found = (_celebrity(told, categories) for told in people.values())
    known = (one for one in found if one.categories)
    return tuple(sorted(known, key=lambda one: (-one.fame, int(one.q_id[1:]))))


def _celebrity(told: Mapping[str, Sequence[Row]], categories: Iterable[Category]) -> Celebrity:
    """What rows about one person, by the category asked for, say together."""
    rows = [row for some in told.values() for row in some]
    occupations = {row.occupation for row in rows if row.occupation is not None}
    countries = {row.country for row in rows if row.country is not None}

    def belongs(category: Category) -> bool:
        if category.name not in told:
            return category.holds(occupations, countries)
        # Where rows don't say, the question counts.
        return category.holds(occupations or category.occupations, countries or category.countries)

    return Celebrity(
        q_id=rows[0].q_id,
        name=next((row.name for row in rows if row.name), None),
        fame=max(row.fame for row in rows),
        categories=tuple(category.name for category in categories if belongs(category)),
        images=tuple(dict.fromkeys(row.image for row in rows)),
        country=next((row.country_name for row in rows if row.country), None),
        gender=next((row.gender for row in rows if row.gender), None),
        commons=next((row.commons for row in rows if row.commons), None),
    )


def most_famous(
    people: Sequence[Celebrity], limit: int, *, fairly: bool = False
) -> tuple[Celebrity, ...]:
    """So many of the people, who come and go the most famous first.

    ``fairly``: every category in turn gives its most famous, instead of the most famous of all.
    """
    if not fairly:
        return tuple(people[:limit])
    queues: dict[str, list[Celebrity]] = {}
    for person in people:
        for category in person.categories:
            queues.setdefault(category, []).append(person)
    in_turn = (
        person.q_id
        for firsts in zip_longest(*(queues[name] for name in sorted(queues)))
        for person in firsts
        if person is not None
    )
    taken = set(islice(dict.fromkeys(in_turn), limit))
    return tuple(person for person in people if person.q_id in taken)


def _category(name: str, table: Mapping[str, Any], where: str) -> Category:
    row = table[name]
    if not isinstance(row, dict) or not row.keys() <= _KEYS:
        raise BadSettings(f"{where}: [{name}] may have {', '.join(sorted(_KEYS))}, nothing else")
    occupations = _ids(row.get("occupations", {}), f"{where}: occupations of [{name}]")
    for other in row.get("includes", []):
        included = table.get(other, {})
        if not isinstance(included, dict) or not included.get("occupations"):
            raise BadSettings(f"{where}: [{name}] includes {other!r}, which has no occupations")
        if included.get("countries"):
            raise BadSettings(f"{where}: [{name}] includes {other!r}, which has countries")
        occupations |= _ids(included["occupations"], f"{where}: occupations of [{other}]")
    countries = _ids(row.get("countries", {}), f"{where}: countries of [{name}]")
    if not occupations:
        raise BadSettings(f"{where}: [{name}] has no occupations")
    return Category(
        name=category_name(name),
        title=str(row.get("title", name)),
        occupations=tuple(sorted(occupations)),
        countries=tuple(sorted(countries)),
        names=tuple(sorted((occupations | countries).items())),
    )


def _ids(row: object, where: str) -> dict[str, str]:
    """The ids, and what each is called."""
    if not isinstance(row, dict):
        raise BadSettings(f'{where} should be names and Wikidata ids, such as {{ x = "Q33999" }}')
    for value in row.values():
        if not isinstance(value, str) or not _Q_ID.fullmatch(value):
            raise BadSettings(f"{where}: {value!r} is no Wikidata id, such as Q33999")
    return {q_id: str(name) for name, q_id in row.items()}
