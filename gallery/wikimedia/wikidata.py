"""Asks Wikidata's query service who is famous for what.

Source: https://www.mediawiki.org/wiki/Wikidata_Query_Service/User_Manual (60 s a query, 60 s of
query time a minute) and https://www.wikidata.org/wiki/Wikidata:Database_reports (sitelinks).
"""

import contextlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from engine.errors import SourceDown
from engine.http import HttpClient, Patience, Retry, TooSlow
from gallery.wikimedia import refusals
from gallery.wikimedia.cache import Cache

_FAMOUS: Final = (60, 20)  # wikis with an article; tens of thousands of people have 60
_QUERY_S: Final = 75.0  # the service gives up after 60
_PAGE_PEOPLE: Final = 500
_SMALLEST_PAGE: Final = 20
_QUERY_S_A_MINUTE: Final = 50.0  # of the 60 s that are allowed
_GENDERS: Final = {"Q6581097": "male", "Q6581072": "female"}

# Whom a page is about is found first, without labels: labels for a list that is sorted and cut
# afterwards are what makes queries run out of time. Rows repeat per occupation, country and image.
_QUERY: Final = """\
PREFIX wd: <http://www.wikidata.org/entity/>
PREFIX wdt: <http://www.wikidata.org/prop/direct/>
PREFIX wikibase: <http://wikiba.se/ontology#>
PREFIX bd: <http://www.bigdata.com/rdf#>
SELECT ?p ?pLabel ?image ?n ?occupation ?country ?countryLabel ?gender ?genderLabel ?commons
WHERE {{
  {{
    SELECT DISTINCT ?p ?n WHERE {{
      {occupations}
      {countries}
      ?p wdt:P106 ?occupation; wdt:P31 wd:Q5; wdt:P18 ?picture; wikibase:sitelinks ?n.
      {citizens}
      FILTER(?n >= {min_fame})
    }}
    ORDER BY DESC(?n) ?p
    LIMIT {limit}
    OFFSET {offset}
  }}
  {occupations}
  ?p wdt:P106 ?occupation; wdt:P18 ?image.
  OPTIONAL {{ ?p wdt:P27 ?country. }}
  OPTIONAL {{ ?p wdt:P21 ?gender. }}
  OPTIONAL {{ ?p wdt:P373 ?commons. }}
  SERVICE wikibase:label {{
    bd:serviceParam wikibase:language "en,mul,es,fr,de,pt,it,ru,hi,ja,ko,zh".
  }}
}}
ORDER BY DESC(?n) ?p
"""

_LABELS: Final = """\
PREFIX wd: <http://www.wikidata.org/entity/>
PREFIX rdfs: <http://www.w3.org/2000/01/rdf-schema#>
PREFIX skos: <http://www.w3.org/2004/02/skos/core#>
SELECT ?item ?label WHERE {{
  {items}
  ?item rdfs:label|skos:altLabel ?label.
  FILTER(LANG(?label) IN ("en", "mul"))
}}
"""


class Row(NamedTuple):
    """One row of an answer; None is what the server does not say."""

    q_id: str  # whom it is about, such as Q42
    name: str | None  # in a known language
    image: str  # title of a file on Commons, without namespace
    fame: int  # in how many wikis there is an article
    occupation: str | None = None  # Q-id
    country: str | None = None  # Q-id
    country_name: str | None = None
    gender: str | None = None
    commons: str | None = None  # title of the person's category on Commons, without namespace


class Wikidata:
    """Asks the query service at ``url``, one question at a time."""

    def __init__(self, client: HttpClient, url: str, cache: Cache) -> None:
        self._client, self._url, self._cache = client, url, cache
        self._patience = replace(client.patience, stall_s=_QUERY_S, tries_when_slow=1)
        self._once = replace(client.patience, stall_s=20.0, tries=1)
        self._spent: list[tuple[float, float]] = []  # when a query ended, how long it took

    def most_famous(
        self, occupations: Sequence[str], countries: Sequence[str], *, min_fame: int, people: int
    ) -> list[Row]:
        """Rows about the most famous people with one of the occupations, in any order.

        The famous first, which is a small question; ``people`` are enough. No countries: any.
        """
        found: list[Row] = []
        for floor in (*(fame for fame in _FAMOUS if fame > min_fame), min_fame):
            rows = self._rows(occupations, countries, floor, people)
            found += (row for row in rows if row.fame >= floor)
            if len({row.q_id for row in found}) >= people:
                break
        return found

    def labels(self, q_ids: Iterable[str]) -> dict[str, list[str]]:
        """English names of items, the usual ones and others; none where the service has none.

        Asked once; whatever comes back is enough, because nothing depends on it.
        """
        query = _LABELS.format(items=_values("item", sorted(q_ids)))
        known: dict[str, list[str]] | None = self._cache.get("labels", query)
        if known is None:
            known = {}
            with contextlib.suppress(SourceDown):
                for binding in self._asked(query, self._once):
                    q_id, label = _q_id(binding, "item"), binding.get("label")
                    if q_id and label:
                        known.setdefault(q_id, []).append(label)
            self._cache.put("labels", query, known)
        return known

    def _rows(
        self, occupations: Sequence[str], countries: Sequence[str], min_fame: int, people: int
    ) -> list[Row]:
        """Page after page; a query that runs out of time is cut into smaller ones."""
        found: dict[Row, None] = {}
        size, offset = _PAGE_PEOPLE, 0
        while True:
            query = _QUERY.format(
                occupations=_values("occupation", occupations),
                countries=_values("citizenship", countries) if countries else "",
                citizens="?p wdt:P27 ?citizenship." if countries else "",
                min_fame=min_fame,
                limit=size,
                offset=offset,
            )
            try:
                rows, counts = self._page(query)
            except TooSlow:
                if middle := len(occupations) // 2:
                    first = self._rows(occupations[:middle], countries, min_fame, people)
                    return first + self._rows(occupations[middle:], countries, min_fame, people)
                if size <= _SMALLEST_PAGE:
                    raise SourceDown(
                        f"{urlsplit(self._url).netloc} has no time for this: try again later, or "
                        "with a larger --min-fame; what has arrived is kept"
                    ) from None
                size = max(_SMALLEST_PAGE, size // 5)
                continue
            before = len(found)
            found |= dict.fromkeys(Row(*row) for row in rows)
            enough = len({row.q_id for row in found}) >= people
            # The limit is one of people; a mirror that takes it for one of rows loses nothing.
            if enough or size not in counts or len(found) == before:
                return list(found)
            offset += size

    def _page(self, query: str) -> tuple[list[list[Any]], list[int]]:
        """The rows of an answer that can be used; of how many people and rows it was in all."""
        known = self._cache.get("people", query)
        if known is None:
            answer = self._asked(query, self._patience)
            counts = [len({_q_id(binding, "p") for binding in answer}), len(answer)]
            known = [[row for row in map(_row, answer) if row is not None], counts]
            self._cache.put("people", query, known)
        rows, counts = known
        return rows, counts

    def _asked(self, query: str, patience: Patience) -> list[dict[str, str]]:
        """Rows of an answer; raises TooSlow where the service says that the query took too long."""
        now, allowed = time.monotonic, _QUERY_S_A_MINUTE
        while sum(took for ended, took in self._spent if now() - ended <= 60.0) >= allowed:
            if self._client.stop.wait(1.0):
                break  # the client raises Stopped
        began = now()
        asked = {"query": query, "format": "json"}
        try:
            with refusals(self._url, "gallery.wikidata_url"):
                return self._client.get(self._url, _bindings, asked, patience)
        finally:
            self._spent.append((now(), now() - began))


def file_title(address: str) -> str:
    """The title behind ``.../wiki/Special:FilePath/Name%20X.jpg``: ``Name X.jpg``."""
    name = unquote(urlsplit(address).path.rpartition("/Special:FilePath/")[2] or address)
    return " ".join(name.replace("_", " ").split())


def _values(variable: str, q_ids: Iterable[str]) -> str:
    return f"VALUES ?{variable} {{ {' '.join(f'wd:{q_id}' for q_id in q_ids)} }}"


def _bindings(body: bytes, _pause_s: float | None) -> list[dict[str, str]]:
    """Texts by variable, on one line, of an answer in the SPARQL 1.1 query results JSON format."""
    try:
        return [
            {name: " ".join(str(term.get("value", "")).split()) for name, term in row.items()}
            for row in json.loads(body)["results"]["bindings"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        late = b"TimeoutException" in body  # it had begun to answer when time ran out
        raise Retry("it sends no results", status=200, slow=late) from None


def _row(binding: Mapping[str, str]) -> Row | None:
    """None if the person or the picture is unknown."""
    q_id, image = _q_id(binding, "p"), binding.get("image")
    if q_id is None or not image:
        return None
    name, fame = binding.get("pLabel") or None, binding.get("n", "")
    country, gender = _q_id(binding, "country"), _q_id(binding, "gender")
    return Row(
        q_id=q_id,
        name=None if name == q_id else name,
        image=file_title(image),
        fame=int(float(fame)) if fame.replace(".", "", 1).isdecimal() else 0,
        occupation=_q_id(binding, "occupation"),
        country=country,
        country_name=binding.get("countryLabel") or country,
        gender=_GENDERS.get(gender or "") or binding.get("genderLabel") or gender,
        commons=binding.get("commons") or None,
    )


def _q_id(binding: Mapping[str, str], variable: str) -> str | None:
    """``Q42`` of ``http://www.wikidata.org/entity/Q42``; None for unknown values."""
    last = binding.get(variable, "").rpartition("/")[2]
    return last if last[:1] == "Q" and last[1:].isdecimal() else None
