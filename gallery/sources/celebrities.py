"""From rows of Wikidata to people: merged, sorted by fame, chosen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gallery.sources.categories import Category
from gallery.sources.wikidata import Row

__all__ = ["Celebrity", "merged", "most_famous"]


@dataclass(frozen=True, slots=True)
class Celebrity:
    """Somebody whom Wikidata knows.

    Attributes:
        q_id: Such as ``Q42``.
        name: None if there is none in a known language.
        fame: In how many wikis there is an article.
        categories: Names of those that the person belongs to.
        images: Titles of pictures on Commons, the best ones according to Wikidata.
        country: Or None; of several the first.
        gender: Or None.
        commons: Title of the person's category on Commons, or None.
    """

    q_id: str
    name: str | None
    fame: int
    categories: tuple[str, ...]
    images: tuple[str, ...]
    country: str | None = None
    gender: str | None = None
    commons: str | None = None


@dataclass(slots=True)
class _Gathered:
    """What the rows about somebody say together."""

    fame: int = 0
    asked: dict[str, None] = field(default_factory=dict)
    names: dict[str, None] = field(default_factory=dict)
    images: dict[str, None] = field(default_factory=dict)
    occupations: set[str] = field(default_factory=set)
    countries: dict[str, str | None] = field(default_factory=dict)
    genders: dict[str, None] = field(default_factory=dict)
    commons: dict[str, None] = field(default_factory=dict)

    def take(self, category: str, row: Row) -> None:
        """Adds what a row says."""
        self.fame = max(self.fame, row.fame)
        self.asked[category] = None
        self.images[row.image] = None
        if row.occupation is not None:
            self.occupations.add(row.occupation)
        if row.country is not None:
            self.countries.setdefault(row.country, row.country_name)
        for known, value in (
            (self.names, row.name),
            (self.genders, row.gender),
            (self.commons, row.commons),
        ):
            if value is not None:
                known[value] = None

    def belongs(self, category: Category) -> bool:
        """Whether the person belongs to a category; where rows don't say, the question counts."""
        if category.name not in self.asked:
            return category.holds(self.occupations, self.countries)
        return category.holds(
            self.occupations or category.occupations, self.countries or category.countries
        )


def merged(
    rows: Mapping[str, Iterable[Row]], categories: Sequence[Category]
) -> tuple[Celebrity, ...]:
    """Everybody that rows are about, each once, the most famous first.

    Args:
        rows: By the name of the category they were asked for.
        categories: Those that people may belong to; who belongs to none is left out.
    """
    people: dict[str, _Gathered] = {}
    for name, answers in rows.items():
        for row in answers:
            people.setdefault(row.q_id, _Gathered()).take(name, row)
    found = []
    for q_id, one in people.items():
        names = tuple(category.name for category in categories if one.belongs(category))
        if names:
            found.append(
                Celebrity(
                    q_id=q_id,
                    name=_first(one.names),
                    fame=one.fame,
                    categories=names,
                    images=tuple(one.images),
                    country=_first(dict.fromkeys(filter(None, one.countries.values()))),
                    gender=_first(one.genders),
                    commons=_first(one.commons),
                )
            )
    return tuple(sorted(found, key=lambda one: (-one.fame, int(one.q_id[1:]))))


def most_famous(
    people: Sequence[Celebrity], limit: int, *, fairly: bool = False
) -> tuple[Celebrity, ...]:
    """As many as wanted, the most famous first.

    Args:
        people: The most famous first.
        limit: At most so many.
        fairly: Every category in turn gives its most famous, instead of the most famous of all.
    """
    if not fairly:
        return tuple(people[:limit])
    queues: dict[str, list[Celebrity]] = {}
    for person in people:
        for category in person.categories:
            queues.setdefault(category, []).append(person)
    taken: dict[str, Celebrity] = {}
    for person in _in_turn([queues[name] for name in sorted(queues)]):
        if len(taken) == limit:
            break
        taken[person.q_id] = person
    return tuple(person for person in people if person.q_id in taken)


def _in_turn(queues: Sequence[Sequence[Celebrity]]) -> Iterator[Celebrity]:
    """The first of every queue, then the second of every queue, and so on."""
    for place in range(max(map(len, queues), default=0)):
        yield from (queue[place] for queue in queues if place < len(queue))


def _first(values: Iterable[str]) -> str | None:
    return next(iter(values), None)
