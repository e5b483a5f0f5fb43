"""Which kinds of people can be downloaded: a table that anybody may extend."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

from engine.errors import BadSettings
from gallery.records import category_name, folded

__all__ = ["Category", "chosen", "load_categories", "misfits"]

_KEYS: Final = frozenset({"title", "occupations", "countries", "includes"})
_Q_ID: Final = re.compile(r"Q[1-9]\d*")


@dataclass(frozen=True, slots=True)
class Category:
    """A kind of people.

    Attributes:
        name: Lower case.
        title: What it is, for people.
        occupations: Wikidata ids, at least one; sorted.
        countries: Wikidata ids, sorted; empty for people of any country.
        names: What the table calls each id, sorted.
    """

    name: str
    title: str
    occupations: tuple[str, ...]
    countries: tuple[str, ...] = ()
    names: tuple[tuple[str, str], ...] = ()

    def holds(self, occupations: Collection[str], countries: Collection[str]) -> bool:
        """Whether somebody with these occupations and countries belongs to it."""
        return not set(self.occupations).isdisjoint(occupations) and (
            not self.countries or not set(self.countries).isdisjoint(countries)
        )


def load_categories(extra: Path | None = None) -> dict[str, Category]:
    """The table that comes with the program and what a file of the same form adds to it.

    Args:
        extra: TOML; it need not exist. What it calls like something there replaces it.

    Raises:
        BadSettings: If the file can't be used; the sentence says why.
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
    """The categories of these names, each once; all of the table if there are no names.

    Raises:
        BadSettings: If there is no category of a name.
    """
    wanted = dict.fromkeys(category_name(name) for name in names)
    for name in wanted:
        if name not in table:
            raise BadSettings(f"there is no category {name!r}; there are: {', '.join(table)}")
    return tuple(table[name] for name in wanted or table)


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


def misfits(
    categories: Iterable[Category], labels: Mapping[str, Collection[str]]
) -> tuple[str, ...]:
    """Sentences on ids that the table calls by a name which Wikidata does not know them by.

    Args:
        categories: Of the table.
        labels: By id: what Wikidata calls it; ids without are passed over.
    """
    names = dict.fromkeys(pair for category in categories for pair in category.names)
    return tuple(
        f"{q_id} stands for {name!r} in the table of categories, but Wikidata calls it "
        f"{next(iter(labels[q_id]))!r}: see https://www.wikidata.org/wiki/{q_id}"
        for q_id, name in names
        if labels.get(q_id) and folded(name) not in {folded(label) for label in labels[q_id]}
    )


def _ids(row: object, where: str) -> dict[str, str]:
    """The ids, and what each is called."""
    if not isinstance(row, dict):
        raise BadSettings(f'{where} should be names and Wikidata ids, such as {{ x = "Q33999" }}')
    for value in row.values():
        if not isinstance(value, str) or not _Q_ID.fullmatch(value):
            raise BadSettings(f"{where}: {value!r} is no Wikidata id, such as Q33999")
    return {q_id: str(name) for name, q_id in row.items()}
